"""ImageXpress names: what they say, and that no file of a plate is taken twice or lost in silence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.io.plate_names import PlateFile, gather_sites, parse_plate_name
from tests.toys.pictures import GUID


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("x_A01_s1_w1.tif", PlateFile("x", "A01", 1, 1, 1, 0, False)),
        (f"x_A01_s2{GUID}.TIF", PlateFile("x", "A01", 2, 1, 1, 0, False)),
        (f"x_A01_s12_w3{GUID}.tif", PlateFile("x", "A01", 12, 3, 1, 0, False)),
        (f"x_A01_s2_thumb{GUID}.tif", PlateFile("x", "A01", 2, 1, 1, 0, True)),
        (f"x_AF48_w2{GUID}.tif", PlateFile("x", "AF48", 1, 2, 1, 0, False)),
        (f"2023/7/TimePoint_3/ZStep_2/a_b_E07_s1{GUID}.tif", PlateFile("2023/7/a_b", "E07", 1, 1, 3, 2, False)),
        ("plate_B3_E07_s1.tif", PlateFile("plate_B3", "E07", 1, 1, 1, 0, False)),
        ("x_A01.tif", None),
        ("x_s1_w1.tif", None),
        ("cell_12.tif", None),
        ("x_A01_s1_w1.png", None),
        ("x_A01_s1_w1_extra.tif", None),
    ],
)
def test_what_a_name_says(path, told):
    assert parse_plate_name(path) == told


@given(
    plate=st.from_regex(r"[a-z][a-z0-9 -]{0,8}", fullmatch=True),
    row=st.sampled_from("ABCDEFGHIJKLMNOP"),
    column=st.integers(1, 24),
    site=st.integers(1, 99),
    channel=st.integers(1, 9),
    time=st.integers(1, 20),
    step=st.integers(0, 9),
)
def test_names_round_trip(*, plate, row, column, site, channel, time, step):
    folder = f"TimePoint_{time}/" + (f"ZStep_{step}/" if step else "")
    told = parse_plate_name(f"{folder}{plate}_{row}{column:02d}_s{site}_w{channel}{GUID}.tif")
    assert told == PlateFile(plate, f"{row}{column:02d}", site, channel, time, step, False)


def gather(*paths: str, projections: bool = False):
    told = [(path, parse_plate_name(path)) for path in paths]
    return gather_sites([(path, one) for path, one in told if one is not None], projections=projections)


def test_steps_or_their_projections():
    paths = ["ZStep_1/x_A01_s1.tif", "ZStep_2/x_A01_s1.tif", "x_A01_s1.tif", "x_B01_s1.tif"]
    steps = gather(*paths)
    assert [site.files for site in steps.sites] == [
        {(1, 1): paths[0], (1, 2): paths[1]},
        {(1, 0): "x_B01_s1.tif"},  # has no steps, so it is no projection
    ]
    assert steps.num_left_out == 1
    flat = gather(*paths, projections=True)
    assert [site.files for site in flat.sites] == [{(1, 0): "x_A01_s1.tif"}, {(1, 0): "x_B01_s1.tif"}]
    assert flat.num_left_out == 2


def test_every_file_is_taken_left_out_or_doubled():
    paths = ["x_A01_s1_w1.tif", "x_A01_s1_w2.tif", f"x_A01_s1_w1{GUID}.tif", "x_A01_s1_w1_thumb.tif"]
    found = gather(*paths)
    (site,) = found.sites
    assert (len(site.files), len(site.doubled), found.num_thumbs) == (2, 1, 1)
    assert found.channels == {"x": (1, 2)}
