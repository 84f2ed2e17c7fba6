"""VCF text as Arrow columns: whole BGZF blocks at a time, no Python object per record or sample.

The plan is cut in one streamed pass that digests the input; a shard is read again by its offsets. What a line must be
to be taken is what `engine.io.vcf` asks of it, and more: as many columns as the #CHROM line, values of the types that
the header declares, genotypes of alleles that exist. Lines that fall short are refused one by one, with a reason.

Source: the Variant Call Format specification 4.3 (samtools/hts-specs); where it is silent, what htslib does.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import DataError, InputError
from engine.io import _vcf_lines, _vcf_sites, bgzf
from engine.io._genotypes import read_genotypes
from engine.io._vcf_formats import format_about, format_type, read_formats
from engine.io._vcf_header import Declared, chosen, columns_line, sample_names
from engine.io._vcf_lines import Ints, Lines, Refused, cut
from engine.io.bcf import BcfSource
from engine.io.planning import Planner, as_data_error
from engine.io.source import Plannable, RawRecord, Scan, Shard
from engine.io.streams import Batch, OnRaw, PlainStorage, feed_before, iter_lines
from engine.io.variants import open_variants
from engine.io.vcf import VcfSource, _is_contig, parse_line
from schemas import states, tables

BATCH_BYTES = 2 << 20
"""Text parsed at a time: enough that calls into native code count little, few enough that arrays stay in cache."""

_MAX_TEXT = 1000
_BCF_RECORDS = 1000
_SITE_WIDTH = 32


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


def open_columns(path: str | Path, *, threads: int = 1) -> ColumnSource:
    """Open a VCF, BGZF or plain, or a BCF, told by its content.

    Args:
        path: a local file.
        threads: threads that inflate while the plan of a VCF is cut.

    Raises:
        InputError: neither, or cut.
    """
    source = open_variants(path)
    if isinstance(source, VcfSource):
        with Path(path).open("rb") as stream:
            return VcfColumns(path, compressed=bgzf.is_gzip(stream.read(2)), threads=threads)
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

    def __init__(self, path: str | Path, *, compressed: bool, threads: int = 1) -> None:
        """See `VcfSource`."""
        super().__init__(path, compressed=compressed)
        self.samples = sample_names(self.header)
        self._threads = threads

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
        planner = _ColumnPlanner(
            self.path,
            records_per_shard=records_per_shard,
            bytes_per_shard=bytes_per_shard,
            how_to_sort=f"bcftools sort -Oz -o sorted.vcf.gz {self.path}",
        )
        digest = hashlib.sha256()
        feed_before(self._file, self._storage.whole_before(self._body), digest.update)
        for batch in iter_lines(self._blocks(digest.update), batch_bytes=BATCH_BYTES):
            planner.add_batch(batch, self._num_columns)
        return planner.finish(digest.hexdigest(), self._scan_notes())

    def _scan_notes(self) -> list[str]:
        with self._file.open("rb") as stream:
            stream.seek(-1, os.SEEK_END)
            ended = not isinstance(self._storage, PlainStorage) or stream.read() == b"\n"
        return [*self._notes, *([] if ended else ["the last line has no line end; the file may be cut"])]

    def _blocks(self, on_raw: OnRaw) -> Iterator[bgzf.Block]:
        if isinstance(self._storage, PlainStorage):
            return self._storage.blocks(self._file, self._body, on_raw=on_raw)
        return bgzf.read_blocks(self._file, self._body, on_raw=on_raw, threads=self._threads)

    def read_sites(self, shard: Shard, columns: Columns) -> Sites:
        """See `ColumnSource.read_sites`."""
        with as_data_error():
            return _collect(self.path, shard, columns, self._texts(shard))

    def _texts(self, shard: Shard) -> Iterator[bytes]:
        blocks = self._storage.blocks(self._file, shard.begin, shard.end)
        return (batch.data for batch in iter_lines(blocks, batch_bytes=BATCH_BYTES))


# ---------------------------------------------------------------- plan


class _ColumnPlanner(Planner):
    """A planner that takes whole batches of lines; order is checked by array."""

    def add_batch(self, batch: Batch, num_columns: int) -> None:
        """Add all lines of a batch.

        Raises:
            InputError: out of order.
        """
        data = np.frombuffer(batch.data, np.uint8)
        begins = np.concatenate(([0], np.flatnonzero(data == ord("\n")) + 1))
        contigs, starts = _sites(batch.data, data, begins)
        if not _is_sorted(contigs, starts):
            contigs, starts = _parsed_sites(batch.data, begins, num_columns)
        else:
            _drop_bad_end(batch.data, begins, contigs, starts, num_columns)
        borders = [0, *(np.flatnonzero(contigs.codes[1:] != contigs.codes[:-1]) + 1).tolist(), len(starts)]
        for begin, end in itertools.pairwise(borders):
            code = int(contigs.codes[begin])
            name = contigs.names[code] if code >= 0 else None
            self._add_run(name, starts[begin:end], begins[begin : end + 1] + batch.base, batch)

    def _add_run(self, contig: str | None, starts: Ints, marks: Ints, batch: Batch) -> None:
        if contig is not None:
            self._check_run(contig, starts)
            self.contigs[contig] = self.contigs.get(contig, 0) + len(starts)
        known = _Starts(starts) if contig is not None else [None] * len(starts)
        done = 0
        while done < len(starts):
            done = self._take(contig, known, done, marks=marks, locate=batch.locate)

    def _check_run(self, contig: str, starts: Ints) -> None:
        """The base class's check names the record; it is asked only where an array of starts is out of order."""
        ordered = bool((starts[1:] >= starts[:-1]).all())
        if contig == self._contig and ordered and starts[0] >= self._start:
            self._start = int(starts[-1])
        else:
            self._check_order(contig, starts.tolist() if not ordered else [int(starts[0]), int(starts[-1])])


