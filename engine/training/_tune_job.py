"""A search: its trials are training runs, its result a table of them and the best one's spec.

<output>/
  run.json              the spec and the key
  trials/<n>/           a training run each; of one that was ended early what there is of it
  trials/<n>.json       how it ended: written once, and what a resumed search goes by
  trials.parquet        a row for every trial
  best.yaml             a train spec
  report.html
  manifest.json         written last; seals the trials' files too
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from engine.errors import DataError
from engine.io.parquet import write_table
from engine.runtime import layout
from engine.runtime.run import Run
from engine.scoring import _svg
from engine.scoring._page import Number, count, real
from engine.storage import faults
from engine.storage.store import LocalStore
from engine.training import _checkpoints
from engine.training._child_runs import Drawing, Page, Sealed, Table, commit_parent, sealed_files
from engine.training._frozen_run import plain, remove
from engine.training._schedule import Job
from engine.training._search import COMPLETED, FAILED, PAUSED, STOPPED, Params, Ranges, Stopping, Trial, best_of
from engine.training._train_job import CHECKPOINTS, METRICS
from schemas import tables

JOB = "tune_model"
TRIALS, TABLE, BEST = "trials", "trials.parquet", "best.yaml"
RESULTS = (f"{TRIALS}/", TABLE, BEST)
SCRATCH = f"{TRIALS}/.scratch"
STATES = (COMPLETED, STOPPED, FAILED)
Watch = Callable[[int, Mapping[str, Any]], None]
Train = Callable[[Job, Watch], Any]


class TrialEnded(Exception):
    """Ends a training run from within: the rule has spoken."""


class TrialPaused(Exception):
    """The same where it has come to its rung; its checkpoint lets it go on."""


@dataclass(frozen=True)
class Search:
    """Attributes:
    output: the folder.
    ranges: what is searched.
    method: how.
    monitor: the figure by which trials are judged.
    stopping: when one is ended.
    key: what run.json keeps.
    splits: digest of the split file, the same for every trial.
    name: of the model.
    """

    output: Path
    ranges: Ranges
    method: str
    monitor: str
    stopping: Stopping
    key: Mapping[str, Any]
    splits: str
    name: str

    def folder(self, number: int) -> str:
        """A trial's training run, from the output."""
        return folder_of(number)


def folder_of(number: int) -> str:
    """A trial's training run, from the output of its search."""
    return f"{TRIALS}/{number:04d}"


@dataclass(frozen=True)
class SearchOutcome:
    """Attributes:
    uri: the output.
    facts: of the manifest.
    already_finished: nothing was computed.
    """

    uri: str
    facts: Mapping[str, Any]
    already_finished: bool

    def lines(self) -> list[str]:
        """What the command says at the end."""
        done = "finished before, nothing to do" if self.already_finished else "finished"
        found, best = self.facts, self.facts["best"]
        counts = ", ".join(f"{found['trials'][state]} {state}" for state in STATES)
        params = ", ".join(f"{key} {value}" for key, value in best["params"].items())
        return [
            f"{self.uri}: {done}; trials: {counts}",
            f"  best is trial {best['number']}: {found['monitor']} {best['value']:.4f} with {params}",
            *(f"  {self.uri}/{name}" for name in (BEST, TABLE, layout.REPORT_HTML)),
        ]


def finished(search: Search) -> SearchOutcome | None:
    """The outcome of a search that is finished already."""
    if not (search.output / layout.MANIFEST).is_file():
        return None
    manifest = layout.read_sealed(LocalStore(search.output), layout.MANIFEST)
    return SearchOutcome(str(search.output), manifest["facts"], True)


def run_job(search: Search, job: Job, *, train: Train) -> Trial:
    """Do a job, or go on with it, or read how its trial ended.

    Args:
        search: it is of.
        job: which trial, and how far.
        train: trains it in its folder, telling every epoch of every network.

    Returns:
        The trial as it stands after the job, whatever was trained of it beyond.

    Raises:
        ReplisomeError: anything but a loss that is no number.
    """
    store, name = LocalStore(search.output), f"{search.folder(job.trial)}.json"
    if store.exists(name):
        return _seen_at(_trial_of(layout.read_sealed(store, name)), job.until, search.stopping)
    trial = _trained(search, job, train)
    if trial.state != PAUSED:
        _note_end(search, trial)
        faults.reach("after-trial")
    return _seen_at(trial, job.until, search.stopping)


