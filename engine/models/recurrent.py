"""Answers for a sequence, or each of its positions, by a GRU or LSTM read both ways.

Cho et al. 2014; Hochreiter and Schmidhuber 1997.

Shape letters: B batch, C channels, L length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from engine.models._sample_dropout import SampleDropout
from engine.models._sequence import SequenceNet, SequenceParams, check_choice, check_count, masked

CELLS = ("gru", "lstm")


@dataclass(frozen=True)
class RecurrentParams(SequenceParams):
    """Attributes beside those of SequenceParams (channels must be even: half for each direction):

    cell: "gru" or "lstm".
    layers: how many lie on top of each other.
    stem_width: letters the convolution before them sees; odd.
    """

    cell: str = "gru"
    layers: int = 1
    stem_width: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "cell", CELLS)
        check_count(self, "layers", "stem_width", low=1)
        if self.channels % 2 or self.stem_width % 2 == 0:
            raise ValueError(f"channels must be even and stem_width odd, found {self.channels} and {self.stem_width}")


class Recurrent(SequenceNet):
    """See the module's docstring."""

    Params = RecurrentParams

    def __init__(self, params: RecurrentParams) -> None:
        super().__init__(params)
        channels, width = params.channels, params.stem_width
        self.stem = nn.Conv1d(params.entering, channels, width, padding=width // 2)
        kind: Any = nn.GRU if params.cell == "gru" else nn.LSTM
        self.layers = nn.ModuleList(
            kind(channels, channels // 2, batch_first=True, bidirectional=True) for _ in range(params.layers)
        )
        self.dropouts = nn.ModuleList(SampleDropout(params.dropout, layer=number) for number in range(params.layers))

    def trunk(self, x_BEL: Tensor, mask_BL: Tensor | None, lengths_B: Tensor | None) -> Tensor:
        """(B, E, L) -> (B, C, L)."""
        x_BCL = masked(F.gelu(self.stem(x_BEL)), mask_BL)
        for layer, dropout in zip(self.layers, self.dropouts, strict=True):
            x_BCL = x_BCL + dropout(_read(layer, x_BCL, lengths_B))
        return x_BCL


def _read(layer: nn.Module, x_BCL: Tensor, lengths_B: Tensor | None) -> Tensor:
    """Both directions; the backward one begins at each sequence's own end."""
    x_BLC = x_BCL.transpose(1, 2)
    if lengths_B is None:
        y_BLC, _ = layer(x_BLC)
    else:
        packed, _ = layer(pack_padded_sequence(x_BLC, lengths_B.cpu(), batch_first=True, enforce_sorted=False))
        y_BLC, _ = pad_packed_sequence(packed, batch_first=True, total_length=x_BLC.shape[1])
    y_BCL: Tensor = y_BLC.transpose(1, 2)
    return y_BCL


COMPONENT = Recurrent
