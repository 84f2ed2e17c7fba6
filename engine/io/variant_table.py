"""A Parquet table of variants: rows become sites-only VCF lines, so that all later steps see one kind of record.

Columns, by name: `contig`; `start` (0-based) or `pos` (1-based); `ref`; `alt` or `alts` (text, several alleles parted
by commas, or a list of texts; null for none); `id` if there. Other columns are ignored.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.errors import InputError
from engine.io.planning import Planner, as_data_error, check_shard
from engine.io.regions import MAX_POS, Region, RegionSet
from engine.io.source import RawRecord, Scan, Shard
from engine.io.streams import feed_before
from engine.io.vcf import covered_end, raw_record
from schemas.tables import SCHEMA_KEY

_HEADER = b"##fileformat=VCFv4.3\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
_BATCH_ROWS = 1 << 16
_SCORES = b"variant_scores"
_has_odd = re.compile(r"[\t\r\n\0]").search
_is_plain = re.compile(r"[^\s\x00]+").fullmatch
# Columns of a line besides CHROM, ID, REF and ALT: POS at its longest, three dots, tabs and line end.
_LINE_BYTES = 21

Row = tuple[str | None, int | None, str | None, str | None, str | None]
"""contig, 1-based pos, id, ref, alt."""


class VariantTable:
    """A Parquet file as a `VariantSource`; plan offsets are row numbers.

    Under `regions` all rows are read and filtered.
    """

    def __init__(self, path: str | Path, *, regions: Sequence[Region] = ()) -> None:
        """Read the footer.

        Raises:
            InputError: no Parquet, or columns missing or of the wrong type.
        """
        self.path = str(path)
        self._regions = RegionSet(regions)
        with _reading(self.path), pq.ParquetFile(path) as file:
            self._columns = _find_columns(self.path, file.schema_arrow)
            rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        self._group_ends = np.cumsum(rows, dtype=np.int64)
        self._cached: tuple[int, pa.Table] | None = None
        self.header = _HEADER

    def scan(
        self,
        *,
        records_per_shard: int,
        bytes_per_shard: int,
        on_record: Callable[[RawRecord], None] | None = None,
        on_record_limit: int = 0,
    ) -> Scan:
        """See `VariantSource.scan`. Bytes are counted as those of the lines made from the rows, nearly."""
        planner = Planner(
            self.path,
            records_per_shard=records_per_shard,
            bytes_per_shard=bytes_per_shard,
            how_to_sort=f"order the rows of the table by {self._columns['contig']}, {self._columns['place']}",
        )
        digest = hashlib.sha256()
        feed_before(Path(self.path), Path(self.path).stat().st_size, digest.update)
        limit = on_record_limit if on_record is not None else 0
        first_row = bytes_before = 0
        for table in self._tables():
            rows = _rows(table, self._columns)
            if on_record is not None and (wanted := limit - planner.num_records) > 0:
                for record in itertools.islice(self._records(rows, planner.num_records), wanted):
                    on_record(record)
            marks = _marks(table, self._columns) + bytes_before
            self._plan(rows, marks, first_row, planner)
            first_row, bytes_before = first_row + len(rows), int(marks[-1])
        return planner.finish(digest.hexdigest(), [])

    def _tables(self) -> Iterator[pa.Table]:
        with _reading(self.path), pq.ParquetFile(self.path, page_checksum_verification=True, pre_buffer=False) as file:
            names = list(self._columns.values())
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=names, use_threads=False):
                yield pa.Table.from_batches([batch])

    def _plan(self, rows: list[Row], marks: npt.NDArray[np.int64], first_row: int, planner: Planner) -> None:
        def locate(position: int) -> int:
            return first_row + int(np.searchsorted(marks, position))

        sites = [_site(row) for row in rows]
        done = 0
        for (contig, chosen), group in itertools.groupby(
            zip(sites, rows, strict=True), key=lambda pair: (pair[0][0], self._is_selected(pair[1]))
        ):
            starts = [site[1] for site, _ in group]
            if chosen:
                planner.add(contig, starts, marks=marks[done : done + len(starts) + 1], locate=locate)
            done += len(starts)

    def _is_selected(self, row: Row) -> bool:
        if not self._regions:
            return True
        contig, start = _site(row)
        if contig is None or start is None:
            return False
        return self._regions.overlap(contig, start, covered_end(start, _line(row)))

    def _records(self, rows: Sequence[Row], first: int) -> Iterator[RawRecord]:
        ordinal = first
        for row in rows:
            if self._is_selected(row):
                yield _raw_record(ordinal, row)
                ordinal += 1

    def read(self, shard: Shard) -> Sequence[RawRecord]:
        """See `VariantSource.read`."""
        with as_data_error(), _reading(self.path):
            rows = self._read_rows(shard.begin, shard.end)
            records = list(self._records(rows, shard.first_record))
        check_shard(self.path, shard, records)
        return records

    def _read_rows(self, begin: int, end: int) -> list[Row]:
        """Rows [begin, end); the last row group read is kept, as shards follow one another."""
        rows: list[Row] = []
        group = int(np.searchsorted(self._group_ends, begin, side="right"))
        while begin < end and group < len(self._group_ends):
            table = self._row_group(group)
            base = int(self._group_ends[group]) - table.num_rows
            upto = min(end, base + table.num_rows)
            rows.extend(_rows(table.slice(begin - base, upto - begin), self._columns))
            begin, group = upto, group + 1
        return rows

    def _row_group(self, group: int) -> pa.Table:
        if self._cached is None or self._cached[0] != group:
            self._cached = None
            names = list(self._columns.values())
            with pq.ParquetFile(self.path, page_checksum_verification=True, pre_buffer=False) as file:
                self._cached = group, file.read_row_group(group, columns=names, use_threads=False)
        return self._cached[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cached": None}


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turns what pyarrow raises on a damaged file into an InputError."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else repr(error)
        raise InputError(
            f"the Parquet file does not decode ({first})", where=path, fix="make or copy it again"
        ) from error


def _find_columns(path: str, schema: pa.Schema) -> dict[str, str]:
    """Role to column name."""
    if (schema.metadata or {}).get(SCHEMA_KEY) == _SCORES:
        raise InputError(
            "this is the table of scores of a run, which has a row for every allele and gene and not for every record",
            where=path,
            fix="give the VCF that was scored, or the scored one as run:OUTPUT",
        )
    found = {role: role for role in ("contig", "ref", "id") if role in schema.names}
    for role, names in (("place", ("start", "pos")), ("alt", ("alt", "alts"))):
        for name in reversed(names):
            if name in schema.names:
                found[role] = name
    missing = [role for role in ("contig", "place", "ref", "alt") if role not in found]
    if missing:
        words = {"place": "start (0-based) or pos (1-based)", "alt": "alt or alts"}
        raise InputError(
            f"the table lacks {', '.join(words.get(role, role) for role in missing)}",
            where=path,
            fix=f"rename its columns ({', '.join(schema.names[:20])})",
        )
    for role, name in found.items():
        _check_type(path, role, schema.field(name))
    return found


def _check_type(path: str, role: str, field: pa.Field) -> None:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if role == "alt" and (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        kind = kind.value_type
    good = pa.types.is_integer(kind) if role == "place" else _is_text(kind)
    if not good:
        wanted = "whole numbers" if role == "place" else "text"
        raise InputError(f"column {field.name!r} is {field.type}, not {wanted}", where=path, fix="cast it")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _text_column(table: pa.Table, columns: dict[str, str], role: str) -> pa.ChunkedArray:
    if role not in columns:
        return pa.chunked_array([pa.nulls(table.num_rows, pa.string())])
    column = table.column(columns[role])
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        joined = [None if alleles is None else ",".join(a or "" for a in alleles) for alleles in column.to_pylist()]
        return pa.chunked_array([pa.array(joined, pa.string())])
    return column.cast(pa.string())


def _rows(table: pa.Table, columns: dict[str, str]) -> list[Row]:
    shift = 1 if columns["place"] == "start" else 0
    places = [None if place is None else place + shift for place in table.column(columns["place"]).to_pylist()]
    texts = [_text_column(table, columns, role).to_pylist() for role in ("contig", "id", "ref", "alt")]
    return list(zip(texts[0], places, texts[1], texts[2], texts[3], strict=True))


def _marks(table: pa.Table, columns: dict[str, str]) -> npt.NDArray[np.int64]:
    """int64 (rows + 1,): bytes of the lines before each row."""
    sizes = np.full(table.num_rows, _LINE_BYTES, np.int64)
    for role in ("contig", "id", "ref", "alt"):
        lengths = pc.fill_null(pc.binary_length(_text_column(table, columns, role)), 1)
        sizes += np.asarray(lengths, np.int64)
    return np.concatenate(([0], np.cumsum(sizes)))


def _problem(row: Row) -> tuple[str, str] | None:
    """(reason code, sentence) where a row makes no record; a line made from any other row parses."""
    contig, pos, name, ref, alt = row
    if contig is None or not _is_plain(contig) or contig.startswith("#"):
        return "malformed_record", f"contig {contig!r} is not a contig name"
    if pos is None or not 1 <= pos <= MAX_POS:
        return "bad_position", f"position {pos} (1-based) is not a whole number from 1 to {MAX_POS}"
    if not ref:
        return "malformed_record", "ref is empty"
    if any(text and _has_odd(text) for text in (name, ref, alt)):
        return "malformed_record", "a cell holds a tab, a line end or a NUL byte"
    return None


def _site(row: Row) -> tuple[str | None, int | None]:
    if _problem(row) is not None or row[1] is None:
        return None, None
    return row[0], row[1] - 1


def _line(row: Row) -> bytes:
    contig, pos, name, ref, alt = row
    cells = (contig or ".", "." if pos is None else str(pos), name or ".", ref or ".", alt or ".", ".", ".", ".")
    line = "\t".join(cells)
    if line.count("\t") == 7 and "\n" not in line and "\r" not in line and "\0" not in line:
        return line.encode()
    return "\t".join(_clean(cell) for cell in cells).encode()


def _clean(cell: str) -> str:
    return "".join(" " if letter in "\t\r\n\0" else letter for letter in cell)


def _raw_record(ordinal: int, row: Row) -> RawRecord:
    problem = _problem(row)
    line = _line(row)
    return RawRecord(ordinal, line, None, problem) if problem else raw_record(ordinal, line, 8)