class _Starts(Sequence[int | None]):
    """An array of starts that gives plain ints, one when it is asked for."""

    def __init__(self, values: Ints) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int | None]: ...
    def __getitem__(self, index: int | slice) -> int | list[int | None]:
        found: int | list[int | None] = self._values[index].tolist()
        return found


@dataclass(frozen=True)
class _Contigs:
    """int64 (lines,) codes into names; -1 where a line does not parse."""

    codes: Ints
    names: Sequence[str]


def _sites(text: bytes, data: _vcf_lines.Bytes, begins: Ints) -> tuple[_Contigs, Ints]:
    """Contig and 0-based start of each line, from its first two columns."""
    first, second = _first_tabs(data, begins)
    found = np.flatnonzero(second >= 0)
    codes, starts = np.full(len(begins) - 1, -1, np.int64), np.full(len(begins) - 1, -1, np.int64)
    if not len(found):
        return _Contigs(codes, []), starts
    coded = cut(text, begins[found], first[found]).view(pa.binary()).dictionary_encode()
    positions = cut(text, first[found] + 1, second[found])
    good = np.asarray(pc.ascii_is_decimal(positions)) & (_vcf_lines.lengths(positions) <= 10)
    values = np.asarray(_vcf_lines.null_where(positions, ~good).cast(pa.int64()).fill_null(0))
    good &= values > 0
    names = coded.dictionary.to_pylist()
    usable = np.array([_is_contig(name) and _vcf_lines.is_utf8(name) for name in names], np.bool_)
    named = np.asarray(coded.indices)
    good &= usable[named]
    codes[found], starts[found] = np.where(good, named, -1), np.where(good, values - 1, -1)
    return _Contigs(codes, [name.decode(errors="replace") for name in names]), starts


def _first_tabs(data: _vcf_lines.Bytes, begins: Ints) -> tuple[Ints, Ints]:
    """int64 (lines,) twice: the first and second tab of each line, -1 where there is none.

    Only the head of each line is looked at, longer and longer: most of a line are samples.
    """
    first, second = np.full(len(begins) - 1, -1, np.int64), np.full(len(begins) - 1, -1, np.int64)
    left, width = np.arange(len(begins) - 1), _SITE_WIDTH
    while len(left):
        at = begins[left, None] + np.arange(width)
        inside = at < begins[left + 1, None]
        tabs = inside & (data[np.minimum(at, len(data) - 1)] == ord("\t"))
        one = tabs.argmax(axis=1)
        tabs_left = tabs.copy()
        tabs_left[np.arange(len(left)), one] = False
        done = tabs_left.any(axis=1)
        first[left[done]] = begins[left[done]] + one[done]
        second[left[done]] = begins[left[done]] + tabs_left.argmax(axis=1)[done]
        left = left[~done & inside[:, -1]]
        width *= 4
    return first, second


def _is_sorted(contigs: _Contigs, starts: Ints) -> bool:
    """Whether no contig is left and met again, and starts never go down in one."""
    known = contigs.codes >= 0
    codes, at = contigs.codes[known], starts[known]
    same = codes[1:] == codes[:-1]
    num_runs = int((~same).sum()) + (len(codes) > 0)
    return bool((at[1:] >= at[:-1])[same].all()) and num_runs == len(np.unique(codes))


def _parsed_sites(text: bytes, begins: Ints, num_columns: int) -> tuple[_Contigs, Ints]:
    """The same line by line, by the full check: out of order may be what a broken line seems to be."""
    names: dict[str, int] = {}
    codes, starts = np.full(len(begins) - 1, -1, np.int64), np.full(len(begins) - 1, -1, np.int64)
    for line in range(len(begins) - 1):
        site = parse_line(_line(text, begins, line), num_columns)
        if not isinstance(site, tuple):
            codes[line], starts[line] = names.setdefault(site.contig, len(names)), site.start
    return _Contigs(codes, list(names)), starts


def _drop_bad_end(text: bytes, begins: Ints, contigs: _Contigs, starts: Ints, num_columns: int) -> None:
    """A broken last line must not say where the next batch may begin."""
    line = len(starts) - 1
    while line >= 0 and isinstance(parse_line(_line(text, begins, line), num_columns), tuple):
        contigs.codes[line] = starts[line] = -1
        line -= 1


def _line(text: bytes, begins: Ints, line: int) -> bytes:
    return text[begins[line] : begins[line + 1] - 1].removesuffix(b"\r")


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
