"""The image sets of the accuracy benchmark, the whole of it on toys."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from benchmarks import accuracy
from benchmarks.accuracy_sets._bench import Bench, Wanted
from benchmarks.accuracy_sets._images import Classes, Objects, colour_floor
from benchmarks.accuracy_sets._sequences import split_of
from engine.imaging.matching import match_counts, object_f1
from engine.imaging.otsu import otsu_objects
from tests.toys.image_sets import classed, dots

torch.set_num_threads(1)

GROUPS = [f"w{number}" for number in range(24)]
RECIPE = """
job: train_model
data: {path: set, splits: splits.parquet, empty_classes: allow}
task: TASK
encoder: {name: pixels, params: {channels: CHANNELS}}
model: {name: MODEL, params: {channels: 4, levels: 2}}
training: {epochs: 1, batch_size: 8}
output: out
"""


class ToyNuclei(Objects):
    wanted = Wanted("none", least=0.0)

    def __init__(self, data: Path, work: Path) -> None:
        super().__init__(data / "nuclei.zarr", work, GROUPS, masks={"array": "label"})


class ToyCells(Classes):
    wanted = Wanted("none", least=2.0)

    def __init__(self, data: Path, work: Path) -> None:
        super().__init__(data / "cells.zarr", work, GROUPS, input={"label_array": "label"})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    pairs = [dots(number) for number in range(24)]
    arrays = {
        "nuclei": (np.stack([one for one, _ in pairs]), np.stack([mask for _, mask in pairs])),
        "cells": (np.stack([classed(number) for number in range(24)]), np.arange(24, dtype=np.uint8) % 2),
    }
    for name, (image, label) in arrays.items():
        group = zarr.open_group(tmp_path / f"{name}.zarr", mode="w")
        for one, values in (("image", image), ("label", label)):
            group.create_array(one, data=values)
    return tmp_path


def test_both_kinds_give_a_line_of_the_table(data, monkeypatch, capsys):
    for name, task, model, channels in (
        ("nuclei", "{name: image_segmentation, params: {boundary_px: 1}}", "u_net", "1"),
        ("cells", "{name: image_classification}", "image_cnn", "3"),
    ):
        text = RECIPE.replace("TASK", task).replace("MODEL", model).replace("CHANNELS", channels)
        (data / f"{name}.yaml").write_text(text)
    benches = [Bench("nuclei", ToyNuclei), Bench("cells", ToyCells, rounds=2)]
    monkeypatch.setattr(accuracy, "RECIPES", data)
    monkeypatch.setattr(accuracy, "all_benches", lambda: benches)
    accuracy.main(["--data", str(data), "--work", str(data / "work")])
    nuclei, cells = capsys.readouterr().out.splitlines()[-2:]
    tested = [number for number, group in enumerate(GROUPS) if split_of(group, "", 0) == "test"]
    pairs = [dots(number) for number in tested]
    counts = sum(match_counts(mask, otsu_objects(pixels), (0.7,)) for pixels, mask in pairs)
    floor = f"{object_f1(counts)[0]:.3f}"
    assert re.match(rf"\| nuclei \| object F1, IoU 0.7 \| {len(tested)} \| none \| {floor} \| [01]\.\d\d\d", nuclei)
    tested += [number for number, group in enumerate(GROUPS) if split_of(group, "", 1) == "test"]
    assert re.match(rf"\| cells \| accuracy \| {len(tested)} \| none \| 1.000 \| [01]\.\d\d\d", cells)
    assert "| 2.000 | no |" in cells


def test_the_floor_sees_colours():
    pixels = np.stack([classed(number).transpose(2, 0, 1) for number in range(20)])
    tested = np.arange(20) < 6
    assert colour_floor(pixels, np.arange(20) % 2, tested).tolist() == [0, 1, 0, 1, 0, 1]
