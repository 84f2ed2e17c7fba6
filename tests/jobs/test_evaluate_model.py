"""The job evaluate_model: every number of its page and files is found again from the parts by other libraries."""

from __future__ import annotations

import hashlib
import itertools
import json
import signal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from scipy import stats
from sklearn import metrics

from engine.runtime.run import RunContext
from engine.training._evaluation import SMALL_CELL
from jobs import evaluate_model
from schemas.jobs.evaluate_model import EvaluateModelSpec
from tests.toys.pages import Page
from tests.toys.runs import assert_same_results
from tests.toys.sequence_runs import ingested, sequence_model
from tests.toys.sequences import motif_rows, row, write_splits
from tests.toys.variant_runs import assert_one_sentence, replisome, replisome_here

torch.set_num_threads(1)

NUM = 160
ODD = {NUM: ("ACGTAC!!GT", "site"), NUM + 1: ("ACGTACGTTTGACAACGT", "other"), NUM + 2: ("ACGTACGTTTGACAACGA", None)}
AUDIT = ("--audit", "group,label,length")


def all_rows():
    rows = motif_rows(NUM)
    rows += [row(record, text, label=label, target=0.5) for record, (text, label) in ODD.items()]
    # Three groups of unlike size, a tiny one, and rows without any.
    names = ["g0"] * 6 + ["g1"] * 3 + [None]
    return [{**one, "group": "tiny" if one["record"] < 3 else names[one["record"] % 10]} for one in rows]


def split_of(record: int) -> str:
    return "train" if record % 4 == 3 else "test"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("evaluate")
    ingested(place, all_rows(), records_per_shard=50)
    kept = [one for one in all_rows() if one["record"] != NUM]
    write_splits(place / "splits.parquet", kept, split_of)
    for kind in ("class", "value"):
        sequence_model(place / kind, kind)
    return place


def words(folder: Path, output: Path, *more: str, model: str = "class") -> list[str]:
    given = ["evaluate-model", str(folder / "set"), "--model", str(folder / model), "-o", str(output)]
    return [*given, "--records-per-shard", "30", "--bootstrap", "50", "--progress", "none", *more]


def judged(folder: Path, output: Path, *more: str, model: str = "class") -> Path:
    done = replisome_here(*words(folder, output, "-j", "1", *more, model=model))
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def calm(folder, tmp_path_factory) -> Path:
    splits = ("--splits", str(folder / "splits.parquet"))
    return judged(folder, tmp_path_factory.mktemp("calm") / "out", *splits, *AUDIT)


@pytest.fixture(scope="module")
def numbers(folder, tmp_path_factory) -> Path:
    return judged(folder, tmp_path_factory.mktemp("numbers") / "out", "--audit", "group", model="value")


def rows_of(output: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in sorted((output / "data").rglob("*.parquet"))])


def scored(output: Path) -> pl.DataFrame:
    return rows_of(output).filter(pl.col("state") == "scored")


def page_of(output: Path) -> Page:
    return Page((output / "report.html").read_text())


def test_every_record_is_accounted_for(calm):
    rows = {one["record"]: one for one in rows_of(calm).to_dicts()}
    assert sorted(rows) == list(range(NUM + 3))
    for record, one in rows.items():
        expected = {
            NUM: ("not_applicable", "not_kept"),
            NUM + 1: ("rejected", "unknown_label"),
            NUM + 2: ("rejected", "missing_label"),
        }.get(record, ("scored", None))
        if record != NUM and split_of(record) != "test":
            expected = ("not_applicable", "other_split")
        assert (one["state"], one["reason"]) == expected, record
        assert (one["class_site"] is None) == (expected[0] != "scored")
    rejects = pl.concat([pl.read_parquet(path) for path in (calm / "rejects").rglob("*.parquet")])
    assert rejects["sentence"].to_list() == [
        "label 'other', the model's classes are none, site",
        "the record has no label",
    ]


