"""--all-snvs through the command: the same protocol, and what a VCF of the same variants gives."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.io import all_snvs
from tests.toys import genome
from tests.toys.runs import assert_same_results
from tests.toys.variant_runs import Workspace, assert_one_sentence, replisome, replisome_here

# IUPAC letters, the run of N, lower case, a contig's start, and a gene: five regions on three contigs.
WHERE = ["-r", "chr2:1-60,chr1:6990-7020", "-r", "chr1:14990-15130,chr1:5990-6010", "--gene", "TINY"]
STRETCHES = [("chr1", 5989, 6010), ("chr1", 6989, 7020), ("chr1", 14989, 15130), ("chr2", 0, 60), ("chr3", 100, 700)]


def words(workspace: Workspace, output: Path, *more: str, scorer: str = "gc_change") -> list[str]:
    """The command without an input."""
    verb, _, *rest = workspace.arguments(output, scorer=scorer)
    return [verb, "--all-snvs", *rest, *more]


def snvs(toy: genome.ToyGenome, stretches: list[tuple[str, int, int]] = STRETCHES) -> list[str]:
    """VCF lines of all SNVs, said base by base."""
    lines = []
    for contig, start, end in stretches:
        for at in range(start, end):
            ref = toy.clean(contig, at, at + 1)
            lines += [f"{contig}\t{at + 1}\t.\t{ref}\t{alt}\t.\t.\t." for alt in "ACGT" if ref not in (alt, "N")]
    return lines


def query(path: Path, *more: str) -> list[str]:
    form = "%CHROM\t%POS\t%ID\t%REF\t%ALT\t%QUAL\t%FILTER\t.\n"
    done = subprocess.run(["bcftools", "query", "-f", form, *more, str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def whole(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calm run."""
    output = tmp_path_factory.mktemp("all-snvs") / "out"
    done = replisome(*words(workspace, output, *WHERE, "--bcf"), "--workers", "1")
    assert done.returncode == 0, done.stderr
    return output


def test_bcftools_reads_every_snv_of_the_regions(workspace, whole):
    expected = snvs(workspace.toy)
    assert query(whole / "scores.vcf.gz") == query(whole / "scores.bcf") == expected
    assert query(whole / "scores.vcf.gz", "-r", "chr3:650-") == [
        line for line in expected if line.startswith("chr3") and int(line.split("\t")[1]) >= 650
    ]
    command = ["bcftools", "norm", "--check-ref", "e", "-f", workspace.toy.fasta, whole / "scores.vcf.gz"]
    assert subprocess.run(command, capture_output=True).returncode == 0
    samples = subprocess.run(["bcftools", "query", "-l", whole / "scores.vcf.gz"], capture_output=True, text=True)
    assert samples.stdout == ""
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["num_records"] == len(expected)
    assert replisome_here("verify", str(whole)).returncode == 0


def test_every_row_has_its_state(workspace, whole):
    rows = pq.read_table(whole / "data").to_pylist()
    assert {row["record"] for row in rows} == set(range(len(snvs(workspace.toy))))
    assert {row["state"] for row in rows} == {"scored"}
    assert not (whole / "rejects").exists()
    log = (whole / "run.log").read_text()
    assert "122 bases of the regions are not A, C, G or T in the reference and make no SNV" in log


@pytest.mark.parametrize("fault", ["kill-parent@mid-part#2", "kill@between-parts#3", "kill@before-manifest"])
def test_a_killed_run_is_resumed_to_the_same_bytes(workspace, whole, tmp_path, fault):
    arguments = [*words(workspace, tmp_path / "out", *WHERE, "--bcf"), "--workers", "2"]
    killed = replisome(*arguments, fault=fault, once=tmp_path / "once")
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "out" / "manifest.json").exists()
    again = replisome(*arguments)
    assert again.returncode == 0, again.stderr
    assert_same_results(tmp_path / "out", whole)


