"""What networks on images share: their params, the head, convolutions and normalisation.

Normalisation is over the channels of one pixel: no answer depends on what else is in the batch, and a pixel's only on
what its network sees of its neighbourhood.

Shape letters: B batch, C channels, Y and X rows and columns, K outputs.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from engine.models._info import HeadInfo
from engine.models._sequence import ACTIVATIONS, activate, check_choice, check_count


@dataclass(frozen=True)
class ImageParams:
    """Attributes:
    outputs: names of the outputs.
    activation: "softmax", "sigmoid", "softplus" or "identity".
    in_channels: channels of the encoder.
    head: name of the head.
    symmetry: as HeadInfo has it; an image has no other strand.
    meaning: what a value says, with its unit.
    channels: width of the network where the image is largest; it doubles with each halving of the image.
    max_channels: the widest.
    levels: how often the image is halved, and one.
    dropout: share of elements dropped in training.
    """

    outputs: tuple[str, ...] = ("value",)
    activation: str = "identity"
    in_channels: int = 1
    head: str = "value"
    symmetry: str = "stranded"
    meaning: str = ""
    channels: int = 16
    max_channels: int = 256
    levels: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "outputs", tuple(str(name) for name in self.outputs))
        check_count(self, "in_channels", "channels", "max_channels", "levels", low=1)
        check_choice(self, "activation", ACTIVATIONS)
        if self.levels > 8:
            raise ValueError(f"levels must be 1 to 8, found {self.levels}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be 0 or more and below 1, found {self.dropout!r}")
        self.head_info("image")  # refuses names and symmetry that do not fit

    @property
    def widths(self) -> list[int]:
        """Channels of each level, the largest image first."""
        return [min(self.channels << level, self.max_channels) for level in range(self.levels)]

    def head_info(self, level: str) -> HeadInfo:
        """The one head."""
        return HeadInfo(
            name=self.head,
            channels=self.outputs,
            activation=self.activation,
            symmetry=self.symmetry,
            meaning=self.meaning,
            level=level,
        )


class ImageModel(nn.Module):
    """Base of the networks: a subclass gives `logits` and `final`, its last layer."""

    RESULT_VERSION = 1
    kind = "images"
    level = "image"
    final: nn.Module

    def __init__(self, params: ImageParams) -> None:
        super().__init__()
        self.params: Any = params

    @classmethod
    def heads(cls, params: ImageParams) -> dict[str, HeadInfo]:
        """The one head, by name."""
        return {params.head: params.head_info(cls.level)}

    @staticmethod
    def context_bp(params: ImageParams) -> int:  # noqa: ARG004 - other architectures need them
        """None is used up."""
        return 0

    @staticmethod
    def input_channels(params: ImageParams) -> int:
        """Channels the encoder must give."""
        return params.in_channels

    @staticmethod
    def check_encoder(encoder: Any) -> None:
        """Refuse what does not read images."""
        if getattr(encoder, "reads", "sequences") != "images":
            raise ValueError(f"the network reads images, and {type(encoder).__name__} is no encoder of images")

    def forward(self, x_BCYX: Tensor) -> dict[str, Tensor]:
        """(B, C, Y, X) float -> {head: (B, K), or (B, K, Y, X) of a value for every pixel}, activated, float32."""
        return {self.params.head: activate(self.logits(x_BCYX), self.params.activation)}

    @abstractmethod
    def logits(self, x_BCYX: Tensor) -> Tensor:
        """Before the activation, float32."""

    def set_bias(self, bias_K: Tensor) -> None:
        """Where training begins: the logits of a network that has seen the targets' frequencies alone."""
        bias = self.final.bias
        assert isinstance(bias, Tensor)
        bias.detach().copy_(bias_K)


class PixelNorm(nn.LayerNorm):
    """Layer normalisation (Ba et al. 2016) over the channels of one pixel of (B, C, Y, X)."""

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """The shape of its argument."""
        return super().forward(x_BCYX.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def conv3x3(entering: int, leaving: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size, or divides it by the stride; beyond the edge is zero."""
    return nn.Conv2d(entering, leaving, 3, padding=1, stride=stride)
