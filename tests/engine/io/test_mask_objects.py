"""Connected regions of equal value: what a plain flood fill finds."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.io._mask_objects import regions


def flood(labels: np.ndarray) -> np.ndarray:
    """Said again, pixel by pixel."""
    found = np.zeros(labels.shape, np.uint32)
    steps = [step for step in itertools.product((-1, 0, 1), repeat=labels.ndim) if any(step)]
    number = 0
    for start in np.ndindex(*labels.shape):
        if labels[start] == 0 or found[start]:
            continue
        number += 1
        found[start] = number
        held = [start]
        while held:
            place = held.pop()
            for step in steps:
                there = tuple(a + b for a, b in zip(place, step, strict=True))
                inside = all(0 <= a < size for a, size in zip(there, labels.shape, strict=True))
                if inside and not found[there] and labels[there] == labels[start]:
                    found[there] = number
                    held.append(there)
    return found


@given(
    hnp.arrays(
        np.uint8,
        hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=9),
        elements=st.sampled_from([0, 0, 1, 1, 2]),
    )
)
def test_equals_a_flood_fill(labels):
    np.testing.assert_array_equal(regions(labels), flood(labels))


def test_a_spiral_is_one_object():
    labels = np.zeros((41, 41), np.uint16)
    for ring in range(0, 20, 2):
        labels[ring, ring : 41 - ring] = labels[ring : 41 - ring, 40 - ring] = 7
        labels[40 - ring, ring : 41 - ring] = labels[ring + 2 : 41 - ring, ring] = 7
        labels[ring + 2, ring : ring + 3] = 7
    np.testing.assert_array_equal(regions(labels), flood(labels))


def test_objects_of_one_value_that_touch_at_a_corner_are_one():
    assert regions(np.array([[5, 0], [0, 5]])).tolist() == [[1, 0], [0, 1]]
    assert regions(np.array([[5, 6], [6, 5]])).tolist() == [[1, 2], [2, 1]]
    assert regions(np.zeros((2, 2), int)).tolist() == [[0, 0], [0, 0]]
    assert regions(np.full((2, 2), 9)).tolist() == [[1, 1], [1, 1]]
