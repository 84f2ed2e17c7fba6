"""Bad input, one row each: the command stops with one sentence that says what, where and what to do, and its code."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.io import bgzf
from engine.models._safetensors import file_sha256
from engine.storage import faults
from tests.toys import genome
from tests.toys.runs import assert_same_results
from tests.toys.variant_runs import ROOT, Workspace, assert_one_sentence, replisome, replisome_here, start

EOF_BYTES = len(bgzf.EOF)


class Broken:
    """A folder where one thing of a run is spoilt."""

    def __init__(self, workspace: Workspace, folder: Path) -> None:
        self.workspace = workspace
        self.folder = folder
        self.output = folder / "out"

    def words(self, *more: str, vcf: Path | str | None = None, **changed: str) -> list[str]:
        """The words of a run that scores by counting; `changed` puts others for reference, genes or model."""
        words = self.workspace.arguments(self.output, vcf=self.workspace.vcf)
        words[1] = str(vcf or words[1])
        for name, value in changed.items():
            words[words.index(f"--{name}") + 1] = value
        return [*words, *more]

    def spliced(self, *more: str, **changed: str) -> list[str]:
        """The same with the scorer that reads genes and a model."""
        return self.words(*more, "--distance", "30", scorer="splice_delta", **changed)

    def file(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def lines(self) -> list[bytes]:
        """The good VCF's lines."""
        return gzip.decompress(self.workspace.vcf.read_bytes()).splitlines(keepends=True)

    def vcf(self, lines: list[bytes]) -> Path:
        return self.file("in.vcf.gz", bgzf.compress(b"".join(lines)) + bgzf.EOF)

    def edited(self, pattern: bytes, put: bytes) -> Path:
        """The good VCF with a pattern of its text replaced."""
        text, count = re.subn(pattern, put, b"".join(self.lines()), flags=re.MULTILINE)
        assert count
        return self.vcf([text])

    def in_small_blocks(self) -> bytes:
        """The good VCF in many BGZF blocks, so that one can be hit in the middle."""
        return b"".join(bgzf.compress(line) for line in self.lines()) + bgzf.EOF

    def model(self) -> Path:
        """A copy of the model folder to spoil."""
        return Path(shutil.copytree(self.workspace.model, self.folder / "model"))


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def truncated(b: Broken) -> list[str]:
    return b.words(vcf=b.file("in.vcf.gz", b.in_small_blocks()[:-1000]))


def no_end_marker(b: Broken) -> list[str]:
    return b.words(vcf=b.file("in.vcf.gz", b.in_small_blocks()[:-EOF_BYTES]))


