"""A job small enough to count by hand, on the whole run protocol: one number a line, squared.

Even numbers are scored, numbers divisible by 10 are not applicable, negative ones are rejected. Run as a program it
is one driver: ``python -m tests.toys.number_job NUMBERS.txt OUT --workers 2``.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pyarrow as pa

from engine.errors import ReplisomeError
from engine.genome.variants import VariantRecord
from engine.io import bgzf
from engine.io.source import RawRecord, Scan, Shard
from engine.runtime import commit as committing
from engine.runtime.run import Execution, RunContext, RunOutcome, open_run
from engine.runtime.stages import ShardOutput
from schemas import tables

SCHEMA = pa.schema([pa.field("record", pa.int64()), pa.field("square", pa.int64()), pa.field("state", pa.string())])


class NumberSource:
    """Lines of a text file; shards are byte ranges."""

    header = b""

    def __init__(self, path: str) -> None:
        self.path = path

    def scan(self, *, records_per_shard: int, bytes_per_shard: int, on_record=None, on_record_limit=0) -> Scan:
        data = Path(self.path).read_bytes()
        lines = data.splitlines(keepends=True)
        shards, begin = [], 0
        for first in range(0, len(lines), records_per_shard):
            some = lines[first : first + records_per_shard]
            end = begin + sum(map(len, some))
            shards.append(Shard(len(shards), begin, end, len(some), first, "n", first, "n", first + len(some) - 1))
            begin = end
        return Scan(shards, len(lines), hashlib.sha256(data).hexdigest(), {"n": len(lines)})

    def read(self, shard: Shard) -> list[RawRecord]:
        lines = Path(self.path).read_bytes()[shard.begin : shard.end].splitlines()
        return [
            RawRecord(shard.first_record + i, line, VariantRecord("n", i, ".", "A", ())) for i, line in enumerate(lines)
        ]


@dataclass(frozen=True)
class NumberStages:
    path: str
    fail_on: int | None = None

    def open_reader(self) -> Callable[[Shard], list[tuple[int, int]]]:
        source = NumberSource(self.path)
        return lambda shard: [(raw.ordinal, int(raw.line)) for raw in source.read(shard)]

    def open_scorer(self) -> Callable[[list[tuple[int, int]]], ShardOutput]:
        return self._score

    def _score(self, batch: list[tuple[int, int]]) -> ShardOutput:
        if self.fail_on in [number for _, number in batch]:
            raise ValueError(f"cannot square {self.fail_on}")
        states = ["rejected" if n < 0 else "not_applicable" if n % 10 == 0 else "scored" for _, n in batch]
        table = pa.table([[o for o, _ in batch], [n * n for _, n in batch], states], schema=SCHEMA)
        refused = [
            {"record": o, "alt_index": 0, "reason": "negative", "sentence": f"{n} < 0", "text": str(n)}
            for o, n in batch
            if n < 0
        ]
        body = bgzf.compress("".join(f"{n * n}\n" for _, n in batch).encode())
        return ShardOutput(
            table=table,
            rejects=pa.Table.from_pylist(refused, schema=tables.REJECTS),
            body=body,
            body_rows=len(batch),
            records_in=len(batch),
            states=dict(Counter(states)),
            reasons={"negative": len(refused)} if refused else {},
        )


def run_numbers(
    path: str,
    output: str,
    *,
    execution: Execution,
    records_per_shard: int = 10,
    max_reject_fraction: float = 1.0,
    fail_on: int | None = None,
    power: int = 2,
    force: bool = False,
) -> RunOutcome:
    context = RunContext(progress="none", force=force)
    with open_run(output, job="numbers", context=context) as run:
        run.plan(NumberSource(path), records_per_shard=records_per_shard, bytes_per_shard=1 << 20)
        run.freeze({"power": power, "records_per_shard": records_per_shard}, {"input": path})
        if run.finished():
            return committing.finished_outcome(run)
        run.execute(
            NumberStages(path, fail_on),
            schema_name="numbers",
            schema_version=1,
            execution=execution,
            max_reject_fraction=max_reject_fraction,
        )

        def finish(parts, store):
            local = store.scratch()
            local.write_bytes(b"".join(parts.bodies()) + bgzf.EOF)
            store.put_file(local, "squares.gz")
            return {"squares.gz": run.num_records}

        def report(parts, totals, timings):
            total = sum(sum(table["square"].to_pylist()) for table in parts.tables())
            return committing.Report(f"<p>{total}</p>", {"sum": total, "timings": dict(timings)})

        return committing.commit(run, finish=finish, report=report, facts={"power": power})


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("numbers")
    parser.add_argument("output")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--executor", default="in-process")
    parser.add_argument("--fail-on", type=int)
    arguments = parser.parse_args()
    execution = Execution(executor=arguments.executor, workers=arguments.workers)
    try:
        outcome = run_numbers(arguments.numbers, arguments.output, execution=execution, fail_on=arguments.fail_on)
    except ReplisomeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print("nothing to do" if outcome.already_finished else "done")
    return 0


if __name__ == "__main__":
    # By its own name, so that its classes unpickle in other processes.
    sys.exit(import_module("tests.toys.number_job").main())
