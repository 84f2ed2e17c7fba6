"""The job predict_images: a row for every image, masks and objects that others read, nothing damaged taken for data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch
import zarr

from engine import registry
from engine.imaging.instances import Growing, objects_of
from engine.imaging.matching import match_counts, object_f1
from engine.models._folder import ModelCard, save_model_folder
from engine.models._info import open_model
from engine.training import _judge_images
from engine.training._image_set import ImageReader, open_image_set
from tests.toys.image_sets import classed, dot_set, dots, ingested
from tests.toys.pictures import save
from tests.toys.runs import assert_same_results
from tests.toys.variant_runs import assert_one_sentence, replisome, replisome_here

torch.set_num_threads(1)

SCALE = {"channels": 1, "scale": "values", "low": 200.0, "high": 1000.0}


def model(folder: Path, name: str, *, encoder: dict, extra: dict, members: int = 1, **params) -> Path:
    """Seeded random weights."""
    cls = registry.component("models", name)
    values = {"activation": "softmax", "in_channels": encoder["channels"], "channels": 4, "levels": 2, **params}
    made = []
    for seed in range(members):
        torch.manual_seed(seed)
        made.append(cls(registry.build_params(cls, values, where="test")).eval())
        if name == "u_net":
            _bright_is_inside(made[-1])
    told = ModelCard("toy", "1", "Apache-2.0", "# A toy", {"name": "pixels", "params": encoder}, extra=extra)
    save_model_folder(folder, made, architecture=name, card=told)
    return folder


def _bright_is_inside(network) -> None:
    """A network of one level whose first convolution looks at the pixel alone."""
    with torch.no_grad():
        for weights in network.parameters():
            weights.zero_()
        layers = network.down[0].layers
        for place in (0, 3):
            layers[place].weight[0, 0, 1, 1] = 1.0
            layers[place].bias[1] = 0.5
        for place in (1, 4):
            layers[place].weight.fill_(1.0)
        network.final.weight[1, 0] = 8.0
        network.final.weight[0, 1] = 8.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Eleven images, the fifth of one value and so rejected by the ingest."""
    folder = tmp_path_factory.mktemp("predict")
    save(folder / "in" / "04.tif", np.full((24, 24), 7, np.uint16))
    for number in (0, 1, 2, 3, 5, 6, 7, 8, 9, 10):
        save(folder / "in" / f"{number:02d}.tif", dots(number)[0])
    ingested(folder, "--images-per-shard", "4")
    shares = {"background": 0.8, "inside": 0.1, "boundary": 0.1}
    facts = {"pixel_shares": shares, "images": 1, "objects": 3}
    extra = {"task": ["image_segmentation", {"object_px": 3}], "images": {"dtype": "uint16"}, "targets": facts}
    outputs = {"outputs": ("background", "inside", "boundary"), "head": "pixel_class"}
    model(folder / "model", "u_net", encoder=SCALE, extra=extra, **{**outputs, "levels": 1})
    return folder


def words(folder: Path, output: Path, *more: str, given: str = "set", net: str = "model") -> list[str]:
    named = ["predict-images", str(folder / given), "--model", str(folder / net), "-o", str(output)]
    return [*named, "--images-per-shard", "3", "--progress", "none", *more]


@pytest.fixture(scope="module")
def calm(folder, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("calm") / "out"
    done = replisome_here(*words(folder, output, "-j", "1"))
    assert done.returncode == 0, done.stderr
    assert "11 records; rows: 10 scored, 1 not applicable, 0 rejected" in done.stdout
    return output


def table(output: Path, of: str = "data") -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in sorted((output / of).rglob("*.parquet"))])


def test_masks_are_what_the_network_says_and_zarr_reads_them(folder, calm):
    masks = zarr.open_group(calm / "masks.zarr", mode="r")["0"]
    assert (masks.shape, masks.dtype) == ((11, 24, 24), np.uint32)
    rows = table(calm)
    assert rows["record"].to_list() == list(range(11))
    assert rows["state"].to_list() == ["scored"] * 4 + ["not_applicable"] + ["scored"] * 6
    assert rows["num_objects"].to_list() == [masks[n].max() if n != 4 else None for n in range(11)]
    truth = [dots(number)[1] > 0 for number in range(11) if number != 4]
    # Bright pixels are inside.
    assert [
        ((masks[n] > 0) == one).mean() > 0.95 for n, one in zip([0, 1, 2, 3, 5, 6, 7, 8, 9, 10], truth, strict=True)
    ]
    assert sum(rows["num_objects"].drop_nulls()) > 10
    assert not masks[4].any()


