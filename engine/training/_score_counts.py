"""Scores of many positions as counts in bins, from which areas under curves and top-k accuracy follow.

Bins are of equal width in log-odds, fine at both ends: rare classes, such as splice sites, live there. Of a sample stay
the bins that hold a position, 6 bytes each and never more than its positions; counts of samples add up, so a bootstrap
draws whole samples. What the bins can hide is bounded from the counts themselves (`Pooled.errors`).

Shape letters: N samples, L positions of one, H bins from the lowest scores up, E pairs of a sample and a filled cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.scoring._metrics import Floats, Statistic

BINS_PER_UNIT, REACH = 256, 16
NUM_SCORE_BINS = 2 * REACH * BINS_PER_UNIT
Bools = NDArray[np.bool_]


def bin_of(score_L: Floats) -> NDArray[np.int64]:
    """(L,) bin of each probability; beyond log-odds of -16 and 16 that of the end."""
    with np.errstate(divide="ignore"):
        odds_L = np.log(score_L) - np.log1p(-np.minimum(score_L, 1.0))
    place_L = np.floor((np.clip(odds_L, -REACH, REACH) + REACH) * BINS_PER_UNIT)
    bins_L: NDArray[np.int64] = np.minimum(place_L, NUM_SCORE_BINS - 1).astype(np.int64)
    return bins_L


@dataclass(frozen=True)
class ScoreCounts:
    """Positions of N samples by the bin of one class's score and by whether they are of that class.

    Attributes:
        sizes_N: filled cells of each sample.
        cells_E: twice the bin, and one more where the positions are of the class.
        counts_E: positions of the cell.
    """

    sizes_N: NDArray[np.int64]
    cells_E: NDArray[np.uint16]
    counts_E: NDArray[np.uint32]

    @classmethod
    def of(cls, samples: Sequence[tuple[Floats, Bools]]) -> ScoreCounts:
        """Of samples' scores (L,) and whether each position is of the class (L,)."""
        found = [np.unique(2 * bin_of(score) + positive, return_counts=True) for score, positive in samples]
        sizes = np.array([len(cells) for cells, _ in found], np.int64)
        nothing = [np.zeros(0, np.int64)]
        cells = np.concatenate([*(cells for cells, _ in found), *nothing])
        counts = np.concatenate([*(counts for _, counts in found), *nothing])
        return cls(sizes, cells.astype(np.uint16), counts.astype(np.uint32))

    @classmethod
    def joined(cls, parts: Sequence[ScoreCounts]) -> ScoreCounts:
        """The samples of several, one after the other."""
        names = ("sizes_N", "cells_E", "counts_E")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def rows(self, chosen_N: Bools) -> ScoreCounts:
        """Some of the samples."""
        chosen_E = np.repeat(chosen_N, self.sizes_N)
        return ScoreCounts(self.sizes_N[chosen_N], self.cells_E[chosen_E], self.counts_E[chosen_E])

    def pooled(self, weights_N: Floats) -> Pooled:
        """Counts over the samples."""
        return self._summed(weights_N, self.cells_E, NUM_SCORE_BINS)

    def _summed(self, weights_N: Floats, cells_E: NDArray[np.uint16], num_bins: int) -> Pooled:
        weights_E = np.repeat(weights_N, self.sizes_N) * self.counts_E
        both: Floats = np.bincount(cells_E, weights=weights_E, minlength=2 * num_bins).astype(np.float64)
        return Pooled(both[::2], both[1::2])

    def statistics(self) -> dict[str, Statistic]:
        """Area under the ROC and the precision-recall curve, and top-k accuracy, by row weights."""
        # Empty bins change nothing, and of few samples most are.
        filled_H, place_E = np.unique(self.cells_E >> 1, return_inverse=True)
        dense_E = (2 * place_E + (self.cells_E & 1)).astype(np.uint16)
        last: list[tuple[Floats, Pooled]] = []

        def pooled(weights_N: Floats) -> Pooled:
            # The three are asked for one sample after the other.
            if not last or last[0][0] is not weights_N:
                last[:] = [(weights_N, self._summed(weights_N, dense_E, len(filled_H)))]
            return last[0][1]

        return {
            "auroc": lambda weights_N: pooled(weights_N).auroc(),
            "auprc": lambda weights_N: pooled(weights_N).auprc(),
            "topk_accuracy": lambda weights_N: pooled(weights_N).topk(),
        }


