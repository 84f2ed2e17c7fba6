"""Ingest of sequences as a user runs it: every record answered for, resumable anywhere, the same bytes every time."""

from __future__ import annotations

import gzip
import html.parser
import json
import random
import re
import shutil
import signal
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pysam
import pytest

from engine.genome.minhash import reverse_complement
from engine.io import bgzf
from engine.runtime.run import RunContext
from jobs import ingest_sequences
from schemas import states, tables
from schemas.jobs.ingest_sequences import IngestSequencesSpec
from tests.engine.genome.test_minhash import mutated, random_dna
from tests.toys.bigwig import Section, write_bigwig
from tests.toys.bit_flips import check_kind, kinds
from tests.toys.runs import assert_same_results
from tests.toys.variant_runs import assert_one_sentence, replisome, replisome_here

CLASSES = ("donor", "acceptor", "none")


def hostile_text() -> str:
    """A table of 300 records: most good; some repeat others; every kind of bad one among them."""
    draw = random.Random(3)
    lines = ["id,sequence,label,y,family"]
    texts = ["".join(draw.choices("ACGT", k=draw.randint(30, 50))) for _ in range(260)]
    lines += [f"r{i},{text},{CLASSES[i % 3]},{i / 7:.3f},f{i % 11}" for i, text in enumerate(texts)]
    bad = [
        f"d0,{texts[3]},{CLASSES[0]},{3 / 7:.3f},f3",
        f"d1,{texts[4].lower()},{CLASSES[0]},9,f3",
        "b0,ACGT-CGT!CGTACGTACGTACGTACGTACGT,donor,1,f",
        f"b1,{'N' * 30},donor,1,f",
        "b2,,donor,1,f",
        "b3,ACGT,donor,1,f",
        f"b4,{'ACGTT' * 40},donor,1,f",
        f"b5,{'ACGTA' * 7},,1,f",
        f"b6,{'ACGTC' * 7},enhancer,1,f",
        f"b7,{'ACGTG' * 7},donor,,f",
        f"b8,{'CCGTG' * 7},donor,NaN,f",
        "two,fields",
        f'b9,"{"GGGTG" * 7}",donor,1,"a, b"',
    ]
    for one in bad * 2:
        lines.insert(draw.randrange(200, len(lines)), one)
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "in.csv.gz"
    path.write_bytes(gzip.compress(hostile_text().encode(), mtime=0))
    return path


def arguments(table: Path, output: Path, *more: str) -> list[str]:
    return [
        *("ingest-sequences", str(table), "-o", str(output), "--classes", ",".join(CLASSES), "--targets", "y"),
        *("--group", "family", "--min-length", "20", "--max-length", "100", "--records-per-shard", "40"),
        *("--max-rejects", "1", "--progress", "none", *more),
    ]


