"""The job evaluate_model on image sets: its figures are found again from the images, and are those of training."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import zarr
from sklearn import metrics

from engine.imaging.matching import THRESHOLDS, average_precision, match_counts, object_f1
from engine.runtime.run import RunContext
from jobs import evaluate_model
from schemas.jobs.evaluate_model import EvaluateModelSpec
from tests.toys.image_models import classifier, segmenter
from tests.toys.image_sets import classed, classed_set, dot_set, dots, ingested, split_of
from tests.toys.pages import Page
from tests.toys.pictures import save
from tests.toys.runs import assert_same_results
from tests.toys.variant_runs import assert_one_sentence, replisome, replisome_here

torch.set_num_threads(1)
NUM = 14


@pytest.fixture(scope="module")
def objects(tmp_path_factory) -> Path:
    """Fourteen images with masks, the first ten in two groups."""
    folder = tmp_path_factory.mktemp("objects")
    dot_set(folder, NUM, "--group-pattern", r"0([0-9])[.]", "--images-per-shard", "4")
    segmenter(folder / "model")
    split_of(folder, "tx")
    return folder


@pytest.fixture(scope="module")
def classes(tmp_path_factory) -> Path:
    """Forty images of three labels, the last one unknown to the model."""
    folder = tmp_path_factory.mktemp("classes")
    for number in range(40):
        label = "z" if number == 39 else "abc"[number % 3]
        save(folder / "in" / label / f"{number:02d}.png", classed(number))
    ingested(folder, "--label-from-folder", "--group-pattern", "([0-9])[0-9][.]png")
    classifier(folder / "model")
    return folder


def words(folder: Path, output: Path, *more: str) -> list[str]:
    given = ["evaluate-model", str(folder / "set"), "--model", str(folder / "model"), "-o", str(output)]
    return [*given, "--records-per-shard", "5", "--bootstrap", "50", "--progress", "none", *more]


def judged(folder: Path, output: Path, *more: str) -> Path:
    done = replisome_here(*words(folder, output, "-j", "1", *more))
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def calm(objects, tmp_path_factory) -> Path:
    return judged(objects, tmp_path_factory.mktemp("calm") / "out", "--audit", "num_objects,well")


def rows_of(output: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in sorted((output / "data").rglob("*.parquet"))])


def figures_of(output: Path) -> dict[tuple[str, str, str], dict]:
    found = json.loads((output / "metrics.json").read_text())["figures"]
    return {(one["scope"], one["name"], one["metric"]): one for one in found}


@pytest.fixture(scope="module")
def counts(objects, tmp_path_factory) -> np.ndarray:
    """(N, H, 3) of the masks that predict-images writes, as zarr reads them."""
    output = tmp_path_factory.mktemp("masks") / "out"
    given = ("predict-images", str(objects / "set"), "-m", str(objects / "model"), "-o", str(output))
    assert replisome_here(*given, "--progress", "none", "-j", "1").returncode == 0
    masks = zarr.open_group(output / "masks.zarr", mode="r")["0"]
    return np.array([match_counts(dots(number)[1], masks[number]) for number in range(NUM)])


def test_objects_are_judged_by_the_masks_of_the_set(calm, counts):
    found, pooled = figures_of(calm), counts.sum(axis=0)
    for place, name in ((0, "object_f1_50"), (4, "object_f1_70"), (8, "object_f1_90")):
        one = found["all", "", name]
        assert one["value"] == pytest.approx(object_f1(pooled)[place])
        assert one["low"] <= one["value"] <= one["high"]
    assert found["all", "", "average_precision"]["value"] == pytest.approx(average_precision(pooled))
    for place, threshold in enumerate(THRESHOLDS):
        hits, alarms, misses = pooled[place].tolist()
        expected = {
            "object_precision": hits / (hits + alarms) if hits + alarms else None,
            "object_recall": hits / (hits + misses),
            "object_f1": 2 * hits / (2 * hits + alarms + misses),
            "average_precision": hits / (hits + alarms + misses),
        }
        for name, value in expected.items():
            one = found["threshold", f"{threshold:.2f}", name]
            assert (one["value"], one["num_positive"]) == (pytest.approx(value), hits)


def test_pixels_are_told_by_class(calm):
    told, rows = json.loads((calm / "metrics.json").read_text()), rows_of(calm)
    names = ("background", "inside", "boundary")
    table = np.array([[rows[f"pixels_{one}_as_{other}"].sum() for other in names] for one in names])
    assert told["confusion"] == table.tolist()
    assert table.sum() == NUM * 24 * 24
    assert table[0].sum() == sum((dots(number)[1] == 0).sum() for number in range(NUM))
    for place, name in enumerate(names):
        one = figures_of(calm)["class", name, "iou"]
        hits, either = table[place, place], table[place].sum() + table[:, place].sum() - table[place, place]
        assert one["value"] == pytest.approx(hits / either)


def test_the_page_and_the_card_tell_the_same(calm):
    page, found = Page((calm / "report.html").read_text()), figures_of(calm)
    assert page.loose == []
    assert page.is_self_contained()
    shown = found["threshold", "0.70", "object_f1"]
    assert page.number("threshold.0.70.object_f1.value") == pytest.approx(shown["value"], abs=0.00051)
    assert page.number("all.dice.low") == pytest.approx(found["all", "", "dice"]["low"], abs=0.0051)
    quarters = [key for key in page.keyed if key.startswith("group.num_objects") and key.endswith(".num")]
    assert sum(page.number(key) for key in quarters) == NUM
    assert page.number("group.well..num") == NUM, "images of no plate have no well"
    card = (calm / "model_card.md").read_text()
    assert "14 images of the whole set" in card
    assert "## By IoU" in card
    assert pl.read_parquet(calm / "metrics.parquet").height == len(found)
    assert replisome_here("verify", str(calm)).returncode == 0


def test_too_few_images_have_no_figures_and_no_curve(objects, tmp_path):
    for name in ("set", "model"):
        (tmp_path / name).symlink_to(objects / name)
    splits = split_of(tmp_path, "x" + "t" * (NUM - 1))
    output = judged(tmp_path, tmp_path / "out", "--splits", str(splits))
    assert {one["value"] for one in figures_of(output).values()} == {None}
    assert (output / "report.html").read_text().count('points=""') == 3


def test_two_workers_and_a_killed_driver_give_the_same_bytes(objects, calm, tmp_path):
    audit = ("--audit", "num_objects,well")
    assert replisome(*words(objects, tmp_path / "two", "-j", "2", *audit)).returncode == 0
    assert_same_results(tmp_path / "two", calm)
    killed = replisome(*words(objects, tmp_path / "killed", "-j", "1", *audit), fault="kill@before-manifest")
    assert killed.returncode == -signal.SIGKILL
    assert replisome_here(*words(objects, tmp_path / "killed", *audit)).returncode == 0
    assert_same_results(tmp_path / "killed", calm)


def test_only_the_images_of_the_split_are_judged(objects, counts, tmp_path):
    output = judged(objects, tmp_path / "out", "--splits", str(objects / "splits.parquet"), "--cluster", "group")
    rows = rows_of(output)
    assert rows["reason"].to_list() == ["other_split" if n % 2 == 0 else None for n in range(NUM)]
    f1 = object_f1(counts[1::2].sum(axis=0))[0]
    assert figures_of(output)["all", "", "object_f1_50"]["value"] == pytest.approx(f1)
    assert "whole values of group" in (output / "report.html").read_text()


def test_classes_are_judged_by_the_labels_of_the_set(classes, tmp_path):
    output = judged(classes, tmp_path / "out", "--audit", "group", "--max-rejects", "0.2")
    rows, found, page = rows_of(output), figures_of(output), Page((output / "report.html").read_text())
    (odd,) = rows.filter(pl.col("state") == "rejected").to_dicts()
    assert (odd["label"], odd["reason"], odd["class_a"]) == ("z", "unknown_label", None)
    frame = rows.filter(pl.col("state") == "scored")
    values = frame.select("class_a", "class_b", "class_c").cast(pl.Float64).to_numpy()
    truth = np.array(["abc".index(name) for name in frame["label"]])
    called = values.argmax(axis=1)
    macro = {"average": "macro", "zero_division": 0}
    auroc = np.mean([metrics.roc_auc_score(truth == k, values[:, k]) for k in range(3)])
    for name, value in (
        ("accuracy", metrics.accuracy_score(truth, called)),
        ("f1_macro", metrics.f1_score(truth, called, **macro)),
        ("mcc", metrics.matthews_corrcoef(truth, called)),
        ("auroc", auroc),
    ):
        assert found["all", "", name]["value"] == pytest.approx(value)
        assert page.number(f"all.{name}.value") == pytest.approx(value, abs=0.00051)
    assert json.loads((output / "metrics.json").read_text())["confusion"] == (
        metrics.confusion_matrix(truth, called, labels=range(3)).tolist()
    )
    bins = [key for key in page.keyed if key.startswith("reliability.") and key.endswith(".num")]
    assert sum(page.number(key) for key in bins) == frame.height == 39
    for group in "0123":
        some = frame["group"] == group
        right = (frame["label"] == frame["class_predicted"]).filter(some).mean()
        assert found["group", group, "accuracy"]["value"] == pytest.approx(right)


SPEC = """
job: train_model
data: {path: FOLDER/set, splits: FOLDER/splits.parquet, empty_classes: allow}
training: {epochs: 6, batch_size: 4, learning_rate: 0.02}
output: FOLDER/trained
"""
KINDS = {
    "objects": """
