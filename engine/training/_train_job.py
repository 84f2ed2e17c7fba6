"""A training run from its parts to a model folder.

<output>/
  run.json              the spec, and the key that a resumed run must have: every setting and digest that counts
  checkpoints/          last and best, of each member, until the run is finished
  tensorboard/          curves and confusion matrices
  outputs.parquet       what the model gives for validation and test rows, beside the truth
  metrics.json          history, and the figures of every split with intervals
  model/                the model folder
  report.json           seals what holds times: log, curves, spec
  manifest.json         written last; seals the results, and makes the run finished. The checkpoints are then removed
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine import registry
from engine.errors import DataError, InputError
from engine.io.parquet import write_table
from engine.models._folder import save_model_folder
from engine.models._info import ModelInfo, open_model
from engine.runtime import layout
from engine.runtime.commit import commit_results
from engine.runtime.run import Run
from engine.storage.store import LocalStore
from engine.training import _checkpoints, _metrics, _workers
from engine.training._crew import Crew
from engine.training._frozen_run import freeze_run, plain, remove
from engine.training._kind import Kind, check_longest, check_tokens, kind_of, num_samples
from engine.training._recipe import Recipe, Setup
from engine.training._split_table import DataSet, Group, Split, SplitTable
from engine.training._train_card import card_of, figures_text
from engine.training._transfer import NONE, Taken, Transfer, planned
from engine.training.loop import Outputs, predict
from schemas import tables

JOB = "train_model"
MODEL, METRICS, OUTPUTS = "model", "metrics.json", "outputs.parquet"
CHECKPOINTS = "checkpoints"
RESULTS = ("model/", METRICS, OUTPUTS, "tensorboard/", "checkpoints/", "stopped/")
# What moves losses by rounding alone, as the number of workers does, or not at all.
_NOT_IN_KEY = ("cache_bytes", "checkpoint_steps", "micro_batch", "compiled", "sharding")
_MODEL_PARAMS = "key 'model.params'"
# A model's param that names the folder of what it was pre-trained as; the model gives what stands in its place.
BASE = "folder"
# What leaves the key of a run that does without it as it was.
_WHERE_SET = ("length_buckets", "keep_last")
# What the data and the task decide, and no one else.
DECIDED = ("outputs", "activation", "in_channels", "num_tokens", "head", "symmetry")


@dataclass(frozen=True)
class Component:
    """A component as a spec names it."""

    name: str
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Card:
    """What the model folder says that no figure tells."""

    name: str
    licence: str
    note: str = ""


@dataclass(frozen=True)
class TrainJob:
    """Attributes:
    data, splits: paths of the set and of the split file.
    fold: which fold is held out; None takes the split file's own validation rows.
    inner_fold: of nested folds, which inner one validates; the fold is then tested.
    allow_empty_classes: whether validation and test rows may lack a class.
    task, encoder, model: by name.
    recipe: how.
    augmentation: of the training rows: the keys that are set.
    members: networks of the ensemble, each with the next seed.
    card: of the model folder.
    output: local folder.
    transfer: what training begins from.
    """

    data: str
    splits: str
    fold: int | None
    task: Component
    encoder: Component
    model: Component
    recipe: Recipe
    augmentation: Mapping[str, Any]
    members: int
    card: Card
    output: Path
    allow_empty_classes: bool = False
    inner_fold: int | None = None
    transfer: Transfer = NONE


@dataclass(frozen=True)
class TrainOutcome:
    """Attributes:
    model: the model folder.
    metrics: content of metrics.json.
    already_finished: nothing was computed.
    """

    model: ModelInfo
    metrics: Mapping[str, Any]
    already_finished: bool
    uri: str

    def lines(self) -> list[str]:
        """What the command says at the end."""
        done = "finished before, nothing to do" if self.already_finished else "finished"
        found = [f"{self.uri}: {done}; model {self.model.digest[:12]}, {self.model.members} networks"]
        num_targets = len(self.metrics.get("targets", {}).get("means", ()))
        means = f"; means over {num_targets} targets, evaluate-model tells each" if num_targets > 1 else ""
        for split in ("validation", "test"):
            figures = self.metrics["figures"].get(split)
            if figures:
                found.append(f"  {split} ({figures['samples']:,} samples{means}): {figures_text(figures['metrics'])}")
        return [*found, *(f"  {self.uri}/{name}" for name in ("model/", METRICS, OUTPUTS, "tensorboard/"))]


@dataclass(frozen=True)
class Prepared:
    """A job with its data opened: what the workers get, what run.json keeps, and what the first network took over.

    `groups` names the group of each record that is judged, where the split file kept groups together.
    """

    setup: Setup
    splits: Mapping[str, Split]
    key: Mapping[str, Any]
    taken: Taken
    groups: Mapping[int, str | None] = field(default_factory=dict)

    def clusters(self, records_N: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """(N,) what is drawn together for intervals; None draws rows."""
        return _metrics.clusters_of([self.groups.get(int(one)) for one in records_N])


def prepare(job: TrainJob) -> Prepared:
    """Open data, splits and components, and fit the task to the training rows.

    Raises:
        InputError: anything that does not go together, before a step is trained.
    """
    task_class, task_params = _task(job.task)
    kind = kind_of(task_class)
    data = kind.open(job.data)
    if (names := getattr(data, "facts", {}).get(tables.TARGET_NAMES)) and hasattr(task_class, "named"):
        task_params = task_class.named(task_params, tuple(names))
    table = SplitTable.load(job.splits, data)
    splits = kind.index_splits(data, table, fold=job.fold, inner_fold=job.inner_fold)
    for name in ("train", "validation"):
        if not splits[name]:
            fix = _split_fix(job, table)
            raise InputError(f"no row of the set is in the split {name!r}", where=job.splits, fix=fix)
    column = task_class.column_of(task_params)
    task = task_class.fit(task_params, (kind.targets(data, group, column) for group in splits["train"]))
    _check_targets(job, kind, data, task, splits)
    encoder_class = registry.component("encoders", job.encoder.name)
    encoder = encoder_class(registry.build_params(encoder_class, job.encoder.params, where="key 'encoder.params'"))
    augmentation = kind.augmentation(job.augmentation)
    augmentation.check(encoder)
    if hasattr(task, "check_encoder"):
        task.check_encoder(encoder)
    decided = {
        "outputs": task.outputs,
        "activation": task.activation,
        "head": task.head,
        **kind.decided(data, encoder, augmentation),
        # Of the networks that can do both; those that cannot are told apart by their head.
        **({"level": task.level} if task.level == "position" else {}),
    }
    encoder_values = {"name": job.encoder.name, "params": dict(job.encoder.params)}
    transfer = planned(job.transfer, architecture=job.model.name, encoder=encoder_values)
    setup = Setup(
        recipe=_fitting(job.recipe, kind, splits),
        data=data,
        train=splits["train"],
        validation=splits["validation"],
        task=task,
        encoder=encoder_values,
        architecture=job.model.name,
        model_params=_model_params(job, kind, task, decided, splits),
        augmentation=augmentation,
        folder=job.output,
        transfer=replace(transfer, base=str(job.model.params.get(BASE, ""))),
    )
    model, taken = setup.begun()
    check_tokens(model, kind, data, encoder=encoder, task=task, splits=splits)
    return Prepared(setup, splits, _key(job, setup, data, table), taken, _groups(kind, data, table, splits))


def _groups(kind: Kind, data: DataSet, table: SplitTable, splits: Mapping[str, Split]) -> dict[int, str | None]:
    if not table.keeps_together:
        return {}

    def names_of(group: Group) -> list[str | None]:
        if table.units is not None:
            return table.units_of(group.records)
        return kind.group_names(data, group, table.grouped_by)

    judged = [group for name in ("validation", "test") for group in splits[name]]
    named = [(group.records.tolist(), names_of(group)) for group in judged]
    return {record: name for records, names in named for record, name in zip(records, names, strict=True)}


def _fitting(recipe: Recipe, kind: Kind, splits: Mapping[str, Split]) -> Recipe:
    """Of large samples fewer go through the network at once, which changes rounding alone."""
    together: int | None = getattr(kind, "together_bytes", None)
    if together is None:
        return recipe
    largest = max(kind.wire_bytes(split) for split in splits.values() if split)
    return replace(recipe, micro_batch=max(1, min(recipe.micro_batch, together // largest)))


def _split_fix(job: TrainJob, table: SplitTable) -> str:
    folds = np.unique(table.folds[table.folds >= 0]).tolist()
    if not len(folds):
        return "give a split file that has it" if job.fold is None else "it has no folds: leave the fold out"
    if job.fold is None:
        return f"the file has {len(folds)} folds: hold one out with --fold {folds[0]}, or use cross-validate"
    if job.fold not in folds:
        return f"the file has no fold {job.fold}, its folds are {', '.join(map(str, folds[:20]))}"
    return "make it anew with more folds"


def _task(component: Component) -> tuple[Any, Any]:
    """Class and params."""
    cls = registry.component("tasks", component.name)
    return cls, registry.build_params(cls, component.params, where="key 'task.params'")


def _check_targets(job: TrainJob, kind: Kind, data: DataSet, task: Any, splits: Mapping[str, Split]) -> None:
    """Every target is read once before a step is trained, and every class must have rows to be judged by."""
    for name, split in splits.items():
        seen_K: Any = None
        for group in split:
            column = kind.targets(data, group, task.column)
            truths_NK = task.truths(task.targets(column, records=group.records, where=group.part))
            if truths_NK is not None:
                found_K = truths_NK.any(axis=0)
                seen_K = found_K if seen_K is None else seen_K | found_K
        if seen_K is None or seen_K.all() or job.allow_empty_classes:
            continue
        absent = [output for output, seen in zip(task.outputs, seen_K, strict=True) if not seen]
        place = f"the split {name!r}" + ("" if job.fold is None else f" (fold {job.fold})")
        raise InputError(
            f"class {absent[0]!r} has no row in {place}",
            where=job.splits,
            fix="stratify the split by class, or set data.empty_classes to allow",
        )


def _model_params(
    job: TrainJob, kind: Kind, task: Any, decided: Mapping[str, Any], splits: Mapping[str, Split]
) -> dict[str, Any]:
    """The user's params and those that follow from data and task."""
    for name in decided:
        if name in job.model.params:
            what = f"{name!r} follows from the data and the task"
            raise InputError(what, where=_MODEL_PARAMS, fix="leave it out")
    made = {**job.model.params, **decided}
    made |= kind.filled(made, splits)
    cls = registry.component("models", job.model.name)
    if hasattr(cls, "fitted"):
        longest = max(group.longest for split in splits.values() for group in split)
        known = [int(group.lengths.min()) for group in splits["train"] if group.lengths is not None]
        shortest = min(known, default=1)
        made |= cls.fitted(made, num_samples=num_samples(splits["train"]), shortest=shortest, longest=longest)
    if hasattr(cls, "completed"):
        made = cls.completed(made)
    if not hasattr(cls, "set_bias") or getattr(cls, "kind", "sequences") != kind.name:
        what = f"{job.model.name!r} is not trained on {kind.noun} by this task"
        raise InputError(what, where="key 'model.name'", fix=f"choose one of {', '.join(_architectures(kind))}")
    params = registry.build_params(cls, made, where=_MODEL_PARAMS)
    level = cls.heads(params)[made["head"]].level
    if level != (wanted := getattr(task, "level", level)):
        what = f"{job.model.name!r} gives a value for every {level}, and the task wants one for every {wanted}"
        raise InputError(what, where="key 'model.name'", fix="choose another architecture")
    check_longest(cls, params, splits)
    return made


