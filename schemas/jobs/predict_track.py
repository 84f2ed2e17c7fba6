"""Run a model along a genome: a value for every base, or for every step of a window, as bigWig and Parquet.

A record is a tile of the genome: it is scored, not applicable (the reference knows none of its bases), or rejected.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas._base import Name, Names, Option, Spec
from schemas.jobs.predict import PositiveInt, PredictExecutionSpec, Share, Text


class TrackExecutionSpec(PredictExecutionSpec):
    """Where and how wide to run."""

    tile_bp: Annotated[int, Field(ge=1, le=100_000_000)] = 10_000
    """bases of a tile; the model reads each with its context, so short tiles of long contexts cost time"""
    records_per_shard: PositiveInt = 100
    """most tiles in a shard, the unit of work, retry and commit"""


class PredictTrackSpec(Spec):
    """Run a model along a genome, to bigWig: a value per base, or per step of a window."""

    job: Literal["predict_track"] = "predict_track"
    """the job this spec is for"""
    version: Literal[1] = 1
    """version of this spec's layout"""
    reference: Text
    """FASTA, plain or bgzipped"""
    model: Text
    """a model that ships, by name, or a model folder"""
    head: Name | None = None
    """the head; may be left out where there is one"""
    channels: Names = ()
    """its channels; all where empty"""
    regions: Names = ()
    """where, such as chr20 or chr20:1-2000000 (1-based); the whole genome where neither these nor a file are given"""
    regions_file: Text | None = None
    """the same as BED or a table of CHROM, POS, END"""
    strands: Literal["declared", "plus", "minus", "both", "mean"] = "declared"
    """declared is both for heads that read one strand only and plus for others; mean averages what both strands say"""
    window_bp: PositiveInt | None = None
    """for a head with one answer for a whole sequence: bases it reads"""
    stride_bp: PositiveInt | None = None
    """for such a head: bases from one window to the next, for which its value stands"""
    output: Text
    """run directory: a local path, s3:// or gs://; a run that stopped there is resumed"""
    max_reject_fraction: Share = 0.05
    """most rejected tiles, as a share; above it the run stops with exit code 3; 1 accepts any share"""
    execution: TrackExecutionSpec = Field(default_factory=TrackExecutionSpec)
    """where and how wide to run"""


SPEC = PredictTrackSpec

OPTIONS = (
    Option("reference", ("--reference",)),
    Option("model", ("--model", "-m")),
    Option("output", ("--output", "-o")),
    Option("regions", ("--regions", "-r"), form="commas", metavar="REGION"),
    Option("regions_file", ("--regions-file", "-R"), metavar="BED"),
    Option("head", ("--head",)),
    Option("channels", ("--channels",), form="commas", metavar="NAME"),
    Option("strands", ("--strands",)),
    Option("window_bp", ("--window",)),
    Option("stride_bp", ("--stride",)),
    Option("max_reject_fraction", ("--max-rejects",)),
    Option("execution.executor", ("--executor",)),
    Option("execution.address", ("--address",)),
    Option("execution.workers", ("--workers", "-j")),
    Option("execution.device", ("--device",)),
    Option("execution.precision", ("--precision",)),
    Option("execution.micro_batch", ("--micro-batch",)),
    Option("execution.tile_bp", ("--tile",)),
    Option("execution.records_per_shard", ("--records-per-shard",)),
)
"""The one place where the command's options meet the keys of the spec."""
