"""Images by record number from the shards of a finished run: what zarr reads, and nothing that was changed."""

from __future__ import annotations

import pickle
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import zarr

from engine.errors import DataError, InputError
from engine.training._image_set import ImageReader, open_image_set
from tests.toys.pictures import imagexpress, labels, pixels, save
from tests.toys.variant_runs import replisome_here


def make(folder: Path, output: Path, *words: str) -> Path:
    done = replisome_here("ingest-images", str(folder), "-o", str(output), "--progress", "none", *words)
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven images in two classes with masks, one of them rejected."""
    folder = tmp_path_factory.mktemp("set")
    for number in range(11):
        name = f"{'ab'[number % 2]}/{number:02d}.png"
        save(folder / "in" / name, pixels(number, dtype="uint16") if number != 4 else np.zeros((24, 20), np.uint16))
        save(folder / "masks" / name, labels(number))
    words = ("--masks", str(folder / "masks"), "--label-from-folder", "--images-per-shard", "3")
    return make(folder / "in", folder / "out", *words)


def test_images_and_masks_by_record(made):
    data = open_image_set(f"run:{made}")
    assert (len(data), data.dtype, data.mask_dtype, data.shape) == (10, np.uint16, np.uint16, (1, 24, 20))
    assert data.labels.to_pylist() == ["a"] * 5 + ["b"] * 5
    reader = pickle.loads(pickle.dumps(ImageReader(data)))
    judge = zarr.open_group(made / "images.zarr", mode="r")
    order = np.random.default_rng(1).permutation(data.records)
    places = np.searchsorted(data.records, order)
    np.testing.assert_array_equal(reader.images(order), judge["0"][:][places])
    np.testing.assert_array_equal(reader.masks(order), judge["labels/masks/0"][:][places])
    np.testing.assert_array_equal(reader.images(list(order[:3])), reader.images(order)[:3])
    number = int(str(data.ids[3])[2:4])
    np.testing.assert_array_equal(reader.images([data.records[3]])[0, 0], pixels(number, dtype="uint16"))


def test_rejected_and_absent_records_are_errors(made):
    data = open_image_set(str(made))
    rejected = next(iter(set(range(11)) - set(data.records.tolist())))
    for record in (rejected, 11, -1):
        with pytest.raises(DataError, match=f"record {record} is not among the kept images"):
            ImageReader(data).images([0, record])


def test_fields_of_plates_are_read_the_same_way(tmp_path):
    imagexpress(tmp_path / "in", channels=2, times=2)
    output = make(tmp_path / "in", tmp_path / "out")
    data = open_image_set(str(output))
    found = ImageReader(data).images(data.records)
    judge = zarr.open_group(output / "images.zarr", mode="r")
    for image, array, row in zip(found, data.array_of, data.row_of, strict=True):
        np.testing.assert_array_equal(image, judge[data.arrays[array]][row])
    with pytest.raises(InputError, match="the set has no masks"):
        ImageReader(data).masks([0])


def test_images_of_several_sizes_make_no_batch(tmp_path):
    for number, shape in enumerate([(24, 20), (9, 8)]):
        save(tmp_path / "in" / f"{number}.png", pixels(number, shape))
    data = open_image_set(str(make(tmp_path / "in", tmp_path / "out", "--sizes", "any")))
    assert data.shape is None
    reader = ImageReader(data)
    assert reader.images([1]).shape == (1, 1, 9, 8)
    with pytest.raises(InputError, match=r"\[1, 9, 8\] and \[1, 24, 20\] make no batch"):
        reader.images([0, 1])


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("index.parquet", "CRC-32C"),
        ("files.parquet", "CRC-32C"),
        ("manifest.json", "digest differs"),
        ("images.zarr/0/zarr.json", "was changed after it was written"),
        ("images.zarr/0/c/1/0/0/0", "checksum"),
        ("images.zarr/labels/masks/0/c/2/0/0", "checksum"),
    ],
)
def test_nothing_changed_is_read(made, tmp_path, name, sentence):
    shutil.copytree(made, tmp_path / "out")
    path = tmp_path / "out" / name
    data = path.read_bytes()
    for place in range(0, len(data), max(1, len(data) // 25)):
        flipped = bytearray(data)
        flipped[place] ^= 16
        path.write_bytes(flipped)
        with pytest.raises(DataError, match=sentence):
            found = open_image_set(str(tmp_path / "out"))
            ImageReader(found).images(found.records)
            ImageReader(found).masks(found.records)


def test_what_is_no_image_set_is_said(made, tmp_path):
    with pytest.raises(InputError, match="no image set here"):
        open_image_set(str(tmp_path))
    shutil.copytree(made, tmp_path / "out")
    (tmp_path / "out" / "manifest.json").unlink()
    with pytest.raises(InputError, match="not finished"):
        open_image_set(str(tmp_path / "out"))
    with pytest.raises(InputError, match="local disk"):
        open_image_set("s3://bucket/set")


def test_the_set_is_not_held_in_memory(tmp_path):
    for number in range(40):
        save(tmp_path / "in" / f"{number:02d}.png", pixels(number, (256, 256)))
    output = make(tmp_path / "in", tmp_path / "out", "--images-per-shard", "8")
    data = open_image_set(str(output))
    reader = ImageReader(data)
    reader.images([0])
    tracemalloc.start()
    try:
        for record in data.records:
            reader.images([record])
        assert tracemalloc.get_traced_memory()[1] < 16 * 256 * 256  # of 40 images
    finally:
        tracemalloc.stop()
