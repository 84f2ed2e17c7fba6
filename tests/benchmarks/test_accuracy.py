"""The benchmark of accuracy: what it parts, its floor, and the whole of it on a toy set."""

from __future__ import annotations

import gzip
import random
import re

import numpy as np
import pytest
import torch

from benchmarks import accuracy
from benchmarks.accuracy import BENCHES, RECIPES, Bench, Row, groups_of, split_of
from jobs import _spec
from tests.toys.sequences import motif_rows

torch.set_num_threads(1)


def test_every_set_has_its_recipe_and_it_is_a_spec_of_the_job():
    assert {path.stem for path in RECIPES.glob("*.yaml")} == {bench.name for bench in BENCHES}
    for path in RECIPES.glob("*.yaml"):
        job, _ = _spec.build(_spec.read_file(path))
        assert job == "train_model"


def test_rows_that_share_a_group_or_a_sequence_stay_together():
    rows = [
        Row("AC", "x", "g1"),
        Row("GG", "x", "g2"),
        Row("AC", "y", "g3"),
        Row("TT", "y", "g3"),
        Row("CC", "y", "g4"),
    ]
    one, two, three, four, five = groups_of(rows)
    assert one == three == four
    assert len({one, two, five}) == 3


def test_each_group_is_tested_once_and_never_validated_and_tested_at_once():
    names = [[split_of(f"group {one}", "", number) for number in range(5)] for one in range(500)]
    assert all(splits.count("test") == 1 for splits in names)
    shares = [sum(splits[0] == split for splits in names) / 500 for split in ("train", "validation", "test")]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.06)
    assert {split_of(f"group {one}", "train", 0) for one in range(50)} == {"train", "validation"}
    assert split_of("group 0", "test", 0) == "test"


def test_the_readers_of_the_sets(tmp_path):
    for folder in ("uci-splice", "gue", "yeast-gpra"):
        (tmp_path / folder).mkdir()
    (tmp_path / "uci-splice" / "splice.train.data").write_text("EI,  LOCUS-DONOR-3,    ACGT\nN,OTHER-NEG-1,   AAAA\n")
    (row, other) = accuracy.uci_splice(tmp_path)
    assert row == Row("ACGT", "EI", "LOCUS")
    assert other.group == "OTHER"
    for part, text in (("dev", "sequence,label\nACGT,1\n"), ("train", "sequence,label\nACGT,1\nTTTT,0\n")):
        (tmp_path / "gue" / f"tf__0__{part}.csv.gz").write_bytes(gzip.compress(text.encode()))
    assert [(row.sequence, row.part) for row in accuracy.gue("tf__0")(tmp_path)] == [
        ("ACGT", "test"),
        ("TTTT", "train"),
    ]
    native = "sequence,expression,published_prediction,nativeGene\nACGT,1.5,2,YDL\n"
    random_ = "sequence,expression,published_prediction\nTTGA,3,2\n"
    for name, text in (("native", native), ("random", random_)):
        (tmp_path / "yeast-gpra" / f"{name}_defined.train.csv.gz").write_bytes(gzip.compress(text.encode()))
    assert list(accuracy.yeast_defined(tmp_path)) == [
        Row("TTGA", "3", "TTGA", panel="random_defined"),
        Row("ACGT", "1.5", "YDL", panel="native_defined"),
    ]


def test_the_floor_is_ridge_regression():
    draw = random.Random(0)
    rows = []
    for number in range(400):
        text = "".join(draw.choice("ACGT") for _ in range(20))
        rows.append(Row(text, str(text.count("A") + 0.1 * draw.random()), str(number)))
    bench = Bench("x", lambda data: rows, "pearson", {"": ""})
    floor = accuracy.floor_of(bench, rows, 0)
    tested = [number for number, group in enumerate(groups_of(rows)) if split_of(group, "", 0) == "test"]
    assert sorted(floor) == tested
    truth = [float(rows[number].truth) for number in tested]
    assert np.corrcoef([floor[number][0] for number in tested], truth)[0, 1] > 0.9


def test_the_whole_of_it_on_a_toy_set(tmp_path, monkeypatch, capsys):
    def rows(data):
        return [Row(one["sequence"], one["label"], one["id"]) for one in motif_rows(120)]

    recipe = """
    job: train_model
    data: {path: set, splits: splits.parquet}
    task: {name: sequence_classification}
    model: {params: {channels: 8, blocks: 0, pool: max}}
    training: {epochs: 2, batch_size: 16}
    output: out
    """
    (tmp_path / "toy.yaml").write_text(recipe)
    monkeypatch.setattr(accuracy, "RECIPES", tmp_path)
    monkeypatch.setattr(accuracy, "BENCHES", (Bench("toy", rows, "auroc", {"": "0.5 (a coin)"}, 2),))
    accuracy.main(["--data", str(tmp_path), "--work", str(tmp_path / "work")])
    first = capsys.readouterr().out
    tested = sum(split_of(group, "", number) == "test" for group in groups_of(rows(tmp_path)) for number in range(2))
    wanted = (
        rf"\| toy \| auroc \| {tested} \| 0.5 \(a coin\) \| 0\.\d{{3}} \| 0\.\d{{3}} \(0\.\d{{3}} to \d\.\d{{3}}\) \|"
    )
    assert re.fullmatch(wanted, first.splitlines()[-1])
    accuracy.main(["--data", str(tmp_path), "--work", str(tmp_path / "work")])
    assert capsys.readouterr().out == first