def _architectures(kind: Kind) -> list[str]:
    """Those that are trained on samples of a kind."""
    found = {name: registry.component("models", name) for name in registry.names("models")}
    return [
        name
        for name, cls in found.items()
        if hasattr(cls, "set_bias") and getattr(cls, "kind", "sequences") == kind.name
    ]


def _key(job: TrainJob, setup: Setup, data: DataSet, table: SplitTable) -> dict[str, Any]:
    """Everything that can change the result; memory, workers and checkpoints cannot."""
    left_out = (*_NOT_IN_KEY, *(name for name in _WHERE_SET if not getattr(setup.recipe, name)))
    recipe = {name: value for name, value in vars(setup.recipe).items() if name not in left_out}
    versions = {
        kind: registry.result_version(kind, name, params)
        for kind, name, params in (
            ("encoders", job.encoder.name, job.encoder.params),
            ("models", job.model.name, setup.model_params),
            ("tasks", job.task.name, job.task.params),
        )
    }
    key = {
        "job": JOB,
        "data": data.digest,
        "splits": table.digest,
        "fold": job.fold,
        "task": [job.task.name, dict(job.task.params)],
        "encoder": setup.encoder,
        "model": [job.model.name, dict(setup.model_params)],
        "recipe": recipe,
        "augmentation": vars(setup.augmentation),
        "members": job.members,
        "versions": versions,
    }
    if job.inner_fold is not None:
        key["inner_fold"] = job.inner_fold
    if setup.transfer.key():
        key["transfer"] = setup.transfer.key()
    frozen: dict[str, Any] = plain(key)
    return frozen


