"""How work is laid out on nodes and devices, and what is said where it cannot be."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import __version__
from engine.errors import InputError, SystemFailure
from engine.io.source import Shard
from engine.runtime.executors import in_process, ray_data
from engine.runtime.executors.processes import Member, Processes
from engine.runtime.install import check_installation, check_node
from engine.runtime.run import Execution
from tests.toys.number_job import run_numbers


@given(st.lists(st.integers(1, 16), min_size=1, max_size=5), st.integers(1, 40))
def test_actors_and_one_read_fit_however_ray_places_them(nodes, workers):
    """Actors fill nodes in the worst order; still some node has room for a read, or the run would wait for ever."""
    try:
        actor, read = ray_data.cpu_shares([float(cpus) for cpus in nodes], workers)
    except InputError:
        assert workers > sum(int((cpus - 0.1) / 0.05) for cpus in nodes)
        return
    assert actor != read, "Ray would fuse the two operators"
    assert workers * actor <= sum(nodes) + 1e-9
    left, room = workers, []
    for cpus in sorted(nodes):
        placed = min(left, int(cpus / actor + 1e-9))
        left -= placed
        room.append(cpus - placed * actor)
    assert left == 0
    assert max(room) >= read - 1e-9


def test_small_machines_and_large_ones():
    assert ray_data.cpu_shares([2.0], 2) == (0.6, 0.4)
    assert ray_data.cpu_shares([1.0, 1.0], 2) == (0.6, 0.4)
    assert ray_data.cpu_shares([64.0], 8) == (1.0, 0.5)
    with pytest.raises(InputError, match="50 workers do not fit on 1 CPUs; ask for fewer --workers"):
        ray_data.cpu_shares([1.0], 50)


def test_each_worker_sees_one_device(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert in_process._devices(3, 2) == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert in_process._devices(3, 2) == ["5", "7", "5"]


class _Pipe:
    def send(self, shard):
        pass

    def send_bytes(self, data):
        pass


@given(st.integers(1, 5), st.integers(0, 12), st.integers(0, 30))
def test_no_batch_waits_behind_another_while_a_scorer_is_idle(workers, encoded, pending):
    pool = in_process._Pool(None, None, deque(_shards(pending)), Processes(), workers=workers)
    pool._scorers = [Member(None, _Pipe()) for _ in range(workers)]
    pool._encoded.extend((shard, b"") for shard in _shards(encoded))
    pool._feed()
    held = [len(scorer.held) for scorer in pool._scorers]
    assert sum(held) + len(pool._encoded) == encoded
    assert max(held) - min(held) <= 1 and max(held) <= in_process._AHEAD
    if encoded >= workers:
        assert min(held) >= 1
    if encoded + pending <= 2 * workers:
        assert max(held) <= 1, "the last ones go to whoever is free first"
    if encoded + pending >= 4 * workers and encoded >= 2 * workers:
        assert min(held) == in_process._AHEAD, "the next batch is there before the last is done"


def _shards(num):
    return [Shard(one, one, one + 1, 1, one, "n", one, "n", one) for one in range(num)]


def test_no_cluster_at_the_address_is_an_input_error(tmp_path, monkeypatch):
    import ray

    def refuse(**arguments):
        raise ConnectionError("Could not find any running Ray instance\nmore")

    (tmp_path / "n.txt").write_text("1\n")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(ray, "shutdown", lambda: None)  # of the cluster that other tests share
    execution = Execution(executor="ray", address="192.0.2.1:6379")
    with pytest.raises(InputError, match=r"192.0.2.1:6379: no Ray cluster answers \(Could not find any running Ray"):
        run_numbers(str(tmp_path / "n.txt"), str(tmp_path / "out"), execution=execution)


def test_a_node_of_another_version_is_refused():
    check_installation()
    check_node(__version__)
    with pytest.raises(InputError, match=rf"this node has replisome {__version__}, the driver has 0.0.0"):
        check_node("0.0.0")


def test_a_stage_that_does_not_open_says_why(tmp_path):
    (tmp_path / "n.txt").write_text("not a number\n")
    with pytest.raises(SystemFailure, match="shard 0: unforeseen ValueError: invalid literal"):
        run_numbers(str(tmp_path / "n.txt"), str(tmp_path / "out"), execution=Execution())
