"""Training of one member: windows drawn anew each epoch, cross-entropy on the middle base."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.splice_mini.data import SiteSet
from engine.models.dilated_conv import DilatedConv, DilatedConvParams, context_bp

PARAMS = DilatedConvParams(stem_width=11, blocks=((5, 1), (5, 2), (5, 4), (5, 8)), skip_every=0, head_width=15)
FLANK = context_bp(PARAMS) // 2


@dataclass(frozen=True)
class Recipe:
    """The settings of one member; the defaults are those of the shipped model.

    Attributes:
        decoys_per_site: GT or AG look-alikes drawn per site and epoch.
        flank_loss: probability that a flank is cut short and filled with N, each side by itself.
        min_flank: bases always kept on a side that is cut.
    """

    epochs: int = 8
    batch: int = 96
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    label_smoothing: float = 0.02
    decoys_per_site: int = 2
    max_shift: int = 12
    flank_loss: float = 0.35
    min_flank: int = 22


@dataclass(frozen=True)
class _Drawn:
    """One epoch of one species: middles (n,) into its tokens and their classes (0 none, 1 acceptor, 2 donor)."""

    middles: NDArray[np.int64]
    classes: NDArray[np.int64]


def draw_epoch(sites: SiteSet, recipe: Recipe, random: np.random.Generator) -> _Drawn:
    """Every site and negative once; decoys, random bases and shifted sites drawn anew."""
    both = np.concatenate([sites.acceptors, sites.donors])
    steps = np.concatenate([np.arange(-recipe.max_shift, 0), np.arange(1, recipe.max_shift + 1)])
    shifted = both + random.choice(steps, len(both))
    none = [
        sites.negatives,
        random.choice(sites.ag_decoys, len(sites.acceptors) * recipe.decoys_per_site),
        random.choice(sites.gt_decoys, len(sites.donors) * recipe.decoys_per_site),
        random.choice(sites.others, len(both)),
        shifted[~np.isin(shifted, both)],
    ]
    middles = np.concatenate([sites.acceptors, sites.donors, *none])
    classes = np.zeros(len(middles), np.int64)
    classes[: len(sites.acceptors)] = 1
    classes[len(sites.acceptors) : len(both)] = 2
    return _Drawn(middles, classes)


def cut_windows(
    tokens: NDArray[np.uint8], middles: NDArray[np.int64], recipe: Recipe, random: np.random.Generator
) -> NDArray[np.uint8]:
    """(n, 2 FLANK + 1) tokens around the middles; some flanks cut short, as short inputs will have them."""
    steps = np.arange(-FLANK, FLANK + 1)
    windows = tokens[middles[:, None] + steps]
    for side in (-1, 1):
        kept = random.integers(recipe.min_flank, FLANK + 1, len(middles))
        kept = np.where(random.random(len(middles)) < recipe.flank_loss, kept, FLANK)
        windows[side * steps > kept[:, None]] = 4
    return windows


def one_hot(tokens: NDArray[np.uint8]) -> Tensor:
    """(B, L) tokens -> (B, 4, L) float32, N all zero."""
    table = torch.cat([torch.eye(4), torch.zeros(1, 4)])
    return table[torch.from_numpy(tokens.astype(np.int64))].transpose(1, 2).contiguous()


def train_member(
    species: Sequence[SiteSet], *, seed: int, recipe: Recipe, log: Callable[[str], None] = print
) -> DilatedConv:
    """Train one network on one or several species; human's offset ends up in the stem's bias.

    Args:
        species: human first. With more than one, each has a learned offset after the stem.
        seed: fixes weights, draws and order.
        recipe: settings.
        log: takes one line per epoch.
    """
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    model = DilatedConv(PARAMS)
    offsets = nn.Parameter(torch.zeros(len(species), PARAMS.channels))
    optimizer = torch.optim.AdamW(
        [*model.parameters(), offsets], lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    steps_per_epoch = sum(len(draw_epoch(s, recipe, np.random.default_rng(0)).middles) for s in species) // recipe.batch
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _cosine(recipe.epochs * steps_per_epoch))
    begun = time.process_time()
    for epoch in range(recipe.epochs):
        model.train()
        losses = []
        for windows, classes, rows in _batches(species, recipe, random):
            offset_BC = offsets[rows] if len(species) > 1 else None
            logits = model.logits(one_hot(windows), offset_BC=offset_BC)[..., 0]
            loss = F.cross_entropy(logits, torch.from_numpy(classes), label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        seconds = time.process_time() - begun
        log(f"epoch {epoch + 1} of {recipe.epochs}: loss {np.mean(losses):.4f}, {seconds:.0f} CPU seconds")
    if len(species) > 1:
        with torch.no_grad():
            assert model.stem.bias is not None
            model.stem.bias += offsets[0]
    return model.eval()


def _cosine(steps: int) -> Callable[[int], float]:
    """50 steps of warm-up, then half a cosine down to nothing."""
    return lambda step: min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, steps))))


def _batches(
    species: Sequence[SiteSet], recipe: Recipe, random: np.random.Generator
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]]:
    """Shuffled batches over all species: tokens (B, L), classes (B,), species rows (B,)."""
    windows, classes, rows = [], [], []
    for row, sites in enumerate(species):
        drawn = draw_epoch(sites, recipe, random)
        windows.append(cut_windows(sites.tokens, drawn.middles, recipe, random))
        classes.append(drawn.classes)
        rows.append(np.full(len(drawn.classes), row))
    all_windows, all_classes, all_rows = np.concatenate(windows), np.concatenate(classes), np.concatenate(rows)
    order = random.permutation(len(all_classes))
    for begin in range(0, len(order) - recipe.batch + 1, recipe.batch):
        picked = order[begin : begin + recipe.batch]
        yield all_windows[picked], all_classes[picked], all_rows[picked]
