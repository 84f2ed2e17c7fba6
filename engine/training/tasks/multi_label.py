"""Any number of labels for each sequence, from the column `targets`: a list of 0 and 1, one for each label.

Anything between is refused: areas under curves, F1 and calibration are defined for labels that are there or not, in
scikit-learn and torchmetrics too. Fractions, such as methylation or PSI, are numbers (sequence_regression).

Losses: binary cross entropy, or focal loss (Lin et al. 2017, arXiv 1708.02002), summed over the labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor, tensor
from torch.nn import functional as F

from engine.errors import DataError, InputError
from engine.scoring._metrics import Statistic
from engine.training import _metrics
from engine.training._task import Floats, Ids, SequenceTask, float_targets

LOSSES = ("bce", "focal")


@dataclass(frozen=True)
class MultiLabelParams:
    """Attributes:
    labels: their names, in the order of the lists; none takes those of the set, or numbers them from 0.
    loss: "bce" or "focal".
    focal_gamma: how much well-told labels are played down by the focal loss.
    """

    labels: tuple[str, ...] = ()
    loss: str = "bce"
    focal_gamma: float = 2.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(str(name) for name in self.labels))
        if self.loss not in LOSSES or self.focal_gamma < 0:
            raise ValueError(f"loss is one of {LOSSES} and focal_gamma 0 or more, found {self.loss!r}")


@dataclass(frozen=True)
class MultiLabel(SequenceTask):
    """Attributes:
    params: as asked for.
    outputs: names of the labels.
    shares: share of the training samples that carry each.
    num_samples: training samples.
    """

    params: MultiLabelParams
    outputs: tuple[str, ...]
    shares: tuple[float, ...]
    num_samples: int

    Params = MultiLabelParams
    RESULT_VERSION = 1
    head = "labels"
    activation = "sigmoid"

    @staticmethod
    def column_of(params: Any) -> str:  # noqa: ARG004 - the same for all
        """Where the targets are."""
        return "targets"

    @staticmethod
    def named(params: MultiLabelParams, names: tuple[str, ...]) -> MultiLabelParams:
        """See Task."""
        return params if params.labels else replace(params, labels=names)

    @classmethod
    def fit(cls, params: MultiLabelParams, columns: Iterable[pa.ChunkedArray]) -> MultiLabel:
        """Count each label in the training rows; what is odd in a row is said when that row is read."""
        totals, count = np.zeros(0), 0
        for column in columns:
            rows = [row for row in column.to_pylist() if row]
            width = len(rows[0]) if rows and not len(totals) else len(totals)
            totals = np.zeros(width) if not len(totals) else totals
            fitting = [row for row in rows if len(row) == width and None not in row]
            totals = totals + np.nan_to_num(np.array(fitting, dtype=np.float64).reshape(len(fitting), width)).sum(
                axis=0
            )
            count += len(fitting)
        names = params.labels or tuple(str(number) for number in range(len(totals)))
        if count == 0 or len(names) != len(totals):
            what = f"the training rows hold lists of {len(totals)} targets in the column 'targets', labels {len(names)}"
            raise InputError(what, where="task", fix="give targets when the set is made, and as many labels")
        return cls(params, names, tuple(float(share) for share in totals / count), count)

    def bias(self) -> Floats:
        """Log-odds of each label's share, within one sample of certainty."""
        edge = 1 / (self.num_samples + 1)
        shares = np.clip(np.array(self.shares), edge, 1 - edge)
        bias: Floats = np.log(shares / (1 - shares))
        return bias

    def targets(self, column: pa.ChunkedArray, *, records: Ids, where: str) -> NDArray[np.float32]:
        """(N, K); see Task. Raises DataError also for what is neither 0 nor 1."""
        wide = {"low": -np.inf, "high": np.inf}
        made_NK = float_targets(column, num_outputs=len(self.outputs), **wide, records=records, where=where)
        odd_NK = (made_NK != 0) & (made_NK != 1)
        if odd_NK.any():
            row, label = (int(place) for place in np.argwhere(odd_NK)[0])
            what = (
                f"record {records[row]} has {made_NK[row, label]:g} for label {self.outputs[label]!r}, and labels are"
            )
            fix = (
                "make it 0 or 1 when the set is made, or train sequence_regression (several: true), which takes numbers"
            )
            raise DataError(f"{what} 0 or 1", where=where, fix=fix)
        return made_NK

    def stack(self, rows: Sequence[Any]) -> NDArray[np.float32]:
        """(B, K)."""
        return np.array(rows, dtype=np.float32).reshape(len(rows), len(self.outputs))

    def losses(self, logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
        """(B,)."""
        entropy_BK = F.binary_cross_entropy_with_logits(logits_BK, targets_BK, reduction="none")
        if self.params.loss == "focal":
            entropy_BK = (1 - (-entropy_BK).exp()) ** self.params.focal_gamma * entropy_BK
        return entropy_BK.sum(dim=1)

    def weights(self, targets_BK: Tensor) -> Tensor:
        """(B,) ones."""
        return tensor(1.0, device=targets_BK.device).expand(len(targets_BK))

    def statistics(self, values_NK: Floats, targets: NDArray[np.float32]) -> Mapping[str, Statistic]:
        """Means over the labels: accuracy and F1 at one half, areas under the curves, and calibration."""
        is_there_NK = self.truths(targets)
        per_label = [
            _metrics.class_statistics(there.astype(np.int64), (value > 0.5).astype(np.int64), 2)
            for there, value in zip(is_there_NK.T, values_NK.T, strict=True)
        ]
        means = {name: _metrics.mean_of([one[name] for one in per_label]) for name in ("accuracy", "f1_macro", "mcc")}
        gaps = [_metrics.calibration_statistic(*pair) for pair in zip(values_NK.T, is_there_NK.T, strict=True)]
        calibration = {"calibration_error": _metrics.mean_of(gaps)}
        return {**means, **_label_rankings(values_NK, is_there_NK), **calibration}

    def lower_is_better(self) -> tuple[str, ...]:
        """The calibration error."""
        return ("calibration_error",)

    def confusion(self, values_NK: Floats, targets: NDArray[np.float32]) -> Ids | None:  # noqa: ARG002
        """None: labels do not exclude each other."""
        return None

    def truths(self, targets: NDArray[np.float32]) -> NDArray[np.bool_]:
        """(N, K)."""
        is_there_NK: NDArray[np.bool_] = targets > 0.5
        return is_there_NK

    def facts(self) -> Mapping[str, Any]:
        """Labels and their share of the training samples."""
        return {"labels": dict(zip(self.outputs, self.shares, strict=True))}


def _label_rankings(values_NK: Floats, is_there_NK: NDArray[np.bool_]) -> dict[str, Statistic]:
    """Label by label: two labels that happen to exclude each other are still two."""
    columns = [
        _metrics.ranking_statistics(values_NK[:, [column]], is_there_NK[:, [column]])
        for column in range(values_NK.shape[1])
    ]
    return {name: _metrics.mean_of([one[name] for one in columns]) for name in ("auroc", "auprc")}


COMPONENT = MultiLabel
