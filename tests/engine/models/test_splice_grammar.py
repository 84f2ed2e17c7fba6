"""Judges: sums over letters in plain Python."""

import dataclasses
import importlib.util
import json
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import registry
from engine.encoders.one_hot import OneHot, OneHotParams
from engine.errors import InputError
from engine.models import splice_grammar
from engine.models._folder import check_members, load_members
from engine.models.dilated_conv import DilatedConv, DilatedConvParams
from engine.models.splice_grammar import (
    COMPONENT,
    SpliceGrammar,
    SpliceGrammarParams,
    context_bp,
    set_hexamers,
    set_matrix,
)
from tests.toys import golden
from tests.toys.models import randomised, splice_grammar_toy, splice_motif_scores

torch.set_num_threads(1)

NET = DilatedConvParams(channels=3, blocks=((3, 1),), skip_every=0, stem_width=3, norm="none")
TEXTS = st.text(alphabet="ACGTN", min_size=1, max_size=30)
SPANS = st.tuples(st.integers(-9, 5), st.integers(1, 8)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def encode(text):
    encoder = OneHot(OneHotParams())
    return encoder.tensor(torch.from_numpy(encoder.encode(text))[None])


def random_model(params, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    model = SpliceGrammar(params)
    randomised(model.net, seed=seed)
    for site, span in (("acceptor", params.acceptor_span), ("donor", params.donor_span)):
        width = span[1] - span[0]
        base = torch.randn(4, width, generator=generator)
        set_matrix(model, site, base, pair_PW=torch.randn(16, width - 1, generator=generator))
    set_hexamers(model, torch.randn(4096, generator=generator))
    return model.eval()


def log_odds(text, at, span, base, pair):
    """A matrix summed letter by letter."""
    total = 0.0
    for column in range(span[1] - span[0]):
        here = "ACGTN".index(text[at + span[0] + column])
        if here < 4:
            total += float(base[here, column])
        if column:
            before = "ACGTN".index(text[at + span[0] + column - 1])
            if here < 4 and before < 4:
                total += float(pair[4 * before + here, column - 1])
    return total


def hexamer(text, at, table):
    word = text[at : at + 6]
    return 0.0 if "N" in word else float(table[int(word.translate(str.maketrans("ACGT", "0123")), 4)])


@settings(max_examples=60, deadline=None)
@given(acceptor=SPANS, donor=SPANS, middle=TEXTS, seed=st.integers(0, 99))
def test_grammars_equal_sums_over_letters(acceptor, donor, middle, seed):
    params = SpliceGrammarParams(net=NET, acceptor_span=acceptor, donor_span=donor)
    model = random_model(params, seed=seed)
    half = context_bp(params) // 2
    rng = np.random.default_rng(seed)
    text = "".join(rng.choice(list("ACGTN"), half)) + middle + "".join(rng.choice(list("ACGTN"), half))
    with torch.inference_mode():
        found = model(encode(text))
    sites = range(half, half + len(middle))
    expected = [
        [log_odds(text, at, acceptor, model.acceptor_base, model.acceptor_pair) for at in sites],
        [log_odds(text, at, donor, model.donor_base, model.donor_pair) for at in sites],
    ]
    torch.testing.assert_close(found["pwm"][0], torch.tensor(expected), rtol=0, atol=1e-4)
    scores = torch.tensor([[hexamer(text, at, model.hexamer_score) for at in sites]])
    assert torch.equal(found["hexamer"][0], scores)


def test_an_n_in_a_hexamer_gives_zero():
    model = random_model(SpliceGrammarParams(net=NET, acceptor_span=(0, 1), donor_span=(0, 1)))
    with torch.inference_mode():
        found = model(encode("AAAAA" + "ACGTACGTNACGTACGT" + "AAAAA"))["hexamer"][0, 0]
    assert [at for at in range(17) if found[at] == 0] == [3, 4, 5, 6, 7, 8]


@settings(max_examples=40, deadline=None)
@given(st.integers(-6, 6), st.integers(-6, 6), st.integers(0, 9))
def test_offsets_move_the_labels_to_the_site(acceptor, donor, seed):
    params = SpliceGrammarParams(net=NET, acceptor_offset=acceptor, donor_offset=donor)
    model = random_model(params, seed=seed)
    plain = DilatedConv.context_bp(NET) // 2
    half = context_bp(params) // 2
    text = "".join(np.random.default_rng(seed).choice(list("ACGT"), 2 * half + 7))
    with torch.inference_mode():
        found = model(encode(text))["splice"][0]
        labels = model.net(encode(text))["splice"][0]
    for out in range(7):
        site = half + out
        # The network calls base s - offset what is the site at s.
        assert found[1, out].item() == pytest.approx(labels[1, site - acceptor - plain].item(), abs=1e-6)
        assert found[2, out].item() == pytest.approx(labels[2, site - donor - plain].item(), abs=1e-6)
    assert found.min() >= 0
    if acceptor == donor:
        torch.testing.assert_close(found.sum(dim=0), torch.ones(7))


@settings(max_examples=40, deadline=None)
@given(acceptor=SPANS, donor=SPANS, offset=st.integers(-3, 3))
def test_context_is_what_reaches_furthest(acceptor, donor, offset):
    params = SpliceGrammarParams(net=NET, acceptor_span=acceptor, donor_span=donor, donor_offset=offset)
    reach = max(5, -acceptor[0], acceptor[1] - 1, -donor[0], donor[1] - 1, 3 + abs(offset))
    assert context_bp(params) == SpliceGrammar.context_bp(params) == 2 * reach
    model = random_model(params)
    shapes = {name: tuple(value.shape) for name, value in model(encode("A" * (2 * reach + 4))).items()}
    assert shapes == {"splice": (1, 3, 4), "pwm": (1, 2, 4), "hexamer": (1, 1, 4)}
    with pytest.raises(ValueError, match=f"a window of {2 * reach} bp does not exceed the context of {2 * reach}"):
        model(encode("A" * (2 * reach)))


def test_all_heads_call_the_same_base(tmp_path):
    """AG before an exon's first base, GT after its last: the convention of SpliceAI, in both heads."""
    text = "CCCCCCCCCCAGCCCCCCCCGTCCCCCCCCCCC"
    with torch.inference_mode():
        found = load_members(splice_grammar_toy(tmp_path / "toy"))[0](encode(text))
    half = 5
    first, last = text.index("AG") + 2 - half, text.index("GT") - 1 - half
    assert found["splice"][0, 1].argmax() == found["pwm"][0, 0].argmax() == first
    assert found["splice"][0, 2].argmax() == found["pwm"][0, 1].argmax() == last
    assert found["pwm"][0, :, [first, last]].tolist() == [[4.0, 0.0], [0.0, 6.0]]
    np.testing.assert_allclose(found["splice"][0], splice_motif_scores(text, context_bp=10), atol=1e-6)


def test_training_moves_the_network_and_leaves_the_grammars():
    model = SpliceGrammar(SpliceGrammarParams(net=NET))
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"net"}
    model(encode("ACGT" * 20))["splice"][:, 1].log().mean().backward()
    assert model.net.stem.weight.grad.abs().sum() > 0


def test_bfloat16_leaves_the_grammars_exact():
    model = random_model(SpliceGrammarParams(net=NET))
    x = encode("ACGTTGCAAC" * 8)
    with torch.inference_mode():
        exact = model(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = model(x)
    assert torch.equal(exact["pwm"], rough["pwm"])
    assert torch.equal(exact["hexamer"], rough["hexamer"])
    assert all(value.dtype == torch.float32 for value in rough.values())
    assert 0 < (exact["splice"] - rough["splice"]).abs().max() < 0.05


def test_params_survive_json():
    params = SpliceGrammarParams(net=NET, acceptor_span=(-15, 2), donor_offset=1)
    values = json.loads(json.dumps(dataclasses.asdict(params)))
    assert registry.build_params(COMPONENT, values, where="spec") == params


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"net": {"channels": 0}}, "channels must be a whole number"),
        ({"net": {"chanels": 3}}, "unexpected keyword argument 'chanels'"),
        ({"net": 3}, "net must be a table of parameters, found 3"),
        ({"net": {"outputs": ["none", "donor", "acceptor"]}}, "channels none, acceptor, donor and a softmax"),
        ({"net": {"activation": "sigmoid"}}, "channels none, acceptor, donor and a softmax"),
        ({"net": {"in_channels": 5}}, "net must read 4 channels and be stranded"),
        ({"acceptor_span": [3, 3]}, "acceptor_span must run from a lower to a higher number"),
        ({"donor_span": [1]}, "donor_span must be two whole numbers"),
        ({"donor_span": 1}, "has no len"),
        ({"donor_offset": 0.5}, "donor_offset must be a whole number within 1000"),
    ],
)
def test_bad_params_are_one_sentence(values, sentence):
    with pytest.raises(InputError, match=f"^spec: .*{sentence}"):
        registry.build_params(SpliceGrammar, values, where="spec")


