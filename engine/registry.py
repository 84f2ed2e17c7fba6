"""Components by name: the file stem is the name, the folder listing is the registry.

A component file holds one class marked with ``COMPONENT = ClassName`` at module level, beside its frozen ``Params``
dataclass (``ClassName.Params``) and ``RESULT_VERSION`` integer. Files beginning with ``_`` are not components.
Other packages add theirs through entry points ``replisome.<kind>``; they may not shadow ours.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from engine.errors import InputError

KINDS = ("encoders", "models", "scoring", "tasks")
_ONE = {"encoders": "encoder", "models": "architecture", "scoring": "scorer", "tasks": "task"}
# Where a kind's files lie, for those that have no room of their own.
_PLACE = {"tasks": "training.tasks"}
_HERE = Path(__file__).parent


def names(kind: str) -> list[str]:
    """Names of all components of a kind, sorted, without importing any of them."""
    return sorted([*_own(kind), *_outside(kind)])


def _own(kind: str) -> set[str]:
    folder = _HERE.joinpath(*_PLACE.get(kind, kind).split("."))
    return {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}


@cache
def _points(kind: str) -> tuple[EntryPoint, ...]:
    """Reading the metadata of all installed packages takes longer than scoring a small file: once is enough."""
    return tuple(entry_points(group=f"replisome.{kind}"))


def _outside(kind: str) -> dict[str, EntryPoint]:
    own = _own(kind)
    found = {point.name: point for point in _points(kind)}
    for name, point in found.items():
        if name in own:
            raise InputError(
                f"{_ONE.get(kind, kind)} {name!r} of package {point.value!r} has the name of a built-in one",
                where="entry points",
                fix="rename it in that package",
            )
    return found


def check_name(kind: str, name: str) -> None:
    """Raise InputError naming the nearest spelling unless `name` is a component of `kind`."""
    known = names(kind)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        what = f"no {_ONE.get(kind, kind)} named {name!r}"
        raise InputError(what, where=kind, fix=f"{hint}known: {', '.join(known)}")


def component(kind: str, name: str) -> Any:
    """Import and return the component class."""
    check_name(kind, name)
    outside = _outside(kind)
    if name in outside:
        return outside[name].load()
    return import_module(f"engine.{_PLACE.get(kind, kind)}.{name}").COMPONENT


def named_component(given: Any, what: str) -> dict[str, Any]:
    """{"name", "params"} of a component that another one's params name so, or by its name alone.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(given, str):
        return {"name": given, "params": {}}
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str) or set(given) - {"name", "params"}:
        raise ValueError(f"{what} must hold name and params, found {given!r}")
    return {"name": given["name"], "params": dict(given.get("params") or {})}


def build_params(cls: Any, values: Mapping[str, Any], *, where: str) -> Any:
    """Build ``cls.Params`` from plain values, refusing unknown keys with the nearest spelling."""
    known = {field.name for field in dataclasses.fields(cls.Params)}
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, sorted(known), n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(f"unknown parameter {key!r}", where=where, fix=f"{hint}known: {', '.join(sorted(known))}")
    try:
        return cls.Params(**values)
    except (TypeError, ValueError) as error:
        raise InputError(str(error), where=where, fix="correct the value") from error


def result_version(kind: str, name: str, params: Mapping[str, Any]) -> int:
    """RESULT_VERSION of a component together with those within, which the static method `inner` of its class names.

    All of them only rise, so a change of any makes another sum.

    Raises:
        InputError: an unknown component, or params that do not fit it.
    """
    made = component(kind, name)
    version = int(made.RESULT_VERSION)
    if hasattr(made, "inner"):
        built = build_params(made, params, where=f"{kind} {name!r}")
        version += sum(int(component(*one).RESULT_VERSION) for one in made.inner(built))
    return version
