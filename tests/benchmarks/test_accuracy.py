"""The benchmark of accuracy: what it parts, its floors, its table, and the whole of it on a toy set."""

from __future__ import annotations

import gzip
import random
import re

import numpy as np
import pytest
import torch

from benchmarks import accuracy
from benchmarks.accuracy_sets import gue, localization_deeploc, uci_splice, yeast_gpra
from benchmarks.accuracy_sets._bench import Figure, Wanted, all_benches
from benchmarks.accuracy_sets._floors import dna_features, logistic, protein_features, ridge
from benchmarks.accuracy_sets._sequences import Row, SequenceSet, groups_of, split_of
from jobs import _spec
from tests.toys.sequences import motif_rows

torch.set_num_threads(1)


def test_every_set_has_its_recipe_and_it_is_a_spec_of_the_job():
    assert {path.stem for path in accuracy.RECIPES.glob("*.yaml")} == {bench.name for bench in all_benches()}
    for path in accuracy.RECIPES.glob("*.yaml"):
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
    (row, other) = uci_splice.rows(tmp_path)
    assert row == Row("ACGT", "EI", "LOCUS")
    assert other.group == "OTHER"
    for part, text in (("dev", "sequence,label\nACGT,1\n"), ("train", "sequence,label\nACGT,1\nTTTT,0\n")):
        (tmp_path / "gue" / f"tf__0__{part}.csv.gz").write_bytes(gzip.compress(text.encode()))
    assert [(row.sequence, row.part) for row in gue.rows_of("tf__0")(tmp_path)] == [("ACGT", "test"), ("TTTT", "train")]
    native = "sequence,expression,published_prediction,nativeGene\nACGT,1.5,2,YDL\n"
    random_ = "sequence,expression,published_prediction\nTTGA,3,2\n"
    for name, text in (("native", native), ("random", random_)):
        (tmp_path / "yeast-gpra" / f"{name}_defined.train.csv.gz").write_bytes(gzip.compress(text.encode()))
    assert list(yeast_gpra.rows(tmp_path)) == [
        Row("TTGA", "3", "TTGA", panel="random_defined"),
        Row("ACGT", "1.5", "YDL", panel="native_defined"),
    ]


def test_long_proteins_keep_both_ends(tmp_path):
    (tmp_path / "localization-deeploc").mkdir()
    long = "M" * 499 + "KL" + "C" * 499
    files = {
        "val_set": f">P1 Nucleus-U\n{long[:600]}\n{long[600:]}\n>P2 Cytoplasm-Nucleus-S\nMK\n",
        "test_set": f">P3 Cell.membrane-M\n{long}K\n",
    }
    for name, text in files.items():
        (tmp_path / "localization-deeploc" / f"{name}.fasta.gz").write_bytes(gzip.compress(text.encode()))
    assert list(localization_deeploc.rows(tmp_path)) == [
        Row(long, "Nucleus", long, "train"),
        Row("M" * 499 + "K" + "C" * 499 + "K", "Cell.membrane", f"{long}K", "test"),
    ]


def test_the_floors_learn_what_is_linear_in_letters():
    draw = random.Random(0)
    texts = ["".join(draw.choice("ACGT") for _ in range(20)) for _ in range(400)]
    tested_N = np.arange(400) % 4 == 0
    count_N = np.array([text.count("A") + 0.1 * draw.random() for text in texts])
    made_NK = ridge(dna_features)(texts, count_N, tested_N)
    assert np.corrcoef(made_NK[:, 0], count_N[tested_N])[0, 1] > 0.9
    label_N = np.where(count_N > np.median(count_N), "many", "few")
    made_NK = logistic(dna_features)(texts, label_N, tested_N)
    assert np.mean((made_NK[:, 1] > 0.5) == (label_N[tested_N] == "many")) > 0.8


def test_features_of_proteins_hold_shares_of_the_whole_and_of_both_ends():
    x_NF = protein_features(["M" * 60 + "K" * 60, "MK", "MKX"])
    assert x_NF[0, :2].tolist() == [10.0, 10.0]  # K and M, in the order of the alphabet
    assert x_NF[0, -4:].tolist() == [0.0, 20.0, 20.0, 0.0]  # the first 50 letters, then the last 50
    np.testing.assert_array_equal(x_NF[1], x_NF[2])


def test_a_line_of_the_table_says_what_was_wanted_and_whether_it_is_met():
    wanted = Wanted("0.88 (others)", least=0.904, over_floor=0.01)
    told = Figure("", "auroc", 99, 0.9, 0.88, 0.92, 0.859, wanted).told("tf")
    assert told == (
        "| tf | auroc | 99 | 0.88 (others) | 0.859 | 0.900 (0.880 to 0.920) | 0.904; floor + 0.01 = 0.869 | no; yes |"
    )
    plain = Figure("all", "accuracy", 10, 0.5, None, None, None, Wanted("none")).told("x")
    assert plain == "| x all | accuracy | 10 | none | none | 0.500 | any | yes |"


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
    toy = SequenceSet(rows, "auroc", {"": Wanted("0.5 (a coin)", least=0.1)})
    monkeypatch.setattr(accuracy, "RECIPES", tmp_path)
    monkeypatch.setattr(accuracy, "all_benches", lambda: [toy.bench("toy", rounds=2), toy.bench("big", larger=True)])
    accuracy.main(["--data", str(tmp_path), "--work", str(tmp_path / "work")])
    first = capsys.readouterr().out
    tested = sum(split_of(group, "", number) == "test" for group in groups_of(rows(tmp_path)) for number in range(2))
    figure = r"[01]\.\d{3}"
    wanted = rf"\| toy \| auroc \| {tested} \| 0.5 \(a coin\) \| {figure} \| {figure} \({figure} to {figure}\) \| 0.100"
    assert re.fullmatch(rf"{wanted} \| yes \| \d+\.\d min \|", first.splitlines()[-1])
    accuracy.main(["--data", str(tmp_path), "--work", str(tmp_path / "work")])
    assert capsys.readouterr().out == first
    with pytest.raises(SystemExit):
        accuracy.main(["--data", str(tmp_path), "--only", "none"])
    assert "no set named 'none'; known: toy, big" in capsys.readouterr().err
