import numpy as np
import torch

from engine import registry
from engine.encoders.protein_tokens import AMINO_ACIDS, COMPONENT, UNKNOWN, ProteinTokens, ProteinTokensParams


def test_golden_numbers_of_this_version():
    encoder = ProteinTokens(ProteinTokensParams())
    assert encoder.encode("ACDEFGHIKLMNPQRSTVWY").tolist() == list(range(20))
    assert encoder.encode("mX*-UZé").tolist() == [10, *[UNKNOWN] * 6]
    assert encoder.RESULT_VERSION == 1


def test_tokens_keep_their_shape_on_the_device():
    encoder = registry.component("encoders", "protein_tokens")(ProteinTokensParams())
    assert type(encoder) is COMPONENT
    tokens = encoder.encode(AMINO_ACIDS)
    assert tokens.dtype == np.uint8
    made = encoder.tensor(torch.from_numpy(tokens)[None])
    assert made.dtype == torch.int64
    assert made.tolist() == [[list(range(20))]]
    assert encoder.num_tokens == int(made.max()) + 2
