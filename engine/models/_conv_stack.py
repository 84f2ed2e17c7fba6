"""A network that is nothing but convolutions along one axis, told as a list of layers.

Whoever knows the layers can compute any part of the network's cells alone: a cell of a layer depends on a known range
of its source, and on nothing else. Tensors are (B, C, 1, L) in channels_last memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

INPUT = -1
"""The encoded sequence, as a source."""


class Pointwise(Protocol):
    """Works on each position alone; `own`: the argument is no one else's and may be overwritten."""

    def __call__(self, x: Tensor, *, own: bool) -> Tensor: ...


@dataclass(frozen=True)
class ConvLayer:
    """after(conv(before(source))) + residual, valid convolution, the residual cropped to the same cells.

    Attributes:
        source: index of the layer it reads, or INPUT.
        conv: width and dilation along the last axis; odd width.
        before: on the cells of the source.
        after: on the cells of the convolution, which it may overwrite.
        residual: index of the layer that is added.
        is_wide: kept in float32 whatever the convolution gives.
        is_exact: computed in float32 also under autocast.
    """

    source: int
    conv: nn.Conv2d
    before: Pointwise | None = None
    after: Callable[[Tensor], Tensor] | None = None
    residual: int | None = None
    is_wide: bool = False
    is_exact: bool = False

    @property
    def halo(self) -> int:
        """Cells of the source that a cell reads on either side of its own place."""
        return (self.conv.kernel_size[1] - 1) * int(self.conv.dilation[1]) // 2

    @property
    def multiply_adds(self) -> int:
        """Of one cell."""
        return self.conv.in_channels * self.conv.out_channels * self.conv.kernel_size[1]

    def __call__(self, x: Tensor, residual: Tensor | None, *, own: bool) -> Tensor:
        """Cells of this layer, (B, C, 1, L - 2 * halo).

        Args:
            x: cells of the source.
            residual: cells of the layer that is added, (B, C, 1, L - 2 * halo).
            own: x may be overwritten.
        """
        if self.before is not None:
            x = self.before(x, own=own)
        if self.is_exact:
            with torch.autocast(x.device.type, enabled=False):
                return self._finish(self.conv(x.float()), residual)
        return self._finish(self.conv(x), residual)

    def _finish(self, y: Tensor, residual: Tensor | None) -> Tensor:
        if self.after is not None:
            y = self.after(y)
        if residual is not None:
            y = y.add_(residual) if y.dtype == residual.dtype else residual + y
        return y.float() if self.is_wide else y


@dataclass(frozen=True)
class ConvStack:
    """A network as its layers, in an order in which they can be computed.

    Attributes:
        head: name of its one head.
        layers: the last gives the logits.
        activate: logits (B, K, L) to the head's values, position by position.
    """

    head: str
    layers: tuple[ConvLayer, ...]
    activate: Callable[[Tensor], Tensor]

    def reach(self) -> tuple[int, ...]:
        """For each layer: how far from a changed base its cells can change, in cells."""
        found: list[int] = []
        for layer in self.layers:
            source = 0 if layer.source == INPUT else found[layer.source]
            other = 0 if layer.residual is None else found[layer.residual]
            found.append(max(source + layer.halo, other))
        return tuple(found)

    def need(self) -> tuple[int, ...]:
        """For each layer, and last for the input: how far from an output its cells are read, in cells."""
        found = [0] * (len(self.layers) + 1)
        for index in range(len(self.layers) - 1, -1, -1):
            for read, halo in self._reads(index):
                found[read] = max(found[read], found[index] + halo)
        return tuple(found)

    def last_use(self) -> tuple[int, ...]:
        """For each layer: the last one that reads it, itself where none does."""
        found = list(range(len(self.layers)))
        for index in range(len(self.layers)):
            for read, _ in self._reads(index):
                if read != INPUT:
                    found[read] = index
        return tuple(found)

    def _reads(self, index: int) -> Iterator[tuple[int, int]]:
        """(layer read, halo) of one layer."""
        layer = self.layers[index]
        yield layer.source, layer.halo
        if layer.residual is not None:
            yield layer.residual, 0
