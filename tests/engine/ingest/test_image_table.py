"""The table of labels: by file or by well, everything text, and wrong tables told in one sentence."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import InputError
from engine.ingest._image_table import ImageTable, TableColumns
from engine.io.image_sources import FILE, SITE, ImageSource

SOURCES = [ImageSource(name, FILE, files=(name,)) for name in ("a.png", "b/c.png", "d.png")]


def load(tmp_path, text: str, **columns) -> ImageTable:
    path = tmp_path / "t.csv"
    path.write_text(text)
    return ImageTable.load(str(path), TableColumns(**columns))


@pytest.mark.parametrize("mark", [",", "\t", ";"])
def test_by_file(tmp_path, mark):
    table = load(tmp_path, "file,label,group,mask\na.png,01,g,m/a.png\nb/c.png,,,\nz.png,02,,\n".replace(",", mark))
    found, left_out = table.join(SOURCES)
    assert [(one.id, one.label, one.group, one.mask) for one in found] == [
        ("a.png", "01", "g", "m/a.png"),
        ("b/c.png", None, None, None),
        ("z.png", "02", None, None),
    ]
    assert left_out == 1
    assert found[2].problem.reason == "missing_file"
    assert (table.has_label, table.has_mask) == (True, True)


def test_columns_may_be_named_and_parquet_be_read(tmp_path):
    pq.write_table(pa.table({"path": ["a.png", "d.png"], "stage": [3, None]}), tmp_path / "t.parquet")
    table = ImageTable.load(str(tmp_path / "t.parquet"), TableColumns(file="path", label="stage"))
    found, left_out = table.join(SOURCES)
    assert [(one.id, one.label) for one in found] == [("a.png", "3"), ("d.png", None)]
    assert left_out == 1


def test_by_well(tmp_path):
    sites = [ImageSource(f"{p}/{w}", SITE, plate=p, well=w) for p in "pq" for w in ("A01", "B02")]
    found, left_out = load(tmp_path, "well,label\nA01,drug\n").join(sites)
    assert [one.label for one in found] == ["drug", None, "drug", None]
    assert left_out == 0
    found, _ = load(tmp_path, "plate,well,label\np,A01,x\nq,A01,y\n").join(sites)
    assert [one.label for one in found] == ["x", None, "y", None]


@pytest.mark.parametrize(
    ("text", "columns", "sentence"),
    [
        ("name,label\na,b\n", {}, "no column 'file' or 'well'; it has name, label"),
        ("file,label\na,b\n", {"label": "klass"}, "no column 'klass'"),
        ("file,label\na,b\n", {"file": "path"}, "no column 'path'"),
        ("file,label\na,b\na,c\n", {}, "row 1 .counted from 0. names 'a' a second time"),
        ("file,label\n,b\n", {}, "row 0 .counted from 0. names nothing"),
        ("file,label\n../a,b\n", {}, "leads out of its folder"),
        ("file,mask\na,/etc/passwd\n", {}, "leads out of its folder"),
        ("file,label\na\n", {}, "does not parse"),
        ("", {}, "does not parse"),
    ],
)
def test_wrong_tables(tmp_path, text, columns, sentence):
    with pytest.raises(InputError, match=sentence):
        load(tmp_path, text, **columns)
