"""Score every variant of a VCF with a deep model.

Every record, ALT allele and gene is answered for: it ends as scored, not applicable, or rejected with a reason.
Keys that can change a result are part of the run's result key; of those under `execution` only the ones that say so.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from schemas._base import Name, Names, Option, Spec, show

PositiveInt = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]


# Columns of the table by which a panel may group rows; all other names are INFO keys.
TABLE_NAMES = frozenset(("contig", "id", "gene_id", "gene_symbol", "transcript_id", "strand"))


class InputSpec(Spec):
    """What to score."""

    path: Text | None = None
    """variants: VCF (plain, gzip, BGZF), BCF or a Parquet variant table, told apart by content; - reads stdin;
    run:DIR takes the output of a finished run; left out for all_snvs"""
    all_snvs: bool = False
    """score every SNV of the regions and genes, made from the reference, in place of a file of variants"""
    regions: Names = ()
    """regions to keep, as CONTIG, CONTIG:POS, CONTIG:FROM-TO (1-based, inclusive); none keeps all of a file"""
    regions_file: Text | None = None
    """file of regions to keep: BED (0-based half-open) or TAB-separated CONTIG, FROM, TO (1-based, inclusive)"""
    genes: Names = ()
    """for all_snvs: genes to take beside the regions, by symbol or id, from start to end of the scored transcript"""

    @model_validator(mode="after")
    def _one_kind(self) -> InputSpec:
        if self.path is None and not self.all_snvs:
            raise ValueError("nothing says what to score: give path (IN), or all_snvs with regions or genes")
        if self.path is not None and self.all_snvs:
            raise ValueError(f"all_snvs makes its own variants, yet path is {show(self.path)}: leave one of them out")
        if self.genes and not self.all_snvs:
            raise ValueError("genes go with all_snvs alone: choose the variants of a file by regions")
        if self.all_snvs and not (self.regions or self.regions_file or self.genes):
            raise ValueError("all_snvs needs regions, regions_file or genes; a contig's name alone takes all of it")
        return self


class ScorerSpec(Spec):
    """What to compute from the model's outputs."""

    name: Text = "splice_delta"
    """scorer by name; each is a file of engine/scoring"""
    params: dict[Name, Any] = Field(default_factory=dict)
    """the scorer's own parameters, checked against its Params class"""


class ExecutionSpec(Spec):
    """Where and how wide to run.

    Only device, precision, micro_batch, incremental and the shard sizes can change a byte.
    """

    executor: Literal["in-process", "ray"] = "in-process"
    """in-process needs no Ray; ray runs the same stages on Ray Data, on this machine or a cluster"""
    workers: PositiveInt | None = None
    """model processes; unset takes one per CPU core or CUDA device"""
    address: Text | None = None
    """Ray cluster to join, as host:port or auto; unset starts a private one on this machine"""
    device: Literal["cpu", "cuda"] = "cpu"
    """device the model runs on"""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """arithmetic of the model"""
    micro_batch: PositiveInt = 64
    """windows per model call; incremental scoring cuts its own batches"""
    incremental: bool = True
    """compute only what an allele changes, where the model is a stack of convolutions; false takes full windows"""
    records_per_shard: PositiveInt | None = None
    """most records in a shard, the unit of work, retry and commit; unset takes 1,000, for all_snvs up to 30,000 where
    they are more than a hundred million"""
    bytes_per_shard: PositiveInt = 32 << 20
    """most bytes of input text in a shard"""


class OutputsSpec(Spec):
    """Which files to write beside the table, the report and the manifest."""

    vcf: bool = True
    """scored VCF, bgzipped and indexed, every other field untouched"""
    bcf: bool = False
    """the scored VCF as BCF too"""
    vep_tab: bool = False
    """a TAB file for Ensembl VEP's --custom"""
    partition_by_contig: bool = False
    """a copy of the table in hive folders contig=NAME"""
    spliceai_info: bool = False
    """the INFO tag SpliceAI in SpliceAI's own layout; only with SpliceAI's own weights"""

    @model_validator(mode="after")
    def _need_vcf(self) -> OutputsSpec:
        for name in ("bcf", "vep_tab", "spliceai_info"):
            if getattr(self, name) and not self.vcf:
                raise ValueError(f"{name} is made from the scored VCF, which vcf: false turns off")
        return self


