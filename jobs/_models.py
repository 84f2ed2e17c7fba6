"""What `replisome models` prints: the models that ship, and the facts of one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.models._info import ModelInfo


def listing(as_json: bool) -> Iterator[str]:
    """One line per model of the zoo, or one JSON list."""
    from engine.models._info import open_model, zoo_names

    found = [open_model(name) for name in zoo_names()]
    if as_json:
        yield json.dumps([_as_dict(info) for info in found], indent=1)
        return
    width = max((len(info.name) for info in found), default=0)
    for info in found:
        yield f"{info.name:{width}}  {info.version}  {info.architecture}, {_size(info)}, licence {info.licence}"


def facts(name: str, as_json: bool) -> Iterator[str]:
    """The facts of one model, checked against its files.

    Raises:
        InputError: no such model, or a folder that is damaged.
    """
    from engine.models._info import open_model

    info = open_model(name)
    if as_json:
        yield json.dumps(_as_dict(info), indent=1)
        return
    yield f"{info.name} {info.version}: {info.architecture}, {_size(info)}"
    yield f"licence: {info.licence}"
    yield f"digest: {info.digest}"
    yield f"folder: {info.path}"
    for head in info.heads.values():
        yield f"head {head.name}: {', '.join(head.channels)} ({head.activation}, {head.symmetry})"
        if head.meaning:
            yield f"  {head.meaning}"
    yield from _section("measured", info.metrics)
    yield from _section("trained on", dict(enumerate(info.training_data, 1)))
    yield "research use only; the card in the folder says what the model cannot do"


def _size(info: ModelInfo) -> str:
    networks = "1 network" if info.members == 1 else f"{info.members} networks"
    return f"{networks}, {info.context_bp:,} bp of context"


def _section(title: str, values: dict[Any, Any]) -> Iterator[str]:
    if values:
        yield f"{title}:"
    for key, value in values.items():
        text = value if isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)
        yield f"  {key}: {text}"


def _as_dict(info: ModelInfo) -> dict[str, Any]:
    from engine.models._info import spec_of

    return {**spec_of(info), "digest": info.digest, "path": info.path}
