"""Compiled networks: every kind gives the losses and gradients of the plain one, and one that does not is stopped."""

from __future__ import annotations

import functools
import sys

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import multiprocessing

from engine import registry
from engine.errors import InputError, SystemFailure
from engine.models._sample_dropout import set_sample_seeds
from engine.training import _compiling
from engine.training._compiling import Compiled, padded_length
from engine.training._team import Team
from engine.training.loop import Training, _Logits
from tests.engine.training.setups import small_setup, step_losses
from tests.toys import hugging_face

torch.set_num_threads(1)
# What torch says of itself while it traces.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
]

TOWER = {"name": "sequence_cnn", "params": {"channels": 4, "blocks": 1}}
NETWORKS = {
    "string_kernel": {"centres": 5, "length": 39, "sides": (1, 2)},
    "sequence_cnn": {"channels": 8, "blocks": 1, "kmers": (3,), "pool": "attention", "dropout": 0.2},
    "transformer": {"channels": 8, "attention_heads": 2, "layers": 1, "pool": "max+mean", "dropout": 0.2},
    "recurrent": {"channels": 8, "pool": "mean", "dropout": 0.2},
    "hugging_face": {"channels": 8, "in_channels": 1, "pool": "mean", "tune": "all", "dropout": 0.2},
    "pair_network": {"first": TOWER, "second": {"name": "recurrent", "params": {"channels": 4}}, "hidden": (4,)},
    "u_net": {"channels": 4, "levels": 2, "dropout": 0.2},
    "image_cnn": {"channels": 4, "levels": 2, "dropout": 0.2},
}
MORE = {
    "transformer of positions": {**NETWORKS["transformer"], "pool": "max", "level": "position"},
    "transformer of tokens": {**NETWORKS["transformer"], "in_channels": 1, "num_tokens": 6, "pool": "attention"},
    "sequence_cnn in place": {**NETWORKS["sequence_cnn"], "pool": "place", "length": 48, "stem_pool": 2},
    "pair_network without dropout": {
        "first": {"name": "transformer", "params": {"channels": 8, "attention_heads": 2, "dropout": 0.0}},
        "second": {"name": "recurrent", "params": {"channels": 4, "dropout": 0.0}},
        "dropout": 0.0,
        "hidden": (4,),
    },
}
SIZES = ((6, 39), (6, 30), (5, 39))


def network(name, folder):
    cls, values = registry.component("models", name.split()[0]), {**NETWORKS, **MORE}[name]
    if name == "hugging_face":
        base = str(hugging_face.nucleotide_folder(folder / "base", k=1))
        values = cls.completed({**values, "folder": base, "num_tokens": 5})
    torch.manual_seed(1)
    model = cls(registry.build_params(cls, values, where="test")).train()
    if hasattr(model, "set_examples"):
        model.set_examples(*sequences(model, model.params.centres, model.params.length, np.random.default_rng(2)))
    return model


