"""Who trains: this process, several on this machine that average their gradients, or the workers of Ray Train.

A worker that dies takes the others with it (they would wait for it for ever); the group begins again at the last
checkpoint. Workers end by themselves when their driver is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from engine.errors import ReplisomeError
from engine.training._crew import Crew, OnEpoch, until_done
from engine.training._recipe import Setup

_GRACE_SECONDS = 5.0
_TIMEOUT = timedelta(minutes=30)


def train(setup: Setup, crew: Crew, *, on_epoch: OnEpoch) -> None:
    """Train to the end; the result lies in the run's checkpoints.

    Args:
        setup: the run.
        crew: who trains.
        on_epoch: told the history's new entry after each epoch.

    Raises:
        ReplisomeError: what a worker raised, or workers died more than MAX_DEATHS times.
    """
    if crew.executor == "ray":
        from engine.training import _ray_train

        _ray_train.train(setup, crew, on_epoch=on_epoch)
    elif crew.workers == 1:
        _train_here(setup, crew, on_epoch)
    else:
        until_done(setup, lambda: _train_group(setup, crew, on_epoch))


def _train_here(setup: Setup, crew: Crew, on_epoch: OnEpoch) -> None:
    import torch

    from engine.training._team import Team
    from engine.training.loop import Training

    former = torch.get_num_threads()
    torch.set_num_threads(crew.threads)
    try:
        Training(setup, Team(device=crew.device), on_epoch=on_epoch).run()
    finally:
        torch.set_num_threads(former)


@dataclass
class _Member:
    process: SpawnProcess
    pipe: Connection
    is_done: bool = False


def _train_group(setup: Setup, crew: Crew, on_epoch: OnEpoch) -> str | None:
    """None where all workers came to the end, else why one died."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="replisome-team-") as folder:
        members = []
        for rank in range(crew.workers):
            here, there = context.Pipe()
            place = _Place(rank, crew, str(Path(folder) / "meet"))
            process = context.Process(target=_work, args=(setup, place, there), daemon=True)
            process.start()
            there.close()
            members.append(_Member(process, here))
        try:
            return _attend(members, on_epoch)
        finally:
            for member in members:
                member.process.kill()
                member.process.join()
                member.pipe.close()


def _attend(members: list[_Member], on_epoch: OnEpoch) -> str | None:
    """Hear the workers until all are done (None), or one has failed (why)."""
    while not all(member.is_done for member in members):
        open_ones = {member.pipe: member for member in members if not member.is_done}
        for pipe in wait(list(open_ones)):
            member = open_ones[pipe]  # type: ignore[index]
            told = _heard(member)
            if told is None or told[0] == "died":
                _raise_what_was_said(members)
                return "it was killed" if told is None else str(told[1])
            _take(member, told, on_epoch)
    return None


def _heard(member: _Member) -> tuple[str, Any] | None:
    """The next message, None where the worker is gone."""
    try:
        told: tuple[str, Any] = member.pipe.recv()
    except (EOFError, OSError):
        return None
    return told


def _take(member: _Member, told: tuple[str, Any], on_epoch: OnEpoch) -> None:
    kind, value = told
    if kind == "error":
        raise value
    if kind == "epoch":
        on_epoch(value)
    member.is_done = kind == "done"


def _raise_what_was_said(members: list[_Member]) -> None:
    """A worker whose neighbour failed dies of it: a neighbour's own sentence is what counts."""
    left = [member for member in members if not member.is_done]
    for member in left:
        if member.pipe.poll(_GRACE_SECONDS / len(left)):
            told = _heard(member)
            if told is not None and told[0] == "error":
                raise told[1]


@dataclass(frozen=True)
class _Place:
    """Where a worker stands: its rank in the crew, the file by which they meet."""

    rank: int
    crew: Crew
    meet: str


def _work(setup: Setup, place: _Place, pipe: Connection) -> None:
    """A worker process."""
    threading.Thread(target=_end_with_driver, args=(pipe,), daemon=True).start()
    import torch
    import torch.distributed as dist

    from engine.training._team import Team
    from engine.training.loop import Training

    crew = place.crew
    torch.set_num_threads(crew.threads)
    # Workers of one machine: the loopback device is there on any, and needs no name to be looked up.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    number = f":{place.rank % torch.cuda.device_count()}" if crew.device == "cuda" else ""
    meet = f"file://{place.meet}"
    backend = backend_of(crew.device, crew.workers)
    dist.init_process_group(backend, init_method=meet, rank=place.rank, world_size=crew.workers, timeout=_TIMEOUT)
    try:
        team = Team(rank=place.rank, size=crew.workers, device=crew.device + number)
        Training(setup, team, on_epoch=lambda entry: pipe.send(("epoch", entry))).run()
        dist.barrier()
        pipe.send(("done", None))
    except ReplisomeError as error:
        pipe.send(("error", error))
    except Exception as error:
        # Most often a neighbour's death, seen as a broken connection.
        pipe.send(("died", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"))
    finally:
        dist.destroy_process_group()


def backend_of(device: str, workers: int) -> str:
    """gloo, and NCCL beside it where every worker of this machine has a CUDA device of its own, which NCCL asks for."""
    import torch

    has_own = device == "cuda" and torch.cuda.device_count() >= workers and torch.distributed.is_nccl_available()
    return "cpu:gloo,cuda:nccl" if has_own else "gloo"


def _end_with_driver(pipe: Connection) -> None:
    """The driver never writes: whatever comes is its end."""
    with suppress(EOFError, OSError):
        pipe.recv_bytes()
    os._exit(1)
