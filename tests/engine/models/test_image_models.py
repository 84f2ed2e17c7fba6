"""Laws of the networks that read images."""

import numpy as np
import pytest
import torch

from engine import registry
from engine.encoders.pixels import Pixels, PixelsParams
from engine.errors import InputError
from engine.models._folder import load_members, save_model_folder
from engine.models._info import open_model
from engine.models._sample_dropout import set_sample_seeds
from tests.toys.golden import check, filled
from tests.toys.models import CARD

torch.set_num_threads(1)

LEVEL_OF = {"image_cnn": "image", "u_net": "pixel"}
NETWORKS = sorted(LEVEL_OF)


def network(name, **values):
    cls = registry.component("models", name)
    values = {**({"stem_stride": 2} if name == "image_cnn" else {}), **values}
    params = {"outputs": ("a", "b", "c"), "activation": "softmax", "channels": 4, "levels": 3, **values}
    torch.manual_seed(1)
    return cls(registry.build_params(cls, params, where="test")).eval()


def images(count, height=24, width=17, channels=1):
    return torch.from_numpy(np.random.default_rng(3).random((count, channels, height, width), dtype=np.float32))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (24, 17), (32, 32)])
def test_any_size_has_an_answer(name, size):
    with torch.inference_mode():
        values = network(name, in_channels=2)(images(2, *size, channels=2))["value"]
    assert values.shape == (2, 3, *(size if name == "u_net" else ()))
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.sum(dim=1), torch.ones_like(values[:, 0]))


@pytest.mark.parametrize("name", NETWORKS)
def test_company_never_changes_an_answer(name):
    model, x = network(name), images(5)
    with torch.inference_mode():
        together = model.logits(x)
        for one, answer in zip(x, together, strict=True):
            torch.testing.assert_close(model.logits(one[None])[0], answer, rtol=1e-5, atol=1e-5)


def test_a_pixel_is_told_by_its_neighbourhood_alone():
    model, x = network("u_net", levels=2), images(1, 64, 64)
    changed = x.clone()
    changed[..., :4, :4] += 1
    with torch.inference_mode():
        before, after = model.logits(x), model.logits(changed)
    assert not torch.equal(before[..., :4, :4], after[..., :4, :4])
    assert torch.equal(before[..., 40:, 40:], after[..., 40:, 40:])
    # A tile with enough margin gives what the whole gives.
    with torch.inference_mode():
        torch.testing.assert_close(model.logits(x[..., 20:])[..., 24:], before[..., 44:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_begins_at_the_frequencies(name):
    model = network(name)
    torch.nn.init.zeros_(model.final.weight)
    model.set_bias(torch.tensor([1.0, -1.0, 0.5]))
    with torch.inference_mode():
        values = model.logits(images(2)).movedim(1, -1)
    torch.testing.assert_close(values, torch.tensor([1.0, -1.0, 0.5]).expand_as(values))


@pytest.mark.parametrize("name", NETWORKS)
def test_dropout_belongs_to_the_sample(name):
    model, x = network(name, dropout=0.5).train(), images(3)
    seeds = torch.tensor([11, 22, 33])
    set_sample_seeds(model, seeds)
    together = model.logits(x)
    set_sample_seeds(model, seeds[1:2])
    torch.testing.assert_close(model.logits(x[1:2])[0], together[1], rtol=1e-4, atol=1e-5)
    set_sample_seeds(model, seeds + 1)
    assert not torch.allclose(model.logits(x), together)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_weight_learns(name):
    model = network(name).train()
    set_sample_seeds(model, torch.arange(2))
    model.logits(images(2)).square().sum().backward()
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in model.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_folder_gives_the_network_back(name, tmp_path):
    model = network(name, in_channels=3)
    card = CARD.__class__(**{**vars(CARD), "encoder": {"name": "pixels", "params": {"channels": 3}}})
    info = save_model_folder(tmp_path / "m", [model], architecture=name, card=card)
    assert info.heads["value"].level == LEVEL_OF[name]
    (again,) = load_members(open_model(tmp_path / "m"))
    x = images(2, channels=3)
    with torch.inference_mode():
        assert torch.equal(again(x)["value"], model(x)["value"])


@pytest.mark.parametrize(
    ("encoder", "told"),
    [
        ({"name": "pixels", "params": {}}, "gives 1 channels, the network takes 4"),
        ({"name": "one_hot", "params": {}}, "OneHot is no encoder of images"),
    ],
)
def test_a_folder_with_another_encoder_is_refused(encoder, told, tmp_path):
    card = CARD.__class__(**{**vars(CARD), "encoder": encoder})
    with pytest.raises(InputError, match=told):
        save_model_folder(tmp_path / "m", [network("u_net", in_channels=4)], architecture="u_net", card=card)


@pytest.mark.parametrize(
    "values", [{"levels": 0}, {"levels": 9}, {"dropout": 1.0}, {"channels": 0}, {"outputs": ("a", "a")}]
)
@pytest.mark.parametrize("name", NETWORKS)
def test_params_are_checked(name, values):
    with pytest.raises(InputError):
        network(name, **values)


def test_images_are_declared_to_the_encoder():
    encoder = Pixels(PixelsParams(channels=1))
    network("u_net").check_encoder(encoder)
    assert network("u_net").input_channels(network("u_net").params) == encoder.channels


@pytest.mark.parametrize("name", ["u_net", "image_cnn"])
def test_golden_numbers_of_this_version(name):
    model = filled(network(name, activation="identity"))
    x = torch.linspace(-1, 1, 2 * 12 * 9).double().sin().float().reshape(2, 1, 12, 9)
    with torch.inference_mode():
        (values,) = model(x).values()
    check(
        type(model),
        1,
        [*values.flatten()[::97][:4].tolist(), values.double().mean().item()],
        GOLDEN[name],
        tolerance=1e-5,
    )


GOLDEN = {"u_net": [-0.474992, -0.477622, 0.147494, 0.193874, -0.038126], "image_cnn": [-1.944276, 0.091994]}
