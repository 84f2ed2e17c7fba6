"""Figures of an evaluation against scikit-learn and scipy, and laws of groups and clusters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from engine.models._info import HeadInfo
from engine.training._evaluation import (
    MOST_INTERVALS,
    SMALL_CELL,
    Bootstrap,
    Figure,
    Judged,
    channel_statistics,
    confusion,
    evaluate,
    figures_table,
    overall_statistics,
    quarters,
    reliability,
)

CLASSES = HeadInfo("class", ("a", "b", "c"), "softmax", "stranded", level="sequence")
TWO = HeadInfo("class", ("no", "yes"), "softmax", "stranded", level="sequence")
LABELS = HeadInfo("labels", ("x", "y"), "sigmoid", "stranded", level="sequence")
NUMBERS = HeadInfo("value", ("u", "v"), "identity", "stranded", level="sequence")
QUICK = Bootstrap(samples=40)


def classes(num: int, *, seed: int = 0, head: HeadInfo = CLASSES, **more) -> Judged:
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, len(head.channels), num)
    logits = draw.normal(size=(num, len(head.channels))).round(1)
    logits[np.arange(num), truth] += 1
    values = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Judged(head, values, truth, **more)


def at(statistics, judged, weights=None):
    weights = np.ones(judged.size) if weights is None else weights
    return {name: one(weights) for name, one in statistics.items()}


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(6, 60), st.booleans())
def test_classes_as_scikit_learn_has_them(seed, num, two):
    judged = classes(num, seed=seed, head=TWO if two else CLASSES)
    weights = np.random.default_rng(seed).integers(0, 3, num).astype(float)
    weights[: len(judged.head.channels)] += 1
    judged.truth[: len(judged.head.channels)] = np.arange(len(judged.head.channels))  # each class is there
    called, given_ = judged.values_NK.argmax(axis=1), {"sample_weight": weights}
    macro = {"average": "macro", "zero_division": 0, **given_}
    positive = judged.positives()
    columns = [1] if two else range(3)
    expected = {
        "accuracy": metrics.accuracy_score(judged.truth, called, **given_),
        "precision_macro": metrics.precision_score(judged.truth, called, **macro),
        "recall_macro": metrics.recall_score(judged.truth, called, **macro),
        "f1_macro": metrics.f1_score(judged.truth, called, **macro),
        "mcc": metrics.matthews_corrcoef(judged.truth, called, **given_),
        "auroc": np.mean([metrics.roc_auc_score(positive[:, k], judged.values_NK[:, k], **given_) for k in columns]),
        "auprc": np.mean(
            [metrics.average_precision_score(positive[:, k], judged.values_NK[:, k], **given_) for k in columns]
        ),
    }
    found = at(overall_statistics(judged), judged, weights)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    for k in range(len(judged.head.channels)):
        truth, said = positive[:, k], called == k
        found = at(channel_statistics(judged, k), judged, weights)
        for name, score in (
            ("precision", metrics.precision_score),
            ("recall", metrics.recall_score),
            ("f1", metrics.f1_score),
        ):
            assert found[name] == pytest.approx(score(truth, said, zero_division=0, **given_), abs=1e-9)


def test_labels_as_scikit_learn_has_them():
    draw = np.random.default_rng(1)
    truth = draw.integers(0, 2, (80, 2)).astype(float)
    values = np.clip(0.5 * truth + draw.uniform(0, 0.6, (80, 2)), 0, 1)
    judged = Judged(LABELS, values, truth)
    found, said = at(overall_statistics(judged), judged), values > 0.5
    for name in ("precision", "recall", "f1"):
        score = getattr(metrics, f"{name}_score")
        assert found[name] == pytest.approx(score(truth, said, average="macro"))
    assert found["auroc"] == pytest.approx(metrics.roc_auc_score(truth, values, average="macro"))
    assert found["auprc"] == pytest.approx(metrics.average_precision_score(truth, values, average="macro"))
    assert found["mcc"] == pytest.approx(
        np.mean([metrics.matthews_corrcoef(truth[:, k], said[:, k]) for k in range(2)])
    )
    assert found["accuracy"] == pytest.approx((said == (truth > 0.5)).mean())


def test_numbers_as_scipy_has_them():
    draw = np.random.default_rng(2)
    truth = draw.normal(size=(60, 2)).round(1)
    values = truth + draw.normal(size=(60, 2)).round(1)
    judged = Judged(NUMBERS, values, truth)
    for k in range(2):
        found = at(channel_statistics(judged, k), judged)
        assert found["pearson"] == pytest.approx(stats.pearsonr(values[:, k], truth[:, k]).statistic)
        assert found["spearman"] == pytest.approx(stats.spearmanr(values[:, k], truth[:, k]).statistic)
        assert found["r2"] == pytest.approx(metrics.r2_score(truth[:, k], values[:, k]))
        assert found["mse"] == pytest.approx(metrics.mean_squared_error(truth[:, k], values[:, k]))
        assert found["mae"] == pytest.approx(metrics.mean_absolute_error(truth[:, k], values[:, k]))
    assert at(overall_statistics(judged), judged)["r2"] == pytest.approx(
        np.mean([metrics.r2_score(truth[:, k], values[:, k]) for k in range(2)])
    )


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_the_calibration_error_is_what_its_bins_say(pairs):
    values = np.array([one for one, _ in pairs])[:, None]
    head = HeadInfo("p", ("p",), "sigmoid", "stranded", level="sequence")
    judged = Judged(head, values, np.array([[float(right)] for _, right in pairs]))
    bins = reliability(judged)
    assert sum(one.num for one in bins) == len(pairs)
    assert all(one.low - 1e-9 <= one.confidence <= one.high + 1e-9 for one in bins)
    gap = sum(one.num * abs(one.observed - one.confidence) for one in bins) / len(pairs)
    assert at(overall_statistics(judged), judged)["calibration_error"] == pytest.approx(gap, abs=1e-9)


def test_confusion_has_truth_in_rows():
    judged = classes(50)
    expected = metrics.confusion_matrix(judged.truth, judged.values_NK.argmax(axis=1))
    assert confusion(judged).tolist() == expected.tolist()


def one_of(figures: list[Figure], key: str) -> Figure:
    (found,) = [one for one in figures if one.key == key]
    return found


def test_a_group_has_the_figures_of_its_rows():
    names = ["g", "h", None] * 20
    judged = classes(60, groups={"group": names})
    figures = evaluate(judged, QUICK)
    some = judged.rows(np.array([name == "h" for name in names]))
    alone = {one.metric: one for one in evaluate(some, QUICK) if one.scope == "all"}
    for metric, expected in alone.items():
        found = one_of(figures, f"group.group.h.{metric}")
        assert (found.value, found.low, found.high) == (expected.value, expected.low, expected.high)
        assert found.num == 20
    assert one_of(figures, "group.group..accuracy").num == 20, "rows without a value are a group too"
    assert one_of(figures, "class.a.recall").num_positive == (judged.truth == 0).sum()


def test_small_cells_have_no_figures_and_small_groups_no_interval():
    names = ["big"] * 40 + ["tiny"] * (SMALL_CELL - 1)
    figures = evaluate(classes(len(names), groups={"group": names}), QUICK)
    tiny = [one for one in figures if one.name == "tiny"]
    assert tiny
    assert all(one.value is one.low is one.high is None for one in tiny)
    assert next(one.name for one in figures if one.scope == "group") == "big"
    many = [f"g{place:03d}" for place in range(MOST_INTERVALS + 5) for _ in range(SMALL_CELL)]
    figures = evaluate(classes(len(many), groups={"group": many}), Bootstrap(samples=5))
    accuracies = [one for one in figures if one.scope == "group" and one.metric == "accuracy"]
    assert len(accuracies) == MOST_INTERVALS + 5
    assert sum(one.low is not None for one in accuracies) == MOST_INTERVALS
    assert all(one.value is not None for one in accuracies)


def test_clusters_are_drawn_whole():
    """Each row ten times over, drawn by tens: as wide as of the rows alone, where single rows are far narrower."""
    few = classes(40, seed=3)
    many = Judged(few.head, np.repeat(few.values_NK, 10, axis=0), np.repeat(few.truth, 10))
    drawn = Judged(many.head, many.values_NK, many.truth, clusters=np.repeat(np.arange(40), 10))
    width = {}
    for name, judged in (("few", few), ("many", many), ("drawn", drawn)):
        found = one_of(evaluate(judged, Bootstrap(200)), "all.accuracy")
        assert found.low <= found.value <= found.high
        width[name] = found.high - found.low
    assert width["drawn"] == pytest.approx(width["few"], abs=1e-9)
    assert width["many"] < width["few"] / 2


def test_no_samples_give_no_intervals_and_a_constant_column_no_value():
    judged = Judged(NUMBERS, np.ones((20, 2)), np.random.default_rng(0).normal(size=(20, 2)))
    figures = {one.key: one for one in evaluate(judged, Bootstrap(samples=0))}
    assert figures["all.pearson"].value is None
    assert figures["all.mse"].value is not None
    assert all(one.low is None for one in figures.values())
    table = figures_table(list(figures.values()))
    assert table["metric"].to_pylist()[0] == "pearson"


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60))
def test_quarters_of_lengths_never_part_equal_ones(lengths):
    names = quarters(np.array(lengths))
    assert 1 <= len(set(names)) <= 4
    assert len({(name, length) for name, length in zip(names, lengths, strict=True)}) == len(set(lengths))
    for name, length in zip(names, lengths, strict=True):
        ends = [int(one) for one in name.split(" to ")]
        assert ends[0] <= length <= ends[-1]
