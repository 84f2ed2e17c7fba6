"""Small files kept per user and per input file: indices of read-only folders, digests of long sequences."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_folder(path: Path) -> Path:
    """The per-user folder for what is derived from one file, not made yet.

    Its name holds absolute path, size and time of change, so a changed file never meets what was derived before.
    """
    stat = path.stat()
    text = f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}"
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if base else Path.home() / ".cache"
    return root / "replisome" / "genome" / hashlib.sha256(text.encode()).hexdigest()[:24]


def publish(target: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a private file, then move it to `target` in one step: a second process sees all or nothing.

    Raises:
        OSError: the folder cannot be made or written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    try:
        write(Path(name))
        Path(name).chmod(0o644)
        Path(name).replace(target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise
