"""DeepLIFT with the rescale rule (Shrikumar, Greenside and Kundaje 2017, arXiv 1704.02685), by captum.

captum stacks inputs on baselines, takes the gradient and multiplies it by their difference; the rules for functions
that are no modules are in `_deeplift_rules.py`. All values of a sequence sum to the difference of the outputs, but for
rounding; a position's contribution is their sum over the letters. Of several baselines the mean is given, as DeepLIFT
recommends for shuffles.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.errors import InputError
from engine.interpret._attribution import Attribution, captum_attr
from engine.interpret._baselines import Baseline
from engine.interpret._deeplift_rules import FunctionRules
from engine.interpret._target import Target
from engine.interpret.integrated_gradients import finished

RESULT_VERSION = 1


def check(target: Target) -> None:
    """Refuse networks with parts that have no rule.

    Raises:
        InputError: a recurrent layer.
    """
    for module in target.members.modules():
        if isinstance(module, nn.RNNBase):
            what = f"DeepLIFT has no rule for {type(module).__name__} layers"
            fix = "use integrated_gradients or mutagenesis"
            raise InputError(what, where=f"model {target.info.name}", fix=fix)


class _Ruled(nn.Module):
    """What captum hooks: a target whose functions follow the rules."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self._target = target

    def forward(self, x: Tensor) -> Tensor:
        with FunctionRules():
            return self._target(x)


def attribute(target: Target, tokens_L: NDArray[np.uint8], *, record: int, baseline: Baseline) -> Attribution:
    """See the module; a softened target that `check` has passed. Arguments as of integrated_gradients.

    Raises:
        InputError: captum is not installed.
    """
    method = captum_attr().DeepLift(_Ruled(target))
    x, base = target.letters_input(tokens_L[None]), baseline.inputs(target, tokens_L, record=record)
    x = x.expand(len(base), -1, -1).contiguous()
    found = []
    for channel in range(len(target.question.channels)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that it sets hooks
            values = method.attribute(x, baselines=base, target=channel)
        found.append(values.detach().double().mean(dim=0))
    return finished(target, torch.stack(found), x, base)
