"""Our arrays read chunk by chunk: equal to what zarr reads, and no damaged or missing byte is taken for a pixel."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DataError, InputError
from engine.io.image_store import STORE, StoreLayout, shard_file, shard_name
from engine.io.zarr_reader import CheckedArray
from tests.toys.pictures import pixels


def write(folder: Path, array: np.ndarray, *, per_shard: int = 2, tile: int | None = None) -> Path:
    """An array of images (N, C, Y, X) as an ingest writes it."""
    layout = StoreLayout("array", array.dtype.name, per_shard, None, tile)
    spec = layout.image_spec("0", array.shape[1:])
    for shard in range(-(-len(array) // per_shard)):
        path = folder / shard_name(spec, shard)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(shard_file(spec, list(array[shard * per_shard : (shard + 1) * per_shard])))
    (folder / spec.name / "zarr.json").write_text(json.dumps(spec.metadata(len(array))))
    return folder / STORE


@given(
    number=st.integers(1, 5),
    shape=st.sampled_from([(1, 5, 7), (3, 16, 16), (2, 17, 9), (2, 3, 6, 5)]),
    dtype=st.sampled_from(["uint8", "uint16", "int32", "float32"]),
    per_shard=st.integers(1, 4),
    tile=st.sampled_from([None, 8]),
)
def test_zarr_reads_the_same(tmp_path_factory, *, number, shape, dtype, per_shard, tile):
    array = pixels(number, (number, *shape), dtype)
    store = write(tmp_path_factory.mktemp("s"), array, per_shard=per_shard, tile=tile)
    judge = zarr.open_array(store / "0", mode="r")
    ours = CheckedArray(store, "0")
    assert ours.shape == judge.shape == array.shape
    assert ours.dtype == judge.dtype
    np.testing.assert_array_equal(judge[:], array)
    for row in range(number):
        np.testing.assert_array_equal(ours.row(row), array[row])


def test_every_flipped_bit_of_a_shard_raises(tmp_path):
    array = pixels(1, (3, 1, 6, 5), "uint16")
    store = write(tmp_path, array, per_shard=3, tile=4)
    shard = store / "0" / "c" / "0" / "0" / "0" / "0"
    data = shard.read_bytes()
    chance = random.Random(1)
    for bit in chance.sample(range(8 * len(data)), 400):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        shard.write_bytes(flipped)
        with pytest.raises(DataError, match=r"checksum|missing|cut short"):
            reader = CheckedArray(store, "0")
            for row in range(3):
                reader.row(row)
    shard.write_bytes(data)
    np.testing.assert_array_equal(CheckedArray(store, "0").row(2), array[2])


def test_cut_or_missing_shards_and_chunks_are_errors(tmp_path):
    array = pixels(1, (3, 1, 6, 5))
    store = write(tmp_path, array, per_shard=2)
    last = store / "0" / "c" / "1" / "0" / "0" / "0"
    data = last.read_bytes()
    last.write_bytes(data[:10])
    with pytest.raises(DataError, match="cut short"):
        CheckedArray(store, "0").row(2)
    last.unlink()
    assert (zarr.open_array(store / "0", mode="r")[2] == 0).all()  # zarr gives fill values
    with pytest.raises(DataError, match="shard 1 of the array is missing"):
        CheckedArray(store, "0").row(2)
    np.testing.assert_array_equal(CheckedArray(store, "0").row(1), array[1])
    layout = StoreLayout("array", "uint8", 2)
    last.write_bytes(shard_file(layout.image_spec("0", (1, 6, 5)), []))  # an index without a chunk
    with pytest.raises(DataError, match=r"chunk \[0, 0, 0, 0\] of the shard is missing"):
        CheckedArray(store, "0").row(2)


def test_rows_that_are_not_there(tmp_path):
    store = write(tmp_path, pixels(1, (3, 1, 6, 5)))
    reader = pickle.loads(pickle.dumps(CheckedArray(store, "0")))
    assert len(reader) == 3
    for row in (-1, 3):
        with pytest.raises(IndexError):
            reader.row(row)


def test_arrays_of_others_are_refused(tmp_path):
    zarr.create_array(tmp_path / "0", shape=(4, 4), dtype="uint8")
    with pytest.raises(InputError, match="read it with zarr"):
        CheckedArray(tmp_path, "0")
    with pytest.raises(InputError, match="no Zarr v3 array here"):
        CheckedArray(tmp_path, "1")
    (tmp_path / "0" / "zarr.json").write_text("{")
    with pytest.raises(DataError, match=r"zarr\.json cannot be read"):
        CheckedArray(tmp_path, "0")
