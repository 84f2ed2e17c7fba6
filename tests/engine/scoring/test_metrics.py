"""Metrics against golden figures, plain counting, polars, and laws."""

from __future__ import annotations

import itertools
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.scoring._metrics import (
    auroc,
    auroc_statistic,
    bootstrap,
    concordance,
    concordance_statistic,
    interval,
    pearson,
    pearson_statistic,
    ranks,
    roc_curve,
    spearman,
    spearman_statistic,
)

X = [0.1, 0.4, 0.35, 0.8, 0.4, -1.0, 2.5, 0.0, 0.35, 0.4]
Y = [1, 0, 3, 2, 2, -4, 7, 1, 1, 0]
POSITIVE = [False, False, True, True, True, False, True, False, True, False]
SMALL = st.integers(-4, 4).map(float)
PAIRS = st.lists(st.tuples(SMALL, SMALL), min_size=2, max_size=40)
RANKED = st.lists(st.tuples(SMALL, st.booleans()), min_size=1, max_size=40)


def test_golden_figures() -> None:
    """Made with scipy 1.17.1 (pearsonr, spearmanr, rankdata) and scikit-learn 1.9.1 (roc_auc_score, roc_curve)."""
    assert pearson(X, Y) == pytest.approx(0.9221980953522259, abs=1e-14)
    assert spearman(X, Y) == pytest.approx(0.5203787324221011, abs=1e-14)
    assert auroc(X, POSITIVE) == pytest.approx(0.8, abs=1e-14)
    assert ranks(X).tolist() == [3.0, 7.0, 4.5, 9.0, 7.0, 1.0, 10.0, 2.0, 4.5, 7.0]
    alarms, hits = roc_curve(X, POSITIVE)
    assert alarms.tolist() == [0.0, 0.0, 0.0, 0.4, 0.4, 0.6, 0.8, 1.0]
    assert hits.tolist() == [0.0, 0.2, 0.4, 0.6, 1.0, 1.0, 1.0, 1.0]


@given(PAIRS)
def test_correlations_are_those_of_polars(rows: list[tuple[float, float]]) -> None:
    x, y = zip(*rows, strict=True)
    frame = pl.DataFrame({"x": x, "y": y})
    for ours, method in ((pearson, "pearson"), (spearman, "spearman")):
        if len(set(x)) == 1 or len(set(y)) == 1:
            assert math.isnan(ours(x, y))
        else:
            assert ours(x, y) == pytest.approx(frame.select(pl.corr("x", "y", method=method)).item(), abs=1e-12)


@given(RANKED)
def test_auroc_is_the_share_of_pairs_won_and_the_area_under_the_curve(rows: list[tuple[float, bool]]) -> None:
    score, positive = zip(*rows, strict=True)
    won = [(a > b) + (a == b) / 2 for a, up in rows if up for b, other in rows if not other]
    if not won:
        assert math.isnan(auroc(score, positive))
        return
    assert auroc(score, positive) == pytest.approx(sum(won) / len(won), abs=1e-12)
    assert auroc(score, positive) + auroc([-s for s in score], positive) == pytest.approx(1, abs=1e-12)
    alarms, hits = roc_curve(score, positive)
    assert np.trapezoid(hits, alarms) == pytest.approx(auroc(score, positive), abs=1e-12)
    assert (alarms[-1], hits[-1]) == (1.0, 1.0)


@given(st.lists(st.tuples(SMALL, SMALL, st.booleans(), st.integers(0, 3)), min_size=2, max_size=25))
def test_a_weight_is_so_many_copies_of_the_row(rows: list[tuple[float, float, bool, int]]) -> None:
    x, y, positive, weights = (np.array(column) for column in zip(*rows, strict=True))
    copied = [np.repeat(column, weights) for column in (x, y, positive)]
    for statistic, plain in (
        (pearson_statistic(x, y), pearson(copied[0], copied[1])),
        (spearman_statistic(x, y), spearman(copied[0], copied[1])),
        (auroc_statistic(x, positive), auroc(copied[0], copied[2])),
    ):
        assert statistic(weights.astype(float)) == pytest.approx(plain, abs=1e-9, nan_ok=True)


