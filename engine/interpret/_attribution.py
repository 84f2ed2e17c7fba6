"""What every method gives of one sequence, and the words all share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Attribution:
    """Attributes:
    values: (K, A, L) float32, by letter; what they say is the method's.
    contributions: (K, L) float32: what the letter that stands there contributes to the output.
    output: (K,) the explained number.
    baseline: (K,) of the baseline, the mean over several; NaN for methods without one.
    """

    values: Floats
    contributions: Floats
    output: Floats
    baseline: Floats

    def error(self) -> Floats:
        """(K,) sum of contributions less the difference of output and baseline: 0 but for the method's error."""
        total = self.contributions.astype(np.float64).sum(axis=1)
        found: Floats = (total - (self.output.astype(np.float64) - self.baseline)).astype(np.float32)
        return found

    def averaged(self, other: Attribution) -> Attribution:
        """The mean with that of the reverse complement, whose letters are A, C, G and T too, mapped back."""
        half = np.float32(0.5)
        return Attribution(
            (self.values + other.values[:, ::-1, ::-1]) * half,
            (self.contributions + other.contributions[:, ::-1]) * half,
            (self.output + other.output) * half,
            (self.baseline + other.baseline) * half,
        )


def captum_attr() -> Any:
    """The module captum.attr.

    Raises:
        InputError: captum is not installed.
    """
    try:
        import captum.attr
    except ImportError as error:
        fix = "pip install 'replisome[explain]', or choose the method mutagenesis"
        raise InputError("this method needs captum, which is not installed", where="method", fix=fix) from error
    return captum.attr
