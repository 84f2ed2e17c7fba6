"""Attributions held against full recomputation, finite differences, captum on modules, and their own laws."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from captum.attr import DeepLift
from torch import nn
from torch.nn import functional as F

from engine.encoders.one_hot import OneHot, OneHotParams
from engine.errors import InputError
from engine.genome.windows import reverse_complement, tokens_from_text
from engine.interpret import deeplift, integrated_gradients, mutagenesis
from engine.interpret._baselines import Baseline
from engine.interpret._deeplift_rules import FunctionRules
from engine.interpret._target import Question, Target, _before, check_question, letters_of
from engine.models._folder import load_members
from engine.models._info import open_model
from engine.models.dilated_conv import DilatedConvParams
from tests.toys.explained import mirrored_network
from tests.toys.models import base_counter, count_bases, random_network, splice_grammar_toy
from tests.toys.sequence_runs import sequence_model

torch.set_num_threads(1)

CLASS = Question("class", ("none", "site"))
TOKENS = np.random.default_rng(0).integers(0, 4, 30).astype(np.uint8)
TOKENS[7] = 4


def soft(info, question, **given) -> Target:
    target = Target(info, question, **given)
    target.soften()
    return target


def judged(info, tokens: np.ndarray) -> np.ndarray:
    """Centred logits of one sequence through every member, averaged; without any code of the room."""
    x = OneHot(OneHotParams()).tensor(torch.from_numpy(tokens[None]))
    with torch.no_grad():
        found = [member(x)["class"][0].double().log().numpy() for member in load_members(info)]
    return np.mean([one - one.mean() for one in found], axis=0)


def test_mutagenesis_is_every_mutant(tmp_path):
    info = sequence_model(tmp_path / "model", members=2)
    found = mutagenesis.attribute(Target(info, CLASS, micro_batch=7), TOKENS)
    whole = judged(info, TOKENS)
    np.testing.assert_allclose(found.output, whole, atol=1e-5)
    expected = np.zeros((2, 4, len(TOKENS)))
    for place in range(len(TOKENS)):
        for letter in range(4):
            mutant = TOKENS.copy()
            mutant[place] = letter
            expected[:, letter, place] = judged(info, mutant) - whole
    np.testing.assert_allclose(found.values, expected, atol=2e-5)
    others = np.where(np.arange(len(TOKENS)) == 7, 4, 3)
    np.testing.assert_allclose(found.contributions, -expected.sum(axis=1) / others, atol=2e-5)
    assert np.isnan(found.baseline).all()
    assert np.abs(expected).max() > 0.05


@pytest.mark.parametrize("method", ["mutagenesis", "integrated_gradients", "deeplift"])
def test_a_linear_model_is_its_weights(tmp_path, method):
    """Counting A in 5 bases, averaged over all outputs: every A weighs by how many outputs see it."""
    question = Question("count", ("A", "G"), reduce="mean")
    target = soft(base_counter(tmp_path / "model", width=5), question)
    seen = np.convolve(np.ones(len(TOKENS) - 4), np.ones(5)) / (len(TOKENS) - 4)
    baseline = Baseline("uniform")
    if method == "mutagenesis":
        found = mutagenesis.attribute(target, TOKENS)
        assert found.values[0, 0, 0] == pytest.approx(seen[0] * (TOKENS[0] != 0), abs=1e-6)
        return
    if method == "deeplift":
        found = deeplift.attribute(target, TOKENS, record=0, baseline=baseline)
    else:
        found = integrated_gradients.attribute(target, TOKENS, record=0, baseline=baseline, steps=4)
    for place, letter in enumerate((0, 2)):
        expected = ((letter == TOKENS) - 0.25) * seen
        np.testing.assert_allclose(found.values[place, letter], expected, atol=1e-6)
        np.testing.assert_allclose(found.contributions[place], expected, atol=1e-6)
    counts = count_bases("".join("ACGTN"[one] for one in TOKENS), 5).mean(axis=1)
    np.testing.assert_allclose(found.output, counts[[0, 2]], atol=1e-6)


def test_integrated_gradients_by_finite_differences(tmp_path):
    info = sequence_model(tmp_path / "model", pool="mean", stem_width=3, blocks=1)
    target, tokens = soft(info, Question("class", ("site",))), TOKENS[:6]
    found = integrated_gradients.attribute(target, tokens, record=0, baseline=Baseline("zero"), steps=40)
    x = target.letters_input(tokens[None])
    points, weights = np.polynomial.legendre.leggauss(40)
    total, step = np.zeros((4, 6)), 2e-3
    with torch.no_grad():
        for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
            bumps = torch.eye(24).reshape(24, 4, 6) * step
            high, low = target(x * point + bumps), target(x * point - bumps)
            total += weight * ((high - low)[:, 0].double().numpy() / (2 * step)).reshape(4, 6)
    expected = total * x[0].numpy()
    np.testing.assert_allclose(found.values[0], expected, atol=3e-3 * np.abs(expected).max())


ARCHITECTURES = {
    "cnn": ("sequence_cnn", {}),
    "cnn, every pool": ("sequence_cnn", {"pool": "attention+max+mean", "stem_pool": 3, "hidden": 5}),
    "cnn, in place": ("sequence_cnn", {"pool": "place", "length": 40, "bin_width": 4}),
    "transformer": ("transformer", {"pool": "mean"}),
    "embedded": ("sequence_cnn", {"encoder": "tokens", "num_tokens": 5, "in_channels": 1}),
    "recurrent": ("recurrent", {}),
    "words": ("sequence_cnn", {"kmers": (1, 2, 3), "pool": "mean"}),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("kind", ["uniform", "zero", "shuffle"])
def test_contributions_sum_to_the_difference(tmp_path, name, kind):
    architecture, params = ARCHITECTURES[name]
    target = soft(sequence_model(tmp_path / "model", architecture=architecture, **params), CLASS)
    baseline = Baseline(kind, 3 if kind == "shuffle" else 1)
    found = integrated_gradients.attribute(target, TOKENS, record=0, baseline=baseline, steps=64)
    assert np.abs(found.error()).max() < 0.1
    low = [target(base[None])[0].detach().numpy() for base in baseline.inputs(target, TOKENS, record=0)]
    np.testing.assert_allclose(found.baseline, np.mean(low, axis=0), atol=1e-5)
    if name == "recurrent":
        with pytest.raises(InputError, match="DeepLIFT has no rule for GRU layers"):
            deeplift.check(target)
        return
    deeplift.check(target)
    found = deeplift.attribute(target, TOKENS, record=0, baseline=baseline)
    assert np.abs(found.error()).max() < 1e-3
    difference = found.output - found.baseline
    np.testing.assert_allclose(found.contributions.sum(axis=1), difference, atol=1e-3)


@pytest.mark.parametrize("scale", ["logit", "value"])
def test_ensembles_with_a_value_per_position(tmp_path, scale):
    for norm, nonlinearity in (("batch", "relu"), ("layer", "silu"), ("none", "leaky_relu")):
        params = DilatedConvParams(channels=6, blocks=((3, 1), (3, 2)), norm=norm, nonlinearity=nonlinearity)
        info = random_network(tmp_path / norm, params, members=2)
        for reduce in ("middle", "mean"):
            target = soft(info, Question("splice", ("donor",), scale, reduce))
            found = deeplift.attribute(target, TOKENS, record=0, baseline=Baseline())
            assert np.abs(found.error()).max() < 1e-5
            assert np.abs(found.contributions).max() > 1e-3


class _Modules(nn.Module):
    """A network as captum wants it; `called` gives the same by functions.

    Pooling stands alone: behind another hooked module contributions of captum 0.9.0 no longer sum up.
    """

    def __init__(self, *, pools: bool) -> None:
        super().__init__()
        self.pools = pools
        torch.manual_seed(3)
        self.conv, self.more = nn.Conv1d(4, 6, 3), nn.Conv1d(6, 5, 3)
        self.relu, self.tanh, self.pool = nn.ReLU(), nn.Tanh(), nn.MaxPool1d(2)
        self.final, self.sigmoid = nn.Linear(5 * (12 if pools else 26), 2), nn.Sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        y = self.pool(y) if self.pools else self.relu(y)
        y = self.more(y).flatten(1)
        return self.final(y) if self.pools else self.sigmoid(self.final(self.tanh(y)))

    def called(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        y = F.max_pool1d(y, 2) if self.pools else F.relu(y)
        y = self.more(y).flatten(1)
        return self.final(y) if self.pools else torch.sigmoid(self.final(torch.tanh(y)))


class _Called(nn.Module):
    def __init__(self, network: _Modules) -> None:
        super().__init__()
        self._network = (network,)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with FunctionRules():
            return self._network[0].called(x)


@pytest.mark.parametrize("pools", [False, True])
def test_rules_for_functions_are_captums_for_modules(pools):
    network = _Modules(pools=pools)
    x, base = torch.randn(3, 4, 30), torch.randn(3, 4, 30)
    x[0, :, 5] = base[0, :, 5]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        theirs = DeepLift(network).attribute(x, baselines=base, target=1)
        ours = DeepLift(_Called(network)).attribute(x, baselines=base, target=1)
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-3)
    assert ours.abs().max() > 0.01


def test_the_other_strand_mirrors(tmp_path):
    info = mirrored_network(tmp_path / "model")
    text = "ACGTTGCATTAGACCAGTACG"
    for run in (
        mutagenesis.attribute,
        lambda target, tokens: deeplift.attribute(target, tokens, record=0, baseline=Baseline("uniform")),
        lambda target, tokens: integrated_gradients.attribute(
            target, tokens, record=0, baseline=Baseline("zero"), steps=16
        ),
    ):
        for reduce in ("middle", "mean"):
            target = Target(info, Question("signal", ("signal",), reduce=reduce))
            one = run(target, tokens_from_text(text))
            other = run(target, tokens_from_text(reverse_complement(text)))
            largest = np.abs(one.values).max()
            np.testing.assert_allclose(one.values, other.values[:, ::-1, ::-1], atol=1e-4 * largest)
            np.testing.assert_allclose(one.contributions, other.contributions[:, ::-1], atol=1e-4 * largest)
            assert np.abs(one.values - one.values[:, :, ::-1]).max() > 0.1 * largest


def test_logits_are_found_back_from_values():
    logits = torch.randn(4, 3, 5) * 3
    centred = logits - logits.mean(dim=1, keepdim=True)
    torch.testing.assert_close(_before(logits.softmax(dim=1), "softmax"), centred, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(_before(logits.sigmoid(), "sigmoid"), logits, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(_before(F.softplus(logits), "softplus"), logits, atol=1e-3, rtol=1e-3)
    assert torch.isfinite(_before(torch.tensor([[1.0, 0.0]]), "softmax")).all()


def test_a_model_without_logits_and_the_one_that_ships(tmp_path):
    toy = splice_grammar_toy(tmp_path / "toy")
    found = mutagenesis.attribute(Target(toy, Question("splice", ("acceptor",))), TOKENS)
    assert np.isfinite(found.values).all()
    info = open_model("splice-mini")
    tokens = np.random.default_rng(1).integers(0, 4, info.context_bp + 1).astype(np.uint8)
    found = deeplift.attribute(soft(info, Question("splice", ("donor",))), tokens, record=0, baseline=Baseline())
    assert np.abs(found.error()).max() < 1e-4


def test_proteins_have_their_own_letters(tmp_path):
    """Every encoder of proteins tells the same twenty apart; rarer letters are replaced, and never put in."""
    tokens = np.arange(20, dtype=np.uint8)[::-1].copy()
    for encoder, num_tokens, odd in (("protein_tokens", 21, 20), ("protein_letters", 25, 22)):
        given = {"encoder": encoder, "num_tokens": num_tokens, "in_channels": 1, "symmetry": "stranded"}
        info = sequence_model(tmp_path / encoder, **given)
        tokens[4] = odd
        found = mutagenesis.attribute(Target(info, CLASS), tokens)
        assert found.values.shape == (2, 20, 20)
        assert (found.values[:, :, 4] != 0).all()
        assert not found.values[:, tokens[5], 5].any()
        made = deeplift.attribute(soft(info, CLASS), tokens, record=0, baseline=Baseline())
        assert np.abs(made.error()).max() < 1e-4


def test_what_gradients_do_not_see_is_refused(tmp_path):
    info = sequence_model(tmp_path / "words", kmers=(2, 7))
    with pytest.raises(InputError, match=r"words of more than 6 letters .* use the method mutagenesis"):
        soft(info, CLASS)
    assert np.abs(mutagenesis.attribute(Target(info, CLASS), TOKENS).values).max() > 0
    info = sequence_model(tmp_path / "sides", sides=(3,), pool="place", length=30)
    with pytest.raises(InputError, match="in a table, which gradients do not see; use the method mutagenesis"):
        soft(info, CLASS)
    assert np.abs(mutagenesis.attribute(Target(info, CLASS), TOKENS).values).max() > 0
    target = Target(sequence_model(tmp_path / "plain"), CLASS)
    target.members[0].more = nn.EmbeddingBag(4, 2)
    with pytest.raises(InputError, match="in a table, which gradients do not see; use the method mutagenesis"):
        target.soften()
    info = sequence_model(tmp_path / "shares", kmers=(2,))
    shares = replace(info, encoder={"name": "one_hot", "params": {"unknown": "quarter"}})
    with pytest.raises(InputError, match=r"unknown letters a share of every letter, .* use the method mutagenesis"):
        soft(shares, CLASS)


def test_words_explained_answer_as_words_looked_up(tmp_path):
    info = sequence_model(tmp_path / "words", kmers=(1, 4, 6), pool="max")
    target = soft(info, CLASS)
    with torch.no_grad():
        answer = target(target.letters_input(TOKENS[None]))[0].numpy()
    np.testing.assert_allclose(answer, judged(info, TOKENS), atol=1e-4)


def of_both(target, method, tokens):
    """Both strands by the room's own words, joined here."""
    one, other = method(target, tokens), method(target.mirrored(), reverse_complement(tokens))
    return one.averaged(other)


