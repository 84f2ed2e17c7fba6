"""Splits: each record in one part, units whole, shares met, the seed alone decides; and what is refused."""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DataError, InputError
from engine.genome.minhash import Likeness
from engine.io import parquet
from engine.training import _mmseqs
from engine.training._leaks import find_leaks, leaks_text
from engine.training._sequence_set import open_set
from engine.training._split_table import SplitTable
from engine.training.splits import Records, SplitPlan, counts_of, load_records, read_split, split_table, write_split
from schemas import tables
from tests.engine.genome.test_minhash import mutated, random_dna
from tests.toys.sequences import row, write_set

CLASSES = ("a", "b", "c")


def records(num: int, *, groups=None, contigs=None, labels=None, sequences=None) -> Records:
    empty: list[str | None] = [None] * num
    return Records(
        record=np.arange(num, dtype=np.int64) * 2,
        ids=[f"r{i}" for i in range(num)],
        sequences=sequences or [b""] * num,
        labels=labels or empty,
        groups=groups or empty,
        contigs=contigs or empty,
    )


@st.composite
def some_records(draw) -> Records:
    num = draw(st.integers(30, 120))
    of = random.Random(draw(st.integers(0, 99)))
    num_groups = draw(st.integers(8, 40))
    return records(
        num,
        groups=[of.choice([None, *(f"g{i}" for i in range(num_groups))]) for _ in range(num)],
        contigs=[f"chr{of.randrange(12)}" for _ in range(num)],
        labels=[CLASSES[min(of.randrange(4), 2)] for _ in range(num)],
        sequences=random_dna(num, 40, of),
    )


PLANS = st.builds(
    SplitPlan,
    method=st.sampled_from(["random", "group", "contig", "similarity"]),
    validation=st.sampled_from([0.0, 0.1, 0.25]),
    test=st.sampled_from([0.0, 0.1, 0.25]),
    folds=st.sampled_from([0, 2, 4]),
    stratify=st.booleans(),
    allow_empty_classes=st.just(True),
    seed=st.integers(0, 5),
)


@given(data=some_records(), plan=PLANS)
def test_every_record_is_in_one_part_and_units_are_whole(data, plan):
    try:
        table = split_table(data, plan)
    except InputError as error:
        assert "no record would be in" in str(error)
        return
    assert table["record"].to_pylist() == data.record.tolist()
    assert set(table["split"].to_pylist()) <= {"train", "validation", "test"}
    held = table["fold"].to_pylist()
    assert all((fold is None) == (not plan.folds or split == "test") for fold, split in rows_of(table))
    units = {"group": data.groups, "contig": data.contigs}.get(plan.method)
    for group in set(units or ()) - {None}:
        inside = [i for i, unit in enumerate(units) if unit == group]
        assert len({(table["split"][i].as_py(), held[i]) for i in inside}) == 1
    assert split_table(data, plan).equals(table)


def rows_of(table):
    return list(zip(table["fold"].to_pylist(), table["split"].to_pylist(), strict=True))


@given(
    num=st.integers(10, 300),
    validation=st.sampled_from([0.0, 0.1, 0.2]),
    test=st.sampled_from([0.1, 0.3]),
    seed=st.integers(0, 9),
)
def test_shares_are_met_within_one_record(num, validation, test, seed):
    plan = SplitPlan(validation=validation, test=test, seed=seed)
    counts = counts_of(split_table(records(num), plan))
    wanted = {"train": 1 - validation - test, "validation": validation, "test": test}
    assert all(abs(counts.get(name, 0) - share * num) < 1 + 1e-9 for name, share in wanted.items())


