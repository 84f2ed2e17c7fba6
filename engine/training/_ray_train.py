"""Training by the workers of Ray Train, on this machine or a cluster whose nodes share the paths of the run.

The loop, its checkpoints and what follows a death are those of the other executor; Ray places the workers, joins them
to a process group and, with the feed "ray-data", reads the parts for them.
"""

from __future__ import annotations

import pickle
import shutil
import threading
import uuid
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa

from engine import __version__
from engine.errors import InputError, ReplisomeError
from engine.runtime.executors.ray_data import cluster, cpu_shares, datasource
from engine.runtime.install import check_node
from engine.training._batches import Batch, BatchLoader
from engine.training._crew import Crew, OnEpoch, until_done
from engine.training._recipe import Setup
from engine.training._sample_plan import SamplePlan

_TIMEOUT_SECONDS = 1800
# A block holds whole steps: enough that a window's row groups are not read again for every few samples, yet no more
# than this many bytes of tokens.
_BLOCKS_PER_WINDOW, _BLOCK_BYTES = 4, 32 << 20
_BLOCKS_AHEAD = 2
# At once, for each worker. A block's samples lie in all groups of their window, which whoever reads it decodes: several
# readers would decode the same groups beside each other.
_READERS = 1
# Of a read task: small, so that reads fit beside workers that hold their CPUs all run long.
_READ_CPUS = 0.1
_END = None


def train(setup: Setup, crew: Crew, *, on_epoch: OnEpoch) -> None:
    """See engine/training/_workers.py.

    Raises:
        InputError: Ray is not installed, no cluster answers, or the workers do not fit on it.
        ReplisomeError: what a worker raised, or workers died too often.
    """
    with cluster(crew.address):
        cpus = _worker_cpus(crew)
        with _told(on_epoch) as mail:
            until_done(setup, lambda: _fit(setup, crew, cpus, mail))


def _worker_cpus(crew: Crew) -> float:
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    gpus = sum(float(node.get("GPU", 0.0)) for node in nodes)
    if crew.device == "cuda" and gpus < crew.workers:
        raise InputError(
            f"{crew.workers} workers need as many GPUs, and the cluster has {gpus:g}",
            where="ray",
            fix="ask for fewer --workers, or use --device cpu",
        )
    return cpu_shares([float(node.get("CPU", 0.0)) for node in nodes], crew.workers)[0]


@contextmanager
def _told(on_epoch: OnEpoch) -> Iterator[Any]:
    """A queue that workers put the history's entries in, and a thread that passes them on."""
    from ray.util.queue import Queue

    mail = Queue(actor_options={"num_cpus": 0})

    def listen() -> None:
        while (entry := mail.get()) is not _END:
            on_epoch(entry)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield mail
    finally:
        mail.put(_END)
        listener.join()
        mail.shutdown()


