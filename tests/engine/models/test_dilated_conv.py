"""Judges: a same-padded network written from the paper in plain (N, C, L) convolutions, and autograd."""

import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import registry
from engine.encoders.one_hot import OneHot, OneHotParams
from engine.errors import InputError
from engine.models.dilated_conv import (
    COMPONENT,
    DilatedConv,
    DilatedConvParams,
    activate,
    context_bp,
    multiply_adds,
    spliceai_params,
)
from tests.toys import golden
from tests.toys.models import randomised

torch.set_num_threads(1)

SMALL = DilatedConvParams(channels=4, stem_width=3, blocks=((3, 1), (5, 2), (3, 3)), skip_every=2, head_width=5)
PARAMS = st.builds(
    DilatedConvParams,
    channels=st.integers(1, 5),
    stem_width=st.sampled_from([1, 3, 7]),
    blocks=st.lists(st.tuples(st.sampled_from([1, 3, 5]), st.integers(1, 3)), max_size=4).map(tuple),
    skip_every=st.integers(0, 3),
    head_width=st.sampled_from([1, 3, 5]),
    norm=st.sampled_from(["batch", "layer", "none"]),
    nonlinearity=st.just("gelu"),
)


def one_hot(batch, length, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.one_hot(torch.randint(0, 4, (batch, length), generator=generator), 4).float().transpose(1, 2).contiguous()


def naive(model, x):
    """Jaganathan et al. 2019, layer by layer: same padding with zeros, (N, C, L), cropped once at the end."""
    params, tensors = model.params, model.state_dict()

    def conv(y, name, dilation=1):
        weight = tensors[f"{name}.weight"].squeeze(2)
        reach = (weight.shape[-1] - 1) // 2 * dilation
        return F.conv1d(F.pad(y, (reach, reach)), weight, tensors[f"{name}.bias"], dilation=dilation)

    def norm(y, name):
        if params.norm == "none":
            return y
        scale, shift = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        if params.norm == "batch":
            mean, variance = tensors[f"{name}.mean"][:, None], tensors[f"{name}.variance"][:, None]
        else:
            mean, variance = y.mean(1, keepdim=True), y.var(1, keepdim=True, unbiased=False)
        return (y - mean) / (variance + params.norm_epsilon) ** 0.5 * scale[:, None] + shift[:, None]

    act = getattr(F, params.nonlinearity)
    trunk = conv(x, "stem")
    skip = conv(trunk, "skips.0") if params.skip_every else None
    leaves = 1
    for number, (_, dilation) in enumerate(params.blocks):
        name = f"blocks.{number}"
        y = conv(act(norm(trunk, f"{name}.norm1")), f"{name}.conv1", dilation)
        trunk = trunk + conv(act(norm(y, f"{name}.norm2")), f"{name}.conv2", dilation)
        last = number + 1 == len(params.blocks)
        if params.skip_every and ((number + 1) % params.skip_every == 0 or last):
            skip = skip + conv(trunk, f"skips.{leaves}")
            leaves += 1
    top = trunk if skip is None else skip
    if params.head_width > 1:
        top = act(conv(act(top), "wide"))
    half = context_bp(params) // 2
    return torch.softmax(conv(top, "final")[:, :, half : x.shape[-1] - half], dim=1)


@pytest.mark.parametrize("flank", [80, 400, 2000, 10000])
def test_published_sizes_equal_the_same_padded_network(flank):
    model = randomised(DilatedConv(spliceai_params(flank)))
    x = one_hot(2, flank + 31)
    with torch.inference_mode():
        found = model(x)["splice"]
        expected = naive(model, x)
    assert found.shape == (2, 3, 31)
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(PARAMS, st.integers(1, 9), st.integers(0, 9))
def test_any_shape_equals_the_same_padded_network(params, num_outputs, seed):
    model = randomised(DilatedConv(params), seed=seed)
    x = one_hot(2, context_bp(params) + num_outputs, seed=seed)
    with torch.inference_mode():
        found, single = model(x)["splice"], naive(model, x)
        exact = naive(model.double(), x.double())
    # Layer norm over a few nearly equal channels blows single precision's rounding up, for the judge as for us.
    rounding = float((single - exact).abs().max())
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-5 + 10 * rounding)
    assert rounding < 1e-2


