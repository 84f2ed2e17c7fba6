"""Bases as one-hot columns A, C, G, T; N as zeros or as a quarter of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engine.genome.windows import tokens_from_text

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class OneHotParams:
    """Attributes:
    unknown: what N becomes: "zero" (as SpliceAI) or "quarter" (0.25 in every channel).
    """

    unknown: str = "zero"

    def __post_init__(self) -> None:
        if self.unknown not in ("zero", "quarter"):
            raise ValueError(f"unknown must be 'zero' or 'quarter', found {self.unknown!r}")


class OneHot:
    """Text to tokens on the wire (one byte per base), and tokens to one-hot on the device."""

    Params = OneHotParams
    RESULT_VERSION = 1

    def __init__(self, params: OneHotParams) -> None:
        self.params = params
        self.channels = 4

    def encode(self, text: str) -> np.ndarray:
        """(L,) uint8; lower case as upper, every letter that is no base as N."""
        return tokens_from_text(text)

    def tensor(self, tokens_BL: Tensor) -> Tensor:
        """(B, L) uint8 -> (B, 4, L) float32, on the device of its argument.

        The memory is that of (B, L, 4): convolutions take it as channels_last without a copy.
        """
        import torch

        table = torch.eye(5, 4, device=tokens_BL.device)
        if self.params.unknown == "quarter":
            table[4] = 0.25
        return torch.nn.functional.embedding(tokens_BL.int(), table).transpose(1, 2)


COMPONENT = OneHot
