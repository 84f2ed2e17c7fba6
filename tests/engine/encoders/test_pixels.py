import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.encoders.pixels import Pixels, PixelsParams
from tests.toys.golden import check


def encoded(pixels, **params):
    return Pixels(PixelsParams(channels=pixels.shape[1], **params)).tensor(torch.from_numpy(pixels))


def counts(dtype, channels=2):
    generator = np.random.default_rng(5)
    return generator.integers(0, np.iinfo(dtype).max, (3, channels, 8, 9), endpoint=True).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_range_is_that_of_the_type(dtype):
    pixels = counts(dtype)
    pixels[0, 0, 0, :2] = 0, np.iinfo(dtype).max
    made = encoded(pixels)
    assert made.dtype == torch.float32
    assert made[0, 0, 0, :2].tolist() == [0, 1]
    np.testing.assert_allclose(made.numpy(), pixels / np.iinfo(dtype).max, rtol=1e-6)


def test_declared_values_become_zero_and_one():
    pixels = np.array([[[[150, 1150, 650, 0, 2150]]]], np.uint16)
    assert encoded(pixels, scale="values", low=150, high=1150).flatten().tolist() == pytest.approx(
        [0, 1, 0.5, -0.15, 2]
    )
    lifted = encoded(pixels, scale="values", low=150, high=1150, gamma=0.5)
    assert lifted.flatten().tolist() == pytest.approx([0, 1, 0.5**0.5, -(0.15**0.5), 2**0.5])


@given(gain=st.floats(0.5, 3), shift=st.floats(-20, 20))
def test_standard_and_percentiles_do_not_see_exposure(gain, shift):
    pixels = counts(np.uint8).astype(np.float32)
    for params in ({"scale": "standard"}, {"scale": "percentiles", "low": 5, "high": 95}):
        torch.testing.assert_close(
            encoded(pixels * gain + shift, **params), encoded(pixels, **params), atol=1e-3, rtol=1e-3
        )


def test_percentiles_of_each_channel_of_each_image():
    pixels = counts(np.uint16)
    made = encoded(pixels, scale="percentiles", low=0, high=100).flatten(2)
    assert (made.min(dim=2).values == 0).all()
    assert (made.max(dim=2).values == 1).all()
    low, high = np.percentile(pixels[1, 1], [25, 75], method="lower")
    wanted = (pixels[1, 1].astype(float) - low) / (float(high) - low)
    np.testing.assert_allclose(encoded(pixels, scale="percentiles", low=25, high=75)[1, 1].numpy(), wanted, rtol=1e-4)


@pytest.mark.parametrize("scale", ["standard", "percentiles"])
def test_a_constant_image_stays_finite(scale):
    assert (encoded(np.full((1, 1, 4, 4), 7, np.uint8), scale=scale, high=99.0) == 0).all()


def test_standard_has_mean_zero_and_spread_one():
    made = encoded(counts(np.uint16), scale="standard")
    torch.testing.assert_close(made.mean(dim=(2, 3)), torch.zeros(3, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(made.std(dim=(2, 3), correction=0), torch.ones(3, 2))


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"channels": 0}, "channels must be a whole number"),
        ({"scale": "other"}, "scale must be one of range, values, percentiles, standard, found 'other'"),
        ({"scale": "values"}, "wants low below high, found 0 and 0"),
        ({"scale": "percentiles", "low": -1.0, "high": 99.0}, "percentiles lie from 0 to 100"),
        ({"scale": "values", "high": float("inf")}, "must be finite"),
        ({"gamma": 0.0}, "gamma above 0"),
    ],
)
def test_params_are_checked(params, told):
    with pytest.raises(ValueError, match=told):
        PixelsParams(**params)


def test_other_images_than_declared_are_refused():
    with pytest.raises(ValueError, match=r"of 3 channels, found shape \[3, 2, 8, 9\]"):
        Pixels(PixelsParams(channels=3)).tensor(torch.from_numpy(counts(np.uint8)))
    with pytest.raises(ValueError, match="the pixels are floats: declare values"):
        encoded(np.zeros((1, 1, 2, 2), np.float32))


def test_golden_numbers_of_this_version():
    raw = torch.tensor([[[[0, 3], [60, 255]]]], dtype=torch.uint8)
    kinds = ({}, {"scale": "values", "low": 3, "high": 63}, {"scale": "standard"}, {"gamma": 0.5})
    percentiles = {"scale": "percentiles", "low": 10, "high": 80}
    found = [Pixels(PixelsParams(**one)).tensor(raw).flatten().tolist() for one in (*kinds, percentiles)]
    check(Pixels, 1, found, GOLDEN)


GOLDEN = [
    [0.0, 0.011765, 0.235294, 1.0],
    [-0.05, 0.0, 0.95, 4.2],
    [-0.763638, -0.734821, -0.187307, 1.685767],
    [0.0, 0.108465, 0.485071, 1.0],
    [0.0, 0.05, 1.0, 4.25],
]
