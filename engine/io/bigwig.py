"""Reading bigWig: one number a base, or none, along contigs.

Format: Kent et al. 2010, BigWig and BigBed (Bioinformatics 26:2204), supplementary tables 5 to 14. The full-resolution
data are read; zoom levels are not.
"""

from __future__ import annotations

import os
import struct
import weakref
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import DataError, InputError

Floats = npt.NDArray[np.float64]

MAGIC = 0x888FFC26
_CONTIGS_MAGIC, _INDEX_MAGIC = 0x78CA8C91, 0x2468ACE0
_HEADER = "IHHQQQHHQQI"
_BED_GRAPH, _VARIABLE_STEP, _FIXED_STEP = 1, 2, 3
_MOST_CONTIGS = 10_000_000
_CACHED_BLOCKS = 64
_DAMAGED = "copy or make the file again"


def is_bigwig(prefix: bytes) -> bool:
    """Whether a file that begins so is bigWig, of either byte order."""
    return len(prefix) >= 4 and MAGIC in (int.from_bytes(prefix[:4], "little"), int.from_bytes(prefix[:4], "big"))


class BigWig:
    """An opened file; picklable, each process opens it for itself.

    Args:
        path: local path.

    Raises:
        InputError: no bigWig, or one that is cut.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self._size = os.fstat(self._file).st_size
        prefix = os.pread(self._file, struct.calcsize("<" + _HEADER), 0)
        if not is_bigwig(prefix) or len(prefix) < struct.calcsize("<" + _HEADER):
            raise InputError("it is no bigWig file", where=self.path, fix="check the path")
        self._order = "<" if int.from_bytes(prefix[:4], "little") == MAGIC else ">"
        fields = struct.unpack(self._order + _HEADER, prefix)
        contigs_at, self._index_at, self._packed = fields[3], fields[5], fields[10] > 0
        self._ids: dict[str, int] = {}
        self.contigs: dict[str, int] = {}
        for name, number, length in self._read_contigs(contigs_at):
            self._ids[name] = number
            self.contigs[name] = length
        self._block = lru_cache(maxsize=_CACHED_BLOCKS)(self._read_block)

    def __reduce__(self) -> tuple[type[BigWig], tuple[str]]:
        return BigWig, (self.path,)

    def values(self, contig: str, start: int, end: int) -> Floats:
        """float64 (end - start,), NaN where there is no value, outside the contig too.

        Raises:
            DataError: the file is damaged.
        """
        found = np.full(end - start, np.nan)
        number = self._ids.get(contig)
        if number is None or end <= start:
            return found
        for at, size in self._blocks(number, max(start, 0), end):
            places, values = self._block(at, size).bases(number, start, end)
            found[places - start] = values
        return found

    def _blocks(self, number: int, start: int, end: int) -> Iterator[tuple[int, int]]:
        """(offset, bytes) of the blocks that may hold values there."""
        magic, *_ = self._unpack("IIQIIIIQII", self._index_at)
        if magic != _INDEX_MAGIC:
            raise self._damage("its index is not where the header says")
        waiting = [self._index_at + 48]
        for _ in range(_MOST_CONTIGS):
            if not waiting:
                return
            at = waiting.pop()
            is_leaf, _, count = self._unpack("BBH", at)
            form = "IIIIQQ" if is_leaf else "IIIIQ"
            size = struct.calcsize(self._order + form)
            data = self._bytes(at + 4, size * count)
            below: list[int] = []
            for first, low, last, high, place, *length in struct.iter_unpack(self._order + form, data):
                if (first, low) < (number, end) and (last, high) > (number, start):
                    if is_leaf:
                        yield place, length[0]
                    else:
                        below.append(place)
            waiting += below[::-1]
        raise self._damage("its index has no end")

    def _read_contigs(self, at: int) -> Iterator[tuple[str, int, int]]:
        magic, _, key_size, _, num, _ = self._unpack("IIIIQQ", at)
        if magic != _CONTIGS_MAGIC or num > _MOST_CONTIGS:
            raise self._damage("its list of contigs is not where the header says")
        waiting, seen = [at + 32], 0
        while waiting and seen <= num:
            node = waiting.pop()
            is_leaf, _, count = self._unpack("BBH", node)
            form = f"{key_size}sII" if is_leaf else f"{key_size}sQ"
            data = self._bytes(node + 4, struct.calcsize(self._order + form) * count)
            for key, *rest in struct.iter_unpack(self._order + form, data):
                if is_leaf:
                    seen += 1
                    yield key.rstrip(b"\0").decode("utf-8", "replace"), rest[0], rest[1]
                else:
                    waiting.append(rest[0])

    def _read_block(self, at: int, size: int) -> _Block:
        data = self._bytes(at, size)
        if self._packed:
            try:
                data = zlib.decompress(data)
            except zlib.error as error:
                raise self._damage(f"the block at byte {at:,} does not inflate ({error})") from error
        return _Block(data, self._order, self._damage(f"the block at byte {at:,} is none of bigWig's"))

    def _unpack(self, form: str, at: int) -> tuple[Any, ...]:
        return struct.unpack(self._order + form, self._bytes(at, struct.calcsize(self._order + form)))

    def _bytes(self, at: int, size: int) -> bytes:
        if at + size > self._size:
            raise self._damage("it ends in the middle")
        return os.pread(self._file, size, at)

    def _damage(self, what: str) -> DataError:
        return DataError(f"the bigWig file is damaged: {what}", where=self.path, fix=_DAMAGED)


class _Block:
    """One section: bases [starts, ends) of a contig with their values."""

    def __init__(self, data: bytes, order: str, damage: DataError) -> None:
        if len(data) < 24:
            raise damage
        self.contig, start, _, step, span, kind, _, num = struct.unpack_from(order + "IIIIIBBH", data)
        widths = {_BED_GRAPH: 3, _VARIABLE_STEP: 2, _FIXED_STEP: 1}
        if kind not in widths or len(data) < 24 + 4 * widths[kind] * num:
            raise damage
        numbers = np.frombuffer(data, order + "u4", widths[kind] * num, 24).reshape(num, widths[kind])
        self.values = np.ascontiguousarray(numbers[:, -1]).view(order + "f4").astype(np.float64)
        if kind == _FIXED_STEP:
            self.starts = start + step * np.arange(num, dtype=np.int64)
        else:
            self.starts = numbers[:, 0].astype(np.int64)
        self.ends = numbers[:, 1].astype(np.int64) if kind == _BED_GRAPH else self.starts + span

    def bases(self, contig: int, start: int, end: int) -> tuple[npt.NDArray[np.int64], Floats]:
        """Each base of [start, end) that has a value, and the value."""
        first = int(np.searchsorted(self.ends, start, side="right")) if contig == self.contig else 0
        last = int(np.searchsorted(self.starts, end, side="left")) if contig == self.contig else 0
        begins = np.maximum(self.starts[first:last], start)
        lengths = np.maximum(np.minimum(self.ends[first:last], end) - begins, 0)
        skipped = np.cumsum(lengths) - lengths
        places = np.repeat(begins - skipped, lengths) + np.arange(int(lengths.sum()), dtype=np.int64)
        return places, np.repeat(self.values[first:last], lengths)
