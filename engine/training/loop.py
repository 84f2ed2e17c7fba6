"""The training loop: one for every task, any number of workers, any place to stop and go on.

What a step does is decided by the recipe and its number alone (engine/training/_sample_plan.py), so a run that is
stopped goes on to the losses it would have had. Several workers share each step's samples and average their gradients;
without batch statistics in the model they train to the losses of one, but for the order of sums.

Shape letters: B samples of a batch, N samples of a split, K outputs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor, nn

from engine.errors import DataError, InputError
from engine.models._sample_dropout import set_sample_seeds
from engine.models._sequence import activate
from engine.storage import faults
from engine.training import _checkpoints, _metrics
from engine.training._batches import Batch, Feed, Reader
from engine.training._checkpoints import BEST, LAST, Checkpoint
from engine.training._compiling import (
    Compiled,
    check_compiler,
    check_same,
    compiler_told,
    give_gradients,
    gradients,
    uncompiled,
)
from engine.training._event_file import EventFile, confusion_image, curves_image
from engine.training._examples import examples_image
from engine.training._memory_told import memory_told
from engine.training._recipe import Recipe, Setup
from engine.training._sharding import FSDP2, whole
from engine.training._split_table import Split
from engine.training._team import Team
from engine.training._transfer import listed_layers, rates_by_depth

MOMENTUM = 0.9
# Micro-batches that are read at once and then cut by length.
_JUDGED_TOGETHER = 8


@dataclass
class Progress:
    """Where a run stands; what a checkpoint keeps beside tensors.

    Attributes:
        epoch, step: the next step to do.
        loss_sum, weight_sum: of this epoch's steps so far.
        best: the best monitored figure so far, None before the first.
        best_epoch: the epoch it was reached in.
        history: one entry for each epoch done.
        is_done: no step is left to do.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    weight_sum: float = 0.0
    best: float | None = None
    best_epoch: int = -1
    history: list[dict[str, Any]] = field(default_factory=list)
    is_done: bool = False


