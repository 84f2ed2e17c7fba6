"""One writer per run: the living are left alone, the dead are succeeded, zombies publish nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from engine.errors import InputError, SystemFailure
from engine.runtime import layout
from engine.runtime.lock import RunLock, check_owner
from engine.storage.store import open_store


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path))


def test_a_second_driver_is_refused_by_name(store):
    with RunLock(store), pytest.raises(InputError, match=r"another driver is at work: \S+ process \d+"), RunLock(store):
        pass


def test_nothing_is_left_after_release(store):
    with RunLock(store) as lock:
        assert lock.epoch == 1
    assert store.list() == []


def test_a_dead_driver_is_succeeded_at_once(store, tmp_path):
    body = (
        "import os, sys\n"
        "from engine.runtime.lock import RunLock\n"
        "from engine.storage.store import open_store\n"
        "RunLock(open_store(sys.argv[1])).__enter__()\n"
        "os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", body, str(tmp_path)])
    with RunLock(store) as lock:
        assert lock.epoch == 2
        assert "process" in lock.taken_from
        check_owner(store, lock.owner)


def test_a_zombie_publishes_nothing_whatever_the_epochs(store):
    """A is cut off, B takes over and ends, C starts anew: A must not take C's run for its own."""
    first = RunLock(store)
    first.__enter__()
    store.delete(layout.LOCK)
    for name in store.list(layout.CLAIMS):
        store.delete(name)
    with RunLock(store) as third:
        assert third.epoch == first.epoch
        assert not first.is_ours()
        with pytest.raises(SystemFailure, match="no longer ours; it belongs to"):
            check_owner(store, first.owner)
        first.__exit__()
        assert third.is_ours()


def _told_by_another_machine(store, *, heartbeat: float) -> None:
    with RunLock(store):
        content = json.loads(store.read(layout.LOCK))
    content["owner"] |= {"place": "another boot", "name": "other process 1"}
    content["heartbeat"] = heartbeat
    store.put(layout.LOCK, layout.canonical_json(content))


def test_another_machine_is_believed_until_its_lease_ends(store):
    _told_by_another_machine(store, heartbeat=time.time() - 30)
    with pytest.raises(InputError, match=r"another driver is at work: other process 1.*lease of 60 s"), RunLock(store):
        pass
    store.delete(layout.LOCK)
    _told_by_another_machine(store, heartbeat=time.time() - 61)
    with RunLock(store) as lock:
        assert lock.epoch == 2


def test_a_takeover_stops_the_former_driver(store):
    with RunLock(store) as lock:
        content = json.loads(store.read(layout.LOCK)) | {"epoch": 7}
        content["owner"] |= {"id": "another"}
        store.put(layout.LOCK, layout.canonical_json(content))
        with pytest.raises(SystemFailure, match="no longer ours"):
            lock.check()
    assert store.exists(layout.LOCK), "the former driver must not remove its successor's lock"


def test_a_torn_lock_file_does_not_block(store):
    store.put(layout.LOCK, b"{")
    with RunLock(store) as lock:
        assert lock.epoch == 1


def test_the_heart_beats(store):
    with RunLock(store, lease_s=0.2):
        first = json.loads(store.read(layout.LOCK))["heartbeat"]
        while json.loads(store.read(layout.LOCK))["heartbeat"] == first:
            time.sleep(0.01)  # the test's own time limit ends this if it never beats
        assert json.loads(store.read(layout.LOCK))["heartbeat"] > first
