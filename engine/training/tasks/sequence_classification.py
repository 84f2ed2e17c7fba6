"""One of several classes for each sequence, from the column `label`; losses as in _classes.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import InputError
from engine.scoring._metrics import Statistic
from engine.training import _metrics
from engine.training._task import Floats, Ids, SequenceTask, refused
from engine.training.tasks._classes import ClassParams, class_bias, class_losses, class_weights


@dataclass(frozen=True)
class SequenceClassificationParams(ClassParams):
    """See ClassParams."""


@dataclass(frozen=True)
class SequenceClassification(SequenceTask):
    """Attributes:
    params: as asked for.
    outputs: names of the classes.
    counts: training samples of each.
    """

    params: SequenceClassificationParams
    outputs: tuple[str, ...]
    counts: tuple[int, ...]

    Params = SequenceClassificationParams
    RESULT_VERSION = 1
    head = "class"
    activation = "softmax"

    @staticmethod
    def column_of(params: Any) -> str:  # noqa: ARG004 - the same for all
        """Where the targets are."""
        return "label"

    @classmethod
    def fit(cls, params: SequenceClassificationParams, columns: Iterable[pa.ChunkedArray]) -> SequenceClassification:
        """Count the labels of the training rows."""
        seen: Counter[str | None] = Counter()
        for column in columns:
            seen.update(column.to_pylist())
        classes = params.classes or tuple(sorted(name for name in seen if name is not None))
        empty = [name for name in classes if not seen[name]]
        if empty:
            raise InputError(f"class {empty[0]!r} has no training sample", where="task", fix="leave it out of classes")
        if len(classes) < 2:
            if params.classes:
                raise InputError("one class is named, wanted are 2 or more", where="key 'task.params.classes'")
            num = f"{len(classes)} class{'' if len(classes) == 1 else 'es'}"
            what = f"the training rows hold {num} in the column 'label', wanted are 2 or more"
            fix = "stratify the split, give labels when the set is made, or choose another task"
            raise InputError(what, where="task", fix=fix)
        return cls(params, classes, tuple(seen[name] for name in classes))

    def bias(self) -> Floats:
        """Logarithm of each class's share."""
        return class_bias(self.params, self.counts)

    def targets(self, column: pa.ChunkedArray, *, records: Ids, where: str) -> NDArray[np.int64]:
        """(N,) number of each class; see Task."""
        number = {name: place for place, name in enumerate(self.outputs)}
        found = np.array([number.get(label, -1) for label in column.to_pylist()], dtype=np.int64)
        if (found < 0).any():
            row = int(np.flatnonzero(found < 0)[0])
            known = ", ".join(self.outputs[:20])
            raise refused(f"label {column[row].as_py()!r}, the classes are {known}", int(records[row]), where)
        return found

    def stack(self, rows: Sequence[Any]) -> NDArray[np.int64]:
        """(B,)."""
        return np.array(rows, dtype=np.int64)

    def losses(self, logits_BK: Tensor, targets_B: Tensor) -> Tensor:
        """(B,)."""
        return class_losses(self.params, logits_BK, targets_B)

    def weights(self, targets_B: Tensor) -> Tensor:
        """(B,)."""
        return class_weights(self.params, self.counts, targets_B)

    def statistics(self, values_NK: Floats, targets: NDArray[np.int64]) -> Mapping[str, Statistic]:
        """Accuracy, macro F1, MCC, areas under the curves of one class against the rest, and calibration."""
        called = values_NK.argmax(axis=1)
        return {
            **_metrics.class_statistics(targets, called, len(self.outputs)),
            **_metrics.ranking_statistics(values_NK, self.truths(targets)),
            "calibration_error": _metrics.calibration_statistic(values_NK.max(axis=1), called == targets),
        }

    def lower_is_better(self) -> tuple[str, ...]:
        """The calibration error."""
        return ("calibration_error",)

    def confusion(self, values_NK: Floats, targets: NDArray[np.int64]) -> Ids:
        """(K, K), truth in rows."""
        return _metrics.confusion(targets, values_NK.argmax(axis=1), len(self.outputs)).astype(np.int64)

    def truths(self, targets: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(N, K)."""
        is_class_NK: NDArray[np.bool_] = targets[:, None] == np.arange(len(self.outputs))[None, :]
        return is_class_NK

    def facts(self) -> Mapping[str, Any]:
        """Classes and their training counts."""
        return {"classes": dict(zip(self.outputs, self.counts, strict=True))}


COMPONENT = SequenceClassification
