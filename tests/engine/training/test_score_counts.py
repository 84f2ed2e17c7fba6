"""Areas under curves from counts in bins, held against scikit-learn on the scores themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from engine.training._score_counts import NUM_SCORE_BINS, ScoreCounts, bin_of

LENGTHS = (1, 7, 40, 200, 333)


def samples(seed: int, share: float, spread: float):
    """Sequences of unlike lengths; scores of the class are higher by `spread` in log-odds."""
    draw = np.random.default_rng(seed)
    found = []
    for length in LENGTHS:
        positive = draw.random(length) < share
        odds = draw.normal(-3, 2, length) + spread * positive
        found.append(((1 / (1 + np.exp(-odds))).astype(np.float32).astype(np.float64), positive))
    return found


def topk(score: np.ndarray, positive: np.ndarray) -> float:
    k = positive.sum()
    return positive[np.argsort(-score, kind="stable")[:k]].mean()


@given(st.integers(0, 999), st.sampled_from([0.02, 0.3, 0.9]), st.floats(-1, 6))
def test_figures_are_those_of_scikit_learn_within_the_told_error(seed, share, spread):
    parts = samples(seed, share, spread)
    score, positive = (np.concatenate(one) for one in zip(*parts, strict=True))
    if positive.all() or not positive.any():
        return
    pooled = ScoreCounts.of(parts).pooled(np.ones(len(parts)))
    errors = pooled.errors()
    assert abs(pooled.auroc() - metrics.roc_auc_score(positive, score)) <= errors["auroc"] + 1e-12
    assert abs(pooled.auprc() - metrics.average_precision_score(positive, score)) <= errors["auprc"] + 1e-9
    assert abs(pooled.topk() - topk(score, positive)) <= errors["topk_accuracy"] + 1e-12
    assert errors["auroc"] < 0.01


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=60))
def test_of_scores_a_bin_apart_the_areas_are_exact(pairs):
    score = 1 / (1 + np.exp(-(np.array([one for one, _ in pairs]) - 6.0)))
    positive = np.array([is_of for _, is_of in pairs])
    if positive.all() or not positive.any():
        return
    pooled = ScoreCounts.of([(score, positive)]).pooled(np.ones(1))
    assert pooled.auroc() == pytest.approx(metrics.roc_auc_score(positive, score), abs=1e-12)
    assert pooled.auprc() == pytest.approx(metrics.average_precision_score(positive, score), abs=1e-12)


@given(st.lists(st.integers(0, 4), min_size=5, max_size=5).filter(any))
def test_weights_are_samples_drawn_so_often(times):
    parts = samples(3, 0.3, 2.0)
    weighted = ScoreCounts.of(parts).pooled(np.array(times, float))
    drawn = ScoreCounts.of([one for one, num in zip(parts, times, strict=True) for _ in range(num)])
    again = drawn.pooled(np.ones(sum(times)))
    np.testing.assert_array_equal(weighted.positive_H, again.positive_H)
    np.testing.assert_array_equal(weighted.negative_H, again.negative_H)


@given(st.lists(st.integers(0, 3), min_size=5, max_size=5).filter(any))
def test_statistics_are_those_of_the_pooled_counts(times):
    counts, weights = ScoreCounts.of(samples(4, 0.3, 2.0)), np.array(times, float)
    pooled = counts.pooled(weights)
    expected = {"auroc": pooled.auroc(), "auprc": pooled.auprc(), "topk_accuracy": pooled.topk()}
    found = {name: one(weights) for name, one in counts.statistics().items()}
    assert found == pytest.approx(expected, nan_ok=True)


def test_parts_join_and_rows_are_taken_out():
    parts = samples(5, 0.2, 1.0)
    whole = ScoreCounts.of(parts)
    joined = ScoreCounts.joined([ScoreCounts.of(parts[:2]), ScoreCounts.of(parts[2:])])
    for name in ("sizes_N", "cells_E", "counts_E"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))
    chosen = np.array([True, False, True, False, True])
    some = whole.rows(chosen).pooled(np.ones(3))
    np.testing.assert_array_equal(some.positive_H, whole.pooled(chosen.astype(float)).positive_H)
    assert (whole.sizes_N <= LENGTHS).all()


def test_the_curves_hold_their_areas():
    pooled = ScoreCounts.of(samples(1, 0.3, 2.0)).pooled(np.ones(5))
    (false, true), (recall, precision) = pooled.curves()
    assert metrics.auc(false, true) == pytest.approx(pooled.auroc())
    assert np.diff(np.concatenate([[0.0], recall])) @ precision == pytest.approx(pooled.auprc())


def test_certain_scores_fall_into_the_end_bins():
    assert bin_of(np.array([0.0, 1.0, 0.5])).tolist() == [0, NUM_SCORE_BINS - 1, NUM_SCORE_BINS // 2]
    assert bin_of(np.array([1e-30, np.float32(1) - np.float32(6e-8)])).tolist() == [0, NUM_SCORE_BINS - 1]


def test_a_class_without_a_position_has_no_value():
    pooled = ScoreCounts.of([(np.array([0.2, 0.7]), np.array([False, False]))]).pooled(np.ones(1))
    assert np.isnan([pooled.auroc(), pooled.auprc(), pooled.topk()]).all()
    assert set(pooled.errors().values()) == {0.0}
