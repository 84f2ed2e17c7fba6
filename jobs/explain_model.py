"""Explain a model's answers to sequences: source -> encode -> attributions -> motifs -> tracks -> commit."""

from __future__ import annotations

from engine.errors import InputError
from engine.genome.reference import ReferenceGenome, match_contigs
from engine.interpret._baselines import Baseline
from engine.interpret._chosen_rows import Choice, Chosen, choose
from engine.interpret._explain_job import JOB, SCHEMA_NAME, ExplainJob, ExplainOptions, open_motifs
from engine.interpret._explain_stages import ExplainStages, Method, store_shape
from engine.interpret._target import Question, check_question
from engine.models._info import ModelInfo
from engine.runtime import layout
from engine.runtime.install import check_installation
from engine.runtime.run import PlanLine, Run, RunContext, RunOutcome, open_run
from engine.runtime.sharded_job import complete
from engine.scoring._predict_stages import PredictStages
from engine.training._evaluate_stages import ChosenSplit
from jobs.predict import execution_of, frozen_spec, sequence_set
from schemas import tables
from schemas.jobs.explain_model import ExplainModelSpec

MOST_CHANNELS = 8


def run(spec: ExplainModelSpec, context: RunContext) -> RunOutcome:
    """Run or resume the job; a finished run is left as it is.

    Raises:
        ReplisomeError: in one sentence; its `exit_code` is the command's.
    """
    with open_run(spec.output, job=JOB, context=context) as run:
        job = _planned(spec, context, run)
        table = (SCHEMA_NAME, tables.EXPLANATIONS_VERSION)
        return complete(run, job, table=table, max_reject_fraction=spec.max_reject_fraction)


def plan(spec: ExplainModelSpec, context: RunContext) -> list[PlanLine]:
    """Cut or take up the plan, and say for each shard whether it would run."""
    with open_run(spec.output, job=JOB, context=context) as run:
        _planned(spec, context, run, only_look=True)
        return run.lines()


def _planned(spec: ExplainModelSpec, context: RunContext, run: Run, *, only_look: bool = False) -> ExplainJob:
    check_installation()
    stages = stages_of(spec)
    rows = spec.rows
    choice = (list(rows.ids), list(rows.names) if rows.file else None, rows.fold, rows.limit)
    contigs, digest = _reference(spec, stages.chosen)
    options = ExplainOptions(contigs, digest, spec.motifs.file or "", choice, context.command)
    job = ExplainJob(stages, options, execution_of(spec.execution))
    job.plan(run)
    run.freeze(job.key(), frozen_spec(spec), results=job.results(), only_look=only_look)
    return job


def stages_of(spec: ExplainModelSpec) -> ExplainStages:
    """What the spec asks of every shard."""
    wide, rows = spec.execution, spec.rows
    model = PredictStages(
        sequences=sequence_set(spec.sequences), model=spec.model, device=wide.device, micro_batch=wide.micro_batch
    )
    question = question_of(spec, model.info)
    split = None if rows.file is None else ChosenSplit(rows.file, rows.names, rows.fold)
    chosen = choose(model.sequences, Choice(rows.ids, split, rows.limit))
    shape = store_shape(
        model,
        question,
        chosen,
        records_per_shard=wide.records_per_shard,
        letters_per_shard=wide.letters_per_shard,
    )
    search = None if spec.motifs.file is None else open_motifs(spec.motifs.file, spec.motifs.p_value)
    if search is not None and len(chosen.rows) and shape.letters != 4:
        raise InputError("motifs of DNA cannot lie in proteins", where="motifs", fix="leave --motifs out")
    return ExplainStages(model, question, method_of(spec), chosen, shape, search)


def method_of(spec: ExplainModelSpec) -> Method:
    """How attributions are made."""
    count = spec.baseline.count if spec.baseline.kind == "shuffle" else 1
    return Method(spec.method, Baseline(spec.baseline.kind, count, spec.baseline.seed), spec.steps)


def question_of(spec: ExplainModelSpec, info: ModelInfo) -> Question:
    """Head and channels, chosen or the only ones.

    Raises:
        InputError: a choice is needed, or names what the model does not have.
    """
    if spec.head is None and len(info.heads) > 1:
        what = f"model {info.name!r} has several heads"
        raise InputError(what, where="head", fix=f"name the one to explain: {', '.join(info.heads)}")
    name = spec.head or next(iter(info.heads))
    check_question(info, Question(name, ()))
    head = info.heads[name]
    if not spec.channels and len(head.channels) > MOST_CHANNELS:
        what = f"head {head.name!r} has {len(head.channels)} channels, each of which takes its own time"
        raise InputError(what, where="channels", fix="name those to explain with --channels")
    asked = (spec.scale, spec.reduce, spec.first_position, spec.end_position, spec.both_strands)
    question = Question(head.name, spec.channels or head.channels, *asked)
    check_question(info, question)
    return question


def _reference(spec: ExplainModelSpec, chosen: Chosen) -> tuple[dict[str, int] | None, str | None]:
    """Lengths of the contigs on which records lie, and the digest of the reference."""
    if spec.reference is None:
        return None, None
    reference = ReferenceGenome(spec.reference)
    match_contigs(dict.fromkeys(chosen.contigs), reference)
    lengths = {name: reference.length(name) for name in chosen.contigs}
    return lengths, layout.json_digest(lengths)
