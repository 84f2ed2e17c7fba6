"""The job train_model: as a user runs it, killed and gone on with, by one worker and by two."""

from __future__ import annotations

import json
import math
import shutil
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.numpy import load_file

from engine.io.parquet import read_table, write_table
from engine.models._folder import load_members
from engine.models._info import open_model
from engine.training import loop
from tests.engine.training.events import scalars
from tests.toys.sequences import motif_rows, row, usual_split, write_set, write_splits
from tests.toys.variant_runs import assert_one_sentence, replisome, replisome_here

torch.set_num_threads(1)

SPEC = """
job: train_model
data: {path: FOLDER/set, splits: FOLDER/splits.parquet}
task: {name: sequence_classification}
model: {name: sequence_cnn, params: {channels: 8, blocks: 1, stem_width: 5, dropout: 0.2, pool: attention}}
augment: {reverse_complement: true, jitter_bp: 2}
training: {epochs: 3, batch_size: 20, learning_rate: 0.003, window: 24}
execution: {checkpoint_steps: 2}
name: toy
licence: Apache-2.0
note: Made by code.
output: out
"""
STEPS = 12  # 72 training rows in steps of 20, three times


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("data")
    return str(make(folder, motif_rows(120)))


def make(folder: Path, rows, split_of=usual_split, **changes: str) -> Path:
    write_set(folder / "set", rows)
    write_splits(folder / "splits.parquet", rows, split_of)
    text = SPEC.replace("FOLDER", str(folder))
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "spec.yaml").write_text(text)
    return folder / "spec.yaml"


def words(spec, output, *settings: str) -> list[str]:
    more = [word for one in (f"output={output}", *settings) for word in ("--set", one)]
    return ["run", str(spec), *more, "--progress", "none"]


