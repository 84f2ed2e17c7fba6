"""Receipts: what each finished shard left behind.

A data part's own footer carries its receipt, so the segments written while shards finish are only a shortcut:
a lost segment costs one footer read per shard, never a result.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from engine.errors import DataError
from engine.io import parquet
from engine.runtime import layout
from engine.storage.checksums import crc32c_of_file
from engine.storage.store import Store
from schemas import states, tables

FOOTER_KEY = "replisome.receipt"
_SEGMENT_RECEIPTS = 64
_SEGMENT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a shard: size in bytes, CRC-32C and number of rows."""

    bytes: int
    crc32c: int
    rows: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a shard read, wrote and refused. `files` maps paths below the output to their entries."""

    shard: int
    records_in: int
    states: Mapping[str, int]
    reasons: Mapping[str, int]
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)

    @property
    def rows_out(self) -> int:
        return sum(self.states.values())

    def to_json(self) -> str:
        """One line, the same for the same receipt."""
        content = {
            "shard": self.shard,
            "records_in": self.records_in,
            "states": dict(self.states),
            "reasons": dict(self.reasons),
            "files": _plain_files(self.files),
            "notes": dict(self.notes),
        }
        return json.dumps(content, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Receipt:
        content = json.loads(text)
        files = {name: FileEntry(*entry) for name, entry in content.pop("files").items()}
        return cls(**content, files=files)


def _plain_files(files: Mapping[str, FileEntry]) -> dict[str, list[int]]:
    return {name: [entry.bytes, entry.crc32c, entry.rows] for name, entry in sorted(files.items())}


def receipts_table(receipts: Iterable[Receipt]) -> pa.Table:
    """Receipts as rows of schemas.tables.RECEIPTS, by shard."""
    ordered = sorted(receipts, key=lambda receipt: receipt.shard)
    columns = [pa.array((get(receipt) for receipt in ordered), one.type) for one, get in _COLUMNS]
    return pa.Table.from_arrays(columns, schema=tables.RECEIPTS)


# One getter per column: a table of a million receipts is built without a million rows of Python objects beside it.
_COLUMNS: list[tuple[pa.Field, Callable[[Receipt], int | str]]] = list(
    zip(
        tables.RECEIPTS,
        (
            lambda receipt: receipt.shard,
            lambda receipt: receipt.records_in,
            lambda receipt: receipt.rows_out,
            lambda receipt: receipt.states.get(states.SCORED, 0),
            lambda receipt: receipt.states.get(states.NOT_APPLICABLE, 0),
            lambda receipt: receipt.states.get(states.REJECTED, 0),
            lambda receipt: receipt.states.get(states.KEPT, 0),
            lambda receipt: json.dumps(dict(receipt.reasons), sort_keys=True),
            lambda receipt: json.dumps(_plain_files(receipt.files), sort_keys=True),
            lambda receipt: json.dumps(dict(receipt.notes), sort_keys=True),
        ),
        strict=True,
    )
)


def receipts_from_table(table: pa.Table) -> list[Receipt]:
    """The inverse of receipts_table."""
    return [_receipt(row) for batch in table.to_batches(max_chunksize=10_000) for row in batch.to_pylist()]


def _receipt(row: Mapping[str, Any]) -> Receipt:
    return Receipt(
        shard=row["shard"],
        records_in=row["records_in"],
        states={state: row[state] for state in states.ALL_STATES if row.get(state)},  # version 1 has no `kept`
        reasons=json.loads(row["reasons"]),
        files={name: FileEntry(*entry) for name, entry in json.loads(row["files"]).items()},
        notes=json.loads(row["notes"]),
    )


class ReceiptBook:
    """The driver's receipts of a run, kept in segments as shards finish."""

    def __init__(self, store: Store, *, owner: str) -> None:
        self._store = store
        self._owner = owner
        self._pending: list[Receipt] = []
        self._segments = 0
        self._last = time.monotonic()
        self.receipts: dict[int, Receipt] = {}

    def load(self, *, strict: bool = True) -> list[tuple[str, DataError]]:
        """Take up all that earlier drivers finished: segments first, then footers of parts in no segment.

        Returns:
            Parts whose footer cannot be read, and why; empty where `strict`, which raises the first instead.
        """
        damaged: list[tuple[str, DataError]] = []
        for name in filter(layout.is_segment, self._store.list(layout.RECEIPTS)):
            for receipt in _read_segment(self._store, name):
                self.receipts[receipt.shard] = receipt
        found = {layout.shard_of(name) for name in self._store.list("data") if layout.is_part(name)}
        for shard in found - self.receipts.keys():
            try:
                self.receipts[shard] = recover(self._store, shard)
            except DataError as error:
                if strict:
                    raise
                damaged.append((layout.data_part(shard), error))
        for shard in self.receipts.keys() - found:
            del self.receipts[shard]
        return damaged

    def add(self, receipt: Receipt) -> None:
        """Note a finished shard; a segment is written every few seconds."""
        self.receipts[receipt.shard] = receipt
        self._pending.append(receipt)
        if len(self._pending) >= _SEGMENT_RECEIPTS or time.monotonic() - self._last > _SEGMENT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is pending as one segment."""
        if self._pending:
            name = f"{layout.RECEIPTS}/segment-{self._owner}-{self._segments:06d}.parquet"
            write_receipts(self._store, name, self._pending)
            self._segments += 1
            self._pending = []
        self._last = time.monotonic()

    def totals(self) -> Totals:
        """Sums over all receipts."""
        return Totals.of(self.receipts.values())


def write_receipts(store: Store, name: str, receipts: Iterable[Receipt]) -> FileEntry:
    """Write receipts as one Parquet file and say what was written."""
    table = receipts_table(receipts)
    local = store.scratch()
    parquet.write_table(table, local, schema_name="receipts", version=tables.RECEIPTS_VERSION)
    entry = FileEntry(local.stat().st_size, crc32c_of_file(local), table.num_rows)
    store.put_file(local, name)
    return entry


def _read_segment(store: Store, name: str) -> list[Receipt]:
    """A damaged segment is as good as a lost one: the footers know the same."""
    try:
        with store.opened(name) as path:
            return receipts_from_table(parquet.read_table(path))
    except (DataError, ValueError, KeyError, TypeError):
        return []


def recover(store: Store, shard: int) -> Receipt:
    """The receipt of a finished shard, from its data part's footer and the part's own checksum."""
    name = layout.data_part(shard)
    with store.opened(name) as path:
        text = parquet.footer_metadata(path).get(FOOTER_KEY, "")
        size, checksum = path.stat().st_size, crc32c_of_file(path)
    try:
        receipt = Receipt.from_json(text)
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            "the part's footer holds no receipt",
            where=f"{store.uri}/{name}",
            fix="delete the file and run again; its shard is scored anew",
        ) from error
    entry = FileEntry(size, checksum, receipt.rows_out)
    return replace(receipt, files={**receipt.files, name: entry})


@dataclass(frozen=True)
class Totals:
    """Sums over receipts."""

    shards: int
    records_in: int
    states: Mapping[str, int]
    reasons: Mapping[str, int]
    notes: Mapping[str, int]

    @property
    def rows(self) -> int:
        return sum(self.states.values())

    @classmethod
    def of(cls, receipts: Iterable[Receipt]) -> Totals:
        count, records = 0, 0
        by_state: Counter[str] = Counter()
        by_reason: Counter[str] = Counter()
        by_note: Counter[str] = Counter()
        for receipt in receipts:
            count += 1
            records += receipt.records_in
            by_state.update(receipt.states)
            by_reason.update(receipt.reasons)
            by_note.update(receipt.notes)
        counts = {state: by_state[state] for state in states.states_of(by_state)}
        return cls(count, records, counts, dict(sorted(by_reason.items())), dict(sorted(by_note.items())))
