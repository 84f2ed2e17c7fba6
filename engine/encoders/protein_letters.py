"""Amino acids as whole numbers 0 to 24: the twenty, then B, Z, U, O, and X for every other letter.

For pre-trained networks that know the rare letters; `protein_tokens` takes all of those as unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engine.encoders.protein_tokens import AMINO_ACIDS

if TYPE_CHECKING:
    from torch import Tensor

LETTERS = AMINO_ACIDS + "BZUOX"
UNKNOWN = LETTERS.index("X")

_TOKEN_OF_BYTE = np.full(256, UNKNOWN, dtype=np.uint8)
for _code, _letter in enumerate(LETTERS):
    _TOKEN_OF_BYTE[ord(_letter)] = _TOKEN_OF_BYTE[ord(_letter.lower())] = _code


@dataclass(frozen=True, slots=True)
class ProteinLettersParams:
    """No choices."""


class ProteinLetters:
    """Text to tokens on the wire (one byte per residue), and tokens to int64 on the device."""

    Params = ProteinLettersParams
    RESULT_VERSION = 1

    def __init__(self, params: ProteinLettersParams) -> None:
        self.params = params
        self.channels = 1
        self.num_tokens = len(LETTERS)
        self.alphabet = "protein"
        self.unknown_token = UNKNOWN

    def encode(self, text: str) -> np.ndarray:
        """(L,) uint8; lower case as upper, whatever is no letter of LETTERS as X."""
        return _TOKEN_OF_BYTE[np.frombuffer(text.encode("latin-1", "replace"), dtype=np.uint8)]

    def tensor(self, tokens_BL: Tensor) -> Tensor:
        """(B, L) uint8 -> (B, 1, L) int64, on the device of its argument."""
        return tokens_BL.long().unsqueeze(1)


COMPONENT = ProteinLetters
