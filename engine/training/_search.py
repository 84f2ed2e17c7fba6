"""What the trials of a search are, and when one is ended: plain functions of seed, trial number and former trials."""

from __future__ import annotations

import hashlib
import itertools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np

from engine.errors import InputError

GRID, RANDOM, BAYESIAN = "grid", "random", "bayesian"
NONE, MEDIAN, HALVING, ASHA = "none", "median", "halving", "asha"
COMPLETED, STOPPED, FAILED, PAUSED = "completed", "stopped", "failed", "paused"
MOST_IN_GRID = 1000
USUAL_TRIALS = 20
# A median of fewer trials says little.
_LEAST_FORMER = 3


@dataclass(frozen=True)
class Range:
    """Attributes:
    kind: "choice", "uniform", "log_uniform", "integer" or "log_integer".
    values: the choices, or low and high.
    """

    kind: str
    values: tuple[Any, ...]

    def ends(self) -> tuple[Any, ...]:
        """The values that are checked before a trial is run: all choices, or both bounds."""
        return self.values

    def grid(self, key: str) -> Sequence[Any]:
        """All values.

        Raises:
            InputError: they cannot be counted.
        """
        if self.kind == "choice":
            return self.values
        if self.kind == "integer":
            return range(self.values[0], self.values[1] + 1)
        fix = "list its values as choice, or choose the method random"
        raise InputError(f"a grid cannot hold {self.kind}", where=f"key 'search.{key}'", fix=fix)

    def draw(self, generator: np.random.Generator) -> Any:
        """One value."""
        if self.kind == "choice":
            return self.values[int(generator.integers(len(self.values)))]
        low, high = self.values
        if self.kind == "integer":
            return int(generator.integers(low, high + 1))
        if self.kind == "uniform":
            return float(generator.uniform(low, high))
        if self.kind == "log_uniform":
            return float(np.clip(math.exp(generator.uniform(math.log(low), math.log(high))), low, high))
        # Each whole number has the stretch around it.
        drawn = math.exp(generator.uniform(math.log(low - 0.5), math.log(high + 0.5)))
        return int(np.clip(round(drawn), low, high))


Ranges = Mapping[str, Range]
Params = Mapping[str, Any]


@dataclass(frozen=True)
class Trial:
    """A trial that has ended, or that waits at a rung.

    Attributes:
        number: from 0.
        params: value of every searched key.
        state: completed, stopped (by the rule), failed (its loss was no number), or paused while the search goes on.
        curve: the monitored figure after each epoch of the first network; None where it had no value.
        value: the figure of the finished model; of a stopped or paused trial the best of its curve; None without one.
        reason: why it was stopped or failed.
    """

    number: int
    params: Params
    state: str
    curve: tuple[float | None, ...]
    value: float | None
    reason: str = ""


def grid(ranges: Ranges, *, most: int = MOST_IN_GRID) -> list[dict[str, Any]]:
    """Every combination, the last key moving fastest.

    Raises:
        InputError: more than `most`, or a range that cannot be counted.
    """
    each = [found.grid(key) for key, found in ranges.items()]
    size = math.prod(map(len, each))
    if size > most:
        raise InputError(
            f"the grid has {size:,} trials, at most {most:,} are allowed",
            where="key 'search'",
            fix="search fewer values, raise tuning.trials, or choose the method random",
        )
    return [dict(zip(ranges, values, strict=True)) for values in itertools.product(*each)]


def drawn(ranges: Ranges, *, seed: int, number: int) -> dict[str, Any]:
    """A random trial: what a key is follows from seed, trial number and key alone."""
    return {key: found.draw(np.random.default_rng(_mixed(seed, number, key))) for key, found in ranges.items()}


def _mixed(*words: Any) -> int:
    return int.from_bytes(hashlib.sha256("/".join(map(str, words)).encode()).digest()[:8], "little")


def optuna_version() -> str:
    """The version of Optuna.

    Raises:
        InputError: it is not installed.
    """
    return str(_optuna() and version("optuna"))


def _optuna() -> Any:
    try:
        return import_module("optuna")
    except ImportError as error:
        fix = "pip install 'replisome[tune]', or choose the method random"
        raise InputError("the method bayesian needs Optuna", where="key 'tuning.method'", fix=fix) from error