METHODS = {
    "mutagenesis": mutagenesis.attribute,
    "deeplift": lambda target, tokens: deeplift.attribute(target, tokens, record=0, baseline=Baseline("uniform")),
    "integrated_gradients": lambda target, tokens: integrated_gradients.attribute(
        target, tokens, record=0, baseline=Baseline("zero"), steps=128
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_both_strands_are_explained_alike(tmp_path, name):
    """A sequence and its reverse complement have one answer and one attribution, which still sums up."""
    info, method = sequence_model(tmp_path / "model", pool="mean"), METHODS[name]
    target = Target(info, replace(CLASS, both_strands=True))
    one, other = of_both(target, method, TOKENS), of_both(target, method, reverse_complement(TOKENS))
    largest = np.abs(one.values).max()
    np.testing.assert_allclose(one.values, other.values[:, ::-1, ::-1], atol=1e-4 * largest)
    np.testing.assert_allclose(one.contributions, other.contributions[:, ::-1], atol=1e-4 * largest)
    np.testing.assert_allclose(one.output, other.output, atol=1e-4)
    strands = [judged(info, tokens) for tokens in (TOKENS, reverse_complement(TOKENS))]
    np.testing.assert_allclose(one.output, np.mean(strands, axis=0), atol=1e-4)
    assert np.abs(one.values - method(target, TOKENS).values).max() > 0.01 * largest
    if name != "mutagenesis":
        assert np.abs(one.error()).max() < 0.02


@pytest.mark.parametrize("reduce", ["middle", "mean", "sum"])
def test_a_reverse_complement_is_asked_of_the_same_positions(tmp_path, reduce):
    """A network whose strands mirror each other needs no averaging, wherever the positions lie."""
    chosen = {} if reduce == "middle" else {"first": 2, "end": 9}
    target = Target(mirrored_network(tmp_path / "model"), Question("signal", ("signal",), reduce=reduce, **chosen))
    tokens = tokens_from_text("ACGTTGCATTAGACCAGTACGT")
    one, both = mutagenesis.attribute(target, tokens), of_both(target, mutagenesis.attribute, tokens)
    np.testing.assert_allclose(one.values, both.values, atol=1e-4 * np.abs(one.values).max())


def test_pairs_of_channels_swap_on_the_other_strand(tmp_path):
    params = DilatedConvParams(
        channels=4, blocks=((3, 1),), outputs=("plus", "minus"), activation="identity", head="signal",
        symmetry="paired", pairs=((0, 1),),
    )  # fmt: skip
    info = random_network(tmp_path / "model", params)
    target = Target(info, Question("signal", ("plus",), reduce="sum"))
    other = Target(info, Question("signal", ("minus",), reduce="sum"))
    np.testing.assert_allclose(target.mirrored().ask(TOKENS[None]), other.ask(TOKENS[None]), rtol=1e-5)


def test_a_sum_over_positions_is_that_of_each(tmp_path):
    info = random_network(tmp_path / "model", DilatedConvParams(channels=6, blocks=((3, 1),)))

    def asked(**given):
        return Target(info, Question("splice", ("donor",), "value", **given))

    length = asked(reduce="sum")
    whole, some = mutagenesis.attribute(length, TOKENS), asked(reduce="sum", first=3, end=7)
    each = [mutagenesis.attribute(asked(reduce="sum", first=at, end=at + 1), TOKENS) for at in range(3, 7)]
    found = mutagenesis.attribute(some, TOKENS)
    np.testing.assert_allclose(found.values, np.sum([one.values for one in each], axis=0), atol=1e-6)
    mean = mutagenesis.attribute(asked(reduce="mean", first=3, end=7), TOKENS)
    np.testing.assert_allclose(found.values, 4 * mean.values, atol=1e-6)
    outputs = len(TOKENS) - info.context_bp
    middle = asked(reduce="sum", first=outputs // 2, end=outputs // 2 + 1)
    one = mutagenesis.attribute(middle, TOKENS).values
    np.testing.assert_array_equal(one, mutagenesis.attribute(asked(reduce="middle"), TOKENS).values)
    assert np.abs(whole.values - found.values).max() > 0
    for method in ("deeplift", "integrated_gradients"):
        target = asked(reduce="sum", first=3, end=7)
        target.soften()
        assert np.abs(METHODS[method](target, TOKENS).error()).max() < 1e-3


def test_models_of_something_else_are_refused(tmp_path):
    info = open_model("splice-mini")
    with pytest.raises(InputError, match="the model reads images, not sequences"):
        letters_of(replace(info, architecture="image_cnn"))
    with pytest.raises(InputError, match="'smiles_tokens' are not single letters of DNA or protein"):
        letters_of(replace(info, encoder={"name": "smiles_tokens", "params": {}}))


def test_what_the_model_does_not_have(tmp_path):
    info = sequence_model(tmp_path / "model")
    with pytest.raises(InputError, match="no head 'other'; it has: class"):
        check_question(info, Question("other", ()))
    with pytest.raises(InputError, match="so none to choose by position; leave out first_position"):
        check_question(info, replace(CLASS, reduce="sum", first=3))
    stranded = sequence_model(tmp_path / "stranded", symmetry="stranded")
    with pytest.raises(InputError, match="reads one strand only and cannot be averaged over both"):
        check_question(stranded, replace(CLASS, both_strands=True))
    with pytest.raises(InputError, match="no channel 'maybe'; it has: none, site"):
        check_question(info, Question("class", ("site", "maybe")))


def test_without_captum_the_command_is_named(tmp_path, monkeypatch):
    target = soft(sequence_model(tmp_path / "model"), CLASS)
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(InputError, match=r"pip install 'replisome\[explain\]', or choose the method mutagenesis"):
        deeplift.attribute(target, TOKENS, record=0, baseline=Baseline())
    assert np.isfinite(mutagenesis.attribute(target, TOKENS).values).all()


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["cnn", "transformer", "recurrent"])
def test_a_gpu_gives_what_the_cpu_gives(tmp_path, name):
    architecture, params = ARCHITECTURES[name]
    info = sequence_model(tmp_path / "model", architecture=architecture, **params)
    one, other = (Target(info, CLASS, device=device) for device in ("cpu", "cuda"))
    found = [mutagenesis.attribute(target, TOKENS).values for target in (one, other)]
    np.testing.assert_allclose(*found, atol=1e-4)
    if name != "recurrent":
        made = [deeplift.attribute(target, TOKENS, record=0, baseline=Baseline()).values for target in (one, other)]
        np.testing.assert_allclose(*made, atol=1e-3)
