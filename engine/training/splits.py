"""Splits and folds of a set of sequences: who trains, who validates, who tests; and what leaks between them.

A split is a file that all trials share. Records that belong together (a gene, a family, a contig, near duplicates) are
units that are never parted. Shares are met as nearly as whole units allow, by class where asked; which unit goes where
follows from the seed and the units alone, not from the number of workers or the order in which anything arrives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import InputError
from engine.genome.minhash import Components, Likeness, near_duplicates
from engine.io import parquet
from engine.training._members import MemberLikeness, join_held
from engine.training._mmseqs import COVERAGE, mmseqs_clusters, mmseqs_version
from engine.training._sequence_set import KEPT, SequenceSet
from engine.training._split_table import INNER_FOLD, SPLIT_NAMES, DataSet, read_splits
from schemas import tables

Ints = npt.NDArray[np.int64]
Method = Literal["random", "group", "contig", "similarity"]
Clusters = Literal["minhash", "mmseqs2"]

SCHEMA_NAME = "splits"
# Classes beyond this number are names, not classes.
_MOST_CLASSES = 1000
_PASSES = 4
_SHOWN = 4
_MOST_MOVED = 200_000
_COLUMNS = ("record", "id", "label", "contig", "state")
_TEXTS = ("sequence", "second", "second_id")


@dataclass(frozen=True)
class Records:
    """The kept records of a set, held in memory: N rows.

    Attributes:
        record: int64 (N,) ordinals, ascending.
        ids: (N,) names.
        sequences: (N,) upper-case ASCII; empty where they were not asked for.
        labels, groups, contigs: (N,) or None each.
        are_letters: whether `sequences` are; else they are digests of images, which are equal or not.
        seconds: (N,) other members of pairs; None each where records are no pairs, empty where they were not asked for.
        second_ids: (N,) their names, where the members were asked for.
    """

    record: Ints
    ids: list[str | None]
    sequences: list[bytes]
    labels: list[str | None]
    groups: list[str | None]
    contigs: list[str | None]
    are_letters: bool = True
    seconds: list[str | None] = field(default_factory=list)
    second_ids: list[str | None] = field(default_factory=list)

    @property
    def are_pairs(self) -> bool:
        """Whether any has another member."""
        return any(one is not None for one in self.seconds)

    def __len__(self) -> int:
        return len(self.record)

    def of(self, places: Sequence[int]) -> Records:
        """Those at some places."""

        def some(values: list[Any]) -> list[Any]:
            return [values[place] for place in places] if values else []

        return Records(
            self.record[list(places)],
            some(self.ids),
            some(self.sequences),
            some(self.labels),
            some(self.groups),
            some(self.contigs),
            self.are_letters,
            some(self.seconds),
            some(self.second_ids),
        )


def load_records(data: SequenceSet, *, sequences: bool, group_by: str = "group") -> Records:
    """The kept records of a set, `group_by` being the column that holds the groups.

    Raises:
        InputError: there is none.
        DataError: a part does not decode.
    """
    wanted = list(dict.fromkeys([*_COLUMNS, group_by, *(_TEXTS if sequences else ())]))
    found: dict[str, list[object]] = {name: [] for name in wanted}
    for part in data.parts:
        table = parquet.read_table(part, wanted)
        kept = table.filter(pc.equal(table["state"], KEPT))
        for name in wanted:
            found[name] += kept[name].to_pylist()
    if not found["record"]:
        raise InputError("the set has no kept record", where=data.path, fix="look at its rejects")
    order = np.argsort(np.array(found["record"], np.int64), kind="stable").tolist()
    columns: dict[str, list[Any]] = {name: [values[i] for i in order] for name, values in found.items()}
    return Records(
        record=np.array(columns["record"], np.int64),
        ids=columns["id"],
        sequences=[str(text).encode() for text in columns.get("sequence", [])],
        labels=columns["label"],
        groups=columns[group_by],
        contigs=columns["contig"],
        seconds=columns.get("second", []),
        second_ids=columns.get("second_id", []) if sequences else [],
    )


@dataclass(frozen=True)
class SplitPlan:
    """How to part a set.

    Attributes:
        method: what is never parted: nothing, a group, a contig, or a cluster of near duplicates.
        group_by: the column that the groups are of.
        validation, test: shares of the records; the rest trains.
        folds: number of folds over what is not tested; 0 makes none.
        inner_folds: number of folds within what trains in each fold; 0 makes none.
        stratify: meet the shares within each class.
        allow_empty_classes: accept a part in which a class has no record.
        seed: any whole number.
        likeness: what near duplicates are.
        clusters: for method similarity: what finds them.
        identity: for clusters by MMseqs2: least identity.
        members: of pairs by method similarity: which members are clustered, and how.
        validation_names, test_names: for methods group and contig: those that are held out, by name.
    """

    method: Method = "random"
    group_by: str = "group"
    validation: float = 0.1
    test: float = 0.1
    folds: int = 0
    inner_folds: int = 0
    stratify: bool = False
    allow_empty_classes: bool = False
    seed: int = 0
    likeness: Likeness = field(default_factory=Likeness)
    clusters: Clusters = "minhash"
    identity: float = 0.5
    members: MemberLikeness | None = None
    validation_names: tuple[str, ...] = ()
    test_names: tuple[str, ...] = ()

    def facts(self) -> dict[str, str]:
        """What the split file's footer tells of it."""
        method = "stratified" if self.stratify and self.method == "random" else self.method
        told = {
            "method": method,
            "seed": str(self.seed),
            "validation": repr(self.validation),
            "test": repr(self.test),
            "folds": str(self.folds),
            "stratified": str(self.stratify).lower(),
        }
        if self.group_by != "group":
            told |= {"group_by": self.group_by}
        if self.inner_folds:
            told |= {"inner_folds": str(self.inner_folds)}
        if self.method == "similarity":
            told |= {"clusters": self.members.finder if self.members else self.clusters} | self._cluster_facts()
        if self.validation_names or self.test_names:
            told |= {
                f"validation_{self.method}s": ",".join(self.validation_names),
                f"test_{self.method}s": ",".join(self.test_names),
            }
        return told

    def _cluster_facts(self) -> dict[str, str]:
        if self.members is not None:
            return self.members.facts()
        if self.clusters == "mmseqs2":
            return {"identity": repr(self.identity), "coverage": repr(COVERAGE), "mmseqs2_version": mmseqs_version()}
        likeness = self.likeness
        strands = str(likeness.both_strands).lower()
        return {"k": str(likeness.k), "threshold": repr(likeness.threshold), "both_strands": strands}


