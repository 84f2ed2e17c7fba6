"""A variant-scoring run in the terms of the run protocol: what is opened, what keys it, what it leaves behind."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from engine import registry
from engine.errors import InputError, SystemFailure
from engine.genome.genes import GeneTable
from engine.genome.reference import ReferenceGenome
from engine.io.all_snvs import AllSnvs
from engine.io.gene_regions import gene_regions
from engine.io.source import VariantSource
from engine.io.variants import open_source
from engine.io.vcf import remove_info_lines
from engine.runtime.commit import Parts, Report
from engine.runtime.receipts import Totals
from engine.runtime.run import Execution, Run, noted_versions
from engine.scoring import _variant_report
from engine.scoring._page import timings_of
from engine.scoring._panels import Panel, PanelCounter
from engine.scoring._score_store import (
    FrozenStore,
    StoreWriter,
    domain_digest,
    freeze,
    model_versions,
    open_score_store,
    plan_ranges,
)
from engine.scoring._store_rows import add_parts, transcripts_of
from engine.scoring._variant_checks import (
    CHECKED_RECORDS,
    ReferenceCheck,
    check_contigs,
    check_info_keys,
    check_kept_keys,
)
from engine.scoring._variant_results import ResultOptions, command_lines, write_results
from engine.scoring._variant_stages import PHASED_VERSION, VariantStages, check_gene_contigs
from engine.storage.store import Store
from schemas import tables

if TYPE_CHECKING:
    from engine.models._info import ModelInfo
    from engine.scoring._questions import Question

JOB = "score_variants"
SCHEMA_NAME = "variant_scores"
# Notes of receipts, each something that voids the promise of equal bytes for its shard.
_NOTES = {
    "halved_batches": "{:,} batches were halved because memory was full, so the bytes of their shards may differ from "
    "a calm run's: take fewer workers, or with full windows a smaller --micro-batch",
    "cones_refused": "{:,} shards were scored by full windows, because incremental scoring did not give what those "
    "give: run with --no-incremental for one way throughout, and tell the makers of the model",
    "store_segments_lost": "{:,} times a file of the score store was damaged or gone when it was read; its rows were "
    "computed",
}
_MAX_SHOWN_REGIONS = 10
# Where the proof of incremental scoring takes its sample from: the first shards that have something to score.
_SAMPLED_SHARDS, _SAMPLED_QUESTIONS, _SAMPLED_NEIGHBOURS = 8, 512, 32
PROVEN = "proven"
_RECORDS_PER_SHARD = 1_000


@dataclass(frozen=True)
class JobOptions:
    """What a variant run needs beside its stages.

    Attributes:
        records_per_shard, bytes_per_shard: how the plan is cut; None takes as many records as suit the source.
        gene_names: genes whose stretches join the regions.
        bcf, vep_tab, partition_by_contig: further results.
        panels: comparisons with measured values.
        command: the command line, for the report.
    """

    records_per_shard: int | None
    bytes_per_shard: int
    gene_names: tuple[str, ...] = ()
    bcf: bool = False
    vep_tab: bool = False
    partition_by_contig: bool = False
    panels: tuple[Panel, ...] = ()
    command: str = ""


class VariantJob:
    """Everything of one run that is opened on the driver, checked before any process starts."""

    def __init__(self, stages: VariantStages, options: JobOptions, execution: Execution) -> None:
        self.stages = stages
        self.options = options
        self.execution = execution
        self.scorer, self.info = stages.open_component()
        self._domain = None if stages.store is None else stages.domain()
        self._cones = ""
        self._score_sources: dict[str, int] = {}
        self.reference = ReferenceGenome(stages.reference_path, contig_aliases=stages.contig_aliases)
        self._notes: list[str] = []
        if options.gene_names:
            self._add_gene_regions(options.gene_names)
        self.source: VariantSource = open_source(
            stages.input_path, self.reference, regions=self.stages.regions, all_snvs=stages.all_snvs
        )
        self._info_lines = stages.info_header(self.source.header)
        check_info_keys(self.scorer.info_keys, self.source.header, path=stages.input_path)
        check_kept_keys(stages.keep_info, self.source.header, path=stages.input_path)
        self._check_genes()
        self._check_members()
        phased = stages.open_haplotypes(self.source)
        self._phased_column = None if phased is None else phased[1]
        self._check_panels()

    @cached_property
    def genes(self) -> GeneTable | None:
        """The transcripts, where the scorer or names of genes ask for them."""
        path = self.stages.genes_path
        if path is None or not (self.scorer.needs_genes or self.options.gene_names):
            return None
        return GeneTable.load(path, all_transcripts=self.stages.all_transcripts)

    @property
    def _records_per_shard(self) -> int:
        suited = self.source.records_per_shard if isinstance(self.source, AllSnvs) else _RECORDS_PER_SHARD
        return self.options.records_per_shard or suited

    def _add_gene_regions(self, names: Sequence[str]) -> None:
        path = self.stages.genes_path
        if self.genes is None or path is None:
            fix = "give a GTF, GFF3 or SpliceAI annotation table"
            raise InputError("names of genes need an annotation that tells where they lie", where="genes", fix=fix)
        found, self._notes = gene_regions(self.genes, names, self.reference, path=path)
        self.stages = replace(self.stages, regions=(*self.stages.regions, *found))

    def _check_genes(self) -> None:
        path = self.stages.genes_path
        if self.genes is not None and path is not None:
            check_gene_contigs(self.genes, self.reference, path=path)

    def _check_members(self) -> None:
        """A tensor missing or left over stops the run here, not in a worker."""
        if self.info is not None:
            from engine.models._folder import check_members

            check_members(self.info)

    def _check_panels(self) -> None:
        """A panel that names a column the table will not have stops the run now, not at its commit."""
        empty = self.stages.schema().empty_table()
        for panel in self.options.panels:
            PanelCounter(panel).columns(empty)

    def plan(self, run: Run) -> None:
        """Cut or take up the plan; stop at a wrong reference or foreign contigs."""
        check = ReferenceCheck(self.reference, self.source.header)
        run.plan(
            self.source,
            records_per_shard=self._records_per_shard,
            bytes_per_shard=self.options.bytes_per_shard,
            on_record=check,
            on_record_limit=CHECKED_RECORDS,
        )
        check.finish()
        check_contigs(run.contigs, self.source.header, self.reference)
        for note in self.genes.notes if self.genes is not None else ():
            run.log.warning(note)
        for note in self._notes:
            run.warn(note)

    def freeze_windows(self, run: Run, *, only_look: bool = False) -> dict[str, Any]:
        """Fix whether alleles are scored incrementally: as an earlier driver of this run found, else by a proof.

        One verdict for all processes: which of them scores a shard changes no byte. It is found on the CPU in full
        single precision, since what is in question is the geometry, which is the same on every device.

        Args:
            run: the run, planned.
            only_look: prove nothing.

        Returns:
            What run.json keeps of it.
        """
        if self.info is None or not self.stages.incremental or not self._has_stack():
            return {}
        verdict = run.choices.get("cones")
        if verdict is None:
            if only_look:
                return {}
            verdict = self._proven(run, self.info)
        self._cones = verdict
        if verdict == PROVEN:
            self.stages = self.stages.but(is_proven=True)
        else:
            self.stages = self.stages.but(incremental=False)
            self._domain = None if self.stages.store is None else self.stages.domain()
        return {"cones": verdict}

    def _proven(self, run: Run, info: ModelInfo) -> str:
        """PROVEN, or why incremental scoring is given up, which the user is told."""
        from engine.scoring._predictor import Predictor

        began = time.monotonic()
        predictor = Predictor(info)
        predictor.prove(self._sampled(run, info))
        if predictor.is_incremental:
            run.log.info("incremental scoring gives what full windows give, tried in %.1f s", time.monotonic() - began)
            return PROVEN
        why = predictor.refusal or "the model's networks are not of one geometry"
        run.warn(f"cones were given up, and all alleles are scored by full windows: {why}")
        return why

    def _sampled(self, run: Run, info: ModelInfo) -> list[Question]:
        """Questions of the first records that have any, those of made-up alleles where none has."""
        from engine.scoring._proof import crowded, made_up

        flank = info.context_bp // 2
        # Neighbours stand in for the sample's own copies, whose genotypes would all have to be read first.
        read = self.stages.but(phased=False, store=None).open_reader(self.genes)
        for shard in run.shards[:_SAMPLED_SHARDS]:
            batch = read(shard)
            asked = [
                (contrast, batch.stretches[stretch])
                for unit in batch.units[:_SAMPLED_QUESTIONS]
                for contrast, stretch in zip(unit.prepared.contrasts, unit.stretches, strict=True)
            ]
            if asked:
                return asked + (crowded(asked[:_SAMPLED_NEIGHBOURS], reach=flank) if self.stages.phased else [])
        return made_up(flank=flank)

    def _has_stack(self) -> bool:
        """Whether the model is a stack of convolutions."""
        return self.info is not None and hasattr(registry.component("models", self.info.architecture), "conv_stack")

    def freeze_store(self, run: Run, *, only_look: bool = False) -> dict[str, Any]:
        """Fix which former scores this run may look up: as an earlier driver of it did, else as the store is now.

        Args:
            run: the run, planned.
            only_look: leave the store as it is, damaged segments too.

        Returns:
            What run.json keeps of it, so that the store may grow while the run is stopped.

        Raises:
            InputError: a source that the store does not have.
        """
        asked = self.stages.store
        if asked is None or self._domain is None:
            return {}
        sequences = self._refget(run.contigs)
        kept = run.choices.get("store")
        if kept is not None:
            uri = open_score_store(asked.uri).uri  # whole, for workers that start elsewhere
            frozen = replace(FrozenStore.from_json(uri, kept), sources=asked.sources)
        else:
            ranges = plan_ranges(run.shards, sequences)
            frozen = freeze(
                asked.uri,
                domain_digest(self._domain),
                ranges=ranges,
                sources=asked.sources,
                warn=run.warn,
                only_look=only_look,
            )
        self.stages = self.stages.but(store=replace(frozen, sequences=sequences))
        return {"store": frozen.to_json()}

    def key(self, contigs: Mapping[str, int]) -> dict[str, Any]:
        """Every setting and digest that can change a result, but the input's own digest."""
        stages, options = self.stages, self.options
        return {
            **self._components(),
            "regions": self._regions(),
            "tables": [tables.VARIANT_SCORES_VERSION, tables.REJECTS_VERSION, tables.PLAN_VERSION],
            "all_transcripts": stages.all_transcripts,
            "contig_aliases": dict(stages.contig_aliases),
            "keep_info": list(stages.keep_info),
            "genes": self.genes.digest if self.genes is not None else None,
            "device": stages.device,
            "precision": stages.precision,
            "micro_batch": stages.micro_batch,
            "incremental": stages.incremental,
            "phased_column": self._phased_column,
            "records_per_shard": self._records_per_shard,
            "bytes_per_shard": options.bytes_per_shard,
            "outputs": self._outputs(),
            **({} if stages.store is None else {"store": stages.store.key()}),
            **{f"reference {contig}": digest for contig, digest in self._refget(contigs).items()},
        }

    def _regions(self) -> list[str]:
        """As CONTIG:FROM-TO; those of SNVs that we make as they were placed, however they were written."""
        regions = self.source.regions if isinstance(self.source, AllSnvs) else self.stages.regions
        return sorted({f"{region.contig}:{region.start + 1}-{region.end}" for region in regions})

    def _outputs(self) -> list[str]:
        flags = {
            "vcf": self.stages.write_vcf,
            "spliceai_info": self.stages.spliceai_info,
            "bcf": self.options.bcf,
            "vep_tab": self.options.vep_tab,
            "partition_by_contig": self.options.partition_by_contig,
        }
        return [name for name, on in flags.items() if on]

    def _components(self) -> dict[str, Any]:
        """Scorer, model, architecture and encoder, each with its RESULT_VERSION."""
        made = registry.component("scoring", self.stages.scorer)
        params = registry.build_params(made, self.stages.params, where=f"scorer {self.stages.scorer}")
        found: dict[str, Any] = {
            "scorer": self.stages.scorer,
            "scorer_version": made.RESULT_VERSION,
            "scorer_params": asdict(params),
        }
        if self.info is not None:
            found["model"] = self.info.digest
            versions = model_versions(self.info, incremental=self.stages.incremental)
            found |= {f"{kind}_version": version for kind, version in versions.items()}
        if self.stages.phased:
            found["phased_version"] = PHASED_VERSION
        return found

    def _refget(self, contigs: Mapping[str, int]) -> dict[str, str]:
        return self.reference.refget_many(contigs)

    def facts(self, contigs: Mapping[str, int]) -> dict[str, Any]:
        """What the manifest tells of the run: no time, host or path."""
        return {
            "scorer": self.stages.scorer,
            "model": None if self.info is None else f"{self.info.name} {self.info.version}",
            "model_digest": None if self.info is None else self.info.digest,
            "model_licence": None if self.info is None else self.info.licence,
            "genes_digest": None if self.genes is None else self.genes.digest,
            "reference": self._refget(contigs),
            "table_schema": f"{SCHEMA_NAME} {tables.VARIANT_SCORES_VERSION}",
            "use": "research use only; not a medical device",
        }

    def finish(self, run: Run) -> Callable[[Parts, Store], Mapping[str, int]]:
        """The writer of the result files."""
        options = ResultOptions(
            header=remove_info_lines(self.source.header, [one.id for one in self.stages.info_fields()]),
            header_lines=[*self._info_lines, *command_lines(JOB, self._settings())],
            contigs={contig: self.reference.length(contig) for contig in run.contigs},
            vcf=self.stages.write_vcf,
            bcf=self.options.bcf,
            vep_tab=self.options.vep_tab,
            partition_by_contig=self.options.partition_by_contig,
        )

        def write(parts: Parts, store: Store) -> Mapping[str, int]:
            written = write_results(parts, store, options)
            self._keep_scores(parts, run)
            return written

        return write

    def _keep_scores(self, parts: Parts, run: Run) -> None:
        """Add what this run computed to the score store; a store that takes nothing costs no result."""
        store = self.stages.store
        if store is None or self._domain is None:
            return
        about = {} if self.info is None else {"model": f"{self.info.name} {self.info.version}"}
        genes = self.genes if self.scorer.needs_genes else None
        transcripts = transcripts_of(genes, self.stages.contig_aliases)
        try:
            writer = StoreWriter(store.uri, self._domain, self.scorer.fields, about=about)
            self._score_sources = dict(
                add_parts(parts.tables(), writer, reference=self.reference, transcripts=transcripts, computed_only=True)
            )
        except (InputError, SystemFailure) as error:
            run.warn(f"scores were not added to the store: {error}")
            return
        told = ", ".join(f"{source} {count:,}" for source, count in sorted(self._score_sources.items()))
        run.log.info("scores: %s; added %d rows to the store in %d segments", told, writer.rows, writer.segments)

    def _settings(self) -> dict[str, object]:
        components = self._components()
        params = components.pop("scorer_params")
        return {
            **components,
            **params,
            "genes": None if self.genes is None else f"sha256:{self.genes.digest}",
            "micro_batch": self.stages.micro_batch,
            "precision": self.stages.precision,
        }

    @cached_property
    def _score_columns(self) -> list[str]:
        import pyarrow as pa

        return [one.name for one in self.scorer.fields if pa.types.is_floating(one.type)]

    def report(self, run: Run) -> Callable[[Parts, Totals, Mapping[str, float]], Report]:
        """The maker of the report page."""

        def make(parts: Parts, totals: Totals, timings: Mapping[str, float]) -> Report:
            summary = _variant_report.summarise(
                parts.tables(), panels=self.options.panels, score_columns=self._score_columns
            )
            provenance, times = self._provenance(run, totals), timings_of(self.execution, timings)
            for name, count in totals.notes.items():
                run.warn(_NOTES.get(name, "{:,} of note " + name).format(count))
            content = {"summary": summary.to_dict(), "provenance": provenance, "timings": times}
            return Report(_variant_report.render(summary, provenance, times), content)

        return make

    def _windows(self) -> str:
        """How the model is asked, in words."""
        if self.info is None:
            return "none"
        if self._cones == PROVEN:
            return "incremental: a shared pass over the reference, and what each allele changes"
        if self._cones:
            return f"full: cones were given up: {self._cones}"
        return "full" if self._has_stack() else "full: the model is more than a stack of convolutions"

    def _input_name(self) -> str:
        if not self.stages.all_snvs:
            return self.stages.input_path
        shown, num = ", ".join(self._regions()[:_MAX_SHOWN_REGIONS]), len(self._regions())
        more = f" and {num - _MAX_SHOWN_REGIONS:,} more regions" if num > _MAX_SHOWN_REGIONS else ""
        return f"every SNV of {shown}{more} in {self.stages.input_path}"

    def _provenance(self, run: Run, totals: Totals) -> dict[str, Any]:
        model = None
        if self.info is not None:
            model = {
                "name": self.info.name,
                "version": self.info.version,
                "digest": self.info.digest,
                "licence": self.info.licence,
            }
        return {
            "result_key": run.result_key,
            "model": model,
            "scorer": self._components(),
            "input": {"path": self._input_name(), "sha256": run.input_digest, "records": run.num_records},
            "genes": None
            if self.genes is None
            else {"path": self.stages.genes_path, "sha256": self.genes.digest, "genes": self.genes.num_genes},
            "reference": self.stages.reference_path,
            "refget": self._refget(run.contigs),
            "windows": self._windows(),
            "notes": dict(totals.notes),
            **({"score_sources": self._score_sources} if self._score_sources else {}),
            "versions": noted_versions(),
            "command": self.options.command,
        }


def default_workers(device: str) -> int:
    """One per CPU this process may use, or per CUDA device."""
    if device == "cuda":
        import torch

        return max(1, torch.cuda.device_count())
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
