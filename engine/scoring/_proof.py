"""Holding cones against full windows: on which questions, and when two answers are the same.

The geometry of cones is derived from what a model says of its layers. Whether it says all is not known before it is
tried, so a sample of what will be asked is answered both ways first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from engine.genome.windows import BASES
from engine.scoring._allele_windows import gather_stretches
from engine.scoring._contract import AlleleEdit, Contrast, Track
from engine.scoring._questions import Question

# Largest difference, as a share of the largest full-window value or of 1; the order of sums differs.
TOLERANCE = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 5e-2}
# A proof takes as long as its windows, so longer alleles are left to the others' word.
LONGEST_ALLELE = 2000
_SEED = 20_211
_MADE_UP = ((1, 1), (1, 4), (5, 1), (3, 2))  # bases of REF, of ALT


def sample(questions: Sequence[Question]) -> list[Question]:
    """The first question, that of the longest allele, the one whose alleles lie furthest apart, the first of a strand.

    Args:
        questions: at least one; alleles longer than LONGEST_ALLELE are passed over where there are others.
    """
    every = range(len(questions))
    short = [one for one in every if _length(questions[one][0]) <= LONGEST_ALLELE]
    short = short or [min(every, key=lambda one: _length(questions[one][0]))]
    chosen = {short[0]}
    for size in (_length, _width):
        chosen.add(max(short, key=lambda one, size=size: size(questions[one][0])))  # type: ignore[misc]
    for strands in ("+", "-", "+-"):
        chosen.update([one for one in short if questions[one][0].strands == strands][:1])
    return [questions[index] for index in sorted(chosen)]


def _length(contrast: Contrast) -> int:
    return sum(num_ref + len(alt) for _, num_ref, alt in contrast.edits)


def _width(contrast: Contrast) -> int:
    edits = (*contrast.edits, *contrast.background)
    return max(at + num_ref for at, num_ref, _ in edits) - min(at for at, _, _ in edits)


def crowded(questions: Sequence[Question], *, reach: int) -> list[Question]:
    """Questions beside each other's alleles, as a phased run will ask them; those without a neighbour are left out.

    Args:
        questions: without backgrounds.
        reach: how far other alleles matter, in bases.
    """
    found = []
    for contrast, stretch in questions:
        (own,) = contrast.edits
        near: list[AlleleEdit] = []
        for other, held in questions:
            (edit,) = other.edits
            is_alike = held is stretch and other.bounds == contrast.bounds and abs(edit[0] - own[0]) <= reach
            if is_alike and not any(_is_close(edit, one) for one in (own, *near)):
                near.append(edit)
        if near:
            found.append((replace(contrast, background=tuple(sorted(near))), stretch))
    return found


def _is_close(one: AlleleEdit, other: AlleleEdit) -> bool:
    return one[0] <= other[0] + other[1] and other[0] <= one[0] + one[1]


def made_up(*, flank: int, outputs: int = 101) -> list[Question]:
    """An SNV, an insertion, a deletion and a delins on made-up sequence, on both strands, the last beside the others.

    Args:
        flank: bases that an output reads on either side.
        outputs: of each track.
    """
    step, room = 20, flank + outputs
    tokens = np.random.default_rng(_SEED).integers(0, 4, 2 * room + step * len(_MADE_UP), dtype=np.uint8)
    edits: list[AlleleEdit] = []
    for number, (num_ref, num_alt) in enumerate(_MADE_UP):
        at = room + step * number
        edits.append((at, num_ref, bytes([(int(tokens[at]) + 1) % (len(BASES) - 1)] * num_alt)))
    asked = []
    for number, (at, num_ref, alt) in enumerate(edits):
        low, high = at - outputs // 2, at + outputs // 2 + 1
        background = tuple(edits[:number]) if number == len(edits) - 1 else ()
        contrast = Contrast("made-up", low, high, max(high, at + num_ref), ((at, num_ref, alt),), background)
        asked.append(replace(contrast, strands="+-"[number % 2]))
    stretches, places = gather_stretches(asked, _reader(tokens), flank=flank)
    return [(one, stretches[place]) for one, place in zip(asked, places, strict=True)]


def _reader(tokens: np.ndarray) -> Callable[[str, int, int], np.ndarray]:
    def read(_: str, start: int, end: int) -> np.ndarray:
        return np.concatenate(
            [
                np.full(max(0, -start), 4, np.uint8),
                tokens[max(0, start) : max(0, end)],
                np.full(max(0, end - max(start, len(tokens))), 4, np.uint8),
            ]
        )

    return read


def difference(full: Sequence[Track], other: Sequence[Track]) -> float:
    """The largest difference, as a share of the largest finite full-window value or of 1; infinite where shapes, NaN
    or infinities differ."""
    largest, scale = 0.0, 1.0
    for one, two in zip(full, other, strict=True):
        if one.shape != two.shape:
            return float("inf")
        finite = np.isfinite(one)
        if not np.array_equal(one[~finite], two[~finite], equal_nan=True) or not np.isfinite(two[finite]).all():
            return float("inf")
        if finite.any():
            largest = max(largest, float(np.abs(one[finite].astype(np.float64) - two[finite]).max()))
            scale = max(scale, float(np.abs(one[finite]).max()))
    return largest / scale
