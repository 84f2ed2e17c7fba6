"""What `replisome models` prints: the models that ship, the facts of one; and the import of others' networks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.models._importing import Found, Licence
    from engine.models._info import ModelInfo

# Name on the command line -> importer.
IMPORTERS = {
    "spliceai": "engine.models._import_spliceai",
    "openspliceai": "engine.models._import_openspliceai",
}


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


def import_networks(
    origin: str,
    folder: str,
    output: str,
    *,
    accept_licence: bool,
    say: Callable[..., None],
    ask: Callable[[], str] | None,
) -> None:
    """Turn the networks of the user's own install into a model folder, once their licence is accepted.

    Args:
        origin: a key of IMPORTERS.
        folder: of the install.
        output: the model folder to make.
        accept_licence: the user has already accepted.
        say: prints lines.
        ask: asks for a word on the terminal and returns it; None where there is no terminal.

    Raises:
        InputError: an unknown origin, an output that is not free, files that are not what they should be, or a licence
            that is not accepted.
    """
    from engine.errors import InputError

    if origin not in IMPORTERS:
        from schemas._base import nearest

        raise InputError(f"no importer named {origin!r}", where="models import", fix=nearest(origin, list(IMPORTERS)))
    importer, place = import_module(IMPORTERS[origin]), Path(output)
    import_module("engine.models._importing").check_output(place)
    found: Found = importer.find(Path(folder))
    names = import_module("engine.models._importing").names_of(found.files)
    say(f"{found.origin}: {_networks(len(found.files))} in {found.files[0].parent}: {names}")
    _agree(found, accepted=accept_licence, say=say, ask=ask)
    info = importer.convert(found, place)
    say(*facts(info.path, as_json=False))


def terminal_question() -> Callable[[], str] | None:
    """Asks on standard error and reads one line; None unless both ends are a terminal."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None

    def ask() -> str:
        print("Accept this licence? Type yes to accept: ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline()

    return ask


def _agree(found: Found, *, accepted: bool, say: Callable[..., None], ask: Callable[[], str] | None) -> None:
    """Show the licence and have it accepted, or refuse."""
    from engine.errors import InputError

    licence = found.licence
    if accepted:
        say(f"licence of the weights: {licence.name}, accepted with --accept-licence")
        return
    say(*_licence_lines(licence))
    if ask is None:
        what = f"the licence of the weights ({licence.name}) has to be accepted, and there is no terminal to ask on"
        raise InputError(what, where=found.origin, fix="read it, then add --accept-licence")
    if ask().strip().lower() not in ("y", "yes"):
        raise InputError(f"the licence {licence.name} was not accepted", where=found.origin, fix="nothing was written")


def _licence_lines(licence: Licence) -> Iterator[str]:
    yield f"licence of the weights: {licence.name}" + (f", as {licence.path} says:" if licence.path else "")
    yield from ("  " + "".join(filter(str.isprintable, line)) for line in licence.text.splitlines())


def _size(info: ModelInfo) -> str:
    return f"{_networks(info.members)}, {info.context_bp:,} bp of context"


def _networks(count: int) -> str:
    return "1 network" if count == 1 else f"{count} networks"


def _section(title: str, values: dict[Any, Any]) -> Iterator[str]:
    if values:
        yield f"{title}:"
    for key, value in values.items():
        text = value if isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)
        yield f"  {key}: {text}"


def _as_dict(info: ModelInfo) -> dict[str, Any]:
    from engine.models._info import spec_of

    return {**spec_of(info), "digest": info.digest, "path": info.path}
