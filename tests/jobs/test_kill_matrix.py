"""The promise of score-variants: SIGKILL anywhere, any worker count, either executor, and the bytes are the same."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.runtime.run import RunContext
from jobs import score_variants
from schemas.jobs.score_variants import ScoreVariantsSpec
from tests.toys.runs import assert_same_results
from tests.toys.variant_runs import replisome, start

DRIVER_FAULTS = [
    "kill-parent@before-part",
    "kill-parent@mid-part",
    "kill-parent@mid-part#2",
    "kill-parent@after-part",
    "kill@between-parts",
    "kill@between-parts#3",
    "kill@before-manifest",
    "kill@after-manifest",
]


@pytest.mark.parametrize("fault", DRIVER_FAULTS)
def test_a_killed_driver_loses_nothing(workspace, calm, tmp_path, fault):
    arguments = [*workspace.arguments(tmp_path / "out"), "--workers", "2"]
    killed = replisome(*arguments, fault=fault, once=tmp_path / "once")
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "out" / "manifest.json").exists() == (fault == "kill@after-manifest")
    again = replisome(*arguments)
    assert again.returncode == 0, again.stderr
    assert_same_results(tmp_path / "out", calm)


@pytest.mark.parametrize("fault", ["kill@scoring", "kill@mid-part", "kill@after-part"])
def test_a_killed_model_process_is_replaced_and_nothing_shows(workspace, calm, tmp_path, fault):
    done = replisome(*workspace.arguments(tmp_path / "out"), "-j", "2", fault=fault, once=tmp_path / "once")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "once").exists(), "the fault did not strike"
    assert_same_results(tmp_path / "out", calm)


@pytest.mark.parametrize("workers", ["2", "3"])
def test_any_number_of_workers(workspace, calm, tmp_path, workers):
    done = replisome(*workspace.arguments(tmp_path / "out"), "--workers", workers)
    assert done.returncode == 0, done.stderr
    assert_same_results(tmp_path / "out", calm)


@pytest.mark.ray
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_ray_gives_the_same_bytes(ray_cluster, workspace, calm, tmp_path, workers):
    spec = ScoreVariantsSpec.model_validate(
        {
            "input": {"path": str(workspace.hostile_vcf)},
            "reference": str(workspace.toy.fasta),
            "genes": str(workspace.toy.ensembl_gtf),
            "model": str(workspace.model),
            "scorer": {"name": "gc_change"},
            "output": str(tmp_path / "out"),
            "max_reject_fraction": 1.0,
            "execution": {"executor": "ray", "workers": workers, "records_per_shard": 60},
        }
    )
    score_variants.run(spec, RunContext(progress="none"))
    assert_same_results(tmp_path / "out", calm)


@pytest.mark.ray
def test_a_killed_ray_worker_is_replaced(workspace, calm, tmp_path):
    arguments = [*workspace.arguments(tmp_path / "out"), "--workers", "1"]
    worker = replisome(*arguments, "--executor", "ray", fault="kill@scoring", once=tmp_path / "once")
    assert (tmp_path / "once").exists(), "the fault did not strike"
    assert (worker.returncode, worker.stderr) == (0, "")  # Ray has nothing to add
    assert_same_results(tmp_path / "out", calm)


@pytest.mark.ray
def test_a_killed_ray_driver_is_resumed_by_the_other_executor(workspace, calm, tmp_path):
    arguments = [*workspace.arguments(tmp_path / "out"), "--workers", "1"]
    driver = replisome(*arguments, "--executor", "ray", fault="kill@between-parts#2", once=tmp_path / "once")
    assert driver.returncode == -signal.SIGKILL
    again = replisome(*arguments)
    assert again.returncode == 0, again.stderr
    assert_same_results(tmp_path / "out", calm)


def test_a_finished_run_run_again_does_nothing(workspace, calm):
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in calm.rglob("*") if path.is_file()}
    again = replisome(*workspace.arguments(calm), "--workers", "2")
    assert again.returncode == 0
    assert "finished before, nothing to do" in again.stdout
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before
    assert set(before) == {path for path in calm.rglob("*") if path.is_file()}


def test_of_two_drivers_one_works_and_one_is_refused_by_name(workspace, calm, tmp_path):
    arguments = workspace.arguments(tmp_path / "out")
    first = start(*arguments)
    while not (tmp_path / "out" / "run.lock").exists():
        assert first.poll() is None, first.stderr
        time.sleep(0.01)
    second = replisome(*arguments)
    _, err = first.communicate(timeout=120)
    assert first.returncode == 0, err
    assert second.returncode == 2
    assert f"another driver is at work: {socket.gethostname()} process {first.pid}" in second.stderr
    assert_same_results(tmp_path / "out", calm)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_says_so_and_can_be_resumed(workspace, calm, tmp_path, sent, code):
    arguments = workspace.arguments(tmp_path / "out")
    process = start(*arguments)
    while not (tmp_path / "out" / "run.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert b"run the same command again" in err
    assert b"Traceback" not in err
    again = replisome(*arguments)
    assert again.returncode == 0, again.stderr
    assert_same_results(tmp_path / "out", calm)


def test_states_are_disjoint_and_complete(workspace, calm):
    manifest = json.loads((calm / "manifest.json").read_text())
    rows = pq.read_table(calm / "data").to_pylist()
    assert sum(manifest["totals"]["states"].values()) == len(rows)
    assert {row["record"] for row in rows} == set(range(manifest["num_records"]))
    assert all((row["state"] == "scored") == (row["reason"] is None) for row in rows)
    rejected = [row for row in rows if row["state"] == "rejected"]
    refused = pq.read_table(calm / "rejects").to_pylist()
    assert sorted((row["record"], row["alt_index"], row["reason"]) for row in rejected) == sorted(
        (row["record"], row["alt_index"], row["reason"]) for row in refused
    )
    assert all(row["sentence"] for row in refused)


def test_results_depend_on_no_path(workspace, calm, tmp_path):
    """Every input under another name, in another folder."""
    arguments = workspace.arguments(tmp_path / "out")
    for place in (1, 3, 5):
        renamed = tmp_path / f"elsewhere-{place}{''.join(Path(arguments[place]).suffixes)}"
        shutil.copy(arguments[place], renamed)
        arguments[place] = str(renamed)
    done = replisome(*arguments)
    assert done.returncode == 0, done.stderr
    assert_same_results(tmp_path / "out", calm)


def test_the_log_names_no_sample(calm):
    log = (calm / "run.log").read_text()
    assert "planned" in log
    assert "S0" not in log
