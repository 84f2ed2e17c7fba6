"""An ingest of sequences in the terms of the run protocol: what is opened, what keys it, what it leaves behind."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine.errors import InputError
from engine.genome.minhash import Likeness
from engine.ingest._sequence_card import card_of, render
from engine.ingest.duplicates import DuplicateFinder, Policy, write_duplicates
from engine.ingest.sequence_stages import DUPLICATES, FrozenDuplicates, SequenceStages
from engine.io._sequence_rows import RawSequences
from engine.io.sequences import needs_blocks, reblock
from engine.io.tracks import check_track, open_track
from engine.runtime import layout
from engine.runtime.commit import Parts, Report
from engine.runtime.receipts import Totals
from engine.runtime.run import Execution, Run, noted_versions
from engine.storage import faults
from engine.storage.checksums import crc32c_of_file
from engine.storage.store import Store, clear_errors
from schemas import tables

JOB = "ingest_sequences"
SCHEMA_NAME = "sequences"
CARD = "card.json"
RESULTS = (CARD, DUPLICATES)
# Raised when the same input and rules would give other rows.
RESULT_VERSION = 1


@dataclass(frozen=True)
class IngestOptions:
    """What an ingest needs beside its stages.

    Attributes:
        records_per_shard, bytes_per_shard: how the plan is cut.
        duplicates: which records repeat an earlier one.
        near: what nearly repeats an earlier one; None looks for none.
        stop_on_conflict: a repeat with another label or target ends the run.
        command: the command line, for the report.
    """

    records_per_shard: int
    bytes_per_shard: int
    duplicates: Policy = "sequence"
    near: Likeness | None = None
    stop_on_conflict: bool = False
    command: str = ""


class SequenceJob:
    """Everything of one run that is opened on the driver, checked before any process starts."""

    def __init__(self, stages: SequenceStages, options: IngestOptions, execution: Execution, run: Run) -> None:
        store = run.store
        self.options = options
        self.execution = execution
        self._found: FrozenDuplicates | None = None
        self._found_file: Path | None = None
        self._card: dict[str, Any] | None = None
        looked_at = run.finished() and not run.context.force
        self.stages = stages if looked_at else _with_blocks(stages, store, execution)
        self._track_facts()
        self.labels = self.stages.labels
        self._finder = self._new_finder(store)
        self.source = self.stages.open_source(self._watch if self._finder is not None else None)
        has_label = (
            bool(stages.labels_by_path)
            or self.source.has("label")
            or (self.labels is not None and self.labels.has_label)
        )
        if not has_label and stages.rules.classes:
            fix = "name the column of labels, or leave the classes out"
            raise InputError("classes are declared, and no column has labels", where=self.source.path, fix=fix)
        self.stages = self.stages.needing_labels(stages.rules.needs_label and has_label)

    def _new_finder(self, store: Store) -> DuplicateFinder | None:
        policy = self.options.duplicates
        return None if policy == "keep" else DuplicateFinder(store.scratch(), policy, self.options.near)

    def _watch(self, raw: RawSequences) -> None:
        assert self._finder is not None
        self._finder.add(self.stages.judge(raw))

    def plan(self, run: Run) -> None:
        """Cut or take up the plan; the pass that cuts it finds the duplicates."""
        run.plan(
            self.source,
            records_per_shard=self.options.records_per_shard,
            bytes_per_shard=self.options.bytes_per_shard,
        )
        if self._finder is None:
            return
        kept = run.choices.get("duplicates")
        if kept is None or self._is_lost(run):
            self._find(run, scanned=kept is None)
        if kept is not None:
            self._found = FrozenDuplicates(run.store.uri, **kept)

    def _is_lost(self, run: Run) -> bool:
        """A driver that died between freezing the run and publishing the repeats leaves none."""
        return not run.finished() and not run.store.exists(DUPLICATES)

    def _find(self, run: Run, *, scanned: bool) -> None:
        """Write the repeats aside; `publish` puts them in place once the run is frozen."""
        if not scanned:
            self._finder = self._new_finder(run.store)
            self.stages.open_source(self._watch).scan(records_per_shard=1 << 30, bytes_per_shard=1 << 62)
        assert self._finder is not None
        table = self._finder.table()
        if self.options.stop_on_conflict:
            _refuse_conflicts(table, self.source.path)
        path = run.store.scratch()
        with clear_errors(run.store.uri):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_duplicates(table, path)
        self._found = FrozenDuplicates(run.store.uri, crc32c_of_file(path), table.num_rows)
        self._found_file = path

    def choices(self) -> dict[str, Any]:
        """What a resumed run takes up as it was found."""
        if self._found is None:
            return {}
        return {"duplicates": {"crc32c": self._found.crc32c, "rows": self._found.rows}}

    def publish(self, run: Run) -> None:
        """Put the repeats where the workers find them; the run is frozen by now."""
        if self._found is not None:
            faults.reach("before-duplicates")
            if self._found_file is not None:
                run.store.put_file(self._found_file, DUPLICATES)
            self.stages = self.stages.with_duplicates(self._found)

    def key(self) -> dict[str, Any]:
        """Every setting and digest that can change a row, but the input's own digest."""
        stages = self.stages
        return {
            "ingest_version": RESULT_VERSION,
            "tables": [tables.SEQUENCES_VERSION, tables.REJECTS_VERSION, tables.PLAN_VERSION],
            "layout": _plain(asdict(stages.layout)),
            "windows": asdict(stages.shape),
            "rules": _plain(stages.rules.to_json()),
            "labels": None if self.labels is None else self.labels.digest,
            "labels_layout": _plain(asdict(stages.labels_layout)),
            "duplicates": self.options.duplicates,
            "near_duplicates": None if self.options.near is None else asdict(self.options.near),
            **self._file_names(),
            **self._track_facts(),
            "reference": self._reference_digest,
            "contig_aliases": dict(stages.contig_aliases),
            "records_per_shard": self.options.records_per_shard,
            "bytes_per_shard": self.options.bytes_per_shard,
        }

    def _file_names(self) -> dict[str, list[str]]:
        """Names of the inputs count where a label or group is taken from them."""
        named = {"label_names": self.stages.labels_by_path, "group_names": self.stages.groups_by_path}
        return {key: [name for _, name in pairs] for key, pairs in named.items() if pairs}

    def _track_facts(self) -> dict[str, Any]:
        return {"tracks": self._track_digests, "bin_bp": self.stages.bin_bp} if self.stages.track_paths else {}

    @cached_property
    def _track_digests(self) -> list[str]:
        """SHA-256 of each track, which is also looked at once: it must be of the reference's genome."""
        reference = self.stages.open_reference()
        aliases = dict(self.stages.contig_aliases)
        found = []
        for path in self.stages.track_paths:
            if reference is not None:
                check_track(open_track(path), reference.contigs, aliases)
            with Path(path).open("rb") as stream:
                found.append(hashlib.file_digest(stream, "sha256").hexdigest())
        return found

    @cached_property
    def _reference_digest(self) -> str | None:
        """SHA-256 over the refget digests of all contigs."""
        reference = self.stages.open_reference()
        return None if reference is None else layout.json_digest(reference.refget_many(reference.contigs))

    def facts(self) -> dict[str, Any]:
        """What the manifest tells of the run: no time, host or path."""
        signals = self._signal_names()
        return {
            "alphabet": self.stages.rules.alphabet,
            **self._pair_facts(),
            "classes": list(self.stages.rules.classes),
            tables.TARGET_NAMES: [name.replace(" ", "_") if name in signals else name for name in self._target_names()],
            "labels_digest": None if self.labels is None else self.labels.digest,
            "reference_digest": self._reference_digest,
            **self._track_facts(),
            "windows": None if self._reference_digest is None else asdict(self.stages.shape),
            "table_schema": f"{SCHEMA_NAME} {tables.SEQUENCES_VERSION}",
            "use": "research use only; not a medical device",
        }

    def _pair_facts(self) -> dict[str, Any]:
        rules = self.stages.rules
        found: dict[str, Any] = {} if rules.second_alphabet is None else {"second_alphabet": rules.second_alphabet}
        return found | ({"position_labels": True} if rules.has_position_labels else {})

    def finish(self, run: Run) -> Callable[[Parts, Store], Mapping[str, int]]:
        """The writer of the data card."""

        def write(parts: Parts, store: Store) -> Mapping[str, int]:
            store.put(CARD, layout.canonical_json(self.card(parts, run)))
            found = {} if self._found is None else {DUPLICATES: self._found.rows}
            return {CARD: -1, **found}

        return write

    def card(self, parts: Parts, run: Run) -> dict[str, Any]:
        """The data card: what the set holds, from its checked parts; no time, host or path."""
        digests = {
            "input_sha256": run.input_digest,
            "labels_sha256": None if self.labels is None else self.labels.digest,
            "reference": self._reference_digest,
            "result_key": run.result_key,
        }
        settings: dict[str, Any] = {"rules": self.stages.rules.to_json(), "duplicates": self.options.duplicates}
        settings["near_duplicates"] = None if self.options.near is None else asdict(self.options.near)
        if self._reference_digest is not None:
            settings["windows"] = asdict(self.stages.shape)
        if self._card is None:
            rows = None if self.labels is None else self.labels.rows
            self._card = card_of(parts.tables, classes=self.stages.rules.classes, label_rows=rows).to_json()
        named = zip(self._target_names(), self._card["targets"], strict=False)
        targets = [{"name": name, **facts} for name, facts in named]
        return {**self._card, "targets": targets, "digests": digests, "settings": settings}

    def _target_names(self) -> tuple[str, ...]:
        rules = self.stages.rules
        if rules.label_separator:
            return rules.classes
        named = self.stages.layout.targets or self.stages.labels_layout.targets
        return (*named, *self._signal_names())

    def _signal_names(self) -> list[str]:
        """By number: names of files stand on the page, and change no result."""
        num = len(self.stages.track_paths)
        bins = self.stages.num_signals // num if num else 0
        return [f"track {i}" + (f" bin {k}" if bins > 1 else "") for i in range(num) for k in range(bins)]

    def report(self, run: Run) -> Callable[[Parts, Totals, Mapping[str, float]], Report]:
        """The maker of the page: the card, how long it took, and what made it."""

        def make(parts: Parts, totals: Totals, timings: Mapping[str, float]) -> Report:
            card = self.card(parts, run)
            times = _times(self.execution, timings, totals.records_in)
            provenance = {
                "input": ", ".join(self.stages.paths),
                "labels": self.stages.labels_path,
                "reference": self.stages.reference_path,
                "tracks": ", ".join(self.stages.track_paths) or None,
                "command": self.options.command,
                "versions": ", ".join(f"{name} {number}" for name, number in noted_versions().items()),
            }
            content = {"card": card, "timings": times, "provenance": provenance}
            return Report(render(card, times, provenance), content)

        return make


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _refuse_conflicts(repeats: pa.Table, where: str) -> None:
    found = repeats.filter(repeats["conflict"]).to_pylist()
    if found:
        pairs = ", ".join(f"{one['record']} and {one['first_record']}" for one in found[:5])
        raise InputError(
            f"{len(found):,} records repeat an earlier sequence with another label or target (records {pairs}"
            f"{', ...' if len(found) > 5 else ''}, counted from 0)",
            where=where,
            fix="mend the labels, or let conflicts be rejected",
        )


