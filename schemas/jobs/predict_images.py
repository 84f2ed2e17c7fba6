"""Run a model over a set of images: classes to a table, objects to masks and a row each.

Every image is answered for: it is scored, not applicable (the ingest rejected it), or rejected with a reason, such as a
chunk that is missing or damaged. Keys that can change a row are part of the run's result key; under `execution` all but
executor, workers, address.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas._base import Option, Spec

PositiveInt = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(min_length=1)]


class PredictImagesExecutionSpec(Spec):
    """Where and how wide to run."""

    executor: Literal["in-process", "ray"] = "in-process"
    """in-process needs no Ray; ray runs the same stages on Ray Data, on this machine or a cluster"""
    workers: PositiveInt | None = None
    """processes that hold the model; unset takes one per CPU core or per CUDA device"""
    address: Text | None = None
    """Ray cluster to join, as host:port or auto; unset starts a private one on this machine"""
    device: Literal["cpu", "cuda"] = "cpu"
    """device the model runs on"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """arithmetic of the model"""
    micro_batch: PositiveInt = 4
    """most images through the model at once"""
    images_per_shard: PositiveInt = 1024
    """most images in a shard, the unit of work, retry and commit"""
    bytes_per_shard: PositiveInt = 32 << 20
    """most bytes of pixels in a shard"""

    @model_validator(mode="after")
    def _agree(self) -> PredictImagesExecutionSpec:
        if self.address and self.executor != "ray":
            raise ValueError("address names a Ray cluster: set executor to ray")
        return self


class PredictImagesSpec(Spec):
    """Run a model over a set of images: classes to a table, objects to masks and a row each."""

    job: Literal["predict_images"] = "predict_images"
    """the job this spec is for"""
    version: Literal[1] = 1
    """version of this spec's layout"""
    images: Text
    """the output of a finished ingest-images run, also as run:DIR; a local path"""
    model: Text
    """a model folder that train-model made of an image set"""
    output: Text
    """run directory: a local path, s3:// or gs://; a run that stopped there is resumed"""
    max_reject_fraction: Share = 0.05
    """most rejected images, as a share; above it the run stops with exit code 3; 1 accepts any share"""
    execution: PredictImagesExecutionSpec = Field(default_factory=PredictImagesExecutionSpec)
    """where and how wide to run"""


SPEC = PredictImagesSpec

OPTIONS = (
    Option("images", ("IMAGES",)),
    Option("model", ("--model", "-m")),
    Option("output", ("--output", "-o")),
    Option("max_reject_fraction", ("--max-rejects",)),
    Option("execution.executor", ("--executor",)),
    Option("execution.address", ("--address",)),
    Option("execution.workers", ("--workers", "-j")),
    Option("execution.device", ("--device",)),
    Option("execution.precision", ("--precision",)),
    Option("execution.micro_batch", ("--micro-batch",)),
    Option("execution.images_per_shard", ("--images-per-shard",)),
)
"""The one place where the command's options meet the keys of the spec."""
