"""SMILES by the grammar: what is written by it is read, token by token; what is not is told with its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.io.smiles import MOST_LETTERS, TOKENS, SmilesError, smiles_tokens

BRACKETS = ("[nH]", "[O-]", "[13CH4]", "[C@@H]", "[C@TH1]", "[Fe+2]", "[se]", "[OH3+:12]", "[2H]", "[Cu++]", "[*:1]")
ATOMS = st.sampled_from([*"BCNOPSFIbcnops*", "Cl", "Br", *BRACKETS])
BOND = st.sampled_from(["", "", "", *"-=#$:/\\"])
NUMBER = st.sampled_from(["1", "9", "0", "%12", "%99"])


def joined(parts):
    return "".join("".join(part) for part in parts)


@st.composite
def chains(draw, depth: int = 0) -> str:
    """A chain with rings and branches, as the grammar has them: every ring bond is opened and closed within it."""
    atoms = draw(st.lists(ATOMS, min_size=1, max_size=5))
    text = atoms[0]
    for atom in atoms[1:]:
        if depth < 2 and draw(st.booleans()):
            text += f"({draw(BOND)}{draw(chains(depth=depth + 1))})"
        text += draw(st.sampled_from(["", "."])) if draw(st.integers(0, 9)) == 0 else draw(BOND)
        text += atom
    if draw(st.booleans()):
        number = draw(NUMBER)
        text = f"{text}{draw(BOND)}{number}CC{number}"
    return text


@given(text=chains())
def test_tokens_joined_are_the_text(text):
    tokens = smiles_tokens(text)
    assert "".join(tokens) == text
    assert set(tokens) <= set(TOKENS)


@given(text=chains(), cut=st.data())
def test_a_text_cut_within_a_branch_or_ring_is_seen(text, cut):
    open_at = [i + 1 for i in range(len(text)) if text[: i + 1].count("(") > text[: i + 1].count(")")]
    if open_at:
        with pytest.raises(SmilesError):
            smiles_tokens(text[: cut.draw(st.sampled_from(open_at))])


@given(text=st.text("CNOclBr[]()=#1%2@H+-. ", max_size=12))
def test_any_text_is_read_whole_or_refused(text):
    try:
        assert "".join(smiles_tokens(text)) == text
    except SmilesError as error:
        assert str(error)


def test_tokens_are_told_apart():
    assert len(set(TOKENS)) == len(TOKENS) == 158
    assert smiles_tokens("ClC(Br)c1cn[nH]1") == (*("Cl", "C", "(", "Br", ")", "c", "1", "c", "n"), *"[nH]1")
    assert smiles_tokens("[Sc]SC") == ("[", "Sc", "]", "S", "C")
    assert smiles_tokens("C%12CC%12") == (*"C%12CC%12",)
    assert smiles_tokens("N[C@@H](C)C(=O)[O-]") == (*"N[C", "@@", *"H](C)C(=O)[O-]")
    assert smiles_tokens("CC(=O)Oc1ccccc1C(=O)O") == (*"CC(=O)Oc1ccccc1C(=O)O",)  # aspirin


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "there are no letters"),
        ("CXC", "'XC' at letter 2 begins no atom"),
        ("C[Zz]", r"'\[Zz\]' at letter 2 begins no atom"),
        ("C[NH", r"'\[NH' at letter 2"),
        ("C(CC", "a branch is opened and not closed"),
        ("CC)C", r"'\)' at letter 3 closes no branch"),
        ("C1CCC", "ring closure 1 is opened and not closed"),
        ("C%10CC1", "ring closure 1 is opened"),
        ("C%1", "'%1' at letter 2"),
        ("=CC", "'=' at letter 1 follows no atom"),
        ("CC=", "it ends in a bond"),
        ("C==C", "'=' at letter 3 follows a bond"),
        ("C()C", r"'\)' at letter 3 begins a branch"),
        ("C C", "' C' at letter 2"),
        ("C" * (MOST_LETTERS + 1), "10,001 letters, more than 10,000"),
    ],
)
def test_what_is_no_smiles_is_told_with_its_place(text, sentence):
    with pytest.raises(SmilesError, match=sentence):
        smiles_tokens(text)
