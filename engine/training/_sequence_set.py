"""A set of labelled sequences as Parquet parts, and the rows of each split.

What stays in memory is small: for each row its place, 4 bytes, and its record number, 8 bytes. Sequences are read by
row group as steps ask for them (see _batches.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.errors import DataError, InputError
from engine.io.parquet import footer_metadata, read_table

SCHEMA_NAME = "sequences"
SPLITS_NAME = "splits"
KEPT = "kept"
INNER_FOLD = "inner_fold_"
RUN_PREFIX = "run:"
_SCHEMA_KEY, _VERSION_KEY = "replisome.schema", "replisome.schema_version"
_READ_VERSION = "1"
_RESTORE = "restore the file, or make the set anew"
Ids = NDArray[np.int64]
Rows = NDArray[np.int32]


@dataclass(frozen=True)
class SequenceSet:
    """Attributes:
    path: as it was named.
    parts: the Parquet files, in order.
    digest: sha256; of a finished run its manifest's, else over the parts' bytes.
    """

    path: str
    parts: tuple[str, ...]
    digest: str


@dataclass(frozen=True)
class Group:
    """The rows of one row group that belong to a split.

    Attributes:
        part: the file.
        row_group: its number in the file.
        rows: (N,) places in the row group, ascending.
        records: (N,) record numbers.
        longest: letters of the longest sequence among them.
    """

    part: str
    row_group: int
    rows: Rows
    records: Ids
    longest: int


Split = tuple[Group, ...]


def open_set(path: str) -> SequenceSet:
    """A finished run's folder (also as run:FOLDER), a folder of Parquet parts, or one Parquet file.

    Raises:
        InputError: nothing there, an unfinished run, another schema.
    """
    place = Path(path.removeprefix(RUN_PREFIX)).expanduser().absolute()
    if place.is_file():
        parts = [place]
    elif (place / "run.json").is_file() and not (place / "manifest.json").is_file():
        raise InputError("the run that makes this set is not finished", where=str(place), fix="finish it first")
    else:
        parts = sorted((place / "data").rglob("*.parquet")) or sorted(place.glob("*.parquet"))
    if not parts:
        what = "holds no Parquet parts" if place.is_dir() else "is not there"
        raise InputError(f"the sequence set {what}", where=str(place), fix="give the output of an ingest run")
    for part in parts:
        _check_schema(part, SCHEMA_NAME)
    return SequenceSet(path, tuple(map(str, parts)), _digest(place, parts))


def _digest(place: Path, parts: Sequence[Path]) -> str:
    manifest = place / "manifest.json"
    if manifest.is_file():
        try:
            return str(json.loads(manifest.read_bytes())["digest"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError("the manifest does not parse", where=str(manifest), fix=_RESTORE) from error
    whole = hashlib.sha256()
    for part in parts:
        with part.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()


def _check_schema(part: Path, wanted: str) -> dict[str, str]:
    footer = footer_metadata(part)
    name, version = footer.get(_SCHEMA_KEY, "none"), footer.get(_VERSION_KEY, "none")
    if (name, version) != (wanted, _READ_VERSION):
        raise InputError(
            f"holds a table of schema {name!r} version {version}, wanted is {wanted!r} version {_READ_VERSION}",
            where=str(part),
            fix="give a table of that schema, or make it anew with this version",
        )
    return footer


@dataclass(frozen=True)
class SplitTable:
    """A split file: the split of every record.

    Attributes:
        records: (N,) ascending.
        names: (N,) split of each.
        folds: (N,), -1 where there is none.
        digest: sha256 of the file.
    inner: for each fold that has inner ones: (N,) the inner fold of each, -1 where there is none.
    """

    records: Ids
    names: NDArray[np.str_]
    folds: Rows
    digest: str
    inner: Mapping[int, Rows] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str, data: SequenceSet) -> SplitTable:
        """Raises InputError: unreadable, another schema, a record twice, or made for another data set."""
        place = Path(path).expanduser().absolute()
        if not place.is_file():
            raise InputError("the split file is not there", where=str(place), fix="check the path")
        footer = _check_schema(place, SPLITS_NAME)
        if footer.get("data_digest", data.digest) != data.digest:
            raise InputError(
                f"was made for a set with digest {footer['data_digest'][:12]}..., this one has {data.digest[:12]}...",
                where=str(place),
                fix="split this set",
            )
        table = read_table(place)
        records = table["record"].to_numpy().astype(np.int64)
        order = np.argsort(records, kind="stable")
        if len(records) and (np.diff(records[order]) == 0).any():
            twice = int(records[order][:-1][np.diff(records[order]) == 0][0])
            raise InputError(f"record {twice} stands twice in the split file", where=str(place), fix="split anew")
        folds = _folds(table, "fold")[order] if "fold" in table.column_names else np.full(len(records), -1, np.int32)
        nested = [name for name in table.column_names if name.startswith(INNER_FOLD)]
        inner = {int(name.removeprefix(INNER_FOLD)): _folds(table, name)[order] for name in nested}
        names = np.array(table["split"].to_pylist(), dtype=np.str_)
        digest = hashlib.sha256(place.read_bytes()).hexdigest()
        return cls(records[order], names[order], folds, digest, inner)

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
                where="splits",
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
            raise InputError(what, where="splits", fix="make it with --inner-folds")
        is_chosen = self.inner[fold][places] == inner_fold
        inside = np.where(in_fold, "test", np.where(is_chosen, "validation", "train"))
        return np.where(in_training, inside, "unused")


def _folds(table: pa.Table, name: str) -> Rows:
    folds: Rows = table[name].fill_null(-1).to_numpy().astype(np.int32)
    return folds


def index_splits(
    data: SequenceSet, table: SplitTable, *, fold: int | None = None, inner_fold: int | None = None
) -> Mapping[str, Split]:
    """The rows of "train", "validation" and "test", reading the small columns of every part once.

    Raises:
        InputError: a record without a split.
        DataError: a part does not decode, or holds an empty sequence.
    """
    found: dict[str, list[Group]] = {"train": [], "validation": [], "test": []}
    for part in data.parts:
        for number, columns in enumerate(row_groups(part, ["record", "state", "length"])):
            kept = np.flatnonzero(np.asarray(columns["state"].to_pylist()) == KEPT).astype(np.int32)
            records = columns["record"].to_numpy().astype(np.int64)[kept]
            lengths = columns["length"].to_numpy(zero_copy_only=False)[kept]
            if len(kept) == 0:
                continue
            _refuse_empty(part, records, lengths)
            names = table.of(records, fold=fold, inner_fold=inner_fold, where=part)
            for split, groups in found.items():
                mine = names == split
                if mine.any():
                    groups.append(Group(part, number, kept[mine], records[mine], int(lengths[mine].max())))
    return {split: tuple(groups) for split, groups in found.items()}


def _refuse_empty(part: str, records: Ids, lengths: NDArray[np.int32]) -> None:
    if (lengths < 1).any():
        record = int(records[lengths < 1][0])
        raise DataError(f"record {record} is an empty sequence", where=part, fix="reject it when the set is made")


def row_groups(part: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The columns of every row group, one at a time."""
    with decoding(part), pq.ParquetFile(part, page_checksum_verification=True) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number, columns=list(columns), use_threads=False)


def read_group(group: Group, columns: Sequence[str]) -> pa.Table:
    """The columns of a group's own rows."""
    with decoding(group.part), pq.ParquetFile(group.part, page_checksum_verification=True) as file:
        table = file.read_row_group(group.row_group, columns=list(columns), use_threads=False)
        return table.take(pa.array(group.rows)).combine_chunks()


@contextmanager
def decoding(part: str) -> Iterator[None]:
    """Turn what a damaged or foreign part makes the reader raise into a DataError that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, KeyError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"the part does not decode ({first})", where=part, fix=_RESTORE) from error
