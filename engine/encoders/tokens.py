"""Bases as whole numbers: A=0, C=1, G=2, T=3, N=4, for models that embed them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engine.genome.windows import tokens_from_text

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokensParams:
    """No choices."""


class Tokens:
    """Text to tokens on the wire (one byte per base), and tokens to int64 on the device."""

    Params = TokensParams
    RESULT_VERSION = 1

    def __init__(self, params: TokensParams) -> None:
        self.params = params
        self.channels = 1
        self.num_tokens = 5

    def encode(self, text: str) -> np.ndarray:
        """(L,) uint8; lower case as upper, every letter that is no base as N."""
        return tokens_from_text(text)

    def tensor(self, tokens_BL: Tensor) -> Tensor:
        """(B, L) uint8 -> (B, 1, L) int64, on the device of its argument."""
        return tokens_BL.long().unsqueeze(1)


COMPONENT = Tokens
