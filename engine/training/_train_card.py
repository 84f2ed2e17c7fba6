"""What the model folder of a training run says of it, for people and in plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.models._folder import ModelCard
from engine.models._info import open_model
from engine.training._frozen_run import plain


def figures_text(metrics: Mapping[str, Mapping[str, float | None]]) -> str:
    """Such as "accuracy 0.912 (0.88 to 0.94)"."""
    return ", ".join(
        f"{name} {one['value']:.3f}" + (f" ({one['low']:.3f} to {one['high']:.3f})" if one["low"] is not None else "")
        for name, one in metrics.items()
        if one["value"] is not None
    )


def card_of(job: Any, prepared: Any, metrics: Mapping[str, Any]) -> ModelCard:
    """The card's figures are those of metrics.json.

    Args:
        job, prepared: a TrainJob and what it was prepared to (engine/training/_train_job.py).
        metrics: content of metrics.json.
    """
    kind = prepared.setup.kind
    rows = [
        f"| {split} | {figures['samples']:,} | {figures_text(figures['metrics'])} |"
        f" {figures['num_drawn']:,} {figures['drawn']} |"
        for split, figures in metrics["figures"].items()
    ]
    recipe = ", ".join(f"{name} {value}" for name, value in prepared.key["recipe"].items())
    text = "\n".join(
        [
            f"# {job.card.name}",
            "",
            "Research use only; not a medical device.",
            *(["", job.card.note] if job.card.note else []),
            "",
            f"{job.members} networks `{job.model.name}` for the task `{job.task.name}`, encoder `{job.encoder.name}`,"
            f" trained on {metrics['samples']['train']:,} {kind.noun}. The epoch was chosen on the validation rows, so"
            " their figures flatter; those of the test rows do not.",
            "",
            "| split | samples | figures (95% bootstrap interval) | drawn |",
            "|---|---|---|---|",
            *rows,
            "",
            f"Recipe: {recipe}.",
            *prepared.setup.transfer.card_lines(prepared.taken),
        ]
    )
    data = {kind.name: prepared.key["data"], "splits": prepared.key["splits"], "fold": job.fold}
    if job.inner_fold is not None:
        data["inner_fold"] = job.inner_fold
    before = open_model(init).training_data if (init := prepared.setup.transfer.init_from) else []
    return ModelCard(
        name=job.card.name,
        version="1",
        licence=job.card.licence,
        text=text,
        encoder=prepared.setup.encoder,
        training_data=[*before, data],
        metrics={split: figures["metrics"] for split, figures in metrics["figures"].items()},
        extra={
            "task": [job.task.name, plain(dict(job.task.params))],
            "targets": metrics["targets"],
            **kind.card_facts(prepared.splits["train"]),
            **prepared.setup.transfer.card_facts(prepared.taken),
            **getattr(prepared.setup.data, "card_facts", dict)(),
        },
    )
