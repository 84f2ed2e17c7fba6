"""Near duplicates among many sequences: MinHash signatures, candidates by banding, each candidate checked exactly.

The likeness of two sequences is the Jaccard index of their sets of k-mers; of DNA a k-mer and its reverse complement
are one, so that strands do not matter. Signatures: Broder 1997 (On the resemblance and containment of documents), K
permutations by multiply-shift hashing (Dietzfelbinger et al. 1997), 32 bits of each. Banding: Indyk and Motwani 1998,
rows per band chosen so that a pair at the threshold is a candidate with a chance of at least 99%. What banding proposes
is measured on the k-mers themselves, so no pair below the threshold is ever joined; up to 1% of pairs just at it may be
missed.

Shape letters: N sequences, M k-mers of all of them, K permutations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

NUM_PERMUTATIONS = 128
# Letters of a k-mer where nobody says: a word of DNA is long, of a protein short.
USUAL_K = {True: 8, False: 5}
_RECALL = 0.99
_BLOCK_LETTERS = 1 << 22
_BASE = np.uint64(0x9E3779B97F4A7C15)
_COMPLEMENT = np.arange(256, dtype=np.uint8)
for _one, _other in zip(b"ACGTN", b"TGCAN", strict=True):
    _COMPLEMENT[_one] = _other


@dataclass(frozen=True)
class Likeness:
    """What makes two sequences near duplicates.

    Attributes:
        k: letters of a k-mer; a shorter sequence is one k-mer of its own.
        threshold: least Jaccard index of their k-mers.
        both_strands: a k-mer and its reverse complement are one (DNA).
    """

    k: int = 8
    threshold: float = 0.5
    both_strands: bool = True

    def rows_per_band(self) -> int:
        """The most rows a band may have for a pair at the threshold to be found with 99% chance."""
        best = 1
        for rows in range(1, 17):
            bands = NUM_PERMUTATIONS // rows
            if 1.0 - (1.0 - self.threshold**rows) ** bands >= _RECALL:
                best = rows
        return best


class Kmers:
    """Hashed k-mers of sequences, made when asked for; the sequences stay as they are.

    Args:
        sequences: (N,) upper-case ASCII.
        likeness: k and strands.
    """

    def __init__(self, sequences: Sequence[bytes], likeness: Likeness) -> None:
        self._sequences = sequences
        self._likeness = likeness

    def __len__(self) -> int:
        return len(self._sequences)

    def of(self, index: int) -> Hashes:
        """Distinct hashed k-mers of one sequence, ascending."""
        return np.unique(self.hashes([self._sequences[index]])[0])

    def block(self, begin: int, end: int) -> tuple[Hashes, Ints]:
        """As `hashes`, of the sequences [begin, end)."""
        return self.hashes(self._sequences[begin:end])

    def hashes(self, sequences: Sequence[bytes]) -> tuple[Hashes, Ints]:
        """uint64 (M,) of all k-mers, at least one of each sequence, and int64 (N + 1,) where each sequence's begin."""
        k = self._likeness.k
        padded = [one if len(one) >= k else self._whole(one) for one in sequences]
        text = np.frombuffer(b"".join(padded), np.uint8)
        ends = np.cumsum([len(one) for one in padded], dtype=np.int64)
        begins = np.concatenate(([0], ends[:-1])).astype(np.int64)
        whole = self._codes(text)
        crosses = np.ones(len(text), bool)
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
            crosses[begin : end - k + 1] = False
        kept = whole[~crosses[: len(whole)]]
        counts = ends - begins - k + 1
        return kept, np.concatenate(([0], np.cumsum(counts))).astype(np.int64)

    def _whole(self, one: bytes) -> bytes:
        """A sequence shorter than k as one k-mer, the same for both strands."""
        other = reverse_complement(one) if self._likeness.both_strands else one
        return min(one, other).ljust(self._likeness.k, b"\0")

    def _codes(self, text: npt.NDArray[np.uint8]) -> Hashes:
        """uint64 (len - k + 1,): hash of the k-mer that begins at each letter."""
        forward = _polynomial(text, self._likeness.k)
        if not self._likeness.both_strands:
            return _mixed(forward)
        backward = _polynomial(_COMPLEMENT[text][::-1], self._likeness.k)[::-1]
        return np.minimum(_mixed(forward), _mixed(backward))

    def signatures(self, *, seed: int) -> npt.NDArray[np.uint32]:
        """uint32 (N, K): the least permuted hash of each sequence under each permutation."""
        made = np.empty((len(self), NUM_PERMUTATIONS), np.uint32)
        multipliers, addends = _permutations(seed)
        for begin, end in self._blocks():
            hashes, borders = self.hashes(self._sequences[begin:end])
            for i in range(NUM_PERMUTATIONS):
                permuted = ((hashes * multipliers[i] + addends[i]) >> np.uint64(32)).astype(np.uint32)
                made[begin:end, i] = np.minimum.reduceat(permuted, borders[:-1])
        return made

    def _blocks(self) -> Iterator[tuple[int, int]]:
        begin, letters = 0, 0
        for i, one in enumerate(self._sequences):
            letters += len(one)
            if letters >= _BLOCK_LETTERS:
                yield begin, i + 1
                begin, letters = i + 1, 0
        if begin < len(self):
            yield begin, len(self)


def reverse_complement(sequence: bytes) -> bytes:
    """Of upper-case DNA; letters but A, C, G, T stay."""
    return sequence.translate(_COMPLEMENT.tobytes())[::-1]


def _polynomial(text: npt.NDArray[np.uint8], k: int) -> Hashes:
    """sum of letter[i + j] * base^(k - 1 - j) modulo 2^64, at every i."""
    num = len(text) - k + 1
    codes = np.zeros(max(num, 0), np.uint64)
    for j in range(k):
        codes *= _BASE
        codes += text[j : j + num]
    return codes


