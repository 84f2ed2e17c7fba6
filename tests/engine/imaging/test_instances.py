import builtins

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.imaging._scipy import ndimage
from engine.imaging.instances import BACKGROUND, BOUNDARY, INSIDE, Growing, grown, objects_of, pixel_classes
from engine.imaging.matching import match_counts


def certain(classes):
    """Probabilities of a network that is sure of these classes."""
    return (classes[None] == np.arange(3)[:, None, None]).astype(np.float32) * 0.98 + 0.01


def squares(side, gap, count=2):
    """Squares side by side, `gap` pixels apart, on a field with a margin of 3."""
    labels = np.zeros((side + 6, count * (side + gap) + 6), np.int32)
    for number in range(count):
        begin = 3 + number * (side + gap)
        labels[3 : 3 + side, begin : begin + side] = number + 1
    return labels


def test_classes_of_touching_squares():
    classes = pixel_classes(squares(5, 0), boundary_px=1)
    assert (classes == BACKGROUND).sum() == classes.size - 50
    assert (classes == INSIDE).sum() == 2 * 9
    assert (classes[3:8, 7:9] == BOUNDARY).all()


def test_the_edge_of_the_image_is_no_boundary():
    classes = pixel_classes(np.ones((6, 6), np.uint16), boundary_px=2)
    assert (classes == INSIDE).all()


@given(
    depth=st.integers(1, 3),
    side=st.integers(8, 12),
    gap=st.integers(0, 2),
    count=st.integers(1, 4),
    turn=st.integers(0, 3),
)
@settings(max_examples=40)
def test_classes_give_the_objects_back(depth, side, gap, count, turn):
    labels = np.rot90(squares(side, gap, count), turn)
    made = objects_of(certain(pixel_classes(labels, boundary_px=depth)), Growing())
    assert match_counts(labels, made, (1.0,)).tolist() == [[count, 0, 0]]


def test_what_is_thinner_than_its_boundary_is_an_object_still():
    labels = np.zeros((9, 9), np.int32)
    labels[2:4, 2:4] = 1
    labels[6:8, 1:8] = 2
    made = objects_of(certain(pixel_classes(labels, boundary_px=2)), Growing())
    assert match_counts(labels, made, (1.0,)).tolist() == [[2, 0, 0]]
    assert objects_of(certain(pixel_classes(labels, boundary_px=2)), Growing(object_px=5)).max() == 1


def test_small_beginnings_join_their_neighbour():
    classes = pixel_classes(squares(7, 0, 1), boundary_px=1)
    classes[4, 4:9] = BOUNDARY
    classes[4, 4] = INSIDE
    classes[5, 4] = BOUNDARY
    assert objects_of(certain(classes), Growing()).max() == 2
    joined = objects_of(certain(classes), Growing(seed_px=2))
    assert match_counts(squares(7, 0, 1), joined, (1.0,)).tolist() == [[1, 0, 0]]


def test_objects_grow_within_what_they_reach():
    within = np.array([[1, 1, 1, 0, 1, 1]], bool)
    seeds = np.array([[3, 0, 0, 0, 0, 0]], np.int32)
    assert grown(seeds, within).tolist() == [[3, 3, 3, 0, 0, 0]]
    diagonal = np.eye(2, dtype=bool)
    assert grown(np.array([[1, 0], [0, 0]], np.int32), diagonal).tolist() == [[1, 0], [0, 0]]


def test_probabilities_decide_where_objects_begin_and_end():
    inside = np.array([[0.1, 0.6, 0.9, 0.6, 0.1]])
    other = np.array([[0.5, 0.3, 0.05, 0.3, 0.2]])
    probabilities = np.stack([1 - inside - other, inside, other])
    assert objects_of(probabilities, Growing()).tolist() == [[1, 1, 1, 1, 0]]
    assert objects_of(probabilities, Growing(foreground=0.7)).tolist() == [[0, 1, 1, 1, 0]]
    # Without a beginning it is an object of its own.
    assert objects_of(probabilities, Growing(inside=0.95)).tolist() == [[1, 1, 1, 1, 0]]


def test_an_empty_image_has_no_objects():
    empty = certain(np.zeros((4, 5), np.uint8))
    assert not objects_of(empty, Growing(seed_px=3, object_px=3)).any()


@pytest.mark.parametrize("values", [{"inside": 0.0}, {"foreground": 1.0}, {"seed_px": 0}, {"object_px": 0}])
def test_growing_is_checked(values):
    with pytest.raises(ValueError, match="must"):
        Growing(**values)


def test_a_missing_scipy_is_told(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"need scipy, which is not installed; pip install 'replisome\[imaging\]'"):
        ndimage()
