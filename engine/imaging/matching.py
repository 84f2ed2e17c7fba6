"""Objects of one image told against those of another: one to one, by their intersection over union (IoU).

Counts are those of Caicedo et al. 2019 (cyto.a.23863): a pair of objects with IoU at or above a threshold is a true
positive, what is left over of the prediction a false positive, of the truth a false negative.

Shape letters: Y and X rows and columns, T objects of the truth, P predicted ones, E pairs that overlap, H thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.imaging._scipy import optimize

Labels = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""0.50 to 0.95, those over which average precision is taken."""


@dataclass(frozen=True)
class Overlaps:
    """Attributes:
    truth_E, predicted_E: place of the objects of each pair, 0 to T - 1 and 0 to P - 1, in the order of their numbers.
    iou_E: their intersection over union, above 0.
    num_truth, num_predicted: T and P.
    """

    truth_E: Ints
    predicted_E: Ints
    iou_E: Floats
    num_truth: int
    num_predicted: int


def overlaps(truth_YX: Labels, predicted_YX: Labels) -> Overlaps:
    """Every pair of objects that share a pixel. Objects are pixels of one number; 0 is none.

    Raises:
        ValueError: the images are of different shapes.
    """
    if truth_YX.shape != predicted_YX.shape:
        raise ValueError(f"label images of shapes {truth_YX.shape} and {predicted_YX.shape} cannot be matched")
    (truth_T, one), (predicted_P, other) = _numbered(truth_YX), _numbered(predicted_YX)
    width = len(predicted_P) + 1
    codes, counts = np.unique(one * width + other, return_counts=True)
    places_E, others_E = codes // width - 1, codes % width - 1
    inside = (places_E >= 0) & (others_E >= 0)
    places_E, others_E, shared_E = places_E[inside], others_E[inside], counts[inside]
    union_E = truth_T[places_E] + predicted_P[others_E] - shared_E
    return Overlaps(places_E, others_E, shared_E / np.maximum(union_E, 1), len(truth_T), len(predicted_P))


def _numbered(labels: Labels) -> tuple[Ints, Ints]:
    """Pixels of each object, and the flat image with objects as 1 and on; 0 is none."""
    names, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    has_none = bool(len(names)) and names[0] == 0
    return counts[int(has_none) :].astype(np.int64), codes.ravel().astype(np.int64) + (not has_none)


def matched(found: Overlaps, threshold: float) -> Ints:
    """Places in `found` of the pairs that are matched: as many as there can be, and of those the best by summed IoU.

    Args:
        found: of one image.
        threshold: least IoU, above 0; above one half a pair has no rival.
    """
    near = np.flatnonzero(found.iou_E >= threshold)
    rivals = _repeated(found.truth_E[near]) | _repeated(found.predicted_E[near])
    return np.sort(np.concatenate([near[~rivals], _assigned(found, near[rivals])]))


def _repeated(values: Ints) -> npt.NDArray[np.bool_]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    repeated: npt.NDArray[np.bool_] = counts[inverse] > 1
    return repeated


def _assigned(found: Overlaps, pairs: Ints) -> Ints:
    """The same among pairs that contend for objects (Kuhn 1955)."""
    if not len(pairs):
        return pairs
    _, rows = np.unique(found.truth_E[pairs], return_inverse=True)
    _, columns = np.unique(found.predicted_E[pairs], return_inverse=True)
    gains = np.zeros((rows.max() + 1, columns.max() + 1))
    # A pair more outweighs all IoU.
    gains[rows, columns] = len(pairs) + 1.0 + found.iou_E[pairs]
    place = np.full(gains.shape, -1, np.int64)
    place[rows, columns] = pairs
    chosen: Ints = place[optimize().linear_sum_assignment(gains, maximize=True)]
    return chosen[chosen >= 0]


def match_counts(truth_YX: Labels, predicted_YX: Labels, thresholds: Sequence[float] = THRESHOLDS) -> Ints:
    """True positives, false positives and false negatives of one image at each threshold, (H, 3)."""
    found = overlaps(truth_YX, predicted_YX)
    hits_H = np.array([len(matched(found, threshold)) for threshold in thresholds], np.int64)
    return np.stack([hits_H, found.num_predicted - hits_H, found.num_truth - hits_H], axis=1)


def object_f1(counts: npt.ArrayLike) -> Floats:
    """2 TP / (2 TP + FP + FN) of (..., 3); NaN where there is no object at all."""
    hits, alarms, misses = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    return ratio(2 * hits, 2 * hits + alarms + misses)


def average_precision(counts: npt.ArrayLike) -> Floats:
    """TP / (TP + FP + FN) of (..., H, 3), averaged over the thresholds; NaN where there is no object at all."""
    hits, alarms, misses = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    mean: Floats = np.asarray(ratio(hits, hits + alarms + misses).mean(axis=-1))
    return mean


def ratio(part: Floats, whole: Floats) -> Floats:
    """Element by element; NaN where the whole is 0."""
    made = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=made, where=np.asarray(whole) > 0)
    return made
