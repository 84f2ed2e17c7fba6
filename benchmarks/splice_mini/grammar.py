"""Counted, not trained: first-order position weight matrices of both sites, and a hexamer table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.splice_mini.data import Indices, SiteSet
from engine.models.splice_grammar import HEXAMERS, SpliceGrammar, SpliceGrammarParams, set_hexamers, set_matrix

Floats = NDArray[np.float64]
_PSEUDO_COUNT = 1.0
_HEXAMER_PSEUDO_COUNT = 5.0


def fill_grammar(model: SpliceGrammar, human: SiteSet, exon_species: Sequence[SiteSet]) -> None:
    """Set both matrices from human sites and the hexamers from exons and introns near the sites of some species."""
    params: SpliceGrammarParams = model.params
    for site, sites, span in (
        ("acceptor", human.acceptors, params.acceptor_span),
        ("donor", human.donors, params.donor_span),
    ):
        base, pair = first_order_matrix(human.tokens, sites, human.others, span)
        set_matrix(model, site, torch.from_numpy(base).float(), pair_PW=torch.from_numpy(pair).float())
    set_hexamers(model, torch.from_numpy(hexamer_log_ratios(exon_species)).float())


def first_order_matrix(
    tokens: NDArray[np.uint8], sites: Indices, background: Indices, span: tuple[int, int]
) -> tuple[Floats, Floats]:
    """Log-odds of sites against random positions: bases (4, W), and corrections for the base before (16, W - 1).

    The background is bases drawn anywhere, not GT and AG look-alikes: against those a lost GT would raise the score.
    """
    found = np.stack([_pair_counts(tokens, sites + at) for at in range(*span)])
    anywhere = _pair_counts(tokens, background)[None]
    odds = _marginals(found) - _marginals(anywhere)
    given = _conditionals(found) - _conditionals(anywhere)
    return odds.T, (given - odds[:, None, :])[1:].reshape(-1, 16).T


def _pair_counts(tokens: NDArray[np.uint8], at: Indices) -> Floats:
    """(4, 4) counts of (base before, base) at the positions, pairs with an N left out."""
    before, here = tokens[at - 1].astype(int), tokens[at].astype(int)
    known = (before < 4) & (here < 4)
    return np.bincount(before[known] * 4 + here[known], minlength=16).reshape(4, 4).astype(np.float64)


def _marginals(counts: Floats) -> Floats:
    """(W, 4, 4) counts -> (W, 4) log-probabilities of the base."""
    total = counts.sum(axis=1) + _PSEUDO_COUNT
    return np.log(total / total.sum(axis=1, keepdims=True))


def _conditionals(counts: Floats) -> Floats:
    """(W, 4, 4) counts -> (W, 4, 4) log-probabilities of the base given the one before, shrunk to the marginal."""
    shrunk = counts + 4 * _PSEUDO_COUNT * np.exp(_marginals(counts))[:, None, :]
    return np.log(shrunk / shrunk.sum(axis=2, keepdims=True))


def hexamer_log_ratios(species: Sequence[SiteSet]) -> Floats:
    """(4096,) log of a hexamer's frequency in exons over that in introns, both near sites."""
    counts = np.full((2, HEXAMERS), _HEXAMER_PSEUDO_COUNT)
    for sites in species:
        for row, spans in enumerate((sites.exonic, sites.intronic)):
            for start, end in spans:
                counts[row] += _hexamers(sites.tokens[start:end])
    frequency = counts / counts.sum(axis=1, keepdims=True)
    return np.log(frequency[0]) - np.log(frequency[1])


def _hexamers(tokens: NDArray[np.uint8]) -> Floats:
    """(4096,) counts of the hexamers of a stretch, those with an N left out."""
    if len(tokens) < 6:
        return np.zeros(HEXAMERS)
    words = np.lib.stride_tricks.sliding_window_view(tokens, 6)
    known = words[(words < 4).all(axis=1)].astype(int)
    return np.bincount(known @ 4 ** np.arange(5, -1, -1), minlength=HEXAMERS).astype(np.float64)
