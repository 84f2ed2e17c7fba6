"""The two copies of the genome that an allele contrasts, their windows, and where outputs stand on the reference.

Shape letters: L window bases, E outputs of the ALT window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from engine.genome.variants import trim
from engine.genome.windows import (
    N_TOKEN,
    Positions,
    edit_positions,
    edit_tokens,
    reverse_complement,
    tokens_from_text,
)
from engine.scoring._contract import AlleleEdit, Contrast, Fetch, ScoringUnit, Tokens


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


def masked_alt(edit: Edit, tokens: Tokens, bounds: tuple[int, int] | None) -> AlleleEdit:
    """An edit with the tokens of its ALT, those that stand outside `bounds` as N."""
    return edit.centre, edit.num_ref, masked_tokens(edit.centre, edit.num_ref, tokens, bounds).tobytes()


def masked_tokens(start: int, num_ref: int, alt: Tokens, bounds: tuple[int, int] | None) -> Tokens:
    """Tokens of an ALT, those that stand outside `bounds` as N; a base counts by the one it pairs, the last by the one
    before."""
    if bounds is None:
        return alt
    stand = np.minimum(np.arange(len(alt)), min(num_ref, len(alt)) - 1) + start
    return np.where((stand >= bounds[0]) & (stand < bounds[1]), alt, N_TOKEN).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Tokens of the reference that one or more contrasts read; picklable.

    Attributes:
        start: 0-based position of the first.
        tokens: uint8 (L,), N outside the bounds of its contrasts.
    """

    start: int
    tokens: Tokens


def gather_stretches(
    contrasts: Sequence[Contrast], read: Callable[[str, int, int], Tokens], *, flank: int
) -> tuple[list[Stretch], list[int]]:
    """The sequence that contrasts need, read once where they overlap.

    Args:
        contrasts: in any order.
        read: (contig, start, end) to the reference's tokens there, N outside the contig.
        flank: bases each output needs on either side.

    Returns:
        Stretches, and for each contrast the index of its own.
    """
    groups: dict[tuple[str, tuple[int, int] | None], list[tuple[int, int, int]]] = {}
    for number, one in enumerate(contrasts):
        start, end = _extent(one, flank)
        groups.setdefault((one.contig, one.bounds), []).append((start, end, number))
    stretches: list[Stretch] = []
    places = [0] * len(contrasts)
    for (contig, bounds), extents in groups.items():
        extents.sort()
        at = 0
        while at < len(extents):
            start, end, _ = extents[at]
            first = at
            while at < len(extents) and extents[at][0] <= end:
                end = max(end, extents[at][1])
                at += 1
            for _, _, number in extents[first:at]:
                places[number] = len(stretches)
            stretches.append(Stretch(start, _masked(read(contig, start, end), start, bounds)))
    return stretches, places


def _extent(contrast: Contrast, flank: int) -> tuple[int, int]:
    """Reference bases [start, end) that a contrast's windows are cut from."""
    edits = (*contrast.background, *contrast.edits)
    deleted = sum(max(0, num_ref - len(alt)) for _, num_ref, alt in edits)
    start = min(contrast.low, *(at - 1 for at, _, _ in edits)) - flank - deleted
    end = max(contrast.high, contrast.alt_end, *(at + num_ref for at, num_ref, _ in edits)) + 1 + flank + deleted
    return start, end


def _masked(tokens: Tokens, start: int, bounds: tuple[int, int] | None) -> Tokens:
    if bounds is None:
        return tokens
    tokens = tokens.copy()
    tokens[: max(0, bounds[0] - start)] = N_TOKEN
    tokens[max(0, bounds[1] - start) :] = N_TOKEN
    return tokens


def copy_index(edits: Sequence[AlleleEdit], position: int) -> int:
    """Where the first base that stands on `position` or after it is, on a copy of the contig with these alleles.

    Args:
        edits: disjoint, in order.
        position: 0-based on the reference.

    Returns:
        0-based index on the copy.
    """
    shift = 0
    for at, num_ref, alt in edits:
        if position < at or (position == at and num_ref > 0):
            break  # bases inserted without a base of REF stand on the base before
        inside = min(position - at, num_ref)
        shift += (min(inside, len(alt)) if inside < num_ref else len(alt)) - inside
    return position + shift


