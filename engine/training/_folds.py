"""Cross-validation: what the folds' training runs leave becomes one table of held-out rows, with mean and spread.

<output>/
  run.json              the spec and the key, as of a training run
  folds/<k>/            a training run each
  out_of_fold.parquet   what each fold's model gives for the rows that it was not trained on: every record once
  metrics.json          figures of every fold, their mean and spread, and those of all held-out rows together
  report.html           the same as a page
  manifest.json         written last; seals the folds' files too
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine import registry
from engine.errors import DataError, InputError, ReplisomeError
from engine.io.parquet import footer_metadata, read_table, write_table
from engine.runtime import layout
from engine.runtime.commit import committed_files
from engine.runtime.run import Run
from engine.scoring import _svg
from engine.scoring._page import Number, count, real
from engine.storage.store import LocalStore
from engine.training import _metrics
from engine.training._child_runs import Drawing, Page, Table, commit_parent, sealed_files
from engine.training._kind import kind_of
from engine.training._split_table import SplitTable
from engine.training._task import Task
from engine.training._train_job import OUTPUTS, TrainJob, prepare
from schemas import tables

JOB = "cross_validate"
FOLDS, OUT_OF_FOLD, METRICS = "folds", "out_of_fold.parquet", "metrics.json"
RESULTS = (f"{FOLDS}/", OUT_OF_FOLD, METRICS)
_REDO = "delete this folder and run again; it is made anew"


@dataclass(frozen=True)
class Folds:
    """Attributes:
    output: the parent's folder.
    held_out: the split of each training run whose rows it was not trained on.
    records: for each fold the records that it holds out, ascending.
    task: fitted to the first fold; its outputs are those of all.
    key: what run.json keeps.
    name: of the model.
    groups: of each held-out record, where the split file kept groups together.
    """

    output: Path
    held_out: str
    records: Mapping[int, NDArray[np.int64]]
    task: Task
    key: Mapping[str, Any]
    name: str
    groups: Mapping[int, str | None] = field(default_factory=dict)

    def folder(self, fold: int) -> str:
        """A fold's training run, from the output."""
        return f"{FOLDS}/{fold}"


@dataclass(frozen=True)
class FoldsOutcome:
    """Attributes:
    uri: the output.
    metrics: content of metrics.json.
    already_finished: nothing was computed.
    """

    uri: str
    metrics: Mapping[str, Any]
    already_finished: bool

    def lines(self) -> list[str]:
        """What the command says at the end."""
        done = "finished before, nothing to do" if self.already_finished else "finished"
        found = self.metrics
        told = ", ".join(
            f"{name} {one['mean']:.3f}" + ("" if one["sd"] is None else f" (sd {one['sd']:.3f})")
            for name, one in found["figures"].items()
            if one["mean"] is not None
        )
        first = f"{self.uri}: {done}; {len(found['folds'])} folds, {found['samples']:,} held-out rows"
        return [first, f"  {told}", *(f"  {self.uri}/{name}" for name in (OUT_OF_FOLD, METRICS, layout.REPORT_HTML))]


def fold_numbers(task: str, data: str, splits: str) -> list[int]:
    """The folds of a split file of a set whose samples are those of a task, ascending.

    Raises:
        InputError: fewer than two, or a training row in none.
    """
    table = SplitTable.load(splits, kind_of(registry.component("tasks", task)).open(data))
    in_training = table.names != "test"
    outside = in_training & (table.folds < 0)
    folds = np.unique(table.folds[in_training & (table.folds >= 0)]).tolist()
    fix = "make it with split-sequences --folds 5"
    if len(folds) < 2:
        raise InputError(f"the split file has {len(folds)} folds, wanted are 2 or more", where=splits, fix=fix)
    if outside.any():
        record = int(table.records[outside][0])
        raise InputError(f"record {record} is not tested, and in no fold", where=splits, fix=fix)
    return [int(fold) for fold in folds]


