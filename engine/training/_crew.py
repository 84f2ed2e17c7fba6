"""Who trains, and how often their deaths are borne."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.errors import SystemFailure
from engine.training._recipe import Setup

MAX_DEATHS = 3
OnEpoch = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Crew:
    """Attributes:
    executor: "in-process" or "ray".
    workers: processes that share each batch; in-process, one is this process itself.
    device: "cpu" or "cuda"; in-process, worker i takes CUDA device i modulo their number.
    threads: of each worker within one operation, on the CPU.
    address: of the Ray cluster; "local" starts a private one.
    feed: "reader" reads parts in each worker; "ray-data" lets Ray Data read them for it.
    """

    executor: str = "in-process"
    workers: int = 1
    device: str = "cpu"
    threads: int = 1
    address: str = "local"
    feed: str = "reader"


def until_done(setup: Setup, train_once: Callable[[], str | None]) -> None:
    """Call until it gives None; what else it gives says why a worker died.

    Raises:
        SystemFailure: more than MAX_DEATHS deaths.
    """
    for _ in range(MAX_DEATHS + 1):
        why = train_once()
        if why is None:
            return
    raise SystemFailure(
        f"workers died {MAX_DEATHS + 1} times, at last with: {why}",
        where=str(setup.folder),
        fix="give them more memory or use fewer workers; the same command goes on at the last checkpoint",
    )
