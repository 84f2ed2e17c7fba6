import numpy as np

from engine.training._examples import coloured, seen


def test_each_object_has_a_colour_of_its_own():
    colours = coloured(np.arange(12).reshape(3, 4), (3, 4))
    assert colours.shape == (3, 4, 3)
    assert (colours[0, 0] == 0).all()
    assert len({tuple(one) for one in colours.reshape(-1, 3).tolist()}) == 12
    far = np.abs(colours.reshape(-1, 3)[1:-1].astype(int) - colours.reshape(-1, 3)[2:].astype(int)).max(axis=1)
    assert (far > 60).all()
    assert (coloured(3, (2, 5)) == coloured(np.full((2, 5), 3), (2, 5))).all()


def test_pixels_fill_the_range():
    pixels = np.linspace(100, 4000, 1000).reshape(1, 20, 50).astype(np.uint16)
    made = seen(pixels)
    assert made.dtype == np.uint8
    assert (made[..., 0] == made[..., 2]).all()
    assert (made.min(), made.max()) == (0, 255)
    assert (seen(np.full((1, 3, 3), 9, np.uint8)) == 0).all()


def test_colours_stay_colours():
    pixels = np.zeros((4, 2, 2), np.uint8)
    pixels[0] = 255
    pixels[3] = 77
    assert seen(pixels)[0, 0].tolist() == [255, 0, 0]
