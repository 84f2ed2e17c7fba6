"""TBI and CSI indexes: which chunks of a BGZF file hold the records of a region.

Source: the tabix and CSIv1 format specifications (samtools/hts-specs), binning scheme of Kent et al. 2002.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InputError
from engine.io import bgzf
from engine.io.regions import Region

Chunk = tuple[int, int]
"""Virtual offsets of the first byte and of the byte just past the last one."""

_TBI_SHIFT, _TBI_DEPTH = 14, 5


@dataclass(frozen=True)
class _Bins:
    """Bins of one contig: bin number to (lowest offset, chunks); `linear` is TBI's window index, empty for CSI."""

    bins: dict[int, tuple[int, list[Chunk]]]
    linear: tuple[int, ...]


@dataclass(frozen=True)
class FileIndex:
    """A parsed index.

    Attributes:
        names: contig names where the index holds them (VCF), else empty (BCF: contigs go by number).
    """

    names: tuple[str, ...]
    _min_shift: int
    _depth: int
    _contigs: tuple[_Bins, ...]

    def chunks(self, number: int, start: int, end: int) -> list[Chunk]:
        """Chunks that may hold records of contig `number` overlapping [start, end), unsorted."""
        if number >= len(self._contigs):
            return []
        contig = self._contigs[number]
        lowest = self._lowest_offset(contig, start)
        found = (contig.bins[bin_][1] for bin_ in self._bins_over(start, end, contig) if bin_ in contig.bins)
        return [(max(begin, lowest), stop) for chunks in found for begin, stop in chunks if stop > lowest]

    def _bins_over(self, start: int, end: int, contig: _Bins) -> Iterator[int]:
        last = min(end, 1 << (self._min_shift + 3 * self._depth)) - 1
        first_bin = 0
        for level in range(self._depth + 1):
            shift = self._min_shift + 3 * (self._depth - level)
            lo, hi = first_bin + (start >> shift), first_bin + (last >> shift)
            # A whole contig spans far more bins than the file has.
            yield from range(lo, hi + 1) if hi - lo < len(contig.bins) else (b for b in contig.bins if lo <= b <= hi)
            first_bin += 1 << (3 * level)

    def _lowest_offset(self, contig: _Bins, start: int) -> int:
        """Offset before which no record reaches `start`."""
        if contig.linear:
            return contig.linear[min(start >> _TBI_SHIFT, len(contig.linear) - 1)]
        first = ((1 << (3 * self._depth)) - 1) // 7
        bin_ = first + min(start >> self._min_shift, (1 << (3 * self._depth)) - 1)
        while bin_ and bin_ not in contig.bins:
            before_siblings = ((bin_ - 1) >> 3 << 3) + 1
            bin_ = bin_ - 1 if bin_ > before_siblings else (bin_ - 1) >> 3
        return contig.bins[bin_][0] if bin_ in contig.bins else 0


def find_index(path: Path) -> Path | None:
    """The index beside a file, CSI first as htslib does; None where there is none.

    Raises:
        InputError: the index is older than the file.
    """
    for suffix in (".csi", ".tbi"):
        index = Path(f"{path}{suffix}")
        if index.exists():
            if index.stat().st_mtime_ns < path.stat().st_mtime_ns:
                raise InputError(
                    "the index is older than its file", where=str(index), fix=f"make it anew: bcftools index -f {path}"
                )
            return index
    return None


def load_index(path: Path) -> FileIndex:
    """Read a TBI or CSI index.

    Raises:
        InputError: cut, corrupt, or another format.
    """
    try:
        bgzf.check_end_marker(path)
        data = b"".join(block for _, block, _ in bgzf.read_blocks(path))
    except InputError as error:
        raise _bad_index(path, error.what) from error
    try:
        if data.startswith(b"TBI\1"):
            return _parse_tbi(data)
        if data.startswith(b"CSI\1"):
            return _parse_csi(data)
    except (struct.error, UnicodeDecodeError) as error:
        raise _bad_index(path, "the index is cut short") from error
    raise _bad_index(path, "the index is neither TBI nor CSI")


def _bad_index(path: Path, what: str) -> InputError:
    source = str(path).removesuffix(path.suffix)
    return InputError(what, where=str(path), fix=f"make it anew: bcftools index -f {source}")


def _parse_tbi(data: bytes) -> FileIndex:
    (num_contigs,) = struct.unpack_from("<i", data, 4)
    names, at = _parse_tabix_names(data, 8)
    contigs = []
    for _ in range(num_contigs):
        bins, at = _parse_bins(data, at, with_lowest=False, meta_bin=37450)
        (size,) = struct.unpack_from("<i", data, at)
        contigs.append(_Bins(bins, struct.unpack_from(f"<{size}Q", data, at + 4)))
        at += 4 + 8 * size
    return FileIndex(names, _TBI_SHIFT, _TBI_DEPTH, tuple(contigs))


def _parse_csi(data: bytes) -> FileIndex:
    min_shift, depth, extra = struct.unpack_from("<iii", data, 4)
    names = _parse_tabix_names(data, 16)[0] if extra >= 28 else ()
    at = 16 + extra
    (num_contigs,) = struct.unpack_from("<i", data, at)
    at += 4
    contigs = []
    for _ in range(num_contigs):
        bins, at = _parse_bins(data, at, with_lowest=True, meta_bin=((1 << (3 * (depth + 1))) - 1) // 7 + 1)
        contigs.append(_Bins(bins, ()))
    return FileIndex(names, min_shift, depth, tuple(contigs))


def _parse_tabix_names(data: bytes, at: int) -> tuple[tuple[str, ...], int]:
    """Contig names of the tabix header at `at`, and where it ends."""
    (size,) = struct.unpack_from("<24xi", data, at)
    begin = at + 28
    names = data[begin : begin + size].split(b"\0")[:-1] if size else []
    return tuple(name.decode() for name in names), begin + size


def _parse_bins(
    data: bytes, at: int, *, with_lowest: bool, meta_bin: int
) -> tuple[dict[int, tuple[int, list[Chunk]]], int]:
    (num_bins,) = struct.unpack_from("<i", data, at)
    at += 4
    bins: dict[int, tuple[int, list[Chunk]]] = {}
    for _ in range(num_bins):
        if with_lowest:
            number, lowest, num_chunks = struct.unpack_from("<IQi", data, at)
            at += 16
        else:
            (number, num_chunks), lowest = struct.unpack_from("<Ii", data, at), 0
            at += 8
        offsets = struct.unpack_from(f"<{2 * num_chunks}Q", data, at)
        at += 16 * num_chunks
        if number != meta_bin:
            bins[number] = lowest, list(zip(offsets[::2], offsets[1::2], strict=True))
    return bins, at


def region_chunks(index: FileIndex, numbers: dict[str, int], regions: Iterable[Region]) -> list[Chunk]:
    """Chunks that hold all records overlapping the regions, ascending, none touching another's blocks twice.

    Args:
        numbers: contig name to its number in the index.
    """
    found = sorted(
        chunk
        for region in regions
        if region.contig in numbers
        for chunk in index.chunks(numbers[region.contig], region.start, region.end)
    )
    merged: list[Chunk] = []
    for begin, end in found:
        if merged and begin >> 16 <= merged[-1][1] >> 16:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((begin, end))
    return merged


def clip_chunks(chunks: Iterable[Chunk], begin: int, end: int) -> list[Chunk]:
    """The parts of chunks that lie in [begin, end)."""
    return [(max(b, begin), min(e, end)) for b, e in chunks if e > begin and b < end]
