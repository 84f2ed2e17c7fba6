"""What the loop asks of a task.

Shape letters: N samples, B samples of a batch, K outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import DataError
from engine.scoring._metrics import Statistic

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
NO_LABEL = -1
"""What stands in place of a class where a position has none."""


class Task(Protocol):
    """A frozen, picklable object made by its class's `fit` from the targets of the training rows.

    Its class has `Params`, `RESULT_VERSION`, `kind`, which samples it takes (a file of engine/training/kinds), `level`,
    what has an answer, as HeadInfo has it, and `head`, the name of the model's head. Tasks whose outputs are columns of
    the set also have `named(params, names)`: the params with these names of its targets, unless they give their own.
    """

    kind: str
    level: str
    head: str

    @staticmethod
    def column_of(params: Any) -> str:
        """The column of the data set that holds the targets."""
        ...

    @property
    def column(self) -> str:
        """The same, of the task's own params."""
        ...

    @classmethod
    def fit(cls, params: Any, columns: Iterable[Any]) -> Task:
        """Learn what the targets are: classes, counts, means. Raises InputError where they cannot be trained on."""
        ...

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the model's outputs."""
        ...

    @property
    def activation(self) -> str:
        """What turns the model's logits into values."""
        ...

    def bias(self) -> Floats:
        """(K,) logits where training begins."""
        ...

    def targets(self, column: Any, *, records: Ids, where: str) -> Any:
        """Of a group's rows, one of them at each place: (N,) int64 classes, (N, K) float32, or what `stack` joins.

        Raises:
            DataError: a target is missing, not finite, or outside the classes; names `where` and the record.
        """
        ...

    def stack(self, rows: Sequence[Any]) -> NDArray[Any]:
        """Targets of single samples as a batch, also of none."""
        ...

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B,) float32."""
        ...

    def weights(self, targets: Tensor) -> Tensor:
        """(B,) float32: how much each sample counts in the mean loss."""
        ...

    @property
    def kept_names(self) -> tuple[str, ...]:
        """Names of the columns of what is kept."""
        ...

    def kept(self, values: NDArray[Any], targets: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """(B, S) and (B, ...): what is kept of samples for their figures.

        The values and targets themselves where they are few; of a value for every position or pixel, counts.
        """
        ...

    def statistics(self, kept_NS: Floats, targets: NDArray[Any]) -> Mapping[str, Statistic]:
        """Metrics by name as functions of row weights; the higher the better, unless named in `lower_is_better`.

        Rows are samples, so that a bootstrap draws whole sequences and images.
        """
        ...

    def lower_is_better(self) -> tuple[str, ...]:
        """Names of metrics of which less is better, beside the loss."""
        ...

    def confusion(self, kept_NS: Floats, targets: NDArray[Any]) -> Ids | None:
        """(K, K) counts, truth in rows and prediction in columns; None where there are no classes."""
        ...

    def truths(self, targets: NDArray[Any]) -> NDArray[np.bool_] | None:
        """(N, K) whether an output is true of a sample; None where outputs are no classes or labels.

        Args:
            targets: as `targets` gives them, or as `kept` does.
        """
        ...

    def facts(self) -> Mapping[str, Any]:
        """What the model card tells: classes and counts, or mean and spread; plain values."""
        ...


class SequenceTask:
    """What the tasks share that tell a few values of a sequence: these are kept as they are."""

    kind = "sequences"
    level = "sequence"

    @property
    def column(self) -> str:
        """Where the targets are."""
        return str(self.column_of(self.params))  # type: ignore[attr-defined]

    @property
    def kept_names(self) -> tuple[str, ...]:
        """The outputs."""
        names: tuple[str, ...] = self.outputs  # type: ignore[attr-defined]
        return names

    def kept(self, values: NDArray[Any], targets: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """All of them."""
        return values, targets


def float_targets(
    column: pa.ChunkedArray, *, num_outputs: int, low: float, high: float, records: Ids, where: str
) -> NDArray[np.float32]:
    """(N, K) from a column of numbers (K = 1) or of lists of numbers.

    Raises:
        DataError: a target missing, of another length, not finite or outside low to high.
    """
    rows: list[Any] = column.to_pylist()
    made = np.full((len(rows), num_outputs), np.nan, dtype=np.float64)
    for number, value in enumerate(rows):
        values = value if isinstance(value, list) else [value]
        if value is None or len(values) != num_outputs or None in values:
            raise refused(f"target {value!r}, wanted are {num_outputs} numbers", records[number], where)
        made[number] = values
    wrong = ~(np.isfinite(made) & (made >= low) & (made <= high)).all(axis=1)
    if wrong.any():
        number = int(np.flatnonzero(wrong)[0])
        wanted = "finite numbers" if low == -np.inf else f"finite numbers from {low:g} to {high:g}"
        raise refused(f"target {made[number].tolist()}, wanted are {wanted}", records[number], where)
    return made.astype(np.float32)


def refused(what: str, record: int, where: str) -> DataError:
    return DataError(f"record {record} has {what}", where=where, fix="correct or reject it when the set is made")