@dataclass(frozen=True, slots=True)
class CopyTrack:
    """One track of a contrast: the outputs wanted of one copy.

    Attributes:
        edits: alleles of the copy, in order; none for the reference itself.
        begin, end: outputs wanted, indices on the copy.
    """

    edits: tuple[AlleleEdit, ...]
    begin: int
    end: int


def copy_tracks(contrast: Contrast) -> tuple[CopyTrack, CopyTrack]:
    """The REF and the ALT track of a contrast; of at least one output, also where all bases asked for are deleted."""
    tracks = []
    for edits, end_at, most in (
        (contrast.background, contrast.high, None),
        ((*contrast.background, *contrast.edits), contrast.alt_end, contrast.alt_outputs),
    ):
        held = tuple(sorted(edits))
        begin = copy_index(held, contrast.low)
        end = max(copy_index(held, end_at), begin + 1)
        tracks.append(CopyTrack(held, begin, end if most is None else min(end, begin + most)))
    ref, alt = tracks
    return ref, alt


def copy_window(track: CopyTrack, stretch: Stretch, *, flank: int) -> Tokens:
    """Tokens of a copy with `flank` bases on either side of the outputs, uint8 (end - begin + 2 * flank,)."""
    begin, end = track.begin - flank, track.end + flank
    if not track.edits:
        return stretch.tokens[begin - stretch.start : end - stretch.start]
    start, stop = _around(track, begin, end)
    start = max(start, stretch.start)
    tokens = stretch.tokens[start - stretch.start : max(0, stop - stretch.start)]
    edits = [(at, num_ref, np.frombuffer(alt, dtype=np.uint8)) for at, num_ref, alt in track.edits]
    return edit_tokens(tokens, start, edits)[begin - start : end - start]


def copy_positions(track: CopyTrack) -> Positions:
    """Reference positions, int64 (end - begin,), of the outputs of a track; see engine.genome.windows."""
    start, stop = _around(track, track.begin, track.end)
    edits = [(at, num_ref, np.frombuffer(alt, dtype=np.uint8)) for at, num_ref, alt in track.edits]
    return edit_positions(start, stop, edits)[track.begin - start : track.end - start]


def reached(contrast: Contrast, *, flank: int) -> tuple[int, int]:
    """Reference positions [start, end) whose outputs the edits can change, on copies that have other alleles too.

    Args:
        contrast: with edits.
        flank: bases each output reads on either side.
    """
    start, stop = contrast.edits[0][0], contrast.edits[-1][0] + contrast.edits[-1][1]
    lows, highs = [], []
    for track in copy_tracks(contrast):
        # From the last base before the edits to the first base after them, each with what reads it.
        begin, end = copy_index(track.edits, start) - flank, copy_index(track.edits, stop) + flank
        positions = copy_positions(CopyTrack(track.edits, begin, end))
        lows.append(int(positions[0]))
        highs.append(int(positions[-1]) + 1)
    return min(lows), max(highs)


def _around(track: CopyTrack, begin: int, end: int) -> tuple[int, int]:
    """Reference bases that hold the copy's [begin, end), with every allele whole, so that indices stay the copy's."""
    spare = sum(abs(num_ref - len(alt)) for _, num_ref, alt in track.edits)
    start, stop = begin - spare, end + spare
    if not track.edits:
        return start, stop
    # Bases inserted without a base of REF belong to the base before.
    return min(start, track.edits[0][0] - 1), max(stop, track.edits[-1][0] + track.edits[-1][1])


def contrast_windows(contrast: Contrast, stretch: Stretch, *, flank: int) -> list[Tokens]:
    """Windows REF, ALT for each strand asked for, in the direction read."""
    forward = [copy_window(track, stretch, flank=flank) for track in copy_tracks(contrast)]
    made: list[Tokens] = []
    for strand in contrast.strands:
        made += forward if strand == "+" else [reverse_complement(window) for window in forward]
    return made
