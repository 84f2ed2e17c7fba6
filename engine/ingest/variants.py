"""A VCF's way into checked shards: what a worker makes of a shard, and what the commit makes of all parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from engine.io._vcf_header import filter_ids
from engine.io.source import Shard
from engine.io.streams import Mapper
from engine.io.vcf import header_contigs
from engine.io.vcf_columns import Columns, ColumnSource, open_columns
from engine.io.vcf_zarr import StoreFacts, check_names, write_store
from engine.runtime.commit import Parts, Report
from engine.runtime.memory import keep_freed_memory
from engine.runtime.pages import render_page
from engine.runtime.receipts import Totals
from engine.runtime.run import Run, noted_versions
from engine.runtime.stages import ShardOutput
from engine.storage.store import Store
from schemas import states, tables

JOB = "ingest_variants"
SCHEMA_NAME = "variant_sites"
STORE = "variants.zarr"
RESULT_VERSION = 1
_MAX_SHOWN = 40


@dataclass(frozen=True)
class VariantStages:
    """What is asked of every shard; picklable.

    Attributes:
        path: the VCF, local.
        columns: what to take from each record.
    """

    path: str
    columns: Columns
    scorer_reads: ClassVar[bool] = True

    def open_reader(self) -> Callable[[Shard], Shard]:
        """A shard is read where it is parsed: its text would cost more to pass on than to inflate there."""
        return _same

    def open_scorer(self) -> Callable[[Shard], ShardOutput]:
        """Read, parse and account for a shard."""
        keep_freed_memory()
        source = open_columns(self.path)
        return lambda shard: self._parse(source, shard)

    def _parse(self, source: ColumnSource, shard: Shard) -> ShardOutput:
        sites = source.read_sites(shard, self.columns)
        rejected = sites.rejects.num_rows
        counts = {states.KEPT: sites.table.num_rows - rejected, states.REJECTED: rejected}
        return ShardOutput(
            table=sites.table,
            rejects=sites.rejects,
            body=None,
            body_rows=0,
            records_in=sites.table.num_rows,
            states={state: count for state, count in counts.items() if count},
            reasons=dict(sorted(Counter(sites.rejects["reason"].to_pylist()).items())),
        )


def _same(shard: Shard) -> Shard:
    return shard


def result_key(columns: Columns, *, records_per_shard: int, bytes_per_shard: int) -> dict[str, Any]:
    """Everything that can change a result, but the input's digest."""
    return {
        "version": RESULT_VERSION,
        "tables": [tables.VARIANT_SITES_VERSION, tables.REJECTS_VERSION, tables.PLAN_VERSION],
        "info_fields": [[one.id, one.number, one.type] for one in columns.infos],
        "genotypes": columns.genotypes,
        "format_fields": [[one.id, one.number, one.type] for one in columns.formats],
        "records_per_shard": records_per_shard,
        "bytes_per_shard": bytes_per_shard,
    }


def facts(source: ColumnSource, columns: Columns) -> dict[str, Any]:
    """What the manifest tells of the run."""
    return {
        "table_schema": f"{SCHEMA_NAME} {tables.VARIANT_SITES_VERSION}",
        "info": [asdict(one) for one in columns.infos],
        "format": [asdict(one) for one in columns.formats],
        "samples": len(source.samples) if columns.has_calls else 0,
    }


def check_store(source: ColumnSource, columns: Columns) -> None:
    """Raise InputError for fields that the store could not hold."""
    if columns.has_calls:
        check_names(columns.infos, "INFO", path=source.path)
        check_names(columns.formats, "FORMAT", path=source.path)


def finish(
    run: Run, source: ColumnSource, columns: Columns, *, each: Mapper
) -> Callable[[Parts, Store], Mapping[str, int]]:
    """The writer of the result files: the VCF Zarr store where values of samples are asked for."""

    def write(parts: Parts, store: Store) -> Mapping[str, int]:
        if not columns.has_calls:
            return {}
        sink = _Below(STORE, store)
        write_store(sink, _store_facts(run, source, columns), parts.files(), each=each)
        return dict.fromkeys(sorted(sink.names), -1)

    return write


class _Below:
    """A folder of the run's output; keeps the names of what is put there."""

    def __init__(self, folder: str, store: Store) -> None:
        self.names: list[str] = []
        self._folder = folder
        self._store = store

    def put(self, name: str, data: bytes) -> None:
        self._store.put(self._noted(name), data)

    def scratch(self) -> Path:
        return self._store.scratch()

    def put_file(self, local: Path, name: str) -> None:
        self._store.put_file(local, self._noted(name))

    def _noted(self, name: str) -> str:
        self.names.append(f"{self._folder}/{name}")
        return self.names[-1]


def _store_facts(run: Run, source: ColumnSource, columns: Columns) -> StoreFacts:
    return StoreFacts(
        header=source.header.decode(),
        samples=source.samples,
        contigs={
            **header_contigs(source.header),
            **{n: None for n in run.contigs if n not in header_contigs(source.header)},
        },
        filters=filter_ids(source.header),
        infos=columns.infos,
        genotypes=columns.genotypes,
        formats=columns.formats,
    )


def report(
    run: Run, source: ColumnSource, columns: Columns, *, command: str
) -> Callable[[Parts, Totals, Mapping[str, float]], Report]:
    """The maker of the data card, as JSON and as a page."""

    def make(_: Parts, totals: Totals, timings: Mapping[str, float]) -> Report:
        wall, cpu = timings.get("execute_s", 0.0), timings.get("cpu_s", 0.0)
        content = {
            "input": {"path": source.path, "sha256": run.input_digest, "records": run.num_records},
            "result_key": run.result_key,
            "records": dict(totals.states),
            "rejected": dict(totals.reasons),
            "contigs": dict(run.contigs),
            "columns": {one.name: str(one.type) for one in columns.schema()},
            "samples": len(source.samples),
            "genotypes": STORE if columns.has_calls else None,
            "timings": {name: round(seconds, 3) for name, seconds in sorted(timings.items())},
            "records_per_s": round(run.num_records / wall, 1) if wall else 0.0,
            "records_per_cpu_s": round(run.num_records / cpu, 1) if cpu else 0.0,
            "versions": noted_versions(),
            "command": command,
        }
        return Report(_page(content), content)

    return make


def _page(content: Mapping[str, Any]) -> str:
    """The card as a page."""
    contigs = sorted(content["contigs"].items(), key=lambda one: -one[1])
    return render_page(
        "variant_card.html",
        Path(__file__).parent,
        card=content,
        contigs=contigs[:_MAX_SHOWN],
        most_of_a_contig=contigs[0][1] if contigs else 1,
        num_more_contigs=max(0, len(contigs) - _MAX_SHOWN),
        sentences=states.INGEST_REASONS,
    )
