"""REF and ALT windows of one allele, and where the outputs of the ALT window stand on the reference.

Shape letters: L window bases, E outputs of the ALT window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.genome.variants import trim
from engine.genome.windows import N_TOKEN, Positions, edit_positions, edit_tokens, tokens_from_text
from engine.scoring._contract import Fetch, ScoringUnit, Tokens


@dataclass(frozen=True, slots=True)
class Edit:
    """An allele as it is scored: REF bases [centre, centre + num_ref) become `alt`, paired from the left.

    Attributes:
        centre: 0-based position that windows are centred on.
        num_ref: bases of REF from the centre on, 1 or more.
        alt: bases of ALT that stand for them, 1 or more.
    """

    centre: int
    num_ref: int
    alt: str

    @property
    def num_paired(self) -> int:
        """Bases that REF and ALT pair."""
        return min(self.num_ref, len(self.alt))

    @property
    def end(self) -> int:
        """0-based end of REF, exclusive."""
        return self.centre + self.num_ref

    def positions(self, low: int, num_outputs: int) -> Positions:
        """Reference positions, int64 (E,), of the outputs of an ALT window that begins at `low`.

        Surplus ALT bases stand on the last paired base; deleted positions do not occur.
        """
        end = low + num_outputs + self.num_ref - len(self.alt)
        return edit_positions(low, end, [(self.centre, self.num_ref, tokens_from_text(self.alt))])


def edit_of(unit: ScoringUnit, fetch: Fetch) -> Edit:
    """How an allele is scored.

    Substitutions, insertions and deletions with a single base on one side are taken as written, as SpliceAI does.
    Others lose their common suffix, then prefix, so that padding changes no score; where that leaves one side empty
    the base before it is the anchor, as in VCF (at a contig's start, the base after it).
    """
    if len(unit.ref) == 1 or len(unit.alt) == 1:
        return Edit(unit.start, len(unit.ref), unit.alt)
    shift, ref, alt = trim(unit.ref, unit.alt)
    at = unit.start + shift
    if ref and alt:
        return Edit(at, len(ref), alt)
    if at > 0:
        return Edit(at - 1, len(ref) + 1, fetch(unit.contig, at - 1, at) + alt)
    return Edit(at, len(ref) + 1, alt + fetch(unit.contig, at + len(ref), at + len(ref) + 1))


def allele_tokens(
    edit: Edit,
    read: Callable[[int, int], Tokens],
    write: Callable[[str], Tokens],
    *,
    low: int,
    high: int,
    flank: int,
    bounds: tuple[int, int] | None = None,
    extra: int = 0,
) -> tuple[Tokens, Tokens]:
    """Windows whose outputs cover the reference positions [low, high) in REF, and what remains of them in ALT.

    Args:
        edit: the allele.
        read: (start, end) to the reference's tokens there, N outside the contig.
        write: text of ALT to tokens.
        low: first position an output is wanted for.
        high: end of the positions; the ALT window reaches past it where the allele does.
        flank: bases each output needs on either side.
        bounds: all sequence outside [start, end) becomes N, in REF and ALT; ALT bases count by the base they pair.
        extra: further reference bases at the right of the ALT window.

    Returns:
        REF tokens (high - low + 2 * flank,) and ALT tokens, both on the forward strand.
    """
    begin = low - flank
    end = max(high, edit.end) + flank + extra
    tokens = read(begin, end)
    alt = write(edit.alt)
    if bounds is not None:
        tokens[: max(0, bounds[0] - begin)] = N_TOKEN
        tokens[max(0, bounds[1] - begin) :] = N_TOKEN
        stand = np.minimum(np.arange(len(alt)), edit.num_paired - 1) + edit.centre
        alt = np.where((stand >= bounds[0]) & (stand < bounds[1]), alt, N_TOKEN).astype(np.uint8)
    changed = edit_tokens(tokens, begin, [(edit.centre, edit.num_ref, alt)])
    return tokens[: high + flank - begin].copy(), changed
