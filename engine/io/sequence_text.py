"""Text that holds sequences, parsed whole batches at a time: FASTA, FASTQ and delimited lines.

A parser takes bytes that begin at a record and gives the whole records among them, where each begins, and how far it
came. What begins at a record border parses the same wherever the text was cut, so a shard gives what the plan saw.

Sources: NCBI's description of FASTA; the FASTQ format (Cock et al. 2010, Nucleic Acids Research 38:1767), records of
four lines; RFC 4180 for quotes in comma-separated lines, without line breaks inside a field.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]
Columns = dict[str, pa.Array]

MAX_SHOWN = 200
_NEWLINE = 10
_LINE_ENDS = b"\r\n"
_NOT_ASCII = bytes(range(128)) + b"?" * 128


@dataclass(frozen=True)
class Problem:
    """Why a piece of text is no record, and the text."""

    reason: str
    sentence: str
    text: str = ""


@dataclass(frozen=True)
class Parsed:
    """Whole records.

    Attributes:
        columns: column name to one value per record.
        marks: int64 (records + 1,): where each record begins, then how far the parser came, in bytes.
        problems: row to what is wrong with it; its columns are null.
    """

    columns: Columns
    marks: Ints
    problems: dict[int, Problem] = field(default_factory=dict)

    @property
    def num_records(self) -> int:
        return len(self.marks) - 1


class Format(Protocol):
    """How records lie in text."""

    def parse(self, data: bytes, *, final: bool) -> Parsed:
        """Whole records at the front of `data`.

        Args:
            data: begins at a record; where `final`, ends in a newline.
            final: nothing follows, so what is left over is a record too.
        """
        ...


def readable(data: bytes) -> bytes:
    """The same bytes where they are UTF-8; else each byte above 127 as `?`, so that places stay what they were."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return data.translate(_NOT_ASCII)
    return data