def test_results_depend_on_no_path_nor_on_how_regions_are_written(workspace, whole, tmp_path):
    """Another folder and name for the reference; the regions from a BED, in another order, one of them in two."""
    bed = tmp_path / "r.bed"
    halves = [("chr3", 300, 700), ("chr3", 100, 301)]
    bed.write_text("".join(f"{contig}\t{start}\t{end}\n" for contig, start, end in [*STRETCHES[::-1][1:], *halves]))
    fasta = shutil.copy(workspace.toy.fasta, tmp_path / "elsewhere.fa")
    arguments = words(workspace, tmp_path / "out", "-R", str(bed), "--bcf")
    arguments[arguments.index("--reference") + 1] = str(fasta)
    # The digest of the genes is in the key of a run that names one.
    arguments += ["--gene", "ENSG0007.1"]
    done = replisome_here(*arguments)
    assert done.returncode == 0, done.stderr
    assert_same_results(tmp_path / "out", whole)


def test_a_vcf_of_the_same_snvs_gives_the_same_rows(workspace, tmp_path):
    """Two overlapping genes, one on each strand, through a model."""
    stretches = [("chr1", 3960, 4000), ("chr1", 4080, 4180), ("chr1", 5990, 6030)]
    vcf = genome.write_vcf(tmp_path / "in.vcf.gz", snvs(workspace.toy, stretches), workspace.toy)
    where = ",".join(f"{contig}:{start + 1}-{end}" for contig, start, end in stretches)
    more = ("--distance", "30", "--mask")
    made = replisome_here(*words(workspace, tmp_path / "made", "-r", where, *more, scorer="splice_delta"))
    given = replisome_here(*workspace.arguments(tmp_path / "given", vcf=vcf, scorer="splice_delta"), *more)
    assert (made.returncode, given.returncode) == (0, 0), made.stderr + given.stderr
    ours, theirs = (pq.read_table(tmp_path / name / "data") for name in ("made", "given"))
    assert ours.equals(theirs)
    assert ours.num_rows >= 540
    assert any(ours["ds_max"].to_pylist())
    bodies = [
        subprocess.run(["bcftools", "view", "-H", tmp_path / name / "scores.vcf.gz"], capture_output=True).stdout
        for name in ("made", "given")
    ]
    assert bodies[0] == bodies[1] != b""


def test_the_region_of_a_gene_is_where_it_is_scored(workspace, tmp_path):
    done = replisome_here(*words(workspace, tmp_path / "out", "--gene", "MONO,EDGE", scorer="splice_delta"))
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(tmp_path / "out" / "data")
    assert rows.num_rows == 3 * (2_000 + 1_100)
    assert set(rows["gene_symbol"].to_pylist()) == {"MONO", "EDGE"}
    assert set(rows["state"].to_pylist()) == {"scored"}


def test_a_gene_of_an_aliased_annotation(workspace, tmp_path):
    plain = genome.make_genome(tmp_path / "plain", prefix="")
    arguments = words(workspace, tmp_path / "out", "--gene", "TINY", scorer="splice_delta")
    arguments[arguments.index("--genes") + 1] = str(plain.ensembl_gtf)
    assert_one_sentence(replisome_here(*arguments), 2, "contig '3' is not in the reference.*--contig-alias 3=chr3")
    done = replisome_here(*arguments, "--contig-alias", "3=chr3")
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(tmp_path / "out" / "data")
    assert set(rows["contig"].to_pylist()) == {"chr3"}
    assert set(rows["state"].to_pylist()) == {"scored"}


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ([], "key 'input': all_snvs needs regions, regions_file or genes; a contig's name alone takes all of it"),
        (["--gene", "TONY"], r"ensembl\.gtf: the annotation has no gene 'TONY'; did you mean T"),
        (["-r", "chr9:1-10"], r"toy\.fa: contig 'chr9' is not in the reference, which has 'chr1', 'chr2', 'chr3'"),
        (["-r", "1:1-10"], r"--contig-alias 1=chr1"),
        (["-R", "EMPTY"], "all_snvs: no region says where to make SNVs; give regions or genes"),
        (["in.vcf", "-r", "chr1"], "all_snvs makes its own variants, yet path is 'in.vcf': leave one of them out"),
    ],
)
def test_what_cannot_be_made_is_one_sentence(workspace, tmp_path, more, sentence):
    (tmp_path / "empty.bed").write_text("# none\n")
    more = [str(tmp_path / "empty.bed") if word == "EMPTY" else word for word in more]
    assert_one_sentence(replisome_here(*words(workspace, tmp_path / "out", *more)), 2, sentence)


