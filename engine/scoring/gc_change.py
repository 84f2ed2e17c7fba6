"""Change of the share of G and C between REF and ALT: a scorer without a model, for trying a pipeline out.

Everything around the model runs as it does for a real scorer, so it shows what that costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from engine.genome.windows import tokens_from_text
from engine.models._info import ModelInfo
from engine.scoring._contract import (
    AlleleRow,
    Fetch,
    InfoField,
    Prepared,
    ScoringUnit,
    SkippedAllele,
    Tokens,
    Track,
    float_text,
)
from schemas.tables import field


@dataclass(frozen=True)
class GcChangeParams:
    """No parameters."""


class GcChange:
    """See the module's docstring; a letter that is no base counts as neither."""

    Params = GcChangeParams
    RESULT_VERSION = 1
    needs_model = False
    needs_genes = False
    written_letters = False
    info_keys: tuple[str, ...] = ()
    copy_reach = 0
    heads: tuple[str, ...] = ()
    fields: tuple[pa.Field, ...] = (field("gc_change", pa.float32(), "share of G and C in ALT less that in REF"),)
    info_fields = (InfoField("RPL_GC_CHANGE", "A", "Float", "Share of G and C in ALT less that in REF"),)

    def __init__(self, params: GcChangeParams, info: ModelInfo | None) -> None:
        del params, info

    def prepare(self, unit: ScoringUnit, fetch: Fetch) -> Prepared | SkippedAllele:
        """The score itself: there is nothing to ask a model."""
        del fetch
        return Prepared((), (_gc(unit.alt) - _gc(unit.ref),))

    def tokens(self, text: str) -> Tokens:
        """Tokens (L,), which this scorer never asks for."""
        return tokens_from_text(text)

    def score(self, prepared: Prepared, tracks: Sequence[Mapping[str, Track]]) -> tuple[Any, ...] | SkippedAllele:
        """(gc_change,)."""
        del tracks
        values: tuple[Any, ...] = prepared.reading
        return values

    def info_values(self, alleles: Sequence[Sequence[AlleleRow]]) -> list[tuple[str, list[str]]]:
        """RPL_GC_CHANGE."""
        return [("RPL_GC_CHANGE", [float_text(rows[0].values[0] if rows[0].values else None) for rows in alleles])]


def _gc(text: str) -> float:
    return (text.count("G") + text.count("C")) / len(text)


COMPONENT = GcChange
