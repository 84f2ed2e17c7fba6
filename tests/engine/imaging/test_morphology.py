import numpy as np
import pytest

from engine.imaging.morphology import morphology
from engine.imaging.otsu import otsu_objects, otsu_threshold


def ellipse(height, width, *, centre, axes, angle):
    """Pixels within an ellipse; `angle` from the axis of rows to the first axis."""
    y, x = np.mgrid[:height, :width]
    dy, dx = y - centre[0], x - centre[1]
    along, across = dy * np.cos(angle) + dx * np.sin(angle), dx * np.cos(angle) - dy * np.sin(angle)
    return (along / axes[0]) ** 2 + (across / axes[1]) ** 2 <= 1


@pytest.mark.parametrize("angle", [0.0, 0.4, 1.2, -0.7])
def test_an_ellipse_has_its_own_shape(angle):
    inside = ellipse(120, 140, centre=(60, 70), axes=(40, 20), angle=angle)
    found = {name: values[0] for name, values in morphology(inside.astype(np.uint8)).items()}
    assert found["area_px"] == pytest.approx(np.pi * 40 * 20, rel=0.01)
    assert (found["centre_y"], found["centre_x"]) == pytest.approx((60, 70), abs=1e-6)
    assert (found["major_axis_px"], found["minor_axis_px"]) == pytest.approx((80, 40), rel=0.01)
    assert found["eccentricity"] == pytest.approx(np.sqrt(1 - 0.25), abs=0.01)
    assert found["orientation"] == pytest.approx(angle, abs=0.01)
    assert not found["touches_edge"]


def test_a_pixel_is_a_unit_square():
    labels = np.zeros((3, 4), np.int32)
    labels[1, 2] = 7
    found = {name: values.tolist() for name, values in morphology(labels).items()}
    assert found["object"] == [7]
    assert found["eccentricity"] == [0]
    # A square of side a has second moments a^2 / 12.
    assert found["major_axis_px"] == found["minor_axis_px"] == [pytest.approx(4 / np.sqrt(12))]
    assert [found[name] for name in ("y_begin", "y_end", "x_begin", "x_end")] == [[1], [2], [2], [3]]


def test_a_line_is_as_long_as_its_moments_say():
    found = morphology(np.ones((1, 30), np.uint8))
    assert found["major_axis_px"][0] == pytest.approx(4 * 30 / np.sqrt(12))
    assert found["orientation"][0] == pytest.approx(np.pi / 2)
    assert found["touches_edge"][0]


def test_brightness_by_channel_as_numpy_has_it():
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 4, (9, 11)) * 10
    pixels = generator.integers(0, 60_000, (2, 9, 11)).astype(np.uint16)
    found = morphology(labels, pixels, ("dna", "actin"))
    assert found["object"].tolist() == [10, 20, 30]
    for place, name in enumerate(found["object"]):
        mine = pixels[1][labels == name]
        wanted = mine.mean(), mine.std(), mine.min(), mine.max()
        assert [found[f"{what}_actin"][place] for what in ("mean", "std", "min", "max")] == pytest.approx(wanted)
        assert found["mean_dna"][place] == pytest.approx(pixels[0][labels == name].mean())
    assert "mean_0" in morphology(labels, pixels)


def test_no_object_no_row():
    found = morphology(np.zeros((3, 3), np.uint8), np.zeros((1, 3, 3)))
    assert {len(values) for values in found.values()} == {0}


def test_what_does_not_belong_together_is_refused():
    labels = np.zeros((3, 3), np.uint8)
    with pytest.raises(ValueError, match="does not belong to labels of shape"):
        morphology(labels, np.zeros((1, 3, 4)))
    with pytest.raises(ValueError, match="2 names for 1 channels"):
        morphology(labels, np.zeros((1, 3, 3)), ("a", "b"))


def test_the_threshold_parts_two_heaps():
    generator = np.random.default_rng(2)
    dark, bright = generator.normal(100, 5, 5000), generator.normal(300, 20, 500)
    assert dark.max() <= otsu_threshold(np.concatenate([dark, bright])) < bright.min()
    assert otsu_threshold(np.full((4, 4), 7)) == 7


def test_bright_regions_are_objects_filled_and_without_specks():
    pixels = np.full((30, 30), 10, np.uint16)
    pixels[3:12, 3:12] = 200
    pixels[6:8, 6:8] = 10
    pixels[20:26, 5:10] = 180
    pixels[15, 25] = 250
    labels = otsu_objects(pixels)
    assert labels.max() == 2
    assert (labels == labels[4, 4]).sum() == 81
    assert labels[15, 25] == 0
