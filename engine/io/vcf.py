"""VCF text, BGZF or plain: one streamed pass cuts the plan, shards are read again by offset, tags are spliced in.

Records are kept as the bytes they came as; only CHROM, POS, ID, REF and ALT are looked at. A line may end in LF or
CRLF; the line end is no part of the record, and we write LF. Nothing else of a record or header is changed.

Source: the Variant Call Format specification 4.3 (samtools/hts-specs); where it is silent, what htslib does.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.errors import DataError, InputError
from engine.genome.variants import VariantRecord
from engine.io import bgzf
from engine.io.file_index import Chunk, clip_chunks, find_index, load_index, region_chunks
from engine.io.planning import Planner, as_data_error, check_contigs, check_shard
from engine.io.regions import MAX_POS, Region, RegionSet
from engine.io.source import RawRecord, Scan, Shard
from engine.io.streams import Batch, BgzfStorage, OnRaw, PlainStorage, SeekableStorage, Storage, feed_before, iter_lines

_COLUMNS = b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO".split(b"\t")
_bad_contig = re.compile(rb"#.*|.*[\s\x00-\x20].*|", re.DOTALL)
# The first value of a key of a structured header line; what stands in quotes is text, whatever it looks like.
_UP_TO = rb'=(?=<)(?:"(?:[^"\\]|\\.)*"|[^"])*?[<,]'
_contig_line = re.compile(rb"##contig" + _UP_TO + rb"ID=([^,>]+)").match
_contig_length = re.compile(rb"##contig" + _UP_TO + rb"length=([0-9]+)").match
_info_line = re.compile(rb"##INFO" + _UP_TO + rb"ID=([^,>]+)").match
_has_end = re.compile(rb"(?:^|;)END=([0-9]+)(?=;|\s*$)").search


# ---------------------------------------------------------------- header and INFO text


def header_contigs(header: bytes) -> dict[str, int | None]:
    """Contigs of the header's ##contig lines, in order, with their length in bases or None."""
    found: dict[str, int | None] = {}
    for line in header.split(b"\n"):
        if match := _contig_line(line):
            length = _contig_length(line)
            found[_text(match[1])] = int(length[1]) if length else None
    return found


def header_info_ids(header: bytes) -> set[str]:
    """IDs of the header's ##INFO lines."""
    return {_text(match[1]) for line in header.split(b"\n") if (match := _info_line(line))}


def add_header_lines(header: bytes, lines: Sequence[bytes]) -> bytes:
    """Header with `lines` put just before #CHROM, their line ends optional; a line already there is not doubled."""
    body, _, columns = header.removesuffix(b"\n").rpartition(b"\n")
    present = set(body.split(b"\n"))
    added = [line for line in dict.fromkeys(line.rstrip(b"\n") for line in lines) if line not in present]
    return b"\n".join([*([body] if body else []), *added, columns]) + b"\n"


def remove_info_lines(header: bytes, keys: Collection[str]) -> bytes:
    """Header without the ##INFO lines of these IDs."""
    kept = [line for line in header.split(b"\n") if not ((match := _info_line(line)) and _text(match[1]) in keys)]
    return b"\n".join(kept)


def splice_info(line: bytes, addition: bytes) -> bytes:
    """Append `KEY=value;...` to INFO of a record line; every other byte stays. A missing INFO ('.', '') is replaced.

    Raises:
        DataError: the line has no INFO column.
    """
    if not addition:
        return line
    fields = line.split(b"\t", 8)
    if len(fields) < 8:
        raise DataError(f"the line has {len(fields)} columns and so no INFO", where=repr(line[:60]))
    info = fields[7]
    fields[7] = addition if info in (b".", b"") else info + b";" + addition
    return b"\t".join(fields)


def remove_info(line: bytes, keys: Collection[bytes]) -> bytes:
    """Take the tags named `keys` out of INFO; '.' where none is left. Undoes `splice_info`."""
    fields = line.split(b"\t", 8)
    if len(fields) < 8:
        return line
    tags = fields[7].split(b";")
    kept = [tag for tag in tags if tag.partition(b"=")[0] not in keys]
    if len(kept) < len(tags):
        fields[7] = b";".join(kept) or b"."
    return b"\t".join(fields)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


