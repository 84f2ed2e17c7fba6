import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import DataError, InputError
from engine.imaging import instances
from engine.imaging.matching import match_counts, object_f1
from engine.training import _metrics
from engine.training.tasks.image_segmentation import ImageSegmentation, ImageSegmentationParams, pixel_classes

RECORDS = np.array([7, 8])


def masks(seed=0, count=2, side=20):
    """Boxes of several sizes, some touching."""
    chance = np.random.default_rng(seed)
    made = np.zeros((count, side, side), np.uint16)
    for one in made:
        for number in range(1, 5):
            row, column = chance.integers(0, side - 6, 2)
            one[row : row + 6, column : column + 5] = number
    return made


def fitted(**params):
    return ImageSegmentation.fit(ImageSegmentationParams(**params), [masks(0), masks(1)])


def certain(targets, task):
    """Values (B, K, Y, X) of a network that is sure, and right."""
    classes = pixel_classes(torch.from_numpy(targets), task.params.boundary_px)
    return torch.nn.functional.one_hot(classes, 3).movedim(-1, 1).numpy() * 0.98 + 0.01


@given(seed=st.integers(0, 1000), depth=st.integers(1, 4))
@settings(max_examples=30)
def test_classes_are_those_of_the_label_image(seed, depth):
    found = pixel_classes(torch.from_numpy(masks(seed).astype(np.int32)), depth).numpy()
    wanted = [instances.pixel_classes(one, boundary_px=depth) for one in masks(seed)]
    np.testing.assert_array_equal(found, wanted)


def test_it_learns_what_there_is_to_tell():
    task = fitted(boundary_px=1)
    assert task.outputs == ("background", "inside", "boundary")
    assert (task.num_images, sum(task.shares)) == (4, pytest.approx(1))
    assert task.num_objects == sum(len(np.unique(one)) - 1 for seed in (0, 1) for one in masks(seed))
    np.testing.assert_allclose(np.exp(task.bias()), task.shares)
    assert task.facts()["objects"] == task.num_objects


def test_a_perfect_network_has_perfect_figures():
    task = fitted(boundary_px=1)
    targets = task.targets(masks(3), records=RECORDS, where="set")
    kept, truths = task.kept(certain(targets, task), targets)
    assert kept.shape == (2, len(task.kept_names))
    # Objects that another cut in two are counted by number, and found as two.
    figures = _metrics.values_of(task.statistics(kept, truths), 2)
    assert figures["dice"] == 1
    assert (np.diag(np.diag(task.confusion(kept, truths))) == task.confusion(kept, truths)).all()
    assert truths.tolist() == [len(np.unique(one)) - 1 for one in targets]


@given(seed=st.integers(0, 1000))
@settings(max_examples=15)
def test_figures_are_those_of_the_objects(seed):
    task = fitted(boundary_px=1)
    targets = task.targets(masks(seed, count=3), records=np.arange(3), where="set")
    values = np.random.default_rng(seed).random((3, 3, 20, 20))
    values = values / values.sum(axis=1, keepdims=True) + 2 * certain(targets, task)
    values /= values.sum(axis=1, keepdims=True)
    kept, truths = task.kept(values, targets)
    pairs = zip(targets, values, strict=True)
    counts = [match_counts(mask, instances.objects_of(one, task.params.growing)) for mask, one in pairs]
    statistics = task.statistics(kept, truths)
    for weights in (np.ones(3), np.array([2.0, 0.0, 1.0])):
        wanted = object_f1(np.tensordot(weights, np.array(counts), 1))
        assert statistics["object_f1_50"](weights) == pytest.approx(wanted[0])
        assert statistics["object_f1_70"](weights) == pytest.approx(wanted[4])
        assert statistics["object_f1_90"](weights) == pytest.approx(wanted[8])
        own = np.array([object_f1(one) for one in counts])
        assert statistics["object_f1_50_per_sample"](weights) == pytest.approx(np.average(own[:, 0], weights=weights))
        assert statistics["object_f1_70_per_sample"](weights) == pytest.approx(np.average(own[:, 4], weights=weights))
    assert task.confusion(kept, truths).sum() == targets.size


def test_an_image_without_objects_is_left_out_of_the_mean_over_images():
    task = fitted(boundary_px=1)
    targets = task.targets(masks(3), records=RECORDS, where="set")
    targets[0] = 0
    statistics = task.statistics(*task.kept(certain(targets, task), targets))
    alone = statistics["object_f1_50"](np.array([0.0, 1.0]))
    assert statistics["object_f1_50_per_sample"](np.ones(2)) == pytest.approx(alone)
    assert np.isnan(statistics["object_f1_50_per_sample"](np.array([1.0, 0.0])))


def test_the_loss_is_cross_entropy_by_image():
    task, heavy = fitted(boundary_px=1), fitted(boundary_px=1, boundary_weight=3.0)
    targets = torch.from_numpy(task.targets(masks(5), records=RECORDS, where="set"))
    logits = torch.randn(2, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    classes = pixel_classes(targets, 1)
    wanted = [torch.nn.functional.cross_entropy(logits[n][None], classes[n][None]) for n in range(2)]
    torch.testing.assert_close(task.losses(logits, targets), torch.stack(wanted))
    weighted = torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, 1.0, 3.0]))
    wanted = [weighted(logits[n][None], classes[n][None]) for n in range(2)]
    torch.testing.assert_close(heavy.losses(logits, targets), torch.stack(wanted))
    assert task.weights(targets).tolist() == [1, 1]


def test_no_rows_at_all():
    task = fitted()
    assert len(task.stack([])) == 0
    kept, truths = task.kept(np.zeros((0, 3, 4, 4)), np.zeros((0, 4, 4), np.int32))
    assert kept.shape == (0, len(task.kept_names))
    assert all(np.isnan(value) for value in _metrics.values_of(task.statistics(kept, truths), 0).values())


def test_masks_that_are_none_are_refused():
    task = fitted()
    with pytest.raises(DataError, match="record 8 has a mask with numbers from -1 to"):
        task.targets(np.stack([masks()[0], -(masks()[1] > 0).astype(np.int64)]), records=RECORDS, where="set")
    with pytest.raises(DataError, match=r"record 7 has a mask with numbers from 0 to 16777216"):
        task.targets(np.full((2, 3, 3), 1 << 24) * (np.arange(3) > 0), records=RECORDS, where="set")
    with pytest.raises(InputError, match="masks of type float64 and 2 axes, wanted are whole numbers"):
        task.targets(masks() * 0.5, records=RECORDS, where="set")
    with pytest.raises(InputError, match="the masks of the training rows hold no object"):
        ImageSegmentation.fit(ImageSegmentationParams(), [np.zeros((2, 4, 4), np.uint8)])


@pytest.mark.parametrize("values", [{"boundary_px": 0}, {"boundary_weight": 0.0}, {"inside": 1.0}, {"object_px": 0}])
def test_params_are_checked(values):
    with pytest.raises(ValueError, match="must"):
        ImageSegmentationParams(**values)
