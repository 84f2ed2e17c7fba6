"""What a variant on a gene costs in both tools: lone, one per 500 bases, and every SNV of a stretch.

Start-up is taken out of both: a pair's cost is the cost of the whole command on N pairs less that on two, over N - 2.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import _spliceai_real as real
from benchmarks import _spliceai_runs as runs
from benchmarks import _spliceai_variants as variants
from benchmarks._spliceai_compare import markdown

SEED = 31
PLANS = (("full windows", False, "fp32"), ("incremental", True, "fp32"), ("incremental, bf16", True, "bf16"))
HEADER = ("plan", "variants", "pairs", "CPU s a pair", "fewer than SpliceAI", "wall s a pair, 2 cores", "faster")


@dataclass(frozen=True)
class Layout:
    """How variants lie; `records_per_shard` gives each of two workers its share in few, large shards."""

    name: str
    inputs: runs.Inputs
    records_per_shard: int


@dataclass(frozen=True)
class Pace:
    """Seconds a pair: CPU of one worker, wall of two."""

    pairs: int
    cpu_s: float
    wall_s: float


def layouts(genome: variants.Genome, folder: Path, *, quick: bool) -> list[Layout]:
    """The three, written below the folder."""
    share = 10 if quick else 1
    sets = {
        "lone": (real.lone_sites(genome, SEED, num=12 if quick else 60), 6),
        "one per 500 bases": (real.spaced_sites(genome, SEED, num=1_000 // share), 500 // share),
        "all SNVs of a stretch": (real.all_snvs(genome, num=1_500 // share), 750 // share),
    }
    made = []
    for number, (name, (sites, per_shard)) in enumerate(sets.items()):
        made.append(Layout(name, write(name, genome, sites, folder / f"timed-{number}"), per_shard))
    return made


def write(name: str, genome: variants.Genome, sites: Sequence[variants.Site], folder: Path) -> runs.Inputs:
    """A set on the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    reference, genes = variants.write_genome(genome, folder)
    vcf = folder / "in.vcf"
    placed = variants.write_vcf(vcf, genome, sites)
    return runs.Inputs(name, genome, placed, vcf, reference, genes)


def peer_pace(peer: runs.Peer, lone: runs.Inputs, folder: Path, *, num: int) -> Pace:
    """The tool as its users run it, with as many threads as it takes; its cost does not depend on neighbours."""
    sizes = {}
    for size in (2, num):
        some = write("peer", lone.genome, lone.sites[:size], folder / f"peer-{size}")
        command = peer.command(some, some.vcf.with_name("out.vcf"), distance=50, mask=0)
        sizes[size] = runs.timed(command, log=some.vcf.with_name("log"), env=runs.peer_env())
        pairs = sum(len(entries) for _, entries in runs.read_peer_vcf(some.vcf.with_name("out.vcf")))
        assert pairs == size
    cost = sizes[num].less(sizes[2], per=num - 2)
    return Pace(num, cost.cpu_s, cost.wall_s)


def engine_pace(model: Path, layout: Layout, folder: Path, options: runs.EngineOptions) -> Pace:
    """Ours: CPU by one worker, wall by two."""
    small = write("small", layout.inputs.genome, layout.inputs.sites[:2], folder / "small")
    costs, pairs = {}, 0
    for workers in (1, 2):
        chosen = replace(options, workers=workers)
        out = folder / "run"
        first = runs.run_engine(model, small, out, replace(chosen, records_per_shard=1))
        least = len(runs.read_engine(out).answers)
        whole = runs.run_engine(model, layout.inputs, out, replace(chosen, records_per_shard=layout.records_per_shard))
        pairs = len(runs.read_engine(out).answers)
        costs[workers] = whole.less(first, per=pairs - least)
    return Pace(pairs, costs[1].cpu_s, costs[2].wall_s)


