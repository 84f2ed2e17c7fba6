"""What an evaluation keeps of heads that tell a class of every position, and its figures.

Of a sequence stay counts: positions by true and told class, by confidence, and by the score of each class in fine bins
(_score_counts.py). So memory grows with sequences more than with positions, and a bootstrap draws whole sequences.

Shape letters: N sequences, L positions, K classes, H bins of confidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.models._info import HeadInfo
from engine.scoring._metrics import Floats, Ints, Statistic
from engine.scoring._prediction_columns import value_column
from engine.training import _metrics
from engine.training._class_figures import f1, macro_of, precision, recall, second_of
from engine.training._score_counts import ScoreCounts
from engine.training._task import NO_LABEL
from engine.training.tasks.position_classification import UNKNOWN, position_counts

TRUTH = "position_labels"
Counted = tuple[Floats, Floats, tuple[ScoreCounts, ...]]
_BINS = _metrics.NUM_BINS


@dataclass(frozen=True)
class JudgedPositions:
    """Sequences with the counts of their positions; see `_evaluation.Judged`, whose place it takes.

    Attributes:
        head: whose outputs.
        counts_NKK: positions, truth in rows.
        bins_NH3: of each bin of confidence its positions, the sum of their confidences, and those that are right.
        scores: of each class its positions by score.
        groups, clusters: as Judged has them.
    """

    head: HeadInfo
    counts_NKK: Floats
    bins_NH3: Floats
    scores: tuple[ScoreCounts, ...]
    groups: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    clusters: Ints | None = None

    @property
    def size(self) -> int:
        """N."""
        return len(self.counts_NKK)

    @property
    def num_truths(self) -> int:
        """Positions with a class."""
        return int(self.counts_NKK.sum())

    @property
    def kind(self) -> Literal["positions"]:
        """What the head tells."""
        return "positions"

    def num_positive(self) -> Ints:
        """(K,) positions of each class."""
        positives_K: Ints = self.counts_NKK.sum(axis=(0, 2)).astype(np.int64)
        return positives_K

    def rows(self, chosen_N: NDArray[np.bool_]) -> JudgedPositions:
        """Some of the sequences, without their groups."""
        clusters = None if self.clusters is None else np.unique(self.clusters[chosen_N], return_inverse=True)[1]
        scores = tuple(one.rows(chosen_N) for one in self.scores)
        counts, bins = self.counts_NKK[chosen_N], self.bins_NH3[chosen_N]
        return JudgedPositions(self.head, counts, bins, scores, clusters=clusters)

    def confusion(self) -> Ints:
        """(K, K) positions, truth in rows."""
        counts_KK: Ints = self.counts_NKK.sum(axis=0).astype(np.int64)
        return counts_KK

    def overall(self) -> dict[str, Statistic]:
        """Metrics over all classes together, pooled over positions but for the mean of the sequences' accuracies."""
        pooled = _metrics.counted_statistics(self.counts_NKK)
        macro = {
            f"{name}_macro": self._pooled(macro_of(figure))
            for name, figure in (("precision", precision), ("recall", recall))
        }
        return {
            **{name: pooled[name] for name in ("accuracy", "accuracy_per_sample")},
            **macro,
            **{name: pooled[name] for name in ("f1_macro", "mcc")},
            **{name: _metrics.mean_of([one[name] for one in self._ranked()]) for name in ("auroc", "auprc")},
            "calibration_error": self._calibration(),
        }

    def channel(self, channel: int) -> dict[str, Statistic]:
        """Metrics of one class against the rest."""

        def of(figure: Any) -> Statistic:
            return self._pooled(lambda counts_KK: figure(_against_rest(counts_KK, channel)))

        both = {"precision": precision, "recall": recall, "f1": f1}
        found = {name: of(second_of(figure)) for name, figure in both.items()}
        return {**found, "mcc": of(_metrics.mcc_of_counts), **self.by_score[channel]}

    @cached_property
    def by_score(self) -> tuple[dict[str, Statistic], ...]:
        """Of each class what its scores tell; one object, so that what is counted once serves all figures."""
        return tuple(one.statistics() for one in self.scores)

    def _ranked(self) -> tuple[dict[str, Statistic], ...]:
        """Two classes are each other's complement: the second stands for both, as is the custom."""
        return self.by_score[1:] if len(self.scores) == 2 else self.by_score

    def binning(self) -> dict[str, float]:
        """How far the figures of a class can be from those of the scores themselves: the most over the classes."""
        once_N = np.ones(self.size)
        errors = [one.pooled(once_N).errors() for one in self.scores]
        return {name: max(one[name] for one in errors) for name in errors[0]}

    def reliability(self) -> list[tuple[int, int, float, float]]:
        """(bin, positions, mean confidence, share that is right) of the bins that hold positions."""
        sums_H3 = self.bins_NH3.sum(axis=0)
        return [
            (number, int(num), float(told / num), float(right / num))
            for number, (num, told, right) in enumerate(sums_H3.tolist())
            if num
        ]

    def _pooled(self, figure: Any) -> Statistic:
        flat_NS = self.counts_NKK.reshape(self.size, -1)
        shape = self.counts_NKK.shape[1:]
        return lambda weights_N: float(figure((weights_N @ flat_NS).reshape(shape)))

    def _calibration(self) -> Statistic:
        flat_NS = self.bins_NH3.reshape(self.size, -1)

        def statistic(weights_N: Floats) -> float:
            sums_H3 = (weights_N @ flat_NS).reshape(_BINS, 3)
            total = sums_H3[:, 0].sum()
            return float(np.abs(sums_H3[:, 2] - sums_H3[:, 1]).sum() / total) if total else float("nan")

        return statistic


