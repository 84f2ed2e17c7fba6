"""The kills that a table tells of are those that happened."""

from __future__ import annotations

import sys
from argparse import Namespace

import pytest

from benchmarks import panel

# Writes one part after another, waiting before those after the first `at_once`, and takes up where it was killed.
JOB = """
import pathlib, sys, time
folder, shards, at_once = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
(folder / "data/000").mkdir(parents=True, exist_ok=True)
for number in range(shards):
    part = folder / f"data/000/part-{number:06d}.parquet"
    if not part.exists():
        time.sleep(0 if number < at_once else 0.3)
        part.write_bytes(b"x")
sys.exit(int(sys.argv[4]))
"""


def killed_run(monkeypatch, tmp_path, *, kills, at_once=0, code=0):
    argv = [sys.executable, "-c", JOB, str(tmp_path / "killed"), "8", str(at_once), str(code)]
    monkeypatch.setattr(panel, "command", lambda *_: argv)
    return panel.killed_run(tmp_path, Namespace(kills=kills), 8)


def test_every_kill_is_counted_and_the_run_ends(monkeypatch, tmp_path):
    killed = killed_run(monkeypatch, tmp_path, kills=3)
    assert (killed.kills, panel.finished_shards(tmp_path / "killed")) == (3, 8)
    assert 2 <= len(killed.firsts) <= 4
    assert 0 < sum(killed.firsts) <= killed.wall_s


def test_a_run_that_ends_first_is_not_killed(monkeypatch, tmp_path):
    monkeypatch.setattr(panel, "_POLL_S", 2.0)  # it has long ended when it is first looked at
    killed = killed_run(monkeypatch, tmp_path, kills=3, at_once=8)
    assert killed.kills == 0
    assert panel.finished_shards(tmp_path / "killed") == 8


def test_a_run_that_fails_stops_the_benchmark(monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="code 3"):
        killed_run(monkeypatch, tmp_path, kills=0, at_once=8, code=3)
