"""Judge a model on labelled sequences: source -> encode -> model -> truth -> figures -> commit."""

from __future__ import annotations

from engine.runtime.install import check_installation
from engine.runtime.run import PlanLine, Run, RunContext, RunOutcome, open_run
from engine.runtime.sharded_job import complete
from engine.scoring._finished_rows import FinishedRows, open_finished
from engine.scoring._predict_stages import PredictStages
from engine.training._evaluate_job import JOB, RESULTS, SCHEMA_NAME, EvaluateJob, EvaluateOptions
from engine.training._evaluate_stages import ChosenSplit, EvaluateStages, chosen_head, head_of_facts
from engine.training._evaluation import Bootstrap
from jobs.predict import execution_of, frozen_spec, sequence_set
from schemas import tables
from schemas.jobs.evaluate_model import EvaluateModelSpec


def run(spec: EvaluateModelSpec, context: RunContext) -> RunOutcome:
    """Run or resume the job; a finished run is left as it is.

    Raises:
        ReplisomeError: in one sentence; its `exit_code` is the command's.
    """
    with open_run(spec.output, job=JOB, context=context) as run:
        job = _planned(spec, context, run)
        table = (SCHEMA_NAME, tables.PREDICTIONS_VERSION)
        return complete(run, job, table=table, max_reject_fraction=spec.max_reject_fraction)


def plan(spec: EvaluateModelSpec, context: RunContext) -> list[PlanLine]:
    """Cut or take up the plan, and say for each shard whether it would run."""
    with open_run(spec.output, job=JOB, context=context) as run:
        _planned(spec, context, run, only_look=True)
        return run.lines()


def _planned(spec: EvaluateModelSpec, context: RunContext, run: Run, *, only_look: bool = False) -> EvaluateJob:
    check_installation()
    options = EvaluateOptions(
        records_per_shard=spec.execution.records_per_shard,
        letters_per_shard=spec.execution.letters_per_shard,
        audit=spec.audit,
        cluster=spec.intervals.cluster,
        bootstrap=Bootstrap(spec.intervals.samples, spec.intervals.seed),
        command=context.command,
    )
    job = EvaluateJob(stages_of(spec), options, execution_of(spec.execution))
    job.plan(run)
    run.freeze(job.key(), frozen_spec(spec), results=RESULTS, only_look=only_look)
    return job


def stages_of(spec: EvaluateModelSpec) -> EvaluateStages:
    """What the spec asks of every shard."""
    chosen = spec.splits
    sequences = sequence_set(spec.sequences)
    split = None if chosen.file is None else ChosenSplit(chosen.file, chosen.names, chosen.fold)
    if spec.model is None:
        former = _predictions(str(spec.predictions))
        head = head_of_facts(former.facts, spec.head, where=former.uri)
        return EvaluateStages(sequences, head, predictions=former, split=split)
    model = _model(spec, spec.model, sequences)
    head = chosen_head(list(model.info.heads.values()), spec.head, where=f"model {model.info.name}")
    return EvaluateStages(sequences, head, model=_model(spec, spec.model, sequences, head.name), split=split)


def _model(spec: EvaluateModelSpec, model: str, sequences: FinishedRows, *heads: str) -> PredictStages:
    wide = spec.execution
    return PredictStages(
        sequences=sequences,
        model=model,
        heads=heads,
        both_strands=spec.both_strands,
        device=wide.device,
        precision=wide.precision,
        micro_batch=wide.micro_batch,
    )


def _predictions(text: str) -> FinishedRows:
    return open_finished(text, job="predict", schema=f"predictions {tables.PREDICTIONS_VERSION}")
