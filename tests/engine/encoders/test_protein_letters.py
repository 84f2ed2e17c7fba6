import numpy as np
import torch

from engine import registry
from engine.encoders.protein_letters import COMPONENT, LETTERS, UNKNOWN, ProteinLetters, ProteinLettersParams
from engine.encoders.protein_tokens import ProteinTokens, ProteinTokensParams


def test_golden_numbers_of_this_version():
    encoder = ProteinLetters(ProteinLettersParams())
    assert encoder.encode("ACDEFGHIKLMNPQRSTVWYBZUOX").tolist() == list(range(25))
    assert encoder.encode("mu*-Jé").tolist() == [10, 22, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN]
    assert encoder.RESULT_VERSION == 1


def test_the_twenty_are_those_of_protein_tokens():
    text = LETTERS[:20].lower()
    wanted = ProteinTokens(ProteinTokensParams()).encode(text)
    np.testing.assert_array_equal(ProteinLetters(ProteinLettersParams()).encode(text), wanted)


def test_tokens_keep_their_shape_on_the_device():
    encoder = registry.component("encoders", "protein_letters")(ProteinLettersParams())
    assert type(encoder) is COMPONENT
    made = encoder.tensor(torch.from_numpy(encoder.encode(LETTERS))[None])
    assert made.dtype == torch.int64
    assert made.tolist() == [[list(range(encoder.num_tokens))]]
