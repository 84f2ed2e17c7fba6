"""Answers for a sequence, or each of its positions, by a pre-norm Transformer encoder.

Vaswani et al. 2017; Xiong et al. 2020. Places enter by rotary embedding (Su et al. 2021, arXiv 2104.09864): attention
sees distances only.

Shape letters: B batch, C channels, L length, N heads, D channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.models._sample_dropout import SampleDropout
from engine.models._sequence import SequenceNet, SequenceParams, check_count, masked

_ROTARY_BASE = 10_000.0


@dataclass(frozen=True)
class TransformerParams(SequenceParams):
    """Attributes beside those of SequenceParams:

    layers: how many.
    attention_heads: of each layer; channels divided by them must be even.
    widening: hidden width of the position-wise part, as a multiple of channels.
    stem_width: letters the convolution before the layers sees; odd.
    """

    layers: int = 2
    attention_heads: int = 4
    widening: int = 4
    stem_width: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self, "layers", "attention_heads", "widening", "stem_width", low=1)
        if self.channels % (2 * self.attention_heads):
            raise ValueError(f"channels must be a multiple of {2 * self.attention_heads}, found {self.channels}")
        if self.stem_width % 2 == 0:
            raise ValueError(f"stem_width must be odd, found {self.stem_width}")


class Transformer(SequenceNet):
    """See the module's docstring."""

    Params = TransformerParams

    def __init__(self, params: TransformerParams) -> None:
        super().__init__(params)
        width = params.stem_width
        self.map = nn.Conv1d(params.entering, params.channels, 1)
        self.stem = nn.Conv1d(params.entering, params.channels, width, padding=width // 2)
        self.layers = nn.ModuleList(_Layer(params, number) for number in range(params.layers))

    def trunk(self, x_BEL: Tensor, mask_BL: Tensor | None, lengths_B: Tensor | None) -> Tensor:  # noqa: ARG002
        """(B, E, L) -> (B, C, L)."""
        x_BLC = (self.map(x_BEL) + F.gelu(self.stem(x_BEL))).transpose(1, 2)
        turn_LD = _turns(x_BLC.shape[1], self.params.channels // self.params.attention_heads, x_BLC.device)
        for layer in self.layers:
            x_BLC = layer(x_BLC, turn_LD, mask_BL)
        return masked(x_BLC.transpose(1, 2), mask_BL)


class _Layer(nn.Module):
    def __init__(self, params: TransformerParams, number: int) -> None:
        super().__init__()
        channels = params.channels
        self.num_heads = params.attention_heads
        self.norm1 = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, params.widening * channels)
        self.narrow = nn.Linear(params.widening * channels, channels)
        self.dropout1 = SampleDropout(params.dropout, layer=2 * number)
        self.dropout2 = SampleDropout(params.dropout, layer=2 * number + 1)

    def forward(self, x_BLC: Tensor, turn_LD: Tensor, mask_BL: Tensor | None) -> Tensor:
        y_BLC = self.out(self._attend(self.norm1(x_BLC), turn_LD, mask_BL))
        x_BLC = x_BLC + _dropped(self.dropout1, y_BLC)
        y_BLC = self.narrow(F.gelu(self.widen(self.norm2(x_BLC))))
        return x_BLC + _dropped(self.dropout2, y_BLC)

    def _attend(self, x_BLC: Tensor, turn_LD: Tensor, mask_BL: Tensor | None) -> Tensor:
        batch, length, channels = x_BLC.shape
        q, k, v = self.qkv(x_BLC).view(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        keys = None if mask_BL is None else mask_BL[:, None, None, :]
        y_BNLD = F.scaled_dot_product_attention(_rotated(q, turn_LD), _rotated(k, turn_LD), v, attn_mask=keys)
        return y_BNLD.transpose(1, 2).reshape(batch, length, channels)


def _dropped(dropout: nn.Module, x_BLC: Tensor) -> Tensor:
    y_BCL: Tensor = dropout(x_BLC.transpose(1, 2))
    return y_BCL.transpose(1, 2)


def _turns(length: int, channels: int, device: torch.device) -> Tensor:
    """(2, L, D / 2): cosine and sine of every place's angles."""
    frequency_D = _ROTARY_BASE ** (-torch.arange(0, channels, 2, device=device).float() / channels)
    angle_LD = torch.arange(length, device=device).float()[:, None] * frequency_D[None, :]
    return torch.stack([angle_LD.cos(), angle_LD.sin()])


def _rotated(x_BNLD: Tensor, turn_LD: Tensor) -> Tensor:
    """Each pair (channel, channel + D / 2) turned by its place's angle."""
    cosine, sine = turn_LD.to(x_BNLD.dtype)
    one, other = x_BNLD.chunk(2, dim=-1)
    return torch.cat([one * cosine - other * sine, one * sine + other * cosine], dim=-1)


COMPONENT = Transformer
