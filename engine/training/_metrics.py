"""Figures of classifiers as functions of row weights, with the intervals that bootstrap samples give.

Correlations and the area under the ROC curve come from engine/scoring/_metrics.py, and so does the form: a bootstrap
sample is a vector of whole numbers that says how often each row was drawn.

Shape letters: N rows, K classes, U distinct scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.scoring._metrics import Floats, Ints, Statistic, auroc_statistic, bootstrap, interval

NUM_SAMPLES = 1000
NUM_BINS = 15


def confusion(truth_N: Ints, predicted_N: Ints, num_classes: int, weights_N: Floats | None = None) -> Floats:
    """(K, K) weighted counts, truth in rows and prediction in columns."""
    cells = np.bincount(truth_N * num_classes + predicted_N, weights=weights_N, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes).astype(np.float64)


def class_statistics(truth_N: Ints, predicted_N: Ints, num_classes: int) -> dict[str, Statistic]:
    """Accuracy, macro F1 and the correlation of Matthews as Gorodkin 2004 has it for any number of classes."""

    def of(figure: Any) -> Statistic:
        return lambda weights_N: figure(confusion(truth_N, predicted_N, num_classes, weights_N))

    return {"accuracy": of(_accuracy), "f1_macro": of(_f1_macro), "mcc": of(mcc_of_counts)}


def counted_statistics(counts_NKK: Floats) -> dict[str, Statistic]:
    """The same of samples that hold many truths each, such as a label for every position, from each one's counts.

    Counts are pooled over the samples; `accuracy_per_sample` is the mean of the samples' own accuracies.
    """
    num, classes = counts_NKK.shape[:2]
    flat_NS = counts_NKK.reshape(num, -1)
    sizes_N = flat_NS.sum(axis=1)
    shares_N = np.einsum("nkk->n", counts_NKK) / np.maximum(sizes_N, 1)

    def of(figure: Any) -> Statistic:
        return lambda weights_N: figure((weights_N @ flat_NS).reshape(classes, classes))

    def per_sample(weights_N: Floats) -> float:
        counted_N = weights_N * (sizes_N > 0)
        return float(counted_N @ shares_N / counted_N.sum()) if counted_N.sum() else float("nan")

    figures = {"accuracy": of(_accuracy), "accuracy_per_sample": per_sample}
    return {**figures, "f1_macro": of(_f1_macro), "mcc": of(mcc_of_counts)}


def _accuracy(counts_KK: Floats) -> float:
    total = counts_KK.sum()
    return float(np.trace(counts_KK) / total) if total else float("nan")


def _f1_macro(counts_KK: Floats) -> float:
    """Over classes that are true or predicted somewhere; one that is only predicted counts 0."""
    hits_K, both_K = np.diag(counts_KK), counts_KK.sum(axis=0) + counts_KK.sum(axis=1)
    seen = both_K > 0
    return float(np.mean(2 * hits_K[seen] / both_K[seen])) if seen.any() else float("nan")


def mcc_of_counts(counts_KK: Floats) -> float:
    """Matthews' correlation for any number of classes (Gorodkin 2004)."""
    true_K, predicted_K, total = counts_KK.sum(axis=1), counts_KK.sum(axis=0), counts_KK.sum()
    covariance = np.trace(counts_KK) * total - true_K @ predicted_K
    spread = (total**2 - true_K @ true_K) * (total**2 - predicted_K @ predicted_K)
    return float(covariance / np.sqrt(spread)) if spread > 0 else 0.0


def auprc_statistic(score_N: Floats, positive_N: NDArray[np.bool_]) -> Statistic:
    """Average precision: precision at each distinct score, weighted by the recall it adds; NaN without a positive."""
    _, codes_N = np.unique(-np.asarray(score_N, dtype=np.float64), return_inverse=True)
    num_codes = int(codes_N.max(initial=-1)) + 1

    def statistic(weights_N: Floats) -> float:
        hits_U = np.bincount(codes_N, weights=weights_N * positive_N, minlength=num_codes)
        all_U = np.cumsum(np.bincount(codes_N, weights=weights_N, minlength=num_codes))
        if hits_U.sum() == 0:
            return float("nan")
        precision_U = np.cumsum(hits_U) / np.maximum(all_U, 1e-300)
        return float(hits_U @ precision_U / hits_U.sum())

    return statistic