@settings(max_examples=60, deadline=None)
@given(PARAMS, st.integers(2, 9), st.data())
def test_a_base_outside_the_context_never_matters(params, num_outputs, data):
    model = randomised(DilatedConv(params))
    context = context_bp(params)
    x = one_hot(1, context + num_outputs)
    output = data.draw(st.integers(0, num_outputs - 1))
    outside = [at for at in range(x.shape[-1]) if not output <= at <= output + context]
    changed = x.clone()
    at = data.draw(st.sampled_from(outside))
    changed[0, :, at] = changed[0, :, at].roll(data.draw(st.integers(1, 3)))
    with torch.inference_mode():
        before, after = model(x)["splice"][..., output], model(changed)["splice"][..., output]
    assert torch.equal(before, after)


@settings(max_examples=40, deadline=None)
@given(PARAMS, st.integers(1, 5))
def test_the_context_is_used_to_both_ends(params, num_outputs):
    # Layer norm over one channel is constant, and then nothing depends on the input.
    params = dataclasses.replace(params, channels=3)
    model = randomised(DilatedConv(params))
    x = one_hot(1, context_bp(params) + num_outputs).requires_grad_()
    model.logits(x)[0, :, -1].square().sum().backward()
    reached = x.grad[0].abs().sum(dim=0).nonzero()[:, 0]
    assert (reached.min(), reached.max()) == (num_outputs - 1, x.shape[-1] - 1)


@settings(max_examples=60, deadline=None)
@given(PARAMS, st.integers(1, 9))
def test_multiply_adds_are_those_that_run(params, num_outputs):
    model = randomised(DilatedConv(params))
    length = context_bp(params) + num_outputs
    counted = []

    def count(module, _, output):
        counted.append(output[0, 0].numel() * module.weight.numel())

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    model(one_hot(1, length))
    assert multiply_adds(params, length=length) == sum(counted)
    # Far from the ends every further output costs the same.
    step = multiply_adds(params, length=length + 1) - multiply_adds(params, length=length)
    assert multiply_adds(params) == step


@pytest.mark.parametrize(("flank", "groups"), [(80, 1), (400, 2), (2000, 3), (10000, 4)])
def test_published_parameter_counts(flank, groups):
    params = spliceai_params(flank)
    # By hand from the paper's figure: stem, a skip convolution after it and after each group, blocks of two
    # convolutions and two normalisations of 32 channels, the last 1x1.
    widths = (11, 11, 21, 41)[:groups]
    blocks = sum(4 * 2 * (32 * 32 * width + 32 + 64) for width in widths)
    by_hand = (4 * 32 + 32) + (groups + 1) * (32 * 32 + 32) + blocks + (32 * 3 + 3)
    assert sum(tensor.numel() for tensor in DilatedConv(params).parameters()) == by_hand
    assert context_bp(params) == flank


def test_the_largest_has_about_700_thousand_parameters():
    params = spliceai_params(10000)
    assert sum(tensor.numel() for tensor in DilatedConv(params).parameters()) == 696_739
    assert multiply_adds(params) == 693_472
    with pytest.raises(ValueError, match="published sizes are 80, 400, 2000, 10000, found 1000"):
        spliceai_params(1000)


def test_folding_normalisations_changes_nothing_but_rounding():
    model = randomised(DilatedConv(dataclasses.replace(SMALL, channels=8)))
    x = one_hot(2, context_bp(SMALL) + 40)
    with torch.inference_mode():
        before = model(x)["splice"]
        after = model.for_inference()(x)["splice"]
    assert not any("norm2" in name for name in model.state_dict())
    torch.testing.assert_close(before, after, rtol=0, atol=1e-6)


