"""Ray Data: read tasks (CPU) feed a pool of model actors, on one machine or a cluster.

One shard is one block of one row, whose payload is the pickled batch: a shard without records still has its row, so
none vanishes, and nothing can merge or split a shard. The actor publishes the part and returns only the receipt;
receipts, never the data set, decide what is complete. The settings below are what keeps a block a shard in Ray 2.60.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from engine.errors import InputError, SystemFailure
from engine.io.source import Shard
from engine.runtime.executors.worker import ONE_THREAD, portable
from engine.runtime.parts import PartPublisher
from engine.runtime.receipts import Receipt
from engine.runtime.stages import Stages
from engine.storage import faults

_SHARDS_PER_WAVE = 2000
_IN_FLIGHT = 4
_READ_CPUS = 0.4
_ACTOR_CPUS = 0.6
_OBJECT_STORE_BYTES = 512 << 20


def run(
    stages: Stages,
    shards: Sequence[Shard],
    publisher: PartPublisher,
    *,
    workers: int,
    gpus_per_worker: float,
    address: str,
    on_receipt: Callable[[Receipt], None],
) -> None:
    """Run all shards on Ray; `on_receipt` is called in the driver as each is finished, in any order.

    Raises:
        ReplisomeError: the first error of a stage; SystemFailure where Ray itself fails.
        InputError: Ray is not installed.
    """
    if not shards:
        return
    with _cluster(address):
        for begin in range(0, len(shards), _SHARDS_PER_WAVE):
            wave = shards[begin : begin + _SHARDS_PER_WAVE]
            pool = min(workers, len(wave))
            dataset = _dataset(stages, wave, publisher, workers=pool, gpus_per_worker=gpus_per_worker)
            _collect(dataset, {shard.shard for shard in wave}, on_receipt)


def _dataset(
    stages: Stages, shards: Sequence[Shard], publisher: PartPublisher, *, workers: int, gpus_per_worker: float
) -> Any:
    """Read and score as two operators that overlap."""
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    actor_cpus, read_cpus = _shares(resources.get("CPU", 1.0), workers)
    return ray.data.read_datasource(
        _datasource(stages, shards),
        override_num_blocks=len(shards),
        num_cpus=read_cpus,
    ).map_batches(
        _Scorer,
        fn_constructor_args=(stages, publisher),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=_IN_FLIGHT),
        num_cpus=actor_cpus,
        num_gpus=gpus_per_worker or None,
    )


def _collect(dataset: Any, left: set[int], on_receipt: Callable[[Receipt], None]) -> None:
    """Pass receipts on as they come; every shard must have sent one."""
    import ray

    total = len(left)
    try:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for receipt in _receipts(batch):
                left.discard(receipt.shard)
                on_receipt(receipt)
    except ray.exceptions.RayError as error:
        raise SystemFailure(
            f"Ray failed: {str(error).splitlines()[0]}", where="ray", fix="run again; finished shards are kept"
        ) from error
    if left:
        raise SystemFailure(
            f"Ray ended without {len(left)} of {total} shards (first: {min(left)})",
            where="ray",
            fix="run again; finished shards are kept",
        )


def _receipts(batch: pa.Table) -> Iterator[Receipt]:
    for row in batch.to_pylist():
        if row["error"] is not None:
            error, trace = pickle.loads(row["error"])
            error.add_note(trace)
            raise error
        yield Receipt.from_json(row["receipt"])


def _shares(cpus: float, workers: int) -> tuple[float, float]:
    """Logical CPUs of an actor and of a read: pool and one read always fit, and the two differ, or Ray fuses them."""
    if cpus >= workers + 1:
        return 1.0, 0.5
    share = max(0.05, min(_ACTOR_CPUS, int(100 * (cpus - _READ_CPUS) / workers) / 100))
    return share, _READ_CPUS if share != _READ_CPUS else _READ_CPUS - 0.01


def _datasource(stages: Stages, shards: Sequence[Shard]) -> Any:
    """A Datasource with one read task per shard; the class is made here so that Ray is imported only when used."""
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata

    class _Shards(Datasource):
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]

        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(
            self,
            parallelism: int,  # noqa: ARG002 - the plan decides, not Ray
            per_task_row_limit: int | None = None,  # noqa: ARG002
            data_context: Any = None,  # noqa: ARG002
        ) -> list[Any]:
            return [ReadTask(_Read(stages, shard), _one_row(), schema=None) for shard in shards]

    def _one_row() -> Any:
        return BlockMetadata(num_rows=1, size_bytes=None, input_files=None, exec_stats=None)

    return _Shards()


class _Read:
    """One read task: a shard to a block of one row."""

    def __init__(self, stages: Stages, shard: Shard) -> None:
        self._stages = stages
        self._shard = shard

    def __call__(self) -> Iterable[pa.Table]:
        error = None
        payload = b""
        try:
            payload = pickle.dumps(_opened_reader(self._stages)(self._shard), protocol=pickle.HIGHEST_PROTOCOL)
        except Exception as cause:
            error = pickle.dumps(portable(cause, self._shard))
        yield pa.table(
            {
                "shard": pa.array([pickle.dumps(self._shard)], pa.binary()),
                "payload": pa.array([payload], pa.large_binary()),
                "error": pa.array([error], pa.binary()),
            }
        )


_readers: dict[str, Callable[[Shard], Any]] = {}


def _opened_reader(stages: Stages) -> Callable[[Shard], Any]:
    """Readers hold open files and gene tables: one per worker process, kept for its later tasks."""
    key = hashlib.sha256(pickle.dumps(stages)).hexdigest()
    if key not in _readers:
        _readers.clear()
        _readers[key] = stages.open_reader()
    return _readers[key]


class _Scorer:
    """The model actor: loads once, publishes parts, returns receipts."""

    def __init__(self, stages: Stages, publisher: PartPublisher) -> None:
        self._publisher = publisher
        self._failed: tuple[Any, str] | None = None
        try:
            self._score = stages.open_scorer()
        except Exception as cause:
            self._failed = portable(cause, None)

    def __call__(self, batch: pa.Table) -> pa.Table:
        receipts, errors = [], []
        for row in batch.to_pylist():
            receipt, error = self._finish(row)
            receipts.append(receipt)
            errors.append(error)
        return pa.table({"receipt": pa.array(receipts, pa.string()), "error": pa.array(errors, pa.binary())})

    def _finish(self, row: dict[str, Any]) -> tuple[str | None, bytes | None]:
        shard = pickle.loads(row["shard"])
        if row["error"] is not None or self._failed is not None:
            return None, row["error"] or pickle.dumps(self._failed)
        try:
            faults.reach("scoring")
            return self._publisher.publish(shard, self._score(pickle.loads(row["payload"]))).to_json(), None
        except Exception as cause:
            return None, pickle.dumps(portable(cause, shard))


@contextmanager
def _cluster(address: str) -> Iterator[None]:
    """A private local cluster, the one at `address`, or the one this process is in already."""
    if address == "local" and os.environ.setdefault("RAY_AUTH_MODE", "token") == "token":
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray's core writes its own lines on standard error, below Python's logging; what matters comes back as an error.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError("Ray is not installed", where="--executor ray", fix="pip install 'replisome[ray]'") from error
    started = not ray.is_initialized()
    # Sockets need a short path, so the folder is not below the output.
    folder = tempfile.mkdtemp(prefix="rpl-")
    try:
        if started:
            with _silent_stderr():  # where Ray's core tells that its level was set
                ray.init(**_init_arguments(address, folder))
        with _quiet_data_context():
            yield
    finally:
        if started:
            ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Standard error of this whole process into nothing, for what is written below Python."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _init_arguments(address: str, folder: str) -> dict[str, Any]:
    common = {"logging_level": logging.ERROR, "log_to_driver": False}
    threads = dict.fromkeys(ONE_THREAD, "1")
    if address != "local":
        return {"address": address, "runtime_env": {"env_vars": threads}, **common}
    os.environ.update(threads)
    return {
        "address": "local",
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE_BYTES,
        "_temp_dir": folder,
        **common,
    }


@contextmanager
def _quiet_data_context() -> Iterator[None]:
    """Data settings under which a block stays a shard, put back afterwards."""
    from ray.data import DataContext

    context = DataContext.get_current()
    former = (context.target_max_block_size, context.enable_progress_bars, context.print_on_execution_start)
    context.target_max_block_size = None
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.target_max_block_size, context.enable_progress_bars, context.print_on_execution_start = former
        logger.setLevel(level)
