"""What a job gives the executors: a reader for CPU processes and a scorer for device processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from engine.io.source import Shard


@dataclass(frozen=True)
class ShardOutput:
    """All that a shard leaves behind.

    Attributes:
        table: rows in input order, cast to the job's frozen schema.
        rejects: rows of schemas.tables.REJECTS; may be empty.
        body: bytes of the text output (BGZF blocks without header or end marker), or None where the job has none.
        body_rows: records in `body`.
        records_in: records read.
        reasons: reason code to number of rows not scored.
        states: state to number of rows.
        notes: what voids the byte promise (such as halved batches); empty in a calm run.
        files: further files of this shard, each of one writer: path below the output to bytes.
    """

    table: pa.Table
    rejects: pa.Table
    body: bytes | None
    body_rows: int
    records_in: int
    states: Mapping[str, int]
    reasons: Mapping[str, int]
    notes: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


class Stages(Protocol):
    """Picklable; opened once per process. Both callables are plain functions of their argument.

    Stages with a true attribute `scorer_reads` have a reader that gives the shard as it is: in-process no reader is
    started for them.
    """

    def open_reader(self) -> Callable[[Shard], Any]:
        """CPU stage: read, window, encode. Returns a picklable batch."""
        ...

    def open_scorer(self) -> Callable[[Any], ShardOutput]:
        """Device stage: model, score."""
        ...