def class_figures(frame: pl.DataFrame) -> dict[str, float]:
    truth, called = frame["label"].to_list(), frame["class_predicted"].to_list()
    site, positive = frame["class_site"].cast(pl.Float64).to_numpy(), frame["label"].to_numpy() == "site"
    macro = {"average": "macro", "zero_division": 0}
    bins = np.clip((frame["class_probability"].cast(pl.Float64).to_numpy() * 15).astype(int), 0, 14)
    right = (frame["label"] == frame["class_predicted"]).cast(pl.Float64).to_numpy()
    gaps = right - frame["class_probability"].cast(pl.Float64).to_numpy()
    one_class = len(set(truth)) < 2
    return {
        "accuracy": metrics.accuracy_score(truth, called),
        "precision_macro": metrics.precision_score(truth, called, **macro),
        "recall_macro": metrics.recall_score(truth, called, **macro),
        "f1_macro": metrics.f1_score(truth, called, **macro),
        "mcc": 0.0 if one_class else metrics.matthews_corrcoef(truth, called),
        "auroc": None if one_class else metrics.roc_auc_score(positive, site),
        "auprc": None if not positive.any() else metrics.average_precision_score(positive, site),
        "calibration_error": sum(abs(gaps[bins == one].sum()) for one in range(15)) / len(gaps),
    }


def expected_of(frame: pl.DataFrame, rows: pl.DataFrame) -> dict[str, float | None]:
    """Key to number, of every value on the page but intervals, timings and provenance."""
    found: dict[str, float | None] = {"bootstrap.samples": 50, "judged": frame.height}
    found |= {f"all.{name}.value": value for name, value in class_figures(frame).items()}
    for name in ("none", "site"):
        truth, said = frame["label"].to_numpy() == name, frame["class_predicted"].to_numpy() == name
        found[f"class.{name}.num"] = truth.sum()
        found[f"class.{name}.num.share"] = 100 * truth.sum() / frame.height
        values = frame[f"class_{name}"].cast(pl.Float64).to_numpy()
        found[f"class.{name}.precision.value"] = metrics.precision_score(truth, said, zero_division=0)
        found[f"class.{name}.recall.value"] = metrics.recall_score(truth, said)
        found[f"class.{name}.f1.value"] = metrics.f1_score(truth, said)
        found[f"class.{name}.auroc.value"] = metrics.roc_auc_score(truth, values)
        found[f"class.{name}.auprc.value"] = metrics.average_precision_score(truth, values)
        for other in ("none", "site"):
            num = (truth & (frame["class_predicted"].to_numpy() == other)).sum()
            found[f"confusion.{name}.{other}"] = num
            found[f"confusion.{name}.{other}.share"] = 100 * num / truth.sum()
    for column in ("group", "label"):
        for (name,), some in frame.with_columns(pl.col(column).fill_null("")).group_by(column):
            found |= group_of(f"group.{column}.{name}", some, frame.height)
    bins = (frame["class_probability"].cast(pl.Float64) * 15).floor().clip(0, 14)
    for place, number in enumerate(sorted(set(bins))):
        some = frame.filter(bins == number)
        found[f"reliability.{place}.num"] = some.height
        found[f"reliability.{place}.confidence"] = some["class_probability"].cast(pl.Float64).mean()
        found[f"reliability.{place}.observed"] = (some["label"] == some["class_predicted"]).mean()
    return found | counts_of(rows)


def group_of(key: str, some: pl.DataFrame, whole: int) -> dict[str, float | None]:
    found: dict[str, float | None] = {f"{key}.num": some.height, f"{key}.num.share": 100 * some.height / whole}
    for name, value in class_figures(some).items():
        found[f"{key}.{name}.value"] = value if some.height >= SMALL_CELL else None
    return found


def counts_of(rows: pl.DataFrame) -> dict[str, float | None]:
    found: dict[str, float | None] = {"counts.rows": rows.height}
    for state in ("scored", "not_applicable", "rejected"):
        num = rows.filter(pl.col("state") == state).height
        found |= {f"counts.{state}": num, f"counts.{state}.share": 100 * num / rows.height}
    for state, reason, num in rows.filter(pl.col("reason").is_not_null()).group_by("state", "reason").len().rows():
        key = f"reason.{state}.{reason}"
        found |= {key: num, f"{key}.share": 100 * num / rows.height}
    return found


