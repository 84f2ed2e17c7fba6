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
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine import __version__
from engine.errors import InputError, SystemFailure
from engine.io.source import Shard
from engine.runtime.executors.worker import ONE_THREAD, portable
from engine.runtime.install import check_node
from engine.runtime.parts import PartPublisher
from engine.runtime.receipts import Receipt
from engine.runtime.stages import Stages
from engine.storage import faults

_SHARDS_PER_WAVE = 2000
_IN_FLIGHT = 4
# Logical CPUs of an actor and of a read, the most comfortable first.
_SHARES = ((1.0, 0.5), (0.6, 0.4), (0.5, 0.4), (0.3, 0.4), (0.2, 0.3), (0.1, 0.2), (0.05, 0.1))
# Of the actor under one shard. More than in-process, since shards that only wait behind a deadly one are counted too.
_MAX_DEATHS = 5
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
    with cluster(address):
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

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    actor_cpus, read_cpus = cpu_shares([float(node.get("CPU", 0.0)) for node in nodes], workers)
    gpus = sum(float(node.get("GPU", 0.0)) for node in nodes)
    if gpus < workers * gpus_per_worker:
        raise InputError(
            f"{workers} workers need {workers * gpus_per_worker:g} GPUs, and the cluster has {gpus:g}",
            where="ray",
            fix="ask for fewer --workers, or use --device cpu",
        )
    read = ray.data.read_datasource(
        datasource([_Read(stages, shard) for shard in shards], rows_per_task=1),
        override_num_blocks=len(shards),
        num_cpus=read_cpus,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of max_task_retries, which has no named successor yet
        return _scored(read, stages, publisher, workers=workers, cpus=actor_cpus, gpus=gpus_per_worker)


def _scored(read: Any, stages: Stages, publisher: PartPublisher, *, workers: int, cpus: float, gpus: float) -> Any:
    import ray

    return read.map_batches(
        _Scorer,
        fn_constructor_args=(stages, publisher, __version__),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=_IN_FLIGHT),
        num_cpus=cpus,
        num_gpus=gpus or None,
        max_task_retries=_MAX_DEATHS - 1,  # a shard that kills its actor again and again ends the run
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


def cpu_shares(node_cpus: Sequence[float], workers: int) -> tuple[float, float]:
    """Logical CPUs of an actor and of a read task, given the CPUs of each node.

    Actors hold theirs all run long. Were every node full of them, no read would ever start and the run would wait for
    ever; so the share is such that all actors and one read per node fit. The two differ, or Ray fuses the operators.
    """
    for actor, read in _SHARES:
        if sum(int((cpus - read) / actor + 1e-9) for cpus in node_cpus if cpus >= read) >= workers:
            return actor, read
    raise InputError(
        f"{workers} workers do not fit on {sum(node_cpus):g} CPUs", where="ray", fix="ask for fewer --workers"
    )


def datasource(tasks: Sequence[Callable[[], Any]], *, rows_per_task: int | None = None) -> Any:
    """A Datasource with these read tasks, one block each; its class is made here so that Ray is loaded only when used.

    Args:
        tasks: picklable, each giving the blocks of its task.
        rows_per_task: how many rows a task gives, where that is known.
    """
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata

    class _Tasks(Datasource):
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
            facts = BlockMetadata(num_rows=rows_per_task, size_bytes=None, input_files=None, exec_stats=None)
            return [ReadTask(task, facts, schema=None) for task in tasks]

    return _Tasks()


class _Read:
    """One read task: a shard to a block of one row."""

    def __init__(self, stages: Stages, shard: Shard) -> None:
        self._stages = stages
        self._shard = shard
        self._version = __version__

    def __call__(self) -> Iterable[pa.Table]:
        error = None
        payload = b""
        try:
            read = _opened_reader(self._stages, self._version)
            payload = pickle.dumps(read(self._shard), protocol=pickle.HIGHEST_PROTOCOL)
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


def _opened_reader(stages: Stages, version: str) -> Callable[[Shard], Any]:
    """Readers hold open files and gene tables: one per worker process, kept for its later tasks."""
    key = hashlib.sha256(pickle.dumps(stages)).hexdigest()
    if key not in _readers:
        check_node(version)
        _readers.clear()
        _readers[key] = stages.open_reader()
    return _readers[key]


class _Scorer:
    """The model actor: loads once, publishes parts, returns receipts."""

    def __init__(self, stages: Stages, publisher: PartPublisher, version: str) -> None:
        self._publisher = publisher
        self._failed: tuple[Any, str] | None = None
        try:
            check_node(version)
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
def cluster(address: str) -> Iterator[None]:
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
        raise InputError(
            "Ray is not installed",
            where="--executor ray",
            fix="`make venv` in a checkout installs it; elsewhere pip install 'replisome[ray]'",
        ) from error
    started = not ray.is_initialized()
    # Sockets need a short path, so the folder is not below the output.
    folder = tempfile.mkdtemp(prefix="rpl-", dir="/tmp" if Path("/tmp").is_dir() else None)
    try:
        if started:
            _start(address, folder)
        with _quiet_data_context():
            yield
    finally:
        if started:
            ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _start(address: str, folder: str) -> None:
    import ray

    try:
        with _silent_stderr():  # where Ray's core tells that its level was set
            ray.init(**_init_arguments(address, folder))
    except Exception as error:  # a bare one where its processes take more than 30 s, as on an overloaded machine
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if address == "local":
            raise SystemFailure(f"Ray did not start: {said}", where="ray", fix="run again") from error
        raise InputError(
            f"no Ray cluster answers ({said})", where=f"--address {address}", fix="check that it runs and its address"
        ) from error


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
    logger.setLevel(logging.CRITICAL + 1)  # its errors come back as exceptions, and are told in our one sentence
    try:
        yield
    finally:
        context.target_max_block_size, context.enable_progress_bars, context.print_on_execution_start = former
        logger.setLevel(level)
