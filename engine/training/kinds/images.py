"""Images, with a class each or a mask of objects each, from the Zarr shards of a set (engine/training/_image_set.py).

Pixels go over the wire as they were ingested; the encoder makes floats of them where the network is.

Shape letters: B samples of a batch, C channels, Y and X rows and columns, N samples of a group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from engine.errors import InputError
from engine.io.image_store import STORE
from engine.training._image_augmentation import ImageAugmentation
from engine.training._image_set import ImageReader, ImageSet, open_image_set
from engine.training._split_table import SPLIT_NAMES, Group, Split, SplitTable
from engine.training._task import Task
from engine.training.kinds.sequences import built_augmentation

MASKS = "masks"
"""The column of a task whose targets are the objects of each image; every other column is of the set's index."""
_GROUP_BYTES = 8 << 20


@dataclass(frozen=True)
class ImageInputs:
    """Attributes:
    pixels_BCYX: of the set's type.
    """

    pixels_BCYX: NDArray[Any]

    def __len__(self) -> int:
        return len(self.pixels_BCYX)

    def part(self, begin: int, end: int) -> ImageInputs:
        """Some of its samples."""
        return ImageInputs(self.pixels_BCYX[begin:end])

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """The pixels."""
        return {"pixels": self.pixels_BCYX}

    def told(self) -> str:
        """Their number and size."""
        channels, height, width = self.pixels_BCYX.shape[1:]
        return f"{len(self)} images of {channels} x {height} x {width} pixels"


@dataclass(frozen=True)
class HeldImages:
    """A group in memory: pixels (N, C, Y, X), masks (N, Y, X) where they are the targets, and the targets."""

    pixels: NDArray[Any]
    masks: NDArray[Any] | None
    targets: Any

    @property
    def nbytes(self) -> int:
        """Of pixels and masks."""
        return int(self.pixels.nbytes) + (0 if self.masks is None else int(self.masks.nbytes))

    def sample(self, place: int) -> tuple[NDArray[Any], NDArray[Any] | None, Any]:
        """Pixels (C, Y, X), and the mask (Y, X) or the target."""
        mask = None if self.masks is None else self.masks[place]
        return self.pixels[place], mask, None if self.targets is None else self.targets[place]


class ImageSampleReader:
    """Reads the images of a split; picklable, holding a few shard indexes and no pixels.

    Args:
        data: the set.
        task: what to tell of them.
        augmentation: None for evaluation.
    """

    def __init__(self, data: ImageSet, *, task: Task, augmentation: ImageAugmentation | None) -> None:
        self._data = data
        self._task = task
        self._augmentation = augmentation
        self._images = ImageReader(data)

    def read(self, group: Group) -> HeldImages:
        """See SampleReader."""
        pixels = self._images.images(group.records)
        if self._task.column == MASKS:
            masks = self._task.targets(self._images.masks(group.records), records=group.records, where=group.part)
            return HeldImages(pixels, masks, None)
        column = KIND.targets(self._data, group, self._task.column)
        return HeldImages(pixels, None, self._task.targets(column, records=group.records, where=group.part))

    def batch(self, samples: Sequence[Any], seeds_B: NDArray[np.int64]) -> tuple[ImageInputs, NDArray[Any]]:
        """See SampleReader."""
        pairs = [(pixels, mask) for pixels, mask, _ in samples]
        if self._augmentation is not None:
            varied = self._augmentation.applied
            pairs = [varied(*pair, seed) for pair, seed in zip(pairs, seeds_B.tolist(), strict=True)]
        targets = [target if mask is None else mask for (_, mask), (_, _, target) in zip(pairs, samples, strict=True)]
        return ImageInputs(_stacked([pixels for pixels, _ in pairs], self._data)), self._task.stack(targets)


def _stacked(planes: list[NDArray[Any]], data: ImageSet) -> NDArray[Any]:
    if not planes:
        return np.zeros((0, *_shape(data)), data.dtype)
    return np.ascontiguousarray(np.stack(planes))


