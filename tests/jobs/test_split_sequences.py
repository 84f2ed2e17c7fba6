"""Splits as a user makes and checks them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.io.parquet import footer_metadata
from tests.engine.genome.test_minhash import mutated, random_dna
from tests.toys.sequences import pair_rows
from tests.toys.variant_runs import assert_one_sentence, replisome_here


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A finished run: 120 records, families of three mutants, two classes, seven genes, four contigs."""
    folder = tmp_path_factory.mktemp("set")
    draw = random.Random(8)
    parents = random_dna(40, 90, draw)
    lines = ["id,sequence,label,group,contig"]
    for i in range(120):
        text = mutated(parents[i % 40], 1 + i // 40, draw).decode()
        lines.append(f"r{i},{text},{draw.choice('ab')},g{i % 7},chr{i % 4}")
    (folder / "in.csv").write_text("\n".join(lines) + "\n")
    done = replisome_here("ingest-sequences", str(folder / "in.csv"), "-o", str(folder / "run"), "--progress", "none")
    assert done.returncode == 0, done.stderr
    return folder / "run"


def split(data: Path, path: Path, *words: str):
    return replisome_here("split-sequences", str(data), "-o", str(path), *words)


METHODS = [
    ("random", ()),
    ("random", ("--stratify",)),
    ("group", ("--test", "0.2", "--validation", "0.2")),
    ("contig", ("--test-contigs", "chr1", "--validation-contigs", "chr3")),
    ("similarity", ("--clusters", "minhash", "--folds", "4")),
    ("random", ("--folds", "4", "--inner-folds", "3", "--stratify")),
]


@pytest.mark.parametrize(("method", "words"), METHODS)
def test_the_same_words_give_the_same_sealed_file(data, tmp_path, method, words):
    made = [split(data, tmp_path / name, "--method", method, *words) for name in ("a", "b")]
    assert [done.returncode for done in made] == [0, 0], made[0].stderr
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    facts = footer_metadata(tmp_path / "a")
    assert facts["method"] == ("stratified" if words == ("--stratify",) or "--inner-folds" in words else method)
    assert facts["data_digest"] == json.loads((data / "manifest.json").read_text())["digest"]
    assert pq.read_table(tmp_path / "a")["record"].to_pylist() == list(range(120))
    verified = replisome_here("verify", str(tmp_path / "a"))
    assert (verified.returncode, "all as committed" in verified.stdout) == (0, True)


def test_another_seed_is_another_split_and_nobodys_file_is_replaced(data, tmp_path):
    assert split(data, tmp_path / "s").returncode == 0
    before = (tmp_path / "s").read_bytes()
    assert split(data, tmp_path / "s").returncode == 0
    assert_one_sentence(split(data, tmp_path / "s", "--seed", "1"), 2, "another split is there already; choose another")
    assert (tmp_path / "s").read_bytes() == before
    assert split(data, tmp_path / "s", "--seed", "1", "--force").returncode == 0
    assert (tmp_path / "s").read_bytes() != before


def test_a_random_split_leaks_and_a_split_by_similarity_does_not(data, tmp_path):
    leaky = split(data, tmp_path / "leaky", "--pairs", str(tmp_path / "pairs.tsv"))
    assert leaky.returncode == 0
    assert "leaks between parts (k 8, Jaccard at least 0.5, or one within the other): near" in leaky.stdout
    assert "is near (Jaccard 0." in leaky.stdout
    rows = [line.split("\t") for line in (tmp_path / "pairs.tsv").read_text().splitlines()]
    assert len(rows) > 10
    assert all(row[4] != row[7] for row in rows[1:])
    tight = split(data, tmp_path / "tight", "--method", "similarity", "--clusters", "minhash")
    assert "same group" in tight.stdout
    assert "near" not in tight.stdout.replace("is near", "").split(":", 2)[2].split("\n")[0]
    checked = replisome_here("split-sequences", str(data), "--check", str(tmp_path / "leaky"))
    assert checked.returncode == 2
    assert "near" in checked.stdout


def test_a_clean_split_is_checked_with_exit_code_0(data, tmp_path):
    assert split(data, tmp_path / "s", "--test", "0", "--validation", "0").returncode == 0
    checked = replisome_here("split-sequences", str(data), "--check", str(tmp_path / "s"))
    assert (checked.returncode, "none" in checked.stdout) == (0, True)


def test_plan_schema_and_jobs_know_it(data, tmp_path):
    done = split(data, tmp_path / "s", "--plan")
    assert "the split file is not made yet (120 records" in done.stdout
    assert not (tmp_path / "s").exists()
    assert json.loads(replisome_here("schema", "split-sequences").stdout)["properties"]["shares"]
    assert "split-sequences" in replisome_here("jobs").stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--folds", "1"), "one fold parts nothing"),
        (("--inner-folds", "3"), "inner folds lie within folds"),
        (("--test", "0.6", "--validation", "0.4"), "leave nothing to train on"),
        (("--method", "contig", "--test-contigs", "chrX"), "the set has no contig 'chrX'; it has chr0, chr1"),
        (("--test-contigs", "chr1"), "named contigs go with method contig"),
        (("--test", "0.001"), "no record would be in test"),
        (("--folds", "100"), r"class '.' \(\d+ records\) has none in fold \d"),
        (("--method", "family"), "family"),
    ],
)
def test_what_is_refused(data, tmp_path, words, sentence):
    assert_one_sentence(split(data, tmp_path / "s", *words), 2, sentence)
    assert not (tmp_path / "s").exists()