def sequences(model, count, length, draw):
    """A batch as an encoder gives it, padded or of one length."""
    params = model.params
    lengths_B = torch.from_numpy(draw.integers(length // 2, length + 1, count))
    lengths_B[0] = length
    tokens_BL = torch.from_numpy(draw.integers(0, 4, (count, length)))
    inside_BL = torch.arange(length) < lengths_B[:, None]
    if params.num_tokens:
        return (tokens_BL * inside_BL)[:, None], lengths_B
    channels = params.in_channels
    return torch.nn.functional.one_hot(tokens_BL, channels).transpose(1, 2).float() * inside_BL[:, None], lengths_B


def batch(model, count, length, draw):
    kind = getattr(model, "kind", "sequences")
    if kind == "images":
        return (torch.from_numpy(draw.random((count, 1, 12, length), dtype=np.float32)),)
    if kind == "pairs":
        return *sequences(model.first, count, length, draw), *sequences(model.second, count, length // 2, draw)
    return sequences(model, count, length, draw)


def learned(runner, model, tensors, seeds_B):
    """Loss and gradients of a batch."""
    set_sample_seeds(model, seeds_B)
    model.zero_grad()
    logits = runner(*tensors)
    weights = torch.linspace(-1, 1, logits.numel()).view_as(logits)
    loss = (logits * weights).sum() + logits.square().mean()
    loss.backward()
    return loss.item(), [one.grad for one in model.parameters()]


def same_as_plain(name, folder, sizes=SIZES):
    model, draw = network(name, folder), np.random.default_rng(5)
    compiled = Compiled(_Logits(model), kind=getattr(model, "kind", "sequences"))
    for count, length in sizes:
        tensors, seeds_B = batch(model, count, length, draw), torch.from_numpy(draw.integers(0, 1 << 60, count))
        loss, found = learned(compiled, model, tensors, seeds_B)
        plain, wanted = learned(_Logits(model), model, tensors, seeds_B)
        assert loss == pytest.approx(plain, rel=1e-4, abs=1e-5)
        for one, other in zip(found, wanted, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                torch.testing.assert_close(one, other, rtol=2e-3, atol=1e-4)


def by_backend(monkeypatch, backend):
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", functools.partial(compiled, backend=backend))


@pytest.mark.parametrize("name", sorted({**NETWORKS, **MORE}))
def test_traced_networks_learn_what_plain_ones_do(name, tmp_path, monkeypatch):
    """Up to machine code."""
    by_backend(monkeypatch, "aot_eager")
    same_as_plain(name, tmp_path, SIZES[:2])


@pytest.mark.soak
def test_machine_code_of_attention_takes_another_length(tmp_path):
    """Where all lengths share a program, the mask kept for the backward pass has the strides of the first."""
    same_as_plain("transformer", tmp_path, ((3, 20), (3, 12)))


@pytest.mark.soak
@pytest.mark.parametrize("name", sorted({**NETWORKS, **MORE}))
def test_machine_code_learns_what_plain_networks_do(name, tmp_path):
    same_as_plain(name, tmp_path)


def test_every_model_is_compiled_here():
    """Those without a recipe of their own are not trained."""
    assert {*registry.names("models")} - {*NETWORKS} == {"dilated_conv", "splice_grammar"}


def test_a_compiled_run_has_the_losses_of_a_plain_one(tmp_path, monkeypatch):
    by_backend(monkeypatch, "aot_eager")
    runs = [small_setup(tmp_path, output=str(on), recipe={"compiled": on, "micro_batch": 7}) for on in (True, False)]
    losses = [step_losses(setup) for setup in runs]
    np.testing.assert_allclose(list(losses[0].values()), list(losses[1].values()), rtol=1e-4)


def test_the_step_that_is_held_against_leaves_nothing_behind(tmp_path, monkeypatch):
    """What a network counts in a buffer, as batch normalisation does, has seen each step once."""
    by_backend(monkeypatch, "eager")
    passes = []
    for on in (True, False):
        training = Training(small_setup(tmp_path, output=str(on), recipe={"compiled": on, "epochs": 1}), Team())
        training._model.answer.register_buffer("passes", torch.zeros(()), persistent=False)
        training._model.answer.register_forward_pre_hook(count)
        training.run()
        passes.append(training._model.answer.passes.item())
    assert passes[0] == passes[1] > 1


def count(module, given):
    if module.training:
        module.passes.add_(1)


@pytest.mark.parametrize("wrong", [2.0, float("nan")])
@pytest.mark.parametrize("where", ["loss", "gradients"])
def test_a_compiler_that_errs_is_stopped_at_the_first_step(where, wrong, tmp_path, monkeypatch):
    from functorch.compile import make_boxed_func
    from torch._dynamo.backends.common import aot_autograd

    def erring(graph, inputs):
        return make_boxed_func(lambda *given: [one * wrong if is_float(one) else one for one in graph(*given)])

    def right(graph, inputs):
        return make_boxed_func(graph.forward)

    backends = (erring, right) if where == "loss" else (right, erring)
    by_backend(monkeypatch, aot_autograd(fw_compiler=backends[0], bw_compiler=backends[1]))
    losses = {}
    with pytest.raises(
        SystemFailure, match=r"at epoch 0, step 0 the compiled network gives loss .* set execution.compile to false"
    ):
        Training(small_setup(tmp_path, recipe={"compiled": True}), Team(), on_step=losses.__setitem__).run()
    assert not losses


def is_float(one):
    return isinstance(one, torch.Tensor) and one.is_floating_point()


def test_what_the_compiler_raises_is_a_sentence(tmp_path, monkeypatch):
    def refusing(graph, inputs):
        raise ValueError("no such thing")

    by_backend(monkeypatch, refusing)
    with pytest.raises(SystemFailure, match=r"torch\.compile does not take the network: .*no such thing"):
        Training(small_setup(tmp_path, recipe={"compiled": True}), Team()).run()


def test_no_compiler_no_compiling(tmp_path, monkeypatch):
    monkeypatch.setattr(_compiling.shutil, "which", lambda name: None)
    setup = small_setup(tmp_path, recipe={"compiled": True})
    with pytest.raises(InputError, match=r"no C\+\+ compiler on this machine; install g\+\+, or set execution"):
        Training(setup, Team())


@given(length=st.integers(1, 1 << 20))
def test_lengths_are_few_and_near(length):
    padded = padded_length(length)
    assert padded == padded_length(padded)
    assert padded_length(length + 1) >= padded >= length
    assert padded == 16 or padded < 1.25 * length


def test_there_are_four_an_octave():
    assert len({padded_length(length) for length in range(65, 129)}) == 4


def in_shares(rank, setups, meet, backend):
    """A worker of two."""
    torch.set_num_threads(1)
    if backend != "inductor":
        torch.compile = functools.partial(torch.compile, backend=backend)
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=2)
    for setup in setups:
        Training(setup, Team(rank=rank, size=2)).run()
    dist.destroy_process_group()
    sys.exit(0)


SOAK = pytest.mark.soak
WAYS = [("fsdp2", "eager"), *(pytest.param(one, "inductor", marks=SOAK) for one in ("fsdp2", "ddp"))]


@pytest.mark.parametrize(("sharding", "backend"), WAYS)
def test_several_workers_compile_what_they_share(sharding, backend, tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    recipe = {"sharding": sharding, "epochs": 1, "micro_batch": 64 if backend == "eager" else 7}
    runs = [small_setup(tmp_path, count=60, output=str(on), recipe={**recipe, "compiled": on}) for on in (True, False)]
    multiprocessing.spawn(in_shares, (runs, tmp_path / "meet", backend), nprocs=2)
    one, other = (losses_of(setup) for setup in runs)
    np.testing.assert_allclose(one, other, rtol=1e-4)


def losses_of(setup):
    from engine.training import _checkpoints

    found = _checkpoints.read(setup.checkpoints / _checkpoints.LAST)
    return [(entry["train_loss"], entry["validation"]["loss"]) for entry in found.state["history"]]