def proposed(
    ranges: Ranges,
    former: Sequence[Trial],
    *,
    seed: int,
    number: int,
    lower_is_better: bool,
    under_way: Sequence[Params] = (),
) -> Params:
    """A trial as Optuna's tree-structured Parzen estimator (Bergstra et al. 2011) proposes it after the former ones.

    The study is built anew for every trial, so a resumed search proposes what a calm one does. Trials under way are
    held to be bad ones (Optuna's constant liar), which keeps the next from being their neighbour.
    """
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of constant_liar
        sampler = optuna.samplers.TPESampler(
            seed=_mixed(seed, number, "tpe") % 2**32, **({"constant_liar": True} if under_way else {})
        )
    study = optuna.create_study(sampler=sampler, direction="minimize" if lower_is_better else "maximize")
    distributions = {key: _distribution(optuna, found) for key, found in ranges.items()}
    for one in former:
        study.add_trial(_told(optuna, one, ranges, distributions))
    for params in under_way:
        running = {"params": _by_place(params, ranges), "distributions": distributions}
        study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING, **running))
    asked = study.ask(distributions).params
    return {key: found.values[asked[key]] if found.kind == "choice" else asked[key] for key, found in ranges.items()}


def _distribution(optuna: Any, found: Range) -> Any:
    """Choices go by their place: Optuna takes plain values only."""
    kinds = optuna.distributions
    if found.kind == "choice":
        return kinds.CategoricalDistribution(tuple(range(len(found.values))))
    of_kind = kinds.IntDistribution if "integer" in found.kind else kinds.FloatDistribution
    return of_kind(*found.values, log=found.kind.startswith("log"))


def _told(optuna: Any, one: Trial, ranges: Ranges, distributions: Mapping[str, Any]) -> Any:
    state = optuna.trial.TrialState
    states = {COMPLETED: state.COMPLETE, STOPPED: state.PRUNED, PAUSED: state.PRUNED, FAILED: state.FAIL}
    is_known, is_short = one.value is not None, one.state in (STOPPED, PAUSED)
    return optuna.trial.create_trial(
        state=states[one.state] if is_known else state.FAIL,
        params=_by_place(one.params, ranges),
        distributions=dict(distributions),
        value=one.value if one.state == COMPLETED and is_known else None,
        intermediate_values={len(one.curve): one.value} if is_short and is_known else {},
    )


def _by_place(params: Params, ranges: Ranges) -> dict[str, Any]:
    """Choices by their place."""
    return {
        key: _place(found.values, params[key]) if found.kind == "choice" else params[key]
        for key, found in ranges.items()
    }


def _place(values: Sequence[Any], value: Any) -> int:
    """By type too: 1 is not True."""
    return next(place for place, one in enumerate(values) if one == value and type(one) is type(value))


@dataclass(frozen=True)
class Stopping:
    """When a trial is ended early.

    Attributes:
        rule: "none"; "median" (as in Golovin et al. 2017): its best so far is worse than the median of the former
            trials' best up to that epoch; "halving", successive halving without a way back: at each rung it is not
            among the best one of `factor` of those that came there; "asha" ends none, see _schedule.Ladder.
        min_epochs: the first epoch, and the first rung.
        factor: between rungs.
        lower_is_better: of the monitored figure.
    """

    rule: str
    min_epochs: int
    factor: int
    lower_is_better: bool

    def best(self, curve: Sequence[float | None]) -> float | None:
        """The best of the values that there are."""
        known = [value for value in curve if value is not None]
        return None if not known else min(known) if self.lower_is_better else max(known)

    def reason(self, curve: Sequence[float | None], former: Sequence[Sequence[float | None]]) -> str:
        """Why a trial with this curve is ended now; empty where it goes on."""
        epoch = len(curve)
        others = [self.loss_of(one[:epoch]) for one in former if len(one) >= epoch]
        own = self.loss_of(curve)
        if self.rule == MEDIAN and epoch >= self.min_epochs and len(others) >= _LEAST_FORMER:
            return f"worse than the median after epoch {epoch}" if own > float(np.median(others)) else ""
        if self.rule == HALVING and epoch in self._rungs(epoch):
            room = math.ceil((len(others) + 1) / self.factor)
            place = 1 + sum(other <= own for other in others)
            return f"place {place} of {len(others) + 1} after epoch {epoch}" if place > room else ""
        return ""

    def _rungs(self, last: int) -> Iterator[int]:
        rung = self.min_epochs
        while rung <= last:
            yield rung
            rung *= self.factor

    def loss_of(self, curve: Sequence[float | None]) -> float:
        """The best of a curve, turned so that less is better; infinite where it has no value."""
        best = self.best(curve)
        if best is None:
            return math.inf
        return best if self.lower_is_better else -best


def best_of(trials: Sequence[Trial], *, lower_is_better: bool) -> Trial | None:
    """The completed trial with the best value, of equal ones the first."""
    able = [one for one in trials if one.state == COMPLETED and one.value is not None]
    sign = 1.0 if lower_is_better else -1.0
    return min(able, key=lambda one: (sign * (one.value or 0.0), one.number), default=None)