def test_auroc_among_some_rows() -> None:
    among = np.abs(np.array(Y)) >= 2
    found = auroc_statistic(X, POSITIVE, among)(np.ones(len(X)))
    assert found == auroc(np.array(X)[among], np.array(POSITIVE)[among])


def test_constant_columns_and_too_few_rows_have_no_correlation() -> None:
    tenth = [0.1] * 7
    assert math.isnan(pearson(tenth, range(7))) and math.isnan(spearman(range(7), tenth))
    assert math.isnan(pearson([], [])) and math.isnan(pearson([1.0], [2.0]))
    assert pearson([1e-200, 2e-200, 4e-200], [1, 2, 4]) == pytest.approx(1, abs=1e-12) or math.isnan(
        pearson([1e-200, 2e-200, 4e-200], [1, 2, 4])
    )


def test_interval_of_a_correlation_covers_what_theory_says() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=500)
    y = 0.6 * x + 0.8 * rng.normal(size=500)
    values = bootstrap([pearson_statistic(x, y)], np.arange(500), num_samples=2000, seed=1)[:, 0]
    low, high = interval(values)
    # Fisher's transformation: standard error 1 / sqrt(n - 3).
    centre, reach = math.atanh(pearson(x, y)), 1.96 / math.sqrt(497)
    assert (low, high) == pytest.approx((math.tanh(centre - reach), math.tanh(centre + reach)), abs=0.02)


def test_bootstrap_is_seeded_and_pairs_its_columns() -> None:
    one = pearson_statistic(X, Y)
    clusters = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    first = bootstrap([one, one], clusters, num_samples=50, seed=4)
    assert np.array_equal(first, bootstrap([one, one], clusters, num_samples=50, seed=4), equal_nan=True)
    assert np.array_equal(first[:, 0], first[:, 1], equal_nan=True)
    assert not np.array_equal(first, bootstrap([one, one], clusters, num_samples=50, seed=5), equal_nan=True)


def test_clusters_are_drawn_whole() -> None:
    clusters = np.array([0, 1, 1, 2, 2, 2])
    seen: list[np.ndarray] = []

    def remember(weights_N: np.ndarray) -> float:
        seen.append(weights_N.copy())
        return 0.0

    bootstrap([remember], clusters, num_samples=30, seed=0)
    for weights in seen:
        per_cluster = [set(weights[clusters == k].tolist()) for k in range(3)]
        assert all(len(one) == 1 for one in per_cluster)
        assert sum(one.pop() for one in per_cluster) == 3


def test_no_rows_and_no_values_have_no_interval() -> None:
    assert all(math.isnan(one) for one in interval(bootstrap([lambda w: 1.0], [], num_samples=9, seed=0)[:, 0]))
    mostly = np.array([1.0] * 9 + [math.nan])
    assert all(math.isnan(one) for one in interval(mostly))
    assert interval(np.array([1.0] * 19 + [math.nan])) == (1.0, 1.0)


@given(
    rows=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 3), st.booleans()), max_size=25),
    among=st.booleans(),
)
def test_concordance_is_that_of_all_pairs(rows, among):
    score, truth, weights, taking_part = (np.array(column) for column in zip(*rows, strict=True)) if rows else [[]] * 4
    some = taking_part if among else None
    found = concordance_statistic(score, truth, some)(np.array(weights, float))
    right = total = 0.0
    for (p, y, w, one), (q, z, v, other) in itertools.combinations(rows, 2):
        if y == z or (among and not (one and other)):
            continue
        total += w * v
        right += w * v * (0.5 if p == q else float((p < q) == (y < z)))
    assert found == pytest.approx(right / total, nan_ok=True) if total else math.isnan(found)


def test_concordance_of_known_orders():
    truth = np.arange(100.0)
    assert concordance(truth, truth) == 1
    assert concordance(-truth, truth) == 0
    assert concordance(np.zeros(100), truth) == 0.5
    assert math.isnan(concordance(truth, np.ones(100)))
    # Of two truths it is the area under the ROC curve.
    score, positive = np.random.default_rng(0).normal(size=60), np.arange(60) % 3 == 0
    assert concordance(score, positive) == pytest.approx(auroc(score, positive))
