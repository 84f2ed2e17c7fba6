"""Search for the best settings: ranges -> trials -> training runs -> table -> best spec -> commit."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from engine import registry
from engine.errors import InputError
from engine.runtime.install import check_installation
from engine.runtime.run import PlanLine, RunContext, open_run
from engine.training import _search
from engine.training._frozen_run import freeze_run, plain, remove
from engine.training._schedule import Job, Ladder, Schedule
from engine.training._search import Params, Range, Stopping, Trial
from engine.training._train_job import DECIDED, prepare
from engine.training._trial_crew import TrialCrew
from engine.training._trial_workers import run_jobs
from engine.training._tune_job import (
    JOB,
    RESULTS,
    SCRATCH,
    Search,
    SearchOutcome,
    Watch,
    finish,
    finished,
    folder_of,
    run_job,
)
from jobs import train_model
from schemas._base import SpecError, build_spec, nearest, show
from schemas.jobs.train_model import AugmentSpec, TrainingSpec, TrainModelSpec
from schemas.jobs.tune_model import TuneModelSpec

_PLURAL = {"task": "tasks", "encoder": "encoders", "model": "models"}


def run(spec: TuneModelSpec, context: RunContext) -> SearchOutcome:
    """Run every trial that has not ended; a finished search is left as it is.

    Raises:
        ReplisomeError: in one sentence; its `exit_code` is the command's.
    """
    check_installation()
    search = _prepared(spec)
    with open_run(str(search.output), job=JOB, context=context) as run:
        frozen = train_model.frozen_spec(spec)
        freeze_run(search.output, job=JOB, key=search.key, spec=frozen, results=RESULTS, force=context.force)
        done = finished(search)
        if done is not None:
            return done
        schedule = schedule_of(spec, search)
        train = Trainer(spec, dataclasses.replace(context, force=False, progress=_progress(spec, context)))

        def on_end(job: Job, end: Trial) -> None:
            line = f"trial {job.trial}: {end.state} after {len(end.curve)} epochs, {search.monitor} {end.value}"
            run.log.info("%s", line)
            if context.progress != "none":
                print(line, file=sys.stderr, flush=True)

        scratch = search.output / SCRATCH
        remove(scratch)  # of a driver that was killed
        work = functools.partial(run_job, search, train=train)
        run_jobs(schedule, work, crew_of(spec), on_end=on_end, scratch=scratch)
        return finish(search, schedule.trials(), run, spec_of=lambda params: best_spec(spec, params))


@dataclasses.dataclass(frozen=True)
class Trainer:
    """Trains a trial in its folder; picklable."""

    spec: TuneModelSpec
    context: RunContext

    def __call__(self, job: Job, watch: Watch) -> None:
        """See engine/training/_tune_job.py."""
        output = train_model.local_output(self.spec) / folder_of(job.trial)
        train_model.run(_child(self.spec, job.params, output=str(output)), self.context, watch=watch)


def _progress(spec: TuneModelSpec, context: RunContext) -> str:
    """Trials that run at once would write their epochs over each other's."""
    wide = spec.execution
    return context.progress if wide.executor == "in-process" and wide.parallel_trials == 1 else "none"


def crew_of(spec: TuneModelSpec) -> TrialCrew:
    """Who runs the trials."""
    wide = spec.execution
    return TrialCrew(wide.executor, wide.parallel_trials, wide.workers, wide.device, wide.address or "local")


def schedule_of(spec: TuneModelSpec, search: Search) -> Schedule:
    """The jobs of this search."""
    how = spec.tuning

    def epochs_of(params: Params) -> int:
        return int(params.get("training.epochs", spec.training.epochs))

    def propose(number: int, former: Sequence[Trial], under_way: Sequence[Params]) -> Params:
        return params_of(spec, search, number, former, under_way)

    ladder = Ladder(how.min_epochs, how.factor, epochs_of, search.stopping) if how.stopping == _search.ASHA else None
    return Schedule(num_trials(spec, search), propose, ahead=how.ahead if spec.learns else None, ladder=ladder)


def plan(spec: TuneModelSpec, context: RunContext) -> list[PlanLine]:  # noqa: ARG001 - as every job has it
    """Training is not cut into shards.

    Raises:
        InputError: always, after everything that can be checked without training was found right.
    """
    what = f"a search has no shards to plan; this spec is in order, {num_trials(spec, _prepared(spec))} trials"
    raise InputError(what, where=spec.output, fix="leave --plan out")


def num_trials(spec: TuneModelSpec, search: Search) -> int:
    """Of the whole search."""
    if spec.tuning.method == _search.GRID:
        return len(_grid(spec, search.ranges))
    return spec.tuning.trials or _search.USUAL_TRIALS


def params_of(
    spec: TuneModelSpec, search: Search, number: int, former: Sequence[Trial], under_way: Sequence[Params]
) -> Params:
    """A trial's values of the searched keys."""
    how = spec.tuning
    if how.method == _search.GRID:
        return _grid(spec, search.ranges)[number]
    if how.method == _search.RANDOM:
        return _search.drawn(search.ranges, seed=how.seed, number=number)
    lower = search.stopping.lower_is_better
    return _search.proposed(
        search.ranges, former, seed=how.seed, number=number, lower_is_better=lower, under_way=under_way
    )


