"""The job tune_model: as a user runs it, killed and gone on with."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml

from engine.io.parquet import read_table
from engine.models._info import open_model
from tests.engine.training.events import scalars
from tests.toys.sequences import motif_rows, usual_split, write_set, write_splits
from tests.toys.variant_runs import assert_one_sentence, replisome, replisome_here

torch.set_num_threads(1)

SPEC = """
job: tune_model
data: {path: FOLDER/set, splits: FOLDER/splits.parquet}
task: {name: sequence_classification}
model: {name: sequence_cnn, params: {channels: 4, blocks: 1, stem_width: 5}}
training: {epochs: 2, batch_size: 36, learning_rate: 0.003}
search:
  training.learning_rate: {choice: [0.01, 0.00001, 1.0e+20]}
  model.params.channels: {choice: [4, 6]}
tuning: {method: grid, stopping: halving, factor: 2}
execution: {checkpoint_steps: 1}
output: out
"""


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = motif_rows(120, low=24, high=24)
    write_set(folder / "set", rows)
    write_splits(folder / "splits.parquet", rows, usual_split)
    (folder / "spec.yaml").write_text(SPEC.replace("FOLDER", str(folder)))
    return folder / "spec.yaml"


def words(spec, output, *settings: str) -> list[str]:
    more = [word for one in (f"output={output}", *settings) for word in ("--set", one)]
    return ["run", str(spec), *more, "--progress", "none"]


@pytest.fixture(scope="module")
def calm(spec, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("calm") / "out"
    # 1e20 would be clipped to a loss that is still a number: without a limit it is not.
    done = replisome_here(*words(spec, output, "training.clip_norm=0", "training.warmup=0"))
    assert done.returncode == 0, done.stderr
    return output


def trials(output: Path):
    return read_table(output / "trials.parquet").to_pylist()


def test_the_grid_is_covered_on_one_split_and_each_trial_ends_as_it_should(spec, calm):
    rows = trials(calm)
    found = [(one["training.learning_rate"], one["model.params.channels"]) for one in rows]
    assert found == [(rate, channels) for rate in (1e-2, 1e-5, 1e20) for channels in (4, 6)]
    assert {one["splits"] for one in rows} == {
        hashlib.sha256((spec.parent / "splits.parquet").read_bytes()).hexdigest()
    }
    for number, one in enumerate(rows):
        key = json.loads((calm / "trials" / f"{number:04d}" / "run.json").read_text())["key"]
        assert key["splits"] == one["splits"]
        assert key["recipe"]["learning_rate"] == one["training.learning_rate"]
        assert len(one["curve"]) == one["epochs"]
    assert [one["state"] for one in rows][2:] == ["stopped", "stopped", "failed", "failed"]
    assert all((one["reason"] is None) == (one["state"] == "completed") for one in rows)
    (best,) = [one for one in rows if one["is_best"]]
    assert best["training.learning_rate"] == 0.01
    assert best["value"] == min(one["value"] for one in rows if one["state"] == "completed")


def test_the_best_spec_trains_as_it_stands_to_the_best_trial(calm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = replisome_here("run", str(calm / "best.yaml"), "--progress", "none")
    assert done.returncode == 0, done.stderr
    (best,) = [one for one in trials(calm) if one["is_best"]]
    trial = calm / "trials" / f"{best['trial']:04d}"
    assert open_model(tmp_path / "best-model" / "model").digest == open_model(trial / "model").digest
    assert yaml.safe_load((calm / "best.yaml").read_text())["training"]["learning_rate"] == 0.01


def test_verify_sees_every_byte_and_the_page_shows_every_trial(calm, tmp_path):
    done = replisome_here("verify", str(calm))
    assert (done.returncode, "belongs to no run" in done.stdout) == (0, False), done.stdout
    page = (calm / "report.html").read_text()
    for one in trials(calm):
        assert f'data-key="trial.{one["trial"]}.value"' in page
    assert page.count("<svg") == 3  # against the number, and against both searched keys
    whole = tmp_path / "out"
    shutil.copytree(calm, whole)
    for name in (
        "best.yaml",
        "trials.parquet",
        "trials/0000/run.log",
        "trials/0004/stopped/batch.json",
        "trials/0001.json",
    ):
        data = (whole / name).read_bytes()
        (whole / name).write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
        done = replisome_here("verify", str(whole))
        assert done.returncode == 2
        assert name in done.stdout
        (whole / name).write_bytes(data)


def same_end(one: Path, other: Path) -> None:
    for name in ("manifest.json", "files.parquet", "trials.parquet", "best.yaml"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


# In the trial that is stopped, and behind its end.
@pytest.mark.parametrize("fault", ["kill@checkpoint#17", "kill@after-trial#3"])
def test_a_killed_search_goes_on_with_the_same_trials_to_the_same_best(spec, calm, tmp_path, fault):
    said = words(spec, tmp_path / "out", "training.clip_norm=0", "training.warmup=0")
    killed = replisome(*said, fault=fault)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "out" / "manifest.json").exists()
    ended = {path: path.read_bytes() for path in (tmp_path / "out" / "trials").glob("*.json")}
    done = replisome_here(*said)
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in ended} == ended
    same_end(tmp_path / "out", calm)


@pytest.mark.parametrize("method", ["random", "bayesian"])
def test_other_methods_stopped_and_resumed(spec, tmp_path, method):
    said = [
        f"tuning={{method: {method}, trials: 3}}",
        "search={training.learning_rate: {log_uniform: [0.0001, 0.01]}, augment.jitter_bp: {integer: [0, 2]}}",
        "training.epochs=1",
    ]
    done = replisome_here(*words(spec, tmp_path / "calm", *said))
    assert done.returncode == 0, done.stderr
    rows = trials(tmp_path / "calm")
    assert len({one["training.learning_rate"] for one in rows}) == 3
    # What a search leaves that was killed when its second trial had ended.
    half = tmp_path / "half"
    shutil.copytree(tmp_path / "calm", half, ignore=shutil.ignore_patterns("0002*", "manifest.json", ".lock"))
    shutil.copytree(tmp_path / "calm" / "trials" / "0000", half / "trials" / "0000", dirs_exist_ok=True)
    shutil.copytree(tmp_path / "calm" / "trials" / "0001", half / "trials" / "0001", dirs_exist_ok=True)
    done = replisome_here(*words(spec, half, *said))
    assert done.returncode == 0, done.stderr
    same_end(half, tmp_path / "calm")
    assert "finished before, nothing to do" in replisome_here(*words(spec, half, *said)).stdout
    done = replisome_here(*words(spec, half, *said, "tuning.seed=1"))
    assert_one_sentence(done, 2, "this folder holds a run that differs in .*tuning.seed")


LEARNING = [
    "tuning={method: bayesian, trials: 5, stopping: asha, factor: 2, ahead: 2}",
    "search={training.learning_rate: {log_uniform: [0.0001, 0.01]}, augment.jitter_bp: {integer: [0, 2]}}",
    "training.epochs=4",
]


@pytest.fixture(scope="module")
def learned(spec, tmp_path_factory) -> Path:
    """Trials that go by former ones, one at a time."""
    output = tmp_path_factory.mktemp("learned") / "out"
    done = replisome_here(*words(spec, output, *LEARNING))
    assert done.returncode == 0, done.stderr
    return output


def test_of_trials_that_wait_at_rungs_the_best_go_on(learned):
    rows = trials(learned)
    assert {(one["state"], one["epochs"]) for one in rows} == {("stopped", 1), ("stopped", 2), ("completed", 4)}
    assert all(re.fullmatch(r"place \d of \d after epoch [12]", one["reason"]) for one in rows if one["reason"])
    (best,) = [one for one in rows if one["is_best"]]
    assert best["value"] == min(one["value"] for one in rows if one["state"] == "completed")
    assert replisome_here("verify", str(learned)).returncode == 0
    assert not list(learned.glob("trials/*/checkpoints"))
    curves = scalars(learned / "trials" / f"{best['trial']:04d}" / "tensorboard" / "member-00")
    steps = [number for number, _ in curves["loss/step"]]
    assert steps == list(range(len(steps)))  # those before a pause are not done again


def test_two_trials_at_once_driver_and_trial_killed_give_the_same_bytes(spec, learned, tmp_path):
    said = words(spec, tmp_path / "out", *LEARNING, "execution.parallel_trials=2")
    killed = replisome(*said, fault="kill-parent@checkpoint#7", once=tmp_path / "driver")
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "out" / "manifest.json").exists()
    done = replisome(*said, fault="kill@checkpoint#3", once=tmp_path / "trial")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "trial").exists()
    same_end(tmp_path / "out", learned)


@pytest.mark.ray
def test_ray_tune_gives_the_same_bytes(spec, learned, tmp_path, ray_cluster):
    said = words(
        spec, tmp_path / "out", *LEARNING, "execution={executor: ray, parallel_trials: 2, checkpoint_steps: 1}"
    )
    done = replisome_here(*said)
    assert done.returncode == 0, done.stderr
    same_end(tmp_path / "out", learned)
    assert not (tmp_path / "out" / "trials" / ".scratch").exists()
    many = words(spec, tmp_path / "many", *LEARNING, "execution={executor: ray, workers: 9}")
    assert_one_sentence(replisome_here(*many), 2, "a trial of 9 workers needs a node with 9 CPUs, and the cluster has")


def test_the_verb_takes_the_same_words(spec, tmp_path):
    folder = spec.parent
    (tmp_path / "search.yaml").write_text("training.learning_rate: {choice: [0.001, 0.01]}\n")
    said = [
        *("tune-model", str(folder / "set"), "--splits", str(folder / "splits.parquet"), "--method", "grid"),
        *("--task", "sequence_classification", "--search", str(tmp_path / "search.yaml"), "--epochs", "1"),
        *("--set", "model.params={channels: 4, blocks: 1, stem_width: 5}", "-o", str(tmp_path / "out")),
    ]
    done = replisome_here(*said, "--progress", "none")
    assert done.returncode == 0, done.stderr
    assert "trials: 2 completed, 0 stopped, 0 failed" in done.stdout


def test_a_search_of_which_no_trial_comes_to_its_end(spec, tmp_path):
    wild = "search={training.learning_rate: {choice: [1.0e+20]}}"
    done = replisome_here(*words(spec, tmp_path / "out", wild, "training.clip_norm=0", "training.warmup=0"))
    assert_one_sentence(done, 2, r"none of 1 trials came to its end \(epoch 0, step \d gave .*\); search gentler")


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("search={}", "give at least 1"),
        ("search={training.epochs: {choice: []}}", "give at least 1"),
        ("search={training.epochs: {}}", "found nothing: give one of choice, uniform"),
        ("search={training.epochs: {choice: [1], integer: [1, 2]}}", "found choice, integer: give one of"),
        ("search={training.epochs: {choice: [1, 1]}}", "choice holds a value twice"),
        ("search={training.epochs: {integers: [1, 2]}}", "unknown key 'integers'; did you mean 'integer'"),
        ("search={training.epochs: {integer: [3, 1]}}", "integer goes from low to high, found 3 to 1"),
        ("search={training.learning_rate: {log_uniform: [0, 1]}}", "log_uniform needs bounds above 0, found 0"),
        ("search={training.learning_rate: {uniform: [0, 1]}}", "a grid cannot hold uniform"),
        ("search={training.learning_rat: {choice: [0.1]}}", "no key 'training.learning_rat'.*'training.learning_rate'"),
        ("search={model.params.channel: {choice: [4]}}", "did you mean 'model.params.channels'"),
        ("search={data.fold: {choice: [0]}}", "'data.fold' is the same for all trials"),
        ("search={training.monitor: {choice: [loss]}}", "'training.monitor' is the same for all trials"),
        ("search={training.epochs: {choice: [1, 0]}}", "search.training.epochs, key 'training.epochs': found 0; give"),
        ("search={model.params.channels: {choice: [4, x]}}", "channels"),
        ("search={task.params.label_smoothing: {choice: [0, 0.1]}}", "changes what the loss is"),
        ("tuning.trials=3", "the grid has 6 trials, at most 3 are allowed"),
        ("tuning.method=gird", "did you mean 'grid'"),
        ("execution.parallel_trials=2", r"tuning.ahead \(--ahead\) says how many may run at once: set it to 2 too"),
        ("execution={executor: ray, feed: ray-data}", "the trials of a search read for themselves"),
        ("output=s3://bucket/x", "training writes to a local folder"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(spec, tmp_path, setting, sentence):
    assert_one_sentence(replisome_here(*words(spec, tmp_path / "out", setting)), 2, sentence)
    assert not (tmp_path / "out" / "trials").exists()
