"""Tables of k-mers: the words they read, and the laws of a network that has them."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.encoders.one_hot import OneHot, OneHotParams
from engine.errors import InputError
from engine.models._folder import load_members, save_model_folder
from engine.models._info import open_model
from engine.models._kmers import KmerTables, words
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


def test_what_tables_say_is_added_up():
    tables = KmerTables((1, 2), 3)
    said_LC = tables(one_hot("ACN"))[0].T
    singles, pairs = (table.weight for table in tables.tables)
    torch.testing.assert_close(said_LC, torch.stack([singles[1] + pairs[1 + 1], singles[2], torch.zeros(3)]))


@given(text=TEXT, more=st.integers(0, 9), pool=st.sampled_from(["max", "mean", "place"]), shrunk=st.booleans())
@settings(max_examples=40)
def test_padding_never_changes_an_answer(text, more, pool, shrunk):
    model = network(pool=pool, length=40 if pool == "place" else 0, stem_pool=3 if shrunk else 1)
    with torch.inference_mode():
        alone = model(one_hot(text))["value"]
        padded = model(one_hot(text, width=len(text) + more), torch.tensor([len(text)]))["value"]
    torch.testing.assert_close(padded, alone, rtol=1e-5, atol=1e-6)


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
    model = network()
    save_model_folder(tmp_path / "m", [model], architecture="sequence_cnn", card=CARD)
    (loaded,) = load_members(open_model(tmp_path / "m"))
    assert loaded.params.kmers == (1, 2, 5)
    assert torch.equal(loaded(one_hot("ACGTACC"))["value"], model(one_hot("ACGTACC"))["value"])


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"kmers": [9]}, r"kmers must be distinct whole numbers from 1 to 8, found \[9\]"),
        ({"kmers": [2, 2]}, r"distinct whole numbers from 1 to 8, found \[2, 2\]"),
        ({"kmers": [2.5]}, "distinct whole numbers"),
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


GOLDEN = [[0.301006, -0.206969]]
