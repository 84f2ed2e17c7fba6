"""Run a model over a set of images: source -> encode -> model -> sink -> commit."""

from __future__ import annotations

from dataclasses import replace

from engine.runtime.install import check_installation
from engine.runtime.run import Execution, PlanLine, Run, RunContext, RunOutcome, open_run
from engine.runtime.sharded_job import complete
from engine.scoring._finished_rows import open_finished
from engine.scoring._variant_job import default_workers
from engine.training._image_set import open_image_set
from engine.training._predict_images import PredictImagesStages, rows_per_shard
from engine.training._predict_images_job import JOB, RESULTS, SCHEMA_NAME, PredictImagesJob
from schemas import tables
from schemas.jobs.predict_images import PredictImagesSpec


def run(spec: PredictImagesSpec, context: RunContext) -> RunOutcome:
    """Run or resume the job; a finished run is left as it is.

    Raises:
        ReplisomeError: in one sentence; its `exit_code` is the command's.
    """
    with open_run(spec.output, job=JOB, context=context) as run:
        job = _planned(spec, context, run)
        table = (SCHEMA_NAME, tables.IMAGE_PREDICTIONS_VERSION)
        return _told(complete(run, job, table=table, max_reject_fraction=spec.max_reject_fraction))


def plan(spec: PredictImagesSpec, context: RunContext) -> list[PlanLine]:
    """Cut or take up the plan, and say for each shard whether it would run."""
    with open_run(spec.output, job=JOB, context=context) as run:
        _planned(spec, context, run, only_look=True)
        return run.lines()


def _planned(spec: PredictImagesSpec, context: RunContext, run: Run, *, only_look: bool = False) -> PredictImagesJob:
    check_installation()
    wide = spec.execution
    images = open_image_set(spec.images)
    stages = PredictImagesStages(
        rows=open_finished(spec.images, job="ingest-images", schema=f"images {tables.IMAGES_VERSION}"),
        images=images,
        model=spec.model,
        images_per_shard=rows_per_shard(
            images, images_per_shard=wide.images_per_shard, bytes_per_shard=wide.bytes_per_shard
        ),
        device=wide.device,
        precision=wide.precision,
        micro_batch=wide.micro_batch,
    )
    execution = Execution(
        executor=wide.executor,
        workers=wide.workers or default_workers(wide.device),
        num_devices=default_workers(wide.device) if wide.device == "cuda" else 0,
        address=wide.address or "local",
    )
    job = PredictImagesJob(stages, execution, command=context.command)
    job.plan(run)
    frozen = spec.model_dump(mode="json", exclude={"output": True, "execution": {"executor", "workers", "address"}})
    run.freeze(job.key(), frozen, results=RESULTS, only_look=only_look)
    return job


def _told(outcome: RunOutcome) -> RunOutcome:
    """The store is told as one result, not file by file."""
    names = dict.fromkeys(f"{name.partition('/')[0]}/" if "/" in name else name for name in outcome.results)
    return replace(outcome, results=list(names))
