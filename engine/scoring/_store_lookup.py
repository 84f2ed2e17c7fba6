"""Looking scores up in the segments that a run froze: the reader's side of the score store."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from engine.errors import DataError
from engine.io import parquet
from engine.scoring._score_store import IMPORTED, KEYS, LOOKED_UP, FrozenStore, Segment, open_score_store

# Rows kept decoded per process, some 100 bytes each: consecutive shards ask for the same segments.
ROWS_KEPT = 1 << 20

Values = tuple[Any, ...]
_NOTHING: dict[Values, tuple[Values, str]] = {}


@dataclass
class Found:
    """Rows at a few places.

    Attributes:
        rows: contig, then the key (see schemas.tables.SCORE_STORE), to values of the scorer's columns and their source.
        lost: segments that were to be looked into and are damaged or gone.
    """

    rows: dict[str, dict[Values, tuple[Values, str]]] = field(default_factory=dict)
    lost: int = 0

    def get(self, contig: str, key: Values) -> tuple[Values, str] | None:
        """Values and source of a row, None where the store has it not."""
        return self.rows.get(contig, _NOTHING).get(key)


@dataclass(frozen=True)
class _Loaded:
    table: pa.Table
    starts: np.ndarray[Any, np.dtype[np.int64]]


class StoreLookup:
    """Opened once per process; keeps the segments it used last.

    Args:
        frozen: what may be looked into.
        fields: the scorer's columns.
    """

    def __init__(self, frozen: FrozenStore, fields: Sequence[pa.Field]) -> None:
        self._store = open_score_store(frozen.uri)
        self._fields = tuple(fields)
        self._sequences = frozen.sequences
        self._by_sequence: dict[str, list[Segment]] = {}
        for segment in frozen.segments:
            self._by_sequence.setdefault(segment.sequence, []).append(segment)
        self._kept: OrderedDict[str, _Loaded] = OrderedDict()
        self._lost: set[str] = set()

    def find(self, wanted: Mapping[str, Iterable[int]]) -> Found:
        """All rows at these starts.

        Args:
            wanted: contig of the input to 0-based starts as written.
        """
        found = Found()
        for contig, starts in wanted.items():
            places = np.unique(np.fromiter(starts, dtype=np.int64))
            rows = found.rows[contig] = {}
            for segment in self._by_sequence.get(self._sequences.get(contig, ""), ()):
                if _holds(segment, places):
                    found.lost += not self._add(segment, places, rows)
        return found

    def _add(
        self,
        segment: Segment,
        places: np.ndarray[Any, np.dtype[np.int64]],
        rows: dict[Values, tuple[Values, str]],
    ) -> bool:
        """Add a segment's rows at some places; False where it cannot be read."""
        loaded = self._load(segment)
        if loaded is None:
            return False
        begin, end = np.searchsorted(loaded.starts, [places[0], places[-1] + 1])
        hits = begin + np.flatnonzero(np.isin(loaded.starts[begin:end], places))
        if not len(hits):
            return True
        table = loaded.table.take(hits)
        columns = [table[name].to_pylist() for name in KEYS]
        values = [table[one.name].to_pylist() for one in self._fields]
        source = IMPORTED + segment.source if segment.source else LOOKED_UP
        for key, row in zip(zip(*columns, strict=True), zip(*values, strict=True), strict=True):
            rows.setdefault(key, (row, source))  # of two segments with the same row, the frozen order decides
        return True

    def _load(self, segment: Segment) -> _Loaded | None:
        """A segment decoded, every byte checked against the frozen list; None where that fails."""
        kept = self._kept.get(segment.name)
        if kept is not None:
            self._kept.move_to_end(segment.name)
            return kept
        if segment.name in self._lost:
            return None
        try:
            with self._store.opened(segment.name) as path:
                table = parquet.read_table(path, [*KEYS, *(one.name for one in self._fields)], crc32c=segment.crc32c)
        except (DataError, FileNotFoundError):  # a store that does not answer stops the run, which can be resumed
            self._lost.add(segment.name)
            return None
        loaded = self._kept[segment.name] = _Loaded(table.combine_chunks(), table["start"].to_numpy())
        while len(self._kept) > 1 and sum(len(one.starts) for one in self._kept.values()) > ROWS_KEPT:
            self._kept.popitem(last=False)
        return loaded


def _holds(segment: Segment, places: np.ndarray[Any, np.dtype[np.int64]]) -> bool:
    """Whether any place lies within the segment."""
    at = bisect_left(places, segment.first)
    return at < len(places) and bool(places[at] <= segment.last)
