"""Questions about alleles as passes over copies of the genome, and cones on them.

A contrast without a background is a cone on the reference. One with a background is asked of the copy that has all of
its alleles: ALT is that copy's own track, and REF the cone in which the allele is undone. So the alleles of a copy
share passes as those of the reference do, whatever stands around them, and each costs one narrow cone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.genome.windows import edit_tokens, reverse_complement
from engine.scoring._allele_windows import Stretch, copy_tracks
from engine.scoring._cones import ConeTask, Span
from engine.scoring._contract import AlleleEdit, Contrast, Tokens

Question = tuple[Contrast, Stretch]
# Copies of one stretch that further contrasts may still join: the two of a person, and those where alleles clashed.
_MOST_OPEN = 8


@dataclass
class Wishes:
    """What is wanted of one strand of one copy, each wish once.

    Attributes:
        tokens: uint8 (L,) of the strand.
        spans: outputs of the copy itself.
        tasks: outputs of copies that differ from it.
    """

    tokens: Tokens
    spans: list[Span] = field(default_factory=list)
    tasks: list[ConeTask] = field(default_factory=list)
    _known: dict[Span | ConeTask, int] = field(default_factory=dict)

    def place(self, wish: Span | ConeTask) -> tuple[int, int]:
        """(0, index) of a span or (1, index) of a task."""
        kind = int(isinstance(wish, ConeTask))
        index = self._known.setdefault(wish, len(self.tasks if kind else self.spans))
        if isinstance(wish, ConeTask) and index == len(self.tasks):
            self.tasks.append(wish)
        elif not isinstance(wish, ConeTask) and index == len(self.spans):
            self.spans.append(wish)
        return kind, index


Key = tuple[int, str]
Place = tuple[Key, int, int]


class Asked:
    """Questions sorted by copy and strand.

    Args:
        questions: contrasts with their stretches.
        flank: bases that an output reads on either side, as their stretches were gathered with.

    Attributes:
        wishes: by copy and strand.
        places: for each question and track, REF and ALT for each strand, where its answer will be: the key of
            `wishes`, 0 for a span or 1 for a task, index.
    """

    def __init__(self, questions: Sequence[Question], *, flank: int) -> None:
        self.wishes: dict[Key, Wishes] = {}
        self._tokens: dict[int, Tokens] = {}
        copies, own = _copies(questions, flank)
        self.places: list[list[Place]] = []
        for (contrast, _), number in zip(questions, own, strict=True):
            self.places.append(self._ask(contrast, number, copies[number], flank))

    def _ask(self, contrast: Contrast, number: int, copy: _Copy, flank: int) -> list[Place]:
        tokens = self._tokens.get(number)
        if tokens is None:
            tokens = self._tokens[number] = copy.tokens()
        forward = _wishes(contrast, copy, flank)
        found = []
        for strand in contrast.strands:
            held = self.wishes.get((number, strand))
            if held is None:
                turned = tokens if strand == "+" else reverse_complement(tokens)
                held = self.wishes[number, strand] = Wishes(turned)
            for wish in forward:
                found.append(((number, strand), *held.place(wish if strand == "+" else _turned(wish, len(tokens)))))
        return found


@dataclass
class _Copy:
    """A copy of a stretch with alleles.

    Where a contrast reads, the copy has the contrast's own alleles and no others.

    Attributes:
        stretch: the reference.
        begin, end: the part of it that the copy is made of: what its contrasts read, with every allele whole.
        edits: the alleles.
    """

    stretch: Stretch
    begin: int
    end: int
    edits: set[AlleleEdit] = field(default_factory=set)
    _late: list[AlleleEdit] = field(default_factory=list)

    def takes(self, edits: Sequence[AlleleEdit], read: Span) -> bool:
        """Whether a contrast that reads these bases of the reference, with these alleles, can be asked of it, too.

        Contrasts come in the order in which what they read begins.
        """
        self._late = [edit for edit in self._late if not _is_left(edit, read)]
        if any(_touches(edit, read) and edit not in edits for edit in self._late):
            return False
        # What is new may change nothing of what earlier contrasts read, nor meet an allele of theirs.
        mine, (held, _) = (self.begin, self.end), _whole(edits, read)
        return not any(_touches(edit, mine) and edit not in self.edits for edit in held)

    def add(self, edits: Sequence[AlleleEdit], read: Span) -> None:
        """Take a contrast in; alleles that it does not read are left out."""
        held, (begin, end) = _whole(edits, read)
        self._late += [edit for edit in held if edit not in self.edits]
        self.edits.update(held)
        self.begin, self.end = min(self.begin, begin), max(self.end, end)

    def tokens(self) -> Tokens:
        """From `begin` to `end`, alleles put in."""
        tokens = self.stretch.tokens[self.begin - self.stretch.start : self.end - self.stretch.start]
        if not self.edits:
            return tokens
        edits = [(at, num_ref, np.frombuffer(alt, dtype=np.uint8)) for at, num_ref, alt in sorted(self.edits)]
        return edit_tokens(tokens, self.begin, edits)

    def index(self, edits: Sequence[AlleleEdit], read: Span) -> int:
        """What to add to an index on a contrast's own copy of the contig to have the index into `tokens`."""
        here, there = ((one for one in held if _is_left(one, read)) for held in (self.edits, edits))
        return _growth(here) - _growth(there) - self.begin


