"""Prediction over an image set as the two stages that an executor runs: read, then the model.

A head with one answer for an image gives columns, as of sequences. One with a value for every pixel gives objects: the
masks in a checked Zarr store, a row each with their shape and brightness, and their number.

Shape letters: B images, C channels, Y and X rows and columns, K outputs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine import registry
from engine.errors import DataError, InputError, SystemFailure
from engine.imaging.instances import Growing, objects_of
from engine.imaging.morphology import morphology
from engine.io import parquet
from engine.io._zarr_shards import ArraySpec
from engine.io.image_store import chunk_of, shard_file, shard_name
from engine.io.source import RawRecord, Scan, Shard
from engine.models._info import HeadInfo, ModelInfo, open_model
from engine.runtime import layout
from engine.runtime.stages import ShardOutput
from engine.scoring._finished_rows import FinishedRows, RowSource
from engine.scoring._predict_stages import Skipped, Skips, not_kept, rows_table, shard_output
from engine.scoring._prediction_columns import columns_of, head_arrays
from engine.training._image_set import ImageReader, ImageSet
from engine.training.kinds.images import KIND, ImageInputs, refused_pixels
from schemas import states, tables

MASKS, OBJECTS = "masks.zarr", "objects"
_MASK_DTYPE = "uint32"
_KEPT_COLUMNS = ("record", "id", "label", "group")


@dataclass(frozen=True)
class ImageBatch:
    """A shard's rows as the model stage takes them; picklable.

    Attributes:
        shard: its number.
        columns: what the output keeps of the set, all rows in order.
        pixels: (C, Y, X) of the rows to predict, by row.
        skipped: why the others are not predicted, by row.
        masks: (Y, X) the set's own objects of the rows to predict, where they are asked for.
    """

    shard: int
    columns: pa.Table
    pixels: Mapping[int, NDArray[Any]]
    skipped: Skips
    masks: Mapping[int, NDArray[Any]]


class ImageRows(RowSource):
    """The rows of an image set's index, in shards of one length, so that each is the one writer of a shard of masks."""

    def scan(
        self,
        *,
        records_per_shard: int,
        bytes_per_shard: int,  # noqa: ARG002 - the shards' length is decided already
        on_record: Callable[[RawRecord], None] | None = None,  # noqa: ARG002
        on_record_limit: int = 0,  # noqa: ARG002
    ) -> Scan:
        """Cut the rows; see RowSource."""
        num = self.rows.num_rows
        begins = range(0, num, records_per_shard)
        shards = [
            Shard(number, low, min(low + records_per_shard, num), min(records_per_shard, num - low), low, *(None,) * 4)
            for number, low in enumerate(begins)
        ]
        return Scan(shards, num, self.rows.digest, {})


