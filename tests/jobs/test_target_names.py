"""Names of targets: from the columns of a set to the model's channels, predictions, tracks and figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from engine.models._info import open_model
from tests.toys.sequences import motif_rows, write_splits
from tests.toys.variant_runs import assert_one_sentence, replisome_here

torch.set_num_threads(1)
NUM = 60
SPEC = """
job: train_model
data: {path: FOLDER/set, splits: FOLDER/splits.parquet, empty_classes: allow}
task: {name: TASK, params: PARAMS}
model: {name: sequence_cnn, params: {channels: 4, blocks: 1}}
training: {epochs: 1, batch_size: 16}
output: FOLDER/OUT
"""


def ingested(folder: Path, targets: str, rows: list[dict[str, str]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows).write_csv(folder / "rows.csv")
    given = ("ingest-sequences", str(folder / "rows.csv"), "--targets", targets, "-o", str(folder / "set"))
    done = replisome_here(*given, "--progress", "none")
    assert done.returncode == 0, done.stderr
    return folder / "set"


def rows_of(**more: str) -> list[dict[str, str]]:
    found = motif_rows(NUM)
    share = [one["sequence"].count("G") / len(one["sequence"]) for one in found]
    return [
        {
            "id": one["id"],
            "sequence": one["sequence"],
            "liver": f"{number}",
            "heart muscle": f"{1 - number}",
            "A/T": f"{one['targets'][0]:g}",
            "other": f"{one['targets'][1]:g}",
            **more,
        }
        for one, number in zip(found, share, strict=True)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("names")
    for name, targets in (("numbers", "liver,heart muscle"), ("one", "liver"), ("labels", "A/T,other")):
        ingested(place / name, targets, rows_of())
        kept = [{"record": record, "id": one["id"]} for record, one in enumerate(motif_rows(NUM))]
        write_splits(place / name / "splits.parquet", kept, lambda record: ("train", "validation", "test")[record % 3])
    return place


def trained(folder: Path, task: str, params: str = "{}", out: str = "out"):
    text = SPEC.replace("FOLDER", str(folder)).replace("TASK", task).replace("PARAMS", params).replace("OUT", out)
    (folder / f"{out}.yaml").write_text(text)
    return replisome_here("run", str(folder / f"{out}.yaml"), "--progress", "none")


def predicted(folder: Path, out: str = "out") -> pl.DataFrame:
    given = ("predict", str(folder / "set"), "-m", str(folder / out / "model"), "-o", str(folder / f"{out}-told"))
    done = replisome_here(*given, "--progress", "none", "-j", "1")
    assert done.returncode == 0, done.stderr
    return pl.read_parquet(folder / f"{out}-told" / "data" / "*" / "*.parquet")


def test_columns_of_the_set_name_columns_of_predictions_figures_and_tracks(folder, tmp_path):
    place = folder / "numbers"
    done = trained(place, "sequence_regression", "{several: true}")
    assert done.returncode == 0, done.stderr
    assert "samples; means over 2 targets, evaluate-model tells each): pearson" in done.stdout
    assert open_model(place / "out" / "model").heads["value"].channels == ("liver", "heart muscle")
    assert {"value_liver", "value_heart muscle"} <= set(predicted(place).columns)
    given = ("evaluate-model", str(place / "set"), "-m", str(place / "out" / "model"), "--bootstrap", "0")
    assert replisome_here(*given, "-o", str(tmp_path / "figures"), "--progress", "none", "-j", "1").returncode == 0
    found = json.loads((tmp_path / "figures" / "metrics.json").read_text())["figures"]
    assert {one["name"] for one in found if one["scope"] == "class"} == {"liver", "heart muscle"}
    assert "Predicted against measured heart muscle" in (tmp_path / "figures" / "report.html").read_text()
    bases = np.random.default_rng(0).choice(list("ACGT"), 300)
    (tmp_path / "ref.fa").write_text(f">c1\n{''.join(bases)}\n")
    given = ("predict-track", "--reference", str(tmp_path / "ref.fa"), "-m", str(place / "out" / "model"))
    done = replisome_here(*given, "--window", "60", "--stride", "20", "-o", str(tmp_path / "tracks"))
    assert done.returncode == 0, done.stderr
    files = {path.name for path in (tmp_path / "tracks").glob("*.bw")}
    assert "value_liver_plus.bw" in files
    assert "value_heart%20muscle_minus.bw" in files


def test_one_target_and_labels_keep_their_names(folder):
    done = trained(folder / "one", "sequence_regression")
    assert done.returncode == 0, done.stderr
    assert "value_liver" in predicted(folder / "one").columns
    done = trained(folder / "labels", "multi_label")
    assert done.returncode == 0, done.stderr
    frame = predicted(folder / "labels")
    assert {"labels_A/T", "labels_other", "labels_predicted"} <= set(frame.columns)
    assert {name for row in frame["labels_predicted"] for name in row} <= {"A/T", "other"}


def test_names_of_the_spec_win(folder):
    done = trained(folder / "numbers", "sequence_regression", "{several: true, names: [x, y]}", out="own")
    assert done.returncode == 0, done.stderr
    model = folder / "numbers" / "own" / "model"
    assert open_model(model).heads["value"].channels == ("x", "y")
    given = ("evaluate-model", str(folder / "numbers" / "set"), "-m", str(model), "--bootstrap", "0")
    done = replisome_here(*given, "-o", str(folder / "own-figures"), "--progress", "plain", "-j", "1")
    assert done.returncode == 0, done.stderr
    assert "the set calls liver, heart muscle what the head calls x, y: they may differ" in done.stderr


def test_targets_in_another_order_are_not_judged(folder, tmp_path):
    place = folder / "numbers"
    if not (place / "out").exists():
        assert trained(place, "sequence_regression", "{several: true}").returncode == 0
    ingested(tmp_path, "heart muscle,liver", rows_of())
    given = ("evaluate-model", str(tmp_path / "set"), "-m", str(place / "out" / "model"), "-o", str(tmp_path / "out"))
    told = "the set's targets are heart muscle, liver, and the head value tells liver, heart muscle; ingest them in"
    assert_one_sentence(replisome_here(*given, "--progress", "none"), 2, told)


def test_fractions_are_no_labels(folder, tmp_path):
    """Neither training nor evaluation takes them."""
    place = folder / "numbers"
    told = "record 0 has 0.*for label 'liver', and labels are 0 or 1; make it 0 or 1 .*or train sequence_regression"
    assert_one_sentence(trained(place, "multi_label", out="soft"), 2, told)
    if not (folder / "labels" / "out").exists():
        assert trained(folder / "labels", "multi_label").returncode == 0
    model = folder / "labels" / "out" / "model"
    given = ("evaluate-model", str(place / "set"), "-m", str(model), "-o", str(tmp_path / "out"), "--max-rejects", "1")
    assert_one_sentence(replisome_here(*given, "--progress", "none"), 2, "no row is judged")
    rejects = pl.read_parquet(tmp_path / "out" / "rejects" / "*" / "*.parquet")
    assert set(rejects["reason"]) == {"bad_target"}
