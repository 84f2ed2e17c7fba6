"""BCF: the plan is cut by our own walk over the record frames, the text of records is htslib's own.

Source: the BCF2 format specification (samtools/hts-specs): each record begins with l_shared, l_indiv, CHROM, POS and
rlen as little-endian 32-bit integers. Walking the frames needs no decoding, and digests the file in the same read.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import InputError
from engine.genome._htslib import quiet_htslib
from engine.io import bgzf
from engine.io.file_index import Chunk, clip_chunks, find_index, load_index, region_chunks
from engine.io.planning import Planner, as_data_error, check_contigs, check_shard
from engine.io.regions import Region, RegionSet
from engine.io.source import RawRecord, Scan, Shard
from engine.io.streams import BATCH_BYTES, Batch, BgzfStorage, Joiner, OnRaw, feed_before
from engine.io.vcf import raw_record

if TYPE_CHECKING:
    import pysam

_MAGIC = b"BCF\2"
_AGAIN = "make or download it again"
_frame = struct.Struct("<IIiii")
_SHORTEST = 24

Site = tuple[str | None, int, int]
"""Contig (None where POS is not 1 or more), 0-based start, end of the bases covered."""


def is_bcf(prefix: bytes) -> bool:
    """Whether uncompressed bytes begin a BCF."""
    return prefix.startswith(_MAGIC)


class BcfSource:
    """A BCF file as a `VariantSource`; records are given as the VCF lines htslib prints for them.

    Regions and digest: as `VcfSource`.
    """

    def __init__(self, path: str | Path, *, regions: Sequence[Region] = ()) -> None:
        """Check the end of the file and read its header.

        Raises:
            InputError: truncated, no header, or an index older than the file when regions are asked for.
        """
        self.path = str(path)
        self._file = Path(path)
        self._storage = BgzfStorage()
        bgzf.check_end_marker(self._file)
        self._body = _find_body(self._file)
        with _open(self._file) as variants:
            self.header = _header_text(variants)
            self._contigs = _contig_numbers(variants)
        self._num_columns = self.header.rstrip(b"\n").rpartition(b"\n")[2].count(b"\t") + 1
        self._notes = [] if self._contigs else ["the header has no ##contig lines"]
        self._regions = RegionSet(regions)
        self._chunks: list[Chunk] = [(self._body, _file_end(self._file))]
        self._by_index = False
        if self._regions:
            self._use_index()

    def _use_index(self) -> None:
        self._notes += check_contigs(self.path, self._regions, set(self._contigs.values()))
        found = find_index(self._file)
        if found:
            numbers = {contig: number for number, contig in self._contigs.items()}
            self._chunks = region_chunks(load_index(found), numbers, self._regions)
            self._by_index = True

    def scan(
        self,
        *,
        records_per_shard: int,
        bytes_per_shard: int,
        on_record: Callable[[RawRecord], None] | None = None,
        on_record_limit: int = 0,
    ) -> Scan:
        """See `VariantSource.scan`. Bytes are counted as uncompressed BCF."""
        if on_record is not None and on_record_limit > 0:
            for record in itertools.islice(self._records(self._chunks, 0), on_record_limit):
                on_record(record)
        planner = Planner(
            self.path,
            records_per_shard=records_per_shard,
            bytes_per_shard=bytes_per_shard,
            how_to_sort=f"bcftools sort -Ob -o sorted.bcf {self.path}",
        )
        digest = hashlib.sha256()
        if self._by_index:
            digest.update(self.header)
        else:
            feed_before(self._file, self._body >> 16, digest.update)
        for batch in self._batches(self._chunks, digest.update):
            self._plan(batch, planner)
        if not self._by_index:
            digest.update(bgzf.EOF)
        return planner.finish(digest.hexdigest(), [*self._notes])

    def _batches(self, chunks: Sequence[Chunk], on_raw: OnRaw) -> Iterator[Batch]:
        base = 0
        for begin, end in chunks:
            for batch in iter_frames(self._file, self._storage.blocks(self._file, begin, end, on_raw=on_raw), base):
                yield batch
                base += len(batch.data)

    def _plan(self, batch: Batch, planner: Planner) -> None:
        marks = np.array(frame_marks(batch.data), np.int64) + batch.base
        sites = [self._site(batch, int(mark)) for mark in marks[:-1]]
        selected = [self._is_selected(*site) for site in sites]
        done = 0
        for (contig, chosen), group in itertools.groupby(
            zip(sites, selected, strict=True), key=lambda pair: (pair[0][0], pair[1])
        ):
            starts: list[int | None] = [site[1] if contig else None for site, _ in group]
            if chosen:
                planner.add(contig, starts, marks=marks[done : done + len(starts) + 1], locate=batch.locate)
            done += len(starts)

    def _site(self, batch: Batch, mark: int) -> Site:
        _, _, number, start, length = _frame.unpack_from(batch.data, mark - batch.base)
        contig = self._contigs.get(number)
        if contig is None:
            raise InputError(
                f"a record names contig number {number}, which the header does not have",
                where=f"{self.path} at virtual offset {batch.locate(mark)}",
                fix=f"the file is corrupt; {_AGAIN}",
            )
        return _covered(contig, start, length)

    def _is_selected(self, contig: str | None, start: int, end: int) -> bool:
        if not self._regions:
            return True
        return contig is not None and self._regions.overlap(contig, start, end)

    def _records(self, chunks: Sequence[Chunk], first: int) -> Iterator[RawRecord]:
        """Selected records of the chunks."""
        with _open(self._file) as variants:
            chosen = (
                record
                for record in _between(variants, chunks)
                if self._is_selected(*_covered(record.contig, record.start, record.stop - record.start))
            )
            for ordinal, line in enumerate(_lines(variants, chosen), start=first):
                yield raw_record(ordinal, line, self._num_columns)

    def read(self, shard: Shard) -> Sequence[RawRecord]:
        """See `VariantSource.read`."""
        chunks = clip_chunks(self._chunks, shard.begin, shard.end)
        with as_data_error():
            records = list(self._records(chunks, shard.first_record))
        check_shard(self.path, shard, records)
        return records


def _covered(contig: str, start: int, length: int) -> Site:
    """The site of a record; a length below 1, which no REF has, counts as 1, whoever reads it."""
    return contig if start >= 0 else None, start, start + max(length, 1)


def _find_body(path: Path) -> int:
    """Virtual offset of the first record."""
    joiner = Joiner()
    size = 9
    for block in bgzf.read_blocks(path):
        joiner.push(block)
        if joiner.size >= 9:
            size = 9 + int.from_bytes(joiner.joined()[5:9], "little")
        if joiner.size >= size:
            return joiner.take(size).offsets[-1]
    raise InputError("the file ends inside its header", where=str(path), fix=_AGAIN)


def _file_end(path: Path) -> int:
    """Virtual offset of the end marker."""
    return (path.stat().st_size - len(bgzf.EOF)) << 16


def frame_marks(data: bytes) -> list[int]:
    """Where each whole record in `data` begins, and last where the first one that is not whole would."""
    marks = [0]
    at, size = 0, len(data)
    while at + 8 <= size:
        shared, individual = struct.unpack_from("<II", data, at)
        if shared < _SHORTEST:
            raise ValueError(at)
        at += 8 + shared + individual
        if at > size:
            break
        marks.append(at)
    return marks


def iter_frames(path: Path, blocks: Iterator[bgzf.Block], base: int) -> Iterator[Batch]:
    """Batches of whole records of about a megabyte; a longer record gets as much as it needs.

    Raises:
        InputError: a frame that cannot be one, or one cut short.
    """
    joiner = Joiner(base)
    enough = BATCH_BYTES
    offset = 0
    for block in blocks:
        joiner.push(block)
        offset = block[0]
        if joiner.size >= enough:
            cut = _whole(path, joiner, offset)
            enough = BATCH_BYTES if cut else 2 * joiner.size
            if cut:
                yield joiner.take(cut)
    if joiner.size:
        if _whole(path, joiner, offset) != joiner.size:
            raise _bad_frame(path, offset)
        yield joiner.take(joiner.size)


def _whole(path: Path, joiner: Joiner, offset: int) -> int:
    try:
        return frame_marks(joiner.joined())[-1]
    except ValueError as error:
        raise _bad_frame(path, offset) from error


def _bad_frame(path: Path, offset: int) -> InputError:
    return InputError(
        "a BCF record is cut short or has an impossible length",
        where=f"{path} near virtual offset {offset}",
        fix=f"the file is corrupt; {_AGAIN}",
    )


# ---------------------------------------------------------------- htslib's side


@contextmanager
def _open(path: Path) -> Iterator[pysam.VariantFile]:
    import pysam

    with quiet_htslib():
        try:
            variants = pysam.VariantFile(str(path), "rb")
        except (OSError, ValueError) as error:
            raise InputError(f"htslib cannot open it ({error})", where=str(path), fix=_AGAIN) from error
        try:
            yield variants
        finally:
            # Closing tells once more of a fault that reading has told.
            with suppress(OSError):
                variants.close()


def _contig_numbers(variants: pysam.VariantFile) -> dict[int, str]:
    names = [str(name) for name in variants.header.contigs]
    return {variants.get_tid(name): name for name in names}


def _between(variants: pysam.VariantFile, chunks: Iterable[Chunk]) -> Iterator[Any]:
    """Records of each chunk, by seeking to it."""
    for begin, end in chunks:
        variants.seek(begin)
        while variants.tell() < end:
            try:
                yield next(variants)
            except (StopIteration, OSError, ValueError) as error:
                raise InputError(
                    "htslib cannot read a record",
                    where=f"{_name(variants)} at virtual offset {variants.tell()}",
                    fix=f"the file is corrupt or changed; {_AGAIN}",
                ) from error


def _name(variants: pysam.VariantFile) -> str:
    return _decode(variants.filename) if variants.filename else "BCF"


def _decode(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _lines(variants: pysam.VariantFile, records: Iterable[Any]) -> Iterator[bytes]:
    """Each record as the VCF line htslib prints, without its line end."""
    for record in records:
        try:
            yield str(record).encode().rstrip(b"\n")
        except UnicodeDecodeError:
            yield _print_bytes(variants.header, record).rstrip(b"\n").rpartition(b"\n")[2]


def _header_text(variants: pysam.VariantFile) -> bytes:
    try:
        return str(variants.header).encode()
    except UnicodeDecodeError:
        return _print_bytes(variants.header, None)


def _print_bytes(header: Any, record: Any | None) -> bytes:
    """What htslib writes to a VCF file of this header and record, where the text is not UTF-8."""
    import pysam

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.vcf"
        with pysam.VariantFile(str(out), "w", header=header) as writer:
            if record is not None:
                writer.write(record)
        return out.read_bytes()
