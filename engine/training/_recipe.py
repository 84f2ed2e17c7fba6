"""How a model is trained, in plain values: what the loop needs to know beside data, task and model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine import registry
from engine.errors import InputError
from engine.training._batches import BatchLoader
from engine.training._kind import Augmentation, Kind, kind_of, num_samples
from engine.training._sample_plan import SamplePlan
from engine.training._split_table import DataSet, Split
from engine.training._task import Task
from engine.training._transfer import NONE, Taken, Transfer

# Of a window's samples: with the next one's it fits in the memory for rows kept (cache_bytes), whatever is asked for.
_WINDOW_BYTES = 224 << 20


@dataclass(frozen=True)
class Recipe:
    """Attributes:
    epochs: most of them.
    batch_size: samples of an optimiser step, over all workers.
    micro_batch: most samples a worker takes through the network at once; the rest of its share is accumulated.
    optimiser: "adamw" (Loshchilov and Hutter 2019) or "sgd" with momentum 0.9.
    learning_rate: at its highest.
    weight_decay: of matrices and convolutions; not of biases and normalisations.
    schedule: "constant", "linear" or "cosine", the last two down to zero at the last epoch's end.
    warmup: share of all steps in which the rate rises from zero.
    clip_norm: the longest gradient; 0 for no limit.
    patience: epochs without a better monitored figure before training stops; 0 never stops.
    monitor: "loss" or a metric of the task, on the validation rows.
    keep_last: the network of the last epoch is kept, not that of the best.
    seed: of weights, order, augmentation and dropout.
    precision: "fp32", or "bf16" for operands of the network (weights and loss stay in float32).
    checkpoint_steps: steps between checkpoints within an epoch.
    window: samples that are shuffled with each other at least.
    cache_bytes: most memory for row groups kept by a worker.
    length_buckets: put samples of like length into a step.
    compiled: compile the network (torch.compile); the first steps are slow, and losses move by rounding.
    sharding: "ddp" keeps the whole network at every worker, "fsdp2" its share of weights, gradients and moments.
    """

    epochs: int
    batch_size: int
    micro_batch: int
    learning_rate: float
    optimiser: str = "adamw"
    weight_decay: float = 0.01
    schedule: str = "cosine"
    warmup: float = 0.05
    clip_norm: float = 1.0
    patience: int = 0
    monitor: str = "loss"
    seed: int = 0
    precision: str = "fp32"
    checkpoint_steps: int = 500
    window: int = 1 << 16
    cache_bytes: int = 512 << 20
    length_buckets: bool = False
    keep_last: bool = False
    compiled: bool = False
    sharding: str = "ddp"

    def rate(self, step: int, num_steps: int) -> float:
        """Learning rate of a step, counted over all epochs."""
        warm = round(self.warmup * num_steps)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        if self.schedule == "constant":
            return self.learning_rate
        done = (step - warm) / max(1, num_steps - warm)
        share = 1 - done if self.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
        return self.learning_rate * share


@dataclass(frozen=True)
class Setup:
    """Everything one training run is made of; picklable, the same for every worker.

    Attributes:
        recipe: how.
        data: the opened set.
        train, validation: rows of it.
        task: what.
        encoder: {"name", "params"}.
        architecture: the model's name.
        model_params: the model's own.
        augmentation: of the training rows.
        folder: the run's output.
        member: which network of the ensemble; each has files of its own.
        transfer: what training begins from.
    """

    recipe: Recipe
    data: DataSet
    train: Split
    validation: Split
    task: Task
    encoder: Mapping[str, Any]
    architecture: str
    model_params: Mapping[str, Any]
    augmentation: Augmentation
    folder: Path
    member: int = 0
    transfer: Transfer = NONE

    @property
    def kind(self) -> Kind:
        """Of the samples."""
        return kind_of(self.task)

    @property
    def checkpoints(self) -> Path:
        """Folder of this member's checkpoints."""
        return self.folder / "checkpoints" / f"member-{self.member:02d}"

    @property
    def tensorboard(self) -> Path:
        """Folder of this member's event files; TensorBoard shows the members side by side."""
        return self.folder / "tensorboard" / f"member-{self.member:02d}"

    @property
    def stopped(self) -> Path:
        """Folder for the batch at which the run stopped."""
        return self.folder / "stopped"

    def plan_of(self, split: Split) -> SamplePlan:
        """The order of a split's rows."""
        sizes = tuple(len(group.rows) for group in split)
        size = self.kind.wire_bytes(split) if split else 1
        window = max(1, min(self.recipe.window, _WINDOW_BYTES // max(1, size)))
        return SamplePlan(sizes, self.recipe.seed, self.recipe.batch_size, window, self._lengths(split))

    def _lengths(self, split: Split) -> tuple[Any, ...] | None:
        if not self.recipe.length_buckets:
            return None
        found = tuple(group.lengths for group in split if group.lengths is not None)
        if len(found) != len(split):
            what, fix = f"{self.kind.noun} have no lengths to sort by", "set it to false"
            raise InputError(what, where="key 'training.length_buckets'", fix=fix)
        return found

    def train_plan(self) -> SamplePlan:
        """The order of the training rows."""
        return self.plan_of(self.train)

    def train_loader(self) -> BatchLoader:
        """Reads the training rows, augmented."""
        return self._loader(self.train, self.augmentation, seed=self.recipe.seed)

    def loader_of(self, split: Split) -> BatchLoader:
        """Reads a split's rows as they are."""
        return self._loader(split, None, seed=0)

    def _loader(self, split: Split, augmentation: Augmentation | None, *, seed: int) -> BatchLoader:
        encoder = self.build_encoder()
        reader = self.kind.reader(self.data, encoder=encoder, task=self.task, augmentation=augmentation)
        return BatchLoader(split, self.plan_of(split), reader, seed=seed, cache_bytes=self.recipe.cache_bytes)

    def build_encoder(self) -> Any:
        """The encoder."""
        return _built("encoders", self.encoder["name"], self.encoder["params"])

    def build_model(self) -> Any:
        """The network with its first weights, drawn or transferred.

        Those of the head give the targets' frequencies. Frozen parts want no gradients.
        """
        return self.begun()[0]

    def begun(self) -> tuple[Any, Taken]:
        """The same, and what it took from elsewhere."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)
            model = _built("models", self.architecture, self.model_params)
        model.set_bias(torch.as_tensor(self.task.bias(), dtype=torch.float32))
        if hasattr(model, "set_examples"):
            model.set_examples(*self._examples(model.params.centres))
        taken = self.transfer.begin(model, architecture=self.architecture, member=self.member)
        return model, taken

    def _examples(self, count: int) -> tuple[Any, ...]:
        """Training samples as the network reads them, drawn evenly from all in their order."""
        import torch

        ids = np.arange(count) * num_samples(self.train) // count
        inputs = self.loader_of(self.train).load(ids, epoch=0).inputs
        return self.kind.tensors(self.build_encoder(), inputs, torch.device("cpu"))


def _built(kind: str, name: str, values: Mapping[str, Any]) -> Any:
    cls = registry.component(kind, name)
    return cls(registry.build_params(cls, values, where=f"{kind} {name!r}"))
