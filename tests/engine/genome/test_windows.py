"""Tokens, strands, and alleles applied to windows with coordinates kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DataError
from engine.genome.variants import trim
from engine.genome.windows import (
    edit_positions,
    edit_tokens,
    onto_reference,
    reverse_complement,
    text_from_tokens,
    tokens_from_text,
)

sequences = st.text("ACGTN", max_size=40)
Allele = tuple[int, str, str]


def apply(text: str, start: int, alleles: list[Allele]) -> tuple[str, np.ndarray]:
    """Text and positions of a window with alleles (start, REF, ALT) put in, trimmed first as records are."""
    edits = []
    for at, ref, alt in alleles:
        shift, short_ref, short_alt = trim(ref, alt)
        if short_ref or short_alt:
            edits.append((at + shift, len(short_ref), tokens_from_text(short_alt)))
    found = edit_tokens(tokens_from_text(text), start, edits)
    return text_from_tokens(found), edit_positions(start, start + len(text), edits)


@given(sequences)
def test_tokens_round_trip(text: str) -> None:
    tokens = tokens_from_text(text)
    assert tokens.dtype == np.uint8
    assert text_from_tokens(tokens) == text


@given(st.text(max_size=20))
def test_any_other_letter_is_n(text: str) -> None:
    expected = "".join(letter.upper() if letter in "ACGTacgt" else "N" for letter in text)
    assert text_from_tokens(tokens_from_text(text)) == expected


def test_codes_are_fixed() -> None:
    assert tokens_from_text("ACGTNacgtnRx*").tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 4, 4, 4]


@given(sequences)
def test_reverse_complement_twice_is_identity(text: str) -> None:
    tokens = tokens_from_text(text)
    assert reverse_complement(reverse_complement(text)) == text
    assert (reverse_complement(reverse_complement(tokens)) == tokens).all()
    assert text_from_tokens(reverse_complement(tokens)) == reverse_complement(text)


def test_reverse_complement_values() -> None:
    assert reverse_complement("AACGTNry") == "ryNACGTT"
    assert reverse_complement("GAry") == "ryTC"
    batch = np.stack([tokens_from_text("AACG"), tokens_from_text("TTTN")])
    assert [text_from_tokens(row) for row in reverse_complement(batch)] == ["CGTT", "NAAA"]


@pytest.mark.parametrize(
    ("alleles", "text", "positions"),
    [
        ([], "ACGTACGT", [100, 101, 102, 103, 104, 105, 106, 107]),
        ([(102, "G", "T")], "ACTTACGT", [100, 101, 102, 103, 104, 105, 106, 107]),
        ([(102, "GTA", "G")], "ACGCGT", [100, 101, 102, 105, 106, 107]),
        ([(102, "G", "GTT")], "ACGTTTACGT", [100, 101, 102, 102, 102, 103, 104, 105, 106, 107]),
        # MNV: paired one to one. Delins: surplus REF has no base, surplus ALT stands on the last pair.
        ([(101, "CGT", "AGA")], "AAGAACGT", [100, 101, 102, 103, 104, 105, 106, 107]),
        ([(101, "CGTA", "TT")], "ATTCGT", [100, 101, 102, 105, 106, 107]),
        ([(101, "CG", "TTTA")], "ATTTATACGT", [100, 101, 102, 102, 102, 103, 104, 105, 106, 107]),
        # In a repeat an insertion stays behind its written anchor, a deletion too.
        ([(100, "A", "AA")], "AACGTACGT", [100, 100, 101, 102, 103, 104, 105, 106, 107]),
        ([(100, "ACG", "ACACG")], "ACACGTACGT", [100, 100, 100, 101, 102, 103, 104, 105, 106, 107]),
        # Two records that share only their anchor base.
        ([(102, "GT", "G"), (102, "G", "A")], "ACAACGT", [100, 101, 102, 104, 105, 106, 107]),
        ([(106, "G", "C"), (101, "C", "CA")], "ACAGTACCT", [100, 101, 101, 102, 103, 104, 105, 106, 107]),
        ([(102, "GTACGTTT", "G")], "ACG", [100, 101, 102]),
        ([(95, "GGGGGAC", "G")], "GTACGT", [102, 103, 104, 105, 106, 107]),
        # An insertion before the first base stands outside, one after the last base inside.
        ([(99, "A", "ATT")], "ACGTACGT", [100, 101, 102, 103, 104, 105, 106, 107]),
        ([(107, "T", "TAA")], "ACGTACGTAA", [100, 101, 102, 103, 104, 105, 106, 107, 107, 107]),
        ([(98, "AAA", "CCCC")], "CCCGTACGT", [100, 100, 101, 102, 103, 104, 105, 106, 107]),
        ([(106, "GTCC", "AAAAA")], "ACGTACAA", [100, 101, 102, 103, 104, 105, 106, 107]),
        ([(90, "A", "C"), (120, "A", "C")], "ACGTACGT", [100, 101, 102, 103, 104, 105, 106, 107]),
        ([(101, "C", "C"), (101, "C", "T")], "ATGTACGT", [100, 101, 102, 103, 104, 105, 106, 107]),
    ],
)
def test_alleles_in_a_window(alleles: list[tuple[int, str, str]], text: str, positions: list[int]) -> None:
    found, places = apply("ACGTACGT", 100, alleles)
    assert (found, places.tolist()) == (text, positions)


@pytest.mark.parametrize(
    ("ref", "alt", "text", "positions"),
    [
        # As written, ATG for G pairs A with G; trimmed it would lose A and T, and G would stay where it was.
        (3, "G", "GTACGT", [100, 103, 104, 105, 106, 107]),
        (1, "CA", "CACGTACGT", [100, 100, 101, 102, 103, 104, 105, 106, 107]),
    ],
)
def test_edits_pair_as_they_are_written(ref: int, alt: str, text: str, positions: list[int]) -> None:
    edits = [(100, ref, tokens_from_text(alt))]
    assert text_from_tokens(edit_tokens(tokens_from_text("ACGTACGT"), 100, edits)) == text
    assert edit_positions(100, 108, edits).tolist() == positions


@pytest.mark.parametrize(
    "alleles",
    [
        [(101, "C", "T"), (101, "C", "G")],
        [(101, "CGT", "C"), (103, "T", "A")],
        [(101, "C", "CA"), (101, "C", "CT")],
        [(101, "CGTA", "AAAC"), (102, "G", "GTT")],
    ],
)
def test_clashing_alleles_are_refused(alleles: list[tuple[int, str, str]]) -> None:
    with pytest.raises(DataError, match="change the same place of one copy"):
        apply("ACGTACGT", 100, alleles)


@st.composite
def edits(draw: st.DrawFn) -> tuple[str, list[tuple[int, str, str]]]:
    """A sequence and alleles on it that neither touch nor overlap."""
    text = draw(st.text("ACGT", min_size=8, max_size=40))
    alleles = []
    at = 0
    while at < len(text) - 4:
        at += draw(st.integers(0, 5))
        ref = text[at : at + draw(st.integers(1, 4))]
        if not ref:
            break
        alleles.append((at, ref, ref[0] + draw(st.text("ACGT", max_size=4))))
        at += len(ref) + 1
    return text, alleles


@given(edits(), st.randoms())
def test_whole_sequence_is_the_haplotype_in_any_order(
    case: tuple[str, list[tuple[int, str, str]]], rng: object
) -> None:
    text, alleles = case
    expected = text
    for at, ref, alt in reversed(alleles):
        expected = expected[:at] + alt + expected[at + len(ref) :]
    shuffled = list(alleles)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    found, places = apply(text, 0, shuffled)
    assert found == expected
    assert len(places) == len(expected)
    assert (np.diff(places) >= 0).all()


@given(edits(), st.integers(0, 30), st.integers(0, 30))
def test_a_part_of_a_window_is_the_window_of_the_part(
    case: tuple[str, list[tuple[int, str, str]]], low: int, num: int
) -> None:
    text, alleles = case
    low = min(low, len(text))
    whole, places = apply(text, 0, alleles)
    part, own = apply(text[low : low + num], low, alleles)
    inside = (places >= low) & (places < low + num)
    assert part == "".join(base for base, one in zip(whole, inside, strict=True) if one)
    assert (own == places[inside]).all()


def test_values_come_back_onto_the_reference() -> None:
    _, places = apply("ACGTAC", 10, [(11, "CG", "C"), (14, "A", "ATT")])
    assert places.tolist() == [10, 11, 13, 14, 14, 14, 15]
    values = np.array([[1, 2, 3, 4, 9, 5, 6], [-1, -2, -3, -4, -9, -5, -6]], dtype=np.float32)
    found = onto_reference(values, places, start=10, end=16)
    assert found.tolist() == [[1, 2, 0, 3, 9, 6], [-1, -2, 0, -3, -4, -6]]
    assert onto_reference(values, places, start=12, end=14, fill=-7).tolist() == [[-7, 3], [-7, -3]]
    assert onto_reference(values, places, start=30, end=32).tolist() == [[0, 0], [0, 0]]
    assert onto_reference(values, places, start=8, end=11).tolist() == [[0, 0, 1], [0, 0, -1]]


@given(edits(), st.integers(0, 2**31))
def test_onto_reference_agrees_with_a_plain_loop(case: tuple[str, list[tuple[int, str, str]]], seed: int) -> None:
    text, alleles = case
    found, places = apply(text, 5, [(at + 5, ref, alt) for at, ref, alt in alleles])
    values = np.random.default_rng(seed).normal(size=(3, len(found))).astype(np.float32)
    expected = np.zeros((3, len(text)), dtype=np.float32)
    for place in range(len(text)):
        standing = values[:, places == place + 5]
        if standing.shape[1]:
            expected[:, place] = standing.max(axis=1)
    assert (onto_reference(values, places, start=5, end=5 + len(text)) == expected).all()
