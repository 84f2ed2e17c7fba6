"""What a finished job's result is for: the command that a user would type next, with its own paths."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from typing import Any


def next_lines(job: str, spec: Any, outcome: Any) -> list[str]:
    """Lines to print below the outcome; none where nothing follows by itself."""
    return [f"  {line}" for line in _STEPS[job](spec, outcome)] if job in _STEPS else []


def _after_ingest(spec: Any, outcome: Any) -> Iterator[str]:
    if outcome.totals.states.get("kept"):
        yield _command("split-sequences", spec.output, "-o", "splits.parquet")


def _after_split(spec: Any, outcome: Any) -> Iterator[str]:
    if outcome.checked:
        return
    if outcome.task[0] == "pair_regression":
        yield "next: replisome run SPEC.yaml, a train spec of the task pair_regression: see docs/pairs-and-positions.md"
        return
    job, output = ("cross-validate", "folds") if spec.shares.folds else ("train-model", "trained")
    task, *more = outcome.task
    yield _command(job, spec.input, "--splits", spec.output, "--task", task, *more, "-o", output)


def _after_training(spec: Any, outcome: Any) -> Iterator[str]:
    model, task = f"{spec.output.rstrip('/')}/model", spec.task.name
    if task == "masked_tokens":
        yield f"next: train for a task of your own from it, with --init-from {shlex.quote(model)}"
    elif outcome.metrics["figures"].get("test"):
        words = ("--model", model, "--splits", spec.data.splits)
        yield _command("evaluate-model", spec.data.path, *words, "-o", "evaluation")
    else:
        verb = "predict-images" if task.startswith("image") else "predict"
        yield f"next: replisome {verb} SET --model {shlex.quote(model)} -o predictions, SET being any like it"


def _after_folds(spec: Any, outcome: Any) -> Iterator[str]:
    folds = [one["fold"] for one in outcome.metrics["folds"]]
    where = shlex.quote(f"{spec.output.rstrip('/')}/folds")
    yield f"the models are {where}/{folds[0]}/model to {where}/{folds[-1]}/model, each trained without its own fold"
    verb = "predict-images" if spec.task.name.startswith("image") else "predict"
    yield f"next: replisome {verb} SET --model {where}/{folds[0]}/model -o predictions, SET being any of the same kind"


def _after_search(spec: Any, outcome: Any) -> Iterator[str]:
    place, number = spec.output.rstrip("/"), outcome.facts["best"]["number"]
    yield f"the model of trial {number} is {shlex.quote(f'{place}/trials/{number:04d}/model')}"
    yield _command("run", f"{place}/best.yaml")
    yield "  best.yaml is the train spec of that trial, its paths whole; it trains to best-model/ in the folder where"
    yield "  this is typed; --set output=DIR names another, --set training.epochs=N trains longer"


def _command(*words: str) -> str:
    return f"next: {shlex.join(['replisome', *words])}"


_STEPS: dict[str, Callable[[Any, Any], Iterator[str]]] = {
    "ingest_sequences": _after_ingest,
    "ingest_images": _after_ingest,
    "split_sequences": _after_split,
    "train_model": _after_training,
    "cross_validate": _after_folds,
    "tune_model": _after_search,
}
