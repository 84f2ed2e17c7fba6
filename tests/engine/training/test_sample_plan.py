from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.training._sample_plan import SamplePlan, _epoch_order, sample_seeds

SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=12).map(tuple)


@st.composite
def plans(draw, bucketed=None):
    """Plans with and without lengths of their samples."""
    sizes = draw(SIZES)
    plan = SamplePlan(sizes, draw(st.integers(0, 5)), draw(st.integers(1, 17)), draw(st.integers(1, 40)))
    if not (draw(st.booleans()) if bucketed is None else bucketed):
        return plan
    drawn = np.random.default_rng(draw(st.integers(0, 99)))
    return replace(plan, lengths=tuple(drawn.integers(1, 30, size) for size in sizes))


PLANS = plans()


def epoch_of(plan, epoch):
    return np.concatenate([plan.step(epoch, step) for step in range(plan.num_steps)])


@given(PLANS, st.integers(0, 3))
def test_an_epoch_holds_every_sample_once(plan, epoch):
    assert sorted(epoch_of(plan, epoch)) == list(range(sum(plan.group_sizes)))


@given(PLANS, st.integers(1, 7), st.integers(1, 7), st.data())
def test_any_number_of_workers_stopped_and_resumed_anywhere_misses_none_and_repeats_none(plan, before, after, data):
    """A step is whole or not done; whoever goes on may be more or fewer, and asks anew from the step's number alone."""
    stop = data.draw(st.integers(0, plan.num_steps))
    seen = []
    for workers, steps in ((before, range(stop)), (after, range(stop, plan.num_steps))):
        again = replace(plan)
        for step in steps:
            shares = [again.share(1, step, rank=rank, num_workers=workers) for rank in range(workers)]
            assert sorted(np.concatenate(shares)) == sorted(plan.step(1, step))
            seen += [int(one) for share in shares for one in share]
    assert sorted(seen) == list(range(plan.num_samples))


@given(PLANS)
def test_shares_put_together_in_turn_are_the_step(plan):
    shares = [plan.share(0, 0, rank=rank, num_workers=3) for rank in range(3)]
    step = plan.step(0, 0)
    assert all((step[rank::3] == share).all() for rank, share in enumerate(shares))


@given(PLANS, st.data())
def test_ids_lead_to_their_group_and_place(plan, data):
    step = data.draw(st.integers(0, plan.num_steps - 1))
    groups, places = plan.groups_of(plan.step(0, step))
    starts = np.concatenate([[0], np.cumsum(plan.group_sizes)])
    assert (starts[groups] + places == plan.step(0, step)).all()
    assert all(place < plan.group_sizes[group] for group, place in zip(groups, places, strict=True))


def _lengths(plan, ids):
    return np.concatenate(plan.lengths)[ids]


@given(plans(bucketed=True), st.integers(0, 3))
def test_lengths_move_samples_within_their_window_alone(plan, epoch):
    order, plain = epoch_of(plan, epoch), epoch_of(replace(plan, lengths=None), epoch)
    starts = _epoch_order(plan.group_sizes, plan.window, plan.seed, epoch).starts
    for begin, end in pairwise(starts.tolist()):
        assert sorted(order[begin:end]) == sorted(plain[begin:end])


@given(plans(bucketed=True), st.integers(0, 3))
def test_steps_of_one_window_hold_like_lengths(plan, epoch):
    """Where everything is one window, whole steps are disjoint ranges of length, and their order is drawn."""
    plan = replace(plan, window=1 << 20)
    whole = [plan.step(epoch, step) for step in range(plan.num_samples // plan.batch_size)]
    ranges = sorted((_lengths(plan, ids).min(), _lengths(plan, ids).max()) for ids in whole)
    assert all(one[1] <= other[0] for one, other in pairwise(ranges))


def test_lengths_save_padding_and_the_order_of_steps_is_drawn():
    drawn = np.random.default_rng(0)
    alike = SamplePlan((50,) * 20, 3, 16, 200, lengths=tuple(drawn.integers(10, 500, 50) for _ in range(20)))

    def padding(plan):
        steps = [_lengths(alike, plan.step(0, step)) for step in range(plan.num_steps)]
        return sum(len(one) * one.max() - one.sum() for one in steps)

    assert padding(alike) < 0.4 * padding(replace(alike, lengths=None))
    longest = [int(_lengths(alike, alike.step(0, step)).max()) for step in range(12)]
    assert longest != sorted(longest)
    assert epoch_of(alike, 0).tolist() != epoch_of(alike, 1).tolist()


def test_lengths_of_other_samples_are_refused():
    with pytest.raises(ValueError, match="lengths must be those of the groups"):
        SamplePlan((3, 2), 0, 2, lengths=(np.ones(3), np.ones(3)))


def test_epochs_and_seeds_differ():
    plan, other = (SamplePlan((50, 50), seed, 100, 100) for seed in (0, 1))
    assert plan.step(0, 0).tolist() != plan.step(1, 0).tolist()
    assert plan.step(0, 0).tolist() != other.step(0, 0).tolist()
    assert plan.step(0, 0).tolist() == SamplePlan((50, 50), 0, 100, 100).step(0, 0).tolist()


def test_a_step_touches_few_groups_however_many_there_are():
    plan = SamplePlan((10,) * 1000, 0, 20, 40)
    touched = [len(set(plan.groups_of(plan.step(0, step))[0].tolist())) for step in range(plan.num_steps)]
    assert max(touched) <= 8  # two windows of four groups
    assert min(touched) > 2  # and it is shuffled


def test_the_order_is_the_one_it_always_was():
    # Made by this code; a change of it changes every trained model and must raise a version.
    assert SamplePlan((3, 4, 2), 7, 5, 4).step(2, 0).tolist() == [3, 5, 6, 8, 4]


def test_impossible_steps_and_sizes_are_refused():
    with pytest.raises(ValueError, match="steps 0 to 1, found 2"):
        SamplePlan((3,), 0, 2).step(0, 2)
    with pytest.raises(ValueError, match="found 0 and 65536"):
        SamplePlan((3,), 0, 0)


def test_sample_seeds_belong_to_record_seed_and_epoch_alone():
    records = np.arange(1000)
    seeds = sample_seeds(records, seed=1, epoch=2)
    assert len(set(seeds.tolist())) == 1000
    assert (sample_seeds(records[::-1], seed=1, epoch=2)[::-1] == seeds).all()
    assert not (sample_seeds(records, seed=1, epoch=3) == seeds).any()
    assert not (sample_seeds(records, seed=2, epoch=2) == seeds).any()
    assert 400 < (seeds & 1).sum() < 600  # five standard deviations of a fair coin are 79
