"""The job predict_images: a row for every image, masks and objects that others read, nothing damaged taken for data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import zarr

from engine.imaging.instances import Growing, objects_of
from engine.models._info import open_model
from engine.training._image_set import ImageReader, open_image_set
from tests.toys.image_models import SCALE, classifier, model, segmenter
from tests.toys.image_sets import classed, dots, ingested
from tests.toys.pictures import save
from tests.toys.runs import assert_same_results
from tests.toys.variant_runs import assert_one_sentence, replisome, replisome_here

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Eleven images, the fifth of one value and so rejected by the ingest."""
    folder = tmp_path_factory.mktemp("predict")
    save(folder / "in" / "04.tif", np.full((24, 24), 7, np.uint16))
    for number in (0, 1, 2, 3, 5, 6, 7, 8, 9, 10):
        save(folder / "in" / f"{number:02d}.tif", dots(number)[0])
    ingested(folder, "--images-per-shard", "4")
    segmenter(folder / "model")
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

    ran = _predict_images.ImageAnswerer._run_members

    def scarce(self, pixels: np.ndarray, most: int) -> np.ndarray:
        if len(pixels) > most:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return ran(self, pixels)

    monkeypatch.setattr(_predict_images.ImageAnswerer, "_run_members", lambda *given: scarce(*given, 1))
    done = replisome_here(*words(folder, tmp_path / "out", "-j", "1"))
    assert done.returncode == 0, done.stderr
    assert table(tmp_path / "out").equals(table(calm))
    notes = json.loads((tmp_path / "out" / "report.json").read_text())["provenance"]["notes"]
    assert notes == {"halved_batches": 6}
    monkeypatch.setattr(_predict_images.ImageAnswerer, "_run_members", lambda *given: scarce(*given, 0))
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
    classifier(folder / "model")
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
