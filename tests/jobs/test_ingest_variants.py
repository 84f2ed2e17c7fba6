"""The promises of ingest-variants: the same bytes whatever happens, every record accounted for, damage seen."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pysam
import pytest
import zarr

from engine.io import bgzf
from engine.runtime.executors import in_process
from engine.runtime.run import RunContext
from engine.runtime.verify import verify
from jobs import ingest_variants
from schemas.jobs.ingest_variants import IngestVariantsSpec
from tests.toys import vcf_text
from tests.toys.runs import assert_same_results
from tests.toys.variant_runs import assert_one_sentence, replisome, replisome_here

NUM_SAMPLES = 4
NUM_BROKEN = 3


def good_line(number: int) -> str:
    calls = [
        f"{'0/1' if (number + s) % 3 else '1|2'}:{number},3,1:{number % 90}:{s}.5:PASS" for s in range(NUM_SAMPLES)
    ]
    return (
        f"chr1\t{100 + 7 * number}\trs{number}\tA\tC,G\t{number / 7:.2f}\tPASS\tDP={number};AF=0.5,0.25\t"
        "GT:AD:DP:GQ:FT\t" + "\t".join(calls)
    )


def file_text() -> bytes:
    lines = [good_line(number) for number in range(230)]
    lines[40:40] = [good_line(39).replace("0/1", "0/7", 1)]
    lines[100:100] = ["no record at all"]
    lines.append(good_line(400).replace("DP=400", "DP=many"))
    return vcf_text.file_text(lines, NUM_SAMPLES)


@pytest.fixture(scope="module")
def vcf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("input") / "in.vcf.gz"
    path.write_bytes(bgzf.compress(file_text()) + bgzf.EOF)
    return path


def words(vcf: Path, output: Path, *more: str, formats: str = "*") -> list[str]:
    return [
        *("ingest-variants", str(vcf), "-o", str(output), "--info", "*", "--format", formats),
        *("--records-per-shard", "60", "--progress", "none", *more),
    ]


@pytest.fixture(scope="module")
def calm(vcf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("calm") / "out"
    done = replisome_here(*words(vcf, output, "-j", "1"))
    assert done.returncode == 0, done.stderr
    return output


# ---------------------------------------------------------------- what comes out


def test_every_record_is_kept_or_rejected(calm):
    rows = pq.read_table(calm / "data").to_pylist()
    assert [row["record"] for row in rows] == list(range(230 + NUM_BROKEN))
    refused = [(row["record"], row["reason"]) for row in rows if row["state"] == "rejected"]
    assert refused == [(40, "genotype_out_of_range"), (100, "malformed_record"), (232, "bad_info")]
    manifest = json.loads((calm / "manifest.json").read_text())
    assert manifest["totals"]["states"] == {"kept": 230, "rejected": NUM_BROKEN}
    assert manifest["totals"]["reasons"] == {"bad_info": 1, "genotype_out_of_range": 1, "malformed_record": 1}
    sentences = pq.read_table(calm / "rejects")["sentence"].to_pylist()
    assert sentences[0] == "GT names allele 7 where the record has 3 (0 to 2)"


def test_the_store_has_what_pysam_reads(calm, vcf, tmp_path):
    group = zarr.open_group(calm / "variants.zarr", mode="r")
    good = tmp_path / "good.vcf"
    good.write_bytes(vcf_text.file_text([good_line(number) for number in range(230)], NUM_SAMPLES))
    with pysam.VariantFile(str(good)) as theirs:
        records = list(theirs)
    calls, depths, quality = group["call_genotype"][:], group["call_AD"][:], group["call_GQ"][:]
    assert group["variant_position"][:].tolist() == [record.pos for record in records]
    for row, record in enumerate(records):
        for sample, call in enumerate(record.samples.values()):
            assert tuple(calls[row, sample].tolist()) == call["GT"]
            assert tuple(depths[row, sample].tolist()) == call["AD"]
            assert quality[row, sample] == call["GQ"]
    assert group["call_FT"][0].tolist() == ["PASS"] * NUM_SAMPLES


def test_a_store_is_tens_of_files(calm):
    files = [path for path in (calm / "variants.zarr").rglob("*") if path.is_file()]
    assert len(files) <= 2 * 32 + 1
    listed = set(pq.read_table(calm / "files.parquet")["path"].to_pylist())
    assert {str(path.relative_to(calm)) for path in files} <= listed


def test_sites_alone_make_no_store(vcf, tmp_path):
    output = tmp_path / "out"
    done = replisome_here("ingest-variants", str(vcf), "-o", str(output), "--progress", "none")
    assert done.returncode == 0, done.stderr
    assert not (output / "variants.zarr").exists()
    table = pq.read_table(output / "data")
    assert "call_genotype" not in table.column_names
    # Values nobody asked for are not read, so that two records less are refused.
    assert table["state"].to_pylist().count("kept") == 230 + NUM_BROKEN - 1
    rejects = pq.read_table(output / "rejects")
    assert list(zip(*rejects.select(["record", "reason"]).to_pydict().values(), strict=True)) == [
        (100, "malformed_record")
    ]


def test_plain_text_stdin_and_no_index_give_the_same_store(vcf, calm, tmp_path):
    plain = tmp_path / "plain.vcf"
    plain.write_bytes(file_text())
    done = replisome_here(*words(plain, tmp_path / "plain"))
    assert done.returncode == 0, done.stderr
    piped = replisome(*words(Path("-"), tmp_path / "piped"), stdin=file_text())
    assert piped.returncode == 0, piped.stderr
    for output in (tmp_path / "plain", tmp_path / "piped"):
        assert_same_files(output / "variants.zarr", calm / "variants.zarr")


def assert_same_files(ours: Path, theirs: Path) -> None:
    names = sorted(path.relative_to(theirs) for path in theirs.rglob("*") if path.is_file())
    assert sorted(path.relative_to(ours) for path in ours.rglob("*") if path.is_file()) == names
    assert [name for name in names if (ours / name).read_bytes() != (theirs / name).read_bytes()] == []


def test_a_bcf_gives_the_same_store_but_for_its_header(tmp_path):
    good = tmp_path / "good.vcf"
    good.write_bytes(vcf_text.file_text([good_line(number) for number in range(230)], NUM_SAMPLES))
    subprocess.run(["bcftools", "view", "-Ob", "-o", str(tmp_path / "x.bcf"), str(good)], check=True)
    for source in (good, tmp_path / "x.bcf"):
        done = replisome_here(*words(source, tmp_path / f"{source.name}.out"))
        assert done.returncode == 0, done.stderr
    ours, theirs = tmp_path / "x.bcf.out/variants.zarr", tmp_path / "good.vcf.out/variants.zarr"
    for store in (ours, theirs):
        (store / "zarr.json").unlink()
    assert_same_files(ours, theirs)


# ---------------------------------------------------------------- the same bytes


@pytest.mark.parametrize("workers", ["2", "3"])
def test_any_number_of_workers(vcf, calm, tmp_path, workers):
    done = replisome(*words(vcf, tmp_path / "out", "-j", workers))
    assert done.returncode == 0, done.stderr
    assert_same_results(tmp_path / "out", calm)


@pytest.mark.ray
def test_ray_gives_the_same_bytes(ray_cluster, vcf, calm, tmp_path):
    spec = IngestVariantsSpec.model_validate(
        {
            "input": str(vcf),
            "output": str(tmp_path / "out"),
            "info": ["*"],
            "format": ["*"],
            "execution": {"executor": "ray", "workers": 2, "records_per_shard": 60},
        }
    )
    ingest_variants.run(spec, RunContext(progress="none"))
    assert_same_results(tmp_path / "out", calm)


@pytest.mark.parametrize(
    "fault",
    ["kill-parent@mid-part#2", "kill@between-parts#2", "kill@write#30", "kill@before-manifest", "kill@after-manifest"],
)
def test_a_killed_driver_loses_nothing(vcf, calm, tmp_path, fault):
    """Write 30 of the driver is among the store's files."""
    killed = replisome(*words(vcf, tmp_path / "out", "-j", "2"), fault=fault, once=tmp_path / "once")
    assert killed.returncode == -signal.SIGKILL
    again = replisome_here(*words(vcf, tmp_path / "out"))
    assert again.returncode == 0, again.stderr
    assert_same_results(tmp_path / "out", calm)


