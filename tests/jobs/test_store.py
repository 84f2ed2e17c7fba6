"""The score store through the command: what was scored once is looked up, and nothing else changes."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import signal
import zlib
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pyarrow.parquet as pq
import pytest

from engine.runtime.run import RunContext
from engine.scoring._score_store import segments_of
from engine.scoring.allele_effect import AlleleEffect
from engine.scoring.gc_change import GcChange
from engine.scoring.splice_delta import SpliceDelta
from engine.storage.store import open_store
from jobs import score_variants
from schemas.jobs.score_variants import ScoreVariantsSpec
from tests.toys import genome
from tests.toys.models import splice_motifs
from tests.toys.runs import assert_same_results, result_bytes
from tests.toys.variant_runs import assert_one_sentence, replisome, replisome_here, start

SCORES = ["ds_ag", "ds_al", "ds_dg", "ds_dl", "ds_max"]
PLACES = ["dp_ag", "dp_al", "dp_dg", "dp_dl"]


def words_of(workspace, output, store=None, *, vcf=None, distance=30):
    words = workspace.arguments(output, vcf=vcf or workspace.vcf, scorer="splice_delta")
    words += ["--distance", str(distance)]
    return [*words, "--store", str(store)] if store is not None else words


def scored(words, *, fault=""):
    """Run it here; returns how many units the model was asked for."""
    with mock.patch.object(SpliceDelta, "score", autospec=True, side_effect=SpliceDelta.score) as score:
        done = replisome_here(*words, fault=fault)
    assert done.returncode == 0, done.stderr
    return score.call_count


def rows_of(output):
    return pq.read_table(Path(output) / "data").to_pylist()


def sources_of(output):
    """How many scored rows came from where."""
    found: dict[str, int] = {}
    for row in rows_of(output):
        assert (row["score_source"] is None) == (row["state"] != "scored")
        if row["score_source"] is not None:
            found[row["score_source"]] = found.get(row["score_source"], 0) + 1
    return found


def assert_equal_scores(output, other):
    ours, theirs = rows_of(output), rows_of(other)
    assert len(ours) == len(theirs)
    for one, two in zip(ours, theirs, strict=True):
        one.pop("score_source", None)
        two.pop("score_source", None)
        assert {**one, **dict.fromkeys(SCORES)} == {**two, **dict.fromkeys(SCORES)}
        assert [one[name] for name in SCORES] == pytest.approx([two[name] for name in SCORES], abs=1e-5)


def write_sample(workspace, path, records):
    order = list(workspace.toy.contigs)
    ordered = sorted(records, key=lambda record: (order.index(record.contig), record.pos))
    return genome.write_vcf(path, ordered, workspace.toy)


@pytest.fixture(scope="module")
def plain(workspace, tmp_path_factory):
    """A run without a store."""
    output = tmp_path_factory.mktemp("plain") / "out"
    assert replisome_here(*words_of(workspace, output)).returncode == 0
    return output


@pytest.fixture(scope="module")
def filled_once(workspace, tmp_path_factory):
    """A store that one run has filled, and that run."""
    folder = tmp_path_factory.mktemp("filled")
    assert replisome_here(*words_of(workspace, folder / "out", folder / "store")).returncode == 0
    return folder


@pytest.fixture
def filled(filled_once, tmp_path):
    shutil.copytree(filled_once / "store", tmp_path / "store")
    return tmp_path / "store"


def test_a_run_that_fills_a_store_is_the_run_without_one(plain, filled_once):
    assert (filled_once / "out/scores.vcf.gz").read_bytes() == (plain / "scores.vcf.gz").read_bytes()
    assert set(sources_of(filled_once / "out")) == {"computed"}
    assert pq.read_table(filled_once / "out/data").column_names[-1] == "score_source"
    assert "score_source" not in pq.read_table(plain / "data").column_names
    assert_equal_scores(filled_once / "out", plain)


def test_the_same_sample_again_asks_the_model_nothing(workspace, plain, filled, tmp_path):
    assert scored(words_of(workspace, tmp_path / "out", filled)) == 0
    assert set(sources_of(tmp_path / "out")) == {"looked_up"}
    assert_equal_scores(tmp_path / "out", plain)
    assert (tmp_path / "out/scores.vcf.gz").read_bytes() == (plain / "scores.vcf.gz").read_bytes()
    assert "all as committed" in replisome_here("verify", str(tmp_path / "out")).stdout
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["provenance"]["score_sources"] == sources_of(tmp_path / "out")


# Doubles that round to another fourth or second decimal than the float32 that the table keeps of them.
TIES = [0.12344999999, 0.00014999999999, 0.98764999999, 0.5, 0.33335000001, 0.25]


@pytest.mark.parametrize(
    ("scorer", "more"),
    [
        (SpliceDelta, ["--distance", "30"]),
        (SpliceDelta, ["--distance", "30", "--compatibility", "spliceai-1.3.1"]),
        (AlleleEffect, ["--set", "scorer.params.head=splice"]),
        (GcChange, []),
    ],
)
def test_no_text_tells_whether_a_score_was_looked_up(workspace, tmp_path, scorer, more):
    stem = {SpliceDelta: "splice_delta", AlleleEffect: "allele_effect", GcChange: "gc_change"}[scorer]

    def score(self, prepared, _):
        at = zlib.crc32(repr(prepared).encode())  # the same for the same question
        made = [TIES[(at + place) % len(TIES)] * (-1) ** at for place in range(len(self.fields))]
        kinds = [str(one.type) for one in self.fields]
        return tuple(
            value if kind == "float" else place if kind == "int32" else ""
            for place, (value, kind) in enumerate(zip(made, kinds, strict=True))
        )

    for name in ("computed", "looked_up"):
        words = workspace.arguments(tmp_path / name, vcf=workspace.vcf, scorer=stem)
        with mock.patch.object(scorer, "score", score):
            done = replisome_here(*words, *more, "--store", str(tmp_path / "store"))
        assert done.returncode == 0, done.stderr
        assert set(sources_of(tmp_path / name)) == {name}
    one, other = (
        gzip.decompress((tmp_path / name / "scores.vcf.gz").read_bytes()) for name in ("computed", "looked_up")
    )
    assert one == other
    assert one.count(b"RPL_STATE=scored") > len(TIES)


def test_a_second_sample_computes_only_what_is_new(workspace, tmp_path):
    records = genome.random_records(workspace.toy, 400, seed=11)
    random.Random(1).shuffle(records)
    first, second = records[:360], records[36:396]
    assert len(set(first) & set(second)) == 0.9 * len(second)
    store = tmp_path / "store"
    one = write_sample(workspace, tmp_path / "one.vcf.gz", first)
    two = write_sample(workspace, tmp_path / "two.vcf.gz", second)
    cold = scored(words_of(workspace, tmp_path / "cold", vcf=two))
    assert scored(words_of(workspace, tmp_path / "one", store, vcf=one)) == sources_of(tmp_path / "one")["computed"]
    asked = scored(words_of(workspace, tmp_path / "two", store, vcf=two))
    sources = sources_of(tmp_path / "two")
    known = {(row["contig"], row["start"], row["ref"], row["alt"]) for row in rows_of(tmp_path / "one")}
    rows = [row for row in rows_of(tmp_path / "two") if row["state"] == "scored"]
    new = sum((row["contig"], row["start"], row["ref"], row["alt"]) not in known for row in rows)
    assert 0 < asked == sources["computed"] == new <= 0.15 * cold
    assert sources["looked_up"] == cold - new
    assert_equal_scores(tmp_path / "two", tmp_path / "cold")
    assert scored(words_of(workspace, tmp_path / "third", store, vcf=two)) == 0


def changed_genes(workspace, path):
    """The annotation with every gene's last exon edge one base on, where it has another."""
    lines = []
    for line in workspace.toy.spliceai_table.read_text().splitlines():
        fields = line.split("\t")
        if fields[4].isdecimal():
            end = str(int(fields[4]) + 1)
            fields[6] = fields[6].removesuffix(f"{fields[4]},") + f"{end},"
            fields[4] = end
        lines.append("\t".join(fields) + "\n")
    path.write_text("".join(lines))
    return str(path)


