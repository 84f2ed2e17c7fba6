"""Amino acids as whole numbers 0 to 19 in the order ACDEFGHIKLMNPQRSTVWY, and 20 for every other letter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
UNKNOWN = len(AMINO_ACIDS)

_TOKEN_OF_BYTE = np.full(256, UNKNOWN, dtype=np.uint8)
for _code, _letter in enumerate(AMINO_ACIDS):
    _TOKEN_OF_BYTE[ord(_letter)] = _TOKEN_OF_BYTE[ord(_letter.lower())] = _code


@dataclass(frozen=True, slots=True)
class ProteinTokensParams:
    """No choices."""


class ProteinTokens:
    """Text to tokens on the wire (one byte per residue), and tokens to int64 on the device."""

    Params = ProteinTokensParams
    RESULT_VERSION = 1

    def __init__(self, params: ProteinTokensParams) -> None:
        self.params = params
        self.channels = 1
        self.num_tokens = UNKNOWN + 1
        self.alphabet = "protein"
        self.unknown_token = UNKNOWN

    def encode(self, text: str) -> np.ndarray:
        """(L,) uint8; lower case as upper, X, U, O, B, Z, J and everything else as unknown."""
        return _TOKEN_OF_BYTE[np.frombuffer(text.encode("latin-1", "replace"), dtype=np.uint8)]

    def tensor(self, tokens_BL: Tensor) -> Tensor:
        """(B, L) uint8 -> (B, 1, L) int64, on the device of its argument."""
        return tokens_BL.long().unsqueeze(1)


COMPONENT = ProteinTokens
