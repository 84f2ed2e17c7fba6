"""What leaks between the parts of a split: equal sequences, reverse complements, near duplicates, parted groups; and of
pairs that are parted by a member, members that are equal or near.

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
from engine.genome.minhash import Kmers, Likeness, reverse_complement
from engine.training._members import CONTAINED, JACCARD, MemberLikeness, held_across, near_across
from engine.training._split_table import UNUSED
from engine.training.splits import Records, part_names

EXACT, REVERSE_COMPLEMENT, NEAR, GROUP = "exact", "reverse_complement", "near", "same_group"
MEMBER, NEAR_MEMBER = "same_member", "near_member"
_MOST_LETTERS = 40
KINDS = (EXACT, REVERSE_COMPLEMENT, NEAR, GROUP, MEMBER, NEAR_MEMBER)


@dataclass(frozen=True, slots=True)
class Leak:
    """Two records of different parts that are too much alike.

    Attributes:
        kind: exact, reverse_complement, near, same_group or, of pairs parted by a member, same_member or near_member.
        likeness: how alike they are; 1 where they are equal.
        record, id, part: the later record.
        other_record, other_id, other_part: the earlier one.
        member, other_member: of same_member and near_member: names of the members.
        measure: what `likeness` is: Jaccard index or containment of k-mers, identity, LINGO Tanimoto; else empty.
    """

    kind: str
    likeness: float
    record: int
    id: str | None
    part: str
    other_record: int
    other_id: str | None
    other_part: str
    member: str | None = None
    other_member: str | None = None
    measure: str = ""

    def sentence(self) -> str:
        """One line for a person."""
        near = self._held() or f"is near ({self.measure} {self.likeness:.3f})"
        ours, theirs = (f"record {n} ({_short(i)}, {p})" for n, i, p in (self._ours(), self._theirs()))
        if self.kind in (MEMBER, NEAR_MEMBER):
            one, other = ("the member" if name is None else _short(name) for name in (self.member, self.other_member))
            how = "is the same as" if self.kind == MEMBER else near
            return f"{one} of {ours} {how} {other} of {theirs}"
        how = {
            EXACT: "is the same as",
            REVERSE_COMPLEMENT: "is the reverse complement of",
            NEAR: near,
            GROUP: "is of the same group as",
        }[self.kind]
        return f"{ours} {how} {theirs}"

    def _held(self) -> str:
        """A fragment, whichever of the two it is."""
        return f"shares {self.likeness:.0%} of the shorter one with" if self.measure == CONTAINED else ""

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
    records: Records,
    split: pa.Table,
    likeness: Likeness,
    *,
    where: str = "",
    seed: int = 0,
    group_by: str = "group",
    members: MemberLikeness | None = None,
) -> list[Leak]:
    """All leaks of a split, by record and kind; unused records do not leak.

    Args:
        records: the kept records, with their sequences.
        split: rows of schemas.tables.SPLITS.
        likeness: what near duplicates are.
        where: the split file, for messages.
        seed: of the signatures.
        group_by: column that the groups are of; of pairs, id and second_id part them by a member.
        members: of pairs parted by a member: what near duplicates of members are; None looks for equal ones alone.

    Raises:
        InputError: a record of the split is not in the set, or twice; or one of the set is in no split.
    """
    parts = _parts_of(records, split, where)
    if UNUSED in parts:
        used = [place for place, part in enumerate(parts) if part != UNUSED]
        records, parts = records.of(used), [parts[place] for place in used]
    sequences = records.sequences
    if records.are_pairs:
        # A member stands in many pairs, in any part: unless pairs are parted by it, only whole pairs are looked at.
        whole = [
            b"%s\0%s" % (one, (other or "").encode()) for one, other in zip(sequences, records.seconds, strict=True)
        ]
        pairs = replace(likeness, both_strands=False)
        found = [*_equal(whole, parts, pairs), *_same_group(records.groups, parts)]
        names = records.second_ids if group_by == "second_id" else records.ids
        if group_by in ("id", "second_id"):
            others = [None if one is None else one.encode() for one in records.seconds]
            texts = sequences if group_by == "id" else others
            found += _of_members(texts, parts, names, found, members, seed=seed)
        return _named(records, parts, found, names=names)
    found = list(_equal(sequences, parts, likeness))
    if records.are_letters:
        named = {one[1] for one in found}
        kmers = Kmers(sequences, likeness)
        near = near_across(sequences, parts, likeness, kmers=kmers, measure=JACCARD, seed=seed)
        found += [(NEAR, *leak) for leak in near if leak[0] not in named]
        named = {one[1] for one in found}
        found += [(NEAR, *leak) for leak in held_across(sequences, parts, likeness, named=named)]
    return _named(records, parts, [*found, *_same_group(records.groups, parts)])


def _of_members(
    texts: Sequence[bytes | None],
    parts: Sequence[str],
    names: Sequence[str | None],
    known: Sequence[_Found],
    how: MemberLikeness | None,
    *,
    seed: int,
) -> Iterator[_Found]:
    """Members that stand under two names in two parts, each name once; then those that are like one of another part."""
    in_groups = {one for kind, one, *_ in known if kind == GROUP}
    told = set()
    for _, one, other, alike, measure in _same_group(texts, parts):
        member = (texts[one], names[one] if names else None, parts[one])
        if one not in in_groups and member not in told:
            told.add(member)
            yield MEMBER, one, other, alike, measure
    if how is None:
        return
    first: dict[tuple[bytes, str], int] = {}
    for place, (text, part) in enumerate(zip(texts, parts, strict=True)):
        if text is not None:
            first.setdefault((text, part), place)
    places = list(first.values())
    near = how.across([text for text, _ in first], [part for _, part in first], seed=seed)
    yield from ((NEAR_MEMBER, places[one], places[other], share, measure) for one, other, share, measure in near)


_Found = tuple[str, int, int, float, str]
"""Kind, place of the later record, of the earlier one, likeness, and its measure."""


def _named(
    records: Records, parts: Sequence[str], found: list[_Found], *, names: Sequence[str | None] = ()
) -> list[Leak]:
    ordered = sorted(found, key=lambda leak: (leak[1], KINDS.index(leak[0])))
    return [_leak(records, parts, leak, names=names) for leak in ordered]


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
            yield EXACT, i, found, 1.0, ""
        if likeness.both_strands:
            other = reverse_complement(one)
            found = None if other == one else _earliest_elsewhere(first.get(other, {}), parts[i])
            if found is not None:
                yield REVERSE_COMPLEMENT, i, found, 1.0, ""
        first.setdefault(one, {}).setdefault(parts[i], i)


def _same_group(groups: Sequence[Any], parts: Sequence[str]) -> Iterator[_Found]:
    first: dict[Any, dict[str, int]] = {}
    for i, group in enumerate(groups):
        if group is not None:
            places = first.setdefault(group, {})
            found = _earliest_elsewhere(places, parts[i])
            if found is not None:
                yield GROUP, i, found, 1.0, ""
            places.setdefault(parts[i], i)


def _earliest_elsewhere(places: dict[str, int], part: str) -> int | None:
    return min((place for name, place in places.items() if name != part), default=None)


def _leak(records: Records, parts: Sequence[str], found: _Found, *, names: Sequence[str | None]) -> Leak:
    kind, one, other, likeness, measure = found
    numbers = np.asarray(records.record)
    is_member = bool(names) and kind in (MEMBER, NEAR_MEMBER)
    return Leak(
        kind,
        round(likeness, 6),
        int(numbers[one]),
        records.ids[one],
        parts[one],
        int(numbers[other]),
        records.ids[other],
        parts[other],
        names[one] if is_member else None,
        names[other] if is_member else None,
        measure,
    )
