"""A labels table joined to records by id: labels, targets and groups of sequences that lie in FASTA or FASTQ."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import InputError
from engine.io._sequence_columns import Layout
from engine.io._sequence_rows import RawSequences
from engine.io.sequences import open_sequences

_ROWS = 1 << 20


@dataclass(frozen=True)
class LabelTable:
    """Held in memory: one row per id.

    Attributes:
        rows: id to row.
        table: columns label, position_labels, second, second_id, group and target_0 and on.
        digest: sha256 of the file.
        parts: what its columns play.
    """

    rows: dict[str, int]
    table: pa.Table
    digest: str
    parts: frozenset[str]

    @classmethod
    def load(cls, path: str, layout: Layout) -> LabelTable:
        """Read a CSV, TSV or Parquet table.

        Args:
            path: a local file.
            layout: which columns to read; its `id` plays the id, whatever the sequences' own is called.

        Raises:
            InputError: unreadable, a column missing, an id twice, or a line that is none of the table.
        """
        pieces: list[RawSequences] = []
        # The id stands in for the sequence, of which a labels table has none.
        there = Layout(
            id=layout.id or "id",
            sequence=layout.id or "id",
            label=layout.label,
            group=layout.group,
            targets=layout.targets,
            delimiter=layout.delimiter,
            second=layout.second,
            second_id=layout.second_id,
            position_labels=layout.position_labels,
        )
        source = open_sequences(path, there, watch=pieces.append)
        source.scan(records_per_shard=_ROWS, bytes_per_shard=1 << 40)
        for piece in pieces:
            for row, problem in piece.problems.items():
                line = piece.first_record + row
                raise InputError(f"row {line} (counted from 0): {problem.sentence}", where=path, fix="mend that row")
        table = pa.concat_tables([piece.table for piece in pieces], promote_options="permissive")
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        rows = _by_id(table["id"].to_pylist(), path)
        return cls(rows, table.drop_columns(["id", "sequence"]), digest, frozenset(source.columns.parts))

    @property
    def has_label(self) -> bool:
        """Whether it has a column of labels."""
        return "label" in self.parts

    def join(self, raw: RawSequences) -> RawSequences:
        """The records with what the table has of label, group, targets and pairs; null where it lacks the id."""
        places = [self.rows.get(name) for name in raw.table["id"].to_pylist()]
        found = self.table.take(pa.array(places, pa.int64()))
        table = raw.table
        for name in found.column_names:
            if name in ("contig", "start", "end", "strand"):
                continue
            at = table.schema.get_field_index(name)
            values = found[name]
            table = (
                table.append_column(name, values) if at < 0 else table.set_column(at, name, _first(values, table[name]))
            )
        return RawSequences(raw.first_record, table, raw.problems)


def _first(ours: pa.ChunkedArray, theirs: pa.ChunkedArray) -> pa.ChunkedArray:
    """The labels table's value, else the record's own."""
    return pc.coalesce(ours, theirs.cast(ours.type)) if theirs.null_count < len(theirs) else ours


def _by_id(names: Sequence[str | None], path: str) -> dict[str, int]:
    rows: dict[str, int] = {}
    for row, name in enumerate(names):
        if not name or name in rows:
            what = f"row {row} (counted from 0) has no id" if not name else f"the id {name!r} stands twice"
            raise InputError(what, where=path, fix="give every record one row")
        rows[name] = row
    return rows
