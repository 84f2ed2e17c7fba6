"""One answer per image by a small residual network (He et al. 2016, arXiv 1603.05027), pooled over the whole image.

Shape letters: B batch, C channels, Y and X rows and columns, K outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, cat, nn
from torch.nn import functional as F

from engine.models._image import ImageModel, ImageParams, PixelNorm, conv3x3
from engine.models._sample_dropout import SampleDropout
from engine.models._sequence import check_count, largest


@dataclass(frozen=True)
class ImageCnnParams(ImageParams):
    """Attributes beside those of ImageParams:

    blocks: residual blocks of each level.
    stem_stride: the first convolution keeps one pixel of so many along each axis; the work falls with its square.
    """

    blocks: int = 1
    stem_stride: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self, "blocks", "stem_stride", low=1)


class ImageCnn(ImageModel):
    """See the module's docstring."""

    Params = ImageCnnParams

    def __init__(self, params: ImageCnnParams) -> None:
        super().__init__(params)
        widths = params.widths
        entering = [params.in_channels, *widths[:-1]]
        strides = [params.stem_stride] + [1] * (params.levels - 1)
        self.enter = nn.ModuleList(conv3x3(*one) for one in zip(entering, widths, strides, strict=True))
        self.levels = nn.ModuleList(nn.Sequential(*(_Block(width) for _ in range(params.blocks))) for width in widths)
        # Mean and maximum side by side: what fills an image, and what stands in it somewhere. They are not normalised,
        # which would make a dark image as bright as any other.
        self.dropout = SampleDropout(params.dropout, layer=0)
        self.final = nn.Linear(2 * widths[-1], len(params.outputs))

    def logits(self, x_BCYX: Tensor) -> Tensor:
        """(B, K) before the activation, float32."""
        for number, (enter, level) in enumerate(zip(self.enter, self.levels, strict=True)):
            if number and min(x_BCYX.shape[2:]) > 1:
                x_BCYX = F.max_pool2d(x_BCYX, 2)
            x_BCYX = level(enter(x_BCYX))
        x_BCYX = F.relu(x_BCYX)
        pooled_BC = cat([x_BCYX.mean(dim=(2, 3)), largest(x_BCYX.flatten(2))], dim=1)
        logits_BK: Tensor = self.final(self.dropout(pooled_BC))
        return logits_BK.float()


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            PixelNorm(channels),
            nn.ReLU(inplace=True),
            conv3x3(channels, channels),
            PixelNorm(channels),
            nn.ReLU(inplace=True),
            conv3x3(channels, channels),
        )

    def forward(self, x_BCYX: Tensor) -> Tensor:
        y_BCYX: Tensor = x_BCYX + self.layers(x_BCYX)
        return y_BCYX


COMPONENT = ImageCnn
