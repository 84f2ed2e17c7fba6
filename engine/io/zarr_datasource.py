"""Our Zarr v3 arrays as a datasource of Ray Data, whose own refuses Zarr 3.

    ray.data.read_datasource(zarr_datasource("set/images.zarr", {"image": "0", "mask": "labels/masks/0"}))

A block is a run of rows of one shard, each chunk held against its checksum before it is used; a chunk that is missing
or damaged is an error that names file and chunk, never a fill value. Every row carries its number. Ray is loaded only
when a function here is called.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import InputError
from engine.io.zarr_reader import CheckedArray

ROW = "row"
_BLOCK_BYTES = 32 << 20


@dataclass(frozen=True)
class RowsOfShard:
    """A read task: rows begin to end - 1 of some arrays, as a table with a column for each."""

    arrays: Mapping[str, CheckedArray]
    begin: int
    end: int

    def __call__(self) -> Iterable[Any]:
        """One block.

        Raises:
            DataError: a chunk is missing or damaged.
        """
        import pyarrow as pa
        from ray.data.extensions import ArrowTensorArray

        columns = {ROW: pa.array(range(self.begin, self.end), pa.int64())}
        for name, array in self.arrays.items():
            rows = np.stack([array.row(number) for number in range(self.begin, self.end)])
            columns[name] = ArrowTensorArray.from_numpy(rows) if rows.ndim > 1 else pa.array(rows)
        yield pa.table(columns)


def read_tasks(
    store: str | Path, columns: Mapping[str, str], *, rows_per_block: int | None = None
) -> list[RowsOfShard]:
    """What there is to read: no task reaches over a shard's end.

    Args:
        store: a local folder.
        columns: name of each column to the path of its array; all with as many rows.
        rows_per_block: at most; unset takes what fills 32 MiB.

    Raises:
        InputError: no such array, not one of ours, or of another number of rows.
        DataError: its metadata cannot be read.
    """
    arrays = {name: CheckedArray(Path(store), path) for name, path in columns.items()}
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or ROW in arrays:
        told = ", ".join(f"{name} {length:,}" for name, length in lengths.items()) or "none"
        what = f"columns need arrays of one length, and names other than {ROW!r}; found {told}"
        raise InputError(what, where=str(store), fix="read them apart")
    first = next(iter(arrays.values()))
    row_bytes = sum(math.prod(array.shape[1:]) * array.dtype.itemsize for array in arrays.values())
    size = rows_per_block or max(1, _BLOCK_BYTES // max(1, row_bytes))
    tasks = []
    for shard in range(0, len(first), first.rows_per_shard):
        end = min(shard + first.rows_per_shard, len(first))
        tasks += [RowsOfShard(arrays, begin, min(begin + size, end)) for begin in range(shard, end, size)]
    return tasks


def zarr_datasource(store: str | Path, columns: Mapping[str, str], *, rows_per_block: int | None = None) -> Any:
    """A Ray Data `Datasource` of a column "row" and one for each array; see `read_tasks`."""
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata

    found = read_tasks(store, columns, rows_per_block=rows_per_block)

    class _Zarr(Datasource):
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]

        def estimate_inmemory_data_size(self) -> int | None:
            return sum(map(_bytes_of, found))

        def get_read_tasks(
            self,
            parallelism: int,  # noqa: ARG002 - shards decide
            per_task_row_limit: int | None = None,
            data_context: Any = None,  # noqa: ARG002
        ) -> list[Any]:
            return [ReadTask(one, _facts(one), per_task_row_limit=per_task_row_limit) for one in found]

    def _facts(one: RowsOfShard) -> Any:
        return BlockMetadata(num_rows=one.end - one.begin, size_bytes=_bytes_of(one), input_files=None, exec_stats=None)

    return _Zarr()


def _bytes_of(one: RowsOfShard) -> int:
    rows = one.end - one.begin
    return rows * sum(math.prod(array.shape[1:]) * array.dtype.itemsize for array in one.arrays.values())