def test_genes_go_with_an_annotation_and_with_all_snvs(workspace, tmp_path):
    arguments = words(workspace, tmp_path / "out", "--gene", "TINY")
    at = arguments.index("--genes")
    assert_one_sentence(replisome_here(*arguments[:at], *arguments[at + 2 :]), 2, "input.genes needs genes: give the")
    given = workspace.arguments(tmp_path / "out")
    assert_one_sentence(replisome_here(*given, "--gene", "TINY"), 2, "genes go with all_snvs alone")
    assert_one_sentence(replisome_here(given[0], *given[2:]), 2, r"'input' is missing; give input: .*or all_snvs")
    lone = [given[0], *given[2:], "-r", "chr1"]
    assert_one_sentence(replisome_here(*lone), 2, r"give path \(IN\), or all_snvs with regions or genes")


def test_another_region_or_reference_is_another_run(workspace, tmp_path):
    fasta = tmp_path / "r.fa"
    shutil.copy(workspace.toy.fasta, fasta)
    arguments = words(workspace, tmp_path / "out")
    arguments[arguments.index("--reference") + 1] = str(fasta)
    asked = [*arguments, "-r", "chr3:1-100"]
    stopped = replisome_here(*asked, fault="enospc@write#10")
    assert stopped.returncode == 4, stopped.stderr
    assert_one_sentence(
        replisome_here(*arguments, "-r", "chr3:1-101"),
        2,
        r"computes something else: regions was \['chr3:1-100'\], now \['chr3:1-101'\]",
    )
    text = fasta.read_text()
    at = text.rindex("\n", 0, -1) - 5  # on chr3, the last contig, outside the region
    fasta.write_text(text[:at] + ("A" if text[at] != "A" else "C") + text[at + 1 :])
    assert_one_sentence(replisome_here(*asked), 2, r"computes something else: input was \w+\.\.\.\w+, now ")
    fasta.write_text(text)
    assert replisome_here(*asked).returncode == 0


def test_regions_without_a_known_base_make_an_empty_result(workspace, tmp_path):
    done = replisome_here(*words(workspace, tmp_path / "out", "-r", "chr1:15001-15120,chr3:9000-9001"))
    assert done.returncode == 0, done.stderr
    assert "0 records" in done.stdout
    assert query(tmp_path / "out" / "scores.vcf.gz") == []


def unsized(workspace: Workspace, output: Path, *more: str) -> list[str]:
    """The command without a size of shards."""
    found = words(workspace, output, *more)
    at = found.index("--records-per-shard")
    return found[:at] + found[at + 2 :]


def test_a_plan_of_too_many_shards_says_what_to_set(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr(all_snvs, "MAX_SHARDS", 100)
    done = replisome_here(*words(workspace, tmp_path / "out", "-r", "chr1:1-3000"))
    sentence = r"150 shards; a run holds 100; set records_per_shard \(--records-per-shard\) to 93 or more$"
    assert_one_sentence(done, 2, sentence)
    assert not (tmp_path / "out/plan.parquet").exists()


def test_shards_are_of_a_size_that_suits_unless_it_is_named(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr(all_snvs, "_SUITED_SHARDS", 3)
    for name, more, expected in (("suited", (), 1500), ("named", ("--records-per-shard", "600"), 600)):
        done = replisome_here(*unsized(workspace, tmp_path / name, "-r", "chr1:1001-2500", *more))
        assert done.returncode == 0, done.stderr
        assert json.loads((tmp_path / name / "run.json").read_text())["key"]["records_per_shard"] == expected
