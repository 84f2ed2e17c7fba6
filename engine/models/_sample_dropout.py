"""Dropout whose mask belongs to the sample: the same for any number of workers, any batch it comes in, any padding.

Each element's fate is a hash of (sample seed, layer, position, channel) by the finaliser of SplitMix64 (Steele, Lea and
Flood 2014, "Fast splittable pseudorandom number generators"), in wrapping int64 arithmetic.

Shape letters: B batch, C channels, L length, Y and X rows and columns of an image.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, arange, int64, nn

_GAMMA = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed number
_FIRST = -4658895280553007687  # 0xBF58476D1CE4E5B9
_SECOND = -7723592293110705685  # 0x94D049BB133111EB


class SampleDropout(nn.Module):
    """Drops elements of (B, C), (B, C, L) or (B, C, Y, X) with probability `rate`; does nothing in eval mode.

    Seeds come from `set_sample_seeds`, before each forward pass in training mode.
    """

    def __init__(self, rate: float, *, layer: int) -> None:
        super().__init__()
        self.rate = rate
        self._layer = layer
        self.seeds_B: Tensor | None = None

    @property
    def _of_layer(self) -> int:
        """Wrapped to a signed number of 64 bits, as the tensors' arithmetic does."""
        return ((self._layer + 1) * _GAMMA + (1 << 63)) % (1 << 64) - (1 << 63)

    def shift(self, by: int) -> None:
        """Number the layer anew: of two networks in one model no layers may share a number."""
        self._layer += by

    def forward(self, x: Tensor) -> Tensor:
        """The shape of x.

        Raises:
            ValueError: in training mode, no seeds were set for a batch of this size.
        """
        if not self.training or self.rate == 0:
            return x
        if self.seeds_B is None or len(self.seeds_B) != len(x):
            raise ValueError(f"dropout needs the seeds of its {len(x)} samples: call set_sample_seeds first")
        # The compiler folds the constants of wrapping arithmetic into numbers that no longer fit.
        keep = _kept_as_one if torch.compiler.is_compiling() else _kept
        return x * keep(self.seeds_B, self._of_layer, list(x.shape[1:]), self.rate) / (1 - self.rate)


def _kept(seeds_B: Tensor, of_layer: int, shape: list[int], rate: float) -> Tensor:
    """(B, *shape) boolean: which elements stay."""
    device = seeds_B.device
    mixed_B = _mixed(seeds_B + of_layer)
    # Numbered by position first, so that padding leaves an element its number.
    index = arange(shape[0], device=device, dtype=int64)
    if len(shape) > 1:
        places = arange(math.prod(shape[1:]), device=device, dtype=int64).view(shape[1:])
        index = index.view(-1, *[1] * places.dim()) + places * shape[0]
    bits = _mixed(mixed_B.view(-1, *[1] * len(shape)) + index * _GAMMA)
    return ((bits >> 40) & 0xFFFFFF) >= round(rate * (1 << 24))


@torch.library.custom_op("replisome::kept", mutates_args=())
def _kept_as_one(seeds_B: Tensor, of_layer: int, shape: list[int], rate: float) -> Tensor:
    return _kept(seeds_B, of_layer, shape, rate)


@_kept_as_one.register_fake
def _(seeds_B: Tensor, of_layer: int, shape: list[int], rate: float) -> Tensor:  # noqa: ARG001 - the op's
    return seeds_B.new_empty([len(seeds_B), *shape], dtype=torch.bool)


def _mixed(x: Tensor) -> Tensor:
    x = (x ^ _shifted(x, 30)) * _FIRST
    x = (x ^ _shifted(x, 27)) * _SECOND
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right: the sign is not drawn in."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def set_sample_seeds(model: nn.Module, seeds_B: Tensor) -> None:
    """Give every dropout of a model the seeds (B,) int64 of the samples that come next."""
    for module in model.modules():
        if isinstance(module, SampleDropout):
            module.seeds_B = seeds_B
