"""What the report pages share: numbers that name their source, entries of timings and provenance, and the template.

Every number of a page stands in an element whose `data-key` names where it comes from, so that a test can recompute it.
A page is one file, without a script, and loads nothing from elsewhere.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.runtime import pages

if TYPE_CHECKING:
    from engine.runtime.run import Execution

_MAX_LISTED = 40
_ENTRY_LABELS = {
    "wall_s": "Wall time",
    "cpu_s": "CPU time",
    "records_per_s": "Records per second",
    "records_per_cpu_s": "Records per CPU second",
    "result_key": "Result key",
    "refget": "Refget digests",
    "genes": "Gene table",
}


@dataclass(frozen=True)
class Number:
    """A number of the page: its text and the key that names its source."""

    key: str
    text: str
    small: str = ""


@dataclass(frozen=True)
class Entry:
    """One line of timings or provenance; `nested` holds the lines below a heading."""

    label: str
    key: str
    text: str
    nested: tuple[Entry, ...] = ()
    left_out: int = 0


def render_page(template: str, *, folder: Path | None = None, **values: Any) -> str:
    """A page as text.

    Args:
        template: file name.
        folder: where it lies beside the pieces of this folder.
        values: what it shows.
    """
    here = Path(__file__).parent
    return pages.render_page(template, *([here] if folder is None else [folder, here]), **values)


def timings_of(execution: Execution, timings: Mapping[str, float]) -> dict[str, Any]:
    """What a page tells of a run's own timings."""
    wall = timings.get("execute_s", 0.0)
    # Ray's workers are no children of ours, so their CPU seconds are not known here.
    cpu = 0.0 if execution.executor == "ray" else timings.get("cpu_s", 0.0)
    records = timings.get("records_run", 0.0)
    return {
        "executor": execution.executor,
        "workers": execution.workers,
        "wall_s": round(timings.get("total_s", 0.0), 3),
        "plan_s": round(timings.get("plan_s", 0.0), 3),
        "execute_s": round(wall, 3),
        "commit_s": round(timings.get("commit_s", 0.0), 3),
        "records_per_s": round(records / wall, 1) if wall else 0.0,
        **({"cpu_s": round(cpu, 3), "records_per_cpu_s": round(records / cpu, 1)} if cpu else {}),
    }


def count(value: int) -> str:
    """A whole number with thousands separators."""
    return f"{value:,}".replace("-", "\u2212")


def real(value: float | None, digits: int = 3) -> str:
    """A number with fixed decimals and a true minus sign; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "\u2013"
    text = f"{value:.{digits}f}" if abs(value) < 10_000 else f"{value:.4g}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "\u2212")


def telling(value: float | None, digits: int = 3, *, beside: float | None = None) -> str:
    """The same with more decimals where the number, or the one that it stands beside, is below a tenth."""
    size = abs(value if beside is None else beside) if value is not None else 0.0
    if 0 < size < 0.1 and math.isfinite(size):
        digits = min(8, digits - 1 - math.floor(math.log10(size)))
    return real(value, digits)


def share(part: int, whole: int) -> str:
    """Percentage with one decimal; empty where there is no whole. What is not none or all is never shown as such."""
    if whole == 0:
        return ""
    percent = 100 * part / whole
    if part in (0, whole):
        return f"{percent:.0f}%"
    if percent < 0.1:
        return "<0.1%"
    return ">99.9%" if percent > 99.9 else f"{percent:.1f}%"


def entries(values: Mapping[str, Any], key: str) -> Iterator[Entry]:
    for name, value in values.items():
        if "sample" in str(name).lower():
            continue
        yield _entry(_entry_label(str(name), key), f"{key}.{name}", name=str(name), value=value)


def _entry_label(name: str, key: str) -> str:
    # Below the first level names are the run's own (contigs, packages, settings) and are shown as they are.
    if name in _ENTRY_LABELS:
        return _ENTRY_LABELS[name]
    words = name
    for unit in ("_s", "_bytes"):
        words = words.removesuffix(unit) if key == "timings" else words
    return words.replace("_", " ").capitalize() if key in ("timings", "provenance") else name


def _entry(label: str, key: str, *, name: str, value: Any) -> Entry:
    if isinstance(value, Mapping) and value:
        nested = tuple(entries(value, key))
        return Entry(label, key, "", nested[:_MAX_LISTED], max(0, len(nested) - _MAX_LISTED))
    if isinstance(value, list | tuple) and value:
        words = [str(one) for one in value]
        return Entry(label, key, shlex.join(words) if name == "command" else ", ".join(words))
    return Entry(label, key, _with_unit(name, value))


def _with_unit(name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        is_empty = value is None or (isinstance(value, Sized) and len(value) == 0)
        return "\u2013" if is_empty else str(value)
    if name.endswith("_bytes"):
        return f"{value / 1e6:,.1f} MB"
    if name.endswith("_per_s") or name.endswith("_per_cpu_s"):
        return f"{value:,.1f}"
    if name.endswith("_s"):
        return _duration(float(value))
    return count(value) if isinstance(value, int) else real(value)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min {rest:02d} s" if hours else f"{minutes} min {rest:02d} s"
