"""Tables of k-mers: the words they read, and the laws of a network that has them."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.encoders.one_hot import OneHot, OneHotParams
from engine.errors import InputError
from engine.models._folder import load_members, save_model_folder
from engine.models._info import open_model
from engine.models._kmers import KmerSides, KmerTables, words
from engine.models._sequence import pooled_width
from engine.models.sequence_cnn import SequenceCnn, SequenceCnnParams
from engine.registry import build_params
from tests.toys.golden import check, filled
from tests.toys.models import CARD

torch.set_num_threads(1)
TEXT = st.text(alphabet="ACGTN", min_size=1, max_size=24)


def one_hot(text, *, width=None, unknown="zero"):
    encoder = OneHot(OneHotParams(unknown=unknown))
    tokens = np.full((1, width or len(text)), 4, dtype=np.uint8)
    tokens[0, : len(text)] = encoder.encode(text)
    return encoder.tensor(torch.from_numpy(tokens))


def network(**values):
    torch.manual_seed(3)
    given = {"channels": 6, "outputs": ("a", "b"), "activation": "softmax", "kmers": (1, 2, 5), "blocks": 1, **values}
    return SequenceCnn(SequenceCnnParams(**given)).eval()


@given(text=TEXT, length=st.integers(1, 6), unknown=st.sampled_from(["zero", "quarter"]))
@settings(max_examples=60)
def test_a_word_is_its_letters_read_as_a_number(text, length, unknown):
    x = one_hot(text, unknown=unknown)
    found = words(x.argmax(dim=1), x.amax(dim=1) > 0.5, length)[0].tolist()
    book = {"".join(word): 1 + number for number, word in enumerate(itertools.product("ACGT", repeat=length))}
    begins = [at - (length - 1) // 2 for at in range(len(text))]
    assert found == [book.get(text[at : at + length], 0) if at >= 0 else 0 for at in begins]


@given(text=TEXT)
@settings(max_examples=30)
def test_a_soft_word_is_the_word_of_its_letters(text):
    tables = KmerTables((1, 2, 5), 3)
    found = tables(one_hot(text))
    tables.is_soft = True
    torch.testing.assert_close(tables(one_hot(text)), found)


def test_what_tables_say_is_added_up():
    tables = KmerTables((1, 2), 3)
    said_LC = tables(one_hot("ACN"))[0].T
    singles, pairs = (table.weight for table in tables.tables)
    torch.testing.assert_close(said_LC, torch.stack([singles[1] + pairs[1 + 1], singles[2], torch.zeros(3)]))


@given(text=TEXT, more=st.integers(0, 9), pool=st.sampled_from(["max", "mean", "place"]), shrunk=st.booleans())
@settings(max_examples=40)
def test_padding_never_changes_an_answer(text, more, pool, shrunk):
    placed = {"length": 40, "sides": (1, 3)} if pool == "place" else {}
    model = network(pool=pool, stem_pool=3 if shrunk else 1, **placed)
    with torch.inference_mode():
        alone = model(one_hot(text))["value"]
        padded = model(one_hot(text, width=len(text) + more), torch.tensor([len(text)]))["value"]
    torch.testing.assert_close(padded, alone, rtol=1e-5, atol=1e-6)


@given(text=st.text(alphabet="ACGTN", min_size=1, max_size=13), length=st.integers(13, 15), seed=st.integers(0, 9))
@settings(max_examples=40)
def test_a_side_is_the_words_that_lie_there_wherever(text, length, seed):
    torch.manual_seed(seed)
    sides = KmerSides((1, 2, 3), 1, length)
    tables = [table.weight.detach() for table in sides.tables]
    wanted = torch.zeros(2, 4)
    for size, weight in zip(sides.lengths, tables, strict=True):
        number = {"".join(word): 1 + code for code, word in enumerate(itertools.product("ACGT", repeat=size))}
        begins = range(len(text) - size + 1)
        found = [Counter(), Counter()]
        for at in begins:
            found[at + (size - 1) // 2 >= length // 2][text[at : at + size]] += 1
        for side, counts in enumerate(found):
            vectors = [count * weight[number[word]] for word, count in counts.items() if word in number]
            said = sum(vectors, torch.zeros(4))
            wanted[side] += said / max(1e-12, float(said.norm()))
    torch.testing.assert_close(sides(one_hot(text))[0], sides.norm(wanted.flatten()), rtol=1e-4, atol=1e-5)


def test_a_network_with_sides_tells_which_side_a_word_is_on():
    """Sides of like letters that each place has seen in neither class: only what they are made of tells."""
    torch.manual_seed(0)
    kinds_N = torch.arange(64) % 2
    rich_NL = torch.randint(1, 3, (64, 6))
    poor_NL = torch.randint(0, 2, (64, 6)) * 3
    digits_NL = torch.where((kinds_N == 1)[:, None], torch.cat([rich_NL, poor_NL], 1), torch.cat([poor_NL, rich_NL], 1))
    x = torch.nn.functional.one_hot(digits_NL, 4).transpose(1, 2).float()
    whole, sides = x.sum(dim=2), KmerSides((1,), 1, 12)(x)
    fit = [torch.linalg.lstsq(one, kinds_N[:, None] - 0.5).solution for one in (whole, sides)]
    called = [(one @ answer)[:, 0] > 0 for one, answer in zip((whole, sides), fit, strict=True)]
    right = [float((one == (kinds_N == 1)).float().mean()) for one in called]
    assert right[1] == 1 > right[0]


def test_what_is_beside_counts_among_the_numbers_of_a_sequence():
    model = network(pool="place+mean", length=9, sides=(2,))
    with torch.inference_mode():
        features_BW = model.features(one_hot("ACGTACCGT"))
    assert features_BW.shape == (1, pooled_width(model.params)) == (1, 6 * 9 + 6 + 2 * 4 * 6)
    assert model.answer.final.in_features == features_BW.shape[1]


def test_every_position_may_have_an_answer():
    assert network(level="position")(one_hot("ACGTA"))["value"].shape == (1, 2, 5)


def test_a_network_learns_words_that_no_sum_of_letters_tells():
    """Equal counts of every letter: what counts is whether the two letters of a pair are the same."""
    torch.manual_seed(0)
    kinds_N, letters_N = torch.arange(64) % 2, torch.randint(0, 4, (64,))
    digits_NL = torch.stack([letters_N, (letters_N + kinds_N * torch.randint(1, 4, (64,))) % 4], dim=1)
    x = torch.nn.functional.one_hot(digits_NL, 4).transpose(1, 2).float()
    tables = KmerTables((2,), 2)
    optimiser = torch.optim.Adam(tables.parameters(), lr=0.1)
    for _ in range(40):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(tables(x)[:, :, 0], kinds_N)
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.05
    assert torch.equal(tables.tables[0].weight[0], torch.zeros(2))  # no word stays without a say


def test_a_model_folder_keeps_the_tables(tmp_path):
    model = network(pool="place", length=8, sides=(3, 1))
    save_model_folder(tmp_path / "m", [model], architecture="sequence_cnn", card=CARD)
    (loaded,) = load_members(open_model(tmp_path / "m"))
    assert (loaded.params.kmers, loaded.params.sides) == ((1, 2, 5), (3, 1))
    assert torch.equal(loaded(one_hot("ACGTACC"))["value"], model(one_hot("ACGTACC"))["value"])


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"kmers": [9]}, r"kmers must be distinct whole numbers from 1 to 8, found \[9\]"),
        ({"kmers": [2, 2]}, r"distinct whole numbers from 1 to 8, found \[2, 2\]"),
        ({"kmers": [2.5]}, "distinct whole numbers"),
        (
            {"sides": [0], "pool": "place", "length": 60},
            r"sides must be distinct whole numbers from 1 to 8, found \[0\]",
        ),
        ({"sides": [3]}, "sides want a middle: pool 'place' and 2 letters, found 'max' and 0"),
        ({"sides": [3], "pool": "place", "length": 1}, "sides want a middle"),
        ({"kmers": [3], "in_channels": 1, "num_tokens": 21}, "words of one-hot DNA in 4 channels, found in_channels 1"),
    ],
)
def test_words_that_cannot_be_are_refused(values, sentence):
    with pytest.raises(InputError, match=sentence):
        build_params(SequenceCnn, values, where="spec")


def test_golden_numbers_of_this_version():
    model = filled(network(activation="identity"))
    with torch.inference_mode():
        check(SequenceCnn, 1, model(one_hot("ACGTTGNCAGGT"))["value"].tolist(), GOLDEN, tolerance=1e-5)


def test_golden_numbers_of_sides():
    model = filled(network(activation="identity", pool="place", length=13, sides=(1, 3)))
    with torch.inference_mode():
        check(SequenceCnn, 1, model(one_hot("ACGTTGNCAGGT"))["value"].tolist(), GOLDEN_SIDES, tolerance=1e-5)


GOLDEN_SIDES = [[2.115647, 9.452386]]
GOLDEN = [[0.301006, -0.206969]]
