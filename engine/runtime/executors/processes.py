"""Processes of this machine, each with its own pipe to the driver, so that one killed takes nothing else with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from engine.errors import SystemFailure
from engine.runtime.executors import worker

MAX_DEATHS = 3
"""How often processes may die over one piece of work."""

_Held = TypeVar("_Held")


@dataclass
class Member(Generic[_Held]):
    """A process with its pipe and the work it holds, in order.

    Attributes:
        name: what it is at the moment, for messages.
        shared: whether it may be something else after this.
        ready: whether it has said so.
    """

    process: SpawnProcess
    pipe: Connection
    name: str = ""
    shared: bool = True
    held: deque[_Held] = field(default_factory=deque)
    ready: bool = False

    def end(self) -> None:
        """End it, gently at first."""
        self.pipe.close()
        self.process.join(timeout=0.2)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join(timeout=5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def failure(self, deaths: int, place: str) -> SystemFailure:
        """Of a process that ended: how, and what to do."""
        code = self.process.exitcode or 0
        if code < 0:
            how = f"was killed by signal {-code}"
            fix = "it may have run out of memory: fewer workers or a smaller micro_batch need less; then run again"
        else:
            how = f"ended with code {code}"
            fix = "what it printed says why; a script of your own must call run() below `if __name__ == '__main__':`"
        return SystemFailure(f"a {self.name} process {how} ({deaths} times)", where=place, fix=fix)


class Processes:
    """Processes that are one thing after another: what is let go of serves again, so that few are started."""

    def __init__(self) -> None:
        """None are started yet."""
        self._spare: list[Member[Any]] = []
        self._started: list[SpawnProcess] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End all: those that nobody uses gently, and those that who was stopped half-way still holds."""
        while self._spare:
            self._spare.pop().end()
        for process in self._started:
            process.terminate()
            process.join(timeout=5)
            if process.is_alive():
                process.kill()
                process.join()

    def start(
        self,
        body: Callable[..., None],
        arguments: tuple[Any, ...],
        name: str,
        *,
        variables: Mapping[str, str] | None = None,
    ) -> Member[Any]:
        """A process that computes on one thread.

        Args:
            body: of a module that can be imported; called with its end of the pipe and then `arguments`. It says
                READY, takes what is sent, and returns on None.
            arguments: picklable.
            name: for messages.
            variables: of its environment, beside ours; such a process is used once.
        """
        while self._spare and not variables:
            spare = self._spare.pop()
            member: Member[Any] = Member(spare.process, spare.pipe, name)
            try:
                member.pipe.send((body, arguments))
            except OSError:  # it died while nobody used it
                member.end()
                continue
            return member
        return self._spawn(body, arguments, name, variables or {})

    def _spawn(
        self, body: Callable[..., None], arguments: tuple[Any, ...], name: str, variables: Mapping[str, str]
    ) -> Member[Any]:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=worker.main, args=(theirs, body, arguments), name=name, daemon=True)
        with _environment({**dict.fromkeys(worker.ONE_THREAD, "1"), **variables}), _signals_held():
            process.start()
        theirs.close()
        self._started.append(process)
        return Member(process, ours, name, shared=not variables)

    def cpu_seconds(self) -> float:
        """What those that have not ended have used so far; 0 where the system has no /proc."""
        return sum(_cpu_seconds(process.pid) for process in self._started if process.pid is not None)

    def let_go(self, member: Member[Any]) -> None:
        """Keep a process for the next use; one that has work left, or none to come, is ended."""
        if member.shared and member.ready and not member.held:
            try:
                member.pipe.send(None)
            except OSError:
                pass
            else:
                self._spare.append(member)
                return
        member.end()


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process; 0 once it has ended and its parent has been told."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    user, system = told.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _signals_held() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back while a process starts, and let it inherit a blocked SIGINT.

    A start broken off half-way, and a Ctrl-C that reaches a process still importing, would each print a trace.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    resource_tracker.ensure_running()  # which unblocks SIGINT the first time a process starts
    caught: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    former = {number: signal.signal(number, lambda found, _: caught.append(found)) for number in numbers}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        # Unblocked first: a SIGINT that waited is then caught like the rest, and told below.
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in former.items():
            signal.signal(number, handler)
        if caught:
            signal.raise_signal(caught[0])


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Variables as a process that is started here inherits them."""
    former = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
