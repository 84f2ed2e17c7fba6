"""Full windows as SpliceAI runs them, full windows in batches, and incremental cones, on one device.

    python -m benchmarks.cones [--device cuda] [--members 5] [--pairs 8]

SpliceAI-10k networks with random weights, outputs 50 bases either side of an SNV, one strand. "padded" is the peer's
plan in plain torch: REF and ALT of every pair by themselves, 10,101 bases, every layer padded with zeros to as many.
The work goes through the in-process executor; the first shard of each run warms up and is not counted. The error is the
largest difference of any delta from full windows in full single precision on the CPU. On a CPU pairs per second are per
CPU second of one thread. Needs torch, numpy, pyarrow and safetensors only.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))  # also as `python benchmarks/cones.py`

from engine.encoders.one_hot import OneHot, OneHotParams
from engine.io.source import Scan, Shard
from engine.models._conv_stack import INPUT, ConvStack
from engine.models._folder import load_members
from engine.models._info import open_model
from engine.models.dilated_conv import spliceai_params
from engine.runtime.run import Execution, RunContext, open_run
from engine.runtime.stages import ShardOutput
from engine.scoring._allele_windows import contrast_windows, gather_stretches
from engine.scoring._contract import Contrast
from engine.scoring._predictor import Predictor, Question, numerics
from schemas import tables
from tests.toys.models import random_network

FLANK, DISTANCE = 5000, 50
SPACINGS = {"lone": 25_000, "one per 500 bases": 500, "every SNV": 0}
SHARDS = 3
_SEED = 3
SCHEMA = pa.schema([("shard", pa.int64()), ("pairs", pa.int64()), ("seconds", pa.float64()), ("gflop", pa.float64())])
Delta = list[np.ndarray]


def questions(spacing: int, pairs: int) -> list[Question]:
    """SNVs on made-up sequence, `spacing` bases apart; 0 takes all three of every base."""
    places = [FLANK + 1000 + (spacing * index if spacing else index // 3) for index in range(pairs)]
    tokens = np.random.default_rng(_SEED).integers(0, 4, places[-1] + FLANK + 1000, dtype=np.uint8)
    asked = []
    for index, at in enumerate(places):
        alt = bytes([(tokens[at] + 1 + index % 3) % 4])
        asked.append(Contrast("c", at - DISTANCE, at + DISTANCE + 1, at + DISTANCE + 1, ((at, 1, alt),)))
    stretches, held = gather_stretches(asked, lambda _, start, end: tokens[start:end], flank=FLANK)
    return [(one, stretches[place]) for one, place in zip(asked, held, strict=True)]


class Padded:
    """The peer's plan: one window after another through one network after another, each layer as long as the window."""

    def __init__(self, model: str, device: str) -> None:
        self._device = torch.device(device)
        members = [member.for_inference().to(self._device) for member in load_members(open_model(model))]
        self._stacks: list[ConvStack] = [member.conv_stack() for member in members]
        self._encoder = OneHot(OneHotParams())

    def deltas(self, asked: Sequence[Question]) -> Delta:
        """ALT less REF, (3, 101), of each question."""
        found = []
        for one in asked:
            ref, alt = (self._outputs(window) for window in contrast_windows(*one, flank=FLANK))
            found.append((alt - ref).cpu().numpy())
        return found

    def _outputs(self, window: np.ndarray) -> torch.Tensor:
        # PyTorch's own default takes TF32 in convolutions; the plans are compared in the arithmetic that is named.
        with torch.inference_mode(), numerics(self._device, "fp32"):
            x = self._encoder.tensor(torch.from_numpy(window[None].copy()).to(self._device)).unsqueeze(2)
            return torch.stack([self._network(stack, x) for stack in self._stacks]).mean(0)[0, :, FLANK:-FLANK]

    def _network(self, stack: ConvStack, x: torch.Tensor) -> torch.Tensor:
        cells: list[torch.Tensor] = []
        for layer in stack.layers:
            y = x if layer.source == INPUT else cells[layer.source]
            if layer.before is not None:
                y = layer.before(y, own=False)
            dilation, bias = layer.conv.dilation, layer.conv.bias
            y = F.conv2d(y, layer.conv.weight, bias, padding=(0, layer.halo), dilation=dilation)
            if layer.after is not None:
                y = layer.after(y)
            cells.append(y if layer.residual is None else y + cells[layer.residual])
        return stack.activate(cells[-1].squeeze(2))


class Planned:
    """The engine's plans: full windows in batches, or cones."""

    def __init__(self, model: str, device: str, precision: str, *, incremental: bool) -> None:
        self._predictor = Predictor(open_model(model), device=device, precision=precision, incremental=incremental)
        self._predictor._is_proven = True  # the proof is not what is timed

    def deltas(self, asked: Sequence[Question]) -> Delta:
        """ALT less REF, (3, 101), of each question."""
        tracks = self._predictor.contrast(asked)
        return [alt["splice"] - ref["splice"] for ref, alt in tracks]

    @property
    def gflop(self) -> float:
        """Counted where they ran; 0 for full windows."""
        return 2e-9 * self._predictor.cone_multiply_adds


