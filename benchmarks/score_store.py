"""What the score store saves: a second sample that shares most of its variants with the first, beside a run from cold.

    python -m benchmarks.score_store [--sites 2000] [--shared 0.9] [--model splice-mini] [--workers 2]

Sites are SNVs spread over one made-up contig that one gene covers, so every record asks the model. Each run is the
command in a process of its own; wall time counts from its start to its end, imports included. Scores looked up are
compared with those of the cold run.
"""

from __future__ import annotations

import argparse
import gzip
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1]))  # also as `python benchmarks/score_store.py`

from benchmarks.synthetic import write_gene, write_reference, write_sites
from engine.io import bgzf

_COMMAND = [sys.executable, "-c", "from jobs.cli import main; main()"]
_SCORES = ("ds_ag", "ds_al", "ds_dg", "ds_dl")
_BASES_PER_SITE = 250


def _samples(folder: Path, *, sites: int, shared: float) -> None:
    """first.vcf.gz and second.vcf.gz, of `sites` records each."""
    num_new = round(sites * (1 - shared))
    letters = write_reference(folder / "ref.fa", num_bases=_BASES_PER_SITE * (sites + num_new))
    write_gene(folder / "genes.txt", num_bases=len(letters))
    write_sites(folder / "all.vcf.gz", letters, num_sites=sites + num_new)
    lines = gzip.decompress((folder / "all.vcf.gz").read_bytes()).splitlines(keepends=True)
    header = [line for line in lines if line.startswith(b"#")]
    places = np.random.default_rng(7).permutation(sites + num_new)
    for name, some in (("first", places[:sites]), ("second", places[num_new:])):
        body = b"".join([*header, *(lines[len(header) + place] for place in np.sort(some))])
        (folder / f"{name}.vcf.gz").write_bytes(bgzf.compress(body) + bgzf.EOF)


def _run(folder: Path, output: str, sample: str, *more: str) -> tuple[float, float]:
    """Wall seconds of one run, and CPU seconds of the command and all it waited for."""
    words = ["score-variants", str(folder / f"{sample}.vcf.gz"), "--reference", str(folder / "ref.fa")]
    words += ["--genes", str(folder / "genes.txt"), "-o", str(folder / output), "--progress", "none"]
    began = time.monotonic()
    process = subprocess.Popen([*_COMMAND, *words, *more], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the run {output} ended with status {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime


def _line(folder: Path, output: str, what: str, seconds: tuple[float, float], cold: tuple[float, float]) -> str:
    table = pq.read_table(folder / output / "data")
    sources = Counter(table["score_source"].to_pylist()) if "score_source" in table.column_names else None
    computed, looked_up = (table.num_rows, 0) if sources is None else (sources["computed"], sources["looked_up"])
    ratios = " | ".join(f"{one:.1f} | {one / other:.2f}" for one, other in zip(seconds, cold, strict=True))
    return f"| {what} | {computed:,} | {looked_up:,} | {ratios} |"


def _largest_difference(folder: Path, output: str, other: str) -> float:
    one, two = (pq.read_table(folder / name / "data", columns=list(_SCORES)) for name in (output, other))
    return max(float(np.abs(one[name].to_numpy() - two[name].to_numpy()).max()) for name in _SCORES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=2_000, help="records of each sample")
    parser.add_argument("--shared", type=float, default=0.9, help="share of the second sample that the first has too")
    parser.add_argument("--model", default="splice-mini")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _samples(folder, sites=arguments.sites, shared=arguments.shared)
        more = ("--model", arguments.model, "--workers", str(arguments.workers))
        store = ("--store", str(folder / "store"))
        cold = _run(folder, "cold", "second", *more)
        rows = [("cold", "second sample, no store", cold)]
        rows.append(("fills", "first sample, empty store", _run(folder, "fills", "first", *more, *store)))
        rows.append(("second", "second sample, store of the first", _run(folder, "second", "second", *more, *store)))
        rows.append(("again", "second sample once more", _run(folder, "again", "second", *more, *store)))
        size = sum(path.stat().st_size for path in (folder / "store").rglob("*") if path.is_file())
        print(
            f"{arguments.model}, {arguments.sites:,} SNVs a sample, {arguments.shared:.0%} shared, fp32 on CPU, "
            f"{arguments.workers} workers"
        )
        print("| run | computed | looked up | wall s | of cold | CPU s | of cold |\n|---|---|---|---|---|---|---|")
        for output, what, seconds in rows:
            print(_line(folder, output, what, seconds, cold))
        print(f"largest difference of any delta from the cold run: {_largest_difference(folder, 'second', 'cold'):.1e}")
        print(f"the store holds {size:,} bytes")


if __name__ == "__main__":
    main()