def checked(page: Page, expected: dict[str, float | None], *, but: tuple[str, ...]) -> None:
    """Every number that is expected is shown, and nothing else is, but intervals and what `but` begins."""
    for key, value in expected.items():
        shown = page.number(key)
        if value is None:
            assert shown is None, key
        else:
            digits = 1 if key.endswith(".share") else 3
            assert shown == pytest.approx(float(value), abs=0.51 * 10**-digits), key
    assert page.loose == []
    others = {key for key in page.keyed if not key.startswith(("timings", "provenance", *but))} - set(expected)
    assert {key for key in others if not key.endswith((".low", ".high"))} == set()


def test_every_number_of_the_page_comes_from_the_parts(calm):
    page, frame = page_of(calm), scored(calm)
    assert frame.height > 100
    checked(page, expected_of(frame, rows_of(calm)), but=("group.length",))
    lengths = {key for key in page.keyed if key.startswith("group.length") and key.endswith(".num")}
    assert 2 <= len(lengths) <= 4
    for key in lengths:
        name = key.removeprefix("group.length.").removesuffix(".num")
        low, high = (int(end) for end in name.split(" to "))
        some = frame.filter(pl.col("length").is_between(low, high))
        checked(page, group_of(f"group.length.{name}", some, frame.height), but=("",))
    assert sum(page.number(key) for key in lengths) == frame.height
    assert page.is_self_contained()
    assert "Research use only; not a medical device." in " ".join(page.words)


