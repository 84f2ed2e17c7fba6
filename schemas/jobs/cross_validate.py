"""Train a model once for each fold of a split file, and judge it on rows that it was not trained on.

Each fold is a training run of its own below the output; finished ones are left alone and a stopped one goes on. The
result tells mean and spread of every figure over the folds, and holds a prediction for every record of the folds.
"""

from __future__ import annotations

from typing import Literal

from schemas._base import Option
from schemas.jobs.train_model import TRAIN_OPTIONS, SplitSetSpec, TrainSpec, WholeInt


class FoldsSpec(SplitSetSpec):
    """A sequence set and a split file with folds."""

    inner_fold: WholeInt | None = None
    """of nested folds: in every fold, choose the epoch on this inner fold, so that the fold itself is only judged on"""


class CrossValidateSpec(TrainSpec):
    """Train a model once for each fold of a split file."""

    job: Literal["cross_validate"] = "cross_validate"
    """the job this spec is for"""
    version: Literal[1] = 1
    """version of this spec's layout"""
    data: FoldsSpec
    """path (SET) of the sequence set, and its split file with folds (--splits)"""


SPEC = CrossValidateSpec
OPTIONS = (*TRAIN_OPTIONS, Option("data.inner_fold", ("--inner-fold",)))
"""The one place where the command's options meet the keys of the spec."""
