"""Ingest of pairs and of labels of positions: what does not fit is rejected with its reason, and counted."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml

from schemas import states, tables
from schemas.jobs.train_model import TrainModelSpec
from tests.toys.variant_runs import ROOT, assert_one_sentence, replisome_here

PAIRS = """target,protein,drug,smiles,affinity
t0,MKVLA,d0,CC(=O)O,5.5
t0,MKVLA,d1,c1ccccc1,7.0
t1,MKWWAA,d0,CC(=O)O,6.0
t1,MKWWAA,d1,c1ccccc1,
t1,MKWWAA,d2,,6.0
t1,MKWWAA,d3,CC(,6.0
t1,MKWWAA,d4,CXC,6.0
t9,MK1,d0,CC(=O)O,6.0
t0,MKVLA,d0x,CC(=O)O,5.5
t0,MKVLA,d0y,CC(=O)O,9.5
t1,MKWWAA,d5,CCCCCCCCCCCC,6.0
"""
PAGE = ROOT / "docs" / "pairs-and-positions.md"
PAIR_WORDS = ("--sequence", "protein", "--id", "target", "--second", "smiles", "--second-id", "drug")


def ingested(folder: Path, text: str, *words: str, code: int = 0):
    (folder / "in.csv").write_text(text)
    words = (*words, "--alphabet", "protein", "--max-rejects", "1", "--progress", "none")
    done = replisome_here("ingest-sequences", str(folder / "in.csv"), "-o", str(folder / "out"), *words)
    assert done.returncode == code, done.stderr
    return pq.read_table(folder / "out" / "data") if code == 0 else done


def test_every_pair_is_kept_or_rejected_with_a_reason(tmp_path):
    found = ingested(tmp_path, PAIRS, *PAIR_WORDS, "--targets", "affinity", "--second-max-length", "10")
    assert found.schema.remove_metadata().equals(tables.SEQUENCES.remove_metadata())
    rows = found.to_pylist()
    assert [row["reason"] for row in rows] == [
        *(None, None, None, "missing_target", "missing_second", "invalid_second", "invalid_second"),
        *("invalid_letters", "exact_duplicate", "conflicting_duplicate", "second_too_long"),
    ]
    assert [(row["id"], row["second_id"], row["second"], row["target"]) for row in rows[:3]] == [
        ("t0", "d0", "CC(=O)O", 5.5),
        ("t0", "d1", "c1ccccc1", 7.0),
        ("t1", "d0", "CC(=O)O", 6.0),
    ]
    assert all(row["second"] is None and row["sequence"] is None for row in rows[3:])
    told = {row["record"]: row["sentence"] for row in pq.read_table(tmp_path / "out" / "rejects").to_pylist()}
    assert told[5] == "'CC(' is no SMILES: a branch is opened and not closed"
    assert told[6] == "'CXC' is no SMILES: 'XC' at letter 2 begins no atom, bond, branch or ring closure"
    shown = {row["record"]: row["text"] for row in pq.read_table(tmp_path / "out" / "rejects").to_pylist()}
    assert "CC(" in shown[5]
    assert "CXC" in shown[6]  # the member that it was rejected for
    assert told[8] == "the pair is that of record 0"
    assert told[9] == "the pair is that of record 0, with another label or target"
    assert {row["reason"] for row in rows if row["reason"]} <= set(states.INGEST_REASONS)
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert (card["pairs"]["num_first"], card["pairs"]["num_second"]) == (2, 2)
    assert card["pairs"]["second_length"]["letters"] == 7 + 8 + 7
    assert "different other members" in (tmp_path / "out" / "report.html").read_text()
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["facts"]["second_alphabet"] == "smiles"


def test_three_tables_are_one_join_away(tmp_path, monkeypatch):
    """The lines that docs/pairs-and-positions.md gives for affinities, drugs and targets in files of their own."""
    blocks = dict(re.findall(r"```(python|bash|yaml)\n(.*?)```", PAGE.read_text(), flags=re.DOTALL))
    monkeypatch.chdir(tmp_path)
    affinities = pl.DataFrame({"drug": [1, 1, 2], "target": [1, 2, 2], "pkd": [5.0, 6.0, 7.5]})
    affinities.write_csv("affinities.csv")
    pl.DataFrame({"drug": [1, 2], "smiles": ["CCO", "CCN"]}).write_csv("drugs.csv")
    pl.DataFrame({"target": [1, 2], "sequence": ["MKV", "MKW"]}).write_csv("targets.csv")
    subprocess.run([sys.executable, "-c", blocks["python"]], check=True)
    for line in blocks["bash"].splitlines()[:1]:
        done = replisome_here(*shlex.split(line)[1:], "--progress", "none")
        assert done.returncode == 0, done.stderr
    found = pl.from_arrow(pq.read_table("set/data"))
    assert sorted(found.select("id", "second_id", "sequence", "second", "target").rows()) == [
        ("1", "1", "MKV", "CCO", 5.0),
        ("2", "1", "MKW", "CCO", 6.0),
        ("2", "2", "MKW", "CCN", 7.5),
    ]
    assert TrainModelSpec.model_validate(yaml.safe_load(blocks["yaml"])).model.name == "pair_network"


@pytest.mark.parametrize(("alphabet", "kept"), [("dna", ["ACGN", None]), ("protein", ["ACGN", "MKV"])])
def test_the_other_member_may_be_letters(tmp_path, alphabet, kept):
    text = "id,sequence,mate\na,MKV,acgn\nb,MKV,MKV\n"
    words = ("--second", "mate", "--second-alphabet", alphabet, "--max-ambiguous", "0.5")
    rows = ingested(tmp_path, text, *words).to_pylist()
    assert [row["second"] for row in rows] == kept
    assert [row["reason"] for row in rows] == [None, None if kept[1] else "invalid_second"]


def test_a_column_named_second_makes_no_pair_unless_asked_for(tmp_path):
    rows = ingested(tmp_path, "id,sequence,second,position_labels\na,MKV,3,x\n").to_pylist()
    assert (rows[0]["second"], rows[0]["position_labels"], rows[0]["state"]) == (None, None, "kept")


POSITIONS = """id,sequence,states
a,MKVLA,CHHE.
b,MKWLA,CHH--
c,MKWLAA,CHH
d,MKWLAC,CHHXEE
e,MKWLAD,......
f,MKWLAE,
g,MKWLA,CHHEE
h,MKW*,CHH
"""


def test_every_position_has_a_label_or_the_record_a_reason(tmp_path):
    words = ("--position-labels", "states", "--position-classes", "HEC", "--position-unknown", "-")
    rows = ingested(tmp_path, POSITIONS, *words).to_pylist()
    assert [(row["position_labels"], row["reason"]) for row in rows] == [
        ("CHHE.", None),
        ("CHH..", None),
        (None, "position_labels_length"),
        (None, "unknown_label"),
        (None, "missing_label"),
        (None, "missing_label"),
        (None, "conflicting_duplicate"),
        ("CHH", None),
    ]
    told = {row["record"]: row["sentence"] for row in pq.read_table(tmp_path / "out" / "rejects").to_pylist()}
    assert told[2] == "3 position labels for 6 letters"
    assert told[3] == "the label of letter 4 is 'X', none of . C E H"
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["position_labels"] == {".": 3, "C": 3, "E": 1, "H": 6}
    assert "Labels of positions" in (tmp_path / "out" / "report.html").read_text()


def test_position_labels_join_by_id_and_may_be_absent(tmp_path):
    (tmp_path / "in.fa").write_text(">a\nMKV\n>b\nMKW\n")
    (tmp_path / "labels.tsv").write_text("id\tss\na\tHHC\n")
    done = replisome_here(
        *("ingest-sequences", str(tmp_path / "in.fa"), "-o", str(tmp_path / "out"), "--alphabet", "protein"),
        *("-l", str(tmp_path / "labels.tsv"), "--position-labels", "ss", "--allow-missing", "--progress", "none"),
    )
    assert done.returncode == 0, done.stderr
    assert pq.read_table(tmp_path / "out" / "data")["position_labels"].to_pylist() == ["HHC", None]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--second", "smile"), "there is no column 'smile'; it has 'id', 'sequence', 'smiles'"),
        (("--second-id", "drug"), "the other member of a pair is named, yet not its column: give second"),
        (("--position-classes", "HEC"), "letters of position labels are declared, and no column of them"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(tmp_path, words, sentence):
    assert_one_sentence(ingested(tmp_path, "id,sequence,smiles\na,MKV,CC\n", *words, code=2), 2, sentence)
