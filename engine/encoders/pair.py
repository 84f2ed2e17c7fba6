"""Pairs: an encoder for each of the two members, such as `protein_tokens` and `smiles_tokens`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine import registry


@dataclass(frozen=True)
class PairParams:
    """Attributes:
    first, second: {"name", "params"} of the encoders of a pair's sequence and of its other member, or names alone.
    """

    first: Any = "protein_tokens"
    second: Any = "smiles_tokens"

    def __post_init__(self) -> None:
        for member in ("first", "second"):
            given = registry.named_component(getattr(self, member), member)
            if given["name"] == "pair":
                raise ValueError(f"{member} must be an encoder of single sequences, found 'pair'")
            object.__setattr__(self, member, given)


class Pair:
    """Two encoders side by side.

    Attributes:
        first, second: the encoders.
        channels: of both together.
        alphabet, second_alphabet: letters that they read.
    """

    Params = PairParams
    RESULT_VERSION = 1

    def __init__(self, params: PairParams) -> None:
        self.params = params
        self.first = _built(params.first, "first")
        self.second = _built(params.second, "second")
        self.channels = self.first.channels + self.second.channels
        self.alphabet = str(getattr(self.first, "alphabet", "dna"))
        self.second_alphabet = str(getattr(self.second, "alphabet", "dna"))

    @staticmethod
    def inner(params: PairParams) -> tuple[tuple[str, str], ...]:
        """Kind and name of the components within."""
        return ("encoders", params.first["name"]), ("encoders", params.second["name"])

    def encode(self, text: str, second: str) -> tuple[Any, Any]:
        """(L,) and (M,) uint8 of the two members."""
        return self.first.encode(text), self.second.encode(second)


def _built(given: dict[str, Any], member: str) -> Any:
    cls = registry.component("encoders", given["name"])
    return cls(registry.build_params(cls, given["params"], where=f"encoder 'pair', {member}"))


COMPONENT = Pair
