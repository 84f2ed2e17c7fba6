"""Integrated gradients (Sundararajan, Taly and Yan 2017, arXiv 1703.01365), by captum.

Value (letter, position) is the input's difference from the baseline times the mean gradient on the straight way between
them, by Gauss-Legendre quadrature; of several baselines the mean. All values of a sequence sum to the difference of the
outputs, but for the quadrature's error; a position's contribution is their sum over the letters.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from engine.interpret._attribution import Attribution, captum_attr
from engine.interpret._baselines import Baseline
from engine.interpret._target import Target

RESULT_VERSION = 1


def attribute(
    target: Target, tokens_L: NDArray[np.uint8], *, record: int, baseline: Baseline, steps: int
) -> Attribution:
    """See the module; a softened target.

    Args:
        record: number of the record, of which shuffles take their seeds.
        baseline: what the sequence is compared with.
        steps: points of the quadrature.

    Raises:
        InputError: captum is not installed.
    """
    method = captum_attr().IntegratedGradients(target)
    x, base = target.letters_input(tokens_L[None]), baseline.inputs(target, tokens_L, record=record)
    x = x.expand(len(base), -1, -1)
    found = []
    for channel in range(len(target.question.channels)):
        values = method.attribute(
            x,
            baselines=base,
            target=channel,
            n_steps=steps,
            method="gausslegendre",
            internal_batch_size=max(target.micro_batch, len(base)),
        )
        found.append(values.detach().double().mean(dim=0))
    return finished(target, torch.stack(found), x, base)


def finished(target: Target, values: torch.Tensor, x: torch.Tensor, base: torch.Tensor) -> Attribution:
    """An attribution of values (K, A', L), whose rows behind the letters count for contributions alone."""
    with torch.no_grad():
        output, low = target(x[:1])[0], target(base).double().mean(dim=0)
    return Attribution(
        values[:, : len(target.letters)].float().cpu().numpy(),
        values.sum(dim=1).float().cpu().numpy(),
        output.cpu().numpy(),
        low.float().cpu().numpy(),
    )
