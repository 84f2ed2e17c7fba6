import builtins
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.imaging.matching import (
    THRESHOLDS,
    average_precision,
    match_counts,
    matched,
    object_f1,
    overlaps,
)

IMAGES = st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=3, max_size=3).map(np.array)


def strips(*lengths):
    return np.repeat(np.arange(len(lengths)) + 1, lengths)[None, :]


def test_counts_of_a_known_image():
    truth = np.array([[1, 1, 1, 1, 0, 2, 2, 2, 0, 5]])
    predicted = np.array([[7, 7, 7, 0, 0, 2, 0, 0, 4, 0]])
    # IoU 3/4 of the first pair, 1/3 of the second; object 5 is missed, object 4 is no object.
    assert match_counts(truth, predicted, (0.3, 0.5, 0.75, 0.76)).tolist() == [
        [2, 1, 1],
        [1, 2, 2],
        [1, 2, 2],
        [0, 3, 3],
    ]


def test_halves_of_one_object_count_once():
    counts = match_counts(strips(4), strips(2, 2), (0.5,))
    assert counts.tolist() == [[1, 1, 0]]


def test_as_many_pairs_as_there_can_be():
    # A pair of IoU 2/3 would leave both others alone; one with each of them gives two pairs.
    truth, predicted = strips(3, 3), np.array([[1, 2, 2, 2, 2, 2]])
    found = overlaps(truth, predicted)
    assert sorted(found.iou_E.tolist()) == [1 / 3, 1 / 3, 3 / 5]
    assert len(matched(found, 0.3)) == 2


@given(truth=IMAGES, predicted=IMAGES, threshold=st.sampled_from([0.05, 0.2, 0.5, 0.7]))
@settings(max_examples=60)
def test_as_every_possible_assignment_has_it(truth, predicted, threshold):
    names = [[name for name in np.unique(one) if name] for one in (truth, predicted)]
    iou = {
        (a, b): ((truth == a) & (predicted == b)).sum() / ((truth == a) | (predicted == b)).sum()
        for a, b in itertools.product(*names)
    }
    near = [pair for pair, value in iou.items() if value >= threshold]
    most = max(
        (
            (len(chosen), sum(iou[pair] for pair in chosen))
            for size in range(len(near) + 1)
            for chosen in itertools.combinations(near, size)
            if len({a for a, _ in chosen}) == len({b for _, b in chosen}) == size
        ),
        default=(0, 0.0),
    )
    found = overlaps(truth, predicted)
    pairs = matched(found, threshold)
    assert (len(pairs), pytest.approx(found.iou_E[pairs].sum())) == most
    hits, alarms, misses = match_counts(truth, predicted, (threshold,))[0].tolist()
    assert (hits + misses, hits + alarms) == (len(names[0]), len(names[1]))


@given(truth=IMAGES, predicted=IMAGES)
@settings(max_examples=40)
def test_other_numbers_and_the_other_way_round(truth, predicted):
    counts = match_counts(truth, predicted)
    renamed = np.array([0, 40, 7, 1000])[truth]
    assert (match_counts(renamed, predicted) == counts).all()
    assert (match_counts(predicted, truth) == counts[:, [0, 2, 1]]).all()
    assert (np.diff(counts[:, 0]) <= 0).all()


def test_equal_images_are_perfect():
    counts = match_counts(strips(3, 1, 2), strips(3, 1, 2))
    assert (object_f1(counts) == 1).all()
    assert average_precision(counts) == 1
    assert len(counts) == len(THRESHOLDS)
    assert (THRESHOLDS[0], THRESHOLDS[4], THRESHOLDS[-1]) == (0.5, 0.7, 0.95)


def test_nothing_in_either_has_no_figure():
    counts = match_counts(np.zeros((2, 2), int), np.zeros((2, 2), int))
    assert not counts.any()
    assert np.isnan(object_f1(counts)).all()
    assert np.isnan(average_precision(counts))


def test_no_background_at_all():
    assert match_counts(np.ones((2, 2), int), np.full((2, 2), 9), (0.5,)).tolist() == [[1, 0, 0]]


def test_figures_of_counts():
    assert object_f1([[6, 2, 2]]).tolist() == [0.75]
    assert average_precision(np.array([[[6, 2, 2], [3, 5, 5]]])).tolist() == [pytest.approx((0.6 + 3 / 13) / 2)]


def test_images_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match=r"shapes \(2, 2\) and \(2, 3\) cannot be matched"):
        overlaps(np.zeros((2, 2), int), np.zeros((2, 3), int))


def test_a_missing_scipy_is_told(monkeypatch):
    asked = builtins.__import__

    def without(name, *more):
        if name.startswith("scipy"):
            raise ImportError(name)
        return asked(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"need scipy, which is not installed; pip install 'replisome\[imaging\]'"):
        match_counts(strips(2, 2), strips(1, 2, 1), (0.3,))
