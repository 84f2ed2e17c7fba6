"""The card's text with its figures filled in, so that none can go stale.

    {{cells PATH}}    every figure at or below a place of figures.json as table cells, "value (low to high)"
    {{values PATH}}   the values alone, comma-separated
    {{range PATH}}    the smallest and the largest value

A PATH is keys joined by "/", each a shell pattern.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from typing import Any

# Told in words beside the tables, not in them.
_NOT_IN_TABLES = ("abs_auroc", "consequence class (control)")
_NONE = "none"


def fill(text: str, figures: Mapping[str, Any]) -> str:
    """The text with every placeholder replaced, by "not measured" without figures; SystemExit where one is lacking."""

    def replaced(match: re.Match[str]) -> str:
        if not figures:
            return "not measured"
        found = list(_below(figures, match[2].strip().split("/")))
        if not found:
            raise SystemExit(f"no figure at {match[2]!r}: give the file of splice_accuracy.py --json with --members")
        return _KINDS[match[1]](found)

    return re.sub(r"\{\{(cells|values|range) ([^}]+)\}\}", replaced, text)


def _below(node: Any, path: list[str]) -> Iterator[list[Any]]:
    """Figures (value, low, high, count) below a path, in the file's order."""
    if isinstance(node, list):
        yield node
        return
    for key, child in node.items():
        if path and fnmatch.fnmatchcase(key, path[0]):
            yield from _below(child, path[1:])
        elif not path and key not in _NOT_IN_TABLES:
            yield from _below(child, [])


def number(value: float | None) -> str:
    """Three digits, .583, -.031, 1.000; "none" for no number."""
    return _NONE if value is None else re.sub(r"^(-?)0\.", r"\1.", f"{value:.3f}")


def _short(value: float | None) -> str:
    return _NONE if value is None else re.sub(r"^(-?)0\.", r"\1.", f"{value:.2f}")


def _cells(found: list[list[Any]]) -> str:
    return " | ".join(f"{number(value)} ({_short(low)} to {_short(high)})" for value, low, high, _ in found)


def _values(found: list[list[Any]]) -> str:
    return ", ".join(number(value) for value, *_ in found)


def _range(found: list[list[Any]]) -> str:
    values = [value for value, *_ in found]
    return f"{_short(min(values))} to {_short(max(values))}"


_KINDS = {"cells": _cells, "values": _values, "range": _range}
