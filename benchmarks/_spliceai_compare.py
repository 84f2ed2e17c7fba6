"""When two answers to the same variants agree: the rules of the comparison with SpliceAI, on plain numbers.

Letters of shapes: D positions within the distance, E outputs of the ALT window, 3 channels (neither, acceptor, donor).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

NAMES = ("AG", "AL", "DG", "DL")
MAX_DELTA = 0.01  # between our number and the two decimals of the peer's text
MAX_RAW = 1e-4
LEAST_DELTA = 0.05  # below it a position is not compared
LEAST_LEAD = 1e-3  # of the winner over the runner-up; closer ones may change places
LARGE = 0.2
# What SpliceAI gives numbers for and the engine refuses on purpose: it reads the letters of a breakend as inserted
# bases, and answers 0 to an ALT that is REF.
DELIBERATE = ("rejected: breakend", "rejected: alt_equals_ref")
_SLACK = 1e-9

Outputs = NDArray[np.float32]
Key = tuple[str, str, str]  # record id, ALT, gene


@dataclass(frozen=True)
class Answer:
    """What a tool says of one (record, ALT, gene): four deltas and positions, in the order of NAMES."""

    deltas: tuple[float, ...]
    places: tuple[int, ...]


@dataclass(frozen=True)
class Winner:
    """The largest change of one kind in the peer's raw outputs, unmasked, and the largest anywhere else."""

    delta: float
    place: int
    runner_up: float

    @property
    def is_clear(self) -> bool:
        """Whether two tools must name the same position."""
        return self.delta >= LEAST_DELTA and self.delta - self.runner_up >= LEAST_LEAD


def read_entry(text: str) -> tuple[str, str, Answer | None]:
    """(ALT, gene, numbers) of one entry of the tag SpliceAI; None for numbers where it has dots."""
    alt, gene, *values = text.split("|")
    if len(values) != 8:
        raise ValueError(f"an entry of 10 parts expected, found {text!r}")
    if values[0] == ".":
        return alt, gene, None
    return alt, gene, Answer(tuple(map(float, values[:4])), tuple(map(int, values[4:])))


def winners(ref_D3: Outputs, alt_E3: Outputs, *, strand: str, num_ref: int, num_alt: int) -> list[Winner]:
    """Winner and runner-up of AG, AL, DG, DL from raw outputs in transcript orientation, as SpliceAI lines them up."""
    if strand == "-":
        ref_D3, alt_E3 = ref_D3[::-1], alt_E3[::-1]
    middle = len(ref_D3) // 2
    if num_ref > 1 and num_alt == 1:
        gap = np.zeros((num_ref - num_alt, 3), dtype=alt_E3.dtype)
        alt_E3 = np.concatenate([alt_E3[: middle + 1], gap, alt_E3[middle + 1 :]])
    elif num_ref == 1 and num_alt > 1:
        joined = alt_E3[middle : middle + num_alt].max(axis=0, keepdims=True)
        alt_E3 = np.concatenate([alt_E3[:middle], joined, alt_E3[middle + num_alt :]])
    found = []
    for channel in (1, 2):
        for sign in (1, -1):
            change_D = sign * (alt_E3[:, channel].astype(np.float64) - ref_D3[:, channel])
            index = int(change_D.argmax())
            others = np.delete(change_D, index)
            runner_up = float(others.max()) if len(others) else -1.0
            found.append(Winner(float(change_D[index]), index - middle, runner_up))
    return found


@dataclass
class Parity:
    """Counts of one set at one distance and mask.

    Attributes:
        pairs: (record, ALT, gene) that both score.
        equal_text: deltas whose two decimals are the same.
        largest: largest difference between our delta and the peer's text.
        positions: clear winners, whose positions are compared.
        other_positions: the rest, as (equal, all), for information.
        faults: one sentence for each disagreement.
        states: (what the peer did, our state and reason) of all that one of the two leaves out.
    """

    pairs: int = 0
    equal_text: int = 0
    largest: float = 0.0
    positions: int = 0
    other_positions: tuple[int, int] = (0, 0)
    faults: list[str] = field(default_factory=list)
    states: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def holds(self) -> bool:
        return not self.faults


