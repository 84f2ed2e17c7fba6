"""train_model and cross_validate on pairs and on positions: as a user runs them, by one worker and by two."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import registry
from engine.io.parquet import read_table
from engine.models._info import open_model
from engine.scoring._metrics import concordance
from engine.scoring._predict_job import model_key
from engine.training import _metrics
from tests.toys.sequences import pair_rows, state_rows, usual_split, write_set, write_splits
from tests.toys.variant_runs import assert_one_sentence, replisome_here

torch.set_num_threads(1)

TOWER = "{name: sequence_cnn, params: {channels: 8, blocks: 0, stem_width: 3, dropout: 0.0}}"
PAIRS = f"""
job: train_model
data: {{path: FOLDER/set, splits: FOLDER/splits.parquet}}
task: {{name: pair_regression, params: {{censored_at: 5.0}}}}
encoder: {{name: pair, params: {{first: protein_tokens, second: {{name: smiles_tokens}}}}}}
model: {{name: pair_network, params: {{first: {TOWER}, second: {TOWER}, hidden: [16], joint: concat+product}}}}
augment: {{mask_fraction: 0.02}}
training: {{epochs: 40, batch_size: 16, learning_rate: 0.01, weight_decay: 0}}
output: out
"""
POSITIONS = """
job: train_model
data: {path: FOLDER/set, splits: FOLDER/splits.parquet}
task: {name: position_classification, params: {class_weights: balanced}}
encoder: {name: protein_tokens}
model: {name: sequence_cnn, params: {channels: 12, blocks: 1, width: 3, stem_width: 3, dropout: 0.1}}
augment: {jitter_bp: 2}
training: {epochs: 8, batch_size: 12, learning_rate: 0.01, members: 2}
output: out
"""
CASES = {"pairs": (PAIRS, pair_rows, 96), "positions": (POSITIONS, state_rows, 90)}


def run(folder: Path, output: Path, *settings: str, spec: str = "spec.yaml"):
    more = [word for one in (f"output={output}", *settings) for word in ("--set", one)]
    return replisome_here("run", str(folder / spec), *more, "--progress", "none")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    made = {}
    for kind, (text, rows_of, count) in CASES.items():
        folder = made[kind] = tmp_path_factory.mktemp(kind)
        rows = rows_of(count)
        write_set(folder / "set", rows)
        write_splits(folder / "splits.parquet", rows, usual_split)
        (folder / "spec.yaml").write_text(text.replace("FOLDER", str(folder)))
        done = run(folder, folder / "calm")
        assert done.returncode == 0, done.stderr
    return made


def history(output: Path) -> list[float]:
    metrics = json.loads((output / "metrics.json").read_text())
    return [entry["train_loss"] for member in metrics["members"] for entry in member["history"]]


@pytest.mark.parametrize(("kind", "figure", "least"), [("pairs", "pearson", 0.9), ("positions", "accuracy", 0.9)])
def test_it_learns_and_the_model_says_what_it_is(folders, kind, figure, least):
    output = folders[kind] / "calm"
    metrics = json.loads((output / "metrics.json").read_text())
    found = metrics["figures"]["test"]["metrics"]
    assert found[figure]["value"] > least
    info = open_model((output / "model").resolve())
    (head,) = info.heads.values()
    assert (head.level, info.architecture) == {
        "pairs": ("sequence", "pair_network"),
        "positions": ("position", "sequence_cnn"),
    }[kind]
    assert info.extra["task"][0] == {"pairs": "pair_regression", "positions": "position_classification"}[kind]
    wanted = {
        "pairs": {"pearson", "spearman", "mse", "concordance", "concordance_uncensored"},
        "positions": {"accuracy", "accuracy_per_sample", "f1_macro", "mcc"},
    }
    assert set(found) == wanted[kind]
    assert all(one["low"] <= one["value"] <= one["high"] for one in found.values())


def test_figures_of_pairs_are_those_of_the_outputs(folders):
    output = folders["pairs"] / "calm"
    table = read_table(output / "outputs.parquet").to_pylist()
    rows = [row for row in table if row["split"] == "test"]
    found = json.loads((output / "metrics.json").read_text())["figures"]["test"]["metrics"]
    value, truth = (np.array([row[name][0] for row in rows]) for name in ("values", "target"))
    assert found["concordance"]["value"] == pytest.approx(concordance(value, truth))
    assert found["mse"]["value"] == pytest.approx(np.mean((value - truth) ** 2))


def test_what_is_kept_of_positions_is_counts(folders):
    output = folders["positions"] / "calm"
    rows = [row for row in read_table(output / "outputs.parquet").to_pylist() if row["split"] == "test"]
    labels = {row["record"]: row["position_labels"] for row in state_rows(90)}
    for row in rows:
        known = labels[row["record"]]
        assert row["target"] == [known.count(state) for state in "CEH"]
        assert sum(row["values"]) == sum(row["target"])
    figures = json.loads((output / "metrics.json").read_text())["figures"]["test"]
    counts = np.array([row["values"] for row in rows]).sum(axis=0).reshape(3, 3)
    assert figures["confusion"] == counts.astype(int).tolist()
    assert figures["metrics"]["accuracy"]["value"] == pytest.approx(np.trace(counts) / counts.sum())


@pytest.mark.parametrize("kind", sorted(CASES))
def test_two_workers_train_to_the_losses_of_one(folders, kind, tmp_path):
    few = ("training.epochs=3", "training.members=1")
    for output, workers in (("one", 1), ("two", 2)):
        done = run(folders[kind], tmp_path / output, *few, f"execution.workers={workers}", "execution.micro_batch=5")
        assert done.returncode == 0, done.stderr
    assert history(tmp_path / "two") == pytest.approx(history(tmp_path / "one"), rel=1e-4)


@pytest.mark.parametrize(("kind", "figure"), [("pairs", "concordance"), ("positions", "accuracy_per_sample")])
def test_folds_are_joined_and_judged_together(folders, kind, figure, tmp_path):
    rows = CASES[kind][1](CASES[kind][2])
    write_splits(tmp_path / "folds.parquet", rows, lambda record: ("train", record % 2))
    text = (folders[kind] / "spec.yaml").read_text().replace("train_model", "cross_validate")
    (tmp_path / "spec.yaml").write_text(text)
    few = ("training.epochs=2", "training.members=1", f"data.splits={tmp_path}/folds.parquet")
    done = run(tmp_path, tmp_path / "out", *few)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["samples"] == len(rows)
    assert metrics["pooled"][figure]["value"] is not None
    assert read_table(tmp_path / "out" / "out_of_fold.parquet")["record"].to_pylist() == list(range(len(rows)))


@pytest.mark.parametrize(
    ("kind", "setting", "sentence"),
    [
        ("pairs", "encoder={name: protein_tokens}", "the encoder reads single sequences, and the task takes pairs"),
        ("pairs", "model={name: sequence_cnn}", "'sequence_cnn' is not trained on pairs by this task"),
        ("pairs", "augment={jitter_bp: 3}", "pairs are not varied by jitter_bp"),
        ("pairs", "task={name: sequence_regression}", "'pair_network' is not trained on sequences by this task"),
        ("pairs", "encoder.params={first: tokenz}", "no encoder named 'tokenz'"),
        ("positions", "task={name: pair_regression}", "has no other member, so it is no pair"),
        ("positions", "model.params={stem_pool: 2}", "nothing is pooled: leave out pool and stem_pool"),
        ("positions", "model.params={level: sequence}", "'level' follows from the data and the task"),
        ("positions", "task={name: position_classification, params: {classes: HE}}", "record .* has label 'C'"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(folders, kind, setting, sentence, tmp_path):
    key, _, value = setting.partition("=")
    assert_one_sentence(run(folders[kind], tmp_path / "out", f"{key}={value}"), 2, sentence)


def test_a_new_version_of_what_reads_a_member_is_another_result(folders, tmp_path, monkeypatch):
    info = open_model((folders["pairs"] / "calm" / "model").resolve())
    before = model_key(info)
    for kind, name, key in (
        ("encoders", "smiles_tokens", "encoders_version"),
        ("models", "sequence_cnn", "models_version"),
    ):
        cls = registry.component(kind, name)
        monkeypatch.setattr(cls, "RESULT_VERSION", cls.RESULT_VERSION + 1)
        assert model_key(info)[key] > before[key]
    assert_one_sentence(run(folders["pairs"], folders["pairs"] / "calm"), 2, "versions")


def test_intervals_draw_whole_members_where_pairs_were_parted_by_them(folders, tmp_path):
    from engine.training._sequence_set import open_set
    from engine.training.splits import SplitPlan, load_records, split_table, write_split

    data = open_set(str(folders["pairs"] / "set"))
    plan = SplitPlan(method="group", group_by="second_id", validation=0.25, test=0.25)
    table = split_table(load_records(data, sequences=False, group_by="second_id"), plan)
    write_split(table, tmp_path / "splits.parquet", plan=plan, data_digest=data.digest)
    done = run(folders["pairs"], tmp_path / "out", f"data.splits={tmp_path}/splits.parquet", "training.epochs=1")
    assert done.returncode == 0, done.stderr
    by_group = json.loads((tmp_path / "out" / "metrics.json").read_text())["figures"]["test"]
    assert by_group["drawn"] == "groups"
    assert f"| {by_group['num_drawn']} groups |" in (tmp_path / "out" / "model" / "README.md").read_text()
    singly = json.loads((folders["pairs"] / "calm" / "metrics.json").read_text())["figures"]["test"]
    assert singly["drawn"] == "rows"


def test_a_row_of_no_group_is_drawn_alone():
    assert _metrics.clusters_of(["a", None, "a", "b", None]).tolist() == [0, 1, 0, 2, 3]
    assert _metrics.clusters_of([None, None]) is None
    assert _metrics.clusters_of(["a", "a"]) is None