def test_a_fixed_offset_folds_into_the_stem_bias():
    model = randomised(DilatedConv(SMALL))
    offset = torch.tensor([0.3, -0.2, 0.5, 0.1])
    x = one_hot(2, context_bp(SMALL) + 5)
    with torch.inference_mode():
        given_offset = model.logits(x, offset_BC=offset.expand(2, 4))
        plain = model.logits(x)
        model.stem.bias += offset
        folded = model.logits(x)
    assert (given_offset - plain).abs().max() > 1e-3
    torch.testing.assert_close(given_offset, folded, rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize("nonlinearity", ["relu", "gelu", "silu"])
def test_every_weight_gets_a_gradient(norm, nonlinearity):
    torch.manual_seed(0)
    model = DilatedConv(dataclasses.replace(SMALL, norm=norm, nonlinearity=nonlinearity, skip_every=0)).train()
    out = model(one_hot(8, context_bp(SMALL) + 20))["splice"]
    (-out[:, 1].log().mean()).backward()
    assert all(tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in _but_constant(model, norm))
    moved = any((buffer != 0).any() for name, buffer in model.named_buffers() if name.endswith("mean"))
    assert moved == (norm == "batch")


def _but_constant(model, norm):
    """A bias before a batch normalisation is subtracted again and learns nothing."""
    for name, tensor in model.named_parameters():
        if not (norm == "batch" and name.endswith("conv1.bias")):
            yield tensor


def test_activations():
    x = torch.tensor([[[0.0], [1.0]]])
    assert activate(x, "identity") is x
    torch.testing.assert_close(activate(x, "softmax").sum(dim=1), torch.ones(1, 1))
    torch.testing.assert_close(activate(x, "sigmoid")[0, 0, 0], torch.tensor(0.5))
    torch.testing.assert_close(activate(x, "softplus")[0, 0, 0], torch.tensor(2.0).log())


@settings(deadline=None)
@given(PARAMS)
def test_params_survive_json(params):
    values = json.loads(json.dumps(dataclasses.asdict(params)))
    assert registry.build_params(DilatedConv, values, where="spec") == params


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"channels": 0}, "channels must be a whole number from 1 to 65536, found 0"),
        ({"channels": 32.0}, "channels must be a whole number"),
        ({"channels": True}, "channels must be a whole number"),
        ({"stem_width": 4}, "widths must be odd, so that an output has a middle base; found 4"),
        ({"blocks": [[11, 0]]}, "dilations must be 1 or more, found 0"),
        ({"blocks": [[11]]}, r"blocks must hold pairs of whole numbers, found \[11\]"),
        ({"blocks": ["11"]}, "blocks must hold pairs of whole numbers, found '11'"),
        ({"blocks": 11}, "not iterable"),
        ({"blocks": [[11, 1_000_000]]}, "a context of 20000000 bp is more than the limit"),
        ({"skip_every": -1}, "skip_every must be 0 or more, found -1"),
        ({"norm": "group"}, "norm must be one of batch, layer, none, found 'group'"),
        ({"activation": "relu"}, "activation must be one of"),
        ({"norm_epsilon": 0.0}, "norm_epsilon must lie between 0 and 1"),
        ({"symmetry": "odd"}, "symmetry must be one of symmetric, paired, stranded, found 'odd'"),
        ({"symmetry": "paired"}, "pairs are given exactly where symmetry is 'paired'"),
        ({"symmetry": "paired", "pairs": [[0, 3]]}, "must name each channel index at most once"),
        ({"outputs": []}, "needs channels with distinct names"),
        ({"outputs": ["a", "a"]}, "needs channels with distinct names"),
        ({"head": "../x"}, "a head's name holds letters"),
        ({"chanels": 3}, "unknown parameter 'chanels'; did you mean 'channels'?"),
    ],
)
def test_bad_params_are_one_sentence(values, sentence):
    with pytest.raises(InputError, match=f"^spec: .*{sentence}"):
        registry.build_params(COMPONENT, values, where="spec")


def test_a_window_within_the_context_is_refused():
    model = DilatedConv(SMALL)
    with pytest.raises(ValueError, match=f"a window of 30 bp does not exceed the context of {context_bp(SMALL)}"):
        model(one_hot(1, 30))
    with pytest.raises(ValueError, match="length must exceed"):
        multiply_adds(SMALL, length=30)


def golden_numbers(norm, nonlinearity):
    """(2, 3, 4): some outputs of a network filled by formula, as it trains and as it scores."""
    params = DilatedConvParams(**{**dataclasses.asdict(SMALL), "norm": norm, "nonlinearity": nonlinearity})
    model = golden.filled(DilatedConv(params))
    encoder = OneHot(OneHotParams())
    x = encoder.tensor(torch.from_numpy(encoder.encode(golden.TEXT * 2))[None])
    with torch.inference_mode():
        plain = model(x)["splice"][0, :, ::12].numpy()
        return [plain, model.for_inference()(x)["splice"][0, :, ::12].numpy()]


@pytest.mark.parametrize(
    ("norm", "nonlinearity", "expected"),
    [
        (
            "batch",
            "relu",
            [
                [0.1591288, 0.1559696, 0.1587894, 0.1579998],
                [0.2883197, 0.2853196, 0.2880403, 0.2872826],
                [0.5525515, 0.5587108, 0.5531703, 0.5547177],
            ],
        ),
        (
            "layer",
            "gelu",
            [
                [0.1632915, 0.1636243, 0.1636251, 0.1651471],
                [0.3685431, 0.3687267, 0.3690349, 0.369415],
                [0.4681653, 0.467649, 0.4673399, 0.4654379],
            ],
        ),
    ],
)
def test_golden_numbers_of_this_version(norm, nonlinearity, expected):
    for found in golden_numbers(norm, nonlinearity):
        golden.check(COMPONENT, 1, found, expected)