@pytest.fixture(scope="module")
def calm(spec, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("calm") / "out"
    done = replisome_here(*words(spec, output))
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def calm_by_two(spec, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("two") / "out"
    done = replisome_here(*words(spec, output, "execution.workers=2"))
    assert done.returncode == 0, done.stderr
    return output


def losses(output: Path) -> dict[int, float]:
    """Loss of every step, of a run in several pieces too."""
    return dict(scalars(output / "tensorboard" / "member-00")["loss/step"])


def same_end(one: Path, other: Path) -> None:
    assert losses(one) == losses(other)
    assert json.loads((one / "metrics.json").read_text()) == json.loads((other / "metrics.json").read_text())
    assert open_model(one / "model").digest == open_model(other / "model").digest
    assert (one / "manifest.json").read_bytes() == (other / "manifest.json").read_bytes()


def test_the_result_is_a_model_folder_with_its_figures(calm):
    info = open_model(calm / "model")
    assert (info.name, info.licence, info.architecture, info.members) == ("toy", "Apache-2.0", "sequence_cnn", 1)
    assert info.heads["class"].level == "sequence"
    assert info.heads["class"].symmetry == "symmetric"
    (member,) = load_members(info)
    values = member(torch.eye(4)[None, :, :])["class"]
    assert values.shape == (1, 2)
    assert values.sum().item() == pytest.approx(1)
    figures = json.loads((calm / "metrics.json").read_text())["figures"]
    for split, samples in (("validation", 24), ("test", 24)):
        assert figures[split]["samples"] == samples
        assert np.sum(figures[split]["confusion"]) == samples
        for name in ("accuracy", "f1_macro", "mcc", "auroc", "auprc", "calibration_error"):
            one = figures[split]["metrics"][name]
            assert one["low"] <= one["value"] <= one["high"], name
    table = read_table(calm / "outputs.parquet")
    truth = [record % 2 for record in table["record"].to_pylist()]
    assert table["split"].to_pylist() == ["validation"] * 24 + ["test"] * 24
    assert table["target"].to_pylist() == [[float(one)] for one in truth]
    is_right = np.argmax(table["values"].to_pylist(), axis=1) == truth
    assert is_right[24:].mean() == figures["test"]["metrics"]["accuracy"]["value"]
    assert info.metrics["test"] == figures["test"]["metrics"]
    key = json.loads((calm / "run.json").read_text())["key"]
    assert info.training_data == [{"sequences": key["data"], "splits": key["splits"], "fold": None}]
    card = (calm / "model" / "README.md").read_text()
    for words_ in ("Research use only", "Made by code.", "| test | 24 | accuracy ", "learning_rate 0.003"):
        assert words_ in card


def test_curves_and_pictures_are_there(calm):
    found = scalars(calm / "tensorboard" / "member-00")
    assert [step for step, _ in found["loss/step"]] == list(range(STEPS))
    assert len(found["validation/auroc"]) == len(found["loss/train"]) == 3
    assert {"validation/confusion", "validation/precision_recall"} <= set(found)


def test_every_byte_is_sealed_and_checkpoints_are_gone(calm, spec, tmp_path):
    assert not (calm / "checkpoints").exists()
    done = replisome_here("verify", str(calm))
    assert done.returncode == 0, done.stdout
    whole = tmp_path / "out"
    shutil.copytree(calm, whole)
    for name in ("model/member-00.safetensors", "model/README.md", "outputs.parquet", "metrics.json", "run.log"):
        data = (whole / name).read_bytes()
        (whole / name).write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
        done = replisome_here("verify", str(whole))
        assert done.returncode == 2
        assert name in done.stdout
        (whole / name).write_bytes(data)


def test_a_finished_run_is_left_alone(spec, calm):
    before = {path: path.stat().st_mtime_ns for path in (calm / "model").iterdir()}
    done = replisome_here(*words(spec, calm))
    assert "finished before, nothing to do" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in (calm / "model").iterdir()} == before


def test_another_run_is_refused_and_named(spec, calm):
    done = replisome_here(*words(spec, calm, "training.seed=1", "augment.jitter_bp=0"))
    assert_one_sentence(done, 2, "this folder holds a run that differs in augmentation.jitter_bp, recipe.seed; choose")
    assert replisome_here(*words(spec, calm, "execution.micro_batch=7")).returncode == 0


def test_force_trains_anew(spec, tmp_path):
    for _ in range(2):
        assert replisome_here(*words(spec, tmp_path / "out", "training.epochs=1"), "--force").returncode == 0
    assert len(losses(tmp_path / "out")) == STEPS // 3
    assert replisome_here("verify", str(tmp_path / "out")).returncode == 0
    assert [path.name for path in (tmp_path / "out" / "former").iterdir()] == ["manifest-001.json"]


def test_the_verb_takes_the_same_words(spec, calm, tmp_path):
    folder = Path(spec).parent
    said = [
        *("train-model", str(folder / "set"), "--splits", str(folder / "splits.parquet")),
        *("--task", "sequence_classification", "--reverse-complement", "--epochs", "3", "--batch-size", "20"),
        *("--learning-rate", "0.003", "--name", "toy", "-o", str(tmp_path / "out"), "--progress", "none"),
        *("--set", "model.params={channels: 8, blocks: 1, stem_width: 5, dropout: 0.2, pool: attention}"),
        *("--set", "augment.jitter_bp=2", "--set", "training.window=24"),
    ]
    done = replisome_here(*said)
    assert done.returncode == 0, done.stderr
    assert re_lines(done.stdout)[0].endswith("1 networks")
    assert losses(tmp_path / "out") == losses(calm)


def re_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


CLASS_FIGURES = {"accuracy", "f1_macro", "mcc", "auroc", "auprc", "calibration_error"}


@pytest.mark.parametrize(
    "case",
    [
        ("sequence_regression", "recurrent", "value", {"pearson", "spearman", "mse"}),
        ("multi_label", "transformer", "labels", CLASS_FIGURES),
    ],
)
def test_other_tasks_and_networks(spec, tmp_path, case):
    task, model, head, figures = case
    params = "model.params={channels: 8, stem_width: 5, pool: mean+max}"
    done = replisome_here(
        *words(spec, tmp_path / "out", f"task.name={task}", f"model.name={model}", params, "training.epochs=1")
    )
    assert done.returncode == 0, done.stderr
    info = open_model(tmp_path / "out" / "model")
    assert list(info.heads) == [head]
    assert set(info.metrics["test"]) == figures
    (member,) = load_members(info)
    assert member(torch.eye(4)[None, :, :])[head].shape == (1, 2 if task == "multi_label" else 1)


@pytest.mark.parametrize("fault", ["kill@train-step#7", "kill@checkpoint#4", "kill@before-manifest"])
def test_a_killed_driver_loses_nothing(spec, calm, tmp_path, fault):
    killed = replisome(*words(spec, tmp_path / "out"), fault=fault)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "out" / "manifest.json").exists()
    again = replisome_here(*words(spec, tmp_path / "out"))
    assert again.returncode == 0, again.stderr
    same_end(tmp_path / "out", calm)


