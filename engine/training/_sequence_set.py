"""A set of labelled sequences as Parquet parts, and the rows of each split.

What stays in memory is small: for each row its place and its length, 4 bytes each, and its record number, 8 bytes.
Sequences are read by row group as steps ask for them (see _batches.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.errors import DataError, InputError
from engine.training._split_table import SPLIT_NAMES, Group, Split, SplitTable, check_schema
from schemas.tables import SEQUENCES_VERSION

SCHEMA_NAME = "sequences"
KEPT = "kept"
RUN_PREFIX = "run:"
_READ_VERSION = str(SEQUENCES_VERSION)
_RESTORE = "restore the file, or make the set anew"
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class SequenceSet:
    """Attributes:
    path: as it was named.
    parts: the Parquet files, in order.
    digest: sha256; of a finished run its manifest's, else over the parts' bytes.
    facts: what the manifest of a finished run tells of it, such as its alphabet.
    """

    path: str
    parts: tuple[str, ...]
    digest: str
    facts: Mapping[str, Any] = field(default_factory=dict)


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
        check_schema(part, SCHEMA_NAME, _READ_VERSION)
    digest, facts = _told(place, parts)
    return SequenceSet(path, tuple(map(str, parts)), digest, facts)


def _told(place: Path, parts: Sequence[Path]) -> tuple[str, Mapping[str, Any]]:
    """Digest and facts."""
    manifest = place / "manifest.json"
    if manifest.is_file():
        try:
            told = json.loads(manifest.read_bytes())
            return str(told["digest"]), dict(told.get("facts", {}))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError("the manifest does not parse", where=str(manifest), fix=_RESTORE) from error
    whole = hashlib.sha256()
    for part in parts:
        with part.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest(), {}


def index_splits(
    data: SequenceSet, table: SplitTable, *, fold: int | None = None, inner_fold: int | None = None
) -> Mapping[str, Split]:
    """The rows of "train", "validation" and "test", reading the small columns of every part once.

    Raises:
        InputError: a record without a split.
        DataError: a part does not decode, or holds an empty sequence.
    """
    found: dict[str, list[Group]] = {name: [] for name in SPLIT_NAMES}
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
                    longest, own = int(lengths[mine].max()), lengths[mine].astype(np.int32)
                    groups.append(Group(part, number, kept[mine], records[mine], longest, own))
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
