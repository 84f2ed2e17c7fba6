import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from engine.errors import DataError, InputError
from engine.training import _checkpoints, _recipe
from engine.training._recipe import Recipe
from engine.training._team import Team
from engine.training._train_job import Component
from engine.training.loop import Training, joined, predict
from tests.engine.training.setups import SMALL, small_setup, step_losses


def trained(setup):
    training = Training(setup, Team())
    return training, training.run()


def test_a_window_of_large_samples_is_one_that_fits_in_memory(tmp_path, monkeypatch):
    setup = small_setup(tmp_path)
    assert setup.train_plan().window == 24
    longest = setup.kind.wire_bytes(setup.train)
    for room, window in ((5 * longest + 1, 5), (1, 1)):
        monkeypatch.setattr(_recipe, "_WINDOW_BYTES", room)
        assert setup.train_plan().window == window


def test_it_learns(tmp_path):
    wide = Component("sequence_cnn", {**SMALL, "channels": 16, "pool": "max"})
    recipe = {"epochs": 12, "learning_rate": 1e-2}
    setup = small_setup(tmp_path, count=300, recipe=recipe, augmentation={}, model=wide)
    training, progress = trained(setup)
    assert progress.history[progress.best_epoch]["validation"]["accuracy"] > 0.85
    assert progress.history[-1]["train_loss"] < 0.7 * progress.history[0]["train_loss"]
    assert training.plan.num_samples == 180


@pytest.mark.parametrize("stop", [1, 5, 8])  # inside an epoch, after a checkpoint, after the first epoch
def test_a_run_stopped_anywhere_goes_on_to_the_same_losses(tmp_path, stop):
    calm = small_setup(tmp_path, output="calm")
    losses = step_losses(calm)
    assert sorted(losses) == list(range(12))
    setup = small_setup(tmp_path, output="stopped")
    before, after = step_losses(setup, stop_after=stop), step_losses(setup)
    assert min(after) <= stop < min(after) + 2 + 1  # at the last checkpoint
    assert {**before, **after} == losses
    ends = [_checkpoints.read(one.checkpoints / _checkpoints.LAST) for one in (calm, setup)]
    assert ends[0].state == ends[1].state
    assert all(torch.equal(ends[0].tensors[name], ends[1].tensors[name]) for name in ends[0].tensors)


def test_a_finished_run_does_nothing(tmp_path):
    setup = small_setup(tmp_path)
    assert step_losses(setup)
    assert step_losses(setup) == {}


def test_accumulated_parts_give_the_step_of_the_whole(tmp_path):
    whole = step_losses(small_setup(tmp_path, output="whole", recipe={"micro_batch": 64}))
    parts = step_losses(small_setup(tmp_path, output="parts", recipe={"micro_batch": 3}))
    np.testing.assert_allclose([parts[step] for step in whole], list(whole.values()), rtol=1e-4)


def test_class_weights_and_focal_loss_take_part(tmp_path):
    kinds = ({}, {"loss": "focal"}, {"label_smoothing": 0.1}, {"class_weights": "balanced"})
    found = []
    for number, params in enumerate(kinds):
        task = Component("sequence_classification", params)
        found.append(step_losses(small_setup(tmp_path, output=str(number), task=task), stop_after=2)[1])
    assert len(set(found[:3])) == 3
    assert found[3] == pytest.approx(found[0], rel=1e-5)  # the classes are even


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_no_rate_no_change(tmp_path, optimiser):
    setup = small_setup(tmp_path, recipe={"learning_rate": 0.0, "optimiser": optimiser, "epochs": 1})
    training, _ = trained(setup)
    fresh = setup.build_model().state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in training._model.state_dict().items())


def test_gradients_are_no_longer_than_allowed(tmp_path):
    setup = small_setup(tmp_path, recipe={"clip_norm": 1e-3, "optimiser": "sgd", "weight_decay": 0.0, "epochs": 1})
    training = Training(setup, Team())
    before = [one.detach().clone() for one in training._model.parameters()]
    training.recipe = dataclasses.replace(training.recipe, schedule="constant", warmup=0.0)
    training._model.train()
    training._step(next(training.feed(epoch=0, first_step=0)))
    moved = torch.cat([(old - new).flatten() for old, new in zip(before, training._model.parameters(), strict=True)])
    assert moved.norm().item() == pytest.approx(1e-3 * training.recipe.learning_rate, rel=1e-2)


