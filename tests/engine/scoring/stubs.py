"""A model in integers and units without a file: the same answer however it is computed, with plenty of ties."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from engine.genome.genes import Transcript
from engine.genome.windows import text_from_tokens
from engine.models._info import HeadInfo, ModelInfo
from engine.scoring._allele_windows import contrast_windows, gather_stretches
from engine.scoring._contract import Fetch, Prepared, Scorer, ScoringUnit

SPLICE = HeadInfo("splice", ("none", "acceptor", "donor"), "softmax", "stranded")
GRAMMAR = (
    HeadInfo("pwm", ("acceptor", "donor"), "identity", "stranded"),
    HeadInfo("hexamer", ("score",), "identity", "stranded"),
)
ROUNDS = (13, 11)


def model_info(context_bp: int, *heads: HeadInfo, **other: Any) -> ModelInfo:
    """A description without a folder."""
    return ModelInfo(
        name="stub",
        version="1",
        architecture="none",
        params={},
        encoder={},
        heads={head.name: head for head in heads or (SPLICE,)},
        context_bp=context_bp,
        members=1,
        licence="Apache-2.0",
        **other,
    )


def site_values(window: str) -> tuple[float, float]:
    """(acceptor, donor) of the middle of a window: sums of whole numbers over its letters, wrapped and halved."""
    sums = [0, 0]
    for number, letter in enumerate(window):
        code = "NACGT".index(letter)
        sums[0] += (number * 3 + 1) * code
        sums[1] += (number * number + 2) * code * code
    return tuple((one % rounds) / 16 for one, rounds in zip(sums, ROUNDS, strict=True))  # type: ignore[return-value]


def splice_track(window: str, context_bp: int) -> np.ndarray:
    """(3, L - context_bp) of the channels none, acceptor, donor."""
    places = range(len(window) - context_bp)
    values = np.array([site_values(window[at : at + context_bp + 1]) for at in places], dtype=np.float32)
    return np.stack([1 - values.sum(axis=1), values[:, 0], values[:, 1]])


def answer(scorer: Scorer, unit: ScoringUnit, fetch: Fetch, context_bp: int) -> Any:
    """What the scorer says of a unit, with `splice_track` for a model."""
    prepared = scorer.prepare(unit, fetch)
    if not isinstance(prepared, Prepared):
        return prepared
    tracks: list[Mapping[str, np.ndarray]] = [
        {"splice": splice_track(text, context_bp)} for text in window_texts(scorer, prepared, fetch, context_bp)
    ]
    return scorer.score(prepared, tracks)


def window_texts(scorer: Scorer, prepared: Prepared, fetch: Fetch, context_bp: int) -> list[str]:
    """The full windows of a prepared allele's contrasts, as text."""
    flank = context_bp // 2
    found = []
    for contrast in prepared.contrasts:
        (stretch,), _ = gather_stretches([contrast], lambda *span: scorer.tokens(fetch(*span)), flank=flank)
        found += [text_from_tokens(window) for window in contrast_windows(contrast, stretch, flank=flank)]
    return found


def fetch_from(text: str) -> Fetch:
    """A `fetch` on one contig, letters as they are, N outside."""

    def fetch(contig: str, start: int, end: int) -> str:
        assert contig == "c"
        return "".join(text[at] if 0 <= at < len(text) else "N" for at in range(start, end))

    return fetch


def clean(text: str) -> str:
    """As a reference is read: upper case, IUPAC letters as N."""
    return "".join(letter if letter in "ACGT" else "N" for letter in text.upper())


def transcript(
    exons: tuple[tuple[int, int], ...], strand: str = "+", *, span: tuple[int, int] | None = None
) -> Transcript:
    """A transcript on contig c; its span is that of its exons unless given."""
    start, end = span or (exons[0][0], exons[-1][1])
    return Transcript("T.1", "G", "SYM", "c", strand, start, end, exons, False, False, 0)
