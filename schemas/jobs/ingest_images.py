"""Turn folders of images, OME-Zarr stores and plates into one checked image set.

Every image is answered for: it is kept, or rejected with a reason. Keys that can change a result are part of the run's
result key; of those under `execution` only the shard sizes are.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas._base import Name, Names, Option, Spec

PositiveInt = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(min_length=1)]


class ImageInputSpec(Spec):
    """Where images lie and how they are told apart."""

    folders: Annotated[tuple[Text, ...], Field(min_length=1, strict=False)]
    """folders of PNG, JPEG and TIFF files, ImageXpress plates or OME-Zarr 0.4 and 0.5 stores; one or more"""
    stacks: Literal["planes", "volumes"] | None = None
    """depths of a stack: each an image of its own, or kept together; unset keeps those of plates together only"""
    plates: bool = True
    """tell ImageXpress plates by their names (..._A01_s1_w1.tif); off takes each file as an image of its own"""
    projections: bool = False
    """of plates with ZStep folders, take the projections beside them rather than the steps"""
    image_array: Name = "image"
    """in Zarr groups that are no OME-Zarr: the array of images, (N, Y, X) or (N, Y, X, C)"""
    label_array: Name | None = None
    """beside it: the array of classes, (N,)"""
    missing_chunks: Literal["reject", "fill"] = "reject"
    """reject images with a Zarr chunk that is not there; fill takes its fill value, for writers that leave such out"""
    max_pixels: PositiveInt = 1 << 28
    """most values (pixels by channels and depths) of a file, or of one time of a Zarr image; larger are rejected"""


class ImageLabelsSpec(Spec):
    """What is known of each image."""

    table: Text | None = None
    """CSV, TSV or Parquet with a column file (path below the input folder) or well, and label, group, mask; a table of
    files says which images belong to the set"""
    file_column: Name | None = None
    """its column of files; unset takes one called file"""
    label_column: Name | None = None
    """its column of classes; unset takes one called label, if there"""
    group_column: Name | None = None
    """its column of what must not straddle splits (donor, slide); unset takes one called group, if there"""
    mask_column: Name | None = None
    """its column of masks, paths below the folder of masks; unset takes one called mask, if there"""
    from_folder: bool = False
    """the folder that a file lies in is its class"""
    pattern: Text | None = None
    """regular expression searched in an image's id (its path); its first group is the class"""
    group_pattern: Text | None = None
    """the same for the group; unset takes the well of plates, and the stack of depths and times"""


class MasksSpec(Spec):
    """Masks: label images that give each object of an image its number."""

    folder: Text | None = None
    """folder of mask files with the images' own names, whatever their suffix; or that the table's masks lie in"""
    label_image: Name | None = None
    """of OME-Zarr images: the name of the label image that is the mask"""
    array: Name | None = None
    """in Zarr groups that are no OME-Zarr: the array of masks, (N, Y, X)"""
    channel: Annotated[int, Field(ge=0)] | None = None
    """which channel of masks in colour holds the labels, from 0 on"""
    objects: Literal["values", "regions"] = "values"
    """values: each value is an object; regions: each connected region of one value is, for masks that reuse values"""


class ImageCleaningSpec(Spec):
    """What an image must be to be kept."""

    dtype: Literal["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"] | None = None
    """pixel type of the set; unset takes what most are. Others are rejected"""
    channels: PositiveInt | None = None
    """channels of the set; unset takes what most have"""
    size_px: Annotated[tuple[PositiveInt, PositiveInt], Field(strict=False)] | None = None
    """height and width of the set; unset takes what most have"""
    sizes: Literal["one", "any"] = "one"
    """one rejects images of another size than the set's; any takes all"""
    duplicates: Literal["pixels", "keep"] = "pixels"
    """reject images with the pixels of an earlier one; keep takes all"""
    keep_empty: bool = False
    """keep images whose pixels all have one value"""
    classes: Names = ()
    """the classes there are; an image with another label is rejected. None declared takes any label"""
    allow_missing: bool = False
    """keep images without the label that was asked for"""


class StoreSpec(Spec):
    """How the set lies in its OME-Zarr 0.5 store, images.zarr."""

    layout: Literal["auto", "array", "images", "plate"] = "auto"
    """one array of all images, a group for each, or the tree of plates; auto: plate for plates, array for one size"""
    tile_px: PositiveInt | None = None
    """side of a chunk; unset keeps an image whole up to 4 MiB and cuts larger ones into tiles of 1024"""