@pytest.fixture(scope="module")
def calm(table, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("calm") / "out"
    done = replisome(*arguments(table, output, "-j", "1"))
    assert done.returncode == 0, done.stderr
    assert "286 records; rows: 261 kept, 25 rejected" in done.stdout
    return output


REASONS = {
    "ambiguous_letters": 2,
    "bad_target": 2,
    "conflicting_duplicate": 2,
    "empty_sequence": 2,
    "exact_duplicate": 3,
    "invalid_letters": 2,
    "malformed_record": 2,
    "missing_label": 2,
    "missing_target": 2,
    "too_long": 2,
    "too_short": 2,
    "unknown_label": 2,
}


def test_every_record_is_kept_or_rejected_with_a_reason(calm):
    manifest = json.loads((calm / "manifest.json").read_text())
    found = pq.read_table(calm / "data")
    assert found.schema.remove_metadata().equals(tables.SEQUENCES.remove_metadata())
    assert found["record"].to_pylist() == list(range(manifest["num_records"]))
    rows = found.to_pylist()
    assert all((row["state"] == "kept") == (row["reason"] is None) for row in rows)
    assert manifest["totals"]["states"] == {"kept": 261, "rejected": 25}
    assert manifest["totals"]["reasons"] == REASONS
    refused = pq.read_table(calm / "rejects").to_pylist()
    assert [(row["record"], row["reason"]) for row in rows if row["reason"]] == [
        (row["record"], row["reason"]) for row in refused
    ]
    assert all(row["sentence"] for row in refused)
    assert set(manifest["totals"]["reasons"]) <= set(states.INGEST_REASONS)


def test_what_is_kept_is_what_polars_reads(calm, table):
    text = "\n".join(line for line in gzip.decompress(table.read_bytes()).decode().splitlines() if line != "two,fields")
    judge = pl.read_csv(text.encode()).rename({"y": "target", "family": "group"})
    kept = pl.from_arrow(pq.read_table(calm / "data")).filter(pl.col("state") == "kept")
    told = judge.with_columns(pl.col("sequence").str.to_uppercase()).unique(
        "sequence", keep="first", maintain_order=True
    )
    ours = kept.select("id", "sequence", "label", pl.col("target"), "group")
    theirs = told.filter(pl.col("id").is_in(kept["id"].to_list()))
    assert ours.rows() == theirs.select(ours.columns).with_columns(pl.col("target").cast(pl.Float64)).rows()


def test_the_first_of_equal_sequences_stands(calm):
    rows = pq.read_table(calm / "data").to_pylist()
    refused = {row["record"]: row for row in pq.read_table(calm / "rejects").to_pylist()}
    names = {row["id"]: row for row in rows if row["id"] and row["id"].startswith("r")}
    told = [row for row in rows if row["reason"] in ("exact_duplicate", "conflicting_duplicate")]
    assert len(told) == 5
    for row in told:
        first = {"d0": "r3", "d1": "r4", "b9": None}[row["id"]]
        if first:
            assert f"that of record {names[first]['record']}" in refused[row["record"]]["sentence"]
    assert {row["reason"] for row in told if row["id"] == "d1"} == {"conflicting_duplicate"}


def test_the_card_counts_what_the_parts_hold(calm):
    card = json.loads((calm / "card.json").read_text())
    kept = pl.from_arrow(pq.read_table(calm / "data")).filter(pl.col("state") == "kept")
    assert card["kept"] == kept.height
    assert card["classes"] == dict(sorted(kept["label"].value_counts().rows()))
    assert card["rejected_by_reason"] == REASONS
    assert card["num_groups"] == kept["group"].n_unique()
    assert card["letters"] == dict(sorted((one, "".join(kept["sequence"]).count(one)) for one in "ACGT"))
    [target] = card["targets"]
    assert target["name"] == "y"
    assert target["mean"] == pytest.approx(kept["target"].mean())
    assert target["standard_deviation"] == pytest.approx(kept["target"].std(ddof=0))
    assert sum(target["histogram"]) == kept.height
    assert sum(bar["num"] for bar in card["length"]["histogram"]) == kept.height
    assert card["repeated_ids"] == 12


class _Page(html.parser.HTMLParser):
    """Values by data-key, and everything that would be loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, str] = {}
        self.outside: list[str] = []
        self._key = ""

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        self._key = known.get("data-key") or self._key
        self.outside += [tag] if tag in ("script", "link", "iframe", "img") or "src" in known or "href" in known else []

    def handle_data(self, data):
        if self._key:
            self.values[self._key] = data
            self._key = ""


def test_the_page_tells_the_card_and_loads_nothing(calm):
    card = json.loads((calm / "card.json").read_text())
    page = _Page()
    page.feed((calm / "report.html").read_text())
    assert page.outside == []
    assert page.values["kept"] == f"{card['kept']:,}"
    for kind, counts in (("class", card["classes"]), ("reason", REASONS), ("letter", card["letters"])):
        assert all(page.values[f"{kind}.{name}"] == f"{num:,}" for name, num in counts.items())


def test_text_of_the_input_is_no_markup_on_the_page(tmp_path):
    path = tmp_path / "in.csv"
    path.write_text("id,sequence,label\na,ACGT,<script>alert(1)</script>\nb,ACGG,x\n")
    done = replisome_here("ingest-sequences", str(path), "-o", str(tmp_path / "out"), "--progress", "none")
    assert done.returncode == 0, done.stderr
    assert "<script" not in (tmp_path / "out" / "report.html").read_text()


# The run protocol

FAULTS = [
    "kill@before-duplicates",
    "kill-parent@before-part",
    "kill-parent@mid-part#2",
    "kill-parent@after-part",
    "kill@between-parts#3",
    "kill@before-manifest",
    "kill@after-manifest",
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_killed_driver_loses_nothing(table, calm, tmp_path, fault):
    words = arguments(table, tmp_path / "out", "-j", "2")
    killed = replisome(*words, fault=fault, once=tmp_path / "once")
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "out" / "duplicates.parquet").exists() == (fault != "kill@before-duplicates")
    again = replisome(*words)
    assert again.returncode == 0, again.stderr
    assert_same_results(tmp_path / "out", calm)


def test_a_killed_process_is_replaced_and_nothing_shows(table, calm, tmp_path):
    done = replisome(*arguments(table, tmp_path / "out", "-j", "2"), fault="kill@scoring", once=tmp_path / "once")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "once").exists(), "the fault did not strike"
    assert_same_results(tmp_path / "out", calm)


def test_two_workers_and_another_path_give_the_same_bytes(table, calm, tmp_path):
    moved = shutil.copy(table, tmp_path / "renamed.txt")
    done = replisome(*arguments(moved, tmp_path / "out", "-j", "2"))
    assert done.returncode == 0, done.stderr
    assert_same_results(tmp_path / "out", calm)


@pytest.mark.ray
def test_ray_gives_the_same_bytes(ray_cluster, table, calm, tmp_path):
    spec = IngestSequencesSpec.model_validate(
        {
            "input": {"path": str(table), "targets": ["y"], "group": "family"},
            "cleaning": {"classes": CLASSES, "min_length": 20, "max_length": 100},
            "output": str(tmp_path / "out"),
            "max_reject_fraction": 1.0,
            "execution": {"executor": "ray", "workers": 2, "records_per_shard": 40},
        }
    )
    ingest_sequences.run(spec, RunContext(progress="none"))
    assert_same_results(tmp_path / "out", calm)


@pytest.mark.parametrize("packed", [bytes, gzip.compress])
def test_standard_input_is_taken_and_resumed(tmp_path, packed):
    words = ["ingest-sequences", "-", "-o", str(tmp_path / "out"), "--progress", "none"]
    data = packed(b">a\nACGT\n>b\nGGGG\n")
    killed = replisome(*words, fault="kill-parent@before-part", stdin=data)
    assert killed.returncode == -signal.SIGKILL
    done = replisome(*words, stdin=data)
    assert done.returncode == 0, done.stderr
    assert "2 kept" in done.stdout
    assert_one_sentence(replisome(*words[:3], f"{words[3]}2", stdin=b""), 2, "standard-input: the file is empty")


def test_a_finished_run_run_again_does_nothing(table, calm):
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in calm.rglob("*") if path.is_file()}
    again = replisome_here(*arguments(table, calm))
    assert "finished before, nothing to do" in again.stdout
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before
    assert set(before) == {path for path in calm.rglob("*") if path.is_file()}


def test_a_copy_of_the_input_is_known_and_another_input_is_not(table, calm, tmp_path):
    copy = Path(shutil.copy(table, tmp_path / "copy.gz"))
    assert "finished before, nothing to do" in replisome_here(*arguments(copy, calm)).stdout
    copy.write_bytes(gzip.compress(hostile_text().replace("r9,", "r9x,").encode()))
    assert_one_sentence(replisome_here(*arguments(copy, calm)), 2, "computes something else: input was")


def test_verify_plan_and_schema_know_the_job(table, calm, tmp_path):
    found = replisome_here("verify", str(calm))
    assert (found.returncode, "all as committed" in found.stdout) == (0, True)
    plan = replisome_here(*arguments(table, tmp_path / "out", "--plan"))
    assert plan.stdout.endswith("8 of 8 shards to run\n")
    assert not (tmp_path / "out" / "run.json").exists()
    assert json.loads(replisome_here("schema", "ingest-sequences").stdout)["properties"]["cleaning"]
    assert "ingest-sequences" in replisome_here("jobs").stdout


def test_flipped_bits_are_seen(calm, tmp_path):
    output = Path(shutil.copytree(calm, tmp_path / "out"))
    for number, (kind, names) in enumerate(kinds(output).items()):
        if kind in ("card.json", "duplicates.parquet", "report.html"):
            check_kind(output, names, seed=number)


def test_duplicates_harmed_between_two_drivers_are_refused(table, tmp_path):
    words = arguments(table, tmp_path / "out")
    assert replisome(*words, fault="kill-parent@before-part").returncode == -signal.SIGKILL
    path = tmp_path / "out" / "duplicates.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert_one_sentence(replisome_here(*words), 2, "the file is damaged; delete the file and run again")
    path.unlink()
    assert replisome_here(*words).returncode == 0


@pytest.mark.parametrize("more", [("--min-length", "21"), ("--duplicates", "keep"), ("--past-ends", "reject")])
def test_other_rules_are_another_run(table, calm, more):
    assert_one_sentence(replisome_here(*arguments(table, calm, *more)), 2, "this folder holds a run that computes")


# Inputs of other kinds


def ingested(tmp_path: Path, *words: str):
    done = replisome_here("ingest-sequences", *words, "-o", str(tmp_path / "out"), "--progress", "none")
    assert done.returncode == 0, done.stderr
    return pq.read_table(tmp_path / "out" / "data").to_pylist()


@pytest.mark.parametrize("packed", ["plain", "gzip", "bgzf"])
def test_fastq_with_a_labels_table(tmp_path, packed):
    text = "".join(f"@s{i} x\n{'ACGT' * (i + 2)}\n+\n{'IIII' * (i + 2)}\n" for i in range(20)).encode()
    pack = {"plain": bytes, "gzip": gzip.compress, "bgzf": lambda data: bgzf.compress(data) + bgzf.EOF}
    (tmp_path / "in.fq").write_bytes(pack[packed](text))
    (tmp_path / "labels.tsv").write_text("name\tclass\n" + "".join(f"s{i}\tc{i % 2}\n" for i in range(1, 22)))
    rows = ingested(
        tmp_path,
        *(str(tmp_path / "in.fq"), "-l", str(tmp_path / "labels.tsv"), "--labels-id", "name", "--label", "class"),
    )
    with pysam.FastxFile(str(tmp_path / "in.fq")) as judge:
        assert [(row["id"], row["sequence"]) for row in rows[1:]] == [(one.name, one.sequence) for one in judge][1:]
    assert [row["label"] for row in rows] == [None, *(f"c{i % 2}" for i in range(1, 20))]
    assert rows[0]["reason"] == "missing_label"
    assert json.loads((tmp_path / "out" / "card.json").read_text())["labels_without_record"] == 2


def test_windows_of_genes(tmp_path):
    (tmp_path / "ref.fa").write_text(">chr1\n" + "ACGTTGCAAC" * 30 + "\n")
    (tmp_path / "in.gtf").write_text(
        'chr1\tx\tgene\t101\t120\t.\t+\t.\tgene_id "g1"; kind "coding";\n'
        'chr1\tx\texon\t101\t110\t.\t+\t.\tgene_id "g1";\n'
        'chr1\tx\tgene\t201\t217\t.\t-\t.\tgene_id "g2"; kind "other";\n'
    )
    rows = ingested(
        tmp_path,
        *(str(tmp_path / "in.gtf"), "--reference", str(tmp_path / "ref.fa"), "--window", "20", "--anchor", "start"),
        *("--label", "kind", "--margin", "2"),
    )
    places = [(row["id"], row["group"], row["label"], row["start"], row["end"], row["strand"]) for row in rows]
    assert places == [("g1", "g1", "coding", 88, 112, "+"), ("g2", "g2", "other", 205, 229, "-")]
    with pysam.FastaFile(str(tmp_path / "ref.fa")) as judge:
        assert rows[0]["sequence"] == judge.fetch("chr1", 88, 112)
        turned = judge.fetch("chr1", 205, 229)[::-1].translate(str.maketrans("ACGT", "TGCA"))
        assert rows[1]["sequence"] == turned
    facts = json.loads((tmp_path / "out" / "manifest.json").read_text())["facts"]
    assert facts["windows"]["margin_bp"] == 2
    assert facts["reference_digest"]


def test_tracks_become_binned_targets_as_the_strand_reads(tmp_path):
    (tmp_path / "ref.fa").write_text(">chr1\n" + "ACGTTGCAAC" * 30 + "\n")
    write_bigwig(tmp_path / "t.bw", {"chr1": 300}, [Section("chr1", "bedGraph", [(40, 44, 1.0), (46, 50, 3.0)])])
    (tmp_path / "in.bed").write_text("chr1\t40\t48\ta\t0.5\t+\nchr1\t41\t49\tb\t0.25\t-\nchr1\t0\t2\tc\t1\t+\n")
    words = (str(tmp_path / "in.bed"), "-f", str(tmp_path / "ref.fa"), "--window", "8", "--margin", "1")
    rows = ingested(
        tmp_path, *words, "--tracks", str(tmp_path / "t.bw"), "--bin", "4", "--targets", "score", "--max-ambiguous", "1"
    )
    assert [row["targets"] for row in rows] == [[0.5, 1.0, 1.5], [0.25, 2.25, 0.75], [1.0, 0.0, 0.0]]
    assert [len(row["sequence"]) for row in rows] == [10, 10, 10]
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert [one["name"] for one in card["targets"]] == ["score", "track 0 bin 0", "track 0 bin 1"]
    assert card["targets"][1]["mean"] == pytest.approx(3.25 / 3)


def test_several_inputs_are_one_set_and_repeats_between_them_are_seen(tmp_path):
    (tmp_path / "a.fa").write_text(">a\nACGT\n>b\nGGGG\n")
    (tmp_path / "b.csv").write_text("id,sequence\nc,GGGG\nd,TTTT\n")
    rows = ingested(tmp_path, str(tmp_path / "a.fa"), str(tmp_path / "b.csv"))
    assert [(row["record"], row["id"], row["reason"]) for row in rows] == [
        (0, "a", None),
        (1, "b", None),
        (2, "c", "exact_duplicate"),
        (3, "d", None),
    ]


def test_the_label_is_the_file_and_the_group_lies_in_the_id(tmp_path):
    (tmp_path / "positive.fa.gz").write_bytes(gzip.compress(b">HUM1-DONOR-3 x\nACGT\n>HUM2-NEG-1\nGGGG\n"))
    (tmp_path / "negative.csv").write_text("id,sequence\nHUM1-NEG-9,TTTT\nodd,CCCC\n")
    words = (str(tmp_path / "positive.fa.gz"), str(tmp_path / "negative.csv"), "--label-from-file")
    rows = ingested(tmp_path, *words, "--group-pattern", "^(.+?)-")
    assert [(row["label"], row["group"]) for row in rows] == [
        ("positive", "HUM1"),
        ("positive", "HUM2"),
        ("negative", "HUM1"),
        ("negative", None),
    ]


def test_a_file_of_another_name_is_another_run_where_the_name_is_the_label(tmp_path):
    words = ["ingest-sequences", "-o", str(tmp_path / "out"), "--progress", "none", "--label-from-file"]
    for name, code in (("a.fa", 0), ("b.fa", 2)):
        (tmp_path / name).write_text(">x\nACGT\n")
        done = replisome_here(*words, str(tmp_path / name))
        assert done.returncode == code, done.stderr
    assert "label_names was ['a'], now ['b']" in done.stderr


def test_a_parquet_table_and_several_targets(tmp_path):
    pl.DataFrame({"seq": ["ACGT", "CCCC"], "x": [1, 2], "y": [0.5, None]}).write_parquet(tmp_path / "in.parquet")
    rows = ingested(
        tmp_path,
        *(str(tmp_path / "in.parquet"), "--sequence", "seq", "--targets", "x,y", "--allow-missing"),
        *("--set", "max_reject_fraction=1"),
    )
    assert [row["targets"] for row in rows] == [[1.0, 0.5], [2.0, None]]


def test_an_object_store_takes_the_same_run(s3_bucket, table, calm):
    done = replisome_here(*arguments(table, f"{s3_bucket}/out"))
    assert done.returncode == 0, done.stderr
    assert "all as committed" in replisome_here("verify", f"{s3_bucket}/out").stdout


# What is refused


@pytest.mark.parametrize(
    ("data", "words", "sentence"),
    [
        (b"", (), "the file is empty"),
        (gzip.compress(b">a\nACGT\n" * 500)[:-9], (), "the gzip file is cut short"),
        (b"id,sequence\n", (), "there is no record in it"),
        (b"id,seq\na,ACGT\n", (), "the table has no column for sequence; it has 'id', 'seq'; name the column"),
        (b"id,sequence\na,ACGT\n", ("--label", "y"), "there is no column 'y'; it has 'id', 'sequence'"),
        (b"id,sequence\na,ACGT\n", ("--classes", "x"), "classes are declared, and no column has labels"),
        (b"id,sequence\na,ACGT\n", ("--window", "9"), "windows need a reference"),
        (b">a\nACGT\n", ("--targets", "y"), "FASTA has no columns, yet y is asked for"),
        (b">a\nACGT\n", ("--label-pattern", "("), "is no regular expression"),
        (
            b"id,sequence\na,ACGT\n",
            ("--label-pattern", "x"),
            "a label pattern is for header lines, and this is a table",
        ),
        (b">a\nACGT\n", ("--group-pattern", "x", "--group-from-file"), "the group comes from one place"),
        (b">a\nACGT\n", ("--tracks", "x.bw"), "tracks are read at windows of a reference"),
        (b">a\nACGT\n", ("--min-length", "9", "--max-length", "3"), "max_length 3 is less than min_length 9"),
        (b"id,sequence,label\na,AC,x\nb,AC,y\n", ("--conflicts", "stop"), r"1 records repeat .* \(records 1 and 0,"),
        (b"PK\x03\x04\x00\x00", (), "it is no text"),
    ],
)
def test_wrong_input_is_one_sentence(tmp_path, data, words, sentence):
    path = tmp_path / "in"
    path.write_bytes(data)
    done = replisome_here("ingest-sequences", str(path), "-o", str(tmp_path / "out"), "--progress", "none", *words)
    assert_one_sentence(done, 2, sentence)


def test_a_label_outside_the_classes_counts_and_too_many_end_the_run(tmp_path):
    path = tmp_path / "in.csv"
    path.write_text("id,sequence,label\n" + "".join(f"r{i},{'ACGT' * (i + 1)},{'xyz'[i % 3]}\n" for i in range(30)))
    words = ["ingest-sequences", str(path), "-o", str(tmp_path / "out"), "--progress", "none", "--classes", "x,y"]
    done = replisome_here(*words)
    assert_one_sentence(done, 3, r"rows rejected of 30 records, more than the limit of 25.00% \(unknown_label 10\)")
    again = replisome_here(*words, "--max-rejects", "0.5")
    assert again.returncode == 0, again.stderr
    rejects = pq.read_table(tmp_path / "out" / "rejects").to_pylist()
    assert {row["sentence"] for row in rejects} == {"'z' is none of the classes x, y"}


def test_a_cut_in_the_middle_of_a_shard_is_told(table, tmp_path):
    plain = tmp_path / "in.csv"
    plain.write_bytes(gzip.decompress(table.read_bytes()))
    words = arguments(plain, tmp_path / "out")
    assert replisome(*words, fault="kill-parent@before-part").returncode == -signal.SIGKILL
    plain.write_bytes(plain.read_bytes()[:-400])
    assert_one_sentence(replisome_here(*words), 2, "this folder holds a run that computes something else: input was")


def test_near_duplicates_are_rejected_with_the_record_that_they_nearly_repeat(tmp_path):
    draw = random.Random(3)
    first, second = random_dna(2, 120, draw)
    turned = reverse_complement(second)
    rows = [first, second, mutated(first, 1, draw), turned, second, mutated(first, 40, draw)]
    path = tmp_path / "in.fa"
    path.write_text("".join(f">s{i}\n{text.decode()}\n" for i, text in enumerate(rows)))
    words = ("ingest-sequences", str(path), "--max-rejects", "1", "--progress", "none")
    assert replisome(*words, "-o", str(tmp_path / "out"), "--near-duplicates", "0.8").returncode == 0
    found = pq.read_table(tmp_path / "out" / "data").to_pylist()
    assert [row["reason"] for row in found] == [None, None, *("near_duplicate",) * 2, "exact_duplicate", None]
    told = {row["record"]: row["sentence"] for row in pq.read_table(tmp_path / "out" / "rejects").to_pylist()}
    assert re.fullmatch(r"the sequence shares 0\.8\d\d of its words with that of record 0 .*", told[2])
    assert told[3].startswith("the sequence shares 1.000 of its words with that of record 1")
    assert told[4] == "the sequence is that of record 1"
    assert replisome(*words, "-o", str(tmp_path / "all")).returncode == 0
    reasons = pq.read_table(tmp_path / "all" / "data")["reason"].to_pylist()
    assert reasons == [*(None,) * 4, "exact_duplicate", None]
