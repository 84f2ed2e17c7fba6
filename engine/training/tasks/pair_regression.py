"""Numbers for each pair, such as the affinity of a drug and its target: from the column `target`, or `targets`.

All but the kind of sample is as for sequences (engine/training/tasks/sequence_regression.py), and beside the
correlations stands the concordance index: the chance that of two pairs the stronger one is told to be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.scoring._metrics import Statistic, concordance_statistic
from engine.training import _metrics
from engine.training._task import Floats
from engine.training.tasks.sequence_regression import SequenceRegression, SequenceRegressionParams


@dataclass(frozen=True)
class PairRegressionParams(SequenceRegressionParams):
    """Attributes beside those of SequenceRegressionParams:

    censored_at: the number that stands for "nothing was seen", such as a pKd of 5; the concordance index is then told
        without these rows too, which may be most of a set. None: there is no such number.
    """

    censored_at: float | None = None


@dataclass(frozen=True)
class PairRegression(SequenceRegression):
    """See SequenceRegression."""

    params: PairRegressionParams

    Params = PairRegressionParams
    kind = "pairs"

    def statistics(self, values_NK: Floats, targets: NDArray[np.float32]) -> Mapping[str, Statistic]:
        """Means over the numbers: correlations, mean squared error in the targets' own unit, concordance."""
        found = dict(super().statistics(values_NK, targets))
        pairs = list(zip(values_NK.T, targets.T.astype(np.float64), strict=True))
        found["concordance"] = _metrics.mean_of([concordance_statistic(*pair) for pair in pairs])
        censored_at = self.params.censored_at
        if censored_at is not None:
            some = [concordance_statistic(*pair, among=is_seen(pair[1], censored_at)) for pair in pairs]
            found["concordance_uncensored"] = _metrics.mean_of(some)
        return found


def is_seen(truth_N: Floats, censored_at: float) -> NDArray[np.bool_]:
    """(N,) whether a number, kept in single precision, is another than the one that stands for nothing seen."""
    seen_N: NDArray[np.bool_] = truth_N.astype(np.float32) != np.float32(censored_at)
    return seen_N


COMPONENT = PairRegression
