"""Molecules as whole numbers, one for each token of their SMILES (engine/io/smiles.py), in the order of its TOKENS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engine.errors import DataError
from engine.io.smiles import TOKENS, SmilesError, smiles_tokens

if TYPE_CHECKING:
    from torch import Tensor

UNKNOWN = len(TOKENS)
_NUMBER = {token: number for number, token in enumerate(TOKENS)}


@dataclass(frozen=True, slots=True)
class SmilesTokensParams:
    """No choices."""


class SmilesTokens:
    """Text to tokens on the wire (one byte each), and tokens to int64 on the device."""

    Params = SmilesTokensParams
    RESULT_VERSION = 1

    def __init__(self, params: SmilesTokensParams) -> None:
        self.params = params
        self.channels = 1
        self.num_tokens = UNKNOWN + 1
        self.alphabet = "smiles"
        self.unknown_token = UNKNOWN

    def encode(self, text: str) -> np.ndarray:
        """(L,) uint8; L is the number of tokens, at most that of letters.

        Raises:
            DataError: the text is no SMILES.
        """
        try:
            return np.array([_NUMBER[token] for token in smiles_tokens(text)], np.uint8)
        except SmilesError as error:
            raise DataError(
                f"no SMILES: {error}", where=repr(text[:40]), fix="reject it when the set is made"
            ) from None

    def tensor(self, tokens_BL: Tensor) -> Tensor:
        """(B, L) uint8 -> (B, 1, L) int64, on the device of its argument."""
        return tokens_BL.long().unsqueeze(1)


COMPONENT = SmilesTokens