def test_each_image_alone_through_the_network(folder, calm):
    from engine.models._folder import load_members

    (member,) = load_members(open_model(folder / "model"))
    masks = zarr.open_group(calm / "masks.zarr", mode="r")["0"]
    for number in (0, 7):
        x = (torch.from_numpy(dots(number)[0].astype(np.float32)) - 200) / 800
        with torch.inference_mode():
            values = member(x[None, None])["pixel_class"][0].numpy()
        np.testing.assert_array_equal(masks[number], objects_of(values, Growing(object_px=3)))


def test_a_batch_that_memory_does_not_hold_is_halved(folder, calm, tmp_path, monkeypatch):
    from engine.training import _predict_images

    ran = _predict_images._BatchScorer._run_members

    def scarce(self, pixels: np.ndarray, most: int) -> np.ndarray:
        if len(pixels) > most:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return ran(self, pixels)

    monkeypatch.setattr(_predict_images._BatchScorer, "_run_members", lambda *given: scarce(*given, 1))
    done = replisome_here(*words(folder, tmp_path / "out", "-j", "1"))
    assert done.returncode == 0, done.stderr
    assert table(tmp_path / "out").equals(table(calm))
    notes = json.loads((tmp_path / "out" / "report.json").read_text())["provenance"]["notes"]
    assert notes == {"halved_batches": 6}
    monkeypatch.setattr(_predict_images._BatchScorer, "_run_members", lambda *given: scarce(*given, 0))
    done = replisome_here(*words(folder, tmp_path / "none", "-j", "1"))
    assert_one_sentence(done, 4, "one image of 1 x 24 x 24 pixels does not fit into memory")


def test_objects_have_a_row_each(folder, calm):
    objects, rows = table(calm, "objects"), table(calm)
    masks = zarr.open_group(calm / "masks.zarr", mode="r")["0"]
    assert len(objects) == rows["num_objects"].sum()
    for one in objects.sample(6, seed=1).iter_rows(named=True):
        inside = masks[one["record"]] == one["object"]
        pixels = dots(int(Path(one["id"]).stem))[0]
        assert one["area_px"] == inside.sum()
        assert one["intensity_mean"] == [pytest.approx(pixels[inside].mean())]
        assert one["centre_x"] == pytest.approx(np.nonzero(inside)[1].mean())


def test_the_run_verifies_and_is_left_alone(folder, calm):
    assert replisome_here("verify", str(calm)).returncode == 0
    assert "finished before, nothing to do" in replisome_here(*words(folder, calm)).stdout
    facts = json.loads((calm / "manifest.json").read_text())["facts"]
    assert facts["images_digest"] == open_image_set(str(folder / "set")).digest
    page = (calm / "report.html").read_text()
    assert "num_objects" in page


def test_two_workers_give_the_same_bytes(folder, calm, tmp_path):
    done = replisome(*words(folder, tmp_path / "out", "-j", "2"))
    assert done.returncode == 0, done.stderr
    assert_same_results(tmp_path / "out", calm)


def test_a_killed_driver_loses_nothing(folder, calm, tmp_path):
    killed = replisome(*words(folder, tmp_path / "out", "-j", "1"), fault="kill-parent@mid-part#2")
    assert killed.returncode != 0
    done = replisome(*words(folder, tmp_path / "out", "-j", "1"))
    assert done.returncode == 0, done.stderr
    assert_same_results(tmp_path / "out", calm)


