"""`replisome verify`: every byte of a run against the checksums it was committed with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import DataError, InputError, ReplisomeError
from engine.io import parquet
from engine.runtime import layout
from engine.runtime.commit import committed_files
from engine.runtime.receipts import FileEntry, ReceiptBook
from engine.storage.checksums import crc32c_of_file
from engine.storage.store import Store, open_store

_SELF_CHECKED = (layout.MANIFEST, layout.FILES, layout.REPORT_JSON)


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it was committed."""

    path: str
    sentence: str


@dataclass(frozen=True)
class Verification:
    """What was found: problems, files checked, and files that belong to no run."""

    finished: bool
    num_files: int
    num_bytes: int
    problems: list[Problem]
    unlisted: list[str]


def verify(uri: str) -> Verification:
    """Check all files of a run; of an unfinished one, its published parts; or one sealed table, such as a split file.

    Raises:
        InputError: there is no run at `uri`, or the file is no table of ours.
    """
    if Path(uri).expanduser().is_file():
        return _verify_table(uri)
    store = open_store(uri)
    if not store.exists(layout.RUN) and not store.exists(layout.MANIFEST):
        raise InputError("there is no run here", where=uri, fix="give the folder that was named with -o")
    problems: list[Problem] = []
    finished = store.exists(layout.MANIFEST)
    expected = dict(_expected(store, problems) if finished else _expected_so_far(store, problems))
    total = sum(_check(store, name, entry, problems) for name, entry in sorted(expected.items()))
    known = {*expected, *_SELF_CHECKED, layout.RUN, layout.LOG, layout.LOCK}
    ours: tuple[str, ...] = (layout.CLAIMS + "/", layout.FORMER + "/", layout.RECEIPTS + "/")
    # A run that is part of this one: its own lock and former manifests.
    folders = [name.removesuffix(layout.RUN) for name in expected if name.endswith(f"/{layout.RUN}")]
    known |= {folder + layout.LOCK for folder in folders}
    ours = (*ours, *(folder + own for folder in folders for own in ours))
    unlisted = [name for name in store.list() if name not in known and not name.startswith(ours)]
    return Verification(finished, len(expected), total, problems, unlisted)


def _verify_table(path: str) -> Verification:
    """A table that stands alone has no manifest; its own seal covers every byte."""
    size = Path(path).expanduser().stat().st_size
    problems = []
    try:
        parquet.read_table(Path(path).expanduser(), sealed=True)
    except DataError as error:
        problems.append(Problem(path, error.what))
    return Verification(True, 1, size, problems, [])


def _expected(store: Store, problems: list[Problem]) -> Iterator[tuple[str, FileEntry]]:
    manifest = _sealed(store, layout.MANIFEST, problems)
    if manifest is not None:
        try:
            yield from committed_files(store, manifest).items()
        except (ReplisomeError, OSError) as error:
            problems.append(Problem(layout.FILES, _sentence(error)))
    report = _sealed(store, layout.REPORT_JSON, problems)
    if report is not None:
        for name, entry in report["sidecars"].items():
            yield name, FileEntry(entry["bytes"], entry["crc32c"], -1)


def _expected_so_far(store: Store, problems: list[Problem]) -> Iterator[tuple[str, FileEntry]]:
    run = _sealed(store, layout.RUN, problems)
    if run is not None and "plan_crc32c" in run:  # a training has no plan
        size = store.size(layout.PLAN) if store.exists(layout.PLAN) else -1
        yield layout.PLAN, FileEntry(size, run["plan_crc32c"], -1)
    book = ReceiptBook(store, owner="")
    for name, error in book.load(strict=False):
        problems.append(Problem(name, error.what))
    for receipt in book.receipts.values():
        yield from receipt.files.items()


def _sealed(store: Store, name: str, problems: list[Problem]) -> Mapping[str, Any] | None:
    try:
        return layout.read_sealed(store, name)
    except (DataError, FileNotFoundError) as error:
        problems.append(Problem(name, _sentence(error)))
        return None


def _check(store: Store, name: str, entry: FileEntry, problems: list[Problem]) -> int:
    try:
        size = store.size(name)
    except FileNotFoundError:
        problems.append(Problem(name, "the file is missing"))
        return 0
    if size != entry.bytes:
        problems.append(Problem(name, f"the file has {size:,} bytes where {entry.bytes:,} were written"))
        return size
    with store.opened(name) as path:
        if crc32c_of_file(path) != entry.crc32c:
            problems.append(Problem(name, "the file was changed after it was written (its checksum differs)"))
    return size


def _sentence(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "the file is missing"
    return error.what if isinstance(error, ReplisomeError) else str(error)
