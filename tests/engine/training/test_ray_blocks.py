"""Packed batches beside those they were made of: the same, and read where they lie."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DataError, SystemFailure
from engine.training._batches import Batch
from engine.training._ray_blocks import Block, Steps, unpacked
from engine.training.kinds.sequences import SequenceInputs

STEPS = Steps(3, 4, 6)


def batch_of(size: int, length: int, seed: int) -> Batch:
    draw = np.random.default_rng(seed)
    tokens = draw.integers(0, 5, (size, length), dtype=np.uint8)
    tokens = tokens[:, ::-1] if seed > 4 else tokens  # in an order of its own in memory
    lengths = draw.integers(1, 1 + max(1, length), size)
    return Batch(SequenceInputs(tokens, lengths), draw.random((size, 2)), draw.integers(0, 99, size), lengths)


def arrays_of(batch: Batch) -> list[np.ndarray]:
    return [*batch.inputs.arrays().values(), batch.targets, batch.records_B, batch.seeds_B]


def over_the_wire(table: pa.Table) -> pa.Table:
    """As another process gets it."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return pa.ipc.open_stream(sink.getvalue()).read_all()


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 70), st.integers(0, 9)), max_size=4))
def test_a_block_comes_out_as_it_went_in(sizes):
    batches = [batch_of(*one) for one in sizes]
    found = list(unpacked(over_the_wire(Block(STEPS, 1, batches).packed()), steps=STEPS, rank=1))
    assert len(found) == len(batches)
    for one, other in zip(found, batches, strict=True):
        for made, wanted in zip(arrays_of(one), arrays_of(other), strict=True):
            assert made.dtype == wanted.dtype
            np.testing.assert_array_equal(made, wanted)


def test_a_block_is_read_from_the_middle_of_a_table():
    tables = [Block(STEPS, rank, [batch_of(3 + rank, 50, rank)]).packed() for rank in range(3)]
    middle = pa.concat_tables(tables).combine_chunks().slice(1, 1)
    (found,) = unpacked(middle, steps=STEPS, rank=1)
    for made, wanted in zip(arrays_of(found), arrays_of(batch_of(4, 50, 1)), strict=True):
        np.testing.assert_array_equal(made, wanted)


def test_arrays_are_not_copied_on_their_way_out():
    table = Block(STEPS, 0, [batch_of(3, 50, 0), batch_of(2, 7, 1)]).packed()
    stored = np.frombuffer(table["data"].chunk(0).buffers()[2], np.uint8)
    for batch in unpacked(table, steps=STEPS, rank=0):
        for array in arrays_of(batch):
            assert np.shares_memory(array, stored)
            assert not array.flags.writeable  # others may read the same memory
            assert (array.__array_interface__["data"][0] - stored.__array_interface__["data"][0]) % 64 == 0


def test_an_error_is_raised_behind_the_steps_before_it():
    error = DataError("the part does not decode", where="part-000000.parquet", fix="restore it")
    left = unpacked(Block(STEPS, 0, [batch_of(2, 5, 0)], error).packed(), steps=STEPS, rank=0)
    assert len(next(left)) == 2
    with pytest.raises(DataError, match=r"part-000000.parquet: the part does not decode"):
        next(left)


@pytest.mark.parametrize(("steps", "rank"), [(Steps(3, 5, 6), 0), (Steps(2, 4, 6), 0), (STEPS, 1)])
def test_a_block_of_other_steps_or_another_worker_is_refused(steps, rank):
    table = Block(STEPS, 0, [batch_of(2, 5, 0)]).packed()
    with pytest.raises(SystemFailure, match=r"gave Steps\(epoch=3, first=4, last=6\) of worker 0 where"):
        next(unpacked(table, steps=steps, rank=rank))
