"""The run protocol: a run is a plan, parts and one commit.

with open_run(uri, job=..., context=...) as run:
    run.plan(source, ...)          one streamed pass; a restart takes the plan that is there
    run.freeze(key, spec)          the result key; a folder with another key is refused
    run.execute(stages, ...)       pending shards only
    commit(run, finish, report)    results, report, manifest: written last, created once (commit.py)
"""

from __future__ import annotations

import json
import logging
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import __version__
from engine.errors import DataError, InputError, ReplisomeError
from engine.io.source import Plannable, RawRecord, Scan, Shard
from engine.runtime import layout
from engine.runtime._input_stat import one_or_all, paths_of, stat_of
from engine.runtime._key_differences import refuse_other_key
from engine.runtime._reject_limit import RejectLimit
from engine.runtime._run_log import open_log
from engine.runtime.lock import RunLock
from engine.runtime.parts import PartPublisher
from engine.runtime.plan import read_plan, write_plan
from engine.runtime.progress import Progress, check_mode
from engine.runtime.receipts import Receipt, ReceiptBook, Totals
from engine.runtime.stages import Stages
from engine.storage import faults
from engine.storage.store import Store, full_disk, open_store

if TYPE_CHECKING:
    from engine.runtime.executors.processes import Processes

RUN_FORMAT = 1
_NOTED_VERSIONS = ("numpy", "pyarrow", "torch", "pysam", "ray")


@dataclass(frozen=True)
class RunContext:
    """How a job is run, as opposed to what it computes.

    Attributes:
        progress: auto, bar, plain, json or none.
        debug: show full traces.
        force: score a finished or different run anew; the former manifest is kept.
        command: the command line, for the report.
    """

    progress: str = "auto"
    debug: bool = False
    force: bool = False
    command: str = ""

    def __post_init__(self) -> None:
        check_mode(self.progress)


@dataclass(frozen=True)
class Execution:
    """Which executor, how many workers, on how many CUDA devices of this machine, where. Changes no result."""

    executor: str = "in-process"
    workers: int = 1
    address: str = "local"
    num_devices: int = 0


@dataclass(frozen=True)
class PlanLine:
    """What will happen to one shard, and why."""

    shard: Shard
    action: str
    why: str


@dataclass(frozen=True)
class RunOutcome:
    """What a job leaves: where, how much, and the paths of its results."""

    uri: str
    totals: Totals
    results: Sequence[str]
    already_finished: bool
    manifest: Mapping[str, Any]