def _note_end(search: Search, trial: Trial) -> None:
    """Once and for all."""
    if trial.state != COMPLETED:
        remove(search.output / search.folder(trial.number) / CHECKPOINTS)
    content = {**vars(trial), "curve": list(trial.curve), "params": plain(dict(trial.params))}
    LocalStore(search.output).put(f"{search.folder(trial.number)}.json", layout.sealed_json(content))


def _seen_at(trial: Trial, until: int | None, stopping: Stopping) -> Trial:
    """As it stood when it came to a rung."""
    if until is None or len(trial.curve) < until:
        return trial
    curve = trial.curve[:until]
    return replace(trial, state=PAUSED, curve=curve, value=stopping.best(curve), reason="")


def _trial_of(content: Mapping[str, Any]) -> Trial:
    known = {name: content[name] for name in ("number", "params", "state", "value", "reason")}
    return Trial(**known, curve=tuple(content["curve"]))


def _trained(search: Search, job: Job, train: Train) -> Trial:
    number, params = job.trial, job.params
    folder = search.output / search.folder(number)
    curve: list[float | None] = []
    curves = [one.curve for one in job.former]

    def watch(member: int, entry: Mapping[str, Any]) -> None:
        if member != 0:
            return
        # Of workers that died between a checkpoint and telling of it, the checkpoint knows.
        done = [entry] if int(entry["epoch"]) == len(curve) else _history(folder)[len(curve) :]
        for one in done:
            curve.append(one["validation"][search.monitor])
            reason = search.stopping.reason(curve, curves)
            if reason:
                raise TrialEnded(reason)
            if len(curve) == job.until:
                raise TrialPaused

    try:
        for entry in _history(folder):
            watch(0, entry)
        train(job, watch)
    except (TrialEnded, TrialPaused) as ended:
        state = STOPPED if isinstance(ended, TrialEnded) else PAUSED
        return Trial(number, params, state, tuple(curve), search.stopping.best(curve), str(ended))
    except DataError as error:
        if not (folder / "stopped" / "batch.json").is_file():
            raise
        return Trial(number, params, FAILED, tuple(curve), None, error.what)
    metrics = layout.read_sealed(LocalStore(folder), METRICS)
    # A trial that was finished before its end was written has no checkpoint to tell of its epochs.
    history = [entry["validation"][search.monitor] for entry in metrics["members"][0]["history"]]
    judged = metrics["figures"]["validation"]
    value = judged["loss"] if search.monitor == "loss" else judged["metrics"][search.monitor]["value"]
    return Trial(number, params, COMPLETED, tuple(history), value)


def _history(folder: Path) -> list[dict[str, Any]]:
    """Epochs of the first network that an earlier driver has done."""
    found = _checkpoints.read(folder / CHECKPOINTS / "member-00" / _checkpoints.LAST)
    return [] if found is None else list(found.state["history"])


def finish(search: Search, trials: Sequence[Trial], run: Run, *, spec_of: Callable[[Params], str]) -> SearchOutcome:
    """Write the table, the best spec and the page, and commit.

    Args:
        search: it is of.
        trials: all.
        run: held by this driver.
        spec_of: text of the spec that trains with these params.

    Raises:
        DataError: no trial came to its end.
    """
    for one in trials:
        if not run.store.exists(f"{search.folder(one.number)}.json"):  # it waited at a rung until the end
            _note_end(search, one)
    best = best_of(trials, lower_is_better=search.stopping.lower_is_better)
    if best is None:
        reason = next((one.reason for one in trials if one.reason), f"{search.monitor} has no value")
        fix = "search gentler settings, such as lower learning rates"
        raise DataError(f"none of {len(trials)} trials came to its end ({reason})", where=str(search.output), fix=fix)
    local = run.store.scratch()
    write_table(_table(search, trials, best), local, schema_name="trials", version=tables.TRIALS_VERSION)
    run.store.put_file(local, TABLE)
    run.store.clear_scratch()
    run.store.put(BEST, spec_of(best.params).encode())
    states = {state: sum(one.state == state for one in trials) for state in STATES}
    facts = {
        "method": search.method,
        "monitor": search.monitor,
        "trials": states,
        "best": {"number": best.number, "value": best.value, "params": plain(dict(best.params))},
        "splits": search.splits,
        "key": dict(search.key),
    }
    commit_parent(
        run,
        own={TABLE: len(trials), **{f"{search.folder(one.number)}.json": -1 for one in trials}},
        children=[_sealed(search, one) for one in trials],
        page=_page(search, trials, best),
        key=search.key,
        facts=facts,
        sidecars=[BEST],
    )
    return SearchOutcome(str(search.output), facts, False)