def first_of(layout: Layout, num: int, folder: Path) -> Layout:
    """A shorter set of the same kind, for slow plans."""
    if len(layout.inputs.sites) <= num:
        return layout
    some = write(layout.name, layout.inputs.genome, layout.inputs.sites[:num], folder)
    return Layout(layout.name, some, num // 2)


def lines(peer: runs.Peer, genome: variants.Genome, work: Path, *, quick: bool) -> Iterator[str]:
    """The table of costs, then what the device stage reaches, as Markdown."""
    folder = work / "speed"
    made = layouts(genome, folder, quick=quick)
    lone = made[0]
    num = min(len(lone.inputs.sites), 8 if quick else 24)
    early = peer_pace(peer, lone.inputs, folder, num=num)
    rows: list[tuple[str, Layout, Pace]] = []
    full, cones = runs.EngineOptions(incremental=False), runs.EngineOptions()
    for layout in made:
        short = first_of(layout, 12 if quick else 40, folder / "short")
        rows.append(("full windows", layout, engine_pace(peer.model, short, folder, full)))
        rows.append(("incremental", layout, engine_pace(peer.model, layout, folder, cones)))
    late = peer_pace(peer, lone.inputs, folder, num=num)
    mean = Pace(2 * num, (early.cpu_s + late.cpu_s) / 2, (early.wall_s + late.wall_s) / 2)
    yield (
        f"Cost of N pairs less that of 2, over N - 2. SpliceAI was timed before and after: CPU {early.cpu_s:.2f} and "
        f"{late.cpu_s:.2f} s a pair, wall {early.wall_s:.2f} and {late.wall_s:.2f}; the mean stands here."
    )
    table = [["SpliceAI", "lone", mean.pairs, f"{mean.cpu_s:.3f}", "1", f"{mean.wall_s:.3f}", "1"]]
    table += [[plan, layout.name, *_columns(pace, mean)] for plan, layout, pace in rows]
    yield "\n" + markdown(HEADER, table)
    yield "\nThe device stage alone, one thread, the convolutions of cones counted as they were run:\n"
    yield markdown(
        ("plan", "variants", "pairs", "CPU s a pair", "GFLOP a pair", "GFLOP/s"),
        [_stage_row(peer.model, layout, plan, folder) for layout in made for plan in PLANS],
    )


def _columns(pace: Pace, peer: Pace) -> list[object]:
    ratios = f"{peer.cpu_s / pace.cpu_s:.1f}x", f"{peer.wall_s / pace.wall_s:.1f}x"
    return [pace.pairs, f"{pace.cpu_s:.3f}", ratios[0], f"{pace.wall_s:.3f}", ratios[1]]


def _stage_row(model: Path, layout: Layout, plan: tuple[str, bool, str], folder: Path) -> list[object]:
    name, incremental, precision = plan
    short = first_of(layout, 300 if incremental else 40, folder / "stage")
    facts = {
        "vcf": str(short.inputs.vcf),
        "reference": str(short.inputs.reference),
        "genes": str(short.inputs.genes),
        "model": str(model),
        "precision": precision,
        "incremental": incremental,
    }
    command = [sys.executable, "-m", "benchmarks.spliceai", "stage", json.dumps(facts)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=runs.ROOT, env=environment)
    found = json.loads(done.stdout.splitlines()[-1])
    cpu, products = found["cpu_s"], found["multiply_adds"]
    counted = ["", ""] if products == 0 else [2 * products / found["pairs"] / 1e9, 2 * products / cpu / 1e9]
    texts = [one if one == "" else f"{one:.1f}" for one in counted]
    return [name, layout.name, found["pairs"], f"{cpu / found['pairs']:.3f}", *texts]


def stage(facts: dict[str, Any]) -> dict[str, Any]:
    """Score one set in this process; CPU seconds of the device stage after it has scored two variants once."""
    import time

    from engine.io.source import Shard
    from engine.io.variants import open_variants
    from engine.scoring._variant_stages import VariantStages

    stages = VariantStages(
        input_path=facts["vcf"],
        reference_path=facts["reference"],
        genes_path=facts["genes"],
        model=facts["model"],
        params={"compatibility": runs.PEER_MODE},
        precision=facts["precision"],
        incremental=facts["incremental"],
    )
    read, score = stages.open_reader(), stages.open_scorer()
    source = open_variants(facts["vcf"])

    def batches(per_shard: int) -> Iterator[Any]:
        shards: Sequence[Shard] = source.scan(records_per_shard=per_shard, bytes_per_shard=32 << 20).shards
        return map(read, shards)

    score(next(batches(2)))
    batch = next(batches(100_000))
    before, began = score.predictor.cone_multiply_adds, time.process_time()
    output = score(batch)
    cpu = time.process_time() - began
    products = score.predictor.cone_multiply_adds - before
    return {"pairs": output.states["scored"], "cpu_s": cpu, "multiply_adds": products}
