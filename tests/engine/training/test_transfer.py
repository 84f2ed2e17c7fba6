"""Runs that begin from a model folder: what is taken, what stays, how fast each depth moves."""

import dataclasses
import shutil

import pytest
import torch

from engine import registry
from engine.errors import InputError
from engine.models._folder import save_model_folder
from engine.models._info import open_model
from engine.training import _checkpoints
from engine.training._team import Team
from engine.training._train_job import Component, prepare
from engine.training._transfer import Transfer, freeze, layers_in_order, rates_by_depth, take
from engine.training.loop import Training
from tests.engine.training.setups import RECIPE, SMALL, small_job, small_setup, step_losses
from tests.toys import hugging_face as toys
from tests.toys.models import CARD

NETWORKS = {
    "sequence_cnn": {"blocks": 3, "pool": "attention"},
    "recurrent": {"layers": 2},
    "transformer": {"layers": 2, "attention_heads": 2},
}
TOKENS = Component("tokens", {})


def network(name="sequence_cnn", seed=0, **values):
    cls = registry.component("models", name)
    params = {"channels": 8, "outputs": ("none", "site"), "activation": "softmax", **NETWORKS[name], **values}
    torch.manual_seed(seed)
    return cls(registry.build_params(cls, params, where="test"))


def source(folder, model, encoder="one_hot", architecture="sequence_cnn"):
    card = dataclasses.replace(CARD, encoder={"name": encoder, "params": {}})
    return save_model_folder(folder, [model], architecture=architecture, card=card)


@pytest.fixture
def learned(tmp_path):
    """A model folder for the same question as the small run, and its network."""
    setup = small_setup(tmp_path, augmentation={})
    model = setup.build_model()
    with torch.no_grad():
        for one in model.parameters():
            one.add_(torch.randn_like(one) * 0.1)
    source(tmp_path / "learned", model)
    return tmp_path / "learned", model.state_dict()


def begun(tmp_path, transfer, **changes):
    return small_setup(tmp_path, augmentation={}, transfer=transfer, **changes)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_layers_are_told_from_the_input_to_the_head(name):
    model = network(name, num_tokens=5, in_channels=1)
    layers = layers_in_order(model)
    assert layers[0] == ["enter"]
    assert layers[-1] == ["answer"]
    names = [one for layer in layers for one in layer]
    many = "blocks" if name == "sequence_cnn" else "layers"
    assert [one for one in names if one.startswith(many)] == [f"{many}.{n}" for n in range(len(getattr(model, many)))]
    rates = rates_by_depth(model, 0.5)
    assert set(rates) == {path for path, _ in model.named_parameters()}
    assert {rates[path] for path in rates if path.startswith("answer.")} == {1.0}
    below = len(layers) - 1 - names.index(f"{many}.1")
    assert {rates[path] for path in rates if path.startswith(f"{many}.1.")} == {0.5**below}


def test_the_same_question_takes_everything(tmp_path, learned):
    folder, tensors = learned
    setup = begun(tmp_path, Transfer(str(folder)))
    model, taken = setup.begun()
    assert set(taken.taken) == set(tensors)
    assert not taken.skipped
    assert not taken.fresh
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.state_dict().items())
    assert taken.text() == f"{len(tensors)} tensors taken"


def test_another_question_takes_the_trunk_and_says_what_it_leaves(tmp_path, learned):
    folder, tensors = learned
    task = Component("sequence_regression", {})
    model, taken = begun(tmp_path, Transfer(str(folder)), task=task).begun()
    assert set(taken.fresh) == {name for name in tensors if name.startswith("answer.")}
    assert taken.skipped["answer.final.weight"] == "[2, 8], here [1, 8]"
    assert taken.skipped["answer.norm.weight"] == "the head tells something else"
    own = model.state_dict()
    assert all(torch.equal(own[name], tensors[name]) for name in taken.taken)
    assert "fresh (answer.weigh.weight, " in taken.text()


def test_a_wider_network_takes_what_fits(tmp_path):
    info = source(tmp_path / "one", network(blocks=2))
    model = network(blocks=3, hidden=4, seed=1)
    taken = take(model, info, architecture="sequence_cnn", member=0)
    assert {name.split(".")[1] for name in taken.fresh if name.startswith("blocks")} == {"2"}
    assert "answer.hidden.weight" in taken.fresh
    assert taken.skipped == {"answer.final.weight": "[2, 8], here [2, 4]"}


def test_members_begin_from_members_in_turn(tmp_path):
    card = dataclasses.replace(CARD, encoder={"name": "one_hot", "params": {}})
    two = [network(seed=seed, blocks=1, stem_width=5) for seed in (3, 4)]
    info = save_model_folder(tmp_path / "two", two, architecture="sequence_cnn", card=card)
    setup = begun(tmp_path, Transfer(str(tmp_path / "two")))
    for member in range(3):
        model = dataclasses.replace(setup, member=member).build_model()
        assert torch.equal(model.stem.weight, two[member % 2].stem.weight)
    assert setup.transfer.digest == info.digest


def test_the_digest_is_in_the_key_and_no_path_is(tmp_path, learned):
    folder, _ = learned
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    keys = [
        prepare(small_job(tmp_path, transfer=one)).key
        for one in (Transfer(), Transfer(str(folder)), Transfer(str(moved)), Transfer(str(folder), freeze=("stem",)))
    ]
    assert "transfer" not in keys[0]
    assert keys[1] == keys[2]
    assert keys[1]["transfer"] == {"init_from": open_model(folder).digest, "freeze": [], "layer_rate": 1.0}
    assert keys[3] != keys[1]


