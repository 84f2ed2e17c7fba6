"""Which known motifs lie where the attributions are high.

Each motif is laid on every place and both strands of a sequence. Its score is the log-odds sum of its letters against
equal shares of A, C, G, T, with a pseudocount of 0.1; its p-value is exact for scores rounded to hundredths of a bit,
from the distribution over all words (Staden 1989, CABIOS 5:89; as FIMO has it, Grant, Bailey and Noble 2011,
Bioinformatics 27:1017). A sequence has a hit of a motif where its best place has a p-value within the limit.

Whether attributions are high under a motif is asked by ranks: the window of the hit among all windows of that width in
the same sequence, by the sum of |contribution|. Hits are found without looking at attributions, so where those have
nothing to do with the motif every rank is as likely; the sum over sequences is tested one-sided as a stratified
Wilcoxon statistic (van Elteren 1960, Bulletin of the International Statistical Institute 37:351; ties by mid-ranks),
each sequence being a stratum of one hit. q-values are those of Benjamini and Hochberg 1995 over a channel's motifs.

Shape letters: M motifs of one width W, L positions, T scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.io.motif_files import Motif

PSEUDOCOUNT = 0.1
PER_BIT = 100
FEWEST_HITS = 3
RESULT_VERSION = 1
_NEVER = -(10**8)
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Hit:
    """The best place of a motif in a sequence.

    Attributes:
        motif: its number among all.
        start: 0-based, in the sequence.
        is_reverse: whether it lies on the other strand.
        score: in bits.
        p_value: of the score, at one place of one strand.
    """

    motif: int
    start: int
    is_reverse: bool
    score: float
    p_value: float


@dataclass(frozen=True)
class Rank:
    """Where a window stands among those of its sequence.

    Attributes:
        value: mid-rank as a share, 0 to 1, one half where it says nothing.
        variance: of that where every window is as likely.
    """

    value: float
    variance: float


@dataclass(frozen=True)
class Match:
    """What the hits of a motif say together.

    Attributes:
        motif: its number.
        hits: sequences with one.
        mean_rank: over them.
        mean_contribution: of the windows' summed contributions, signed.
        p_value: that attributions are no higher under the motif than elsewhere; None for fewer than FEWEST_HITS.
        q_value: over all motifs that have a p-value.
    """

    motif: int
    hits: int
    mean_rank: float
    mean_contribution: float
    p_value: float | None
    q_value: float | None


def scores(motif: Motif) -> Ints:
    """(W, 4) int64 log-odds in hundredths of a bit."""
    total_W1 = motif.counts.sum(axis=1, keepdims=True)
    shares_W4 = (motif.counts + PSEUDOCOUNT / 4) / (total_W1 + PSEUDOCOUNT)
    found: Ints = np.rint(np.log2(shares_W4 * 4) * PER_BIT).astype(np.int64)
    return found


def tail(scores_W4: Ints) -> tuple[int, Floats]:
    """The lowest score, and (T,) for each score from there on the share of words that score as much or more."""
    lows = scores_W4.min(axis=1)
    chance = np.ones(1)
    for row, low in zip(scores_W4, lows, strict=True):
        wider = np.zeros(len(chance) + int(row.max() - low))
        for score in row:
            wider[score - low : score - low + len(chance)] += chance / 4
        chance = wider
    return int(lows.sum()), np.minimum(np.cumsum(chance[::-1])[::-1], 1.0)


def too_short(motifs: Sequence[Motif], p_value: float) -> list[Motif]:
    """Motifs that can have no hit: even their best word turns up by chance more often than that."""
    return [motif for motif in motifs if tail(scores(motif))[1][-1] > p_value]


class Scanner:
    """Motifs made ready.

    Args:
        motifs: all of them; hits name them by their place here.
        p_value: highest of a hit.
    """

    def __init__(self, motifs: Sequence[Motif], *, p_value: float) -> None:
        self.motifs = tuple(motifs)
        self._groups: list[tuple[Ints, Ints, Ints]] = []
        self._tails: list[tuple[int, Floats]] = []
        self._least = np.zeros(len(motifs), np.int64)
        matrices = [scores(one) for one in motifs]
        for number, one in enumerate(matrices):
            low, chance = tail(one)
            self._tails.append((low, chance))
            self._least[number] = low + int(np.searchsorted(-chance, -p_value, side="left"))
        for width in sorted({one.width for one in motifs}):
            numbers = [number for number, one in enumerate(motifs) if one.width == width]
            forward = np.full((len(numbers), width, 5), _NEVER, np.int64)
            forward[:, :, :4] = [matrices[number] for number in numbers]
            reverse = forward[:, ::-1, [3, 2, 1, 0, 4]]
            self._groups.append((np.array(numbers), forward, np.ascontiguousarray(reverse)))

    def hits(self, tokens_L: NDArray[np.uint8]) -> list[Hit]:
        """The best place of every motif that has a hit; of equal ones the leftmost, and there the forward strand."""
        found = []
        for numbers, forward, reverse in self._groups:
            width = forward.shape[1]
            if len(tokens_L) < width:
                continue
            one, other = _laid(forward, tokens_L), _laid(reverse, tokens_L)
            best_ML = np.maximum(one, other)
            place_M = best_ML.argmax(axis=1)
            top_M = best_ML[np.arange(len(numbers)), place_M]
            for row in np.flatnonzero(top_M >= self._least[numbers]).tolist():
                number, place, score = int(numbers[row]), int(place_M[row]), int(top_M[row])
                low, chance = self._tails[number]
                if score - low < len(chance):
                    is_reverse = bool(one[row, place] < score)
                    found.append(Hit(number, place, is_reverse, score / PER_BIT, float(chance[score - low])))
        return sorted(found, key=lambda hit: hit.motif)


def _laid(matrices_MW5: Ints, tokens_L: NDArray[np.uint8]) -> Ints:
    """(M, L - W + 1) scores of every place."""
    width = matrices_MW5.shape[1]
    places = len(tokens_L) - width + 1
    total = np.zeros((len(matrices_MW5), places), np.int64)
    for at in range(width):
        total += matrices_MW5[:, at, tokens_L[at : at + places]]
    return total


def window_sums(values_L: Floats, width: int) -> Floats:
    """(L - width + 1,) sums of neighbours."""
    sums = np.concatenate(([0.0], np.cumsum(values_L)))
    found: Floats = sums[width:] - sums[:-width]
    return found


def rank(sums: Floats, place: int) -> Rank:
    """Mid-rank of one window among all, as a share; sums that agree to 9 digits of the largest are equal."""
    rounded = np.rint(sums / (np.abs(sums).max() or 1.0) * 1e9)
    _, ties = np.unique(rounded, return_counts=True)
    below, equal = int((rounded < rounded[place]).sum()), int((rounded == rounded[place]).sum())
    num = len(sums)
    variance = (1 - float((ties.astype(np.float64) ** 3).sum()) / num**3) / 12
    return Rank((below + equal / 2) / num, variance)


def matches(hits: Iterable[tuple[int, float, float, float]]) -> list[Match]:
    """What hits say together, by motif.

    Args:
        hits: (motif, value and variance of its rank, signed contribution) of each.
    """
    of_motif: dict[int, list[tuple[float, float, float]]] = {}
    for motif, *rest in hits:
        of_motif.setdefault(motif, []).append((rest[0], rest[1], rest[2]))
    made = []
    for motif, rows in sorted(of_motif.items()):
        ranks, variances, contributions = (np.array(column) for column in zip(*rows, strict=True))
        p_value = _upper_tail(float((ranks - 0.5).sum()), float(variances.sum())) if len(rows) >= FEWEST_HITS else None
        made.append((motif, len(rows), float(ranks.mean()), float(contributions.mean()), p_value))
    tested = [row[4] for row in made if row[4] is not None]
    adjusted = iter(q_values(tested))
    return [Match(*row, None if row[4] is None else next(adjusted)) for row in made]


def _upper_tail(total: float, variance: float) -> float:
    """Chance of as much or more under the normal distribution; 1 where nothing can differ."""
    return 1.0 if variance <= 0 else 0.5 * math.erfc(total / math.sqrt(2 * variance))


def q_values(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's adjusted p-values, in the order given."""
    order = np.argsort(p_values, kind="stable")[::-1]
    found, lowest = [0.0] * len(p_values), 1.0
    for place, index in enumerate(order):
        lowest = min(lowest, p_values[index] * len(p_values) / (len(p_values) - place))
        found[index] = lowest
    return found