def corrupt_block(b: Broken) -> list[str]:
    data = b.in_small_blocks()
    return b.words(vcf=b.file("in.vcf.gz", flipped(data, data.index(bgzf._MAGIC, len(data) // 2) + 30)))


def plain_gzip(b: Broken) -> list[str]:
    return b.words(vcf=b.file("in.vcf.gz", gzip.compress(b"".join(b.lines()))))


def empty_file(b: Broken) -> list[str]:
    return b.words(vcf=b.file("in.vcf.gz", b""))


def only_end_marker(b: Broken) -> list[str]:
    return b.words(vcf=b.file("in.vcf.gz", bgzf.EOF))


def no_columns_line(b: Broken) -> list[str]:
    return b.words(vcf=b.vcf([line for line in b.lines() if not line.startswith(b"#CHROM")]))


def seven_columns(b: Broken) -> list[str]:
    return b.words(vcf=b.edited(rb"^#CHROM.*$", b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER"))


def no_vcf_at_all(b: Broken) -> list[str]:
    return b.words(vcf=b.file("notes.txt", b"nothing to see\n"))


def a_folder_as_input(b: Broken) -> list[str]:
    return b.words(vcf=b.folder)


def unsorted(b: Broken) -> list[str]:
    lines = b.lines()
    return b.words(vcf=b.vcf([*lines[:-4], lines[-2], lines[-3]]))


def contig_in_two_places(b: Broken) -> list[str]:
    lines = b.lines()
    first = next(line for line in lines if line.startswith(b"chr1\t"))
    return b.words(vcf=b.vcf([*lines, first]))


def older_index(b: Broken) -> list[str]:
    path = b.file("in.vcf.gz", b.workspace.vcf.read_bytes())
    index = Path(shutil.copy(f"{b.workspace.vcf}.tbi", f"{path}.tbi"))
    os.utime(index, (1, 1))
    return b.words("-r", "chr1", vcf=path)


def cut_index(b: Broken) -> list[str]:
    path = b.file("in.vcf.gz", b.workspace.vcf.read_bytes())
    b.file("in.vcf.gz.tbi", Path(f"{b.workspace.vcf}.tbi").read_bytes()[:-EOF_BYTES])
    return b.words("-r", "chr1", vcf=path)


def truncated_bcf(b: Broken) -> list[str]:
    path = b.folder / "in.bcf"
    subprocess.run(["bcftools", "view", "-Ob", "-o", path, b.workspace.vcf], check=True)
    path.write_bytes(path.read_bytes()[:-200])
    return b.words(vcf=path)


def table_without_columns(b: Broken) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"chrom": ["chr1"], "pos": [1], "ref": ["A"]}), b.folder / "in.parquet")
    return b.words(vcf=b.folder / "in.parquet")


def scored_before(b: Broken) -> list[str]:
    line = b'##INFO=<ID=RPL_STATE,Number=A,Type=String,Description="x">\n'
    return b.words(vcf=b.vcf([b.lines()[0], line, *b.lines()[1:]]))


def unknown_contig(b: Broken) -> list[str]:
    return b.words(vcf=b.edited(rb"^chr3\t", b"scaffold_9\t"))


def other_contig_style(b: Broken) -> list[str]:
    return b.words(vcf=b.edited(rb"^chr|(?<=ID=)chr", b""))


def other_contig_length(b: Broken) -> list[str]:
    return b.words(vcf=b.edited(rb"length=30000", b"length=30001"))


def wrong_reference(b: Broken) -> list[str]:
    return b.words(reference=str(genome.make_genome(b.folder, seed=8).fasta))


def absent_reference(b: Broken) -> list[str]:
    return b.words(reference="absent.fa")


def empty_reference(b: Broken) -> list[str]:
    return b.words(reference=str(b.file("ref.fa", b"")))


def reference_that_is_no_fasta(b: Broken) -> list[str]:
    return b.words(reference=str(b.workspace.vcf))


def gzipped_reference(b: Broken) -> list[str]:
    return b.words(reference=str(b.file("ref.fa.gz", gzip.compress(b.workspace.toy.fasta.read_bytes()))))


def truncated_reference(b: Broken) -> list[str]:
    return b.words(reference=str(b.file("ref.fa.gz", b.workspace.toy.fasta_gz.read_bytes()[:5000])))


def absent_genes(b: Broken) -> list[str]:
    return b.spliced(genes="absent.gtf")


def genes_without_an_end(b: Broken) -> list[str]:
    text = b.workspace.toy.ensembl_gtf.read_text().replace("\t4000\t", "\t4k\t", 1)
    return b.spliced(genes=str(b.file("genes.gtf", text.encode())))


def genes_that_are_none(b: Broken) -> list[str]:
    return b.spliced(genes=str(b.workspace.toy.fasta))


def truncated_genes(b: Broken) -> list[str]:
    return b.spliced(genes=str(b.file("genes.gtf.gz", b.workspace.toy.gencode_gtf.read_bytes()[:300])))


def genes_of_other_contigs(b: Broken) -> list[str]:
    return b.spliced(genes=str(genome.make_genome(b.folder / "other", prefix="").ensembl_gtf))


def _with_tensors(b: Broken, change: Callable[[dict], None]) -> list[str]:
    """A model whose tensors were changed, and its sums with them."""
    from safetensors.torch import load_file, save_file

    folder = b.model()
    path = folder / "member-00.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    spec = json.loads((folder / "replisome.json").read_text())
    spec["members"][0] |= {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    (folder / "replisome.json").write_text(json.dumps(spec))
    return b.spliced(model=str(folder))


def model_with_a_missing_tensor(b: Broken) -> list[str]:
    return _with_tensors(b, lambda tensors: tensors.pop("final.bias"))


def model_with_an_extra_tensor(b: Broken) -> list[str]:
    return _with_tensors(b, lambda tensors: tensors.update(surplus=tensors["final.bias"].clone()))


def model_of_another_digest(b: Broken) -> list[str]:
    path = b.model() / "member-00.safetensors"
    path.write_bytes(flipped(path.read_bytes(), path.stat().st_size - 3))
    return b.spliced(model=str(path.parent))


def model_without_a_member(b: Broken) -> list[str]:
    folder = b.model()
    (folder / "member-00.safetensors").unlink()
    return b.spliced(model=str(folder))


def absent_model(b: Broken) -> list[str]:
    return b.spliced(model=str(b.folder / "no-model"))


def misspelt_model(b: Broken) -> list[str]:
    return b.spliced(model="splice-mimi")


def pickled_model(b: Broken) -> list[str]:
    return b.spliced(model=str(b.file("weights.pt", b"\x80\x04.")))


def model_folder_with_a_pickle(b: Broken) -> list[str]:
    folder = b.model()
    (folder / "extra.pkl").write_bytes(b"\x80\x04.")
    return b.spliced(model=str(folder))


def file_in_the_way(b: Broken) -> list[str]:
    b.output.write_text("mine")
    return b.words()


def output_below_a_file(b: Broken) -> list[str]:
    b.file("mine", b"")
    b.output = b.folder / "mine" / "out"
    return b.words()


def misspelt_scorer(b: Broken) -> list[str]:
    return b.words(scorer="splice_dleta")


def misspelt_key(b: Broken) -> list[str]:
    return b.words("--set", "execution.wokers=2")


def wrong_value(b: Broken) -> list[str]:
    return b.words("--set", "execution.workers=many")


def misspelt_parameter(b: Broken) -> list[str]:
    return b.spliced("--set", "scorer.params.distnace=3")


def wrong_parameter(b: Broken) -> list[str]:
    return b.spliced("--set", "scorer.params.distance=-3")


def misspelt_progress(b: Broken) -> list[str]:
    return b.words("--progress", "lain")


def empty_region(b: Broken) -> list[str]:
    return b.words("-r", "chr1:20-10")


def region_elsewhere(b: Broken) -> list[str]:
    return b.words("-r", "1:20-30")


def broken_region_file(b: Broken) -> list[str]:
    return b.words("-R", str(b.file("x.bed", b"chr1 10 20\n")))


def broken_alias_file(b: Broken) -> list[str]:
    return b.words("--contig-aliases", str(b.file("names.tsv", b"1 chr1\n")))


def absent_input(b: Broken) -> list[str]:
    return b.words(vcf="absent.vcf.gz")


def unfinished_run_as_input(b: Broken) -> list[str]:
    return b.words(vcf=f"run:{b.folder}")


def unknown_address(b: Broken) -> list[str]:
    return b.words(vcf="ftp://host/in.vcf.gz")


# What is broken, and a pattern of the sentence; all of them are the user's to mend, so the code is 2.
CASES = [
    (truncated, r"in\.vcf\.gz at byte \d+: the BGZF end marker is missing; the file is truncated; copy or download"),
    (
        no_end_marker,
        r"in\.vcf\.gz at byte \d+: the BGZF end marker is missing; the file is truncated; copy or download",
    ),
    (corrupt_block, r"in\.vcf\.gz at byte \d+: the BGZF block.*; the file is corrupt; copy or download the file again"),
    (plain_gzip, r"gzip but not BGZF.*; recompress it: gunzip -c \S+/in\.vcf\.gz \| bgzip > \S+/in\.vcf\.bgz$"),
    (empty_file, r"in\.vcf\.gz: the file is empty; check how it was made"),
    (only_end_marker, r"in\.vcf\.gz: the file is empty \(only a BGZF end marker\)"),
    (no_columns_line, r"the header has no #CHROM line \(line 13 is a record"),
    (seven_columns, r"the #CHROM line reads .*FILTER'; it must name the eight columns CHROM .* INFO"),
    (no_vcf_at_all, r"notes\.txt: it is none of VCF, BCF or Parquet"),
    (a_folder_as_input, r"the file is a folder; check the path"),
    (unsorted, r"record 326 .* at chr3:301 comes after chr3:570, .* must not go down; sort it: bcftools sort"),
    (contig_in_two_places, r"at chr1:1 comes after chr3:697, and contig 'chr1' was left earlier.*bcftools sort"),
    (
        older_index,
        r"in\.vcf\.gz\.tbi: the index is older than its file; make it anew: bcftools index -f \S+/in\.vcf\.gz$",
    ),
    (cut_index, r"in\.vcf\.gz\.tbi: the BGZF end marker is missing; make it anew: bcftools index -f \S+/in\.vcf\.gz$"),
    (truncated_bcf, r"in\.bcf at byte 0: the file ends \d+ bytes into a BGZF block; the file is truncated"),
    (
        table_without_columns,
        r"in\.parquet: the table lacks contig, alt or alts; rename its columns \(chrom, pos, ref\)",
    ),
    (scored_before, r"already has the INFO tag RPL_STATE.*; remove it first: bcftools annotate -x INFO/RPL_STATE"),
    (
        unknown_contig,
        r"contig 'scaffold_9' is not in the reference, which has 'chr1', 'chr2', 'chr3'; use the matching",
    ),
    (
        other_contig_style,
        r"contig '1' is not in the reference \(nor '2', '3'\), which has 'chr1'.*input uses names such as '1', the "
        r"reference names such as 'chr1'; set contig_aliases: .*'3': 'chr3'.* \(--contig-alias 1=chr1\)",
    ),
    (other_contig_length, r"'chr1' \(30,001 bases, 30,000 in the reference\); use the FASTA of the genome build"),
    (wrong_reference, r"toy\.fa: REF differs from the reference in \d+ of the first 329 records \(chr1:1 has C, refer"),
    (absent_reference, r"absent\.fa: the file is not there; check the path"),
    (empty_reference, r"ref\.fa: the reference is empty; give a FASTA"),
    (reference_that_is_no_fasta, r"the reference begins with b'#' where FASTA begins with '>'"),
    (gzipped_reference, r"gzipped but not bgzipped.*; run `gunzip ref\.fa\.gz`"),
    (truncated_reference, r"ref\.fa\.gz: the reference cannot be indexed: .* corrupt; .* or fetch the file again"),
    (absent_genes, r"absent\.gtf: the file is not there"),
    (genes_without_an_end, r"genes\.gtf, line \d+: start '1001' and end '4k' are no range of bases; mend the line"),
    (genes_that_are_none, r"toy\.fa: line 1 is neither GTF, GFF3 nor SpliceAI annotation"),
    (
        truncated_genes,
        r"genes\.gtf\.gz: the compressed gene annotation is truncated or corrupt .*; fetch the file again",
    ),
    (genes_of_other_contigs, r"ensembl\.gtf: the annotation names its contigs as in '1', the reference as in 'chr1'"),
    (model_with_a_missing_tensor, r"member-00\.safetensors: missing tensor 'final\.bias'; fetch the model again"),
    (model_with_an_extra_tensor, r"member-00\.safetensors: tensor 'surplus' is not part of the architecture"),
    (
        model_of_another_digest,
        r"member-00\.safetensors: sha256 \w+\.\.\., replisome\.json records \w+\.\.\.; the file was",
    ),
    (model_without_a_member, r"member-00\.safetensors: the member file is missing; fetch the model again"),
    (absent_model, r"no-model: no model of this name and no such folder; models that ship: splice-mini"),
    (misspelt_model, r"splice-mimi: no model of this name.*; did you mean 'splice-mini'\?"),
    (pickled_model, r"weights\.pt: \.pt files can run code.* never opened; convert it once"),
    (model_folder_with_a_pickle, r"model: extra\.pkl can run code when read.*; remove it"),
    (file_in_the_way, r"out: cannot write: Not a directory; choose an output folder you may write to"),
    (output_below_a_file, r"out: cannot write: Not a directory; choose an output folder you may write to"),
    (
        misspelt_scorer,
        r"key 'scorer\.name': no scorer named 'splice_dleta'; did you mean 'splice_delta'\? known: allele_",
    ),
    (misspelt_key, r"key 'execution\.wokers': unknown key 'wokers'; did you mean 'workers'\?"),
    (wrong_value, r"key 'execution\.workers': found 'many'; give a whole number"),
    (misspelt_parameter, r"scorer splice_delta: unknown parameter 'distnace'; did you mean 'distance'\?"),
    (wrong_parameter, r"scorer splice_delta: distance must be a whole number from 0 to 10000, found -3"),
    (misspelt_progress, r"--progress: no progress mode 'lain'; known: auto, bar"),
    (empty_region, r"region 'chr1:20-10': begin 20 and end 10 hold no base; write contig, contig:pos"),
    (region_elsewhere, r"none of the regions' contigs \('1'\); it has 'chr1', 'chr2', 'chr3'; write the regions"),
    (broken_region_file, r"x\.bed line 1: not a region: 'chr1 10 20'; write CHROM, POS and END, parted by tabs"),
    (broken_alias_file, r"names\.tsv: found '1 chr1'; write NAME TAB VALUE"),
    (absent_input, r"absent\.vcf\.gz: the file is not there; check the path"),
    (unfinished_run_as_input, r"run:\S+: there is no finished run here; finish that run first"),
    (unknown_address, r"ftp://host: unknown kind of address 'ftp'; use a local path, s3:// or gs://"),
]


@pytest.mark.parametrize(("spoil", "sentence"), CASES, ids=[spoil.__name__ for spoil, _ in CASES])
def test_bad_input_is_one_sentence(workspace, tmp_path, spoil, sentence):
    broken = Broken(workspace, tmp_path)
    assert_one_sentence(replisome_here(*spoil(broken)), 2, sentence)
    assert not (broken.output / "manifest.json").exists()


def test_the_trace_comes_only_with_debug(workspace, tmp_path):
    words = unsorted(Broken(workspace, tmp_path))
    quiet, loud = replisome_here(*words), replisome_here(*words, "--debug")
    assert loud.stderr.startswith("Traceback")
    assert loud.stderr.splitlines()[-1] + "\n" == quiet.stderr


def test_the_aliases_that_were_offered_mend_it(workspace, tmp_path):
    broken = Broken(workspace, tmp_path)
    aliases = [word for name in "123" for word in ("--contig-alias", f"{name}=chr{name}")]
    done = replisome_here(*other_contig_style(broken), *aliases)
    assert done.returncode == 0, done.stderr
    ours = pq.read_table(broken.output / "data")
    assert set(ours["contig"].to_pylist()) == {"1", "2", "3"}
    assert replisome_here(*workspace.arguments(tmp_path / "same", vcf=workspace.vcf)).returncode == 0
    theirs = pq.read_table(tmp_path / "same" / "data")
    assert ours.drop_columns(["contig"]).equals(theirs.drop_columns(["contig"]))


def test_a_header_without_contigs_is_filled_in(workspace, tmp_path):
    broken = Broken(workspace, tmp_path)
    path = broken.vcf([line for line in broken.lines() if not line.startswith(b"##contig")])
    done = replisome_here(*broken.words(vcf=path))
    assert done.returncode == 0, done.stderr
    header = subprocess.run(["bcftools", "view", "-h", broken.output / "scores.vcf.gz"], capture_output=True, text=True)
    assert "##contig=<ID=chr1,length=30000>" in header.stdout
    assert "the header has no ##contig lines" in (broken.output / "run.log").read_text()


def test_a_vcf_without_records_makes_a_vcf_without_records(workspace, tmp_path):
    broken = Broken(workspace, tmp_path)
    path = broken.vcf([line for line in broken.lines() if line.startswith(b"#")])
    done = replisome_here(*broken.words("--bcf", "--vep-tab", "--partition-by-contig", vcf=path))
    assert done.returncode == 0, done.stderr
    assert "0 records" in done.stdout
    for name in ("scores.vcf.gz", "scores.bcf"):
        read = subprocess.run(["bcftools", "view", "-H", broken.output / name], capture_output=True, text=True)
        assert (read.returncode, read.stdout) == (0, "")
    assert replisome_here("verify", str(broken.output)).returncode == 0


# ---------------------------------------------------------------- stopped in the middle, and resumed


def stopped(workspace: Workspace, output: Path) -> list[str]:
    """A run whose disk filled up after the second of six shards; gives its words."""
    words = workspace.arguments(output)
    done = replisome_here(*words, fault="enospc@write#10")
    assert_one_sentence(done, 4, "the disk is full; free some space and run the same command again; finished shards")
    assert 0 < len(list(output.glob("data/*/*.parquet"))) < 6
    return words


def test_a_full_disk_at_any_write_is_resumed(workspace, calm, tmp_path):
    words = workspace.arguments(tmp_path / "whole")
    assert replisome_here(*words, fault="count@write").returncode == 0
    num_writes = faults._reached["write"]
    assert num_writes > 25
    for number in range(1, num_writes + 1):
        output = tmp_path / f"out-{number}"
        words = workspace.arguments(output)
        done = replisome_here(*words, fault=f"enospc@write#{number}")
        assert_one_sentence(done, 4, "the disk is full; free some space and run the same command again; finished shar")
        assert not (output / "manifest.json").exists()
        assert replisome_here(*words).returncode == 0
        assert_same_results(output, calm)
        shutil.rmtree(output)


def test_a_small_disk_is_really_full(workspace, calm, tmp_path):
    """Faults strike where we write; htslib and Arrow write elsewhere, so here a disk of a few kilobytes fills up."""
    where = [sys.executable, "-m", "tests.toys.small_disk", tmp_path, workspace.folder, "40", "100", "140", "160"]
    done = subprocess.run(["unshare", "-rm", *map(str, where)], cwd=ROOT, capture_output=True, text=True)
    if "Operation not permitted" in done.stderr:
        pytest.skip("this machine lets nobody mount a small disk")
    assert done.returncode == 0, done.stderr


def test_rejects_over_the_limit_stop_the_run_and_a_higher_limit_resumes_it(workspace, calm, tmp_path):
    words = workspace.arguments(tmp_path / "out")
    words[words.index("--max-rejects") + 1] = "0.02"
    done = replisome_here(*words)
    assert_one_sentence(
        done, 3, r"max_reject_fraction: \d+ rows rejected of 339 records, more than the limit of 2\.00% "
    )
    assert "(alt_equals_ref 1, bad_allele 2, bad_position 2, breakend 2, malformed_record 1, ref_mis" in done.stderr
    assert "star_allele" not in done.stderr
    assert "rejects/ in the output says why; raise --max-rejects to resume" in done.stderr
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert replisome_here(*workspace.arguments(tmp_path / "out")).returncode == 0
    assert_same_results(tmp_path / "out", calm)


def test_a_changed_input_is_refused_by_its_digest(workspace, calm, tmp_path):
    broken = Broken(workspace, tmp_path)
    path = broken.file("in.vcf.gz", workspace.hostile_vcf.read_bytes())
    words = broken.words(vcf=path)
    replisome_here(*words, fault="enospc@write#10")
    text = bgzf.compress(gzip.decompress(path.read_bytes()).replace(b"AF=0.00010", b"AF=0.00011")) + bgzf.EOF
    path.write_bytes(text)
    done = replisome_here(*words)
    assert_one_sentence(
        done, 2, r"out: this folder holds a run that computes something else: input was \w+\.\.\.\w+, now "
    )
    assert "choose another output, or use --force to replace it" in done.stderr
    path.write_bytes(workspace.hostile_vcf.read_bytes())
    assert replisome_here(*words).returncode == 0
    assert_same_results(broken.output, calm)


def test_a_block_that_rots_while_the_run_is_stopped(workspace, calm, tmp_path):
    """The plan stands on size and time, so only reading the shard tells; what was done before is kept."""
    broken = Broken(workspace, tmp_path)
    whole = b"".join(
        bgzf.compress(line) for line in gzip.decompress(workspace.hostile_vcf.read_bytes()).splitlines(True)
    )
    path = broken.file("in.vcf.gz", whole + bgzf.EOF)
    words, when = broken.words(vcf=path), path.stat().st_mtime_ns
    replisome_here(*words, fault="enospc@write#10")
    finished = sorted(broken.output.glob("data/*/*.parquet"))
    path.write_bytes(flipped(whole + bgzf.EOF, len(whole) - 40))
    os.utime(path, ns=(when, when))
    done = replisome(*words, "-j", "1")
    assert_one_sentence(
        done, 2, r"in\.vcf\.gz at byte \d+: the BGZF block.*; the file is corrupt; copy or download the file"
    )
    assert set(finished) <= set(broken.output.glob("data/*/*.parquet"))
    path.write_bytes(whole + bgzf.EOF)
    assert replisome_here(*words).returncode == 0
    assert pq.read_table(broken.output / "data").equals(pq.read_table(calm / "data"))


@pytest.mark.parametrize(
    ("more", "difference"),
    [
        (["--records-per-shard", "59"], "records_per_shard was 60, now 59"),
        (["--scorer", "splice_delta", "--distance", "30"], "scorer was gc_change, now splice_delta"),
        (["--keep-info", "AF"], r"keep_info was \[\], now \['AF'\]"),
        (["--bcf"], r"outputs was \['vcf'\], now \['vcf', 'bcf'\]"),
        (["-r", "chr1"], r"regions was \[\], now \['chr1:1-2147483647'\]"),
    ],
)
def test_other_settings_are_refused_by_name(workspace, tmp_path, more, difference):
    words = stopped(workspace, tmp_path / "out")
    assert_one_sentence(replisome_here(*words, *more), 2, difference)


def test_readers_that_leave_do_not_stop_the_work(workspace, calm, tmp_path):
    words = [*workspace.arguments(tmp_path / "out"), "--workers", "1"]
    words[words.index("--progress") + 1] = "json"
    process = start(*words)
    process.stdout.close()
    process.stderr.close()
    assert process.wait(timeout=100) == 141
    assert_same_results(tmp_path / "out", calm)


@pytest.mark.parametrize("pause", [0, 0.05, 0.4])
def test_ctrl_c_while_processes_start_is_one_sentence(workspace, tmp_path, pause):
    """A terminal sends it to the whole group, and so to processes that are still importing."""
    words = [*workspace.arguments(tmp_path / "out"), "--workers", "2"]
    process = start(*words, own_group=True)
    while not (tmp_path / "out" / "run.json").exists():
        assert process.poll() is None
        time.sleep(0.001)
    time.sleep(pause)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    done = subprocess.CompletedProcess(words, process.returncode, out.decode(), err.decode())
    assert_one_sentence(done, 130, "interrupted; finished shards are kept: run the same command again to go on")


def test_bad_input_through_the_command_itself(workspace, tmp_path):
    broken = Broken(workspace, tmp_path)
    assert_one_sentence(replisome(*unsorted(broken)), 2, "sort it: bcftools sort")
    assert_one_sentence(replisome(*broken.words(vcf="-"), stdin=b""), 2, "standard input is empty; pipe a VCF")
    cut = workspace.vcf.read_bytes()[:-100]
    assert_one_sentence(replisome(*broken.words(vcf="-"), stdin=cut), 2, "/standard-input at byte .* is truncated")