def _mixed(codes: Hashes) -> Hashes:
    """The finaliser of SplitMix64 (Steele et al. 2014): every bit depends on every bit."""
    mixed = codes + _BASE
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def _permutations(seed: int) -> tuple[Hashes, Hashes]:
    """Odd multipliers and addends (K,) of multiply-shift hashing."""
    data = hashlib.shake_256(f"minhash {seed}".encode()).digest(16 * NUM_PERMUTATIONS)
    numbers = np.frombuffer(data, "<u8").astype(np.uint64)
    return numbers[:NUM_PERMUTATIONS] | np.uint64(1), numbers[NUM_PERMUTATIONS:]


def jaccard(one: Hashes, other: Hashes) -> float:
    """Shared share of two sets of hashes, each ascending and without repeats."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared) if shared else 0.0


def buckets(signatures: npt.NDArray[np.uint32], likeness: Likeness) -> Iterator[list[int]]:
    """Sets of two or more sequences that agree in a band, each ascending, in an order that only the input decides."""
    rows = likeness.rows_per_band()
    for band in range(NUM_PERMUTATIONS // rows):
        part = np.ascontiguousarray(signatures[:, band * rows : (band + 1) * rows])
        keys = part.view(np.dtype((np.void, part.dtype.itemsize * rows))).reshape(-1)
        _, places = np.unique(keys, return_inverse=True)
        order = np.argsort(places, kind="stable")
        borders = np.flatnonzero(np.diff(places[order])) + 1
        for group in np.split(order, borders):
            if len(group) > 1:
                yield group.tolist()


class Components:
    """Sets joined as they are found (union by least member)."""

    def __init__(self, num: int) -> None:
        self._parent = list(range(num))

    def root(self, one: int) -> int:
        """The least member of the set of `one`."""
        parent = self._parent
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    def join(self, one: int, other: int) -> None:
        """Make two sets one."""
        a, b = self.root(one), self.root(other)
        self._parent[max(a, b)] = min(a, b)

    def roots(self) -> Ints:
        """int64 (num,): the least member of each one's set."""
        return np.array([self.root(i) for i in range(len(self._parent))], np.int64)


def near_duplicates(
    sequences: Sequence[bytes], likeness: Likeness, *, seed: int = 0, kmers_of: type[Kmers] = Kmers
) -> Components:
    """Connected components of sequences at or above the threshold; `kmers_of` says what they are made of.

    Within a band's bucket a sequence is compared with those of other components only, until one is near: who is joined
    already needs no further proof.
    """
    found = Components(len(sequences))
    _join_equal(sequences, found)
    singles = [i for i in range(len(sequences)) if found.root(i) == i]
    kmers = kmers_of([sequences[i] for i in singles], likeness)
    compare = comparer(kmers)
    for group in buckets(kmers.signatures(seed=seed), likeness):
        together: list[list[int]] = []
        for one in group:
            apart, own = [], [one]
            for others in together:
                if _belongs(one, others, singles, found, compare=compare, threshold=likeness.threshold):
                    found.join(singles[one], singles[others[0]])
                    others.extend(own)
                    own = others
                else:
                    apart.append(others)
            together = [*apart, own]
    return found


def near_earlier(sequences: Sequence[bytes], likeness: Likeness, *, seed: int = 0) -> tuple[Ints, Floats]:
    """For each sequence the earlier one that it nearly repeats: greedy in their order, as CD-HIT clusters.

    What nearly repeats an earlier one does not stand itself: a chain of small changes is not followed.

    Returns:
        int64 (N,) the place of the likest earlier sequence that stands, the first of several, -1 where there is none;
        and float64 (N,) their Jaccard index, 0 where there is none.
    """
    found, likest = np.full(len(sequences), -1, np.int64), np.zeros(len(sequences))
    if not len(sequences):
        return found, likest
    kmers = Kmers(sequences, likeness)
    compare, rows = comparer(kmers), likeness.rows_per_band()
    bands = kmers.signatures(seed=seed)[:, : NUM_PERMUTATIONS // rows * rows].reshape(len(sequences), -1, rows)
    standing: list[dict[bytes, list[int]]] = [{} for _ in range(bands.shape[1])]
    for one in range(len(sequences)):
        keys = [key.tobytes() for key in bands[one]]
        candidates = {other for key, held in zip(keys, standing, strict=True) for other in held.get(key, ())}
        for other in sorted(candidates):
            shared = compare(one, other)
            if shared >= likeness.threshold and shared > likest[one]:
                found[one], likest[one] = other, shared
        if found[one] < 0:
            for key, held in zip(keys, standing, strict=True):
                held.setdefault(key, []).append(one)
    return found, likest


def _belongs(
    one: int,
    others: Sequence[int],
    singles: Sequence[int],
    found: Components,
    *,
    compare: Callable[[int, int], float],
    threshold: float,
) -> bool:
    """Whether a sequence is of a component, or near one of its members."""
    if found.root(singles[one]) == found.root(singles[others[0]]):
        return True
    return any(compare(one, other) >= threshold for other in others)


def _join_equal(sequences: Sequence[bytes], found: Components) -> None:
    first: dict[bytes, int] = {}
    for i, one in enumerate(sequences):
        found.join(first.setdefault(one, i), i)


def comparer(kmers: Kmers) -> Callable[[int, int], float]:
    """The Jaccard index of two sequences by index; sets of k-mers are kept for the last few thousand asked for."""
    sets = lru_cache(maxsize=4096)(kmers.of)

    def compare(one: int, other: int) -> float:
        return jaccard(sets(one), sets(other))

    return compare
