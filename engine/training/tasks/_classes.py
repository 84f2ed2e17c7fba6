"""What tasks that tell one of several classes share, whatever has the class: a sequence, an image, a position.

Losses: cross entropy with label smoothing (Szegedy et al. 2016), or focal loss (Lin et al. 2017, arXiv 1708.02002).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, tensor
from torch.nn import functional as F

from engine.training._task import Floats

LOSSES = ("cross_entropy", "focal")
CLASS_WEIGHTS = ("none", "balanced")


@dataclass(frozen=True)
class ClassParams:
    """Attributes:
    classes: their names in the order of the outputs; none takes those of the training rows, sorted.
    loss: "cross_entropy" or "focal".
    focal_gamma: how much well-told samples are played down by the focal loss.
    label_smoothing: share of the truth spread over all classes, for cross entropy.
    class_weights: "none", or "balanced": each class counts the same in the loss however many samples it has.
    """

    classes: tuple[str, ...] = ()
    loss: str = "cross_entropy"
    focal_gamma: float = 2.0
    label_smoothing: float = 0.0
    class_weights: str = "none"

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(str(name) for name in self.classes))
        if self.loss not in LOSSES or self.class_weights not in CLASS_WEIGHTS:
            what = f"found {self.loss!r} and {self.class_weights!r}"
            raise ValueError(f"loss is one of {LOSSES} and class_weights one of {CLASS_WEIGHTS}, {what}")
        if not 0 <= self.label_smoothing < 1 or self.focal_gamma < 0:
            raise ValueError("label_smoothing must be 0 or more and below 1, and focal_gamma 0 or more")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes must differ, found {list(self.classes)}")


def class_losses(params: ClassParams, logits: Tensor, targets: Tensor) -> Tensor:
    """(B,) of logits (B, K) and classes (B,)."""
    if params.loss == "cross_entropy":
        return F.cross_entropy(logits, targets, reduction="none", label_smoothing=params.label_smoothing)
    entropy_B = F.cross_entropy(logits, targets, reduction="none")
    return (1 - (-entropy_B).exp()) ** params.focal_gamma * entropy_B


def class_weights(params: ClassParams, counts: Sequence[int], targets: Tensor) -> Tensor:
    """How much each of the classes (B,) counts."""
    if params.class_weights == "none":
        return tensor(1.0, device=targets.device).expand(targets.shape)
    total, classes = sum(counts), len(counts)
    return tensor([total / (classes * count) for count in counts], device=targets.device)[targets]


def class_bias(params: ClassParams, counts: Sequence[int]) -> Floats:
    """(K,) logarithm of each class's share; zeros where all count the same."""
    if params.class_weights == "balanced":
        return np.zeros(len(counts))
    return np.log(np.array(counts) / sum(counts))