@dataclass
class Run:
    """One run directory, held by this driver."""

    store: Store
    job: str
    context: RunContext
    lock: RunLock
    log: logging.Logger
    log_path: Path
    began: float = field(default_factory=time.monotonic)
    shards: list[Shard] = field(default_factory=list)
    contigs: Mapping[str, int] = field(default_factory=dict)
    input_digest: str = ""
    num_records: int = 0
    book: ReceiptBook = field(init=False)
    timings: dict[str, float] = field(default_factory=dict)
    log_sealed: bool = False
    _inputs: dict[str, Any] = field(default_factory=dict)
    _frozen: dict[str, Any] | None = None
    _key: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.book = ReceiptBook(self.store, owner=self.lock.owner)

    # Plan

    def plan(
        self,
        source: Plannable,
        *,
        records_per_shard: int,
        bytes_per_shard: int,
        on_record: Callable[[RawRecord], None] | None = None,
        on_record_limit: int = 0,
    ) -> None:
        """Take up the plan of an earlier driver where the input is unchanged, or read the input once and cut one."""
        self._frozen = None if self.context.force else _read_run(self.store)
        if self._frozen is not None and self._take_up(source):
            return
        began, before = time.monotonic(), stat_of(source)
        scan = source.scan(
            records_per_shard=records_per_shard,
            bytes_per_shard=bytes_per_shard,
            on_record=on_record,
            on_record_limit=on_record_limit,
        )
        self.timings["plan_s"] = time.monotonic() - began
        for note in scan.notes:
            self.warn(note)
        if stat_of(source) != before:
            raise InputError("the input changed while it was read", where=source.path, fix="run again once it is whole")
        self._adopt(scan, source)

    def _take_up(self, source: Plannable) -> bool:
        """True if the input's size, times and inode are those that run.json saw: its plan and digest then stand."""
        assert self._frozen is not None
        seen = self._frozen["input"]
        now = stat_of(source)
        if now != {name: seen[name] for name in now}:
            return False
        self.shards = read_plan(self.store, crc32c=self._frozen["plan_crc32c"])
        self.contigs = dict(self._frozen["contigs"])
        self.num_records = self._frozen["num_records"]
        self.input_digest = seen["digest"]
        self._inputs = seen
        return True

    def _adopt(self, scan: Scan, source: Plannable) -> None:
        self.shards = scan.shards
        if self._frozen is not None and self._frozen["input"]["digest"] == scan.digest:
            # Parts that are there are of the plan that is there, whatever a later version of ours would cut.
            self.shards = read_plan(self.store, crc32c=self._frozen["plan_crc32c"])
        self.contigs = dict(scan.contigs)
        self.num_records = scan.num_records
        self.input_digest = scan.digest
        self._inputs = {"path": one_or_all(paths_of(source)), "digest": scan.digest, **stat_of(source)}

    def warn(self, sentence: str) -> None:
        """Into the log, and before the user's eyes unless all progress is off."""
        self.log.warning(sentence)
        if self.context.progress != "none":
            print(f"replisome: note: {sentence}", file=sys.stderr)

    # Freeze

    @property
    def choices(self) -> Mapping[str, Any]:
        """What an earlier driver of this run chose and `freeze` kept; empty for a run not yet frozen. After `plan`."""
        return {} if self._frozen is None else dict(self._frozen.get("choices", {}))

    def freeze(
        self,
        key: Mapping[str, Any],
        spec: Mapping[str, Any],
        *,
        results: Sequence[str] = (),
        choices: Mapping[str, Any] | None = None,
        only_look: bool = False,
    ) -> None:
        """Fix what this run computes; refuse a folder that holds another run.

        Args:
            key: every setting and digest that can change a result; the input's digest is added.
            spec: as run.json keeps it.
            results: files, and folders ending in "/", that the commit will write; --force removes them.
            choices: what a resumed run takes up as it was rather than chooses anew (see `choices`); plain values.
            only_look: write nothing, for a plan that is only shown.

        Raises:
            InputError: the folder's run has another key, each difference named; or parts without their run.json.
            ValueError: `key` has a name that is added here, under which its setting would be lost.
        """
        own = {"input": self.input_digest, "job": self.job, "format": RUN_FORMAT}
        if taken := sorted(own.keys() & key.keys()):
            raise ValueError(f"a job's result key cannot hold {', '.join(taken)}: the run sets it")
        whole = {**key, **own}
        self._key = json.loads(layout.canonical_json(whole))  # as run.json gives it back: tuples and lists are one
        if self._frozen is not None:
            refuse_other_key(self.store, self._frozen["key"], self._key)
            self.book.load()
            return
        if only_look:
            return
        if self.context.force:
            set_aside(self.store)
        self.book.load()
        if self.book.receipts:
            raise InputError(
                f"{layout.RUN} is missing, and with it what the {len(self.book.receipts):,} parts here are of",
                where=self.store.uri,
                fix="restore it, choose another output, or use --force to score anew",
            )
        self._refuse_foreign(results)
        self._frozen = self._write_frozen(spec, results, choices or {})

    def _refuse_foreign(self, results: Sequence[str]) -> None:
        """A folder that is no run may hold somebody's files under the very names that we would write."""
        names = (*results, layout.FILES, layout.REPORT_JSON, layout.REPORT_HTML)
        there = [name for name in names if self.store.exists(name) or (name[-1] == "/" and self.store.list(name[:-1]))]
        if there:
            raise InputError(
                f"this folder is no run of ours and already holds {', '.join(there)}",
                where=self.store.uri,
                fix="choose another output, or move them away",
            )

    @property
    def result_key(self) -> str:
        """SHA-256 of everything that can change a result."""
        return layout.json_digest(self._key)

    def _write_frozen(
        self, spec: Mapping[str, Any], results: Sequence[str], choices: Mapping[str, Any]
    ) -> dict[str, Any]:
        content = {
            "format": RUN_FORMAT,
            "job": self.job,
            "result_key": self.result_key,
            "key": dict(self._key),
            "spec": dict(spec),
            "results": list(results),
            **({"choices": dict(choices)} if choices else {}),
            "input": self._inputs,
            "contigs": dict(self.contigs),
            "num_records": self.num_records,
            "num_shards": len(self.shards),
            "plan_crc32c": write_plan(self.store, self.shards),
            "versions": noted_versions(),
        }
        self.store.put(layout.RUN, layout.sealed_json(content))
        self.log.info("planned %d records in %d shards", self.num_records, len(self.shards))
        return content

    def lines(self) -> list[PlanLine]:
        """For each shard, whether it will run or be skipped, and why."""
        if self.finished():
            return [PlanLine(shard, "skip", "the run is finished") for shard in self.shards]
        done = self.book.receipts
        return [
            PlanLine(shard, "skip", "its part is published")
            if shard.shard in done
            else PlanLine(shard, "run", "no part is published yet")
            for shard in self.shards
        ]

    def seal_log(self) -> None:
        """Make the log part of the output; it takes no line after this, or its checksum would no longer hold."""
        for handler in self.log.handlers:
            handler.close()
        self.log.handlers = [logging.NullHandler()]
        self.store.keep_log(self.log_path, layout.LOG)
        self.log_sealed = True

    # Execute

    def finished(self) -> bool:
        """True once the manifest is there."""
        return self.store.exists(layout.MANIFEST)

    def execute(
        self,
        stages: Stages,
        *,
        schema_name: str,
        schema_version: int,
        execution: Execution,
        max_reject_fraction: float,
        processes: Processes | None = None,
    ) -> None:
        """Run every shard that has no receipt, in-process by the processes that are there, if any are given.

        Raises:
            RejectLimitError: more rows were rejected than allowed; what is done is kept.
        """
        pending = [shard for shard in self.shards if shard.shard not in self.book.receipts]
        done = self.book.totals()
        self.log.info("%d shards to run, %d already done", len(pending), done.shards)
        publisher = PartPublisher(self.store.uri, schema_name, schema_version, self.lock.owner)
        rejected_before = done.states.get("rejected", 0)
        progress = Progress(
            self.context.progress, total=self.num_records, done=done.records_in, rejected=rejected_before
        )
        limit = RejectLimit(max_reject_fraction, self.num_records, done)

        def on_receipt(receipt: Receipt) -> None:
            self.book.add(receipt)
            rejected = receipt.states.get("rejected", 0)
            progress.add(records=receipt.records_in, rows=receipt.rows_out, rejected=rejected)
            limit.add(receipt)
            faults.reach("between-parts")

        began, cpu = time.monotonic(), _cpu_seconds(processes)
        try:
            limit.check()
            _dispatch(
                stages,
                pending,
                publisher,
                execution=execution,
                processes=processes,
                on_receipt=on_receipt,
                on_wait=progress.show,
            )
        finally:
            self.book.flush()
        self.timings["execute_s"] = time.monotonic() - began
        self.timings["cpu_s"] = _cpu_seconds(processes) - cpu
        self.timings["records_run"] = float(sum(shard.num_records for shard in pending))
        progress.show(final=True)


