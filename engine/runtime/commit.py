"""The one commit: receipts prove completeness, results are joined from checked parts, the manifest comes last.

Whatever differs between two runs of one plan (times, paths, hosts, worker counts, the log) is sealed by report.json;
the manifest and files.parquet hold only what is the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine.errors import DataError, SystemFailure
from engine.io import parquet
from engine.runtime import layout
from engine.runtime.lock import forget_dead
from engine.runtime.receipts import FileEntry, Receipt, Totals, receipts_from_table, write_receipts
from engine.runtime.run import Run, RunOutcome, noted_versions
from engine.storage import faults
from engine.storage.checksums import crc32c, crc32c_of_file
from engine.storage.store import Store, open_store
from schemas import tables

MANIFEST_FORMAT = 1
_SIDECARS = (layout.RUN, layout.LOG, layout.REPORT_HTML)


@dataclass(frozen=True)
class Report:
    """The page and the numbers on it."""

    html: str
    content: Mapping[str, Any]


@dataclass(frozen=True)
class PartFile:
    """The data table of a finished part, read wherever it is needed; picklable."""

    uri: str
    name: str
    crc32c: int

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Its rows, of these columns or all, the file's checksum checked before it is decoded."""
        with open_store(self.uri).opened(self.name) as path:
            return parquet.read_table(path, columns, crc32c=self.crc32c)


class Parts:
    """Checked access to the finished parts of a run, in shard order."""

    def __init__(self, store: Store, receipts: Iterable[Receipt]) -> None:
        self._store = store
        self._receipts = sorted(receipts, key=lambda receipt: receipt.shard)

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Data tables one at a time, of these columns or all, each file's checksum checked before it is decoded."""
        for file in self.files():
            yield file.read(columns)

    def files(self) -> list[PartFile]:
        """The data tables' files."""
        names = [(layout.data_part(receipt.shard), receipt) for receipt in self._receipts]
        return [PartFile(self._store.uri, name, receipt.files[name].crc32c) for name, receipt in names]

    def check_rejects(self) -> None:
        """No result is made from rejects, so nothing else would see damage before the commit seals them.

        Raises:
            DataError: a part is not what was written.
        """
        for receipt in self._receipts:
            name = layout.rejects_part(receipt.shard)
            if name in receipt.files:
                read_checked(self._store, name, receipt.files[name])

    def check_files(self, prefix: str) -> set[str]:
        """Names of the files that shards wrote themselves below a folder, each checked against its receipt.

        Raises:
            DataError: one is not what was written.
        """
        names: set[str] = set()
        for receipt in self._receipts:
            for name, entry in receipt.files.items():
                if not name.startswith(prefix):
                    continue
                names.add(name)
                try:
                    with self._store.opened(name) as path:
                        intact = path.stat().st_size == entry.bytes and crc32c_of_file(path) == entry.crc32c
                except FileNotFoundError:
                    intact = False
                if not intact:
                    raise DataError(
                        "the file is missing or damaged (its checksum differs from the one it was written with)",
                        where=f"{self._store.uri}/{name}",
                        fix=f"delete {layout.data_part(receipt.shard)} and run again; what it held is made anew",
                    )
        return names

    def bodies(self) -> Iterator[bytes]:
        """Text bodies, checked."""
        for receipt in self._receipts:
            name = layout.body_part(receipt.shard)
            yield read_checked(self._store, name, receipt.files[name])


def read_checked(store: Store, name: str, entry: FileEntry) -> bytes:
    """A file's bytes, or DataError if they are not those that were written."""
    try:
        data = store.read(name)
    except FileNotFoundError:
        data = b""
    if len(data) != entry.bytes or crc32c(data) != entry.crc32c:
        part = layout.data_part(layout.shard_of(name)) if "/part-" in name else name
        raise DataError(
            "the file is damaged (its checksum differs from the one it was written with)",
            where=f"{store.uri}/{name}",
            fix=f"delete {part} and run again; what it held is made anew",
        )
    return data


