"""Networks held in shares by several workers, and compiled ones: the losses of plain ones."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from engine.errors import InputError
from engine.training import loop
from engine.training._team import Team
from engine.training.loop import Training
from tests.engine.training.setups import small_setup, step_losses
from tests.jobs.test_train_model import make, words
from tests.toys.sequences import motif_rows
from tests.toys.variant_runs import assert_one_sentence, replisome, replisome_here

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


def test_what_does_not_go_together_is_one_sentence(spec, tmp_path):
    both = words(spec, tmp_path, "execution.compile=true", "execution.sharding=fsdp2")
    assert_one_sentence(replisome_here(*both), 2, "a network held in shares is not compiled")


def test_no_compiler_no_compiling(tmp_path, monkeypatch):
    monkeypatch.setattr(loop.shutil, "which", lambda name: None)
    setup = small_setup(tmp_path, recipe={"compiled": True})
    with pytest.raises(InputError, match=r"no C\+\+ compiler on this machine; install g\+\+, or set execution"):
        Training(setup, Team())


def test_a_compiled_network_trains_to_the_same_losses(tmp_path, monkeypatch):
    """Traced as for the compiler, up to its machine code; `make soak` makes that too."""
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda one, **given: compiled(one, **given, backend="aot_eager"))
    losses = [step_losses(small_setup(tmp_path, output=str(on), recipe={"compiled": on})) for on in (True, False)]
    np.testing.assert_allclose(list(losses[0].values()), list(losses[1].values()), rtol=1e-4)


@pytest.mark.soak
def test_machine_code_trains_to_the_same_losses(tmp_path):
    losses = [step_losses(small_setup(tmp_path, output=str(on), recipe={"compiled": on})) for on in (True, False)]
    np.testing.assert_allclose(list(losses[0].values()), list(losses[1].values()), rtol=1e-4)