def split_table(records: Records, plan: SplitPlan, *, where: str = "") -> pa.Table:
    """Rows of schemas.tables.SPLITS, by record; of nested folds a column inner_fold_<fold> (int32) each follows.

    Fold f holds out the rows whose fold is f. Where there are inner folds, inner_fold_f says which of them holds a row
    out while fold f is held out too; it is null in the rows of fold f.

    Args:
        records: the kept records.
        plan: how to part them.
        where: the set, for messages.

    Raises:
        InputError: no column to group by, a class too small to be in every part, or contigs that are not there.
    """
    units = _units(records, plan, where)
    classes = _codes(records.labels if plan.stratify else [None] * len(records))[0]
    if plan.stratify and all(label is None for label in records.labels):
        raise InputError("no record has a label to stratify by", where=where, fix="leave stratify out")
    if plan.validation_names or plan.test_names:
        parts = _by_name(records, plan, where)
    else:
        shares = (1.0 - plan.validation - plan.test, plan.validation, plan.test)
        parts = assign(units, classes, shares, seed=plan.seed, salt="split")
    folds = np.full(len(records), -1, np.int64)
    if plan.folds:
        inside = parts != SPLIT_NAMES.index("test")
        parts[inside] = 0
        equal = (1.0 / plan.folds,) * plan.folds
        folds[inside] = assign(units[inside], classes[inside], equal, seed=plan.seed, salt="fold")
    inner = {f"{INNER_FOLD}{fold}": _inner(units, classes, folds, plan, fold=fold) for fold in _inner_of(plan)}
    _check_not_empty(parts, folds, plan, where, num_units=len(np.unique(units)))
    if not plan.allow_empty_classes:
        for kind, numbers in {"split": parts, "fold": folds, **inner}.items():
            _check_classes(numbers, kind, records.labels, where)
    columns = [
        pa.array(records.record),
        pa.array(records.ids, pa.string()),
        pa.array(np.array(SPLIT_NAMES)[parts], pa.string()),
        _fold_column(folds),
        _unit_column(records, units, plan),
    ]
    table = pa.Table.from_arrays(columns, schema=tables.SPLITS)
    for name, numbers in inner.items():
        table = table.append_column(name, _fold_column(numbers))
    return table


