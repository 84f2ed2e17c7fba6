"""A strict reader for spec files: plain YAML data, nothing that runs, nothing that surprises.

Refused: duplicate keys, tags, merge keys, several documents, keys that are no text, and files beyond the caps on
size, depth, values and aliases. Plain scalars follow the YAML 1.2 core schema, which avoids the traps of YAML 1.1:
`no`, `on` and `y` are text, `12:30:45` and `2026-01-02` are text, and `017`, which the two versions read as different
numbers, is refused with the advice to quote it. A boolean field then refuses `no` and asks for true or false.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from schemas._base import Path, SpecError, show

MAX_BYTES = 256 << 10
MAX_DEPTH = 32
MAX_VALUES = 20_000
MAX_ALIASES = 32

_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL_TRAP = re.compile(r"[-+]?0[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}
_MAX_DIGITS = 400


@dataclass(frozen=True)
class Document:
    """What a file says, and on which line (1-based) each key or list item stands."""

    values: Any
    lines: dict[Path, int]


@dataclass
class _Open:
    """A mapping or list that is still being read."""

    value: dict[str, Any] | list[Any]
    path: Path
    anchor: str | None
    first_value: int
    key: str | None = None


@dataclass
class _Reader:
    """Builds values from parser events with a stack, so that depth is a number to check and never recursion."""

    where: str
    lines: dict[Path, int] = field(default_factory=dict)
    stack: list[_Open] = field(default_factory=list)
    anchors: dict[str, tuple[Any, int]] = field(default_factory=dict)
    num_values: int = 0
    num_aliases: int = 0
    root: Any = None
    has_root: bool = False

    def fail(self, what: str, event: Any, fix: str = "") -> SpecError:
        return SpecError(what, where=f"{self.where} line {event.start_mark.line + 1}", fix=fix)

    def count(self, event: Any, num: int = 1) -> None:
        self.num_values += num
        if self.num_values > MAX_VALUES:
            raise self.fail(f"more than {MAX_VALUES:,} values", event, "a spec this long is a mistake; split it")

    def read(self, events: Iterator[Any]) -> None:
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._document(event)
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event)
            elif isinstance(event, yaml.NodeEvent):
                self._node(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._close()

    def _document(self, event: Any) -> None:
        if self.has_root:
            raise self.fail("a second document begins", event, "keep one document per file")

    def _node(self, event: Any) -> None:
        if event.tag is not None:
            raise self.fail(f"the tag {event.tag!r} is not allowed", event, "write the plain value, quoted if text")
        self.count(event)
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
            return
        if len(self.stack) >= MAX_DEPTH:
            raise self.fail(f"values nest deeper than {MAX_DEPTH}", event, "flatten the spec")
        value: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        path = self._place(value, event)
        self.stack.append(_Open(value, path, event.anchor, self.num_values))

    def _scalar(self, event: Any) -> None:
        if self.stack and isinstance(self.stack[-1].value, dict) and self.stack[-1].key is None:
            if event.anchor:
                raise self.fail(f"an anchor on the key {show(event.value)}", event, "anchor the value instead")
            self._key(event)
            return
        value = event.value if event.style is not None else self._plain(event)
        self._place(value, event)
        if event.anchor:
            self.anchors[event.anchor] = (value, 1)

    def _key(self, event: Any) -> None:
        here, key = self.stack[-1], event.value
        if key == "<<" and event.style is None:
            raise self.fail("merge keys are not read", event, "write the keys out")
        if key in here.value:
            first = self.lines[(*here.path, key)]
            raise self.fail(f"the key {show(key)} stands twice, first on line {first}", event, "keep one of them")
        here.key = key
        self.lines[(*here.path, key)] = event.start_mark.line + 1

    def _place(self, value: Any, event: Any) -> Path:
        """Put a finished or opening value where it belongs, and return its path."""
        if not self.stack:
            self.root, self.has_root = value, True
            return ()
        here = self.stack[-1]
        if isinstance(here.value, list):
            path: Path = (*here.path, len(here.value))
            self.lines[path] = event.start_mark.line + 1
            here.value.append(value)
            return path
        if here.key is None:
            raise self.fail("a key that is no plain text", event, "use text as keys")
        path = (*here.path, here.key)
        here.value[here.key] = value
        here.key = None
        return path

    def _close(self) -> None:
        done = self.stack.pop()
        if done.anchor:
            self.anchors[done.anchor] = (done.value, self.num_values - done.first_value + 1)

    def _alias(self, event: Any) -> None:
        self.num_aliases += 1
        if self.num_aliases > MAX_ALIASES:
            raise self.fail(f"more than {MAX_ALIASES} aliases", event, "write the values out")
        if event.anchor not in self.anchors:
            raise self.fail(f"the alias *{event.anchor} names no finished value", event, "anchor it further up")
        value, num_values = self.anchors[event.anchor]
        # An alias costs what it stands for, so that aliases of aliases cannot grow past the cap.
        self.count(event, num_values)
        self._place(value, event)

    def _plain(self, event: Any) -> Any:
        text: str = event.value
        if text in _NULLS:
            return None
        if text in _BOOLS:
            return _BOOLS[text]
        if _OCTAL_TRAP.fullmatch(text):
            fix = "quote it if it is text, drop the leading zero if it is a number"
            raise self.fail(f"{text} is octal to one version of YAML and decimal to the next", event, fix)
        if len(text) > _MAX_DIGITS:
            return text
        if _INT.fullmatch(text):
            return int(text)
        if _BASED.fullmatch(text):
            return int(text, 0)
        if _FLOAT.fullmatch(text):
            return float(text)
        special = _SPECIAL.get(text.lower())
        return float(special) if special else text


def read_yaml(text: str | bytes, *, where: str) -> Document:
    """Read one YAML document.

    Args:
        text: the file's content; bytes must be UTF-8.
        where: file name for messages.

    Raises:
        SpecError: anything but one plain document inside the caps.
    """
    reader = _Reader(where)
    try:
        reader.read(yaml.parse(_checked(text, where), Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}" if mark else ""
        what = " ".join(part for part in (error.context, error.problem) if part)
        raise SpecError(f"not YAML: {what}", where=f"{where}{line}", fix="check indents, quotes and tabs") from None
    except yaml.YAMLError as error:
        raise SpecError(f"not YAML: {show(str(error))}", where=where, fix="save it as plain UTF-8 text") from None
    if not reader.has_root:
        raise SpecError("the file is empty", where=where, fix="see `replisome schema JOB` for its keys")
    return Document(reader.root, reader.lines)


def _checked(text: str | bytes, where: str) -> str:
    if len(text) > MAX_BYTES:
        raise SpecError(f"{len(text):,} bytes, above the cap of {MAX_BYTES:,}", where=where, fix="is this a spec file?")
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"byte {error.start} is not UTF-8", where=where, fix="save it as plain UTF-8 text") from None