def freeze(job: TrainJob, prepared: Prepared, spec: Mapping[str, Any], *, force: bool) -> None:
    """Write run.json, or refuse a folder that holds another run.

    Raises:
        InputError: naming each difference.
    """
    freeze_run(job.output, job=JOB, key=prepared.key, spec=spec, results=RESULTS, force=force)


def finished(job: TrainJob) -> TrainOutcome | None:
    """The outcome of a run that is finished already."""
    if not (job.output / layout.MANIFEST).is_file():
        return None
    remove(job.output / CHECKPOINTS)
    metrics = layout.read_sealed(LocalStore(job.output), METRICS)
    return TrainOutcome(open_model((job.output / MODEL).resolve()), metrics, True, str(job.output))


def execute(
    job: TrainJob,
    prepared: Prepared,
    crew: Crew,
    *,
    run: Run,
    say: Callable[[str], None],
    watch: Callable[[int, Mapping[str, Any]], None] | None = None,
) -> TrainOutcome:
    """Train every member from where it stands, judge them together, and write the results.

    Args:
        job: what to train.
        prepared: from it.
        crew: who trains.
        run: held by this driver.
        say: told a line after each epoch.
        watch: told (member, the history's new entry) after each epoch; what it raises ends the training.

    Raises:
        ReplisomeError: see engine/training/loop.py.
    """
    setups = [_member(prepared.setup, number) for number in range(job.members)]
    if prepared.setup.transfer.init_from:
        say(f"begins from {prepared.setup.transfer.init_from}: {prepared.taken.text()}")
    for number, setup in enumerate(setups):

        def on_epoch(entry: Mapping[str, Any], number: int = number) -> None:
            say(f"member {number}, epoch {entry['epoch']}: loss {entry['train_loss']:.4f}; {_entry_text(entry)}")
            if watch is not None:
                watch(number, entry)

        _workers.train(setup, crew, on_epoch=on_epoch)
    trained = [_best(setup) for setup in setups]
    models, states = [model for model, _ in trained], [state for _, state in trained]
    judged = ("validation", "test")
    outputs = {
        name: ensemble(models, prepared.setup, prepared.splits[name], device=crew.device)
        for name in judged
        if prepared.splits[name]
    }
    store = LocalStore(job.output)
    _write_outputs(store, outputs, prepared.setup.task.kept_names)
    metrics = _judged(prepared, outputs, states, setups)
    store.put(METRICS, layout.sealed_json(metrics))
    info = save_model_folder(
        job.output / MODEL,
        models,
        architecture=job.model.name,
        card=card_of(job, prepared, metrics),
        overwrite=True,  # of a driver that did not come to the manifest
    )
    _commit(job, prepared, run, info)
    return TrainOutcome(info, metrics, False, str(job.output))