def test_sets_and_files_that_are_none(data, tmp_path):
    assert_one_sentence(split(tmp_path / "absent", tmp_path / "s"), 2, "the sequence set is not there")
    (tmp_path / "s").write_text("mine")
    assert_one_sentence(split(data, tmp_path / "s"), 2, "another file is there already")
    check = replisome_here("split-sequences", str(data), "--check", str(tmp_path / "s"))
    assert_one_sentence(check, 2, "does not decode")
    assert replisome_here("verify", str(tmp_path / "s")).returncode == 2


def test_a_harmed_split_is_seen_by_verify(data, tmp_path):
    path = tmp_path / "s"
    split(data, path)
    whole = path.read_bytes()
    for at in range(0, len(whole), 61):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        assert replisome_here("verify", str(path)).returncode == 2, at


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    """90 pairs of 12 proteins and 8 molecules."""
    folder = tmp_path_factory.mktemp("pairs")
    names = ("id", "sequence", "second", "second_id", "target")
    lines = [",".join(names), *(",".join(str(row[name]) for name in names) for row in pair_rows(90))]
    (folder / "in.csv").write_text("\n".join(lines) + "\n")
    done = replisome_here(
        *("ingest-sequences", str(folder / "in.csv"), "-o", str(folder / "run"), "--progress", "none"),
        *("--alphabet", "protein", "--second", "second", "--targets", "target"),
    )
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.mark.parametrize(("column", "words"), [("id", ()), ("second_id", ("--folds", "3")), (None, ())])
def test_pairs_are_parted_at_random_or_by_either_member(pairs, tmp_path, column, words):
    how = () if column is None else ("--method", "group", "--group-by", column)
    likeness = ("--clusters", "minhash", "--smiles-threshold", "1")
    done = split(pairs, tmp_path / "s", *how, "--test", "0.25", "--validation", "0.25", *words, *likeness)
    assert done.returncode == 0, done.stderr
    looked_for = {
        "id": ", equal or near id (MinHash, k 5, Jaccard at least 0.5, or one within the other)",
        "second_id": ", equal or near second_id (SMILES as written, LINGO Tanimoto at least 1)",
    }.get(column, "")
    assert f"leaks between parts (equal pairs, same group{looked_for}): none" in done.stdout
    rows = {row["record"]: row for row in pq.read_table(tmp_path / "s").to_pylist()}
    members: dict[str, dict[str, set]] = {"id": {}, "second_id": {}}
    for row in pq.read_table(pairs / "data").to_pylist():
        for name, found in members.items():
            found.setdefault(row[name], set()).add((rows[row["record"]]["split"], rows[row["record"]]["fold"]))
    for name, found in members.items():
        assert all(len(parts) == 1 for parts in found.values()) == (name == column)
    assert footer_metadata(tmp_path / "s").get("group_by") == column
    checked = replisome_here("split-sequences", str(pairs), "--check", str(tmp_path / "s"), *likeness)
    assert checked.returncode == 0, checked.stdout


def test_a_pair_in_two_parts_and_a_parted_group_are_told(pairs, tmp_path):
    assert split(pairs, tmp_path / "s").returncode == 0
    table = pq.read_table(tmp_path / "s")
    told = replisome_here(
        *("split-sequences", str(pairs), "--check", str(tmp_path / "s"), "--method", "group", "--group-by", "second_id")
    )
    assert (told.returncode, "same group" in told.stdout) == (2, True)
    assert table.num_rows == 90


def test_pairs_are_parted_by_clusters_of_either_member(pairs, tmp_path):
    rows = {row["record"]: row for row in pq.read_table(pairs / "data").to_pylist()}
    for words, column, clusters in (((), "id", "minhash"), (("--group-by", "second_id"), "second_id", "lingo")):
        path = tmp_path / column
        done = split(pairs, path, "--method", "similarity", "--clusters", "minhash", "--test", "0.25", *words)
        assert done.returncode == 0, done.stderr
        assert "): none" in done.stdout
        facts = footer_metadata(path)
        assert (facts["method"], facts["group_by"], facts["clusters"]) == ("similarity", column, clusters)
        parts: dict[str, set] = {}
        units: dict[str, set] = {}
        for one in pq.read_table(path).to_pylist():
            member = rows[one["record"]][column]
            parts.setdefault(member, set()).add(one["split"])
            units.setdefault(member, set()).add(one["unit"])
        assert all(len(found) == 1 for found in (*parts.values(), *units.values()))
        checked = replisome_here("split-sequences", str(pairs), "--check", str(path), "--clusters", "minhash")
        assert (checked.returncode, f"equal or near {column}" in checked.stdout) == (0, True)


def test_groups_are_of_the_method_group(pairs, tmp_path):
    done = split(pairs, tmp_path / "s", "--group-by", "id")
    assert_one_sentence(done, 2, "group_by id goes with method group or similarity")
