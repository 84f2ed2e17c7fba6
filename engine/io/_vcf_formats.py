"""The FORMAT fields of all samples of a batch of VCF lines, beside GT, for all records at once.

Legend: m whole lines, C columns, S samples; a cell is what one sample has at one record, of subfields parted by ':'.

A row of numbers is packed as BCF packs it: one byte that says how wide a value is (1, 2 or 4 bytes), then the values of
all samples, little-endian, as narrow as the batch allows.

Source: the Variant Call Format specification 4.3 (samtools/hts-specs), section 1.6.2: trailing subfields may be left
off; and the BCF2 specification in the same document, 6.3.3: missing and absent integers are the two lowest of their
width (the lowest eight are kept for such codes), floats 0x7F800001 and 0x7F800002.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.io import _vcf_lines
from engine.io._genotypes import FORMAT
from engine.io._vcf_header import Declared
from engine.io._vcf_lines import Bytes, Ints, Lines, Mask, Refused, cut, shown, text_bytes

MISSING_INT = -(2**31)
MISSING_FLOAT, NO_FLOAT = np.array([0x7F800001, 0x7F800002], np.uint32).view(np.float32)
_LONGEST_INT = 11
_LOWEST, _HIGHEST = -(2**31) + 8, 2**31 - 1

RESERVED = 8
"""The lowest integers of each width, which are codes: missing the first, absent the second."""

Numbers = npt.NDArray[Any]
"""int8, int16, int32 or float32."""


def format_type(field: Declared) -> pa.DataType:
    """Arrow type of a column of FORMAT values: packed numbers, or a text for each sample."""
    return pa.list_(pa.string()) if field.type in ("String", "Character") else pa.binary()


def format_about(field: Declared) -> str:
    """What a column of FORMAT values holds."""
    if field.type in ("String", "Character"):
        return f"FORMAT {field.id}, one text per sample, null where missing: {field.description}"
    kind = "integer" if field.type == "Integer" else "float"
    return (
        f"FORMAT {field.id}: one byte, the width of a value in bytes; then {kind} values, little-endian, samples by "
        f"values, missing and absent ones coded as in BCF; null where the record has no {field.id}: {field.description}"
    )


def read_formats(lines: Lines, fields: Sequence[Declared], refused: Refused) -> dict[str, pa.Array]:
    """A column `format_<ID>` for each field; rows whose values do not fit go to `refused`."""
    if not fields:
        return {}
    cells = _Cells.of(lines)
    keys = lines.column(FORMAT).dictionary_encode()
    codes = np.asarray(keys.indices)
    pieces: dict[str, list[tuple[Ints, pa.Array]]] = {field.id: [] for field in fields}
    for code, text in enumerate(keys.dictionary.to_pylist()):
        names = text.split(":")
        rows = np.flatnonzero(codes == code)
        _refuse_surplus(cells, rows, len(names), refused)
        for field in fields:
            if field.id in names:
                values = _Values(field, cells.subfields(rows, names.index(field.id)), rows, refused)
                pieces[field.id] += values.columns(cells.num_samples)
    return {f"format_{field.id}": _joined(pieces[field.id], len(codes), format_type(field)) for field in fields}


def _joined(pieces: Sequence[tuple[Ints, pa.Array]], num_rows: int, kind: pa.DataType) -> pa.Array:
    if not pieces:
        return pa.nulls(num_rows, kind)
    rows = np.concatenate([rows for rows, _ in pieces])
    return _vcf_lines.place(pa.concat_arrays([values for _, values in pieces]), rows, num_rows)


@dataclass(frozen=True)
class _Subfields:
    """One subfield of some cells.

    Attributes:
        texts: string (found,): the texts, each with the mark before it.
        found: int64 (found,): the cells (row-major) that have the subfield.
        num_cells: all cells.
    """

    texts: pa.Array
    found: Ints
    num_cells: int


@dataclass(frozen=True)
class _Cells:
    """Where the subfields of all cells of the whole lines begin and end.

    Attributes:
        data: uint8: the text of the whole lines.
        marks: int64: tabs, newlines and colons.
        opening, closing: int64 (m, S): places in `marks` of the mark before a cell and of the one behind it.
    """

    data: Bytes
    marks: Ints
    opening: Ints
    closing: Ints

    @classmethod
    def of(cls, lines: Lines) -> _Cells:
        if len(lines.whole) == len(lines):
            data = lines.data[: len(lines.raw)]
        else:
            kept = b"".join(lines.raw[lines.begins[i] : lines.begins[i + 1]] for i in lines.whole.tolist())
            data = np.frombuffer(kept, np.uint8)
        marks = np.flatnonzero((data == ord("\t")) | (data == ord("\n")) | (data == ord(":")))
        edges = np.flatnonzero(data[marks] != ord(":")).reshape(len(lines.whole), lines.edges.shape[1] - 1)
        return cls(data, marks, edges[:, FORMAT:-1], edges[:, FORMAT + 1 :])

    @property
    def num_samples(self) -> int:
        return int(self.opening.shape[1])

    def subfields(self, rows: Ints, number: int) -> _Subfields:
        """Subfield `number` of the cells of some rows."""
        at = (self.opening[rows] + number).ravel()
        found = np.flatnonzero(at < self.closing[rows].ravel())
        at = at[found]
        return _Subfields(cut(self.data, self.marks[at], self.marks[at + 1]), found, len(rows) * self.num_samples)


def _refuse_surplus(cells: _Cells, rows: Ints, num_keys: int, refused: Refused) -> None:
    counts = cells.closing[rows] - cells.opening[rows]
    for row, sample in np.argwhere(counts > num_keys).tolist():
        sentence = f"sample {sample + 1} has {counts[row, sample]} values where FORMAT has {num_keys} keys"
        refused.add(int(rows[row]), "bad_format", sentence)


class _Values:
    """The values of one field at some rows."""

    def __init__(self, field: Declared, cells: _Subfields, rows: Ints, refused: Refused) -> None:
        self._field = field
        self._cells = cells
        self._rows = rows
        self._refused = refused

    def columns(self, num_samples: int) -> Iterator[tuple[Ints, pa.Array]]:
        """Rows and their values, a piece for each number of values that a row's longest cell has."""
        offsets, data = text_bytes(self._cells.texts)
        if self._field.type in ("String", "Character"):
            yield self._rows, self._texts(data, offsets, num_samples)
            return
        marks, cell_of, counts = _commas(data, offsets)
        numbers, bad = self._numbers(data, marks + 1, np.append(marks[1:], len(data)))
        if not self._field.is_list:
            bad |= counts[cell_of] > 1
        self._refuse(bad, cell_of, num_samples)
        whole = np.zeros(self._cells.num_cells, np.int64)
        whole[self._cells.found] = counts
        widths = whole.reshape(-1, num_samples).max(axis=1, initial=1)
        if self._field.is_list:
            firsts = np.cumsum(counts) - counts
            order = np.arange(len(numbers)) - firsts[cell_of]
        else:
            widths, order = np.ones_like(widths), np.zeros(len(numbers), np.int64)
        cell = self._cells.found[cell_of]
        numbers = narrowed(numbers) if numbers.dtype == np.int32 else numbers
        for width in np.unique(widths).tolist():
            here = np.flatnonzero(widths == width)
            yield self._rows[here], self._packed(numbers, cell, order, here, width=width, num_samples=num_samples)

    def _packed(
        self, numbers: Numbers, cell: Ints, order: Ints, here: Ints, *, width: int, num_samples: int
    ) -> pa.Array:
        """binary (here,): samples by `width` values of each row."""
        missing, absent = codes_of(numbers.dtype)
        num_rows = self._cells.num_cells // num_samples
        packed = np.full((len(here) * num_samples, width), absent, numbers.dtype)
        packed[:, 0] = missing
        if len(here) == num_rows:
            packed[cell, order] = numbers
        else:
            place = np.full(num_rows, -1, np.int64)
            place[here] = np.arange(len(here))
            row = place[cell // num_samples]
            mine = np.flatnonzero(row >= 0)
            packed[row[mine] * num_samples + cell[mine] % num_samples, order[mine]] = numbers[mine]
        values = packed.reshape(len(here), -1).view(np.uint8)
        rows = np.empty((len(here), 1 + values.shape[1]), np.uint8)
        rows[:, 0], rows[:, 1:] = numbers.itemsize, values
        return _vcf_lines.packed_rows(rows)

    def _numbers(self, data: Bytes, begins: Ints, ends: Ints) -> tuple[Numbers, Mask]:
        if self._field.type == "Integer":
            return parse_ints(data, begins, ends)
        texts = _vcf_lines.without_dots(cut(data, begins, ends))
        values, bad = _vcf_lines.to_numbers(texts, pa.float32())
        found = np.array(values.fill_null(0.0), np.float32)
        found[np.asarray(values.is_null())] = MISSING_FLOAT
        return found, bad

    def _texts(self, data: Bytes, offsets: Ints, num_samples: int) -> pa.Array:
        texts = _vcf_lines.without_dots(cut(data, offsets[:-1] + 1, offsets[1:]))
        every = _vcf_lines.place(texts, self._cells.found, self._cells.num_cells)
        begins = np.arange(0, len(every) + 1, num_samples, dtype=np.int32)
        return pa.ListArray.from_arrays(pa.array(begins), every)

    def _refuse(self, bad: Mask, cell_of: Ints, num_samples: int) -> None:
        kind = f"{'a list of' if self._field.is_list else 'one'} {self._field.type}, as the header declares it"
        for cell in np.unique(cell_of[bad]).tolist():
            row, sample = divmod(int(self._cells.found[cell]), num_samples)
            text = shown(self._cells.texts[cell].as_py()[1:])
            self._refused.add(
                int(self._rows[row]), "bad_format", f"{self._field.id} {text} of sample {sample + 1} is not {kind}"
            )


def codes_of(kind: np.dtype[Any]) -> tuple[Any, Any]:
    """The values that stand for missing and absent ones."""
    if kind == np.float32:
        return MISSING_FLOAT, NO_FLOAT
    return np.iinfo(kind).min, np.iinfo(kind).min + 1


def narrowed(values: npt.NDArray[np.int32]) -> Numbers:
    """The same integers in the fewest bytes that hold all of them and the codes."""
    missing = values == MISSING_INT
    high = int(values.max(initial=0))
    # Counted from the least integer upwards, what is missing lies at the far end.
    low = int((values.view(np.uint32) - np.uint32(_LOWEST + 2**32)).min(initial=-_LOWEST)) + _LOWEST
    for kind in (np.int8, np.int16):
        if np.iinfo(kind).min + RESERVED <= low and high <= np.iinfo(kind).max:
            found = values.astype(kind)
            found[missing] = np.iinfo(kind).min
            return found
    return values


def _commas(data: Bytes, offsets: Ints) -> tuple[Ints, Ints, Ints]:
    """Marks before each value, the cell of each, and how many values each cell has."""
    is_mark = data == ord(",")
    is_mark[offsets[:-1]] = True
    marks = np.flatnonzero(is_mark)
    if len(marks) == len(offsets) - 1:
        return marks, np.arange(len(marks)), np.ones(len(marks), np.int64)
    counts = np.diff(np.searchsorted(marks, offsets))
    return marks, np.repeat(np.arange(len(counts)), counts), counts


def parse_ints(data: Bytes, begins: Ints, ends: Ints) -> tuple[npt.NDArray[np.int32], Mask]:
    """int32 of texts, -2^31 for '.' and empty ones, and a mask of texts that are no integer of BCF's range."""
    sizes = ends - begins
    padded = np.append(data, np.zeros(1, np.uint8))
    first = padded[begins]
    missing = (sizes == 0) | ((sizes == 1) & (first == ord(".")))
    negative = first == ord("-")
    bad = (sizes > _LONGEST_INT) | (negative & (sizes == 1))
    digit = first - np.uint8(ord("0"))
    odd = (digit > 9) & ~negative
    values = np.where(odd | negative, 0, digit).astype(np.int64)
    bad |= odd & ~missing
    left = np.flatnonzero((sizes > 1) & ~bad)
    step = 1
    while len(left):
        digit = padded[begins[left] + step] - np.uint8(ord("0"))
        values[left] = values[left] * 10 + digit
        bad[left[digit > 9]] = True
        step += 1
        left = left[(sizes[left] > step) & (digit <= 9)]
    values[negative] *= -1
    bad |= (values < _LOWEST) | (values > _HIGHEST)
    values[missing | bad] = MISSING_INT
    return values.astype(np.int32), bad & ~missing
