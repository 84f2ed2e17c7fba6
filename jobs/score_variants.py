"""Score every variant: source -> window -> encode -> model -> score -> sink -> commit."""

from __future__ import annotations

from typing import Any

from engine.errors import InputError
from engine.io.regions import parse_regions
from engine.runtime.commit import commit, finished_outcome
from engine.runtime.inputs import is_run, local_input
from engine.runtime.install import check_installation
from engine.runtime.run import Execution, PlanLine, Run, RunContext, RunOutcome, open_run
from engine.scoring._panels import Panel
from engine.scoring._score_store import FrozenStore
from engine.scoring._variant_job import JOB, SCHEMA_NAME, JobOptions, VariantJob, default_workers
from engine.scoring._variant_results import RESULTS, VCF
from engine.scoring._variant_stages import VariantStages
from engine.storage.store import Store
from schemas import tables
from schemas.jobs.score_variants import ScoreVariantsSpec


def run(spec: ScoreVariantsSpec, context: RunContext) -> RunOutcome:
    """Run or resume the job; a finished run is left as it is.

    Raises:
        ReplisomeError: in one sentence; its `exit_code` is the command's.
    """
    with open_run(spec.output, job=JOB, context=context) as run:
        job = _planned(spec, context, run)
        if run.finished():
            return finished_outcome(run)
        run.execute(
            job.stages,
            schema_name=SCHEMA_NAME,
            schema_version=tables.VARIANT_SCORES_VERSION,
            execution=job.execution,
            max_reject_fraction=spec.max_reject_fraction,
        )
        return commit(run, finish=job.finish(run), report=job.report(run), facts=job.facts(run.contigs))


def plan(spec: ScoreVariantsSpec, context: RunContext) -> list[PlanLine]:
    """Cut or take up the plan, and say for each shard whether it would run."""
    with open_run(spec.output, job=JOB, context=context) as run:
        _planned(spec, context, run, only_look=True)
        return run.lines()


def _planned(spec: ScoreVariantsSpec, context: RunContext, run: Run, *, only_look: bool = False) -> VariantJob:
    check_installation()
    _check_reach(spec)
    path = spec.input.path
    variants = None if path is None else local_input(path, run.store, result=VCF)
    job = VariantJob(stages_of(spec, run.store, variants=variants), _options(spec, context), _execution(spec))
    job.plan(run)
    choices = {**job.freeze_windows(run, only_look=only_look), **job.freeze_store(run, only_look=only_look)}
    run.freeze(job.key(run.contigs), _frozen(spec), results=RESULTS, choices=choices, only_look=only_look)
    return job


def _check_reach(spec: ScoreVariantsSpec) -> None:
    """What is spooled or fetched here lies on this machine alone; the nodes of a cluster would not find it."""
    inputs = (spec.input.path or "", spec.reference, spec.genes or "")
    near = next((one for one in inputs if one == "-" or "://" in one), None)
    if near is not None and spec.execution.address is not None:
        raise InputError(
            "this input is fetched to the driver's machine, where other nodes of the cluster cannot read it",
            where="standard input" if near == "-" else near,
            fix="copy it to a folder that all nodes share and name it there",
        )


def stages_of(spec: ScoreVariantsSpec, store: Store, *, variants: str | None) -> VariantStages:
    """What the spec asks of every shard.

    Args:
        spec: the spec.
        store: fetched inputs lie in its scratch.
        variants: the input on a local path; None where it is made from the reference.
    """
    reference, path = local_input(spec.reference, store), spec.input.path
    return VariantStages(
        input_path=variants or reference,
        reference_path=reference,
        genes_path=None if spec.genes is None else local_input(spec.genes, store),
        model=spec.model,
        scorer=spec.scorer.name,
        params=spec.scorer.params,
        regions=tuple(parse_regions(spec.input.regions, spec.input.regions_file)),
        contig_aliases=spec.contig_aliases,
        all_transcripts=spec.all_transcripts,
        keep_info=spec.keep_info,
        device=spec.execution.device,
        precision=spec.execution.precision,
        micro_batch=spec.execution.micro_batch,
        incremental=spec.execution.incremental,
        phased=spec.phased,
        sample=spec.sample,
        spliceai_info=spec.outputs.spliceai_info,
        write_vcf=spec.outputs.vcf,
        rescore=path is not None and is_run(path),
        all_snvs=spec.input.all_snvs,
        store=None if spec.store.path is None else FrozenStore(spec.store.path, sources=spec.store.sources),
    )


def _options(spec: ScoreVariantsSpec, context: RunContext) -> JobOptions:
    return JobOptions(
        records_per_shard=spec.execution.records_per_shard,
        bytes_per_shard=spec.execution.bytes_per_shard,
        gene_names=spec.input.genes,
        bcf=spec.outputs.bcf,
        vep_tab=spec.outputs.vep_tab,
        partition_by_contig=spec.outputs.partition_by_contig,
        panels=tuple(Panel(**panel.model_dump()) for panel in spec.panels),
        command=context.command,
    )


def _execution(spec: ScoreVariantsSpec) -> Execution:
    device = spec.execution.device
    return Execution(
        executor=spec.execution.executor,
        workers=spec.execution.workers or default_workers(device),
        num_devices=default_workers(device) if device == "cuda" else 0,
        address=spec.execution.address or "local",
    )


def _frozen(spec: ScoreVariantsSpec) -> dict[str, Any]:
    """The spec as run.json keeps it: without what only says how wide to run."""
    return spec.model_dump(mode="json", exclude={"output": True, "execution": {"executor", "workers", "address"}})
