"""What encoders share that give one whole number for each letter of a fixed list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


class LetterTokens:
    """Text to tokens on the wire (one byte each), and tokens to int64 on the device.

    Args:
        params: of the encoder.
        letters: upper case, in the order of their numbers.
        unknown: number of every other letter; len(letters) gives them one of their own.
        alphabet: which letters a set must hold.
    """

    def __init__(self, params: Any, *, letters: str, unknown: int, alphabet: str) -> None:
        self.params = params
        self.channels = 1
        self.num_tokens = max(len(letters), unknown + 1)
        self.alphabet = alphabet
        self.unknown_token = unknown
        self._token_of_byte = np.full(256, unknown, dtype=np.uint8)
        for token, letter in enumerate(letters):
            self._token_of_byte[[ord(letter), ord(letter.lower())]] = token

    def encode(self, text: str) -> np.ndarray:
        """(L,) uint8; lower case as upper, whatever is no letter of the list as unknown."""
        return self._token_of_byte[np.frombuffer(text.encode("latin-1", "replace"), dtype=np.uint8)]

    def tensor(self, tokens_BL: Tensor) -> Tensor:
        """(B, L) uint8 -> (B, 1, L) int64, on the device of its argument."""
        return tokens_BL.long().unsqueeze(1)
