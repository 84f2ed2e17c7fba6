"""Windows per second of the SpliceAI-10k network on one device, and what each precision costs in accuracy.

    python -m benchmarks.device_predictor [--device cuda] [--windows 256]

Random weights; inputs of 10,101 bases, 101 outputs each. The error is the largest difference of any probability from
full single precision on the CPU over a few windows. Needs torch, numpy and safetensors only.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # also as `python benchmarks/device_predictor.py`

from engine.models.dilated_conv import multiply_adds, spliceai_params
from engine.scoring._predictor import Predictor
from tests.toys.models import random_network

WINDOW_BP = 10_101
_JUDGED = 4
_SEED = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--windows", type=int, default=256 if torch.cuda.is_available() else 4)
    parser.add_argument("--micro-batch", type=int, default=64)
    arguments = parser.parse_args()
    params = spliceai_params(10_000)
    windows = list(np.random.default_rng(_SEED).integers(0, 4, (arguments.windows, WINDOW_BP), dtype=np.uint8))
    flop = 2.0 * multiply_adds(params, length=WINDOW_BP)
    name = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else "CPU"
    print(f"{name}, torch {torch.__version__}, {arguments.windows} windows of {WINDOW_BP:,} bp, seed {_SEED}")
    print("| precision | windows/s | TFLOP/s | largest error |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        info = random_network(folder + "/model", params)
        truth = Predictor(info).predict(windows[:_JUDGED])
        for precision in ("fp32", "tf32", "bf16"):
            predictor = Predictor(info, device=arguments.device, precision=precision, micro_batch=arguments.micro_batch)
            found = predictor.predict(windows[:_JUDGED])
            error = max(
                float(np.abs(one[head] - other[head]).max())
                for one, other in zip(truth, found, strict=True)
                for head in one
            )
            began = time.perf_counter()
            predictor.predict(windows)
            rate = len(windows) / (time.perf_counter() - began)
            print(f"| {precision} | {rate:,.1f} | {rate * flop / 1e12:.2f} | {error:.1e} |", flush=True)


if __name__ == "__main__":
    main()
