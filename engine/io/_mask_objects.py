"""Objects of a mask that reuses its values: each connected region of one value becomes an object of its own.

Masks of some sets (BBBC039 among them) only keep touching objects apart, and say to take regions of equal value.
Neighbours are all that touch, corners too. Runs along the last axis are joined by the smallest number among neighbours,
with pointer jumping (Shiloach and Vishkin 1982), so that the work is numpy's.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from engine.io._image_stack import Pixels


def regions(labels: Pixels) -> npt.NDArray[np.uint32]:
    """Number the regions of a mask from 1 on, by their first pixel in C order; 0 stays 0.

    Args:
        labels: whole numbers, two axes or three.
    """
    fresh = np.ones(labels.shape, np.bool_)
    fresh[..., 1:] = labels[..., 1:] != labels[..., :-1]
    runs = (np.cumsum(fresh.ravel()) - 1).reshape(labels.shape)
    roots = _joined(int(runs[(-1,) * runs.ndim]) + 1, _touching(labels, runs))[runs]
    roots[labels == 0] = -1
    found, numbers = np.unique(roots, return_inverse=True)
    shift = 0 if found[0] == -1 else 1
    return (numbers.reshape(labels.shape) + shift).astype(np.uint32)


def _touching(labels: Pixels, runs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(P, 2) runs of one value, other than 0, that touch across an axis before the last."""
    pairs = [np.zeros((0, 2), np.int64)]
    for step in itertools.product((-1, 0, 1), repeat=labels.ndim):
        if step <= (0,) * labels.ndim or not any(step[:-1]):
            continue  # each pair of neighbours once, and runs know their own row
        here = tuple(slice(max(0, -one), size - max(0, one)) for one, size in zip(step, labels.shape, strict=True))
        there = tuple(slice(max(0, one), size - max(0, -one)) for one, size in zip(step, labels.shape, strict=True))
        same = (labels[here] == labels[there]) & (labels[here] != 0)
        pairs.append(np.unique(np.stack([runs[here][same], runs[there][same]], axis=1), axis=0))
    return np.concatenate(pairs)


def _joined(number: int, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The smallest run that each run is joined with, over any number of pairs."""
    parents = np.arange(number)
    while True:
        ends = parents[pairs]
        lowest = ends.min(axis=1)
        before = parents.copy()
        np.minimum.at(parents, ends[:, 0], lowest)
        np.minimum.at(parents, ends[:, 1], lowest)
        while not np.array_equal(jumped := parents[parents], parents):
            parents = jumped
        if np.array_equal(parents, before):
            return parents
