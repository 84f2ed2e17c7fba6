"""Arrays written from rows in any order by any number of tasks: the same bytes, which zarr reads."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import DataError, InputError
from engine.io.zarr_datasink import Layout, begin, commit, write_rows, zarr_datasink
from engine.io.zarr_datasource import zarr_datasource
from engine.io.zarr_reader import CheckedArray
from tests.toys.pictures import pixels


def layout(folder: Path, *, per_shard: int = 4, per_chunk: int = 2) -> Layout:
    return Layout(str(folder), "deep/0", "x", per_shard, per_chunk)


def write(made: Layout, tasks: list[np.ndarray], rows: np.ndarray) -> None:
    """Each task gets the rows of these numbers, in two blocks."""
    begin(made)
    done = []
    for numbers in tasks:
        halves = np.array_split(numbers, 2)
        done += write_rows(made, [(half, rows[half]) for half in halves])
    commit(made, done)


def files(folder: Path) -> dict[str, str]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@settings(max_examples=30)
@given(
    number=st.integers(1, 30),
    shape=st.sampled_from([(), (3,), (2, 5, 4)]),
    dtype=st.sampled_from(["uint8", "int64", "float32", "bool"]),
    num_tasks=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_bytes_depend_on_the_rows_alone(tmp_path_factory, *, number, shape, dtype, num_tasks, seed):
    rows = pixels(seed, (number, *shape), "uint8").astype(dtype)
    folder = tmp_path_factory.mktemp("s")
    write(layout(folder / "one"), [np.arange(number)], rows)
    write(layout(folder / "many"), np.array_split(np.random.default_rng(seed).permutation(number), num_tasks), rows)
    assert files(folder / "many") == files(folder / "one")
    judge = zarr.open_array(folder / "many" / "deep" / "0", mode="r")
    np.testing.assert_array_equal(judge[:], rows)
    assert judge.shards == (4, *shape)
    assert judge.chunks == (2, *shape)
    ours = CheckedArray(folder / "many", "deep/0")
    np.testing.assert_array_equal(np.stack([ours.row(place) for place in range(number)]), rows)


def test_what_makes_no_array_is_named_and_leaves_none(tmp_path):
    rows = np.arange(12, dtype="int32").reshape(6, 2)
    made = layout(tmp_path)
    for tasks, sentence in (
        ([np.array([0, 1, 2]), np.array([2, 3, 4])], "row 2 came twice; number the rows 0, 1, 2"),
        ([np.array([0, 1, 5]), np.array([2, 4])], "row 3 of 6 did not come"),
        ([np.array([], np.int64)], "there are no rows to write"),
    ):
        with pytest.raises(DataError, match=sentence):
            write(made, tasks, rows)
        assert not (tmp_path / "deep" / "0" / "zarr.json").exists()
    first, other = write_rows(made, [(np.array([0]), rows[:1])]), write_rows(made, [(np.array([1]), rows[:1, :1])])
    with pytest.raises(DataError, match=r"rows of int32 of shape \[1\] and int32 of shape \[2\]"):
        commit(made, [*first, *other])
    with pytest.raises(DataError, match=r"row 1 is float64 of shape \[2\] beside int32 of shape \[2\]"):
        write_rows(made, [(np.array([0]), rows[:1]), (np.array([1]), rows[:1] / 2)])
    with pytest.raises(DataError, match="a row has the number -1"):
        write_rows(made, [(np.array([-1]), rows[:1])])
    with pytest.raises(DataError, match=r"row 0 is str\d+ of shape"):
        write_rows(made, [(np.array([0]), np.array(["a"]))])
    with pytest.raises(ValueError, match="3 rows a chunk do not divide 4 rows a shard"):
        zarr_datasink(tmp_path, "0", value="x", rows_per_shard=4, rows_per_chunk=3)


def test_a_changed_piece_is_not_joined_and_an_array_not_written_over(tmp_path):
    rows = np.arange(6, dtype="int32")
    made = layout(tmp_path)
    done = write_rows(made, [(np.arange(6), rows)])
    piece = tmp_path / next(one.piece for one in done if one.piece)
    data = piece.read_bytes()
    piece.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(DataError, match="a piece was changed after it was written"):
        commit(made, done)
    write(made, [np.arange(6)], rows)
    assert not list(tmp_path.rglob("*pieces*"))
    with pytest.raises(InputError, match="an array is there already; choose another name"):
        begin(made)


def test_a_failed_larger_write_leaves_nothing_behind(tmp_path):
    rows = np.arange(60, dtype="int32").reshape(30, 2)
    for name, wanted in (("same", rows[:6]), ("numbers", rows[:6, 0])):
        begin(layout(tmp_path / name))
        write_rows(layout(tmp_path / name), [(np.arange(30), rows)])
        other = tmp_path / name / "deep" / "0" / "c" / "notes.txt"
        other.write_text("mine")
        write(layout(tmp_path / name), [np.arange(6)], wanted)
        assert other.read_text() == "mine"
        other.unlink()
        write(layout(tmp_path / "calm" / name), [np.arange(6)], wanted)
        assert files(tmp_path / name) == files(tmp_path / "calm" / name)


@pytest.mark.ray
def test_ray_data_reads_and_writes_what_zarr_reads(ray_cluster, tmp_path):
    import ray.data

    rows = pixels(3, (11, 2, 6, 5), "uint16")
    write(layout(tmp_path / "in"), [np.arange(11)], rows)
    flags = np.arange(11) % 3 == 0
    write(Layout(str(tmp_path / "in"), "flag", "x", 4, 1), [np.arange(11)], flags)
    source = zarr_datasource(tmp_path / "in", {"x": "deep/0", "flag": "flag"}, rows_per_block=3)
    read = ray.data.read_datasource(source, num_cpus=0.5)
    whole = {one["row"]: one for one in read.iter_rows()}
    assert sorted(whole) == list(range(11))
    for place, row in enumerate(rows):
        assert whole[place]["flag"] == flags[place]
        np.testing.assert_array_equal(whole[place]["x"], row)
    doubled = read.map_batches(lambda batch: {"row": batch["row"], "x": batch["x"] * 2}, num_cpus=0.5)
    for name, dataset in (("as-read", doubled), ("other-blocks", doubled.repartition(2))):
        sink = zarr_datasink(tmp_path / name, "deep/0", value="x", rows_per_shard=4, rows_per_chunk=2)
        dataset.write_datasink(sink)
    assert files(tmp_path / "as-read") == files(tmp_path / "other-blocks")
    judge = zarr.open_array(tmp_path / "as-read" / "deep" / "0", mode="r")
    np.testing.assert_array_equal(judge[:], rows * 2)
    with pytest.raises(InputError, match="an array is there already"):
        doubled.write_datasink(zarr_datasink(tmp_path / "as-read", "deep/0", value="x"))

    shard = tmp_path / "in" / "deep" / "0" / "c" / "1" / "0" / "0" / "0"
    data = shard.read_bytes()
    shard.write_bytes(data[:40] + bytes([data[40] ^ 8]) + data[41:])
    with pytest.raises(DataError, match=r"the checksum of chunk \[0, 0, 0, 0\] of the shard does not hold"):
        read.materialize()
    shard.unlink()
    with pytest.raises(DataError, match=r"shard 1 of the array is missing"):
        read.materialize()
