"""Bases as tokens, and alleles applied to a window with genome coordinates kept.

Shape letters: L window bases, E bases of the edited window (L plus inserted minus deleted), C channels.
Tokens are uint8: A=0, C=1, G=2, T=3, and N=4 for everything else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import overload

import numpy as np
from numpy.typing import NDArray

from engine.errors import DataError

BASES = "ACGTN"
N_TOKEN = 4

_TOKEN_OF_BYTE = np.full(256, N_TOKEN, dtype=np.uint8)
for _code, _base in enumerate("ACGT"):
    _TOKEN_OF_BYTE[ord(_base)] = _TOKEN_OF_BYTE[ord(_base.lower())] = _code
_BYTE_OF_TOKEN = np.frombuffer(BASES.encode(), dtype=np.uint8)
_TOKEN_COMPLEMENT = np.array([3, 2, 1, 0, 4], dtype=np.uint8)
_NO_TOKENS = np.empty(0, dtype=np.uint8)
_TEXT_COMPLEMENT = str.maketrans("ACGTRYKMBVDHacgtrykmbvdh", "TGCAYRMKVBHDtgcayrmkvbhd")

Tokens = NDArray[np.uint8]
Positions = NDArray[np.int64]


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


Replacement = tuple[int, int, Tokens]
"""What one copy of the genome has instead: (0-based start, bases of REF, tokens of ALT), written as it should pair.

Bases of REF and ALT are paired from the left. A surplus ALT base stands on the last paired base, and an insertion
without REF bases on the base before it; deleted coordinates do not occur.
"""


def edit_tokens(tokens: Tokens, start: int, edits: Sequence[Replacement]) -> Tokens:
    """Tokens (E,) of a window with the alleles of one copy of the genome put in.

    Bases whose coordinate falls outside the window are left out: a window never grows at its edges. REF is not
    compared with the window. Records that share no more than an anchor base are to be trimmed first.

    Args:
        tokens: reference tokens (L,) of the window.
        start: 0-based coordinate of its first base.
        edits: in any order.

    Raises:
        DataError: two edits change the same base, or insert at the same place.
    """
    pieces: list[Tokens] = []
    for low, high, _, alt in _pieces(start, start + len(tokens), edits):
        pieces += [tokens[low - start : high - start], alt]
    return np.concatenate(pieces)


def edit_positions(start: int, end: int, edits: Sequence[Replacement]) -> Positions:
    """The 0-based reference coordinate, int64 (E,), that each base of `edit_tokens` stands on; never decreasing.

    Args:
        start: 0-based coordinate of the window's first base.
        end: that of its end, exclusive.
        edits: as for `edit_tokens`, which raises the same.
    """
    pieces: list[Positions] = []
    for low, high, (at, last), alt in _pieces(start, end, edits):
        stand = np.arange(at, at + len(alt), dtype=np.int64)
        pieces += [np.arange(low, high, dtype=np.int64), np.minimum(stand, last)]
    return np.concatenate(pieces)


def _pieces(start: int, end: int, edits: Sequence[Replacement]) -> Iterator[tuple[int, int, tuple[int, int], Tokens]]:
    """The window from left to right: kept bases [low, high), then the ALT bases that follow.

    With them go the coordinate of the first and the last that any of them may stand on.
    """
    done = start
    for at, num_ref, alt in _in_order(edits):
        last = at + num_ref - 1
        skipped = max(0, start - at) if last >= start else len(alt)
        taken = len(alt) if last < end else max(0, end - at)
        yield done, min(max(at, done), end), (at + skipped, last), alt[skipped:taken]
        done = max(done, min(last + 1, end))
    yield done, end, (end, end), _NO_TOKENS


def _in_order(edits: Sequence[Replacement]) -> list[Replacement]:
    """By coordinate, checked to be disjoint."""
    if len(edits) < 2:
        return list(edits)
    ordered = sorted(edits, key=lambda edit: edit[:2])
    for (at, num_ref, _), (next_at, next_num, _) in pairwise(ordered):
        if next_at < at + num_ref or (next_at == at and num_ref == next_num == 0):
            raise DataError(
                f"alleles at {at + 1} and {next_at + 1} change the same place of one copy",
                fix="apply one of them, or put them on different copies",
            )
    return ordered


def onto_reference(
    values: NDArray[np.float32], positions: NDArray[np.int64], *, start: int, end: int, fill: float = 0.0
) -> NDArray[np.float32]:
    """Bring per-base values of an edited window back onto reference coordinates [start, end).

    Where several bases stand on one coordinate the channel-wise maximum is taken; deleted coordinates get `fill`
    (Jaganathan et al. 2019, as SpliceAI 1.3.1 does it).

    Args:
        values: float32 (C, E).
        positions: int64 (E,), never decreasing, as of `edit_positions`.

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
