"""Exact duplicates among any number of records, without holding their sequences; and near ones, which holds them.

The planning pass reads every record once anyway, so it notes a 128-bit BLAKE2b digest of each sequence that would be
kept (32 bytes a record), spilled into 256 files by the digest's first byte. The files are then looked at one by one.
The answer has to be known before the first part is written, since a part says of each row whether it is kept; a second
pass over finished parts would have to write them again. The first record of a sequence stands; with 128 bits two
different sequences share a digest once in some 10^38 pairs.

Near duplicates are looked for among what is left, in the order of the input (engine/genome/minhash.py); they take the
memory of the sequences and some 600 bytes a record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.genome.minhash import Likeness, near_earlier
from engine.ingest.cleaning import Cleaned
from engine.io import parquet
from schemas import tables

Policy = Literal["sequence", "row", "keep"]
"""Which records repeat an earlier one: those of its sequence, or also of its label and targets, or none."""

NOTE = np.dtype([("high", "<u8"), ("low", "<u8"), ("values", "<u8"), ("record", "<i8")])
Notes = npt.NDArray[np.void]

_BUCKETS = 256
_HELD = 1 << 21


class DuplicateFinder:
    """Takes batches in input order.

    Args:
        folder: for the files, made where there is need.
        policy: `sequence` or `row`.
        near: what near duplicates are; None looks for exact ones alone.
    """

    def __init__(self, folder: Path, policy: Policy, near: Likeness | None = None) -> None:
        self._folder = folder
        self._policy = policy
        self._near = near
        self._sequences: list[pa.Table] = []
        self._held: list[Notes] = []
        self._num_held = 0
        self._has_files = False

    def add(self, cleaned: Cleaned) -> None:
        """Note the records that would be kept."""
        notes = digests(cleaned, self._policy)
        self._held.append(notes)
        self._num_held += len(notes)
        if self._near is not None:
            kept = pa.array(np.flatnonzero(cleaned.is_kept()))
            self._sequences.append(cleaned.table.select(["record", "sequence"]).take(kept))
        if self._num_held >= _HELD:
            self._spill()

    def _spill(self) -> None:
        if not self._has_files:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._has_files = True
        notes = np.concatenate(self._held)
        buckets = _bucket(notes)
        order = np.argsort(buckets, kind="stable")
        bounds = np.searchsorted(buckets[order], np.arange(_BUCKETS + 1))
        for bucket in np.unique(buckets).tolist():
            with (self._folder / f"{bucket:03d}").open("ab") as stream:
                stream.write(notes[order[bounds[bucket] : bounds[bucket + 1]]].tobytes())
        self._held, self._num_held = [], 0

    def _parts(self) -> Iterator[Notes]:
        if not self._has_files:
            if self._held:
                yield np.concatenate(self._held)
            return
        self._spill() if self._held else None
        for path in sorted(self._folder.iterdir()):
            yield np.frombuffer(path.read_bytes(), NOTE)

    def table(self) -> pa.Table:
        """Rows of schemas.tables.DUPLICATES, by record."""
        found = [_repeats(notes) for notes in self._parts()]
        if self._near is not None:
            found.append(self._near_ones(np.concatenate([np.zeros(0, np.int64), *(one[0] for one in found)])))
        columns = [np.concatenate([np.zeros(0, kind), *(one[i] for one in found)]) for i, kind in enumerate(_KINDS)]
        order = np.argsort(columns[0])
        arrays = [pa.array(column[order], from_pandas=True) for column in columns]
        return pa.table(arrays, schema=tables.DUPLICATES)

    def _near_ones(self, exact: npt.NDArray[np.int64]) -> _Repeats:
        """Of the records that repeat none exactly."""
        assert self._near is not None
        if not self._sequences:
            return tuple(np.zeros(0, kind) for kind in _KINDS)
        whole = pa.concat_tables(self._sequences)
        whole = whole.filter(pc.invert(pc.is_in(whole["record"], pa.array(exact)))).sort_by("record")
        records = np.asarray(whole["record"])
        earlier, similarity = near_earlier([text.encode() for text in whole["sequence"].to_pylist()], self._near)
        near = earlier >= 0
        return records[near], records[earlier[near]], similarity[near], np.zeros(int(near.sum()), bool)


_VALUES = ("label", "target", "targets", "position_labels")
_NO_VALUES = (None,) * len(_VALUES)
_KINDS = (np.int64, np.int64, np.float64, bool)
_Repeats = tuple[npt.NDArray[Any], ...]


def digests(cleaned: Cleaned, policy: Policy) -> Notes:
    """Notes (kept rows,) of a batch."""
    kept = np.flatnonzero(cleaned.is_kept())
    some = cleaned.table.select(["sequence", "second", *_VALUES]).take(pa.array(kept))
    values = _values(some)
    notes = np.zeros(len(kept), NOTE)
    notes["record"] = np.asarray(cleaned.table["record"])[kept]
    notes["values"] = np.frombuffer(b"".join(_short(text) for text in values), "<u8")
    texts = some["sequence"].to_pylist()
    if some["second"].null_count < len(kept):  # a pair is told from others by both its members
        texts = [f"{one}\0{other}" for one, other in zip(texts, some["second"].to_pylist(), strict=True)]
    if policy == "row":
        texts = [f"{text}\0{value}" for text, value in zip(texts, values, strict=True)]
    whole = b"".join(hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts)
    pairs = np.frombuffer(whole, ">u8").reshape(-1, 2)
    notes["high"], notes["low"] = pairs[:, 0], pairs[:, 1]
    return notes


def _values(some: pa.Table) -> list[str]:
    """Label and targets of each row as one text, empty where there are none; the same in any batch."""
    columns = [some[name] for name in _VALUES]
    if all(column.null_count == len(column) for column in columns):
        return [""] * some.num_rows
    rows = zip(*(column.to_pylist() for column in columns), strict=True)
    return ["" if row == _NO_VALUES else repr(row) for row in rows]


def _short(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest() if text else bytes(8)


def _bucket(notes: Notes) -> npt.NDArray[np.uint64]:
    found: npt.NDArray[np.uint64] = notes["high"] >> np.uint64(56)
    return found


def _repeats(notes: Notes) -> _Repeats:
    """Columns of schemas.tables.DUPLICATES."""
    order = np.lexsort((notes["record"], notes["low"], notes["high"]))
    sorted_notes = notes[order]
    fresh = np.zeros(len(order), bool)
    fresh[:1] = True
    for half in ("high", "low"):
        fresh[1:] |= sorted_notes[half][1:] != sorted_notes[half][:-1]
    first = np.flatnonzero(fresh)[np.cumsum(fresh) - 1]
    conflict = sorted_notes["values"] != sorted_notes["values"][first]
    repeats = ~fresh
    equal = np.full(int(repeats.sum()), np.nan)
    return sorted_notes["record"][repeats], sorted_notes["record"][first][repeats], equal, conflict[repeats]


def write_duplicates(table: pa.Table, path: Path) -> None:
    """Write rows of schemas.tables.DUPLICATES."""
    parquet.write_table(table, path, schema_name="duplicates", version=tables.DUPLICATES_VERSION)


class Duplicates:
    """The repeats of one shard at a time, by the row groups that hold them.

    Args:
        path: a local file of `write_duplicates`, whose checksum the caller has checked.
    """

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False)
        groups = [self._file.metadata.row_group(i).column(0).statistics for i in range(self._file.num_row_groups)]
        self._spans = [(one.min, one.max) if one is not None else (-1, -1) for one in groups]

    def among(self, first: int, num: int) -> pa.Table:
        """Rows whose record is one of [first, first + num)."""
        groups = [i for i, (low, high) in enumerate(self._spans) if low < first + num and high >= first]
        if not groups:
            return tables.DUPLICATES.empty_table()
        table = self._file.read_row_groups(groups, use_threads=False)
        inside = pc.and_(pc.greater_equal(table["record"], first), pc.less(table["record"], first + num))
        return table.filter(inside)
