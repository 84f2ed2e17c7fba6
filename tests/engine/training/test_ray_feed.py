"""Ray Data's feed beside a reader: the same batches, begun early, bounded, and nothing left behind."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
import ray

from engine.errors import DataError
from engine.training import _ray_feed
from engine.training._batches import Reader
from engine.training._ray_feed import DataFeed, desk
from engine.training.kinds.sequences import SequenceAugmentation
from tests.engine.training.setups import small_setup

pytestmark = pytest.mark.ray
DESK, READER = "ray::Desk", "ray::Read_Tasks"


@pytest.fixture
def setup(tmp_path, monkeypatch):
    """Three epochs of five steps in blocks of two."""
    monkeypatch.setattr(_ray_feed, "steps_per_block", lambda setup, plan: 2)
    return small_setup(tmp_path, count=60, recipe={"batch_size": 8})


@contextmanager
def fed(setup, *, num_workers: int = 1, epoch: int = 0, step: int = 0) -> Iterator[list[DataFeed]]:
    steps = setup.train_plan().num_steps
    with desk(setup, num_workers=num_workers, epoch=epoch, step=step) as reads:
        yield [DataFeed(reads, rank=rank, num_steps=steps, epochs=3) for rank in range(num_workers)]


def same(one, other) -> bool:
    pairs = [(one.inputs.arrays()[name], array) for name, array in other.inputs.arrays().items()]
    pairs += [(getattr(one, name), getattr(other, name)) for name in ("targets", "records_B", "seeds_B")]
    return all(a.shape == b.shape and (a == b).all() for a, b in pairs)


def check(feeds, setup, *, epoch: int, first_step: int = 0) -> None:
    """All workers' batches of an epoch, step by step."""
    readers = [Reader(setup.train_loader(), setup.train_plan(), rank, len(feeds)) for rank in range(len(feeds))]
    found = list(zip(*(feed(epoch=epoch, first_step=first_step) for feed in feeds), strict=True))
    wanted = list(zip(*(reader(epoch=epoch, first_step=first_step) for reader in readers), strict=True))
    assert len(found) == len(wanted) == setup.train_plan().num_steps - first_step
    assert all(same(*pair) for pair in zip(sum(found, ()), sum(wanted, ()), strict=True))


def processes(title: str) -> list[psutil.Process]:
    """Ray's of this title below this one; one that ends while they are looked for is passed over."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if title in " ".join(one.cmdline()):
                found.append(one)
    return found


def until(what) -> None:
    while not what():  # the test's own time limit ends it
        time.sleep(0.05)


@pytest.mark.parametrize("case", [(1, 3, 2), (3, 0, 64)])
def test_it_feeds_what_a_reader_reads_over_the_ends_of_epochs_and_data_sets(ray_cluster, setup, monkeypatch, case):
    num_workers, first_step, at_once = case
    monkeypatch.setattr(_ray_feed, "_TASKS_AT_ONCE", at_once)
    with fed(setup, num_workers=num_workers, epoch=1, step=first_step) as feeds:
        check(feeds, setup, epoch=1, first_step=first_step)
        check(feeds, setup, epoch=2)
        check(feeds, setup, epoch=0, first_step=1)  # a place it was not told of
        assert [list(feed(epoch=0, first_step=99)) for feed in feeds] == [[]] * num_workers
    until(lambda: not processes(DESK) and not processes(READER))


@dataclass(frozen=True)
class Noted(SequenceAugmentation):
    """Notes each sample that is made."""

    path: str = ""

    def applied(self, tokens, seed, unknown):
        with Path(self.path).open("a") as stream:
            stream.write("x")
        return super().applied(tokens, seed, unknown)


def test_reading_begins_unasked_goes_on_over_an_epochs_end_and_no_further_than_a_few_blocks(
    ray_cluster, setup, tmp_path
):
    notes = tmp_path / "notes"
    notes.touch()
    setup = replace(setup, augmentation=Noted(path=str(notes)))
    plan = setup.train_plan()
    sizes = [len(plan.step(0, step)) for step in range(plan.num_steps)]
    with fed(setup) as (feed,):
        until(lambda: notes.stat().st_size == sum(sizes[:4]))  # two blocks, and nobody asked
        left = feed(epoch=0, first_step=0)
        next(left)  # of the first; the second is fetched, and two more are read
        until(lambda: notes.stat().st_size == sum(sizes) + sum(sizes[:2]))
        time.sleep(1.0)
        assert notes.stat().st_size == sum(sizes) + sum(sizes[:2])
        assert len(list(left)) == plan.num_steps - 1
    assert notes.stat().st_size < 3 * sum(sizes)


def test_a_reader_that_is_killed_is_replaced(ray_cluster, setup):
    with fed(setup) as feeds:
        until(lambda: processes(READER))
        for one in processes(READER):
            one.kill()
        for epoch in range(3):
            check(feeds, setup, epoch=epoch)


def test_readers_end_with_their_desk(ray_cluster, setup):
    with fed(setup) as (feed,):
        left = feed(epoch=0, first_step=0)
        next(left)
        until(lambda: processes(READER))
        (one,) = processes(DESK)
        one.kill()
        until(lambda: not processes(READER))
        with pytest.raises(ray.exceptions.ActorDiedError):
            [*left, *feed(epoch=1, first_step=0)]


def test_a_damaged_part_is_one_sentence_through_all_of_ray(ray_cluster, setup):
    part = Path(setup.train[0].part)
    part.write_bytes(part.read_bytes()[:-200])
    with fed(setup) as (feed,), pytest.raises(DataError, match=r"part-000000.parquet: the part does not decode"):
        list(feed(epoch=0, first_step=0))


def test_blocks_are_large_enough_to_read_groups_few_times_and_bounded(tmp_path):
    setup = small_setup(tmp_path)
    plan = setup.train_plan()
    assert _ray_feed.steps_per_block(setup, replace(plan, window=160)) == 1  # a quarter of 72 rows, in steps of 20
    assert _ray_feed.steps_per_block(setup, replace(plan, window=72, batch_size=3)) == 6
    longest = replace(setup.train[0], longest=1 << 24)
    assert _ray_feed.steps_per_block(replace(setup, train=(longest,)), replace(plan, batch_size=1)) == 2
