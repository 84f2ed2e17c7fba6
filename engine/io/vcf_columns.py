"""VCF text as Arrow columns: whole BGZF blocks at a time, no Python object per record or sample.

The plan is cut in one streamed pass that digests the input; a shard is read again by its offsets. What a line must be
to be taken is what `engine.io.vcf` asks of it, and more: as many columns as the #CHROM line, values of the types that
the header declares, genotypes of alleles that exist. Lines that fall short are refused one by one, with a reason.

Source: the Variant Call Format specification 4.3 (samtools/hts-specs); where it is silent, what htslib does.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import DataError, InputError
from engine.io import _vcf_lines, _vcf_sites, bgzf
from engine.io._genotypes import read_genotypes
from engine.io._vcf_formats import format_about, format_type, read_formats
from engine.io._vcf_header import Declared, chosen, columns_line, sample_names
from engine.io._vcf_lines import Lines, Refused
from engine.io._vcf_plan import ColumnPlanner, add_stretches, read_stretch
from engine.io.bcf import BcfSource
from engine.io.planning import as_data_error
from engine.io.source import Plannable, RawRecord, Scan, Shard
from engine.io.streams import Mapper, PlainStorage, feed_before, iter_lines
from engine.io.variants import open_variants
from engine.io.vcf import VcfSource
from schemas import states, tables

BATCH_BYTES = 2 << 20
"""Text parsed at a time: enough that calls into native code count little, few enough that arrays stay in cache."""

_STRETCH_BYTES = 4 << 20
_MAX_TEXT = 1000
_BCF_RECORDS = 1000


@dataclass(frozen=True)
class Columns:
    """What to take from each record; picklable.

    Attributes:
        num_columns: columns of the #CHROM line.
        infos: INFO fields to take.
        genotypes: whether GT is taken.
        formats: FORMAT fields to take beside GT.
    """

    num_columns: int
    infos: tuple[Declared, ...] = ()
    genotypes: bool = False
    formats: tuple[Declared, ...] = ()

    @property
    def has_calls(self) -> bool:
        """Whether anything of the samples is taken."""
        return self.genotypes or bool(self.formats)

    def schema(self) -> pa.Schema:
        """Schema of the table of sites: schemas.tables.VARIANT_SITES, INFO fields, genotypes."""
        more = [
            tables.field(f"info_{one.id}", _vcf_sites.info_type(one), f"INFO {one.id}: {one.description}")
            for one in self.infos
        ]
        calls = [tables.field(f"format_{one.id}", format_type(one), format_about(one)) for one in self.formats]
        return pa.schema([*tables.VARIANT_SITES, *more, *(tables.VARIANT_CALLS if self.genotypes else ()), *calls])


@dataclass(frozen=True)
class Sites:
    """What a shard holds.

    Attributes:
        table: a row for each record, kept or rejected.
        rejects: rows of schemas.tables.REJECTS.
    """

    table: pa.Table
    rejects: pa.Table


class ColumnSource(Plannable, Protocol):
    """An input on a local path whose shards are read as columns."""

    header: bytes
    samples: tuple[str, ...]

    def columns(self, *, infos: Sequence[str] = (), genotypes: bool = False, formats: Sequence[str] = ()) -> Columns:
        """See `choose_columns`."""
        ...

    def read_sites(self, shard: Shard, columns: Columns) -> Sites:
        """All records of a shard as columns.

        Raises:
            DataError: the range no longer holds what the plan says.
        """
        ...


def open_columns(path: str | Path, *, each: Mapper = map) -> ColumnSource:
    """Open a VCF, BGZF or plain, or a BCF, told by its content.

    Args:
        path: a local file.
        each: maps over stretches of a VCF while its plan is cut; no byte depends on it.

    Raises:
        InputError: neither, or cut.
    """
    source = open_variants(path)
    if isinstance(source, VcfSource):
        with Path(path).open("rb") as stream:
            return VcfColumns(path, compressed=bgzf.is_gzip(stream.read(2)), each=each)
    if isinstance(source, BcfSource):
        return BcfColumns(path)
    raise InputError("the input is no VCF or BCF", where=str(path), fix="give the VCF that the table was made from")


def choose_columns(source: ColumnSource, *, infos: Sequence[str], genotypes: bool, formats: Sequence[str]) -> Columns:
    """What to take from a source's records; `*` among names takes all, GT among formats takes genotypes.

    Raises:
        InputError: a field that the header does not declare, or values of samples where there are none.
    """
    if (genotypes or formats) and not source.samples:
        raise InputError(
            "genotypes are asked for, and the file has no samples",
            where=source.path,
            fix="leave --genotypes and --format out, or give the VCF that has them",
        )
    calls = chosen(source.header, "FORMAT", formats, path=source.path)
    return Columns(
        len(columns_line(source.header)),
        chosen(source.header, "INFO", infos, path=source.path),
        genotypes or any(one.id == "GT" for one in calls),
        tuple(one for one in calls if one.id != "GT"),
    )


def _collect(path: str, shard: Shard, columns: Columns, texts: Iterable[bytes]) -> Sites:
    """Batches of a shard's lines, parsed and joined.

    Raises:
        DataError: they are not those that were planned.
    """
    pieces: list[Sites] = []
    first = shard.first_record
    for text in texts:
        pieces.append(parse_batch(text, columns, first_record=first))
        first += pieces[-1].table.num_rows
    found = first - shard.first_record
    table = pa.concat_tables([columns.schema().empty_table(), *(piece.table for piece in pieces)])
    rejects = pa.concat_tables([tables.REJECTS.empty_table(), *(piece.rejects for piece in pieces)])
    if found != shard.num_records or not _begins_as_planned(table, shard):
        raise DataError(
            f"the plan has {shard.num_records} records here and the file now has {found}, or others",
            where=f"{path} shard {shard.shard}",
            fix="the input changed after it was planned; start again into a new output folder",
        )
    return Sites(table, rejects)


def _begins_as_planned(table: pa.Table, shard: Shard) -> bool:
    start = table["start"][0].as_py() if table.num_rows else None
    return start is None or (shard.start == start and shard.contig == table["contig"][0].as_py())


class BcfColumns(BcfSource):
    """A BCF, read through the VCF lines that htslib prints for its records (numbers as it prints them)."""

    def __init__(self, path: str | Path) -> None:
        """See `BcfSource`."""
        super().__init__(path)
        self.samples = sample_names(self.header)

    def columns(self, *, infos: Sequence[str] = (), genotypes: bool = False, formats: Sequence[str] = ()) -> Columns:
        """See `choose_columns`."""
        return choose_columns(self, infos=infos, genotypes=genotypes, formats=formats)

    def read_sites(self, shard: Shard, columns: Columns) -> Sites:
        """See `ColumnSource.read_sites`."""
        records = self.read(shard)
        texts = (
            b"".join(line for one in records[begin : begin + _BCF_RECORDS] for line in (one.line, b"\n"))
            for begin in range(0, len(records), _BCF_RECORDS)
        )
        return _collect(self.path, shard, columns, texts)


class VcfColumns(VcfSource):
    """A VCF whose plan is cut by array, and whose shards are read as columns."""

    def __init__(self, path: str | Path, *, compressed: bool, each: Mapper = map) -> None:
        """See `VcfSource`."""
        super().__init__(path, compressed=compressed)
        self.samples = sample_names(self.header)
        self._each = each

    def columns(self, *, infos: Sequence[str] = (), genotypes: bool = False, formats: Sequence[str] = ()) -> Columns:
        """See `choose_columns`."""
        return choose_columns(self, infos=infos, genotypes=genotypes, formats=formats)

    def scan(
        self,
        *,
        records_per_shard: int,
        bytes_per_shard: int,
        on_record: Callable[[RawRecord], None] | None = None,  # noqa: ARG002 (part of the protocol; nobody asks)
        on_record_limit: int = 0,  # noqa: ARG002
    ) -> Scan:
        """See `VariantSource.scan`. Bytes are counted uncompressed; lines that do not parse take no part in order.

        Raises:
            InputError: truncated or corrupt file, records out of order.
        """
        planner = ColumnPlanner(
            self.path,
            records_per_shard=records_per_shard,
            bytes_per_shard=bytes_per_shard,
            how_to_sort=f"bcftools sort -Oz -o sorted.vcf.gz {self.path}",
        )
        digest = hashlib.sha256()
        feed_before(self._file, self._storage.whole_before(self._body), digest.update)
        spans = self._storage.stretches(self._file, self._body, size=_STRETCH_BYTES, on_raw=digest.update)
        read = partial(read_stretch, path=self._file, storage=self._storage, num_columns=self._num_columns)
        add_stretches(planner, self._each(read, spans), self._num_columns)
        return planner.finish(digest.hexdigest(), self._scan_notes())

    def _scan_notes(self) -> list[str]:
        with self._file.open("rb") as stream:
            stream.seek(-1, os.SEEK_END)
            ended = not isinstance(self._storage, PlainStorage) or stream.read() == b"\n"
        return [*self._notes, *([] if ended else ["the last line has no line end; the file may be cut"])]

    def read_sites(self, shard: Shard, columns: Columns) -> Sites:
        """See `ColumnSource.read_sites`."""
        with as_data_error():
            return _collect(self.path, shard, columns, self._texts(shard))

    def _texts(self, shard: Shard) -> Iterator[bytes]:
        blocks = self._storage.blocks(self._file, shard.begin, shard.end)
        return (batch.data for batch in iter_lines(blocks, batch_bytes=BATCH_BYTES))


# ---------------------------------------------------------------- columns


def parse_batch(text: bytes, columns: Columns, *, first_record: int) -> Sites:
    """Columns of a batch of whole lines.

    Args:
        text: lines, each ended by LF or CRLF.
        columns: what to take.
        first_record: ordinal of the first line.
    """
    lines = _vcf_lines.split_lines(text, columns.num_columns)
    refused = Refused()
    arrays = _vcf_sites.site_columns(lines, refused)
    infos = _vcf_sites.info_columns(lines, columns.infos, refused)
    arrays["end"] = _ends(arrays["start"], arrays["ref"], infos.pop("END"))
    arrays |= infos
    if columns.genotypes:
        num_alleles = 1 + np.diff(np.asarray(arrays["alts"].offsets)).astype(np.int64)
        calls = read_genotypes(lines, num_alleles, refused)
        copies = np.full(len(lines.whole), calls.alleles.shape[2], np.int32)
        arrays["ploidy"] = _vcf_lines.null_where(pa.array(copies), ~calls.present)
        arrays["call_genotype"] = _vcf_lines.null_where(_vcf_lines.packed_rows(calls.alleles), ~calls.present)
        arrays["call_genotype_phased"] = _vcf_lines.null_where(_vcf_lines.packed_rows(calls.phased), ~calls.present)
    arrays |= read_formats(lines, columns.formats, refused)
    return _finish(lines, arrays, refused, columns=columns, first_record=first_record)


def _ends(start: pa.Array, ref: pa.Array, end: pa.Array) -> pa.Array:
    """int64 (m,): end of the bases covered: of REF, or INFO END where it says more than the start."""
    covered = pc.add(start, pa.array(_vcf_lines.lengths(ref)))
    return pc.if_else(pc.greater(end, start).fill_null(False), end, covered) if end.null_count < len(end) else covered


def _finish(
    lines: Lines, arrays: dict[str, pa.Array], refused: Refused, *, columns: Columns, first_record: int
) -> Sites:
    """Rows for all lines, in order; those of refused lines hold nothing but record, state and reason."""
    schema = columns.schema()
    problems = dict(lines.refused.found) | {int(lines.whole[row]): why for row, why in refused.found.items()}
    data = [one for one in schema if one.name not in ("record", "state", "reason")]
    table = pa.table([arrays[one.name] for one in data], schema=pa.schema(data))
    good = np.ones(len(lines.whole), np.bool_)
    good[list(refused.found)] = False
    if problems:
        index = np.full(len(lines), -1, np.int64)
        index[lines.whole[good]] = np.flatnonzero(good)
        table = _vcf_lines.take(table, index)
    reasons = np.full(len(lines), None, object) if problems else None
    for row, (reason, _) in problems.items():
        assert reasons is not None
        reasons[row] = reason
    more = {
        "record": pa.array(np.arange(first_record, first_record + len(lines))),
        "state": _states(len(lines), problems),
        "reason": pa.nulls(len(lines), pa.string()) if reasons is None else pa.array(reasons, pa.string()),
    }
    filled = [more[one.name] if one.name in more else table[one.name] for one in schema]
    return Sites(pa.table(filled, schema=schema), _rejects(lines, problems, first_record))


def _states(num_rows: int, problems: dict[int, tuple[str, str]]) -> pa.Array:
    codes = np.zeros(num_rows, np.int8)
    codes[list(problems)] = 1
    return pa.DictionaryArray.from_arrays(pa.array(codes), [states.KEPT, states.REJECTED]).cast(pa.string())


def _rejects(lines: Lines, problems: dict[int, tuple[str, str]], first_record: int) -> pa.Table:
    rows = [
        {
            "record": first_record + row,
            "alt_index": 0,
            "reason": reason,
            "sentence": sentence,
            "text": _head(lines.line(row)),
        }
        for row, (reason, sentence) in sorted(problems.items())
    ]
    return pa.Table.from_pylist(rows, schema=tables.REJECTS)


def _head(line: bytes) -> str:
    return b"\t".join(line.split(b"\t", 8)[:8])[:_MAX_TEXT].decode(errors="replace")
