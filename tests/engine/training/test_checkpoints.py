import json

import pytest
import torch
from torch import nn

from engine.errors import DataError, SystemFailure
from engine.training import _checkpoints
from engine.training._checkpoints import Checkpoint


def stepped(kind, **settings):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimiser = kind(model.parameters(), lr=0.1, **settings)
    model(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    return model, optimiser


@pytest.mark.parametrize(("kind", "settings"), [(torch.optim.AdamW, {}), (torch.optim.SGD, {"momentum": 0.9})])
def test_what_is_read_goes_on_like_what_was_written(tmp_path, kind, settings):
    model, optimiser = stepped(kind, **settings)
    tensors = {**_checkpoints.model_tensors(model), **_checkpoints.optimiser_tensors(optimiser)}
    _checkpoints.write(tmp_path / "a" / "last.safetensors", Checkpoint(tensors, {"step": 1}))
    found = _checkpoints.read(tmp_path / "a" / "last.safetensors")
    other = nn.Linear(3, 2)
    other_optimiser = kind(other.parameters(), lr=0.1, **settings)
    _checkpoints.load_model(other, found)
    _checkpoints.load_optimiser(other_optimiser, found)
    for one, its in ((model, optimiser), (other, other_optimiser)):
        its.zero_grad()
        one(torch.full((1, 3), 2.0)).sum().backward()
        its.step()
    assert found.state == {"step": 1}
    assert torch.equal(model.weight, other.weight)
    assert torch.equal(model.bias, other.bias)


def test_there_may_be_none(tmp_path):
    assert _checkpoints.read(tmp_path / "last.safetensors") is None


def test_a_write_that_fails_leaves_the_former(tmp_path, monkeypatch):
    path = tmp_path / "last.safetensors"
    _checkpoints.write(path, Checkpoint({"x": torch.ones(2)}, {"step": 1}))
    monkeypatch.setenv("REPLISOME_FAULT", "enospc@checkpoint#1")
    monkeypatch.setattr("engine.storage.faults._reached", __import__("collections").Counter())
    with pytest.raises(SystemFailure, match="the disk is full"):
        _checkpoints.write(path, Checkpoint({"x": torch.zeros(2)}, {"step": 2}))
    assert _checkpoints.read(path).state == {"step": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["last.safetensors"]


def test_a_cut_file_is_said(tmp_path):
    path = tmp_path / "last.safetensors"
    _checkpoints.write(path, Checkpoint({"x": torch.ones(200)}, {}))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"last.safetensors: the checkpoint does not read .*delete it to begin"):
        _checkpoints.read(path)


def test_a_flipped_bit_is_seen(tmp_path):
    path = tmp_path / "last.safetensors"
    _checkpoints.write(path, Checkpoint({"x": torch.ones(200), "y": torch.tensor(3)}, {"step": 1}))
    whole = path.read_bytes()
    for place in range(8, len(whole), 37):
        harmed = bytearray(whole)
        harmed[place] ^= 4
        path.write_bytes(harmed)
        with pytest.raises(DataError, match=r"last.safetensors: the checkpoint does not read"):
            _checkpoints.read(path)


def test_nothing_in_it_can_run(tmp_path):
    """A JSON header and raw numbers: no pickle."""
    path = tmp_path / "last.safetensors"
    _checkpoints.write(path, Checkpoint({"x": torch.ones(1)}, {"history": [{"loss": 0.5}]}))
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["replisome.state"]) == {
        "history": [{"loss": 0.5}]
    }
    assert len(data) == 8 + length + 4