def commit(
    run: Run,
    *,
    finish: Callable[[Parts, Store], Mapping[str, int]],
    report: Callable[[Parts, Totals, Mapping[str, float]], Report],
    facts: Mapping[str, Any],
) -> RunOutcome:
    """Finish a run whose shards all have receipts.

    Args:
        finish: writes the result files and returns their names with the rows each holds (-1: not a table).
        report: makes the report from the parts.
        facts: what the manifest tells beside counts and files: digests and licences, no time, host or path.

    Raises:
        SystemFailure: a shard has no receipt, or the counts do not add up.
        DataError: a part is damaged.
    """
    began = time.monotonic()
    run.lock.check()
    receipts = _complete(run)
    totals = Totals.of(receipts)
    parts = Parts(run.store, receipts)
    parts.check_rejects()
    entries = {layout.PLAN: _entry_of(run.store, layout.PLAN, len(run.shards))}
    for receipt in receipts:
        entries.update(receipt.files)
    entries[layout.ALL_RECEIPTS] = write_receipts(run.store, layout.ALL_RECEIPTS, receipts)
    results = finish(parts, run.store)
    run.lock.check()
    for name, rows in results.items():
        entries[name] = _entry_of(run.store, name, rows)
    run.timings["commit_s"] = time.monotonic() - began
    run.timings["total_s"] = time.monotonic() - run.began
    _write_report(run, report(parts, totals, run.timings))
    manifest = _manifest(run, totals, entries, list(results), facts)
    faults.reach("before-manifest")
    run.lock.check()
    if not run.store.create(layout.MANIFEST, layout.sealed_json(manifest)):
        raise SystemFailure("another driver committed this run first", where=run.store.uri, fix="nothing was lost")
    faults.reach("after-manifest")
    tidy(run.store)
    return RunOutcome(run.store.uri, totals, list(results), False, manifest)


def commit_results(
    run: Run, results: Mapping[str, int], *, result_key: str, facts: Mapping[str, Any], sidecars: Sequence[str]
) -> None:
    """Finish a run without shards, such as a training.

    Args:
        run: held by this driver.
        results: names of the files that are its result, with the rows each holds (-1: not a table).
        result_key: digest of all that can change them.
        facts: what the manifest tells beside files: no time, host or path.
        sidecars: files that may hold times, sealed by report.json beside run.json and the log.

    Raises:
        SystemFailure: another driver was first.
    """
    run.lock.check()
    entries = {name: _entry_of(run.store, name, rows) for name, rows in results.items()}
    run.log.info("committing %d files", len(entries))
    run.seal_log()
    _seal(run, {"command": run.context.command}, (layout.RUN, layout.LOG, *sidecars))
    files = _write_files(run.store, entries)
    manifest = {
        "format": MANIFEST_FORMAT,
        "job": run.job,
        "result_key": result_key,
        "facts": dict(facts),
        "results": sorted(results),
        "files": {"path": layout.FILES, "bytes": files.bytes, "crc32c": files.crc32c, "rows": files.rows},
    }
    faults.reach("before-manifest")
    run.lock.check()
    if not run.store.create(layout.MANIFEST, layout.sealed_json(manifest)):
        raise SystemFailure("another driver committed this run first", where=run.store.uri, fix="nothing was lost")
    faults.reach("after-manifest")


def finished_outcome(run: Run) -> RunOutcome:
    """The outcome of a run that is finished already; nothing is computed."""
    manifest = layout.read_sealed(run.store, layout.MANIFEST)
    _check_results(run.store, manifest)
    if not run.lock.is_ours():
        forget_dead(run.store)
    tidy(run.store)
    return RunOutcome(run.store.uri, Totals(**manifest["totals"]), manifest["results"], True, manifest)


def _check_results(store: Store, manifest: Mapping[str, Any]) -> None:
    """A look, not a check of every byte: nobody should be told "finished" over results that are gone."""
    files = committed_files(store, manifest)
    for name in manifest["results"]:
        if not store.exists(name) or store.size(name) != files[name].bytes:
            raise DataError(
                f"{name} of this finished run is missing or cut",
                where=store.uri,
                fix="restore it, or score anew with --force; `replisome verify` checks all of it",
            )


def tidy(store: Store) -> None:
    """Remove what only an unfinished run needs."""
    for name in store.list(layout.RECEIPTS):
        if layout.is_segment(name) and name != layout.ALL_RECEIPTS:
            store.delete(name)
    store.clear_scratch()


