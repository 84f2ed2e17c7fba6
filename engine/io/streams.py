"""Blocks of a file joined to batches of whole records, with the way back from stream position to file offset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from engine.io import bgzf

BATCH_BYTES = 1 << 20
_PLAIN_BYTES = 1 << 18

OnRaw = Callable[[bytes], object]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Mapper(Protocol):
    """Python's `map`, or what spreads the calls over processes: results come in the order of the items."""

    def __call__(self, function: Callable[[_Item], _Result], items: Iterable[_Item], /) -> Iterator[_Result]: ...


class Storage(Protocol):
    """How bytes lie in a file: BGZF under virtual offsets, or plain under byte offsets."""

    def blocks(
        self, path: Path, begin: int, end: int | None = None, *, on_raw: OnRaw | None = None
    ) -> Iterator[bgzf.Block]:
        """Blocks of [begin, end); `on_raw` receives the file's own bytes of each block touched."""
        ...

    def whole_before(self, offset: int) -> int:
        """Bytes of the file before the block that holds `offset`."""
        ...


class SeekableStorage(Storage, Protocol):
    """One that can be entered at any of its blocks."""

    def stretches(self, path: Path, begin: int, *, size: int, on_raw: OnRaw) -> Iterator[tuple[int, int]]:
        """[begin, end) of stretches that hold `size` bytes, or a block more, to the end; `on_raw` as for `blocks`."""
        ...


class BgzfStorage:
    """A BGZF file."""

    def blocks(
        self, path: Path, begin: int, end: int | None = None, *, on_raw: OnRaw | None = None
    ) -> Iterator[bgzf.Block]:
        """See `Storage.blocks`."""
        return bgzf.read_blocks(path, begin, end, on_raw=on_raw)

    def stretches(self, path: Path, begin: int, *, size: int, on_raw: OnRaw) -> Iterator[tuple[int, int]]:
        """See `SeekableStorage.stretches`."""
        held, end = 0, begin
        for offset, raw in bgzf.raw_blocks(path, begin >> 16):
            on_raw(raw)
            held += bgzf.told_size(raw)
            end = (offset + len(raw)) << 16
            if held >= size:
                yield begin, end
                begin, held = end, 0
        if end > begin:  # blocks that say they are empty among them: only who inflates them finds out
            yield begin, end

    def whole_before(self, offset: int) -> int:
        """See `Storage.whole_before`."""
        return offset >> 16


class PlainStorage:
    """A file as it is."""

    def blocks(
        self, path: Path, begin: int, end: int | None = None, *, on_raw: OnRaw | None = None
    ) -> Iterator[bgzf.Block]:
        """See `Storage.blocks`."""
        with path.open("rb") as stream:
            stream.seek(begin)
            while end is None or begin < end:
                data = stream.read(_PLAIN_BYTES if end is None else min(_PLAIN_BYTES, end - begin))
                if not data:
                    return
                if on_raw is not None:
                    on_raw(data)
                yield begin, data, begin + len(data)
                begin += len(data)

    def stretches(self, path: Path, begin: int, *, size: int, on_raw: OnRaw) -> Iterator[tuple[int, int]]:
        """See `SeekableStorage.stretches`."""
        end = begin
        for _, _, end in self.blocks(path, begin, on_raw=on_raw):
            if end - begin >= size:
                yield begin, end
                begin = end
        if end > begin:
            yield begin, end

    def whole_before(self, offset: int) -> int:
        """See `Storage.whole_before`."""
        return offset


def feed_before(path: Path, size: int, on_raw: OnRaw) -> None:
    """Hand the first `size` bytes of a file to `on_raw`."""
    for _ in PlainStorage().blocks(path, 0, size, on_raw=on_raw):
        pass