def _sealed(search: Search, trial: Trial) -> Sealed:
    """Of a trial that did not come to its end whatever it left: curves, log, the batch it failed at."""
    child = search.folder(trial.number)
    if trial.state == COMPLETED:
        return sealed_files(search.output, child)
    own = (layout.LOCK, layout.CLAIMS)
    names = LocalStore(search.output / child).list()
    return Sealed({}, [f"{child}/{name}" for name in names if not name.startswith(own)])


def _table(search: Search, trials: Sequence[Trial], best: Trial) -> pa.Table:
    """Columns of TRIALS, then one for each searched key."""
    rows = [
        {
            "trial": one.number,
            "state": one.state,
            "epochs": len(one.curve),
            "value": one.value,
            "is_best": one is best,
            "curve": list(one.curve),
            "reason": one.reason or None,
            "splits": search.splits,
        }
        for one in trials
    ]
    table = pa.Table.from_pylist(rows, tables.TRIALS)
    for key in search.ranges:
        values = [one.params[key] for one in trials]
        table = table.append_column(key, _column(values))
    return table


def _column(values: list[Any]) -> pa.Array:
    """Numbers and switches as they are, anything else as JSON."""
    kinds = {type(value) for value in values}
    for kind, found in (({bool}, pa.bool_()), ({int}, pa.int64()), ({int, float}, pa.float64()), ({str}, pa.string())):
        if kinds <= kind:
            return pa.array(values, found)
    return pa.array([layout.canonical_json(value).decode().strip() for value in values], pa.string())


def _page(search: Search, trials: Sequence[Trial], best: Trial) -> Page:
    rows: list[list[str | Number]] = []
    for one in trials:
        key = f"trial.{one.number}"
        told = [
            str(one.params[name]) if not isinstance(one.params[name], float) else f"{one.params[name]:.4g}"
            for name in search.ranges
        ]
        value = Number(f"{key}.value", real(one.value, 4))
        epochs = Number(f"{key}.epochs", count(len(one.curve)))
        rows.append(
            [
                f"{one.number}{' (best)' if one is best else ''}",
                *told,
                epochs,
                value,
                f"{one.state}: {one.reason}" if one.reason else one.state,
            ]
        )
    return Page(
        title="Search",
        model=search.name,
        lead=f"{len(trials)} trials by the method {search.method}; the best is trial {best.number} with"
        f" {search.monitor} {real(best.value, 4)} on the validation rows.",
        cautions=["the best of many trials flatters itself on the rows it was chosen by; judge it on test rows"],
        drawings=_drawings(search, trials),
        tables=[Table("Trials", ["Trial", *search.ranges, "Epochs", search.monitor, "State"], rows)],
    )


def _drawings(search: Search, trials: Sequence[Trial]) -> list[Drawing]:
    """The figure of every trial that has one against its number, and against every searched number."""
    able = [one for one in trials if one.value is not None]
    are_early = any(one.state == STOPPED for one in able)
    caption = "Trials that were stopped early stand at their best so far." if are_early else ""
    values_N = np.array([one.value for one in able], np.float64)

    def drawing(name: str, across: Sequence[float]) -> Drawing:
        title = f"{search.monitor} of trials against {name}"
        x_values = np.array(across, np.float64)
        svg = _svg.scatter(x_values, values_N, title=title, x_label=name, y_label=search.monitor)
        return Drawing(f"{search.monitor} by {name}", svg, caption)

    found = [drawing("trial", [one.number for one in able])]
    for key, one in search.ranges.items():
        if one.kind == "choice" and not all(type(value) in (int, float) for value in one.values):
            continue
        across = [float(trial.params[key]) for trial in able]
        is_log = one.kind.startswith("log")
        found.append(drawing(f"log10 {key}" if is_log else key, np.log10(across).tolist() if is_log else across))
    return found