@given(sizes=st.lists(st.integers(20, 80), min_size=2, max_size=4), seed=st.integers(0, 9))
def test_stratified_parts_have_every_class_in_its_share(sizes, seed):
    labels = [f"c{i}" for i, size in enumerate(sizes) for _ in range(size)]
    random.Random(seed).shuffle(labels)
    table = split_table(records(len(labels), labels=labels), SplitPlan(stratify=True, folds=4, seed=seed))
    for column, share in (("split", {"test": 0.1}), ("fold", dict.fromkeys(range(4), 0.225))):
        counts = Counter(zip(labels, table[column].to_pylist(), strict=True))
        for i, size in enumerate(sizes):
            for part, wanted in share.items():
                assert abs(counts[f"c{i}", part] - wanted * size) <= 1.5


@given(seed=st.integers(0, 30), stratify=st.booleans())
def test_whole_groups_meet_the_shares_of_every_class(seed, stratify):
    draw = random.Random(seed)
    groups, labels = [], []
    for i in range(60):
        kinds = draw.choice([["a", "b"], ["c"], ["a", "b", "c"]])
        for _ in range(draw.choice([1, 1, 2, 3, 8])):
            groups.append(f"g{i}")
            labels.append(draw.choice(kinds))
    num = len(labels)
    plan = SplitPlan("group", stratify=stratify, validation=0.2, test=0.2, seed=seed, allow_empty_classes=True)
    split = split_table(records(num, groups=groups, labels=labels), plan)["split"].to_pylist()
    assert abs(split.count("test") - 0.2 * num) <= 5
    if stratify:
        found = Counter(zip(labels, split, strict=True))
        assert all(abs(found[one, "test"] - 0.2 * labels.count(one)) <= 6 for one in CLASSES)


def test_groups_of_different_sizes_are_shuffled_too():
    groups = [f"g{i}" for i in range(20) for _ in range(i + 1)]
    data = records(len(groups), groups=groups)
    found = {tuple(split_table(data, SplitPlan("group", seed=seed))["split"].to_pylist()) for seed in range(5)}
    assert len(found) == 5


def test_the_seed_decides_and_nothing_else(tmp_path):
    data = records(100, labels=["a", "b"] * 50)
    tables = [split_table(data, SplitPlan(seed=seed)) for seed in (0, 0, 1)]
    for i, table in enumerate(tables):
        write_split(table, tmp_path / str(i), plan=SplitPlan(), data_digest="d")
    first, again, other = ((tmp_path / str(i)).read_bytes() for i in range(3))
    assert first == again != other


def test_another_seed_moves_whole_groups():
    data = records(60, groups=[f"g{i // 3}" for i in range(60)])
    tables = [split_table(data, SplitPlan("group", seed=seed)) for seed in range(3)]
    assert len({tuple(table["split"].to_pylist()) for table in tables}) == 3


@given(seed=st.integers(0, 3), folds=st.integers(2, 4), inner=st.integers(2, 3))
def test_nested_folds_part_what_trains_in_each_fold(seed, folds, inner):
    data = records(90, groups=[f"g{i // 2}" for i in range(90)], labels=["a", "b", "c"] * 30)
    table = split_table(data, SplitPlan("group", folds=folds, inner_folds=inner, seed=seed))
    held = table["fold"].to_pylist()
    for fold in range(folds):
        column = table[f"inner_fold_{fold}"].to_pylist()
        assert all((value is None) == (one is None or one == fold) for value, one in zip(column, held, strict=True))
        assert set(column) - {None} == set(range(inner))
        assert all(column[i] == column[i + 1] for i in range(0, 90, 2))


def test_mutants_are_never_parted():
    draw = random.Random(4)
    parents = random_dna(60, 120, draw)
    texts = [*parents, *(mutated(text, 2, draw) for text in parents), *(mutated(text, 1, draw) for text in parents)]
    data = records(180, sequences=texts, labels=[CLASSES[i % 3] for i in range(180)])
    plan = SplitPlan("similarity", folds=3)
    table = split_table(data, plan)
    assert find_leaks(data, table, plan.likeness) == []
    parts = [part for _, part in sorted(zip(data.record.tolist(), rows_of(table), strict=True))]
    assert all(parts[i] == parts[i + 60] == parts[i + 120] for i in range(60))
    leaks = find_leaks(data, split_table(data, SplitPlan(folds=3)), plan.likeness)
    assert {leak.kind for leak in leaks} == {"near"}
    assert len(leaks) > 60


