"""Short sequences that lie in longer ones, which the Jaccard index does not see: a fragment shares few of all k-mers.

The measure is containment, the share of the shorter one's k-mers that the longer one has (Broder 1997). Of sequences
of one length a Jaccard index of t is a containment of 2t / (1 + t), so that is the bound: nothing with that index is
below it. A long sequence holds short words by chance; k is therefore raised until a random word is in the longest
sequence with a chance of at most one in a thousand, and the longest is looked at with words that long.

Candidates come from an inverted index of k-mers. Above 2^25 letters it holds only the k-mers whose hash is below a
bound (Irber et al. 2022), so that memory is bounded; what a candidate shares is then counted on all its k-mers. A k-mer
points to its eight longest sequences in each part, so a fragment of something that hundreds of near copies hold is
found in some of them, not in all.

Shape letters: M k-mers of all sequences.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from engine.genome.minhash import Hashes, Ints, Kmers, Likeness

_CHANCE = 1e-3
# As many letters as the entropy of a sequence is worth; that of proteins is 4.2 bits.
_NUCLEOTIDES, _AMINO_ACIDS = 4, 17
_MOST_KMERS = 1 << 25
_HELD_BY = 8
_CANDIDATES = 32
_BLOCK = 1 << 22


def containment_likeness(sequences: Sequence[bytes], likeness: Likeness) -> Likeness:
    """k and the bound on the containment, as `threshold`, for these sequences."""
    longest = max(map(len, sequences), default=1)
    words = longest * (2 if likeness.both_strands else 1) / _CHANCE
    seen = set(b"".join(sequences[:1000]))
    letters = _NUCLEOTIDES if seen <= set(b"ACGTUN") else _AMINO_ACIDS
    k = max(likeness.k, math.ceil(math.log(max(words, 2)) / math.log(letters)))
    return replace(likeness, k=k, threshold=2 * likeness.threshold / (1 + likeness.threshold))


def held_within(
    sequences: Sequence[bytes], likeness: Likeness, *, parts: Sequence[str] | None = None
) -> Iterator[tuple[int, int, float]]:
    """Each shorter sequence and those longer ones that hold it: its place, the longer one's, and the containment.

    A sequence shorter than k, and one of equal length, is not looked for.

    Args:
        sequences: (N,) upper-case ASCII.
        likeness: of near duplicates; see `containment_likeness`.
        parts: (N,) where only pairs of different parts are wanted.
    """
    lengths = np.array([len(one) for one in sequences], np.int64)
    if not len(lengths) or lengths.min() == lengths.max():
        return
    how = containment_likeness(sequences, likeness)
    kmers = Kmers(sequences, how)
    part_of = np.unique(np.asarray([""] * len(sequences) if parts is None else parts), return_inverse=True)[1]
    bound = _bound(int(lengths.sum()))
    index, holders = _index(kmers, lengths, part_of, bound=bound)
    for one in np.flatnonzero(lengths >= how.k).tolist():
        own = kmers.of(one)
        near = _candidates(own[own < bound], index, holders, least=how.threshold / 2)
        near = near[lengths[near] > lengths[one]]
        if parts is not None:
            near = near[part_of[near] != part_of[one]]
        for other in near[:_CANDIDATES].tolist():
            share = len(np.intersect1d(own, kmers.of(other), assume_unique=True)) / len(own)
            if share >= how.threshold:
                yield one, other, share


def _bound(letters: int) -> np.uint64:
    share = min(1.0, _MOST_KMERS / max(letters, 1))
    return np.uint64(min(int(share * 2.0**64), 2**64 - 1))


def _index(kmers: Kmers, lengths: Ints, part_of: Ints, *, bound: np.uint64) -> tuple[Hashes, Ints]:
    """(M,) hashes, ascending, and the sequences that hold them: of each hash and part the longest few."""
    hashes, holders = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for begin, end in _blocks(lengths):
        found, borders = kmers.block(begin, end)
        places = np.repeat(np.arange(begin, end), np.diff(borders))
        kept = found < bound
        hashes.append(found[kept])
        holders.append(places[kept])
    every, who = np.concatenate(hashes), np.concatenate(holders)
    order = np.lexsort((who, -lengths[who], part_of[who], every))
    every, who = every[order], who[order]
    is_new = np.ones(len(every), bool)
    is_new[1:] = (every[1:] != every[:-1]) | (who[1:] != who[:-1])
    every, who = every[is_new], who[is_new]
    starts = np.ones(len(every), bool)
    starts[1:] = (every[1:] != every[:-1]) | (part_of[who[1:]] != part_of[who[:-1]])
    places = np.arange(len(every))
    rank = places - np.maximum.accumulate(np.where(starts, places, 0))
    few = rank < _HELD_BY
    return every[few], who[few]


def _blocks(lengths: Ints) -> Iterator[tuple[int, int]]:
    begin, letters = 0, 0
    for place, length in enumerate(lengths.tolist()):
        letters += length
        if letters >= _BLOCK:
            yield begin, place + 1
            begin, letters = place + 1, 0
    if begin < len(lengths):
        yield begin, len(lengths)


def _candidates(own: Hashes, index: Hashes, holders: Ints, *, least: float) -> Ints:
    """Sequences that share at least so many of the k-mers as the index tells, those that share most first."""
    low, high = np.searchsorted(index, own, "left"), np.searchsorted(index, own, "right")
    counts = high - low
    steps = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    found = holders[np.repeat(low, counts) + steps]
    names, shared = np.unique(found, return_counts=True)
    enough = shared >= least * len(own)
    ranked: Ints = names[enough][np.lexsort((names[enough], -shared[enough]))]
    return ranked
