"""Labels joined by id: as polars joins them; what cannot be joined is told."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError
from engine.ingest.labels import LabelTable
from engine.io._sequence_columns import Layout
from tests.engine.ingest.test_cleaning import raw


@given(
    names=st.lists(st.sampled_from("abcdef"), min_size=1, max_size=8),
    known=st.dictionaries(st.sampled_from("abcdefg"), st.sampled_from(["x", "y"]), min_size=1),
    parquet=st.booleans(),
)
def test_labels_are_those_of_a_left_join(tmp_path_factory, names, known, parquet):
    path = tmp_path_factory.mktemp("l") / "labels"
    table = pl.DataFrame({"id": list(known), "label": list(known.values()), "y": list(range(len(known)))})
    table.write_parquet(path) if parquet else table.write_csv(path)
    labels = LabelTable.load(str(path), Layout(targets=("y",)))
    found = labels.join(raw(["ACGT"] * len(names), id=names)).table
    wanted = pl.DataFrame({"id": names}).join(table, on="id", how="left", maintain_order="left")
    assert found["label"].to_pylist() == wanted["label"].to_list()
    shown = [None if value is None else int(value) for value in found["target_0"].to_pylist()]
    assert shown == wanted["y"].to_list()
    assert labels.has_label


@pytest.mark.parametrize(
    ("text", "layout", "sentence"),
    [
        ("id,label\na,x\na,y\n", Layout(), "the id 'a' stands twice"),
        ("id,label\na,x\n,y\n", Layout(), r"row 1 \(counted from 0\) has no id"),
        ("id,label\na,x\nb\n", Layout(), r"row 1 \(counted from 0\): the line has 1 fields where the table has 2"),
        ("name,label\na,x\n", Layout(), "there is no column 'id'; it has 'name', 'label'"),
        ("id,class\na,x\n", Layout(label="label"), "there is no column 'label'; it has 'id', 'class'"),
        ("id,label\n", Layout(), "there is no record in it"),
        ("", Layout(), "the file is empty"),
    ],
)
def test_tables_that_cannot_be_joined(tmp_path, text, layout, sentence):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=sentence):
        LabelTable.load(str(path), layout)


def test_the_table_goes_before_what_the_record_says(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("id,label\na,new\n")
    found = LabelTable.load(str(path), Layout()).join(raw(["ACGT"] * 2, id=["a", "b"], label=["old", "kept"]))
    assert found.table["label"].to_pylist() == ["new", "kept"]
