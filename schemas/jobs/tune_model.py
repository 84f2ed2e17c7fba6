"""Search for the settings with which a model trains best, all trials on one split file.

A search that is stopped goes on with the same trials to the same best, whatever runs at once and wherever. Its result
is a table of trials and best.yaml, a train spec that trains as it stands.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from schemas._base import Name, Option, Spec
from schemas.jobs.train_model import TRAIN_OPTIONS, DataSpec, ExecutionSpec, PositiveInt, TrainSpec, WholeInt

Reals = Annotated[tuple[float, float], Field(strict=False)]
Wholes = Annotated[tuple[int, int], Field(strict=False)]
Values = Annotated[tuple[Any, ...], Field(strict=False, min_length=1)]


class RangeSpec(Spec):
    """What a key may be; exactly one of these."""

    choice: Values | None = None
    """one of these values"""
    uniform: Reals | None = None
    """a number from low to high"""
    log_uniform: Reals | None = None
    """a number from low to high, drawn evenly by its logarithm"""
    integer: Wholes | None = None
    """a whole number from low to high, both possible"""
    log_integer: Wholes | None = None
    """the same, drawn evenly by its logarithm"""

    @property
    def kind(self) -> str:
        """Which one is given."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    @model_validator(mode="after")
    def _one(self) -> RangeSpec:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"found {', '.join(given) or 'nothing'}: give one of {', '.join(type(self).model_fields)}")
        found = getattr(self, given[0])
        if given[0] == "choice":
            if len({repr(value) for value in found}) != len(found):
                raise ValueError(f"choice holds a value twice: {list(found)}")
            return self
        low, high = found
        if not low < high or not math.isfinite(high - low):
            raise ValueError(f"{given[0]} goes from low to high, found {low} to {high}")
        if given[0].startswith("log") and low <= 0:
            raise ValueError(f"{given[0]} needs bounds above 0, found {low}")
        return self


class TuningSpec(Spec):
    """How to search."""

    method: Literal["grid", "random", "bayesian"] = "random"
    """grid: every combination of choices and integers; random; bayesian: by Optuna, which learns from former trials"""
    trials: PositiveInt | None = None
    """number of trials, 20 where unset; of a grid the most that it may have, 1000 where unset"""
    seed: WholeInt = 0
    """of what is drawn"""
    stopping: Literal["none", "median", "halving", "asha"] = "none"
    """median: end trials that do worse than the median of former ones; halving: end all but one in `factor` at each
    rung; asha: let trials wait at each rung and send the best one in `factor` on (Li et al. 2020)"""
    min_epochs: PositiveInt = 1
    """epochs that every trial has before it may be ended"""
    factor: Annotated[int, Field(ge=2)] = 3
    """of halving and asha: one of so many goes on at min_epochs, min_epochs times factor, and so on"""
    ahead: PositiveInt = 1
    """of bayesian and of any stopping: trial i is decided by the ends of trials up to i - ahead, so that as many can
    run at once; it is part of the search, as more trials then begin with less known"""


class TuneExecutionSpec(ExecutionSpec):
    """Where and how wide to run; none of it changes which trials there are.

    On the ray executor trials are placed by Ray Tune, each with its workers on one node.
    """

    parallel_trials: PositiveInt = 1
    """trials that run at once, each with its own workers"""


class TuneModelSpec(TrainSpec):
    """Search for the settings with which a model trains best."""

    job: Literal["tune_model"] = "tune_model"
    """the job this spec is for"""
    version: Literal[1] = 1
    """version of this spec's layout"""
    data: DataSpec
    """path (SET) of the sequence set, and its split file (--splits), which all trials share"""
    search: Annotated[dict[Name, RangeSpec], Field(min_length=1)]
    """keys of the train spec to search, such as training.learning_rate, with what they may be"""
    tuning: TuningSpec = Field(default_factory=TuningSpec)
    """how to search; a trial's value is training.monitor on the validation rows"""

    execution: TuneExecutionSpec = Field(default_factory=TuneExecutionSpec)
    """where and how wide to run"""

    @property
    def learns(self) -> bool:
        """Whether a trial depends on others."""
        return self.tuning.method == "bayesian" or self.tuning.stopping != "none"

    @model_validator(mode="after")
    def _can_run_at_once(self) -> TuneModelSpec:
        at_once = self.execution.parallel_trials
        if self.learns and at_once > self.tuning.ahead:
            why = "trials here go by former ones, so tuning.ahead (--ahead) says how many may run at once"
            raise ValueError(f"{why}: set it to {at_once} too, for every run of this search")
        how, epochs = self.tuning, self.training.epochs
        if how.stopping != "none" and how.min_epochs >= epochs and "training.epochs" not in self.search:
            what = f"tuning.stopping {how.stopping} can end no trial: it may after tuning.min_epochs {how.min_epochs}"
            raise ValueError(f"{what}, and training.epochs is {epochs}; train longer, or leave the stopping out")
        if self.execution.feed == "ray-data":
            raise ValueError("execution.feed: the trials of a search read for themselves, leave it out")
        return self


SPEC = TuneModelSpec
_SEARCH = (
    "YAML file of the keys to search and what they may be, such as training.learning_rate: {log_uniform: [0.0001,"
    " 0.01]}; trials are compared on the validation rows by training.monitor, which is the loss unless set"
)
OPTIONS = (
    *TRAIN_OPTIONS,
    Option("data.fold", ("--fold",)),
    Option("search", ("--search",), doc=_SEARCH, form="yaml_file"),
    Option("tuning.method", ("--method",)),
    Option("tuning.trials", ("--trials",)),
    Option("tuning.seed", ("--search-seed",)),
    Option("tuning.stopping", ("--stopping",)),
    Option("tuning.ahead", ("--ahead",)),
    Option("execution.parallel_trials", ("--parallel-trials",)),
)
"""The one place where the command's options meet the keys of the spec."""