def test_a_killed_worker_is_replaced(vcf, calm, tmp_path):
    done = replisome(*words(vcf, tmp_path / "out", "-j", "2"), fault="kill@mid-part", once=tmp_path / "once")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "once").exists()
    assert_same_results(tmp_path / "out", calm)


@pytest.mark.parametrize("write", [3, 9, 20, 40, 60, 80])
def test_a_full_disk_at_a_write_is_resumable(vcf, calm, tmp_path, write):
    stopped = replisome_here(*words(vcf, tmp_path / "out"), fault=f"enospc@write#{write}")
    assert_one_sentence(stopped, 4, "")
    assert "the disk is full" in stopped.stderr
    again = replisome_here(*words(vcf, tmp_path / "out"))
    assert again.returncode == 0, again.stderr
    assert_same_results(tmp_path / "out", calm)


def test_a_finished_run_does_nothing_and_another_choice_is_refused(vcf, calm):
    assert "finished before" in replisome_here(*words(vcf, calm)).stdout
    other = replisome_here(*words(vcf, calm, formats="GT,AD"))
    assert other.returncode == 2
    assert "computes something else: format_fields was" in other.stderr


# ---------------------------------------------------------------- damage and bad input


@pytest.mark.parametrize("name", ["call_AD/c/0/0/0", "call_genotype/zarr.json", "zarr.json", "variant_id/c/0"])
def test_a_flipped_bit_or_a_lost_file_of_the_store_is_seen_by_verify(calm, name):
    path = calm / "variants.zarr" / name
    data = path.read_bytes()
    assert verify(str(calm)).problems == []
    path.write_bytes(data[:-30] + bytes([data[-30] ^ 1]) + data[-29:])
    assert [problem.path for problem in verify(str(calm)).problems] == [f"variants.zarr/{name}"]
    path.unlink()
    assert [problem.path for problem in verify(str(calm)).problems] == [f"variants.zarr/{name}"]
    path.write_bytes(data)


