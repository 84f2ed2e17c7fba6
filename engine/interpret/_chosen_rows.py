"""The rows of a set that are explained, as an input of their own: dense shards of equal size, but for the last.

Equal shards let each write whole shards of the Zarr arrays that hold the attributions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.errors import InputError
from engine.io.source import RawRecord, Scan, Shard
from engine.scoring._finished_rows import FinishedRows, RowSource
from engine.training._evaluate_stages import ChosenSplit
from schemas import states

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Choice:
    """Which rows are explained.

    Attributes:
        ids: names of records; all where empty.
        split: those of a split; None takes all.
        limit: the first so many of them; None takes all.
    """

    ids: tuple[str, ...] = ()
    split: ChosenSplit | None = None
    limit: int | None = None


@dataclass(frozen=True, eq=False)
class Chosen:
    """Attributes:
    rows: (N,) places in the set, ascending.
    lengths: (N,) letters of each; 0 where the ingest rejected it.
    contigs: those on which they lie, by name.
    splits_digest: of the split file; empty without one.
    """

    rows: Rows
    lengths: Rows
    contigs: tuple[str, ...] = ()
    splits_digest: str = ""


def choose(data: FinishedRows, choice: Choice) -> Chosen:
    """The chosen rows; of records that the ingest rejected only those that are named by their id.

    Raises:
        InputError: an id that the set does not have, or no row at all.
    """
    tables = [data.table(part, ["record", "id", "length", "contig", "state"]) for part in data.parts]
    table = pa.concat_tables(tables) if tables else None
    if table is None or not table.num_rows:
        raise InputError("the set has no rows", where=data.uri, fix="give a set with sequences")
    kept_N = np.asarray(table["state"].to_pylist()) == states.KEPT
    wanted_N = _named(table["id"].to_pylist(), choice.ids, data.uri) if choice.ids else kept_N.copy()
    digest = ""
    if choice.split is not None:
        splits = choice.split.load(data.digest)
        names_N = np.full(len(kept_N), "", "U10")
        names_N[kept_N] = splits.of(table["record"].to_numpy()[kept_N], fold=choice.split.fold, where="the set")
        wanted_N &= np.isin(names_N, choice.split.names)
        digest = splits.digest
    rows = np.flatnonzero(wanted_N)[: choice.limit]
    if not len(rows):
        raise InputError("no row of the set is chosen", where=data.uri, fix="choose other ids or another split")
    lengths = np.where(kept_N, table["length"].to_numpy(), 0)
    contigs = {one for one in table["contig"].take(pa.array(rows)).unique().to_pylist() if one is not None}
    return Chosen(rows.astype(np.int64), lengths[rows].astype(np.int64), tuple(sorted(contigs)), digest)


def _named(ids: Sequence[str | None], wanted: Sequence[str], where: str) -> NDArray[np.bool_]:
    known = set(ids)
    for name in wanted:
        if name not in known:
            raise InputError(f"no record of the set is named {name!r}", where=where, fix="choose other ids")
    asked = set(wanted)
    return np.array([one in asked for one in ids], dtype=bool)


class ChosenRows(RowSource):
    """The chosen rows as a plannable input; `begin` and `end` of a shard count them.

    Args:
        data: the set.
        chosen: which rows of it.
        columns: to read.
        weight: as RowSource has it.
    """

    def __init__(self, data: FinishedRows, chosen: Chosen, columns: Sequence[str], *, weight: str) -> None:
        super().__init__(data, columns, weight=weight)
        self._chosen = chosen

    def scan(
        self,
        *,
        records_per_shard: int,
        bytes_per_shard: int,  # noqa: ARG002 - the rows of a shard are as many as the store's
        on_record: Callable[[RawRecord], None] | None = None,  # noqa: ARG002 - of variants alone
        on_record_limit: int = 0,  # noqa: ARG002
    ) -> Scan:
        """Cut the chosen rows; every part of the set is checked, and the digest is the set's.

        Raises:
            DataError: a part is not what was committed.
        """
        for part in self.rows.parts:
            self.rows.table(part, [self._weight])
        num = len(self._chosen.rows)
        bounds = [(low, min(low + records_per_shard, num)) for low in range(0, num, records_per_shard)]
        shards = [Shard(i, low, high, high - low, low, None, None, None, None) for i, (low, high) in enumerate(bounds)]
        contigs: Mapping[str, int] = {}
        return Scan(shards, num, self.rows.digest, contigs)

    def read(self, shard: Shard) -> pa.Table:
        """The rows of a shard, in order.

        Raises:
            DataError: a part is not what was committed.
        """
        rows = self._chosen.rows[shard.begin : shard.end]
        pieces = []
        for part in self.rows.parts[self._first_part(int(rows[0])) :]:
            here = rows[(rows >= part.first) & (rows < part.end)]
            if len(here):
                pieces.append(self._part(part).take(pa.array(here - part.first)))
            if part.end > rows[-1]:
                break
        return pa.concat_tables(pieces).combine_chunks()