def _with_blocks(stages: SequenceStages, store: Store, execution: Execution) -> SequenceStages:
    """Gzip without blocks is put aside as BGZF, so that shards can be entered in the middle."""
    blocked: list[tuple[str, str]] = []
    for number, path in enumerate(stages.paths):
        if not needs_blocks(path):
            continue
        if execution.executor == "ray" and execution.address != "local":
            raise InputError(
                "the file is gzip without blocks; it would be put aside on the driver's machine, where other nodes of "
                "the cluster cannot read it",
                where=path,
                fix="recompress it with bgzip, or unpack it",
            )
        folder = store.scratch()
        with clear_errors(store.uri):
            folder.mkdir(parents=True)
            aside = folder / f"blocked-{number}.bgz"
            reblock(path, aside)
        blocked.append((path, str(aside)))
    return replace(stages, blocked=tuple(blocked))


def _times(execution: Execution, timings: Mapping[str, float], num_records: int) -> dict[str, Any]:
    execute = timings.get("execute_s", 0.0)
    run_now = timings.get("records_run", 0.0)
    return {
        "executor": execution.executor,
        "workers": execution.workers,
        "records": num_records,
        **{name: round(timings.get(name, 0.0), 3) for name in ("plan_s", "execute_s", "commit_s", "total_s")},
        "records_per_s": round(run_now / execute, 1) if execute else 0.0,
    }


def default_workers() -> int:
    """One per CPU that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
