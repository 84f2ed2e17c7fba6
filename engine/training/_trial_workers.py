"""Who runs the trials of a search: this process one by one, several of this machine, or the workers of Ray Tune.

What is run and what follows from it is the schedule's (engine/training/_schedule.py), so all of them come to the same
trials. A process that dies has its job done again, from the trial's last checkpoint.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from engine.errors import ReplisomeError, SystemFailure
from engine.runtime.executors.worker import portable
from engine.training._crew import MAX_DEATHS
from engine.training._schedule import Job, Schedule
from engine.training._search import Trial
from engine.training._trial_crew import OnEnd, TrialCrew, Work


def run_jobs(schedule: Schedule, work: Work, crew: TrialCrew, *, on_end: OnEnd, scratch: Path) -> None:
    """Do the jobs of a search to the last.

    Args:
        schedule: says which, and is told their ends.
        work: does one; picklable unless the crew is this process.
        crew: who.
        on_end: told in this process as each ends, in any order.
        scratch: folder that all may write in; it is there only while they run.

    Raises:
        ReplisomeError: what a job raised, or its processes died more than MAX_DEATHS times.
    """
    if crew.executor == "ray":
        from engine.training import _ray_tune

        _ray_tune.run_jobs(schedule, work, crew, on_end=on_end, scratch=scratch)
    elif crew.parallel == 1:
        while (job := schedule.next()) is not None:
            end = work(job)
            schedule.tell(job, end)
            on_end(job, end)
    else:
        _run_in_processes(schedule, work, crew, on_end)


@dataclass
class _Helper:
    process: SpawnProcess
    pipe: Connection
    place: int
    job: Job | None = None

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _run_in_processes(schedule: Schedule, work: Work, crew: TrialCrew, on_end: OnEnd) -> None:
    helpers: list[_Helper] = []
    deaths: Counter[int] = Counter()
    again: list[Job] = []
    try:
        while True:
            while job := _next_job(schedule, again, helpers, crew):
                _begin(job, helpers, work, crew)
            busy = {one.pipe: one for one in helpers if one.job is not None}
            if not busy:
                return
            for pipe in wait(list(busy)):
                helper = busy[pipe]  # type: ignore[index]
                job, helper.job = helper.job, None
                assert job is not None
                end = _heard(helper)
                if end is None:
                    helpers.remove(helper)
                    helper.end()
                    again.append(_spared(job, deaths))
                    continue
                schedule.tell(job, end)
                on_end(job, end)
    finally:
        for helper in helpers:
            helper.end()


def _next_job(schedule: Schedule, again: list[Job], helpers: Sequence[_Helper], crew: TrialCrew) -> Job | None:
    """What is to be begun now."""
    if sum(one.job is not None for one in helpers) == crew.parallel:
        return None
    return again.pop() if again else schedule.next()


def _begin(job: Job, helpers: list[_Helper], work: Work, crew: TrialCrew) -> None:
    """Give a job to a process that has none, or to a new one."""
    for helper in [one for one in helpers if one.job is None]:
        try:
            helper.pipe.send(job)
        except OSError:  # it died without work
            helpers.remove(helper)
            helper.end()
            continue
        helper.job = job
        return
    place = min(set(range(crew.parallel)) - {one.place for one in helpers})
    helper = _started(place, work, crew)
    helpers.append(helper)
    helper.pipe.send(job)
    helper.job = job


def _started(place: int, work: Work, crew: TrialCrew) -> _Helper:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    devices = _devices(place, crew)
    # Not a daemon: those may have no children, and a trial of several workers has them.
    process = context.Process(target=_serve, args=(work, there, devices))
    process.start()
    there.close()
    return _Helper(process, here, place)


def _devices(place: int, crew: TrialCrew) -> str | None:
    """Which CUDA devices a process sees, so that trials lie side by side; None for all."""
    if crew.device != "cuda":
        return None
    import torch

    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = told.split(",") if told else [str(number) for number in range(torch.cuda.device_count())]
    wanted = range(place * crew.workers, (place + 1) * crew.workers)
    return ",".join(dict.fromkeys(names[number % len(names)] for number in wanted)) if names else None


def _heard(helper: _Helper) -> Trial | None:
    """How a job ended; None where the process died of it."""
    try:
        kind, value = helper.pipe.recv()
    except (EOFError, OSError):
        return None
    if kind == "error":
        error, trace = value
        error.add_note(trace)
        raise error
    end: Trial = value
    return end


def _spared(job: Job, deaths: Counter[int]) -> Job:
    """The job, unless it has killed too many."""
    deaths[job.number] += 1
    if deaths[job.number] > MAX_DEATHS:
        raise SystemFailure(
            f"processes that ran trial {job.trial} died {deaths[job.number]} times",
            where="search",
            fix="give them more memory or run fewer trials at once; the same command goes on at the last checkpoint",
        )
    return job


def _serve(work: Work, pipe: Connection, devices: str | None) -> None:
    """A process that does jobs until the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal group; the driver decides
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices
    inbox: queue.SimpleQueue[Job] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(pipe, inbox), daemon=True).start()
    while True:
        job = inbox.get()
        told: tuple[str, Trial | tuple[ReplisomeError, str]]
        try:
            told = ("end", work(job))
        except Exception as error:
            told = ("error", portable(error, None))
        pipe.send(told)


def _receive(pipe: Connection, inbox: queue.SimpleQueue[Job]) -> None:
    """A closed pipe means that the driver is gone: whatever is done, it ends."""
    try:
        while True:
            inbox.put(pipe.recv())
    except (EOFError, OSError):
        os._exit(1)
