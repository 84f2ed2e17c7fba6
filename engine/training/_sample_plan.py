"""Which samples a training step sees: decided by seed, epoch and step, never by who asks or what arrives first.

Samples lie in groups (row groups of Parquet parts). An epoch reads the groups in a drawn order and shuffles within
windows of some groups, so that a step touches few groups however large the set is: memory holds one number per group
and the places of one window, and any step can be asked for without those before it.

With lengths given, each window's samples are sorted by them and cut into steps, whose order is then drawn: sequences
of a step are of like length, and little of it is padding. What a step shares with the next window stays as drawn.

Shape letters: G groups, W samples of a window, B samples of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

_ORDER_OF_GROUPS, _ORDER_OF_WINDOW, _ORDER_OF_STEPS = 0, 1, 2
_WINDOWS_KEPT = 2


@dataclass(frozen=True)
class SamplePlan:
    """The order of one split of a data set.

    A sample's id is its number among all samples, group after group.

    Attributes:
        group_sizes: samples in each group.
        seed: of the order.
        batch_size: samples of a step, over all workers together; the last step of an epoch may have fewer.
        window: samples shuffled with each other at least; a window holds whole groups.
        lengths: (N,) of each sample of each group, to put samples of like length into a step; None mixes all.
    """

    group_sizes: tuple[int, ...]
    seed: int
    batch_size: int
    window: int = 1 << 16
    lengths: tuple[NDArray[Any], ...] | None = field(default=None, repr=False, compare=False)
    _offsets: Ids = field(init=False, repr=False, compare=False)
    _sorted: dict[tuple[int, int], Ids] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.window < 1:
            raise ValueError(f"batch_size and window must be 1 or more, found {self.batch_size} and {self.window}")
        if self.lengths is not None and tuple(map(len, self.lengths)) != self.group_sizes:
            raise ValueError("lengths must be those of the groups' samples")
        object.__setattr__(self, "_offsets", _starts(self.group_sizes))

    @property
    def num_samples(self) -> int:
        """Of an epoch."""
        return int(self._offsets[-1])

    @property
    def num_steps(self) -> int:
        """Of an epoch."""
        return -(-self.num_samples // self.batch_size)

    def step(self, epoch: int, step: int) -> Ids:
        """Ids (B,) of one step, all workers together.

        Raises:
            ValueError: no such step.
        """
        if not 0 <= step < self.num_steps:
            raise ValueError(f"an epoch has steps 0 to {self.num_steps - 1}, found {step}")
        begin = step * self.batch_size
        return self._between(epoch, begin, min(begin + self.batch_size, self.num_samples))

    def share(self, epoch: int, step: int, *, rank: int, num_workers: int) -> Ids:
        """What one worker takes of a step: every num_workers-th sample from its rank on; may be empty."""
        return self.step(epoch, step)[rank::num_workers]

    def groups_of(self, ids: Ids) -> tuple[Ids, Ids]:
        """Group of each id, and its place in that group."""
        groups = np.searchsorted(self._offsets, ids, side="right") - 1
        return groups, ids - self._offsets[groups]

    def _between(self, epoch: int, begin: int, end: int) -> Ids:
        order = _epoch_order(self.group_sizes, self.window, self.seed, epoch)
        first = int(np.searchsorted(order.starts, begin, side="right")) - 1
        pieces = []
        for window in range(first, len(order.windows)):
            start = int(order.starts[window])
            if start >= end:
                break
            ids = self._window(epoch, window, start)
            pieces.append(ids[max(0, begin - start) : end - start])
        return np.concatenate(pieces)

    def _window(self, epoch: int, window: int, start: int) -> Ids:
        """Ids of a window that begins at a place of the epoch, in their order."""
        ids = _window_order(self.group_sizes, self.window, self.seed, epoch, window)
        if self.lengths is None:
            return ids
        if (epoch, window) not in self._sorted:
            while len(self._sorted) >= _WINDOWS_KEPT:
                self._sorted.pop(next(iter(self._sorted)))
            self._sorted[epoch, window] = self._by_length(ids, epoch, window, start)
        return self._sorted[epoch, window]

    def _by_length(self, ids: Ids, epoch: int, window: int, start: int) -> Ids:
        """The steps that lie in the window alone hold like lengths; what comes before and after them stays."""
        assert self.lengths is not None
        size = self.batch_size
        begin = min(-start % size, len(ids))
        end = begin + (len(ids) - begin) // size * size
        groups, places = self.groups_of(ids[begin:end])
        lengths = np.zeros(end - begin, dtype=np.int64)
        for group in np.unique(groups).tolist():
            lengths[groups == group] = self.lengths[group][places[groups == group]]
        steps = ids[begin:end][np.argsort(lengths, kind="stable")].reshape(-1, size)
        drawn = _drawn(len(steps), self.seed, epoch, _ORDER_OF_STEPS, window)
        return np.concatenate([ids[:begin], steps[drawn].reshape(-1), ids[end:]])


@dataclass(frozen=True)
class _EpochOrder:
    """windows: the groups of each; starts: place in the epoch of each window's first sample, and of the end."""

    windows: tuple[Ids, ...]
    starts: Ids


def _starts(sizes: Sequence[int]) -> Ids:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.asarray(sizes, dtype=np.int64))])


def _drawn(count: int, *key: int) -> Ids:
    """A permutation of `count` numbers that is a function of the key alone."""
    return np.random.default_rng(key).permutation(count).astype(np.int64)


@lru_cache(maxsize=4)
def _epoch_order(sizes: tuple[int, ...], window: int, seed: int, epoch: int) -> _EpochOrder:
    groups = _drawn(len(sizes), seed, epoch, _ORDER_OF_GROUPS)
    windows, held, count = [], [], 0
    for group in groups.tolist():
        held.append(group)
        count += sizes[group]
        if count >= window:
            windows.append(np.array(held, dtype=np.int64))
            held, count = [], 0
    if held:
        windows.append(np.array(held, dtype=np.int64))
    return _EpochOrder(tuple(windows), _starts([sum(sizes[group] for group in one.tolist()) for one in windows]))


@lru_cache(maxsize=4)
def _window_order(sizes: tuple[int, ...], window: int, seed: int, epoch: int, number: int) -> Ids:
    offsets = _starts(sizes)
    groups = _epoch_order(sizes, window, seed, epoch).windows[number]
    ids = np.concatenate([np.arange(offsets[group], offsets[group + 1]) for group in groups])
    return ids[_drawn(len(ids), seed, epoch, _ORDER_OF_WINDOW, number)]


def sample_seeds(records: Ids, *, seed: int, epoch: int) -> Ids:
    """A seed (N,) for whatever is drawn for each sample in an epoch: augmentation, dropout.

    SplitMix64's finaliser (Steele, Lea and Flood 2014) over record, epoch and seed.
    """
    start = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]
    with np.errstate(over="ignore"):
        x = start + records.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        made: Ids = (x ^ (x >> np.uint64(31))).astype(np.int64)
    return made
