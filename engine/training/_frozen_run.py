"""What run.json fixes of a run without shards: everything that can change its result."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine import __version__
from engine.errors import InputError
from engine.runtime import layout
from engine.storage.store import LocalStore


def freeze_run(
    output: Path, *, job: str, key: Mapping[str, Any], spec: Mapping[str, Any], results: Sequence[str], force: bool
) -> None:
    """Write run.json, or refuse a folder that holds another run.

    Args:
        output: the run's folder.
        job: its name.
        key: all that counts; plain values.
        spec: as run.json keeps it.
        results: files, and folders ending in "/", that the run will make.
        force: replace a run of ours; its manifest is kept.

    Raises:
        InputError: naming each difference.
    """
    store = LocalStore(output)
    if force and store.exists(layout.RUN):
        if store.exists(layout.MANIFEST):
            count = len(store.list(layout.FORMER)) + 1
            store.put(f"{layout.FORMER}/manifest-{count:03d}.json", store.read(layout.MANIFEST))
        for name in (layout.MANIFEST, *results, *layout.OWN_FILES):
            remove(output / name)
    try:
        former = layout.read_sealed(store, layout.RUN)
    except FileNotFoundError:
        _refuse_foreign(output, results)
        content = {"job": job, "key": dict(key), "spec": dict(spec), "results": list(results)}
        store.put(layout.RUN, layout.sealed_json({**content, "versions": {"replisome": __version__}}))
        return
    differing = _differing(former.get("key", {}), key)
    if differing:
        raise InputError(
            f"this folder holds a run that differs in {', '.join(differing)}",
            where=str(output),
            fix="choose another output, or use --force to replace it",
        )


def _differing(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Names of what differs, such as data or recipe.seed."""
    found = []
    for name in sorted({*known, *wanted}):
        one, other = known.get(name), wanted.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            found += [f"{name}.{below}" for below in _differing(one, other)]
        elif one != other:
            found.append(name)
    return found


def _refuse_foreign(output: Path, results: Sequence[str]) -> None:
    there = [name for name in results if (output / name).exists()]
    if there:
        what = f"this folder is no run of ours and already holds {', '.join(there)}"
        raise InputError(what, where=str(output), fix="choose another output, or move them away")


def remove(path: Path) -> None:
    """A file, or a folder with all in it; nothing where it is not there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """As run.json gives it back: tuples and lists are one."""
    return json.loads(layout.canonical_json(value))
