"""The job train_model on image sets: as a user runs it, stopped and gone on with, by one worker and by two."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.io.parquet import read_table
from engine.models._folder import load_members
from engine.models._info import open_model
from tests.engine.training.events import scalars
from tests.toys.image_sets import classed, classed_set, dot_set, dots, split_of
from tests.toys.variant_runs import assert_one_sentence, replisome_here

torch.set_num_threads(1)

SEGMENT = """
job: train_model
data: {path: FOLDER/set, splits: FOLDER/splits.parquet}
task: {name: image_segmentation, params: {boundary_px: 1, object_px: 4}}
encoder: {name: pixels, params: {scale: values, low: 200, high: 1000}}
model: {name: u_net, params: {channels: 8, levels: 2, dropout: 0.1}}
augment: {flip: true, turn: true, crop_px: 16, brightness: 0.1}
training: {epochs: 20, batch_size: 4, learning_rate: 0.01, monitor: object_f1_70}
execution: {checkpoint_steps: 2}
name: dots
licence: Apache-2.0
output: out
"""
CLASSIFY = """
job: train_model
data: {path: FOLDER/set, splits: FOLDER/splits.parquet}
task: {name: image_classification}
encoder: {name: pixels, params: {channels: 3}}
model: {name: image_cnn, params: {channels: 4, levels: 2}}
augment: {flip: true, turn: true, shift_px: 2, contrast: 0.1}
training: {epochs: 12, batch_size: 6, learning_rate: 0.01}
output: out
"""


@pytest.fixture(scope="module")
def segment(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dots")
    dot_set(folder, 24, "--images-per-shard", "7")
    split_of(folder, "tttvtx")
    return written(folder, SEGMENT)


@pytest.fixture(scope="module")
def classify(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("classes")
    classed_set(folder)
    split_of(folder, "tttvvx")
    return written(folder, CLASSIFY)


def written(folder: Path, text: str) -> Path:
    (folder / "spec.yaml").write_text(text.replace("FOLDER", str(folder)))
    return folder / "spec.yaml"


def trained(spec: Path, output: Path, *settings: str, fault: str = ""):
    more = [word for one in (f"output={output}", *settings) for word in ("--set", one)]
    return replisome_here("run", str(spec), *more, "--progress", "none", fault=fault)


@pytest.fixture(scope="module")
def calm(segment, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("calm") / "out"
    done = trained(segment, output)
    assert done.returncode == 0, done.stderr
    assert "object_f1_70" in done.stdout
    return output


def losses(output: Path) -> dict[int, float]:
    return dict(scalars(output / "tensorboard" / "member-00")["loss/step"])


def test_objects_are_learned(calm):
    figures = json.loads((calm / "metrics.json").read_text())
    test = figures["figures"]["test"]
    assert test["samples"] == 4
    assert test["metrics"]["object_f1_70"]["value"] > 0.5
    assert test["metrics"]["dice"]["value"] > 0.8
    assert np.sum(test["confusion"]) == 4 * 24 * 24
    assert figures["targets"]["images"] == 16
    info = open_model(calm / "model")
    assert (info.heads["pixel_class"].level, info.architecture) == ("pixel", "u_net")
    assert "16 images" in (calm / "model" / "README.md").read_text()
    (member,) = load_members(info)
    assert member(torch.zeros(1, 1, 9, 11))["pixel_class"].shape == (1, 3, 9, 11)


def test_counts_of_each_image_are_kept(calm):
    table = read_table(calm / "outputs.parquet")
    names = json.loads(table.schema.metadata[b"outputs"])
    kept = np.array(table["values"].to_pylist())
    assert kept.shape == (8, len(names))
    truth = kept[:, names.index("true_objects")]
    assert [[one] for one in truth] == table["target"].to_pylist()
    assert truth.sum() == sum(len(np.unique(dots(n)[1])) - 1 for n in range(24) if "tttvtx"[n % 6] in "vx")


def test_the_curves_show_images(calm):
    shown = scalars(calm / "tensorboard" / "member-00")
    assert {"validation/confusion", "validation/examples"} <= set(shown)


def test_a_stopped_run_goes_on_to_the_same_losses(segment, calm, tmp_path):
    broken = trained(segment, tmp_path / "out", fault="enospc@train-step#7")
    assert broken.returncode != 0
    done = trained(segment, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "out") == losses(calm)
    assert (tmp_path / "out" / "manifest.json").read_bytes() == (calm / "manifest.json").read_bytes()


def test_two_workers_train_to_the_losses_of_one(segment, calm, tmp_path):
    done = trained(segment, tmp_path / "out", "execution.workers=2", "training.epochs=2")
    assert done.returncode == 0, done.stderr
    alone = trained(segment, tmp_path / "alone", "training.epochs=2")
    assert alone.returncode == 0, alone.stderr
    one, two = losses(tmp_path / "alone"), losses(tmp_path / "out")
    assert list(one) == list(two)
    np.testing.assert_allclose(list(one.values()), list(two.values()), rtol=1e-3)


def test_classes_are_learned(classify, tmp_path):
    done = trained(classify, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())["figures"]["test"]
    assert figures["metrics"]["accuracy"]["value"] == 1
    (member,) = load_members(open_model(tmp_path / "out" / "model"))
    pixels = np.stack([classed(number).transpose(2, 0, 1) for number in (40, 41)]).astype(np.float32) / 255
    assert member(torch.from_numpy(pixels))["class"].argmax(dim=1).tolist() == [0, 1]


def test_what_does_not_fit_is_one_sentence(segment, tmp_path):
    done = trained(segment, tmp_path / "out", "augment.crop_px=99")
    told = "a crop of 99 pixels does not fit images of 24 x 24; set it to 24 or less"
    assert_one_sentence(done, 2, told)
