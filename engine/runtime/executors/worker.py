"""The bodies of processes on this machine: a reader beside model processes, and one that maps.

Messages are tuples sent over one pipe per process. A closed pipe means that the driver is gone: leave quietly.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from engine.errors import ReplisomeError, SystemFailure
from engine.io.source import Shard
from engine.runtime.memory import keep_freed_memory
from engine.runtime.parts import PartPublisher
from engine.runtime.quick_start import leave_pandas_out
from engine.runtime.stages import Stages
from engine.storage import faults
from engine.storage.store import full_disk

# Equal bytes are promised for one intra-op thread; the libraries read these names once, at import.
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
READY, DONE, FAILED = "ready", "done", "failed"


def main(pipe: Connection, body: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Be one thing after another: a body that returns is followed by the one that is sent next."""
    _ignore_interrupt()
    leave_pandas_out()
    with _until_driver_is_gone():
        while True:
            body(pipe, *arguments)
            body, arguments = pipe.recv()


def reader_main(pipe: Connection, stages: Stages) -> None:
    """Receive shards, send (DONE, shard id, None) and the pickled batch behind it."""
    read = _opened(pipe, stages.open_reader)
    with _until_driver_is_gone():
        while (shard := pipe.recv()) is not None:
            try:
                data = pickle.dumps(read(shard), protocol=pickle.HIGHEST_PROTOCOL)
            except Exception as error:
                pipe.send((FAILED, shard.shard, portable(error, shard)))
                continue
            pipe.send((DONE, shard.shard, None))
            pipe.send_bytes(data)


def scorer_main(pipe: Connection, stages: Stages, publisher: PartPublisher) -> None:
    """Receive shards each followed by its pickled batch; score, publish, send (DONE, shard id, receipt)."""
    inbox: queue.SimpleQueue[tuple[Shard, bytes] | None] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(pipe, inbox), daemon=True).start()
    score = _opened(pipe, stages.open_scorer)
    with _until_driver_is_gone():
        while (item := inbox.get()) is not None:
            shard, data = item
            try:
                faults.reach("scoring")
                receipt = publisher.publish(shard, score(pickle.loads(data)))
            except Exception as error:
                pipe.send((FAILED, shard.shard, portable(error, shard)))
                continue
            pipe.send((DONE, shard.shard, receipt))


def map_main(pipe: Connection, function: bytes) -> None:
    """Receive (number, item), send (DONE, number, result of the pickled function)."""
    keep_freed_memory()
    inbox: queue.SimpleQueue[tuple[int, Any] | None] = queue.SimpleQueue()
    threading.Thread(target=_receive_items, args=(pipe, inbox), daemon=True).start()
    call = _opened(pipe, lambda: pickle.loads(function))
    with _until_driver_is_gone():
        while (numbered := inbox.get()) is not None:
            number, item = numbered
            try:
                faults.reach("mapping")
                result = call(item)
            except Exception as error:
                pipe.send((FAILED, number, portable(error, None)))
                continue
            pipe.send((DONE, number, result))


def _opened(pipe: Connection, opening: Callable[[], Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """Open a stage and say so; what goes wrong here is told like what goes wrong later."""
    with _until_driver_is_gone():
        try:
            stage = opening()
        except Exception as error:
            pipe.send((FAILED, -1, portable(error, None)))
            os._exit(0)
        pipe.send((READY, -1, None))
    return stage


@contextmanager
def _until_driver_is_gone() -> Iterator[None]:
    """A closed pipe means that nobody listens any more."""
    try:
        yield
    except (EOFError, OSError):
        os._exit(0)


def _receive(pipe: Connection, inbox: queue.SimpleQueue[tuple[Shard, bytes] | None]) -> None:
    """Keep the pipe drained, so that the driver never waits for a busy model."""
    try:
        while (shard := pipe.recv()) is not None:
            inbox.put((shard, pipe.recv_bytes()))
        inbox.put(None)
    except (EOFError, OSError):
        os._exit(0)
    except BaseException:  # out of memory, say: without this thread the process would wait for ever
        os._exit(1)


def _receive_items(pipe: Connection, inbox: queue.SimpleQueue[tuple[int, Any] | None]) -> None:
    """As `_receive`, for single messages."""
    try:
        while (numbered := pipe.recv()) is not None:
            inbox.put(numbered)
        inbox.put(None)
    except (EOFError, OSError):
        os._exit(0)
    except BaseException:
        os._exit(1)


def _ignore_interrupt() -> None:
    """Ctrl-C reaches the whole terminal group; the driver alone decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def portable(error: BaseException, shard: Shard | None) -> tuple[ReplisomeError, str]:
    """An error that pickles, beside its trace; anything unforeseen becomes a SystemFailure with its own words."""
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, ReplisomeError):
        return error, trace
    place = "a worker process" if shard is None else f"shard {shard.shard}"
    full = full_disk(error, place)
    if full is not None:
        return full, trace
    said: Any = str(error) or "no message"
    failure = SystemFailure(
        f"unforeseen {type(error).__name__}: {said}", where=place, fix="run again with --debug for the full trace"
    )
    return failure, trace