def _inner_of(plan: SplitPlan) -> range:
    return range(plan.folds if plan.inner_folds else 0)


def _inner(units: Ints, classes: Ints, folds: Ints, plan: SplitPlan, *, fold: int) -> Ints:
    """Inner fold of what trains while `fold` is held out; -1 elsewhere."""
    found = np.full(len(folds), -1, np.int64)
    inside = (folds >= 0) & (folds != fold)
    equal = (1.0 / plan.inner_folds,) * plan.inner_folds
    found[inside] = assign(units[inside], classes[inside], equal, seed=plan.seed, salt=f"inner {fold}")
    return found


def _fold_column(numbers: Ints) -> pa.Array:
    return pa.array(numbers.astype(np.int32), mask=numbers < 0)


def _unit_column(records: Records, units: Ints, plan: SplitPlan) -> pa.Array:
    """Of each row the first record of its unit; null where records are parted one by one."""
    if plan.method == "random":
        return pa.nulls(len(records), pa.int64())
    _, first, members = np.unique(units, return_index=True, return_inverse=True)
    return pa.array(records.record[first[members]])


def write_split(table: pa.Table, path: Path, *, plan: SplitPlan, data_digest: str) -> None:
    """Write a split file; equal splits of equal sets give equal bytes."""
    footer = {**plan.facts(), "data_digest": data_digest}
    parquet.write_table(table, path, schema_name=SCHEMA_NAME, version=tables.SPLITS_VERSION, metadata=footer)


def read_split(path: str, data: DataSet) -> pa.Table:
    """The rows of a split file, by record.

    Raises:
        InputError: it is not there, is no split, or was made of another set; see `read_splits`.
        DataError: it is damaged.
    """
    return read_splits(path, data.digest)[0].sort_by("record")


def _units(records: Records, plan: SplitPlan, where: str) -> Ints:
    """int64 (N,): records of one number stay together."""
    if plan.method == "random":
        return np.arange(len(records), dtype=np.int64)
    if plan.method == "similarity":
        if not records.are_letters:
            what = "images are not parted by similarity"
            raise InputError(what, where=where, fix="part them by group: donor, plate, well or slide")
        if plan.members is not None:
            return plan.members.clusters(members_of(records, plan.members.column, where=where), seed=plan.seed)
        return _clusters(records.sequences, plan)
    values = records.groups if plan.method == "group" else records.contigs
    if all(value is None for value in values):
        fix = "ingest it with that column, or choose another method"
        what = plan.group_by if plan.method == "group" else plan.method
        raise InputError(f"no record of the set has a {what}", where=where, fix=fix)
    # A record without one belongs with nobody.
    return _codes([f"\0{i}" if value is None else value for i, value in enumerate(values)])[0]


def _clusters(sequences: Sequence[bytes], plan: SplitPlan) -> Ints:
    """Near duplicates, and what lies in a longer one, stay together."""
    if plan.clusters == "mmseqs2":
        found = Components(len(sequences))
        for place, first in enumerate(mmseqs_clusters(sequences, identity=plan.identity).tolist()):
            found.join(place, first)
    else:
        found = near_duplicates(sequences, plan.likeness, seed=plan.seed)
    join_held(sequences, plan.likeness, found)
    return found.roots()


