"""`map` over processes of this machine: results in the order of the items, whoever made them.

For passes of the driver that are heavy and no shard's own: cutting a plan, joining parts into one result. The items of
a process that dies are done again by another.
"""

from __future__ import annotations

import itertools
import pickle
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing.connection import wait
from typing import Any, TypeAlias, TypeVar

from engine.io.streams import Mapper
from engine.runtime.executors import worker
from engine.runtime.executors.processes import MAX_DEATHS, Member, Processes
from engine.storage import faults

PATIENCE_S = 0.05
"""Less than it takes to start a process."""

_AHEAD = 2
"""Items a process may hold: the next one lies there when one is done."""

_HELD_BACK = 2
"""Results a process may be ahead of the one that is waited for."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Spawned: TypeAlias = Member[tuple[int, Any]]


def ordered_map(processes: Processes, workers: int, *, patience_s: float = PATIENCE_S) -> Mapper:
    """What maps over `workers` processes; with one, Python's own map.

    Functions and items must be picklable, and functions the same whoever calls them. An exception of a function ends
    the map; SystemFailure where processes died three times over the same item. Memory holds a few items and results
    for each process.

    Args:
        processes: where they come from, and go back to when a map is at its end.
        workers: how many.
        patience_s: seconds of work in this process before others are started, as most inputs are small; it goes on
            until the first of them is there. With 0 nothing is done here.
    """
    return map if workers == 1 else _OrderedMap(processes, workers, patience_s)


class _OrderedMap:
    def __init__(self, processes: Processes, workers: int, patience_s: float) -> None:
        self._processes = processes
        self._workers = workers
        self._patience_s = patience_s

    def __call__(self, function: Callable[[_Item], _Result], items: Iterable[_Item], /) -> Iterator[_Result]:
        """See `ordered_map`."""
        once = _Once(self._processes, self._workers, pickle.dumps(function))
        numbered = enumerate(items)
        try:
            num_done = yield from self._until_started(function, numbered, once)
            yield from once.results(numbered, num_done)
        finally:
            once.end()

    def _until_started(
        self, function: Callable[[_Item], _Result], items: Iterator[tuple[int, _Item]], once: _Once
    ) -> Generator[_Result, None, int]:
        """Do the first items here, at last while processes start; how many that were."""
        num_done, start_at = 0, time.monotonic() + self._patience_s
        if not self._patience_s:
            once.start()
            return num_done
        for _, item in items:
            yield function(item)
            num_done += 1
            if not once.is_started and time.monotonic() >= start_at:
                once.start()
            if once.is_heard():
                break
        return num_done


class _Once:
    """One map."""

    def __init__(self, processes: Processes, workers: int, function: bytes) -> None:
        self._processes = processes
        self._workers = workers
        self._function = function
        self._members: list[_Spawned] = []
        self._deaths: Counter[int] = Counter()
        self._waiting: deque[tuple[int, Any]] = deque()

    @property
    def is_started(self) -> bool:
        return bool(self._members)

    def start(self) -> None:
        self._members = [self._start() for _ in range(self._workers)]

    def is_heard(self) -> bool:
        """Whether a process has something to say."""
        return bool(wait([member.pipe for member in self._members], timeout=0)) if self._members else False

    def end(self) -> None:
        """Let go of all processes."""
        for member in self._members:
            self._processes.let_go(member)
        self._members = []

    def results(self, items: Iterator[tuple[int, Any]], first: int) -> Iterator[Any]:
        done: dict[int, Any] = {}
        for due in itertools.count(first):
            while due not in done:
                self._feed(items, most=due + self._workers * (_AHEAD + _HELD_BACK))
                busy: dict[Any, _Spawned] = {member.pipe: member for member in self._members if member.held}
                if not busy:
                    return
                for pipe in wait(list(busy)):
                    self._hear(busy[pipe], done)
            yield done.pop(due)

    def _feed(self, items: Iterator[tuple[int, Any]], *, most: int) -> None:
        """Give items out, those before `most`; whoever has least gets the next."""
        for num_held in range(_AHEAD):
            for member in [one for one in self._members if len(one.held) == num_held]:
                if not self._waiting:
                    self._waiting.extend(itertools.islice(items, 1))
                if not self._waiting or self._waiting[0][0] >= most:
                    return
                member.held.append(self._waiting.popleft())
                self._send(member)

    def _hear(self, member: _Spawned, done: dict[int, Any]) -> None:
        try:
            kind, number, content = member.pipe.recv()
        except (EOFError, OSError):
            self._replace(member)
            return
        if kind == worker.READY:
            member.ready = True
        elif kind == worker.FAILED:
            error, trace = content
            error.add_note(trace)
            raise error
        else:
            first, _ = member.held.popleft()
            assert first == number
            done[number] = content
            faults.reach("mapped")

    def _replace(self, member: _Spawned) -> None:
        """A process died: its items are given out again, first of all."""
        member.process.join()
        first = member.held[0][0]
        self._deaths[first] += 1
        if self._deaths[first] >= MAX_DEATHS or not member.ready:
            raise member.failure(self._deaths[first], "a pass of the driver")
        self._waiting.extendleft(reversed(member.held))
        member.pipe.close()
        self._members[self._members.index(member)] = self._start()

    def _start(self) -> _Spawned:
        return self._processes.start(worker.map_main, (self._function,), "helper")

    def _send(self, member: _Spawned) -> None:
        try:
            member.pipe.send(member.held[-1])
        except OSError:
            return  # its end of file is heard by the next wait
