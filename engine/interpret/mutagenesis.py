"""In-silico mutagenesis: every letter replaced by every other, one at a time.

As Zhou and Troyanskaya 2015 have it (DeepSEA, Nature Methods 12:931).

Value (letter, position) is the change of the output when that letter stands there; 0 for the letter that does. The
contribution of a position is minus the mean of its changes: how much the output falls when the letter goes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.interpret._attribution import Attribution
from engine.interpret._target import Target

RESULT_VERSION = 1


def attribute(target: Target, tokens_L: NDArray[np.uint8]) -> Attribution:
    """See the module; a target that was not softened."""
    letters, length = len(target.letters), len(tokens_L)
    tokens_AL = np.broadcast_to(np.arange(letters, dtype=np.uint8)[:, None], (letters, length))
    is_other_AL = tokens_AL != tokens_L
    letter_M, place_M = np.nonzero(is_other_AL)
    # In blocks, so that no more mutants than a few micro-batches are held.
    output_K = target.ask(tokens_L[None])[0]
    found_KM = np.empty((len(output_K), len(place_M)), np.float32)
    block = 16 * target.micro_batch
    for at in range(0, len(place_M), block):
        places, chosen = place_M[at : at + block], letter_M[at : at + block]
        mutants_BL = np.repeat(tokens_L[None], len(places), axis=0)
        mutants_BL[np.arange(len(places)), places] = chosen
        found_KM[:, at : at + block] = target.ask(mutants_BL).T
    values = np.zeros((len(output_K), letters, length), np.float32)
    values[:, letter_M, place_M] = found_KM - output_K[:, None]
    contributions = -values.sum(axis=1) / is_other_AL.sum(axis=0).astype(np.float32)
    return Attribution(values, contributions, output_K, np.full_like(output_K, np.nan))