def prepare_folds(jobs: Mapping[int, TrainJob], output: Path) -> Folds:
    """Check every fold before one is trained.

    Raises:
        ReplisomeError: as a training run's, naming the fold.
    """
    records: dict[int, NDArray[np.int64]] = {}
    groups: dict[int, str | None] = {}
    task: Task | None = None
    key: dict[str, Any] = {}
    held_out = "validation"
    for fold, job in jobs.items():
        held_out = "validation" if job.inner_fold is None else "test"
        try:
            prepared = prepare(job)
        except ReplisomeError as error:
            what = error.what if f"fold {fold}" in error.what else f"fold {fold}: {error.what}"
            raise type(error)(what, where=error.where, fix=error.fix) from error
        records[fold] = np.sort(np.concatenate([group.records for group in prepared.splits[held_out]]))
        groups |= {record: prepared.groups.get(record) for record in records[fold].tolist()}
        if task is None:
            task, key = prepared.setup.task, dict(prepared.key)
        elif task.outputs != prepared.setup.task.outputs:
            _refuse_outputs(task.outputs, prepared.setup.task.outputs, fold, where=job.splits)
    assert task is not None
    del key["fold"]
    key |= {"job": JOB, "folds": list(jobs)}
    return Folds(output, held_out, records, task, key, next(iter(jobs.values())).card.name, groups)


def _refuse_outputs(first: Sequence[str], other: Sequence[str], fold: int, *, where: str) -> None:
    name = sorted({*first} ^ {*other})[0]
    raise InputError(
        f"class {name!r} is not among the training rows of every fold (see fold {fold})",
        where=where,
        fix="stratify the folds by class, or name the classes in task.params.classes",
    )


def finished(folds: Folds) -> FoldsOutcome | None:
    """The outcome of a run that is finished already."""
    if not (folds.output / layout.MANIFEST).is_file():
        return None
    return FoldsOutcome(str(folds.output), layout.read_sealed(LocalStore(folds.output), METRICS), True)


def finish(folds: Folds, run: Run) -> FoldsOutcome:
    """Join what the folds' finished runs hold, and commit.

    Raises:
        DataError: a fold's run lacks a record, or is damaged.
    """
    table = out_of_fold(folds)
    local = run.store.scratch()
    write_table(
        table,
        local,
        schema_name="out_of_fold",
        version=tables.OUT_OF_FOLD_VERSION,
        metadata={"outputs": json.dumps(list(folds.task.kept_names))},
    )
    run.store.put_file(local, OUT_OF_FOLD)
    run.store.clear_scratch()
    metrics = _judged(folds, table)
    run.store.put(METRICS, layout.sealed_json(metrics))
    facts = {"folds": list(folds.records), "held_out": folds.held_out, "key": dict(folds.key)}
    commit_parent(
        run,
        own={OUT_OF_FOLD: table.num_rows, METRICS: -1},
        children=[sealed_files(folds.output, folds.folder(fold)) for fold in folds.records],
        page=_page(folds, metrics),
        key=folds.key,
        facts=facts,
    )
    return FoldsOutcome(str(folds.output), metrics, False)


def out_of_fold(folds: Folds) -> pa.Table:
    """Rows of OUT_OF_FOLD by record, every record of the folds exactly once.

    Raises:
        DataError: a fold's rows are not those that it held out.
    """
    parts = [_held_out(folds, fold) for fold in folds.records]
    whole = pa.concat_tables(parts).sort_by("record")
    if len(np.unique(whole["record"].to_numpy())) != whole.num_rows:
        raise DataError("a record is in two folds", where=str(folds.output), fix="make the split file anew")
    return whole


def _held_out(folds: Folds, fold: int) -> pa.Table:
    place = folds.output / folds.folder(fold)
    store = LocalStore(place)
    try:
        entry = committed_files(store, layout.read_sealed(store, layout.MANIFEST))[OUTPUTS]
        table = read_table(place / OUTPUTS, crc32c=entry.crc32c)
    except FileNotFoundError as error:
        raise DataError("this fold has lost its outputs", where=str(place), fix=_REDO) from error
    table = table.filter(pc.equal(table["split"], folds.held_out))
    names = tuple(json.loads(footer_metadata(place / OUTPUTS)["outputs"]))
    if names != tuple(folds.task.kept_names):
        raise DataError(f"fold {fold} has the outputs {', '.join(names)}", where=str(place), fix=_REDO)
    wanted = folds.records[fold]
    if not np.array_equal(np.sort(table["record"].to_numpy()), wanted):
        what = f"fold {fold} gives {table.num_rows:,} records, not the {len(wanted):,} that it holds out"
        raise DataError(what, where=str(place), fix=_REDO)
    number = pa.array([fold] * table.num_rows, pa.int32())
    columns = [table["record"], number, table["target"], table["values"]]
    return pa.table(columns, schema=tables.OUT_OF_FOLD)