def test_whatever_makes_another_number_is_a_miss(workspace, filled, tmp_path):
    splice_motifs(tmp_path / "model", members=2)
    base = words_of(workspace, tmp_path / "base", filled)

    def change(flag, value):
        words = list(base)
        words[words.index(flag) + 1] = str(value)
        return words

    cases = {
        "model": change("--model", tmp_path / "model"),
        "distance": change("--distance", 31),
        "precision": [*base, "--precision", "bf16"],
        "mask": [*base, "--mask"],
        "transcripts": change("--genes", changed_genes(workspace, tmp_path / "genes.txt")),
    }
    for name, words in cases.items():
        words[words.index("-o") + 1] = str(tmp_path / name)
        assert scored(words) > 0
        assert set(sources_of(tmp_path / name)) == {"computed"}, name


def test_other_names_of_the_same_things_are_hits(workspace, filled, tmp_path):
    """Transcripts count by their exons, contigs by their sequence: another annotation and contig naming will do."""
    other = genome.make_genome(tmp_path / "genome", prefix="")
    text = gzip.decompress(workspace.vcf.read_bytes()).decode().replace("\nchr", "\n").replace("ID=chr", "ID=")
    vcf = tmp_path / "renamed.vcf"
    vcf.write_text("\n".join(line for line in text.splitlines() if "breakend" not in line) + "\n")
    words = words_of(workspace, tmp_path / "out", filled, vcf=vcf)
    words[words.index("--reference") + 1] = str(other.fasta)
    words[words.index("--genes") + 1] = str(other.spliceai_table)
    assert scored(words) == 0
    assert set(sources_of(tmp_path / "out")) == {"looked_up"}


