"""A search without training: what a job gives follows from its trial's params."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import InputError
from engine.training._schedule import Job
from engine.training._search import COMPLETED, PAUSED, Trial

EPOCHS = 9


def trial_at(job: Job) -> Trial:
    """Its curve falls to the trial's x, the faster the larger y is."""
    x, y = job.params["x"], job.params["y"]
    curve = tuple(x + 1 / (1 + epoch * y) for epoch in range(job.until or EPOCHS))
    return Trial(job.trial, job.params, PAUSED if job.until else COMPLETED, curve, curve[-1])


@dataclass(frozen=True)
class ToyWork:
    """Attributes:
    slow: trials that take long.
    killed: trials whose process is killed, once each; `folder` remembers.
    wrong: a trial that raises.
    """

    folder: Path
    slow: tuple[int, ...] = ()
    killed: tuple[int, ...] = ()
    wrong: int | None = None

    def __call__(self, job: Job) -> Trial:
        (self.folder / f"{job.number}-{os.getpid()}").touch()
        token = self.folder / f"killed-{job.trial}"
        if job.trial in self.killed and not token.exists():
            token.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if job.trial == self.wrong:
            raise InputError("no such thing", where=f"trial {job.trial}")
        if job.trial in self.slow:
            time.sleep(0.5)
        return replace(trial_at(job), value=round(trial_at(job).value or 0.0, 9))


def deadly(job: Job) -> Trial:
    """Nothing survives it."""
    os.kill(os.getpid(), signal.SIGKILL)
    return trial_at(job)
