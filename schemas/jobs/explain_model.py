"""Ask of sequences which of their letters a model's answer rests on: attributions, tracks, logos and motifs.

Every chosen record is answered for: it is scored, not applicable (the ingest rejected it), or rejected with a reason.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas._base import Name, Names, Option, Spec
from schemas.jobs.evaluate_model import SplitName, WholeInt
from schemas.jobs.predict import PositiveInt, PredictExecutionSpec, Share, Text


class ExplainExecutionSpec(PredictExecutionSpec):
    """Where and how wide to run."""

    precision: Literal["fp32"] = "fp32"
    """arithmetic of the model; attributions are differences of near numbers and need all of it"""
    micro_batch: PositiveInt = 64
    """most sequences, mutants or steps through the model at once"""
    records_per_shard: PositiveInt = 256
    """most records in a shard, the unit of work, retry and commit"""


class ChosenRowsSpec(Spec):
    """Which rows of the set are explained; what is given narrows them down."""

    ids: Names = ()
    """names of records"""
    file: Text | None = None
    """split file"""
    names: Annotated[tuple[SplitName, ...], Field(strict=False, min_length=1)] = ("test",)
    """splits of that file"""
    fold: WholeInt | None = None
    """this fold of the split file, as it was held out: name it validation"""
    limit: PositiveInt | None = None
    """the first so many of them"""

    @model_validator(mode="after")
    def _agree(self) -> ChosenRowsSpec:
        if self.fold is not None and self.file is None:
            raise ValueError("a fold needs file, the split file that has it")
        return self


class BaselineSpec(Spec):
    """What integrated gradients and DeepLIFT compare a sequence with."""

    kind: Literal["uniform", "zero", "shuffle"] = "uniform"
    """uniform is an equal share of every letter, zero no letter, shuffle the sequence's own with its pairs kept"""
    count: Annotated[int, Field(ge=1, le=1000)] = 10
    """shuffles; attributions are their mean"""
    seed: WholeInt = 0
    """of the shuffles"""


class MotifsSpec(Spec):
    """Known motifs to look for under the attributions."""

    file: Text | None = None
    """motifs in JASPAR, TRANSFAC or MEME text, plain or gzipped; a local path"""
    p_value: Annotated[float, Field(gt=0, le=0.01)] = 1e-4
    """highest of a hit"""


class ExplainModelSpec(Spec):
    """Ask of sequences which letters a model's answer rests on: attributions, tracks, logos and motif matches."""

    job: Literal["explain_model"] = "explain_model"
    """the job this spec is for"""
    version: Literal[1] = 1
    """version of this spec's layout"""
    sequences: Text
    """the output of a finished ingest-sequences run, also as run:DIR; a local path, s3:// or gs://"""
    model: Text
    """a model that ships, by name, or a model folder whose encoder reads the set's letters"""
    head: Name | None = None
    """the explained head; may be left out where there is one"""
    channels: Names = ()
    """its channels to explain; all where empty and no more than 8"""
    method: Literal["mutagenesis", "integrated_gradients", "deeplift"] = "deeplift"
    """mutagenesis replaces every letter by every other; the others need captum"""
    scale: Literal["logit", "value"] = "logit"
    """logit is what comes before softmax (less the channels' mean), sigmoid or softplus; value what comes after"""
    reduce: Literal["middle", "mean", "sum"] = "middle"
    """of a head with a value per position: the one in the middle, or the mean or sum of all or of those chosen"""
    first_position: WholeInt = 0
    """first of the positions whose mean or sum is explained, 0-based"""
    end_position: PositiveInt | None = None
    """behind the last of them; all where it is left out"""
    both_strands: bool = False
    """explain the mean over a sequence and its reverse complement, mapped back; not of heads that read one strand"""
    rows: ChosenRowsSpec = Field(default_factory=ChosenRowsSpec)
    """which rows are explained (--ids, --splits, --split, --limit)"""
    baseline: BaselineSpec = Field(default_factory=BaselineSpec)
    """what a sequence is compared with"""
    steps: Annotated[int, Field(ge=2, le=10_000)] = 32
    """points of integrated gradients' quadrature"""
    motifs: MotifsSpec = Field(default_factory=MotifsSpec)
    """known motifs to look for"""
    reference: Text | None = None
    """FASTA whose contig lengths the bigWig files get; without it a contig ends where the last window does"""
    output: Text
    """run directory: a local path, s3:// or gs://; a run that stopped there is resumed"""
    max_reject_fraction: Share = 0.05
    """most rejected records, as a share; above it the run stops with exit code 3; 1 accepts any share"""
    execution: ExplainExecutionSpec = Field(default_factory=ExplainExecutionSpec)
    """where and how wide to run"""

    @model_validator(mode="after")
    def _agree(self) -> ExplainModelSpec:
        if len(set(self.channels)) < len(self.channels):
            raise ValueError("a channel is named twice")
        if (self.first_position or self.end_position) and self.reduce == "middle":
            raise ValueError("positions are chosen for a mean or sum: set reduce to mean or sum")
        if self.end_position is not None and self.end_position <= self.first_position:
            raise ValueError(f"end_position must be above first_position, {self.first_position}")
        return self


SPEC = ExplainModelSpec

OPTIONS = (
    Option("sequences", ("SEQUENCES",)),
    Option("model", ("--model", "-m")),
    Option("output", ("--output", "-o")),
    Option("head", ("--head",)),
    Option("channels", ("--channels",), form="commas", metavar="NAME"),
    Option("method", ("--method",)),
    Option("scale", ("--scale",)),
    Option("reduce", ("--reduce",)),
    Option("first_position", ("--first-position",)),
    Option("end_position", ("--end-position",)),
    Option("both_strands", ("--both-strands",)),
    Option("rows.ids", ("--ids",), form="commas", metavar="ID"),
    Option("rows.file", ("--splits",), metavar="FILE"),
    Option("rows.names", ("--split",), form="commas", metavar="train|validation|test"),
    Option("rows.fold", ("--fold",)),
    Option("rows.limit", ("--limit",)),
    Option("baseline.kind", ("--baseline",)),
    Option("baseline.count", ("--shuffles",)),
    Option("steps", ("--steps",)),
    Option("motifs.file", ("--motifs",), metavar="FILE"),
    Option("motifs.p_value", ("--motif-p-value",)),
    Option("reference", ("--reference",)),
    Option("max_reject_fraction", ("--max-rejects",)),
    Option("execution.executor", ("--executor",)),
    Option("execution.address", ("--address",)),
    Option("execution.workers", ("--workers", "-j")),
    Option("execution.device", ("--device",)),
    Option("execution.micro_batch", ("--micro-batch",)),
    Option("execution.records_per_shard", ("--records-per-shard",)),
)
"""The one place where the command's options meet the keys of the spec."""