def test_a_step_of_which_nothing_is_known_counts_and_changes_nothing(tmp_path, monkeypatch):
    setup = small_setup(tmp_path, recipe={"epochs": 1})
    training = Training(setup, Team())
    weights, states = type(setup.task).weights, []

    def none_at_first(task, targets):
        states.append({name: one.clone() for name, one in training._model.state_dict().items()})
        return weights(task, targets) * (len(states) > 1)

    monkeypatch.setattr(type(setup.task), "weights", none_at_first)
    progress = training.run()
    assert all(torch.equal(one, states[1][name]) for name, one in states[0].items())
    assert progress.epoch == 1
    assert progress.history[0]["train_loss"] > 0.1  # of the steps that had something


def test_a_loss_that_is_no_number_stops_with_the_batch_saved(tmp_path):
    setup = small_setup(
        tmp_path, recipe={"learning_rate": 1e20, "clip_norm": 0.0, "warmup": 0.0, "schedule": "constant"}
    )
    with pytest.raises(
        DataError, match=r"epoch 0, step \d gave .*; its batch is saved in stopped/; lower learning_rate"
    ):
        Training(setup, Team()).run()
    facts = json.loads((setup.stopped / "batch.json").read_text())
    tensors = load_file(setup.stopped / "batch.safetensors")
    assert tensors["records"].tolist() == facts["records"]
    assert len(tensors["tokens"]) == len(tensors["targets"]) == len(facts["records"]) > 1
    assert facts["step"] > 0


def test_training_stops_early_and_keeps_the_best(tmp_path):
    setup = small_setup(tmp_path, recipe={"epochs": 50, "patience": 2, "learning_rate": 0.1, "schedule": "constant"})
    _, progress = trained(setup)
    assert len(progress.history) == progress.best_epoch + 3 < 50
    losses = [entry["validation"]["loss"] for entry in progress.history]
    assert progress.best == min(losses) == losses[progress.best_epoch]
    best = _checkpoints.read(setup.checkpoints / _checkpoints.BEST)
    model = setup.build_model()
    _checkpoints.load_model(model, best)
    assert predict([model], setup, setup.validation).loss == pytest.approx(progress.best, rel=1e-6)


def test_the_best_is_chosen_by_the_figure_asked_for(tmp_path):
    _, progress = trained(small_setup(tmp_path, recipe={"monitor": "auroc", "epochs": 5}))
    figures = [entry["validation"]["auroc"] for entry in progress.history]
    assert progress.best == max(figures)
    with pytest.raises(InputError, match="no figure named 'auc'; known: loss, accuracy, f1_macro, mcc, auroc, auprc"):
        Training(small_setup(tmp_path, output="other", recipe={"monitor": "auc"}), Team()).run()


def test_several_workers_shares_are_the_whole(tmp_path):
    setup = small_setup(tmp_path)
    model = setup.build_model()
    whole = predict([model], setup, setup.validation)
    parts = joined([predict([model], setup, setup.validation, rank=rank, size=3) for rank in range(3)])
    assert parts.records_N.tolist() == whole.records_N.tolist()
    assert parts.targets.tolist() == whole.targets.tolist()
    np.testing.assert_allclose(parts.values_NK, whole.values_NK, rtol=1e-5, atol=1e-7)
    assert parts.loss == pytest.approx(whole.loss)


def test_bf16_follows_fp32(tmp_path):
    still = {}
    full = step_losses(small_setup(tmp_path, output="full", augmentation=still))
    half = step_losses(small_setup(tmp_path, output="half", augmentation=still, recipe={"precision": "bf16"}))
    assert half != full
    np.testing.assert_allclose(list(half.values()), list(full.values()), rtol=0.05)


@pytest.mark.parametrize("model", ["recurrent", "transformer"])
def test_other_networks_train_too(tmp_path, model):
    params = {name: SMALL[name] for name in ("channels", "stem_width", "dropout", "pool")}
    losses = step_losses(small_setup(tmp_path, model=Component(model, params), recipe={"epochs": 2}))
    assert all(np.isfinite(list(losses.values())))


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1, 1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2]),
    ],
)
def test_schedules(schedule, rates):
    recipe = Recipe(epochs=1, batch_size=1, micro_batch=1, learning_rate=1.0, schedule=schedule, warmup=1 / 3)
    assert [recipe.rate(step, 6) for step in range(6)] == pytest.approx(rates)