def _judged(folds: Folds, table: pa.Table) -> dict[str, Any]:
    """Content of metrics.json."""
    each = []
    for fold in folds.records:
        known = layout.read_sealed(LocalStore(folds.output / folds.folder(fold)), METRICS)
        figures = known["figures"][folds.held_out]
        values = {"loss": figures["loss"], **{name: one["value"] for name, one in figures["metrics"].items()}}
        epochs = [member["best_epoch"] for member in known["members"]]
        each.append({"fold": fold, "samples": figures["samples"], "best_epochs": epochs, "figures": values})
    values_NK = np.array(table["values"].to_pylist(), np.float64)
    targets = _targets(folds.task, table)
    statistics = folds.task.statistics(values_NK, targets)
    clusters = _metrics.clusters_of([folds.groups.get(record) for record in table["record"].to_pylist()])
    return {
        "held_out": folds.held_out,
        "samples": table.num_rows,
        "folds": each,
        "figures": {name: spread([one["figures"][name] for one in each]) for name in each[0]["figures"]},
        "pooled": _metrics.with_intervals(statistics, table.num_rows, clusters=clusters),
        **_metrics.drawn_facts(clusters, table.num_rows),
    }


def _targets(task: Task, table: pa.Table) -> NDArray[Any]:
    """As the task has them: numbers of classes, or a row of numbers each."""
    like, found = task.stack([]), np.array(table["target"].to_pylist(), np.float64)
    return (found[:, 0] if like.ndim == 1 else found).astype(like.dtype)


def spread(values: Sequence[float | None]) -> dict[str, float | int | None]:
    """Mean, standard deviation (n - 1), minimum and maximum of the values that there are."""
    known = np.array([value for value in values if value is not None], np.float64)
    if not len(known):
        return {"num": 0, "mean": None, "sd": None, "minimum": None, "maximum": None}
    sd = float(known.std(ddof=1)) if len(known) > 1 else None
    ends = {"minimum": float(known.min()), "maximum": float(known.max())}
    return {"num": len(known), "mean": float(known.mean()), "sd": sd, **ends}


def _page(folds: Folds, metrics: Mapping[str, Any]) -> Page:
    names = list(metrics["figures"])
    pooled = metrics["pooled"]
    rows: list[list[str | Number]] = []
    for name, one in metrics["figures"].items():
        ends = [Number(f"figures.{name}.{end}", real(one[end])) for end in ("mean", "sd", "minimum", "maximum")]
        rows.append([name, *ends, _pooled(name, pooled.get(name))])
    folds_rows: list[list[str | Number]] = [
        [
            str(one["fold"]),
            Number(f"fold.{one['fold']}.samples", count(one["samples"])),
            *(Number(f"fold.{one['fold']}.{name}", real(one["figures"][name])) for name in names),
        ]
        for one in metrics["folds"]
    ]
    drawn = [(name, np.array([one["figures"][name] for one in metrics["folds"]])) for name in pooled]
    drawn = [(name, values.astype(np.float64)) for name, values in drawn if all(value is not None for value in values)]
    told = "A dot for each fold; the line is their median."
    drawings = [
        Drawing(name, _svg.strips([(name, values)], title=f"{name} of every fold", x_label=name), told)
        for name, values in drawn
    ]
    caution = "every fold's epoch was chosen on the rows that it is judged by, so the figures flatter; nested folds"
    return Page(
        title="Cross-validation",
        model=folds.name,
        lead=f"{len(metrics['folds'])} folds; {count(metrics['samples'])} rows, each judged by a model that was not"
        f" trained on it. Intervals of all rows draw {count(metrics['num_drawn'])} {metrics['drawn']}.",
        cautions=[] if folds.held_out == "test" else [f"{caution} (data.inner_fold) are free of this"],
        drawings=drawings,
        tables=[
            Table("Figures over the folds", ["Figure", "Mean", "SD", "Lowest", "Highest", "All rows (95%)"], rows),
            Table("Every fold", ["Fold", "Rows", *names], folds_rows),
        ],
    )


def _pooled(name: str, one: Mapping[str, float | None] | None) -> str | Number:
    if one is None:
        return ""
    ends = "" if one["low"] is None else f" ({real(one['low'])} to {real(one['high'])})"
    return Number(f"pooled.{name}.value", real(one["value"]) + ends)