def test_another_spelling_of_a_variant_is_computed(workspace, tmp_path):
    toy = workspace.toy
    base = toy.clean("chr1", 2_051, 2_054)
    alt = "ACGT"["ACGT".index(base[1]) - 1]
    plain = genome.ToyRecord("chr1", 2_053, base[1], (alt,), "snv", ("",))
    padded = replace(plain, pos=2_052, ref=base[:2], alts=(base[0] + alt,))
    store = tmp_path / "store"
    for name, record, hits in (("a", plain, {"computed": 1}), ("b", padded, {"computed": 1})):
        vcf = write_sample(workspace, tmp_path / f"{name}.vcf.gz", [record])
        scored(words_of(workspace, tmp_path / name, store, vcf=vcf))
        assert sources_of(tmp_path / name) == hits
    (one,), (two,) = rows_of(tmp_path / "a"), rows_of(tmp_path / "b")
    assert (one["norm_start"], one["norm_alt"]) == (two["norm_start"], two["norm_alt"])
    assert [two[name] - one[name] for name in PLACES] == [1] * 4
    both = write_sample(workspace, tmp_path / "both.vcf.gz", [padded, plain])
    assert scored(words_of(workspace, tmp_path / "both", store, vcf=both)) == 0
    found = [{name: row[name] for name in (*SCORES, *PLACES)} for row in rows_of(tmp_path / "both")]
    assert found == [{name: row[name] for name in (*SCORES, *PLACES)} for row in (two, one)]


def test_what_the_peer_refuses_for_its_letters_is_not_looked_up(workspace, tmp_path):
    """REF in small letters: SpliceAI 1.3.1 skips the record, whatever the store knows of the same allele."""
    record = genome.toy_records(workspace.toy)[2]
    small = replace(record, ref=record.ref.lower())
    for name, one in (("a", record), ("b", small)):
        vcf = write_sample(workspace, tmp_path / f"{name}.vcf.gz", [one])
        words = words_of(workspace, tmp_path / name, tmp_path / "store", vcf=vcf)
        assert scored([*words, "--compatibility", "spliceai-1.3.1"]) == (name == "a")
    assert [row["state"] for row in rows_of(tmp_path / "a")] == ["scored"]
    assert [(row["state"], row["reason"]) for row in rows_of(tmp_path / "b")] == [("rejected", "peer_refusal")]


def test_each_transcript_has_a_row_of_its_own(workspace, plain, tmp_path):
    store = tmp_path / "store"
    words = [*words_of(workspace, tmp_path / "all", store), "--all-transcripts"]
    asked = scored(words)
    words[words.index("-o") + 1] = str(tmp_path / "again")
    assert scored(words) == 0
    assert sources_of(tmp_path / "again") == {"looked_up": asked}
    assert_equal_scores(tmp_path / "again", tmp_path / "all")
    assert scored(words_of(workspace, tmp_path / "chosen", store)) == 0
    assert_equal_scores(tmp_path / "chosen", plain)