class ImageExecutionSpec(Spec):
    """Where and how wide to run. Only the shard sizes can change a byte."""

    executor: Literal["in-process", "ray"] = "in-process"
    """in-process needs no Ray; ray runs the same stages on Ray Data, on this machine or a cluster"""
    workers: PositiveInt | None = None
    """processes; unset takes one per CPU core"""
    address: Text | None = None
    """Ray cluster to join, as host:port or auto; unset starts a private one on this machine"""
    images_per_shard: PositiveInt = 1024
    """most images in a shard, the unit of work, retry and commit"""
    bytes_per_shard: PositiveInt = 32 << 20
    """most bytes of pixels in a shard, before compression"""


class IngestImagesSpec(Spec):
    """Turn folders of images, OME-Zarr stores and plates into one checked image set."""

    job: Literal["ingest_images"] = "ingest_images"
    """the job this spec is for"""
    version: Literal[1] = 1
    """version of this spec's layout"""
    input: ImageInputSpec
    """the images"""
    labels: ImageLabelsSpec = Field(default_factory=ImageLabelsSpec)
    """classes and groups"""
    masks: MasksSpec = Field(default_factory=MasksSpec)
    """masks for segmentation"""
    cleaning: ImageCleaningSpec = Field(default_factory=ImageCleaningSpec)
    """what is kept"""
    store: StoreSpec = Field(default_factory=StoreSpec)
    """how the set is laid out"""
    output: Text
    """run directory: a local path, s3:// or gs://; a run that stopped there is resumed"""
    max_reject_fraction: Share = 0.25
    """most rejected images, as a share; above it the run stops with exit code 3; 1 accepts any share"""
    execution: ImageExecutionSpec = Field(default_factory=ImageExecutionSpec)
    """where and how wide to run"""

    @model_validator(mode="after")
    def _fits(self) -> IngestImagesSpec:
        labels = self.labels
        told = (labels.table is not None and labels.label_column is not None, labels.from_folder, labels.pattern)
        if sum(map(bool, told)) > 1:
            raise ValueError("labels come from the table, from folders or from a pattern, not from several of them")
        if labels.table is None and any((labels.file_column, labels.label_column, labels.group_column)):
            raise ValueError("columns are named, yet there is no labels.table to have them")
        if len(set(self.cleaning.classes)) < len(self.cleaning.classes):
            raise ValueError("a class is declared twice")
        if self.execution.address and self.execution.executor != "ray":
            raise ValueError("execution.address names a Ray cluster: set execution.executor to ray")
        return self


SPEC = IngestImagesSpec

OPTIONS = (
    Option("input.folders", ("FOLDER",), metavar="FOLDER..."),
    Option("output", ("--output", "-o")),
    Option(
        "labels.table",
        ("--table", "-t"),
        doc="CSV, TSV or Parquet: file (or well), label, group, mask",
        metavar="TABLE",
    ),
    Option("labels.file_column", ("--file-column",), metavar="COLUMN"),
    Option("labels.label_column", ("--label",), metavar="COLUMN"),
    Option("labels.group_column", ("--group",), metavar="COLUMN"),
    Option("labels.mask_column", ("--mask",), metavar="COLUMN"),
    Option("labels.from_folder", ("--label-from-folder",)),
    Option("labels.pattern", ("--label-pattern",), metavar="REGEX"),
    Option("labels.group_pattern", ("--group-pattern",), metavar="REGEX"),
    Option("masks.folder", ("--masks",), metavar="DIR"),
    Option("masks.label_image", ("--label-image",), metavar="NAME"),
    Option("masks.channel", ("--mask-channel",)),
    Option("masks.objects", ("--mask-objects",)),
    Option("masks.array", ("--mask-array",), metavar="NAME"),
    Option("input.label_array", ("--label-array",), metavar="NAME"),
    Option("input.stacks", ("--stacks",), metavar="planes|volumes"),
    Option("input.projections", ("--projections",)),
    Option("input.missing_chunks", ("--missing-chunks",)),
    Option("input.max_pixels", ("--max-pixels",)),
    Option("cleaning.sizes", ("--sizes",)),
    Option("cleaning.duplicates", ("--duplicates",)),
    Option("cleaning.keep_empty", ("--keep-empty",)),
    Option("cleaning.classes", ("--classes",), form="commas", metavar="NAME"),
    Option("cleaning.allow_missing", ("--allow-missing",)),
    Option("store.layout", ("--layout",)),
    Option("store.tile_px", ("--tile",), metavar="PX"),
    Option("max_reject_fraction", ("--max-rejects",)),
    Option("execution.executor", ("--executor",)),
    Option("execution.address", ("--address",)),
    Option("execution.workers", ("--workers", "-j")),
    Option("execution.images_per_shard", ("--images-per-shard",)),
)
"""The one place where the command's options meet the keys of the spec."""