@dataclass(frozen=True)
class Pooled:
    """Attributes:
    negative_H, positive_H: positions of each bin that are not, and that are, of the class.
    """

    negative_H: Floats
    positive_H: Floats

    def auroc(self) -> float:
        """Chance that a position of the class outranks another; within a bin one half."""
        pairs = self.negative_H.sum() * self.positive_H.sum()
        below_H = np.cumsum(self.negative_H) - self.negative_H / 2
        return float(self.positive_H @ below_H / pairs) if pairs else float("nan")

    def auprc(self) -> float:
        """Average precision, a bin at once."""
        hits_H, all_H = self._from_above()
        total = self.positive_H.sum()
        precision_H = hits_H / np.maximum(all_H, 1e-300)
        return float(self.positive_H[::-1] @ precision_H / total) if total else float("nan")

    def topk(self) -> float:
        """Share that is of the class among the k highest scores, k being the positions of the class.

        Jaganathan et al. 2019 (SpliceAI). Of the bin in which the k-th lies the mean over its orders counts.
        """
        low, high, hits, total = self._edge()
        return (hits + (low + high) / 2) / total if total else float("nan")

    def _edge(self) -> tuple[float, float, float, float]:
        """Of the bin of the k-th: fewest and most hits, made to surround their mean; hits above it; k."""
        total = float(self.positive_H.sum())
        if not total:
            return 0.0, 0.0, 0.0, 0.0
        hits_H, all_H = self._from_above()
        place = int(np.searchsorted(all_H, total - 1e-9))
        positive, negative = self.positive_H[::-1][place], self.negative_H[::-1][place]
        rest = total - (all_H[place] - positive - negative)
        mean = rest * positive / (positive + negative)
        reach = max(min(positive, rest) - mean, mean - max(0.0, rest - negative))
        return mean - reach, mean + reach, float(hits_H[place] - positive), total

    def _from_above(self) -> tuple[Floats, Floats]:
        """(H,) positions of the class, and all, in a bin and those of higher scores; from the highest down."""
        hits_H = np.cumsum(self.positive_H[::-1])
        return hits_H, hits_H + np.cumsum(self.negative_H[::-1])

    def curves(self) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
        """ROC (false, true positive rate) and recall with precision, a point for each filled bin from above.

        Needs a position of the class and one that is not.
        """
        hits_H, all_H = self._from_above()
        filled = np.flatnonzero((self.positive_H + self.negative_H)[::-1])
        hits, alarms = hits_H[filled], (all_H - hits_H)[filled]
        recall = hits / hits[-1]
        roc = np.concatenate([[0.0], alarms / alarms[-1]]), np.concatenate([[0.0], recall])
        return roc, (recall, hits / (hits + alarms))

    def errors(self) -> dict[str, float]:
        """How far each figure can be from that of the scores themselves, whatever their order within the bins."""
        total, others = self.positive_H.sum(), self.negative_H.sum()
        if not total or not others:
            return dict.fromkeys(("auroc", "auprc", "topk_accuracy"), 0.0)
        hits_H, all_H = self._from_above()
        positive_H, negative_H = self.positive_H[::-1], self.negative_H[::-1]
        before_H, hits_before_H = all_H - positive_H - negative_H, hits_H - positive_H
        best = _precisions(hits_before_H, before_H, positive_H).sum() / total
        worst = _precisions(hits_before_H, before_H + negative_H, positive_H).sum() / total
        told = self.auprc()
        low, high, _, _ = self._edge()
        return {
            "auroc": float(positive_H @ negative_H / (2 * total * others)),
            "auprc": float(max(told - worst, best - told, 0.0)),
            "topk_accuracy": float((high - low) / 2 / total),
        }


def _precisions(hits_H: Floats, all_H: Floats, more_H: Floats) -> Floats:
    """(H,) sum of (hits + i) / (all + i) for i from 1 to `more`: precision as so many hits follow one by one."""
    sums_H: Floats = more_H - (all_H - hits_H) * (_harmonic(all_H + more_H) - _harmonic(all_H))
    return sums_H


def _harmonic(number_H: Floats) -> Floats:
    """(H,) the sum of 1/i for i from 1 to each number, but for a constant; by recurrence and Euler-Maclaurin."""
    shifted = number_H + 20
    large = np.log(shifted) + 1 / (2 * shifted) - 1 / (12 * shifted**2) + 1 / (120 * shifted**4)
    steps = np.arange(1, 21)
    found: Floats = large - (1 / (number_H[:, None] + steps[None, :])).sum(axis=1)
    return found