def members_of(records: Records, column: str, *, where: str) -> list[bytes]:
    """The members of pairs that are clustered or compared: the first ones (id), or the others (second_id).

    Raises:
        InputError: records are no pairs, or one has no other member.
    """
    if column == "id":
        return list(records.sequences)
    if not records.are_pairs:
        raise InputError("the records are no pairs", where=where, fix="leave group_by out")
    alone = next((i for i, one in enumerate(records.seconds) if one is None), None)
    if alone is not None:
        what = f"record {int(records.record[alone])} has no other member"
        raise InputError(what, where=where, fix="part by group, or ingest pairs alone")
    return [str(one).encode() for one in records.seconds]


def _codes(values: Sequence[str | None]) -> tuple[Ints, list[str | None]]:
    """int64 (N,) and the distinct values, numbered as they first appear."""
    known: dict[str | None, int] = {}
    codes = [known.setdefault(value, len(known)) for value in values]
    return np.array(codes, np.int64), list(known)


def assign(units: Ints, classes: Ints, shares: Sequence[float], *, seed: int, salt: str) -> Ints:
    """The part of each record: int64 (N,), below the number of shares.

    Units of one record meet every class's share within one record. Larger units go one by one, the larger ones first
    and those of like size in an order that the seed decides, to the part where they leave the least sum of
    (records - wanted)^2 / wanted over parts and classes; then each is moved once more where that makes the sum less.

    Args:
        units: (N,) records of one number stay together.
        classes: (N,) class numbers, 0 to C - 1; all 0 where nothing is stratified.
        shares: of the records, summing to 1; a part of share 0 stays empty.
        seed, salt: decide the order.
    """
    names, members = np.unique(units, return_inverse=True)
    sizes = np.bincount(members)
    if (sizes == 1).all():
        return _assign_singles(classes, shares, order_of=_order(len(units), seed, salt))
    counts = np.zeros((len(names), int(classes.max(initial=0)) + 1), np.int64)
    np.add.at(counts, (members, classes), 1)
    rank = np.argsort(_order(len(names), seed, salt))
    order = np.lexsort((rank, -np.frexp(sizes)[1])).tolist()
    parts = _Parts(counts, shares)
    part_of = np.full(len(names), -1, np.int64)
    for _ in range(1 + _PASSES * (len(names) <= _MOST_MOVED)):
        before = part_of.copy()
        for unit in order:
            part_of[unit] = parts.place(counts[unit], int(part_of[unit]))
        if (before == part_of).all():
            break
    found: Ints = part_of[members]
    return found


class _Parts:
    """What parts hold and want: P parts, C classes.

    Args:
        counts: (units, C) records of each unit.
        shares: (P,) of the records.
    """

    def __init__(self, counts: Ints, shares: Sequence[float]) -> None:
        allowed = np.array(shares) > 0
        self._wanted = np.outer(np.array(shares), counts.sum(0))
        self._weights = 1.0 / np.maximum(self._wanted, 1e-9)
        self._filled = np.zeros_like(self._wanted)
        self._never = np.where(allowed, 0.0, np.inf)

    def place(self, unit: Ints, part: int) -> int:
        """The best part for a unit, counted there from now on; `part` is where it is, -1 where it is in none."""
        if part >= 0:
            self._filled[part] -= unit
        costs = (unit * (unit + 2.0 * (self._filled - self._wanted)) * self._weights).sum(1) + self._never
        best = int(np.argmin(costs))
        if part >= 0 and costs[part] <= costs[best] + 1e-9:
            best = part
        self._filled[best] += unit
        return best


def _assign_singles(classes: Ints, shares: Sequence[float], *, order_of: Ints) -> Ints:
    """Largest remainder within each class; leftovers of the classes even out over the parts."""
    parts = np.zeros(len(classes), np.int64)
    owed = np.zeros(len(shares))
    shuffled = classes[order_of]
    for one in np.unique(classes).tolist():
        rows = order_of[shuffled == one]
        exact = np.array(shares) * len(rows)
        sizes = np.floor(exact + 1e-9).astype(np.int64)
        owed += exact - sizes
        can_grow = exact - sizes > 1e-9
        for _ in range(len(rows) - int(sizes.sum())):
            part = int(np.argmax(np.where(can_grow, owed, -np.inf)))
            sizes[part] += 1
            owed[part] -= 1.0
            can_grow[part] = False
        parts[rows] = np.repeat(np.arange(len(shares)), sizes)
    return parts


