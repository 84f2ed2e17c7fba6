"""Answers for a sequence, or each of its positions, by residual dilated convolutions.

After Yu and Koltun 2016 (arXiv 1511.07122). Each block normalises over channels, so that no answer depends on what
else is in the batch. Tables of k-mers can stand beside the first convolution: where there are few sequences, or what
counts are words (sites of a factor, near relatives), they learn what convolutions miss.

Shape letters: B batch, C channels, L length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.models._kmers import KmerSides, KmerTables, check_kmers, sides_width
from engine.models._sample_dropout import SampleDropout
from engine.models._sequence import ChannelNorm, SequenceNet, SequenceParams, check_count, mask_of, masked


@dataclass(frozen=True)
class SequenceCnnParams(SequenceParams):
    """Attributes beside those of SequenceParams:

    stem_width: letters the first convolution sees; odd.
    stem_pool: so many neighbouring positions become one after it, by their maximum.
    width: of the blocks' convolutions; odd.
    blocks: how many follow.
    max_dilation: dilations double from block to block up to this, then begin again.
    kmers: lengths of words of DNA, 1 to 8, that have vectors of their own, added to what the first convolution gives.
    sides: lengths of words of DNA, 1 to 8, that are read on either side of the sequence's middle too, wherever they lie
        there; with pool "place", for sequences aligned on a border, such as that of an exon.
    """

    stem_width: int = 9
    stem_pool: int = 1
    width: int = 5
    blocks: int = 3
    max_dilation: int = 8
    kmers: tuple[int, ...] = ()
    sides: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("kmers", "sides"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            check_kmers(self, name)
        if self.sides and self.length < 2:
            raise ValueError(f"sides want a middle: pool 'place' and 2 letters, found {self.pool!r} and {self.length}")
        check_count(self, "stem_width", "stem_pool", "width", "max_dilation", low=1)
        check_count(self, "blocks", low=0)
        if self.stem_width % 2 == 0 or self.width % 2 == 0:
            raise ValueError(f"widths must be odd, found {self.stem_width} and {self.width}")

    @property
    def beside(self) -> int:
        """See SequenceParams."""
        return sides_width(self.channels) if self.sides else 0

    def places(self, length: Any) -> Any:
        """Positions that the trunk gives for so many letters, a number or a tensor of them."""
        return -(-length // self.stem_pool)


class SequenceCnn(SequenceNet):
    """See the module's docstring."""

    Params = SequenceCnnParams

    def __init__(self, params: SequenceCnnParams) -> None:
        super().__init__(params)
        self.stem = _conv(params.entering, params.channels, params.stem_width)
        self.words = KmerTables(params.kmers, params.channels) if params.kmers else None
        self.sides = KmerSides(params.sides, params.channels, params.length) if params.sides else None
        cycle = params.max_dilation.bit_length()
        self.blocks = nn.ModuleList(_Block(params, 1 << number % cycle, number) for number in range(params.blocks))

    def trunk(self, x_BEL: Tensor, mask_BL: Tensor | None, lengths_B: Tensor | None) -> Tensor:
        """(B, E, L) -> (B, C, places(L))."""
        x_BCL: Tensor = self.stem(x_BEL)
        if self.words is not None:
            x_BCL = x_BCL + self.words(x_BEL)
        pool = self.params.stem_pool
        if pool > 1:
            low = x_BCL if mask_BL is None else x_BCL.masked_fill(~mask_BL[:, None], -torch.inf)
            x_BCL = F.max_pool1d(low, pool, ceil_mode=True)
            mask_BL = None if lengths_B is None else mask_of(self.params.places(lengths_B), x_BCL.shape[-1])
        x_BCL = masked(x_BCL, mask_BL)
        for block in self.blocks:
            x_BCL = block(x_BCL, mask_BL)
        return x_BCL

    def beside(self, x_BEL: Tensor) -> Tensor | None:
        """The words of either side."""
        return None if self.sides is None else self.sides(x_BEL)


class _Block(nn.Module):
    def __init__(self, params: SequenceCnnParams, dilation: int, number: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(params.channels)
        self.conv = _conv(params.channels, params.channels, params.width, dilation)
        self.mix = nn.Conv1d(params.channels, params.channels, 1)
        self.dropout = SampleDropout(params.dropout, layer=number)

    def forward(self, x_BCL: Tensor, mask_BL: Tensor | None) -> Tensor:
        y_BCL = self.conv(masked(F.gelu(self.norm(x_BCL)), mask_BL))
        return masked(x_BCL + self.dropout(self.mix(F.gelu(y_BCL))), mask_BL)


def _conv(entering: int, channels: int, width: int, dilation: int = 1) -> nn.Conv1d:
    return nn.Conv1d(entering, channels, width, dilation=dilation, padding=(width - 1) * dilation // 2)


COMPONENT = SequenceCnn
