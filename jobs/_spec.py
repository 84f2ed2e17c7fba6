"""From a YAML file, command-line options and `--set` to a checked spec of a job.

Jobs are found in the folder listing of schemas/jobs; nothing is imported until a job is asked for.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import InputError

if TYPE_CHECKING:
    from schemas._base import Option, Spec

_FOLDER = Path(__file__).parent.parent / "schemas" / "jobs"


@dataclass(frozen=True)
class Source:
    """Values of a spec before they are checked, and where each was written.

    Attributes:
        values: nested mappings, lists and scalars.
        where: file name or "command line".
        marks: where each key stands, such as "line 7" or "--workers".
    """

    values: dict[str, Any]
    where: str
    marks: Mapping[tuple[str | int, ...], str]


def job_names() -> list[str]:
    """Names of all jobs, sorted, such as score_variants."""
    return sorted(path.stem for path in _FOLDER.glob("*.py") if not path.stem.startswith("_"))


def job_summary(name: str) -> str:
    """First line of a job's documentation, read without importing it."""
    doc = ast.get_docstring(ast.parse((_FOLDER / f"{name}.py").read_text(encoding="utf-8"))) or ""
    return doc.partition("\n")[0]


def check_job(name: str) -> str:
    """The job's name with underscores.

    Raises:
        InputError: no such job; names the nearest spelling.
    """
    stem = name.replace("-", "_")
    if stem not in job_names():
        from schemas._base import nearest, show

        known = [job.replace("_", "-") for job in job_names()]
        raise InputError(f"no job named {show(name)}", where="job", fix=nearest(name, known))
    return stem


def spec_class(job: str) -> type[Spec]:
    """The spec class of a job."""
    found: type[Spec] = import_module(f"schemas.jobs.{check_job(job)}").SPEC
    return found


def job_options(job: str) -> tuple[Option, ...]:
    """The command-line options of a job."""
    found: tuple[Option, ...] = import_module(f"schemas.jobs.{check_job(job)}").OPTIONS
    return found


def read_file(path: str | os.PathLike[str]) -> Source:
    """Read a spec file.

    Raises:
        InputError: unreadable, not strict YAML, or not a mapping.
    """
    from schemas._yaml import MAX_BYTES

    where = os.fspath(path)
    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=where, fix="check the path") from None
    document = _strict_yaml(text, where)
    if not isinstance(document.values, dict):
        raise InputError("a spec is a mapping of keys to values", where=where, fix="begin with job: score_variants")
    return Source(document.values, where, {path: f"line {line}" for path, line in document.lines.items()})


def _strict_yaml(text: str | bytes, where: str) -> Any:
    from schemas._base import SpecError
    from schemas._yaml import read_yaml

    try:
        return read_yaml(text, where=where)
    except SpecError as error:
        raise InputError(error.what, where=error.where, fix=error.fix) from None


def apply_settings(source: Source, settings: Iterable[str]) -> Source:
    """Set keys from texts such as `execution.workers=2`; the right side is read as YAML.

    Raises:
        InputError: no `=`, or a path that leads through a value that is no mapping or list.
    """
    import copy

    values, marks = copy.deepcopy(source.values), dict(source.marks)
    for setting in settings:
        key, sign, text = setting.partition("=")
        if not sign or not all(key.split(".")):
            raise InputError(f"found {setting!r}", where="--set", fix="write KEY=VALUE, as in execution.workers=2")
        value = _strict_yaml(text or "null", f"--set {key}").values
        path = key.split(".")
        _put(values, path, value, where=f"--set {key}")
        marks[tuple(int(part) if part.isdecimal() else part for part in path)] = "--set"
    return Source(values, source.where, marks)


def _put(values: dict[str, Any], path: Sequence[str], value: Any, *, where: str) -> None:
    here: Any = values
    for key, below in zip(path, [*path[1:], None], strict=True):
        if isinstance(here, list):
            if not key.isdecimal() or int(key) >= len(here):
                raise InputError(f"the list has no item {key!r}", where=where, fix=f"it has items 0 to {len(here) - 1}")
            index: Any = int(key)
        elif isinstance(here, dict):
            index = key
        else:
            raise InputError(f"nothing stands below the value {here!r}", where=where, fix="shorten the key")
        if below is None:
            here[index] = value
        else:
            here = here[index] if isinstance(here, list) else here.setdefault(index, {})


def build(source: Source, *, job: str | None = None) -> tuple[str, Spec]:
    """Check the values and build the spec.

    Args:
        source: what was written.
        job: the job, where the command names it; else the key `job` does.

    Returns:
        The job's name and its spec.

    Raises:
        InputError: unknown job, unknown or wrong keys, unknown component; names place, key and nearest spelling.
    """
    from schemas._base import SpecError, build_spec

    name = job or _named_job(source)
    values = {**source.values, "job": check_job(name)}
    try:
        spec = build_spec(spec_class(name), values, where=source.where, marks=source.marks)
    except SpecError as error:
        raise InputError(error.what, where=error.where, fix=error.fix) from None
    _check_components(spec, source.where)
    return check_job(name), spec


def _named_job(source: Source) -> str:
    name = source.values.get("job")
    if not isinstance(name, str):
        known = ", ".join(job_names())
        raise InputError("the key 'job' is missing", where=source.where, fix=f"add one of: {known}")
    return name


def _check_components(spec: Spec, where: str) -> None:
    """Names of components are checked from the folder listing, without importing any."""
    from engine import registry

    scorer = getattr(spec, "scorer", None)
    if scorer is not None:
        try:
            registry.check_name("scoring", scorer.name)
        except InputError as error:
            raise InputError(error.what, where=f"{where}, key 'scorer.name'", fix=error.fix) from None


def from_options(job: str, given: Mapping[str, Any]) -> Source:
    """Values from command-line options.

    Args:
        job: the job.
        given: first flag of each option of the job to what was typed; None or empty where it was not.

    Raises:
        InputError: a pair without `=`, a file that cannot be read.
    """
    values: dict[str, Any] = {}
    marks: dict[tuple[str | int, ...], str] = {}
    for option in job_options(job):
        typed = given.get(option.flags[0])
        if typed is None or typed is False or typed == []:
            continue
        path = option.key.split(".")
        value = _value(option, typed)
        if option.form in ("pairs", "pairs_file"):
            value = {**_peek(values, path), **value}
        _put(values, path, value, where=option.flags[0])
        marks[tuple(path)] = option.flags[0]
    return Source(values, "command line", marks)


def _peek(values: dict[str, Any], path: Sequence[str]) -> dict[str, Any]:
    here: Any = values
    for key in path:
        here = here.get(key, {})
    return dict(here)


def _value(option: Option, typed: Any) -> Any:
    flag = option.flags[0]
    if typed is True:
        return option.value
    if option.form == "commas":
        return [word for text in typed for word in text.split(",") if word]
    if option.form == "pairs":
        return dict(_pair(text, "=", flag) for text in typed)
    if option.form == "pairs_file":
        lines = _lines(typed, flag)
        return dict(_pair(line, "\t", typed) for line in lines if line and not line.startswith("#"))
    if option.form == "yaml_file":
        return _strict_yaml("\n".join(_lines(typed, flag)), typed).values
    return typed


def _pair(text: str, sign: str, where: str) -> tuple[str, str]:
    name, found, value = text.partition(sign)
    if not found or not name or not value:
        raise InputError(f"found {text!r}", where=where, fix=f"write NAME{'=' if sign == '=' else ' TAB '}VALUE")
    return name, value


def _lines(path: str, flag: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InputError(f"{path} cannot be read: {reason}", where=flag, fix="check the path") from None
