"""OME-Zarr 0.4 and 0.5 as zarr writes them; what is missing or does not hold together is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from engine.io._image_stack import ImageProblem
from engine.io.ome_zarr import ZarrImage, ZarrRows, find_images, is_store
from tests.toys.pictures import ome_plate, ome_zarr, pixels, write_group

MOST = 1 << 20
VERSIONS = pytest.mark.parametrize("version", ["0.4", "0.5"])


def refused(folder: Path, group: str = "", *, read: bool = True) -> ImageProblem:
    with pytest.raises(ImageProblem) as caught:
        image = ZarrImage(folder, group, MOST)
        if read:
            image.read(0, image.num_times)
    return caught.value


def change(path: Path, *keys: str | int, value: object) -> None:
    content = json.loads(path.read_text())
    here = content
    for key in keys[:-1]:
        here = here[key]
    here[keys[-1]] = value
    path.write_text(json.dumps(content))


def attributes(folder: Path, version: str) -> tuple[Path, list[str | int]]:
    """Where the OME attributes of a group stand."""
    return (folder / ".zattrs", []) if version == "0.4" else (folder / "zarr.json", ["attributes", "ome"])


@given(
    axes=st.sampled_from(["yx", "cyx", "zyx", "czyx", "tyx", "tcyx", "tczyx"]),
    version=st.sampled_from(["0.4", "0.5"]),
    sharded=st.booleans(),
    dtype=st.sampled_from(["uint8", ">u2", "int32", "float32"]),
)
def test_pixels_are_what_zarr_wrote(tmp_path_factory, axes, version, sharded, dtype):
    sizes = {"t": 3, "c": 2, "z": 4, "y": 13, "x": 11}
    array = pixels(1, tuple(sizes[axis] for axis in axes), np.dtype(dtype).newbyteorder("=").name).astype(dtype)
    folder = ome_zarr(
        tmp_path_factory.mktemp("z") / "a.zarr", array, axes, version=version, sharded=sharded and version == "0.5"
    )
    image = ZarrImage(folder, "", MOST)
    assert image.num_times == (3 if "t" in axes else 1)
    stack = image.read(0, image.num_times)
    assert stack.pixels.shape == tuple(sizes[axis] if axis in axes else 1 for axis in "tczyx")
    np.testing.assert_array_equal(stack.pixels.reshape(array.shape), array)
    assert stack.pixel_size_um == (0.5 if "z" in axes else None, 0.5, 0.5)
    last = image.read(image.num_times - 1, image.num_times)
    np.testing.assert_array_equal(last.pixels[0], stack.pixels[-1])


@VERSIONS
def test_a_plate_is_its_fields(tmp_path, version):
    wells = {"A/1": [pixels(1, (2, 9, 7)), pixels(2, (2, 9, 7))], "B/2": [pixels(3, (2, 9, 7))]}
    folder = ome_plate(tmp_path / "plate.zarr", wells, version=version)
    found = find_images(folder)
    assert [(one.group, one.plate, one.well, one.field) for one in found] == [
        ("A/1/0", "toy plate", "A1", "0"),
        ("A/1/1", "toy plate", "A1", "1"),
        ("B/2/0", "toy plate", "B2", "0"),
    ]
    np.testing.assert_array_equal(ZarrImage(folder, "B/2/0", MOST).read(0, 1).pixels[0, :, 0], wells["B/2"][0])


def test_a_well_that_is_gone_takes_no_other_along(tmp_path):
    folder = ome_plate(tmp_path / "plate.zarr", {"A/1": [pixels(1, (1, 9, 7))], "B/2": [pixels(2, (1, 9, 7))]})
    (folder / "A/1/zarr.json").unlink()
    found = find_images(folder)
    assert [one.problem is not None for one in found] == [True, False]
    assert "no Zarr group" in found[0].problem.sentence


@VERSIONS
def test_a_numbered_collection_is_in_number_order(tmp_path, version):
    write_group(tmp_path / "all.zarr", {"bioformats2raw.layout": 3}, is_v3=version == "0.5")
    for number in (10, 9, 0):
        ome_zarr(tmp_path / "all.zarr" / str(number), pixels(number), "yx", version=version)
    assert [one.group for one in find_images(tmp_path / "all.zarr")] == ["0", "9", "10"]


@VERSIONS
def test_channel_names_are_kept(tmp_path, version):
    folder = ome_zarr(tmp_path / "a.zarr", pixels(1, (2, 9, 7)), "cyx", version=version, channels=["DAPI", "GFP"])
    assert ZarrImage(folder, "", MOST).read(0, 1).channels == ("DAPI", "GFP")


@VERSIONS
def test_every_missing_chunk_is_an_error_and_no_fill_value(tmp_path, version):
    folder = ome_zarr(tmp_path / "a.zarr", pixels(1, (2, 13, 11)), "cyx", version=version)
    below = folder / "0" / "c" if version == "0.5" else folder / "0"
    chunks = [path for path in below.rglob("*") if path.is_file() and not path.name.startswith((".", "zarr"))]
    assert len(chunks) == 8
    for chunk in chunks:
        data = chunk.read_bytes()
        chunk.unlink()
        assert (zarr.open_array(folder / "0", mode="r")[:] == 0).any()  # zarr takes it for zeros
        problem = refused(folder)
        assert problem.reason == "missing_chunk"
        assert chunk.relative_to(folder / "0").as_posix() in problem.sentence
        chunk.write_bytes(data)
    ZarrImage(folder, "", MOST).read(0, 1)


def test_a_chunk_missing_inside_a_shard_is_an_error(tmp_path):
    array = pixels(1, (16, 16)) | 1
    array[:8, 8:] = 0  # zarr leaves chunks of the fill value out
    folder = ome_zarr(tmp_path / "a.zarr", array, "yx", sharded=True, leave_out_empty=True)
    assert refused(folder).reason == "missing_chunk"
    filled = ZarrImage(folder, "", MOST, fill=True).read(0, 1)
    np.testing.assert_array_equal(filled.pixels[0, 0, 0], array)  # on request, as Zarr defines it
    shard = folder / "0" / "c" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:20])
    assert "cut short" in refused(folder).sentence


@VERSIONS
def test_a_damaged_chunk_is_an_error(tmp_path, version):
    folder = ome_zarr(tmp_path / "a.zarr", pixels(1, (13, 11)), "yx", version=version)
    chunk = folder / "0" / ("c/0/0" if version == "0.5" else "0/0")
    chunk.write_bytes(chunk.read_bytes()[:9])
    problem = refused(folder)
    assert problem.reason == "unreadable"
    assert "damaged" in problem.sentence


@VERSIONS
@pytest.mark.parametrize(
    ("keys", "value", "sentence"),
    [
        (("multiscales",), [], "multiscales is empty"),
        (("multiscales", 0, "axes"), [{"name": "y"}, {"name": "x"}, {"name": "c"}], "axes y, x, c; expected"),
        (("multiscales", 0, "axes"), [{"name": "z"}, {"name": "y"}, {"name": "x"}], "3 axes .zyx. and an array of 2"),
        (("multiscales", 0, "axes"), [{"name": "y"}, {"name": "y"}], "axes y, y; expected"),
        (("multiscales", 0, "datasets", 0, "path"), "1", "no array '1'"),
        (("multiscales", 0, "datasets", 0, "path"), "../other/0", "no path inside the store"),
        (("multiscales", 0, "datasets", 0, "coordinateTransformations", 0, "scale"), [1.0], "1 numbers for 2 axes"),
        (("multiscales",), "x", "multiscales is empty"),
        (("multiscales", 0), 7, "where an object is expected"),
    ],
)
def test_metadata_that_does_not_hold_together(tmp_path, version, keys, value, sentence):
    folder = ome_zarr(tmp_path / "a.zarr", pixels(1), "yx", version=version)
    path, top = attributes(folder, version)
    change(path, *top, *keys, value=value)
    problem = refused(folder, read=False)
    assert problem.reason == "unreadable"
    import re

    assert re.search(sentence, problem.sentence), problem.sentence


def test_other_versions_are_named(tmp_path):
    folder = ome_zarr(tmp_path / "a.zarr", pixels(1), "yx", version="0.4")
    change(folder / ".zattrs", "multiscales", 0, "version", value="0.2")
    assert "OME-Zarr 0.2; versions 0.4 and 0.5 are read" in refused(folder).sentence


def test_objects_and_text_are_no_pixels(tmp_path):
    folder = ome_zarr(tmp_path / "a.zarr", pixels(1), "yx", version="0.4")
    change(folder / "0" / ".zarray", "dtype", value="|S4")
    assert refused(folder).reason in ("unsupported_image", "unreadable")


def test_a_bomb_is_refused_by_its_shape(tmp_path):
    folder = ome_zarr(tmp_path / "a.zarr", pixels(1), "yx")
    change(folder / "0" / "zarr.json", "shape", value=[10**6, 10**6])
    assert refused(folder).reason == "too_large"


def test_a_group_that_tells_nothing_is_one_problem(tmp_path):
    write_group(tmp_path / "a.zarr", {})
    (found,) = find_images(tmp_path / "a.zarr")
    assert "tells of no image" in found.problem.sentence
    (tmp_path / "a.zarr" / "zarr.json").write_text("[" * 10_000)
    (found,) = find_images(tmp_path / "a.zarr")
    assert "no JSON" in found.problem.sentence


def test_label_images(tmp_path):
    folder = ome_zarr(tmp_path / "a.zarr", pixels(1, (2, 9, 7)), "cyx")
    mask = pixels(2, (9, 7), "uint16")
    ome_zarr(folder / "labels" / "cells", mask, "yx")
    image = ZarrImage(folder, "", MOST)
    np.testing.assert_array_equal(image.labels("cells").read(0, 1).pixels[0, 0, 0], mask)
    with pytest.raises(ImageProblem, match="no label image 'nuclei'"):
        image.labels("nuclei")


def test_rows_of_a_plain_array(tmp_path):
    group = zarr.open_group(tmp_path / "set.zarr", mode="w")
    array = pixels(1, (5, 9, 7, 3))
    group.create_array("image", data=array, chunks=(2, 9, 7, 3))
    group.create_array("label", data=np.arange(5))
    group.create_array("odd", data=np.zeros((2, 2)))
    assert is_store(tmp_path / "set.zarr")
    rows = ZarrRows(tmp_path / "set.zarr" / "image", MOST)
    assert rows.num_times == 5
    np.testing.assert_array_equal(np.moveaxis(rows.read(1, 4).pixels[:, :, 0], 1, -1), array[1:4])
    assert ZarrRows(tmp_path / "set.zarr" / "label", MOST).values().tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ImageProblem, match="images lie as"):
        ZarrRows(tmp_path / "set.zarr" / "odd", MOST)
