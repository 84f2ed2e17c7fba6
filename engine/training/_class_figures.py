"""Figures of each class from counts (K, K), truth in rows and what was told in columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.scoring._metrics import Floats


def _share(part_K: Floats, whole_K: Floats) -> Floats:
    """0 where there is no whole, as is the custom."""
    return np.divide(part_K, whole_K, out=np.zeros_like(part_K), where=whole_K > 0)


def precision(counts_KK: Floats) -> Floats:
    """(K,)."""
    return _share(np.diag(counts_KK), counts_KK.sum(axis=0))


def recall(counts_KK: Floats) -> Floats:
    """(K,)."""
    return _share(np.diag(counts_KK), counts_KK.sum(axis=1))


def f1(counts_KK: Floats) -> Floats:
    """(K,)."""
    return _share(2 * np.diag(counts_KK), counts_KK.sum(axis=0) + counts_KK.sum(axis=1))


def jaccard(counts_KK: Floats) -> Floats:
    """(K,) intersection over union."""
    hits_K = np.diag(counts_KK)
    return _share(hits_K, counts_KK.sum(axis=0) + counts_KK.sum(axis=1) - hits_K)


def macro_of(figure: Any) -> Any:
    """Mean over the classes that are true or predicted somewhere."""

    def of(counts_KK: Floats) -> float:
        seen_K = counts_KK.sum(axis=0) + counts_KK.sum(axis=1) > 0
        return float(figure(counts_KK)[seen_K].mean()) if seen_K.any() else float("nan")

    return of


def second_of(figure: Any) -> Any:
    """Of the positive one of two; no value where it is neither true nor predicted anywhere."""

    def of(counts_KK: Floats) -> float:
        return float(figure(counts_KK)[1]) if counts_KK[1].sum() + counts_KK[:, 1].sum() > 0 else float("nan")

    return of