def test_all_snvs_of_a_region_answer_for_a_vcf_there(workspace, tmp_path):
    store = tmp_path / "store"
    words = words_of(workspace, tmp_path / "all", store)
    words[1:2] = ["--all-snvs", "-r", "chr1:1195-1205"]
    assert scored(words) == 33
    vcf = write_sample(workspace, tmp_path / "a.vcf.gz", genome.toy_records(workspace.toy)[2:3])
    assert scored(words_of(workspace, tmp_path / "one", store, vcf=vcf)) == 0
    assert sources_of(tmp_path / "one") == {"looked_up": 1}


@pytest.mark.parametrize("fault", ["kill-parent@mid-part#2", "kill@between-parts#3", "kill@before-manifest"])
def test_killed_and_resumed_while_the_store_grows_gives_the_same_bytes(workspace, tmp_path, fault):
    records = genome.random_records(workspace.toy, 300, seed=3)
    half = write_sample(workspace, tmp_path / "half.vcf.gz", records[::2])
    whole = write_sample(workspace, tmp_path / "whole.vcf.gz", records)
    store = tmp_path / "store"
    assert scored(words_of(workspace, tmp_path / "first", store, vcf=half)) > 0
    shutil.copytree(store, tmp_path / "former")
    assert scored(words_of(workspace, tmp_path / "calm", tmp_path / "former", vcf=whole)) > 0
    words = [*words_of(workspace, tmp_path / "out", store, vcf=whole), "--workers", "1"]
    killed = replisome(*words, fault=fault, once=tmp_path / "once")
    assert killed.returncode == -signal.SIGKILL
    assert scored(words_of(workspace, tmp_path / "other", store, vcf=whole)) >= 0
    scored(words)
    assert_same_results(tmp_path / "out", tmp_path / "calm")
    assert sorted(sources_of(tmp_path / "out")) == ["computed", "looked_up"]
    names = [one.name for one in segments_of(open_store(str(store)))]
    assert names == [one.name for one in segments_of(open_store(str(tmp_path / "former")))]


@pytest.mark.parametrize("segment", [1, 3])
def test_a_kill_while_rows_are_added_is_made_good_by_the_next_start(workspace, filled_once, tmp_path, segment):
    words = [*words_of(workspace, tmp_path / "out", tmp_path / "store"), "--workers", "1"]
    killed = replisome(*words, fault=f"kill@store-segment#{segment}")
    assert killed.returncode == -signal.SIGKILL
    assert len(segments_of(open_store(str(tmp_path / "store")))) == segment
    assert scored(words) == 0
    assert_same_results(tmp_path / "out", filled_once / "out")
    names = [[one.name for one in segments_of(open_store(str(folder / "store")))] for folder in (tmp_path, filled_once)]
    assert names[0] == names[1]


