"""The job cross_validate: every record judged once, mean and spread, killed and gone on with."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.io.parquet import read_table
from engine.models._info import open_model
from tests.toys.sequences import motif_rows, row, write_set, write_splits
from tests.toys.variant_runs import assert_one_sentence, replisome, replisome_here

torch.set_num_threads(1)

SPEC = """
job: cross_validate
data: {path: FOLDER/set, splits: FOLDER/splits.parquet}
task: {name: sequence_classification}
model: {name: sequence_cnn, params: {channels: 4, blocks: 1, stem_width: 5}}
training: {epochs: 1, batch_size: 20, learning_rate: 0.003}
output: out
"""
COUNT, REJECTED = 60, 5


def fold_of(record: int):
    """Pairs of records: a fifth is tested, the rest lies in two folds."""
    return "test" if record // 2 % 5 == 4 else ("train", record // 2 % 2)


def make(folder: Path, split_of=fold_of, rows=None) -> Path:
    rows = rows or motif_rows(COUNT, low=24, high=24)
    rows[REJECTED] = {**row(REJECTED, None), "state": "rejected", "reason": "empty"}
    write_set(folder / "set", rows)
    write_splits(folder / "splits.parquet", [one for one in rows if one["state"] == "kept"], split_of)
    (folder / "spec.yaml").write_text(SPEC.replace("FOLDER", str(folder)))
    return folder / "spec.yaml"


def words(spec, output, *settings: str) -> list[str]:
    more = [word for one in (f"output={output}", *settings) for word in ("--set", one)]
    return ["run", str(spec), *more, "--progress", "none"]


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def calm(spec, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("calm") / "out"
    done = replisome_here(*words(spec, output))
    assert done.returncode == 0, done.stderr
    assert "2 folds, 47 held-out rows" in done.stdout
    return output


def figures(output: Path):
    return json.loads((output / "metrics.json").read_text())


def test_every_kept_record_of_the_folds_is_judged_once(calm):
    table = read_table(calm / "out_of_fold.parquet", sealed=True)
    wanted = [record for record in range(COUNT) if fold_of(record) != "test" and record != REJECTED]
    assert table["record"].to_pylist() == wanted
    assert table["fold"].to_pylist() == [fold_of(record)[1] for record in wanted]
    assert table["target"].to_pylist() == [[float(record % 2)] for record in wanted]
    np.testing.assert_allclose(np.sum(table["values"].to_pylist(), axis=1), 1)


def test_mean_and_spread_are_those_of_the_folds(calm):
    found = figures(calm)
    children = [figures(calm / "folds" / str(fold))["figures"]["validation"] for fold in (0, 1)]
    for name in ("accuracy", "auroc", "mcc"):
        values = [child["metrics"][name]["value"] for child in children]
        one = found["figures"][name]
        assert one["mean"] == pytest.approx(sum(values) / 2)
        assert one["sd"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
        assert (one["minimum"], one["maximum"]) == (min(values), max(values))
    table = read_table(calm / "out_of_fold.parquet")
    is_right = np.argmax(table["values"].to_pylist(), axis=1) == np.array(table["target"].to_pylist())[:, 0]
    assert found["pooled"]["accuracy"]["value"] == pytest.approx(is_right.mean())
    assert f'data-key="figures.accuracy.mean">{found["figures"]["accuracy"]["mean"]:.3f}<' in page(calm)
    assert "the figures flatter" in page(calm)


def page(output: Path) -> str:
    return (output / "report.html").read_text()


def test_verify_sees_every_byte_of_the_folds_too(calm, tmp_path):
    done = replisome_here("verify", str(calm))
    assert (done.returncode, "belongs to no run" in done.stdout) == (0, False), done.stdout
    whole = tmp_path / "out"
    shutil.copytree(calm, whole)
    for name in ("folds/1/model/README.md", "folds/0/run.log", "out_of_fold.parquet", "report.html"):
        data = (whole / name).read_bytes()
        (whole / name).write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
        done = replisome_here("verify", str(whole))
        assert done.returncode == 2
        assert name in done.stdout
        (whole / name).write_bytes(data)


def test_a_finished_run_is_left_alone_and_another_refused(spec, calm):
    assert "finished before, nothing to do" in replisome_here(*words(spec, calm)).stdout
    done = replisome_here(*words(spec, calm, "training.seed=1"))
    assert_one_sentence(done, 2, "this folder holds a run that differs in recipe.seed; choose")


def test_a_killed_driver_goes_on_and_leaves_finished_folds_alone(spec, calm, tmp_path):
    output = tmp_path / "out"
    killed = replisome(*words(spec, output), fault="kill@train-step#3")  # the first step of the second fold
    assert killed.returncode == -signal.SIGKILL
    first = {path: path.stat().st_mtime_ns for path in (output / "folds" / "0").rglob("*") if path.is_file()}
    assert (output / "folds" / "0" / "manifest.json") in first
    done = replisome_here(*words(spec, output))
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in first} == first
    for name in ("manifest.json", "files.parquet", "out_of_fold.parquet", "metrics.json"):
        assert (output / name).read_bytes() == (calm / name).read_bytes(), name


def test_force_trains_every_fold_anew(spec, calm, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(calm, output)
    done = replisome_here(*words(spec, output, "training.seed=1"), "--force")
    assert done.returncode == 0, done.stderr
    assert figures(output) != figures(calm)
    assert replisome_here("verify", str(output)).returncode == 0
    assert [path.name for path in (output / "former").iterdir()] == ["manifest-001.json"]


def test_nested_folds_choose_on_inner_ones_and_judge_on_the_fold(tmp_path):
    folder = tmp_path / "data"
    rows = motif_rows(COUNT, low=24, high=24)
    write_set(folder / "set", rows)
    split = ["split-sequences", str(folder / "set"), "--folds", "2", "--inner-folds", "2", "--stratify"]
    done = replisome_here(*split, "-o", str(folder / "splits.parquet"))
    assert done.returncode == 0, done.stderr
    (folder / "spec.yaml").write_text(SPEC.replace("FOLDER", str(folder)))
    output = tmp_path / "out"
    done = replisome_here(*words(folder / "spec.yaml", output, "data.inner_fold=1"))
    assert done.returncode == 0, done.stderr
    splits = read_table(folder / "splits.parquet").to_pylist()
    table = read_table(output / "out_of_fold.parquet")
    assert table["record"].to_pylist() == [one["record"] for one in splits if one["split"] != "test"]
    child = read_table(output / "folds" / "0" / "outputs.parquet").to_pylist()
    inner = {one["record"] for one in splits if one["inner_fold_0"] == 1}
    assert {one["record"] for one in child if one["split"] == "validation"} == inner
    assert {one["record"] for one in child if one["split"] == "test"} == {
        one["record"] for one in splits if one["fold"] == 0
    }
    assert open_model(output / "folds" / "0" / "model").training_data[0]["inner_fold"] == 1
    assert "flatter" not in page(output)
    assert figures(output)["held_out"] == "test"


def one_class_in_a_fold(record: int):
    return ("train", record % 2)


def rare(record: int):
    return ("train", 0 if record == 6 else 1 + record // 2 % 2)


@pytest.mark.parametrize(
    ("split_of", "settings", "sentence"),
    [
        (one_class_in_a_fold, (), r"fold 0: the training rows hold 1 class in the column 'label'"),
        (rare, (), r"splits.parquet: class 'site' has no row in the split 'validation' \(fold 0\); stratify"),
        (lambda record: ("train", 0), (), "the split file has 1 folds, wanted are 2 or more; make it with"),
        (lambda record: "train" if record == 3 else fold_of(record), (), "record 3 is not tested, and in no fold"),
        (fold_of, ("data.inner_fold=0",), "the split file has no inner folds of fold 0; make it with --inner-folds"),
        (fold_of, ("data.fold=0",), "unknown key 'fold'"),
        (fold_of, ("output=s3://bucket/x",), "training writes to a local folder"),
    ],
)
def test_what_cannot_be_is_one_sentence_before_a_step(tmp_path, split_of, settings, sentence):
    path = make(tmp_path, split_of)
    assert_one_sentence(replisome_here(*words(path, tmp_path / "out", *settings)), 2, sentence)
    assert not (tmp_path / "out" / "folds").exists()
