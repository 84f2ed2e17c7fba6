"""What the bootstrap of an evaluation draws whole: what a split file never parts, a column's values, or single rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.errors import InputError
from engine.scoring._metrics import Ints
from engine.training._metrics import clusters_of
from engine.training._split_table import SplitTable

SPLIT, ROWS = "split", "rows"
WORDS = (SPLIT, ROWS)
# Intervals of fewer groups than this are told to say little.
_FEW = 10
_UNITS = {"group": "groups", "contig": "contigs", "similarity": "clusters of like sequences"}


def drawn_by(asked: str | None, splits: SplitTable | None, *, where: str) -> str | None:
    """What is drawn whole: split, a column of the set, or None for single rows.

    Raises:
        InputError: split is asked for, and the file does not say what it never parted.
    """
    if asked not in (None, SPLIT):
        return None if asked == ROWS else asked
    if splits is not None and splits.units is not None:
        return SPLIT
    if splits is not None and splits.grouped_by:
        return splits.grouped_by
    if asked == SPLIT:
        how = f" (method {splits.method})" if splits is not None and splits.method else ""
        fix = "make it anew by group, contig or similarity, or name a column"
        raise InputError(f"the split file does not say which rows stay together{how}", where=where, fix=fix)
    return None


def column_of(cluster: str | None) -> str | None:
    """The column of the judged rows that tells what is drawn."""
    return "record" if cluster == SPLIT else cluster


def clusters_by(cluster: str | None, values: Sequence[Any], splits: SplitTable | None) -> Ints | None:
    """(N,) what is drawn together, of the values of `column_of`; None draws single rows."""
    if cluster is None:
        return None
    if cluster == SPLIT and splits is not None:
        values = splits.units_of(np.array(values, np.int64))
    return clusters_of([None if value is None else str(value) for value in values])


def drawn_text(clusters: Ints | None, cluster: str | None, splits: SplitTable | None, *, noun: str) -> str:
    """What the intervals draw, such as "37 whole contigs, as the split file keeps them".

    Args:
        clusters: (N,) of `clusters_by`.
        cluster: of `drawn_by`.
        splits: the split file.
        noun: what a row is called, in the plural.
    """
    if cluster is None:
        return f"single {noun}"
    if clusters is None:
        why = "all are of one unit of the split file" if cluster == SPLIT else f"they have no two values of {cluster}"
        return f"single {noun}, as {why}"
    num = len(np.unique(clusters))
    few = " (so few say little)" if num < _FEW else ""
    if cluster != SPLIT:
        return f"{num:,} whole values of {cluster}{few}"
    return f"{num:,} whole {_units(splits)}, as the split file keeps them{few}"


def cautions(asked: str | None, splits: SplitTable | None) -> list[str]:
    """Where something else is drawn whole than what the split file keeps together."""
    if splits is None or not splits.keeps_together or asked in (None, SPLIT, splits.column or SPLIT):
        return []
    what = "single rows" if asked == ROWS else f"whole values of {asked}"
    why = f"the intervals draw {what}, while the split file keeps {_units(splits)} together"
    return [f"{why}: rows of one may not be independent, and the intervals too narrow (--cluster split draws those)"]


def _units(splits: SplitTable | None) -> str:
    return _UNITS.get("" if splits is None else splits.method, "groups")
