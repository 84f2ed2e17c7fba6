"""Memory of every process while millions of sites go through a trivial scorer, and the cost per record.

    python -m benchmarks.flat_memory --sites 5000000 [--executor in-process ray]

Runs one million sites and the number asked for, and prints for each the largest private memory (USS) of any process
and records per CPU second, beside a plain pysam loop that reads the same file and writes it with one INFO tag. On Ray
the object store is capped at 512 MB; its own processes (raylet, GCS, dashboard agents) are counted like ours.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pysam

sys.path.insert(0, str(Path(__file__).parents[1]))  # also as `python benchmarks/flat_memory.py`

from benchmarks.synthetic import write_gene, write_reference, write_sites

_SAMPLE_SECONDS = 0.5
_COMMAND = [sys.executable, "-c", "from jobs.cli import main; main()"]


@dataclass(frozen=True)
class Measured:
    """Wall and CPU seconds, and the largest private memory in MB of one process, with that process's name."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    peak_name: str


def measure(command: Sequence[str]) -> Measured:
    """Run a command to its end, watching it and all its descendants."""
    began = time.monotonic()
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors: list[bytes] = []
    reader = threading.Thread(target=lambda: errors.append(process.stderr.read()))
    reader.start()
    peak, name = 0.0, ""
    cpu: dict[int, float] = {}
    while process.poll() is None:
        for one in _family(process):
            try:
                used = one.memory_full_info().uss / 1e6
                times = one.cpu_times()
                cpu[one.pid] = times.user + times.system
                if used > peak:
                    peak, name = used, one.name()
            except psutil.Error:
                continue
        time.sleep(_SAMPLE_SECONDS)
    reader.join()
    if process.returncode:
        raise SystemExit(f"the run failed:\n{errors[0].decode()}")
    return Measured(time.monotonic() - began, sum(cpu.values()), peak, name)


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def pysam_loop(vcf: str, out: str) -> float:
    """CPU seconds of the plain loop: read every record, set one INFO tag, write it."""
    began = time.process_time()
    with pysam.VariantFile(vcf) as source:
        source.header.info.add("X", "A", "Float", "a tag")
        with pysam.VariantFile(out, "wz", header=source.header) as sink:
            for record in source:
                record.info["X"] = (0.5,) * len(record.alts)
                sink.write(record)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=5_000_000)
    parser.add_argument("--executor", nargs="+", default=["in-process", "ray"])
    parser.add_argument("--workers", default="2")
    parser.add_argument("--device", help="not used: the scorer needs none")
    arguments = parser.parse_args()
    print(
        "| sites | what | wall s | CPU s | records per CPU s | peak private MB | process |\n"
        "|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory(prefix="flat-") as name:
        for sites in sorted({min(1_000_000, arguments.sites), arguments.sites}):
            _run(Path(name) / str(sites), sites, arguments)


def _run(folder: Path, sites: int, arguments: argparse.Namespace) -> None:
    folder.mkdir()
    letters = write_reference(folder / "ref.fa", num_bases=12 * sites)
    write_gene(folder / "genes.txt", num_bases=len(letters))
    write_sites(folder / "in.vcf.gz", letters, num_sites=sites)
    del letters
    cpu = pysam_loop(str(folder / "in.vcf.gz"), str(folder / "loop.vcf.gz"))
    print(f"| {sites:,} | pysam loop | | {cpu:.1f} | {sites / cpu:,.0f} | | |", flush=True)
    for executor in arguments.executor:
        done = measure(
            [
                *_COMMAND,
                *("score-variants", str(folder / "in.vcf.gz"), "--reference", str(folder / "ref.fa")),
                *("--model", "splice-mini", "--scorer", "gc_change", "-o", str(folder / executor)),
                *("--records-per-shard", "10000", "--executor", executor, "--workers", arguments.workers),
                *("--progress", "none"),
            ]
        )
        print(
            f"| {sites:,} | {executor} | {done.wall_s:.1f} | {done.cpu_s:.1f} | {sites / done.cpu_s:,.0f} "
            f"| {done.peak_mb:,.0f} | {done.peak_name} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
