"""Objects without learning: a threshold, holes filled, specks removed, connected regions.

It is the floor that a trained network is held against.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from engine.imaging._scipy import ndimage

NUM_BINS = 256


def otsu_threshold(pixels: npt.NDArray[Any]) -> float:
    """The value that parts a histogram of 256 bins into two classes of least summed variance (Otsu 1979).

    Pixels above it are bright; of a constant image it is that constant.
    """
    low, high = float(pixels.min()), float(pixels.max())
    if low == high:
        return low
    counts, edges = np.histogram(pixels, bins=NUM_BINS, range=(low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    below, sums = np.cumsum(counts), np.cumsum(counts * centres)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1 + int(np.nanargmax(between[:-1]))])


def otsu_objects(pixels_YX: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """A label image (Y, X): regions above the threshold, filled and opened by a 3 x 3 square."""
    bright_YX = ndimage().binary_fill_holes(pixels_YX > otsu_threshold(pixels_YX))
    labels: npt.NDArray[np.int32] = ndimage().label(ndimage().binary_opening(bright_YX, np.ones((3, 3), bool)))[0]
    return labels