def _complete(run: Run) -> list[Receipt]:
    """Every shard of the plan exactly once, and every record in."""
    receipts = run.book.receipts
    missing = [shard.shard for shard in run.shards if shard.shard not in receipts]
    foreign = receipts.keys() - {shard.shard for shard in run.shards}
    if foreign:
        raise DataError(
            f"{len(foreign)} parts belong to no shard of the plan (first: {layout.data_part(min(foreign))})",
            where=run.store.uri,
            fix="remove them, or use --force to score anew",
        )
    if missing:
        raise SystemFailure(
            f"{len(missing)} shards have no receipt (first: {missing[0]})",
            where=run.store.uri,
            fix="run again to finish what is missing",
        )
    wrong = [shard.shard for shard in run.shards if receipts[shard.shard].records_in != shard.num_records]
    if wrong:
        raise SystemFailure(
            f"shard {wrong[0]} does not hold the records that the plan gives it",
            where=run.store.uri,
            fix="run again with --force",
        )
    return [receipts[shard.shard] for shard in run.shards]


def _entry_of(store: Store, name: str, rows: int) -> FileEntry:
    with store.opened(name) as path:
        return FileEntry(path.stat().st_size, crc32c_of_file(path), rows)


def _write_report(run: Run, report: Report) -> None:
    """report.html, then report.json, which seals the files that hold times and paths."""
    run.store.put(layout.REPORT_HTML, report.html.encode())
    run.log.info("committing %d shards", len(run.shards))
    run.seal_log()
    _seal(run, report.content, _SIDECARS)


def _seal(run: Run, content: Mapping[str, Any], names: Iterable[str]) -> None:
    sidecars = {}
    for name in names:
        data = run.store.read(name)
        sidecars[name] = {"bytes": len(data), "crc32c": crc32c(data)}
    content = {**content, "sidecars": sidecars, "versions": noted_versions()}
    run.store.put(layout.REPORT_JSON, layout.sealed_json(content))


def _manifest(
    run: Run, totals: Totals, entries: Mapping[str, FileEntry], results: Sequence[str], facts: Mapping[str, Any]
) -> dict[str, Any]:
    files = _write_files(run.store, entries)
    return {
        "format": MANIFEST_FORMAT,
        "job": run.job,
        "result_key": run.result_key,
        "facts": dict(facts),
        "num_shards": len(run.shards),
        "num_records": run.num_records,
        "totals": {
            "shards": totals.shards,
            "records_in": totals.records_in,
            "states": dict(totals.states),
            "reasons": dict(totals.reasons),
            "notes": dict(totals.notes),
        },
        "results": list(results),
        "files": {"path": layout.FILES, "bytes": files.bytes, "crc32c": files.crc32c, "rows": files.rows},
    }


def _write_files(store: Store, entries: Mapping[str, FileEntry]) -> FileEntry:
    names = sorted(entries)
    table = pa.table(
        {
            "path": names,
            "kind": [_kind(name) for name in names],
            "bytes": [entries[name].bytes for name in names],
            "crc32c": [entries[name].crc32c for name in names],
            "rows": [None if entries[name].rows < 0 else entries[name].rows for name in names],
        },
        schema=tables.FILES,
    )
    local: Path = store.scratch()
    parquet.write_table(table, local, schema_name="files", version=tables.FILES_VERSION)
    entry = FileEntry(local.stat().st_size, crc32c_of_file(local), table.num_rows)
    store.put_file(local, layout.FILES)
    return entry


def _kind(name: str) -> str:
    folder = name.partition("/")[0] if "/" in name else ""
    if name == layout.PLAN:
        return "plan"
    return folder if folder in ("data", "rejects", "vcf", "receipts") else "result"


def committed_receipts(store: Store, manifest: Mapping[str, Any]) -> list[Receipt]:
    """Receipts of a finished run, checked through files.parquet."""
    files = committed_files(store, manifest)
    with store.opened(layout.ALL_RECEIPTS) as path:
        return receipts_from_table(parquet.read_table(path, crc32c=files[layout.ALL_RECEIPTS].crc32c))


def committed_files(store: Store, manifest: Mapping[str, Any]) -> dict[str, FileEntry]:
    """files.parquet of a finished run, checked through the manifest."""
    with store.opened(layout.FILES) as path:
        table = parquet.read_table(path, crc32c=manifest["files"]["crc32c"])
    return {
        row["path"]: FileEntry(row["bytes"], row["crc32c"], -1 if row["rows"] is None else row["rows"])
        for row in table.to_pylist()
    }
