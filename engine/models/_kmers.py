"""Vectors of the k-mers around each position: what a word of letters means, beyond the sum of what its letters mean.

A convolution adds up a weight for each letter; a table of k-mers has a vector of its own for every word, as k-mer and
string kernels do (Rätsch and Sonnenburg 2004; Ghandi et al. 2014, gkm-SVM). Words are looked up, which no gradient
sees. What explains a network sets `is_soft`: a word is then the product of its letters' columns, which says the same of
one-hot letters and has gradients in between.

Shape letters: B batch, C channels, L length.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BASES, LONGEST = 4, 8
LONGEST_SOFT = 6
"""Letters of the longest words that can be soft: 4**6 numbers for each position."""
_FIRST_SPREAD = 0.1
# Numbers of a side, for each channel of the network.
_SIDE_WIDTH = 4


def check_kmers(params: Any, name: str) -> None:
    """Refuse lengths of words that cannot be, in the tuple `name` of the params, and input that is no DNA."""
    lengths = getattr(params, name)
    known = all(type(one) is int and 1 <= one <= LONGEST for one in lengths)
    if not known or len(set(lengths)) != len(lengths):
        raise ValueError(f"{name} must be distinct whole numbers from 1 to {LONGEST}, found {list(lengths)!r}")
    if lengths and (params.num_tokens or params.in_channels != BASES):
        raise ValueError(f"{name} are words of one-hot DNA in {BASES} channels, found in_channels {params.in_channels}")


def sides_width(channels: int) -> int:
    """Numbers that `KmerSides` gives."""
    return 2 * _SIDE_WIDTH * channels


class KmerTables(nn.Module):
    """One table for each length of word; what they say of a position is added up.

    Args:
        lengths: of the words, 1 to 8; a table of length k has 4**k vectors.
        channels: of a vector.
    """

    def __init__(self, lengths: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.lengths = lengths
        self.is_soft = False
        self.tables = nn.ModuleList(_table(length, channels) for length in lengths)

    def forward(self, x_BAL: Tensor) -> Tensor:
        """(B, 4, L) one-hot, zero where there is no letter -> (B, C, L); any numbers where `is_soft`.

        A word lies around its position, an even one a letter more to the right. One that holds an unknown letter, or
        reaches over an end, says nothing.
        """
        pairs = list(zip(self.tables, self.lengths, strict=True))
        if self.is_soft:
            said = [_soft(table.weight, x_BAL, length) for table, length in pairs]
            return torch.stack(said).sum(dim=0).transpose(1, 2)
        digits_BL, known_BL = x_BAL.argmax(dim=1), x_BAL.amax(dim=1) > 0.5
        said = [table(words(digits_BL, known_BL, length)) for table, length in pairs]
        return torch.stack(said).sum(dim=0).transpose(1, 2)


class KmerSides(nn.Module):
    """Which words lie left of the middle and which right of it, wherever they are there.

    For sequences aligned on a border, as of exon and intron: what a side is made of, beside what stands at each place.
    The vectors of a side's words of one length are summed and made one long, so that no length of word drowns another.

    Args:
        lengths: of the words, 1 to 8.
        channels: of the network; a side has four times as many numbers.
        length: of the whole sequence in letters; its middle lies before letter `length // 2`.
    """

    def __init__(self, lengths: tuple[int, ...], channels: int, length: int) -> None:
        super().__init__()
        self.lengths = lengths
        self.length = length
        self.tables = nn.ModuleList(
            nn.EmbeddingBag(BASES**one + 1, _SIDE_WIDTH * channels, mode="sum", padding_idx=0) for one in lengths
        )
        self.norm = nn.LayerNorm(sides_width(channels))

    def forward(self, x_BAL: Tensor) -> Tensor:
        """(B, 4, L) one-hot, zero where there is no letter -> (B, sides_width(channels)), normalised.

        A word belongs to the side of its position (see KmerTables); a side without a word is zero before it is
        normalised.
        """
        digits_BL, known_BL = x_BAL.argmax(dim=1), x_BAL.amax(dim=1) > 0.5
        sides = torch.zeros((), device=x_BAL.device)
        for table, length in zip(self.tables, self.lengths, strict=True):
            # A negative number cuts padding that no sequence reaches.
            code_BL = F.pad(words(digits_BL, known_BL, length), (0, self.length - x_BAL.shape[2]))
            both = [table(one) for one in code_BL.tensor_split([self.length // 2], dim=1)]
            sides = sides + torch.cat([F.normalize(one.float(), dim=1) for one in both], dim=1)
        normal: Tensor = self.norm(sides)
        return normal


def words(digits_BL: Tensor, known_BL: Tensor, length: int, *, base: int = BASES) -> Tensor:
    """(B, L) int64: 1 + the word's letters read as a number, the first highest; 0 where there is no word."""
    before = (length - 1) // 2
    sides = (before, length - 1 - before)
    digits_BL, known_BL = F.pad(digits_BL, sides), F.pad(known_BL, sides)
    places = digits_BL.shape[1] - length + 1
    code_BL = torch.zeros_like(digits_BL[:, :places])
    whole_BL = torch.ones_like(known_BL[:, :places])
    for at in range(length):
        code_BL = code_BL * base + digits_BL[:, at : at + places]
        whole_BL = whole_BL & known_BL[:, at : at + places]
    return torch.where(whole_BL, code_BL + 1, 0)


def _soft(table_WC: Any, x_BAL: Tensor, length: int) -> Tensor:
    """(B, L, C): every word's vector times the product of its letters."""
    before = (length - 1) // 2
    x_BLA = F.pad(x_BAL, (before, length - 1 - before)).transpose(1, 2)
    places = x_BLA.shape[1] - length + 1
    words_BLW = x_BLA[:, :places]
    for at in range(1, length):
        words_BLW = (words_BLW.unsqueeze(3) * x_BLA[:, at : at + places].unsqueeze(2)).flatten(2)
    # The first vector is that of no word, zero as tables begin.
    said_BLC: Tensor = table_WC[0] + torch.matmul(words_BLW, table_WC[1:] - table_WC[0])
    return said_BLC


def _table(length: int, channels: int) -> nn.Embedding:
    table = nn.Embedding(BASES**length + 1, channels, padding_idx=0)
    with torch.no_grad():
        table.weight.normal_(std=_FIRST_SPREAD)
        table.weight[0] = 0
    return table
