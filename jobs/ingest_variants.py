"""Take variants in: source -> parse -> sink -> commit."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from engine.ingest import variants
from engine.io.streams import Mapper
from engine.io.vcf_columns import Columns, ColumnSource, open_columns
from engine.runtime.commit import commit, finished_outcome
from engine.runtime.executors.ordered_map import ordered_map
from engine.runtime.executors.processes import Processes
from engine.runtime.inputs import local_input
from engine.runtime.install import check_installation
from engine.runtime.memory import keep_freed_memory
from engine.runtime.quick_start import leave_pandas_out
from engine.runtime.run import Execution, PlanLine, Run, RunContext, RunOutcome, open_run
from schemas import tables
from schemas.jobs.ingest_variants import IngestVariantsSpec

SCORED_VCF = "scores.vcf.gz"


def run(spec: IngestVariantsSpec, context: RunContext) -> RunOutcome:
    """Run or resume the job; a finished run is left as it is.

    Raises:
        ReplisomeError: in one sentence; its `exit_code` is the command's.
    """
    with open_run(spec.output, job=variants.JOB, context=context) as run, Processes() as processes:
        each = ordered_map(processes, _workers(spec))
        source, columns = _planned(spec, run, each)
        if run.finished():
            return _told(finished_outcome(run))
        run.execute(
            variants.VariantStages(source.path, columns),
            schema_name=variants.SCHEMA_NAME,
            schema_version=tables.VARIANT_SITES_VERSION,
            execution=Execution(
                executor=spec.execution.executor,
                workers=_workers(spec),
                address=spec.execution.address or "local",
            ),
            max_reject_fraction=spec.max_reject_fraction,
            processes=processes,
        )
        finish = variants.finish(run, source, columns, each=each)
        report = variants.report(run, source, columns, command=context.command)
        return _told(commit(run, finish=finish, report=report, facts=variants.facts(source, columns)))


def plan(spec: IngestVariantsSpec, context: RunContext) -> list[PlanLine]:
    """Cut or take up the plan, and say for each shard whether it would run."""
    with open_run(spec.output, job=variants.JOB, context=context) as run, Processes() as processes:
        _planned(spec, run, ordered_map(processes, _workers(spec)), only_look=True)
        return run.lines()


def _planned(
    spec: IngestVariantsSpec, run: Run, each: Mapper, *, only_look: bool = False
) -> tuple[ColumnSource, Columns]:
    check_installation()
    keep_freed_memory()
    leave_pandas_out()
    source = open_columns(local_input(spec.input, run.store, result=SCORED_VCF), each=each)
    columns = source.columns(infos=spec.info, genotypes=spec.genotypes, formats=spec.format)
    variants.check_store(source, columns)
    records, size = spec.execution.records_per_shard, spec.execution.bytes_per_shard
    run.plan(source, records_per_shard=records, bytes_per_shard=size)
    results = (f"{variants.STORE}/",) if columns.has_calls else ()
    key = variants.result_key(columns, records_per_shard=records, bytes_per_shard=size)
    run.freeze(key, _frozen(spec), results=results, only_look=only_look)
    return source, columns


def _workers(spec: IngestVariantsSpec) -> int:
    """One per CPU this process may use, unless the spec says."""
    return spec.execution.workers or len(os.sched_getaffinity(0))


def _frozen(spec: IngestVariantsSpec) -> dict[str, Any]:
    """The spec as run.json keeps it: without what only says how wide to run."""
    return spec.model_dump(mode="json", exclude={"output": True, "execution": {"executor", "workers", "address"}})


def _told(outcome: RunOutcome) -> RunOutcome:
    """The store is told as one result, not file by file."""
    names = dict.fromkeys(f"{name.partition('/')[0]}/" if "/" in name else name for name in outcome.results)
    return replace(outcome, results=list(names))
