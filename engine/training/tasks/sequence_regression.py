"""Numbers for each sequence, such as expression: from the column `target`, or several from `targets`.

Losses: mean squared error in units of the training targets' spread, or the Poisson likelihood of counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor, as_tensor, tensor
from torch.nn import functional as F

from engine.errors import InputError
from engine.scoring._metrics import Statistic, pearson_statistic, spearman_statistic
from engine.training import _metrics
from engine.training._task import Floats, Ids, SequenceTask, float_targets

LOSSES = ("mse", "poisson")


@dataclass(frozen=True)
class SequenceRegressionParams:
    """Attributes:
    loss: "mse", or "poisson" for counts and rates of 0 or more.
    names: of the numbers; none takes those of the set, or names one "value" and several by number from 0.
    several: read lists from `targets` in place of one number from `target`.
    """

    loss: str = "mse"
    names: tuple[str, ...] = ()
    several: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(str(name) for name in self.names))
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, found {self.loss!r}")


@dataclass(frozen=True)
class SequenceRegression(SequenceTask):
    """Attributes:
    params: as asked for.
    outputs: names of the numbers.
    means, spreads: mean and standard deviation of each over the training samples.
    """

    params: SequenceRegressionParams
    outputs: tuple[str, ...]
    means: tuple[float, ...]
    spreads: tuple[float, ...]

    Params = SequenceRegressionParams
    RESULT_VERSION = 1
    head = "value"

    @staticmethod
    def column_of(params: SequenceRegressionParams) -> str:
        """Where the targets are."""
        return "targets" if params.several else "target"

    @staticmethod
    def named(params: Any, names: tuple[str, ...]) -> Any:
        """See Task."""
        return params if params.names else replace(params, names=names)

    @property
    def activation(self) -> str:
        """Rates are above 0."""
        return "softplus" if self.params.loss == "poisson" else "identity"

    @classmethod
    def fit(cls, params: SequenceRegressionParams, columns: Iterable[pa.ChunkedArray]) -> SequenceRegression:
        """Mean and spread of the training rows; what is odd in a row is said when that row is read."""
        kept = [rows for column in columns if (rows := _finite_rows(column.to_pylist())) is not None]
        if not kept or len({rows.shape[1] for rows in kept}) != 1:
            what = (
                f"the training rows hold no numbers in the column {cls.column_of(params)!r}, or lists of unequal length"
            )
            fix = (
                "where the set has several targets a record set task.params.several to true; where it has none, make it"
            )
            fix += " anew with --target, or choose another task"
            raise InputError(what, where="task", fix=fix)
        count = sum(len(rows) for rows in kept)
        means = sum(rows.sum(axis=0) for rows in kept) / count
        spreads = np.sqrt(sum(((rows - means) ** 2).sum(axis=0) for rows in kept) / count)
        names = params.names or (tuple(map(str, range(len(means)))) if params.several else ("value",))
        if len(names) != len(means):
            raise InputError(f"{len(names)} names for {len(means)} numbers", where="task", fix="give one name for each")
        return cls(params, names, tuple(map(float, means)), tuple(map(float, spreads)))

    def bias(self) -> Floats:
        """What gives the mean."""
        means = np.array(self.means)
        if self.params.loss == "mse":
            return means
        means = np.maximum(means, 1e-6)
        bias: Floats = np.where(means > 30, means, np.log(np.expm1(np.minimum(means, 30))))
        return bias

    def targets(self, column: pa.ChunkedArray, *, records: Ids, where: str) -> NDArray[np.float32]:
        """(N, K); see Task."""
        low = 0.0 if self.params.loss == "poisson" else -np.inf
        return float_targets(column, num_outputs=len(self.outputs), low=low, high=np.inf, records=records, where=where)

    def stack(self, rows: Sequence[Any]) -> NDArray[np.float32]:
        """(B, K)."""
        return np.array(rows, dtype=np.float32).reshape(len(rows), len(self.outputs))

    def losses(self, logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
        """(B,), the mean over the numbers."""
        if self.params.loss == "poisson":
            rates_BK = F.softplus(logits_BK)
            return F.poisson_nll_loss(rates_BK, targets_BK, log_input=False, reduction="none").mean(dim=1)
        # A number that never changes would divide by zero; its unit is then its own.
        spreads_K = as_tensor([spread or 1.0 for spread in self.spreads], device=logits_BK.device)
        return (((logits_BK - targets_BK) / spreads_K) ** 2).mean(dim=1)

    def weights(self, targets_BK: Tensor) -> Tensor:
        """(B,) ones."""
        return tensor(1.0, device=targets_BK.device).expand(len(targets_BK))

    def statistics(self, values_NK: Floats, targets: NDArray[np.float32]) -> Mapping[str, Statistic]:
        """Means over the numbers: correlations and the mean squared error in the targets' own unit."""
        pairs = list(zip(values_NK.T, targets.T.astype(np.float64), strict=True))
        return {
            "pearson": _metrics.mean_of([pearson_statistic(*pair) for pair in pairs]),
            "spearman": _metrics.mean_of([spearman_statistic(*pair) for pair in pairs]),
            "mse": _metrics.mean_of([_mse_statistic(*pair) for pair in pairs]),
        }

    def lower_is_better(self) -> tuple[str, ...]:
        """The error."""
        return ("mse",)

    def confusion(self, values_NK: Floats, targets: NDArray[np.float32]) -> Ids | None:  # noqa: ARG002
        """None: there are no classes."""
        return None

    def truths(self, targets: NDArray[np.float32]) -> NDArray[np.bool_] | None:  # noqa: ARG002
        """None."""
        return None

    def facts(self) -> Mapping[str, Any]:
        """Mean and spread of the training targets."""
        return {"means": list(self.means), "spreads": list(self.spreads)}


def _finite_rows(rows: Sequence[Any]) -> Floats | None:
    """(N, K) of the rows that are numbers; None where none is."""
    lists = [row if isinstance(row, list) else [row] for row in rows if row is not None]
    whole = [row for row in lists if row and len(row) == len(lists[0]) and None not in row]
    made = np.array(whole, dtype=np.float64)
    made = made[np.isfinite(made).all(axis=1)] if len(made) else made
    return made if len(made) else None


def _mse_statistic(value_N: Floats, target_N: Floats) -> Statistic:
    error_N = (value_N - target_N) ** 2
    return lambda weights_N: float(weights_N @ error_N / weights_N.sum()) if weights_N.sum() else float("nan")


COMPONENT = SequenceRegression
