"""Who runs the trials of a search, and what a job of it is to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from engine.training._schedule import Job
from engine.training._search import Trial

Work: TypeAlias = Callable[[Job], Trial]
OnEnd: TypeAlias = Callable[[Job, Trial], None]


@dataclass(frozen=True)
class TrialCrew:
    """Attributes:
    executor: "in-process" or "ray".
    parallel: most trials at once.
    workers: processes that share each trial's batches.
    device: "cpu" or "cuda".
    address: of the Ray cluster; "local" starts a private one.
    """

    executor: str = "in-process"
    parallel: int = 1
    workers: int = 1
    device: str = "cpu"
    address: str = "local"
