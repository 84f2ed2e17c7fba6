import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine import registry
from engine.encoders.one_hot import COMPONENT, OneHot, OneHotParams
from engine.errors import InputError
from engine.genome.windows import reverse_complement, text_from_tokens
from tests.toys import golden

TEXTS = st.text(alphabet="ACGTN", min_size=1, max_size=60)


def columns(text, *, unknown="zero"):
    encoder = OneHot(OneHotParams(unknown=unknown))
    return encoder.tensor(torch.from_numpy(encoder.encode(text))[None])[0]


def test_golden_columns():
    # Rows A, C, G, T by the definition of one-hot; the fifth column is an N.
    expected = torch.tensor([[1.0, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0]])
    assert torch.equal(columns("acgtn"), expected)
    assert torch.equal(columns("ACGTR", unknown="quarter")[:, 4], torch.full((4,), 0.25))


@given(TEXTS)
def test_decodes_to_the_text_it_was_made_from(text):
    made = columns(text)
    known = made.sum(dim=0) > 0
    tokens = torch.where(known, made.argmax(dim=0), 4).numpy().astype(np.uint8)
    assert text_from_tokens(tokens) == text


@given(TEXTS)
def test_reverse_complement_turns_the_matrix_round(text):
    assert torch.equal(columns(reverse_complement(text)), columns(text).flip(0, 1))


def test_convolutions_take_the_memory_without_a_copy():
    made = OneHot(OneHotParams()).tensor(torch.zeros(3, 7, dtype=torch.uint8)).unsqueeze(2)
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert made.dtype == torch.float32
    assert made.shape == (3, 4, 1, 7)


def test_empty_batch_keeps_its_shape():
    assert OneHot(OneHotParams()).tensor(torch.zeros(0, 7, dtype=torch.uint8)).shape == (0, 4, 7)


def test_unknown_choice_is_refused_with_the_known_ones():
    assert registry.component("encoders", "one_hot") is COMPONENT
    with pytest.raises(InputError, match=r"spec\.yaml: unknown must be 'zero' or 'quarter', found 'half'"):
        registry.build_params(OneHot, {"unknown": "half"}, where="spec.yaml")


def test_golden_numbers_of_this_version():
    found = [columns("GNA"), columns("GNA", unknown="quarter")]
    zero = [[0, 0, 1], [0, 0, 0], [1, 0, 0], [0, 0, 0]]
    quarter = [[0, 0.25, 1], [0, 0.25, 0], [1, 0.25, 0], [0, 0.25, 0]]
    golden.check(COMPONENT, 1, [one.numpy() for one in found], [zero, quarter])
