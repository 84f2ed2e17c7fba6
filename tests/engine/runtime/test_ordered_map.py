"""A map over processes gives what Python's own gives, whoever dies; what goes wrong is said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from engine.errors import DataError, SystemFailure
from engine.runtime.executors.ordered_map import ordered_map
from tests.toys import mapped


def test_results_come_in_order_from_several_processes() -> None:
    with ordered_map(2, patience_s=0) as each:
        slow_first = list(each(mapped.square, range(9)))
        assert slow_first == [n * n for n in range(9)]
        processes = set(each(mapped.process, range(12)))
        assert len(processes) == 2
        assert os.getpid() not in processes
        assert list(each(mapped.square, [])) == []


def test_small_work_starts_no_process() -> None:
    with ordered_map(3, patience_s=60) as each:
        assert set(each(mapped.process, range(5))) == {os.getpid()}
    with ordered_map(1) as each:
        assert each is map


def test_what_is_begun_here_goes_on_elsewhere() -> None:
    with ordered_map(2, patience_s=0.05) as each:
        found = list(each(mapped.slow_process, range(12)))
    assert [number for number, _ in found] == list(range(12))
    processes = [process for _, process in found]
    here = processes.count(os.getpid())
    assert 1 <= here < 12
    assert processes[:here] == [os.getpid()] * here


def test_items_are_asked_for_as_they_are_needed() -> None:
    asked: list[int] = []

    def items():
        for number in range(1000):
            asked.append(number)
            yield number

    with ordered_map(2, patience_s=0) as each:
        results = each(mapped.square, items())
        assert [next(results) for _ in range(3)] == [0, 1, 4]
        assert len(asked) < 20
        results.close()
        assert list(each(mapped.square, range(3))) == [0, 1, 4], "work that nobody waited for is forgotten"


def test_large_items_and_results_pass_both_ways() -> None:
    sent = [bytes([number]) * (3 << 20) for number in range(6)]
    with ordered_map(2, patience_s=0) as each:
        assert list(each(mapped.twice, sent)) == [one + one for one in sent]


def test_a_process_that_is_killed_has_its_items_done_again(tmp_path: Path) -> None:
    with ordered_map(2, patience_s=0) as each:
        found = list(each(partial(mapped.die_once, marker=str(tmp_path / "died")), range(10)))
        assert found == list(range(10))
        assert (tmp_path / "died").exists()
        assert list(each(mapped.square, range(4))) == [0, 1, 4, 9]


def test_processes_that_die_over_the_same_item_are_told() -> None:
    with ordered_map(2, patience_s=0) as each, pytest.raises(SystemFailure, match=r"killed by signal 9 \(3 times\)"):
        list(each(mapped.die, range(3)))


def test_errors_are_those_of_the_function() -> None:
    with ordered_map(2, patience_s=0) as each:
        with pytest.raises(DataError, match="odd"):
            list(each(mapped.refuse_odd, range(4)))
        with pytest.raises(SystemFailure, match="unforeseen ZeroDivisionError"):
            list(each(mapped.inverse, [1, 0]))
        assert list(each(mapped.inverse, [1, 2])) == [1.0, 0.5]


def test_no_process_outlives_its_driver(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from engine.runtime.executors.ordered_map import ordered_map\n"
        "from tests.toys import mapped\n"
        "if __name__ == '__main__':\n"
        "    with ordered_map(2, patience_s=0) as each:\n"
        "        for process in each(mapped.process, range(10**9)):\n"
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
