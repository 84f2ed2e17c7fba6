"""Split files and searches that are wrong: one sentence, exit code 2, and nothing of the user's is lost."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from engine.io.parquet import footer_metadata, write_table
from tests.toys.sequence_runs import ingested
from tests.toys.sequences import motif_rows
from tests.toys.variant_runs import assert_one_sentence, replisome_here

torch.set_num_threads(1)

TRAIN = ("--task", "sequence_classification", "--epochs", "1", "--set", "model.params={channels: 4}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A set of 60 rows in three groups, and a split of it into three folds."""
    place = tmp_path_factory.mktemp("hostile")
    ingested(place, [{**one, "group": f"g{one['record'] // 2 % 3}"} for one in motif_rows(60)])
    done = replisome_here(
        *("split-sequences", str(place / "set"), "-o", str(place / "good.parquet"), "--folds", "3", "--stratify"),
        "--no-leak-check",
    )
    assert done.returncode == 0, done.stderr
    return place


def in_fold_0(rows, label: str):
    labels = {one["record"]: one["label"] for one in motif_rows(60)}
    return [{**one, "fold": 0} if labels[one["record"]] == label and one["fold"] is not None else one for one in rows]


NULLABLE = pa.schema([("record", pa.int64()), ("split", pa.string()), ("fold", pa.int32())])
TEXT = pa.schema([("record", pa.int64()), ("split", pa.string()), ("fold", pa.string())])
BAD = {
    "a name that is none": (lambda rows: [{**one, "split": "valid"} for one in rows], None, "it has the split 'valid'"),
    "a split that is null": (lambda rows: [{**rows[0], "split": None}, *rows[1:]], NULLABLE, "row 0 has no split"),
    "a negative fold": (lambda rows: [{**one, "fold": -5} for one in rows], None, "it has the fold -5; number folds"),
    "a record twice": (lambda rows: [*rows, rows[3]], None, "record 3 stands twice in the split file"),
    "no row": (lambda rows: [], None, "it has no row; make it anew"),
    "folds as text": (lambda rows: [{**one, "fold": "1"} for one in rows], TEXT, "no column 'fold' of whole numbers"),
    "no split": (lambda rows: rows, pa.schema([("record", pa.int64())]), "it has no column 'split' of text"),
}


def written(folder: Path, name: str, change, schema: pa.Schema | None = None) -> Path:
    table = pq.read_table(folder / "good.parquet").replace_schema_metadata(None)
    facts = {k: v for k, v in footer_metadata(folder / "good.parquet").items() if not k.startswith("replisome.")}
    schema = schema or table.schema
    rows = [{key: one[key] for key in schema.names} for one in change(table.to_pylist())]
    path = folder / f"{name.replace(' ', '-')}.parquet"
    write_table(pa.Table.from_pylist(rows, schema), path, schema_name="splits", version=2, metadata=facts)
    return path


@pytest.mark.parametrize("name", BAD)
def test_a_split_file_that_is_none_is_refused_by_every_job(folder, tmp_path, name):
    change, schema, sentence = BAD[name]
    path = written(folder, name, change, schema)
    before = path.read_bytes()
    data = str(folder / "set")
    for words in (
        ("split-sequences", data, "--check", str(path)),
        ("train-model", data, "--splits", str(path), *TRAIN, "--fold", "0", "-o", str(tmp_path / "train")),
        ("cross-validate", data, "--splits", str(path), *TRAIN, "-o", str(tmp_path / "folds")),
    ):
        assert_one_sentence(replisome_here(*words), 2, sentence)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("job_and_change", "words", "sentence"),
    [
        (("train-model", None), (), "the file has 3 folds: hold one out with --fold 0, or use cross-validate"),
        (("train-model", None), ("--fold", "9"), "the file has no fold 9, its folds are 0, 1, 2"),
        (("cross-validate", lambda rows: in_fold_0(rows, "site")), (), "fold 0: the training rows hold 1 class in the"),
        (("cross-validate", None), ("--inner-fold", "0"), "good.parquet: the split file has no inner folds of fold 0"),
        (
            ("train-model", None),
            ("--fold", "0", "--set", "task.params={classes: [none]}"),
            "one class is named, wanted",
        ),
    ],
)
def test_folds_that_do_not_fit(folder, tmp_path, job_and_change, words, sentence):
    job, change = job_and_change
    path = folder / "good.parquet" if change is None else written(folder, "changed", change)
    done = replisome_here(job, str(folder / "set"), "--splits", str(path), *TRAIN, *words, "-o", str(tmp_path / "out"))
    assert_one_sentence(done, 2, sentence)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--method", "group", "--folds", "5"), r"would be in test, fold 3, fold 4 \(the set has 3 groups\)"),
        (
            ("--folds", "900", "--allow-empty-classes"),
            "would be in fold 54, fold 55, fold 56, fold 57 and 842 more; ask",
        ),
        (("--method", "similarity", "--group-by", "second_id"), "the records are no pairs; leave group_by out"),
        (("-o", "s3://bucket/s.parquet"), "a split and its leaks are written to a local path; give a local path"),
        (("--pairs", "gs://bucket/p.tsv"), "a split and its leaks are written to a local path; give a local path"),
    ],
)
def test_splits_that_cannot_be_made(folder, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    done = replisome_here("split-sequences", str(folder / "set"), "-o", "s.parquet", *words)
    assert_one_sentence(done, 2, sentence)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("search", "words", "sentence"),
    [
        ({"training.learn_rate": {"choice": [1]}}, (), "no key 'training.learn_rate' to search; did you mean"),
        ({"training.monitor": {"choice": ["loss"]}}, (), "'training.monitor' is the same for all trials"),
        ({"data.splits": {"choice": ["s.parquet"]}}, (), "'data.splits' is the same for all trials"),
        ({"training.learning_rate": {"log_uniform": [0, 1]}}, (), "log_uniform needs bounds above 0, found 0.0"),
        ({"training.learning_rate": {"choice": [0.1]}}, ("--trials", "0"), "found 0; give at least 1"),
        ({"training.learning_rate": {"choice": [0.1]}}, ("--stopping", "asha"), "asha can end no trial: it may after"),
        ({"training.learning_rate": {"choice": [0.1]}}, ("--stopping", "median"), "median can end no trial"),
        ("training.seed: {choice: [1]}\n---\ntraining.seed: {choice: [2]}\n", (), "a second document begins"),
        ({"training.seed": {"integer": [0, 10**9]}}, ("--method", "grid"), "the grid has 1,000,000,001 trials"),
    ],
)
def test_searches_that_are_none(folder, tmp_path, search, words, sentence):
    path = tmp_path / "search.yaml"
    path.write_text(search if isinstance(search, str) else yaml.safe_dump(search))
    given = ("tune-model", str(folder / "set"), "--splits", str(folder / "good.parquet"), "--fold", "0", *TRAIN)
    done = replisome_here(*given, "--search", str(path), "-o", str(tmp_path / "out"), *words)
    assert_one_sentence(done, 2, sentence)
    assert len(done.stderr) < 1_000
    assert not (tmp_path / "out" / "trials").exists()
