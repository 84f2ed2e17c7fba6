"""Laws of the schedule: who runs the jobs, how many at once, in which order they end, changes nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.training._schedule import Job, Ladder, Schedule
from engine.training._search import COMPLETED, FAILED, PAUSED, STOPPED, Range, Stopping, best_of, drawn
from tests.engine.training.trial_work import EPOCHS, trial_at

RANGES = {"x": Range("uniform", (0.0, 1.0)), "y": Range("uniform", (0.1, 2.0))}
LOWER = Stopping("none", 1, 3, lower_is_better=True)
LADDER = Ladder(1, 3, lambda params: EPOCHS, LOWER)


def propose(number, former, under_way):
    """Depends on all that it is told."""
    known = sum(round(1e6 * one.value) + len(one.curve) for one in former)
    return drawn(RANGES, seed=known + sum(round(1e6 * one["x"]) for one in under_way), number=number)


def at_random(number, former, under_way):
    return drawn(RANGES, seed=0, number=number)


def run(schedule: Schedule, *, at_once: int, order: np.random.Generator, work=trial_at) -> tuple[list, list[Job], int]:
    """Trials, jobs as they began, and how many ran at once at most; who ends first is drawn."""
    under_way: list[Job] = []
    begun, most = [], 0
    while True:
        while len(under_way) < at_once and (job := schedule.next()) is not None:
            under_way.append(job)
            begun.append(job)
        most = max(most, len(under_way))
        if not under_way:
            return schedule.trials(), begun, most
        job = under_way.pop(int(order.integers(len(under_way))))
        schedule.tell(job, work(job))


LADDERS = st.builds(Ladder, st.integers(1, 3), st.integers(2, 4), st.just(lambda params: EPOCHS), st.just(LOWER))


@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 6), st.none() | LADDERS, st.integers(0, 99))
def test_neither_number_of_processes_nor_who_ends_first_changes_a_trial(num_trials, ahead, at_once, ladder, seed):
    def schedule() -> Schedule:
        return Schedule(num_trials, propose, ahead=ahead, ladder=ladder)

    one_by_one, jobs, _ = run(schedule(), at_once=1, order=np.random.default_rng(0))
    found, begun, most = run(schedule(), at_once=at_once, order=np.random.default_rng(seed))
    assert found == one_by_one
    assert begun == jobs
    assert most <= min(ahead, at_once)
    assert [one.number for one in found] == list(range(num_trials))
    assert any(one.state == COMPLETED for one in found)


@given(st.integers(1, 20), st.integers(1, 6), st.integers(0, 99))
def test_trials_that_do_not_learn_run_as_many_at_once_as_there_are_places(num_trials, at_once, seed):
    schedule = Schedule(num_trials, lambda number, former, under_way: {"x": number, "y": 1.0}, ahead=None)
    found, begun, most = run(schedule, at_once=at_once, order=np.random.default_rng(seed))
    assert most == min(num_trials, at_once)
    assert [one.params["x"] for one in found] == list(range(num_trials))
    assert all(job.former == () for job in begun)


def test_a_trial_knows_the_ends_of_those_before_it_but_for_the_last_few():
    told = []

    def note(number, former, under_way):
        told.append(([one.number for one in former], [one["x"] for one in under_way]))
        return {"x": number, "y": 1.0}

    run(Schedule(5, note, ahead=3), at_once=3, order=np.random.default_rng(4))
    assert told == [([], []), ([], [0]), ([], [0, 1]), ([0], [1, 2]), ([0, 1], [2, 3])]


def asha(num_trials: int, ahead: int, *, work=trial_at, ladder: Ladder = LADDER):
    schedule = Schedule(num_trials, at_random, ahead=ahead, ladder=ladder)
    found, begun, _ = run(schedule, at_once=ahead, order=np.random.default_rng(1), work=work)
    return found, begun


@pytest.mark.parametrize("ahead", [1, 2, 4])
def test_one_in_factor_goes_on_from_each_rung(ahead):
    found, begun = asha(27, ahead)
    sent = Counter(job.until for job in begun)
    # Promotions that more trials would have turned down are what asynchrony costs: few, and never fewer than one in 3.
    assert sent[1] == 27
    assert 9 <= sent[3] <= 14
    assert sent[3] // 3 <= sent[None] <= 6
    epochs = sum(len(one.curve) for one in found)
    assert epochs < 27 * EPOCHS / 2
    for one in found:
        assert one.state == (COMPLETED if len(one.curve) == EPOCHS else STOPPED)
        assert (one.reason == "") == (one.state == COMPLETED)
    whole = [trial_at(replace(job, until=None)) for job in begun if job.until == 1]
    best = best_of(found, lower_is_better=True)
    assert best.value <= np.quantile([one.value for one in whole], 0.2)


def test_each_promotion_is_of_one_of_the_best_that_were_known():
    """Said again, from the jobs alone: with one job at a time all that ended before is known."""
    _, begun = asha(27, 1)
    rungs = (1, 3, None)
    for place, job in enumerate(begun):
        ended = {(one.trial, one.until): trial_at(one) for one in begun[:place]}
        for rung in (1, 0):
            there = sorted((end.value, trial) for (trial, until), end in ended.items() if until == rungs[rung])
            able = [trial for _, trial in there[: len(there) // 3] if (trial, rungs[rung + 1]) not in ended]
            if able:
                assert (job.trial, job.until) == (able[0], rungs[rung + 1])
                break
        else:
            assert job.until == 1


def test_few_trials_still_come_to_a_best():
    found, begun = asha(2, 2)
    assert sorted(one.state for one in found) == [COMPLETED, STOPPED]
    (stopped,) = [one for one in found if one.state == STOPPED]
    assert stopped.reason == "place 2 of 2 after epoch 1"
    assert [job.until for job in begun] == [1, 1, 3, None]


def test_trials_that_fail_or_end_early_hold_nothing_up():
    def work(job: Job):
        end = trial_at(job)
        if job.trial % 3 == 0:
            return replace(end, state=FAILED, curve=(), value=None)
        if job.trial == 4:
            return replace(end, state=COMPLETED, curve=end.curve[:2]) if job.until != 1 else end
        return end

    found, _ = asha(9, 2, work=work)
    assert [one.state for one in found[::3]] == [FAILED] * 3
    assert {one.state for one in found} == {FAILED, COMPLETED, STOPPED}
    none, begun = asha(4, 2, work=lambda job: replace(trial_at(job), state=FAILED, curve=(), value=None))
    assert [one.state for one in none] == [FAILED] * 4
    assert len(begun) == 4


def test_trials_shorter_than_a_rung_are_trained_in_one_go():
    short = replace(LADDER, min_epochs=EPOCHS)
    found, begun = asha(3, 2, ladder=short)
    assert [job.until for job in begun] == [None] * 3
    assert all(one.state == COMPLETED for one in found)
    assert PAUSED not in {one.state for one in found}
