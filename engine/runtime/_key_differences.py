"""What tells a run from another: said of a folder that holds one when another is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from engine.errors import InputError
from engine.storage.store import Store

_SHOWN = 60


def refuse_other_key(store: Store, frozen: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise InputError, naming each difference, unless the keys are equal."""
    differences = list(_differences(frozen, wanted))
    if differences:
        raise InputError(
            f"this folder holds a run that computes something else: {'; '.join(differences)}",
            where=store.uri,
            fix="choose another output, or use --force to replace it",
        )


def _differences(was: Mapping[str, Any], now: Mapping[str, Any], inside: str = "") -> Iterator[str]:
    """A phrase for each key that differs; of mappings inside, for each of theirs."""
    for key in sorted({*was, *now}):
        one, other = was.get(key), now.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _differences(one, other, f"{inside}{key}.")
        elif one != other:
            before, after = _shown(one, other)
            yield f"{inside}{key} was {before}, now {after}"


def _shown(was: Any, now: Any) -> tuple[str, str]:
    """Two values as texts; of long ones what stands around the first difference."""
    one, other = str(was), str(now)
    same = next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), 0)
    return _around(one, same), _around(other, same)


def _around(text: str, at: int) -> str:
    if len(text) <= _SHOWN:
        return text
    if at < _SHOWN // 2:
        return f"{text[: _SHOWN // 2]}...{text[-_SHOWN // 5 :]}"
    begin = min(max(0, at - _SHOWN // 3), len(text) - _SHOWN)
    end = begin + _SHOWN
    return f"{'...' if begin else ''}{text[begin:end]}{'...' if end < len(text) else ''}"