def test_tables_of_another_shape_or_without_numbers_are_refused():
    model = SpliceGrammar(SpliceGrammarParams(net=NET))
    with pytest.raises(ValueError, match=r"acceptor base matrix must have shape \(4, 23\), found \(4, 9\)"):
        set_matrix(model, "acceptor", torch.zeros(4, 9))
    with pytest.raises(ValueError, match=r"donor pair matrix must have shape \(16, 8\), found \(16, 9\)"):
        set_matrix(model, "donor", torch.zeros(4, 9), pair_PW=torch.zeros(16, 9))
    with pytest.raises(ValueError, match="hexamer table holds a value that is not finite"):
        set_hexamers(model, torch.full((4096,), -torch.inf))
    with pytest.raises(ValueError, match="site must be 'acceptor' or 'donor', found 'branch'"):
        set_matrix(model, "branch", torch.zeros(4, 9))


def golden_numbers():
    """Every sixth output of each channel of a model filled by formula, (6, 5)."""
    params = SpliceGrammarParams(net=NET, acceptor_span=(-4, 2), donor_span=(-1, 4), donor_offset=1)
    model = golden.filled(SpliceGrammar(params))
    with torch.inference_mode():
        found = model(encode(golden.TEXT))
    return torch.cat([found[name][0, :, ::6] for name in ("splice", "pwm", "hexamer")]).numpy()


