"""Records of sequences as they were read, before anything is judged; and windows of a reference at the places named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import DataError, InputError
from engine.genome.reference import ReferenceGenome
from engine.genome.windows import reverse_complement
from engine.io._sequence_columns import Columns
from engine.io.sequence_text import Parsed, Problem, found_texts
from engine.io.source import Shard
from engine.io.tracks import Track, binned

_STRANDS = ("+", "-", ".", "", None)


@dataclass(frozen=True)
class RawSequences:
    """Records as read, in input order.

    Attributes:
        first_record: ordinal of the first.
        table: columns id, sequence, label, group, contig, start, end, strand, and target_0 and on; null where the
            input has no such column. Text but start, end (0-based half-open) and, from Parquet, numbers.
        problems: row to why it is no record.
    """

    first_record: int
    table: pa.Table
    problems: dict[int, Problem] = field(default_factory=dict)


Watcher = Callable[[RawSequences], None]


Anchor = Literal["middle", "start", "end"]


@dataclass(frozen=True)
class WindowShape:
    """How a window lies at its place.

    Attributes:
        length_bp: its length; None takes the place as it is.
        anchor: what it lies around: the middle of the place, or its first or last base as the strand reads. The anchor
            is base length_bp // 2 of the window, read on its strand.
        margin_bp: more bases on both sides.
        past_ends: beyond the contig is N (fill), or no window reaches there (reject).
    """

    length_bp: int | None = None
    anchor: Anchor = "middle"
    margin_bp: int = 0
    past_ends: Literal["fill", "reject"] = "fill"

    def at(self, start: int, end: int, strand: str | None) -> tuple[int, int]:
        """(start, end) of the window at a place; start may be negative."""
        begin, upto = start, end
        if self.length_bp is not None:
            half = self.length_bp // 2
            begin = (start + end) // 2 - half
            if self.anchor != "middle":
                backward = strand == "-"
                base = start if (self.anchor == "start") != backward else end - 1
                begin = base + 1 + half - self.length_bp if backward else base - half
            upto = begin + self.length_bp
        return begin - self.margin_bp, upto + self.margin_bp


def num_signals(num_tracks: int, length_bp: int | None, bin_bp: int | None) -> int:
    """Targets that tracks give a window: one a bin."""
    return num_tracks * (1 if bin_bp is None or length_bp is None else length_bp // bin_bp)


@dataclass(frozen=True)
class Signals:
    """Targets read from tracks.

    Attributes:
        tracks: in the order of the targets.
        bin_bp: length of a bin; None takes each window as one.
        first: number of targets that columns give; these follow.
        contig_aliases: contig name of the input to its name in the reference.
    """

    tracks: tuple[Track, ...] = ()
    bin_bp: int | None = None
    first: int = 0
    contig_aliases: Mapping[str, str] = field(default_factory=dict)

    def num_targets(self, length_bp: int | None) -> int:
        """Targets that windows of this length get."""
        return num_signals(len(self.tracks), length_bp, self.bin_bp)

    def means(self, contig: str, start: int, end: int, *, strand: str | None) -> list[float]:
        """Of each track, the means of the bins as the strand reads."""
        found: list[float] = []
        for track in self.tracks:
            name = contig if contig in track.contigs else self.contig_aliases.get(contig, contig)
            bins = binned(track.values(name, start, end), self.bin_bp).tolist()
            found += bins[::-1] if strand == "-" else bins
        return found


@dataclass(frozen=True)
class Windows:
    """Sequences of a reference genome at places, and signals there."""

    reference: ReferenceGenome
    shape: WindowShape = field(default_factory=WindowShape)
    signals: Signals = field(default_factory=Signals)

    def fill(self, table: pa.Table, problems: dict[int, Problem]) -> pa.Table:
        """The table with sequence, start and end of each window; rows whose place makes no sense go to `problems`.

        Raises:
            InputError: a contig that the reference does not have.
        """
        written = zip(*(_values(table[name]) for name in ("contig", "start", "end", "strand")), strict=True)
        made: list[tuple[str | None, int | None, int | None]] = []
        for row, (contig, start, end, strand) in enumerate(written):
            found = None if row in problems else self._window(contig, start, end, strand)
            if isinstance(found, Problem):
                problems[row] = found
            if isinstance(found, tuple):
                made.append((self._sequence(contig, *found, strand=strand), *found))
            else:
                made.append((None, None, None))
        for i, (name, kind) in enumerate((("sequence", pa.large_string()), ("start", pa.int64()), ("end", pa.int64()))):
            values = pa.array([one[i] for one in made], kind)
            table = table.set_column(table.schema.get_field_index(name), name, values)
        return self._with_signals(table) if self.signals.tracks else table

    def _with_signals(self, table: pa.Table) -> pa.Table:
        margin, length = self.shape.margin_bp, self.shape.length_bp
        num = self.signals.num_targets(length)
        means = np.full((table.num_rows, num), np.nan)
        rows = zip(*(_values(table[name]) for name in ("contig", "start", "end", "strand")), strict=True)
        for row, (contig, start, end, strand) in enumerate(rows):
            if start is not None:
                means[row] = self.signals.means(contig, start + margin, end - margin, strand=strand)
        for i in range(num):
            table = table.append_column(f"target_{self.signals.first + i}", pa.array(means[:, i], from_pandas=True))
        return table

    def _window(self, contig: str | None, start: Any, end: Any, strand: str | None) -> tuple[int, int] | Problem:
        """(start, end) of the window, or why there is none."""
        begin, upto = _whole(start), _whole(end)
        text = "\t".join(str(one) for one in (contig, start, end, strand))
        if not contig or begin is None or upto is None or begin >= upto or strand not in _STRANDS:
            sentence = f"contig {contig}, start {start}, end {end}, strand {strand} is no place (0-based half-open)"
            return Problem("malformed_record", sentence, text)
        length = self.reference.length(contig)
        if upto > length:
            sentence = f"it ends at {upto:,}, past the end of {contig} ({length:,} bases)"
            return Problem("malformed_record", sentence, text)
        begin, upto = self.shape.at(begin, upto, strand)
        if self.shape.past_ends == "reject" and (begin < 0 or upto > length):
            sentence = f"its window, {begin:,} to {upto:,}, reaches past an end of {contig} ({length:,} bases)"
            return Problem("past_contig_end", sentence, text)
        return begin, upto

    def _sequence(self, contig: str | None, start: int, end: int, *, strand: str | None) -> str:
        text = self.reference.fetch(str(contig), start, end)
        return reverse_complement(text) if strand == "-" else text


def _values(column: pa.ChunkedArray) -> list[Any]:
    found: list[Any] = column.to_pylist()
    return found


def _whole(value: Any) -> int | None:
    """A whole number of 0 or more, from text or a number."""
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdecimal() and len(value) < 19 else None
    return value if isinstance(value, int) and value >= 0 else None


@dataclass(frozen=True)
class Fill:
    """What no column of the input says.

    Attributes:
        values: part to the value that all records have.
        group_pattern: found in the id, where there is no group yet.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    group_pattern: str | None = None

    def parts(self) -> set[str]:
        """Parts that have a value after this."""
        return {*self.values, *(["group"] if self.group_pattern else [])}

    def apply(self, table: pa.Table) -> pa.Table:
        """The table with these columns."""
        made = {part: pa.array([value] * table.num_rows, pa.string()) for part, value in self.values.items()}
        if self.group_pattern is not None and table["group"].null_count == table.num_rows:
            made["group"] = found_texts(self.group_pattern, table["id"].to_pylist())
        for part, values in made.items():
            table = table.set_column(table.schema.get_field_index(part), part, values)
        return table