task: {name: image_segmentation, params: {boundary_px: 1, object_px: 4}}
encoder: {name: pixels, params: {scale: values, low: 200, high: 1000}}
model: {name: u_net, params: {channels: 8, levels: 2}}
""",
    "classes": """
task: {name: image_classification}
encoder: {name: pixels, params: {channels: 3}}
model: {name: image_cnn, params: {channels: 2, levels: 2}}
""",
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_figures_are_those_that_training_told(tmp_path, kind):
    dot_set(tmp_path, 20) if kind == "objects" else classed_set(tmp_path, 40)
    split_of(tmp_path, "ttvx" if kind == "objects" else "ttttvvxx")
    (tmp_path / "spec.yaml").write_text((SPEC + KINDS[kind]).replace("FOLDER", str(tmp_path)))
    assert replisome_here("run", str(tmp_path / "spec.yaml"), "--progress", "none").returncode == 0
    (tmp_path / "model").symlink_to(tmp_path / "trained" / "model")
    splits = ("--splits", str(tmp_path / "splits.parquet"))
    found = figures_of(judged(tmp_path, tmp_path / "out", *splits, "--split", "validation"))
    told = json.loads((tmp_path / "trained" / "metrics.json").read_text())["figures"]["validation"]["metrics"]
    assert len(told) >= 6
    for name, one in told.items():
        value = found["all", "", name]["value"]
        assert value == (None if one["value"] is None else pytest.approx(one["value"], abs=1e-6)), name
    card = (tmp_path / "out" / "model_card.md").read_text()
    assert "Beware: the model was chosen by rows of the split validation" in card


@pytest.mark.ray
def test_ray_gives_the_same_bytes(ray_cluster, objects, calm, tmp_path):
    spec = EvaluateModelSpec.model_validate(
        {
            "data": str(objects / "set"),
            "model": str(objects / "model"),
            "audit": ["num_objects", "well"],
            "intervals": {"samples": 50},
            "output": str(tmp_path / "out"),
            "execution": {"executor": "ray", "workers": 2, "records_per_shard": 5},
        }
    )
    evaluate_model.run(spec, RunContext(progress="none"))
    assert_same_results(tmp_path / "out", calm)


def test_what_cannot_be_judged_is_one_sentence(objects, classes, tmp_path):
    def refused(folder: Path, *more: str):
        return replisome_here(*words(folder, tmp_path / "out", *more))

    bare = tmp_path / "bare"
    for number in range(2):
        save(bare / "in" / f"{number}.tif", dots(number)[0])
    ingested(bare)
    (bare / "model").symlink_to(objects / "model")
    assert_one_sentence(refused(bare), 2, "the set has no masks to judge by; make it anew with --masks")
    plain = tmp_path / "plain"
    for number in range(2):
        save(plain / "in" / f"{number}.png", classed(number))
    ingested(plain)
    (plain / "model").symlink_to(classes / "model")
    assert_one_sentence(refused(plain), 2, "the set has no labels to judge by")
    told = "the set, which holds images, has no contig; choose among group, label, plate, well"
    assert_one_sentence(refused(objects, "--audit", "contig"), 2, told)
    assert_one_sentence(refused(objects, "--both-strands"), 2, "images have no strands")
    assert_one_sentence(refused(objects, "--head", "class"), 2, "there is no head 'class'; it has: pixel_class")
    said = words(objects, tmp_path / "out")
    said[said.index("--model")] = "--predictions"
    assert_one_sentence(replisome_here(*said), 2, "on images a model is judged, not its predictions")
    said = words(objects, tmp_path / "out")
    said[said.index("--model") + 1] = "splice-mini"
    assert_one_sentence(replisome_here(*said), 2, "the model tells nothing of images")
