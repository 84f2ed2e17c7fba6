"""The planner's arithmetic: every record in one shard, limits kept, order checked."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError
from engine.io.planning import Planner
from engine.io.source import Scan


def _plan(sizes: list[int], runs: list[int], *, records: int, size: int) -> Scan:
    """Records of the given sizes on one contig, handed over in runs; offsets are ten times stream positions."""
    planner = Planner("x", records_per_shard=records, bytes_per_shard=size, how_to_sort="so")
    marks = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    edges = sorted({0, len(sizes), *(run for run in runs if run < len(sizes))})
    for low, high in itertools.pairwise(edges):
        planner.add("c", list(range(low, high)), marks=marks[low : high + 1], locate=lambda position: 10 * position)
    return planner.finish("d", [])


_sizes = st.lists(st.integers(1, 50), min_size=1, max_size=60)


@given(_sizes, st.lists(st.integers(1, 60), max_size=6), st.integers(1, 9), st.integers(1, 120))
def test_shards_tile_the_records_and_keep_limits(sizes: list[int], runs: list[int], records: int, size: int) -> None:
    scan = _plan(sizes, runs, records=records, size=size)
    done = 0
    for number, shard in enumerate(scan.shards):
        chosen = sizes[done : done + shard.num_records]
        assert (shard.shard, shard.first_record) == (number, done)
        assert (shard.begin, shard.end) == (10 * sum(sizes[:done]), 10 * sum(sizes[: done + len(chosen)]))
        assert (shard.start, shard.last_start) == (done, done + len(chosen) - 1)
        assert 1 <= len(chosen) <= records
        assert sum(chosen) <= size or len(chosen) == 1
        done += len(chosen)
    assert done == len(sizes) == scan.num_records


@given(_sizes, st.lists(st.integers(1, 60), max_size=6), st.integers(1, 9), st.integers(1, 120))
def test_runs_do_not_show(sizes: list[int], runs: list[int], records: int, size: int) -> None:
    assert _plan(sizes, runs, records=records, size=size) == _plan(sizes, [], records=records, size=size)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), max_size=10))
def test_order_is_refused_exactly_where_it_breaks(sites: list[tuple[str, int]]) -> None:
    planner = Planner("x", records_per_shard=3, bytes_per_shard=99, how_to_sort="so")
    broken = _first_break(sites)
    for index, (contig, start) in enumerate(sites):
        marks = np.array([index, index + 1])
        if index == broken:
            words = rf"^x: record {index} .* at {contig}:{start + 1} comes after .*; sort it: so$"
            with pytest.raises(InputError, match=words):
                planner.add(contig, [start], marks=marks, locate=int)
            return
        planner.add(contig, [start], marks=marks, locate=int)
    assert broken is None


def _first_break(sites: list[tuple[str, int]]) -> int | None:
    for index in range(1, len(sites)):
        (contig, start), (former, before) = sites[index], sites[index - 1]
        if (contig == former and start < before) or (contig != former and contig in {c for c, _ in sites[:index]}):
            return index
    return None


def test_lines_that_do_not_parse_are_counted_and_not_compared() -> None:
    planner = Planner("x", records_per_shard=9, bytes_per_shard=99, how_to_sort="so")
    planner.add("c", [5], marks=np.array([0, 1]), locate=int)
    planner.add(None, [None, None], marks=np.array([1, 2, 3]), locate=int)
    planner.add("c", [4 + 1], marks=np.array([3, 4]), locate=int)
    scan = planner.finish("d", [])
    assert (scan.num_records, scan.contigs) == (4, {"c": 2})
    assert scan.shards[0].num_records == 4
