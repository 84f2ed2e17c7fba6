"""A value for every pixel by a U-Net (Ronneberger et al. 2015, arXiv 1505.04597).

The skips are added rather than laid beside, which halves the work on the largest image, and nothing is cropped: an
image of a size that does not halve evenly is grown at its lower and right edge, by repeating it, and cut back after.

Shape letters: B batch, C channels, Y and X rows and columns, K outputs.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from engine.models._image import ImageModel, ImageParams, PixelNorm, conv3x3
from engine.models._sample_dropout import SampleDropout


@dataclass(frozen=True)
class UNetParams(ImageParams):
    """See ImageParams; dropout is that of the smallest image."""


class UNet(ImageModel):
    """See the module's docstring."""

    Params = UNetParams
    level = "pixel"

    def __init__(self, params: UNetParams) -> None:
        super().__init__(params)
        widths = params.widths
        entering = [params.in_channels, *widths[:-1]]
        self.down = nn.ModuleList(_Block(*pair) for pair in zip(entering, widths, strict=True))
        self.dropout = SampleDropout(params.dropout, layer=0)
        self.narrow = nn.ModuleList(nn.Conv2d(wide, width, 1) for width, wide in itertools.pairwise(widths))
        self.up = nn.ModuleList(_Block(width, width) for width in widths[:-1])
        self.final = nn.Conv2d(widths[0], len(params.outputs), 1)

    def logits(self, x_BCYX: Tensor) -> Tensor:
        """(B, K, Y, X) before the activation, float32."""
        height, width = x_BCYX.shape[2:]
        step = 1 << (self.params.levels - 1)
        x_BCYX = F.pad(x_BCYX, (0, -width % step, 0, -height % step), mode="replicate")
        skips: list[Tensor] = []
        for block in self.down:
            x_BCYX = block(F.max_pool2d(x_BCYX, 2) if skips else x_BCYX)
            skips.append(x_BCYX)
        x_BCYX = self.dropout(skips.pop())
        for narrow, block in zip(reversed(self.narrow), reversed(self.up), strict=True):
            x_BCYX = block(F.interpolate(narrow(x_BCYX), scale_factor=2.0) + skips.pop())
        logits_BKYX: Tensor = self.final(x_BCYX)[:, :, :height, :width]
        return logits_BKYX.float()


class _Block(nn.Module):
    """Two convolutions."""

    def __init__(self, entering: int, leaving: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv3x3(entering, leaving),
            PixelNorm(leaving),
            nn.ReLU(inplace=True),
            conv3x3(leaving, leaving),
            PixelNorm(leaving),
            nn.ReLU(inplace=True),
        )

    def forward(self, x_BCYX: Tensor) -> Tensor:
        y_BCYX: Tensor = self.layers(x_BCYX)
        return y_BCYX


COMPONENT = UNet