class StoreSpec(Spec):
    """Scores kept from run to run."""

    path: Text | None = None
    """folder of scores of former runs: a local path, s3:// or gs://; what it has is not computed again, what this run
    computes is added"""
    sources: Names = ()
    """imported scores to look into too, by the names they were imported under; the first named comes first"""

    @model_validator(mode="after")
    def _need_path(self) -> StoreSpec:
        if self.sources and self.path is None:
            raise ValueError("sources are looked for in a score store: give its path (--store)")
        return self


class PanelSpec(Spec):
    """One comparison of scores with measured values in the report."""

    title: Text
    """heading of the panel"""
    kind: Literal["signed", "classes"]
    """signed: correlation with a signed number; classes: how well the score tells two classes apart"""
    truth: Text
    """INFO key that holds the measured value or class; like every INFO key used here, it must be among keep_info"""
    scores: Annotated[Names, Field(min_length=1)]
    """score columns to compare, the first being the one shown large"""
    where: dict[Name, Name] = Field(default_factory=dict)
    """INFO keys and the values they must have for a record to enter the panel"""
    positive: Names = ()
    """values of the truth that make the positive class"""
    negative: Names = ()
    """values of the truth that make the negative class"""
    note: str = ""
    """a sentence printed under the panel: source, floor, what to beware of"""
    flip: bool = False
    """for classes: a lower score means positive"""
    group: str = ""
    """name by whose value the figures are also given apart; none where empty"""
    cluster: str = ""
    """name whose value marks rows that belong together (a gene, an exon), for the confidence intervals"""
    large_change: Annotated[float, Field(gt=0)] = 10.0
    """for signed: size of a measured change that counts as large, in the truth's unit"""

    @model_validator(mode="after")
    def _classes(self) -> PanelSpec:
        named = bool(self.positive) and bool(self.negative)
        if self.kind == "classes" and not named:
            raise ValueError("a panel of kind classes needs both positive and negative")
        if self.kind == "signed" and (self.positive or self.negative):
            raise ValueError("positive and negative belong to panels of kind classes")
        if self.flip and self.kind == "signed":
            raise ValueError("flip belongs to panels of kind classes")
        if both := set(self.positive) & set(self.negative):
            raise ValueError(f"{', '.join(sorted(both))} cannot be both positive and negative")
        return self


class ScoreVariantsSpec(Spec):
    """Score every variant of a VCF with a deep model."""

    job: Literal["score_variants"] = "score_variants"
    """the job this spec is for"""
    version: Literal[1] = 1
    """version of this spec's layout"""
    input: InputSpec
    """path (IN) of the variants to score, or all_snvs (--all-snvs) with regions or genes"""
    reference: Text
    """reference genome: FASTA, plain or bgzipped; an index is made where absent"""
    genes: Text | None = None
    """genes and transcripts: GTF, GFF3, or a table in SpliceAI's annotation format; plain or gzipped"""
    all_transcripts: bool = False
    """score on every transcript of a gene; otherwise on one (MANE Select, Ensembl canonical, longest CDS, lowest id)"""
    contig_aliases: dict[Name, Name] = Field(default_factory=dict)
    """contig name of the input or gene file, and its name in the reference"""
    model: Text | None = None
    """a model that ships, by name, or a model folder; only scorers that ask no model go without"""
    scorer: ScorerSpec = Field(default_factory=ScorerSpec)
    """what to compute from the model's outputs"""
    phased: bool = False
    """score each variant alone and beside the other alleles of its copy, by the phased genotypes of one sample; with an
    index beside the input a process reads the contigs it works on, else each one reads all of it at its start"""
    sample: Name | None = None
    """for phased: whose genotypes, by name; unset takes the only sample"""
    output: Text
    """run directory: a local path, s3:// or gs://; a run that stopped there is resumed"""
    max_reject_fraction: Annotated[float, Field(ge=0, le=1)] = 0.05
    """most rejected rows, as a share of the records; above it the run stops with exit code 3; 1 accepts any share"""
    keep_info: Names = ()
    """INFO keys copied to columns info_KEY of the table"""
    store: StoreSpec = Field(default_factory=StoreSpec)
    """scores of former runs"""
    outputs: OutputsSpec = Field(default_factory=OutputsSpec)
    """files to write"""
    panels: Annotated[tuple[PanelSpec, ...], Field(strict=False)] = ()
    """comparisons with measured values for the report"""
    execution: ExecutionSpec = Field(default_factory=ExecutionSpec)
    """where and how wide to run"""

    @model_validator(mode="after")
    def _agree(self) -> ScoreVariantsSpec:
        if self.sample is not None and not self.phased:
            raise ValueError("sample goes with phased")
        if self.phased and self.scorer.name != "splice_delta":
            raise ValueError("phased needs the scorer splice_delta")
        if self.execution.address and self.execution.executor != "ray":
            raise ValueError("execution.address names a Ray cluster: set execution.executor to ray")
        if self.scorer.name in ("splice_delta", "allele_effect") and self.model is None:
            raise ValueError(
                f"the scorer {self.scorer.name} needs model: give a name of `replisome models` or a folder"
            )
        if self.scorer.name == "splice_delta" and self.genes is None:
            raise ValueError("the scorer splice_delta needs genes: give a GTF, GFF3 or SpliceAI annotation table")
        if self.input.genes and self.genes is None:
            raise ValueError("input.genes needs genes: give the annotation that tells where they lie")
        if self.outputs.spliceai_info and self.scorer.name != "splice_delta":
            raise ValueError("outputs.spliceai_info needs the scorer splice_delta")
        used = {key for panel in self.panels for key in (panel.truth, panel.group, panel.cluster, *panel.where)}
        if missing := sorted(used - set(self.keep_info) - TABLE_NAMES - {""}):
            raise ValueError(f"panels use {', '.join(missing)}: add them to keep_info")
        return self


