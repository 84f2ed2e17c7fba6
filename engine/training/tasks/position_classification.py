"""One of several classes for each position of a sequence, from the column `position_labels`: a letter for each.

Positions whose class is not known (`.`) are left out of loss and figures. The loss is a mean over positions (losses as
in _classes.py); what is kept of a sequence for its figures is how many of its positions of each class were told to be
of which, so that a bootstrap draws sequences.

Shape letters: B sequences of a batch, L positions, N sequences, K classes, P positions with a class.
"""

from __future__ import annotations

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
from engine.training._task import NO_LABEL, Floats, Ids, SequenceTask, refused
from engine.training.tasks._classes import ClassParams, class_bias, class_losses, class_weights
from engine.training.tasks._letters import letter_codes, letter_counts

UNKNOWN = "."
MOST_CLASSES = 100


@dataclass(frozen=True)
class PositionClassificationParams(ClassParams):
    """See ClassParams; classes are letters, as a list or one text such as "CEH"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        odd = [name for name in self.classes if len(name) != 1 or not "!" <= name <= "~" or name == UNKNOWN]
        if odd or len(self.classes) > MOST_CLASSES:
            raise ValueError(f"classes of positions are single letters other than {UNKNOWN!r}, found {odd[:5]}")


@dataclass(frozen=True)
class PositionClassification(SequenceTask):
    """Attributes:
    params: as asked for.
    outputs: letters of the classes.
    counts: training positions of each.
    num_sequences: training sequences.
    """

    params: PositionClassificationParams
    outputs: tuple[str, ...]
    counts: tuple[int, ...]
    num_sequences: int

    Params = PositionClassificationParams
    RESULT_VERSION = 1
    level = "position"
    head = "state"
    activation = "softmax"

    @staticmethod
    def column_of(params: Any) -> str:  # noqa: ARG004 - the same for all
        """Where the targets are."""
        return "position_labels"

    @classmethod
    def fit(cls, params: PositionClassificationParams, columns: Iterable[pa.ChunkedArray]) -> PositionClassification:
        """Count the letters of the training rows."""
        counts, rows = letter_counts(columns)
        counts[ord(UNKNOWN)] = 0
        classes = params.classes or tuple(chr(code) for code in np.flatnonzero(counts[:128]).tolist())
        empty = [name for name in classes if not counts[ord(name)]]
        if empty:
            raise InputError(
                f"class {empty[0]!r} has no training position", where="task", fix="leave it out of classes"
            )
        if not 2 <= len(classes) <= MOST_CLASSES:
            what = f"the training rows hold {len(classes)} classes in the column 'position_labels'"
            fix = "give position labels when the set is made, or choose another task"
            raise InputError(f"{what}, wanted are 2 to {MOST_CLASSES}", where="task", fix=fix)
        return cls(params, classes, tuple(int(counts[ord(name)]) for name in classes), rows)

    def bias(self) -> Floats:
        """Logarithm of each class's share."""
        return class_bias(self.params, self.counts)

    def targets(self, column: pa.ChunkedArray, *, records: Ids, where: str) -> list[NDArray[np.int8]]:
        """(N,) of (L,) number of each position's class, NO_LABEL where it is not known; see Task."""
        number = np.full(256, NO_LABEL - 1, np.int8)
        number[ord(UNKNOWN)] = NO_LABEL
        for place, name in enumerate(self.outputs):
            number[ord(name)] = place
        made = []
        for row, text in enumerate(column.to_pylist()):
            if not (text or "").strip(UNKNOWN):
                raise refused("no position with a label", int(records[row]), where)
            found = number[letter_codes(text)]
            if (found < NO_LABEL).any():
                place = int(np.argmax(found < NO_LABEL))
                known = ", ".join(self.outputs[:20])
                what = f"label {text[place]!r} at letter {place + 1:,}, the classes are {known}"
                raise refused(what, int(records[row]), where)
            made.append(found)
        return made

    def stack(self, rows: Sequence[NDArray[np.int8]]) -> NDArray[np.int32]:
        """(B, L), NO_LABEL beyond a sequence's end."""
        stacked_BL = np.full((len(rows), max(map(len, rows), default=0)), NO_LABEL, np.int32)
        for stacked_L, row in zip(stacked_BL, rows, strict=True):
            stacked_L[: len(row)] = row
        return stacked_BL

    def losses(self, logits_BKL: Tensor, targets_BL: Tensor) -> Tensor:
        """(B,) weighted mean over the known positions."""
        targets_BL = targets_BL[:, : logits_BKL.shape[2]]  # what a part of a batch does not reach is padding
        known_BL = targets_BL != NO_LABEL
        classes_P = targets_BL[known_BL].long()
        losses_P = class_losses(self.params, logits_BKL.transpose(1, 2)[known_BL], classes_P)
        weights_P = class_weights(self.params, self.counts, classes_P)
        losses_BL = logits_BKL.new_zeros(known_BL.shape).masked_scatter(known_BL, losses_P * weights_P)
        return losses_BL.sum(dim=1) / self.weights(targets_BL).clamp_min(1e-12)

    def weights(self, targets_BL: Tensor) -> Tensor:
        """(B,) of all its known positions together, so that the mean loss is one over positions."""
        known_BL = targets_BL != NO_LABEL
        weights_P = class_weights(self.params, self.counts, targets_BL[known_BL].long())
        return weights_P.new_zeros(known_BL.shape).masked_scatter(known_BL, weights_P).sum(dim=1)

    @property
    def kept_names(self) -> tuple[str, ...]:
        """Positions by true and told class."""
        return tuple(f"{truth}_as_{told}" for truth in self.outputs for told in self.outputs)

    def kept(self, values: NDArray[Any], targets: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """(B, K * K) positions by true and told class, and (B, K) by true class; of values (B, K, L)."""
        called_BL = values.argmax(axis=1)
        counts_BKK = position_counts(called_BL, targets[:, : called_BL.shape[1]], len(self.outputs))
        return counts_BKK.reshape(len(values), -1), counts_BKK.sum(axis=2).astype(np.int32)

    def _counts(self, kept_NS: Floats) -> Floats:
        return kept_NS.reshape(len(kept_NS), len(self.outputs), len(self.outputs))

    def statistics(self, kept_NS: Floats, targets: NDArray[Any]) -> Mapping[str, Statistic]:  # noqa: ARG002
        """Accuracy over all positions and as a mean over sequences, macro F1 and MCC over all positions."""
        return _metrics.counted_statistics(self._counts(kept_NS))

    def lower_is_better(self) -> tuple[str, ...]:
        """None."""
        return ()

    def confusion(self, kept_NS: Floats, targets: NDArray[Any]) -> Ids:  # noqa: ARG002
        """(K, K) positions, truth in rows."""
        counts_KK: Ids = self._counts(kept_NS).sum(axis=0).astype(np.int64)
        return counts_KK

    def truths(self, targets: Any) -> NDArray[np.bool_]:
        """(N, K) whether a sequence has a position of the class."""
        if isinstance(targets, np.ndarray):  # as `kept` gives them
            has_NK: NDArray[np.bool_] = targets > 0
            return has_NK
        classes = np.arange(len(self.outputs))
        return np.array([np.isin(classes, row) for row in targets], bool).reshape(len(targets), len(classes))

    def facts(self) -> Mapping[str, Any]:
        """Classes with their training positions, and the sequences these are of."""
        return {"classes": dict(zip(self.outputs, self.counts, strict=True)), "sequences": self.num_sequences}


def position_counts(called_BL: NDArray[Any], truth_BL: NDArray[Any], num_classes: int) -> NDArray[np.int64]:
    """(B, K, K) positions of each sequence, truth in rows and what was told in columns; NO_LABEL does not count."""
    row_BL = np.broadcast_to(np.arange(len(truth_BL))[:, None], truth_BL.shape)
    known_BL = truth_BL != NO_LABEL
    cells = (row_BL[known_BL] * num_classes + truth_BL[known_BL]) * num_classes + called_BL[known_BL]
    counts = np.bincount(cells, minlength=len(truth_BL) * num_classes**2)
    return counts.reshape(len(truth_BL), num_classes, num_classes)


COMPONENT = PositionClassification
