"""Charts: well-formed, marks where the values are, labels escaped."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.scoring._svg import Bar, Frame, histogram, number, roc, scatter, strips, ticks


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_are_few_even_and_inside(low: float, span: float) -> None:
    high = low + span
    found = ticks(low, high)
    if high > low and span > 1e-9 * abs(low):
        assert 2 <= len(found) <= 12
        assert all(low - span * 1e-6 <= one <= high + span * 1e-6 for one in found)
        steps = np.diff(found)
        assert np.allclose(steps, steps[0], rtol=1e-3, atol=1e-9)


def test_ticks_of_no_span() -> None:
    assert ticks(3.0, 3.0) == [3.0]
    assert ticks(0, 1) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]


def test_numbers_are_short() -> None:
    assert [number(v) for v in (0.25, -3.0, 0.0, -0.0, 1e-7)] == ["0.25", "\u22123", "0", "0", "1e\u221207"]


def test_frame_maps_ends_to_margins() -> None:
    frame = Frame()
    assert (frame.x(2, 4)(2), frame.x(2, 4)(4)) == (frame.left, frame.width - frame.right)
    assert (frame.y(2, 4)(2), frame.y(2, 4)(4)) == (frame.height - frame.bottom, frame.top)


def test_bars_are_as_tall_as_the_logarithm_of_their_count() -> None:
    root = ET.fromstring(histogram([Bar(0, 1, 1), Bar(1, 2, 10), Bar(2, 3, 100), Bar(3, 4, 0)], title="t", x_label="x"))
    heights = [float(one.attrib["height"]) for one in root.iter("rect")]
    assert len(heights) == 3 and heights[0] > 5
    assert heights[2] - heights[1] == pytest.approx(heights[1] - heights[0], abs=0.02)


def test_one_value_alone_can_be_drawn() -> None:
    root = ET.fromstring(histogram([Bar(0, 0, 5)], title="t", x_label="x"))
    assert [one[0].text for one in root.iter("rect")] == ["exactly 0: 5"]
    ET.fromstring(scatter(np.array([1.0]), np.array([2.0]), title="t", x_label="x", y_label="y"))
    ET.fromstring(strips([("a", np.array([1.0])), ("b", np.zeros(0))], title="t", x_label="x"))


def test_points_lie_where_their_values_are() -> None:
    x = np.array([-1.0, 0.0, 3.0])
    root = ET.fromstring(scatter(x, x**2, title="t", x_label="x", y_label="y"))
    marks = [(float(one.attrib["cx"]), float(one.attrib["cy"])) for one in root.iter("circle")]
    assert marks[1][0] - marks[0][0] == pytest.approx((marks[2][0] - marks[0][0]) / 4, abs=0.1)
    assert marks[0][1] - marks[2][1] == pytest.approx((marks[1][1] - marks[2][1]) * 8 / 9, abs=0.1)


def test_labels_are_escaped() -> None:
    evil, ends = "<b>&\"'", np.array([0.0, 1.0])
    for text in (
        histogram([Bar(0, 1, 3)], title=evil, x_label=evil),
        scatter(ends, ends, title=evil, x_label=evil, y_label=evil),
        strips([(evil, ends)], title=evil, x_label=evil),
        roc([(ends, ends)], title=evil),
    ):
        root = ET.fromstring(text)
        assert root.attrib["aria-label"] == evil and root[0].text == evil
        assert "<b>" not in text