SPEC = ScoreVariantsSpec

OPTIONS = (
    Option("input.path", ("IN",)),
    Option("reference", ("--reference", "-f")),
    Option("genes", ("--genes", "-g")),
    Option("model", ("--model", "-m")),
    Option("output", ("--output", "-o")),
    Option("input.regions", ("--regions", "-r")),
    Option("input.regions_file", ("--regions-file", "-R")),
    Option("input.all_snvs", ("--all-snvs",)),
    Option("input.genes", ("--gene",), form="commas", metavar="NAME"),
    Option("scorer.name", ("--scorer",)),
    Option("scorer.params.distance", ("--distance",), doc="farthest change looked at from the variant, bp", kind=int),
    Option("scorer.params.mask", ("--mask",), doc="zero gains at annotated sites and losses elsewhere", kind=bool),
    Option(
        "scorer.params.exon_sites", ("--exon-sites",), doc="add the signed change at the exon's two sites", kind=bool
    ),
    Option(
        "scorer.params.reference_psi",
        ("--reference-psi",),
        doc="with --exon-sites: INFO key of the exon's measured inclusion in percent; adds the change from it",
        kind=str,
        metavar="KEY",
    ),
    Option("scorer.params.compatibility", ("--compatibility",), doc="reproduce a peer: spliceai-1.3.1", kind=str),
    Option("phased", ("--phased",)),
    Option("sample", ("--sample",)),
    Option("all_transcripts", ("--all-transcripts",)),
    Option("contig_aliases", ("--contig-alias",), doc="NAME=REFERENCE_NAME, repeatable", form="pairs"),
    Option("contig_aliases", ("--contig-aliases",), doc="file of NAME, TAB, REFERENCE_NAME lines", form="pairs_file"),
    Option("store.path", ("--store",), metavar="DIR"),
    Option("store.sources", ("--store-sources",), form="commas", metavar="NAME"),
    Option("keep_info", ("--keep-info",), doc="INFO keys to copy to the table, comma-separated", form="commas"),
    Option("max_reject_fraction", ("--max-rejects",)),
    Option("panels", ("--compare",), doc="YAML file: a list of panels for the report", form="yaml_file"),
    Option("outputs.spliceai_info", ("--spliceai-info",)),
    Option("outputs.bcf", ("--bcf",)),
    Option("outputs.vep_tab", ("--vep-tab",)),
    Option("outputs.partition_by_contig", ("--partition-by-contig",)),
    Option("outputs.vcf", ("--no-vcf",), doc="write no scored VCF", value=False),
    Option("execution.executor", ("--executor",)),
    Option("execution.address", ("--address",)),
    Option("execution.workers", ("--workers", "-j")),
    Option("execution.device", ("--device",)),
    Option("execution.precision", ("--precision",)),
    Option("execution.micro_batch", ("--micro-batch",)),
    Option("execution.incremental", ("--no-incremental",), doc="full windows for every allele", value=False),
    Option("execution.records_per_shard", ("--records-per-shard",)),
)
"""The one place where the command's options meet the keys of the spec."""
