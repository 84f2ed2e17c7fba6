"""Where an input really lies: a local path, standard input, an object store, or another run's result."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from engine.errors import InputError
from engine.runtime import layout
from engine.runtime.commit import committed_files
from engine.storage.checksums import crc32c_of_file
from engine.storage.store import LocalStore, Store, clear_errors, open_store

_RUN = "run:"


def is_run(text: str) -> bool:
    """Whether an input is named as another run's result."""
    return text.startswith(_RUN)


def local_input(text: str, store: Store, *, result: str = "", any_kind: bool = False) -> str:
    """A local path that holds the input.

    Args:
        text: path, "-" for standard input (spooled), an object-store address (fetched), or `run:OUTPUT`.
        store: the run's output; spooled and fetched inputs lie in its scratch.
        result: which result file `run:` means.
        any_kind: standard input may be anything and is kept as it is; else it holds variants.

    Raises:
        InputError: not there, or the run it names is not finished or was changed.
    """
    if is_run(text):
        return str(_result_of(text.removeprefix(_RUN), result, store))
    if text == "-":
        return str(_spooled(store, any_kind=any_kind))
    if "://" in text:
        return str(_fetched(text, store))
    path = Path(text).expanduser()
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "is not there"
        raise InputError(f"the file {kind}", where=text, fix="check the path")
    return str(path.absolute())


def _spooled(store: Store, *, any_kind: bool) -> Path:
    """Standard input as a file: it is read twice, once for the plan and once for the work."""
    if any_kind:
        from engine.io.sequences import spool
    else:
        from engine.io.variants import spool

    if sys.stdin.isatty():
        raise InputError("standard input is a terminal", where="-", fix="pipe the input in, or name a file")
    folder = store.scratch()
    path = folder / "standard-input"  # the name that sentences on its content show
    with clear_errors(store.uri):
        folder.mkdir()
        spool(sys.stdin.buffer, path)
    return path


def _fetched(address: str, store: Store) -> Path:
    folder, _, name = address.rpartition("/")
    source = open_store(folder)
    try:
        fetched = source.fetch(name)
    except FileNotFoundError:
        raise InputError("the file is not there", where=address, fix="check the address") from None
    return _kept(fetched, name, source, scratch=store)


def _kept(fetched: Path, name: str, source: Store, *, scratch: Store) -> Path:
    """A fetched file in the run's own scratch, under its own name, which the scored VCF's header tells."""
    if isinstance(source, LocalStore):
        return fetched
    folder = scratch.scratch()
    with clear_errors(str(folder)):
        folder.mkdir()
        shutil.move(fetched, folder / name)
    return folder / name


def _result_of(output: str, result: str, scratch: Store) -> Path:
    store = open_store(output)
    try:
        manifest = layout.read_sealed(store, layout.MANIFEST)
    except FileNotFoundError:
        raise InputError(
            "there is no finished run here", where=f"{_RUN}{output}", fix="finish that run first"
        ) from None
    entry = committed_files(store, manifest).get(result)
    if entry is None:
        raise InputError(f"that run made no {result}", where=f"{_RUN}{output}", fix="run it again with that output on")
    path = store.fetch(result)
    if crc32c_of_file(path) != entry.crc32c:
        raise InputError(
            f"{result} was changed after that run was finished", where=f"{_RUN}{output}", fix="run `replisome verify`"
        )
    return _kept(path, result, store, scratch=scratch)