@dataclass(frozen=True)
class PredictImagesStages:
    """Everything both stages need; picklable, opened once per process.

    Attributes:
        rows: the set's index.
        images: the set.
        model: model folder.
        images_per_shard: rows of a shard.
        device, precision, micro_batch: of the model.
    """

    rows: FinishedRows
    images: ImageSet
    model: str
    images_per_shard: int
    device: str = "cpu"
    precision: str = "fp32"
    micro_batch: int = 4

    @cached_property
    def info(self) -> ModelInfo:
        """The model's description, opened once: that hashes its weights."""
        return open_model(self.model)

    @property
    def head(self) -> HeadInfo:
        """The one head."""
        return next(iter(self.info.heads.values()))

    @property
    def finds_objects(self) -> bool:
        """Whether every pixel has a value."""
        return self.head.level == "pixel"

    def check(self) -> None:
        """Refuse what does not go together; loads no weights.

        Raises:
            InputError: a model of something else, images of another type, size or number of channels.
        """
        info, data = self.info, self.images
        if len(info.heads) != 1 or self.head.level not in ("image", "pixel"):
            what = f"the model tells nothing of images (its heads: {', '.join(info.heads)})"
            raise InputError(what, where=f"model {info.name}", fix="give a model that was trained on an image set")
        if data.shape is None or len(data.shape) != 3:
            what = "the images are volumes" if data.shape else "the images are of several sizes"
            raise InputError(what, where=data.path, fix="ingest them with --sizes one and --stacks planes")
        encoder = self.encoder()
        channels = encoder.channels
        if channels != data.shape[0]:
            what = f"the images have {data.shape[0]} channels, the model takes {channels}"
            raise InputError(what, where=data.path, fix="give a set of the same channels")
        learned = info.extra.get("images", {}).get("dtype", str(data.dtype))
        if learned != str(data.dtype):
            what = f"the images are {data.dtype}, the model was trained on {learned}"
            raise InputError(what, where=data.path, fix="give images of that type, or train on these")
        if what := refused_pixels(encoder, data):
            raise InputError(what, where=f"model {info.name}", fix="give a model whose encoder takes them")
        if self.finds_objects:
            _ = self.growing

    @property
    def growing(self) -> Growing:
        """How the model's task makes objects of its values.

        Raises:
            InputError: the folder does not say.
        """
        name, params = info_task(self.info)
        if name != "image_segmentation":
            what = f"its values for pixels are of the task {name!r}, which makes no objects"
            raise InputError(what, where=f"model {self.info.name}", fix="give a model of image_segmentation")
        cls = registry.component("tasks", name)
        growing: Growing = registry.build_params(cls, params, where=self.info.path).growing
        return growing

    def encoder(self) -> Any:
        """The model's encoder."""
        made = registry.component("encoders", self.info.encoder["name"])
        return made(registry.build_params(made, self.info.encoder["params"], where=self.info.path))

    def schema(self) -> pa.Schema:
        """Columns of the table."""
        return pa.schema([*tables.IMAGE_PREDICTIONS, *self.told_fields()])

    def told_fields(self) -> list[pa.Field]:
        """Columns of what the model tells."""
        return [tables.NUM_OBJECTS] if self.finds_objects else columns_of(self.head)

    def told_heads(self) -> list[HeadInfo]:
        """The same as the report takes them."""
        if not self.finds_objects:
            return [self.head]
        name = tables.NUM_OBJECTS.name
        return [HeadInfo(name, (name,), "identity", "stranded", level="image")]

    def mask_spec(self) -> ArraySpec:
        """The array of masks: a row for each record of the set."""
        assert self.images.shape is not None
        row = self.images.shape[1:]
        chunk = chunk_of(row, np.dtype(_MASK_DTYPE).itemsize, None)
        return ArraySpec(f"{MASKS}/0", _MASK_DTYPE, ("t", "y", "x"), row, (1, *chunk), self.images_per_shard, 0)

    def source(self) -> ImageRows:
        """The set's index as a plannable input."""
        return ImageRows(self.rows, [*_KEPT_COLUMNS, "state"], weight="record")

    def open_reader(self) -> Callable[[Shard], ImageBatch]:
        """See runtime.stages.Stages."""
        return ImageBatchReader(self.source(), ImageReader(self.images))

    def open_scorer(self) -> Callable[[ImageBatch], ShardOutput]:
        """See runtime.stages.Stages."""
        return _BatchScorer(self)


def info_task(info: ModelInfo) -> tuple[str, Mapping[str, Any]]:
    """Name and params of the task that a model was trained for; empty where its folder does not say."""
    name, params = info.extra.get("task", ["", {}])
    return str(name), dict(params)


