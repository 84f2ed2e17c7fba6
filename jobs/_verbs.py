"""Turns a job's table of options into a typer command: types, defaults and help come from the spec's own fields."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from jobs._spec import job_options, spec_class

if TYPE_CHECKING:
    from schemas._base import Option, Spec

Body = Callable[[dict[str, Any]], None]
_COMMON: tuple[tuple[str, Any, tuple[str, ...], str, Any], ...] = (
    ("set", list[str], ("--set",), "KEY=VALUE: set any key of the spec, repeatable", []),
    ("progress", str, ("--progress",), "auto, bar, plain, json or none", "auto"),
    ("force", bool, ("--force",), "do anew what is already there; the former manifest is kept", False),
    ("plan", bool, ("--plan",), "say for each shard why it would run or be skipped, and run nothing", False),
    ("json", bool, ("--json",), "with --plan: JSON lines", False),
    ("debug", bool, ("--debug",), "show full traces", False),
)


def job_command(job: str, body: Body) -> Callable[..., None]:
    """A function with the job's options as its signature, ready for `typer.Typer.command`.

    It calls `body` with first flag -> typed value for the job's options, and name -> value for the common ones.
    """
    options = job_options(job)
    names = {_parameter_name(option): option.flags[0] for option in options}

    def command(**typed: Any) -> None:
        body({names.get(name, name): value for name, value in typed.items()})

    parameters = [_parameter(spec_class(job), option) for option in options] + [_common(*row) for row in _COMMON]
    parameters.sort(key=lambda parameter: parameter.default is not inspect.Parameter.empty)
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _common(name: str, kind: Any, flags: tuple[str, ...], doc: str, default: Any) -> inspect.Parameter:
    metavar = {list[str]: "KEY=VALUE", str: "TEXT"}.get(kind)
    info = typer.Option(*flags, help=doc, show_default=False, metavar=metavar)
    return _keyword(name, Annotated[kind, info], default)


def _keyword(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _parameter_name(option: Option) -> str:
    # The prefix keeps clear of Python's keywords and of the common names.
    return "o_" + option.flags[0].lstrip("-").replace("-", "_").lower()


def _parameter(model: type[Spec], option: Option) -> inspect.Parameter:
    from schemas._base import field_at

    field = field_at(model, tuple(option.key.split(".")))
    text = " ".join((option.doc or field.description or "").split())
    name, metavar = _parameter_name(option), _metavar(option, field)
    if not option.flags[0].startswith("-"):
        argument = typer.Argument(help=text, metavar=metavar)
        kind = list[str] if _kind(option, field) is list else str
        return _keyword(name, Annotated[kind, argument]) if field.is_required() else _optional(name, argument)
    kind = _kind(option, field)
    if kind is bool:
        return _keyword(name, Annotated[bool, typer.Option(*option.flags, help=text, show_default=False)], False)
    default = None if field is None or option.form != "value" else field.default
    if default not in (None, "") and isinstance(default, kind):
        text = f"{text}  [default: {default}]"
    info = typer.Option(*option.flags, help=text, show_default=False, metavar=metavar)
    if field is not None and field.is_required():
        return _keyword(name, Annotated[kind, info])
    return (
        _keyword(name, Annotated[list[str], info], [])
        if kind is list
        else _keyword(name, Annotated[kind | None, info], None)
    )


def _optional(name: str, info: Any) -> inspect.Parameter:
    return _keyword(name, Annotated[str | None, info], None)


def _metavar(option: Option, field: Any) -> str:
    """What the help shows for the value: the allowed words, or its kind."""
    if option.metavar:
        return option.metavar
    if not option.flags[0].startswith("-"):
        return option.flags[0]
    if option.form in ("pairs_file", "yaml_file"):
        return "FILE"
    if option.form == "pairs":
        return "NAME=VALUE"
    if field is not None and get_origin(field.annotation) is Literal:
        return "|".join(map(str, get_args(field.annotation)))
    return {int: "N", float: "X"}.get(_kind(option, field), "TEXT")


def _kind(option: Option, field: Any) -> Any:
    """Type of what is typed: str, int, float, bool, or list for what may be repeated."""
    if option.form in ("commas", "pairs"):
        return list
    if option.form != "value":
        return str
    return option.kind or _plain_type(field.annotation)


def _plain_type(annotation: Any) -> Any:
    """The plain type inside `X | None`, `Literal[...]` or `tuple[X, ...]`."""
    if annotation in (str, int, float, bool):
        return annotation
    if get_origin(annotation) is tuple:
        return list
    inner = [_plain_type(part) for part in get_args(annotation) if part is not type(None)]
    return inner[0] if inner and isinstance(inner[0], type) else str
