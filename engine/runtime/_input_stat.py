"""What tells a changed input without reading it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.io.source import Plannable


def stat_of(source: Plannable) -> dict[str, Any]:
    """What tells a changed input: of a source that is no set of files, what it says of itself."""
    own = getattr(source, "stat", None)
    return _stat(paths_of(source)) if own is None else dict(own())


def paths_of(source: Plannable) -> list[str]:
    """Its files."""
    return list(getattr(source, "paths", [source.path]))


def _stat(paths: Sequence[str]) -> dict[str, Any]:
    """What tells a changed file: a copy that keeps size and modification time still has another inode or ctime."""
    found = [Path(path).stat() for path in paths]
    names = {"bytes": "st_size", "mtime_ns": "st_mtime_ns", "ctime_ns": "st_ctime_ns", "inode": "st_ino"}
    return {name: one_or_all([getattr(stat, key) for stat in found]) for name, key in names.items()}


def one_or_all(values: list[Any]) -> Any:
    """Of one file its own value, of several a list."""
    return values[0] if len(values) == 1 else values
