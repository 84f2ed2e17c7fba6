"""The command that a finished job names next runs as it stands, from the table of sequences to the figures."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
import torch
import yaml

from tests.toys.sequences import motif_rows, pair_rows
from tests.toys.variant_runs import replisome_here

torch.set_num_threads(1)

QUICK = ("--epochs", "1", "--set", "model.params={channels: 4}")


def ran(*words: str) -> str:
    done = replisome_here(*words, "--progress", "none")
    assert done.returncode == 0, done.stderr
    return done.stdout


def following(said: str) -> list[str]:
    """The words of the next command."""
    (line,) = [line for line in said.splitlines() if line.startswith("  next: ")]
    words = shlex.split(line.removeprefix("  next: "))
    assert words[0] == "replisome"
    return words[1:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where a user of a table types commands; its name has a blank."""
    place = tmp_path_factory.mktemp("my work")
    rows = ["id,sequence,label", *(f"{one['id']},{one['sequence']},{one['label']}" for one in motif_rows(80))]
    (place / "in.csv").write_text("\n".join(rows) + "\n")
    before = Path.cwd()
    os.chdir(place)
    yield place
    os.chdir(before)


def test_from_a_table_to_the_figures_by_what_is_printed(folder):
    words = following(ran("ingest-sequences", str(folder / "in.csv"), "-o", "a set"))
    assert words == ["split-sequences", "a set", "-o", "splits.parquet"]
    said = ran(*words, "--stratify")
    words = following(said)
    assert words[0] == "train-model"
    said = ran(*words, *QUICK)
    words = following(said)
    assert words[0] == "evaluate-model"
    assert "next:" not in ran(*words)
    assert (folder / "evaluation" / "report.html").is_file()
    again = ("train-model", "a set", "--splits", "splits.parquet", "--task", "sequence_classification", "-o", "trained")
    assert following(ran(*again, *QUICK)) == words


def test_sets_of_rna_are_read_by_the_usual_encoder(folder):
    """They keep A, C, G and T."""
    ran("ingest-sequences", str(folder / "in.csv"), "-o", "rna", "--alphabet", "rna")
    words = following(ran("split-sequences", "rna", "-o", "rna.parquet", "--stratify"))
    assert words[0] == "train-model"
    assert "--encoder" not in words
    ran(*words, *QUICK, "--output", "trained-rna")


def test_folds_name_cross_validation_and_its_models(folder):
    ran("ingest-sequences", str(folder / "in.csv"), "-o", "set-2")
    words = following(ran("split-sequences", "set-2", "-o", "folds.parquet", "--folds", "2", "--stratify"))
    assert words[0] == "cross-validate"
    said = ran(*words, *QUICK)
    assert "the models are folds/folds/0/model to folds/folds/1/model, each trained without its own fold" in said
    assert (folder / "folds" / "folds" / "1" / "model" / "replisome.json").is_file()
    assert "next: replisome predict SET --model folds/folds/0/model" in said


def test_a_search_says_what_its_best_spec_is_and_where_it_writes(folder):
    ran("ingest-sequences", str(folder / "in.csv"), "-o", "set-3")
    ran("split-sequences", "set-3", "-o", "three.parquet", "--stratify")
    (folder / "search.yaml").write_text(yaml.safe_dump({"training.learning_rate": {"choice": [0.01, 0.001]}}))
    said = ran(
        *("tune-model", "set-3", "--splits", "three.parquet", "--task", "sequence_classification", "-o", "tuned"),
        *("--search", "search.yaml", "--method", "grid", *QUICK),
    )
    words = following(said)
    assert words == ["run", "tuned/best.yaml"]
    assert "it trains to best-model/ in the folder where" in said
    (model,) = [line.partition(" is ")[2] for line in said.splitlines() if "the model of trial" in line]
    assert (folder / model / "replisome.json").is_file()
    ran(*words)
    assert (folder / "best-model" / "model" / "replisome.json").is_file()


def test_pairs_are_sent_to_their_page_and_a_check_to_nothing(folder):
    names = ("id", "sequence", "second", "second_id", "target")
    rows = [",".join(names), *(",".join(str(row[name]) for name in names) for row in pair_rows(90))]
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n")
    words = following(
        ran(
            *("ingest-sequences", "pairs.csv", "-o", "pairs", "--alphabet", "protein"),
            *("--second", "second", "--targets", "target"),
        )
    )
    assert "a train spec of the task pair_regression: see docs/pairs-and-positions.md" in ran(*words, "--force")
    assert "next:" not in ran("split-sequences", "pairs", "--check", "splits.parquet")
