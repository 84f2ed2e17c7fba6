"""Killed model processes, and a full disk at every write: the bytes are those of a calm run.

Killed drivers: tests/jobs/test_kill_matrix.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.toys.runs import assert_same_results

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    path = tmp_path_factory.mktemp("numbers") / "numbers.txt"
    path.write_text("".join(f"{n}\n" for n in range(-3, 57)))
    return path


@pytest.fixture(scope="module")
def calm(numbers, tmp_path_factory):
    output = tmp_path_factory.mktemp("calm") / "out"
    assert drive(numbers, output).returncode == 0
    return output


def drive(numbers, output, *, fault: str = "", once: Path | None = None, workers: int = 2):
    environment = os.environ | {"REPLISOME_FAULT": fault, "PYTHONPATH": str(ROOT)}
    environment |= {"REPLISOME_FAULT_ONCE": str(once)} if once else {}
    command = [sys.executable, "-m", "tests.toys.number_job", str(numbers), str(output), "--workers", str(workers)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, timeout=120)


@pytest.mark.parametrize("fault", ["kill@scoring", "kill@before-part", "kill@mid-part", "kill@after-part"])
def test_a_killed_model_process_is_replaced(numbers, calm, tmp_path, fault):
    done = drive(numbers, tmp_path / "out", fault=fault, once=tmp_path / "once")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "once").exists(), "the fault did not strike"
    assert_same_results(tmp_path / "out", calm)


def test_a_shard_that_kills_every_process_ends_the_run(numbers, calm, tmp_path):
    stopped = drive(numbers, tmp_path / "out", fault="kill@scoring", workers=1)
    assert stopped.returncode == 4
    assert "a scorer process was killed by signal 9 (3 times)" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert drive(numbers, tmp_path / "out").returncode == 0
    assert_same_results(tmp_path / "out", calm)


def test_a_full_disk_at_any_write_is_resumable(numbers, calm, tmp_path):
    """The n-th write of the driver, and of a worker, for every n there is."""
    write = 0
    while True:
        write += 1
        output = tmp_path / f"out-{write}"
        token = tmp_path / f"once-{write}"
        stopped = drive(numbers, output, fault=f"enospc@write#{write}", once=token, workers=1)
        if not token.exists():
            assert stopped.returncode == 0
            break
        assert stopped.returncode == 4, (write, stopped.stderr)
        assert "the disk is full; free some space" in stopped.stderr
        assert "Traceback" not in stopped.stderr
        again = drive(numbers, output, workers=1)
        assert again.returncode == 0, again.stderr
        assert_same_results(output, calm)
    assert write > 10
