import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.training._sample_plan import SamplePlan, sample_seeds

SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=12).map(tuple)
PLANS = st.builds(
    SamplePlan,
    group_sizes=SIZES,
    seed=st.integers(0, 5),
    batch_size=st.integers(1, 17),
    window=st.integers(1, 40),
)


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
        again = SamplePlan(plan.group_sizes, plan.seed, plan.batch_size, plan.window)
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
