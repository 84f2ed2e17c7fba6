"""Lines of GTF and GFF3 as records: one feature, the third column, with its attributes as further columns.

Sources: the GFF3 specification 1.26 (Sequence Ontology Project), the GTF2.2 specification (Brent lab). Both count bases
from 1 and include the end; records here are 0-based half-open.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import InputError
from engine.io._sequence_columns import Columns, Layout, listed
from engine.io.sequence_text import Parsed, Problem, readable, shown, text_lines

FIELDS = ("contig", "source", "feature", "start", "end", "score", "strand", "frame")
NUM_FIELDS = len(FIELDS) + 1
_GROUPS = ("gene_id", "gene", "Parent")
_GTF_PAIR = re.compile(r'\s*(\S+)\s+(?:"([^"]*)"|([^";]+))\s*(?:;|$)')
_STRAND_UNKNOWN = "?"


def looks_like_features(fields: Sequence[str]) -> bool:
    """Whether the TAB-separated fields of a line are those of GTF or GFF3."""
    return len(fields) == NUM_FIELDS and fields[3].isdecimal() and fields[4].isdecimal() and fields[6] in "+-.?"


def attributes(text: str) -> dict[str, str]:
    """The ninth field by name; of a name that stands twice the first."""
    found: dict[str, str] = {}
    is_gff3 = re.match(r"\s*[^\s=;]+=", text) is not None
    if is_gff3:
        for pair in text.split(";"):
            name, sign, value = pair.strip().partition("=")
            if sign:
                found.setdefault(name, unquote(value))
        return found
    for match in _GTF_PAIR.finditer(text):
        found.setdefault(match[1], match[2] if match[2] is not None else match[3].strip())
    return found


@dataclass(frozen=True)
class FeatureFormat:
    """GTF or GFF3.

    Attributes:
        feature: lines of this third column are records; no other line is.
        wanted: columns by name: of FIELDS, `id` and `group` as told below, else an attribute. The id is the attribute
            <feature>_id or ID, else transcript_id, gene_id or Name; the group gene_id, gene or Parent.
    """

    feature: str
    wanted: tuple[str, ...]

    def parse(self, data: bytes, *, final: bool) -> Parsed:  # noqa: ARG002 (a line is whole or it is not)
        """See `sequence_text.Format.parse`."""
        data = readable(data)
        upto = data.rfind(b"\n") + 1
        lines, begins = text_lines(data[:upto])
        pattern = rf"^[^\t#][^\t]*\t[^\t]*\t{re.escape(self.feature)}\t"
        rows = np.flatnonzero(np.asarray(pc.match_substring_regex(lines, pattern=pattern), bool))
        marks = np.concatenate((begins[:-1][rows], [upto])).astype(np.int64)
        columns: dict[str, list[str | None]] = {name: [] for name in self.wanted}
        problems: dict[int, Problem] = {}
        for row, line in enumerate(lines.take(pa.array(rows)).to_pylist()):
            fields = line.split("\t")
            values = self._values(fields) if len(fields) == NUM_FIELDS else {}
            if not values:
                problems[row] = Problem(
                    "malformed_record", f"{len(fields)} fields where there should be 9", shown(line)
                )
            for name, column in columns.items():
                column.append(values.get(name))
        return Parsed({name: pa.array(column, pa.string()) for name, column in columns.items()}, marks, problems)

    def _values(self, fields: Sequence[str]) -> Mapping[str, str]:
        known = attributes(fields[-1])
        place = dict(zip(FIELDS, fields, strict=False))
        start = fields[3]
        place["start"] = str(int(start) - 1) if start.isascii() and start.isdecimal() else start
        place["strand"] = "." if fields[6] == _STRAND_UNKNOWN else fields[6]
        ids = (f"{self.feature}_id", "ID", "transcript_id", "gene_id", "Name")
        made = {"id": _first(known, ids), "group": _first(known, _GROUPS)}
        return {**known, **{name: value for name, value in made.items() if value is not None}, **place}


def _first(known: Mapping[str, str], names: Sequence[str]) -> str | None:
    return next((known[name] for name in names if known.get(name)), None)


def feature_format(prefix: bytes, layout: Layout, path: str) -> tuple[FeatureFormat, Columns]:
    """The format and which column plays which part, checked against what the first lines hold.

    Raises:
        InputError: a column was asked for that is neither a field nor an attribute of the feature.
    """
    rows = [line.split("\t") for line in prefix.decode("utf-8", "replace").splitlines()[:-1] if line[:1] != "#"]
    rows = [row for row in rows if len(row) == NUM_FIELDS]
    ours = [row for row in rows if row[2] == layout.feature] or rows
    names = dict.fromkeys((*FIELDS, "id", "group", *(name for row in ours for name in attributes(row[-1]))))
    for name in layout.named_columns():
        if name not in names:
            what = f"{layout.feature!r} lines have no column or attribute {name!r}"
            raise InputError(what, where=path, fix=f"they have {listed(list(names))}")
    parts = {part: part for part in ("contig", "start", "end", "strand")}
    parts |= {"id": layout.id or "id", "group": layout.group or "group"}
    parts |= {"label": layout.label} if layout.label else {}
    columns = Columns(parts, layout.targets)
    return FeatureFormat(layout.feature, tuple(dict.fromkeys(columns.all_names()))), columns
