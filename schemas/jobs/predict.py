"""Run a model over a set of sequences.

Every record is answered for: it is scored, not applicable (the ingest rejected it), or rejected with a reason. Keys
that can change a row are part of the run's result key; under `execution` all but executor, workers, address.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas._base import Names, Option, Spec

PositiveInt = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(min_length=1)]


class PredictExecutionSpec(Spec):
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
    micro_batch: PositiveInt = 64
    """most sequences through the model at once"""
    records_per_shard: PositiveInt = 20_000
    """most records in a shard, the unit of work, retry and commit"""
    letters_per_shard: PositiveInt = 8 << 20
    """most letters in a shard"""

    @model_validator(mode="after")
    def _agree(self) -> PredictExecutionSpec:
        if self.address and self.executor != "ray":
            raise ValueError("address names a Ray cluster: set executor to ray")
        return self


class PredictSpec(Spec):
    """Run a model over a set of sequences."""

    job: Literal["predict"] = "predict"
    """the job this spec is for"""
    version: Literal[1] = 1
    """version of this spec's layout"""
    sequences: Text
    """the output of a finished ingest-sequences run, also as run:DIR; a local path, s3:// or gs://"""
    model: Text
    """a model that ships, by name, or a model folder whose encoder reads the set's letters"""
    heads: Names = ()
    """heads of the model to write; all where empty"""
    both_strands: bool = False
    """average over both strands of DNA; refused for heads that read one strand only"""
    output: Text
    """run directory: a local path, s3:// or gs://; a run that stopped there is resumed"""
    max_reject_fraction: Share = 0.05
    """most rejected records, as a share; above it the run stops with exit code 3; 1 accepts any share"""
    execution: PredictExecutionSpec = Field(default_factory=PredictExecutionSpec)
    """where and how wide to run"""


SPEC = PredictSpec

OPTIONS = (
    Option("sequences", ("SEQUENCES",)),
    Option("model", ("--model", "-m")),
    Option("output", ("--output", "-o")),
    Option("heads", ("--heads",), form="commas", metavar="NAME"),
    Option("both_strands", ("--both-strands",)),
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
