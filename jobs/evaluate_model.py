"""Judge a model on labelled sequences or images: source -> encode -> model -> truth -> figures -> commit."""

from __future__ import annotations

from engine.errors import InputError
from engine.runtime.install import check_installation
from engine.runtime.run import PlanLine, Run, RunContext, RunOutcome, open_run
from engine.runtime.sharded_job import complete
from engine.scoring._finished_rows import FinishedRows, open_finished
from engine.scoring._predict_stages import PredictStages
from engine.training._evaluate_images import EvaluateImagesStages
from engine.training._evaluate_job import JOB, RESULTS, EvaluateJob, EvaluateOptions, Stages
from engine.training._evaluate_stages import ChosenSplit, EvaluateStages, chosen_head, head_of_facts
from engine.training._evaluation import Bootstrap
from engine.training._image_set import is_image_set, open_image_set
from engine.training._predict_images import PredictImagesStages, rows_per_shard
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
        return complete(run, job, table=job.stages.table, max_reject_fraction=spec.max_reject_fraction)


def plan(spec: EvaluateModelSpec, context: RunContext) -> list[PlanLine]:
    """Cut or take up the plan, and say for each shard whether it would run."""
    with open_run(spec.output, job=JOB, context=context) as run:
        _planned(spec, context, run, only_look=True)
        return run.lines()


def _planned(spec: EvaluateModelSpec, context: RunContext, run: Run, *, only_look: bool = False) -> EvaluateJob:
    check_installation()
    stages, wide = stages_of(spec), spec.execution
    images = stages.net if isinstance(stages, EvaluateImagesStages) else None
    options = EvaluateOptions(
        records_per_shard=images.images_per_shard if images else wide.records_per_shard,
        weight_per_shard=wide.bytes_per_shard if images else wide.letters_per_shard,
        audit=spec.audit,
        cluster=spec.intervals.cluster,
        bootstrap=Bootstrap(spec.intervals.samples, spec.intervals.seed),
        command=context.command,
    )
    job = EvaluateJob(stages, options, execution_of(wide))
    job.plan(run)
    run.freeze(job.key(), frozen_spec(spec), results=RESULTS, only_look=only_look)
    return job


def stages_of(spec: EvaluateModelSpec) -> Stages:
    """What the spec asks of every shard."""
    chosen = spec.splits
    split = None if chosen.file is None else ChosenSplit(chosen.file, chosen.names, chosen.fold)
    if is_image_set(spec.data):
        return _images(spec, split)
    sequences = sequence_set(spec.data)
    if spec.model is None:
        former = _predictions(str(spec.predictions))
        head = head_of_facts(former.facts, spec.head, where=former.uri)
        return EvaluateStages(sequences, head, predictions=former, split=split)
    model = _model(spec, spec.model, sequences)
    where = f"model {model.info.name}"
    head = chosen_head(list(model.info.heads.values()), spec.head, where=where, letters=spec.letters)
    return EvaluateStages(sequences, head, model=_model(spec, spec.model, sequences, head.name), split=split)


def _images(spec: EvaluateModelSpec, split: ChosenSplit | None) -> EvaluateImagesStages:
    if spec.model is None or spec.both_strands:
        key, what = "both_strands", "images have no strands"
        if spec.model is None:
            key, what = "predictions", "on images a model is judged, not its predictions"
        raise InputError(what, where=key, fix="give the set and --model alone")
    wide, images = spec.execution, open_image_set(spec.data)
    net = PredictImagesStages(
        rows=open_finished(spec.data, job="ingest-images", schema=f"images {tables.IMAGES_VERSION}"),
        images=images,
        model=spec.model,
        images_per_shard=rows_per_shard(
            images, images_per_shard=wide.records_per_shard, bytes_per_shard=wide.bytes_per_shard
        ),
        device=wide.device,
        precision=wide.precision,
        micro_batch=wide.micro_batch or 4,
    )
    net.check()
    chosen_head(list(net.info.heads.values()), spec.head, where=f"model {net.info.name}", letters=spec.letters)
    return EvaluateImagesStages(net, split)


def _model(spec: EvaluateModelSpec, model: str, sequences: FinishedRows, *heads: str) -> PredictStages:
    wide = spec.execution
    return PredictStages(
        sequences=sequences,
        model=model,
        heads=heads,
        both_strands=spec.both_strands,
        device=wide.device,
        precision=wide.precision,
        micro_batch=wide.micro_batch or 64,
    )


def _predictions(text: str) -> FinishedRows:
    return open_finished(text, job="predict", schema=f"predictions {tables.PREDICTIONS_VERSION}")
