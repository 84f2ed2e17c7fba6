"""The objects of each image, such as nuclei: three classes of pixels, and objects grown from them.

The network tells background, inside and boundary of each pixel (engine/imaging/instances.py). Figures are those of
whole objects, matched one to one with the truth (engine/imaging/matching.py); what is kept of an image for them is
counts, so that a bootstrap draws images.

Shape letters: B images of a batch, N images, K classes, Y and X rows and columns, S numbers kept, H thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, stack, tensor, where
from torch.nn import functional as F

from engine.errors import InputError
from engine.imaging.instances import BACKGROUND, BOUNDARY, CLASSES, INSIDE, Growing, objects_of
from engine.imaging.matching import THRESHOLDS, average_precision, match_counts, object_f1, ratio
from engine.scoring._metrics import Statistic
from engine.training import _metrics
from engine.training._task import Floats, Ids, refused

_K, _H = len(CLASSES), len(THRESHOLDS)
_TOLD = (0.5, 0.7, 0.9)
# float32 tells whole numbers apart up to here.
_MOST_OBJECTS = 1 << 24


@dataclass(frozen=True)
class ImageSegmentationParams:
    """Attributes:
    boundary_px: how many pixels deep the boundary of an object is.
    boundary_weight: how much a pixel of a boundary counts in the loss beside one of another class.
    inside, foreground, seed_px, object_px: how objects are grown; see engine.imaging.instances.Growing.
    """

    boundary_px: int = 2
    boundary_weight: float = 1.0
    inside: float = 0.5
    foreground: float = 0.5
    seed_px: int = 1
    object_px: int = 1

    def __post_init__(self) -> None:
        if type(self.boundary_px) is not int or not 1 <= self.boundary_px <= 50:
            raise ValueError(f"boundary_px must be a whole number from 1 to 50, found {self.boundary_px!r}")
        if not 0 < self.boundary_weight < float("inf"):
            raise ValueError(f"boundary_weight must be above 0 and finite, found {self.boundary_weight!r}")
        _ = self.growing

    @property
    def growing(self) -> Growing:
        """How objects are made of probabilities."""
        return Growing(self.inside, self.foreground, self.seed_px, self.object_px)


@dataclass(frozen=True)
class ImageSegmentation:
    """Attributes:
    params: as asked for.
    shares: of the training pixels of each class.
    num_images, num_objects: in the training rows.
    """

    params: ImageSegmentationParams
    shares: tuple[float, ...]
    num_images: int
    num_objects: int

    Params = ImageSegmentationParams
    RESULT_VERSION = 1
    kind = "images"
    level = "pixel"
    head = "pixel_class"
    activation = "softmax"
    outputs = CLASSES

    @staticmethod
    def column_of(params: Any) -> str:  # noqa: ARG004 - the same for all
        """Where the targets are."""
        return "masks"

    @property
    def column(self) -> str:
        """Where the targets are."""
        return self.column_of(self.params)

    @classmethod
    def fit(cls, params: ImageSegmentationParams, columns: Iterable[Any]) -> ImageSegmentation:
        """Count pixels of each class, and objects, in masks (N, Y, X)."""
        pixels_K, images, objects = np.zeros(_K, np.int64), 0, 0
        for masks_NYX in columns:
            wide = np.asarray(masks_NYX).astype(np.int32)
            classes = pixel_classes(tensor(wide), params.boundary_px).numpy()
            pixels_K += np.bincount(classes.ravel(), minlength=_K)
            images += len(wide)
            objects += sum(len(np.unique(one[one > 0])) for one in wide)
        if not objects:
            fix = "give masks of objects when the set is made"
            raise InputError("the masks of the training rows hold no object", where="task", fix=fix)
        return cls(params, tuple((pixels_K / pixels_K.sum()).tolist()), images, objects)

    @classmethod
    def from_facts(
        cls, params: ImageSegmentationParams, outputs: tuple[str, ...], facts: Mapping[str, Any]
    ) -> ImageSegmentation:
        """The task as a model folder keeps it: see `facts`."""
        shares = tuple(facts["pixel_shares"][name] for name in outputs)
        return cls(params, shares, facts["images"], facts["objects"])

    def bias(self) -> Floats:
        """Logarithm of each class's share; a class without a pixel begins as one in a million."""
        logits_K: Floats = np.log(np.maximum(np.array(self.shares), 1e-6))
        return logits_K

    def targets(self, column: Any, *, records: Ids, where: str) -> NDArray[np.int32]:
        """(N, Y, X) numbers of the objects, 0 for none; see Task."""
        masks_NYX = np.asarray(column)
        if masks_NYX.dtype.kind not in "ui" or masks_NYX.ndim != 3:
            what = f"masks of type {masks_NYX.dtype} and {masks_NYX.ndim - 1} axes"
            raise InputError(f"{what}, wanted are whole numbers on 2 axes", where=where, fix="make the set anew")
        wrong = (masks_NYX.min(axis=(1, 2), initial=0) < 0) | (masks_NYX.max(axis=(1, 2), initial=0) >= _MOST_OBJECTS)
        if wrong.any():
            place = int(np.flatnonzero(wrong)[0])
            low, high = int(masks_NYX[place].min()), int(masks_NYX[place].max())
            what = f"a mask with numbers from {low} to {high}, wanted are 0 to {_MOST_OBJECTS - 1}"
            raise refused(what, int(records[place]), where)
        return masks_NYX.astype(np.int32)

    def stack(self, rows: Sequence[Any]) -> NDArray[np.int32]:
        """(B, Y, X)."""
        return np.ascontiguousarray(np.stack(rows), np.int32) if rows else np.zeros((0, 1, 1), np.int32)

    def losses(self, logits_BKYX: Tensor, masks_BYX: Tensor) -> Tensor:
        """(B,) cross entropy, mean over the pixels of an image."""
        classes_BYX = pixel_classes(masks_BYX, self.params.boundary_px)
        losses_BYX = F.cross_entropy(logits_BKYX, classes_BYX, reduction="none")
        if self.params.boundary_weight != 1:
            weights_BYX = where(classes_BYX == BOUNDARY, self.params.boundary_weight, 1.0)
            return (losses_BYX * weights_BYX).sum(dim=(1, 2)) / weights_BYX.sum(dim=(1, 2))
        return losses_BYX.mean(dim=(1, 2))

    def weights(self, masks_BYX: Tensor) -> Tensor:
        """(B,) ones."""
        return tensor(1.0, device=masks_BYX.device).expand(len(masks_BYX))

    @property
    def kept_names(self) -> tuple[str, ...]:
        """Matched objects at each threshold, predicted and true objects, and pixels by true and predicted class."""
        matched = tuple(f"matched_{_percent(threshold)}" for threshold in THRESHOLDS)
        pixels = tuple(f"pixels_{truth}_as_{told}" for truth in CLASSES for told in CLASSES)
        return (*matched, "predicted_objects", "true_objects", *pixels)

    def kept(self, values: NDArray[Any], targets: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """(B, S) counts, see `kept_names`, and (B,) true objects."""
        classes_BYX = pixel_classes(tensor(targets), self.params.boundary_px).numpy()
        rows = []
        for values_KYX, mask_YX, classes_YX in zip(values, targets, classes_BYX, strict=True):
            counts_H3 = match_counts(mask_YX, objects_of(values_KYX, self.params.growing))
            told_YX = values_KYX.argmax(axis=0)
            pixels = _metrics.confusion(classes_YX.ravel().astype(np.int64), told_YX.ravel(), _K)
            found, truth = counts_H3[0, :2].sum(), counts_H3[0, [0, 2]].sum()
            rows.append([*counts_H3[:, 0], found, truth, *pixels.ravel()])
        kept_BS = np.array(rows, np.float64).reshape(len(targets), len(self.kept_names))
        return kept_BS, kept_BS[:, _H + 1].astype(np.int64)

    def statistics(self, kept_NS: Floats, targets: NDArray[Any]) -> Mapping[str, Statistic]:  # noqa: ARG002
        """F1 of objects at some thresholds, average precision over all, and Dice's coefficient of the foreground.

        Counts are pooled over the images; `..._per_sample` are the means of the images' own F1, over those with an
        object that is true or predicted.
        """
        hits_NH = kept_NS[:, :_H]
        counts_NH3 = np.stack([hits_NH, kept_NS[:, [_H]] - hits_NH, kept_NS[:, [_H + 1]] - hits_NH], axis=2)
        f1_NH = object_f1(counts_NH3)

        def f1(place: int) -> Statistic:
            return lambda weights_N: float(object_f1(_objects(weights_N @ kept_NS))[place])

        def per_sample(place: int) -> Statistic:
            own_N = f1_NH[:, place]
            return lambda weights_N: _mean(own_N, weights_N)

        places = {f"object_f1_{_percent(threshold)}": THRESHOLDS.index(threshold) for threshold in _TOLD}
        return {
            **{name: f1(place) for name, place in places.items()},
            **{f"{name}_per_sample": per_sample(places[name]) for name in ("object_f1_50", "object_f1_70")},
            "average_precision": lambda weights_N: float(average_precision(_objects(weights_N @ kept_NS))),
            "dice": lambda weights_N: _dice(self.pixel_counts(weights_N @ kept_NS)),
        }

    def threshold_statistics(self, kept_NS: Floats) -> dict[str, tuple[int, dict[str, Statistic]]]:
        """For each IoU, such as "0.50", the objects that are matched there, and figures of all objects pooled."""

        def of(figure: Callable[[Floats], Floats], place: int) -> Statistic:
            return lambda weights_N: float(figure(_objects(weights_N @ kept_NS))[place])

        figures = {
            "object_precision": lambda counts_H3: ratio(counts_H3[:, 0], counts_H3[:, :2].sum(axis=1)),
            "object_recall": lambda counts_H3: ratio(counts_H3[:, 0], counts_H3[:, [0, 2]].sum(axis=1)),
            "object_f1": object_f1,
            "average_precision": lambda counts_H3: ratio(counts_H3[:, 0], counts_H3.sum(axis=1)),
        }
        return {
            f"{threshold:.2f}": (
                int(kept_NS[:, place].sum()),
                {name: of(figure, place) for name, figure in figures.items()},
            )
            for place, threshold in enumerate(THRESHOLDS)
        }

    def pixel_counts(self, sums_S: Floats) -> Floats:
        """(K, K) pixels, truth in rows, of what is kept, summed over images."""
        return sums_S[_H + 2 :].reshape(_K, _K)

    def pictured(self, values_BKYX: NDArray[Any], targets_BYX: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """True and found objects (B, Y, X), for pictures."""
        return targets_BYX, np.stack([objects_of(one, self.params.growing) for one in values_BKYX])

    def lower_is_better(self) -> tuple[str, ...]:
        """None."""
        return ()

    def confusion(self, kept_NS: Floats, targets: NDArray[Any]) -> Ids:  # noqa: ARG002
        """(K, K) pixels, truth in rows."""
        counts_KK: Ids = kept_NS[:, _H + 2 :].sum(axis=0).reshape(_K, _K).astype(np.int64)
        return counts_KK

    def truths(self, targets: NDArray[Any]) -> None:  # noqa: ARG002
        """An image has all classes."""
        return

    def facts(self) -> Mapping[str, Any]:
        """Classes with their share of the pixels, and what there was to learn from."""
        shares = dict(zip(CLASSES, self.shares, strict=True))
        return {"pixel_shares": shares, "images": self.num_images, "objects": self.num_objects}


def pixel_classes(masks_BYX: Tensor, boundary_px: int) -> Tensor:
    """(B, Y, X) int64 classes of pixels, as engine.imaging.instances.pixel_classes has them, on any device."""
    size = 2 * boundary_px + 1
    numbers = masks_BYX.float()
    ends = F.max_pool2d(stack([numbers, -numbers], dim=1), size, stride=1, padding=boundary_px)
    classes = where(ends[:, 0] == -ends[:, 1], INSIDE, BOUNDARY)
    return where(masks_BYX == 0, BACKGROUND, classes)


def _objects(sums_S: Floats) -> Floats:
    """(H, 3) hits, alarms and misses of what is kept, summed over images."""
    hits_H = sums_S[:_H]
    return np.stack([hits_H, sums_S[_H] - hits_H, sums_S[_H + 1] - hits_H], axis=1)


def _percent(threshold: float) -> int:
    return round(100 * threshold)


def _mean(values_N: Floats, weights_N: Floats) -> float:
    """Over the rows that have a value; NaN where none has."""
    there_N = weights_N * np.isfinite(values_N)
    total = there_N.sum()
    return float(there_N @ np.nan_to_num(values_N) / total) if total else float("nan")


def _dice(pixels_KK: Floats) -> float:
    both = pixels_KK[1:, 1:].sum()
    either = pixels_KK[1:].sum() + pixels_KK[:, 1:].sum()
    return float(2 * both / either) if either else float("nan")


COMPONENT = ImageSegmentation
