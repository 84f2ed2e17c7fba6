"""Run a model over a set of sequences: source -> encode -> model -> sink -> commit."""

from __future__ import annotations

from typing import Any

from engine.runtime.install import check_installation
from engine.runtime.run import Execution, PlanLine, Run, RunContext, RunOutcome, open_run
from engine.runtime.sharded_job import complete
from engine.scoring._finished_rows import FinishedRows, open_finished
from engine.scoring._predict_job import JOB, SCHEMA_NAME, PredictJob, PredictOptions
from engine.scoring._predict_stages import PredictStages
from engine.scoring._variant_job import default_workers
from schemas import tables
from schemas._base import Spec
from schemas.jobs.evaluate_model import EvaluateExecutionSpec
from schemas.jobs.predict import PredictExecutionSpec, PredictSpec


def run(spec: PredictSpec, context: RunContext) -> RunOutcome:
    """Run or resume the job; a finished run is left as it is.

    Raises:
        ReplisomeError: in one sentence; its `exit_code` is the command's.
    """
    with open_run(spec.output, job=JOB, context=context) as run:
        job = _planned(spec, context, run)
        table = (SCHEMA_NAME, tables.PREDICTIONS_VERSION)
        return complete(run, job, table=table, max_reject_fraction=spec.max_reject_fraction)


def plan(spec: PredictSpec, context: RunContext) -> list[PlanLine]:
    """Cut or take up the plan, and say for each shard whether it would run."""
    with open_run(spec.output, job=JOB, context=context) as run:
        _planned(spec, context, run, only_look=True)
        return run.lines()


def _planned(spec: PredictSpec, context: RunContext, run: Run, *, only_look: bool = False) -> PredictJob:
    check_installation()
    wide = spec.execution
    stages = PredictStages(
        sequences=sequence_set(spec.sequences),
        model=spec.model,
        heads=spec.heads,
        both_strands=spec.both_strands,
        device=wide.device,
        precision=wide.precision,
        micro_batch=wide.micro_batch,
    )
    options = PredictOptions(wide.records_per_shard, wide.letters_per_shard, context.command)
    job = PredictJob(stages, options, execution_of(wide))
    job.plan(run)
    run.freeze(job.key(), frozen_spec(spec), only_look=only_look)
    return job


def sequence_set(text: str) -> FinishedRows:
    """The output of a finished ingest."""
    return open_finished(text, job="ingest-sequences", schema=f"sequences {tables.SEQUENCES_VERSION}")


def execution_of(wide: PredictExecutionSpec | EvaluateExecutionSpec) -> Execution:
    """Where and how wide."""
    return Execution(
        executor=wide.executor,
        workers=wide.workers or default_workers(wide.device),
        num_devices=default_workers(wide.device) if wide.device == "cuda" else 0,
        address=wide.address or "local",
    )


def frozen_spec(spec: Spec) -> dict[str, Any]:
    """The spec as run.json keeps it: without what only says how wide to run."""
    return spec.model_dump(mode="json", exclude={"output": True, "execution": {"executor", "workers", "address"}})
