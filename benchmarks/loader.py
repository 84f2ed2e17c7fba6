"""Whether the loader keeps a network busy, beside a plain torch DataLoader on the same shards.

    python -m benchmarks.loader [--only sequences,images] [--steps 150] [--epochs 3] [--work loader-work]

Sequences and images are made up, pass through ingest-sequences and ingest-images, and are fed to a step that computes
on one core for 50 ms, as the feeds of training do it: by a reader beside the step in the same process, and by Ray Data
in a worker of Ray Train. The DataLoader shuffles and collates, over pyarrow (all rows read once into memory) and over
zarr (an image at a time), with no worker and with one.

The clock of an epoch has one rule for all feeds: it begins when the loop is ready to step, its network and optimiser
made, and asks for the epoch's first batch; it ends with the last step. What passes before that, once in a run, is a
column of its own: "ready" is the time from the opened data set to a loop that is ready, which by Ray is its cluster and
its workers. "busy" is the share of an epoch's clock in which the step computed; "first wait" how long the first step
of each epoch waited for its batch; "samples/s" is the feed alone, without a step; "CPU" what all processes of
the feed and of Ray spent beside the step, for each batch, the first epoch left out.

It wants a machine of two cores with nothing else on them.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import zarr
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))  # also as `python benchmarks/loader.py`

from engine.io.parquet import write_table
from engine.runtime.run import RunContext
from engine.training import _ray_train
from engine.training._crew import Crew
from engine.training._recipe import Setup
from engine.training._team import Team
from engine.training._train_job import prepare
from engine.training.loop import Training
from jobs import _spec, ingest_images, ingest_sequences, train_model
from schemas import tables

QUIET = RunContext(progress="none")
STEP_S = 0.050
ALONE = 2
"""Epochs without a step that give the speed."""
_A = torch.randn(192, 192)
CLASSES = ("no", "yes")
CODES = np.full(256, 4, np.uint8)
CODES[[ord(letter) for letter in "ACGT"]] = range(4)
Feed = Callable[[int], Iterable[Any]]
READER, RAY, PLAIN, WORKER = (
    "ours, reader",
    "ours, Ray Data",
    "torch DataLoader, no worker",
    "torch DataLoader, 1 worker",
)


# ---------------------------------------------------------------- sets


@dataclass(frozen=True)
class Case:
    """Attributes:
    name: of the kind of sample.
    told: of its samples.
    batch_size: of a step.
    make: makes a set of so many samples in a folder, given the folder.
    values: of the train spec, beside data and output.
    dataset: what a user of torch would write.
    collate: makes a batch of its items.
    """

    name: str
    told: str
    batch_size: int
    make: Callable[[Path, int], None]
    values: dict[str, Any]
    dataset: Callable[[Path], Any]
    collate: Callable[[list[Any]], Any]


def job(name: str, values: dict[str, Any]) -> Any:
    """A spec."""
    return _spec.build(_spec.Source(values, "benchmarks/loader.py", {}), job=name)[1]


def make_sequences(folder: Path, count: int) -> None:
    """200 to 1,000 letters."""
    draw, letters = np.random.default_rng(0), np.frombuffer(b"ACGT", np.uint8)
    with (folder / "rows.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "sequence", "label"])
        for number in range(count):
            text = letters[draw.integers(0, 4, draw.integers(200, 1001))].tobytes().decode()
            writer.writerow([number, text, CLASSES[number % 2]])
    values = {"input": {"path": str(folder / "rows.csv")}, "output": str(folder / "set")}
    ingest_sequences.run(job("ingest_sequences", values), QUIET)


def make_images(folder: Path, count: int) -> None:
    """3 x 224 x 224, as noisy as a photograph: shards of nearly the size of the pixels."""
    draw = np.random.default_rng(0)
    for name in CLASSES:
        (folder / "images" / name).mkdir(parents=True)
    smooth = np.linspace(40, 200, 224)[:, None, None] + np.linspace(-30, 30, 224)[None, :, None]
    for number in range(count):
        pixels = smooth + draw.normal(0, 8, (224, 224, 3))
        place = folder / "images" / CLASSES[number % 2] / f"{number:06d}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place, compress_level=1)
    values = {
        "input": {"folders": [str(folder / "images")]},
        "labels": {"from_folder": True},
        "output": str(folder / "set"),
    }
    ingest_images.run(job("ingest_images", values), QUIET)


def write_split(folder: Path, count: int) -> None:
    """All but a few rows train."""
    rows = [
        {"record": record, "id": str(record), "split": "validation" if record < 4 else "train"}
        for record in range(count + 4)
    ]
    table = pa.Table.from_pylist(rows, tables.SPLITS)
    write_table(table, folder / "splits.parquet", schema_name="splits", version=tables.SPLITS_VERSION)


class Rows(torch.utils.data.Dataset[Any]):
    """Sequences of the Parquet parts, read once."""

    def __init__(self, folder: Path) -> None:
        parts = sorted((folder / "set" / "data").rglob("*.parquet"))
        table = pa.concat_tables([pq.read_table(part, columns=["sequence", "label"]) for part in parts])
        self.texts, self.labels = table["sequence"].combine_chunks(), table["label"].to_pylist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[Any, int]:
        letters = np.frombuffer(self.texts[place].as_buffer(), np.uint8)
        return torch.from_numpy(CODES[letters]), CLASSES.index(self.labels[place])


def padded(items: list[Any]) -> tuple[Any, Any]:
    """Tokens side by side, and classes."""
    tokens = torch.nn.utils.rnn.pad_sequence([one for one, _ in items], batch_first=True, padding_value=4)
    return tokens, torch.tensor([label for _, label in items])


class Pixels(torch.utils.data.Dataset[Any]):
    """Images of the Zarr array, one at a time."""

    def __init__(self, folder: Path) -> None:
        self.array = zarr.open_array(folder / "set" / "images.zarr" / "0", mode="r")
        self.labels = pq.read_table(folder / "set" / "index.parquet", columns=["label"])["label"].to_pylist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[Any, int]:
        return torch.from_numpy(self.array[place]), CLASSES.index(self.labels[place])


def stacked(items: list[Any]) -> tuple[Any, Any]:
    """Pixels, and classes."""
    return torch.stack([one for one, _ in items]), torch.tensor([label for _, label in items])


CASES = (
    Case(
        "sequences",
        "200 to 1,000 letters, both strands, moved by up to 5",
        256,
        make_sequences,
        {
            "task": {"name": "sequence_classification"},
            "augment": {"reverse_complement": True, "jitter_bp": 5},
            "model": {"name": "sequence_cnn", "params": {"channels": 8, "blocks": 1}},
        },
        Rows,
        padded,
    ),
    Case(
        "images",
        "3 x 224 x 224 uint8, turned and mirrored",
        32,
        make_images,
        {
            "task": {"name": "image_classification"},
            "augment": {"flip": True, "turn": True},
            "encoder": {"name": "pixels", "params": {"channels": 3}},
            "model": {"name": "image_cnn", "params": {}},
        },
        Pixels,
        stacked,
    ),
)


def setup_of(case: Case, folder: Path) -> Setup:
    """As train_model opens it."""
    values = {
        "job": "train_model",
        "data": {"path": str(folder / "set"), "splits": str(folder / "splits.parquet"), "empty_classes": "allow"},
        "training": {"batch_size": case.batch_size, "epochs": 1},
        "output": str(folder / "out"),
        **case.values,
    }
    return prepare(train_model.job_of(job("train_model", values))).setup


# ---------------------------------------------------------------- feeds


def compute() -> None:
    """A step: matrix products for 50 ms of one core's time."""
    end = time.thread_time() + STEP_S
    while time.thread_time() < end:
        torch.mm(_A, _A)


