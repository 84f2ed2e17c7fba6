"""From objects to classes of pixels that a network can learn, and back.

Three classes keep touching objects apart: background, inside and boundary, the boundary being the outermost pixels of
each object itself (after Caicedo et al. 2019, cyto.a.23863, who let it lie on both sides). Objects are then the
connected regions of the inside, grown over the boundary.

Shape letters: B images, Y and X rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.imaging._scipy import ndimage

CLASSES = ("background", "inside", "boundary")
BACKGROUND, INSIDE, BOUNDARY = range(3)


def pixel_classes(labels_YX: npt.NDArray[Any], *, boundary_px: int) -> npt.NDArray[np.uint8]:
    """The class of each pixel of a label image, (Y, X).

    Args:
        labels_YX: objects by number, 0 is none.
        boundary_px: how many pixels deep an object's boundary is, corners counting as neighbours; the edge of the
            image is none.
    """
    size = 2 * boundary_px + 1
    highest = ndimage().maximum_filter(labels_YX, size=size, mode="nearest")
    lowest = ndimage().minimum_filter(labels_YX, size=size, mode="nearest")
    classes = np.where(highest == lowest, np.uint8(INSIDE), np.uint8(BOUNDARY))
    classes[labels_YX == 0] = BACKGROUND
    return classes


@dataclass(frozen=True)
class Growing:
    """How objects are made of probabilities.

    Attributes:
        inside: least probability of the inside where an object begins.
        foreground: least probability of inside and boundary together where it ends.
        seed_px: least pixels of a beginning; smaller ones join their neighbours.
        object_px: least pixels of an object.
    """

    inside: float = 0.5
    foreground: float = 0.5
    seed_px: int = 1
    object_px: int = 1

    def __post_init__(self) -> None:
        if not (0 < self.inside < 1 and 0 < self.foreground < 1):
            raise ValueError("inside and foreground must lie between 0 and 1")
        if self.seed_px < 1 or self.object_px < 1:
            raise ValueError("seed_px and object_px must be 1 or more")


def objects_of(probabilities_KYX: npt.NDArray[np.floating[Any]], growing: Growing) -> npt.NDArray[np.int32]:
    """A label image (Y, X), objects 1 and on, from the probabilities of CLASSES, (3, Y, X)."""
    foreground_YX = 1.0 - probabilities_KYX[BACKGROUND] >= growing.foreground
    seeds_YX, _ = ndimage().label((probabilities_KYX[INSIDE] >= growing.inside) & foreground_YX)
    seeds_YX = _large(seeds_YX, growing.seed_px)
    labels_YX = grown(seeds_YX, foreground_YX)
    # What is too thin for an inside is an object still.
    rest_YX, _ = ndimage().label(foreground_YX & (labels_YX == 0))
    labels_YX = np.where(rest_YX > 0, rest_YX + labels_YX.max(initial=0), labels_YX)
    return _renumbered(_large(labels_YX, growing.object_px))


def grown(seeds_YX: npt.NDArray[np.int32], within_YX: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Objects spread over the pixels they reach, step by step; where several meet at once the higher number stays."""
    labels_YX = np.where(within_YX, seeds_YX, 0).astype(np.int32)
    while True:
        # A cross: no step over a corner.
        near_YX = ndimage().grey_dilation(labels_YX, footprint=_CROSS, mode="constant")
        gained_YX = within_YX & (labels_YX == 0) & (near_YX > 0)
        if not gained_YX.any():
            return labels_YX
        labels_YX[gained_YX] = near_YX[gained_YX]


_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)


def _large(labels_YX: npt.NDArray[np.int32], least_px: int) -> npt.NDArray[np.int32]:
    if least_px <= 1:
        return labels_YX
    sizes = np.bincount(labels_YX.ravel())
    return np.where(sizes[labels_YX] >= least_px, labels_YX, 0).astype(np.int32)


def _renumbered(labels_YX: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Without gaps, in the order of the numbers."""
    names, codes = np.unique(labels_YX, return_inverse=True)
    shift = 0 if names[0] == 0 else 1
    return (codes.reshape(labels_YX.shape) + shift).astype(np.int32)