def test_two_workers_train_to_the_losses_of_one(calm, calm_by_two):
    """Sums in another order: rounding, and what training makes of it over twelve steps."""
    one, two = losses(calm), losses(calm_by_two)
    assert list(one) == list(two) == list(range(STEPS))
    assert one != two
    np.testing.assert_allclose(list(two.values()), list(one.values()), rtol=1e-4)
    ends = [json.loads((path / "metrics.json").read_text())["figures"]["test"]["loss"] for path in (calm, calm_by_two)]
    assert ends[1] == pytest.approx(ends[0], rel=1e-4)


def test_a_killed_worker_is_replaced_and_nothing_shows(spec, calm_by_two, tmp_path, monkeypatch):
    monkeypatch.setenv("REPLISOME_FAULT_ONCE", str(tmp_path / "once"))
    done = replisome_here(*words(spec, tmp_path / "out", "execution.workers=2"), fault="kill@train-step#7")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "once").exists(), "the fault did not strike"
    same_end(tmp_path / "out", calm_by_two)


def test_a_driver_killed_beside_two_workers_loses_nothing(spec, calm_by_two, tmp_path):
    said = words(spec, tmp_path / "out", "execution.workers=2")
    killed = replisome(*said, fault="kill-parent@train-step#7", once=tmp_path / "once")
    assert killed.returncode == -signal.SIGKILL
    again = replisome_here(*said)
    assert again.returncode == 0, again.stderr
    same_end(tmp_path / "out", calm_by_two)


def test_several_networks_are_one_model(spec, tmp_path):
    done = replisome_here(*words(spec, tmp_path / "out", "training.members=2", "training.epochs=1"))
    assert done.returncode == 0, done.stderr
    info = open_model(tmp_path / "out" / "model")
    assert info.members == 2
    assert len({sha for _, _, sha in info.files}) == 2
    assert sorted(path.name for path in (tmp_path / "out" / "tensorboard").iterdir()) == ["member-00", "member-01"]


def test_a_loss_that_is_no_number_ends_with_a_sentence_and_the_batch(spec, tmp_path):
    wild = ("training.learning_rate=1.0e+20", "training.clip_norm=0", "training.warmup=0")
    done = replisome_here(*words(spec, tmp_path / "out", *wild))
    assert_one_sentence(done, 2, r"epoch 0, step \d gave .*; its batch is saved in stopped/; lower learning_rate")
    facts = json.loads((tmp_path / "out" / "stopped" / "batch.json").read_text())
    assert load_file(tmp_path / "out" / "stopped" / "batch.safetensors")["records"].tolist() == facts["records"]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("... can't allocate memory: you tried ...")]
)
def test_out_of_memory_names_the_batch_and_the_setting(spec, calm, tmp_path, monkeypatch, error):
    forward, calls = loop.forward, []

    def full(runner, tensors, **more):
        calls.append(len(tensors[0]))
        if len(calls) == 6:
            raise error
        return forward(runner, tensors, **more)

    monkeypatch.setattr(loop, "forward", full)
    done = replisome_here(*words(spec, tmp_path / "out"))
    assert_one_sentence(
        done,
        4,
        r"out of memory on cpu at epoch 1, step 0, with 20 sequences of up to \d\d letters \(records [\d, ]+ and 15"
        r" more\); lower execution.micro_batch \(now 256\) and run again",
    )
    assert replisome_here(*words(spec, tmp_path / "out", "execution.micro_batch=8")).returncode == 0
    np.testing.assert_allclose(list(losses(tmp_path / "out").values()), list(losses(calm).values()), rtol=1e-4)


