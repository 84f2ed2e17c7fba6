import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.encoders.one_hot import OneHot, OneHotParams
from engine.encoders.pixels import Pixels, PixelsParams
from engine.errors import InputError
from engine.training._image_augmentation import ImageAugmentation

SEEDS = st.integers(-(2**63), 2**63 - 1)


def image(height=12, width=17, channels=2, dtype=np.uint16):
    """Every pixel of the first channel has a number of its own, and the mask says the same."""
    mask = np.arange(height * width, dtype=np.uint16).reshape(height, width)
    return np.stack([mask + number for number in range(channels)]).astype(dtype), mask


@given(
    seed=SEEDS,
    flip=st.booleans(),
    turn=st.booleans(),
    crop_px=st.sampled_from([0, 5, 12]),
    shift_px=st.integers(0, 3),
)
@settings(max_examples=80)
def test_pixels_and_mask_move_together(seed, flip, turn, crop_px, shift_px):
    pixels, mask = image()
    made, moved = ImageAugmentation(flip, turn, crop_px, shift_px).applied(pixels, mask, seed)
    assert (made[0] == moved).all()
    assert (made[1] == moved + 1).all()
    assert made.dtype == pixels.dtype
    if crop_px:
        assert made.shape == (2, crop_px, crop_px)
    if not crop_px and not shift_px:
        assert sorted(moved.ravel().tolist()) == sorted(mask.ravel().tolist())
    assert (mask == image()[1]).all()


@given(seed=SEEDS)
def test_the_seed_alone_decides(seed):
    pixels, mask = image()
    vary = ImageAugmentation(True, True, 6, 2, 0.3, 0.3)
    one, other = vary.applied(pixels, mask, seed), vary.applied(pixels, mask, seed)
    assert (one[0] == other[0]).all()
    assert (vary.applied(pixels, None, seed)[0] == one[0]).all()
    assert vary.applied(pixels, None, seed)[1] is None


def test_at_rest_nothing_changes():
    pixels, mask = image()
    made, moved = ImageAugmentation().applied(pixels, mask, 5)
    assert (made == pixels).all()
    assert (moved == mask).all()


def test_all_eight_forms_and_all_places_come():
    _, mask = image(4, 4)
    forms = {
        ImageAugmentation(flip=True, turn=True).applied(mask[None], None, seed)[0].tobytes() for seed in range(200)
    }
    assert len(forms) == 8
    places = {ImageAugmentation(crop_px=2).applied(mask[None], None, seed)[0].tobytes() for seed in range(200)}
    assert len(places) == 9
    shifts = [ImageAugmentation(shift_px=1).applied(mask[None], None, seed)[0] for seed in range(200)]
    assert len({one.tobytes() for one in shifts}) == 9
    assert (np.sort([(one == mask).all() for one in shifts])[-1]) == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_exposure_keeps_type_and_range(dtype):
    pixels = np.full((1, 6, 6), 200, dtype)
    pixels[:, :3] = 100
    vary = ImageAugmentation(brightness=1.0, contrast=1.0)
    made = [vary.applied(pixels, None, seed)[0] for seed in range(50)]
    assert {one.dtype for one in made} == {np.dtype(dtype)}
    # Neither goes through zero: what was brighter is not darker afterwards.
    assert all((one[:, 3:] >= one[:, :3].max()).all() for one in made)
    means = np.array([one.mean() for one in made])
    assert means.min() < 120
    assert means.max() > 180
    if dtype == np.uint8:
        assert max(one.max() for one in made) == 255


def test_brightness_and_contrast_as_declared():
    pixels = np.array([[[1000, 2000], [3000, 4000]]], np.uint16)
    for seed in range(20):
        brighter = ImageAugmentation(brightness=0.5).applied(pixels, None, seed)[0] / pixels
        assert np.ptp(brighter) < 0.002
        assert np.exp(-0.5) < brighter.mean() < np.exp(0.5)
        steeper = ImageAugmentation(contrast=0.5).applied(pixels, None, seed)[0].astype(float)
        assert steeper.mean() == pytest.approx(2500, abs=1)
        assert np.exp(-0.5) < np.ptp(steeper) / 3000 < np.exp(0.5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"augment.crop_px.*crop of 65 pixels does not fit images of 64 x 70"):
        ImageAugmentation(crop_px=65).check_shape((64, 70))
    with pytest.raises(InputError, match=r"augment.turn.*not square.*set augment.crop_px too"):
        ImageAugmentation(turn=True).check_shape((64, 70))
    ImageAugmentation(turn=True, crop_px=64).check_shape((64, 70))
    ImageAugmentation(turn=True).check_shape((64, 64))
    ImageAugmentation().check(Pixels(PixelsParams()))
    with pytest.raises(InputError, match="OneHot does not read images"):
        ImageAugmentation().check(OneHot(OneHotParams()))
