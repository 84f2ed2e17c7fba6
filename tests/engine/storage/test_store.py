"""The two writes of a store: replace in one step, create only once; full disks and bad places in one sentence."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.errors import InputError, SystemFailure
from engine.storage.store import SCRATCH, open_store


@pytest.fixture(params=["local", "s3"])
def store(request, tmp_path):
    if request.param == "local":
        return open_store(str(tmp_path / "out"))
    return open_store(f"{request.getfixturevalue('s3_bucket')}/run")


def test_put_replaces_and_create_does_not(store):
    store.put("a/b.txt", b"one")
    store.put("a/b.txt", b"two")
    assert store.read("a/b.txt") == b"two"
    assert store.create("a/b.txt", b"three") is False
    assert store.read("a/b.txt") == b"two"
    assert store.create("c.txt", b"four") is True
    assert store.list() == ["a/b.txt", "c.txt"]
    assert store.list("a") == ["a/b.txt"]
    assert store.size("c.txt") == 4


def test_files_move_from_scratch(store):
    local = store.scratch()
    local.write_bytes(b"x" * 1000)
    assert store.create_file(local, "part") is True
    assert not local.exists()
    again = store.scratch()
    again.write_bytes(b"y")
    assert store.create_file(again, "part") is False
    assert not again.exists()
    assert store.fetch("part").read_bytes() == b"x" * 1000
    third = store.scratch()
    third.write_bytes(b"z")
    store.put_file(third, "part")
    assert store.read("part") == b"z"


def test_absent_files(store):
    store.put("here", b"")
    assert not store.exists("gone")
    store.delete("gone")
    with pytest.raises(FileNotFoundError):
        store.read("gone")
    with pytest.raises(FileNotFoundError):
        store.size("gone")


def test_log_survives_reopening(store):
    first = store.append_log("run.log")
    with first.open("a") as stream:
        stream.write("one\n")
    store.keep_log(first, "run.log")
    second = store.append_log("run.log")
    with second.open("a") as stream:
        stream.write("two\n")
    store.keep_log(second, "run.log")
    assert store.read("run.log") == b"one\ntwo\n"


def test_only_one_of_many_creates_wins(tmp_path):
    store = open_store(str(tmp_path))
    barrier = threading.Barrier(8)

    def race(number: int) -> bool:
        barrier.wait()
        return store.create("claim", str(number).encode())

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(race, range(8)))
    assert won.count(True) == 1
    assert store.read("claim") == str(won.index(True)).encode()


def test_full_disk_is_one_sentence_and_leaves_the_old_file(tmp_path, monkeypatch):
    store = open_store(str(tmp_path))
    store.put("kept", b"old")
    monkeypatch.setenv("REPLISOME_FAULT", "enospc@write")
    monkeypatch.setattr("engine.storage.faults._reached", __import__("collections").Counter())
    with pytest.raises(SystemFailure, match="the disk is full; free some space and run the same command again"):
        store.put("kept", b"new")
    assert store.read("kept") == b"old"
    assert list((tmp_path / SCRATCH).iterdir()) == []


def test_output_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    store = open_store(str(tmp_path / "file" / "out"))
    with pytest.raises(InputError, match="cannot write: Not a directory; choose an output folder"):
        store.put("a", b"")


def test_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        open_store(str(tmp_path / "file")).put("a", b"")


def test_unknown_scheme_is_refused():
    with pytest.raises(InputError, match="unknown kind of address 'ftp'; use a local path, s3:// or gs://"):
        open_store("ftp://host/path")
