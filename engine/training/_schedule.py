"""What a search does next: a plain function of what it knows, and what it knows is fixed by numbers, not by the clock.

A job takes a trial to its end or, under successive halving, to the next rung. Jobs are numbered as they are begun, and
job j is decided by the ends of jobs 0 to j - ahead alone, even where later ones have ended already. So any number of
processes, on any executor, killed and resumed anywhere, come to the same trials; up to `ahead` of them run at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from engine.training._search import COMPLETED, PAUSED, STOPPED, Params, Stopping, Trial

Known = dict[int, Trial]
Propose = Callable[[int, Sequence[Trial], Sequence[Params]], Params]


@dataclass(frozen=True)
class Job:
    """Attributes:
    number: of the job, from 0.
    trial: its number, from 0.
    params: value of every searched key.
    until: pause after so many epochs; None goes on to the end.
    former: trials as far as they were known when the job was decided, for the rule that ends trials early.
    """

    number: int
    trial: int
    params: Params
    until: int | None = None
    former: tuple[Trial, ...] = ()


@dataclass(frozen=True)
class Ladder:
    """The rungs of asynchronous successive halving (Li et al. 2020): one of `factor` goes on from each.

    Attributes:
        min_epochs: the first rung.
        factor: between rungs.
        epochs_of: most epochs of a trial.
        order: by which trials are ranked: its `loss_of` a curve, the lower the better.
    """

    min_epochs: int
    factor: int
    epochs_of: Callable[[Params], int]
    order: Stopping

    def until(self, rung: int, params: Params) -> int | None:
        """Epochs of a rung; None for the end."""
        epochs = self.min_epochs * self.factor**rung
        return epochs if epochs < self.epochs_of(params) else None


class Schedule:
    """The jobs of a search.

    Args:
        num_trials: of the whole search.
        propose: params of a trial, from its number, the trials that are known, and the params of those under way.
        ahead: how many jobs may be under way; None, where no job is decided by another, for any number.
        ladder: None trains each trial to its end in one job.
    """

    def __init__(
        self, num_trials: int, propose: Propose, *, ahead: int | None = 1, ladder: Ladder | None = None
    ) -> None:
        self._num_trials = num_trials
        self._propose = propose
        self._ahead = ahead
        self._ladder = ladder
        self._slots: list[Job | None] = []  # None: nothing was to be done with what was known
        self._ends: dict[int, Trial] = {}
        self._params: list[Params] = []
        self._rung_of: list[int] = []  # the highest rung that a trial was sent to
        self._is_over = False

    def next(self) -> Job | None:
        """The next job; None where it must wait for one that is under way, or, where none is, the search is over."""
        while not self._is_over:
            end = self._end_of_known()
            if any(slot is not None and slot.number not in self._ends for slot in self._slots[:end]):
                return None
            known = self._latest(end)
            job = self._decided(known, is_all=not any(self._slots[end:]))
            if job is None and self._ahead is None:
                return None
            self._is_over = job is None and not any(self._slots[end:])
            self._slots.append(job)
            if job is not None:
                return job
        return None

    def tell(self, job: Job, end: Trial) -> None:
        """What became of a job."""
        self._ends[job.number] = end

    def trials(self) -> list[Trial]:
        """All trials, once the search is over; those that were not sent on are stopped."""
        latest = self._latest(len(self._slots))
        assert len(latest) == self._num_trials
        return [self._ended(latest[number], latest) for number in range(self._num_trials)]

    def _end_of_known(self) -> int:
        """The next job may look at the jobs before this one."""
        return 0 if self._ahead is None else max(0, len(self._slots) - self._ahead + 1)

    def _latest(self, end: int) -> Known:
        """How each trial stands after the jobs before `end`."""
        done = (slot for slot in self._slots[:end] if slot is not None)
        return {slot.trial: self._ends[slot.number] for slot in done}

    def _decided(self, known: Known, *, is_all: bool) -> Job | None:
        found = self._next_of(known, is_all=is_all)
        if found is None:
            return None
        trial, rung = found
        former = tuple(known[number] for number in sorted(known))
        if trial == len(self._params):
            under_way = [params for number, params in enumerate(self._params) if number not in known]
            self._params.append(self._propose(trial, former, under_way))
            self._rung_of.append(rung)
        self._rung_of[trial] = rung
        params = self._params[trial]
        if self._ladder is not None:
            return Job(len(self._slots), trial, params, self._ladder.until(rung, params))
        return Job(len(self._slots), trial, params, former=former)

    def _next_of(self, known: Known, *, is_all: bool) -> tuple[int, int] | None:
        """Trial and rung of what is to be done with this knowledge: who goes on before who begins."""
        factor = 0 if self._ladder is None else self._ladder.factor
        found = self._able(known, lambda arrived: arrived // factor) if factor else None
        if found is None and len(self._params) < self._num_trials:
            found = len(self._params), 0
        if found is None and factor and is_all and not any(one.state == COMPLETED for one in known.values()):
            # The rungs are too thin for any trial to have reached the top: the best of the highest goes on alone.
            found = self._able(known, lambda arrived: arrived)
        return found

    def _able(self, known: Known, room: Callable[[int], int]) -> tuple[int, int] | None:
        """The best trial of the highest rung that waits within its room, and the rung it goes to."""
        for rung in range(max(self._rung_of, default=0), -1, -1):
            there = self._best_of_rung(known, rung)
            for number in there[: room(len(there))]:
                if self._rung_of[number] == rung and known[number].state == PAUSED:
                    return number, rung + 1
        return None

    def _has_arrived(self, known: Known, number: int, rung: int) -> bool:
        assert self._ladder is not None
        sent, until = self._rung_of[number], self._ladder.until(rung, self._params[number])
        one = known[number]
        is_there = until is None or len(one.curve) >= until or one.state != PAUSED
        return sent >= rung and is_there

    def _best_of_rung(self, known: Known, rung: int) -> list[int]:
        """Trials that have come to a rung, the best first; of equal ones the first."""
        assert self._ladder is not None
        there = [number for number in known if self._has_arrived(known, number, rung)]
        return sorted(there, key=lambda number: (self._loss(known[number], rung), number))

    def _loss(self, one: Trial, rung: int) -> float:
        assert self._ladder is not None
        until = self._ladder.until(rung, one.params)
        is_failed_here = one.state not in (PAUSED, COMPLETED) and (until is None or len(one.curve) < until)
        return float("inf") if is_failed_here else self._ladder.order.loss_of(one.curve[:until])

    def _ended(self, one: Trial, latest: Known) -> Trial:
        if one.state != PAUSED:
            return one
        ranked = self._best_of_rung(latest, self._rung_of[one.number])
        place = 1 + ranked.index(one.number)
        return replace(one, state=STOPPED, reason=f"place {place} of {len(ranked)} after epoch {len(one.curve)}")
