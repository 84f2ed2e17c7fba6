"""The plans that the table compares run in the same arithmetic and ask the same."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks import cones
from engine.models.dilated_conv import spliceai_params
from tests.toys.models import random_network


def test_the_padded_plan_runs_in_full_single_precision(tmp_path, monkeypatch):
    """PyTorch's own setting for convolutions on CUDA is TF32, which would make the peer's plan faster than it is."""
    monkeypatch.setattr(cones, "FLANK", 40)
    random_network(tmp_path / "model", spliceai_params(80), members=1)
    seen = []
    plain = cones.Padded._network

    def network(self, stack, x):
        seen.append((torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision))
        return plain(self, stack, x)

    monkeypatch.setattr(cones.Padded, "_network", network)
    before = torch.backends.cudnn.conv.fp32_precision
    asked = cones.questions(500, 3)
    padded = cones.open_plan("padded", str(tmp_path / "model"), "cpu", "fp32").deltas(asked)
    assert set(seen) == {("ieee", "ieee")} and before == torch.backends.cudnn.conv.fp32_precision
    windows = cones.open_plan("windows", str(tmp_path / "model"), "cpu", "fp32").deltas(asked)
    for one, other in zip(padded, windows, strict=True):
        assert np.abs(one - other).max() < 1e-5
