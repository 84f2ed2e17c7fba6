"""Networks held in shares by several workers, and compiled ones: the losses of plain ones."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.jobs.test_train_model import make, words
from tests.toys.sequences import motif_rows
from tests.toys.variant_runs import replisome, replisome_here

torch.set_num_threads(1)

IN_SHARES = ("execution.workers=2", "execution.sharding=fsdp2", "execution.micro_batch=3", "transfer.freeze=[stem]")


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> str:
    return str(make(tmp_path_factory.mktemp("data"), motif_rows(120)))


@pytest.fixture(scope="module")
def in_shares(spec, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("shares") / "out"
    done = replisome_here(*words(spec, output, *IN_SHARES))
    assert done.returncode == 0, done.stderr
    return output


def judged(output: Path) -> list[float]:
    """Losses of every epoch, and of the test rows."""
    metrics = json.loads((output / "metrics.json").read_text())
    history = metrics["members"][0]["history"]
    return [entry["train_loss"] for entry in history] + [metrics["figures"]["test"]["loss"]]


def test_a_network_in_shares_trains_to_the_losses_of_a_whole_one(spec, in_shares, tmp_path):
    done = replisome_here(*words(spec, tmp_path / "out", "transfer.freeze=[stem]"))
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(judged(in_shares), judged(tmp_path / "out"), rtol=1e-4)
    one, other = (load_file(path / "model" / "member-00.safetensors") for path in (in_shares, tmp_path / "out"))
    assert {name: tensor.shape for name, tensor in one.items()} == {
        name: tensor.shape for name, tensor in other.items()
    }
    assert torch.equal(one["stem.weight"], other["stem.weight"])


def test_a_killed_run_in_shares_goes_on_whole_or_in_shares(spec, in_shares, tmp_path):
    command = words(spec, tmp_path / "out", *IN_SHARES)
    killed = replisome(*command, fault="kill-parent@train-step#7", once=tmp_path / "once")
    assert killed.returncode == -signal.SIGKILL
    done = replisome_here(*words(spec, tmp_path / "out", "transfer.freeze=[stem]"))
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(judged(tmp_path / "out"), judged(in_shares), rtol=1e-4)
