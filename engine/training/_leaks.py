"""What leaks between the parts of a split: equal sequences, reverse complements, near duplicates, parted groups.

The records that leak are named in twos. Each is named at most once for each kind, with the earliest record of another
part that it repeats; so the list stays short, however many copies there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa

from engine.errors import InputError
from engine.genome.minhash import Kmers, Likeness, buckets, comparer, reverse_complement
from engine.training.splits import Records, part_names

EXACT, REVERSE_COMPLEMENT, NEAR, GROUP = "exact", "reverse_complement", "near", "same_group"
MEMBER = "same_member"
_MOST_LETTERS = 40
KINDS = (EXACT, REVERSE_COMPLEMENT, NEAR, GROUP, MEMBER)


@dataclass(frozen=True, slots=True)
class Leak:
    """Two records of different parts that are too much alike.

    Attributes:
        kind: exact, reverse_complement, near, same_group or, of pairs parted by a member, same_member.
        likeness: Jaccard index of their k-mers; 1 for the other kinds.
        record, id, part: the later record.
        other_record, other_id, other_part: the earlier one.
    """

    kind: str
    likeness: float
    record: int
    id: str | None
    part: str
    other_record: int
    other_id: str | None
    other_part: str

    def sentence(self) -> str:
        """One line for a person."""
        how = {
            EXACT: "is the same as",
            REVERSE_COMPLEMENT: "is the reverse complement of",
            NEAR: f"is near (Jaccard {self.likeness:.3f})",
            GROUP: "is of the same group as",
            MEMBER: "has under another name the member of",
        }[self.kind]
        ours, theirs = (f"record {n} ({_short(i)}, {p})" for n, i, p in (self._ours(), self._theirs()))
        return f"{ours} {how} {theirs}"

    def _ours(self) -> tuple[int, str | None, str]:
        return self.record, self.id, self.part

    def _theirs(self) -> tuple[int, str | None, str]:
        return self.other_record, self.other_id, self.other_part


def _short(name: str | None) -> str:
    text = name or "no name"
    return text if len(text) <= _MOST_LETTERS else text[: _MOST_LETTERS - 3] + "..."


def leaks_text(leaks: Sequence[Leak]) -> str:
    """A TAB-separated table with a header line."""
    lines = ["\t".join(one.name for one in fields(Leak))]
    lines += ["\t".join("" if value is None else str(value) for value in astuple(leak)) for leak in leaks]
    return "\n".join(lines) + "\n"


def find_leaks(
    records: Records, split: pa.Table, likeness: Likeness, *, where: str = "", seed: int = 0, group_by: str = "group"
) -> list[Leak]:
    """All leaks of a split, by record and kind.

    Args:
        records: the kept records, with their sequences.
        split: rows of schemas.tables.SPLITS.
        likeness: what near duplicates are.
        where: the split file, for messages.
        seed: of the signatures.
        group_by: column that the groups are of; of pairs, id and second_id part them by a member.

    Raises:
        InputError: a record of the split is not in the set, or twice; or one of the set is in no split.
    """
    parts = _parts_of(records, split, where)
    sequences = records.sequences
    if records.are_pairs:
        # A member stands in many pairs, in any part: unless pairs are parted by it, only whole pairs are looked at.
        whole = [
            b"%s\0%s" % (one, (other or "").encode()) for one, other in zip(sequences, records.seconds, strict=True)
        ]
        pairs = replace(likeness, both_strands=False)
        found = [*_equal(whole, parts, pairs), *_same_group(records.groups, parts)]
        members: dict[str, Sequence[Any]] = {"id": sequences, "second_id": records.seconds}
        known = {(kind, i) for kind, i, _, _ in found}
        by_text = _same_group(members.get(group_by, [None] * len(parts)), parts)
        found += [(MEMBER, i, other, like) for _, i, other, like in by_text if (GROUP, i) not in known]
        return _named(records, parts, found)
    found = list(_equal(sequences, parts, likeness))
    known = {(kind, i) for kind, i, _, _ in found}
    named = {i for _, i in known}
    if records.are_letters:
        found += [leak for leak in _near(sequences, parts, likeness, seed=seed) if leak[1] not in named]
    return _named(records, parts, [*found, *_same_group(records.groups, parts)])


_Found = tuple[str, int, int, float]
"""Kind, place of the later record, of the earlier one, likeness."""


def _named(records: Records, parts: Sequence[str], found: list[_Found]) -> list[Leak]:
    return [_leak(records, parts, leak) for leak in sorted(found, key=lambda leak: (leak[1], KINDS.index(leak[0])))]


def _parts_of(records: Records, split: pa.Table, where: str) -> list[str]:
    """The part of each kept record."""
    rows = split["record"].to_pylist()
    part_of = dict(zip(rows, part_names(split), strict=True))
    if len(part_of) < len(rows):
        raise InputError("a record stands twice in the split", where=where, fix="make the split again")
    ours = records.record.tolist()
    foreign = part_of.keys() - set(ours)
    missing = next((one for one in ours if one not in part_of), None)
    if foreign or missing is not None:
        which = f"record {missing} of the set is in no split" if missing is not None else f"no record {min(foreign)}"
        fix = "check the split with the set it was made of, or make it again"
        raise InputError(f"the split is not of this set: {which}", where=where, fix=fix)
    return [part_of[one] for one in ours]


def _equal(sequences: Sequence[bytes], parts: Sequence[str], likeness: Likeness) -> Iterator[_Found]:
    """Equal sequences and reverse complements: the first of each sequence and part is enough to find all."""
    first: dict[bytes, dict[str, int]] = {}
    for i, one in enumerate(sequences):
        found = _earliest_elsewhere(first.get(one, {}), parts[i])
        if found is not None:
            yield EXACT, i, found, 1.0
        if likeness.both_strands:
            other = reverse_complement(one)
            found = None if other == one else _earliest_elsewhere(first.get(other, {}), parts[i])
            if found is not None:
                yield REVERSE_COMPLEMENT, i, found, 1.0
        first.setdefault(one, {}).setdefault(parts[i], i)


def _same_group(groups: Sequence[Any], parts: Sequence[str]) -> Iterator[_Found]:
    first: dict[Any, dict[str, int]] = {}
    for i, group in enumerate(groups):
        if group is not None:
            places = first.setdefault(group, {})
            found = _earliest_elsewhere(places, parts[i])
            if found is not None:
                yield GROUP, i, found, 1.0
            places.setdefault(parts[i], i)


def _earliest_elsewhere(places: dict[str, int], part: str) -> int | None:
    return min((place for name, place in places.items() if name != part), default=None)


def _near(sequences: Sequence[bytes], parts: Sequence[str], likeness: Likeness, *, seed: int) -> Iterator[_Found]:
    kmers = Kmers(sequences, likeness)
    compare = comparer(kmers)
    best: dict[int, tuple[int, float]] = {}
    for group in buckets(kmers.signatures(seed=seed), likeness):
        if len({parts[i] for i in group}) == 1:
            continue
        for place, one in enumerate(group):
            for other in group[:place]:
                if one in best and best[one][0] <= other:
                    break
                if parts[other] != parts[one] and not _is_same(sequences[one], sequences[other], likeness):
                    alike = compare(one, other)
                    if alike >= likeness.threshold:
                        best[one] = (other, alike)
                        break
    for one, (other, alike) in best.items():
        yield NEAR, one, other, alike


def _is_same(one: bytes, other: bytes, likeness: Likeness) -> bool:
    return one == other or (likeness.both_strands and len(one) == len(other) and one == reverse_complement(other))


def _leak(records: Records, parts: Sequence[str], found: _Found) -> Leak:
    kind, one, other, likeness = found
    numbers = np.asarray(records.record)
    return Leak(
        kind,
        round(likeness, 6),
        int(numbers[one]),
        records.ids[one],
        parts[one],
        int(numbers[other]),
        records.ids[other],
        parts[other],
    )