def _commit(job: TrainJob, prepared: Prepared, run: Run, info: ModelInfo) -> None:
    """Seal the results; what is only needed to go on is then removed."""
    names = run.store.list()
    results = {name: -1 for name in names if name.startswith(f"{MODEL}/") or name in (METRICS, OUTPUTS)}
    curves = [name for name in names if name.startswith("tensorboard/")]
    key = hashlib.sha256(layout.canonical_json(prepared.key)).hexdigest()
    facts = {"model": info.digest, "licence": info.licence, "key": prepared.key}
    commit_results(run, results, result_key=key, facts=facts, sidecars=curves)
    remove(job.output / CHECKPOINTS)


def _member(setup: Setup, number: int) -> Setup:
    """Its seed is what tells it from the others."""
    recipe = replace(setup.recipe, seed=setup.recipe.seed + number)
    return replace(setup, recipe=recipe, member=number)


def _best(setup: Setup) -> tuple[Any, Mapping[str, Any]]:
    """The network of the best epoch, and the state at the end."""
    folder = setup.checkpoints
    best, last = _checkpoints.read(folder / _checkpoints.BEST), _checkpoints.read(folder / _checkpoints.LAST)
    if best is None or last is None:
        raise DataError("the checkpoints of this run are gone", where=str(folder), fix="train anew with --force")
    model = setup.build_model()
    _checkpoints.load_model(model, best)
    return model.eval(), last.state