def test_intervals_hold_their_figure_and_come_from_the_rows(calm):
    """Drawn again from the parts with the same seed by plain counting."""
    frame, page = scored(calm), page_of(calm)
    right = (frame["label"] == frame["class_predicted"]).to_numpy()
    generator = np.random.default_rng(0)
    drawn = [right[generator.integers(0, len(right), len(right))].mean() for _ in range(50)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert page.number("all.accuracy.low") == pytest.approx(low, abs=0.0051)
    assert page.number("all.accuracy.high") == pytest.approx(high, abs=0.0051)
    for key in [key for key in page.keyed if key.endswith(".low")]:
        base = key.removesuffix(".low")
        assert page.number(key) - 0.006 <= page.number(f"{base}.value") <= page.number(f"{base}.high") + 0.006, key


def test_files_tell_the_same_as_the_page(calm):
    page = page_of(calm)
    table = pl.read_parquet(calm / "metrics.parquet")
    content = json.loads((calm / "metrics.json").read_text())
    assert table.to_dicts() == content["figures"]
    assert content["rows"] == scored(calm).height
    for one in content["figures"]:
        place = {"all": "all", "class": f"class.{one['name']}", "group": f"group.{one['column']}.{one['name']}"}
        shown = page.number(f"{place[one['scope']]}.{one['metric']}.value")
        assert shown == (None if one["value"] is None else pytest.approx(one["value"], abs=0.00051))
    card = (calm / "model_card.md").read_text()
    (accuracy,) = [one for one in content["figures"] if (one["scope"], one["metric"]) == ("all", "accuracy")]
    assert f"| all | {content['rows']} | {accuracy['value']:.3f} (" in card
    assert "## By group" in card
    assert replisome_here("verify", str(calm)).returncode == 0


def test_numbers_are_judged_by_their_target(numbers):
    frame, page = scored(numbers), page_of(numbers)
    assert frame.height == NUM + 2
    value, target = (frame[name].cast(pl.Float64).to_numpy() for name in ("value", "target"))
    expected = {
        "all.pearson.value": stats.pearsonr(value, target).statistic,
        "all.spearman.value": stats.spearmanr(value, target).statistic,
        "all.r2.value": metrics.r2_score(target, value),
        "all.mse.value": metrics.mean_squared_error(target, value),
        "all.mae.value": metrics.mean_absolute_error(target, value),
        "bootstrap.samples": 50.0,
        "judged": NUM + 2,
        **counts_of(rows_of(numbers)),
    }
    checked(page, expected, but=("group.",))
    assert "Predicted against measured value" in (numbers / "report.html").read_text()


def test_a_prediction_gives_the_figures_of_its_model(folder, calm, tmp_path):
    predicted = ["predict", str(folder / "set"), "--model", str(folder / "class"), "-o", str(tmp_path / "predictions")]
    assert replisome_here(*predicted, "--records-per-shard", "7", "--progress", "none").returncode == 0
    said = words(folder, tmp_path / "out", "--splits", str(folder / "splits.parquet"), *AUDIT)
    at = said.index("--model")
    said[at : at + 2] = ["--predictions", str(tmp_path / "predictions")]
    done = replisome_here(*said)
    assert done.returncode == 0, done.stderr
    assert scored(tmp_path / "out")["record"].equals(scored(calm)["record"])
    one, other = (pl.read_parquet(place / "metrics.parquet") for place in (tmp_path / "out", calm))
    assert one.drop("value", "low", "high").equals(other.drop("value", "low", "high"))
    np.testing.assert_allclose(one["value"].to_numpy(), other["value"].to_numpy(), atol=1e-5)
    other_set = ingested(tmp_path / "more", motif_rows(20, seed=9))
    said[1] = str(other_set)
    said[said.index("-o") + 1] = str(tmp_path / "another")
    assert_one_sentence(replisome_here(*said), 2, "the predictions are of a set with digest .*; predict this set")


def test_two_workers_and_a_killed_driver_give_the_same_bytes(folder, calm, tmp_path):
    splits = ("--splits", str(folder / "splits.parquet"), *AUDIT)
    done = replisome(*words(folder, tmp_path / "two", "-j", "2", *splits))
    assert done.returncode == 0, done.stderr
    assert_same_results(tmp_path / "two", calm)
    killed = replisome(*words(folder, tmp_path / "killed", "-j", "1", *splits), fault="kill@before-manifest")
    assert killed.returncode == -signal.SIGKILL
    assert replisome_here(*words(folder, tmp_path / "killed", *splits)).returncode == 0
    assert_same_results(tmp_path / "killed", calm)


@pytest.mark.ray
def test_ray_gives_the_same_bytes(ray_cluster, folder, calm, tmp_path):
    spec = EvaluateModelSpec.model_validate(
        {
            "data": str(folder / "set"),
            "model": str(folder / "class"),
            "splits": {"file": str(folder / "splits.parquet")},
            "audit": ["group", "label", "length"],
            "intervals": {"samples": 50},
            "output": str(tmp_path / "out"),
            "execution": {"executor": "ray", "workers": 2, "records_per_shard": 30},
        }
    )
    evaluate_model.run(spec, RunContext(progress="none"))
    assert_same_results(tmp_path / "out", calm)


def test_rows_that_the_model_knows_are_told(folder, tmp_path):
    """The card of a trained model names its set and its split file."""
    digest = json.loads((folder / "set" / "manifest.json").read_text())["digest"]
    trained = tmp_path / "trained"
    spec = json.loads((folder / "class" / "replisome.json").read_text())
    trained.mkdir()
    for path in (folder / "class").iterdir():
        (trained / path.name).write_bytes(path.read_bytes())
    spec["training_data"] = [{"sequences": digest, "splits": "0" * 64, "fold": None}]
    (trained / "replisome.json").write_text(json.dumps(spec))
    said = words(folder, tmp_path / "whole")
    said[said.index("--model") + 1] = str(trained)
    assert replisome_here(*said, "--bootstrap", "0").returncode == 0
    text = (tmp_path / "whole" / "report.html").read_text()
    assert "the model was trained on rows of this set: give a split file, and judge its test rows" in text
    said[said.index("-o") + 1] = str(tmp_path / "split")
    splits = ("--splits", str(folder / "splits.parquet"), "--split", "train,test")
    done = replisome_here(*said, *splits, "--bootstrap", "0", "--progress", "plain")
    assert "note: the split file is not the one that the model was trained by" in done.stderr
    assert "note: the model was trained on rows of the split train: their figures flatter" in done.stderr
    card = (tmp_path / "split" / "model_card.md").read_text()
    assert card.count("Beware: ") == 2
    # It began from a model of this set by another split, and was then trained by this one.
    own = hashlib.sha256((folder / "splits.parquet").read_bytes()).hexdigest()
    spec["training_data"] += [{"sequences": digest, "splits": own, "fold": None}]
    (trained / "replisome.json").write_text(json.dumps(spec))
    said[said.index("-o") + 1] = str(tmp_path / "twice")
    done = replisome_here(*said, "--splits", str(folder / "splits.parquet"), "--bootstrap", "0", "--progress", "plain")
    assert "note: the split file is not the one that the model was trained by" in done.stderr


def test_intervals_that_split_groups_are_told(folder, tmp_path):
    """A split by group keeps groups whole, and single rows of a group are not independent."""
    parts = tmp_path / "splits.parquet"
    given = ("split-sequences", str(folder / "set"), "--method", "group", "-o", str(parts), "--allow-empty-classes")
    assert replisome_here(*given).returncode == 0
    splits = ("--splits", str(parts), "--split", "train,test", "--progress", "plain")
    told = "note: the intervals draw single rows, while the split file keeps groups together: rows of one may not be"
    rows = ("--cluster", "rows")
    for more, is_told in (
        ((), False),
        (rows, True),
        (("--cluster", "group"), False),
        ((*rows, "--bootstrap", "0"), False),
    ):
        done = replisome_here(*words(folder, tmp_path / f"out{len(more)}{more[1:2]}", *splits, *more))
        assert done.returncode == 0, done.stderr
        assert (told in done.stderr) == is_told


def test_labels_are_judged_one_by_one(tmp_path):
    rows = motif_rows(60)
    lines = [f"{one['id']}\t{one['sequence']}\t{one['targets'][0]:g}\t{one['targets'][1]:g}" for one in rows]
    (tmp_path / "rows.tsv").write_text("\n".join(["id\tsequence\ta\tc", *lines]) + "\n")
    given = ("ingest-sequences", str(tmp_path / "rows.tsv"), "--targets", "a,c", "-o", str(tmp_path / "set"))
    assert replisome_here(*given, "--progress", "none").returncode == 0
    sequence_model(tmp_path / "labels", "labels")
    output = judged(tmp_path, tmp_path / "out", model="labels")
    frame, page = scored(output), page_of(output)
    truth = np.array(frame["targets"].to_list())
    values = frame.select("labels_a", "labels_c").cast(pl.Float64).to_numpy()
    assert page.number("all.auroc.value") == pytest.approx(metrics.roc_auc_score(truth, values), abs=0.00051)
    for k, name in enumerate("ac"):
        assert page.number(f"class.{name}.num") == truth[:, k].sum()
        f1 = metrics.f1_score(truth[:, k], values[:, k] > 0.5, zero_division=0)
        assert page.number(f"class.{name}.f1.value") == pytest.approx(f1, abs=0.00051)
    assert not any(key.startswith("confusion") for key in page.keyed)


def test_what_cannot_be_judged_is_one_sentence(folder, calm, tmp_path):
    place = itertools.count()

    def refused(*more: str, model: str = "class"):
        return replisome_here(*words(folder, tmp_path / f"out{next(place)}", *more, model=model))

    splits = ("--splits", str(folder / "splits.parquet"))
    assert_one_sentence(refused("--head", "splice"), 2, "there is no head 'splice'; it has: class")
    assert_one_sentence(refused(*splits, "--split", "validation"), 2, "no row is judged: none of the set has a truth")
    assert_one_sentence(refused("--audit", "donor"), 2, "donor")
    assert_one_sentence(refused("--fold", "1"), 2, "a fold needs file")
    assert_one_sentence(refused("--predictions", str(calm)), 2, "give model, or predictions")
    assert_one_sentence(refused("--max-rejects", "0"), 3, "rows rejected of 163 records, .*unknown_label 1")
    assert_one_sentence(refused("--splits", str(tmp_path / "no")), 2, "the split file is not there")
    assert_one_sentence(refused(model="splice-mini"), 2, "no such folder")
    said = words(folder, tmp_path / "position")
    said[said.index("--model") + 1] = "splice-mini"
    assert_one_sentence(replisome_here(*said), 2, "there are several heads; name the judged one: splice, pwm, hexamer")
    told = (
        "classes named by one letter each; give the letters of none, acceptor, donor in position_labels, by --letters"
    )
    assert_one_sentence(replisome_here(*said, "--head", "splice"), 2, told)
    told = "letters 'NAA' for the classes none, acceptor, donor; give a letter for each, none twice"
    assert_one_sentence(replisome_here(*said, "--head", "splice", "--letters", "NAA"), 2, told)
    assert_one_sentence(replisome_here(*said, "--head", "pwm", "--letters", "AD"), 2, "tells no class of each position")
    other = replisome_here(*words(folder, calm, *splits, "--audit", "group"))
    assert_one_sentence(other, 2, "this folder holds a run that computes something else: audit was")
