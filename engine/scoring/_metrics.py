"""Correlation and ranking figures with seeded bootstrap intervals, in numpy alone.

Each statistic comes as a function of row weights: a bootstrap sample is a vector of whole numbers that says how often
each row was drawn, so that ranks are found by counting and nothing is sorted again.

Shape letters: N rows, U distinct values, B bootstrap samples, S statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Statistic = Callable[[Floats], float]

# A column whose spread is below this share of its size is constant but for rounding.
_FLAT = 1e-14


def ranks(values: npt.ArrayLike) -> Floats:
    """Mid ranks, 1-based: equal values share the mean of their places. Shape (N,) to (N,)."""
    codes, num_codes = _codes(np.asarray(values, dtype=np.float64))
    return _ranks_of_codes(codes, num_codes, np.ones(len(codes)))


def _codes(values_N: Floats) -> tuple[Ints, int]:
    distinct_U, codes_N = np.unique(values_N, return_inverse=True)
    return codes_N.astype(np.int64), len(distinct_U)


def _ranks_of_codes(codes_N: Ints, num_codes: int, weights_N: Floats) -> Floats:
    counts_U = np.bincount(codes_N, weights=weights_N, minlength=num_codes)
    ranks_U = np.cumsum(counts_U) - (counts_U - 1.0) / 2.0
    ranks_N: Floats = ranks_U[codes_N]
    return ranks_N


def _weighted_pearson(x_N: Floats, y_N: Floats, weights_N: Floats) -> float:
    total = float(weights_N.sum())
    if total < 2:
        return float("nan")
    dx_N = x_N - np.dot(weights_N, x_N) / total
    dy_N = y_N - np.dot(weights_N, y_N) / total
    spread_x = float(np.dot(weights_N, dx_N * dx_N))
    spread_y = float(np.dot(weights_N, dy_N * dy_N))
    floor_x, floor_y = (total * (_FLAT * float(np.abs(v).max())) ** 2 for v in (x_N, y_N))
    if spread_x <= floor_x or spread_y <= floor_y:
        return float("nan")
    value = float(np.dot(weights_N, dx_N * dy_N)) / (np.sqrt(spread_x) * np.sqrt(spread_y))
    return float(min(1.0, max(-1.0, value)))


def pearson_statistic(x: npt.ArrayLike, y: npt.ArrayLike) -> Statistic:
    """Product-moment correlation of two finite columns (N,) as a function of row weights; NaN where one is constant."""
    x_N, y_N = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    return lambda weights_N: _weighted_pearson(x_N, y_N, weights_N)


def spearman_statistic(x: npt.ArrayLike, y: npt.ArrayLike) -> Statistic:
    """Rank correlation (Pearson of mid ranks) of two finite columns (N,) as a function of row weights."""
    x_codes, num_x = _codes(np.asarray(x, dtype=np.float64))
    y_codes, num_y = _codes(np.asarray(y, dtype=np.float64))

    def statistic(weights_N: Floats) -> float:
        return _weighted_pearson(
            _ranks_of_codes(x_codes, num_x, weights_N), _ranks_of_codes(y_codes, num_y, weights_N), weights_N
        )

    return statistic


def auroc_statistic(score: npt.ArrayLike, positive: npt.ArrayLike, among: npt.ArrayLike | None = None) -> Statistic:
    """Chance that a positive outranks a negative, ties one half, as a function of row weights.

    Args:
        score: (N,) finite; higher means positive.
        positive: (N,) boolean.
        among: (N,) boolean, the rows that take part; all where None.
    """
    codes_N, num_codes = _codes(np.asarray(score, dtype=np.float64))
    taking_part = np.ones(len(codes_N)) if among is None else np.asarray(among, dtype=np.float64)
    positive_N = np.asarray(positive, dtype=np.float64) * taking_part
    negative_N = taking_part - positive_N

    def statistic(weights_N: Floats) -> float:
        positive_U = np.bincount(codes_N, weights=weights_N * positive_N, minlength=num_codes)
        negative_U = np.bincount(codes_N, weights=weights_N * negative_N, minlength=num_codes)
        pairs = float(positive_U.sum() * negative_U.sum())
        if pairs == 0:
            return float("nan")
        below_U = np.cumsum(negative_U) - negative_U / 2.0
        return float(np.dot(positive_U, below_U)) / pairs

    return statistic


def concordance_statistic(score: npt.ArrayLike, truth: npt.ArrayLike, among: npt.ArrayLike | None = None) -> Statistic:
    """Chance that of two rows of unequal truth the larger one has the larger score, as a function of row weights.

    Equal scores count one half; pairs of equal truth do not count (Gönen and Heller 2005). Two rows of unequal truth
    are parted by one bit of their truths' ranks, above which they agree: bit by bit the pairs are counted as an area
    under the ROC curve is, so that a statistic takes N log U for U distinct truths.

    Args:
        score: (N,) finite.
        truth: (N,) finite.
        among: (N,) boolean, the rows that take part; all where None.
    """
    score_N, truth_N = np.asarray(score, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    kept = np.arange(len(truth_N)) if among is None else np.flatnonzero(np.asarray(among, bool))
    codes_N, num_codes = _codes(truth_N[kept])
    ranks_N, _ = _codes(score_N[kept])
    levels = [_Level.of(codes_N, ranks_N, bit) for bit in range(max(num_codes - 1, 0).bit_length())]

    def statistic(weights_N: Floats) -> float:
        some_N = weights_N[kept]
        equal = np.bincount(codes_N, weights=some_N, minlength=num_codes)
        pairs = (some_N.sum() ** 2 - equal @ equal) / 2
        return float(sum(level.count(some_N) for level in levels) / pairs) if pairs > 0 else float("nan")

    return statistic


@dataclass(frozen=True)
class _Level:
    """Rows by their truths' upper bits, then by score; R of them have the bit.

    Attributes:
        order: (N,) rows.
        is_low: (N,) whether the bit is 0, in that order.
        high_R: rows with the bit.
        begin_R, below_R, upto_R: for each of them where those of equal upper bits begin, and where those of equal
            score among these begin and end.
    """

    order: Ints
    is_low: npt.NDArray[np.bool_]
    high_R: Ints
    begin_R: Ints
    below_R: Ints
    upto_R: Ints

    @classmethod
    def of(cls, codes_N: Ints, ranks_N: Ints, bit: int) -> _Level:
        upper_N = codes_N >> (bit + 1)
        order = np.lexsort((ranks_N, upper_N))
        upper, ranks, is_low = upper_N[order], ranks_N[order], (codes_N[order] >> bit & 1) == 0
        places = np.arange(len(order))
        is_group = np.concatenate(([True], upper[1:] != upper[:-1])) if len(order) else np.zeros(0, bool)
        is_tie = is_group | np.concatenate(([True], ranks[1:] != ranks[:-1])) if len(order) else is_group
        begin, below = (np.maximum.accumulate(np.where(starts, places, 0)) for starts in (is_group, is_tie))
        ends = np.append(np.flatnonzero(is_tie)[1:], len(order))
        upto = ends[np.cumsum(is_tie) - 1]
        high = ~is_low
        return cls(order, is_low, order[high], begin[high], below[high], upto[high])

    def count(self, weights_N: Floats) -> float:
        """Weight of the pairs that this bit parts and the scores put in order, ties one half."""
        before = np.concatenate(([0.0], np.cumsum(weights_N[self.order] * self.is_low)))
        told_R = (before[self.below_R] + before[self.upto_R]) / 2 - before[self.begin_R]
        return float(weights_N[self.high_R] @ told_R)


def concordance(score: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Concordance index of two finite columns (N,); NaN where all truths are equal."""
    return concordance_statistic(score, truth)(np.ones(len(np.asarray(truth))))


