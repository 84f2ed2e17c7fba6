"""Whole lines of a VCF as arrays of byte positions, and texts cut out of them without an object per record.

Legend: n lines of a batch, m of them whole (as many columns as the #CHROM line, UTF-8, no NUL), C columns.

Source: the Variant Call Format specification 4.3 (samtools/hts-specs), section 1.6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

PAD = 8
"""Newlines behind the last line, so that a few bytes past any position can be looked at."""

_TAB, _NEWLINE = 9, 10
_MAX_SHOWN = 40
_INT = r"^-?[0-9]{1,18}$"
_FLOAT = r"^-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$|^-?(?i:inf|infinity)$|^(?i:-?nan)$"


@dataclass
class Refused:
    """Rows of a batch that are refused, each with the first reason found."""

    found: dict[int, tuple[str, str]] = field(default_factory=dict)

    def add(self, row: int, reason: str, sentence: str) -> None:
        """Note a row, unless it is refused already."""
        self.found.setdefault(row, (reason, sentence))

    def mark(self, mask: Mask, reason: str, sentence: Callable[[int], str]) -> None:
        """Note all rows of a mask; the sentence is made from the row."""
        for row in np.flatnonzero(mask).tolist():
            self.add(row, reason, sentence(row))


@dataclass(frozen=True)
class Lines:
    """Lines of a batch.

    Attributes:
        raw: the text, LF line ends, every line ended.
        data: uint8 (len(raw) + PAD,): the same with newlines behind it.
        begins: int64 (n + 1,): where each line begins, then the end of the text.
        whole: int64 (m,): which lines are whole.
        edges: int64 (m, C + 1): the byte before each column (tab, or the newline before the line), then the line's
            end; column c is the text between edges c and c + 1.
        refused: lines that are not whole.
    """

    raw: bytes
    data: Bytes
    begins: Ints
    whole: Ints
    edges: Ints
    refused: Refused

    def __len__(self) -> int:
        return len(self.begins) - 1

    def line(self, index: int) -> bytes:
        """Text of a line without its end."""
        return self.raw[self.begins[index] : self.begins[index + 1] - 1]

    def column(self, number: int) -> pa.Array:
        """string (m,): the text of a column."""
        return cut(self.raw, self.edges[:, number] + 1, self.edges[:, number + 1])

    def spans(self, number: int) -> tuple[Ints, Ints]:
        """int64 (m,) twice: begin and end of a column."""
        return self.edges[:, number] + 1, self.edges[:, number + 1]


def split_lines(text: bytes, num_columns: int) -> Lines:
    """Find lines and columns of a batch of whole lines."""
    raw = text.replace(b"\r\n", b"\n") if b"\r" in text else text
    data = np.frombuffer(raw + b"\n" * PAD, np.uint8)
    begins = np.concatenate(([0], np.flatnonzero(data[: len(raw)] == _NEWLINE) + 1))
    tabs = np.flatnonzero(data[: len(raw)] == _TAB)
    marks = np.searchsorted(tabs, begins)
    counts = np.diff(marks)
    refused = Refused()
    bad = counts != num_columns - 1
    refused.mark(bad, "malformed_record", lambda i: _wrong_columns(int(counts[i]) + 1, num_columns))
    _refuse_letters(raw, begins, refused)
    for line in refused.found:
        bad[line] = True
    if bad.any():
        tabs = tabs[np.repeat(~bad, counts)]
    whole = np.flatnonzero(~bad)
    inner = tabs.reshape(len(whole), num_columns - 1)
    edges = np.concatenate((begins[whole, None] - 1, inner, begins[whole + 1, None] - 1), axis=1)
    return Lines(raw, data, begins, whole, edges, refused)


def _wrong_columns(found: int, wanted: int) -> str:
    return f"the line has {found} columns where the #CHROM line has {wanted}"


def _refuse_letters(raw: bytes, begins: Ints, refused: Refused) -> None:
    """NUL bytes and what is no UTF-8; both are looked for in the whole batch first."""
    if b"\0" in raw:
        at = [found for found, byte in enumerate(raw) if byte == 0]
        for line in set((np.searchsorted(begins, at, side="right") - 1).tolist()):
            refused.add(line, "malformed_record", "the line holds a NUL byte")
    if not raw.isascii() and not is_utf8(raw):
        for line in range(len(begins) - 1):
            if not is_utf8(raw[begins[line] : begins[line + 1]]):
                refused.add(line, "malformed_record", "the line is not UTF-8 text")


def is_utf8(data: bytes) -> bool:
    """Whether bytes are UTF-8 text."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def cut(raw: bytes | Bytes, begins: Ints, ends: Ints) -> pa.Array:
    """string (m,): texts between ascending, disjoint begins and ends, copied in one native pass."""
    if not len(begins):
        return pa.array([], pa.string())
    offsets = np.empty(2 * len(begins), np.int32)
    offsets[0::2], offsets[1::2] = begins, ends
    every = pa.Array.from_buffers(pa.string(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(raw)])
    return every.take(pa.array(np.arange(0, len(offsets) - 1, 2, dtype=np.int32)))


