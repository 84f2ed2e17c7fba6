"""Duplicates: what a dictionary over all records finds, in memory or spilled, for any batches."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.ingest import duplicates
from engine.ingest.cleaning import Rules, clean
from engine.ingest.duplicates import DuplicateFinder, Duplicates, write_duplicates
from schemas import tables
from tests.engine.ingest.test_cleaning import raw

ROWS = st.lists(
    st.tuples(st.sampled_from(["A", "C", "AC", "ACGT", "G!", ""]), st.sampled_from(["x", "y", None])), max_size=40
)


def found_by(folder, rows, policy, cuts=()):
    finder = DuplicateFinder(folder, policy)
    bounds = [0, *sorted(cuts), len(rows)]
    for begin, end in itertools.pairwise(bounds):
        some = rows[begin:end]
        labels = [label for _, label in some]
        finder.add(clean(raw([text for text, _ in some], first=begin, label=labels), Rules()))
    return finder.table()


def said_again(rows, policy):
    first, made = {}, []
    for record, (text, label) in enumerate(rows):
        if not text or "!" in text:
            continue
        key = (text, label) if policy == "row" else text
        if key in first:
            made.append((record, first[key][0], None, first[key][1] != label))
        else:
            first[key] = (record, label)
    return made


@pytest.mark.parametrize("policy", ["sequence", "row"])
@pytest.mark.parametrize("held", [1, 1 << 20])
@given(rows=ROWS, cuts=st.lists(st.integers(0, 40), max_size=4))
def test_repeats_are_those_of_a_dictionary(tmp_path_factory, policy, held, rows, cuts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_HELD", held)
        folder = tmp_path_factory.mktemp("d")
        table = found_by(folder, rows, policy, [min(cut, len(rows)) for cut in cuts])
    assert table.schema.equals(tables.DUPLICATES)
    assert [tuple(row.values()) for row in table.to_pylist()] == said_again(rows, policy)
    assert (held > 1) == (not list(folder.iterdir())) or not said_again(rows, policy)


@given(rows=ROWS, first=st.integers(0, 50), num=st.integers(0, 20), group=st.integers(1, 5))
def test_a_shard_finds_its_own(tmp_path_factory, rows, first, num, group):
    folder = tmp_path_factory.mktemp("d")
    table = found_by(folder / "aside", rows, "sequence")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates.parquet, "ROWS_PER_GROUP", group)
        write_duplicates(table, folder / "d.parquet")
    among = Duplicates(folder / "d.parquet").among(first, num)
    assert among.to_pylist() == [row for row in table.to_pylist() if first <= row["record"] < first + num]


def test_targets_that_differ_are_a_conflict(tmp_path):
    finder = DuplicateFinder(tmp_path / "aside", "sequence")
    finder.add(clean(raw(["ACGT"] * 3, target_0=["1", "1.0", "2"]), Rules(num_targets=1)))
    assert finder.table()["conflict"].to_pylist() == [False, True]