def shown(text: str) -> str:
    """Text as the rejects keep it."""
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def _text_array(data: bytes, offsets: Ints) -> pa.Array:
    """A string array (large) over `data`, cut at `offsets`."""
    offsets = np.ascontiguousarray(offsets, np.int64)
    return pa.Array.from_buffers(pa.large_string(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def text_lines(data: bytes) -> tuple[pa.Array, Ints]:
    """Lines without their ends, and int64 (lines + 1,) where each begins; `data` ends in a newline or is empty."""
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == _NEWLINE) + 1
    begins = np.concatenate(([0], ends)).astype(np.int64)
    return pc.ascii_rtrim(_text_array(data, begins), characters="\r\n"), begins


def _lengths(texts: pa.Array) -> Ints:
    return np.asarray(pc.binary_length(texts), np.int64)


@dataclass(frozen=True)
class FastaFormat:
    """FASTA: a header line that begins with `>`, and lines of sequence.

    Attributes:
        label_pattern: regular expression searched in the header line; its first group is the label.
        group_pattern: the same for the group.
    """

    label_pattern: str | None = None
    group_pattern: str | None = None

    def parse(self, data: bytes, *, final: bool) -> Parsed:
        """See `Format.parse`."""
        data = readable(data)
        letters = np.frombuffer(data, np.uint8)
        ends = np.flatnonzero(letters == _NEWLINE)
        begins = np.concatenate(([0], ends + 1))[: len(ends) + (not final)]
        starts = begins[letters[np.minimum(begins, max(len(letters) - 1, 0))] == ord(">")] if len(letters) else begins
        starts = starts[starts < len(letters)]
        upto = len(letters) if final else (int(starts[-1]) if len(starts) else 0)
        starts = starts if final else starts[:-1]
        marks = np.concatenate((starts, [upto])).astype(np.int64)
        header_ends = ends[np.searchsorted(ends, starts)]
        sequences = _without_headers(letters, marks, header_ends)
        spans = zip(starts.tolist(), header_ends.tolist(), strict=True)
        headers = [data[begin + 1 : end].decode() for begin, end in spans]
        return _fasta_records(headers, sequences, marks, self)


def _without_headers(letters: npt.NDArray[np.uint8], marks: Ints, header_ends: Ints) -> pa.Array:
    """Sequences, their lines joined."""
    begin, upto = int(marks[0]), int(marks[-1])
    text = letters[begin:upto]
    border = np.zeros(len(text) + 1, np.int8)
    border[marks[:-1] - begin] = 1
    border[header_ends - begin] = -1
    keep = np.cumsum(border[:-1], dtype=np.int8) == 0
    keep &= (text != _NEWLINE) & (text != ord("\r"))
    before = np.concatenate(([0], np.cumsum(keep, dtype=np.int64)))
    return _text_array(text[keep].tobytes(), before[marks - begin])


def _fasta_records(headers: list[str], sequences: pa.Array, marks: Ints, form: FastaFormat | FastqFormat) -> Parsed:
    words = [header.split(None, 1) for header in headers]
    columns: Columns = {
        "id": pa.array([some[0] if some else None for some in words], pa.string()),
        "sequence": sequences,
    }
    for name, pattern in (("label", form.label_pattern), ("group", form.group_pattern)):
        if pattern is not None:
            columns[name] = found_texts(pattern, headers)
    nameless = [row for row, some in enumerate(words) if not some]
    problems = {row: Problem("malformed_record", "the header line has no name", ">") for row in nameless}
    return Parsed(columns, marks, problems)


def found_texts(pattern: str, texts: Sequence[str | None]) -> pa.Array:
    """The first group of each match, or all of it where the expression has none; null where nothing matches."""
    search = re.compile(pattern).search
    matches = (search(text or "") for text in texts)
    found = [None if match is None else (match[1] if match.re.groups else match[0]) for match in matches]
    return pa.array(found, pa.string())


@dataclass(frozen=True)
class FastqFormat:
    """FASTQ in records of four lines; the qualities are checked for their number and not kept.

    Attributes:
        label_pattern, group_pattern: as of FASTA.
    """

    label_pattern: str | None = None
    group_pattern: str | None = None

    def parse(self, data: bytes, *, final: bool) -> Parsed:
        """See `Format.parse`. What is no record reaches to the next place where one begins."""
        data = readable(data)
        whole = data if data.endswith(b"\n") else data[: data.rfind(b"\n") + 1]
        lines, begins = text_lines(whole)
        firsts, odd, used = _walk(lines, final=final)
        rows = np.sort(np.concatenate((firsts, np.array([begin for begin, _ in odd], np.int64))))
        marks = np.concatenate((begins[rows], [begins[used]])).astype(np.int64)
        good = np.isin(rows, firsts)
        headers = [text[1:] for text in lines.take(pa.array(rows[good])).to_pylist()]
        sequences = lines.take(pa.array(rows[good] + 1))
        parsed = _fasta_records(headers, sequences, marks, self)
        if not odd:
            return parsed
        places = {int(begin): row for row, begin in enumerate(rows.tolist())}
        columns = {name: _spread(column, good) for name, column in parsed.columns.items()}
        of_good = np.flatnonzero(good)
        problems = {int(of_good[row]): problem for row, problem in parsed.problems.items()}
        problems |= {places[begin]: _no_fastq(lines, begin, end) for begin, end in odd}
        return Parsed(columns, marks, problems)


def _spread(values: pa.Array, mask: npt.NDArray[np.bool_]) -> pa.Array:
    """`values` where `mask` holds, null elsewhere."""
    places = np.cumsum(mask) - 1
    return values.take(pa.array(places, mask=~mask))


def _no_fastq(lines: pa.Array, begin: int, end: int) -> Problem:
    first = [str(line) for line in lines.slice(begin, min(end - begin, 4)).to_pylist()]
    sentence = f"{end - begin} lines that are no @name, sequence, + and as many qualities as letters"
    if end - begin == 4 and first[0].startswith("@") and first[2].startswith("+"):
        sentence = f"{len(first[1])} letters and {len(first[3])} qualities"
    return Problem("malformed_record", sentence, shown(" | ".join(first)))


def _walk(lines: pa.Array, *, final: bool) -> tuple[Ints, list[tuple[int, int]], int]:
    """(first lines of records, spans of lines that are none, lines used)."""
    num = len(lines)
    lengths = _lengths(lines)
    heads = _begin_with(lines, "@")
    pluses = _begin_with(lines, "+")
    is_record = np.zeros(num, bool)
    if num >= 4:
        is_record[: num - 3] = heads[: num - 3] & pluses[2 : num - 1] & (lengths[1 : num - 2] == lengths[3:])
    records: list[Ints] = []
    odd: list[tuple[int, int]] = []
    at = 0
    while at < num:
        run = is_record[at::4]
        good = len(run) if run.all() else int(np.argmin(run))
        records.append(at + 4 * np.arange(good, dtype=np.int64))
        at += 4 * good
        if at >= num:
            break
        following = np.flatnonzero(is_record[at:])
        if not len(following) and not final:
            break
        end = at + int(following[0]) if len(following) else num
        if lengths[at:end].any():  # blank lines between records are none
            odd.append((at, end))
        at = end
    firsts = np.concatenate(records) if records else np.zeros(0, np.int64)
    return firsts, odd, min(at, num)


def _begin_with(lines: pa.Array, letter: str) -> npt.NDArray[np.bool_]:
    return np.asarray(pc.starts_with(lines, pattern=letter), bool)


@dataclass(frozen=True)
class LinesFormat:
    """One record a line, its fields parted by a delimiter; blank lines are none.

    Attributes:
        names: name of each field.
        wanted: fields that are read.
        delimiter: one letter; fields may stand in double quotes unless it is TAB.
        comments: what a line that is no record begins with.
    """

    names: tuple[str, ...]
    wanted: tuple[str, ...]
    delimiter: str = "\t"
    comments: tuple[str, ...] = ()

    def parse(self, data: bytes, *, final: bool) -> Parsed:  # noqa: ARG002 (a line is whole or it is not)
        """See `Format.parse`."""
        data = readable(data)
        upto = data.rfind(b"\n") + 1
        lines, begins = text_lines(data[:upto])
        is_record = _lengths(pc.ascii_trim_whitespace(lines)) > 0
        for word in self.comments:
            is_record &= ~np.asarray(pc.starts_with(lines, pattern=word), bool)
        rows = np.flatnonzero(is_record)
        marks = np.concatenate((begins[:-1][rows], [upto])).astype(np.int64)
        columns, problems = self._fields(lines.take(pa.array(rows)) if len(rows) < len(lines) else lines)
        return Parsed(columns, marks, problems)

    def _fields(self, lines: pa.Array) -> tuple[Columns, dict[int, Problem]]:
        quotes = self.delimiter != "\t"
        num = np.asarray(pc.count_substring(lines, pattern=self.delimiter), np.int64) + 1
        quoted = np.asarray(pc.match_substring(lines, pattern='"'), bool) & quotes
        plain = (num == len(self.names)) & ~quoted
        cells = pc.split_pattern(lines.filter(pa.array(plain)), pattern=self.delimiter).flatten()
        columns = {name: cells.take(pa.array(self._places(name, len(cells)))) for name in self.wanted}
        problems: dict[int, Problem] = {}
        if not plain.all():
            columns = {name: _spread(column, plain) for name, column in columns.items()}
            columns, problems = self._odd_lines(lines, plain, columns)
        return {name: pc.ascii_trim_whitespace(column) for name, column in columns.items()}, problems

    def _places(self, name: str, num_cells: int) -> Ints:
        return np.arange(self.names.index(name), num_cells, len(self.names), dtype=np.int64)

    def _odd_lines(
        self, lines: pa.Array, plain: npt.NDArray[np.bool_], columns: Columns
    ) -> tuple[Columns, dict[int, Problem]]:
        """Lines with quotes, one by one, and those with another number of fields."""
        problems: dict[int, Problem] = {}
        found: dict[str, list[str]] = {name: [] for name in self.wanted}
        mended = np.zeros(len(plain), bool)
        for row in np.flatnonzero(~plain).tolist():
            text = lines[row].as_py()
            fields = self._quoted(text)
            if isinstance(fields, Problem):
                problems[row] = fields
                continue
            mended[row] = True
            for name in self.wanted:
                found[name].append(fields[self.names.index(name)])
        mask = pa.array(mended)
        texts = {name: pa.array(values, pa.large_string()) for name, values in found.items()}
        return {name: pc.replace_with_mask(column, mask, texts[name]) for name, column in columns.items()}, problems

    def _quoted(self, text: str) -> list[str] | Problem:
        fields = text.split(self.delimiter)
        if self.delimiter != "\t" and '"' in text:
            try:
                fields = next(csv.reader([text], delimiter=self.delimiter, strict=True))
            except (csv.Error, StopIteration) as error:
                return Problem("malformed_record", f"the quotes do not close ({error})", shown(text))
        if len(fields) != len(self.names):
            sentence = f"the line has {len(fields)} fields where the table has {len(self.names)}"
            return Problem("malformed_record", sentence, shown(text))
        return fields
