"""Batches on their way through Ray: a table of one row, whose arrays are written once and read where they lie.

Arrays leave the pickle (protocol 5) for one column of plain bytes. Ray keeps a table in shared memory, so a worker of
the same machine reads pixels there without a copy; what it gets cannot be written to.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from engine.errors import ReplisomeError, SystemFailure
from engine.training._batches import Batch

# Where arrays begin: torch's and NumPy's kernels like whole cache lines.
_ALIGNED = 64


@dataclass(frozen=True)
class Steps:
    """The steps first to last - 1 of an epoch."""

    epoch: int
    first: int
    last: int


@dataclass(frozen=True)
class Block:
    """What one worker takes of some steps.

    Attributes:
        steps: which.
        rank: of the worker.
        batches: one for each step, or those before the step that failed.
        error: why it did.
    """

    steps: Steps
    rank: int
    batches: Sequence[Batch]
    error: ReplisomeError | None = None

    def packed(self) -> pa.Table:
        """As a table; its arrays are copied once."""
        told, arrays = [], []
        for batch in self.batches:
            own: list[pickle.PickleBuffer] = []
            told.append((pickle.dumps(batch, protocol=5, buffer_callback=own.append), len(own)))
            arrays += [one.raw() for one in own]
        ends = np.cumsum([0, *(-(-one.nbytes // _ALIGNED) * _ALIGNED for one in arrays)])
        data = np.empty(int(ends[-1]), np.uint8)
        for begin, one in zip(ends.tolist(), arrays, strict=False):
            data[begin : begin + one.nbytes] = one
        places = [(begin, one.nbytes) for begin, one in zip(ends.tolist(), arrays, strict=False)]
        rest = pickle.dumps((self.steps, self.rank, told, places, self.error), protocol=5)
        bounds = pa.py_buffer(np.array([0, len(data)], np.int64))
        column = pa.Array.from_buffers(pa.large_binary(), 1, [None, bounds, pa.py_buffer(data)])
        return pa.table({"told": pa.array([rest], pa.large_binary()), "data": column})


def unpacked(table: pa.Table, *, steps: Steps, rank: int) -> Iterator[Batch]:
    """The batches of a packed block, one by one.

    Raises:
        ReplisomeError: what a step of it failed with, at its turn.
        SystemFailure: it is not the one that was asked for.
    """
    found, its_rank, told, places, error = pickle.loads(table["told"][0].as_buffer())
    if (found, its_rank) != (steps, rank):
        raise SystemFailure(
            f"Ray Data gave {found} of worker {its_rank} where {steps} of worker {rank} was due",
            where="ray",
            fix="run again; it goes on at the last checkpoint",
        )
    column = table["data"].chunk(0)
    _, bounds, whole = column.buffers()
    begin, end = np.frombuffer(bounds, np.int64)[column.offset : column.offset + 2].tolist()
    data = memoryview(whole or b"").toreadonly()[begin:end]
    left = iter(places)
    for text, count in told:
        yield _loaded(text, [data[begin : begin + size] for begin, size in (next(left) for _ in range(count))])
    if error is not None:
        raise error


def _loaded(text: bytes, arrays: list[memoryview]) -> Batch:
    batch: Any = pickle.loads(text, buffers=arrays)
    assert isinstance(batch, Batch)
    return batch
