"""SMILES as numbers, one a token."""

import numpy as np
import pytest
import torch

from engine.encoders.smiles_tokens import SmilesTokens, SmilesTokensParams
from engine.errors import DataError
from engine.io.smiles import TOKENS, smiles_tokens
from tests.toys.golden import check

ENCODER = SmilesTokens(SmilesTokensParams())


def test_a_number_for_each_token():
    text = "N[C@@H](Cc1c[nH]c2ccccc12)C(=O)[O-]"
    found = ENCODER.encode(text)
    assert found.dtype == np.uint8
    assert [TOKENS[number] for number in found] == list(smiles_tokens(text))
    assert ENCODER.tensor(torch.from_numpy(found)[None]).shape == (1, 1, len(found))
    assert ENCODER.num_tokens == len(TOKENS) + 1 == ENCODER.unknown_token + 1 <= 256


def test_what_is_no_smiles_is_refused():
    with pytest.raises(DataError, match="no SMILES: 'XX' at letter 2"):
        ENCODER.encode("CXX")


def test_golden_numbers_of_this_version():
    check(SmilesTokens, 1, ENCODER.encode("C[C@@H](Cl)c1ccc(Br)nc1/C=C/[N+]"), GOLDEN)


GOLDEN = [
    5,
    141,
    5,
    128,
    0,
    142,
    143,
    16,
    144,
    119,
    149,
    119,
    119,
    119,
    143,
    34,
    144,
    120,
    119,
    149,
    139,
    5,
    135,
    5,
    139,
    141,
    6,
    146,
    142,
]
