"""The log of a run, a file in its folder."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from pathlib import Path


class _LogFile(logging.FileHandler):
    """A log that is silent where it cannot be written: on a full disk the run's own error tells."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the line."""

    def close(self) -> None:
        with suppress(OSError):
            super().close()


def open_log(path: Path, *, quiet: bool) -> logging.Logger:
    """A log of its own; a finished run's log takes no more lines."""
    handler = logging.NullHandler() if quiet else _LogFile(path, encoding="utf-8")
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    log = logging.Logger("replisome.run", level=logging.INFO)
    log.addHandler(handler)
    return log
