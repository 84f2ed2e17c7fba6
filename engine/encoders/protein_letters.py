"""Amino acids as whole numbers 0 to 24: the twenty, then B, Z, U, O, and X for every other letter.

For pre-trained networks that know the rare letters; `protein_tokens` takes all of those as unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.encoders._letter_tokens import LetterTokens
from engine.encoders.protein_tokens import AMINO_ACIDS

LETTERS = AMINO_ACIDS + "BZUOX"
UNKNOWN = LETTERS.index("X")


@dataclass(frozen=True, slots=True)
class ProteinLettersParams:
    """No choices."""


class ProteinLetters(LetterTokens):
    """Whatever is no letter of LETTERS is X."""

    Params = ProteinLettersParams
    RESULT_VERSION = 1

    def __init__(self, params: ProteinLettersParams) -> None:
        super().__init__(params, letters=LETTERS, unknown=UNKNOWN, alphabet="protein")


COMPONENT = ProteinLetters
