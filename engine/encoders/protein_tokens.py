"""Amino acids as whole numbers 0 to 19 in the order ACDEFGHIKLMNPQRSTVWY, and 20 for every other letter."""

from __future__ import annotations

from dataclasses import dataclass

from engine.encoders._letter_tokens import LetterTokens

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
UNKNOWN = len(AMINO_ACIDS)


@dataclass(frozen=True, slots=True)
class ProteinTokensParams:
    """No choices."""


class ProteinTokens(LetterTokens):
    """X, U, O, B, Z, J and everything else are unknown."""

    Params = ProteinTokensParams
    RESULT_VERSION = 1

    def __init__(self, params: ProteinTokensParams) -> None:
        super().__init__(params, letters=AMINO_ACIDS, unknown=UNKNOWN, alphabet="protein")


COMPONENT = ProteinTokens
