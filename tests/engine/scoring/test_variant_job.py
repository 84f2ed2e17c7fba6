"""What a run fixes before its shards are scored: one verdict on incremental scoring for all processes, in run.json."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.scoring import _cones, _proof, _variant_job, _variant_stages
from engine.scoring._predictor import Predictor
from engine.scoring._variant_stages import VariantStages
from tests.toys.runs import result_bytes
from tests.toys.variant_runs import Workspace, make_workspace, replisome_here


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("workspace"))


def score(workspace: Workspace, output: Path, *more: str, fault: str = "", vcf: Path | None = None):
    words = workspace.arguments(output, vcf=vcf or workspace.vcf, scorer="splice_delta")
    return replisome_here(*words, "--distance", "20", *more, fault=fault)


def frozen(output: Path) -> dict:
    return json.loads((output / "run.json").read_text())


def told(output: Path) -> str:
    return json.loads((output / "report.json").read_text())["provenance"]["windows"]


def counted(monkeypatch) -> list[list]:
    """The samples of all proofs from here on."""
    proofs: list[list] = []
    prove = Predictor.prove

    def counting(self, questions):
        proofs.append(list(questions))
        return prove(self, questions)

    monkeypatch.setattr(Predictor, "prove", counting)
    return proofs


def test_one_proof_serves_all_shards_and_a_resumed_run_needs_none(workspace, tmp_path, monkeypatch):
    proofs = counted(monkeypatch)
    stopped = score(workspace, tmp_path / "out", fault="enospc@between-parts#2")
    assert stopped.returncode != 0 and len(proofs) == 1
    assert 0 < len(proofs[0]) <= _variant_job._SAMPLED_QUESTIONS
    assert frozen(tmp_path / "out")["choices"] == {"cones": "proven"}
    done = score(workspace, tmp_path / "out")
    assert (done.returncode, len(proofs)) == (0, 1)
    assert told(tmp_path / "out").startswith("incremental: ")
    assert score(workspace, tmp_path / "out").returncode == 0 and len(proofs) == 1


def test_cones_that_fail_are_given_up_by_the_whole_run(workspace, tmp_path, monkeypatch):
    """The bytes are those of full windows in every shard, also of a driver that would have found otherwise."""
    monkeypatch.setattr(_proof, "difference", lambda *_: 0.5)
    stopped = score(workspace, tmp_path / "out", "--progress", "plain", fault="enospc@between-parts#2")
    assert "cones were given up, and all alleles are scored by full windows: they differ" in stopped.stderr
    monkeypatch.undo()
    proofs = counted(monkeypatch)
    done = score(workspace, tmp_path / "out")
    assert (done.returncode, proofs) == (0, []), done.stderr
    assert (
        told(tmp_path / "out") == "full: cones were given up: they differ from full windows by 0.5 of the largest value"
    )
    assert frozen(tmp_path / "out")["key"]["incremental"] is False
    assert score(workspace, tmp_path / "full", "--no-incremental").returncode == 0
    assert told(tmp_path / "full") == "full" and proofs == []
    assert tables(tmp_path / "out") == tables(tmp_path / "full")


def tables(output: Path) -> list:
    return [pq.read_table(one).to_pylist() for one in sorted((output / "data").rglob("*.parquet"))]


def test_a_store_keeps_what_cones_and_what_full_windows_gave_apart(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr(_proof, "difference", lambda *_: 0.5)
    assert score(workspace, tmp_path / "out", "--store", str(tmp_path / "store")).returncode == 0
    (told_of,) = (tmp_path / "store" / "domains").glob("*.json")
    model = json.loads(told_of.read_text())["domain"]["model"]
    assert model["incremental"] is False and "cones" not in model["versions"]


def test_stages_used_without_a_run_prove_themselves_and_note_it_in_each_shard(workspace, tmp_path, monkeypatch):
    stages = VariantStages(
        input_path=str(workspace.vcf),
        reference_path=str(workspace.toy.fasta),
        genes_path=str(workspace.toy.ensembl_gtf),
        model=str(workspace.model),
    )
    read = stages.open_reader()
    shards = read.source.scan(records_per_shard=100, bytes_per_shard=1 << 25).shards
    score_shard = stages.open_scorer()
    assert [dict(score_shard(read(one)).notes) for one in shards[:3]] == [{}] * 3
    monkeypatch.setattr(_proof, "difference", lambda *_: 0.5)
    score_shard = stages.open_scorer()
    assert [dict(score_shard(read(one)).notes) for one in shards[:3]] == [{"cones_refused": 1}] * 3


def test_a_run_with_nothing_to_score_is_proven_on_made_up_alleles(workspace, tmp_path, monkeypatch):
    proofs = counted(monkeypatch)
    vcf = tmp_path / "far.vcf"
    contig = next(iter(workspace.toy.contigs))
    vcf.write_text(
        f"##fileformat=VCFv4.3\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n{contig}\t1\t.\tN\t.\t.\t.\t.\n"
    )
    assert score(workspace, tmp_path / "out", vcf=vcf).returncode == 0
    assert [[one.contig for one, _ in asked] for asked in proofs] == [["made-up"] * 4]


def test_a_phased_run_is_proven_beside_neighbours(workspace, tmp_path, monkeypatch):
    proofs = counted(monkeypatch)
    assert score(workspace, tmp_path / "out", "--phased", "--sample", "S0").returncode == 0
    assert any(one.background for one, _ in proofs[0]) and len(proofs) == 1
    assert frozen(tmp_path / "out")["key"]["phased_version"] == _variant_stages.PHASED_VERSION


def test_a_plan_that_is_only_shown_proves_nothing(workspace, tmp_path, monkeypatch):
    proofs = counted(monkeypatch)
    words = workspace.arguments(tmp_path / "out", vcf=workspace.vcf, scorer="splice_delta")
    assert replisome_here(*words, "--plan").returncode == 0 and proofs == []


@pytest.mark.parametrize("is_phased", [False, True])
def test_other_versions_of_the_numbers_are_another_run(workspace, tmp_path, monkeypatch, is_phased):
    more = ("--phased", "--sample", "S0") if is_phased else ()
    place, name, key = (_cones, "RESULT_VERSION", "cones_version")
    if is_phased:
        place, name, key = (_variant_job, "PHASED_VERSION", "phased_version")
    assert score(workspace, tmp_path / "out", *more).returncode == 0
    monkeypatch.setattr(place, name, getattr(place, name) + 1)
    refused = score(workspace, tmp_path / "out", *more)
    assert refused.returncode == 2 and key in refused.stderr
    assert score(workspace, tmp_path / "full", "--no-incremental").returncode == 0
    assert key not in frozen(tmp_path / "full")["key"]


def test_the_verdict_is_no_part_of_the_result(workspace, tmp_path):
    for name in ("one", "two"):
        assert score(workspace, tmp_path / name).returncode == 0
    assert result_bytes(tmp_path / "one") == result_bytes(tmp_path / "two")
