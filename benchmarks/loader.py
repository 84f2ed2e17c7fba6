"""Whether the loader keeps a network busy, beside a plain torch DataLoader on the same shards.

    python -m benchmarks.loader [--only sequences,images] [--steps 150] [--epochs 3] [--work loader-work]

Sequences and images are made up, pass through ingest-sequences and ingest-images, and are fed to a step that computes
on one core for 50 ms, as the feeds of training do it: by a reader beside the step in the same process, and by Ray Data.
"busy" is the share of each epoch's wall time in which the step computed, its first batch included; "samples/s" is the
feed alone, without a step; "CPU ms" what a batch costs, where no other process helps. The DataLoader shuffles and
collates, over pyarrow (all rows read once into memory) and over zarr (an image at a time), with no worker and with one.

It wants a machine of two cores with nothing else on them.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import zarr
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))  # also as `python benchmarks/loader.py`

from engine.io.parquet import write_table
from engine.runtime.executors.ray_data import cluster
from engine.runtime.run import RunContext
from engine.training._batches import Reader
from engine.training._ray_train import DataFeed
from engine.training._recipe import Setup
from engine.training._train_job import prepare
from jobs import _spec, ingest_images, ingest_sequences, train_model
from schemas import tables

QUIET = RunContext(progress="none")
STEP_S = 0.050
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


def feeds(case: Case, folder: Path, wanted: str) -> Iterator[tuple[str, Feed]]:
    """Those whose names hold the word; ours first."""
    setup = setup_of(case, folder)
    plan = setup.train_plan()
    if wanted in READER:
        reader = Reader(setup.train_loader(), plan, 0, 1)
        yield READER, lambda epoch: reader(epoch=epoch, first_step=0)
    if wanted in RAY:
        with cluster("local"):
            fed = DataFeed(setup, rank=0, num_workers=1)
            yield RAY, lambda epoch: fed(epoch=epoch, first_step=0)
    for workers, name in ((0, PLAIN), (1, WORKER)):
        if wanted in name:
            loader = torch.utils.data.DataLoader(
                case.dataset(folder),
                batch_size=case.batch_size,
                shuffle=True,
                num_workers=workers,
                collate_fn=case.collate,
                multiprocessing_context="spawn" if workers else None,
                persistent_workers=workers > 0,
            )
            yield name, _Every(loader)


@dataclass(frozen=True)
class _Every:
    """A feed whose epochs are drawn anew by itself."""

    loader: Any

    def __call__(self, epoch: int) -> Iterable[Any]:  # noqa: ARG002
        return self.loader


def compute() -> None:
    """A step: matrix products for 50 ms of one core's time."""
    end = time.thread_time() + STEP_S
    while time.thread_time() < end:
        torch.mm(_A, _A)


@dataclass(frozen=True)
class Measured:
    """Of an epoch: share of the time in which the step computed, and mean milliseconds of a step."""

    busy: float
    step_ms: float


def epoch_of(feed: Feed, epoch: int) -> Measured:
    """Run one."""
    computed, steps, begun = 0.0, 0, time.perf_counter()
    for _ in feed(epoch):
        before = time.perf_counter()
        compute()
        computed += time.perf_counter() - before
        steps += 1
    return Measured(computed / (time.perf_counter() - begun), 1000 * computed / steps)


@dataclass(frozen=True)
class Alone:
    """Of an epoch without a step: samples a second, and milliseconds of this process's CPU for each step's batch."""

    samples_per_s: float
    cpu_ms: float


def alone(feed: Feed, epoch: int, samples: int) -> Alone:
    """Run one."""
    begun, cpu, steps = time.perf_counter(), time.process_time(), 0
    for _ in feed(epoch):
        steps += 1
    cpu_ms = 1000 * (time.process_time() - cpu) / steps
    return Alone(samples / (time.perf_counter() - begun), cpu_ms)


def lines_of(case: Case, folder: Path, *, samples: int, epochs: int, wanted: str) -> Iterator[str]:
    """Of the table."""
    for name, feed in feeds(case, folder, wanted):
        found = [epoch_of(feed, epoch) for epoch in range(epochs)]
        rate = alone(feed, epochs, samples)
        busy = ", ".join(f"{100 * one.busy:.1f}" for one in found)
        steps = ", ".join(f"{one.step_ms:.0f}" for one in found)
        is_here = name in (READER, PLAIN)  # and no other process works for it
        cells = [f"{case.name} ({case.told}), {case.batch_size} a step", name, busy, steps]
        yield f"| {' | '.join(cells)} | {rate.samples_per_s:,.0f} | {f'{rate.cpu_ms:.1f}' if is_here else ''} |"


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
    print(
        "| samples | feed | busy by epoch, % | step, ms | samples/s without a step |\n|---|---|---|---|---|", flush=True
    )
    for case in chosen:
        samples = case.batch_size * given.steps
        for line in lines_of(case, folders[case.name], samples=samples, epochs=given.epochs, wanted=given.feeds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
