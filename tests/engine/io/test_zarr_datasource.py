"""Read tasks over our arrays: every row once, within its shard. (With Ray: test_zarr_datasink.py.)"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.io.zarr_datasink import Layout, commit, write_rows
from engine.io.zarr_datasource import read_tasks
from tests.toys.pictures import pixels


def write(folder, name: str, rows: np.ndarray, *, per_shard: int) -> None:
    layout = Layout(str(folder), name, "x", per_shard, 1)
    commit(layout, write_rows(layout, [(np.arange(len(rows)), rows)]))


@settings(max_examples=30)
@given(st.integers(1, 20), st.integers(1, 6), st.none() | st.integers(1, 9))
def test_every_row_once_and_no_task_over_a_shards_end(tmp_path_factory, number, per_shard, per_block):
    folder = tmp_path_factory.mktemp("s")
    rows = pixels(1, (number, 3), "uint8")
    write(folder, "0", rows, per_shard=per_shard)
    tasks = read_tasks(folder, {"x": "0"}, rows_per_block=per_block)
    for one in tasks:
        assert one.begin // per_shard == (one.end - 1) // per_shard
        assert one.end - one.begin <= (per_block or per_shard)
    assert [row for one in tasks for row in range(one.begin, one.end)] == list(range(number))


def test_blocks_are_bounded_by_bytes(tmp_path):
    write(tmp_path, "0", np.zeros((6, 3 << 20), np.uint32), per_shard=6)  # 12 MiB a row
    assert [(one.begin, one.end) for one in read_tasks(tmp_path, {"x": "0"})] == [(0, 2), (2, 4), (4, 6)]


def test_what_cannot_be_read_together_is_named(tmp_path):
    write(tmp_path, "0", np.zeros((3, 2)), per_shard=2)
    write(tmp_path, "1", np.zeros((4, 2)), per_shard=2)
    with pytest.raises(InputError, match=r"columns need arrays of one length.*found x 3, y 4"):
        read_tasks(tmp_path, {"x": "0", "y": "1"})
    with pytest.raises(InputError, match="names other than 'row'"):
        read_tasks(tmp_path, {"row": "0"})
    with pytest.raises(InputError, match="found none"):
        read_tasks(tmp_path, {})
    with pytest.raises(InputError, match="there is no Zarr v3 array here"):
        read_tasks(tmp_path, {"x": "2"})
