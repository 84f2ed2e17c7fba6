"""Judge a model on a labelled set of sequences or images, whole or by a split: figures with intervals.

The truth is what the head was trained on: the column label for a head that tells classes (softmax), position_labels for
one that tells a class of every position, target for one number or label, targets for several; of images that hold
objects the set's masks.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas._base import Name, Option, Spec
from schemas.jobs.predict import Share, Text

PositiveInt = Annotated[int, Field(ge=1)]
WholeInt = Annotated[int, Field(ge=0)]
SplitName = Literal["train", "validation", "test"]
AuditColumn = Literal[
    "group", "label", "id", "contig", "strand", "length", "second_id",
    "plate", "well", "field", "folder", "t", "z", "num_objects",
]  # fmt: skip


class JudgedRowsSpec(Spec):
    """Which rows of the set are judged."""

    file: Text | None = None
    """split file; unset judges every labelled row of the set"""
    names: Annotated[tuple[SplitName, ...], Field(strict=False, min_length=1)] = ("test",)
    """splits to judge"""
    fold: WholeInt | None = None
    """judge this fold of the split file, as it was held out: name it validation"""

    @model_validator(mode="after")
    def _agree(self) -> JudgedRowsSpec:
        if self.fold is not None and self.file is None:
            raise ValueError("a fold needs file, the split file that has it")
        return self


class IntervalsSpec(Spec):
    """95% intervals by the bootstrap."""

    samples: Annotated[int, Field(ge=0, le=100_000)] = 1000
    """bootstrap samples; 0 gives no intervals"""
    seed: WholeInt = 0
    """of the samples"""
    cluster: Literal["split", "rows", "group", "contig", "id", "second_id", "plate", "well"] | None = None
    """what is drawn whole, as its rows are not independent: the values of a column; split: what the split file never
    parts (groups, contigs, clusters of like sequences); rows: single rows; unset takes split where the file tells, else
    rows"""


class EvaluateExecutionSpec(Spec):
    """Where and how wide to run."""

    executor: Literal["in-process", "ray"] = "in-process"
    """in-process needs no Ray; ray runs the same stages on Ray Data, on this machine or a cluster"""
    workers: PositiveInt | None = None
    """processes that hold the model; unset takes one per CPU core or per CUDA device"""
    address: Text | None = None
    """Ray cluster to join, as host:port or auto; unset starts a private one on this machine"""
    device: Literal["cpu", "cuda"] = "cpu"
    """device the model runs on"""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """arithmetic of the model; fp32 is full single precision, also on GPUs that would round to TF32"""
    micro_batch: PositiveInt | None = None
    """most sequences or images through the model at once; unset takes 64 sequences or 4 images"""
    records_per_shard: PositiveInt = 20_000
    """most records in a shard, the unit of work, retry and commit"""
    letters_per_shard: PositiveInt = 8 << 20
    """of sequences: most letters in a shard"""
    bytes_per_shard: PositiveInt = 32 << 20
    """of images: most bytes of pixels in a shard"""

    @model_validator(mode="after")
    def _agree(self) -> EvaluateExecutionSpec:
        if self.address and self.executor != "ray":
            raise ValueError("address names a Ray cluster: set executor to ray")
        return self


class EvaluateModelSpec(Spec):
    """Judge a model on a labelled set of sequences or images: figures with intervals, by class and by group."""

    job: Literal["evaluate_model"] = "evaluate_model"
    """the job this spec is for"""
    version: Literal[1] = 1
    """version of this spec's layout"""
    data: Text
    """the labelled set: the output of a finished ingest-sequences or ingest-images run, also as run:DIR"""
    model: Text | None = None
    """a model that ships, by name, or a model folder"""
    predictions: Text | None = None
    """in place of a model: the output of a finished predict run over the same set of sequences"""
    head: Name | None = None
    """the judged head; may be left out where there is one"""
    letters: Annotated[str, Field(max_length=100)] = ""
    """of a head whose classes of positions have longer names, such as none, acceptor, donor: the letter that stands for
    each in position_labels, in their order, such as NAD"""
    both_strands: bool = False
    """average the model's outputs over both strands of DNA; not of images"""
    splits: JudgedRowsSpec = Field(default_factory=JudgedRowsSpec)
    """which rows are judged (--splits, --split)"""
    audit: Annotated[tuple[AuditColumn, ...], Field(strict=False)] = ()
    """columns of the set by whose values figures are also given apart, length and num_objects in quarters; of sequences
    group, label, id, contig, strand, length and of pairs second_id, of images group, label, id, plate, well, field,
    folder, t, z, num_objects"""
    intervals: IntervalsSpec = Field(default_factory=IntervalsSpec)
    """how sure the figures are"""
    output: Text
    """run directory: a local path, s3:// or gs://; a run that stopped there is resumed"""
    max_reject_fraction: Share = 0.05
    """most rejected records, as a share; above it the run stops with exit code 3; 1 accepts any share"""
    execution: EvaluateExecutionSpec = Field(default_factory=EvaluateExecutionSpec)
    """where and how wide to run"""

    @model_validator(mode="after")
    def _one_origin(self) -> EvaluateModelSpec:
        if (self.model is None) == (self.predictions is None):
            raise ValueError("give model, or predictions, the output of a finished predict run")
        if self.predictions is not None and self.both_strands:
            raise ValueError("both_strands is of the model: it goes with predict")
        if self.predictions is not None and self.letters:
            raise ValueError("letters name the classes of a model: give it in place of predictions")
        if len(set(self.audit)) < len(self.audit):
            raise ValueError("a column of the audit is named twice")
        if self.intervals.cluster == "split" and self.splits.file is None:
            raise ValueError("intervals by split (--cluster split) need splits.file, the split file (--splits)")
        return self


SPEC = EvaluateModelSpec

OPTIONS = (
    Option("data", ("SET",)),
    Option("model", ("--model", "-m")),
    Option("predictions", ("--predictions",), metavar="RUN"),
    Option("output", ("--output", "-o")),
    Option("head", ("--head",)),
    Option("letters", ("--letters",)),
    Option("both_strands", ("--both-strands",)),
    Option("splits.file", ("--splits",), metavar="FILE"),
    Option("splits.names", ("--split",), form="commas", metavar="train|validation|test"),
    Option("splits.fold", ("--fold",)),
    Option("audit", ("--audit",), form="commas", metavar="group|label|length|plate|well|..."),
    Option("intervals.samples", ("--bootstrap",)),
    Option("intervals.cluster", ("--cluster",), metavar="split|rows|group|contig|id|second_id|plate|well"),
    Option("max_reject_fraction", ("--max-rejects",)),
    Option("execution.executor", ("--executor",)),
    Option("execution.address", ("--address",)),
    Option("execution.workers", ("--workers", "-j")),
    Option("execution.device", ("--device",)),
    Option("execution.precision", ("--precision",)),
    Option("execution.micro_batch", ("--micro-batch",)),
    Option("execution.records_per_shard", ("--records-per-shard",)),
)
"""The one place where the command's options meet the keys of the spec."""