def compare_numbers(
    ours: Mapping[Key, Answer],
    peer: Mapping[Key, Answer],
    raw: Mapping[Key, Sequence[Winner]],
    *,
    states: Mapping[tuple[str, str], str],
) -> Parity:
    """Deltas and positions of all that both score; what only one scores is a fault, but for what is DELIBERATE.

    Args:
        ours: our numbers, unrounded.
        peer: the peer's text.
        raw: winners in the peer's raw outputs of the same distance.
        states: (record, ALT) to "state: reason" of ours.
    """
    found = Parity()
    equal, others = 0, 0
    for key in sorted(peer.keys() | ours.keys()):
        state = states.get(key[:2], "no row")
        if key not in ours and state in DELIBERATE:
            found.states["gives numbers", state] += 1
            continue
        if key not in ours or key not in peer:
            who = f"only SpliceAI scores it (here {state})" if key in peer else "only replisome scores it"
            found.faults.append(f"{_name(key)}: {who}")
            continue
        found.pairs += 1
        for index, name in enumerate(NAMES):
            mine, theirs = ours[key].deltas[index], peer[key].deltas[index]
            found.largest = max(found.largest, abs(mine - theirs))
            found.equal_text += f"{mine:.2f}".replace("-0.00", "0.00") == f"{theirs:.2f}".replace("-0.00", "0.00")
            if not abs(mine - theirs) <= MAX_DELTA + _SLACK:
                found.faults.append(f"{_name(key)}: DS_{name} {mine:.5f}, SpliceAI {theirs:.2f}")
            is_same = ours[key].places[index] == peer[key].places[index]
            winner = raw[key][index]
            if not winner.is_clear:
                equal, others = equal + is_same, others + 1
                continue
            found.positions += 1
            if not is_same:
                places = f"{ours[key].places[index]}, SpliceAI {peer[key].places[index]}"
                lead = f"delta {winner.delta:.4f}, runner-up {winner.runner_up:.4f}"
                found.faults.append(f"{_name(key)}: DP_{name} {places} ({lead})")
    found.other_positions = equal, others
    return found


def _name(key: Key) -> str:
    record, alt, gene = key
    return f"{record} {alt if len(alt) <= 20 else f'{alt[:17]}...'} {gene}"


@dataclass(frozen=True)
class Silence:
    """What a tool does of a record's ALT that it does not score: how SpliceAI puts it, or our state and reason."""

    record: str
    alt: str
    words: str


def compare_silence(found: Parity, peer: Iterable[Silence], ours: Mapping[tuple[str, str], str]) -> None:
    """Each ALT that the peer leaves out has a row of ours, which says why; adds to `found`.

    What we score all the same `compare_numbers` has found.

    Args:
        found: where to count.
        peer: what the peer left out.
        ours: (record, ALT) to "state: reason" of ours, "scored" where we have numbers.
    """
    for one in peer:
        answer = ours.get((one.record, one.alt), "no row")
        found.states[(one.words, answer)] += 1
        if answer == "no row":
            found.faults.append(f"{_name((one.record, one.alt, ''))}: SpliceAI {one.words}, replisome has no row")


def large_counts(answers: Iterable[Answer]) -> dict[str, int]:
    """How many have a largest delta of LARGE or more, and how many each of the four."""
    counts = dict.fromkeys(("largest", *NAMES), 0)
    for answer in answers:
        counts["largest"] += max(answer.deltas) >= LARGE - _SLACK
        for name, delta in zip(NAMES, answer.deltas, strict=True):
            counts[name] += delta >= LARGE - _SLACK
    return counts


def markdown(title: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table."""
    lines = [title, ["---"] * len(title), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
