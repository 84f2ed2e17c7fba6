"""Turn a VCF into checked tables of sites and, on request, a VCF Zarr store of genotypes.

Every record is answered for: it is kept, or rejected with a reason. Keys that can change a result are part of the run's
result key; of those under `execution` only the shard sizes can.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas._base import Names, Option, Spec

PositiveInt = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]


class ExecutionSpec(Spec):
    """Where and how wide to run."""

    executor: Literal["in-process", "ray"] = "in-process"
    """in-process needs no Ray; ray runs the same stages on Ray Data, on this machine or a cluster"""
    workers: PositiveInt | None = None
    """parsing processes; unset takes one per CPU core"""
    address: Text | None = None
    """Ray cluster to join, as host:port or auto; unset starts a private one on this machine"""
    records_per_shard: PositiveInt = 100_000
    """most records in a shard, the unit of work, retry and commit"""
    bytes_per_shard: PositiveInt = 32 << 20
    """most bytes of input text in a shard"""


class IngestVariantsSpec(Spec):
    """Turn a VCF into checked tables of sites and a VCF Zarr store of genotypes."""

    job: Literal["ingest_variants"] = "ingest_variants"
    """the job this spec is for"""
    version: Literal[1] = 1
    """version of this spec's layout"""
    input: Text
    """variants: VCF (BGZF or plain) or BCF; - reads stdin; run:DIR takes the scored VCF of a finished run"""
    output: Text
    """run directory: a local path, s3:// or gs://; a run that stopped there is resumed"""
    info: Names = ()
    """INFO fields to take as columns info_KEY, typed as the header declares them; * takes all"""
    genotypes: bool = False
    """write the genotypes of all samples as a VCF Zarr store, variants.zarr, beside the table of sites"""
    format: Names = ()
    """FORMAT fields to write into that store, as call_KEY; GT stands for genotypes, * takes all"""
    max_reject_fraction: Annotated[float, Field(ge=0, le=1)] = 0.05
    """most rejected records, as a share; above it the run stops with exit code 3; 1 accepts any share"""
    execution: ExecutionSpec = Field(default_factory=ExecutionSpec)
    """where and how wide to run"""

    @model_validator(mode="after")
    def _agree(self) -> IngestVariantsSpec:
        if self.execution.address and self.execution.executor != "ray":
            raise ValueError("execution.address names a Ray cluster: set execution.executor to ray")
        return self


SPEC = IngestVariantsSpec

OPTIONS = (
    Option("input", ("IN",)),
    Option("output", ("--output", "-o")),
    Option("info", ("--info",), doc="INFO fields to take as columns, comma-separated; * takes all", form="commas"),
    Option("genotypes", ("--genotypes",)),
    Option("format", ("--format",), doc="FORMAT fields to write, too, comma-separated; * takes all", form="commas"),
    Option("max_reject_fraction", ("--max-rejects",)),
    Option("execution.executor", ("--executor",)),
    Option("execution.address", ("--address",)),
    Option("execution.workers", ("--workers", "-j")),
    Option("execution.records_per_shard", ("--records-per-shard",)),
)
"""The one place where the command's options meet the keys of the spec."""
