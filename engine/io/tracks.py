"""Signals along a genome, in bins: bigWig values and the coverage of BAM.

A bin's number is the mean over its bases; a base without a value counts as 0, as mean0 of UCSC's bigWigAverageOverBed
does, and so does what lies past an end of the contig. Coverage counts the aligned bases (CIGAR M, = and X) of reads
that are mapped, primary, no duplicates and passed the quality checks, as `samtools depth` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from engine.errors import DataError, InputError
from engine.io import bgzf
from engine.io.bigwig import BigWig, is_bigwig

Floats = npt.NDArray[np.float64]

_BAM = b"BAM\1"
_LEFT_OUT = 0x4 | 0x100 | 0x200 | 0x400
_ALIGNED = (0, 7, 8)
_CONSUMES_REFERENCE = (0, 2, 3, 7, 8)


class Track(Protocol):
    """Numbers along contigs; picklable."""

    path: str

    @property
    def contigs(self) -> Mapping[str, int]:
        """Contig name to length."""
        ...

    def values(self, contig: str, start: int, end: int) -> Floats:
        """float64 (end - start,), NaN where there is none."""
        ...


class Coverage:
    """Coverage of a sorted, indexed BAM file.

    Args:
        path: local path.

    Raises:
        InputError: it does not open, or has no index.
    """

    def __init__(self, path: str | Path) -> None:
        import pysam

        self.path = str(path)
        try:
            self._file: Any = pysam.AlignmentFile(self.path, "rb")
        except (OSError, ValueError) as error:
            raise InputError(f"the BAM file does not open ({error})", where=self.path, fix="check the file") from error
        if not self._file.has_index():
            raise InputError("the BAM file has no index", where=self.path, fix="make one with samtools index")
        self.contigs: Mapping[str, int] = dict(zip(self._file.references, self._file.lengths, strict=True))

    def __reduce__(self) -> tuple[type[Coverage], tuple[str]]:
        return Coverage, (self.path,)

    def values(self, contig: str, start: int, end: int) -> Floats:
        """float64 (end - start,): reads over each base.

        Raises:
            DataError: the file is damaged.
        """
        low, high = max(start, 0), min(end, self.contigs.get(contig, 0))
        change = np.zeros(end - start + 1)
        if low < high:
            try:
                for read in self._file.fetch(contig, low, high):
                    if not read.flag & _LEFT_OUT:
                        _add_read(change, read, start, end)
            except (OSError, ValueError) as error:
                fix = "copy or make the file again"
                raise DataError(f"the BAM file does not decode ({error})", where=self.path, fix=fix) from error
        covered: Floats = np.cumsum(change[:-1])
        return covered


def _add_read(change: Floats, read: Any, start: int, end: int) -> None:
    place = read.reference_start
    for operation, length in read.cigartuples or ():
        if operation in _ALIGNED and place < end and place + length > start:
            change[max(place, start) - start] += 1
            change[min(place + length, end) - start] -= 1
        if operation in _CONSUMES_REFERENCE:
            place += length


def open_track(path: str | Path) -> Track:
    """A bigWig or BAM file, told apart by content.

    Raises:
        InputError: neither.
    """
    with Path(path).open("rb") as stream:
        prefix = stream.read(1 << 16)
    if is_bigwig(prefix):
        return BigWig(path)
    if bgzf.is_bgzf(prefix) and next(bgzf.read_blocks(Path(path)))[1].startswith(_BAM):
        return Coverage(path)
    raise InputError("the track is neither bigWig nor BAM", where=str(path), fix="check the path")


def binned(values: Floats, bin_bp: int | None) -> Floats:
    """Means of bins (bins,), the whole as one where `bin_bp` is None; the length is a multiple of it."""
    whole = np.nan_to_num(values, nan=0.0)
    found: Floats = whole.reshape(-1, bin_bp or len(whole)).mean(1)
    return found


def check_track(track: Track, contigs: Mapping[str, int], aliases: Mapping[str, str]) -> None:
    """Refuse a track of another genome.

    Args:
        track: the track.
        contigs: of the reference, with their lengths.
        aliases: contig name of the input to its name in the reference.

    Raises:
        InputError: no contig in common, or one of another length.
    """
    ours = {**contigs, **{name: contigs[other] for name, other in aliases.items() if other in contigs}}
    shared = [name for name in track.contigs if name in ours]
    if not shared:
        what = f"the track has contigs {_some(list(track.contigs))}, and the reference {_some(list(contigs))}"
        raise InputError(what, where=track.path, fix="give a track of this reference, or contig aliases")
    for name in shared:
        if track.contigs[name] != ours[name]:
            what = f"contig {name} has {track.contigs[name]:,} bases in the track and {ours[name]:,} in the reference"
            raise InputError(what, where=track.path, fix="give a track of this reference")


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
