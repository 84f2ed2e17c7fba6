"""A split file: the split of every record of a data set, whatever kind of sample it holds; and the rows of a split."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.errors import InputError
from engine.io.parquet import footer_metadata, read_table

SPLITS_NAME = "splits"
SPLIT_NAMES = ("train", "validation", "test")
UNUSED = "unused"
"""Of records that a split leaves out."""
INNER_FOLD = "inner_fold_"
UNIT = "unit"
_READ_VERSIONS = ("1", "2")
_SCHEMA_KEY, _VERSION_KEY = "replisome.schema", "replisome.schema_version"
Ids = NDArray[np.int64]
Rows = NDArray[np.int32]


class DataSet(Protocol):
    """An opened set of samples."""

    @property
    def path(self) -> str:
        """As it was named."""
        ...

    @property
    def digest(self) -> str:
        """Of everything in it."""
        ...


@dataclass(frozen=True)
class Group:
    """The rows of a split that are read together: those of one row group, or of one run of images.

    Attributes:
        part: the file, or the array.
        row_group: its number in the file, or the run's in the array.
        rows: (N,) places in it, ascending.
        records: (N,) record numbers.
        longest: letters of the longest sequence among them, or pixels of the largest image.
        lengths: (N,) letters of each; None where samples have no length.
    """

    part: str
    row_group: int
    rows: Rows
    records: Ids
    longest: int
    lengths: Rows | None = None


Split = tuple[Group, ...]


def check_schema(part: Path, wanted: str, wanted_version: str) -> dict[str, str]:
    """The footer's metadata of a Parquet file that holds a table of this schema.

    Raises:
        InputError: it holds another, or another version of it.
    """
    footer = footer_metadata(part)
    name, version = footer.get(_SCHEMA_KEY, "none"), footer.get(_VERSION_KEY, "none")
    if (name, version) != (wanted, wanted_version):
        raise InputError(
            f"holds a table of schema {name!r} version {version}, wanted is {wanted!r} version {wanted_version}",
            where=str(part),
            fix="give a table of that schema, or make it anew with this version",
        )
    return footer


_KINDS = {
    "record": ("whole numbers", pa.types.is_integer),
    "split": ("text", lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind)),
    "fold": ("whole numbers", pa.types.is_integer),
}
_ANEW = "make it anew with split-sequences"


def read_splits(path: str, digest: str) -> tuple[pa.Table, dict[str, str]]:
    """The rows of a split file as they stand, and its facts.

    Args:
        path: of the file.
        digest: of the set that it must be of.

    Raises:
        InputError: it is not there, is no split, of a version that is not read, made of another set, or its rows are
            no split: a name that is none, a record twice or without a number, a column that is not there.
        DataError: it is damaged.
    """
    place = Path(path).expanduser()
    if not place.is_file():
        raise InputError("the split file is not there", where=path, fix="check the path")
    footer = footer_metadata(place)
    if footer.get(_SCHEMA_KEY) != SPLITS_NAME:
        raise InputError("it is no split file", where=path, fix="give one that split-sequences made")
    version = footer.get(_VERSION_KEY, "none")
    if version not in _READ_VERSIONS:
        what = f"it is a split file of version {version}, read are {' and '.join(_READ_VERSIONS)}"
        raise InputError(what, where=path, fix=f"{_ANEW}, or take the replisome that made it")
    made_of = footer.get("data_digest", digest)
    if made_of != digest:
        what = f"it was made of the set {made_of[:12]}..., and this one is {digest[:12]}..."
        raise InputError(what, where=path, fix="give the set it was made of, or split this one")
    table = read_table(place, sealed=True)
    _check_rows(table, path)
    return table, footer


def _check_rows(table: pa.Table, path: str) -> None:
    for name, (wanted, is_wanted) in _KINDS.items():
        if name not in table.column_names or not is_wanted(table.schema.field(name).type):
            raise InputError(f"it has no column {name!r} of {wanted}", where=path, fix=_ANEW)
    if not table.num_rows:
        raise InputError("it has no row", where=path, fix=_ANEW)
    for name in ("record", "split"):
        if table[name].null_count:
            row = pc.index(pc.is_null(table[name]), True).as_py()
            raise InputError(f"row {row} has no {name}", where=path, fix=_ANEW)
    names = (*SPLIT_NAMES, UNUSED)
    odd = pc.unique(table["split"].filter(pc.invert(pc.is_in(table["split"], pa.array(names, pa.string())))))
    if len(odd):
        known = ", ".join(names)
        raise InputError(f"it has the split {odd[0].as_py()!r}", where=path, fix=f"name splits {known}, or {_ANEW}")
    for name in ("fold", *(name for name in table.column_names if name.startswith(INNER_FOLD))):
        least = pc.min(table[name]).as_py()
        if least is not None and least < 0:
            raise InputError(f"it has the {name} {least}", where=path, fix=f"number folds from 0 on, or {_ANEW}")
    counts = pc.value_counts(table["record"])
    twice = counts.filter(pc.greater(pc.struct_field(counts, "counts"), 1))
    if len(twice):
        record = twice[0]["values"].as_py()
        raise InputError(f"record {record} stands twice in the split file", where=path, fix=_ANEW)


@dataclass(frozen=True)
class SplitTable:
    """A split file: the split of every record.

    Attributes:
        records: (N,) ascending.
        names: (N,) split of each.
        folds: (N,), -1 where there is none.
        digest: sha256 of the file.
        inner: for each fold that has inner ones: (N,) the inner fold of each, -1 where there is none.
        grouped_by: the column of the set whose values stay together; empty where there is none, or `units` tells.
        units: (N,) the first record of what each one is never parted from; None where the file does not keep it.
        method: how it was made; empty where the file does not say.
        path: of the file, for messages.
        column: of the set, whose values are never parted; empty where none is.
    """

    records: Ids
    names: NDArray[np.str_]
    folds: Rows
    digest: str
    inner: Mapping[int, Rows] = field(default_factory=dict)
    grouped_by: str = ""
    units: Ids | None = None
    method: str = ""
    path: str = "splits"
    column: str = ""

    @classmethod
    def load(cls, path: str, data: DataSet) -> SplitTable:
        """Raises InputError and DataError as `read_splits`."""
        place = Path(path).expanduser().absolute()
        table, footer = read_splits(str(place), data.digest)
        records = table["record"].to_numpy().astype(np.int64)
        order = np.argsort(records, kind="stable")
        folds = _folds(table, "fold")[order]
        nested = [name for name in table.column_names if name.startswith(INNER_FOLD)]
        inner = {int(name.removeprefix(INNER_FOLD)): _folds(table, name)[order] for name in nested}
        names = np.array(table["split"].to_pylist(), dtype=np.str_)
        digest = hashlib.sha256(place.read_bytes()).hexdigest()
        method = footer.get("method", "")
        units = _units(table)
        column = _column_of(method, footer)
        grouped_by = "" if units is not None else column
        units = None if units is None else units[order]
        return cls(records[order], names[order], folds, digest, inner, grouped_by, units, method, str(place), column)

    @property
    def keeps_together(self) -> bool:
        """Whether rows that are never parted are known: by the file, or by a column of the set."""
        return self.units is not None or bool(self.grouped_by)

    def units_of(self, records: Ids) -> list[str | None]:
        """What each record is never parted from, as text; None each where the file does not keep it."""
        if self.units is None:
            return [None] * len(records)
        return [str(one) for one in self.units[np.searchsorted(self.records, records)].tolist()]

    def of(self, records: Ids, *, fold: int | None, inner_fold: int | None = None, where: str) -> NDArray[np.str_]:
        """Split of each record; with a fold, that fold of the training rows is "validation" and no other row is.

        With an inner fold the fold is "test", the inner fold "validation", and the file's own test rows are "unused".

        Raises:
            InputError: a record that the split file does not know.
        """
        places = np.searchsorted(self.records, records)
        known = (places < len(self.records)) & (self.records[np.minimum(places, len(self.records) - 1)] == records)
        if not known.all():
            raise InputError(
                f"record {int(records[~known][0])} of {where} has no row in the split file",
                where=self.path,
                fix="split this set anew",
            )
        names = self.names[places].astype("U10")
        if fold is None:
            return names
        in_training = (names == "train") | (names == "validation")
        in_fold = self.folds[places] == fold
        if inner_fold is None:
            return np.where(in_training, np.where(in_fold, "validation", "train"), names)
        if fold not in self.inner:
            what = f"the split file has no inner folds of fold {fold}"
            raise InputError(what, where=self.path, fix="make it with --inner-folds")
        is_chosen = self.inner[fold][places] == inner_fold
        inside = np.where(in_fold, "test", np.where(is_chosen, "validation", "train"))
        return np.where(in_training, inside, UNUSED)


def _units(table: pa.Table) -> Ids | None:
    """Rows without a unit stand alone."""
    if UNIT not in table.column_names or table[UNIT].null_count == table.num_rows:
        return None
    found: Ids = pc.coalesce(table[UNIT], table["record"]).to_numpy().astype(np.int64)
    return found


def _column_of(method: str, footer: Mapping[str, str]) -> str:
    """The column of the set that it was parted by."""
    return {"group": footer.get("group_by", "group"), "contig": "contig"}.get(method, "")


def _folds(table: pa.Table, name: str) -> Rows:
    folds: Rows = table[name].fill_null(-1).to_numpy().astype(np.int32)
    return folds
