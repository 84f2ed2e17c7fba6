"""Short sequences in longer ones: each fragment is found, nothing below the bound, and by chance nothing."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.genome import containment
from engine.genome.containment import containment_likeness, held_within
from engine.genome.minhash import Likeness, reverse_complement
from tests.engine.genome.test_minhash import kmers_said_again, mutated, random_dna

PROTEIN = Likeness(5, 0.5, both_strands=False)
AMINO_ACIDS = b"ACDEFGHIKLMNPQRSTVWY"


def random_proteins(lengths: list[int], draw: random.Random) -> list[bytes]:
    return [bytes(draw.choices(AMINO_ACIDS, k=length)) for length in lengths]


@given(seed=st.integers(0, 200), both=st.booleans())
def test_every_fragment_is_found_in_what_it_was_cut_from_and_nowhere_else(seed, both):
    draw = random.Random(seed)
    whole = random_dna(6, 400, draw)
    cuts = [(i, begin, begin + draw.randint(40, 120)) for i in range(6) for begin in [draw.randrange(200)]]
    fragments = [whole[i][begin:end] for i, begin, end in cuts]
    if both:
        fragments[::2] = [reverse_complement(one) for one in fragments[::2]]
    found = {(one, other): share for one, other, share in held_within(whole + fragments, Likeness(8, 0.5, both))}
    assert {pair for pair in found if pair[1] < 6} == {(6 + i, i) for i in range(6)}
    assert all(share == 1.0 for share in found.values())


@given(seed=st.integers(0, 200))
def test_the_share_is_that_of_the_k_mers_said_again_and_nothing_is_below_the_bound(seed):
    draw = random.Random(seed)
    parents = random_dna(4, 120, draw)
    some = [*parents, *(mutated(one, draw.randrange(12), draw)[: draw.randint(30, 119)] for one in parents)]
    how = containment_likeness(some, Likeness())
    sets = [kmers_said_again(one, how.k, both_strands=True) for one in some]
    wanted = {
        (i, j): len(sets[i] & sets[j]) / len(sets[i])
        for i in range(8)
        for j in range(8)
        if len(some[i]) < len(some[j]) and len(sets[i] & sets[j]) / len(sets[i]) >= how.threshold
    }
    assert {(one, other): share for one, other, share in held_within(some, Likeness())} == wanted


def test_only_other_parts_are_told():
    draw = random.Random(1)
    whole = random_proteins([300, 300], draw)
    some = [*whole, whole[0][50:110], whole[1][50:110]]
    parts = ["train", "train", "test", "train"]
    assert [pair[:2] for pair in held_within(some, PROTEIN, parts=parts)] == [(2, 0)]


@pytest.mark.parametrize("length", [2_000, 200_000])
def test_a_long_sequence_holds_nothing_by_chance(length):
    draw = random.Random(2)
    some = [*random_dna(1, length, draw), *random_dna(50, 60, draw)]
    assert containment_likeness(some, Likeness()).k > 8
    assert list(held_within(some, Likeness())) == []


def test_words_grow_with_the_longest_and_never_shrink():
    assert containment_likeness([b"ACDEFGHIKLMNP" * 5], PROTEIN).k == 5
    assert containment_likeness([b"ACDEFGHIKLMNP" * 4_000], PROTEIN).k == 7
    assert containment_likeness([b"ACGU" * 50], Likeness(8, 0.5, both_strands=False)).k == 9
    assert containment_likeness([], PROTEIN).k == 5


def test_equal_lengths_are_left_to_the_jaccard_index_and_short_ones_are_let_be():
    assert list(held_within([b"MKVLAWAG", b"MKVLAWAG"], PROTEIN)) == []
    assert list(held_within([b"MKV", b"MKVLAWAG"], PROTEIN)) == []
    assert list(held_within([], PROTEIN)) == []


def test_with_fewer_words_in_memory_fragments_are_still_found(monkeypatch):
    draw = random.Random(3)
    whole = random_dna(20, 2_000, draw)
    some = [*whole, *(one[500:1_500] for one in whole)]
    full = list(held_within(some, Likeness()))
    monkeypatch.setattr(containment, "_MOST_KMERS", 6_000)
    assert list(held_within(some, Likeness())) == full
    assert len(full) == 20