def rows_per_shard(data: ImageSet, *, images_per_shard: int, bytes_per_shard: int) -> int:
    """Images of a shard, by number and by bytes of pixels."""
    size = prod(data.shape or (1,)) * data.dtype.itemsize
    return max(1, min(images_per_shard, bytes_per_shard // size))


@dataclass(frozen=True)
class ImageBatchReader:
    """Reads the images of a shard.

    Attributes:
        source: the set's index.
        images: its pixels.
        skip: rows that are not asked about; those that the ingest rejected must be among them.
        with_masks: read the set's own objects, too.
    """

    source: ImageRows
    images: ImageReader
    skip: Callable[[pa.Table], dict[int, Skipped]] = not_kept
    with_masks: bool = False

    def __call__(self, shard: Shard) -> ImageBatch:
        table = self.source.read(shard)
        skipped = self.skip(table)
        pixels: dict[int, NDArray[Any]] = {}
        masks: dict[int, NDArray[Any]] = {}
        for row, record in enumerate(table["record"].to_pylist()):
            if row in skipped:
                continue
            try:
                found = self.images.images([record])[0]
                if self.with_masks:
                    masks[row] = self.images.masks([record])[0]
            except DataError as error:
                skipped[row] = Skipped(states.REJECTED, "damaged_image", str(error))
                continue
            pixels[row] = found
        return ImageBatch(shard.shard, table.drop_columns(["state"]), pixels, skipped, masks)


class ImageAnswerer:
    """A loaded model of images.

    Attributes:
        halved: batches halved so far, each of which voids the byte promise for its shard.
    """

    def __init__(self, stages: PredictImagesStages) -> None:
        import torch

        from engine.models._folder import load_members
        from engine.scoring._predictor import on_device

        self._stages = stages
        self._device = on_device(stages.device)
        self._encoder = stages.encoder()
        if self._device.type == "cpu":
            # Equal bytes are promised for one intra-op thread, whoever started this process.
            torch.set_num_threads(1)
        self._members: list[Any] = list(load_members(stages.info, self._device))
        self.halved = 0

    def __call__(self, batch: ImageBatch, skipped: dict[int, Skipped]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """(row, (K,) or (K, Y, X)) of the rows with finite values, the mean over the members; others are skipped."""
        rows, size = list(batch.pixels), self._stages.micro_batch
        for begin in range(0, len(rows), size):
            some = rows[begin : begin + size]
            for row, values in zip(some, self._run(np.stack([batch.pixels[row] for row in some])), strict=True):
                if np.isfinite(values).all():
                    yield row, values
                else:
                    sentence = f"the model's head {self._stages.head.name} gave NaN or infinity for this image"
                    skipped[row] = Skipped(states.REJECTED, "model_output_not_finite", sentence)

    def _run(self, pixels_BCYX: NDArray[Any]) -> NDArray[np.float32]:
        """One micro-batch, halved as often as memory asks for it; see Predictor."""
        import torch

        from engine.scoring._memory import full_memory

        try:
            return self._run_members(pixels_BCYX)
        except RuntimeError as error:
            reason = full_memory(error)
            if reason is None:
                raise
        # Outside the handler: the error's traceback would keep the failed batch's tensors alive.
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        if len(pixels_BCYX) == 1:
            what = f"one image of {' x '.join(map(str, pixels_BCYX.shape[1:]))} pixels does not fit into memory"
            fix = "use a device with more memory or fewer workers on it"
            raise SystemFailure(f"{what} ({reason})", where=str(self._device), fix=fix)
        self.halved += 1
        middle = len(pixels_BCYX) // 2
        return np.concatenate([self._run(half) for half in (pixels_BCYX[:middle], pixels_BCYX[middle:])])

    def _run_members(self, pixels_BCYX: NDArray[Any]) -> NDArray[np.float32]:
        import torch

        from engine.scoring._predictor import numerics

        with torch.inference_mode(), numerics(self._device, self._stages.precision):
            tensors = KIND.tensors(self._encoder, ImageInputs(pixels_BCYX), self._device)
            each = [member(*tensors)[self._stages.head.name].float() for member in self._members]
        mean: NDArray[np.float32] = torch.stack(each).mean(dim=0).cpu().numpy()
        return mean


class _BatchScorer:
    """Builds the rows, masks, objects, rejects and counts of a shard."""

    def __init__(self, stages: PredictImagesStages) -> None:
        self._stages = stages
        self._answer = ImageAnswerer(stages)
        self._growing = stages.growing if stages.finds_objects else None

    def __call__(self, batch: ImageBatch) -> ShardOutput:
        before, skipped = self._answer.halved, dict(batch.skipped)
        found: dict[int, NDArray[np.float32]] = {}
        masks: dict[int, NDArray[np.int32]] = {}
        for row, values in self._answer(batch, skipped):
            if self._growing is None:
                found[row] = values
            else:
                masks[row] = objects_of(values, self._growing)
        rows = range(batch.columns.num_rows)
        if self._growing is None:
            told = head_arrays(self._stages.head, [found.get(row) for row in rows])
            files: dict[str, bytes] = {}
        else:
            told = [pa.array([int(masks[row].max(initial=0)) if row in masks else None for row in rows], pa.int32())]
            files = self._files(batch, masks)
        halved = self._answer.halved - before
        output = shard_output(
            rows_table(batch.columns, skipped, told, self._stages.schema()),
            skipped,
            ids=batch.columns["id"],
            notes={"halved_batches": halved} if halved else {},
        )
        return ShardOutput(**{**vars(output), "files": files})

    def _files(self, batch: ImageBatch, masks: Mapping[int, NDArray[np.int32]]) -> dict[str, bytes]:
        """The shard of the masks, empty ones where an image has none, and its objects."""
        spec = self._stages.mask_spec()
        nothing = np.zeros(spec.row_shape, _MASK_DTYPE)
        planes = [masks[row].astype(_MASK_DTYPE) if row in masks else nothing for row in range(batch.columns.num_rows)]
        name = f"{OBJECTS}/{layout.data_part(batch.shard).partition('/')[2]}"
        return {
            shard_name(spec, batch.shard): shard_file(spec, planes),
            name: objects_file(_objects(batch, masks)),
        }


def _objects(batch: ImageBatch, masks: Mapping[int, NDArray[np.int32]]) -> pa.Table:
    """Rows of schemas.tables.OBJECTS."""
    made = []
    for row, mask in masks.items():
        found = morphology(mask, batch.pixels[row])
        num, channels = len(found["object"]), range(len(batch.pixels[row]))
        columns: dict[str, Any] = {
            "record": [batch.columns["record"][row].as_py()] * num,
            "id": [batch.columns["id"][row].as_py()] * num,
        }
        for one in tables.OBJECTS.names[2:]:
            what = one.removeprefix("intensity_")
            columns[one] = (
                found[one] if what == one else np.stack([found[f"{what}_{n}"] for n in channels], axis=1).tolist()
            )
        made.append(pa.table(columns, schema=tables.OBJECTS))
    return pa.concat_tables(made) if made else tables.OBJECTS.empty_table()


def objects_file(table: pa.Table) -> bytes:
    """Parquet of a shard's objects."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "objects.parquet"
        parquet.write_table(table, path, schema_name="objects", version=tables.OBJECTS_VERSION)
        return path.read_bytes()
