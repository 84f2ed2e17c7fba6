"""The whole job with its output, and its inputs, on an object store: the bytes of a local run, through kills too."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import s3fs

from engine.storage.store import open_store
from tests.toys.runs import SIDECARS, assert_same_results, result_bytes
from tests.toys.variant_runs import assert_one_sentence, replisome, replisome_here


def assert_same_as_local(address: str, calm: Path) -> None:
    store, theirs = open_store(address), result_bytes(calm)
    names = [name for name in store.list() if name not in SIDECARS]
    assert names == sorted(theirs)
    assert [name for name in names if store.read(name) != theirs[name]] == []
    done = replisome_here("verify", address)
    assert done.returncode == 0, done.stdout
    assert "all as committed" in done.stdout


def test_a_run_on_an_object_store_equals_a_local_one(s3_bucket, workspace, calm):
    words = workspace.arguments(f"{s3_bucket}/night/run")
    done = replisome(*words, "--workers", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"  {s3_bucket}/night/run/scores.vcf.gz" in done.stdout
    assert_same_as_local(f"{s3_bucket}/night/run", calm)
    again = replisome_here(*words)
    assert "finished before, nothing to do" in again.stdout
    log = open_store(f"{s3_bucket}/night/run").read("run.log").decode()
    assert "planned 339 records in 6 shards" in log
    assert "committing 6 shards" in log


@pytest.mark.parametrize("fault", ["kill-parent@mid-part#2", "kill@between-parts#3", "kill@after-manifest"])
def test_a_killed_driver_is_resumed_there(s3_bucket, workspace, calm, tmp_path, fault):
    words = [*workspace.arguments(f"{s3_bucket}/run"), "--workers", "1"]
    killed = replisome(*words, fault=fault, once=tmp_path / "once")
    assert killed.returncode == -signal.SIGKILL
    again = replisome_here(*words)
    assert again.returncode == 0, again.stderr
    assert_same_as_local(f"{s3_bucket}/run", calm)


def test_all_inputs_may_lie_there(s3_bucket, workspace, calm, tmp_path):
    store = open_store(f"{s3_bucket}/in")
    for path in (workspace.hostile_vcf, workspace.toy.fasta, workspace.toy.ensembl_gtf):
        store.put(path.name, path.read_bytes())
    words = workspace.arguments(tmp_path / "out")
    for at in (1, words.index("--reference") + 1, words.index("--genes") + 1):
        words[at] = f"{s3_bucket}/in/{Path(words[at]).name}"
    done = replisome(*words, "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert result_bytes(tmp_path / "out") == result_bytes(calm)


def test_a_run_there_feeds_another(s3_bucket, workspace, calm, tmp_path):
    assert replisome_here(*workspace.arguments(f"{s3_bucket}/run")).returncode == 0
    for name, source in (("local", calm), ("there", f"{s3_bucket}/run")):
        words = workspace.arguments(tmp_path / name)
        words[1] = f"run:{source}"
        done = replisome_here(*words)
        assert done.returncode == 0, done.stderr
    assert_same_results(tmp_path / "there", tmp_path / "local")


def test_bad_addresses_are_one_sentence(s3_bucket, workspace, monkeypatch):
    words = workspace.arguments("s3://no-such-bucket-here/run")
    assert_one_sentence(
        replisome_here(*words), 2, "s3://no-such-bucket-here/run: there is no such bucket; make it first"
    )
    words = workspace.arguments(f"{s3_bucket}/run")
    words[1] = f"{s3_bucket}/absent.vcf.gz"
    assert_one_sentence(replisome_here(*words), 2, r"absent\.vcf\.gz: the file is not there; check the address")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    words = workspace.arguments(f"{s3_bucket}/run")
    assert_one_sentence(replisome_here(*words), 2, "there are no credentials for this address; set them in the environ")


def test_nothing_is_left_in_the_temporary_folder(s3_bucket, workspace, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = replisome(*workspace.arguments(f"{s3_bucket}/run"), "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == []
