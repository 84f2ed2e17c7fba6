"""Small training runs that take a second or two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from engine.training._recipe import Recipe, Setup
from engine.training._team import Team
from engine.training._train_job import Card, Component, TrainJob, prepare
from engine.training.loop import Training
from tests.toys.sequences import motif_rows, usual_split, write_set, write_splits

torch.set_num_threads(1)

RECIPE = Recipe(epochs=3, batch_size=20, micro_batch=64, learning_rate=3e-3, checkpoint_steps=2, window=24)
SMALL = {"channels": 8, "blocks": 1, "stem_width": 5, "dropout": 0.2, "pool": "attention"}


def small_job(folder: Path, *, count: int = 120, recipe: Recipe = RECIPE, **changes: Any) -> TrainJob:
    """Classes by a motif, lengths that differ, both augmentations, dropout."""
    if not (folder / "set").exists():
        rows = motif_rows(count)
        write_set(folder / "set", rows)
        write_splits(folder / "splits.parquet", rows, usual_split)
    job = TrainJob(
        data=str(folder / "set"),
        splits=str(folder / "splits.parquet"),
        fold=None,
        task=Component("sequence_classification", {}),
        encoder=Component("one_hot", {}),
        model=Component("sequence_cnn", SMALL),
        recipe=recipe,
        augmentation={"reverse_complement": True, "jitter_bp": 2},
        members=1,
        card=Card("toy", "Apache-2.0"),
        output=folder / "out",
    )
    return replace(job, **changes)


def small_setup(folder: Path, *, output: str = "out", recipe: Mapping[str, Any] | None = None, **changes: Any) -> Setup:
    """The same as the loop takes it."""
    job = small_job(folder, recipe=replace(RECIPE, **(recipe or {})), output=folder / output, **changes)
    return prepare(job).setup


def step_losses(setup: Setup, *, stop_after: int | None = None) -> dict[int, float]:
    """Train in this process; loss of each step done, by its number. A stop is sudden: what is not saved is gone."""
    losses: dict[int, float] = {}

    def on_step(step: int, loss: float) -> None:
        losses[step] = loss
        if stop_after is not None and len(losses) == stop_after:
            raise KeyboardInterrupt

    try:
        Training(setup, Team(), on_step=on_step).run()
    except KeyboardInterrupt:
        assert stop_after is not None
    return losses
