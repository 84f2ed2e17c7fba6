"""One of several classes for each image, from the column `label` of the set.

All but the kind of sample is as for sequences (engine/training/tasks/sequence_classification.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from engine.training.tasks.sequence_classification import SequenceClassification, SequenceClassificationParams


@dataclass(frozen=True)
class ImageClassificationParams(SequenceClassificationParams):
    """See SequenceClassificationParams."""


@dataclass(frozen=True)
class ImageClassification(SequenceClassification):
    """See SequenceClassification."""

    Params = ImageClassificationParams
    kind = "images"
    level = "image"

    @classmethod
    def from_facts(
        cls, params: ImageClassificationParams, outputs: tuple[str, ...], facts: Mapping[str, Any]
    ) -> ImageClassification:
        """The task as a model folder keeps it: see `facts`."""
        return cls(params, outputs, tuple(facts["classes"][name] for name in outputs))

    def pictured(self, values_BK: NDArray[Any], targets_B: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """True and called classes (B,), counted from 1, for pictures."""
        return targets_B + 1, values_BK.argmax(axis=1) + 1


COMPONENT = ImageClassification