def test_named_contigs_are_held_out():
    data = records(40, contigs=[f"chr{i % 4}" for i in range(40)])
    plan = SplitPlan("contig", test_names=("chr1",), validation_names=("chr3",))
    table = split_table(data, plan)
    assert table["split"].to_pylist()[:4] == ["train", "test", "train", "validation"]
    assert plan.facts()["test_contigs"] == "chr1"
    with pytest.raises(InputError, match="the set has no contig 'chrX'; it has chr0, chr1"):
        split_table(data, SplitPlan("contig", test_names=("chrX",)))


def test_named_groups_are_held_out():
    data = records(40, groups=[f"g{i % 4}" for i in range(40)])
    table = split_table(data, SplitPlan("group", test_names=("g0", "g2")))
    assert table["split"].to_pylist()[:4] == ["test", "train", "test", "train"]
    with pytest.raises(InputError, match="the set has no group 'x'; it has g0, g1"):
        split_table(data, SplitPlan("group", validation_names=("x",)))


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        (SplitPlan("group"), "no record of the set has a group"),
        (SplitPlan(folds=9, test=0.0), "no record would be in fold"),
        (SplitPlan(stratify=True), "no record has a label to stratify by"),
    ],
)
def test_what_cannot_be_parted(plan, sentence):
    with pytest.raises(InputError, match=sentence):
        split_table(records(8), plan)


@pytest.mark.parametrize("stratify", [True, False])
def test_a_class_without_a_record_in_a_part_is_named(stratify):
    data = records(100, labels=["rare" if i < 2 else "usual" for i in range(100)])
    with pytest.raises(InputError, match=r"class 'rare' \(2 records\) has none in validation; stratify, ask"):
        split_table(data, SplitPlan(stratify=stratify, seed=1))
    split_table(data, SplitPlan(stratify=stratify, allow_empty_classes=True, seed=1))


def test_a_class_without_a_record_in_a_fold_is_named():
    data = records(100, labels=["rare" if i < 3 else "usual" for i in range(100)])
    with pytest.raises(InputError, match=r"class 'rare' \(3 records\) has none in fold \d"):
        split_table(data, SplitPlan(validation=0.0, test=0.0, folds=5))


def a_set(folder: Path, num: int = 30):
    rows = [row(i, "ACGT" * 5, label=CLASSES[i % 3], group=f"g{i % 7}") for i in range(num)]
    rows[4] = {**rows[4], "state": "rejected", "reason": "too_short", "sequence": None}
    write_set(folder, rows)
    return open_set(str(folder))


def test_a_split_file_says_how_it_was_made_and_the_trainer_reads_it(tmp_path):
    data = a_set(tmp_path / "set")
    loaded = load_records(data, sequences=True)
    assert 4 not in loaded.record.tolist()
    plan = SplitPlan("group", seed=7, test=0.3)
    path = tmp_path / "s.parquet"
    write_split(split_table(loaded, plan), path, plan=plan, data_digest=data.digest)
    facts = parquet.footer_metadata(path)
    assert facts["method"] == "group"
    assert facts["seed"] == "7"
    assert facts["data_digest"] == data.digest
    assert facts["replisome.schema"] == "splits"
    table = SplitTable.load(str(path), data)
    assert table.records.tolist() == read_split(str(path), data)["record"].to_pylist() == loaded.record.tolist()


def test_a_harmed_part_is_refused(tmp_path):
    path = tmp_path / "set"
    table = pa.Table.from_pylist([row(i, "ACGT" * 5) for i in range(9)], tables.SEQUENCES)
    path.mkdir()
    parquet.write_table(table, path / "part.parquet", schema_name="sequences", version=tables.SEQUENCES_VERSION)
    data, whole = open_set(str(path)), (path / "part.parquet").read_bytes()
    assert len(load_records(data, sequences=True)) == 9
    for at in range(0, len(whole), 131):
        (path / "part.parquet").write_bytes(whole[:at] + bytes([whole[at] ^ 2]) + whole[at + 1 :])
        with pytest.raises(DataError):
            load_records(data, sequences=True)