def _grid(spec: TuneModelSpec, ranges: _search.Ranges) -> list[dict[str, Any]]:
    return _search.grid(ranges, most=spec.tuning.trials or _search.MOST_IN_GRID)


def _prepared(spec: TuneModelSpec) -> Search:
    """Check every searched key, and every value that can be checked without training."""
    output = train_model.local_output(spec)
    ranges = {key: Range(one.kind, getattr(one, one.kind)) for key, one in spec.search.items()}
    versions = {"optuna": _search.optuna_version()} if spec.tuning.method == _search.BAYESIAN else {}
    if spec.tuning.method == _search.GRID:
        _grid(spec, ranges)
    _check_keys(spec)
    checked = {key: found.ends()[0] for key, found in ranges.items()}
    first = prepare(train_model.job_of(_child(spec, checked)))
    for key, found in ranges.items():
        for value in found.ends()[1:]:
            child = _child(spec, {**checked, key: value}, key=key)
            if key.split(".")[0] in _PLURAL:
                prepare(train_model.job_of(child))
    monitor = spec.training.monitor
    lower = monitor == "loss" or monitor in first.setup.task.lower_is_better()
    how = spec.tuning
    asked = spec.model_dump(mode="json", include={"search", "tuning"}, exclude_none=True)
    if not spec.learns:
        del asked["tuning"]["ahead"]
    return Search(
        output=output,
        ranges=ranges,
        method=how.method,
        monitor=monitor,
        stopping=Stopping(how.stopping, how.min_epochs, how.factor, lower),
        key=plain({**first.key, **asked, **versions, "job": JOB}),
        splits=str(first.key["splits"]),
        name=spec.name,
    )


def _check_keys(spec: TuneModelSpec) -> None:
    known = sorted(set(_known_keys(spec)))
    for key in spec.search:
        if key.startswith("data.") or key == "training.monitor":
            what = f"{key!r} is the same for all trials, which are compared by it"
            raise InputError(what, where="key 'search'", fix="set it for the whole search")
        if key not in known:
            alike = [one for one in known if one.split(".")[0] == key.split(".")[0]] or known
            raise InputError(f"no key {show(key)} to search", where="key 'search'", fix=nearest(key, alike))
        if key.startswith("task.") and spec.training.monitor == "loss":
            what = f"{key!r} changes what the loss is, so that trials cannot be compared by it"
            raise InputError(what, where="key 'search'", fix="set training.monitor to a metric of the task")


def _known_keys(spec: TuneModelSpec) -> Iterator[str]:
    """Keys of a train spec that trials may differ in."""
    yield from (f"training.{name}" for name in TrainingSpec.model_fields if name != "monitor")
    yield from (f"augment.{name}" for name in AugmentSpec.model_fields)
    for section, kind in _PLURAL.items():
        if section != "task":
            yield f"{section}.name"
        asked = spec.search.get(f"{section}.name")
        for name in (getattr(spec, section).name, *((asked.choice or ()) if asked else ())):
            fields = dataclasses.fields(registry.component(kind, str(name)).Params)
            yield from (f"{section}.params.{one.name}" for one in fields if one.name not in DECIDED)


def _child(spec: TuneModelSpec, params: Params, *, output: str = "trial", key: str = "") -> TrainModelSpec:
    """The train spec of a trial.

    Raises:
        InputError: a value that the spec does not allow.
    """
    values = train_values(spec, params, output=output)
    try:
        return build_spec(TrainModelSpec, values, where=f"search.{key}" if key else "search")
    except SpecError as error:
        raise InputError(error.what, where=error.where, fix=error.fix) from None


def train_values(spec: TuneModelSpec, params: Params, *, output: str) -> dict[str, Any]:
    """The same as plain values."""
    values = spec.model_dump(mode="json", exclude={"job", "search", "tuning"})
    values |= {"job": "train_model", "output": output}
    # A trial's workers share a node, whoever placed it there.
    for name in ("parallel_trials", "executor", "address"):
        del values["execution"][name]
    for key, value in params.items():
        *sections, last = key.split(".")
        here: dict[str, Any] = values
        for section in sections:
            here = here[section]
        here[last] = value
    return values


def best_spec(spec: TuneModelSpec, params: Params) -> str:
    """A train spec as YAML; its paths are whole, so that it trains from any folder."""
    values = train_values(spec, params, output="best-model")
    data: Mapping[str, Any] = values["data"]
    whole = {name: _whole(data[name]) for name in ("path", "splits")}
    ordered = {"job": values.pop("job"), "version": values.pop("version"), "data": {**data, **whole}}
    return yaml.safe_dump({**ordered, **values, "data": ordered["data"]}, sort_keys=False, allow_unicode=True)


def _whole(path: str) -> str:
    prefix = "run:" if path.startswith("run:") else ""
    return prefix + str(Path(path.removeprefix("run:")).expanduser().absolute())