def raw_sequences(first: int, parsed: Parsed, columns: Columns, *, windows: Windows | None, fill: Fill) -> RawSequences:
    """Parsed records under the names of the parts that their columns play."""
    num = parsed.num_records
    table = fill.apply(columns.table(parsed.columns, num))
    problems = dict(parsed.problems)
    if windows is not None:
        table = windows.fill(table, problems)
    return RawSequences(first, table, problems)


def most_windows(windows: Windows | None, bytes_per_shard: int) -> int:
    """Most records of a shard: the text that names a window is far shorter than the window."""
    if windows is None or windows.shape.length_bp is None:
        return bytes_per_shard
    return max(1, bytes_per_shard // (windows.shape.length_bp + 2 * windows.shape.margin_bp))


def refuse_none(num_records: int, path: str) -> None:
    """Raise InputError where an input has no record."""
    if not num_records:
        what = "there is no record in it: no sequence, or no line of the feature asked for"
        raise InputError(what, where=path, fix="check how it was made")


def check_count(path: str, shard: Shard, found: int) -> None:
    """Raise DataError unless a shard has as many records as planned."""
    if found != shard.num_records:
        raise DataError(
            f"the plan has {shard.num_records} records here and the file now has {found}",
            where=f"{path} shard {shard.shard}",
            fix="the input changed after it was planned; start again into a new output folder",
        )


def text_column(column: pa.Array) -> pa.Array:
    """A column as text, without blanks around; numbers and dictionaries are written out."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        column = column.cast(pa.string())
    return pc.ascii_trim_whitespace(column)
