"""Training by the workers of Ray Train, on this machine or a cluster whose nodes share the paths of the run.

The loop, its checkpoints and what follows a death are those of the other executor; Ray places the workers, joins them
to a process group and, with the feed "ray-data" (engine/training/_ray_feed.py), reads the parts for them.
"""

from __future__ import annotations

import shutil
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from engine import __version__
from engine.errors import InputError, ReplisomeError
from engine.runtime.executors.ray_data import cluster, cpu_shares
from engine.runtime.install import check_node
from engine.training import _checkpoints
from engine.training._crew import Crew, OnEpoch, until_done
from engine.training._ray_feed import DataFeed, desk
from engine.training._recipe import Setup

_TIMEOUT_SECONDS = 1800
_END = None
Run = Callable[[Any], object]


def train(setup: Setup, crew: Crew, *, on_epoch: OnEpoch, run: Run | None = None) -> None:
    """See engine/training/_workers.py.

    Args:
        setup: the run.
        crew: who trains.
        on_epoch: told the history's new entry after each epoch.
        run: what a worker does with its training when it is ready, which is to run it; a benchmark may do other things.

    Raises:
        InputError: Ray is not installed, no cluster answers, or the workers do not fit on it.
        ReplisomeError: what a worker raised, or workers died too often.
    """
    with cluster(crew.address):
        cpus = _worker_cpus(crew)
        with _told(on_epoch) as mail:
            until_done(setup, lambda: _fed(setup, crew, cpus, {"mail": mail, "run": run}))


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


def _fed(setup: Setup, crew: Crew, cpus: float, told: dict[str, Any]) -> str | None:
    """Read and train; None where all workers came to the end, else why one died."""
    if crew.feed != "ray-data":
        return _fit(setup, crew, cpus, {**told, "desk": None})
    # Reading begins where training will, before there are workers: they take seconds to start, and so does the reader.
    state = _checkpoints.read_state(setup.checkpoints / _checkpoints.LAST)
    with desk(setup, num_workers=crew.workers, epoch=state.get("epoch", 0), step=state.get("step", 0)) as reads:
        return _fit(setup, crew, cpus, {**told, "desk": reads})


def _fit(setup: Setup, crew: Crew, cpus: float, told: dict[str, Any]) -> str | None:
    """None where all workers came to the end, else why one died."""
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    # Ray keeps a few small files of its own; a name of their own lets it find no former run to go on with.
    place = setup.folder / "checkpoints" / ".ray"
    trainer = TorchTrainer(
        _work,
        train_loop_config={"setup": setup, "crew": crew, "version": __version__, **told},
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
    setup, crew, mail, desk = config["setup"], config["crew"], config["mail"], config["desk"]
    torch.set_num_threads(crew.threads)
    # Batches lie in memory that others may read too (engine/training/_ray_blocks.py), and nothing here writes to them.
    warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    device = str(ray.train.torch.get_device()) if crew.device == "cuda" else "cpu"
    feed = None
    if desk is not None:
        feed = DataFeed(desk, rank=rank, num_steps=setup.train_plan().num_steps, epochs=setup.recipe.epochs)
    training = Training(setup, Team(rank=rank, size=size, device=device), feed=feed, on_epoch=mail.put)
    (config["run"] or Training.run)(training)
