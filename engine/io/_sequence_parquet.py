"""Sequences in a Parquet table; plan offsets are row numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.errors import InputError
from engine.io._sequence_columns import Layout, find_columns
from engine.io._sequence_rows import (
    Fill,
    RawSequences,
    Watcher,
    Windows,
    check_count,
    most_windows,
    raw_sequences,
    refuse_none,
    text_column,
)
from engine.io.planning import Planner, as_data_error
from engine.io.sequence_text import Parsed
from engine.io.source import RawRecord, Scan, Shard
from engine.io.streams import PlainStorage

_BATCH_ROWS = 1 << 14
_ROW_BYTES = 16
_KEPT_AS_THEY_ARE = ("start", "end")


class ParquetSequences:
    """A Parquet file as a `SequenceSource`. A row group is held whole while its shards are read."""

    def __init__(
        self,
        path: str,
        layout: Layout,
        *,
        windows: Windows | None = None,
        fill: Fill | None = None,
        watch: Watcher | None = None,
    ) -> None:
        """Read the footer.

        Raises:
            InputError: no Parquet, or columns missing or of a type that is none of text, numbers and dictionaries.
        """
        self.path = path
        self._windows = windows
        self._fill = fill or Fill()
        self._watch = watch
        with _reading(path), pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        self.columns = find_columns(schema.names, layout, path, windows=windows is not None)
        self._names = list(dict.fromkeys(self.columns.all_names()))
        for name in self._names:
            _check_type(path, schema.field(name))
        self._group_ends = np.cumsum(rows, dtype=np.int64)
        self._cached: tuple[int, pa.Table] | None = None

    def scan(
        self,
        *,
        records_per_shard: int,
        bytes_per_shard: int,
        on_record: Callable[[RawRecord], None] | None = None,  # noqa: ARG002 (of variants alone)
        on_record_limit: int = 0,  # noqa: ARG002
    ) -> Scan:
        """See `SequenceSource.scan`. A row counts as its sequence and a few bytes more."""
        most = most_windows(self._windows, bytes_per_shard)
        planner = Planner(
            self.path,
            records_per_shard=min(records_per_shard, most),
            bytes_per_shard=bytes_per_shard,
            how_to_sort="",
        )
        digest = hashlib.sha256()
        for _ in PlainStorage().blocks(Path(self.path), 0, on_raw=digest.update):
            pass
        first, before = 0, 0
        for table in self._tables():
            raw = self._raw(table, first)
            if self._watch is not None:
                self._watch(raw)
            sizes = np.asarray(pc.fill_null(pc.binary_length(raw.table["sequence"]), 0), np.int64) + _ROW_BYTES
            marks = np.concatenate(([0], np.cumsum(sizes))) + before
            planner.add(None, [None] * table.num_rows, marks=marks, locate=_row_of(marks, first))
            first, before = first + table.num_rows, int(marks[-1])
        refuse_none(first, self.path)
        return planner.finish(digest.hexdigest(), [])

    def _tables(self) -> Iterator[pa.Table]:
        with _reading(self.path), pq.ParquetFile(self.path, page_checksum_verification=True, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=self._names, use_threads=False):
                if batch.num_rows:
                    yield pa.Table.from_batches([batch])

    def _raw(self, table: pa.Table, first: int) -> RawSequences:
        asis = {self.columns.parts[part] for part in _KEPT_AS_THEY_ARE if part in self.columns.parts}
        asis |= set(self.columns.targets)
        columns = {
            name: _one_array(table[name]) if name in asis else text_column(_one_array(table[name]))
            for name in self._names
        }
        parsed = Parsed(columns, np.arange(table.num_rows + 1, dtype=np.int64))
        return raw_sequences(first, parsed, self.columns, windows=self._windows, fill=self._fill)

    def read(self, shard: Shard) -> RawSequences:
        """See `SequenceSource.read`."""
        with as_data_error(), _reading(self.path):
            table = pa.concat_tables(self._slices(shard.begin, shard.end))
        check_count(self.path, shard, table.num_rows)
        with as_data_error():
            return self._raw(table, shard.first_record)

    def _slices(self, begin: int, end: int) -> Iterator[pa.Table]:
        group = int(np.searchsorted(self._group_ends, begin, side="right"))
        while begin < end and group < len(self._group_ends):
            table = self._row_group(group)
            base = int(self._group_ends[group]) - table.num_rows
            upto = min(end, base + table.num_rows)
            yield table.slice(begin - base, upto - begin)
            begin, group = upto, group + 1

    def _row_group(self, group: int) -> pa.Table:
        if self._cached is None or self._cached[0] != group:
            self._cached = None
            with pq.ParquetFile(self.path, page_checksum_verification=True, pre_buffer=False) as file:
                self._cached = group, file.read_row_group(group, columns=self._names, use_threads=False)
        return self._cached[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cached": None}


def _row_of(marks: Any, first: int) -> Callable[[int], int]:
    return lambda position: first + int(np.searchsorted(marks, position))


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _check_type(path: str, one: pa.Field) -> None:
    kind = one.type.value_type if pa.types.is_dictionary(one.type) else one.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if not (text or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise InputError(f"column {one.name!r} is {one.type}, neither text nor numbers", where=path, fix="cast it")


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turns what pyarrow raises on a damaged file into an InputError."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else repr(error)
        what = f"the Parquet file does not decode ({first})"
        raise InputError(what, where=path, fix="make or copy it again") from error
