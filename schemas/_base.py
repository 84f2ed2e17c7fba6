"""The base of every job spec: frozen, strict, and plain about what is wrong.

A spec is refused with one `SpecError` that names the place, the key, the allowed values and the nearest spelling.
The error lives here, not in `engine.errors`, since schemas stand below the engine; `jobs` turns it into an InputError.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

Path = tuple[str | int, ...]
MAX_SHOWN = 60


class SpecError(Exception):
    """A spec that cannot be used.

    Args:
        what: what was found, with its value, without the full stop.
        where: file, line and key.
        fix: what the user can do about it.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what, where, fix)
        self.what = what
        self.where = where
        self.fix = fix

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.what, self.where, self.fix))

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}; {self.fix}" if self.fix else text


def _rebuild(what: str, where: str, fix: str) -> SpecError:
    return SpecError(what, where=where, fix=fix)


class Spec(BaseModel):
    """Base of job specs and their sections: frozen, unknown keys refused, no silent conversion, no NaN."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,
    )


@dataclass(frozen=True, slots=True)
class Option:
    """A command-line option of a job: which key of the spec it sets, and how its text becomes a value.

    Attributes:
        key: dotted key of the spec; several options may add to one key.
        flags: option names such as "--output", "-o"; a single word without dashes is a positional argument.
        doc: help text; empty where the field's own text serves.
        kind: type of the text; None where the field's own type serves.
        form: "value" as the type has it; "commas" a comma-separated list; "pairs" NAME=VALUE, repeatable; "pairs_file"
            a file of NAME, TAB, VALUE lines; "yaml_file" what a YAML file holds.
        value: for a flag that takes no value: what it sets.
        metavar: what the help shows for the value; empty where its kind serves.
    """

    key: str
    flags: tuple[str, ...]
    doc: str = ""
    kind: type | None = None
    form: Literal["value", "commas", "pairs", "pairs_file", "yaml_file"] = "value"
    value: bool = True
    metavar: str = ""


def _text(value: object) -> object:
    """Whole numbers become text, so that contig `1` needs no quotes; anything else is left to the strict check."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Name = Annotated[str, BeforeValidator(_text)]
Names = Annotated[tuple[Name, ...], Field(strict=False)]

SpecT = TypeVar("SpecT", bound=Spec)


def build_spec(
    model: type[SpecT], values: Mapping[str, Any], *, where: str, marks: Mapping[Path, str] | None = None
) -> SpecT:
    """Build a spec from plain values.

    Args:
        model: the spec class.
        values: nested mappings, lists and scalars, as a YAML file gives them.
        where: file name or "command line", for the message.
        marks: where each key was written, such as "line 7" or "--workers", as far as known.

    Raises:
        SpecError: on the first thing wrong; the others are counted and their keys named.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=True)
    first, rest = problems[0], problems[1:]
    what, fix = _sentence(model, first)
    if rest:
        keys = ", ".join(dict.fromkeys(_dotted(_known_path(item["loc"])) or "the spec" for item in rest[:4]))
        fix = f"{fix}; {len(rest)} more to mend: {keys}" if fix else f"{len(rest)} more to mend: {keys}"
    raise SpecError(what, where=_place(first["loc"], where, marks or {}), fix=fix)


def nearest(word: str, known: list[str]) -> str:
    """A hint such as "did you mean 'workers'? known: a, b"."""
    near = difflib.get_close_matches(word, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}known: {', '.join(known)}"


def field_at(model: type[BaseModel], path: Path) -> Any:
    """The pydantic field at a path of keys, or None where the path leaves the models (into a plain mapping)."""
    found: Any = None
    section: type[BaseModel] | None = model
    is_name = False  # of an entry in a mapping of sections
    for key in path:
        if isinstance(key, int) or is_name:
            is_name = False
            continue
        if section is None or key not in section.model_fields:
            return None
        found = section.model_fields[key]
        section = _section(found.annotation)
        is_name = section is not None and get_origin(found.annotation) is dict
    return found


def _section(annotation: Any) -> type[BaseModel] | None:
    """The spec section inside an annotation such as `X`, `X | None`, `tuple[X, ...]` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType, tuple, dict, Annotated):
        return next((found for part in get_args(annotation) if (found := _section(part))), None)
    return None


def _known_path(loc: Path) -> Path:
    """`loc` without the markers that pydantic adds for unions and mapping keys."""
    path: list[str | int] = []
    for key in loc:
        if isinstance(key, str) and (key.startswith(("function-", "tuple[", "literal[", "constrained-")) or not key):
            continue
        path.append(key)
    if path and path[-1] == "[key]":
        path.pop()
    return tuple(path)


def _dotted(path: Path) -> str:
    return ".".join(show(str(key))[1:-1] for key in path)


def _place(loc: Path, where: str, marks: Mapping[Path, str]) -> str:
    path = _known_path(loc)
    mark = next((marks[path[:n]] for n in range(len(path), 0, -1) if path[:n] in marks), "")
    place = f"{where} {mark}".rstrip()
    return f"{place}, key '{_dotted(path)}'" if path else place


def _sentence(model: type[BaseModel], error: Mapping[str, Any]) -> tuple[str, str]:
    """What was found and what to do, for one pydantic error."""
    path = _known_path(error["loc"])
    kind, context = str(error["type"]), error.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key {show(str(path[-1]))}", nearest(str(path[-1]), _siblings(model, path))
    if kind == "missing":
        return f"the key {str(path[-1])!r} is missing", _doc(model, path)
    if kind == "literal_error":
        found, allowed = error["input"], str(context["expected"])
        words = [word.strip("' ") for word in allowed.replace(" or ", ", ").split(",")]
        near = difflib.get_close_matches(str(found), words, n=1)
        return f"found {show(found)}", (f"did you mean {near[0]!r}? " if near else "") + f"allowed: {', '.join(words)}"
    if kind == "value_error":
        return str(context["error"]), ""
    return f"found {show(error['input'])}", _wanted(kind, context, str(error["msg"]))


def _siblings(model: type[BaseModel], path: Path) -> list[str]:
    field = field_at(model, path[:-1]) if path[:-1] else None
    section = _section(field.annotation) if field is not None else model
    return sorted(section.model_fields) if section else []


def _doc(model: type[BaseModel], path: Path) -> str:
    field = field_at(model, path)
    return f"give {path[-1]}: {field.description}" if field is not None and field.description else ""


_WANTED = {
    "bool_type": "give true or false",
    "int_type": "give a whole number",
    "float_type": "give a number",
    "string_type": "give text; quote it if it looks like a number or a switch",
    "tuple_type": "give a list",
    "dict_type": "give a mapping of keys to values",
    "model_type": "give a mapping of keys to values",
    "finite_number": "give a finite number",
    "none_required": "leave it out",
}
_LIMITS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def _wanted(kind: str, context: Mapping[str, Any], message: str) -> str:
    if kind in _LIMITS:
        name, words = _LIMITS[kind]
        return f"give {words} {context[name]}"
    if kind in ("string_too_short", "too_short"):
        return f"give at least {context['min_length']}"
    return _WANTED.get(kind, message[:1].lower() + message[1:])


def show(value: object) -> str:
    """A value as a message shows it: quoted, and cut where long."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