def test_similarity_says_what_it_used():
    facts = SplitPlan("similarity", likeness=Likeness(6, 0.7)).facts()
    assert (facts["clusters"], facts["k"], facts["threshold"]) == ("minhash", "6", "0.7")
    assert SplitPlan(stratify=True).facts()["method"] == "stratified"


def test_a_split_of_another_set_or_harmed_is_refused(tmp_path):
    data, plan = a_set(tmp_path / "set"), SplitPlan(allow_empty_classes=True)
    path = tmp_path / "s.parquet"
    write_split(split_table(load_records(data, sequences=False), plan), path, plan=plan, data_digest="0" * 64)
    with pytest.raises(InputError, match=r"it was made of the set 0{12}\.\.\., and this one is"):
        read_split(str(path), data)
    write_split(split_table(load_records(data, sequences=False), plan), path, plan=plan, data_digest=data.digest)
    whole = path.read_bytes()
    for at in range(0, len(whole), 97):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(DataError):
            read_split(str(path), data)
    with pytest.raises(InputError, match="the split file is not there"):
        read_split(str(tmp_path / "absent"), data)
    with pytest.raises(InputError, match="it is no split file"):
        parquet.write_table(split_table(records(30), plan), path, schema_name="files", version=1)
        read_split(str(path), data)


FAKE_MMSEQS = """#!/bin/sh
if [ "$1" = version ]; then echo 15-fake; exit 0; fi
awk '/^>/ {n = substr($0, 2); printf "%d\\t%d\\n", n - n % 2, n}' "$2" > "$3_cluster.tsv"
"""


@pytest.fixture
def fake_mmseqs(tmp_path, monkeypatch):
    """A stand-in that puts records 2i and 2i + 1 into one cluster."""
    program = tmp_path / "bin" / "mmseqs"
    program.parent.mkdir()
    program.write_text(FAKE_MMSEQS)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_clusters_of_mmseqs_are_never_parted(fake_mmseqs):
    data = records(40, sequences=random_dna(40, 30, random.Random(0)))
    plan = SplitPlan("similarity", clusters="mmseqs2", identity=0.4)
    parts = split_table(data, plan)["split"].to_pylist()
    assert all(parts[i] == parts[i + 1] for i in range(0, 40, 2))
    assert plan.facts()["mmseqs2_version"] == "15-fake"
    assert plan.facts()["identity"] == "0.4"
    assert "k" not in plan.facts()


def test_mmseqs_itself_keeps_families_together():
    """The program, not a stand-in: proteins of ten families, members 90% alike."""
    draw = random.Random(2)
    letters = b"ACDEFGHIKLMNPQRSTVWY"
    seeds = [bytes(draw.choices(letters, k=150)) for _ in range(10)]
    members = [bytearray(seed) for seed in seeds for _ in range(3)]
    for one in members:
        for place in draw.sample(range(150), 15):
            one[place] = draw.choice(letters)
    clusters = _mmseqs.mmseqs_clusters([bytes(one) for one in members], identity=0.5)
    assert _mmseqs.mmseqs_version()
    assert all(len(set(clusters[i : i + 3].tolist())) == 1 for i in range(0, 30, 3))
    assert len(set(clusters.tolist())) == 10


def test_without_mmseqs_it_is_said(monkeypatch):
    monkeypatch.setattr(_mmseqs.shutil, "which", lambda _: None)
    with pytest.raises(InputError, match="the program mmseqs is not on PATH; install MMseqs2, or cluster by minhash"):
        split_table(records(4), SplitPlan("similarity", clusters="mmseqs2"))


# Leaks


