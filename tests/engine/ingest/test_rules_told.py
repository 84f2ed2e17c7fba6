"""Every rule that a set was cleaned by stands on its card in words, with its number."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from engine.genome.minhash import Likeness
from engine.ingest._rules_told import rules_told
from engine.ingest.cleaning import Rules


def told(rules: Rules, **settings) -> dict[str, str]:
    return dict(rules_told({"rules": rules.to_json(), "duplicates": "sequence", **settings}))


def test_what_is_usual_is_told_too():
    assert told(Rules()) == {
        "letters": "DNA, as upper case",
        "other letters": "none",
        "ambiguous letters": "such as N: at most 10% of a sequence",
        "length": "1 letters and more, no limit",
        "equal records": "the first record of a sequence stands, later ones are rejected",
        "near duplicates": "not looked for",
    }


@pytest.mark.parametrize(
    ("rules", "name", "sentence"),
    [
        (Rules(min_length=30, max_length=2_000), "length", "30 letters and more, at most 2,000"),
        (Rules("protein", max_invalid_fraction=0.05), "other letters", "at most 5% of a sequence, read as X"),
        (Rules("protein", max_ambiguous_fraction=1.0), "ambiguous letters", "such as X: any number"),
        (Rules(classes=("a", "b"), needs_label=True), "classes", "a, b"),
        (
            Rules(needs_label=True, needs_targets=True, num_targets=2),
            "needed",
            "label and target; a record without is rejected",
        ),
        (Rules(label_separator=";"), "several classes a record", "parted by ';'"),
        (
            Rules(second_alphabet="smiles", second_max_length=90),
            "other member",
            "SMILES, as written, at most 90 letters",
        ),
        (
            Rules(second_alphabet="smiles"),
            "equal records",
            "the first record of both members stands, later ones are rejected",
        ),
        (Rules(position_classes="HEC"), "classes of positions", "H, E, C"),
    ],
)
def test_a_rule_is_told(rules, name, sentence):
    assert told(rules)[name] == sentence


def test_near_duplicates_and_windows():
    found = told(
        Rules(),
        near_duplicates=asdict(Likeness(8, 0.6, both_strands=True)),
        windows={"length_bp": 2_000, "anchor": "middle", "margin_bp": 50, "past_ends": "fill"},
    )
    assert found["near duplicates"] == (
        "rejected from a Jaccard index of its 8-letter words with an earlier kept one of 0.6 on, a word and its reverse"
        " complement being one"
    )
    assert found["windows"] == "2,000 bases around the middle"
    assert (found["margin"], found["past a contig's end"]) == ("50 more bases on both sides", "N")
    assert told(Rules(), duplicates="keep")["equal records"] == "kept"