def test_too_many_rejects_stop_the_run(vcf, tmp_path):
    done = replisome_here(*words(vcf, tmp_path / "out", "--max-rejects", "0.001"))
    assert done.returncode == 3
    assert "rows rejected" in done.stderr


def test_bad_input_is_one_sentence(vcf, tmp_path):
    cut = tmp_path / "cut.vcf.gz"
    cut.write_bytes(vcf.read_bytes()[:-40])
    assert_one_sentence(replisome_here(*words(cut, tmp_path / "a")), 2, "")
    sites = tmp_path / "sites.vcf"
    sites.write_bytes(vcf_text.file_text([], 0))
    done = replisome_here("ingest-variants", str(sites), "-o", str(tmp_path / "b"), "--genotypes")
    assert_one_sentence(done, 2, "")
    assert "the file has no samples" in done.stderr
    done = replisome_here("ingest-variants", str(vcf), "-o", str(tmp_path / "c"), "--format", "XX")
    assert_one_sentence(done, 2, "")
    assert "declares no FORMAT 'XX'" in done.stderr


def test_no_process_is_started_only_to_pass_shards_on(vcf, calm, tmp_path, monkeypatch):
    def refuse(_: object) -> None:
        raise AssertionError("a reader was started")

    monkeypatch.setattr(in_process._Pool, "_start_reader", refuse)
    spec = IngestVariantsSpec.model_validate(
        {
            "input": str(vcf),
            "output": str(tmp_path / "out"),
            "info": ["*"],
            "format": ["*"],
            "execution": {"workers": 2, "records_per_shard": 60},
        }
    )
    ingest_variants.run(spec, RunContext(progress="none"))
    assert_same_results(tmp_path / "out", calm)