class Training:
    """One worker's part of a run.

    Args:
        setup: the run.
        team: this worker and the others.
        feed: where batches come from; None reads the parts here.
        on_step: told (step over all epochs, mean loss of the step over all workers) after each.
        on_epoch: told the history's new entry after each epoch, at the first worker.
    """

    def __init__(
        self,
        setup: Setup,
        team: Team,
        *,
        feed: Feed | None = None,
        on_step: Callable[[int, float], None] | None = None,
        on_epoch: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.setup, self.team, self.recipe = setup, team, setup.recipe
        self._on_step, self.on_epoch = on_step, on_epoch
        self._kind, self._encoder = setup.kind, setup.build_encoder()
        self._model = setup.build_model().to(team.device)
        self._is_sharded = team.size > 1 and self.recipe.sharding == FSDP2
        # The network that is judged and kept: of one in shares a copy that is whole.
        self._judged = setup.build_model().to(team.device) if self._is_sharded else self._model
        found = _checkpoints.read(setup.checkpoints / LAST)
        if found is not None:
            _checkpoints.load_model(self._model, found)
        self._compiled: Compiled | None = None
        self._runner = self._wrapped()
        self._optimiser = _optimiser(self._model, self.recipe, setup.transfer.layer_rate)
        if found is not None:
            _checkpoints.load_optimiser(self._optimiser, found)
        self.progress = Progress() if found is None else Progress(**found.state)
        self.plan = setup.train_plan()
        self._loader = setup.train_loader()
        self.feed = feed or Reader(self._loader, self.plan, team.rank, team.size)
        self._num_steps = self.plan.num_steps * self.recipe.epochs

    @property
    def _global_step(self) -> int:
        return self.progress.epoch * self.plan.num_steps + self.progress.step

    def run(self) -> Progress:
        """Train from where the last checkpoint stands to the end.

        Raises:
            DataError: the loss is not finite; the batch is saved and named.
        """
        writes = EventFile(self.setup.tensorboard, first_step=self._global_step) if self.team.is_first else None
        with writes or nullcontext():
            while not self.progress.is_done:
                self._run_epoch(writes)
                self._end_epoch(writes)
        return self.progress

    def _wrapped(self) -> nn.Module:
        runner: nn.Module = _Logits(self._model)
        if self.recipe.compiled:
            check_compiler(self.team.device)
            runner = self._compiled = Compiled(runner, kind=self._kind.name)
        return self.team.wrapped(runner, sharding=self.recipe.sharding, layers=listed_layers(self._model))

    def _run_epoch(self, writes: EventFile | None) -> None:
        progress = self.progress
        self._model.train()
        for batch in self.feed(epoch=progress.epoch, first_step=progress.step):
            loss, weight = self._step(batch)
            step = self._global_step
            progress.loss_sum += loss * weight
            progress.weight_sum += weight
            progress.step += 1
            if writes is not None:
                writes.scalar("loss/step", loss, step)
                writes.scalar("learning_rate", self.recipe.rate(step, self._num_steps), step)
            if self._on_step is not None:
                self._on_step(step, loss)
            faults.reach("train-step")
            if progress.step % self.recipe.checkpoint_steps == 0 and progress.step < self.plan.num_steps:
                self._save_last(writes)

    def _step(self, batch: Batch) -> tuple[float, float]:
        """One optimiser step: the mean loss over all workers' samples, and the sum of their weights.

        Where the weights sum to 0, as of labels that jitter moved out, the step counts and changes nothing.
        """
        batch, _ = batch.by_length()
        targets = torch.from_numpy(batch.targets).to(self.team.device)
        weights_B = self.setup.task.weights(targets).float()
        weight = self.team.total(weights_B.sum())
        if not weight.item():
            return 0.0, 0.0  # nothing is known of these samples; every worker sees the same sum and sends nothing
        mean = self._passes(batch, targets, weights_B, weight)
        if self._compiled is not None:
            self._check_compiled(mean, lambda: self._passes(batch, targets, weights_B, weight))
        if not np.isfinite(mean) or not self._update():
            raise self._stopped(mean)
        return mean, weight.item()

    def _passes(self, batch: Batch, targets: Tensor, weights_B: Tensor, weight: Tensor) -> float:
        """Both ways through the network with all parts of a step: the mean loss over all workers' samples."""
        self._optimiser.zero_grad(set_to_none=True)
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.team.device)
        parts = list(_parts(len(batch), self.recipe.micro_batch))
        for number, (begin, end) in enumerate(parts):
            part = batch.part(begin, end)
            place = f"epoch {self.progress.epoch}, step {self.progress.step}"
            told = memory_told(part, self.setup, device=self.team.device, place=place)
            compiler = compiler_told() if self._compiled else nullcontext()
            with self._sums_kept(is_last=number == len(parts) - 1), told, compiler:
                loss = self._loss(part, targets[begin:end], weights_B[begin:end])
                # The team averages gradients; the mean loss wants their sum over all weights.
                (loss * (self.team.size / weight.item())).backward()  # type: ignore[no-untyped-call]
            loss_sum += loss.detach()
        return float(self.team.total(loss_sum) / weight)

    def _check_compiled(self, mean: float, again: Callable[[], float]) -> None:
        """Where a worker met a new shape, the same step once more without the compiler; its results are dropped."""
        assert self._compiled is not None
        is_new = torch.tensor(float(self._compiled.took_a_new_shape()))
        if not self.team.total(is_new).item():
            return
        found, buffers = gradients(self._model), [one.clone() for one in self._model.buffers()]
        with uncompiled():
            plain = again()
        wanted = gradients(self._model)
        give_gradients(self._model, found)
        for one, former in zip(self._model.buffers(), buffers, strict=True):
            one.copy_(former)  # statistics of batches, where a network keeps any, have seen the step twice
        place = f"epoch {self.progress.epoch}, step {self.progress.step}"
        both = ((mean, found), (plain, wanted))
        check_same(*both, team=self.team, precision=self.recipe.precision, place=place)

    def _sums_kept(self, *, is_last: bool) -> Any:
        """Gradients are sent once, with the last part."""
        runner: Any = self._runner
        if self._is_sharded:
            runner.set_requires_gradient_sync(is_last)
        elif self.team.size > 1 and not is_last:
            return runner.no_sync()
        return nullcontext()

    def _loss(self, part: Batch, targets: Tensor, weights_B: Tensor) -> Tensor:
        """Weighted sum of the losses. A worker without samples runs an empty-handed pass, as the others wait for it."""
        if len(part) == 0:
            set_sample_seeds(self._model, torch.zeros(1, dtype=torch.int64, device=self.team.device))
            with uncompiled() if self._compiled else nullcontext():
                nothing: Tensor = self._runner(*self._kind.blank(self._encoder, self.team.device)).sum() * 0.0
            return nothing
        set_sample_seeds(self._model, torch.from_numpy(part.seeds_B).to(self.team.device))
        tensors = self._kind.tensors(self._encoder, part.inputs, self.team.device)
        logits = forward(self._runner, tensors, device=self.team.device, precision=self.recipe.precision)
        return (self.setup.task.losses(logits, targets) * weights_B).sum()

    def _update(self) -> bool:
        """Move the weights; false where the gradients are not finite."""
        limit = self.recipe.clip_norm or float("inf")
        norm = whole(nn.utils.clip_grad_norm_(self._model.parameters(), limit))
        if not bool(torch.isfinite(norm)):
            return False
        for group in self._optimiser.param_groups:
            group["lr"] = self.recipe.rate(self._global_step, self._num_steps) * group["factor"]
        self._optimiser.step()
        return True

    def _stopped(self, loss: float) -> DataError:
        """Save the whole step's batch, and say where it is."""
        epoch, step = self.progress.epoch, self.progress.step
        folder = self.setup.stopped
        if self.team.is_first:
            folder.mkdir(parents=True, exist_ok=True)
            batch = self.setup.train_loader().load(self.plan.step(epoch, step), epoch=epoch)
            tensors = {**batch.inputs.arrays(), "targets": batch.targets, "records": batch.records_B}
            save_file(tensors, folder / "batch.safetensors")
            facts = {"epoch": epoch, "step": step, "loss": str(loss), "records": batch.records_B.tolist()}
            (folder / "batch.json").write_text(json.dumps(facts, indent=1) + "\n")
        what = f"loss {loss}" if not np.isfinite(loss) else "gradients that are not finite"
        return DataError(
            f"epoch {epoch}, step {step} gave {what}; its batch is saved in {folder.name}/",
            where=str(self.setup.folder),
            fix="lower learning_rate, set clip_norm, or look for extreme targets in that batch",
        )

    def _end_epoch(self, writes: EventFile | None) -> None:
        """Validate, note, keep the best, and decide whether to go on; the first worker decides for all."""
        if self._is_sharded:
            _checkpoints.load_model(self._judged, Checkpoint(_checkpoints.model_tensors(self._model), {}))
        found = self._validate()
        progress = self.progress
        if self.team.is_first:
            assert found is not None
            self._note(found, writes)
        progress.epoch, progress.step, progress.loss_sum, progress.weight_sum = progress.epoch + 1, 0, 0.0, 0.0
        progress.is_done = self.team.told(self._is_over())
        self._save_last(writes)
        if self.team.is_first and self.on_epoch is not None:
            self.on_epoch(progress.history[-1])  # behind the checkpoint: who stops the run here loses no epoch

    def _note(self, found: Outputs, writes: EventFile | None) -> None:
        progress, task = self.progress, self.setup.task
        figures = {
            "loss": found.loss,
            **_metrics.values_of(task.statistics(found.values_NK, found.targets), found.size),
        }
        train = progress.loss_sum / progress.weight_sum if progress.weight_sum else 0.0
        plain = {name: value if np.isfinite(value) else None for name, value in figures.items()}
        entry = {"epoch": progress.epoch, "train_loss": train, "validation": plain}
        progress.history.append(entry)
        self._keep_best(figures)
        if writes is not None:
            writes.scalar("loss/train", train, self._global_step)
            for name, value in figures.items():
                writes.scalar(f"validation/{name}", value, self._global_step)
            counts = task.confusion(found.values_NK, found.targets)
            if counts is not None:
                writes.image("validation/confusion", confusion_image(counts), self._global_step)
            truths_NK = task.truths(found.targets) if task.kept_names == task.outputs else None
            if truths_NK is not None:
                pairs = zip(found.values_NK.T, truths_NK.T, strict=True)
                curves = [_metrics.precision_recall_curve(*pair) for pair in pairs]
                writes.image("validation/precision_recall", curves_image(curves), self._global_step)
            shown = examples_image(self._judged, self.setup, self.team.device)
            if shown is not None:
                writes.image("validation/examples", shown, self._global_step)

    def _keep_best(self, figures: dict[str, float]) -> None:
        """The first epoch always, then each that is better, or each: without it there would be no model to give."""
        progress, value = self.progress, monitored(figures, self.recipe.monitor)
        less = self.recipe.monitor == "loss" or self.recipe.monitor in self.setup.task.lower_is_better()
        is_better = progress.best is None or (value < progress.best if less else value > progress.best)
        is_kept = self.recipe.keep_last or progress.best_epoch < 0 or (is_better and np.isfinite(value))
        if not is_kept:
            return
        progress.best, progress.best_epoch = (value if np.isfinite(value) else None), progress.epoch
        state = {"epoch": progress.epoch, "figures": progress.history[-1]["validation"]}
        _checkpoints.write(self.setup.checkpoints / BEST, Checkpoint(_checkpoints.model_tensors(self._judged), state))

    def _is_over(self) -> bool:
        """After the epoch has been counted."""
        progress, patience = self.progress, self.recipe.patience
        waited = progress.epoch - 1 - progress.best_epoch
        return progress.epoch >= self.recipe.epochs or (patience > 0 and waited >= patience)

    def _save_last(self, writes: EventFile | None) -> None:
        """The curves first: what a checkpoint has done is not done again."""
        if writes is None and not self._is_sharded:
            return
        tensors = {**_checkpoints.model_tensors(self._model), **_checkpoints.optimiser_tensors(self._optimiser)}
        if writes is None:
            return
        writes.flush()
        _checkpoints.write(self.setup.checkpoints / LAST, Checkpoint(tensors, asdict(self.progress)))

    def _validate(self) -> Outputs | None:
        """Outputs over the validation rows in the order of the rows, at the first worker."""
        mine = predict(
            [self._judged],
            self.setup,
            self.setup.validation,
            rank=self.team.rank,
            size=self.team.size,
            device=self.team.device,
        )
        parts: list[Outputs] = self.team.gathered(mine)
        return joined(parts) if self.team.is_first else None