def _write_outputs(store: LocalStore, outputs: Mapping[str, Outputs], names: Sequence[str]) -> None:
    rows = [
        {"record": record, "split": split, "target": target, "values": values}
        for split, one in outputs.items()
        for record, target, values in zip(
            one.records_N.tolist(), one.targets.reshape(one.size, -1).tolist(), one.values_NK.tolist(), strict=True
        )
    ]
    local = store.scratch()
    write_table(
        pa.Table.from_pylist(rows, tables.TRAINING_OUTPUTS),
        local,
        schema_name="training_outputs",
        version=tables.TRAINING_OUTPUTS_VERSION,
        metadata={"outputs": json.dumps(list(names))},
    )
    store.put_file(local, OUTPUTS)
    store.clear_scratch()


def _judged(
    prepared: Prepared, outputs: Mapping[str, Outputs], states: list[Mapping[str, Any]], setups: list[Setup]
) -> dict[str, Any]:
    """Content of metrics.json."""
    figures = {name: _figures(prepared.setup, one, prepared.clusters(one.records_N)) for name, one in outputs.items()}
    members = [
        {"seed": setup.recipe.seed, "best_epoch": state["best_epoch"], "history": state["history"]}
        for setup, state in zip(setups, states, strict=True)
    ]
    counts = {name: num_samples(split) for name, split in prepared.splits.items()}
    facts = dict(prepared.setup.task.facts())
    return {"figures": figures, "members": members, "samples": counts, "targets": facts}


def ensemble(models: list[Any], setup: Setup, split: Split, *, device: str = "cpu") -> Outputs:
    """Mean of the members' values; the loss is the members' mean."""
    import torch

    place = torch.device(device)
    found = predict([model.to(place) for model in models], setup, split, device=place)
    for model in models:
        model.to("cpu")
    return found


def _figures(setup: Setup, outputs: Outputs, clusters: NDArray[np.int64] | None) -> dict[str, Any]:
    statistics = setup.task.statistics(outputs.values_NK, outputs.targets)
    counts = setup.task.confusion(outputs.values_NK, outputs.targets)
    return {
        "samples": outputs.size,
        "loss": outputs.loss,
        "metrics": _metrics.with_intervals(statistics, outputs.size, clusters=clusters),
        **_metrics.drawn_facts(clusters, outputs.size),
        "confusion": None if counts is None else counts.tolist(),
    }


def _entry_text(entry: Mapping[str, Any]) -> str:
    known = {name: value for name, value in entry["validation"].items() if value is not None}
    return "validation " + ", ".join(f"{name} {value:.4f}" for name, value in known.items())
