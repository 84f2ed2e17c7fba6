import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.training import _metrics

BINARY = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=30)
CLASSES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30)


def once(statistic, count):
    return statistic(np.ones(count))


@given(BINARY)
def test_average_precision_by_its_definition(pairs):
    """Sum over thresholds of (recall step) x precision, each counted from the rows anew."""
    score, positive = np.array([p[0] for p in pairs], float), np.array([p[1] for p in pairs])
    found = once(_metrics.auprc_statistic(score, positive), len(pairs))
    if not positive.any():
        assert math.isnan(found)
        return
    total, before = 0.0, 0.0
    for threshold in sorted(set(score), reverse=True):
        taken = score >= threshold
        recall = (taken & positive).sum() / positive.sum()
        total += (recall - before) * (taken & positive).sum() / taken.sum()
        before = recall
    assert found == pytest.approx(total)


@given(BINARY)
def test_two_classes_have_the_usual_mcc_and_f1(pairs):
    truth, told = np.array([p[1] for p in pairs]).astype(int), np.array([p[0] > 2 for p in pairs]).astype(int)
    tp, tn = int((truth & told).sum()), int(((1 - truth) & (1 - told)).sum())
    fp, fn = int(((1 - truth) & told).sum()), int((truth & (1 - told)).sum())
    found = {name: once(one, len(pairs)) for name, one in _metrics.class_statistics(truth, told, 2).items()}
    below = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert found["mcc"] == pytest.approx((tp * tn - fp * fn) / below if below else 0.0)
    assert found["accuracy"] == pytest.approx((tp + tn) / len(pairs))
    f1 = [2 * hit / (2 * hit + fp + fn) for hit in (tp, tn) if hit + fp + fn]
    assert found["f1_macro"] == pytest.approx(np.mean(f1))


@given(CLASSES)
def test_matthews_for_many_classes_is_a_correlation_of_indicators(pairs):
    """Gorodkin 2004: covariance of the one-hot tables, normalised by their own."""
    truth, told = (np.array([p[side] for p in pairs]) for side in (0, 1))
    x, y = (np.eye(3)[one] - np.eye(3)[one].mean(axis=0) for one in (truth, told))
    below = math.sqrt((x * x).sum() * (y * y).sum())
    found = once(_metrics.class_statistics(truth, told, 3)["mcc"], len(pairs))
    assert found == pytest.approx((x * y).sum() / below if below > 1e-9 else 0.0, abs=1e-9)


@given(CLASSES, st.integers(0, 5))
def test_a_weight_is_so_many_rows(pairs, seed):
    weights = np.random.default_rng(seed).integers(0, 4, len(pairs))
    if weights.sum() == 0:
        return
    truth, told = (np.array([p[side] for p in pairs]) for side in (0, 1))
    score = np.eye(3)[told] + np.arange(3) / 10
    positive = truth[:, None] == np.arange(3)
    rows = np.repeat(np.arange(len(pairs)), weights)
    for make in (
        lambda at: _metrics.class_statistics(truth[at], told[at], 3),
        lambda at: _metrics.ranking_statistics(score[at], positive[at]),
    ):
        weighed, repeated = make(np.arange(len(pairs))), make(rows)
        for name, one in weighed.items():
            assert one(weights.astype(float)) == pytest.approx(once(repeated[name], len(rows)), nan_ok=True)


def test_two_classes_rank_as_the_second():
    score = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.8, 0.2]])
    positive = np.array([[True, False], [False, True], [True, False], [False, True]])
    found = _metrics.values_of(_metrics.ranking_statistics(score, positive), 4)
    assert found["auroc"] == 0.5
    assert found["auprc"] == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_intervals_hold_the_value_and_shrink_with_rows():
    def of(count):
        truth = np.arange(count) % 2
        told = np.where(np.arange(count) % 10 == 0, 1 - truth, truth)
        return _metrics.with_intervals(_metrics.class_statistics(truth, told, 2), count)["accuracy"]

    small, large = of(100), of(10_000)
    assert small["value"] == large["value"] == 0.9
    # Binomial: 1.96 * sqrt(0.9 * 0.1 / N).
    assert large["high"] - large["low"] == pytest.approx(2 * 1.96 * 0.3 / 100, rel=0.15)
    assert small["high"] - small["low"] == pytest.approx(2 * 1.96 * 0.3 / 10, rel=0.15)


def test_what_has_no_value_is_none():
    one_class = _metrics.ranking_statistics(np.ones((3, 1)), np.ones((3, 1), bool))
    assert _metrics.with_intervals(one_class, 3)["auroc"] == {"value": None, "low": None, "high": None}
