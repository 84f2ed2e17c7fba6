"""One machine, no cluster: reader processes beside N model processes, the driver as the hub between them.

Every process has its own pipe to the driver, so that one killed at any moment takes nothing with it but its own
shards, which go back to the queue. The driver passes batches on unopened.
"""

from __future__ import annotations

import os
import pickle
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from multiprocessing.connection import wait
from typing import TypeAlias

from engine.io.source import Shard
from engine.runtime.executors import worker
from engine.runtime.executors.processes import MAX_DEATHS, Member, Processes
from engine.runtime.parts import PartPublisher
from engine.runtime.receipts import Receipt
from engine.runtime.stages import Stages

_AHEAD = 2
_WORKERS_PER_READER = 4

_Spawned: TypeAlias = Member[Shard]


def run(
    stages: Stages,
    shards: Sequence[Shard],
    publisher: PartPublisher,
    *,
    workers: int,
    num_devices: int = 0,
    processes: Processes | None = None,
    on_receipt: Callable[[Receipt], None],
    on_wait: Callable[[], None],
) -> None:
    """Run all shards; `on_receipt` is called in the driver as each is finished, in any order.

    `on_wait` is called at least every second (heartbeats, progress); either may raise to stop the run. With
    `num_devices` CUDA devices, worker i sees device i modulo their number, and no other. Where `processes` are given
    they serve, as far as they go, and are given back.

    Raises:
        ReplisomeError: the first error of a stage, or a shard whose process died three times.
    """
    if shards:
        num_workers = min(workers, len(shards))
        devices = _devices(num_workers, num_devices) if num_devices else []
        with nullcontext(processes) if processes is not None else Processes() as found:
            pool = _Pool(stages, publisher, deque(shards), found, workers=num_workers, devices=devices)
            with pool.running():
                pool.drive(on_receipt, on_wait)


class _Pool:
    def __init__(
        self,
        stages: Stages,
        publisher: PartPublisher,
        pending: deque[Shard],
        processes: Processes,
        *,
        workers: int,
        devices: Sequence[str] = (),
    ) -> None:
        self._stages = stages
        self._publisher = publisher
        self._pending = pending
        self._processes = processes
        self._left = len(pending)
        self._encoded: deque[tuple[Shard, bytes]] = deque()
        self._deaths: Counter[int] = Counter()
        self._num_workers = workers
        self._devices = devices
        # Where the scorer reads its shards itself, a shard is its own batch and needs no reader.
        self._num_readers = 0 if getattr(stages, "scorer_reads", False) else -(-workers // _WORKERS_PER_READER)
        self._readers: list[_Spawned] = []
        self._scorers: list[_Spawned] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """All processes, ended on the way out however that is."""
        try:
            self._readers = [self._start_reader() for _ in range(self._num_readers)]
            self._scorers = [self._start_scorer(place) for place in range(self._num_workers)]
            yield
        finally:
            for member in (*self._readers, *self._scorers):
                self._processes.let_go(member)

    def drive(self, on_receipt: Callable[[Receipt], None], on_wait: Callable[[], None]) -> None:
        """Pass shards to readers, batches to scorers and receipts to the caller until all are done."""
        while self._left:
            self._feed()
            members = {member.pipe: member for member in (*self._readers, *self._scorers)}
            for pipe in wait(list(members), timeout=1.0):
                self._hear(members[pipe], on_receipt)  # type: ignore[index]
            on_wait()

    def _start_reader(self) -> _Spawned:
        return self._processes.start(worker.reader_main, (self._stages,), "reader")

    def _start_scorer(self, place: int) -> _Spawned:
        """Each scorer sees one device only, and calls it the first."""
        devices = {"CUDA_VISIBLE_DEVICES": self._devices[place]} if self._devices else {}
        return self._processes.start(worker.scorer_main, (self._stages, self._publisher), "scorer", variables=devices)

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

    def _send(self, member: _Spawned, shard: Shard, data: bytes | None = None) -> None:
        try:
            member.pipe.send(shard)
            if data is not None:
                member.pipe.send_bytes(data)
        except OSError:
            return  # its end of file is heard by the next wait, which gives its shards back

    def _hear(self, member: _Spawned, on_receipt: Callable[[Receipt], None]) -> None:
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

    def _replace(self, member: _Spawned) -> None:
        """A process died: give its shards back and start another."""
        member.process.join()
        self._count_death(member)
        self._pending.extendleft(reversed(member.held))
        member.pipe.close()
        if member in self._readers:
            self._readers[self._readers.index(member)] = self._start_reader()
        else:
            place = self._scorers.index(member)
            self._scorers[place] = self._start_scorer(place)

    def _count_death(self, member: _Spawned) -> None:
        first = member.held[0].shard if member.held else -1
        self._deaths[first] += 1
        if self._deaths[first] >= MAX_DEATHS or not member.ready:
            raise member.failure(self._deaths[first], f"shard {first}" if first >= 0 else "before its first shard")


def _devices(workers: int, num_devices: int) -> list[str]:
    """The CUDA device of each worker, in turns over those this process may use."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    known = named.split(",") if named else [str(number) for number in range(num_devices)]
    return [known[place % len(known)] for place in range(workers)]