# ---------------------------------------------------------------- records


def parse_line(line: bytes, num_columns: int = 8) -> VariantRecord | tuple[str, str]:
    """The site a line describes, or (reason code, sentence) where it does not parse.

    Args:
        line: without its line end.
        num_columns: columns of the #CHROM line; a record may not have fewer.
    """
    fields = line.split(b"\t", 5)
    problem = _find_problem(line, fields, num_columns)
    if problem:
        return problem
    head = b"\t".join(fields[:5])
    texts = head.decode().split("\t") if head.isascii() else [_text(field) for field in fields[:5]]
    contig, pos, name, ref, alt = texts
    return VariantRecord(contig, int(pos) - 1, name, ref, () if alt == "." else tuple(alt.split(",")))


def _find_problem(line: bytes, fields: list[bytes], num_columns: int) -> tuple[str, str] | None:
    count = line.count(b"\t") + 1
    if count < num_columns:
        return "malformed_record", f"the line has {count} columns where the #CHROM line has {num_columns}"
    if b"\0" in line:
        return "malformed_record", "the line holds a NUL byte"
    contig, pos, _, ref, alt = fields[:5]
    if not _is_contig(contig):
        return "malformed_record", f"CHROM {_show(contig)} is not a contig name"
    if not pos.isdigit() or len(pos) > 10 or not 1 <= int(pos) <= MAX_POS:
        return "bad_position", f"POS {_show(pos)} is not a whole number from 1 to {MAX_POS}"
    if not ref or not alt:
        return "malformed_record", f"{'ALT' if ref else 'REF'} is empty"
    return None


@lru_cache(maxsize=4096)
def _is_contig(name: bytes) -> bool:
    """Whether htslib would take it: not empty, no blank, not a header line."""
    return not _bad_contig.fullmatch(name)


def _show(data: bytes) -> str:
    return repr(_text(data[:40]))


def raw_record(ordinal: int, line: bytes, num_columns: int) -> RawRecord:
    """A line with what it says, or why it cannot be read."""
    parsed = parse_line(line, num_columns)
    if isinstance(parsed, tuple):
        return RawRecord(ordinal, line, None, parsed)
    return RawRecord(ordinal, line, parsed)


def covered_end(start: int, line: bytes) -> int:
    """0-based end of the bases that the record of a line that parses covers: REF, or up to INFO END where given."""
    fields = line.split(b"\t", 8)
    match = _has_end(fields[7])
    if match and len(match[1]) <= 10 and int(match[1]) > start:
        return int(match[1])
    return start + len(fields[3])


# ---------------------------------------------------------------- lines in bulk


Run = tuple[str | None, Sequence[int | None]]
"""Lines that follow one another: their contig (None where they do not parse) and 0-based starts."""


def _split_lines(data: bytes) -> list[bytes]:
    return data[:-1].split(b"\n") if data else []


def _strip(line: bytes) -> bytes:
    return line[:-1] if line.endswith(b"\r") else line


def find_runs(data: bytes, num_columns: int) -> Iterator[Run]:
    """Contig and starts of all lines of a batch: in bulk where all lines are plain, else line by line."""
    lines = _split_lines(data)
    bulk = _bulk_runs(data, lines, num_columns)
    if bulk is not None:
        yield from bulk
        return
    parsed = (parse_line(_strip(line), num_columns) for line in lines)
    sites = ((None, None) if isinstance(site, tuple) else (site.contig, site.start) for site in parsed)
    for contig, group in itertools.groupby(sites, key=lambda site: site[0]):
        yield contig, [start for _, start in group]


def _bulk_runs(data: bytes, lines: list[bytes], num_columns: int) -> list[Run] | None:
    """The runs of a batch, or None where any line needs a closer look. Agrees with `parse_line`."""
    if b"\t\t" in data or b"\0" in data or min(line.count(b"\t") for line in lines) < num_columns - 1:
        return None
    fields = [line.split(b"\t", 2) for line in lines]
    contigs = [field[0] for field in fields]
    if not all(map(_is_contig, set(contigs))):
        return None
    texts = [field[1] for field in fields]
    if not b"".join(texts).isdigit() or max(map(len, texts)) > 10:
        return None
    positions = np.array(list(map(int, texts)), np.int64)
    if positions.min() < 1 or positions.max() > MAX_POS:
        return None
    starts: list[int | None] = (positions - 1).tolist()
    runs: list[Run] = []
    done = 0
    for contig, group in itertools.groupby(contigs):
        after = done + sum(1 for _ in group)
        runs.append((_text(contig), starts[done:after]))
        done = after
    return runs