@dataclass(frozen=True)
class Outputs:
    """What a model gives for some rows of a split.

    Attributes:
        ids_N: their numbers in the split.
        values_NK: what the task keeps of the activated values, float64.
        targets: (N,) or (N, ...), as the task keeps them.
        records_N: record numbers in the data set.
        loss_sum, weight_sum: over the rows.
    """

    ids_N: NDArray[np.int64]
    values_NK: NDArray[np.float64]
    targets: NDArray[Any]
    records_N: NDArray[np.int64]
    loss_sum: float
    weight_sum: float

    @property
    def size(self) -> int:
        """Rows."""
        return len(self.ids_N)

    @property
    def loss(self) -> float:
        """Weighted mean."""
        return self.loss_sum / self.weight_sum if self.weight_sum else float("nan")


def joined(parts: list[Outputs]) -> Outputs:
    """Parts of several workers in the order of the rows."""
    parts = [part for part in parts if part.size] or parts[:1]
    ids_N = np.concatenate([part.ids_N for part in parts])
    order = np.argsort(ids_N)
    return Outputs(
        ids_N[order],
        np.concatenate([part.values_NK for part in parts])[order],
        np.concatenate([part.targets for part in parts])[order],
        np.concatenate([part.records_N for part in parts])[order],
        sum(part.loss_sum for part in parts),
        sum(part.weight_sum for part in parts),
    )


