"""From sample ids to padded batches of tokens, augmented by each sample's own seed.

Shape letters: B samples of a batch, L letters of the longest of them, N samples of a group.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.genome.windows import reverse_complement
from engine.training._sample_plan import SamplePlan, sample_seeds
from engine.training._sequence_set import Group, Split, read_group
from engine.training._task import Task

_DNA_UNKNOWN = 4
_MASKING = 1


@dataclass(frozen=True)
class Augmentation:
    """Attributes:
    reverse_complement: read every second sample on the other strand.
    jitter_bp: move a sequence by up to so many letters either way; what enters is unknown (N).
    mask_fraction: chance of each letter to become unknown.
    """

    reverse_complement: bool = False
    jitter_bp: int = 0
    mask_fraction: float = 0.0

    def check(self, encoder: Any) -> None:
        """Refuse the other strand of what has none."""
        if self.reverse_complement and getattr(encoder, "alphabet", "dna") != "dna":
            raise InputError(
                "only DNA has a reverse complement", where="key 'augment.reverse_complement'", fix="set it to false"
            )


@dataclass(frozen=True)
class Batch:
    """Attributes:
    tokens_BL: uint8, padded with the unknown letter.
    lengths_B: int64.
    targets: (B,) or (B, K), as the task has them.
    records_B: int64, record numbers in the data set.
    seeds_B: int64, each sample's seed of this epoch.
    """

    tokens_BL: NDArray[np.uint8]
    lengths_B: NDArray[np.int64]
    targets: NDArray[Any]
    records_B: NDArray[np.int64]
    seeds_B: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.records_B)

    def part(self, begin: int, end: int) -> Batch:
        """Some of its samples, padded no more than they need."""
        longest = int(self.lengths_B[begin:end].max(initial=1))
        return Batch(
            self.tokens_BL[begin:end, :longest],
            self.lengths_B[begin:end],
            self.targets[begin:end],
            self.records_B[begin:end],
            self.seeds_B[begin:end],
        )


@dataclass(frozen=True)
class _Held:
    """A group in memory: tokens end to end, where each sequence begins, targets."""

    tokens: NDArray[np.uint8]
    starts: NDArray[np.int64]
    targets: NDArray[Any]


class BatchLoader:
    """Reads batches of one split, keeping the row groups last used.

    Args:
        split: the rows.
        plan: numbers the samples; made for these rows.
        encoder: letters to tokens.
        task: columns to targets.
        seed: of the samples' own seeds.
        augmentation: None for evaluation.
        cache_bytes: most memory for groups kept; one is always kept.
    """

    def __init__(
        self,
        split: Split,
        plan: SamplePlan,
        *,
        encoder: Any,
        task: Task,
        seed: int,
        augmentation: Augmentation | None = None,
        cache_bytes: int = 512 << 20,
    ) -> None:
        self._split = split
        self._plan = plan
        self._encoder = encoder
        self._task = task
        self._seed = seed
        self._augmentation = augmentation
        self._cache_bytes = cache_bytes
        self._held: OrderedDict[int, _Held] = OrderedDict()
        self._unknown = int(getattr(encoder, "unknown_token", _DNA_UNKNOWN))

    def load(self, ids: NDArray[np.int64], *, epoch: int) -> Batch:
        """The samples with these ids, in their order.

        Raises:
            DataError: a part does not decode, or a target is not what the task takes; names part and record.
        """
        groups, places = self._plan.groups_of(ids)
        held = {group: self._group(group) for group in dict.fromkeys(groups.tolist())}
        pairs = list(zip(groups.tolist(), places.tolist(), strict=True))
        records = np.array([self._split[group].records[place] for group, place in pairs], dtype=np.int64)
        seeds = sample_seeds(records, seed=self._seed, epoch=epoch)
        texts = [_sequence(held[group], place) for group, place in pairs]
        if self._augmentation is not None:
            texts = [self._augmented(one, seed) for one, seed in zip(texts, seeds.tolist(), strict=True)]
        targets = self._task.stack([held[group].targets[place] for group, place in pairs])
        return Batch(*self._padded(texts), targets, records, seeds)

    def _group(self, number: int) -> _Held:
        if number in self._held:
            self._held.move_to_end(number)
            return self._held[number]
        found = self._read(self._split[number])
        self._held[number] = found
        while len(self._held) > 1 and sum(one.tokens.nbytes for one in self._held.values()) > self._cache_bytes:
            self._held.popitem(last=False)
        return found

    def _read(self, group: Group) -> _Held:
        table = read_group(group, ["sequence", self._task.column])
        tokens = [self._encoder.encode(text) for text in table["sequence"].to_pylist()]
        starts = np.concatenate([[0], np.cumsum([len(one) for one in tokens])]).astype(np.int64)
        targets = self._task.targets(table[self._task.column], records=group.records, where=group.part)
        return _Held(np.concatenate(tokens), starts, targets)

    def _augmented(self, tokens: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
        assert self._augmentation is not None
        # Bits that dropout's hash of the same seed does not show.
        if self._augmentation.reverse_complement and seed & 1:
            tokens = reverse_complement(tokens)
        jitter = self._augmentation.jitter_bp
        if jitter:
            tokens = _moved(tokens, ((seed >> 1) & 0xFFFFFFFF) % (2 * jitter + 1) - jitter, self._unknown)
        masked = self._augmentation.mask_fraction
        if masked:
            drawn = np.random.default_rng([_MASKING, seed & 0xFFFFFFFFFFFFFFFF]).random(len(tokens), dtype=np.float32)
            tokens = np.where(drawn < masked, np.uint8(self._unknown), tokens)
        return tokens

    def _padded(self, texts: list[NDArray[np.uint8]]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        lengths = np.array([len(one) for one in texts], dtype=np.int64)
        padded = np.full((len(texts), int(lengths.max(initial=1))), self._unknown, dtype=np.uint8)
        for row, one in zip(padded, texts, strict=True):
            row[: len(one)] = one
        return padded, lengths


class Feed(Protocol):
    """Where a worker's batches come from. It may be asked again for any epoch and step."""

    def __call__(self, *, epoch: int, first_step: int) -> Iterator[Batch]:
        """This worker's share of each of an epoch's steps from `first_step` on, in their order."""
        ...


@dataclass(frozen=True)
class Reader:
    """The feed that reads the parts itself, the next batch being read while one is computed on."""

    loader: BatchLoader
    plan: SamplePlan
    rank: int
    num_workers: int

    def __call__(self, *, epoch: int, first_step: int) -> Iterator[Batch]:
        """See Feed."""

        def load(step: int) -> Batch:
            share = self.plan.share(epoch, step, rank=self.rank, num_workers=self.num_workers)
            return self.loader.load(share, epoch=epoch)

        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(load, first_step) if first_step < self.plan.num_steps else None
            for step in range(first_step, self.plan.num_steps):
                assert ahead is not None
                batch = ahead.result()
                ahead = reader.submit(load, step + 1) if step + 1 < self.plan.num_steps else None
                yield batch


def _sequence(held: _Held, place: int) -> NDArray[np.uint8]:
    return held.tokens[held.starts[place] : held.starts[place + 1]]


def _moved(tokens: NDArray[np.uint8], by: int, unknown: int) -> NDArray[np.uint8]:
    """Moved to the right, or to the left where negative; the length stays."""
    moved = np.full_like(tokens, unknown)
    if by >= 0:
        moved[by:] = tokens[: max(0, len(tokens) - by)]
    else:
        moved[:by] = tokens[-by:]
    return moved
