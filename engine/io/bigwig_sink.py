"""Writing bigWig: numbers along contigs, front to back, with an index and summaries for browsers to zoom out.

Format: Kent et al. 2010, BigWig and BigBed (Bioinformatics 26:2204), supplementary tables 5 to 19. Sections are of the
kind fixedStep, 4 bytes a value before compression; the same values give the same bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from engine.errors import InputError
from engine.io.bigwig import MAGIC
from engine.storage.store import clear_errors

_VERSION, _FIXED_STEP = 4, 3
_CONTIGS_MAGIC, _INDEX_MAGIC = 0x78CA8C91, 0x2468ACE0
_HEADER, _ZOOM, _SUMMARY = "<IHHQQQHHQQIQ", "<IIQQ", "<Qdddd"
_SLOT = 1024
_NODE = 256
_FIRST_ZOOM, _ZOOM_STEP, _MOST_ZOOMS = 64, 4, 10
_MOST_CONTIGS = 65_535
_MOST_BASES = 1 << 20
# What is kept of a bin while it is added up, and what the file holds of it.
_BIN = np.dtype([("contig", "<u4"), ("bin", "<u4"), ("valid", "<u4"), *((n, "<f8") for n in ("low", "high", "s", "q"))])
_RECORD = np.dtype([*((n, "<u4") for n in ("contig", "start", "end", "valid")), *((n, "<f4") for n in "lhsq")])
_LEAF = np.dtype([*((n, "<u4") for n in ("contig", "start", "last", "end")), ("at", "<u8"), ("size", "<u8")])
Floats = npt.NDArray[Any]
Bins = npt.NDArray[Any]


def check_contigs(contigs: Collection[str], *, where: str) -> None:
    """Raise InputError where no bigWig file holds so many contigs: none, or more than 65,535."""
    if not 1 <= len(contigs) <= _MOST_CONTIGS:
        what = f"a bigWig file of {len(contigs):,} contigs, wanted are 1 to {_MOST_CONTIGS:,}"
        raise InputError(what, where=where, fix="choose contigs")


class BigWigSink:
    """A bigWig file being written; leaving the context without an error completes it.

    Args:
        path: local file, overwritten; a file with `.zoom` added lies beside it meanwhile.
        contigs: name to length of every contig that may get values.

    Raises:
        InputError: none, or more than 65,535 contigs.
        SystemFailure: the disk is full.
    """

    def __init__(self, path: str | Path, contigs: Mapping[str, int]) -> None:
        check_contigs(contigs, where=str(path))
        self.path = Path(path)
        self._lengths = dict(contigs)
        self._numbers: dict[str, int] = {}
        self._last = ("", 0)
        self._leaves: list[tuple[int, int, int, int, int, int]] = []
        self._held: Bins = np.zeros(0, _BIN)
        self._total = [0, np.inf, -np.inf, 0.0, 0.0]
        self._spill = self.path.with_name(f"{self.path.name}.zoom")
        with clear_errors(str(path)):
            self._file: BinaryIO = self.path.open("wb")
            self._bins: BinaryIO = self._spill.open("w+b")
            self._file.write(bytes(struct.calcsize(_HEADER) + _MOST_ZOOMS * struct.calcsize(_ZOOM)))
            self._file.write(bytes(struct.calcsize(_SUMMARY)))
            self._tree_at = self._file.tell()
            self._file.write(bytes(len(self._contig_tree())))
            self._data_at = self._file.tell()
            self._file.write(bytes(8))

    def __enter__(self) -> BigWigSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with clear_errors(str(self.path)):
                    self._finish()
        finally:
            self._file.close()
            self._bins.close()
            self._spill.unlink(missing_ok=True)

    def add(self, contig: str, start: int, values: Floats, *, span: int = 1) -> None:
        """Values (N,) of N neighbouring stretches of `span` bases from `start` on; NaN where there is none.

        Places never go back, and a contig is finished before the next begins.

        Raises:
            ValueError: an unknown contig, a place before the last one or past the contig's end, an infinite value.
        """
        numbers = np.asarray(values, np.float32)
        self._check(contig, start, start + span * len(numbers))
        if np.isinf(numbers).any():
            raise ValueError("bigWig holds finite numbers")
        self._last = contig, start + span * len(numbers)
        there = np.flatnonzero(np.diff(np.concatenate(([False], ~np.isnan(numbers), [False])).astype(np.int8)))
        with clear_errors(str(self.path)):
            for low, high in there.reshape(-1, 2).tolist():
                for begin in range(low, high, _SLOT):
                    part = numbers[begin : min(begin + _SLOT, high)]
                    self._section(self._numbers[contig], start + begin * span, part, span)
                most = max(1, _MOST_BASES // span)
                for begin in range(low, high, most):
                    self._count(
                        self._numbers[contig], start + begin * span, numbers[begin : min(begin + most, high)], span
                    )

    def _check(self, contig: str, start: int, end: int) -> None:
        if contig not in self._lengths:
            raise ValueError(f"contig {contig!r} is not among those of the file")
        if contig != self._last[0]:
            if contig in self._numbers:
                raise ValueError(f"contig {contig!r} was finished before")
            self._numbers[contig] = len(self._numbers)
        elif start < self._last[1]:
            raise ValueError(f"place {start} of {contig} comes after {self._last[1]}")
        if start < 0 or end > self._lengths[contig]:
            raise ValueError(f"{start} to {end} leaves {contig}, which has {self._lengths[contig]} bases")

    def _section(self, number: int, start: int, values: npt.NDArray[np.float32], span: int) -> None:
        end = start + span * len(values)
        head = struct.pack("<IIIIIBBH", number, start, end, span, span, _FIXED_STEP, 0, len(values))
        data = zlib.compress(head + values.astype("<f4").tobytes(), 6)
        self._leaves.append((number, start, number, end, self._file.tell(), len(data)))
        self._file.write(data)

    def _count(self, number: int, start: int, values: npt.NDArray[np.float32], span: int) -> None:
        """Add a stretch of values, base by base, to the summary and to the bins of the first zoom level."""
        bases = np.repeat(values.astype(np.float64), span)
        low, high, total, squares = bases.min(), bases.max(), bases.sum(), np.square(bases).sum()
        known = self._total
        self._total = [
            known[0] + len(bases), min(known[1], low), max(known[2], high), known[3] + total, known[4] + squares
        ]  # fmt: skip
        place = np.arange(start, start + len(bases), dtype=np.int64) // _FIRST_ZOOM
        firsts = np.flatnonzero(np.concatenate(([True], place[1:] != place[:-1])))
        made = np.zeros(len(firsts), _BIN)
        made["contig"], made["bin"] = number, place[firsts]
        made["valid"] = np.diff(np.concatenate((firsts, [len(bases)])))
        made["low"], made["high"] = np.minimum.reduceat(bases, firsts), np.maximum.reduceat(bases, firsts)
        made["s"], made["q"] = np.add.reduceat(bases, firsts), np.add.reduceat(np.square(bases), firsts)
        joined = _merged(np.concatenate((self._held, made)))
        joined[:-1].tofile(self._bins)
        self._held = joined[-1:]

    def _finish(self) -> None:
        self._held.tofile(self._bins)
        index_at = self._index(self._leaves, 1)
        zooms = [(size, *self._zoom(size)) for size in self._zoom_sizes()]
        self._file.write(struct.pack("<I", MAGIC))
        summary_at = struct.calcsize(_HEADER) + _MOST_ZOOMS * struct.calcsize(_ZOOM)
        buffer = max(24 + 4 * _SLOT, _RECORD.itemsize * _SLOT)
        head = (MAGIC, _VERSION, len(zooms), self._tree_at, self._data_at, index_at, 0, 0, 0, summary_at, buffer, 0)
        self._file.seek(0)
        self._file.write(struct.pack(_HEADER, *head))
        self._file.write(b"".join(struct.pack(_ZOOM, size, 0, data_at, at) for size, data_at, at in zooms))
        self._file.seek(summary_at)
        self._file.write(struct.pack(_SUMMARY, *(self._total if self._total[0] else (0, 0.0, 0.0, 0.0, 0.0))))
        self._file.write(self._contig_tree())
        self._file.seek(self._data_at)
        self._file.write(struct.pack("<Q", len(self._leaves)))

    def _contig_tree(self) -> bytes:
        """One leaf, sorted by name; numbers are in order of appearance, those without values come last."""
        key = max(len(name.encode()) for name in self._lengths)
        left = (name for name in self._lengths if name not in self._numbers)
        numbers = {**self._numbers, **{name: len(self._numbers) + i for i, name in enumerate(left)}}
        head = struct.pack("<IIIIQQ", _CONTIGS_MAGIC, len(numbers), key, 8, len(numbers), 0)
        leaves = (
            struct.pack(f"<{key}sII", name.encode(), numbers[name], self._lengths[name]) for name in sorted(numbers)
        )
        return head + struct.pack("<BBH", 1, 0, len(numbers)) + b"".join(leaves)

    def _zoom_sizes(self) -> list[int]:
        """Bases of a bin at each level, as long as the longest contig has more than one."""
        longest = max((self._lengths[name] for name in self._numbers), default=0)
        sizes = (_FIRST_ZOOM * _ZOOM_STEP**level for level in range(_MOST_ZOOMS))
        return [size for size in sizes if size < longest]

    def _zoom(self, size: int) -> tuple[int, int]:
        """Write a level; where its data and its index begin."""
        data_at, leaves, held, count = self._file.tell(), [], np.zeros(0, _RECORD), 0
        self._file.write(bytes(4))
        names = {number: name for name, number in self._numbers.items()}
        lengths = np.array([self._lengths[names[number]] for number in range(len(names))], np.int64)
        for bins in self._levels(size // _FIRST_ZOOM):
            records = np.zeros(len(bins), _RECORD)
            records["contig"], records["valid"] = bins["contig"], bins["valid"]
            records["start"] = bins["bin"] * np.uint32(size)
            records["end"] = np.minimum(records["start"] + np.int64(size), lengths[bins["contig"]])
            for name, other in (("l", "low"), ("h", "high"), ("s", "s"), ("q", "q")):
                records[name] = bins[other]
            count += len(records)
            held = np.concatenate((held, records))
            whole = len(held) // _SLOT * _SLOT
            leaves += [self._zoom_block(held[at : at + _SLOT]) for at in range(0, whole, _SLOT)]
            held = held[whole:]
        if len(held):
            leaves.append(self._zoom_block(held))
        index_at = self._index(leaves, _SLOT)
        self._file.seek(data_at)
        self._file.write(struct.pack("<I", count))
        self._file.seek(0, 2)
        return data_at, index_at

    def _levels(self, factor: int) -> Iterator[Bins]:
        """Bins of the first level, joined by so many."""
        self._bins.seek(0)
        held = np.zeros(0, _BIN)
        while len(bins := np.fromfile(self._bins, _BIN, 1 << 16)):
            bins["bin"] //= factor
            held = _merged(np.concatenate((held, bins)))
            yield held[:-1]
            held = held[-1:]
        yield held

    def _zoom_block(self, records: npt.NDArray[Any]) -> tuple[int, int, int, int, int, int]:
        data = zlib.compress(records.tobytes(), 6)
        at = self._file.tell()
        self._file.write(data)
        first, last = records[0], records[-1]
        return int(first["contig"]), int(first["start"]), int(last["contig"]), int(last["end"]), at, len(data)

    def _index(self, blocks: list[tuple[int, int, int, int, int, int]], per_slot: int) -> int:
        """Write an R tree over blocks in their order; where it begins."""
        at = self._file.tell()
        leaves = np.array(blocks, _LEAF) if blocks else np.zeros(0, _LEAF)
        bounds = _bounds(leaves) if len(leaves) else (0, 0, 0, 0)
        self._file.write(struct.pack("<IIQIIIIQII", _INDEX_MAGIC, _NODE, len(leaves), *bounds, at, per_slot, 0))
        levels = [leaves]
        while len(levels[-1]) > _NODE:
            below = levels[-1]
            above = np.zeros(-(-len(below) // _NODE), _LEAF)
            for place in range(len(above)):
                box = _bounds(below[place * _NODE : (place + 1) * _NODE])
                above["contig"][place], above["start"][place], above["last"][place], above["end"][place] = box
            levels.append(above)
        begin = self._file.tell()
        for level in reversed(range(len(levels))):
            width = _LEAF.itemsize if level == 0 else _LEAF.itemsize - 8
            nodes = max(1, -(-len(levels[level]) // _NODE))
            end = begin + 4 * nodes + width * len(levels[level])
            if level:
                child = _LEAF.itemsize if level == 1 else _LEAF.itemsize - 8
                levels[level]["at"] = end + np.arange(len(levels[level])) * (4 + child * _NODE)
            for node in range(nodes):
                items = levels[level][node * _NODE : (node + 1) * _NODE]
                plain = items.tobytes() if level == 0 else items.view("u1").reshape(len(items), -1)[:, :width].tobytes()
                self._file.write(struct.pack("<BBH", level == 0, 0, len(items)) + plain)
            begin = end
        return at


def _merged(bins: Bins) -> Bins:
    """Neighbours of one bin joined."""
    if len(bins) < 2:
        return bins
    same = (bins["contig"][1:] == bins["contig"][:-1]) & (bins["bin"][1:] == bins["bin"][:-1])
    firsts = np.flatnonzero(np.concatenate(([True], ~same)))
    made = bins[firsts].copy()
    for name, join in (("valid", np.add), ("low", np.minimum), ("high", np.maximum), ("s", np.add), ("q", np.add)):
        made[name] = join.reduceat(bins[name], firsts)
    return made


def _bounds(items: npt.NDArray[Any]) -> tuple[int, int, int, int]:
    """Box around items in their order."""
    last = items["last"].max()
    end = items["end"][items["last"] == last].max()
    return int(items["contig"][0]), int(items["start"][0]), int(last), int(end)