@dataclass(frozen=True)
class Places:
    """The way back from stream position to file offset.

    Attributes:
        positions: stream positions where file blocks begin, ascending.
        offsets: file offset (virtual, or byte) of each of `positions`.
    """

    positions: npt.NDArray[np.int64]
    offsets: list[int]

    def locate(self, position: int) -> int:
        """File offset of a stream position at a record border."""
        index = int(np.searchsorted(self.positions, position, side="right")) - 1
        return self.offsets[index] + position - int(self.positions[index])

    def followed_by(self, places: Places, base: int) -> Places:
        """With the places of what follows, whose positions count from `base`."""
        return Places(np.concatenate((self.positions, places.positions + base)), [*self.offsets, *places.offsets])

    def since(self, position: int) -> Places:
        """Those that are needed to locate what lies at `position` or behind it."""
        index = max(0, int(np.searchsorted(self.positions, position, side="right")) - 1)
        return Places(self.positions[index:], self.offsets[index:])


@dataclass(frozen=True)
class Batch(Places):
    """Whole records, in stream order.

    Attributes:
        data: the records' bytes.
        base: stream position (uncompressed bytes read so far) of the first byte.
    """

    data: bytes
    base: int


class Joiner:
    """Collects blocks until whole records can be taken off the front."""

    def __init__(self, base: int = 0) -> None:
        self.size = 0
        self._base = base
        self._pieces: list[bytes] = []
        self._positions: list[int] = []
        self._offsets: list[int] = []
        self._after = 0

    def push(self, block: bgzf.Block) -> None:
        """Take in a block that follows the last one."""
        begin, data, self._after = block
        if data:
            self._positions.append(self._base + self.size)
            self._offsets.append(begin)
            self._pieces.append(data)
            self.size += len(data)

    def joined(self) -> bytes:
        """All bytes held."""
        if len(self._pieces) > 1:
            self._pieces = [b"".join(self._pieces)]
        return self._pieces[0] if self._pieces else b""

    def take(self, cut: int, *, ending: bytes = b"") -> Batch:
        """The first `cut` bytes as a batch; the rest is kept for the next.

        `ending` is added to data (a missing last newline) and has no place in the file.
        """
        data, rest = self._parted(cut, ending)
        border = self._base + cut + len(ending)
        index = int(np.searchsorted(self._positions, self._base + cut, side="right")) - 1
        offset = self._after if cut == self.size else self._offsets[index] + self._base + cut - self._positions[index]
        kept = [(p, o) for p, o in zip(self._positions, self._offsets, strict=True) if p > self._base + cut]
        positions = [p for p in self._positions if p < self._base + cut]
        batch = Batch(
            np.array([*positions, border], np.int64),
            [*self._offsets[: len(positions)], offset],
            data,
            self._base,
        )
        self._pieces = [rest] if rest else []
        self._positions = [border, *(p for p, _ in kept)] if rest else []
        self._offsets = [offset, *(o for _, o in kept)] if rest else []
        self._base, self.size = border, len(rest)
        return batch

    def _parted(self, cut: int, ending: bytes) -> tuple[bytes, bytes]:
        """The first `cut` bytes with `ending`, and the rest; copied once, as the cut mostly lies in the last block."""
        *before, last = self._pieces or [b""]
        inside = cut - (self.size - len(last))
        if inside < 0:
            whole = self.joined()
            return whole[:cut] + ending, whole[cut:]
        return b"".join((*before, last[:inside], ending)), last[inside:]


def iter_lines(blocks: Iterator[bgzf.Block], *, base: int = 0, batch_bytes: int = BATCH_BYTES) -> Iterator[Batch]:
    """Batches of whole lines of about `batch_bytes`; a longer line gets as much as it needs.

    A last line without its newline gets one, so that every batch holds whole lines.
    """
    joiner = Joiner(base)
    for block in blocks:
        joiner.push(block)
        newline = block[1].rfind(b"\n")
        if newline >= 0 and joiner.size >= batch_bytes:
            yield joiner.take(joiner.size - len(block[1]) + newline + 1)
    if joiner.size:
        yield joiner.take(joiner.size, ending=b"" if joiner.joined().endswith(b"\n") else b"\n")