def _order(num: int, seed: int, salt: str) -> Ints:
    """A permutation (num,) that only the seed, the salt and the number decide."""
    key = hashlib.blake2b(f"{salt} {seed}".encode(), digest_size=8).digest()
    numbers = np.arange(num, dtype=np.uint64) + np.frombuffer(key, "<u8")[0]
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        numbers = (numbers ^ (numbers >> np.uint64(shift))) * np.uint64(factor)
    return np.argsort(numbers ^ (numbers >> np.uint64(31)), kind="stable")


def _by_name(records: Records, plan: SplitPlan, where: str) -> Ints:
    values = records.groups if plan.method == "group" else records.contigs
    known = set(values)
    asked = dict.fromkeys(plan.validation_names, 1) | dict.fromkeys(plan.test_names, 2)
    absent = [name for name in asked if name not in known]
    if absent:
        have = ", ".join(sorted(name for name in known if name)[:12])
        raise InputError(f"the set has no {plan.method} {absent[0]!r}", where=where, fix=f"it has {have}")
    return np.array([asked.get(name, 0) if name is not None else 0 for name in values], np.int64)


def _check_not_empty(parts: Ints, folds: Ints, plan: SplitPlan, where: str, *, num_units: int) -> None:
    wanted = {"train": True, "validation": plan.validation > 0 and not plan.folds, "test": plan.test > 0}
    if plan.validation_names or plan.test_names:
        wanted = {"train": True, "validation": False, "test": False}
    empty = [name for i, name in enumerate(SPLIT_NAMES) if wanted[name] and not (parts == i).any()]
    empty += [f"fold {i}" for i in range(plan.folds) if not (folds == i).any()]
    if empty:
        fix = "ask for larger shares or fewer folds, or part by something finer"
        named = ", ".join(empty[:_SHOWN]) + (f" and {len(empty) - _SHOWN} more" if len(empty) > _SHOWN else "")
        told = "" if plan.method == "random" else f" (the set has {_counted(num_units, plan.method)})"
        raise InputError(f"no record would be in {named}{told}", where=where, fix=fix)


def _counted(num: int, method: str) -> str:
    one, many = {"similarity": ("cluster", "clusters of like sequences")}.get(method, (method, f"{method}s"))
    return f"one {one}" if num == 1 else f"{num:,} {many}"


def _check_classes(numbers: Ints, kind: str, labels: Sequence[str | None], where: str) -> None:
    """A class that is missing from a part makes its figures there meaningless."""
    codes, names = _codes(labels)
    if len(names) > _MOST_CLASSES:
        return
    inside = numbers >= 0
    for number in np.unique(numbers[inside]).tolist():
        there = np.unique(codes[numbers == number])
        missing = [one for one in np.setdiff1d(np.unique(codes[inside]), there).tolist() if names[one] is not None]
        if missing:
            place = SPLIT_NAMES[number] if kind == "split" else f"{kind.replace('_', ' ')} {number}"
            num = int((codes[inside] == missing[0]).sum())
            raise InputError(
                f"class {names[missing[0]]!r} ({num:,} {'record' if num == 1 else 'records'}) has none in {place}",
                where=where,
                fix="stratify, ask for larger shares or fewer folds, join small classes, or allow empty classes",
            )


def counts_of(table: pa.Table) -> Mapping[str, int]:
    """Records of each split, and of each fold where there are any."""
    parts = part_names(table)
    return {name: parts.count(name) for name in sorted(set(parts), key=_place)}


def _place(name: str) -> tuple[int, int]:
    if name in SPLIT_NAMES:
        return 3 * (name == "test") + SPLIT_NAMES.index(name), 0
    return 2, int(name.removeprefix("fold "))


def part_names(table: pa.Table) -> list[str]:
    """The part of each row: its fold where it has one, else its split."""
    rows = zip(table["split"].to_pylist(), table["fold"].to_pylist(), strict=True)
    return [split if fold is None or split == "test" else f"fold {fold}" for split, fold in rows]
