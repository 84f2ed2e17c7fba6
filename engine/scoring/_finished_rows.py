"""Rows of a finished run, such as a sequence set, as an input: cut into a plan, and read shard by shard.

A part is read by the checksum that the run's manifest vouches for, so what is predicted is what was committed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa

from engine.errors import DataError, InputError
from engine.io import parquet
from engine.io.source import RawRecord, Scan, Shard
from engine.runtime import layout
from engine.runtime.commit import committed_files
from engine.storage.store import open_store

_RUN = "run:"


@dataclass(frozen=True, slots=True)
class Part:
    """A data part: its name below the run, its CRC-32C, and its rows among all of the run."""

    name: str
    crc32c: int
    first: int
    num_rows: int

    @property
    def end(self) -> int:
        """Just past its last row."""
        return self.first + self.num_rows


@dataclass(frozen=True)
class FinishedRows:
    """A finished run whose rows are an input; picklable.

    Attributes:
        uri: its output.
        digest: of its manifest.
        facts: what its manifest tells.
        parts: in the order of its shards.
    """

    uri: str
    digest: str
    facts: dict[str, Any]
    parts: tuple[Part, ...]

    @property
    def num_rows(self) -> int:
        """Of all parts."""
        return self.parts[-1].end if self.parts else 0

    def table(self, part: Part, columns: Sequence[str] | None = None) -> pa.Table:
        """The columns of a part, checked before they are decoded.

        Raises:
            DataError: the part is missing or is not what was committed.
        """
        try:
            with open_store(self.uri).opened(part.name) as path:
                return parquet.read_table(path, columns, crc32c=part.crc32c)
        except FileNotFoundError:
            fix = "restore it, or make the run anew"
            raise DataError("the part is missing", where=f"{self.uri}/{part.name}", fix=fix) from None
        except DataError as error:
            # It is an input here, so what `read_table` advises of a run's own parts would lose it.
            fix = "restore it from a copy, or make that run anew"
            raise DataError(error.what, where=f"{self.uri}/{part.name}", fix=fix) from error


def open_finished(text: str, *, job: str, schema: str) -> FinishedRows:
    """A finished run's rows.

    Args:
        text: its output, also as run:OUTPUT.
        job: the job that makes such rows, as the command says it.
        schema: name and version of the rows, such as "sequences 1".

    Raises:
        InputError: no finished run of that job there, or rows of another version.
    """
    uri = text.removeprefix(_RUN)
    store = open_store(uri)
    if not store.exists(layout.MANIFEST):
        begun = store.exists(layout.RUN)
        what = "the run is not finished" if begun else "there is no finished run here"
        raise InputError(what, where=uri, fix="finish it first" if begun else f"give the output of {job}")
    manifest = layout.read_sealed(store, layout.MANIFEST)
    if manifest["job"] != job.replace("-", "_"):
        what = f"this is a run of {str(manifest['job']).replace('_', '-')}, not of {job}"
        images = "; models of images go over it by predict-images" if manifest["job"] == "ingest_images" else ""
        raise InputError(what, where=uri, fix=f"give the output of {job}{images}")
    found = manifest["facts"].get("table_schema")
    if found != schema:
        what = f"holds rows of schema {found}, this version reads {schema}"
        raise InputError(what, where=uri, fix="make the run anew with this version")
    files = committed_files(store, manifest)
    names = sorted((name for name in files if name.startswith("data/")), key=layout.shard_of)
    firsts = accumulate((files[name].rows for name in names), initial=0)
    parts = [
        Part(name, files[name].crc32c, first, files[name].rows) for name, first in zip(names, firsts, strict=False)
    ]
    return FinishedRows(store.uri, str(manifest["digest"]), manifest["facts"], tuple(parts))


class RowSource:
    """A finished run's rows as a plannable input; a shard is a stretch of one part.

    Args:
        rows: the run.
        columns: to read.
        weight: column of whole numbers by which shards are cut beside their rows, such as letters.
    """

    def __init__(self, rows: FinishedRows, columns: Sequence[str], *, weight: str) -> None:
        self.rows = rows
        self._store = open_store(rows.uri)  # held: what a remote one fetches goes when it does
        self.path = str(self._store.fetch(layout.MANIFEST))
        self._columns = list(columns)
        self._weight = weight
        self._cached: tuple[Part, pa.Table] | None = None

    def scan(
        self,
        *,
        records_per_shard: int,
        bytes_per_shard: int,
        on_record: Callable[[RawRecord], None] | None = None,  # noqa: ARG002 - of variants alone
        on_record_limit: int = 0,  # noqa: ARG002
    ) -> Scan:
        """Check every part and cut it; the digest is the run's own.

        Raises:
            DataError: a part is not what was committed.
        """
        shards: list[Shard] = []
        for part in self.rows.parts:
            weights_N = self.rows.table(part, [self._weight])[self._weight].to_numpy()
            for begin, end in _cut(weights_N, records_per_shard, bytes_per_shard):
                low, high = part.first + begin, part.first + end
                shards.append(Shard(len(shards), low, high, high - low, low, None, None, None, None))
        return Scan(shards, self.rows.num_rows, self.rows.digest, {})

    def read(self, shard: Shard) -> pa.Table:
        """The rows of a shard, in order.

        Raises:
            DataError: the part is not what was committed.
        """
        pieces = []
        for part in self.rows.parts[self._first_part(shard.begin) :]:
            low, high = max(shard.begin, part.first), min(shard.end, part.end)
            if low < high:
                pieces.append(self._part(part).slice(low - part.first, high - low))
            if part.end >= shard.end:
                break
        return pa.concat_tables(pieces).combine_chunks()

    def _first_part(self, row: int) -> int:
        ends = np.fromiter((part.end for part in self.rows.parts), np.int64, len(self.rows.parts))
        return int(np.searchsorted(ends, row, side="right"))

    def _part(self, part: Part) -> pa.Table:
        """Neighbouring shards are of one part."""
        if self._cached is None or self._cached[0] != part:
            self._cached = part, self.rows.table(part, self._columns)
        return self._cached[1]


def _cut(weights_N: np.ndarray[Any, np.dtype[Any]], most_rows: int, most_weight: int) -> list[tuple[int, int]]:
    """Stretches of rows, each of at most so many rows and, but for single rows, so much weight."""
    sums = np.concatenate([[0], np.cumsum(weights_N, dtype=np.int64)])
    found, begin = [], 0
    while begin < len(weights_N):
        heavy = int(np.searchsorted(sums, sums[begin] + most_weight, side="right")) - 1
        end = max(begin + 1, min(begin + most_rows, heavy))
        found.append((begin, end))
        begin = end
    return found