@dataclass(frozen=True)
class Epoch:
    """Attributes:
    wall_s, compute_s: of the epoch, and of its steps.
    first_wait_s: until the first batch was there.
    steps: of the epoch.
    cpu_s: of all processes, the steps left out.
    """

    wall_s: float
    compute_s: float
    first_wait_s: float
    steps: int
    cpu_s: float


@dataclass(frozen=True)
class Measured:
    """Attributes:
    ready_s: until the loop could step.
    epochs: with steps.
    batches_per_s: without.
    """

    ready_s: float
    epochs: list[Epoch]
    batches_per_s: float


@dataclass(frozen=True)
class Watch:
    """What is measured of a feed.

    Attributes:
        begun: when its making began, by the wall's clock, which processes share.
        root: the process whose CPU time counts, with that of all below it.
        epochs: with steps.
    """

    begun: float
    root: int
    epochs: int

    def on(self, feed: Feed) -> Measured:
        """Run the epochs; one more without a step, and two of which the speed is taken."""
        ready_s = time.time() - self.begun
        found = [self._epoch(feed(epoch)) for epoch in range(self.epochs)]
        _drained(feed(self.epochs))  # what was read ahead of it is no measure
        begun = time.perf_counter()
        batches = sum(_drained(feed(self.epochs + 1 + number)) for number in range(ALONE))
        return Measured(ready_s, found, batches / (time.perf_counter() - begun))

    def _epoch(self, batches: Iterable[Any]) -> Epoch:
        cpu = self._cpu_s()
        begun = time.perf_counter()
        computed, wall, steps, first = 0.0, 0.0, 0, 0.0
        for _ in batches:
            before, thread = time.perf_counter(), time.thread_time()
            first = first or before - begun
            compute()
            computed, wall = computed + time.thread_time() - thread, wall + time.perf_counter() - before
            steps += 1
        return Epoch(time.perf_counter() - begun, wall, first, steps, self._cpu_s() - cpu - computed)

    def _cpu_s(self) -> float:
        root, total = psutil.Process(self.root), 0.0
        for one in (root, *root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                times = one.cpu_times()
                total += times.user + times.system
        return total


def _drained(batches: Iterable[Any]) -> int:
    return sum(1 for _ in batches)


def measured(case: Case, folder: Path, epochs: int, wanted: str) -> Iterator[tuple[str, Measured]]:
    """Of the feeds whose names hold the word; ours first."""
    setup = setup_of(case, folder)
    # One epoch more than is asked for: reading ahead never ends while it is measured.
    setup = replace(setup, recipe=replace(setup.recipe, epochs=epochs + ALONE + 2))
    if wanted in READER:
        watch = Watch(time.time(), os.getpid(), epochs)
        yield READER, watch.on(_of(Training(setup, Team())))
    if wanted in RAY:
        told: list[dict[str, Any]] = []
        run = partial(_in_worker, watch=Watch(time.time(), os.getpid(), epochs))
        _ray_train.train(setup, Crew("ray", 1, feed="ray-data"), on_epoch=told.append, run=run)
        values = told[0]
        yield RAY, Measured(**{**values, "epochs": [Epoch(**one) for one in values["epochs"]]})
    for workers, name in ((0, PLAIN), (1, WORKER)):
        if wanted in name:
            watch = Watch(time.time(), os.getpid(), epochs)
            Training(setup, Team())
            loader = torch.utils.data.DataLoader(
                case.dataset(folder),
                batch_size=case.batch_size,
                shuffle=True,
                num_workers=workers,
                collate_fn=case.collate,
                multiprocessing_context="spawn" if workers else None,
                persistent_workers=workers > 0,
            )
            yield name, watch.on(_Every(loader))


def _of(training: Training) -> Feed:
    return lambda epoch: training.feed(epoch=epoch, first_step=0)


def _in_worker(training: Training, *, watch: Watch) -> None:
    assert training.on_epoch is not None
    training.on_epoch(asdict(watch.on(_of(training))))


@dataclass(frozen=True)
class _Every:
    """A feed whose epochs are drawn anew by itself."""

    loader: Any

    def __call__(self, epoch: int) -> Iterable[Any]:  # noqa: ARG002
        return self.loader


def line(case: Case, name: str, found: Measured) -> str:
    """Of the table."""
    busy = ", ".join(f"{100 * one.compute_s / one.wall_s:.1f}" for one in found.epochs)
    waits = ", ".join(f"{one.first_wait_s:.2f}" for one in found.epochs)
    steps = ", ".join(f"{1000 * one.compute_s / one.steps:.0f}" for one in found.epochs)
    later = found.epochs[1:] or found.epochs
    cpu_ms = 1000 * sum(one.cpu_s for one in later) / sum(one.steps for one in later)
    cells = [f"{case.name} ({case.told}), {case.batch_size} a step", name, f"{found.ready_s:.1f}", busy, waits, steps]
    return f"| {' | '.join(cells)} | {found.batches_per_s * case.batch_size:,.0f} | {cpu_ms:.1f} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("loader-work"), help="where the sets are kept")
    parser.add_argument("--only", default="sequences,images")
    parser.add_argument("--feeds", default="", help="only those whose names hold this")
    parser.add_argument("--steps", type=int, default=150, help="of an epoch")
    parser.add_argument("--epochs", type=int, default=3)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    chosen = [case for case in CASES if case.name in given.only.split(",")]
    folders = {case.name: given.work.absolute() / f"{case.name}-{given.steps}" for case in chosen}
    for case in chosen:
        folder, count = folders[case.name], case.batch_size * given.steps
        if not (folder / "set" / "manifest.json").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            case.make(folder, count + 4)
            write_split(folder, count)
    columns = "samples | feed | ready, s | busy by epoch, % | first wait, s | step, ms | samples/s without a step"
    print(f"| {columns} | CPU beside the step, ms a batch |\n|{'---|' * 8}", flush=True)
    for case in chosen:
        for name, found in measured(case, folders[case.name], given.epochs, given.feeds):
            print(line(case, name, found), flush=True)


if __name__ == "__main__":
    main()
