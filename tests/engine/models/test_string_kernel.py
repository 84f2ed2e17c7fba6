"""The string kernel beside the sums that define it, and the laws of a model that has one."""

import itertools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.encoders.one_hot import OneHot, OneHotParams
from engine.errors import InputError
from engine.interpret._target import Question, Target
from engine.models._folder import load_members, save_model_folder
from engine.models._info import open_model
from engine.models.string_kernel import StringKernel, StringKernelParams, _ones
from engine.registry import build_params
from engine.training import _checkpoints
from engine.training._train_job import Component, prepare
from tests.engine.training.setups import small_job, small_setup, step_losses
from tests.toys.golden import check
from tests.toys.models import CARD

torch.set_num_threads(1)
TEXT = st.text(alphabet="ACGTN", min_size=1, max_size=12)
UNKNOWN = ("zero", "quarter")
KERNEL = Component("string_kernel", {"centres": 50, "degree": 3, "sides": [1, 2]})


def one_hot(*texts, width=None, unknown="zero"):
    encoder = OneHot(OneHotParams(unknown=unknown))
    tokens = np.full((len(texts), width or max(map(len, texts))), 4, dtype=np.uint8)
    for row, text in zip(tokens, texts, strict=True):
        row[: len(text)] = encoder.encode(text)
    return encoder.tensor(torch.from_numpy(tokens))


def kernel(*centres, **values):
    given = {"outputs": ("a", "b"), "activation": "softmax", "length": 12, "sides": (1, 2), "degree": 4, **values}
    torch.manual_seed(3)
    model = StringKernel(StringKernelParams(centres=len(centres), **given)).eval()
    model.set_examples(one_hot(*centres))
    with torch.no_grad():
        model.weigh.weight.normal_()
    return model


# ---------------------------------------------------------------- what defines it


def words_in_place(one, other, length):
    pairs = ((one[at : at + length], other[at : at + length]) for at in range(min(len(one), len(other)) - length + 1))
    return sum(mine == theirs and "N" not in mine for mine, theirs in pairs)


def by_places(one, other, degree):
    weights = {k: 2 * (degree - k + 1) / (degree * (degree + 1)) for k in range(1, degree + 1)}

    def raw(a, b):
        return sum(weight * words_in_place(a, b, k) for k, weight in weights.items())

    return raw(one, other) / math.sqrt(max(raw(one, one) * raw(other, other), 1e-9))


def by_side(one, other, length, side):
    def counts(text):
        text = text.ljust(12, "N")[side]
        return Counter(w for at in range(len(text) - length + 1) if "N" not in (w := text[at : at + length]))

    mine, theirs = counts(one), counts(other)
    dot = sum(math.sqrt(mine[word] * theirs[word]) for word in mine)
    return dot / max(math.sqrt(sum(mine.values()) * sum(theirs.values())), 1e-12)


@given(one=TEXT, other=TEXT, degree=st.integers(1, 7), sides=st.sampled_from([(), (1,), (2, 3)]))
@settings(max_examples=80)
def test_likeness_is_the_sum_that_defines_it(one, other, degree, sides):
    model = kernel(other, degree=degree, sides=sides, share=0.4, gamma=1.5)
    found = model._likeness(*model._letters(one_hot(one)))[0, 0].item()
    alike = by_places(one, other, degree)
    if sides:
        places = list(itertools.product(sides, (slice(6), slice(6, None))))
        alike = 0.6 * alike + 0.4 * sum(by_side(one, other, *place) for place in places) / len(places)
    assert found == pytest.approx(math.exp(1.5 * (alike - 1)), abs=1e-5)


