"""What a sequence is compared with: inputs that say nothing.

zero       no letter anywhere
uniform    an equal share of every letter everywhere
shuffle    the sequence's own letters in another order that keeps every pair of neighbours as often as it was, drawn
           uniformly among all such orders (Altschul and Erickson 1985, Significance of nucleotide sequence
           alignments, Molecular Biology and Evolution 2:526), with seeds of the record
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.interpret._target import Target

BASELINES = ("zero", "uniform", "shuffle")
Tokens = NDArray[np.uint8]


@dataclass(frozen=True)
class Baseline:
    """Attributes:
    name: one of BASELINES.
    count: how many shuffles; the attributions are their mean.
    seed: of the shuffles.
    """

    name: str = "uniform"
    count: int = 1
    seed: int = 0

    def inputs(self, target: Target, tokens_L: Tokens, *, record: int) -> Tensor:
        """(S, A', L) in the form of `Target.letters_input`."""
        if self.name == "shuffle":
            draw = np.random.default_rng([self.seed, record])
            return target.letters_input(np.stack([shuffled(tokens_L, draw) for _ in range(self.count)]))
        x = torch.zeros_like(target.letters_input(tokens_L[None]))
        if self.name == "uniform":
            x[:, : len(target.letters)] = 1 / len(target.letters)
        return x


def shuffled(tokens_L: Tokens, draw: np.random.Generator) -> Tokens:
    """Another order with the same pairs of neighbours, the same first and the same last letter."""
    if len(tokens_L) < 4:
        return tokens_L.copy()
    follow: dict[int, list[int]] = {}
    for one, other in zip(tokens_L[:-1].tolist(), tokens_L[1:].tolist(), strict=True):
        follow.setdefault(one, []).append(other)
    last = int(tokens_L[-1])
    # The last exits from every letter must lead to the end: only then every pair can be walked.
    while True:
        exits = {letter: int(draw.integers(len(nexts))) for letter, nexts in follow.items() if letter != last}
        if all(_arrives(letter, last, follow, exits) for letter in exits):
            break
    order = {}
    for letter, nexts in follow.items():
        final = exits.get(letter)
        free = [nexts[i] for i in range(len(nexts)) if i != final]
        draw.shuffle(free)
        order[letter] = iter(free if final is None else [*free, nexts[final]])
    letter = int(tokens_L[0])
    made = [letter]
    for _ in range(len(tokens_L) - 1):
        letter = next(order[letter])
        made.append(letter)
    return np.array(made, np.uint8)


def _arrives(letter: int, last: int, follow: dict[int, list[int]], exits: dict[int, int]) -> bool:
    for _ in range(len(follow) + 1):
        if letter == last:
            return True
        letter = follow[letter][exits[letter]]
    return False
