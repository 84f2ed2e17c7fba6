"""Simple models of sequences, for a floor: linear ones on letters by place and counts of runs of letters.

Shape letters: N rows, F features, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Floor = Callable[[Sequence[str], Any, Any], Any]
"""(texts of all rows, truth (N,) of all rows, (N,) true where a row is tested) -> values of the tested rows (., K)."""
RIDGE = 300.0
_ITERATIONS = 1000


def dna_features(texts: Sequence[str]) -> Any:
    """(N, F) float32: letters by place, then counts of the 5-mers that are there."""
    codes_NL = _codes(texts, "ACGT")
    letters = [(codes_NL == code).astype(np.float32) for code in range(4)]
    return np.concatenate([*letters, _counts(codes_NL, 5, base=5)], axis=1)


def protein_features(texts: Sequence[str]) -> Any:
    """(N, F) float32: shares of letters and pairs of the whole, and of letters at either end (50 of them)."""
    alphabet = "ACDEFGHIKLMNPQRSTVWY"
    parts = []
    for width, cut in ((1, slice(None)), (2, slice(None)), (1, slice(0, 50)), (1, slice(-50, None))):
        codes_NL = _codes([text[cut] for text in texts], alphabet)
        parts.append(_counts(codes_NL, width, base=len(alphabet) + 1, unknown=len(alphabet)))
        parts[-1] /= np.maximum(1, parts[-1].sum(axis=1, keepdims=True))
        parts[-1] *= 20.0
    return np.concatenate(parts, axis=1)


def ridge(features: Callable[[Sequence[str]], Any]) -> Floor:
    """Ridge regression."""

    def values(texts: Sequence[str], truth_N: Any, tested_N: Any) -> Any:
        x_NF, y_N = features(texts), np.asarray(truth_N, dtype=np.float64)
        mean_F, mean = x_NF[~tested_N].mean(axis=0), y_N[~tested_N].mean()
        x_NF = x_NF - mean_F
        seen_NF = x_NF[~tested_N]
        square_FF = (seen_NF.T @ seen_NF).astype(np.float64) + RIDGE * np.eye(x_NF.shape[1])
        weights_F = np.linalg.solve(square_FF, seen_NF.T @ (y_N[~tested_N] - mean))
        return (x_NF[tested_N] @ weights_F + mean)[:, None]

    return values


def logistic(features: Callable[[Sequence[str]], Any], *, inverse_strength: float = 1.0) -> Floor:
    """Logistic regression of scikit-learn; `inverse_strength` is what it calls C."""

    def values(texts: Sequence[str], truth_N: Any, tested_N: Any) -> Any:
        from scipy.sparse import csr_array
        from sklearn.linear_model import LogisticRegression

        x_NF = csr_array(features(texts))
        model = LogisticRegression(C=inverse_strength, max_iter=_ITERATIONS)
        return model.fit(x_NF[~tested_N], truth_N[~tested_N]).predict_proba(x_NF[tested_N])

    return values


def _codes(texts: Sequence[str], alphabet: str) -> Any:
    """(N, L): places in the alphabet; its length for another letter and after the end."""
    codes_NL = np.full((len(texts), max(map(len, texts))), len(alphabet), dtype=np.int64)
    table = np.full(256, len(alphabet), dtype=np.int64)
    table[np.frombuffer(alphabet.encode(), dtype=np.uint8)] = np.arange(len(alphabet))
    for row, text in zip(codes_NL, texts, strict=True):
        row[: len(text)] = table[np.frombuffer(text.encode(), dtype=np.uint8)]
    return codes_NL


def _counts(codes_NL: Any, width: int, *, base: int, unknown: int | None = None) -> Any:
    """(N, words): how often each word that is there occurs; with `unknown`, none that has that letter."""
    length = codes_NL.shape[1]
    views = [codes_NL[:, at : length - width + 1 + at] for at in range(width)]
    words_NL = sum(view * base**at for at, view in enumerate(views))
    seen, place_NL = np.unique(words_NL, return_inverse=True)
    counts_NF = np.zeros((len(codes_NL), len(seen)), dtype=np.float32)
    np.add.at(counts_NF, (np.arange(len(codes_NL))[:, None], place_NL.reshape(words_NL.shape)), 1)
    if unknown is None:
        return counts_NF
    known = np.ones(len(seen), dtype=bool)
    for at in range(width):
        known &= seen // base**at % base != unknown
    return counts_NF[:, known]