@dataclass(frozen=True)
class Source:
    """One record a shard."""

    path: str = ""
    header: bytes = b""

    def scan(self, **_: object) -> Scan:
        shards = [Shard(i, i, i + 1, 1, i, "n", i, "n", i) for i in range(SHARDS)]
        return Scan(shards, SHARDS, "0" * 64, {"n": SHARDS})


@dataclass(frozen=True)
class Stages:
    """One shard is all pairs once."""

    model: str
    plan: str
    precision: str
    device: str
    spacing: int
    pairs: int

    def open_reader(self) -> Callable[[Shard], tuple[int, list[Question]]]:
        asked = questions(self.spacing, self.pairs)
        return lambda shard: (shard.shard, asked)

    def open_scorer(self) -> Callable[[tuple[int, list[Question]]], ShardOutput]:
        torch.set_num_threads(1)
        made = open_plan(self.plan, self.model, self.device, self.precision)
        clock = time.process_time if self.device == "cpu" else time.perf_counter

        def score(batch: tuple[int, list[Question]]) -> ShardOutput:
            shard, asked = batch
            gflop, began = getattr(made, "gflop", 0.0), clock()
            made.deltas(asked)
            row = [[shard], [len(asked)], [clock() - began], [getattr(made, "gflop", 0.0) - gflop]]
            table = pa.table(row, schema=SCHEMA)
            return ShardOutput(table, tables.REJECTS.empty_table(), None, 0, 1, {"scored": 1}, {})

        return score


def open_plan(plan: str, model: str, device: str, precision: str) -> Padded | Planned:
    """A plan by name, its networks on their device."""
    if plan == "padded":
        return Padded(model, device)
    return Planned(model, device, precision, incremental=plan == "cones")


def measured(stages: Stages, folder: Path) -> tuple[float, float]:
    """Pairs per second and TFLOP per second (0 where not counted), of all shards but the first."""
    with open_run(str(folder), job="cones", context=RunContext(progress="none")) as run:
        run.plan(Source(), records_per_shard=1, bytes_per_shard=1)
        run.freeze({"pairs": stages.pairs}, {})
        cuda = stages.device != "cpu"
        execution = Execution(executor="in-process", workers=1, num_devices=int(cuda))
        run.execute(stages, schema_name="cones", schema_version=1, execution=execution, max_reject_fraction=1.0)
    found = (pq.read_table(path) for path in sorted(folder.glob("data/*/part-*.parquet")))
    rows = [row for table in found for row in table.to_pylist() if row["shard"] > 0]
    seconds = sum(row["seconds"] for row in rows)
    return sum(row["pairs"] for row in rows) / seconds, sum(row["gflop"] for row in rows) / seconds / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    has_cuda = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if has_cuda else "cpu")
    parser.add_argument("--members", type=int, default=5 if has_cuda else 1)
    parser.add_argument("--pairs", type=int, default=256 if has_cuda else 6, help="pairs a shard")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cones-") as folder:
        model = str(Path(folder) / "model")
        random_network(model, spliceai_params(10_000), members=arguments.members)
        _table(arguments, model, Path(folder))


def _table(arguments: argparse.Namespace, model: str, folder: Path) -> None:
    cuda = arguments.device != "cpu"
    name = torch.cuda.get_device_name() if cuda else "CPU, one thread"
    work = f"{arguments.members} networks, {arguments.pairs} pairs a shard, seed {_SEED}"
    print(f"{name}, torch {torch.__version__}, {work}")
    print("| variants | plan | precision | pairs/s | against padded | TFLOP/s | largest error of a delta |")
    print("|---|---|---|---|---|---|---|", flush=True)
    precisions = ("fp32", "tf32", "bf16") if cuda else ("fp32", "bf16")
    rows = [("padded", "fp32"), *((plan, precision) for plan in ("windows", "cones") for precision in precisions)]
    for density, spacing in SPACINGS.items():
        judged = questions(spacing, 4)
        truth = open_plan("windows", model, "cpu", "fp32").deltas(judged)
        base = 0.0
        for plan, precision in rows:
            stages = Stages(model, plan, precision, arguments.device, spacing, arguments.pairs)
            rate, flop = measured(stages, folder / f"{density}-{plan}-{precision}")
            base = base or rate
            found = open_plan(plan, model, arguments.device, precision).deltas(judged)
            error = max(float(np.abs(one - other).max()) for one, other in zip(truth, found, strict=True))
            counted = f"{flop:.2f}" if flop else ""
            print(
                f"| {density} | {plan} | {precision} | {rate:,.2f} | {rate / base:.1f}x | {counted} | {error:.1e} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