def _dispatch(
    stages: Stages,
    pending: Sequence[Shard],
    publisher: PartPublisher,
    *,
    execution: Execution,
    processes: Processes | None,
    on_receipt: Callable[[Receipt], None],
    on_wait: Callable[[], None],
) -> None:
    if execution.executor == "ray":
        from engine.runtime.executors import ray_data

        ray_data.run(
            stages,
            pending,
            publisher,
            workers=execution.workers,
            gpus_per_worker=1.0 if execution.num_devices else 0.0,
            address=execution.address,
            on_receipt=on_receipt,
        )
        return
    from engine.runtime.executors import in_process

    in_process.run(
        stages,
        pending,
        publisher,
        workers=execution.workers,
        num_devices=execution.num_devices,
        processes=processes,
        on_receipt=on_receipt,
        on_wait=on_wait,
    )


@contextmanager
def open_run(uri: str, *, job: str, context: RunContext) -> Iterator[Run]:
    """Hold a run directory: lock and log. A finished run is only looked at, unless `force` asks for another."""
    store = open_store(uri)
    finished = store.exists(layout.MANIFEST) and not context.force
    with nullcontext(RunLock(store)) if finished else RunLock(store) as lock:
        finished = store.exists(layout.MANIFEST) and not context.force  # by a driver we waited for
        path = store.append_log(layout.LOG)
        log = open_log(path, quiet=finished)
        if lock.taken_from:
            log.warning("took over from %s, which did not finish", lock.taken_from)
        run = Run(store, job, context, lock, log, path)
        try:
            yield run
        except ReplisomeError as error:
            if finished or lock.is_ours():
                log.error("%s", error)
            raise
        except BaseException as error:
            log.error("stopped: %s", type(error).__name__)
            full = full_disk(error, uri)
            if full is not None:
                raise full from error
            raise
        finally:
            _leave(run, finished=finished)