def predict(
    models: Sequence[Any],
    setup: Setup,
    split: Split,
    *,
    rank: int = 0,
    size: int = 1,
    device: torch.device | None = None,
) -> Outputs:
    """One worker's share of a split, without augmentation; the models are left in eval mode.

    Of several models the values are averaged before anything is kept of them; the loss is the models' mean.
    """
    recipe, device = setup.recipe, device or torch.device("cpu")
    plan, loader = setup.plan_of(split), setup.loader_of(split)
    kind, encoder = setup.kind, setup.build_encoder()
    runners = [_Logits(model.eval()) for model in models]
    found = []
    with torch.inference_mode():
        for begin, end in _parts(plan.num_samples, _JUDGED_TOGETHER * recipe.micro_batch * size):
            ids_B = np.arange(begin + rank, end, size, dtype=np.int64)
            whole, order_B = loader.load(ids_B, epoch=0).by_length()
            for first, last in _parts(len(whole), recipe.micro_batch) if len(whole) else ():
                batch = whole.part(first, last)
                with memory_told(batch, setup, device=device, place="a judged batch"):
                    tensors = kind.tensors(encoder, batch.inputs, device)
                    each = [forward(one, tensors, device=device, precision=recipe.precision) for one in runners]
                found.append(_outputs(each, batch, ids_B[order_B[first:last]], setup=setup))
    return joined(found) if found else _no_outputs(setup)


