"""A gene panel killed again and again: the bytes of a calm run, and what the kills cost.

    python -m benchmarks.panel --model MODEL [--variants 10000] [--genes 20] [--kills 5]

Made-up genes of 20 to 60 kb, half of them on each strand, with variants spread over them: SNVs, and one in ten an
insertion or deletion. One run goes through; another is killed (SIGKILL to the command and its processes) at even
distances and started again each time. Compared are data parts, scored VCF and manifest, byte for byte; the wall time of
the killed run is the sum over its starts. A kill can cost a start and what each worker had begun, at most one shard.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # also as `python benchmarks/panel.py`

from benchmarks.synthetic import write_reference

_COMMAND = [sys.executable, "-c", "from jobs.cli import main; main()"]
_SPACING = 80_000
_SEED = 11
_POLL_S = 0.05


def prepare(folder: Path, *, genes: int, variants: int) -> None:
    """Reference, gene table and VCF."""
    rng = np.random.default_rng(_SEED)
    letters = write_reference(folder / "ref.fa", num_bases=(genes + 1) * _SPACING).tobytes().decode()
    rows = ["#NAME\tCHROM\tSTRAND\tTX_START\tTX_END\tEXON_START\tEXON_END"]
    places: list[int] = []
    for index in range(genes):
        start, length = index * _SPACING + 10_000, int(rng.integers(20_000, 60_000))
        edges = np.sort(rng.choice(np.arange(start + 200, start + length - 200), 14, replace=False))
        starts, ends = [start, *edges[1::2]], [*edges[::2], start + length]
        exons = [",".join(map(str, one)) + "," for one in (starts, ends)]
        rows.append(f"GENE{index}\t1\t{'+-'[index % 2]}\t{start}\t{start + length}\t{exons[0]}\t{exons[1]}")
        share = variants // genes + (index < variants % genes)
        places += sorted(rng.choice(np.arange(start + 1, start + length - 50), share, replace=False).tolist())
    (folder / "genes.txt").write_text("\n".join(rows) + "\n")
    lines = ["##fileformat=VCFv4.3", f"##contig=<ID=1,length={len(letters)}>"]
    lines.append("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO")
    for number, at in enumerate(places):
        base = letters[at]
        ref, alt = base, "ACGT"["ACGT".index(base) - 1 - number % 3]
        if number % 20 == 0:
            ref, alt = letters[at : at + 2 + number % 7], base
        elif number % 20 == 10:
            ref, alt = base, base + "ACGTTGCA"[: 1 + number % 7]
        lines.append(f"1\t{at + 1}\t.\t{ref}\t{alt}\t.\t.\t.")
    (folder / "in.vcf").write_text("\n".join(lines) + "\n")


def command(folder: Path, output: str, arguments: argparse.Namespace) -> list[str]:
    """The command under test."""
    return [
        *_COMMAND,
        *("score-variants", str(folder / "in.vcf"), "--reference", str(folder / "ref.fa")),
        *("--genes", str(folder / "genes.txt"), "--model", arguments.model, "-o", str(folder / output)),
        *("--records-per-shard", str(arguments.records_per_shard), "--workers", str(arguments.workers)),
        *("--progress", "none"),
    ]


def started(argv: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv, stdout=subprocess.DEVNULL, start_new_session=True)


def finished_shards(folder: Path) -> int:
    return sum(1 for _ in folder.glob("data/*/part-*.parquet"))


@dataclass(frozen=True)
class Killed:
    """A run that was killed on its way.

    Attributes:
        wall_s: over all starts.
        kills: that met the run at work; one that ends by itself first is not killed.
        firsts: seconds of each start until its first new part.
    """

    wall_s: float
    kills: int
    firsts: list[float]


def killed_run(folder: Path, arguments: argparse.Namespace, shards: int) -> Killed:
    """Start it, kill it as often as asked while it lasts, and let it end."""
    began, kills, firsts = time.monotonic(), 0, []
    argv, output = command(folder, "killed", arguments), folder / "killed"
    is_killed = True
    while is_killed:
        start, done = time.monotonic(), finished_shards(output)
        goal = shards * (kills + 1) // (arguments.kills + 1) if kills < arguments.kills else shards + 1
        process, now = started(argv), done
        while process.poll() is None and now < goal:
            time.sleep(_POLL_S)
            before, now = now, finished_shards(output)
            if before == done < now:
                firsts.append(time.monotonic() - start)
        if now >= goal:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        is_killed = code == -signal.SIGKILL
        kills += is_killed
        if code and not is_killed:
            raise SystemExit(f"the run ended with code {code}")
    return Killed(time.monotonic() - began, kills, firsts)


def differing(one: Path, other: Path) -> list[str]:
    """Files that both runs owe each other and that differ or are missing."""
    names = sorted(str(path.relative_to(one)) for path in one.glob("data/**/*") if path.is_file())
    names += ["scores.vcf.gz", "scores.vcf.gz.tbi", "manifest.json", "files.parquet", "plan.parquet"]
    same, _, _ = filecmp.cmpfiles(one, other, names, shallow=False)
    return sorted(set(names) - set(same))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--variants", type=int, default=10_000)
    parser.add_argument("--genes", type=int, default=20)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--records-per-shard", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="panel-") as name:
        folder = Path(name)
        prepare(folder, genes=arguments.genes, variants=arguments.variants)
        began = time.monotonic()
        if started(command(folder, "calm", arguments)).wait():
            raise SystemExit("the calm run failed")
        calm = time.monotonic() - began
        shards = finished_shards(folder / "calm")
        killed = killed_run(folder, arguments, shards)
        differ = differing(folder / "calm", folder / "killed")
        shard = calm / shards * arguments.workers
        print(
            "| variants | shards | kills | calm, wall s | killed, wall s | a shard, s | to the first part, s | bytes |"
        )
        print("|---|---|---|---|---|---|---|---|")
        print(
            f"| {arguments.variants:,} | {shards} | {killed.kills} | {calm:.1f} | {killed.wall_s:.1f} | {shard:.1f} | "
            f"{np.mean(killed.firsts):.1f} | {'equal' if not differ else 'differ: ' + ', '.join(differ[:5])} |"
        )
        print(f"beyond the calm run and a shard a kill: {killed.wall_s / (calm + killed.kills * shard) - 1:+.1%}")
        if killed.kills < arguments.kills:
            print(f"{arguments.kills} kills were asked for: the run ended before the rest")


if __name__ == "__main__":
    main()