def test_a_folder_changed_under_the_run_is_refused(tmp_path, learned):
    folder, _ = learned
    setup = begun(tmp_path, Transfer(str(folder)))
    source(tmp_path / "other", network(blocks=1, stem_width=5))
    shutil.rmtree(folder)
    (tmp_path / "other").rename(folder)
    with pytest.raises(InputError, match=r"this run began from [0-9a-f]{12}; restore the folder"):
        setup.build_model()


@pytest.mark.parametrize(
    ("transfer", "changes", "says"),
    [
        ({"init_from": "nowhere"}, {}, "no model of this name and no such folder"),
        ({"freeze": ("stemm",)}, {}, "no parameter is named 'stemm'; known parts: trunk, stem, blocks.0, answer"),
        ({"freeze": ("*",)}, {}, "nothing is left to train; freeze less"),
        ({"layer_rate": 0.0}, {}, "layer_rate must be above 0 and at most 1, found 0.0"),
        ({}, {"model": Component("recurrent", {"channels": 8})}, "of architecture 'sequence_cnn', the spec of 'recurr"),
        ({}, {"encoder": TOKENS}, "reads by encoder 'one_hot', the spec by 'tokens'; set encoder.name to one_hot"),
        (
            {},
            {"model": Component("sequence_cnn", {**SMALL, "channels": 6, "stem_width": 3})},
            "no tensor of the model f",
        ),
    ],
)
def test_what_does_not_go_together_is_one_sentence(tmp_path, learned, transfer, changes, says):
    folder, _ = learned
    with pytest.raises(InputError, match=says):
        begun(tmp_path, Transfer(**({"init_from": str(folder)} | transfer)), **changes)


def test_what_is_frozen_stays_to_the_bit_and_is_not_kept_twice(tmp_path, learned):
    folder, tensors = learned
    setup = begun(tmp_path, Transfer(str(folder), freeze=("trunk",)))
    training = Training(setup, Team())
    training.run()
    for name, tensor in training._model.state_dict().items():
        assert torch.equal(tensor, tensors[name]) == (not name.startswith("answer.")), name
    for file in (_checkpoints.LAST, _checkpoints.BEST):
        kept = _checkpoints.read(setup.checkpoints / file).tensors
        assert {name.split(".")[1] for name in kept if name.startswith("model.")} == {"answer"}


def test_patterns_name_parts():
    model = network(blocks=3)
    freeze(model, ["stem", "blocks.*.mix"])
    frozen = {name for name, one in model.named_parameters() if not one.requires_grad}
    assert frozen == {
        f"{part}.{kind}" for part in ("stem", *(f"blocks.{n}.mix" for n in range(3))) for kind in ("weight", "bias")
    }


def test_each_depth_moves_by_its_own_rate(tmp_path):
    """One plain step: what moves is the gradient times the rate, and the gradients are the same."""
    recipe = {"optimiser": "sgd", "clip_norm": 0.0, "weight_decay": 0.0, "schedule": "constant", "warmup": 0.0}

    def moved(output, layer_rate):
        setup = small_setup(tmp_path, output=output, recipe=recipe, transfer=Transfer(layer_rate=layer_rate))
        training = Training(setup, Team())
        before = {name: one.detach().clone() for name, one in training._model.named_parameters()}
        training._model.train()
        training._step(next(training.feed(epoch=0, first_step=0)))
        return {name: one.detach() - before[name] for name, one in training._model.named_parameters()}

    plain, slowed = moved("plain", 1.0), moved("slowed", 0.25)
    factors = {"answer": 1.0, "blocks": 0.25, "stem": 0.0625}
    for name, by in slowed.items():
        torch.testing.assert_close(by, plain[name] * factors[name.split(".")[0]], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("stop", [1, 5])
def test_a_stopped_run_goes_on_to_the_same_losses(tmp_path, learned, stop):
    transfer = Transfer(str(learned[0]), freeze=("stem", "*.norm.*"), layer_rate=0.5)
    losses = step_losses(begun(tmp_path, transfer, output="calm"))
    setup = begun(tmp_path, transfer, output="stopped")
    assert {**step_losses(setup, stop_after=stop), **step_losses(setup)} == losses
    assert losses != step_losses(begun(tmp_path, Transfer(), output="fresh"))


def test_a_hugging_face_folder_is_named_once_and_then_part_of_the_model(tmp_path):
    base = toys.nucleotide_folder(tmp_path / "base")
    model = Component("hugging_face", {"folder": str(base), "channels": 8, "tune": "adapters", "rank": 2})
    job = small_job(tmp_path, model=model, encoder=TOKENS, recipe=dataclasses.replace(RECIPE, epochs=2))
    prepared = prepare(job)
    assert str(base) not in str(prepared.key)
    losses = step_losses(prepared.setup)
    kept = _checkpoints.read(prepared.setup.checkpoints / _checkpoints.BEST).tensors
    assert {name for name in kept if "base." in name} == {name for name in kept if ".lora_" in name} != set()
    stopped = dataclasses.replace(prepared.setup, folder=tmp_path / "stopped")
    assert {**step_losses(stopped, stop_after=3), **step_losses(stopped)} == losses
    assert rates_by_depth(prepared.setup.build_model(), 0.5)["base.encoder.layer.1.output.dense.bias"] == 0.25
    toys.nucleotide_folder(base, seed=1)
    with pytest.raises(InputError, match="this model was made from"):
        prepared.setup.build_model()


def test_a_network_cut_short_by_its_places_is_told_before_a_step(tmp_path):
    base = toys.nucleotide_folder(tmp_path / "base", max_position_embeddings=12)
    model = Component("hugging_face", {"folder": str(base), "channels": 8})
    with pytest.raises(InputError, match="a sequence of 40 letters, the network takes 27"):
        prepare(small_job(tmp_path, model=model, encoder=TOKENS))
