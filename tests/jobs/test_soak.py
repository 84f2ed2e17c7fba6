"""Long trials, run by `make soak`: kills at random moments, a lost Ray node, a plan of a million shards."""

from __future__ import annotations

import random
import resource
import signal
import subprocess
import sys
import time

import pytest

from engine.io.source import Shard
from engine.runtime import layout
from engine.runtime.plan import read_plan, write_plan
from engine.runtime.receipts import FileEntry, Receipt, ReceiptBook, write_receipts
from engine.storage.store import open_store
from tests.toys.runs import assert_same_results
from tests.toys.variant_runs import ROOT, replisome, start

pytestmark = pytest.mark.soak

_NODE_LOSS = """
import pathlib, sys, threading, time
from ray.cluster_utils import Cluster
settings = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 3}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": settings})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
cluster.wait_for_nodes()
data = pathlib.Path(sys.argv[-1], "data")
def lose():
    while not data.exists():
        time.sleep(0.05)
    cluster.remove_node(nodes[1], allow_graceful=False)
    print("node lost", flush=True)
threading.Thread(target=lose, daemon=True).start()
sys.argv = ["replisome", *sys.argv[1:-1], "--executor", "ray", "--address", cluster.address]
from jobs.cli import main
main()
"""


@pytest.mark.parametrize("seed", range(5))
def test_kills_at_random_moments(workspace, calm, tmp_path, seed):
    chance = random.Random(seed)
    arguments = [*workspace.arguments(tmp_path / "out"), "--workers", str(chance.randint(1, 3))]
    kills = 0
    while True:
        process = start(*arguments)
        try:
            process.communicate(timeout=chance.uniform(0.3, 2.0) + 0.3 * kills)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
            continue
        assert process.returncode == 0
        break
    assert kills > 0
    assert_same_results(tmp_path / "out", calm)


@pytest.mark.ray
def test_a_lost_ray_node(workspace, tmp_path):
    """A node dies after the first part; many small shards, so that there is work left to lose."""
    small = ["--workers", "2", "--records-per-shard", "1"]
    assert replisome(*workspace.arguments(tmp_path / "calm"), *small).returncode == 0
    arguments = [*workspace.arguments(tmp_path / "out"), *small, str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", _NODE_LOSS, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=600
    )
    assert "node lost" in done.stdout, done.stderr
    assert done.returncode == 0, done.stderr
    assert_same_results(tmp_path / "out", tmp_path / "calm")


def test_a_million_shards(tmp_path):
    """Plan and receipts hold for a million shards, in less than 4 GB."""
    store = open_store(str(tmp_path))
    shards = [Shard(i, i, i + 1, 1, i, "1", i, "1", i) for i in range(1_000_000)]
    assert read_plan(store, crc32c=write_plan(store, shards)) == shards
    book = ReceiptBook(store, owner="0")
    for shard in shards:
        name = layout.data_part(shard.shard)
        book.receipts[shard.shard] = Receipt(shard.shard, 1, {"scored": 1}, {}, {name: FileEntry(9, 9, 1)})
    assert book.totals().states["scored"] == 1_000_000
    began = time.monotonic()
    entry = write_receipts(store, layout.ALL_RECEIPTS, book.receipts.values())
    assert entry.rows == 1_000_000
    print(f"{entry.bytes:,} bytes in {time.monotonic() - began:.1f} s")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 << 20


def test_replay_of_a_killed_run_is_quick(workspace, tmp_path):
    """A restart of an almost finished run does not read the input's finished shards again: it only commits."""
    arguments = workspace.arguments(tmp_path / "out")
    killed = replisome(*arguments, fault="kill@before-manifest", once=tmp_path / "once")
    assert killed.returncode == -signal.SIGKILL
    parts = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "data").rglob("*.parquet")}
    assert replisome(*arguments).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in parts} == parts
