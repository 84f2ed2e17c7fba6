"""Toy models whose answers can be counted by hand, saved as model folders by code.

    base_counter(folder, width=5)     head "count", channels A, C, G, T, identity, "paired" (A-T, C-G): how often each
                                      base stands in the `width` bases around the output; context width - 1.
                                      The judge is `count_bases(text, width)`.
    splice_motifs(folder, context_bp=4)   head "splice", channels none, acceptor, donor, softmax, "stranded":
                                      acceptor where the two bases before hold AG (the output is the exon's first base),
                                      donor where the two bases after hold GT (the exon's last base). The probabilities
                                      are `splice_probabilities(ag, gt)`, for a window `splice_motif_scores(text)`.
    splice_grammar_toy(folder)        the same splice head, beside a "pwm" head (acceptor AG +2 nats per base matched,
                                      donor GT +3) and a "hexamer" head (table value = row number / 4096).
    random_network(folder, params)    any DilatedConv with seeded random weights, for tolerance tests.

Each gives the ModelInfo of the folder. `members` makes an ensemble; the members of the first two differ by a known
factor (member m counts (m + 1) times; member m has its logits multiplied by (m + 1)).
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from engine.genome.windows import tokens_from_text
from engine.models._folder import ModelCard, save_model_folder
from engine.models._info import ModelInfo
from engine.models.dilated_conv import DilatedConv, DilatedConvParams
from engine.models.splice_grammar import SpliceGrammar, SpliceGrammarParams, set_hexamers, set_matrix

MOTIF_LOGIT = 6.0
BACKGROUND_LOGIT = -5.0
CARD = ModelCard(name="toy", version="1", licence="Apache-2.0", text="# A toy")


def base_counter(folder: str | Path, *, width: int = 5, members: int = 1) -> ModelInfo:
    """Counts of A, C, G, T among the `width` bases around each output; N counts as none."""
    params = DilatedConvParams(
        channels=4,
        stem_width=width,
        blocks=(),
        skip_every=0,
        norm="none",
        head="count",
        outputs=("A", "C", "G", "T"),
        activation="identity",
        symmetry="paired",
        pairs=((0, 3), (1, 2)),
        meaning=f"how often the base stands in {width} bases",
    )
    made = []
    for number in range(members):
        model = _zeroed(params)
        with torch.no_grad():
            for base in range(4):
                model.stem.weight[base, base] = 1
                model.final.weight[base, base] = number + 1
        made.append(model)
    return save_model_folder(folder, made, architecture="dilated_conv", card=CARD)


def count_bases(text: str, width: int) -> np.ndarray:
    """(4, L - width + 1) float32: what one member of `base_counter` gives."""
    tokens = tokens_from_text(text)
    hits = (tokens[None] == np.arange(4)[:, None]).astype(np.float32)
    counts: np.ndarray = np.lib.stride_tricks.sliding_window_view(hits, width, axis=1).sum(axis=2)
    return counts


def splice_motifs(folder: str | Path, *, context_bp: int = 4, members: int = 1) -> ModelInfo:
    """Acceptor where AG stands just before, donor where GT stands just after; `context_bp` even, 4 or more."""
    made = [splice_motif_network(context_bp=context_bp, scale=number + 1.0) for number in range(members)]
    return save_model_folder(folder, made, architecture="dilated_conv", card=CARD)


def splice_motif_network(*, context_bp: int = 4, scale: float = 1.0) -> DilatedConv:
    """The network of `splice_motifs`; bases beyond the two on each side have weight 0."""
    params = DilatedConvParams(
        channels=4, stem_width=1, blocks=(), skip_every=0, head_width=context_bp + 1, norm="none"
    )
    model = _zeroed(params)
    middle = context_bp // 2
    assert model.wide is not None and model.wide.bias is not None and model.final.bias is not None
    with torch.no_grad():
        model.stem.weight[:, :, 0, 0] = torch.eye(4)
        model.wide.weight[1, [0, 2], 0, [middle - 2, middle - 1]] = 1  # A, G before
        model.wide.weight[2, [2, 3], 0, [middle + 1, middle + 2]] = 1  # G, T after
        model.wide.bias[[1, 2]] = -1  # 1 only where both bases are there
        model.final.weight[[1, 2], [1, 2], 0, 0] = MOTIF_LOGIT * scale
        model.final.bias[[1, 2]] = BACKGROUND_LOGIT * scale
    return model


def splice_probabilities(ag: bool, gt: bool, *, scale: float = 1.0) -> tuple[float, float, float]:
    """(none, acceptor, donor) of `splice_motifs`, in double precision."""
    logits = (0.0, BACKGROUND_LOGIT + MOTIF_LOGIT * ag, BACKGROUND_LOGIT + MOTIF_LOGIT * gt)
    powers = [math.exp(scale * logit) for logit in logits]
    return (powers[0] / sum(powers), powers[1] / sum(powers), powers[2] / sum(powers))


def splice_motif_scores(text: str, *, context_bp: int = 4, members: int = 1) -> np.ndarray:
    """(3, L - context_bp) float64: what `splice_motifs` gives for a window."""
    middle, upper = context_bp // 2, text.upper()
    columns = []
    for at in range(middle, len(upper) - middle):
        ag, gt = upper[at - 2 : at] == "AG", upper[at + 1 : at + 3] == "GT"
        columns.append(np.mean([splice_probabilities(ag, gt, scale=m + 1.0) for m in range(members)], axis=0))
    return np.array(columns).T


def splice_grammar_toy(folder: str | Path, *, members: int = 1) -> ModelInfo:
    """All three heads of SpliceGrammar, and the constants that join them; context 10 (a hexamer reaches 5 bases on)."""
    params = SpliceGrammarParams(net=splice_motif_network().params, acceptor_span=(-2, 0), donor_span=(1, 3))
    made = []
    for number in range(members):
        model = SpliceGrammar(params)
        model.net.load_state_dict(splice_motif_network(scale=number + 1.0).state_dict())
        acceptor, donor = torch.zeros(4, 2), torch.zeros(4, 2)
        acceptor[[0, 2], [0, 1]] = 2.0
        donor[[2, 3], [0, 1]] = 3.0
        set_matrix(model, "acceptor", acceptor)
        set_matrix(model, "donor", donor)
        set_hexamers(model, torch.arange(4096) / 4096)
        made.append(model)
    card = replace(CARD, extra={"exon_change": {}})
    return save_model_folder(folder, made, architecture="splice_grammar", card=card)


def random_network(folder: str | Path, params: DilatedConvParams, *, members: int = 1, seed: int = 0) -> ModelInfo:
    """Seeded random weights and normalisation statistics; outputs of ordinary size."""
    made = [randomised(DilatedConv(params), seed=seed + number) for number in range(members)]
    return save_model_folder(folder, made, architecture="dilated_conv", card=CARD)


def randomised(model: DilatedConv, *, seed: int = 0) -> DilatedConv:
    """Draw every tensor anew, so that no bias, scale or statistic is left at a neutral 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("variance"):
                tensor.copy_(0.5 + noise.abs())
            elif name.endswith("weight") and tensor.ndim == 4:
                tensor.copy_(noise / math.sqrt(tensor[0].numel()))
            else:
                tensor.copy_(noise * 0.1 + (1.0 if name.endswith("weight") else 0.0))
    return model.eval()


def _zeroed(params: DilatedConvParams) -> DilatedConv:
    model = DilatedConv(params)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.zero_()
    return model
