"""A run's blocks in their order, from those who read to those who train: who waits for whom.

Nothing here knows Ray. Readers ask for their turn, so that no more blocks are made than a few beyond those taken: the
look-ahead goes over the ends of epochs, and memory stays flat.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from engine.training._ray_blocks import Steps


@dataclass(frozen=True)
class Cut:
    """How the steps from a place to the end of the last epoch are cut into blocks, numbered from 0.

    Attributes:
        num_steps: of an epoch.
        steps_per_block: at most; no block goes over an epoch's end.
        epoch, step: where it begins.
        epochs: it ends before this one.
    """

    num_steps: int
    steps_per_block: int
    epoch: int
    step: int
    epochs: int

    @property
    def _in_first(self) -> int:
        return -(-max(0, self.num_steps - self.step) // self.steps_per_block)

    @property
    def _in_each(self) -> int:
        return -(-self.num_steps // self.steps_per_block)

    def __len__(self) -> int:
        after = self.epochs - self.epoch - 1
        return self._in_first + self._in_each * after if after >= 0 else 0

    def __getitem__(self, number: int) -> Steps:
        if not 0 <= number < len(self):
            raise IndexError(f"block {number} of {len(self)}")
        if number < self._in_first:
            epoch, begin = self.epoch, self.step + number * self.steps_per_block
        else:
            after, place = divmod(number - self._in_first, self._in_each)
            epoch, begin = self.epoch + 1 + after, place * self.steps_per_block
        return Steps(epoch, begin, min(begin + self.steps_per_block, self.num_steps))

    def number_of(self, epoch: int, step: int) -> int | None:
        """The block that begins there; None where none does."""
        is_first = epoch == self.epoch
        number, rest = divmod(step - (self.step if is_first else 0), self.steps_per_block)
        if rest or number < 0 or not self.epoch <= epoch < self.epochs or step >= self.num_steps:
            return None
        return number if is_first else self._in_first + (epoch - self.epoch - 1) * self._in_each + number


class Stopped(Exception):
    """The stream has ended before what was asked for."""


@dataclass
class Stream:
    """The blocks of a cut on their way; any number of threads.

    Attributes:
        cut: which blocks.
        num_workers: a block has a share for each, given in the order of their ranks.
        ahead: at most so many blocks are begun that not every worker has taken.
    """

    cut: Cut
    num_workers: int
    ahead: int
    _shares: dict[tuple[int, int], Any] = field(default_factory=dict)
    _given: int = 0
    _taken: list[int] = field(default_factory=list)
    _error: BaseException | None = None
    _is_closed: bool = False
    _change: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self._taken = [0] * self.num_workers

    @property
    def is_closed(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._is_closed

    def turn(self, number: int) -> bool:
        """Wait until a block may be made; false where none is wanted any more."""
        with self._change:
            self._change.wait_for(lambda: self._is_closed or number < min(self._taken) + self.ahead)
            return not self._is_closed

    def give(self, share: Any) -> None:
        """The next share: block after block, worker after worker."""
        with self._change:
            if not self._is_closed:
                self._shares[divmod(self._given, self.num_workers)] = share
            self._given += 1
            self._change.notify_all()

    def fail(self, error: BaseException) -> None:
        """No share will follow."""
        with self._change:
            self._error = error
            self._change.notify_all()

    def close(self) -> None:
        """Let go of all that is left and of all who wait."""
        with self._change:
            self._is_closed = True
            self._shares.clear()
            self._change.notify_all()

    def is_next(self, rank: int, number: int) -> bool:
        """Whether a block is the one that a worker is to take now."""
        with self._change:
            return not self._is_closed and number == self._taken[rank]

    def take(self, rank: int, number: int) -> Any:
        """Wait for a worker's share of its next block.

        Raises:
            Stopped: the stream was closed.
            Exception: what the stream failed with.
        """
        with self._change:
            self._change.wait_for(lambda: self._is_closed or self._error or (number, rank) in self._shares)
            if (number, rank) not in self._shares:
                raise self._error or Stopped("nobody waits for this block any more")
            self._taken[rank] = number + 1
            self._change.notify_all()
            return self._shares.pop((number, rank))
