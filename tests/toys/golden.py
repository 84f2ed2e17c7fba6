"""Numbers fixed beside the version that makes them: a change of numbers has to raise RESULT_VERSION."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

TOLERANCE = 1e-6
TEXT = "ACGTTGCAAGGTCCATGACNGGTAAGTCAGATTACAGGTC"


def check(component: Any, version: int, found: Any, expected: Any, *, tolerance: float = TOLERANCE) -> None:
    """The component is at this version, and its toy numbers are those of the table.

    Where numbers change on purpose: raise RESULT_VERSION, then put both into the table anew.
    """
    assert version == component.RESULT_VERSION, "a new version needs its own numbers here"
    np.testing.assert_allclose(
        np.array(found, dtype=float), np.array(expected, dtype=float), rtol=0, atol=tolerance, equal_nan=True
    )


def filled(module: torch.nn.Module) -> torch.nn.Module:
    """Every tensor of a network by formula, so that no generator of random numbers stands between two machines."""
    with torch.no_grad():
        for number, (name, tensor) in enumerate(sorted(module.state_dict().items())):
            places = torch.arange(tensor.numel(), dtype=torch.float64)
            values = 0.5 * torch.sin(places * 1.7 + number)
            if name.endswith("variance"):
                values = 1 + values
            tensor.copy_(values.reshape(tensor.shape))
    return module.eval()
