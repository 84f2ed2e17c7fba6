"""What the splice scores mean, said again slowly and apart from the product, one base at a time.

Written from the definitions of SpliceAI 1.3.1 (see the docstring of engine/scoring/splice_delta.py), it shares no code
with the product. A model here is a function of one text of ``context + 1`` letters to (acceptor, donor) of its middle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

PAIR = {"A": "T", "C": "G", "G": "C", "T": "A", "N": "N"}
Model = Callable[[str], tuple[float, float]]


@dataclass(frozen=True)
class Question:
    """One variant on one transcript; 0-based half-open."""

    contig: str
    start: int
    ref: str
    alt: str
    transcript: tuple[int, int]
    exons: tuple[tuple[int, int], ...]
    strand: str
    distance: int
    mask: bool
    context: int


def plain(letter: str) -> str:
    return letter.upper() if letter.upper() in "ACGT" else "N"


def by_character_code(letter: str) -> str:
    """SpliceAI's encoding: A, C, G, T, N become 1, 2, 3, 4, 0; other letters their code modulo 5."""
    return letter.upper() if letter.upper() in "ACGTN" else "NACGT"[ord(letter.upper()) % 5]


def seen(question: Question, at: int, read: Callable[[str], str]) -> str:
    inside = question.transcript[0] <= at < question.transcript[1] and 0 <= at < len(question.contig)
    return read(question.contig[at]) if inside else "N"


def predict(question: Question, letters: list[str], model: Model) -> list[tuple[float, float]]:
    """(acceptor, donor) of each letter with its whole context, both read on the transcript's strand."""
    half = question.context // 2
    found = []
    for middle in range(half, len(letters) - half):
        window = letters[middle - half : middle + half + 1]
        if question.strand == "-":
            window = [PAIR[letter] for letter in reversed(window)]
        found.append(model("".join(window)))
    return found


def trimmed(question: Question) -> tuple[int, str, str]:
    """Where the allele is scored: as written with one base on a side, else without padding but never empty."""
    start, ref, alt = question.start, question.ref.upper(), question.alt.upper()
    if len(ref) == 1 or len(alt) == 1:
        return start, ref, alt
    while len(ref) > 1 and len(alt) > 1 and ref[-1] == alt[-1]:
        ref, alt = ref[:-1], alt[:-1]
    while ref and alt and ref[0] == alt[0]:
        start, ref, alt = start + 1, ref[1:], alt[1:]
    if ref and alt and ref[-1] == alt[-1]:
        ref, alt = ref[:-1], alt[:-1]
    if ref and alt:
        return start, ref, alt
    if start > 0:
        before = plain(question.contig[start - 1])
        return start - 1, before + ref, before + alt
    after = plain(question.contig[len(ref)])
    return start, ref + after, alt + after


def nearest_edge(question: Question, at: int) -> int:
    edges = sorted({edge for start, end in question.exons for edge in (start, end - 1)})
    best = edges[0]
    for edge in edges[1:]:
        if abs(edge - at) < abs(best - at):
            best = edge
    return best


def best_change(
    question: Question, centre: int, ref: list[tuple[float, float]], alt: list[tuple[float, float]]
) -> list[tuple[float, int]]:
    """[(DS, DP)] of acceptor gain, acceptor loss, donor gain, donor loss."""
    answers = []
    for channel in range(2):
        for sign in (1, -1):
            winner, largest = 0, -9.0
            for index in range(2 * question.distance + 1):
                change = sign * (alt[index][channel] - ref[index][channel])
                if change > largest:
                    winner, largest = index, change
            place = centre - question.distance + winner
            annotated = place == nearest_edge(question, centre)
            if question.mask and ((sign == 1 and annotated) or (sign == -1 and not annotated)):
                largest = 0.0
            answers.append((largest, place - question.start))
    return answers


def splice_deltas(question: Question, model: Model) -> list[tuple[float, int]]:
    """The project's definition."""
    centre, ref, alt = trimmed(question)
    half, reach = question.context // 2, question.distance
    last_paired = centre + min(len(ref), len(alt)) - 1
    # The changed copy, each base with the reference coordinate it stands on.
    copy: list[tuple[int, str]] = [(at, seen(question, at, plain)) for at in range(centre - reach - half, centre)]
    for number, letter in enumerate(alt):
        at = min(centre + number, last_paired)
        inside = question.transcript[0] <= at < question.transcript[1]
        copy.append((at, plain(letter) if inside else "N"))
    after = range(centre + len(ref), centre + len(ref) + reach + half + len(ref) + len(alt) + 1)
    copy += [(at, seen(question, at, plain)) for at in after]
    scores: dict[int, tuple[float, float]] = {}
    for (at, _), (acceptor, donor) in zip(
        copy[half:], predict(question, [letter for _, letter in copy], model), strict=False
    ):
        former = scores.get(at, (0.0, 0.0))
        scores[at] = (max(former[0], acceptor), max(former[1], donor))
    places = range(centre - reach, centre + reach + 1)
    letters = [seen(question, at, plain) for at in range(centre - reach - half, centre + reach + half + 1)]
    changed = [scores.get(at, (0.0, 0.0)) for at in places]
    return best_change(question, centre, predict(question, letters, model), changed)


def peer_deltas(question: Question, model: Model) -> list[tuple[float, int]] | None:
    """SpliceAI 1.3.1 with its artefacts; None where it gives no score."""
    reach, half, pos = question.distance, question.context // 2, question.start
    ref, alt = question.ref.upper(), question.alt.upper()
    begin, end = pos - reach - half, pos + reach + half + 1
    if begin < 0 or end > len(question.contig) or len(ref) > 2 * reach or (len(ref) > 1 and len(alt) > 1):
        return None
    letters = [seen(question, at, by_character_code) for at in range(begin, end)]
    middle = pos - begin
    other = letters[:middle] + [by_character_code(letter) for letter in alt] + letters[middle + len(ref) :]
    before, after = predict(question, letters, model), predict(question, other, model)
    if len(ref) > 1:
        after = after[: reach + 1] + [(0.0, 0.0)] * (len(ref) - len(alt)) + after[reach + 1 :]
    elif len(alt) > 1:
        inserted = after[reach : reach + len(alt)]
        joined = (max(one for one, _ in inserted), max(one for _, one in inserted))
        after = [*after[:reach], joined, *after[reach + len(alt) :]]
    return best_change(question, pos, before, after)
