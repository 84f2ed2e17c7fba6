"""Train a model once for each fold: folds -> training runs -> held-out rows -> mean and spread -> commit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from engine.errors import InputError
from engine.runtime.install import check_installation
from engine.runtime.run import PlanLine, RunContext, open_run
from engine.training._folds import (
    FOLDS,
    JOB,
    RESULTS,
    Folds,
    FoldsOutcome,
    finish,
    finished,
    fold_numbers,
    prepare_folds,
)
from engine.training._frozen_run import freeze_run
from jobs import train_model
from schemas.jobs.cross_validate import CrossValidateSpec
from schemas.jobs.train_model import DataSpec, TrainModelSpec


def run(spec: CrossValidateSpec, context: RunContext) -> FoldsOutcome:
    """Train every fold that is not finished; a finished run is left as it is.

    Raises:
        ReplisomeError: in one sentence; its `exit_code` is the command's.
    """
    check_installation()
    children, folds = _prepared(spec)
    with open_run(str(folds.output), job=JOB, context=context) as run:
        frozen = train_model.frozen_spec(spec)
        freeze_run(folds.output, job=JOB, key=folds.key, spec=frozen, results=RESULTS, force=context.force)
        done = finished(folds)
        if done is not None:
            return done
        for fold, child in children.items():
            run.log.info("fold %d", fold)
            train_model.run(child, replace(context, force=False))
        return finish(folds, run)


def plan(spec: CrossValidateSpec, context: RunContext) -> list[PlanLine]:  # noqa: ARG001 - as every job has it
    """Training is not cut into shards.

    Raises:
        InputError: always, after everything that can be checked without training was found right.
    """
    _, folds = _prepared(spec)
    what = f"training has no shards to plan; this spec is in order, {len(folds.records)} folds"
    raise InputError(what, where=spec.output, fix="leave --plan out")


def _prepared(spec: CrossValidateSpec) -> tuple[dict[int, TrainModelSpec], Folds]:
    output = train_model.local_output(spec)
    numbers = fold_numbers(spec.task.name, spec.data.path, spec.data.splits)
    children = {fold: _child(spec, fold, output) for fold in numbers}
    jobs = {fold: train_model.job_of(child) for fold, child in children.items()}
    return children, prepare_folds(jobs, output)


def _child(spec: CrossValidateSpec, fold: int, output: Path) -> TrainModelSpec:
    """The training run of a fold."""
    shared = {name: getattr(spec, name) for name in type(spec).model_fields if name not in ("job", "data", "output")}
    data = DataSpec(fold=fold, **spec.data.model_dump())
    return TrainModelSpec(data=data, output=str(output / FOLDS / str(fold)), **shared)
