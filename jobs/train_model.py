"""Train a model on a set of sequences: samples -> augment -> encode -> model -> loss -> step -> checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.errors import InputError
from engine.runtime.install import check_installation
from engine.runtime.run import PlanLine, RunContext, open_run
from engine.training._crew import Crew
from engine.training._recipe import Recipe
from engine.training._train_job import (
    JOB,
    Card,
    Component,
    TrainJob,
    TrainOutcome,
    execute,
    finished,
    freeze,
    prepare,
)
from engine.training._transfer import Transfer
from schemas.jobs.train_model import TrainModelSpec, TrainSpec


def run(
    spec: TrainModelSpec, context: RunContext, *, watch: Callable[[int, Mapping[str, Any]], None] | None = None
) -> TrainOutcome:
    """Train, or go on at the last checkpoint; a finished run is left as it is.

    Args:
        spec: what to train.
        context: how the job is run.
        watch: of a search: told (member, figures) after each epoch; what it raises ends the training.

    Raises:
        ReplisomeError: in one sentence; its `exit_code` is the command's.
    """
    check_installation()
    job = job_of(spec)
    with open_run(spec.output, job=JOB, context=context) as run:
        prepared = prepare(job)
        freeze(job, prepared, frozen_spec(spec), force=context.force)
        done = finished(job)
        if done is not None:
            return done

        def say(line: str) -> None:
            run.log.info("%s", line)
            if context.progress != "none":
                print(line, file=sys.stderr, flush=True)

        return execute(job, prepared, crew_of(spec), run=run, say=say, watch=watch)


def plan(spec: TrainModelSpec, context: RunContext) -> list[PlanLine]:  # noqa: ARG001 - as every job has it
    """Training is not cut into shards.

    Raises:
        InputError: always, after everything that can be checked without training was found right.
    """
    prepared = prepare(job_of(spec))
    steps = prepared.setup.train_plan().num_steps
    raise InputError(
        f"training has no shards to plan; this spec is in order, {steps:,} steps an epoch",
        where=spec.output,
        fix="leave --plan out",
    )


def job_of(spec: TrainModelSpec) -> TrainJob:
    """The spec in the engine's words."""
    return TrainJob(
        data=spec.data.path,
        splits=spec.data.splits,
        fold=spec.data.fold,
        task=_component(spec.task),
        encoder=_component(spec.encoder),
        model=_component(spec.model),
        recipe=Recipe(
            **spec.training.model_dump(exclude={"members"}),
            precision=spec.execution.precision,
            micro_batch=spec.execution.micro_batch,
            checkpoint_steps=spec.execution.checkpoint_steps,
            cache_bytes=spec.execution.cache_mb << 20,
            compiled=spec.execution.compile,
            sharding=spec.execution.sharding,
        ),
        augmentation=spec.augment.model_dump(exclude_defaults=True),
        members=spec.training.members,
        card=Card(spec.name, spec.licence, spec.note),
        output=local_output(spec),
        allow_empty_classes=spec.data.empty_classes == "allow",
        inner_fold=spec.data.inner_fold,
        transfer=Transfer(
            init_from=spec.transfer.init_from or "",
            freeze=tuple(spec.transfer.freeze),
            layer_rate=spec.transfer.layer_rate,
        ),
    )


def local_output(spec: TrainSpec) -> Path:
    """Where the run writes.

    Raises:
        InputError: an object store.
    """
    if "://" in spec.output:
        raise InputError("training writes to a local folder", where=spec.output, fix="give a local path")
    return Path(spec.output).expanduser().absolute()


def crew_of(spec: TrainModelSpec) -> Crew:
    """Who trains."""
    wide = spec.execution
    feed = wide.feed or ("ray-data" if wide.executor == "ray" else "reader")
    return Crew(wide.executor, wide.workers, wide.device, wide.threads, wide.address or "local", feed)


def _component(section: Any) -> Component:
    return Component(section.name, section.params)


def frozen_spec(spec: TrainSpec) -> dict[str, Any]:
    """The spec as run.json keeps it: without where and how wide it ran."""
    wide = {"executor", "address", "feed", "workers", "threads", "cache_mb", "compile", "sharding", "parallel_trials"}
    return spec.model_dump(mode="json", exclude={"output": True, "execution": wide})
