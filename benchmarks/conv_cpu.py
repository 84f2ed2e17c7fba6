"""How close the SpliceAI-10k network runs to the machine's own peak, on one CPU thread.

    python -m benchmarks.conv_cpu

Every line is arithmetic done divided by CPU time (the best of several runs, lines taken in turns), beside the matrix
product `torch.mm` and the largest plain convolution of the same run. Arithmetic counts the valid convolutions alone:
normalisations, nonlinearities and additions cost time and count nothing. On some processors the library behind
`torch.mm` uses narrower vectors than the one behind convolutions, so that more than 100% of it is possible; the plain
convolution is then the nearer bound for float32.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # also as `python benchmarks/conv_cpu.py`

from engine.encoders.one_hot import OneHot, OneHotParams
from engine.models.dilated_conv import DilatedConv, DilatedConvParams, multiply_adds, spliceai_params

WINDOW_BP = 10_101
SEED = 20
ROUNDS = 7
MINI = DilatedConvParams(
    stem_width=11, blocks=((5, 1), (5, 2), (5, 4), (5, 8)), skip_every=0, head_width=15, norm="none"
)


@dataclass(frozen=True)
class Line:
    """One thing timed: `run` does `flop` floating-point operations."""

    name: str
    flop: float
    run: Callable[[], object]


def channels_last(module: torch.nn.Module) -> torch.nn.Module:
    """The memory format that convolutions of the product run in."""
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def matrix_product(size: int) -> Line:
    one, other = torch.randn(size, size), torch.randn(size, size)
    return Line(f"torch.mm {size}", 2.0 * size**3, lambda: torch.mm(one, other))


def plain_convolution(channels: int, length: int, width: int) -> Line:
    conv = channels_last(torch.nn.Conv2d(channels, channels, (1, width)))
    x = torch.randn(1, channels, 1, length).contiguous(memory_format=torch.channels_last)
    flop = 2.0 * channels * channels * width * (length - width + 1)
    return Line(f"plain convolution {channels} channels, width {width}", flop, lambda: conv(x))


def network(name: str, params: DilatedConvParams, *, batch: int, length: int, precision: str = "fp32") -> Line:
    model = channels_last(DilatedConv(params).eval().for_inference())
    tokens = torch.randint(0, 4, (batch, length), dtype=torch.uint8)
    encoder = OneHot(OneHotParams())

    def run() -> object:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            return model(encoder.tensor(tokens))

    flop = 2.0 * batch * multiply_adds(params, length=length)
    return Line(f"{name} {precision}, {batch} x {length} bp", flop, run)


def best_seconds(lines: list[Line]) -> list[float]:
    """Least CPU time of each line; lines take turns so that a busy moment hurts all alike."""
    best = [float("inf")] * len(lines)
    for _ in range(ROUNDS):
        for number, line in enumerate(lines):
            begun = time.process_time()
            line.run()
            best[number] = min(best[number], time.process_time() - begun)
    return best


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    big = spliceai_params(10_000)
    lines = [
        matrix_product(1024),
        matrix_product(2048),
        plain_convolution(128, 8192, 11),
        *(network("SpliceAI-10k", big, batch=batch, length=WINDOW_BP) for batch in (1, 3, 8, 32)),
        network("SpliceAI-10k", big, batch=3, length=WINDOW_BP, precision="bf16"),
        network("small site network", MINI, batch=64, length=345),
    ]
    with torch.inference_mode():
        seconds = best_seconds(lines)
    rates = [line.flop / taken for line, taken in zip(lines, seconds, strict=True)]
    product, convolution = max(rates[:2]), rates[2]
    print(f"torch {torch.__version__}, one thread, best of {ROUNDS}\n")
    print(f"{'':46} {'GFLOP/s':>8} {'of torch.mm':>12} {'of plain conv':>14}")
    for line, rate in zip(lines, rates, strict=True):
        print(f"{line.name:46} {rate / 1e9:8.1f} {rate / product:12.0%} {rate / convolution:14.0%}")


if __name__ == "__main__":
    main()
