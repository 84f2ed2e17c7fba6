"""Sequences that are their own targets: letters are hidden as a batch is made, after augmentation.

Shape letters: B samples of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.training._sequence_set import SequenceSet
from engine.training.kinds.sequences import (
    SequenceAugmentation,
    SequenceInputs,
    SequenceKind,
    SequenceReader,
    padded,
    unknown_of,
)


@dataclass(frozen=True)
class MaskedReader(SequenceReader):
    """See SequenceReader; the task hides letters."""

    def batch(self, samples: Sequence[Any], seeds_B: NDArray[np.int64]) -> tuple[SequenceInputs, NDArray[Any]]:
        """See SampleReader."""
        task: Any = self.task
        unknown, shown, labels = unknown_of(self.encoder), [], []
        for (tokens, _), seed in zip(samples, seeds_B.tolist(), strict=True):
            varied = tokens if self.augmentation is None else self.augmentation.applied(tokens, seed, unknown)
            tokens_L, labels_L = task.masked(varied, seed, unknown)
            shown.append(tokens_L)
            labels.append(labels_L)
        return padded(shown, unknown), task.stack(labels)


class MaskedSequenceKind(SequenceKind):
    """See engine/training/_kind.py."""

    def reader(
        self,
        data: SequenceSet,  # noqa: ARG002 - groups name their parts
        *,
        encoder: Any,
        task: Any,
        augmentation: SequenceAugmentation | None,
    ) -> MaskedReader:
        """See Kind."""
        return MaskedReader(encoder, task, augmentation)

    def decided(self, data: SequenceSet, encoder: Any, augmentation: SequenceAugmentation) -> Mapping[str, Any]:
        """See Kind. On the other strand each base is another one: the values belong to the strand that is read."""
        return {**super().decided(data, encoder, augmentation), "symmetry": "stranded"}


KIND = MaskedSequenceKind()
