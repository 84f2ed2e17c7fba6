"""The store's metadata: OME-Zarr 0.5 by its rules, with zarr and our own 0.5 reader as judges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from engine.io.image_store import (
    STORE,
    ArrayFacts,
    FieldOfPlate,
    StoreLayout,
    chunk_of,
    mask_array,
    metadata_files,
    shard_file,
    shard_name,
    shard_names,
)
from engine.io.ome_zarr import ZarrImage, find_images
from tests.toys.pictures import labels, pixels


def write(folder: Path, layout: StoreLayout, arrays: list[ArrayFacts], fields=()) -> dict[str, np.ndarray]:
    """A whole store of random images; returns its arrays."""
    held: dict[str, np.ndarray] = {}
    for seed, one in enumerate(arrays):
        kinds = [(layout.image_spec(one.array, one.shape), pixels(seed, (one.num_rows, *one.shape), layout.dtype))]
        if layout.mask_dtype:
            mask = np.stack([labels(seed + i, one.shape[-2:]) for i in range(one.num_rows)]).astype(layout.mask_dtype)
            kinds.append((layout.mask_spec(one.array, one.shape), mask))
        for spec, array in kinds:
            held[spec.name.removeprefix(STORE + "/")] = array
            for shard in range(-(-len(array) // layout.rows_per_shard)):
                rows = array[shard * layout.rows_per_shard : (shard + 1) * layout.rows_per_shard]
                path = folder / shard_name(spec, shard)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(shard_file(spec, list(rows)))
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == shard_names(
        layout, arrays
    )
    for name, data in metadata_files(layout, arrays, fields):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        assert not (folder / name).exists()
        (folder / name).write_bytes(data)
    return held


def check(folder: Path, held: dict[str, np.ndarray]) -> None:
    """Every array is what zarr reads; every group is a group to zarr."""
    for name, array in held.items():
        np.testing.assert_array_equal(zarr.open_array(folder / STORE / name, mode="r")[:], array)
    found = dict(zarr.open_group(folder / STORE, mode="r").members(max_depth=None))
    assert {name for name, node in found.items() if isinstance(node, zarr.Array)} == set(held)
    for name in held:
        for depth in range(1, name.count("/") + 1):
            assert isinstance(found[name.rsplit("/", depth)[0]], zarr.Group)


def test_one_array_of_all_images(tmp_path):
    facts = ArrayFacts("0", (2, 9, 7), 5, (0.5, 0.25), ("DAPI", "GFP"), ((0.0, 9.0), (1.0, 8.0)))
    held = write(tmp_path, StoreLayout("array", "uint16", 2, "uint32"), [facts])
    check(tmp_path, held)
    image = ZarrImage(tmp_path / STORE, "", 1 << 20)
    stack = image.read(0, 5)
    assert (image.axes, image.channels, stack.pixel_size_um) == ("tcyx", ("DAPI", "GFP"), (None, 0.5, 0.25))
    np.testing.assert_array_equal(stack.pixels[:, :, 0], held["0"])
    masks = image.labels("masks")
    assert masks.axes == "tyx"
    np.testing.assert_array_equal(masks.read(0, 5).pixels[:, 0, 0], held["labels/masks/0"])
    root = zarr.open_group(tmp_path / STORE, mode="r")
    assert root["labels"].attrs["ome"]["labels"] == ["masks"]
    assert root["labels/masks"].attrs["ome"]["image-label"] == {"source": {"image": "../../"}}


def test_images_of_many_sizes_are_a_numbered_collection(tmp_path):
    arrays = [ArrayFacts(f"{i}/0", (1, 5 + i, 7), 1) for i in range(3)]
    held = write(tmp_path, StoreLayout("images", "uint8", 1, "uint16"), arrays)
    check(tmp_path, {**held})
    assert [one.group for one in find_images(tmp_path / STORE)] == ["0", "1", "2"]
    series = zarr.open_group(tmp_path / STORE, mode="r")["OME"].attrs["ome"]["series"]
    assert series == ["0", "1", "2"]


@pytest.mark.parametrize("plates", [1, 2])
def test_plates_keep_wells_and_fields(tmp_path, plates):
    fields = [
        FieldOfPlate(
            f"p{plate}", row, column, field, ("" if plates == 1 else f"plate{plate}/") + f"{row}/{column}/{field}"
        )
        for plate in range(plates)
        for row, column, field in (("A", "01", "1"), ("A", "01", "2"), ("B", "12", "1"))
    ]
    arrays = [ArrayFacts(f"{one.group}/0", (2, 3, 6, 5), 2, (None, 0.5, 0.5)) for one in fields]
    check(tmp_path, write(tmp_path, StoreLayout("plate", "uint16", 2), arrays, fields))
    for plate in range(plates):
        top = tmp_path / STORE if plates == 1 else tmp_path / STORE / f"plate{plate}"
        found = find_images(top)
        assert [(one.plate, one.well, one.field) for one in found] == [
            (f"p{plate}", "A01", "1"),
            (f"p{plate}", "A01", "2"),
            (f"p{plate}", "B12", "1"),
        ]
        told = zarr.open_group(top, mode="r").attrs["ome"]["plate"]
        assert [told["rows"][well["rowIndex"]]["name"] for well in told["wells"]] == ["A", "B"]
        assert [told["columns"][well["columnIndex"]]["name"] for well in told["wells"]] == ["01", "12"]
        assert told["field_count"] == 2
        assert ZarrImage(top, "B/12/1", 1 << 20).read(0, 2).pixel_size_um == (None, 0.5, 0.5)


def test_chunks_are_whole_images_or_tiles():
    assert chunk_of((3, 512, 512), 2, None) == (3, 512, 512)
    assert chunk_of((3, 4096, 512), 2, None) == (3, 1024, 512)
    assert chunk_of((2, 9, 4096, 4096), 2, None) == (2, 1, 1024, 1024)
    assert chunk_of((3, 512, 512), 2, 128) == (3, 128, 128)
    assert chunk_of((512, 512), 2, 128) == (128, 128)
    assert (mask_array("0"), mask_array("A/1/0/0")) == ("labels/masks/0", "A/1/0/labels/masks/0")