def _outputs(each: Sequence[Tensor], batch: Batch, ids_B: NDArray[np.int64], *, setup: Setup) -> Outputs:
    task, targets = setup.task, torch.from_numpy(batch.targets).to(each[0].device)
    weights_B = task.weights(targets)
    losses = [float((task.losses(logits, targets) * weights_B).double().sum()) for logits in each]
    loss = losses[0] if len(losses) == 1 else float(np.mean(losses))
    values = [activate(logits, task.activation).cpu().numpy() for logits in each]
    mean = values[0] if len(values) == 1 else np.mean([one.astype(np.float64) for one in values], axis=0)
    kept_BS, truths = task.kept(mean, batch.targets)
    weight = float(weights_B.double().sum())
    return Outputs(ids_B, kept_BS.astype(np.float64), truths, batch.records_B, loss, weight)


def _no_outputs(setup: Setup) -> Outputs:
    none = np.zeros(0, dtype=np.int64)
    return Outputs(none, np.zeros((0, len(setup.task.kept_names))), setup.task.stack([]), none, 0.0, 0.0)


def forward(runner: nn.Module, tensors: tuple[Any, ...], *, device: torch.device, precision: str) -> Tensor:
    """Logits (B, K) of a batch, or (B, K, ...) where every position has its own, float32."""
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        logits: Tensor = runner(*tensors)
    return logits.float()


def monitored(figures: dict[str, float], name: str) -> float:
    """The figure by which the best epoch is chosen.

    Raises:
        InputError: there is none of this name.
    """
    if name not in figures:
        raise InputError(
            f"no figure named {name!r}", where="key 'training.monitor'", fix=f"known: {', '.join(figures)}"
        )
    return figures[name]


class _Logits(nn.Module):
    """A model as the loss sees it, in a form that can be wrapped."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, *tensors: Any) -> Tensor:
        logits: Tensor = self.model.logits(*tensors)
        return logits


def _parts(count: int, size: int) -> Iterator[tuple[int, int]]:
    """Bounds of parts of at most `size`; one empty part where there is nothing."""
    return ((begin, min(begin + size, count)) for begin in range(0, max(count, 1), size))


def _optimiser(model: nn.Module, recipe: Recipe, layer_rate: float) -> torch.optim.Optimizer:
    """Biases and scales are not drawn towards zero; what is frozen is left out; each depth has its own rate."""
    factors = rates_by_depth(model, layer_rate)
    groups = []
    for factor in sorted(set(factors.values()), reverse=True):
        of_depth = [one for name, one in model.named_parameters() if factors[name] == factor and one.requires_grad]
        wide, narrow = [one for one in of_depth if one.dim() > 1], [one for one in of_depth if one.dim() <= 1]
        groups.append({"params": wide, "weight_decay": recipe.weight_decay, "factor": factor})
        groups.append({"params": narrow, "weight_decay": 0.0, "factor": factor})
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=MOMENTUM)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)
