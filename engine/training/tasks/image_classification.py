"""One of several classes for each image, from the column `label` of the set.

All but the kind of sample is as for sequences (engine/training/tasks/sequence_classification.py).
"""

from __future__ import annotations

from dataclasses import dataclass

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


COMPONENT = ImageClassification