def test_a_damaged_chunk_rejects_its_image_or_stops_the_run(folder, tmp_path):
    shutil.copytree(folder / "set", tmp_path / "set")
    data = open_image_set(str(tmp_path / "set"))
    shard = next(path for path in sorted((tmp_path / "set/images.zarr/0/c").rglob("*")) if path.is_file())
    content = bytearray(shard.read_bytes())
    content[10] ^= 1
    shard.write_bytes(content)
    given = ["predict-images", str(tmp_path / "set"), "-m", str(folder / "model"), "--progress", "none", "-j", "1"]
    done = replisome_here(*given, "-o", str(tmp_path / "strict"))
    assert done.returncode == 3
    done = replisome_here(*given, "-o", str(tmp_path / "lenient"), "--max-rejects", "1")
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path / "lenient")
    assert rows.filter(pl.col("reason") == "damaged_image")["record"].to_list() == [0]
    (told,) = table(tmp_path / "lenient", "rejects")["sentence"].to_list()
    assert "images.zarr/0/c/0" in told
    masks = zarr.open_group(tmp_path / "lenient" / "masks.zarr", mode="r")["0"]
    assert not masks[0].any()
    assert (ImageReader(data).images([1])[0, 0] == dots(1)[0]).all()


@pytest.fixture(scope="module")
def classes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("classes")
    for number in range(7):
        save(folder / "in" / "ab"[number % 2] / f"{number}.png", classed(number))
    ingested(folder, "--label-from-folder")
    encoder = {"channels": 3}
    facts = {"classes": {"a": 3, "b": 2, "c": 1}}
    extra = {"task": ["image_classification", {}], "targets": facts}
    model(folder / "model", "image_cnn", encoder=encoder, extra=extra, members=2, outputs=("a", "b", "c"), head="class")
    return folder


def test_classes_become_columns(classes, tmp_path):
    done = replisome_here(*words(classes, tmp_path / "out", "-j", "1"))
    assert done.returncode == 0, done.stderr
    found = table(tmp_path / "out")
    assert found["label"].to_list() == ["a"] * 4 + ["b"] * 3
    assert not (tmp_path / "out" / "masks.zarr").exists()
    from engine.models._folder import load_members

    members = load_members(open_model(classes / "model"))
    pixels = ImageReader(open_image_set(str(classes / "set"))).images(range(7))
    with torch.inference_mode():
        x = torch.from_numpy(pixels.astype(np.float32) / 255)
        expected = np.mean([member(x)["class"].numpy() for member in members], axis=0)
    np.testing.assert_allclose(found.select("class_a", "class_b", "class_c").to_numpy(), expected, atol=2e-6)
    assert found["class_predicted"].to_list() == ["abc"[one] for one in expected.argmax(axis=1)]


def test_what_does_not_go_together_is_one_sentence(folder, classes, tmp_path, monkeypatch):
    def refused(*given: str) -> object:
        return replisome_here("predict-images", *given, "-o", str(tmp_path / "out"), "--progress", "none")

    told = "the images have 3 channels, the model takes 1; give a set of the same channels"
    assert_one_sentence(refused(str(classes / "set"), "-m", str(folder / "model")), 2, told)
    save(tmp_path / "in" / "1.tif", dots(1)[0].astype(np.uint8))
    ingested(tmp_path)
    told = "the images are uint8, the model was trained on uint16"
    assert_one_sentence(refused(str(tmp_path / "set"), "-m", str(folder / "model")), 2, told)
    assert_one_sentence(refused(str(folder / "set"), "-m", "splice-mini"), 2, "the model tells nothing of images")
    extra = {"task": ["other", {}]}
    model(tmp_path / "odd", "u_net", encoder=SCALE, extra=extra, outputs=("x", "y"), levels=1)
    told = "its values for pixels are of the task 'other', which makes no objects"
    assert_one_sentence(refused(str(folder / "set"), "-m", str(tmp_path / "odd")), 2, told)
    assert_one_sentence(refused(str(tmp_path / "in"), "-m", str(folder / "model")), 2, "there is no image set here")
    save(tmp_path / "floats" / "in" / "1.tif", dots(1)[0].astype(np.float32))
    ingested(tmp_path / "floats")
    extra = {"task": ["image_segmentation", {}]}
    model(tmp_path / "range", "u_net", encoder={"channels": 1}, extra=extra, outputs=("x", "y"), levels=1)
    told = "scale 'range' is that of whole numbers, and the pixels are float32; give a model whose encoder takes them"
    assert_one_sentence(refused(str(tmp_path / "floats" / "set"), "-m", str(tmp_path / "range")), 2, told)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    more = (str(folder / "set"), "-m", str(folder / "model"), "--device", "cuda", "-j", "1")
    assert_one_sentence(refused(*more), 2, "'cuda' asked for, this machine has 0 CUDA devices")


