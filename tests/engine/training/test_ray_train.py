"""Ray Train's workers and Ray Data's feed beside the plain loop: the same batches, the same losses, whoever dies."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback
from ray.train.v2.api.exceptions import WorkerGroupError

from engine.errors import DataError, InputError
from engine.training import _ray_train, _workers
from engine.training._batches import Reader
from engine.training._crew import Crew
from engine.training._ray_train import DataFeed
from tests.engine.training.events import scalars
from tests.engine.training.setups import small_setup, step_losses

pytestmark = pytest.mark.ray


def same(one, other) -> bool:
    pairs = [(one.inputs.arrays()[name], array) for name, array in other.inputs.arrays().items()]
    pairs += [(getattr(one, name), getattr(other, name)) for name in ("targets", "records_B", "seeds_B")]
    return all((a == b).all() for a, b in pairs)


@pytest.fixture
def few_readers(ray_cluster, monkeypatch) -> None:
    """Read tasks that hold a CPU: as many processes to start as the cluster has of them, not one for each block."""
    monkeypatch.setattr(_ray_train, "_READ_CPUS", 1.0)


@pytest.mark.parametrize("case", [(0, 1, 0, 1), (1, 2, 1, 2), (2, 3, 0, 9)])
def test_ray_data_feeds_what_a_reader_reads(few_readers, tmp_path, monkeypatch, case):
    rank, num_workers, first_step, per_block = case
    monkeypatch.setattr(_ray_train, "_steps_per_block", lambda setup, plan: per_block)
    setup = small_setup(tmp_path, count=60, recipe={"batch_size": 8})
    plan = setup.train_plan()
    feed = DataFeed(setup, rank=rank, num_workers=num_workers)
    reader = Reader(setup.train_loader(), plan, rank, num_workers)
    found = list(feed(epoch=2, first_step=first_step))
    wanted = list(reader(epoch=2, first_step=first_step))
    assert len(found) == plan.num_steps - first_step
    assert all(same(one, other) for one, other in zip(found, wanted, strict=True))


def test_blocks_that_come_out_of_turn_wait(tmp_path, monkeypatch):
    monkeypatch.setattr("ray.put", lambda value: None)
    feed = DataFeed(small_setup(tmp_path), rank=0, num_workers=1)
    monkeypatch.setattr(feed, "_rows", lambda epoch, first: iter([(2, "c"), (1, "b"), (3, "d")]))
    assert list(feed(epoch=0, first_step=1)) == ["b", "c", "d"]
    assert list(feed(epoch=0, first_step=4)) == []


def test_blocks_are_large_enough_to_read_groups_few_times_and_bounded(tmp_path):
    setup = small_setup(tmp_path)
    plan = setup.train_plan()
    assert _ray_train._steps_per_block(setup, replace(plan, window=160)) == 1  # a quarter of 72 rows, in steps of 20
    assert _ray_train._steps_per_block(setup, replace(plan, window=72, batch_size=3)) == 6
    longest = replace(setup.train[0], longest=1 << 24)
    assert _ray_train._steps_per_block(replace(setup, train=(longest,)), replace(plan, batch_size=1)) == 2


def our_workers() -> list[psutil.Process]:
    """Ray Train's workers below this process; one that ends while they are looked for is passed over."""
    ours = []
    for one in psutil.process_iter(["cmdline"]):
        with suppress(psutil.NoSuchProcess):
            if "RayTrainWorker" in " ".join(one.info["cmdline"] or ()) and psutil.Process() in one.parents():
                ours.append(one)
    return ours


def test_two_workers_fed_by_ray_data_one_killed_train_to_the_losses_of_one(ray_cluster, tmp_path):
    calm = step_losses(small_setup(tmp_path, output="calm"))
    setup = small_setup(tmp_path, output="ray")
    heard, killed = [], []

    def on_epoch(entry) -> None:
        heard.append(entry["epoch"])
        if not killed:
            killed.append(our_workers()[-1])
            killed[-1].kill()

    _workers.train(setup, Crew("ray", 2, feed="ray-data"), on_epoch=on_epoch)
    assert killed
    assert heard[0] == 0
    assert heard[-1] == 2
    found = dict(scalars(setup.tensorboard)["loss/step"])
    assert list(found) == list(calm)
    np.testing.assert_allclose(list(found.values()), list(calm.values()), rtol=1e-4)
    assert not (setup.checkpoints.parent / ".ray").exists()


def test_a_damaged_part_is_one_sentence_through_all_of_ray(few_readers, tmp_path):
    setup = small_setup(tmp_path, count=60)
    part = Path(setup.train[0].part)
    part.write_bytes(part.read_bytes()[:-200])
    sentence = r"part-000000.parquet: the part does not decode"
    with pytest.raises(DataError, match=sentence) as found:
        list(DataFeed(setup, rank=0, num_workers=1)(epoch=0, first_step=0))  # the plan says which step reads the part
    pipe = ValueError("a broken pipe")
    wrapped = WorkerGroupError("two failed", {0: pipe, 1: UserExceptionWithTraceback(found.value, "")})
    with pytest.raises(DataError, match=sentence):
        _ray_train._cause(wrapped)
    assert _ray_train._cause(WorkerGroupError("one failed", {1: pipe})) == "ValueError: a broken pipe"


def test_more_workers_than_fit_are_refused(ray_cluster, tmp_path):
    setup = small_setup(tmp_path)
    with pytest.raises(InputError, match="500 workers do not fit on 2 CPUs"):
        _workers.train(setup, Crew("ray", 500), on_epoch=lambda entry: None)
    with pytest.raises(InputError, match="2 workers need as many GPUs, and the cluster has 0"):
        _workers.train(setup, Crew("ray", 2, device="cuda"), on_epoch=lambda entry: None)
