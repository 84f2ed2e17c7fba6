"""Shuffles keep every pair of neighbours, reach every order equally often, and belong to their record."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise, permutations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.interpret._baselines import Baseline, shuffled
from engine.interpret._target import Question, Target
from tests.toys.sequence_runs import sequence_model


def pairs(letters) -> Counter:
    return Counter(pairwise(letters))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 1000))
def test_pairs_and_ends_stay(letters, seed):
    tokens = np.array(letters, np.uint8)
    made = shuffled(tokens, np.random.default_rng(seed))
    assert made.dtype == np.uint8
    assert (made[0], made[-1]) == (tokens[0], tokens[-1])
    assert pairs(made.tolist()) == pairs(letters)


def test_every_order_is_as_likely():
    letters = [0, 1, 0, 2, 0, 1, 2, 1]
    wanted = {one for one in permutations(letters) if pairs(one) == pairs(letters)}
    draw = np.random.default_rng(0)
    found = Counter(tuple(shuffled(np.array(letters, np.uint8), draw).tolist()) for _ in range(200 * len(wanted)))
    assert set(found) == wanted
    assert len(wanted) > 5
    statistic = sum((count - 200) ** 2 / 200 for count in found.values())
    # The mean of chi squared is its degrees of freedom, its variance twice that.
    assert statistic < len(wanted) - 1 + 5 * np.sqrt(2 * len(wanted))


def test_seeds_are_those_of_the_record(tmp_path):
    target = Target(sequence_model(tmp_path / "model"), Question("class", ("site",)))
    tokens = np.random.default_rng(0).integers(0, 4, 50).astype(np.uint8)
    of = [Baseline("shuffle", 2, 0).inputs(target, tokens, record=record) for record in (5, 5, 6)]
    assert torch.equal(of[0], of[1])
    assert not torch.equal(of[0], of[2])
    assert not torch.equal(of[0][0], of[0][1])
    assert of[0].shape == (2, 4, 50)
    uniform = Baseline("uniform").inputs(target, tokens, record=0)
    assert uniform.shape == (1, 4, 50)
    assert (uniform == 0.25).all()
    assert not Baseline("zero").inputs(target, tokens, record=0).any()
