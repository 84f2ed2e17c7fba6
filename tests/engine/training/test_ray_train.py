"""Ray Train's workers, fed by Ray Data, beside the plain loop: the same losses, whoever dies."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import psutil
import pytest
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback
from ray.train.v2.api.exceptions import WorkerGroupError

from engine.errors import DataError, InputError
from engine.training import _ray_train, _workers
from engine.training._crew import Crew
from tests.engine.training.events import scalars
from tests.engine.training.setups import small_setup, step_losses

pytestmark = pytest.mark.ray


def ours(title: str) -> list[psutil.Process]:
    """Ray's processes of this title below this one; one that ends while they are looked for is passed over."""
    found = []
    for one in psutil.process_iter(["cmdline"]):
        with suppress(psutil.NoSuchProcess):
            if title in " ".join(one.info["cmdline"] or ()) and psutil.Process() in one.parents():
                found.append(one)
    return found


def test_two_workers_fed_by_ray_data_one_killed_train_to_the_losses_of_one(ray_cluster, tmp_path):
    calm = step_losses(small_setup(tmp_path, output="calm"))
    setup = small_setup(tmp_path, output="ray")
    heard, killed = [], []

    def on_epoch(entry) -> None:
        heard.append(entry["epoch"])
        if not killed:
            killed.append(ours("RayTrainWorker")[-1])
            killed[-1].kill()

    _workers.train(setup, Crew("ray", 2, feed="ray-data"), on_epoch=on_epoch)
    assert killed
    assert heard[0] == 0
    assert heard[-1] == 2
    found = dict(scalars(setup.tensorboard)["loss/step"])
    assert list(found) == list(calm)
    np.testing.assert_allclose(list(found.values()), list(calm.values()), rtol=1e-4)
    assert not (setup.checkpoints.parent / ".ray").exists()
    gone = psutil.wait_procs(ours("ray::Desk") + ours("RayTrainWorker"), timeout=30)[1]
    assert not gone  # one desk for each group of workers, and none outlives it


def test_what_a_worker_had_to_say_is_raised_whatever_else_died():
    found = DataError("the part does not decode", where="part-000000.parquet", fix="restore it")
    pipe = ValueError("a broken pipe")
    wrapped = WorkerGroupError("two failed", {0: pipe, 1: UserExceptionWithTraceback(found, "")})
    with pytest.raises(DataError, match=r"part-000000.parquet: the part does not decode"):
        _ray_train._cause(wrapped)
    assert _ray_train._cause(WorkerGroupError("one failed", {1: pipe})) == "ValueError: a broken pipe"


def test_more_workers_than_fit_are_refused(ray_cluster, tmp_path):
    setup = small_setup(tmp_path)
    with pytest.raises(InputError, match="500 workers do not fit on 2 CPUs"):
        _workers.train(setup, Crew("ray", 500), on_epoch=lambda entry: None)
    with pytest.raises(InputError, match="2 workers need as many GPUs, and the cluster has 0"):
        _workers.train(setup, Crew("ray", 2, device="cuda"), on_epoch=lambda entry: None)