def test_objects_are_judged_by_the_masks_of_the_set(folder, tmp_path):
    dot_set(tmp_path, 7, "--group-pattern", r"0[0-5](\.)")
    given = ["predict-images", str(tmp_path / "set"), "-m", str(folder / "model"), "--judge", "--images-per-shard", "3"]
    done = replisome_here(*given, "-o", str(tmp_path / "out"), "--progress", "none")
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "out" / "metrics.json").read_text())
    masks = zarr.open_group(tmp_path / "out" / "masks.zarr", mode="r")["0"]
    counts = np.array([match_counts(dots(number)[1], masks[number]) for number in range(7)])
    metrics = told["all"]["metrics"]
    for place, name in ((0, "object_f1_50"), (4, "object_f1_70")):
        assert metrics[name]["value"] == pytest.approx(object_f1(counts.sum(axis=0))[place])
        assert metrics[name]["low"] <= metrics[name]["value"] <= metrics[name]["high"]
    assert [one["samples"] for one in told["groups"].values()] == [6]
    assert told["groups_left_out"] == {"small": 0, "beyond": 0}
    grouped = told["groups"]["."]["metrics"]["object_f1_50"]["value"]
    assert grouped == pytest.approx(object_f1(counts[:6].sum(axis=0))[0])
    assert f"object_f1_70 {metrics['object_f1_70']['value']:.3f}" in (tmp_path / "out" / "report.html").read_text()
    assert replisome_here("verify", str(tmp_path / "out")).returncode == 0


def test_the_largest_groups_have_figures_and_the_others_are_counted(classes, monkeypatch):
    monkeypatch.setattr(_judge_images, "_MOST_GROUPS", 2)
    groups = [*"aabbbbbbcccccddddddeeeeeeee", None]
    kept = [[0.5, 0.3, 0.2] for _ in groups]
    columns = {"state": ["scored"] * len(groups), "group": groups, "kept": kept, "target": [[0.0] for _ in groups]}
    task, data = _judge_images.task_of(open_model(classes / "model")), open_image_set(str(classes / "set"))
    judge = _judge_images.Judge(task, data)
    told = judge.figures([pa.table(columns)])
    assert {name: one["samples"] for name, one in told["groups"].items()} == {"e": 8, "b": 6}
    assert told["groups_left_out"] == {"small": 1, "beyond": 2}
    assert told["all"]["samples"] == len(groups)


def test_classes_are_judged_by_the_labels_of_the_set(classes, tmp_path):
    for number in range(8):
        save(tmp_path / "in" / "abz"[number % 2 + (number == 7)] / f"{number}.png", classed(number))
    ingested(tmp_path, "--label-from-folder")
    given = ["predict-images", str(tmp_path / "set"), "-m", str(classes / "model"), "--judge", "--progress", "none"]
    done = replisome_here(*given, "-o", str(tmp_path / "out"), "--max-rejects", "0.2")
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path / "out")
    (odd,) = rows.filter(pl.col("state") == "rejected").to_dicts()
    assert (odd["label"], odd["reason"]) == ("z", "unknown_label")
    (told,) = table(tmp_path / "out", "rejects")["sentence"].to_list()
    assert "has label 'z', the classes are a, b, c" in told
    judged = rows.filter(pl.col("state") == "scored")
    accuracy = (judged["label"] == judged["class_predicted"]).mean()
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["all"]
    assert found["samples"] == 7
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(accuracy)


def test_a_set_without_truth_is_not_judged(folder, classes, tmp_path):
    for place, net, told in (
        (folder / "set", folder / "model", "the set has no masks to judge by; make it anew with --masks"),
        (tmp_path / "set", classes / "model", "the set has no labels to judge by"),
    ):
        if not place.exists():
            save(tmp_path / "in" / "1.png", classed(1))
            ingested(tmp_path)
        done = replisome_here("predict-images", str(place), "-m", str(net), "--judge", "-o", str(tmp_path / "out"))
        assert_one_sentence(done, 2, told)
