"""One machine, no cluster: reader processes beside N model processes, the driver as the hub between them.

Every process has its own pipe to the driver, so that one killed at any moment takes nothing with it but its own
shards, which go back to the queue. The driver passes batches on unopened.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from engine.errors import SystemFailure
from engine.io.source import Shard
from engine.runtime.executors import worker
from engine.runtime.parts import PartPublisher
from engine.runtime.receipts import Receipt
from engine.runtime.stages import Stages

_MAX_DEATHS = 3
_AHEAD = 2
_WORKERS_PER_READER = 4


@dataclass
class _Member:
    """A process with its pipe and the shards it holds."""

    process: SpawnProcess
    pipe: Connection
    held: deque[Shard] = field(default_factory=deque)
    ready: bool = False


def run(
    stages: Stages,
    shards: Sequence[Shard],
    publisher: PartPublisher,
    *,
    workers: int,
    num_devices: int = 0,
    on_receipt: Callable[[Receipt], None],
    on_wait: Callable[[], None],
) -> None:
    """Run all shards; `on_receipt` is called in the driver as each is finished, in any order.

    `on_wait` is called at least every second (heartbeats, progress); either may raise to stop the run. With
    `num_devices` CUDA devices, worker i sees device i modulo their number, and no other.

    Raises:
        ReplisomeError: the first error of a stage, or a shard whose process died three times.
    """
    if shards:
        num_workers = min(workers, len(shards))
        devices = _devices(num_workers, num_devices) if num_devices else []
        pool = _Pool(stages, publisher, deque(shards), workers=num_workers, devices=devices)
        with pool.running():
            pool.drive(on_receipt, on_wait)


class _Pool:
    def __init__(
        self,
        stages: Stages,
        publisher: PartPublisher,
        pending: deque[Shard],
        *,
        workers: int,
        devices: Sequence[str] = (),
    ) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._stages = stages
        self._publisher = publisher
        self._pending = pending
        self._left = len(pending)
        self._encoded: deque[tuple[Shard, bytes]] = deque()
        self._deaths: Counter[int] = Counter()
        self._num_workers = workers
        self._devices = devices
        # Where the scorer reads its shards itself, a shard is its own batch and needs no reader.
        self._num_readers = 0 if getattr(stages, "scorer_reads", False) else -(-workers // _WORKERS_PER_READER)
        self._readers: list[_Member] = []
        self._scorers: list[_Member] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """All processes, ended on the way out however that is."""
        try:
            with _one_thread_per_process():
                self._readers = [self._start_reader() for _ in range(self._num_readers)]
                self._scorers = [self._start_scorer(place) for place in range(self._num_workers)]
            yield
        finally:
            for member in (*self._readers, *self._scorers):
                _end(member)

    def drive(self, on_receipt: Callable[[Receipt], None], on_wait: Callable[[], None]) -> None:
        """Pass shards to readers, batches to scorers and receipts to the caller until all are done."""
        while self._left:
            self._feed()
            members = {member.pipe: member for member in (*self._readers, *self._scorers)}
            for pipe in wait(list(members), timeout=1.0):
                self._hear(members[pipe], on_receipt)  # type: ignore[index]
            on_wait()

    def _start_reader(self) -> _Member:
        return self._start(worker.reader_main, (self._stages,), "reader")

    def _start_scorer(self, place: int) -> _Member:
        """Each scorer sees one device only, and calls it the first."""
        with _environment({"CUDA_VISIBLE_DEVICES": self._devices[place]} if self._devices else {}):
            return self._start(worker.scorer_main, (self._stages, self._publisher), "scorer")

    def _start(self, body: Callable[..., None], arguments: tuple[Any, ...], name: str) -> _Member:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=body, args=(theirs, *arguments), name=name, daemon=True)
        with _signals_held():
            process.start()
        theirs.close()
        return _Member(process, ours)

    def _feed(self) -> None:
        """Readers stay `_AHEAD` batches before the scorers, and no further: memory stays bounded.

        The last batches wait here for whoever is free first: one queued behind a long shard would wait for its end.
        """
        while not self._num_readers and self._pending and self._num_ahead() < self._num_workers:
            shard = self._pending.popleft()
            self._encoded.append((shard, pickle.dumps(shard)))
        for num_held in range(_AHEAD):
            for scorer in self._scorers:
                unassigned = len(self._pending) + self._num_ahead()
                is_free = len(scorer.held) == num_held and (num_held == 0 or unassigned > self._num_workers)
                if self._encoded and is_free:
                    shard, data = self._encoded.popleft()
                    scorer.held.append(shard)
                    self._send(scorer, shard, data)
        most = _AHEAD * self._num_readers + self._num_workers
        for reader in self._readers:
            while self._pending and len(reader.held) < _AHEAD and self._num_ahead() < most:
                shard = self._pending.popleft()
                reader.held.append(shard)
                self._send(reader, shard)

    def _num_ahead(self) -> int:
        return len(self._encoded) + sum(len(reader.held) for reader in self._readers)

    def _send(self, member: _Member, shard: Shard, data: bytes | None = None) -> None:
        try:
            member.pipe.send(shard)
            if data is not None:
                member.pipe.send_bytes(data)
        except OSError:
            return  # its end of file is heard by the next wait, which gives its shards back

    def _hear(self, member: _Member, on_receipt: Callable[[Receipt], None]) -> None:
        try:
            kind, shard_id, content = member.pipe.recv()
            is_batch = kind == worker.DONE and member in self._readers
            data = member.pipe.recv_bytes() if is_batch else b""
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
            shard = next(shard for shard in member.held if shard.shard == shard_id)
            member.held.remove(shard)
            if is_batch:
                self._encoded.append((shard, data))
            else:
                self._left -= 1
                on_receipt(content)

    def _replace(self, member: _Member) -> None:
        """A process died: give its shards back and start another."""
        member.process.join()
        self._count_death(member)
        self._pending.extendleft(reversed(member.held))
        member.pipe.close()
        with _one_thread_per_process():
            if member in self._readers:
                self._readers[self._readers.index(member)] = self._start_reader()
            else:
                place = self._scorers.index(member)
                self._scorers[place] = self._start_scorer(place)

    def _count_death(self, member: _Member) -> None:
        first = member.held[0].shard if member.held else -1
        self._deaths[first] += 1
        if self._deaths[first] >= _MAX_DEATHS or not member.ready:
            code = member.process.exitcode or 0
            if code < 0:
                how = f"was killed by signal {-code}"
                fix = "it may have run out of memory: fewer workers or a smaller micro_batch need less; then run again"
            else:
                how = f"ended with code {code}"
                fix = (
                    "what it printed says why; a script of your own must call run() below `if __name__ == '__main__':`"
                )
            place = f"shard {first}" if first >= 0 else "before its first shard"
            raise SystemFailure(
                f"a {member.process.name} process {how} ({self._deaths[first]} times)",
                where=place,
                fix=fix,
            )


def _end(member: _Member) -> None:
    member.pipe.close()
    member.process.join(timeout=0.2)
    if member.process.is_alive():
        member.process.terminate()
        member.process.join(timeout=5)
    if member.process.is_alive():
        member.process.kill()
        member.process.join()


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


def _devices(workers: int, num_devices: int) -> list[str]:
    """The CUDA device of each worker, in turns over those this process may use."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    known = named.split(",") if named else [str(number) for number in range(num_devices)]
    return [known[place % len(known)] for place in range(workers)]


def _one_thread_per_process() -> AbstractContextManager[None]:
    return _environment(dict.fromkeys(worker.ONE_THREAD, "1"))


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
