"""A map over processes gives what Python's own gives, whoever dies; what goes wrong is said."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from engine.errors import DataError, SystemFailure
from engine.io.streams import Mapper
from engine.runtime.executors.ordered_map import PATIENCE_S, ordered_map
from engine.runtime.executors.processes import Processes
from tests.toys import mapped


@contextmanager
def mapped_by(workers: int, *, patience_s: float = PATIENCE_S) -> Iterator[Mapper]:
    with Processes() as processes:
        yield ordered_map(processes, workers, patience_s=patience_s)


def test_results_come_in_order_from_several_processes() -> None:
    with mapped_by(2, patience_s=0) as each:
        slow_first = list(each(mapped.square, range(9)))
        assert slow_first == [n * n for n in range(9)]
        processes = set(each(mapped.process, range(12)))
        assert len(processes) == 2
        assert os.getpid() not in processes
        assert list(each(mapped.square, [])) == []


def test_small_work_starts_no_process() -> None:
    with mapped_by(3, patience_s=60) as each:
        assert set(each(mapped.process, range(5))) == {os.getpid()}
    with mapped_by(1) as each:
        assert each is map


def test_what_is_begun_here_goes_on_elsewhere() -> None:
    here, found = os.getpid(), []
    with mapped_by(2, patience_s=0.01) as each:
        for number, process in each(mapped.slow_process, itertools.count()):
            found.append((number, process))
            if process != here:
                break
    assert [number for number, _ in found] == list(range(len(found)))
    assert len(found) > 1
    assert found[0][1] == here


def test_items_are_asked_for_as_they_are_needed() -> None:
    asked: list[int] = []

    def items():
        for number in range(1000):
            asked.append(number)
            yield number

    with mapped_by(2, patience_s=0) as each:
        results = each(mapped.square, items())
        assert [next(results) for _ in range(3)] == [0, 1, 4]
        assert len(asked) < 20
        results.close()
        assert list(each(mapped.square, range(3))) == [0, 1, 4], "work that nobody waited for is forgotten"


def test_large_items_and_results_pass_both_ways() -> None:
    sent = [bytes([number]) * (3 << 20) for number in range(6)]
    with mapped_by(2, patience_s=0) as each:
        assert list(each(mapped.twice, sent)) == [one + one for one in sent]


def test_a_process_that_is_killed_has_its_items_done_again(tmp_path: Path) -> None:
    with mapped_by(2, patience_s=0) as each:
        found = list(each(partial(mapped.die_once, marker=str(tmp_path / "died")), range(10)))
        assert found == list(range(10))
        assert (tmp_path / "died").exists()
        assert list(each(mapped.square, range(4))) == [0, 1, 4, 9]


def test_processes_that_die_over_the_same_item_are_told() -> None:
    with mapped_by(2, patience_s=0) as each, pytest.raises(SystemFailure, match=r"killed by signal 9 \(3 times\)"):
        list(each(mapped.die, range(3)))


def test_errors_are_those_of_the_function() -> None:
    with mapped_by(2, patience_s=0) as each:
        with pytest.raises(DataError, match="odd"):
            list(each(mapped.refuse_odd, range(4)))
        with pytest.raises(SystemFailure, match="unforeseen ZeroDivisionError"):
            list(each(mapped.inverse, [1, 0]))
        assert list(each(mapped.inverse, [1, 2])) == [1.0, 0.5]


def test_no_process_outlives_a_map_that_is_left_half_way() -> None:
    with mapped_by(2, patience_s=0) as each:
        results = each(mapped.process, itertools.count())  # held on to, as the trace of an error does
        found = {next(results) for _ in range(50)}
        assert all(Path(f"/proc/{process}").exists() for process in found)
    assert not any(Path(f"/proc/{process}").exists() for process in found)
    results.close()


def test_no_process_outlives_its_driver(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from engine.runtime.executors.ordered_map import ordered_map\n"
        "from engine.runtime.executors.processes import Processes\n"
        "from tests.toys import mapped\n"
        "if __name__ == '__main__':\n"
        "    with Processes() as processes:\n"
        "        for process in ordered_map(processes, 2, patience_s=0)(mapped.process, range(10**9)):\n"
        "            print(process, flush=True)\n"
    )
    path = tmp_path / "driver.py"
    path.write_text(script)
    root = str(Path(__file__).parents[3])
    driver = subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}
    )
    assert driver.stdout is not None
    processes = {int(driver.stdout.readline()) for _ in range(50)}
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    driver.stdout.close()
    until = time.monotonic() + 30
    while any(Path(f"/proc/{process}").exists() for process in processes):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_processes_serve_again() -> None:
    with mapped_by(2, patience_s=0) as each:
        first, second = (set(each(mapped.process, range(20))) for _ in range(2))
        assert first == second
        with pytest.raises(DataError):
            list(each(mapped.refuse_odd, [0, 1]))
        assert len(set(each(mapped.process, range(20)))) == 2


def test_one_that_died_while_nobody_used_it_is_not_used_again() -> None:
    with mapped_by(2, patience_s=0) as each:
        for process in set(each(mapped.process, range(20))):
            os.kill(process, signal.SIGKILL)
        time.sleep(0.2)
        assert list(each(mapped.square, range(6))) == [n * n for n in range(6)]


def test_the_time_of_processes_that_serve_on_is_counted() -> None:
    with Processes() as processes:
        each = ordered_map(processes, 2, patience_s=0)
        assert list(each(mapped.busy, [0.3, 0.3])) == [0.3, 0.3]
        assert 0.55 < processes.cpu_seconds() < 30
    assert processes.cpu_seconds() == 0
