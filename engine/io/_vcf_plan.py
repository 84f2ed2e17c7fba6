"""The plan of a VCF cut by array: where the lines of a batch begin, and the site of each from its first two columns."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.io import _vcf_lines
from engine.io._vcf_lines import Bytes, Ints, cut
from engine.io.planning import Planner
from engine.io.streams import Places, SeekableStorage
from engine.io.vcf import _is_contig, parse_line

_SITE_WIDTH = 32
_LONG_LINE = 500


class ColumnPlanner(Planner):
    """A planner that takes whole batches of lines; order is checked by array."""

    def add_sites(self, sites: BatchSites, base: int, places: Places) -> None:
        """Add some lines that follow the last ones.

        Args:
            sites: of the lines.
            base: stream position of the first byte.
            places: of the blocks that they lie in.

        Raises:
            InputError: out of order.
        """
        begins, contigs, starts = sites.begins, sites.contigs, sites.starts
        if not len(starts):
            return
        borders = [0, *(np.flatnonzero(contigs.codes[1:] != contigs.codes[:-1]) + 1).tolist(), len(starts)]
        for begin, end in itertools.pairwise(borders):
            code = int(contigs.codes[begin])
            name = contigs.names[code] if code >= 0 else None
            self._add_run(name, starts[begin:end], begins[begin : end + 1] + base, places)

    def _add_run(self, contig: str | None, starts: Ints, marks: Ints, places: Places) -> None:
        if contig is not None:
            self._check_run(contig, starts)
            self.contigs[contig] = self.contigs.get(contig, 0) + len(starts)
        known = _Starts(starts) if contig is not None else [None] * len(starts)
        done = 0
        while done < len(starts):
            done = self._take(contig, known, done, marks=marks, locate=places.locate)

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


@dataclass(frozen=True)
class BatchSites:
    """Where the lines of a batch begin, int64 (lines + 1,), and the site of each."""

    begins: Ints
    contigs: _Contigs
    starts: Ints


@dataclass(frozen=True)
class Stretch:
    """What a stretch of the file says of itself; the lines that reach past it lie in `head` and `tail`.

    Attributes:
        size: bytes of text.
        places: of its blocks and its end, counted from its first byte.
        head: its text up to the first line end; all of it where it has none.
        sites: of the whole lines between.
        tail: its text behind the last line end.
    """

    size: int
    places: Places
    head: bytes
    sites: BatchSites
    tail: bytes


def read_stretch(span: tuple[int, int], *, path: Path, storage: SeekableStorage, num_columns: int) -> Stretch:
    """Sites of the lines of a stretch [begin, end), from its own bytes alone.

    Raises:
        InputError: a block is corrupt.
    """
    positions, offsets, pieces, size = [], [], [], 0
    for begin, data, _ in storage.blocks(path, *span):
        if data:
            positions.append(size)
            offsets.append(begin)
            pieces.append(data)
            size += len(data)
    text = b"".join(pieces)
    first = text.find(b"\n") + 1 or size
    last = max(text.rfind(b"\n") + 1, first)
    places = Places(np.array([*positions, size], np.int64), [*offsets, span[1]])
    return Stretch(size, places, text[:first], _batch_sites(text[first:last], num_columns), text[last:])


def add_stretches(planner: ColumnPlanner, stretches: Iterable[Stretch], num_columns: int) -> None:
    """Plan the lines of stretches that follow one another, those that lie in several among them.

    Raises:
        InputError: out of order.
    """
    base, carried, places = 0, b"", Places(np.empty(0, np.int64), [])
    for stretch in stretches:
        places = places.followed_by(stretch.places, base)
        carried += stretch.head
        if carried.endswith(b"\n"):
            begin = base + len(stretch.head)
            planner.add_sites(_line_sites(carried, num_columns), begin - len(carried), places)
            planner.add_sites(stretch.sites, begin, places)
            carried = stretch.tail
        base += stretch.size
        places = places.since(base - len(carried))
    if carried:  # a last line without its end, which has no place in the file
        end = Places(np.array([1], np.int64), places.offsets[-1:])
        planner.add_sites(
            _batch_sites(carried + b"\n", num_columns), base - len(carried), places.followed_by(end, base)
        )


def _line_sites(line: bytes, num_columns: int) -> BatchSites:
    begins = np.array([0, len(line)], np.int64)
    return BatchSites(begins, *_parsed_sites(line, begins, num_columns))


def _batch_sites(text: bytes, num_columns: int) -> BatchSites:
    data = np.frombuffer(text, np.uint8)
    begins = _line_begins(text, data)
    contigs, starts = _sites(text, data, begins)
    if not _is_sorted(contigs, starts):
        contigs, starts = _parsed_sites(text, begins, num_columns)
    else:
        _drop_bad_end(text, begins, contigs, starts, num_columns)
    return BatchSites(begins, contigs, starts)


def _line_begins(text: bytes, data: Bytes) -> Ints:
    """int64 (lines + 1,): where each line begins, then the end of the text.

    The C library finds the end of a long line faster than an array of all bytes is made; of short ones it does not.
    """
    end = text.find(b"\n")
    if end < _LONG_LINE:
        return np.concatenate(([0], np.flatnonzero(data == ord("\n")) + 1))
    found = [0]
    while end >= 0:
        found.append(end + 1)
        end = text.find(b"\n", end + 1)
    return np.array(found, np.int64)


def _sites(text: bytes, data: Bytes, begins: Ints) -> tuple[_Contigs, Ints]:
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


def _first_tabs(data: Bytes, begins: Ints) -> tuple[Ints, Ints]:
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
