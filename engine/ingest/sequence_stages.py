"""Ingest of sequences as the two stages that an executor runs: read the records, judge them and build the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from engine.errors import DataError
from engine.genome.reference import ReferenceGenome
from engine.ingest.cleaning import Cleaned, Rules, clean, reasons_of
from engine.ingest.duplicates import Duplicates
from engine.ingest.labels import LabelTable
from engine.io._joined_sequences import JoinedSequences
from engine.io._sequence_columns import Layout
from engine.io._sequence_rows import Fill, RawSequences, Signals, Watcher, WindowShape, num_signals
from engine.io.sequences import SequenceSource, open_sequences
from engine.io.source import Shard
from engine.io.tracks import open_track
from engine.runtime.stages import ShardOutput
from engine.storage.checksums import crc32c_of_file
from engine.storage.store import open_store
from schemas import states, tables

DUPLICATES = "duplicates.parquet"


@dataclass(frozen=True)
class FrozenDuplicates:
    """Which repeats a run has found: the file below its output, by its checksum."""

    uri: str
    crc32c: int
    rows: int

    def open(self) -> Duplicates | None:
        """None where nothing repeats.

        Raises:
            DataError: the file was changed.
        """
        if not self.rows:
            return None
        store = open_store(self.uri)
        with store.opened(DUPLICATES) as path:  # a copy of an object store is gone after this, but stays open
            if crc32c_of_file(path) != self.crc32c:
                fix = "delete the file and run again: it is made anew"
                raise DataError("the file is damaged", where=f"{self.uri}/{DUPLICATES}", fix=fix)
            return Duplicates(path)


@dataclass(frozen=True)
class SequenceStages:
    """Everything both stages need; picklable, opened once per process.

    Attributes:
        paths: the inputs on local paths, in order.
        blocked: path to the same as BGZF, where it is gzip without blocks.
        layout: which columns to read.
        rules: what is kept.
        labels_path: table joined by id.
        labels_layout: its columns.
        reference_path: FASTA that the sequences are taken from.
        shape: how windows of it lie.
        track_paths, bin_bp: bigWig or BAM files whose means over the windows, in bins of this length, are targets.
        labels_by_path, groups_by_path: a label or group for all records of an input, by its path.
        contig_aliases: contig name of the input to its name in the reference.
        duplicates: repeats found by the planning pass; None keeps them.
    """

    paths: tuple[str, ...]
    blocked: tuple[tuple[str, str], ...] = ()
    layout: Layout = field(default_factory=Layout)
    rules: Rules = field(default_factory=Rules)
    labels_path: str | None = None
    labels_layout: Layout = field(default_factory=Layout)
    reference_path: str | None = None
    shape: WindowShape = field(default_factory=WindowShape)
    track_paths: tuple[str, ...] = ()
    bin_bp: int | None = None
    labels_by_path: tuple[tuple[str, str], ...] = ()
    groups_by_path: tuple[tuple[str, str], ...] = ()
    contig_aliases: tuple[tuple[str, str], ...] = ()
    duplicates: FrozenDuplicates | None = None

    def with_duplicates(self, found: FrozenDuplicates) -> SequenceStages:
        """The same stages, knowing the repeats."""
        return replace(self, duplicates=found)

    def needing_labels(self, needs: bool) -> SequenceStages:
        """The same stages; whether a record without a label is rejected."""
        return replace(self, rules=replace(self.rules, needs_label=needs))

    def open_reference(self) -> ReferenceGenome | None:
        """The genome that windows are taken from."""
        if self.reference_path is None:
            return None
        return ReferenceGenome(self.reference_path, contig_aliases=dict(self.contig_aliases))

    def open_source(self, watch: Watcher | None = None) -> JoinedSequences:
        """The inputs; see engine.io.sequences.open_sequences."""
        reference, blocked = self.open_reference(), dict(self.blocked)
        signals = self._open_signals()

        def open_one(number: int, watch_one: Watcher | None) -> SequenceSource:
            path = self.paths[number]
            return open_sequences(
                path,
                self.layout,
                blocked=blocked.get(path),
                reference=reference,
                shape=self.shape,
                signals=signals,
                fill=self._fill(path),
                watch=watch_one,
            )

        return JoinedSequences(open_one, self.paths, watch=watch)

    def _open_signals(self) -> Signals:
        first = len(self.layout.targets or self.labels_layout.targets)
        return Signals(tuple(map(open_track, self.track_paths)), self.bin_bp, first, dict(self.contig_aliases))

    @property
    def num_signals(self) -> int:
        """Targets that tracks give."""
        return num_signals(len(self.track_paths), self.shape.length_bp, self.bin_bp)

    def _fill(self, path: str) -> Fill:
        """What every record of an input has, by part."""
        named = {"label": dict(self.labels_by_path).get(path), "group": dict(self.groups_by_path).get(path)}
        return Fill({part: name for part, name in named.items() if name is not None}, self.layout.group_pattern)

    @cached_property
    def labels(self) -> LabelTable | None:
        """The labels table, read once per process."""
        return None if self.labels_path is None else LabelTable.load(self.labels_path, self.labels_layout)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "labels"}

    def judge(self, raw: RawSequences) -> Cleaned:
        """Join labels and apply the rules; duplicates are not regarded."""
        labels = self.labels
        return clean(raw if labels is None else labels.join(raw), self.rules)

    def open_reader(self) -> Callable[[Shard], RawSequences]:
        """See runtime.stages.Stages."""
        return self.open_source().read

    def open_scorer(self) -> Callable[[RawSequences], ShardOutput]:
        """See runtime.stages.Stages: this stage scores nothing, it builds the table."""
        found = None if self.duplicates is None else self.duplicates.open()
        return TableBuilder(self, found)


@dataclass(frozen=True)
class TableBuilder:
    """From records as read to the rows, rejects and counts of a shard."""

    stages: SequenceStages
    duplicates: Duplicates | None

    def __call__(self, raw: RawSequences) -> ShardOutput:
        cleaned = self.stages.judge(raw)
        if self.duplicates is not None:
            repeats = self.duplicates.among(raw.first_record, raw.table.num_rows)
            cleaned = without_repeats(cleaned, repeats)
        num = cleaned.table.num_rows
        num_kept = int(cleaned.is_kept().sum())
        return ShardOutput(
            table=cleaned.table,
            rejects=_rejects(cleaned),
            body=None,
            body_rows=0,
            records_in=num,
            states={states.KEPT: num_kept, states.REJECTED: num - num_kept},
            reasons=dict(reasons_of(cleaned.table)),
        )


def without_repeats(cleaned: Cleaned, repeats: pa.Table) -> Cleaned:
    """The same rows, those of `repeats` (schemas.tables.DUPLICATES) rejected."""
    if not repeats.num_rows:
        return cleaned
    table = cleaned.table
    first_record = table["record"][0].as_py()
    rows = np.asarray(repeats["record"]) - first_record
    reasons = table["reason"].to_pylist()
    sentences, texts = dict(cleaned.sentences), dict(cleaned.texts)
    for row, found in zip(rows.tolist(), repeats.to_pylist(), strict=True):
        reasons[row], sentences[row] = _told(found, is_pair=table["second"][row].as_py() is not None)
        texts[row] = str(table["id"][row].as_py())
    repeated = np.zeros(table.num_rows, bool)
    repeated[rows] = True
    mask = pa.array(repeated)
    made = {
        **{name: _where(mask, None, table[name]) for name in ("sequence", "second", "position_labels")},
        "state": _where(mask, states.REJECTED, table["state"]),
        "reason": pa.array(reasons, pa.string()),
    }
    for name, values in made.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, tables.SEQUENCES.field(name), values)
    return Cleaned(table, sentences, texts)


def _told(found: Mapping[str, Any], *, is_pair: bool) -> tuple[str, str]:
    """Reason and sentence of a row of schemas.tables.DUPLICATES."""
    first = found["first_record"]
    if found["similarity"] is not None:
        shares = f"the sequence shares {found['similarity']:.3f} of its words with that of record {first}"
        return "near_duplicate", f"{shares} (Jaccard index of k-mers)"
    what = f"the {'pair' if is_pair else 'sequence'} is that of record {first}"
    if found["conflict"]:
        return "conflicting_duplicate", f"{what}, with another label or target"
    return "exact_duplicate", what


def _where(mask: pa.Array, value: str | None, column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow.compute as pc

    return pc.if_else(mask, pa.scalar(value, column.type), column)


def _rejects(cleaned: Cleaned) -> pa.Table:
    table = cleaned.table
    rows = np.flatnonzero(~cleaned.is_kept())
    some = table.select(["record", "reason"]).take(pa.array(rows))
    columns = [
        some["record"],
        pa.array(np.zeros(len(rows), np.int32)),
        some["reason"],
        pa.array([cleaned.sentences[row] for row in rows.tolist()], pa.string()),
        pa.array([cleaned.texts.get(row) for row in rows.tolist()], pa.string()),
    ]
    columns = [column.cast(one.type) for column, one in zip(columns, tables.REJECTS, strict=True)]
    return pa.Table.from_arrays(columns, schema=tables.REJECTS)