def pearson(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Product-moment correlation of two finite columns (N,); NaN where one is constant or N is under 2."""
    return pearson_statistic(x, y)(np.ones(len(np.asarray(x))))


def spearman(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Rank correlation with mid ranks of two finite columns (N,); NaN where one is constant or N is under 2."""
    return spearman_statistic(x, y)(np.ones(len(np.asarray(x))))


def auroc(score: npt.ArrayLike, positive: npt.ArrayLike) -> float:
    """Area under the ROC curve, ties one half; NaN without a positive or without a negative."""
    return auroc_statistic(score, positive)(np.ones(len(np.asarray(score))))


def roc_curve(score: npt.ArrayLike, positive: npt.ArrayLike) -> tuple[Floats, Floats]:
    """False and true positive rates, one point per distinct score from the highest down, beginning at (0, 0).

    Needs at least one positive and one negative. The area under the straight lines between the points is `auroc`.
    """
    codes_N, num_codes = _codes(-np.asarray(score, dtype=np.float64))
    positive_N = np.asarray(positive, dtype=bool)
    hits_U = np.cumsum(np.bincount(codes_N[positive_N], minlength=num_codes))
    alarms_U = np.cumsum(np.bincount(codes_N[~positive_N], minlength=num_codes))
    return np.concatenate([[0.0], alarms_U / alarms_U[-1]]), np.concatenate([[0.0], hits_U / hits_U[-1]])


def bootstrap(
    statistics: Sequence[Statistic], clusters: npt.ArrayLike, *, num_samples: int, seed: int
) -> npt.NDArray[np.float64]:
    """Values of the statistics over bootstrap samples, (B, S).

    Whole clusters are drawn with replacement (Efron and Tibshirani 1993, chapter 8), as rows that share a construct
    are not independent. All statistics see the same samples, so columns may be subtracted as pairs.

    Args:
        statistics: functions of row weights (N,).
        clusters: (N,) whole numbers 0 to K-1, the cluster of each row; `arange(N)` draws single rows.
        num_samples: B.
        seed: of the generator; equal seeds give equal samples.
    """
    clusters_N = np.asarray(clusters, dtype=np.int64)
    num_clusters = int(clusters_N.max()) + 1 if len(clusters_N) else 0
    values_BS = np.full((num_samples, len(statistics)), np.nan)
    if num_clusters == 0:
        return values_BS
    generator = np.random.default_rng(seed)
    for sample in range(num_samples):
        drawn = generator.integers(0, num_clusters, num_clusters)
        weights_N = np.bincount(drawn, minlength=num_clusters)[clusters_N].astype(np.float64)
        values_BS[sample] = [statistic(weights_N) for statistic in statistics]
    return values_BS


def interval(values_B: Floats) -> tuple[float, float]:
    """The 2.5 and 97.5 percentiles; NaN where a tenth or more of the samples have no value."""
    finite = values_B[np.isfinite(values_B)]
    if len(finite) == 0 or len(finite) <= 0.9 * len(values_B):
        return float("nan"), float("nan")
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)