def _against_rest(counts_KK: Floats, channel: int) -> Floats:
    """(2, 2) of one class, which comes second."""
    both, true, told = counts_KK[channel, channel], counts_KK[channel].sum(), counts_KK[:, channel].sum()
    return np.array([[counts_KK.sum() - true - told + both, told - both], [true - both, both]])


def odd_positions(text: str | None, head: HeadInfo) -> tuple[str, str] | None:
    """Reason code and sentence where a sequence cannot be judged by these labels."""
    if not (text or "").strip(UNKNOWN):
        return "missing_label", "no position of the record has a label"
    foreign = set(text or "") - {UNKNOWN, *head.channels}
    if foreign:
        first = min(foreign)
        known = ", ".join(head.channels[:20])
        return "unknown_label", f"a position has the label {first!r}, the model's classes are {known}"
    return None


def joined(head: HeadInfo, parts: Sequence[Counted], groups: Any, clusters: Ints | None) -> JudgedPositions:
    """Rows of several tables, from what `counted` gave of each."""
    counts, bins, scores = zip(*parts, strict=True)
    every = tuple(ScoreCounts.joined(of_class) for of_class in zip(*scores, strict=True))
    return JudgedPositions(head, np.concatenate(counts), np.concatenate(bins), every, groups, clusters)


def counted(table: pa.Table, head: HeadInfo) -> Counted:
    """Counts (N, K, K), bins (N, H, 3) and scores by class of rows with the head's columns and the truth.

    A list of values shorter than its sequence lies in its middle.
    """
    num = len(head.channels)
    number = np.full(256, NO_LABEL, np.int64)
    for place, name in enumerate(head.channels):
        number[ord(name)] = place
    columns = [table[value_column(head, name)].to_pylist() for name in head.channels]
    counts_NKK, bins_NH3 = np.zeros((table.num_rows, num, num)), np.zeros((table.num_rows, _BINS, 3))
    scored: list[list[tuple[Floats, NDArray[np.bool_]]]] = [[] for _ in head.channels]
    for row, (text, *lists) in enumerate(zip(table[TRUTH].to_pylist(), *columns, strict=True)):
        values_KL = np.array(lists, np.float64)
        begin = (len(text) - values_KL.shape[1]) // 2
        letters = np.frombuffer(text[begin : begin + values_KL.shape[1]].encode("latin-1"), np.uint8)
        truth_L, called_L, told_L = number[letters], values_KL.argmax(axis=0), values_KL.max(axis=0)
        counts_NKK[row] = position_counts(called_L[None], truth_L[None], num)[0]
        known_L = truth_L != NO_LABEL
        bin_L = np.clip((told_L[known_L] * _BINS).astype(np.int64), 0, _BINS - 1)
        right_L = called_L[known_L] == truth_L[known_L]
        for place, weights in enumerate((None, told_L[known_L], right_L)):
            bins_NH3[row, :, place] = np.bincount(bin_L, weights=weights, minlength=_BINS)
        for place, samples in enumerate(scored):
            samples.append((values_KL[place, known_L], truth_L[known_L] == place))
    return counts_NKK, bins_NH3, tuple(ScoreCounts.of(samples) for samples in scored)