def set_aside(store: Store) -> None:
    """Remove a run's own files, and nothing else that lies there; its manifest, if it has one, is kept."""
    if store.exists(layout.MANIFEST):
        count = len(store.list(layout.FORMER)) + 1
        store.put(f"{layout.FORMER}/manifest-{count:03d}.json", store.read(layout.MANIFEST))
        store.delete(layout.MANIFEST)
    for folder in layout.OWN_FOLDERS:
        for name in store.list(folder):
            if layout.is_part(name) or layout.is_segment(name):
                store.delete(name)
    if store.exists(layout.RUN):
        for name in (*_results(store), *layout.OWN_FILES):
            store.delete(name)


def _results(store: Store) -> list[str]:
    """Result files of the run that run.json tells of; a damaged one tells of none."""
    try:
        named = [str(name) for name in layout.read_sealed(store, layout.RUN)["results"]]
    except (FileNotFoundError, DataError, KeyError, TypeError):
        return []
    inside = [name for name in named if not name.startswith("/") and ".." not in name.split("/")]
    folders = [file for name in inside if name.endswith("/") for file in store.list(name.rstrip("/"))]
    return [*(name for name in inside if not name.endswith("/")), *folders]


def _leave(run: Run, *, finished: bool) -> None:
    """Keep the log, remove what was left half done; what is finished stays untouched."""
    for handler in run.log.handlers:
        handler.close()
    with suppress(OSError, ReplisomeError):
        if not finished and not run.log_sealed and run.lock.is_ours():
            run.store.keep_log(run.log_path, layout.LOG)
        if finished or run.lock.is_ours():
            run.store.clear_scratch()


def _read_run(store: Store) -> dict[str, Any] | None:
    try:
        return layout.read_sealed(store, layout.RUN)
    except FileNotFoundError:
        return None


def _cpu_seconds(processes: Processes | None) -> float:
    """CPU seconds of this process, of its children that have ended, and of those that serve on."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    return ended + (processes.cpu_seconds() if processes is not None else 0.0)


def noted_versions() -> dict[str, str]:
    """Versions worth knowing later; not part of the result key."""
    found = {"replisome": __version__, "python": platform.python_version()}
    for name in _NOTED_VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
