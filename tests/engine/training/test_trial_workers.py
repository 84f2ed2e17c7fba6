"""Trials run by this process, by several, and by Ray Tune: the same trials, whoever dies."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from engine.errors import InputError, SystemFailure
from engine.training import _trial_workers
from engine.training._schedule import Schedule
from engine.training._trial_crew import TrialCrew
from engine.training._trial_workers import run_jobs
from tests.engine.training.test_schedule import LADDER, propose, run
from tests.engine.training.trial_work import ToyWork, deadly

PROCESSES, TUNE = TrialCrew(parallel=2), TrialCrew("ray", parallel=2)
CREWS = [pytest.param(PROCESSES, id="processes"), pytest.param(TUNE, id="ray", marks=pytest.mark.ray)]


@pytest.fixture
def crew(request):
    if request.param.executor == "ray":
        request.getfixturevalue("ray_cluster")
    return request.param


def schedule(**changes) -> Schedule:
    return Schedule(**{"num_trials": 7, "propose": propose, "ahead": 2, "ladder": LADDER} | changes)


def searched(work, crew, folder, **changes):
    made, ends = schedule(**changes), []
    lock = threading.Lock()  # as a run's log has: nothing that Tune could pickle

    def on_end(job, end) -> None:
        with lock:
            ends.append((job, end))

    run_jobs(made, work, crew, on_end=on_end, scratch=folder / "scratch")
    assert not (folder / "scratch").exists()
    return made.trials(), ends


@pytest.mark.parametrize("crew", CREWS, indirect=True)
def test_the_trials_of_one_process_however_long_each_takes_and_whoever_dies(crew, tmp_path):
    work = ToyWork(tmp_path, slow=(0, 3), killed=(1, 2))
    found, ends = searched(work, crew, tmp_path)
    alone, jobs, _ = run(schedule(), at_once=1, order=np.random.default_rng(0), work=ToyWork(tmp_path))
    assert found == alone
    assert sorted(job.number for job, _ in ends) == [job.number for job in jobs]
    assert {one.name for one in tmp_path.glob("killed-*")} == {"killed-1", "killed-2"}
    processes = {one.name.split("-")[1] for one in tmp_path.glob("[0-9]*-*")}
    assert len(processes) >= 3  # this one's too


@pytest.mark.parametrize("crew", CREWS, indirect=True)
def test_what_a_job_says_ends_the_search(crew, tmp_path):
    with pytest.raises(InputError, match="trial 2: no such thing"):
        searched(ToyWork(tmp_path, wrong=2), crew, tmp_path)


def test_a_job_that_kills_every_process_ends_the_search(tmp_path, monkeypatch):
    monkeypatch.setattr(_trial_workers, "MAX_DEATHS", 0)
    with pytest.raises(SystemFailure, match=r"processes that ran trial [01] died 1 times; give them more memory"):
        searched(deadly, PROCESSES, tmp_path)
