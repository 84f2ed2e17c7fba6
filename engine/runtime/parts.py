"""Publishing a shard: written aside, checksummed, put in place; the data part last, because it says "finished"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from engine.errors import SystemFailure
from engine.io import parquet
from engine.io.source import Shard
from engine.runtime import layout, lock
from engine.runtime.receipts import FOOTER_KEY, FileEntry, Receipt, recover
from engine.runtime.stages import ShardOutput
from engine.storage import faults
from engine.storage.checksums import crc32c, crc32c_of_file
from engine.storage.store import Store, clear_errors, open_store
from schemas import tables


@dataclass(frozen=True)
class PartPublisher:
    """Publishes shards for one driver; picklable, used inside worker processes.

    Attributes:
        uri: the run's output.
        schema_name, schema_version: of the data table.
        owner: the driver's id; a worker of a superseded driver publishes nothing.
    """

    uri: str
    schema_name: str
    schema_version: int
    owner: str

    def publish(self, shard: Shard, output: ShardOutput) -> Receipt:
        """Write all files of a shard and return its receipt.

        Raises:
            SystemFailure: full disk, a lost lock, or the output does not account for every record.
        """
        if output.records_in != shard.num_records:
            raise SystemFailure(
                f"read {output.records_in} records where the plan has {shard.num_records}",
                where=f"shard {shard.shard}",
                fix="the input changed while the run went on; run again with --force",
            )
        store = open_store(self.uri)
        if store.exists(layout.data_part(shard.shard)):
            return recover(store, shard.shard)  # by a worker that died, or was cut off, before it could tell
        faults.reach("before-part")
        files = self._publish_aside(store, shard.shard, output)
        faults.reach("mid-part")
        receipt = Receipt(shard.shard, output.records_in, output.states, output.reasons, files, output.notes)
        published = self._publish_data(store, receipt, output.table)
        faults.reach("after-part")
        return published

    def _publish_aside(self, store: Store, shard: int, output: ShardOutput) -> dict[str, FileEntry]:
        """Rejects, text body and further files. Not yet binding: the data part's footer names their checksums."""
        lock.check_owner(store, self.owner)
        files = {}
        if output.rejects.num_rows:
            local = store.scratch()
            with clear_errors(store.uri):
                _write(output.rejects, local, "rejects", tables.REJECTS_VERSION)
            files[layout.rejects_part(shard)] = _entry(local, output.rejects.num_rows)
            store.put_file(local, layout.rejects_part(shard))
        if output.body is not None:
            entry = FileEntry(len(output.body), crc32c(output.body), output.body_rows)
            files[layout.body_part(shard)] = entry
            store.put(layout.body_part(shard), output.body)
        for name, data in output.files.items():
            files[name] = FileEntry(len(data), crc32c(data), -1)
            store.put(name, data)
        return files

    def _publish_data(self, store: Store, receipt: Receipt, table: pa.Table) -> Receipt:
        name = layout.data_part(receipt.shard)
        local = store.scratch()
        with clear_errors(store.uri):
            _write(table, local, self.schema_name, self.schema_version, {FOOTER_KEY: receipt.to_json()})
        entry = _entry(local, table.num_rows)
        lock.check_owner(store, self.owner)
        if not store.create_file(local, name):
            return recover(store, receipt.shard)
        return replace(receipt, files={**receipt.files, name: entry})


def _write(
    table: pa.Table, path: Path, schema_name: str, version: int, metadata: Mapping[str, str] | None = None
) -> None:
    parquet.write_table(table, path, schema_name=schema_name, version=version, metadata=dict(metadata or {}))


def _entry(path: Path, rows: int) -> FileEntry:
    return FileEntry(path.stat().st_size, crc32c_of_file(path), rows)
