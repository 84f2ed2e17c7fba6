"""Laws of every network over sequences, whether it gives one answer or one for every position."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import registry
from engine.encoders.one_hot import OneHot, OneHotParams
from engine.encoders.protein_tokens import ProteinTokens, ProteinTokensParams
from engine.errors import InputError
from engine.models._folder import load_members, save_model_folder
from engine.models._info import HeadInfo, open_model
from engine.models._sample_dropout import set_sample_seeds
from engine.models._sequence import POOLS, SequenceParams
from tests.toys.models import CARD

torch.set_num_threads(1)

# Params of one network alone, beside those that the test sets.
EXTRA = {
    "sequence_cnn": {"blocks": 4, "max_dilation": 4, "stem_pool": 3},
    "recurrent": {"layers": 2, "cell": "lstm"},
    "transformer": {"layers": 2, "attention_heads": 2},
}
NETWORKS = sorted(EXTRA)
CASES = [(name, pool) for name in NETWORKS for pool in (*POOLS, "place+mean+max")]
TEXTS = st.lists(st.text(alphabet="ACGTN", min_size=1, max_size=30), min_size=1, max_size=4)


def network(name, **values):
    cls = registry.component("models", name)
    if "place" in values.get("pool", ""):
        values |= {"length": 40, "bin_width": 3}
    values = {key: value for key, value in values.items() if key != "stem_pool" or name == "sequence_cnn"}
    params = {"channels": 8, "outputs": ("a", "b", "c"), "activation": "softmax", "hidden": 6, **EXTRA[name], **values}
    torch.manual_seed(1)
    return cls(registry.build_params(cls, params, where="test")).eval()


def padded(texts, encoder, *, width):
    tokens = np.full((len(texts), width), 0, dtype=np.uint8)  # padding by a letter that means something
    for row, text in zip(tokens, texts, strict=True):
        row[: len(text)] = encoder.encode(text)
    return encoder.tensor(torch.from_numpy(tokens)), torch.tensor([len(text) for text in texts])


@pytest.mark.parametrize(("name", "pool"), CASES)
@given(texts=TEXTS, more=st.integers(0, 9))
@settings(max_examples=15)
def test_padding_and_company_never_change_an_answer(name, pool, texts, more):
    model, encoder = network(name, pool=pool), OneHot(OneHotParams())
    with torch.inference_mode():
        together = model(*padded(texts, encoder, width=max(map(len, texts)) + more))["value"]
        for answer, text in zip(together, texts, strict=True):
            x, _ = padded([text], encoder, width=len(text))
            torch.testing.assert_close(model(x)["value"][0], answer, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
@given(texts=TEXTS, more=st.integers(0, 9))
@settings(max_examples=15)
def test_padding_and_company_never_change_the_answer_of_a_position(name, texts, more):
    model, encoder = network(name, level="position", stem_pool=1), OneHot(OneHotParams())
    assert model.heads(model.params)["value"].level == "position"
    with torch.inference_mode():
        together = model(*padded(texts, encoder, width=max(map(len, texts)) + more))["value"]
        assert together.shape == (len(texts), 3, max(map(len, texts)) + more)
        for answer, text in zip(together, texts, strict=True):
            x, _ = padded([text], encoder, width=len(text))
            torch.testing.assert_close(model(x)["value"][0], answer[:, : len(text)], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(answer.sum(dim=0), torch.ones(answer.shape[1]))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_answer_of_a_position_reads_its_own_letter_and_its_neighbours(name):
    model, encoder = network(name, level="position", stem_pool=1), OneHot(OneHotParams())
    x = padded(["ACGTTGCAACGTAC"], encoder, width=14)[0].requires_grad_(True)
    model.logits(x)[0, 0, 7].backward()
    read = x.grad.abs().sum(dim=1)[0]
    assert (read[4:11] > 0).all()
    model.set_bias(torch.tensor([1.0, 2.0, 3.0]))
    assert model.answer.final.bias.tolist() == [1, 2, 3]


@pytest.mark.parametrize(("name", "pool"), CASES)
def test_every_letter_is_read(name, pool):
    model, encoder = network(name, pool=pool), OneHot(OneHotParams())
    x = padded(["ACGTTGCAACGTAC"], encoder, width=14)[0].requires_grad_(True)
    model.logits(x)[0, 0].backward()
    read = x.grad.abs().sum(dim=1)[0] > 0
    assert read.sum() > (4 if pool == "max" else 13)


@pytest.mark.parametrize("name", NETWORKS)
def test_tokens_are_embedded(name):
    encoder = ProteinTokens(ProteinTokensParams())
    model = network(name, num_tokens=encoder.num_tokens, in_channels=1, activation="identity")
    x, lengths = padded(["MKVLAX", "GG"], encoder, width=9)
    assert model(x, lengths)["value"].shape == (2, 3)
    assert not torch.equal(model(x, lengths)["value"][0], model(x, lengths)["value"][1])


@pytest.mark.parametrize("name", NETWORKS)
def test_a_model_folder_keeps_it(tmp_path, name):
    model = network(name, pool="place", head="class", meaning="which kind")
    info = save_model_folder(tmp_path / "m", [model], architecture=name, card=CARD)
    assert info.heads["class"].level == "sequence"
    assert info.heads["class"].channels == ("a", "b", "c")
    assert info.context_bp == 0
    (loaded,) = load_members(open_model(tmp_path / "m"))
    x, lengths = padded(["ACGT", "A"], OneHot(OneHotParams()), width=6)
    assert torch.equal(loaded(x, lengths)["class"], model(x, lengths)["class"])


@pytest.mark.parametrize("name", NETWORKS)
def test_dropout_belongs_to_the_sample(name):
    """In training mode too an answer does not depend on the batch, as long as the sample keeps its seed."""
    model, encoder = network(name, dropout=0.5).train(), OneHot(OneHotParams())
    texts, seeds = ["ACGTACGTAA", "TTGCA", "GGGATC"], torch.tensor([5, -9, 1 << 40])
    set_sample_seeds(model, seeds)
    together = model(*padded(texts, encoder, width=12))["value"]
    for row, text in enumerate(texts):
        set_sample_seeds(model, seeds[row : row + 1])
        alone = model(padded([text], encoder, width=len(text))[0])["value"][0]
        torch.testing.assert_close(alone, together[row], rtol=1e-5, atol=1e-6)
    set_sample_seeds(model, seeds + 1)
    assert not torch.allclose(model(*padded(texts, encoder, width=12))["value"], together)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "softplus", "identity"])
def test_activations(activation):
    model = network("sequence_cnn", activation=activation)
    x, lengths = padded(["ACGT", "GA"], OneHot(OneHotParams()), width=4)
    values, logits = model(x, lengths)["value"].double(), model.logits(x, lengths).double()
    wanted = {
        "softmax": logits.exp() / logits.exp().sum(dim=1, keepdim=True),
        "sigmoid": 1 / (1 + (-logits).exp()),
        "softplus": (1 + logits.exp()).log(),
        "identity": logits,
    }
    torch.testing.assert_close(values, wanted[activation], rtol=1e-5, atol=1e-6)


def test_rotary_attention_sees_distances_only():
    """Moved along by other places, the same letters attend to each other as before (mean pooling, no stem)."""
    model = network("transformer", pool="mean", stem_width=1)
    encoder = OneHot(OneHotParams())
    x, _ = padded(["ACGTTGCA"], encoder, width=8)
    from engine.models import transformer

    turns = transformer._turns(20, 4, x.device)
    q = torch.randn(1, 1, 8, 4, generator=torch.Generator().manual_seed(0))
    scores = [
        transformer._rotated(q, turns[:, at : at + 8]) @ transformer._rotated(q, turns[:, at : at + 8]).transpose(2, 3)
        for at in (0, 12)
    ]
    torch.testing.assert_close(*scores, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(scores[0], q @ q.transpose(2, 3))
    assert model(x)["value"].shape == (1, 3)


def test_a_sequence_longer_than_its_places_is_refused():
    model = network("sequence_cnn", pool="place")
    with pytest.raises(ValueError, match="a sequence of 48 letters is longer than the 40 letters"):
        model(padded(["ACGT" * 12], OneHot(OneHotParams()), width=48)[0])


def test_training_begins_at_the_frequencies():
    model = network("recurrent")
    model.set_bias(torch.tensor([1.0, 2.0, 3.0]))
    assert model.answer.final.bias.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"pool": "sum"}, "pool must be one of max, mean, attention, place, or some joined by .*, found 'sum'"),
        ({"pool": "place"}, "length goes with pool 'place'"),
        ({"length": 7}, "length goes with pool 'place'"),
        ({"channels": 0}, "channels must be a whole number from 1"),
        ({"dropout": 1.0}, "dropout must be 0 or more and below 1"),
        ({"num_tokens": 5}, "tokens come in 1 channel, found in_channels 4"),
        ({"activation": "tanh"}, "activation must be one of"),
        ({"outputs": ("a", "a")}, "distinct names"),
        ({"level": "word"}, "level must be one of sequence, position, found 'word'"),
        ({"level": "position", "pool": "mean"}, "where every position has an answer nothing is pooled"),
    ],
)
def test_params_that_do_not_fit_are_refused(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        SequenceParams(**values)


@pytest.mark.parametrize(
    ("name", "values", "sentence"),
    [
        ("sequence_cnn", {"stem_width": 4}, "widths must be odd"),
        ("recurrent", {"channels": 7}, "channels must be even"),
        ("recurrent", {"cell": "rnn"}, "cell must be one of gru, lstm"),
        ("transformer", {"channels": 10}, "channels must be a multiple of 8"),
    ],
)
def test_params_of_each_network(name, values, sentence):
    with pytest.raises(InputError, match=sentence):
        registry.build_params(registry.component("models", name), values, where="spec")


@pytest.mark.parametrize("name", NETWORKS)
def test_golden_numbers_of_this_version(name):
    """Weights by a formula, so that the numbers are those of the function alone."""
    model = network(name, pool="mean", activation="identity", hidden=0, outputs=("a",))
    with torch.no_grad():
        for parameter in model.parameters():
            count = parameter.numel()
            parameter.copy_((torch.arange(count).double() * 0.7).sin().reshape(parameter.shape) / 3)
    x, lengths = padded(["ACGTTGCA", "GAT"], OneHot(OneHotParams()), width=8)
    found = model(x, lengths)["value"][:, 0].tolist()
    golden = {"sequence_cnn": GOLDEN_CNN, "recurrent": GOLDEN_RECURRENT, "transformer": GOLDEN_TRANSFORMER}
    assert found == pytest.approx(golden[name], abs=1e-5)
    assert type(model).RESULT_VERSION == 1


GOLDEN_CNN = [0.494059, 0.487236]
GOLDEN_RECURRENT = [0.637358, 0.615336]
GOLDEN_TRANSFORMER = [0.456911, 0.456627]


def test_the_level_of_a_head_is_checked():
    with pytest.raises(ValueError, match="level must be one of position, sequence, image, pixel, found 'word'"):
        HeadInfo("x", ("a",), "identity", "stranded", level="word")