def _fit(setup: Setup, crew: Crew, cpus: float, mail: Any) -> str | None:
    """None where all workers came to the end, else why one died."""
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    # Ray keeps a few small files of its own; a name of their own lets it find no former run to go on with.
    place = setup.folder / "checkpoints" / ".ray"
    trainer = TorchTrainer(
        _work,
        train_loop_config={"setup": setup, "crew": crew, "mail": mail, "version": __version__},
        torch_config=TorchConfig(
            backend="cpu:gloo,cuda:nccl" if crew.device == "cuda" else "gloo", timeout_s=_TIMEOUT_SECONDS
        ),
        scaling_config=ray.train.ScalingConfig(
            num_workers=crew.workers, use_gpu=crew.device == "cuda", resources_per_worker={"CPU": cpus}
        ),
        run_config=ray.train.RunConfig(  # type: ignore[call-arg]  # the second version's, chosen when imported
            name=uuid.uuid4().hex,
            storage_path=str(place),
            # Deaths are counted by until_done, which knows a dead worker from one that found bad input.
            failure_config=ray.train.FailureConfig(max_failures=0),
            logging_config=ray.train.LoggingConfig(log_level="CRITICAL"),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        return _cause(error)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return None


def _cause(error: Any) -> str:
    """Raise what a worker had to say, or tell why it died."""
    failures = getattr(error, "worker_failures", {})
    causes = [getattr(one, "_base_exc", one) for _, one in sorted(failures.items())]
    for cause in causes:
        if isinstance(cause, ReplisomeError):
            raise cause from None
    last = causes[0] if causes else error
    return f"{type(last).__name__}: {' '.join(str(last).split())[:300]}"


def _work(config: dict[str, Any]) -> None:
    """A worker of Ray Train; its process group is there."""
    import ray.train
    import torch

    from engine.training._team import Team
    from engine.training.loop import Training

    check_node(config["version"])
    setup, crew, mail = config["setup"], config["crew"], config["mail"]
    torch.set_num_threads(crew.threads)
    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    device = str(ray.train.torch.get_device()) if crew.device == "cuda" else "cpu"
    feed = DataFeed(setup, rank=rank, num_workers=size) if crew.feed == "ray-data" else None
    Training(setup, Team(rank=rank, size=size, device=device), feed=feed, on_epoch=mail.put).run()


@dataclass(frozen=True)
class _Steps:
    """The steps first to last - 1 of an epoch, for one worker."""

    epoch: int
    first: int
    last: int


class DataFeed:
    """A feed by Ray Data: one read task for a run of steps, one row for a step. See engine/training/_batches.py.

    The sample plan decides what a row holds, so it does not matter which task ends first: rows wait for their turn.

    Args:
        setup: the run.
        rank: of this worker.
        num_workers: of the team.
    """

    def __init__(self, setup: Setup, *, rank: int, num_workers: int) -> None:
        import ray

        self._plan = setup.train_plan()
        self._rank, self._num_workers = rank, num_workers
        self._steps_per_block = _steps_per_block(setup, self._plan)
        # Stored once; every read task would otherwise carry the places of all rows.
        self._shared = ray.put(pickle.dumps(setup))

    def __call__(self, *, epoch: int, first_step: int) -> Iterator[Batch]:
        """See Feed."""
        if first_step >= self._plan.num_steps:
            return
        waiting: dict[int, Batch] = {}
        turn = first_step
        for step, batch in self._rows(epoch, first_step):
            waiting[step] = batch
            while turn in waiting:
                yield waiting.pop(turn)
                turn += 1

    def _rows(self, epoch: int, first_step: int) -> Iterator[tuple[int, Batch]]:
        import ray.data

        size, end = self._steps_per_block, self._plan.num_steps
        steps = [_Steps(epoch, begin, min(begin + size, end)) for begin in range(first_step, end, size)]
        tasks = [_Read(self._shared, one, self._rank, self._num_workers, __version__) for one in steps]
        with _data_context():
            read = ray.data.read_datasource(
                datasource(tasks), override_num_blocks=len(tasks), num_cpus=_READ_CPUS, concurrency=_READERS
            )
            for table in read.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=_BLOCKS_AHEAD):
                for row in table.to_pylist():
                    if row["error"] is not None:
                        raise pickle.loads(row["error"])
                    yield row["step"], pickle.loads(row["batch"])


def _steps_per_block(setup: Setup, plan: SamplePlan) -> int:
    size = setup.kind.wire_bytes(setup.train)
    wanted = -(-min(plan.window, plan.num_samples) // (_BLOCKS_PER_WINDOW * plan.batch_size))
    return max(1, min(wanted, _BLOCK_BYTES // (plan.batch_size * size)))


class _Read:
    """One read task."""

    def __init__(self, shared: Any, steps: _Steps, rank: int, num_workers: int, version: str) -> None:
        self._shared, self._steps, self._version = shared, steps, version
        self._rank, self._num_workers = rank, num_workers

    def __call__(self) -> Iterable[pa.Table]:
        steps, batches, errors = range(self._steps.first, self._steps.last), [], []
        for step in steps:
            batch = error = None
            try:
                plan, loader = _opened(self._shared, self._version)
                ids = plan.share(self._steps.epoch, step, rank=self._rank, num_workers=self._num_workers)
                batch = pickle.dumps(loader.load(ids, epoch=self._steps.epoch), protocol=pickle.HIGHEST_PROTOCOL)
            except ReplisomeError as cause:
                error = pickle.dumps(cause)
            batches.append(batch)
            errors.append(error)
        yield pa.table(
            {
                "step": pa.array(steps, pa.int64()),
                "batch": pa.array(batches, pa.large_binary()),
                "error": pa.array(errors, pa.binary()),
            }
        )


@lru_cache(maxsize=1)
def _opened(shared: Any, version: str) -> tuple[SamplePlan, BatchLoader]:
    """One loader per process of Ray Data, kept with its row groups for later tasks of the same run."""
    import ray

    check_node(version)
    setup: Setup = pickle.loads(ray.get(shared))
    return setup.train_plan(), setup.train_loader()


@contextmanager
def _data_context() -> Iterator[None]:
    """Quiet, whole blocks, in their order: a late block would make those after it wait in memory."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.target_max_block_size = None
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
