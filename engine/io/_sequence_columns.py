"""Which column of an input plays which part: id, sequence, the other of a pair, label, targets, group, place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from engine.errors import InputError

BED_COLUMNS = ("contig", "start", "end", "id", "score", "strand")
PARTS = (
    *("id", "sequence", "second", "second_id", "label", "position_labels", "group"),
    *("contig", "start", "end", "strand"),
)
# Parts that no column plays by its name alone.
_ONLY_ASKED = ("second", "position_labels")
_PLACE = ("contig", "start", "end")


@dataclass(frozen=True)
class Layout:
    """How an input is laid out; a part that is not named is taken from the column of its own name, if there is one.

    Attributes:
        id, sequence, label, group: columns by name.
        second, second_id: columns of the other member of a pair and of its name; `second` only where it is named.
        position_labels: column with a letter for each letter of the sequence; only where it is named.
        targets: columns of numbers.
        columns: names of the fields, for a table without a header line.
        delimiter: one letter; None is told from the first line.
        label_pattern: regular expression for header lines of FASTA and FASTQ.
        group_pattern: regular expression for the id or, of FASTA and FASTQ, the header line.
        feature: of GTF and GFF3: the feature whose lines are records.
    """

    id: str | None = None
    sequence: str | None = None
    label: str | None = None
    group: str | None = None
    targets: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    delimiter: str | None = None
    label_pattern: str | None = None
    group_pattern: str | None = None
    feature: str = "gene"
    second: str | None = None
    second_id: str | None = None
    position_labels: str | None = None

    def asked(self) -> dict[str, str]:
        """Part to the column that was named for it."""
        named = {part: getattr(self, part, None) for part in PARTS}
        return {part: name for part, name in named.items() if name is not None}

    def named_columns(self) -> list[str]:
        """Columns asked for by name."""
        return [*self.asked().values(), *self.targets]


@dataclass(frozen=True)
class Columns:
    """Part to column name, and the columns of targets."""

    parts: Mapping[str, str]
    targets: tuple[str, ...] = field(default=())

    def all_names(self) -> list[str]:
        """Columns to read; one may play several parts."""
        return [*self.parts.values(), *self.targets]

    def table(self, columns: Mapping[str, pa.Array], num_rows: int) -> pa.Table:
        """One column for each part, null where the input has none, and target_0 and on."""
        made = {
            part: columns[self.parts[part]] if part in self.parts else pa.nulls(num_rows, pa.string()) for part in PARTS
        }
        made |= {f"target_{i}": columns[name] for i, name in enumerate(self.targets)}
        return pa.table(made)


def find_columns(names: Sequence[str], layout: Layout, path: str, *, windows: bool) -> Columns:
    """The parts that the columns of a table play.

    Args:
        names: columns of the table.
        layout: what was asked for.
        path: the table, for messages.
        windows: sequences come from a reference, so that the table gives places.

    Raises:
        InputError: a column that was asked for or is needed is not there.
    """
    asked = layout.asked()
    left_out = _ONLY_ASKED if "second" in asked else (*_ONLY_ASKED, "second_id")
    for name in layout.named_columns():
        if name not in names:
            raise InputError(f"there is no column {name!r}", where=path, fix=f"it has {listed(names)}")
    parts = {part: asked.get(part, part) for part in PARTS if part in asked or (part in names and part not in left_out)}
    if windows:
        parts.pop("sequence", None)
    needed = _PLACE if windows else ("sequence",)
    missing = [part for part in needed if part not in parts]
    if missing:
        fix = f"it has {listed(names)}; name the column, or give columns where there is no header line"
        raise InputError(f"the table has no column for {', '.join(missing)}", where=path, fix=fix)
    return Columns(parts, layout.targets)


def listed(names: Sequence[str]) -> str:
    """Names of columns as messages show them."""
    shown = ", ".join(repr(name[:40]) for name in names[:12])
    return shown if len(names) <= 12 else f"{shown} and {len(names) - 12} more"