def _whole(edits: Sequence[AlleleEdit], read: Span) -> tuple[list[AlleleEdit], Span]:
    """Alleles that touch what is read, and what is read with each of them whole."""
    held = [edit for edit in edits if _touches(edit, read)]
    begin = min(read[0], *(at - 1 for at, _, _ in held))
    return held, (begin, max(read[1], *(at + num_ref + 1 for at, num_ref, _ in held)))


def _touches(edit: AlleleEdit, span: Span) -> bool:
    return edit[0] <= span[1] and edit[0] + edit[1] >= span[0]


def _is_left(edit: AlleleEdit, span: Span) -> bool:
    return edit[0] + edit[1] < span[0]


def _growth(edits: Iterable[AlleleEdit]) -> int:
    return sum(len(alt) - num_ref for _, num_ref, alt in edits)


def _read(contrast: Contrast, flank: int) -> Span:
    """Bases of the reference that the outputs of both copies read, and the contrast's own alleles; or a few more."""
    edits = (*contrast.background, *contrast.edits)
    deleted = sum(max(0, num_ref - len(alt)) for _, num_ref, alt in edits)
    low = min(contrast.low, *(at - 1 for at, _, _ in contrast.edits))
    high = max(contrast.high, contrast.alt_end, *(at + num_ref + 1 for at, num_ref, _ in contrast.edits))
    return low - flank - deleted, high + flank + deleted


def _copies(questions: Sequence[Question], flank: int) -> tuple[list[_Copy], list[int]]:
    """Copies, and for each question the number of its own: the reference's stretch, or one with the same alleles."""
    made: list[_Copy] = []
    own = [0] * len(questions)
    plain: dict[int, int] = {}
    crowded: list[tuple[Span, int]] = []
    for number, (contrast, stretch) in enumerate(questions):
        if contrast.background:
            crowded.append((_read(contrast, flank), number))
            continue
        if id(stretch) not in plain:
            plain[id(stretch)] = len(made)
            made.append(_Copy(stretch, stretch.start, stretch.start + len(stretch.tokens)))
        own[number] = plain[id(stretch)]
    open_copies: dict[int, list[int]] = {}
    for read, number in sorted(crowded):
        contrast, stretch = questions[number]
        edits = (*contrast.background, *contrast.edits)
        held = open_copies.setdefault(id(stretch), [])
        place = next((one for one in reversed(held) if made[one].takes(edits, read)), None)
        if place is None:
            place = len(made)
            made.append(_Copy(stretch, *read))
            held.append(place)
            del held[:-_MOST_OPEN]
        made[place].add(edits, read)
        own[number] = place
    return made, own


def _wishes(contrast: Contrast, copy: _Copy, flank: int) -> tuple[Span | ConeTask, Span | ConeTask]:
    """What to ask of the copy for REF and for ALT, in forward direction."""
    ref, alt = copy_tracks(contrast)
    base, other = (alt, ref) if contrast.background else (ref, alt)
    to_index = copy.index(base.edits, _read(contrast, flank))
    span = base.begin + to_index, base.end + to_index
    edits = sorted(contrast.edits)
    first, last = edits[0], edits[-1]
    start, end = first[0], last[0] + last[1]
    at = start + _growth(edit for edit in base.edits if edit < first)
    num_ref = end - start + _growth(edit for edit in base.edits if first <= edit <= last)
    inside = [edit for edit in other.edits if first <= edit <= last]
    counted_from = start + _growth(edit for edit in other.edits if edit < first)
    core = _spelled(copy.stretch, (start, end), inside)
    task = ConeTask(at + to_index, num_ref, core, other.begin - counted_from, other.end - counted_from)
    return (task, span) if contrast.background else (span, task)


def _spelled(stretch: Stretch, span: Span, edits: Sequence[AlleleEdit]) -> bytes:
    """Tokens of a copy from one place of the reference to another, with the alleles in between."""
    at, end = span
    pieces = []
    for start, num_ref, alt in edits:
        pieces += [stretch.tokens[at - stretch.start : start - stretch.start].tobytes(), alt]
        at = start + num_ref
    return b"".join([*pieces, stretch.tokens[at - stretch.start : end - stretch.start].tobytes()])


def _turned(wish: Span | ConeTask, length: int) -> Span | ConeTask:
    """A wish of a copy of so many bases on its other strand."""
    if not isinstance(wish, ConeTask):
        return length - wish[1], length - wish[0]
    core = reverse_complement(np.frombuffer(wish.core, dtype=np.uint8)).tobytes()
    return ConeTask(length - wish.after, wish.num_ref, core, len(core) - wish.end, len(core) - wish.begin)