def _line_marks(batch: Batch) -> npt.NDArray[np.int64]:
    """int64 (lines + 1,): where each line begins in the stream, then the end."""
    ends = np.flatnonzero(np.frombuffer(batch.data, np.uint8) == 10)
    return np.concatenate(([0], ends + 1)) + batch.base


# ---------------------------------------------------------------- the source


def _read_header(path: Path, storage: Storage) -> tuple[bytes, int]:
    """Header text with LF line ends, and the file offset of the first record."""
    lines: list[bytes] = []
    for batch in iter_lines(storage.blocks(path, 0), batch_bytes=1):
        position = batch.base
        for line in _split_lines(batch.data):
            if not line.startswith(b"#"):
                raise _no_columns_line(path, lines)
            position += len(line) + 1
            lines.append(_strip(line))
            if line.startswith(b"#CHROM"):
                _check_header(path, lines)
                return b"\n".join(lines) + b"\n", batch.locate(position)
    raise _no_columns_line(path, lines)


def _no_columns_line(path: Path, lines: list[bytes]) -> InputError:
    return InputError(
        f"the header has no #CHROM line (line {len(lines) + 1} is a record, or the file ends)",
        where=str(path),
        fix="put the column line back between header and records (bcftools reheader)",
    )


def _check_header(path: Path, lines: list[bytes]) -> None:
    if not lines[0].startswith(b"##fileformat=VCF"):
        raise InputError(
            f"the first line is not ##fileformat=VCFv4.x but {_show(lines[0])}",
            where=str(path),
            fix="add that line at the top",
        )
    columns = lines[-1].split(b"\t")
    if columns[:8] != _COLUMNS:
        raise InputError(
            f"the #CHROM line reads {_text(lines[-1][:80])!r}",
            where=str(path),
            fix="it must name the eight columns CHROM POS ID REF ALT QUAL FILTER INFO, parted by tabs",
        )


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read()