def text_bytes(texts: pa.Array) -> tuple[Ints, Bytes]:
    """int64 (m + 1,) offsets and the uint8 bytes of a string array."""
    offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    data = texts.buffers()[2]
    return offsets.astype(np.int64), np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)


def lengths(texts: pa.Array) -> Ints:
    """int64 (m,): bytes of each text."""
    return np.diff(text_bytes(texts)[0]) if len(texts) else np.empty(0, np.int64)


def null_where(array: pa.Array, mask: Mask) -> pa.Array:
    """The array with nulls where the mask is true."""
    return pc.if_else(pa.array(mask), pa.scalar(None, array.type), array) if mask.any() else array


def without_dots(texts: pa.Array) -> pa.Array:
    """Texts with '.' and empty ones as null: VCF's missing value."""
    if not len(texts):
        return texts
    offsets, data = text_bytes(texts)
    sizes = np.diff(offsets)
    dots = sizes == 0
    one = np.flatnonzero(sizes == 1)
    dots[one] = data[offsets[one]] == ord(".")
    return null_where(texts, dots)


def to_numbers(texts: pa.Array, kind: pa.DataType) -> tuple[pa.Array, Mask]:
    """Numbers of texts, null where those are null, and a mask of texts that are no number of this kind.

    Args:
        texts: string (m,).
        kind: int32 or float32.
    """
    wide = pa.int64() if pa.types.is_integer(kind) else pa.float64()
    bad = np.zeros(len(texts), np.bool_)
    whole = pa.types.is_integer(kind)
    try:
        if whole and _looks_hexadecimal(texts):
            raise pa.ArrowInvalid("0x is no number in a VCF")
        numbers = texts.cast(wide)
    except pa.ArrowInvalid:
        good = pc.match_substring_regex(texts, _INT if whole else _FLOAT).fill_null(True)
        bad = ~np.asarray(good)
        numbers = null_where(texts, bad).cast(wide)
    if whole:
        values = np.asarray(numbers.fill_null(0))
        outside = (values < -(2**31) + 8) | (values >= 2**31)  # the lowest eight are BCF's own
        bad |= outside
        numbers = null_where(numbers, outside)
    return numbers.cast(kind, safe=False), bad


def _looks_hexadecimal(texts: pa.Array) -> bool:
    _, data = text_bytes(texts)
    return bool(((data | 32) == ord("x")).any())


def place(values: pa.Array, rows: Ints, num_rows: int) -> pa.Array:
    """(num_rows,): values at the given rows, which may come in any order but only once each; null elsewhere."""
    if len(rows) == num_rows and bool((rows[1:] > rows[:-1]).all()):
        return values
    index = np.full(num_rows, -1, np.int64)
    index[rows] = np.arange(len(rows))
    return take(values, index)


def take(values: pa.Array | pa.Table, index: Ints) -> pa.Array | pa.Table:
    """Values by index; null where it is negative."""
    return values.take(pa.array(index, mask=index < 0))


def packed_rows(values: npt.NDArray[Any]) -> pa.Array:
    """binary (m,): the little-endian bytes of each row of an array."""
    size = values.itemsize * int(np.prod(values.shape[1:]))
    offsets = (np.arange(len(values) + 1) * size).astype(np.int32)
    data = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return pa.Array.from_buffers(pa.binary(), len(values), [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def shown(text: str | bytes) -> str:
    """A text as a sentence shows it: quoted, and cut where long."""
    found = text.decode(errors="replace") if isinstance(text, bytes) else text
    return repr(found if len(found) <= _MAX_SHOWN else found[:_MAX_SHOWN] + "...")
