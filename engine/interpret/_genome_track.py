"""Contributions of windows on a genome as bigWig: one number a base, the mean over the windows that hold it.

A window of the strand "-" is read backwards, so its first contribution belongs to its last base.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.io.bigwig_sink import BigWigSink

_BLOCK_BASES = 1 << 20
Values = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Window:
    """Values (L,) of the bases from `start` on, in the direction of the contig; start may be negative."""

    contig: str
    start: int
    values: Values

    @property
    def end(self) -> int:
        """Just past its last base."""
        return self.start + len(self.values)


def windows_of(parts: Iterable[pa.Table], column: str) -> Iterator[Window]:
    """Windows of rows that have a place as long as they are, and values."""
    for table in parts:
        places = zip(*(table[name].to_pylist() for name in ("contig", "start", "end", "strand")), strict=True)
        for (contig, start, end, strand), values in zip(places, table[column], strict=True):
            if contig is None or start is None or not values.is_valid or end - start != len(values):
                continue
            forward = values.values.to_numpy(zero_copy_only=False).astype(np.float32)
            yield Window(contig, start, forward[::-1] if strand == "-" else forward)


def lengths_of(windows: Iterable[Window]) -> dict[str, int]:
    """The largest end of each contig, by name: what is known of its length without a reference."""
    found: dict[str, int] = {}
    for one in windows:
        found[one.contig] = max(found.get(one.contig, 1), one.end)
    return dict(sorted(found.items()))


def write_track(path: Path, windows: Iterable[Window], contigs: Mapping[str, int]) -> None:
    """Write the windows, which are held in memory; bases past the ends of a contig are left out.

    Args:
        path: the file to make.
        windows: in any order.
        contigs: name to length; windows elsewhere are left out.
    """
    ordered: dict[str, list[Window]] = {name: [] for name in contigs}
    for one in windows:
        if one.contig in ordered:
            ordered[one.contig].append(one)
    with BigWigSink(path, contigs) as sink:
        for contig, held in ordered.items():
            held.sort(key=lambda one: (one.start, one.end))
            for start, values in _means(held, contigs[contig]):
                sink.add(contig, start, values)


def _means(windows: list[Window], length: int) -> Iterator[tuple[int, Values]]:
    """(start, values) of blocks from left to right, NaN where no window lies."""
    at, active = 0, 0
    while active < len(windows):
        begin = max(at, windows[active].start, 0)
        end = min(begin + _BLOCK_BASES, length)
        if begin >= end:
            return
        total, count = np.zeros(end - begin), np.zeros(end - begin, np.int64)
        for one in windows[active:]:
            if one.start >= end:
                break
            low, high = max(one.start, begin), min(one.end, end)
            if low < high:
                total[low - begin : high - begin] += one.values[low - one.start : high - one.start]
                count[low - begin : high - begin] += 1
        there = np.flatnonzero(count)
        if len(there):
            means = np.full(there[-1] + 1, np.nan, np.float32)
            means[there] = total[there] / count[there]
            yield begin, means
        at = end
        # Windows are in order of their starts; those before the first that reaches on are done with.
        while active < len(windows) and windows[active].end <= end:
            active += 1
