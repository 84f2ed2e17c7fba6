"""Bases as tokens, and alleles applied to a window with genome coordinates kept.

Shape letters: L window bases, E bases of the edited window (L plus inserted minus deleted), C channels.
Tokens are uint8: A=0, C=1, G=2, T=3, and N=4 for everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import overload

import numpy as np
from numpy.typing import NDArray

from engine.errors import DataError
from engine.genome.variants import trim

BASES = "ACGTN"
N_TOKEN = 4

_TOKEN_OF_BYTE = np.full(256, N_TOKEN, dtype=np.uint8)
for _code, _base in enumerate("ACGT"):
    _TOKEN_OF_BYTE[ord(_base)] = _TOKEN_OF_BYTE[ord(_base.lower())] = _code
_BYTE_OF_TOKEN = np.frombuffer(BASES.encode(), dtype=np.uint8)
_TOKEN_COMPLEMENT = np.array([3, 2, 1, 0, 4], dtype=np.uint8)
_TEXT_COMPLEMENT = str.maketrans("ACGTRYKMBVDHacgtrykmbvdh", "TGCAYRMKVBHDtgcayrmkvbhd")

Tokens = NDArray[np.uint8]


def tokens_from_text(text: str) -> Tokens:
    """Tokens (L,) of a sequence in any case; IUPAC letters and anything else become N."""
    return _TOKEN_OF_BYTE[np.frombuffer(text.encode("latin-1", "replace"), dtype=np.uint8)]


def text_from_tokens(tokens: Tokens) -> str:
    """Upper-case text of tokens (L,)."""
    return _BYTE_OF_TOKEN[tokens].tobytes().decode("ascii")


@overload
def reverse_complement(sequence: str) -> str: ...
@overload
def reverse_complement(sequence: Tokens) -> Tokens: ...
def reverse_complement(sequence: str | Tokens) -> str | Tokens:
    """The other strand, read in its own direction: text (case and IUPAC kept) or tokens (..., L)."""
    if isinstance(sequence, str):
        return sequence.translate(_TEXT_COMPLEMENT)[::-1]
    return np.ascontiguousarray(_TOKEN_COMPLEMENT[sequence][..., ::-1])


@dataclass(frozen=True, slots=True)
class EditedWindow:
    """A window with alleles applied.

    Attributes:
        tokens: uint8 (E,).
        positions: int64 (E,), the 0-based reference coordinate each base stands on, never decreasing. Bases of REF
            and ALT are paired from the left; a surplus ALT base stands on the last paired base, and an inserted
            base on the base before it. Deleted coordinates do not occur.
    """

    tokens: Tokens
    positions: NDArray[np.int64]


def apply_alleles(tokens: Tokens, start: int, alleles: Sequence[tuple[int, str, str]]) -> EditedWindow:
    """Put alleles of one copy of the genome into a window, keeping coordinates.

    Each allele is trimmed first (suffix, then prefix), so two records that share only an anchor base do not clash.
    Bases whose coordinate falls outside the window are left out: a window never grows at its edges.

    Args:
        tokens: reference tokens (L,) of the window.
        start: 0-based coordinate of its first base.
        alleles: (0-based start, REF, ALT), in any order; REF is not compared with the window.

    Raises:
        DataError: two alleles change the same base, or insert at the same place.
    """
    end = start + len(tokens)
    pieces: list[Tokens] = []
    places: list[NDArray[np.int64]] = []
    done = start
    for at, num_ref, alt in _trimmed(alleles):
        low, high = min(max(at, done), end), min(max(at + num_ref, start), end)
        pieces.append(tokens[done - start : low - start])
        places.append(np.arange(done, low, dtype=np.int64))
        where = _paired(at, num_ref, len(alt))
        inside = (where >= start) & (where < end)
        pieces.append(alt[inside])
        places.append(where[inside])
        done = max(done, high)
    pieces.append(tokens[done - start :])
    places.append(np.arange(done, end, dtype=np.int64))
    return EditedWindow(np.concatenate(pieces), np.concatenate(places))


def _trimmed(alleles: Sequence[tuple[int, str, str]]) -> list[tuple[int, int, Tokens]]:
    """(start, REF bases, ALT tokens) in order, checked to be disjoint; alleles that change nothing are left out."""
    edits: list[tuple[int, int, Tokens]] = []
    for at, ref, alt in alleles:
        shift, short_ref, short_alt = trim(ref, alt)
        if short_ref or short_alt:
            edits.append((at + shift, len(short_ref), tokens_from_text(short_alt)))
    edits.sort(key=lambda edit: (edit[0], edit[1]))
    for (at, num_ref, _), (next_at, next_num, _) in pairwise(edits):
        if next_at < at + num_ref or (next_at == at and num_ref == next_num == 0):
            raise DataError(
                f"alleles at {at + 1} and {next_at + 1} change the same place of one copy",
                fix="apply one of them, or put them on different copies",
            )
    return edits


def _paired(at: int, num_ref: int, num_alt: int) -> NDArray[np.int64]:
    """The coordinate of each ALT base: paired from the left, surplus on the last pair (insertions: base before)."""
    return np.minimum(np.arange(at, at + num_alt, dtype=np.int64), at + num_ref - 1)


def onto_reference(
    values: NDArray[np.float32], positions: NDArray[np.int64], *, start: int, end: int, fill: float = 0.0
) -> NDArray[np.float32]:
    """Bring per-base values of an edited window back onto reference coordinates [start, end).

    Where several bases stand on one coordinate the channel-wise maximum is taken; deleted coordinates get `fill`
    (Jaganathan et al. 2019, as SpliceAI 1.3.1 does it).

    Args:
        values: float32 (C, E).
        positions: int64 (E,), never decreasing, as of EditedWindow.

    Returns:
        float32 (C, end - start).
    """
    out = np.full((values.shape[0], end - start), fill, dtype=np.float32)
    low, high = np.searchsorted(positions, [start, end])
    if low == high:
        return out
    inside = positions[low:high]
    firsts = np.flatnonzero(np.concatenate(([True], inside[1:] != inside[:-1])))
    out[:, inside[firsts] - start] = np.maximum.reduceat(values[:, low:high], firsts, axis=1)
    return out
