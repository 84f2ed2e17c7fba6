"""Rules on single records: every record becomes one row, the first rule it breaks is its reason."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.ingest.cleaning import Rules, clean
from engine.io._sequence_columns import PARTS
from engine.io._sequence_rows import RawSequences
from engine.io.sequence_text import Problem
from schemas import states, tables


def raw(rows, *, first: int = 0, problems=None, **columns) -> RawSequences:
    num = len(rows)
    made = {part: pa.nulls(num, pa.string()) for part in PARTS}
    made |= {"id": pa.array([f"r{i}" for i in range(num)]), "sequence": pa.array(rows, pa.large_string())}
    made |= {name: pa.array(values) for name, values in columns.items()}
    return RawSequences(first, pa.table(made), problems or {})


def judged(rows, rules=None, **more):
    return clean(raw(rows, **more), rules or Rules()).table.to_pylist()


def reasons(rows, rules=None, **more):
    return [row["reason"] for row in judged(rows, rules, **more)]


TEXTS = st.one_of(st.none(), st.text("ACGTNacgtnRYX-*?\u00e9 ", max_size=20))


@given(rows=st.lists(TEXTS, max_size=12), first=st.integers(0, 9), alphabet=st.sampled_from(["dna", "rna", "protein"]))
def test_every_record_is_kept_or_rejected_with_a_known_reason(rows, first, alphabet):
    cleaned = clean(raw(rows, first=first), Rules(alphabet=alphabet, max_invalid_fraction=0.2))
    table = cleaned.table
    assert table.schema.equals(tables.SEQUENCES)
    assert table["record"].to_pylist() == list(range(first, first + len(rows)))
    for i, row in enumerate(table.to_pylist()):
        if row["state"] == states.KEPT:
            assert row["reason"] is None
            assert len(row["sequence"]) == row["length"]
            assert row["sequence"] == row["sequence"].upper()
        else:
            assert row["reason"] in states.INGEST_REASONS
            assert row["sequence"] is None
            assert cleaned.sentences[i]


@given(text=st.text("ACGTNRYSWKMBDHVacgtnryswkmbdhv", min_size=1, max_size=30))
def test_dna_is_written_in_five_letters_each_in_its_place(text):
    [row] = judged([text], Rules(max_ambiguous_fraction=1.0))
    assert row["sequence"] == "".join(one if one in "ACGT" else "N" for one in text.upper())


@given(text=st.text("ACGUTacgut", min_size=1, max_size=30))
def test_rna_is_written_as_dna(text):
    [row] = judged([text], Rules(alphabet="rna"))
    assert row["sequence"] == text.upper().replace("U", "T")


def test_proteins_keep_their_letters_and_lose_the_stop():
    rules = Rules(alphabet="protein", max_ambiguous_fraction=0.5)
    assert [row["sequence"] for row in judged(["mkvX*", "MK*", "MUO"], Rules(alphabet="protein"))] == [None, "MK", None]
    assert judged(["mkvX*"], rules)[0]["sequence"] == "MKVX"
    assert reasons(["MK1VLLAAQ", "M*K"], rules) == ["invalid_letters", "invalid_letters"]


@pytest.mark.parametrize(
    ("text", "rules", "reason"),
    [
        ("ACGU", Rules(), "invalid_letters"),
        ("AC GT", Rules(), "invalid_letters"),
        ("AC\u00e9T", Rules(), "invalid_letters"),
        ("ACG-" * 3, Rules(max_invalid_fraction=0.25), None),
        ("ACG-" * 3 + "-", Rules(max_invalid_fraction=0.25), "invalid_letters"),
        ("ACGTACGTAN", Rules(), None),
        ("ACGTACGTNN", Rules(), "ambiguous_letters"),
        ("", Rules(), "empty_sequence"),
        (None, Rules(), "empty_sequence"),
        ("ACGT", Rules(min_length=5), "too_short"),
        ("ACGT", Rules(min_length=4, max_length=4), None),
        ("ACGT", Rules(max_length=3), "too_long"),
    ],
)
def test_the_letters_and_the_length(text, rules, reason):
    assert reasons([text], rules) == [reason]


def test_labels():
    labels = ["a", "b", "c", None, "", " "]
    rows = ["ACGT"] * 6
    blank = [row["label"] for row in judged(rows, label=labels)]
    assert blank == ["a", "b", "c", None, None, " "]
    rules = Rules(classes=("a", "b"), needs_label=True)
    assert reasons(rows[:5], rules, label=labels[:5]) == [None, None, "unknown_label", "missing_label", "missing_label"]
    assert reasons(rows[:5], Rules(classes=("a", "b")), label=labels[:5]) == [None, None, "unknown_label", None, None]


def test_labels_of_several_classes_are_noughts_and_ones():
    rules = Rules(classes=("x", "y", "z"), label_separator=";", needs_label=True)
    rows = judged(["ACGT"] * 4, rules, label=["x;z", "y", "x;w", None])
    assert [row["targets"] for row in rows[:2]] == [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    assert [row["reason"] for row in rows] == [None, None, "unknown_label", "missing_label"]


NUMBERS = ["1.5", "-2", "+3e2", ".5", "1e400", "nan", "NaN", "inf", "", "NA", ".", "1,5", "0x10", "1_0", "\u0663"]
BAD = {"1e400", "nan", "NaN", "inf", "1,5", "0x10", "1_0", "\u0663"}


@pytest.mark.parametrize("needed", [True, False])
def test_targets_as_text(needed):
    rules = Rules(num_targets=1, needs_targets=needed)
    rows = judged(["ACGT"] * len(NUMBERS), rules, target_0=NUMBERS)
    for text, row in zip(NUMBERS, rows, strict=True):
        empty = text in ("", "NA", ".")
        assert row["reason"] == ("bad_target" if text in BAD else "missing_target" if empty and needed else None), text
        assert row["target"] == (None if empty or text in BAD else float(text))
        assert row["targets"] is None


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.int64(), pa.bool_()])
def test_targets_as_numbers(kind):
    values = pa.array([1, 0, None], pa.int64()).cast(kind)
    rows = judged(["ACGT"] * 3, Rules(num_targets=1, needs_targets=True), target_0=values)
    assert [row["target"] for row in rows] == [1.0, 0.0, None]
    assert rows[2]["reason"] == "missing_target"


def test_no_nan_is_ever_kept():
    values = np.array([1.0, math.nan, math.inf])
    rows = judged(["ACGT"] * 3, Rules(num_targets=2), target_0=values, target_1=["1", "2", "3"])
    assert [row["reason"] for row in rows] == [None, "bad_target", "bad_target"]
    assert rows[0]["targets"] == [1.0, 1.0]
    assert rows[0]["target"] is None


def test_a_record_that_did_not_parse_keeps_that_reason():
    problems = {1: Problem("malformed_record", "two fields", "a,b")}
    cleaned = clean(raw(["ACGT", None], problems=problems), Rules())
    assert cleaned.table["reason"].to_pylist() == [None, "malformed_record"]
    assert cleaned.sentences == {1: "two fields"}
    assert cleaned.texts == {1: "a,b"}


@given(rows=st.lists(TEXTS, max_size=10), cut=st.integers(0, 10))
def test_a_batch_is_judged_as_its_halves_are(rows, cut):
    cut = min(cut, len(rows))
    whole = clean(raw(rows), Rules()).table
    table = raw(rows).table
    halves = [clean(RawSequences(a, table.slice(a, b - a)), Rules()).table for a, b in ((0, cut), (cut, len(rows)))]
    assert pa.concat_tables(halves).equals(whole)


def test_places_are_whole_numbers_or_nothing():
    rows = judged(["ACGT"] * 4, start=["5", "x", "-1", None], end=["9", "1.5", "", "7"])
    assert [(row["start"], row["end"]) for row in rows] == [(5, 9), (None, None), (None, None), (None, 7)]
