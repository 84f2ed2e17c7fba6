"""Laws of the network over pairs: what reads which member, and that company, padding and repeats change nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import registry
from engine.encoders.pair import Pair, PairParams
from engine.errors import InputError
from engine.models._folder import ModelCard, load_members, save_model_folder
from engine.models._info import open_model
from engine.models._sample_dropout import SampleDropout, set_sample_seeds
from engine.models.pair_network import PairNetwork, PairNetworkParams
from engine.scoring._pair_predictor import PairPredictor
from engine.scoring._predictor import Predictor

torch.set_num_threads(1)

ENCODER = Pair(PairParams())
TOWERS = {
    "first": {"name": "sequence_cnn", "params": {"channels": 8, "stem_pool": 2, "blocks": 1, "dropout": 0.0}},
    "second": {"name": "recurrent", "params": {"channels": 6, "pool": "mean", "dropout": 0.0}},
}
MOLECULES = ("CCO", "c1ccccc1", "N[C@@H](C)C(=O)O", "ClC(Cl)Br")
PAIRS = st.lists(
    st.tuples(st.text("ACDEFGHIKLMNPQRSTVWYX", min_size=1, max_size=30), st.sampled_from(MOLECULES)),
    min_size=1,
    max_size=6,
)


def network(**values) -> PairNetwork:
    torch.manual_seed(1)
    params = registry.build_params(PairNetwork, {**TOWERS, "hidden": (7, 5), **values}, where="test")
    return PairNetwork(params).eval()


def side(texts, encoder, *, more: int = 0):
    found = [encoder.encode(text) for text in texts]
    tokens = np.zeros((len(texts), max(map(len, found)) + more), np.uint8)
    for row, one in zip(tokens, found, strict=True):
        row[: len(one)] = one
    return encoder.tensor(torch.from_numpy(tokens)), torch.tensor([len(one) for one in found])


def tensors(pairs, *, more: int = 0):
    one = side([text for text, _ in pairs], ENCODER.first, more=more)
    return *one, *side([text for _, text in pairs], ENCODER.second, more=more)


@pytest.mark.parametrize("joint", ["concat", "concat+product"])
@given(pairs=PAIRS, more=st.integers(0, 5))
@settings(max_examples=20)
def test_padding_company_and_repeats_never_change_an_answer(joint, pairs, more):
    model = network(joint=joint)
    with torch.inference_mode():
        together = model(*tensors(pairs, more=more))["value"]
        for answer, pair in zip(together, pairs, strict=True):
            torch.testing.assert_close(model(*tensors([pair]))["value"][0], answer, rtol=1e-5, atol=1e-6)


def test_a_member_that_stands_twice_is_read_once(monkeypatch):
    read = []
    model = network()
    for tower in (model.first, model.second):
        plain = tower.features
        monkeypatch.setattr(tower, "features", lambda x, n, plain=plain: read.append(len(x)) or plain(x, n))
    pairs = [("MKV", "CCO"), ("MKV", "CCN"), ("MKW", "CCO"), ("MKV", "CCO")]
    model(*tensors(pairs))
    assert read == [2, 2]
    # "MK" padded by the first letter of the alphabet is not "MKA": lengths tell them apart.
    read.clear()
    model(*tensors([("MK", "CCO"), ("MKA", "CCO")]))
    assert read == [2, 1]


def test_both_members_are_read():
    model, pairs = network(), [("MKVLA", "CCO")]
    answer = model(*tensors(pairs))["value"]
    assert not torch.equal(model(*tensors([("MKVLW", "CCO")]))["value"], answer)
    assert not torch.equal(model(*tensors([("MKVLA", "CCN")]))["value"], answer)


def test_dropout_belongs_to_the_sample_and_no_two_layers_share_their_draws():
    dropping = {name: {"name": "sequence_cnn", "params": {"channels": 8, "dropout": 0.5}} for name in TOWERS}
    model = network(**dropping, dropout=0.5).train()
    numbers = [one._layer for one in model.modules() if isinstance(one, SampleDropout)]
    assert len(set(numbers)) == len(numbers) == 9
    pairs, seeds = [("MKVLA", "CCO"), ("MKVLA", "CCO"), ("GG", "CCN")], torch.tensor([5, -9, 1 << 40])
    set_sample_seeds(model, seeds)
    together = model(*tensors(pairs))["value"]
    assert not torch.allclose(together[0], together[1])
    for row, pair in enumerate(pairs):
        set_sample_seeds(model, seeds[row : row + 1])
        torch.testing.assert_close(model(*tensors([pair]))["value"][0], together[row], rtol=1e-5, atol=1e-6)


def test_a_model_folder_keeps_it(tmp_path):
    model = network(head="affinity", outputs=("pkd",), meaning="pKd")
    encoder = {"name": "pair", "params": {"first": "protein_tokens", "second": "smiles_tokens"}}
    card = ModelCard(name="toy", version="1", licence="Apache-2.0", text="# A toy", encoder=encoder)
    info = save_model_folder(tmp_path / "m", [model], architecture="pair_network", card=card)
    assert (info.heads["affinity"].level, info.context_bp) == ("sequence", 0)
    (loaded,) = load_members(open_model(tmp_path / "m"))
    given_tensors = tensors([("MKVLA", "CCO"), ("G", "c1ccccc1")])
    assert torch.equal(loaded(*given_tensors)["affinity"], model(*given_tensors)["affinity"])
    other = ModelCard(name="toy", version="1", licence="Apache-2.0", text="#", encoder={"name": "tokens", "params": {}})
    with pytest.raises(InputError, match="gives 1 channels, the network takes 2"):
        save_model_folder(tmp_path / "n", [model], architecture="pair_network", card=other)


def test_what_asks_about_single_sequences_refuses_it(tmp_path):
    encoder = {"name": "pair", "params": {"first": "protein_tokens", "second": "smiles_tokens"}}
    card = ModelCard(name="toy", version="1", licence="Apache-2.0", text="# A toy", encoder=encoder)
    info = save_model_folder(tmp_path / "m", [network()], architecture="pair_network", card=card)
    with pytest.raises(InputError, match="model 'toy' takes pairs, and single sequences are asked about here"):
        Predictor(info)
    one, other = (ENCODER.encode("MKV", text) for text in ("CCO", "CC"))
    predictor = PairPredictor(info, micro_batch=2)
    found = predictor.predict([one, other, one])
    assert found[0]["value"] is found[2]["value"] and found[0]["value"] != found[1]["value"]
    for odd in (
        (one[0], np.zeros(0, np.uint8)),
        (one[0].astype(np.int64), one[1]),
        (one[0], np.full(3, 200, np.uint8)),
    ):
        with pytest.raises(InputError, match="pair 0 holds"):
            predictor.predict([odd])


def test_golden_numbers_of_this_version():
    """Weights by a formula, so that the numbers are those of the function alone."""
    model = network(joint="concat+product")
    with torch.no_grad():
        for parameter in model.parameters():
            count = parameter.numel()
            parameter.copy_((torch.arange(count).double() * 0.7).sin().reshape(parameter.shape) / 3)
    found = model(*tensors([("MKVLA", "CCO"), ("GWD", "ClC(Cl)Br")]))["value"][:, 0].tolist()
    assert found == pytest.approx(GOLDEN, abs=1e-5)
    assert PairNetwork.RESULT_VERSION == 1


GOLDEN = [0.118800, 0.117807]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"first": {"name": "sequence_cnn", "params": {"outputs": ("a",)}}},
            "'outputs' is of the pair, not",
        ),
        ({"second": {"name": "sequence_cnn", "params": {"hidden": 3}}}, "'hidden' is of the pair, not of its second"),
        (
            {"first": {"name": "sequence_cnn", "params": {"pool": "place", "length": 9}}},
            "choose another pool",
        ),
        ({"first": {"name": "sequence_cnn", "params": {"width": 4}}}, "params of first: widths must be odd"),
        ({"first": {"name": "dilated_conv"}}, "'dilated_conv' reads no single sequences"),
        ({"first": {"nam": "x"}}, "first must hold name and params"),
        ({"hidden": ()}, "hidden must hold one width or more"),
        ({"joint": "sum"}, "joint must be one of concat, concat"),
        ({"in_channels": (1,)}, "are of two encoders"),
        ({"dropout": 1.0}, "dropout must be 0 or more and below 1"),
        ({"outputs": ("a", "a")}, "distinct names"),
    ],
)
def test_params_that_do_not_fit_are_refused(values, sentence):
    with pytest.raises((ValueError, InputError), match=sentence):
        PairNetworkParams(**values)


def test_the_encoder_is_two():
    assert (ENCODER.channels, ENCODER.alphabet, ENCODER.second_alphabet) == (2, "protein", "smiles")
    one, other = ENCODER.encode("MK", "Cl")
    assert (one.tolist(), len(other)) == ([10, 8], 1)
    for odd, sentence in (({"first": "pair"}, "found 'pair'"), ({"first": 3}, "first must hold name and params")):
        with pytest.raises(ValueError, match=sentence):
            PairParams(**odd)
    with pytest.raises(InputError, match="no encoder named 'smile_tokens'"):
        Pair(PairParams(second="smile_tokens"))
