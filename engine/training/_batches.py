"""From sample ids to batches, augmented by each sample's own seed; what a batch holds is its kind's affair.

Shape letters: B samples of a batch, N samples of a group.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from engine.training._sample_plan import SamplePlan, sample_seeds
from engine.training._split_table import Group, Split

_MOST_AHEAD, _AHEAD_BYTES = 16, 64 << 20


class Inputs(Protocol):
    """What a network sees of a batch, as it goes over the wire: a frozen, picklable object of arrays with B first.

    Those of samples that differ in length have `lengths_B`, by which samples of like length are put together, and
    `taken(order_B)`, the samples at these places.
    """

    def __len__(self) -> int: ...

    def part(self, begin: int, end: int) -> Self:
        """Some of its samples, padded no more than they need."""
        ...

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """Everything in it by name, to be saved."""
        ...

    def told(self) -> str:
        """How many, and how large: "64 sequences of up to 81 letters"."""
        ...


@dataclass(frozen=True)
class Batch:
    """Attributes:
    inputs: what the network sees.
    targets: with B first, as the task has them.
    records_B: int64, record numbers in the data set.
    seeds_B: int64, each sample's seed of this epoch.
    """

    inputs: Any
    targets: NDArray[Any]
    records_B: NDArray[np.int64]
    seeds_B: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.records_B)

    @property
    def nbytes(self) -> int:
        """Memory of inputs and targets."""
        return int(sum(one.nbytes for one in (*self.inputs.arrays().values(), self.targets)))

    def part(self, begin: int, end: int) -> Batch:
        """Some of its samples."""
        some = slice(begin, end)
        return Batch(self.inputs.part(begin, end), self.targets[some], self.records_B[some], self.seeds_B[some])

    def by_length(self) -> tuple[Batch, NDArray[np.int64]]:
        """The same samples, those of like length together so that its parts are padded little; and their places."""
        lengths_B = getattr(self.inputs, "lengths_B", None)
        if lengths_B is None:
            return self, np.arange(len(self))
        order_B = np.argsort(lengths_B, kind="stable")
        arrays = (self.targets[order_B], self.records_B[order_B], self.seeds_B[order_B])
        return Batch(self.inputs.taken(order_B), *arrays), order_B


class Held(Protocol):
    """The samples of a group in memory."""

    @property
    def nbytes(self) -> int:
        """Memory they take."""
        ...

    def sample(self, place: int) -> Any:
        """One of them, with its target, as the reader's `batch` takes it."""
        ...


class SampleReader(Protocol):
    """How a kind reads the samples of a split and makes batches of them."""

    def read(self, group: Group) -> Held:
        """Raises DataError: it does not decode, or a target is not what the task takes; names place and record."""
        ...

    def batch(self, samples: Sequence[Any], seeds_B: NDArray[np.int64]) -> tuple[Any, NDArray[Any]]:
        """Inputs and targets of samples, augmented by their seeds; also of none."""
        ...


class BatchLoader:
    """Reads batches of one split, keeping the groups last used.

    Args:
        split: the rows.
        plan: numbers the samples; made for these rows.
        reader: of the kind.
        seed: of the samples' own seeds.
        cache_bytes: most memory for groups kept; one is always kept.
    """

    def __init__(
        self, split: Split, plan: SamplePlan, reader: SampleReader, *, seed: int, cache_bytes: int = 512 << 20
    ) -> None:
        self._split = split
        self._plan = plan
        self._reader = reader
        self._seed = seed
        self._cache_bytes = cache_bytes
        self._held: OrderedDict[int, Held] = OrderedDict()

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
        inputs, targets = self._reader.batch([held[group].sample(place) for group, place in pairs], seeds)
        return Batch(inputs, targets, records, seeds)

    def _group(self, number: int) -> Held:
        if number in self._held:
            self._held.move_to_end(number)
            return self._held[number]
        found = self._reader.read(self._split[number])
        self._held[number] = found
        while len(self._held) > 1 and sum(one.nbytes for one in self._held.values()) > self._cache_bytes:
            self._held.popitem(last=False)
        return found


class Feed(Protocol):
    """Where a worker's batches come from. It may be asked again for any epoch and step."""

    def __call__(self, *, epoch: int, first_step: int) -> Iterator[Batch]:
        """This worker's share of each of an epoch's steps from `first_step` on, in their order."""
        ...


@dataclass(frozen=True)
class Reader:
    """The feed that reads the parts itself, the next batches being read while one is computed on.

    A window's first batches read nearly all of its groups, so that the others must be there before.
    """

    loader: BatchLoader
    plan: SamplePlan
    rank: int
    num_workers: int

    def __call__(self, *, epoch: int, first_step: int) -> Iterator[Batch]:
        """See Feed."""

        def load(step: int) -> Batch:
            share = self.plan.share(epoch, step, rank=self.rank, num_workers=self.num_workers)
            return self.loader.load(share, epoch=epoch)

        steps = iter(range(first_step, self.plan.num_steps))
        reader = ThreadPoolExecutor(1)
        try:
            ahead = deque(reader.submit(load, step) for step in islice(steps, 1))
            while ahead:
                batch = ahead.popleft().result()
                room = min(_MOST_AHEAD, max(1, _AHEAD_BYTES // max(1, batch.nbytes)))
                ahead.extend(reader.submit(load, step) for step in islice(steps, max(0, room - len(ahead))))
                yield batch
        finally:
            reader.shutdown(cancel_futures=True)
