"""Motif p-values, hits, ranks and q-values against counting everything."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import false_discovery_control, norm

from engine.interpret.motifs import PER_BIT, Scanner, matches, q_values, rank, scores, tail, too_short, window_sums
from engine.io.motif_files import Motif

COUNTS = hnp.arrays(np.float64, st.tuples(st.integers(1, 5), st.just(4)), elements=st.integers(0, 30)).filter(
    lambda counts: (counts.sum(axis=1) > 0).all()
)


def every_word(width: int) -> np.ndarray:
    return np.array(list(product(range(4), repeat=width)), np.int64)


def score(matrix: np.ndarray, word: np.ndarray) -> int:
    return int(sum(matrix[place, letter] for place, letter in enumerate(word)))


@given(COUNTS)
def test_tails_are_those_of_all_words(counts):
    matrix = scores(Motif("m", "m", counts))
    shares = (counts + 0.025) / (counts.sum(axis=1, keepdims=True) + 0.1)
    np.testing.assert_allclose(matrix / PER_BIT, np.log2(shares / 0.25), atol=0.5 / PER_BIT + 1e-12)
    found = np.array([score(matrix, word) for word in every_word(len(counts))])
    low, chance = tail(matrix)
    assert low == found.min()
    assert low + len(chance) - 1 == found.max()
    for value in np.unique(found):
        assert chance[value - low] == pytest.approx((found >= value).mean())


def test_hits_are_the_best_places():
    draw = np.random.default_rng(0)
    motifs = [Motif(f"m{i}", "", draw.integers(0, 50, (width, 4)) + 0.5) for i, width in enumerate((4, 6, 4, 9, 6))]
    limit = 5e-3
    scanner = Scanner(motifs, p_value=limit)
    num_hits = 0
    for length in (3, 8, 40, 200, 400):
        tokens = draw.choice(5, length, p=[0.24] * 4 + [0.04]).astype(np.uint8)
        expected = []
        for number, motif in enumerate(motifs):
            matrix, (low, chance) = scores(motif), tail(scores(motif))
            places = []
            for start in range(length - motif.width + 1):
                word = tokens[start : start + motif.width].astype(np.int64)
                if (word < 4).all():
                    both = (score(matrix, word), score(matrix, 3 - word[::-1]))
                    places += [(-value, start, strand) for strand, value in enumerate(both)]
            if places and chance[-min(places)[0] - low] <= limit:
                best = min(places)
                p_value = pytest.approx(chance[-best[0] - low])
                expected.append((number, best[1], bool(best[2]), -best[0] / PER_BIT, p_value))
        hits = scanner.hits(tokens)
        assert [(h.motif, h.start, h.is_reverse, h.score, h.p_value) for h in hits] == expected
        num_hits += len(hits)
    assert num_hits > 5


@given(hnp.arrays(np.float64, st.integers(1, 30), elements=st.integers(0, 5)))
def test_ranks_have_the_mean_and_variance_of_chance(values):
    found = [rank(values, place) for place in range(len(values))]
    ranks = np.array([one.value for one in found])
    assert ranks.mean() == pytest.approx(0.5)
    assert ranks.var() == pytest.approx(found[0].variance, abs=1e-12)
    best = int(values.argmax())
    assert ranks[best] == ranks.max()


def test_window_sums():
    values = np.arange(7.0)
    assert window_sums(values, 3).tolist() == [values[i : i + 3].sum() for i in range(5)]


def test_matches_and_their_chance():
    """Ranks drawn at random give p-values that are uniform; high ones a low p-value."""
    draw = np.random.default_rng(0)
    variance = (1 - 1 / 50**2) / 12
    rows = [(motif, (draw.integers(50) + 0.5) / 50, variance, 1.0) for motif in range(400) for _ in range(12)]
    found = matches(rows)
    p_values = np.array([one.p_value for one in found])
    assert np.abs(np.sort(p_values) - (np.arange(400) + 0.5) / 400).max() < 0.08
    assert min(one.q_value for one in found) > 0.05
    high = matches([*rows, *((400, 0.99, variance, 2.0) for _ in range(12)), (401, 0.5, variance, 0.0)])
    assert high[400].q_value < 1e-4
    assert high[400].p_value == pytest.approx(norm.sf(12 * 0.49 / np.sqrt(12 * variance)))
    assert (high[400].hits, high[400].mean_rank, high[400].mean_contribution) == (12, pytest.approx(0.99), 2.0)
    assert (high[401].p_value, high[401].q_value) == (None, None)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_q_values_are_scipys(p_values):
    np.testing.assert_allclose(q_values(p_values), false_discovery_control(p_values), atol=1e-12)


def test_motifs_too_short_for_any_hit_are_told():
    """Six certain letters turn up in one of 4^6 = 4,096 words, seven in one of 16,384."""
    motifs = [Motif(str(width), str(width), np.tile([100.0, 0, 0, 0], (width, 1))) for width in (6, 7)]
    assert [one.id for one in too_short(motifs, 1e-4)] == ["6"]
    assert too_short(motifs, 1e-3) == []
    assert not Scanner([motifs[0]], p_value=1e-4).hits(np.zeros(30, np.uint8))
    assert Scanner([motifs[1]], p_value=1e-4).hits(np.zeros(30, np.uint8))
