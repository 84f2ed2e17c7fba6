"""Thumbnails: Pillow reads them, and they show what the image shows."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from engine.ingest._thumbnails import SIDE_PX, picture
from tests.toys.pictures import pixels


def shown(address: str) -> np.ndarray:
    head, _, text = address.partition(",")
    assert head == "data:image/png;base64"
    image = Image.open(io.BytesIO(base64.b64decode(text)))
    assert (image.format, image.mode) == ("PNG", "RGB")
    return np.asarray(image)


def test_small_colour_images_are_shown_as_they_are():
    array = pixels(1, (3, 9, 7))
    np.testing.assert_array_equal(shown(picture(array)), np.moveaxis(array, 0, -1))


@pytest.mark.parametrize(
    "shape", [(1, 300, 500), (2, 500, 300), (4, 144, 145), (1, 3, 900, 1000), (1, 1, 2000), (1, 1, 1)]
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "int16"])
def test_any_shape_and_type(shape, dtype):
    found = shown(picture(pixels(1, shape, dtype)))
    assert max(found.shape[:2]) == min(SIDE_PX, max(shape[-2:]))


def test_grey_is_stretched():
    array = np.linspace(1000, 1100, 100).reshape(1, 10, 10).astype(np.uint16)
    found = shown(picture(array))
    assert found.min() == 0
    assert found.max() == 255


def test_objects_are_outlined_and_their_insides_shown():
    array = np.full((1, 20, 20), 7, np.uint8)
    array[0, 0, 0] = 0
    mask = np.zeros((20, 20), np.uint16)
    mask[5:12, 5:12] = 3
    with_mask, without = shown(picture(array, mask)), shown(picture(array))
    differs = (with_mask != without).any(axis=-1)
    assert differs[5, 5:12].all()
    assert not differs[6:11, 6:11].any()
    assert not differs[15:].any()