class ImageKind:
    """See engine/training/_kind.py.

    Attributes:
        together_bytes: most bytes of images that go through a network at once; it holds a hundred times as much.
    """

    name = "images"
    noun = "images"
    together_bytes = 2 << 20

    def open(self, path: str) -> ImageSet:
        """See Kind."""
        return open_image_set(path)

    def index_splits(
        self, data: ImageSet, table: SplitTable, *, fold: int | None = None, inner_fold: int | None = None
    ) -> Mapping[str, Split]:
        """See Kind. A group is a run of neighbours in an array, of some megabytes."""
        names = table.of(data.records, fold=fold, inner_fold=inner_fold, where=data.path)
        size = int(np.prod(_shape(data))) * data.dtype.itemsize
        run_of = data.row_of // max(1, _GROUP_BYTES // max(size, 1))
        found: dict[str, list[Group]] = {name: [] for name in SPLIT_NAMES}
        order = np.lexsort((data.row_of, data.array_of))
        begins = np.flatnonzero(np.diff(data.array_of[order], prepend=-1) | np.diff(run_of[order], prepend=-1))
        for run in np.split(order, begins[1:]) if len(order) else []:
            part = f"{data.path}/{STORE}/{data.arrays[data.array_of[run[0]]]}"
            for split, groups in found.items():
                mine = run[names[run] == split]
                if len(mine):
                    rows = data.row_of[mine].astype(np.int32)
                    groups.append(Group(part, int(run_of[mine[0]]), rows, data.records[mine], size))
        return {split: tuple(groups) for split, groups in found.items()}

    def targets(self, data: ImageSet, group: Group, column: str) -> Any:
        """See Kind. A column of the index, (N,), or the masks, (N, Y, X)."""
        if column == MASKS:
            return ImageReader(data).masks(group.records)
        return pa.chunked_array([data.labels.take(pa.array(data.places(group.records)))])

    def group_names(self, data: ImageSet, group: Group, column: str) -> list[str | None]:
        """See Kind."""
        names = data.ids if column == "id" else data.groups
        found: list[str | None] = names.take(pa.array(data.places(group.records))).to_pylist()
        return found

    def augmentation(self, values: Mapping[str, Any]) -> ImageAugmentation:
        """See Kind."""
        return built_augmentation(ImageAugmentation, values, self.noun)

    def reader(
        self,
        data: ImageSet,
        *,
        encoder: Any,  # noqa: ARG002 - it works where the network is
        task: Task,
        augmentation: ImageAugmentation | None,
    ) -> ImageSampleReader:
        """See Kind."""
        return ImageSampleReader(data, task=task, augmentation=augmentation)

    def decided(self, data: ImageSet, encoder: Any, augmentation: ImageAugmentation) -> Mapping[str, Any]:
        """See Kind.

        Raises:
            InputError: the encoder is for another number of channels or type of pixels, or the augmentation for other
                images.
        """
        channels, height, width = _shape(data)
        if encoder.channels != channels:
            what = f"the images have {channels} channels, and the encoder is told {encoder.channels}"
            raise InputError(what, where="key 'encoder.params.channels'", fix=f"set it to {channels}")
        if what := refused_pixels(encoder, data):
            fix = "set it to values (with low and high), percentiles or standard"
            raise InputError(what, where="key 'encoder.params.scale'", fix=fix)
        augmentation.check_shape((height, width))
        return {"in_channels": channels}

    def filled(self, params: Mapping[str, Any], splits: Mapping[str, Split]) -> Mapping[str, Any]:  # noqa: ARG002
        """Nothing."""
        return {}

    def tensors(self, encoder: Any, inputs: ImageInputs, device: torch.device) -> tuple[Any, ...]:
        """What the encoder gives."""
        return (encoder.tensor(torch.from_numpy(inputs.pixels_BCYX).to(device)),)

    def blank(self, encoder: Any, device: torch.device) -> tuple[Any, ...]:
        """One dark pixel."""
        return (encoder.tensor(torch.zeros(1, encoder.channels, 1, 1, dtype=torch.uint8, device=device)),)

    def wire_bytes(self, split: Split) -> int:
        """Those of the largest image."""
        return max(group.longest for group in split)

    def card_facts(self, train: Split) -> Mapping[str, Any]:  # noqa: ARG002
        """Nothing."""
        return {}


def refused_pixels(encoder: Any, data: ImageSet) -> str:
    """Why an encoder does not take pixels of the set's type; empty where it does, or does not say."""
    return str(encoder.refusal(data.dtype.name)) if hasattr(encoder, "refusal") else ""


def _shape(data: ImageSet) -> tuple[int, int, int]:
    """Channels, height and width of every image.

    Raises:
        InputError: they differ, or they are volumes.
    """
    if data.shape is None:
        raise InputError("the images are of several sizes", where=data.path, fix="ingest them with --sizes one")
    if len(data.shape) != 3:
        what = f"the images are volumes, {' x '.join(map(str, data.shape))}"
        raise InputError(what, where=data.path, fix="ingest them with --stacks planes or --projections")
    channels, height, width = data.shape
    return channels, height, width


KIND = ImageKind()
