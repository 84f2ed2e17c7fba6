"""Image sets parted and checked by the job that parts sequences."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.io.parquet import footer_metadata
from engine.training._split_table import SplitTable
from engine.training.kinds.images import KIND
from tests.toys.image_sets import classed
from tests.toys.pictures import save
from tests.toys.variant_runs import assert_one_sentence, replisome_here


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """40 images in two classes of five slides; the last is the first again."""
    folder = tmp_path_factory.mktemp("set")
    for number in range(40):
        pixels = classed(number) if number < 39 else classed(0)
        save(folder / "in" / f"slide{number % 5}" / f"{'ab'[number % 2]}{number:02d}.png", pixels)
    words = ("--label-pattern", r"/([ab])\d", "--group-pattern", r"(slide\d)", "--duplicates", "keep")
    done = replisome_here("ingest-images", str(folder / "in"), "-o", str(folder / "run"), "--progress", "none", *words)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def split(data: Path, path: Path, *words: str):
    return replisome_here("split-sequences", str(data), "-o", str(path), *words)


@pytest.mark.parametrize(
    "words",
    [
        ("--stratify", "--test", "0.2", "--validation", "0.2"),
        ("--method", "group", "--test-groups", "slide3", "--validation-groups", "slide1"),
        ("--folds", "4", "--inner-folds", "2"),
    ],
)
def test_training_takes_what_is_made(data, tmp_path, words):
    for name in ("a", "b"):
        done = split(data, tmp_path / name, *words)
        assert done.returncode == 0, done.stderr
        assert "leaks between parts (equal pixels, same group)" in done.stdout
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    images = KIND.open(str(data))
    assert footer_metadata(tmp_path / "a")["data_digest"] == images.digest
    table = SplitTable.load(str(tmp_path / "a"), images)
    found = KIND.index_splits(images, table, fold=1 if "--folds" in words else None)
    counted = sum(len(group.records) for groups in found.values() for group in groups)
    assert counted == 40
    if "--stratify" in words:
        for name, size in (("train", 24), ("validation", 8), ("test", 8)):
            records = [record for group in found[name] for record in group.records]
            classes = images.labels.take(images.places(records)).to_pylist()
            assert (classes.count("a"), classes.count("b")) == (size // 2, size // 2)
    if "group" in words:
        assert {images.groups[int(one)].as_py() for group in found["test"] for one in group.records} == {"slide3"}


def test_equal_images_and_parted_groups_are_told(data, tmp_path):
    assert split(data, tmp_path / "split", "--seed", "3", "--test", "0.4").returncode == 0
    parts = dict(zip(*pq.read_table(tmp_path / "split", columns=["id", "split"]).to_pydict().values(), strict=True))
    done = replisome_here("split-sequences", str(data), "--check", str(tmp_path / "split"))
    assert done.returncode == 2
    assert "same group" in done.stdout
    same = parts["slide0/a00.png"] == parts["slide4/b39.png"]
    assert ("is the same as" in done.stdout) == (not same)
    assert "near" not in done.stdout


def test_equal_images_in_two_parts(data, tmp_path):
    done = split(
        data, tmp_path / "split", "--method", "group", "--test-groups", "slide4", "--validation-groups", "slide1"
    )
    assert done.returncode == 0
    assert "slide4/b39.png, test) is the same as record 0 (slide0/a00.png, train)" in done.stdout


def test_what_images_do_not_have_is_refused(data, tmp_path):
    done = split(data, tmp_path / "split", "--method", "similarity")
    assert_one_sentence(done, 2, "images are not parted by similarity; part them by group")
    assert_one_sentence(split(data, tmp_path / "split", "--method", "contig"), 2, "no record of the set has a contig")


def test_a_changed_index_is_seen(data, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(data, copy)
    content = bytearray((copy / "index.parquet").read_bytes())
    content[len(content) // 2] ^= 4
    (copy / "index.parquet").write_bytes(content)
    done = split(copy, tmp_path / "split")
    assert done.returncode == 2
    assert "index.parquet" in done.stderr
