import numpy as np
import torch

from engine import registry
from engine.encoders.tokens import COMPONENT, Tokens, TokensParams
from tests.toys import golden


def test_case_and_unknown_letters_are_folded_on_the_wire():
    tokens = Tokens(TokensParams()).encode("ACGTNacgtnRY*-")
    assert tokens.dtype == np.uint8
    assert tokens.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 4, 4, 4, 4]


def test_tensor_keeps_values_and_adds_one_channel():
    tokens = torch.tensor([[0, 1, 4], [3, 2, 0]], dtype=torch.uint8)
    made = Tokens(TokensParams()).tensor(tokens)
    assert made.dtype == torch.int64
    assert made.shape == (2, 1, 3)
    assert torch.equal(made[:, 0], tokens.long())


def test_found_by_its_file_name():
    assert registry.component("encoders", "tokens") is COMPONENT is Tokens


def test_golden_numbers_of_this_version():
    encoder = Tokens(TokensParams())
    made = encoder.tensor(torch.from_numpy(encoder.encode("acGTRN"))[None])
    golden.check(COMPONENT, 1, made.numpy(), [[[0, 1, 2, 3, 4, 4]]])
