"""Turn sequences and their labels into checked shards: source -> window -> clean -> sink -> commit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from engine.errors import InputError
from engine.genome.minhash import USUAL_K, Likeness
from engine.ingest.cleaning import Rules
from engine.ingest.sequence_job import JOB, RESULTS, SCHEMA_NAME, IngestOptions, SequenceJob, default_workers
from engine.ingest.sequence_stages import SequenceStages
from engine.io._sequence_columns import Layout
from engine.io._sequence_rows import WindowShape, num_signals
from engine.runtime.commit import commit, finished_outcome
from engine.runtime.inputs import local_input
from engine.runtime.install import check_installation
from engine.runtime.run import Execution, PlanLine, Run, RunContext, RunOutcome, open_run
from engine.storage.store import Store
from schemas import tables
from schemas.jobs.ingest_sequences import IngestSequencesSpec

_DELIMITERS = {"tab": "\t", "comma": ",", "semicolon": ";"}


def run(spec: IngestSequencesSpec, context: RunContext) -> RunOutcome:
    """Run or resume the job; a finished run is left as it is.

    Raises:
        ReplisomeError: in one sentence; its `exit_code` is the command's.
    """
    with open_run(spec.output, job=JOB, context=context) as run:
        job = _planned(spec, context, run)
        if run.finished():
            return finished_outcome(run)
        job.publish(run)
        run.execute(
            job.stages,
            schema_name=SCHEMA_NAME,
            schema_version=tables.SEQUENCES_VERSION,
            execution=job.execution,
            max_reject_fraction=spec.max_reject_fraction,
        )
        return commit(run, finish=job.finish(run), report=job.report(run), facts=job.facts())


def plan(spec: IngestSequencesSpec, context: RunContext) -> list[PlanLine]:
    """Cut or take up the plan, and say for each shard whether it would run."""
    with open_run(spec.output, job=JOB, context=context) as run:
        _planned(spec, context, run, only_look=True)
        return run.lines()


def _planned(spec: IngestSequencesSpec, context: RunContext, run: Run, *, only_look: bool = False) -> SequenceJob:
    check_installation()
    options = IngestOptions(
        records_per_shard=spec.execution.records_per_shard,
        bytes_per_shard=spec.execution.bytes_per_shard,
        duplicates=spec.cleaning.duplicates,
        near=_likeness(spec),
        stop_on_conflict=spec.cleaning.conflicts == "stop",
        command=context.command,
    )
    job = SequenceJob(stages_of(spec, run.store), options, _execution(spec), run)
    job.plan(run)
    run.freeze(job.key(), _frozen(spec), results=RESULTS, choices=job.choices(), only_look=only_look)
    return job


def _likeness(spec: IngestSequencesSpec) -> Likeness | None:
    threshold, is_dna = spec.cleaning.near_duplicates, spec.cleaning.alphabet != "protein"
    return None if threshold is None else Likeness(USUAL_K[is_dna], threshold, is_dna)


def stages_of(spec: IngestSequencesSpec, store: Store) -> SequenceStages:
    """What the spec asks of every shard."""
    given, labels = spec.input, spec.labels.path
    known = Layout(
        label=given.label,
        group=given.group,
        targets=given.targets,
        second=given.second,
        second_id=given.second_id,
        position_labels=given.position_labels,
    )
    layout = replace(
        Layout() if labels else known,
        id=given.id,
        sequence=given.sequence,
        columns=given.columns,
        delimiter=None if given.delimiter is None else _DELIMITERS[given.delimiter],
        label_pattern=_checked_pattern(given.label_pattern, "label_pattern"),
        group_pattern=_checked_pattern(given.group_pattern, "group_pattern"),
        feature=spec.windows.feature,
    )
    reference = spec.windows.reference
    windows = spec.windows
    paths = tuple(local_input(path, store, any_kind=True) for path in given.path)
    return SequenceStages(
        paths=paths,
        layout=layout,
        rules=_rules(spec),
        labels_path=None if labels is None else local_input(labels, store),
        labels_layout=replace(known, id=spec.labels.id) if labels else Layout(),
        reference_path=None if reference is None else local_input(reference, store),
        shape=WindowShape(windows.length_bp, windows.anchor, windows.margin_bp, windows.past_ends),
        track_paths=tuple(local_input(path, store) for path in windows.tracks),
        bin_bp=windows.bin_bp,
        labels_by_path=_named(paths, given.path) if given.label_from_file else (),
        groups_by_path=_named(paths, given.path) if given.group_from_file else (),
        contig_aliases=tuple(sorted(spec.windows.contig_aliases.items())),
    )


def _named(paths: Sequence[str], given: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Each local path with the name of the file that was given, without folder and endings."""
    return tuple(
        (path, one.rpartition("/")[2].partition(".")[0] or one) for path, one in zip(paths, given, strict=True)
    )


def _checked_pattern(pattern: str | None, key: str) -> str | None:
    try:
        re.compile(pattern or "")
    except re.error as error:
        what = f"{pattern!r} is no regular expression ({error})"
        raise InputError(what, where=f"input.{key}", fix="mend it") from None
    return pattern


def _rules(spec: IngestSequencesSpec) -> Rules:
    rules, given = spec.cleaning, spec.input
    return Rules(
        alphabet=rules.alphabet,
        min_length=rules.min_length,
        max_length=rules.max_length,
        max_invalid_fraction=rules.max_invalid_fraction,
        max_ambiguous_fraction=rules.max_ambiguous_fraction,
        classes=rules.classes,
        label_separator=rules.label_separator,
        needs_label=not rules.allow_missing,
        needs_targets=not rules.allow_missing,
        num_targets=len(given.targets)
        + num_signals(len(spec.windows.tracks), spec.windows.length_bp, spec.windows.bin_bp),
        second_alphabet=None if given.second is None else rules.second_alphabet,
        second_max_length=rules.second_max_length,
        has_position_labels=given.position_labels is not None,
        needs_position_labels=given.position_labels is not None and not rules.allow_missing,
        position_classes=rules.position_classes,
        position_unknown=rules.position_unknown,
    )


def _execution(spec: IngestSequencesSpec) -> Execution:
    wide = spec.execution
    return Execution(wide.executor, wide.workers or default_workers(), wide.address or "local")


def _frozen(spec: IngestSequencesSpec) -> dict[str, Any]:
    """The spec as run.json keeps it: without what only says how wide to run."""
    return spec.model_dump(mode="json", exclude={"output": True, "execution": {"executor", "workers", "address"}})
