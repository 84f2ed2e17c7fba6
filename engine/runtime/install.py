"""One program, one place: the three packages must be of one checkout or one wheel."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from engine.errors import InputError

PACKAGES = ("engine", "jobs", "schemas")


def check_installation() -> None:
    """A folder of the same name earlier on the path would replace one of ours.

    Raises:
        InputError: the packages come from different places; each is named.
    """
    places = {}
    for name in PACKAGES:
        spec = find_spec(name)
        places[name] = str(Path(spec.origin).parent.parent) if spec is not None and spec.origin else "nowhere"
    if len(set(places.values())) > 1:
        found = ", ".join(f"{name} from {place}" for name, place in places.items())
        raise InputError(
            f"the packages come from different places: {found}",
            where="import path",
            fix="run from another folder, or install replisome once",
        )
