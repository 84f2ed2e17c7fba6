"""Image sets of dots, made by code and by the command that a user runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from engine.io.parquet import write_table
from engine.training._image_set import open_image_set
from schemas import tables
from tests.toys.pictures import save
from tests.toys.variant_runs import replisome_here

NUM, SIZE = 24, 24
CLASSES = ("bright", "dark")


def dots(number: int, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """A noisy field (Y, X) uint16 with bright discs, some touching, and the mask that numbers them."""
    chance = np.random.default_rng(number)
    y, x = np.mgrid[:size, :size]
    mask = np.zeros((size, size), np.uint16)
    for label in range(1, 4):
        row, column = chance.integers(4, size - 4, 2)
        mask[((y - row) ** 2 + (x - column) ** 2 <= 14) & (mask == 0)] = label
    pixels = 200 + 20 * chance.standard_normal((size, size)) + 800 * (mask > 0)
    return np.clip(pixels, 0, 65535).astype(np.uint16), mask


def classed(number: int, size: int = 16) -> np.ndarray:
    """RGB (Y, X, 3) uint8: every second image is dark."""
    chance = np.random.default_rng(number)
    return chance.integers(0, 120 if number % 2 else 255, (size, size, 3)).astype(np.uint8)


def dot_set(folder: Path, count: int = NUM, *words: str) -> Path:
    """A set with masks, one image a file."""
    for number in range(count):
        pixels, mask = dots(number)
        save(folder / "in" / f"{number:02d}.tif", pixels)
        save(folder / "masks" / f"{number:02d}.png", mask)
    return ingested(folder, "--masks", str(folder / "masks"), *words)


def classed_set(folder: Path, count: int = NUM) -> Path:
    """A set of two classes."""
    for number in range(count):
        save(folder / "in" / CLASSES[number % 2] / f"{number:02d}.png", classed(number))
    return ingested(folder, "--label-from-folder")


def ingested(folder: Path, *words: str) -> Path:
    """The folder `in` as a set."""
    given = ("ingest-images", str(folder / "in"), "-o", str(folder / "set"), "--progress", "none", *words)
    done = replisome_here(*given)
    assert done.returncode == 0, done.stderr
    return folder / "set"


def split_of(folder: Path, names: str = "tttttv") -> Path:
    """A split file of the set: letter by letter train, validation or test (x), again and again."""
    data = open_image_set(str(folder / "set"))
    told = {"t": "train", "v": "validation", "x": "test"}
    rows = [
        {"record": record, "id": name, "split": told[names[place % len(names)]]}
        for place, (record, name) in enumerate(zip(data.records.tolist(), data.ids.to_pylist(), strict=True))
    ]
    path = folder / "splits.parquet"
    table = pa.Table.from_pylist(rows, tables.SPLITS)
    write_table(table, path, schema_name="splits", version=tables.SPLITS_VERSION, metadata={"data_digest": data.digest})
    return path
