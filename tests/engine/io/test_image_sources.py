"""Which files make one image, and that what a folder holds is taken, left out by kind, or refused."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import InputError
from engine.io._image_stack import ImageProblem
from engine.io.image_sources import FILE, SITE, ZARR, ImageLoader, ImageSource, Reading, list_sources
from tests.toys.pictures import GUID, imagexpress, ome_plate, ome_zarr, pixels, save


def test_a_folder_of_everything(tmp_path):
    save(tmp_path / "b" / "2.png", pixels(1))
    save(tmp_path / "a.tif", pixels(2))
    save(tmp_path / ".hidden.png", pixels(3))
    save(tmp_path / ".git" / "x.png", pixels(3))
    (tmp_path / "notes.txt").write_text("x")
    ome_zarr(tmp_path / "c.zarr", pixels(4), "yx")
    ome_plate(tmp_path / "p.zarr", {"A/1": [pixels(5, (1, 9, 7))]})
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    found = list_sources([str(tmp_path)], Reading())
    assert {one.id: one.kind for one in found.sources} == {
        "a.tif": FILE,
        "b/2.png": FILE,
        "c.zarr": ZARR,
        "p.zarr/A/1/0": ZARR,
    }
    assert found.passed_over == {"files .txt": 1, "files .png": 1}


def test_several_folders_are_told_apart(tmp_path):
    save(tmp_path / "one" / "x.png", pixels(1))
    save(tmp_path / "two" / "x.png", pixels(2))
    found = list_sources([str(tmp_path / "one"), str(tmp_path / "two")], Reading())
    assert [(one.id, one.folder) for one in found.sources] == [("one/x.png", 0), ("two/x.png", 1)]
    save(tmp_path / "more" / "one" / "x.png", pixels(1))
    with pytest.raises(InputError, match="two input folders are called 'one'"):
        list_sources([str(tmp_path / "one"), str(tmp_path / "more" / "one")], Reading())


def test_nothing_there_is_said(tmp_path):
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    with pytest.raises(InputError, match=r"no images here; found 1 files \.gif"):
        list_sources([str(tmp_path)], Reading())
    with pytest.raises(InputError, match="is not there"):
        list_sources([str(tmp_path / "nowhere")], Reading())


@pytest.mark.parametrize(("steps", "times"), [(0, 1), (3, 1), (0, 2)])
def test_sites_of_a_plate_have_their_channels_and_depths(tmp_path, steps, times):
    imagexpress(tmp_path, channels=2, steps=steps, times=times)
    found = list_sources([str(tmp_path)], Reading())
    assert len(found.sources) == 4 * times
    assert all(one.kind == SITE for one in found.sources)
    assert found.passed_over["thumbnails of a plate"] == 8 * times * (steps + 1)
    loader = ImageLoader([str(tmp_path)], None, Reading())
    for source in found.sources:
        stack = loader.open(source).read(0, 1)
        assert stack.pixels.shape == (1, 2, max(1, steps), 24, 20)
        assert stack.channels == ("w1", "w2")
        for channel in range(2):
            for depth in range(max(1, steps)):
                below = (f"TimePoint_{source.time + 1}/" if times > 1 else "") + (
                    f"ZStep_{depth + 1}/" if steps else ""
                )
                name = f"{below}toy_{source.well}_s{source.field}_w{channel + 1}{GUID}.tif"
                judge = loader.open(ImageSource("x", FILE, files=(name,))).read(0, 1)
                np.testing.assert_array_equal(stack.pixels[0, channel, depth], judge.pixels[0, 0, 0])


def test_a_site_without_a_channel_says_which(tmp_path):
    imagexpress(tmp_path, channels=2, thumbs=False)
    (tmp_path / f"toy_B02_s2_w2{GUID}.tif").unlink()
    bad = [one for one in list_sources([str(tmp_path)], Reading()).sources if one.problem is not None]
    assert [(one.well, one.field, one.problem.reason) for one in bad] == [("B02", "2", "missing_channel")]
    assert "no file for w2" in bad[0].problem.sentence


def test_sites_of_files_that_differ_are_refused(tmp_path):
    imagexpress(tmp_path, channels=2, thumbs=False)
    save(tmp_path / f"toy_B02_s2_w2{GUID}.tif", pixels(1, (9, 9), "uint16"))
    found = list_sources([str(tmp_path)], Reading()).sources
    loader = ImageLoader([str(tmp_path)], None, Reading())
    with pytest.raises(ImageProblem, match="where the site's first file has"):
        loader.open(found[-1])


def test_plates_can_be_taken_file_by_file(tmp_path):
    imagexpress(tmp_path, channels=2, thumbs=False)
    found = list_sources([str(tmp_path)], Reading(plates=False)).sources
    assert len(found) == 8
    assert {one.kind for one in found} == {FILE}


def test_a_file_that_goes_is_a_problem_of_its_image(tmp_path):
    loader = ImageLoader([str(tmp_path)], None, Reading())
    with pytest.raises(ImageProblem, match=r"x\.png cannot be read"):
        loader.open(ImageSource("x.png", FILE, files=("x.png",)))