def leak_records():
    texts = [b"ACGTTGCAACGGTTACGATCGATTACA" * 2, b"TTTTGGGGCCCCAAAATTGGCCAATTGC" * 2]
    near = texts[0][:-1] + b"C"
    turned = texts[1][::-1].translate(bytes.maketrans(b"ACGT", b"TGCA"))
    sequences = [texts[0], texts[0], near, texts[1], turned, b"ACACACACGTGTGTGTCCATGCATGCAAA"]
    return records(6, sequences=sequences, groups=[None, None, None, "g", None, "g"])


def parted(data: Records, parts: list[str]):
    return split_table(data, SplitPlan(validation=0.0, test=0.0)).set_column(2, "split", [parts])


def test_each_kind_of_leak_names_its_pair():
    data = leak_records()
    table = parted(data, ["train", "test", "validation", "train", "test", "test"])
    found = {(leak.kind, leak.record, leak.other_record) for leak in find_leaks(data, table, Likeness())}
    assert found == {("exact", 2, 0), ("near", 4, 0), ("reverse_complement", 8, 6), ("same_group", 10, 6)}
    text = leaks_text(find_leaks(data, table, Likeness())).splitlines()
    assert text[0].split("\t")[:3] == ["kind", "likeness", "record"]
    assert text[1].split("\t") == ["exact", "1.0", "2", "r1", "test", "0", "r0", "train", "", "", ""]


def test_a_member_under_two_names_or_none_leaks_where_pairs_are_parted_by_it():
    texts = [b"MKV", b"GGA", b"MKV", b"CCD", b"HHE"]
    seconds = ["CCO", "CCO", "CCN", "CCN", "CCF"]
    data = replace(records(5, sequences=texts, groups=["a", "b", "c", None, None]), seconds=seconds)
    table = parted(data, ["train", "test", "train", "test", "test"])
    asked = {by: find_leaks(data, table, Likeness(), group_by=by) for by in ("group", "id", "second_id")}
    assert asked["group"] == asked["id"] == []
    found = [(leak.kind, leak.record, leak.other_record) for leak in asked["second_id"]]
    assert found == [("same_member", 2, 0), ("same_member", 6, 4)]
    assert asked["second_id"][0].sentence() == (
        "the member of record 2 (r1, test) is the same as the member of record 0 (r0, train)"
    )


def test_within_a_part_nothing_leaks():
    data = leak_records()
    assert find_leaks(data, parted(data, ["train"] * 6), Likeness()) == []


def test_unused_records_do_not_leak_and_hide_no_leak():
    data = leak_records()
    table = parted(data, ["unused", "test", "train", "unused", "test", "unused"])
    found = [(leak.kind, leak.record, leak.other_record) for leak in find_leaks(data, table, Likeness())]
    assert found == [("near", 4, 2)]


def test_strands_of_proteins_are_not_looked_at():
    data = leak_records()
    table = parted(data, ["train", "train", "train", "train", "test", "train"])
    assert find_leaks(data, table, Likeness(both_strands=False)) == []


@given(seed=st.integers(0, 20))
def test_every_equal_pair_across_parts_is_told(seed):
    draw = random.Random(seed)
    pool = random_dna(6, 30, draw)
    data = records(20, sequences=[draw.choice(pool) for _ in range(20)])
    parts = [draw.choice(["train", "test"]) for _ in range(20)]
    told = {leak.record for leak in find_leaks(data, parted(data, parts), Likeness()) if leak.kind == "exact"}
    wanted = {
        2 * i
        for i in range(20)
        if any(data.sequences[j] == data.sequences[i] and parts[j] != parts[i] for j in range(i))
    }
    assert told == wanted


def test_a_split_of_other_records_is_told():
    data = records(5)
    with pytest.raises(InputError, match="no record 8"):
        find_leaks(records(4), split_table(data, SplitPlan(test=0.2, validation=0.0)), Likeness())
    with pytest.raises(InputError, match="record 8 of the set is in no split"):
        find_leaks(data, split_table(records(4), SplitPlan(test=0.3, validation=0.0)), Likeness())
