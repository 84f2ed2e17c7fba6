"""Vectors of the k-mers around each position: what a word of letters means, beyond the sum of what its letters mean.

A convolution adds up a weight for each letter; a table of k-mers has a vector of its own for every word, as k-mer and
string kernels do (Rätsch and Sonnenburg 2004; Ghandi et al. 2014, gkm-SVM). Words are read, not differentiated: what
explains a network by gradients sees the convolution beside the tables alone.

Shape letters: B batch, C channels, L length.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BASES, LONGEST = 4, 8
_FIRST_SPREAD = 0.1


def check_kmers(params: Any) -> None:
    """Refuse lengths of words that cannot be, in `params.kmers`, and input that is no DNA."""
    lengths = params.kmers
    known = all(type(one) is int and 1 <= one <= LONGEST for one in lengths)
    if not known or len(set(lengths)) != len(lengths):
        raise ValueError(f"kmers must be distinct whole numbers from 1 to {LONGEST}, found {list(lengths)!r}")
    if lengths and (params.num_tokens or params.in_channels != BASES):
        raise ValueError(f"kmers are words of one-hot DNA in {BASES} channels, found in_channels {params.in_channels}")


class KmerTables(nn.Module):
    """One table for each length of word; what they say of a position is added up.

    Args:
        lengths: of the words, 1 to 8; a table of length k has 4**k vectors.
        channels: of a vector.
    """

    def __init__(self, lengths: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.lengths = lengths
        self.tables = nn.ModuleList(_table(length, channels) for length in lengths)

    def forward(self, x_BAL: Tensor) -> Tensor:
        """(B, 4, L) one-hot, zero where there is no letter -> (B, C, L).

        A word lies around its position, an even one a letter more to the right. One that holds an unknown letter, or
        reaches over an end, says nothing.
        """
        digits_BL, known_BL = x_BAL.argmax(dim=1), x_BAL.amax(dim=1) > 0.5
        said = [
            table(words(digits_BL, known_BL, length)) for table, length in zip(self.tables, self.lengths, strict=True)
        ]
        return torch.stack(said).sum(dim=0).transpose(1, 2)


def words(digits_BL: Tensor, known_BL: Tensor, length: int) -> Tensor:
    """(B, L) int64: 1 + the word's letters read as a number of base 4, the first highest; 0 where there is no word."""
    before = (length - 1) // 2
    sides = (before, length - 1 - before)
    digits_BL, known_BL = F.pad(digits_BL, sides), F.pad(known_BL, sides)
    places = digits_BL.shape[1] - length + 1
    code_BL = torch.zeros_like(digits_BL[:, :places])
    whole_BL = torch.ones_like(known_BL[:, :places])
    for at in range(length):
        code_BL = code_BL * BASES + digits_BL[:, at : at + places]
        whole_BL = whole_BL & known_BL[:, at : at + places]
    return torch.where(whole_BL, code_BL + 1, 0)


def _table(length: int, channels: int) -> nn.Embedding:
    table = nn.Embedding(BASES**length + 1, channels, padding_idx=0)
    with torch.no_grad():
        table.weight.normal_(std=_FIRST_SPREAD)
        table.weight[0] = 0
    return table