def test_golden_numbers_of_this_version():
    expected = [
        [0.3765976, 0.6164222, 0.4975395, 0.6302646, 0.3665881],
        [0.2273069, 0.3021864, 0.2465771, 0.241133, 0.1519297],
        [0.3960955, 0.0813914, 0.2558833, 0.1286023, 0.4814822],
        [0.6871139, 0.4173738, -0.5596979, 0.2552381, 1.9385151],
        [2.5413013, 0.2641453, 0.5437952, -0.0672956, 1.4541686],
        [-0.4913397, 0.4463152, 0, 0.4254439, -0.1357207],
    ]
    golden.check(COMPONENT, 2, golden_numbers(), expected)


def test_the_version_moves_with_that_of_the_network_within(monkeypatch):
    monkeypatch.setattr(DilatedConv, "RESULT_VERSION", DilatedConv.RESULT_VERSION + 1)
    spec = importlib.util.spec_from_file_location("splice_grammar_again", splice_grammar.__file__)
    again = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, again)
    spec.loader.exec_module(again)
    assert again.COMPONENT.RESULT_VERSION == COMPONENT.RESULT_VERSION + 1


def test_an_encoder_that_splits_an_n_is_refused(tmp_path):
    made = splice_grammar_toy(tmp_path / "toy")
    SpliceGrammar.check_encoder(OneHot(OneHotParams()))
    quarter = dataclasses.replace(made, encoder={"name": "one_hot", "params": {"unknown": "quarter"}})
    for opened in (check_members, load_members):
        with pytest.raises(InputError, match=r"splice_grammar reads N as zeros, and the encoder gives 'quarter'; use"):
            opened(quarter)
