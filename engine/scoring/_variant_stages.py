"""Variant scoring as the two stages that an executor runs, and what its outputs look like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pyarrow as pa

from engine import __version__, registry
from engine.errors import InputError
from engine.genome.genes import GeneTable
from engine.genome.reference import ReferenceGenome
from engine.io.all_snvs import AllSnvs
from engine.io.haplotypes import Haplotypes, sample_column
from engine.io.regions import Region
from engine.io.source import Shard, VariantSource
from engine.io.variant_table import VariantTable
from engine.io.variants import contig_opener, open_source, open_variants
from engine.io.vcf import header_info_ids
from engine.models._info import ModelInfo, network_digest, open_model
from engine.runtime.stages import ShardOutput
from engine.scoring._contract import InfoField, Scorer
from engine.scoring._phased import PhasedSpliceDelta
from engine.scoring._score_store import COMPUTED, IMPORTED, LOOKED_UP, SOURCE_COLUMN, FrozenStore, domain_facts
from engine.scoring._store_lookup import StoreLookup
from engine.scoring._variant_reader import VariantBatch, VariantReader, gene_contig, is_foreign
from engine.scoring._variant_scorer import REASON_FIELD, STATE_FIELD, VariantScorer
from engine.scoring.splice_delta import SPLICEAI_FIELD, SpliceDelta, is_spliceai
from schemas import tables

# Raised when the numbers of phased copies change: which alleles a copy has, and what is read of it.
PHASED_VERSION = 1


@dataclass(frozen=True)
class VariantStages:
    """Everything both stages need; picklable, opened once per process.

    Attributes:
        input_path: variants on a local path; the reference's own for `all_snvs`.
        reference_path: FASTA.
        genes_path: annotation; needed by scorers of genes.
        model: zoo name or model folder; needed by scorers of a model.
        scorer: name of the scorer.
        params: its parameters.
        regions: selected regions; none selects all.
        all_snvs: score every SNV of the regions instead of the variants of a file.
        contig_aliases: contig name of the input or gene file to its name in the reference.
        all_transcripts: a row per transcript instead of per gene.
        keep_info: INFO keys copied to columns `info_<KEY>`.
        device: device of the model.
        precision: numeric mode of the model.
        micro_batch: most windows through the model at once.
        phased: score each allele beside the others of its copy, too.
        sample: whose copies; None for the only sample.
        incremental: compute only what an allele changes, where the model is a stack of convolutions.
        is_proven: that was held against full windows already; else each process does so before it uses it first.
        spliceai_info: write the tag SpliceAI too.
        write_vcf: write scored VCF text.
        rescore: the input is a former run's: tags that this run writes replace those it has.
        store: scores of former runs that this one may look up.
    """

    input_path: str
    reference_path: str
    genes_path: str | None = None
    model: str | None = None
    scorer: str = "splice_delta"
    params: Mapping[str, Any] = field(default_factory=dict)
    regions: tuple[Region, ...] = ()
    contig_aliases: Mapping[str, str] = field(default_factory=dict)
    all_transcripts: bool = False
    keep_info: tuple[str, ...] = ()
    device: str = "cpu"
    precision: str = "fp32"
    micro_batch: int = 64
    incremental: bool = True
    is_proven: bool = False
    phased: bool = False
    sample: str | None = None
    spliceai_info: bool = False
    write_vcf: bool = True
    rescore: bool = False
    all_snvs: bool = False
    store: FrozenStore | None = None

    def but(self, **changes: Any) -> VariantStages:
        """The same stages with other attributes; an opened model stays open."""
        made = replace(self, **changes)
        if "_model" in self.__dict__ and made.model == self.model:
            made.__dict__["_model"] = self.__dict__["_model"]
        return made

    def domain(self) -> dict[str, Any]:
        """What decides the numbers of all rows: scores are kept and looked up by it.

        Raises:
            InputError: scores that depend on more of the sample than the allele.
        """
        if self.phased:
            what = "phased scores depend on the other variants of the sample, so none is another sample's"
            raise InputError(what, where="store", fix="leave the store out, or phased")
        scorer, info = self.open_component()
        return domain_facts(
            self.scorer,
            self.params,
            scorer,
            info,
            device=self.device,
            precision=self.precision,
            incremental=self.incremental,
        )

    def open_component(self) -> tuple[Scorer, ModelInfo | None]:
        """The scorer, its parameters checked against the model, and the model's description; loads no weights.

        Raises:
            InputError: unknown scorer or parameter, no such model, or one that the scorer cannot read.
        """
        made = registry.component("scoring", self.scorer)
        params = registry.build_params(made, self.params, where=f"scorer {self.scorer}")
        info = self._model if made.needs_model else None
        if made.needs_genes and self.genes_path is None:
            fix = "give a GTF, GFF3 or SpliceAI annotation table"
            raise InputError(f"the scorer {self.scorer} needs genes", where="genes", fix=fix)
        scorer: Scorer = made(params, info)
        self._check_spliceai(scorer, info)
        return (self._phased(scorer, info) if self.phased else scorer), info

    def _phased(self, scorer: Scorer, info: ModelInfo | None) -> Scorer:
        if not isinstance(scorer, SpliceDelta) or info is None:
            what = f"the scorer {self.scorer} has no phased form"
            raise InputError(what, where="phased", fix="use splice_delta, or leave phased out")
        return PhasedSpliceDelta(scorer)

    def open_haplotypes(self, source: VariantSource) -> tuple[VariantSource, int] | None:
        """The whole input, whatever regions are selected, and the sample's column in it; None unless phased.

        Raises:
            InputError: a table, which has no genotypes; no such sample, or several and none named.
        """
        if not self.phased:
            return None
        if isinstance(source, VariantTable | AllSnvs):
            raise InputError("only a VCF or BCF has genotypes", where="phased", fix="leave phased out")
        return open_variants(self.input_path), sample_column(source.header, self.sample)

    def _read_haplotypes(self, source: VariantSource, reference: ReferenceGenome, scorer: Scorer) -> Haplotypes | None:
        phased = self.open_haplotypes(source)
        if phased is None:
            return None
        assert isinstance(scorer, PhasedSpliceDelta)
        return Haplotypes(
            *phased,
            refuses=lambda record: is_foreign(record, reference),
            max_allele_length=scorer.max_allele_length,
            open_contig=contig_opener(self.input_path),
        )

    @cached_property
    def _model(self) -> ModelInfo | None:
        """The model's description, opened once: that hashes its weights. It travels with the stages to other processes,
        where loading the weights checks them against it again."""
        info = None if self.model is None else open_model(self.model)
        if info is not None:
            _check_reads_dna(info)
        return info

    def _check_spliceai(self, scorer: Scorer, info: ModelInfo | None) -> None:
        if not self.spliceai_info:
            return
        if not (isinstance(scorer, SpliceDelta) and is_spliceai(info)):
            name = "no model" if info is None else f"model {info.name} of digest {network_digest(info)[:12]}"
            raise InputError(
                "the tag SpliceAI stands for SpliceAI's own weights, known by their digest, in splice_delta; asked for "
                f"with {name} and scorer {self.scorer}",
                where="spliceai_info",
                fix="leave it out: splice_delta writes its scores of any model to tags of its own, RPL_DS_*",
            )

    def schema(self) -> pa.Schema:
        """Columns of the table: common ones, the scorer's, kept INFO keys."""
        scorer, _ = self.open_component()
        return self._schema(scorer)

    def _schema(self, scorer: Scorer) -> pa.Schema:
        kept = [tables.field(f"info_{key}", pa.string(), f"INFO {key} as written") for key in self.keep_info]
        if self.store is not None:
            doc = f"{COMPUTED} by this run, {LOOKED_UP} from a former one, {IMPORTED}NAME; null where not scored"
            kept.append(tables.field(SOURCE_COLUMN, pa.string(), doc))
        return pa.schema([*tables.VARIANT_SCORES, *scorer.fields, *kept])

    def info_fields(self) -> tuple[InfoField, ...]:
        """All INFO tags of the scored VCF."""
        scorer, _ = self.open_component()
        own = (STATE_FIELD, REASON_FIELD, *scorer.info_fields)
        return (*own, SPLICEAI_FIELD) if self.spliceai_info else own

    def info_header(self, header: bytes = b"") -> list[bytes]:
        """`##INFO` lines, without line ends, to be added to the input's header.

        Raises:
            InputError: the header has one of our ids already, as after a former run.
        """
        made = self.info_fields()
        present = header_info_ids(header)
        doubled = [one.id for one in made if one.id in present]
        if doubled and not self.rescore:
            tags = ",".join(f"INFO/{name}" for name in doubled)
            raise InputError(
                f"the input already has the INFO tag {doubled[0]}, which this run would write again",
                where=self.input_path,
                fix=f"remove it first: bcftools annotate -x {tags} -Oz -o clean.vcf.gz {self.input_path}",
            )
        return [one.header_line(version=__version__) for one in made]

    def open_reader(self, genes: GeneTable | None = None) -> Callable[[Shard], VariantBatch]:
        """See runtime.stages.Stages.

        Args:
            genes: the annotation, where it is open already.
        """
        scorer, info = self.open_component()
        reference = ReferenceGenome(self.reference_path, contig_aliases=self.contig_aliases)
        if not scorer.needs_genes:
            genes = None
        elif self.genes_path is not None:
            if genes is None:
                genes = GeneTable.load(self.genes_path, all_transcripts=self.all_transcripts)
            check_gene_contigs(genes, reference, path=self.genes_path)
        source = open_source(self.input_path, reference, regions=self.regions, all_snvs=self.all_snvs)
        return VariantReader(
            source=source,
            haplotypes=self._read_haplotypes(source, reference, scorer),
            reference=reference,
            genes=genes,
            scorer=scorer,
            flank=0 if info is None else info.context_bp // 2,
            keep_info=self.keep_info,
            contig_aliases=self.contig_aliases,
            store=None if self.store is None else StoreLookup(self.store, scorer.fields),
        )

    def open_scorer(self) -> Callable[[VariantBatch], ShardOutput]:
        """See runtime.stages.Stages."""
        scorer, info = self.open_component()
        predictor = None
        if info is not None:
            from engine.scoring._predictor import Predictor

            predictor = Predictor(
                info,
                device=self.device,
                precision=self.precision,
                micro_batch=self.micro_batch,
                incremental=self.incremental,
                is_proven=self.is_proven,
            )
            if predictor.device.type == "cpu":
                # Equal bytes are promised for one intra-op thread, whoever started this process.
                import torch

                torch.set_num_threads(1)
        return VariantScorer(
            scorer=scorer,
            predictor=predictor,
            schema=self._schema(scorer),
            write_vcf=self.write_vcf,
            spliceai_info=self.spliceai_info,
            replaced=frozenset(one.id.encode() for one in self.info_fields()) if self.rescore else frozenset(),
        )


def _check_reads_dna(info: ModelInfo) -> None:
    encoder = registry.component("encoders", info.encoder["name"])
    made = encoder(registry.build_params(encoder, info.encoder["params"], where=info.path))
    letters = getattr(made, "alphabet", "dna")
    if letters != "dna":
        what = f"its encoder {info.encoder['name']!r} reads {letters}, and variants are of DNA"
        raise InputError(what, where=f"model {info.name}", fix="use a model of DNA")


def check_gene_contigs(genes: GeneTable, reference: ReferenceGenome, *, path: str) -> None:
    """Refuse an annotation none of whose contigs is in the reference: it names them in another style.

    Raises:
        InputError: both styles are named.
    """
    known = genes.contigs
    if any(gene_contig(name, known, reference.contig_aliases) in known for name in reference.contigs):
        return
    ours, theirs = sorted(known)[0], next(iter(reference.contigs))
    raise InputError(
        f"the annotation names its contigs as in {ours!r}, the reference as in {theirs!r}, and none is in both",
        where=path,
        fix="use an annotation of the same naming style, or set contig_aliases",
    )
