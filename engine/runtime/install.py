"""One program: the three packages of one checkout or wheel, and of one version on the driver and every node."""

from __future__ import annotations

import socket
from importlib.util import find_spec
from pathlib import Path

from engine import __version__
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


def check_node(version: str) -> None:
    """What a worker on another node checks before its first shard.

    Raises:
        InputError: packages from different places, or of another version than the driver's.
    """
    check_installation()
    if version != __version__:
        raise InputError(
            f"this node has replisome {__version__}, the driver has {version}",
            where=socket.gethostname(),
            fix="install the same version on all nodes, or ship the checkout as Ray's working_dir",
        )