@given(length=st.integers(50, 200), degree=st.sampled_from([1, 6, 31]), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_long_sequences_lie_in_several_stretches(length, degree, seed):
    chance = np.random.default_rng(seed)
    one, other = ("".join(chance.choice(list("ACGT"), length, p=[0.7, 0.1, 0.1, 0.1])) for _ in range(2))
    model = kernel(other, length=length, degree=degree, sides=(), gamma=1)
    found = model._likeness(*model._letters(one_hot(one)))[0, 0].item()
    assert found == pytest.approx(math.exp(by_places(one, other, degree) - 1), abs=1e-5)


@given(st.lists(st.integers(0, (1 << 62) - 1), min_size=1, max_size=20))
def test_bits_are_counted(numbers):
    assert _ones(torch.tensor(numbers)).tolist() == [number.bit_count() for number in numbers]


def test_proteins_are_compared_too():
    params = StringKernelParams(in_channels=20, length=3, centres=2, degree=2)
    model = StringKernel(params)
    letters = torch.tensor([[19, 3, 16], [19, 3, 0]])
    model.set_examples(torch.nn.functional.one_hot(letters, 20).transpose(1, 2).float())
    found = model._likeness(letters, torch.ones(2, 3, dtype=torch.bool))
    raw = np.array([[2 / 3 * 3 + 1 / 3 * 2, 2 / 3 * 2 + 1 / 3], [2 / 3 * 2 + 1 / 3, 2 / 3 * 3 + 1 / 3 * 2]])
    np.testing.assert_allclose(found.numpy(), np.exp(2 * (raw / raw[0, 0] - 1)), rtol=1e-5)


# ---------------------------------------------------------------- the model


@given(
    texts=st.lists(TEXT, min_size=1, max_size=4), more=st.integers(0, 9), unknown=st.sampled_from(["zero", "quarter"])
)
@settings(max_examples=30)
def test_padding_and_company_never_change_an_answer(texts, more, unknown):
    model = kernel("ACGTNACGTACG", "TTGACCA")
    together = model(one_hot(*texts, width=12 + more), torch.tensor([len(text) for text in texts]))["value"]
    alone = torch.cat([model(one_hot(text, unknown=unknown))["value"] for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


def test_a_sequence_longer_than_the_centres_is_refused():
    with pytest.raises(ValueError, match="a sequence of 13 letters is longer than the 12 the kernel takes"):
        kernel("ACGT")(one_hot("ACGTACGTACGTA"))


def test_likeness_counts_from_its_mean_over_the_centres():
    model = kernel("ACGTACGTACGT", "TTTTACGTGGGG", "CCCC")
    model.set_bias(torch.tensor([1.0, -2.0]))
    logits = model.logits(one_hot("ACGTACGTACGT", "TTTTACGTGGGG", "CCCC"))
    torch.testing.assert_close(logits.mean(dim=0), torch.tensor([1.0, -2.0]), atol=1e-5, rtol=0)


def test_a_model_folder_keeps_the_centres(tmp_path):
    model = kernel("ACGTNACGTACG", "TTGACCA")
    save_model_folder(tmp_path / "m", [model], architecture="string_kernel", card=CARD)
    (loaded,) = load_members(open_model(tmp_path / "m"))
    assert torch.equal(loaded.centres_ML, model.centres_ML)
    assert torch.equal(loaded(one_hot("ACGTACC"))["value"], model(one_hot("ACGTACC"))["value"])


def test_gradients_are_refused(tmp_path):
    save_model_folder(tmp_path / "m", [kernel("ACGT")], architecture="string_kernel", card=CARD)
    target = Target(open_model(tmp_path / "m"), Question("value", ("a",)))
    with pytest.raises(InputError, match="compares letters, which gradients do not see; use the method mutagenesis"):
        target.soften()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"num_tokens": 21, "in_channels": 1}, "wants one-hot letters"),
        ({"level": "position"}, "gives one answer for a sequence"),
        ({"degree": 40}, "degree at most 31"),
        ({"sides": [9], "length": 60}, "at most 65,536 words each, found 9"),
        ({"sides": [1]}, "sides are lengths of words"),
        ({"share": 1.5}, "share must be 0 to 1"),
        ({"gamma": 0}, "gamma above 0"),
        ({"centres": 0}, "centres must be a whole number from 1"),
    ],
)
def test_params_that_do_not_fit_are_refused(values, sentence):
    with pytest.raises(InputError, match=sentence):
        build_params(StringKernel, values, where="spec")


def test_golden_numbers_of_this_version():
    model = kernel("ACGTNACGTACG", "TTGACCA", "ACGGACC", activation="identity")
    with torch.no_grad():
        model.weigh.weight.copy_(torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]]))
        model.weigh.bias.zero_()
    check(StringKernel, 1, model(one_hot("ACGTTGNCAGGT"))["value"].tolist(), GOLDEN, tolerance=1e-5)


# ---------------------------------------------------------------- training


def test_centres_are_training_sequences_drawn_evenly(tmp_path):
    setup = small_setup(tmp_path, model=KERNEL, augmentation={"reverse_complement": True})
    model = setup.build_model()
    assert (setup.model_params["centres"], setup.model_params["length"]) == (50, 40)
    shortest = min(int(group.lengths.min()) for group in setup.train)
    assert setup.model_params["shortest"] == shortest == StringKernel.least_letters(model.params) > 1
    read = setup.loader_of(setup.train).load(np.arange(setup.train_plan().num_samples), epoch=0).inputs
    rows = [bytes(row[:size]) for row, size in zip(read.tokens_BL, read.lengths_B, strict=True)]
    chosen = [rows[number * len(rows) // 50] for number in range(50)]
    found = [bytes(row[row < 255]) for row in model.centres_ML.numpy()]
    assert found == [bytes(token for token in row if token < 4) for row in chosen]
    every = small_setup(tmp_path, model=replace(KERNEL, params={"degree": 3}))
    assert every.model_params["centres"] == len(rows)


@pytest.mark.parametrize("stop", [1, 5])
def test_a_stopped_run_goes_on_to_the_same_losses(tmp_path, stop):
    calm = step_losses(small_setup(tmp_path, output="calm", model=KERNEL, recipe={"learning_rate": 0.3}))
    setup = small_setup(tmp_path, output="stopped", model=KERNEL, recipe={"learning_rate": 0.3})
    assert {**step_losses(setup, stop_after=stop), **step_losses(setup)} == calm
    assert calm[11] < calm[0]


def test_the_last_epoch_is_kept_where_it_is_asked_for(tmp_path):
    recipe = {"learning_rate": 3.0, "epochs": 4}
    best, last = (
        small_setup(tmp_path, output=name, model=KERNEL, recipe={**recipe, "keep_last": name == "last"})
        for name in ("best", "last")
    )
    assert step_losses(best) == step_losses(last)
    ends = [_checkpoints.read(one.checkpoints / _checkpoints.LAST).state for one in (best, last)]
    kept = [_checkpoints.read(one.checkpoints / _checkpoints.BEST) for one in (best, last)]
    losses = [entry["validation"]["loss"] for entry in ends[0]["history"]]
    assert [one.state["epoch"] for one in kept] == [int(np.argmin(losses)), 3]
    assert np.argmin(losses) < 3
    tensors = _checkpoints.read(last.checkpoints / _checkpoints.LAST).tensors
    assert all(torch.equal(kept[1].tensors[name], tensors[name]) for name in kept[1].tensors)
    keys = [prepare(small_job(tmp_path, model=KERNEL, recipe=one.recipe)).key for one in (best, last)]
    assert "keep_last" not in keys[0]["recipe"]
    assert keys[1]["recipe"]["keep_last"] is True


GOLDEN = [[0.180693, -0.45853]]
