"""The feed of training by Ray Data: read tasks make blocks of some steps, ahead of the workers that take them.

One actor, the desk, runs the data sets for all workers of a run. It is there before the workers are, so that the first
batch waits for them; and it reads on over the ends of epochs, so that no epoch waits for its first batch. A read task
waits for its turn at the desk: Ray Data's own limit, the size of its store, would let it read far ahead, and while it
holds back tasks by it, its scheduler spins on a whole core (Ray 2.60: `process_completed_tasks` waits for running tasks
alone, and there are none).
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from engine import __version__
from engine.errors import ReplisomeError
from engine.runtime.executors.ray_data import datasource
from engine.runtime.install import check_node
from engine.training._batches import Batch, BatchLoader
from engine.training._ray_blocks import Block, Steps, unpacked
from engine.training._ray_stream import Cut, Stream
from engine.training._sample_plan import SamplePlan

if TYPE_CHECKING:
    from engine.training._recipe import Setup

# A block holds whole steps: enough that a window's row groups are not read again for every few samples, yet no more
# than this many bytes of tokens.
_BLOCKS_PER_WINDOW, _BLOCK_BYTES = 4, 32 << 20
# Beyond those that every worker has taken; each has one in use and one at hand. The store holds a few times as much.
_BLOCKS_AHEAD = 2
# A block's samples lie in all groups of their window, which whoever reads it decodes: several readers decode the same
# groups beside each other. One keeps up with the networks of two workers.
_WORKERS_PER_READER = 2
# Of a read task: small, so that reads fit beside workers that hold their CPUs all run long.
_READ_CPUS = 0.1
# Of one data set: each costs a millisecond before the first is read. The next begins while blocks of this one are left.
_TASKS_AT_ONCE = 64
_CLOSE_SECONDS = 10.0


@contextmanager
def desk(setup: Setup, *, num_workers: int, epoch: int = 0, step: int = 0) -> Iterator[Any]:
    """Handle of an actor that begins at once to read what the workers will ask for; its end is the end of all reading.

    Args:
        setup: the run.
        num_workers: of the team.
        epoch, step: the first step that will be asked for; another costs a new beginning.
    """
    import ray

    plan = setup.train_plan()
    cut = Cut(plan.num_steps, steps_per_block(setup, plan), epoch, step, setup.recipe.epochs)
    # Stored once; every read task would otherwise carry the places of all rows.
    shared = ray.put(pickle.dumps(setup))
    actor: Any = ray.remote(Desk)
    options = {"num_cpus": 0, "max_concurrency": 3 * num_workers + 8}
    handle = actor.options(**options).remote([shared], cut, num_workers, _TASKS_AT_ONCE, __version__)
    handle.begin.remote()
    try:
        yield handle
    finally:
        try:
            with suppress(ray.exceptions.RayError):
                ray.get(handle.close.remote(), timeout=_CLOSE_SECONDS)
        finally:
            ray.kill(handle)


def steps_per_block(setup: Setup, plan: SamplePlan) -> int:
    """How many steps a block holds."""
    size = setup.kind.wire_bytes(setup.train)
    wanted = -(-min(plan.window, plan.num_samples) // (_BLOCKS_PER_WINDOW * plan.batch_size))
    return max(1, min(wanted, _BLOCK_BYTES // (plan.batch_size * size)))


class Desk:
    """Runs the data sets; an actor of as many threads as may wait at it.

    Args:
        shared: the pickled setup, in Ray's store.
        cut: the blocks.
        num_workers: of the team.
        at_once: blocks of one data set.
        version: of the package.
    """

    def __init__(self, shared: list[Any], cut: Cut, num_workers: int, at_once: int, version: str) -> None:
        self._shared, self._cut, self._num_workers, self._version = shared[0], cut, num_workers, version
        self._at_once = at_once
        self._readers = -(-num_workers // _WORKERS_PER_READER)
        self._lock = threading.Lock()
        self._streams: list[Stream] = []
        self._pump: threading.Thread | None = None

    def begin(self) -> None:
        """Begin to read."""
        with self._lock:
            if not self._streams:
                self._begin(self._cut.epoch, self._cut.step)

    def take(self, rank: int, epoch: int, step: int) -> tuple[Steps, list[Any]]:
        """A worker's share of the block that begins there: its steps, and where it lies in Ray's store.

        A place that is not the worker's next begins the stream anew there, and ends what was asked for before.
        """
        with self._lock:
            stream = self._streams[-1] if self._streams else None
            number = stream.cut.number_of(epoch, step) if stream else None
            if stream is None or number is None or not stream.is_next(rank, number):
                stream, number = self._begin(epoch, step), 0
        return stream.cut[number], [stream.take(rank, number)]

    def turn(self, stream: int, number: int) -> bool:
        """See Stream."""
        return self._streams[stream].turn(number)

    def close(self) -> None:
        """Stop reading."""
        with self._lock:
            self._stop()

    def _begin(self, epoch: int, step: int) -> Stream:
        import ray

        self._stop()
        cut = Cut(self._cut.num_steps, self._cut.steps_per_block, epoch, step, max(self._cut.epochs, epoch + 1))
        stream = Stream(cut, self._num_workers, _BLOCKS_AHEAD + self._readers - 1)
        self._streams.append(stream)
        me = ray.get_runtime_context().current_actor
        self._pump = threading.Thread(target=self._read, args=(stream, len(self._streams) - 1, me), daemon=True)
        self._pump.start()
        return stream

    def _stop(self) -> None:
        if self._pump is not None:
            self._streams[-1].close()
            self._pump.join()
            self._pump = None

    def _read(self, stream: Stream, name: int, me: Any) -> None:
        """Run one data set after the other."""
        import ray.data

        try:
            check_node(self._version)
            _set_context()
            for begin in range(0, len(stream.cut), self._at_once):
                numbers = range(begin, min(begin + self._at_once, len(stream.cut)))
                tasks = [
                    _Read(self._shared, _Turn(me, name, number), stream.cut[number], self._num_workers, self._version)
                    for number in numbers
                ]
                read = ray.data.read_datasource(
                    datasource(tasks), override_num_blocks=len(tasks), num_cpus=_READ_CPUS, concurrency=self._readers
                )
                for bundle in read.iter_internal_ref_bundles():
                    for entry in bundle.blocks:
                        stream.give(entry.ref)
                if stream.is_closed:
                    return
        except Exception as error:
            stream.fail(error)


def _set_context() -> None:
    """Quiet; each table that a task yields is a block, and they come in the order of the tasks."""
    from ray.data import DataContext

    context = DataContext.get_current()
    # A table of one row cannot be cut, and is never put with the next: this is less than any.
    context.target_max_block_size = 1
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    context.execution_no_progress_timeout_s = -1  # a validation may take as long as it likes


@dataclass(frozen=True)
class _Turn:
    """Of a block, at the desk."""

    desk: Any
    stream: int
    number: int

    def came(self) -> bool:
        """Wait for it; false where the block is not wanted any more."""
        import ray

        return bool(ray.get(self.desk.turn.remote(self.stream, self.number)))


class _Read:
    """One read task: a table for each worker."""

    def __init__(self, shared: Any, turn: _Turn, steps: Steps, num_workers: int, version: str) -> None:
        self._shared, self._turn, self._steps = shared, turn, steps
        self._num_workers, self._version = num_workers, version

    def __call__(self) -> Iterable[pa.Table]:
        if self._turn.came():
            for rank in range(self._num_workers):
                yield self._block(rank).packed()

    def _block(self, rank: int) -> Block:
        epoch, batches = self._steps.epoch, []
        try:
            plan, loader = _opened(self._shared, self._version)
            for step in range(self._steps.first, self._steps.last):
                ids = plan.share(epoch, step, rank=rank, num_workers=self._num_workers)
                batches.append(loader.load(ids, epoch=epoch))
        except ReplisomeError as error:
            return Block(self._steps, rank, batches, error)
        return Block(self._steps, rank, batches)


@lru_cache(maxsize=1)
def _opened(shared: Any, version: str) -> tuple[SamplePlan, BatchLoader]:
    """One loader per process of Ray Data, kept with its row groups for later tasks of the same run."""
    import ray

    check_node(version)
    setup: Setup = pickle.loads(ray.get(shared))
    return setup.train_plan(), setup.train_loader()


class DataFeed:
    """A worker's end of it: a feed (engine/training/_batches.py) that has its next block fetched while one is used.

    All workers of the team must take theirs: reading waits for the slowest.

    Args:
        desk: see there.
        rank: of this worker.
        num_steps: of an epoch.
        epochs: of the run.
    """

    def __init__(self, desk: Any, *, rank: int, num_steps: int, epochs: int) -> None:
        self._desk, self._rank, self._num_steps, self._epochs = desk, rank, num_steps, epochs
        self._coming: dict[tuple[int, int], Future[tuple[Steps, pa.Table]]] = {}

    def __call__(self, *, epoch: int, first_step: int) -> Iterator[Batch]:
        """See Feed.

        Raises:
            ReplisomeError: what a step's samples could not be read for, at its turn.
        """
        step = first_step
        while step < self._num_steps:
            steps, table = self._asked(epoch, step).result()
            self._coming.clear()
            step = steps.last
            if step < self._num_steps:
                self._asked(epoch, step)
            elif epoch + 1 < self._epochs:
                self._asked(epoch + 1, 0)
            yield from unpacked(table, steps=steps, rank=self._rank)

    def _asked(self, epoch: int, step: int) -> Future[tuple[Steps, pa.Table]]:
        """The block that begins there, fetched by a thread that no one need wait for."""
        if (epoch, step) not in self._coming:
            answer: Future[tuple[Steps, pa.Table]] = Future()
            self._coming[epoch, step] = answer
            threading.Thread(target=self._fetch, args=(epoch, step, answer), daemon=True).start()
        return self._coming[epoch, step]

    def _fetch(self, epoch: int, step: int, answer: Future[tuple[Steps, pa.Table]]) -> None:
        import ray

        try:
            steps, (place,) = ray.get(self._desk.take.remote(self._rank, epoch, step))
            answer.set_result((steps, ray.get(place)))
        except ray.exceptions.RayTaskError as error:
            answer.set_exception(error.cause if isinstance(error.cause, ReplisomeError) else error)
        except Exception as error:
            answer.set_exception(error)
