"""A run's blocks: each step once and in its order, no more made than are soon taken, nobody left waiting."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.training._ray_blocks import Steps
from engine.training._ray_stream import Cut, Stopped, Stream

SMALL = st.integers(1, 7)


@given(SMALL, SMALL, st.integers(0, 3), st.integers(0, 8), st.integers(0, 4))
def test_a_cut_has_every_step_once_and_in_order(num_steps, size, epoch, step, epochs):
    cut = Cut(num_steps, size, epoch, step, epochs)
    blocks = [cut[number] for number in range(len(cut))]
    found = [(one.epoch, step) for one in blocks for step in range(one.first, one.last)]
    every = [(epoch, step) for epoch in range(epochs) for step in range(num_steps)]
    assert found == [place for place in every if place >= (epoch, step)]
    assert all(0 < one.last - one.first <= size for one in blocks)
    begins = {(one.epoch, one.first): number for number, one in enumerate(blocks)}
    for place in [(e, s) for e in range(epochs + 2) for s in range(num_steps + size + 1)]:
        assert cut.number_of(*place) == begins.get(place)
    for wrong in (-1, len(cut)):
        with pytest.raises(IndexError, match=f"block {wrong} of {len(cut)}"):
            cut[wrong]


@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 3), st.integers(1, 12))
def test_workers_take_all_shares_and_none_is_made_long_before(num_workers, readers, further, num_blocks):
    ahead = readers + further
    stream = Stream(Cut(num_blocks, 1, 0, 0, 1), num_workers, ahead)
    taken, most = [0] * num_workers, []
    done = [threading.Event() for _ in range(num_blocks + 1)]
    done[0].set()

    def read(number: int) -> None:
        assert stream.turn(number)
        most.append(number - min(taken))
        done[number].wait()  # Ray Data hands them on in their order
        for rank in range(num_workers):
            stream.give((number, rank))
        done[number + 1].set()

    def work(rank: int) -> list[tuple[int, int]]:
        found = []
        for number in range(num_blocks):
            assert stream.is_next(rank, number)
            found.append(stream.take(rank, number))
            taken[rank] += 1
        return found

    with ThreadPoolExecutor(readers) as reading, ThreadPoolExecutor(num_workers) as working:
        reads = [reading.submit(read, number) for number in range(num_blocks)]
        works = [working.submit(work, rank) for rank in range(num_workers)]
        assert [one.result() for one in works] == [
            [(n, rank) for n in range(num_blocks)] for rank in range(num_workers)
        ]
        assert [one.result() for one in reads] == [None] * num_blocks
    assert max(most) <= ahead  # a worker counts its own a moment after the stream does
    assert not stream._shares


def test_the_next_epoch_is_begun_before_this_one_has_ended():
    stream = Stream(Cut(2, 1, 0, 0, 2), num_workers=1, ahead=2)
    with ThreadPoolExecutor(1) as reading:
        third = reading.submit(stream.turn, 2)
        for number in (0, 1):
            assert stream.turn(number)
            stream.give(number)
        assert not third.done()  # it would be the third that nobody has taken
        assert stream.take(0, 0) == 0
        assert third.result()
    assert stream.cut[2] == Steps(1, 0, 1)
    assert stream.is_next(0, 1)  # and the last of the first epoch is still there


def test_who_waits_at_a_stream_is_let_go_when_it_ends():
    stream = Stream(Cut(9, 1, 0, 0, 1), num_workers=1, ahead=1)
    with ThreadPoolExecutor(2) as waiting:
        reads, takes = waiting.submit(stream.turn, 5), waiting.submit(stream.take, 0, 0)
        stream.close()
        assert reads.result() is False
        with pytest.raises(Stopped, match="nobody waits"):
            takes.result()
    stream.give("late")
    assert stream.is_closed
    assert not stream._shares
    assert not stream.is_next(0, 0)


def test_what_a_stream_failed_with_is_told_behind_what_was_there():
    stream = Stream(Cut(9, 1, 0, 0, 1), num_workers=2, ahead=2)
    stream.give("a")
    stream.fail(ValueError("the store is full"))
    assert stream.take(0, 0) == "a"
    with pytest.raises(ValueError, match="the store is full"):
        stream.take(1, 0)
