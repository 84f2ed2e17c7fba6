"""Laws of a search: what its trials are, and when one is ended."""

from __future__ import annotations

import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError
from engine.training._search import Range, Stopping, Trial, best_of, drawn, grid, proposed

RANGES = {
    "a": Range("log_uniform", (1e-4, 1e-2)),
    "b": Range("choice", ("x", None, 3, True)),
    "c": Range("integer", (-2, 2)),
    "d": Range("log_integer", (1, 64)),
    "e": Range("uniform", (0.0, 0.5)),
}


def inside(found: Range, value) -> bool:
    if found.kind == "choice":
        return any(value is one or (value == one and type(value) is type(one)) for one in found.values)
    low, high = found.values
    return low <= value <= high and isinstance(value, int if "integer" in found.kind else float)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_a_grid_is_the_whole_product_each_once(sizes):
    ranges = {f"k{place}": Range("choice", tuple(range(size))) for place, size in enumerate(sizes)}
    made = grid(ranges)
    assert len({tuple(one.items()) for one in made}) == len(made) == math.prod(sizes)


def test_a_grid_counts_whole_numbers_last_key_first():
    made = grid({"a": Range("integer", (1, 2)), "b": Range("choice", ("x", "y"))})
    assert made == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]


def test_what_no_grid_can_hold_is_told():
    with pytest.raises(InputError, match=r"'search.a': a grid cannot hold uniform; list its values as choice"):
        grid({"a": Range("uniform", (0.0, 1.0))})
    with pytest.raises(InputError, match=r"the grid has 1,002 trials, at most 1,000 are allowed"):
        grid({"a": Range("integer", (1, 501)), "b": Range("choice", (1, 2))})


@given(st.integers(0, 2**40), st.integers(0, 1000))
def test_a_random_trial_follows_from_seed_number_and_key_alone(seed, number):
    one = drawn(RANGES, seed=seed, number=number)
    assert all(inside(found, one[key]) for key, found in RANGES.items())
    few = {key: RANGES[key] for key in ("e", "a")}
    assert drawn(few, seed=seed, number=number) == {key: one[key] for key in few}
    assert drawn(RANGES, seed=seed, number=number + 1) != one
    assert drawn(RANGES, seed=seed + 1, number=number) != one


def test_draws_are_spread_by_the_logarithm():
    values = [drawn(RANGES, seed=0, number=number)["a"] for number in range(400)]
    assert 150 < sum(value < 1e-3 for value in values) < 250
    assert {drawn(RANGES, seed=0, number=number)["c"] for number in range(100)} == {-2, -1, 0, 1, 2}


def search_by_optuna(value_of, ranges=RANGES, *, number: int, states=("completed",)) -> list[Trial]:
    trials: list[Trial] = []
    for place in range(number):
        params = proposed(ranges, trials, seed=1, number=place, lower_is_better=True)
        state = states[place % len(states)]
        value = None if state == "failed" else value_of(params)
        trials.append(Trial(place, params, state, () if value is None else (value,), value))
    return trials


def test_bayesian_trials_follow_from_seed_and_former_trials():
    states = ("completed", "stopped", "failed")
    once, again = (search_by_optuna(lambda one: one["e"], number=16, states=states) for _ in range(2))
    assert once == again
    assert all(inside(found, one.params[key]) for one in once for key, found in RANGES.items())


def test_bayesian_trials_come_nearer():
    """Ten trials are drawn at random, then the estimator has its say."""
    trials = search_by_optuna(lambda one: abs(math.log10(one["a"]) + 3), {"a": RANGES["a"]}, number=30)
    far = [one.value for one in trials]
    assert sum(far[-10:]) < 0.7 * sum(far[:10])


def test_without_optuna_the_pip_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"bayesian needs Optuna; pip install 'replisome\[tune\]'"):
        proposed(RANGES, [], seed=0, number=0, lower_is_better=True)


def stopping(rule: str, *, lower: bool = True, min_epochs: int = 1, factor: int = 3) -> Stopping:
    return Stopping(rule, min_epochs, factor, lower)


def test_the_median_rule():
    former = [(5.0, 4.0), (3.0, 3.0), (1.0, 9.0)]  # best after two epochs: 4, 3, 1
    rule = stopping("median")
    assert rule.reason((3.5, 3.5), former) == "worse than the median after epoch 2"
    assert rule.reason((3.5, 3.0), former) == ""
    assert rule.reason((3.5, 3.5), former[:2]) == ""
    assert rule.reason((3.5, 3.5, 9.0), former) == ""  # none of them came there
    assert stopping("median", min_epochs=3).reason((9.0, 9.0), former) == ""
    assert stopping("median", lower=False).reason((1.0,), [(2.0,), (3.0,), (0.0,)]) != ""


def test_halving_lets_one_of_factor_go_on_at_each_rung():
    rule = stopping("halving")
    assert rule.reason((9.0,), []) == ""
    assert rule.reason((9.0,), [(1.0,)]) == "place 2 of 2 after epoch 1"
    assert rule.reason((0.5,), [(1.0,)]) == ""
    assert rule.reason((2.0,), [(1.0,), (3.0,), (4.0,)]) == ""  # the second of four: two go on
    assert rule.reason((9.0, 9.0), [(1.0, 1.0)]) == ""  # no rung
    assert rule.reason((9.0, 9.0, 9.0), [(1.0, 1.0, 1.0)]) != ""
    assert rule.reason((None,), [(1.0,)]) != ""
    assert stopping("none").reason((9.0,), [(1.0,)]) == ""


def test_the_best_is_the_first_of_the_best_completed():
    trials = [
        Trial(0, {}, "stopped", (0.1,), 0.1),
        Trial(1, {}, "completed", (0.5,), 0.5),
        Trial(2, {}, "completed", (0.5,), 0.5),
        Trial(3, {}, "completed", (0.9,), 0.9),
        Trial(4, {}, "failed", (), None),
    ]
    assert best_of(trials, lower_is_better=True) is trials[1]
    assert best_of(trials, lower_is_better=False) is trials[3]
    assert best_of(trials[:1], lower_is_better=True) is None
