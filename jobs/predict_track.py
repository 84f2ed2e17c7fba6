"""Run a model along a genome: reference -> tiles -> encode -> model -> bigWig -> commit."""

from __future__ import annotations

from engine.errors import InputError
from engine.io.regions import parse_regions
from engine.models._info import open_model
from engine.runtime.install import check_installation
from engine.runtime.run import PlanLine, Run, RunContext, RunOutcome, open_run
from engine.runtime.sharded_job import complete
from engine.scoring._track_job import JOB, SCHEMA_NAME, TrackJob, TrackOptions
from engine.scoring._track_stages import TrackStages
from jobs.predict import execution_of, frozen_spec
from schemas import tables
from schemas.jobs.predict_track import PredictTrackSpec


def run(spec: PredictTrackSpec, context: RunContext) -> RunOutcome:
    """Run or resume the job; a finished run is left as it is.

    Raises:
        ReplisomeError: in one sentence; its `exit_code` is the command's.
    """
    with open_run(spec.output, job=JOB, context=context) as run:
        job = _planned(spec, context, run)
        table = (SCHEMA_NAME, tables.TRACK_TILES_VERSION)
        return complete(run, job, table=table, max_reject_fraction=spec.max_reject_fraction)


def plan(spec: PredictTrackSpec, context: RunContext) -> list[PlanLine]:
    """Cut or take up the plan, and say for each shard whether it would run."""
    with open_run(spec.output, job=JOB, context=context) as run:
        _planned(spec, context, run, only_look=True)
        return run.lines()


def _planned(spec: PredictTrackSpec, context: RunContext, run: Run, *, only_look: bool = False) -> TrackJob:
    check_installation()
    wide = spec.execution
    stages = TrackStages(
        reference=spec.reference,
        regions=tuple(parse_regions(spec.regions, spec.regions_file)),
        model=spec.model,
        head=spec.head or _only_head(spec.model),
        channels=spec.channels,
        strands=spec.strands,
        tile_bp=wide.tile_bp,
        window_bp=spec.window_bp,
        stride_bp=spec.stride_bp,
        device=wide.device,
        precision=wide.precision,
        micro_batch=wide.micro_batch,
    )
    if (spec.regions or spec.regions_file) and not stages.regions:
        where = spec.regions_file or "regions"
        raise InputError("no region is named", where=where, fix="name some, or leave it out for the whole genome")
    job = TrackJob(stages, TrackOptions(wide.records_per_shard, context.command), execution_of(wide))
    job.plan(run)
    run.freeze(job.key(), frozen_spec(spec), results=job.results(), only_look=only_look)
    return job


def _only_head(model: str) -> str:
    heads = open_model(model).heads
    if len(heads) > 1:
        raise InputError(f"model {model!r} has several heads", where="head", fix=f"name one: {', '.join(heads)}")
    return next(iter(heads))
