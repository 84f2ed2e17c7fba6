"""One hundred single-bit flips over each kind of file of a run: `verify` sees all, our readers take none for data."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from engine.errors import DataError
from engine.runtime import layout
from engine.runtime.commit import Parts, committed_files, committed_receipts, read_checked
from engine.runtime.plan import read_plan
from engine.runtime.receipts import FileEntry
from engine.runtime.verify import verify
from engine.storage.store import Store, open_store

NUM_FLIPS = 100


def kind_of(name: str) -> str:
    """Files of one kind are written and read by the same code."""
    return name.partition("/")[0] if "/" in name else name


def kinds(output: Path) -> dict[str, list[str]]:
    """Kind to the names of its files."""
    found: dict[str, list[str]] = {}
    for path in sorted(path for path in output.rglob("*") if path.is_file()):
        name = path.relative_to(output).as_posix()
        found.setdefault(kind_of(name), []).append(name)
    return found


def check_kind(output: Path, names: list[str], *, seed: int) -> None:
    """Flip bits one at a time in files of one kind, and put them back."""
    chance = random.Random(seed)
    for _ in range(NUM_FLIPS):
        name = chance.choice(names)
        path = output / name
        data = path.read_bytes()
        bit = chance.randrange(8 * len(data))
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            problems = [problem.path for problem in verify(str(output)).problems]
            assert name in problems, f"bit {bit} of {name} was not seen"
            _check_readers(open_store(str(output)), name)
        finally:
            path.write_bytes(data)
    assert verify(str(output)).problems == []


def _check_readers(store: Store, name: str) -> None:
    """Whatever reader of ours takes this file must refuse it."""
    if name in (layout.MANIFEST, layout.RUN, layout.REPORT_JSON):
        with pytest.raises(DataError):
            layout.read_sealed(store, name)
        return
    if name in (layout.LOG, layout.REPORT_HTML):
        return  # text for people; no reader of ours takes it
    manifest = json.loads(store.read(layout.MANIFEST))
    if name == layout.FILES:
        with pytest.raises(DataError):
            committed_files(store, manifest)
        return
    with pytest.raises(DataError):
        _read(store, name, committed_files(store, manifest)[name], manifest)


def _read(store: Store, name: str, entry: FileEntry, manifest: dict) -> None:
    if name == layout.PLAN:
        read_plan(store, crc32c=entry.crc32c)
    elif name == layout.ALL_RECEIPTS:
        committed_receipts(store, manifest)
    elif name.startswith("data/"):
        receipts = committed_receipts(store, manifest)
        list(Parts(store, receipts).tables())
    else:
        read_checked(store, name, entry)
