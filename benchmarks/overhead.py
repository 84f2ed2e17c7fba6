"""What the run protocol costs: the same work as a plain loop, through the in-process executor and through Ray.

    python -m benchmarks.overhead [--sites 620000] [--workers 2] [--executor in-process ray]

The plain loop is what one would write by hand: as many processes as workers, one thread each, every second shard to
each; read, encode, score; tables and text collected and written once at the end. No plan, parts, checksums, receipts,
restarts, index or report. All three use the same stages, shards, micro-batches and threads, and every wall time counts
from the command's start to its end, imports and clusters included. The model is the SpliceAI-400nt architecture with
random weights: its cost per variant is what matters here, not its answers.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # also as `python benchmarks/overhead.py`

from benchmarks.synthetic import write_gene, write_reference, write_sites

_COMMAND = [sys.executable, "-c", "from jobs.cli import main; main()"]
_RECORDS_PER_SHARD = 1000  # the default of the command
_NUM_BASES = 2_000_000


def _stages(folder: Path):
    from engine.scoring._variant_stages import VariantStages

    return VariantStages(
        input_path=str(folder / "in.vcf.gz"),
        reference_path=str(folder / "ref.fa"),
        genes_path=str(folder / "genes.txt"),
        model=str(folder / "model"),
    )


def _plain_part(folder: Path, place: int, workers: int) -> None:
    """One process of the plain loop."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    stages = _stages(folder)
    source_shards = json.loads((folder / "shards.json").read_text())
    from engine.io.source import Shard

    read, score = stages.open_reader(), stages.open_scorer()
    tables, bodies = [], []
    for row in source_shards[place::workers]:
        output = score(read(Shard(*row)))
        tables.append(output.table)
        bodies.append(output.body)
    pq.write_table(pa.concat_tables(tables), folder / f"plain-{place}.parquet")
    (folder / f"plain-{place}.vcf.gz").write_bytes(b"".join(bodies))


def plain(folder: Path, workers: int) -> None:
    """The plain loop; cuts the shards itself, which a hand-written loop need not, but must do to share them."""
    from dataclasses import astuple

    from engine.io.variants import open_variants

    scan = open_variants(folder / "in.vcf.gz").scan(records_per_shard=_RECORDS_PER_SHARD, bytes_per_shard=32 << 20)
    (folder / "shards.json").write_text(json.dumps([astuple(shard) for shard in scan.shards]))
    context = multiprocessing.get_context("spawn")
    parts = [context.Process(target=_plain_part, args=(folder, place, workers)) for place in range(workers)]
    for part in parts:
        part.start()
    for part in parts:
        part.join()
        if part.exitcode:
            raise SystemExit(f"a process of the plain loop ended with code {part.exitcode}")


def _prepare(folder: Path, sites: int) -> None:
    folder.mkdir()
    letters = write_reference(folder / "ref.fa", num_bases=_NUM_BASES)
    write_gene(folder / "genes.txt", num_bases=_NUM_BASES)
    write_sites(folder / "in.vcf.gz", letters, num_sites=sites)
    body = (
        "import sys; from tests.toys.models import random_network; from engine.models.dilated_conv import "
        "spliceai_params; random_network(sys.argv[1], spliceai_params(400))"
    )
    subprocess.run([sys.executable, "-c", body, str(folder / "model")], check=True)


def _timed(folder: Path, kind: str, workers: int) -> tuple[float, float]:
    """Wall seconds, and CPU seconds of the command and all it waited for (Ray's processes are not among them)."""
    command = [sys.executable, "-m", "benchmarks.overhead", "--plain", str(folder), "--workers", str(workers)]
    if kind != "plain":
        command = [
            *_COMMAND,
            *("score-variants", str(folder / "in.vcf.gz"), "--reference", str(folder / "ref.fa")),
            *("--genes", str(folder / "genes.txt"), "--model", str(folder / "model"), "-o", str(folder / kind)),
            *("--records-per-shard", str(_RECORDS_PER_SHARD), "--executor", kind, "--workers", str(workers)),
            *("--progress", "none"),
        ]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{kind} ended with status {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=620_000, help="about 500 need one CPU second")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--executor", nargs="+", default=["in-process", "ray"])
    parser.add_argument("--plain", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))
    if arguments.plain:
        plain(Path(arguments.plain), arguments.workers)
        return
    with tempfile.TemporaryDirectory(prefix="overhead-") as name:
        _compare(Path(name) / "full", arguments)


def _compare(folder: Path, arguments: argparse.Namespace) -> None:
    _prepare(folder, arguments.sites)
    print("| what | sites | wall s | ratio | CPU s |\n|---|---|---|---|---|", flush=True)
    base, cpu = _timed(folder, "plain", arguments.workers)
    print(f"| plain loop | {arguments.sites:,} | {base:.1f} | 1 | {cpu:.1f} |", flush=True)
    for kind in arguments.executor:
        wall, cpu = _timed(folder, kind, arguments.workers)
        spent = "" if kind == "ray" else f"{cpu:.1f}"
        print(f"| {kind} | {arguments.sites:,} | {wall:.1f} | {wall / base:.3f} | {spent} |", flush=True)


if __name__ == "__main__":
    main()
