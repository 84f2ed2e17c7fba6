"""The plan: one row per shard, written once, read back with its checksum."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from engine.errors import DataError
from engine.io import parquet
from engine.io.source import Shard
from engine.runtime import layout
from engine.storage.checksums import crc32c_of_file
from engine.storage.store import Store
from schemas import tables

_COLUMNS = [field.name for field in tables.PLAN]


def write_plan(store: Store, shards: Sequence[Shard]) -> int:
    """Write plan.parquet; returns its CRC-32C."""
    columns = {name: [getattr(shard, name) for shard in shards] for name in _COLUMNS}
    local = store.scratch()
    parquet.write_table(pa.table(columns, schema=tables.PLAN), local, schema_name="plan", version=tables.PLAN_VERSION)
    checksum = crc32c_of_file(local)
    store.put_file(local, layout.PLAN)
    return checksum


def read_plan(store: Store, *, crc32c: int) -> list[Shard]:
    """Read plan.parquet back, checked before use.

    Raises:
        DataError: the file was changed.
    """
    try:
        with store.opened(layout.PLAN) as path:
            table = parquet.read_table(path, crc32c=crc32c)
    except DataError as error:
        # Deleting it would not help: all parts stand on it.
        fix = "restore it from a copy, or run again with --force to score anew"
        raise DataError(error.what, where=error.where, fix=fix) from error
    columns = [table.column(name).to_pylist() for name in _COLUMNS]
    return [Shard(*row) for row in zip(*columns, strict=True)]
