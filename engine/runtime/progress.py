"""How far a run is: a bar on a terminal, plain lines elsewhere, JSON lines on request."""

from __future__ import annotations

import json
import sys
import time
from typing import Any, TextIO

from engine.errors import InputError
from schemas import states

MODES = ("auto", "bar", "plain", "json", "none")
_PLAIN_SECONDS = 10.0
_BAR_SECONDS = 0.2
_JSON_SECONDS = 1.0


def check_mode(mode: str) -> None:
    """Raise InputError unless there is such a mode."""
    if mode not in MODES:
        raise InputError(f"no progress mode {mode!r}", where="--progress", fix=f"known: {', '.join(MODES)}")


class Progress:
    """Counts records and rows; writes to standard error."""

    def __init__(
        self, mode: str, *, total: int, done: int = 0, rejected: int = 0, stream: TextIO | None = None
    ) -> None:
        check_mode(mode)
        self._stream = stream or sys.stderr
        self._mode = ("bar" if self._stream.isatty() else "plain") if mode == "auto" else mode
        self._total = total
        self._done = done
        self._at_start = done
        self._rejected = rejected
        self._rows = 0
        self._began = time.monotonic()
        self._last = self._began if self._mode == "plain" else 0.0

    def add(self, *, records: int, rows: int, rejected: int) -> None:
        """Take note of a finished shard."""
        self._done += records
        self._rows += rows
        self._rejected += rejected
        self.show()

    def show(self, *, final: bool = False) -> None:
        """Write the present state, not more often than the mode wants."""
        pause = {"bar": _BAR_SECONDS, "plain": _PLAIN_SECONDS, "json": _JSON_SECONDS}.get(self._mode)
        now = time.monotonic()
        if pause is None or (now - self._last < pause and not final):
            return
        self._last = now
        try:
            {"bar": self._bar, "plain": self._plain, "json": self._json}[self._mode](final)
            self._stream.flush()
        except OSError:
            self._mode = "none"  # nobody reads on: no reason to stop hours of work

    def facts(self) -> dict[str, Any]:
        """Numbers of the line: records, total, rejected rows, records per second, seconds left."""
        elapsed = max(time.monotonic() - self._began, 1e-9)
        rate = (self._done - self._at_start) / elapsed
        left = (self._total - self._done) / rate if rate > 0 else None
        return {
            "records": self._done,
            "total": self._total,
            states.REJECTED: self._rejected,
            "records_per_s": round(rate, 1),
            "eta_s": None if left is None else round(left, 1),
        }

    def _sentence(self) -> str:
        facts = self.facts()
        share = self._done / self._total if self._total else 1.0
        left = "" if facts["eta_s"] is None or self._done >= self._total else f", {_clock(facts['eta_s'])} left"
        return (
            f"{self._done:,} of {self._total:,} records ({share:.0%}), {facts['records_per_s']:,.0f} records/s"
            f"{left}, {self._rejected:,} rejected"
        )

    def _bar(self, final: bool) -> None:
        share = self._done / self._total if self._total else 1.0
        cells = round(24 * share)
        end = "\n" if final else ""
        self._stream.write(f"\r\x1b[2K[{'#' * cells}{'.' * (24 - cells)}] {self._sentence()}{end}")

    def _plain(self, _final: bool) -> None:
        self._stream.write(f"replisome: {self._sentence()}\n")

    def _json(self, final: bool) -> None:
        self._stream.write(json.dumps({"event": "done" if final else "progress", **self.facts()}) + "\n")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