def changed(record: int, **values):
    rows = motif_rows(120)
    rows[record] = {**rows[record], **values}
    return rows


@pytest.mark.parametrize(
    ("rows", "task", "sentence"),
    [
        (changed(7, label="promoter"), "sequence_classification", r"part-.*: record 7 has label 'promoter', the class"),
        (
            changed(8, label=None),
            "sequence_classification",
            r"part-.*: record 8 has label None, the classes are none",
        ),
        (
            changed(6, target=math.nan),
            "sequence_regression",
            r"part-.*: record 6 has target \[nan\], wanted are finite",
        ),
        (changed(8, target=None), "sequence_regression", r"part-.*: record 8 has target None, wanted are 1 numbers"),
        (changed(9, targets=[0.0]), "multi_label", r"part-.*: record 9 has target \[0.0\], wanted are 2 numbers"),
    ],
)
def test_a_target_that_cannot_be_is_named_before_a_step(tmp_path, rows, task, sentence):
    """Of a validation, test or training row alike."""
    path = make(tmp_path, rows)
    done = replisome_here(*words(path, tmp_path / "out", f"task.name={task}"))
    assert_one_sentence(done, 2, sentence)
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_a_class_that_a_fold_lacks_is_named_or_allowed(tmp_path):
    def split_of(record):
        return ("train", 0 if record % 2 and record < 40 else 1)

    path = make(tmp_path, motif_rows(120), split_of, **{"splits.parquet}": "splits.parquet, fold: 0}"})
    said = words(path, tmp_path / "out", "training.epochs=1")
    done = replisome_here(*said)
    assert_one_sentence(done, 2, r"splits.parquet: class 'none' has no row in the split 'validation' \(fold 0\); strat")
    done = replisome_here(*said, "--set", "data.empty_classes=allow")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["figures"]["validation"]["samples"] == 20


def test_a_shard_of_an_older_schema_is_named(tmp_path):
    path = make(tmp_path, motif_rows(120))
    part = sorted((tmp_path / "set" / "data" / "000").iterdir())[1]
    write_table(pa.Table.from_pylist([row(0, "ACGT")]), part, schema_name="sequences", version=0)
    done = replisome_here(*words(path, tmp_path / "out"))
    assert_one_sentence(done, 2, r"part-000001.parquet: holds a table of schema 'sequences' version '?0'?, wanted is")


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("task.name=sequence_classificaton", "no task named .*; did you mean 'sequence_classification'"),
        ("model.name=sequence_cn", "no architecture named .*; did you mean 'sequence_cnn'"),
        ("model.name=splice_grammar", "'splice_grammar' is not trained on sequences by this task"),
        ("model.params.outputs=[a]", "'outputs' follows from the data and the task"),
        ("training.monitor=auc", "no figure named 'auc'; known: loss, accuracy"),
        ("training.epochs=0", "epochs"),
        ("data.fold=3", "no row of the set is in the split 'validation'; it has no folds: leave the fold out"),
        ("execution.feed=ray-data", "execution.feed ray-data needs execution.executor ray"),
        ("output=s3://bucket/x", "training writes to a local folder"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(spec, tmp_path, setting, sentence):
    assert_one_sentence(replisome_here(*words(spec, tmp_path / "out", setting)), 2, sentence)