class VcfSource:
    """A VCF text file as a `VariantSource`.

    Under `regions` a BGZF file with a TBI or CSI index is entered at the chunks that hold them, and the digest then
    covers the header text and the BGZF blocks read; any other file is streamed whole, digested whole and filtered.
    Lines that do not parse lie in no region.
    """

    def __init__(self, path: str | Path, *, compressed: bool, regions: Sequence[Region] = ()) -> None:
        """Check the end of the file and read its header.

        Raises:
            InputError: truncated, no VCF header, or an index older than the file when regions are asked for.
        """
        self.path = str(path)
        self._file = Path(path)
        self._storage: SeekableStorage = BgzfStorage() if compressed else PlainStorage()
        if compressed:
            bgzf.check_end_marker(self._file)
        self.header, self._body = _read_header(self._file, self._storage)
        self._num_columns = self.header.rstrip(b"\n").rpartition(b"\n")[2].count(b"\t") + 1
        contigs = list(header_contigs(self.header))
        self._notes = [] if contigs else ["the header has no ##contig lines"]
        self._regions = RegionSet(regions)
        self._chunks: list[Chunk] | None = None
        if self._regions:
            self._use_index(contigs)

    def _use_index(self, contigs: list[str]) -> None:
        found = find_index(self._file) if isinstance(self._storage, BgzfStorage) else None
        index = load_index(found) if found else None
        names = list(index.names) or contigs if index else []
        self._notes += check_contigs(self.path, self._regions, {*contigs, *names})
        if index:
            self._chunks = region_chunks(index, {name: i for i, name in enumerate(names)}, self._regions)

    def scan(
        self,
        *,
        records_per_shard: int,
        bytes_per_shard: int,
        on_record: Callable[[RawRecord], None] | None = None,
        on_record_limit: int = 0,
    ) -> Scan:
        """See `VariantSource.scan`. Bytes are counted uncompressed."""
        planner = Planner(
            self.path,
            records_per_shard=records_per_shard,
            bytes_per_shard=bytes_per_shard,
            how_to_sort=f"bcftools sort -Oz -o sorted.vcf.gz {self.path}",
        )
        digest = hashlib.sha256()
        left_out = 0
        for batch in self._scan_batches(digest.update):
            if on_record is not None and (wanted := on_record_limit - planner.num_records) > 0:
                for record in itertools.islice(self._records(batch, planner.num_records), wanted):
                    on_record(record)
            left_out += self._plan(batch, planner)
        notes = [*self._notes]
        if left_out:
            notes.append(f"{left_out} lines that do not parse lie in no region and were left out")
        if isinstance(self._storage, PlainStorage) and _last_byte(self._file) != b"\n":
            notes.append("the last line has no line end; the file may be cut")
        return planner.finish(digest.hexdigest(), notes)

    def _scan_batches(self, on_raw: OnRaw) -> Iterator[Batch]:
        if self._chunks is None:
            feed_before(self._file, self._storage.whole_before(self._body), on_raw)
            yield from iter_lines(self._storage.blocks(self._file, self._body, on_raw=on_raw))
            return
        on_raw(self.header)
        yield from self._chunk_batches(self._chunks, on_raw)

    def record_text(self) -> Iterator[bytes]:
        """All record lines as they are, whatever the regions, about a megabyte at a time."""
        return (batch.data for batch in iter_lines(self._storage.blocks(self._file, self._body)))

    def _chunk_batches(self, chunks: Sequence[Chunk], on_raw: OnRaw | None) -> Iterator[Batch]:
        base = 0
        for begin, end in chunks:
            for batch in iter_lines(self._storage.blocks(self._file, begin, end, on_raw=on_raw), base=base):
                yield batch
                base += len(batch.data)

    def _plan(self, batch: Batch, planner: Planner) -> int:
        """Hand the batch's selected lines to the planner; return how many did not parse and lie in no region."""
        marks = _line_marks(batch)
        done = 0
        left_out = 0
        for contig, starts in find_runs(batch.data, self._num_columns):
            if not self._regions:
                planner.add(contig, starts, marks=marks[done : done + len(starts) + 1], locate=batch.locate)
            elif contig is None:
                left_out += len(starts)
            elif contig in self._regions:
                for index in self._selected(batch, marks, contig, starts, done):
                    site = done + index
                    planner.add(contig, [starts[index]], marks=marks[site : site + 2], locate=batch.locate)
            done += len(starts)
        return left_out

    def _selected(
        self, batch: Batch, marks: npt.NDArray[np.int64], contig: str, starts: Sequence[int | None], first: int
    ) -> Iterator[int]:
        """Indexes in `starts`, which begin at line `first` of the batch, of records that overlap the regions."""
        lowest, highest = self._regions.span(contig)
        for index, start in enumerate(starts):
            if start is None or start >= highest:
                continue
            if start >= lowest and self._regions.overlap(contig, start, start + 1):
                yield index
                continue
            begin, end = marks[first + index : first + index + 2] - batch.base
            if self._regions.overlap(contig, start, covered_end(start, batch.data[begin:end])):
                yield index

    def _records(self, batch: Batch, first: int) -> Iterator[RawRecord]:
        """The batch's selected records; `first` is the ordinal of the first one."""
        ordinal = first
        for line in map(_strip, _split_lines(batch.data)):
            record = raw_record(ordinal, line, self._num_columns)
            if not self._regions or self._is_selected(record):
                yield record
                ordinal += 1

    def _is_selected(self, item: RawRecord) -> bool:
        site = item.record
        return site is not None and self._regions.overlap(site.contig, site.start, covered_end(site.start, item.line))

    def read(self, shard: Shard) -> Sequence[RawRecord]:
        """See `VariantSource.read`."""
        whole = [(shard.begin, shard.end)]
        chunks = whole if self._chunks is None else clip_chunks(self._chunks, shard.begin, shard.end)
        records: list[RawRecord] = []
        with as_data_error():
            for batch in self._chunk_batches(chunks, None):
                records.extend(self._records(batch, shard.first_record + len(records)))
        check_shard(self.path, shard, records)
        return records
