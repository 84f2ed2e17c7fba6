"""Pixels as numbers of the size networks like, scaled as declared.

What a camera's counts mean differs from set to set: fluorescence has a dark level and no upper one, brightfield fills
its range. `values` and `range` know nothing of an image but its type, so that a tile is scaled like the whole;
`percentiles` and `standard` look at each channel of each image and suit sets whose exposure varies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SCALES = ("range", "values", "percentiles", "standard")
_LEAST_SPREAD = 1e-6


@dataclass(frozen=True, slots=True)
class PixelsParams:
    """Attributes:
    channels: of the images.
    scale: what becomes 0 and 1. "range": 0 and the largest value of the pixels' type; "values": `low` and `high`;
        "percentiles": the `low` and `high` percentile of each channel of each image; "standard": no fixed values, each
        channel of each image gets mean 0 and standard deviation 1.
    low, high: see `scale`; counts, or percentiles from 0 to 100.
    gamma: after scaling, x becomes sign(x) |x|^gamma; below 1 it lifts what is dim.
    """

    channels: int = 1
    scale: str = "range"
    low: float = 0.0
    high: float = 0.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        if type(self.channels) is not int or not 1 <= self.channels <= 4096:
            raise ValueError(f"channels must be a whole number from 1 to 4096, found {self.channels!r}")
        if self.scale not in SCALES:
            raise ValueError(f"scale must be one of {', '.join(SCALES)}, found {self.scale!r}")
        if not all(math.isfinite(value) for value in (self.low, self.high, self.gamma)) or self.gamma <= 0:
            raise ValueError("low, high and gamma must be finite, and gamma above 0")
        if self.scale in ("values", "percentiles") and self.low >= self.high:
            raise ValueError(f"scale {self.scale!r} wants low below high, found {self.low:g} and {self.high:g}")
        if self.scale == "percentiles" and not 0 <= self.low < self.high <= 100:
            raise ValueError(f"percentiles lie from 0 to 100, found {self.low:g} and {self.high:g}")


class Pixels:
    """Images as they were ingested on the wire, and floats on the device."""

    Params = PixelsParams
    RESULT_VERSION = 1
    reads = "images"

    def __init__(self, params: PixelsParams) -> None:
        self.params = params
        self.channels = params.channels

    def refusal(self, dtype: str) -> str:
        """Why pixels of this type, by NumPy's name for it, cannot be scaled; empty where they can."""
        if self.params.scale == "range" and dtype.startswith("float"):
            return f"scale 'range' is that of whole numbers, and the pixels are {dtype}"
        return ""

    def tensor(self, pixels_BCYX: Tensor) -> Tensor:
        """(B, C, Y, X) whole numbers or floats -> the same shape in float32, on the device of its argument.

        Raises:
            ValueError: another number of channels than declared, or "range" of what are floats already.
        """
        import torch

        if pixels_BCYX.dim() != 4 or pixels_BCYX.shape[1] != self.channels:
            shape = list(pixels_BCYX.shape)
            raise ValueError(f"wanted are images (B, C, Y, X) of {self.channels} channels, found shape {shape}")
        x_BCYX = pixels_BCYX.to(torch.float32)
        low, high = self._bounds(pixels_BCYX, x_BCYX)
        x_BCYX = (x_BCYX - low) / (high - low)
        if self.params.gamma != 1:
            x_BCYX = x_BCYX.sign() * x_BCYX.abs() ** self.params.gamma
        return x_BCYX

    def _bounds(self, raw: Tensor, x_BCYX: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """What becomes 0 and 1; of constant images anything that keeps the result finite."""
        import torch

        params = self.params
        if params.scale == "values":
            return params.low, params.high
        if params.scale == "range":
            if raw.dtype.is_floating_point:
                raise ValueError("scale 'range' is that of whole numbers, and the pixels are floats: declare values")
            return 0.0, float(torch.iinfo(raw.dtype).max)
        if params.scale == "standard":
            mean = x_BCYX.mean(dim=(2, 3), keepdim=True)
            return mean, mean + x_BCYX.std(dim=(2, 3), correction=0, keepdim=True).clamp_min(_LEAST_SPREAD)
        low, high = (_percentile(x_BCYX, value) for value in (params.low, params.high))
        return low, torch.maximum(high, low + _LEAST_SPREAD * low.abs().clamp_min(1.0))


def _percentile(x_BCYX: Tensor, percent: float) -> Tensor:
    """(B, C, 1, 1), the nearest value below or at the percentile's place."""
    flat_BCN = x_BCYX.flatten(2)
    place = int(percent / 100 * (flat_BCN.shape[2] - 1))
    return flat_BCN.kthvalue(place + 1, dim=2, keepdim=True).values[..., None]


COMPONENT = Pixels
