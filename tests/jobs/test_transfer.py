"""Pre-train on sequences without labels, then train from it: as a user runs both, by one worker and by two."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from engine.models._folder import load_members
from engine.models._info import open_model
from tests.jobs.test_train_model import make, words
from tests.toys.hugging_face import nucleotide_folder
from tests.toys.sequence_runs import ingested, sequence_model
from tests.toys.sequences import motif_rows, row
from tests.toys.variant_runs import assert_one_sentence, replisome, replisome_here

torch.set_num_threads(1)

NETWORK = "model.params={channels: 8, blocks: 2, dropout: 0.2}"
FROZEN = ("transfer.freeze=[stem, blocks.0]", "transfer.layer_rate=0.5")


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> str:
    return str(make(tmp_path_factory.mktemp("data"), motif_rows(120)))


@pytest.fixture(scope="module")
def pretrained(spec, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("pretrained") / "out"
    done = replisome_here(*words(spec, output, "task.name=masked_tokens", NETWORK))
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def trained(spec, pretrained, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("trained") / "out"
    begin = f"transfer.init_from={pretrained}/model"
    done = replisome_here(*words(spec, output, NETWORK, begin, *FROZEN))
    assert done.returncode == 0, done.stderr
    return output


def history(output: Path) -> list[float]:
    return [entry["train_loss"] for entry in json.loads((output / "metrics.json").read_text())["members"][0]["history"]]


def test_what_was_pretrained_says_how_well_letters_are_told(pretrained):
    info = open_model(pretrained / "model")
    assert info.heads["letter"].channels == tuple("ACGT")
    assert info.heads["letter"].level == "position"
    assert info.heads["letter"].symmetry == "stranded"
    figures = json.loads((pretrained / "metrics.json").read_text())["figures"]["test"]["metrics"]
    assert 1 < figures["perplexity"]["value"] < 6
    assert 0 < figures["accuracy"]["value"] < 1


def test_the_card_says_what_was_taken_and_the_frozen_part_is_the_same(pretrained, trained):
    info, source = open_model(trained / "model"), open_model(pretrained / "model")
    told = info.extra["transfer"]
    assert told["init_from"] == source.digest
    assert told["freeze"] == ["stem", "blocks.0"]
    assert told["taken"] == 2 + 2 * 6
    assert set(told["fresh"]) == {f"answer.{name}.{kind}" for name in ("norm", "final") for kind in ("weight", "bias")}
    assert told["skipped"]["answer.final.weight"] == "[4, 8, 1], here [2, 8]"
    card = (trained / "model" / "README.md").read_text()
    own = {name: source.training_data[0][name] for name in ("sequences", "splits", "fold")}
    assert info.training_data == [*source.training_data, own]
    assert f"Transfer: from model {source.digest[:12]} (14 tensors taken; 4 skipped" in card
    assert "frozen: `stem`, `blocks.0`" in card
    one, other = load_members(source)[0].state_dict(), load_members(info)[0].state_dict()
    alike = [name for name in other if name in one and one[name].shape == other[name].shape]
    same = {name for name in alike if torch.equal(one[name], other[name])}
    assert same == {name for name in other if name.startswith(("stem.", "blocks.0."))}


def test_two_workers_train_to_the_losses_of_one(spec, pretrained, trained, tmp_path):
    begin = f"transfer.init_from={pretrained}/model"
    done = replisome_here(*words(spec, tmp_path / "out", NETWORK, begin, *FROZEN, "execution.workers=2"))
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(history(tmp_path / "out"), history(trained), rtol=1e-4)


def test_a_killed_driver_goes_on_to_the_same_losses(spec, pretrained, trained, tmp_path):
    begin = f"transfer.init_from={pretrained}/model"
    command = words(spec, tmp_path / "out", NETWORK, begin, *FROZEN)
    killed = replisome(*command, fault="kill@train-step#8")
    assert killed.returncode == -signal.SIGKILL
    done = replisome_here(*command)
    assert done.returncode == 0, done.stderr
    assert history(tmp_path / "out") == history(trained)
    assert (tmp_path / "out" / "model" / "member-00.safetensors").read_bytes() == (
        trained / "model" / "member-00.safetensors"
    ).read_bytes()


def test_the_option_and_a_run_begun_elsewhere(spec, pretrained, trained):
    other = replisome_here(*words(spec, trained, NETWORK))
    assert_one_sentence(other, 2, "transfer")
    wrong = replisome_here(*words(spec, trained.parent / "new", f"transfer.init_from={pretrained}"))
    assert_one_sentence(wrong, 2, "replisome.json")


def test_steps_of_like_length_train_and_go_on(spec, tmp_path):
    command = words(spec, tmp_path / "out", "training.length_buckets=true")
    killed = replisome(*command, fault="kill@train-step#8")
    assert killed.returncode == -signal.SIGKILL
    assert replisome_here(*command).returncode == 0
    calm = words(spec, tmp_path / "calm", "training.length_buckets=true", "execution.workers=2")
    assert replisome_here(*calm).returncode == 0
    np.testing.assert_allclose(history(tmp_path / "out"), history(tmp_path / "calm"), rtol=1e-4)
    mixed = words(spec, tmp_path / "out", "training.length_buckets=false")
    assert_one_sentence(replisome_here(*mixed), 2, "length_buckets")


def test_a_record_of_too_many_tokens_is_refused_by_training_and_rejected_by_predict(tmp_path):
    from engine.models.hugging_face import HuggingFace

    base, rows = nucleotide_folder(tmp_path / "base"), motif_rows(60)
    broken = row(60, "ACGTACGTACN" * 12, label=rows[0]["label"])
    spec = str(make(tmp_path / "odd", [*rows, broken]))
    chosen = ("encoder.name=tokens", "model.name=hugging_face", f"model.params={{folder: {base}, channels: 8}}")
    done = replisome_here(*words(spec, tmp_path / "out", *chosen))
    assert_one_sentence(done, 2, "record 60: the sequence has 61 tokens, the model takes 58 at most")

    place = tmp_path / "predicted"
    values = {"folder": str(base), "in_channels": 1, "num_tokens": 5}
    sequence_model(place / "model", architecture="hugging_face", encoder="tokens", **HuggingFace.completed(values))
    given = ("predict", str(ingested(place, [*rows[:3], broken])), "--model", str(place / "model"))
    done = replisome_here(*given, "-o", str(place / "out"), "-j", "1", "--max-rejects", "1", "--progress", "none")
    assert done.returncode == 0, done.stderr
    found = pl.concat([pl.read_parquet(path) for path in sorted((place / "out" / "data").rglob("*.parquet"))])
    assert found["reason"].to_list() == [None, None, None, "too_long"]
