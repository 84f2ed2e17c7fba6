"""Judge a model on a labelled set of sequences, whole or by a split: figures with intervals, by class and by group.

The truth is the column that the head was trained on: label for a head that tells classes (softmax), position_labels for
one that tells a class of every position, target for one number or label, targets for several.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas._base import Name, Option, Spec
from schemas.jobs.predict import PredictExecutionSpec, Share, Text

WholeInt = Annotated[int, Field(ge=0)]
SplitName = Literal["train", "validation", "test"]
AuditColumn = Literal["group", "label", "contig", "strand", "length", "id", "second_id"]


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
    cluster: Literal["group", "contig", "id", "second_id"] | None = None
    """column whose values are drawn whole, where rows that share one are not independent; unset draws single rows"""


class EvaluateModelSpec(Spec):
    """Judge a model on a labelled set of sequences: figures with intervals, by class and by group."""

    job: Literal["evaluate_model"] = "evaluate_model"
    """the job this spec is for"""
    version: Literal[1] = 1
    """version of this spec's layout"""
    sequences: Text
    """the labelled set: the output of a finished ingest-sequences run, also as run:DIR"""
    model: Text | None = None
    """a model that ships, by name, or a model folder"""
    predictions: Text | None = None
    """in place of a model: the output of a finished predict run over the same set"""
    head: Name | None = None
    """the judged head; may be left out where there is one"""
    both_strands: bool = False
    """average the model's outputs over both strands of DNA"""
    splits: JudgedRowsSpec = Field(default_factory=JudgedRowsSpec)
    """which rows are judged (--splits, --split)"""
    audit: Annotated[tuple[AuditColumn, ...], Field(strict=False)] = ()
    """columns of the set by whose values figures are also given apart; length in quarters"""
    intervals: IntervalsSpec = Field(default_factory=IntervalsSpec)
    """how sure the figures are"""
    output: Text
    """run directory: a local path, s3:// or gs://; a run that stopped there is resumed"""
    max_reject_fraction: Share = 0.05
    """most rejected records, as a share; above it the run stops with exit code 3; 1 accepts any share"""
    execution: PredictExecutionSpec = Field(default_factory=PredictExecutionSpec)
    """where and how wide to run"""

    @model_validator(mode="after")
    def _one_origin(self) -> EvaluateModelSpec:
        if (self.model is None) == (self.predictions is None):
            raise ValueError("give model, or predictions, the output of a finished predict run")
        if self.predictions is not None and self.both_strands:
            raise ValueError("both_strands is of the model: it goes with predict")
        if len(set(self.audit)) < len(self.audit):
            raise ValueError("a column of the audit is named twice")
        return self


SPEC = EvaluateModelSpec

OPTIONS = (
    Option("sequences", ("SEQUENCES",)),
    Option("model", ("--model", "-m")),
    Option("predictions", ("--predictions",), metavar="RUN"),
    Option("output", ("--output", "-o")),
    Option("head", ("--head",)),
    Option("both_strands", ("--both-strands",)),
    Option("splits.file", ("--splits",), metavar="FILE"),
    Option("splits.names", ("--split",), form="commas", metavar="train|validation|test"),
    Option("splits.fold", ("--fold",)),
    Option("audit", ("--audit",), form="commas", metavar="group|label|contig|strand|length|id|second_id"),
    Option("intervals.samples", ("--bootstrap",)),
    Option("intervals.cluster", ("--cluster",)),
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