def flip(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_a_flipped_bit_in_the_store_is_seen_and_its_rows_are_recomputed(workspace, plain, filled, tmp_path):
    segments = sorted(filled.glob("segments/**/*.parquet"))
    chance = random.Random(2)
    flip(segments[0], chance.randrange(8 * segments[0].stat().st_size))
    rows = {one.name: one.rows for one in segments_of(open_store(str(filled)))}
    lost = rows[segments[0].relative_to(filled).as_posix()]
    assert scored(words_of(workspace, tmp_path / "out", filled)) >= lost > 0
    assert_equal_scores(tmp_path / "out", plain)
    assert "a segment of the score store is not used" in (tmp_path / "out/run.log").read_text()
    assert sorted(sources_of(tmp_path / "out")) == ["computed", "looked_up"]
    assert len(list((filled / "damaged").rglob("*.parquet"))) == 1
    assert scored(words_of(workspace, tmp_path / "again", filled)) == 0


@pytest.mark.parametrize("harm", ["flipped", "gone"])
def test_a_segment_harmed_while_the_run_goes_on_is_recomputed_and_noted(workspace, plain, filled, tmp_path, harm):
    words = words_of(workspace, tmp_path / "out", filled)
    assert replisome_here(*words, fault="enospc@write#13").returncode == 4
    assert 0 < len(list((tmp_path / "out/data").rglob("part-*"))) < 5
    for path in filled.glob("segments/**/*.parquet"):
        path.unlink() if harm == "gone" else flip(path, 8 * path.stat().st_size // 2)
    assert scored(words) > 0
    assert sorted(sources_of(tmp_path / "out")) == ["computed", "looked_up"]
    assert_equal_scores(tmp_path / "out", plain)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["totals"]["notes"]["store_segments_lost"] > 0
    assert "a file of the score store was damaged or gone" in (tmp_path / "out/run.log").read_text()
    assert scored(words_of(workspace, tmp_path / "again", filled)) >= 0
    assert_equal_scores(tmp_path / "again", plain)


def test_two_runs_adding_at_once(workspace, tmp_path):
    records = genome.random_records(workspace.toy, 300, seed=5)
    store, samples = tmp_path / "store", [records[:200], records[100:]]

    def words(name, sample):
        vcf = write_sample(workspace, tmp_path / f"{name}.vcf.gz", sample)
        return [*workspace.arguments(tmp_path / name, vcf=vcf), "--store", str(store), "--workers", "1"]

    started = [start(*words(f"out-{at}", sample)) for at, sample in enumerate(samples)]
    for one in started:
        _, err = one.communicate(timeout=200)
        assert one.returncode == 0, err
    assert replisome_here(*words("both", records)).returncode == 0
    assert sources_of(tmp_path / "both") == {"looked_up": 300}


def test_a_finished_run_stays_finished_though_the_store_grew_or_moved(workspace, filled, tmp_path):
    words = words_of(workspace, tmp_path / "out", filled)
    scored(words)
    before = result_bytes(tmp_path / "out")
    other = write_sample(workspace, tmp_path / "o.vcf.gz", genome.random_records(workspace.toy, 50, seed=9))
    scored(words_of(workspace, tmp_path / "other", filled, vcf=other))
    words[-1] = str(filled.rename(tmp_path / "moved"))
    done = replisome_here(*words)
    assert "finished before, nothing to do" in done.stdout
    assert result_bytes(tmp_path / "out") == before
    without = replisome_here(*words[:-2])
    assert_one_sentence(without, 2, "computes something else: store was")


def test_a_store_in_an_object_store(s3_bucket, workspace, plain, tmp_path):
    store = f"{s3_bucket}/scores"
    assert scored(words_of(workspace, f"{s3_bucket}/one", store)) > 0
    assert scored(words_of(workspace, tmp_path / "two", store)) == 0
    assert_equal_scores(tmp_path / "two", plain)
    segment = segments_of(open_store(store))[0]
    kept = open_store(store)
    data = bytearray(kept.read(segment.name))
    data[len(data) // 2] ^= 1
    kept.put(segment.name, bytes(data))
    assert scored(words_of(workspace, tmp_path / "three", store)) >= segment.rows
    assert scored(words_of(workspace, tmp_path / "four", store)) == 0
    listed = replisome_here("store", "list", store)
    assert "1 damaged segments set aside" in listed.stdout


def test_a_store_that_cannot_be_written_to_costs_no_result(workspace, plain, tmp_path):
    (tmp_path / "file").write_text("")
    words = words_of(workspace, tmp_path / "out", tmp_path / "file" / "store")
    words[words.index("--progress") + 1] = "plain"
    done = replisome_here(*words)
    assert done.returncode == 0, done.stderr
    assert "scores were not added to the store" in done.stderr
    assert_equal_scores(tmp_path / "out", plain)


@pytest.mark.ray
def test_ray_looks_up_as_the_other_executor_does(ray_cluster, workspace, tmp_path):
    half = write_sample(workspace, tmp_path / "half.vcf.gz", genome.toy_records(workspace.toy))
    store = ["--store", str(tmp_path / "store")]
    assert replisome_here(*workspace.arguments(tmp_path / "first", vcf=half), *store).returncode == 0
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    assert replisome_here(*workspace.arguments(tmp_path / "calm", vcf=workspace.vcf), *store).returncode == 0
    spec = ScoreVariantsSpec.model_validate(
        {
            "input": {"path": str(workspace.vcf)},
            "reference": str(workspace.toy.fasta),
            "scorer": {"name": "gc_change"},
            "output": str(tmp_path / "out"),
            "max_reject_fraction": 1.0,
            "store": {"path": str(tmp_path / "copy")},
            "execution": {"executor": "ray", "workers": 1, "records_per_shard": 60},
        }
    )
    score_variants.run(spec, RunContext(progress="none"))
    assert sorted(sources_of(tmp_path / "out")) == ["computed", "looked_up"]
    assert_same_results(tmp_path / "out", tmp_path / "calm")


def test_wrong_asks_are_one_sentence(workspace, filled, tmp_path):
    base = words_of(workspace, tmp_path / "out", filled)
    (tmp_path / "file").write_text("")
    psi = ["--exon-sites", "--reference-psi", "AF"]
    cases = [
        ([*base, "--store-sources", "tables"], "holds no scores imported from 'tables' .* it holds: none"),
        (
            [*base[:-2], "--store-sources", "tables"],
            "key 'store': sources are looked for in a score store: give its path",
        ),
        ([*base[:-1], str(tmp_path / "file")], "the score store is a folder, and this is a file"),
        ([*base, *psi], "reads INFO/AF of each record"),
        ([*base, "--phased", "--sample", "S0"], "phased scores depend on the other variants of the sample"),
    ]
    for words, sentence in cases:
        assert_one_sentence(replisome_here(*words), 2, sentence)
    assert not (tmp_path / "out/data").exists()
    assert_one_sentence(replisome_here("store", "list", str(tmp_path / "none")), 2, "there are no scores here")


def spliceai_table(workspace, path, entries):
    """A VCF in SpliceAI's layout: (start, alt index in ACGT less REF, entry text with %A for the ALT)."""
    toy, lines = workspace.toy, []
    for at, text in entries:
        ref = toy.clean("chr1", at, at + 1)
        alt = "ACGT"["ACGT".index(ref) - 1]
        info = "SpliceAI=" + text.replace("%A", alt)
        lines.append(genome.ToyRecord("chr1", at + 1, ref, (alt,), "table", ("",), info=info))
    extra = ['##INFO=<ID=SpliceAI,Number=.,Type=String,Description="made up">']
    return genome.write_vcf(path, lines, toy, extra_header=extra)


IMPORT = ("store", "import")


def import_words(workspace, what, store, *, source="tables", distance=30):
    return [
        *(*IMPORT, str(what), "--store", str(store), "--source", source, "--reference", str(workspace.toy.fasta)),
        *("--genes", str(workspace.toy.ensembl_gtf), "--model", str(workspace.model), "--distance", str(distance)),
    ]


def test_a_published_table_is_looked_into_where_it_is_named(workspace, tmp_path):
    entry = "%A|TOYA|0.11|0.22|0.33|0.44|-3|4|-5|6"
    odd = ["%A|NONE|0|0|0|0|1|1|1|1", "%A|TOYA|.|.|.|.|.|.|.|.", "T|TOYA", "%A|TOYA|0|0|2|0|1|1|1|1"]
    table = spliceai_table(
        workspace, tmp_path / "table.vcf.gz", [(1_150, entry), *((1_160 + i, text) for i, text in enumerate(odd))]
    )
    store = tmp_path / "store"
    done = replisome_here(*import_words(workspace, table, store))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"{store}: 1 rows of tables in 1 segments"
    assert "a symbol of no gene at that place" in done.stdout
    again = replisome_here(*import_words(workspace, table, store))
    assert again.stdout == done.stdout
    assert len(segments_of(open_store(str(store)))) == 1
    base = words_of(workspace, tmp_path / "named", store, vcf=table)
    assert scored([*base, "--store-sources", "tables"]) == 4
    sources = sources_of(tmp_path / "named")
    assert sources == {"imported:tables": 1, "computed": 4}
    (row,) = [one for one in rows_of(tmp_path / "named") if one["score_source"] == "imported:tables"]
    assert [row[name] for name in (*SCORES[:4], *PLACES)] == pytest.approx([0.11, 0.22, 0.33, 0.44, -3, 4, -5, 6])
    assert (row["ds_max"], row["flags"]) == (pytest.approx(0.44), "")
    text = gzip.decompress((tmp_path / "named/scores.vcf.gz").read_bytes()).decode()
    assert "RPL_DS_DL=0.4400;RPL_DP_DL=6" in text
    base[base.index("-o") + 1] = str(tmp_path / "unnamed")
    assert scored(base) == 1
    assert sources_of(tmp_path / "unnamed") == {"looked_up": 4, "computed": 1}


def test_a_table_of_another_distance_is_seen(workspace, tmp_path):
    """What lies beyond the distance is left out; of many entries none far off tells of a smaller one."""
    inside, beyond = "%A|TOYA|0.1|0.2|0.3|0.4|-30|30|-5|6", "%A|TOYA|0.1|0.2|0.3|0.4|-31|4|-5|6"
    far = spliceai_table(workspace, tmp_path / "far.vcf.gz", [(1_150, inside), (1_151, beyond)])
    done = replisome_here(*import_words(workspace, far, tmp_path / "far"))
    assert done.stdout.splitlines()[0].endswith("1 rows of tables in 1 segments")
    assert "left out 1: an entry with a position farther from the variant than the distance" in done.stdout
    assert "note: 1 entries have positions beyond the distance of 30" in done.stdout
    near = "%A|TOYA|0.1|0.2|0.3|0.4|-10|9|-5|6"
    table = spliceai_table(workspace, tmp_path / "near.vcf.gz", [(1_100 + at, near) for at in range(100)])
    for distance, is_told in ((10, False), (13, False), (14, True)):
        done = replisome_here(*import_words(workspace, table, tmp_path / f"near-{distance}", distance=distance))
        assert ("no position of 100 entries is farther than 10 bases" in done.stdout) == is_told
        assert "note: the tag holds SpliceAI's own numbers" in done.stdout
    words = [*import_words(workspace, table, tmp_path / "peer", distance=10), "--compatibility", "spliceai-1.3.1"]
    assert "note" not in replisome_here(*words).stdout


def test_a_finished_run_can_be_imported(workspace, plain, tmp_path):
    store = tmp_path / "store"
    done = replisome_here(*import_words(workspace, f"run:{plain}", store, source="night-1"))
    assert done.returncode == 0, done.stderr
    words = [*words_of(workspace, tmp_path / "out", store), "--store-sources", "night-1"]
    assert scored(words) == 0
    assert set(sources_of(tmp_path / "out")) == {"imported:night-1"}
    assert_equal_scores(tmp_path / "out", plain)
    other = import_words(workspace, f"run:{plain}", store, distance=31)
    assert_one_sentence(replisome_here(*other), 2, "that run is of another scorer_params")
    nothing = import_words(workspace, f"run:{tmp_path}", store)
    assert_one_sentence(replisome_here(*nothing), 2, "there is no finished run here")


def test_wrong_tables_are_one_sentence(workspace, tmp_path):
    words = import_words(workspace, workspace.vcf, tmp_path / "store")
    assert_one_sentence(replisome_here(*words), 2, "the header declares no INFO/SpliceAI")
    words = import_words(workspace, workspace.vcf, tmp_path / "store", source="a b")
    assert_one_sentence(replisome_here(*words), 2, "'a b' cannot name a source")
    words = import_words(workspace, tmp_path / "none.vcf", tmp_path / "store")
    assert_one_sentence(replisome_here(*words), 2, "the file is not there")
    assert not (tmp_path / "store").exists()


def test_the_list_tells_what_a_store_holds(workspace, filled, plain):
    replisome_here(*import_words(workspace, f"run:{plain}", filled, source="night-1"))
    done = replisome_here("store", "list", str(filled))
    assert done.returncode == 0, done.stderr
    rows = sum(one.rows for one in segments_of(open_store(str(filled)), "") if not one.source)
    assert "scorer splice_delta version" in done.stdout
    assert "toy 1 (networks " in done.stdout
    assert f" segments, {rows:,} rows, " in done.stdout
    assert "imported:night-1: " in done.stdout
    (domain,) = json.loads(replisome_here("store", "list", str(filled), "--json").stdout)["domains"]
    assert [one["source"] for one in domain["sources"]] == ["computed", "imported:night-1"]
    size = sum(path.stat().st_size for path in filled.glob("segments/**/*.parquet"))
    assert sum(one["bytes"] for one in domain["sources"]) == size
