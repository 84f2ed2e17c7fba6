"""Intervals draw what the split file never parts, whichever job makes them; older split files are read as they were."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from engine.errors import InputError
from engine.io.parquet import footer_metadata, write_table
from engine.training._sequence_set import open_set
from engine.training._split_table import SplitTable
from engine.training.splits import read_split
from tests.toys.sequence_runs import ingested, sequence_model
from tests.toys.sequences import motif_rows
from tests.toys.variant_runs import assert_one_sentence, replisome_here

torch.set_num_threads(1)

NUM = 120
HALF = ("--test", "0.5", "--validation", "0.25")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """24 families of five equal rows but for one letter, each on one of 12 contigs."""
    place = tmp_path_factory.mktemp("drawn")
    rows = motif_rows(24, low=60, high=60)
    many = []
    for record in range(NUM):
        one = rows[record % 24]
        text = one["sequence"][:-1] + "ACGTA"[record // 24]
        many.append({**one, "id": f"r{record}", "sequence": text, "group": f"g{record % 24}"})
    ingested(place, many)
    sequence_model(place / "class")
    for method, words in (
        ("group", ()),
        ("similarity", ("--clusters", "minhash")),
        ("random", ()),
    ):
        done = replisome_here(
            *("split-sequences", str(place / "set"), "-o", str(place / f"{method}.parquet"), "--method", method),
            *HALF,
            "--no-leak-check",
            *words,
        )
        assert done.returncode == 0, done.stderr
    return place


def evaluated(folder: Path, output: Path, splits: str, *more: str) -> dict:
    done = replisome_here(
        *("evaluate-model", str(folder / "set"), "--model", str(folder / "class"), "-o", str(output), "-j", "1"),
        *("--splits", str(folder / splits), "--bootstrap", "200", "--progress", "none", *more),
    )
    assert done.returncode == 0, done.stderr
    return json.loads((output / "metrics.json").read_text())


def of_version_1(folder: Path, name: str) -> Path:
    """The same split as replisome wrote it before it kept units."""
    facts = footer_metadata(folder / f"{name}.parquet")
    kept = {key: value for key, value in facts.items() if not key.startswith("replisome.")}
    table = pq.read_table(folder / f"{name}.parquet").drop_columns(["unit"]).replace_schema_metadata(None)
    path = folder / f"{name}-1.parquet"
    write_table(table, path, schema_name="splits", version=1, metadata=kept)
    return path


def intervals(found: dict) -> dict:
    return {one["metric"]: (one["value"], one["low"], one["high"]) for one in found["figures"] if one["scope"] == "all"}


def test_an_evaluation_draws_what_the_split_file_never_parts(folder, tmp_path):
    by_split = evaluated(folder, tmp_path / "split", "group.parquet")
    by_column = evaluated(folder, tmp_path / "column", "group.parquet", "--cluster", "group")
    singly = evaluated(folder, tmp_path / "rows", "group.parquet", "--cluster", "rows")
    assert intervals(by_split) == intervals(by_column)
    assert (by_split["drawn"], by_column["drawn"]) == (
        "12 whole groups, as the split file keeps them",
        "12 whole values of group",
    )
    assert "Beware" not in (tmp_path / "column" / "model_card.md").read_text()
    other = evaluated(folder, tmp_path / "other", "group.parquet", "--cluster", "id")
    caution = "the intervals draw whole values of id, while the split file keeps groups together"
    told = (other["drawn"], caution in (tmp_path / "other" / "model_card.md").read_text())
    assert told == ("60 whole values of id", True)
    value, low, high = intervals(by_split)["accuracy"]
    single = intervals(singly)["accuracy"]
    assert (single[0], singly["drawn"]) == (value, "single sequences")
    assert high - low > single[2] - single[1]
    for name in ("report.html", "model_card.md"):
        assert "12 whole groups, as the split file keeps them" in (tmp_path / "split" / name).read_text()


def test_clusters_of_like_sequences_are_drawn_and_are_those_that_were_not_parted(folder, tmp_path):
    found = evaluated(folder, tmp_path / "out", "similarity.parquet")
    table = pq.read_table(folder / "similarity.parquet").to_pylist()
    units = {one["unit"] for one in table if one["split"] == "test"}
    assert found["drawn"] == f"{len(units)} whole clusters of like sequences, as the split file keeps them"
    assert units.isdisjoint({one["unit"] for one in table if one["split"] != "test"})
    assert all(one["unit"] % 24 == one["record"] % 24 and one["unit"] <= one["record"] for one in table)
    random = evaluated(folder, tmp_path / "random", "random.parquet")
    assert random["drawn"] == "single sequences"
    assert pq.read_table(folder / "random.parquet")["unit"].null_count == NUM


def test_a_split_file_of_version_1_is_read_as_before(folder, tmp_path):
    for name, drawn in (("group", "12 whole values of group"), ("similarity", "single sequences")):
        old = of_version_1(folder, name)
        found = evaluated(folder, tmp_path / name, old.name)
        assert found["drawn"] == drawn
        data = open_set(str(folder / "set"))
        table = SplitTable.load(str(old), data)
        new = SplitTable.load(str(folder / f"{name}.parquet"), data)
        assert np.array_equal(table.names, new.names)
        assert (table.units is None, new.units is None) == (True, False)
        assert read_split(str(old), data)["split"].to_pylist() == new.names.tolist()


def test_what_the_file_does_not_tell_is_said(folder, tmp_path):
    words = ("evaluate-model", str(folder / "set"), "--model", str(folder / "class"), "-o", str(tmp_path / "out"))
    done = replisome_here(*words, "--splits", str(folder / "random.parquet"), "--cluster", "split")
    assert_one_sentence(done, 2, r"does not say which rows stay together \(method random\); make it anew by group")
    assert_one_sentence(replisome_here(*words, "--cluster", "split"), 2, r"--cluster split.* need")


@pytest.mark.parametrize("version", [0, 3])
def test_another_version_is_refused_by_every_reader(folder, tmp_path, version):
    path = tmp_path / "splits.parquet"
    table = pq.read_table(folder / "group.parquet").replace_schema_metadata(None)
    write_table(table, path, schema_name="splits", version=version)
    data = open_set(str(folder / "set"))
    for read in (SplitTable.load, read_split):
        with pytest.raises(
            InputError, match=f"it is a split file of version {version}, read are 1 and 2; make it anew"
        ):
            read(str(path), data)
    write_table(pa.table({"record": [0]}), path, schema_name="predictions", version=1)
    for read in (SplitTable.load, read_split):
        with pytest.raises(InputError, match="it is no split file; give one that split-sequences made"):
            read(str(path), data)


def test_training_and_cross_validation_draw_clusters_too(folder, tmp_path):
    from engine.training import _metrics

    path = folder / "folds.parquet"
    done = replisome_here(
        *("split-sequences", str(folder / "set"), "-o", str(path), "--method", "similarity", "--clusters", "minhash"),
        *("--folds", "3", "--test", "0", "--no-leak-check"),
    )
    assert done.returncode == 0, done.stderr
    spec = {
        "job": "cross_validate",
        "data": {"path": str(folder / "set"), "splits": str(path)},
        "task": {"name": "sequence_classification"},
        "model": {"name": "sequence_cnn", "params": {"channels": 4}},
        "training": {"epochs": 1, "batch_size": 32},
        "output": str(tmp_path / "out"),
    }
    (tmp_path / "spec.yaml").write_text(json.dumps(spec))
    done = replisome_here("run", str(tmp_path / "spec.yaml"), "--progress", "none")
    assert done.returncode == 0, done.stderr
    whole = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (whole["drawn"], whole["num_drawn"], whole["samples"]) == ("groups", 24, NUM)
    assert "Intervals of all rows draw 24 groups." in (tmp_path / "out" / "report.html").read_text()
    each = json.loads((tmp_path / "out" / "folds" / "0" / "metrics.json").read_text())["figures"]["validation"]
    assert (each["drawn"], each["num_drawn"]) == ("groups", 8)
    assert _metrics.drawn_facts(None, 7) == {"drawn": "rows", "num_drawn": 7}