def calibration_statistic(confidence_N: Floats, is_right_N: NDArray[np.bool_]) -> Statistic:
    """Expected calibration error (Naeini et al. 2015, Guo et al. 2017) over NUM_BINS bins of equal width; 0 is best."""
    bin_N = np.clip((confidence_N * NUM_BINS).astype(np.int64), 0, NUM_BINS - 1)
    gap_N = is_right_N - confidence_N

    def statistic(weights_N: Floats) -> float:
        gaps = np.bincount(bin_N, weights=weights_N * gap_N, minlength=NUM_BINS)
        return float(np.abs(gaps).sum() / weights_N.sum()) if weights_N.sum() else float("nan")

    return statistic


def precision_recall_curve(score_N: Floats, positive_N: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Recall and precision (U,) where the U highest distinct scores are called positive; empty without a positive."""
    distinct_U, codes_N = np.unique(-np.asarray(score_N, dtype=np.float64), return_inverse=True)
    hits_U = np.cumsum(np.bincount(codes_N, weights=positive_N, minlength=len(distinct_U)))
    all_U = np.cumsum(np.bincount(codes_N, minlength=len(distinct_U)))
    if not positive_N.any():
        return np.zeros(0), np.zeros(0)
    return hits_U / hits_U[-1], hits_U / all_U


def ranking_statistics(score_NK: Floats, positive_NK: NDArray[np.bool_]) -> dict[str, Statistic]:
    """Mean over the columns of the areas under the ROC and the precision-recall curve, where they have a value.

    Two columns that are each other's complement count as the second alone, as is the custom for two classes.
    """
    columns = range(score_NK.shape[1])
    if len(columns) == 2 and bool((positive_NK[:, 0] != positive_NK[:, 1]).all()):
        columns = range(1, 2)
    roc = [auroc_statistic(score_NK[:, column], positive_NK[:, column]) for column in columns]
    recall = [auprc_statistic(score_NK[:, column], positive_NK[:, column]) for column in columns]
    return {"auroc": mean_of(roc), "auprc": mean_of(recall)}


def mean_of(statistics: Sequence[Statistic]) -> Statistic:
    """Mean of the values that there are."""

    def statistic(weights_N: Floats) -> float:
        values = np.array([one(weights_N) for one in statistics])
        values = values[np.isfinite(values)]
        return float(values.mean()) if len(values) else float("nan")

    return statistic


def values_of(statistics: Mapping[str, Statistic], num_rows: int) -> dict[str, float]:
    """Each metric over all rows once."""
    once_N = np.ones(num_rows)
    return {name: statistic(once_N) for name, statistic in statistics.items()}


def clusters_of(names: Sequence[str | None]) -> Ints | None:
    """(N,) numbers of rows that are drawn together; a row without a name stands alone. None without two groups."""
    known = [(name is not None, place if name is None else name) for place, name in enumerate(names)]
    number = {one: place for place, one in enumerate(dict.fromkeys(known))}
    if len(number) < 2 or not any(is_named for is_named, _ in known):
        return None
    return np.array([number[one] for one in known], np.int64)


def drawn(clusters: Ints | None) -> str:
    """What bootstrap samples are made of: "rows" or "groups"."""
    return "rows" if clusters is None else "groups"


def drawn_facts(clusters: Ints | None, num_rows: int) -> dict[str, Any]:
    """The same, and how many of them there are."""
    return {"drawn": drawn(clusters), "num_drawn": num_rows if clusters is None else len(np.unique(clusters))}


def with_intervals(
    statistics: Mapping[str, Statistic], num_rows: int, *, clusters: Ints | None = None, seed: int = 0
) -> dict[str, dict[str, float | None]]:
    """Each metric with its 95% interval: {"value", "low", "high"}, None where there is no value.

    Args:
        statistics: by name.
        num_rows: N.
        clusters: (N,) 0 to C-1, rows that are drawn together; None draws single rows.
        seed: of the bootstrap samples.
    """
    places = np.arange(num_rows) if clusters is None else clusters
    drawn_BS = bootstrap(list(statistics.values()), places, num_samples=NUM_SAMPLES, seed=seed)
    found = {}
    for column, (name, value) in enumerate(values_of(statistics, num_rows).items()):
        low, high = interval(drawn_BS[:, column])
        found[name] = {"value": _plain(value), "low": _plain(low), "high": _plain(high)}
    return found


def _plain(value: float) -> float | None:
    return value if np.isfinite(value) else None
