"""Logos: letters as high as their values, on the right side of the line."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from engine.interpret._logo import contribution_logo, motif_logo


def heights(svg: str) -> list[tuple[str, float, float]]:
    """(class, top, height; negative for letters that hang) of every letter."""
    found = []
    for one in ET.fromstring(svg).iter():
        if one.tag in ("path", "text") and "transform" in one.attrib:
            y, scale = re.fullmatch(
                r"translate\([\d.]+ ([-\d.]+)\) scale\([\d.]+ ([-\d.]+)\)", one.get("transform")
            ).groups()
            found.append((one.get("class"), float(y), float(scale) * 100))
    return found


def test_letters_are_as_high_as_they_contribute():
    values = np.array([1.0, -0.5, 2.0, 0.0, -1.0])
    drawn = heights(contribution_logo("ACGTN", values, first=11, title="a <b>"))
    assert [kind for kind, _, _ in drawn] == ["la", "lc", "lg", "lx"]
    unit = drawn[0][2]
    assert [height / unit for _, _, height in drawn] == pytest.approx([1, -0.5, 2, -1], abs=0.01)
    # What stands ends at the line, what hangs is turned over and begins with its foot below.
    line = drawn[0][1] + drawn[0][2]
    assert drawn[2][1] + drawn[2][2] == pytest.approx(line, abs=0.1)
    assert drawn[1][1] == pytest.approx(line - drawn[1][2], abs=0.1)


def test_nothing_but_zeros_and_proteins_are_drawn():
    assert heights(contribution_logo("ACG", np.zeros(3), first=1, title="x")) == []
    assert [one[0] for one in heights(contribution_logo("MK", np.array([1.0, -1.0]), first=1, title="x"))] == [
        "lx",
        "lx",
    ]


def test_information_of_a_motif():
    counts = np.array([[10.0, 0, 0, 0], [5, 5, 0, 0], [1, 1, 1, 1]])
    drawn = heights(motif_logo(counts, title="x"))
    unit = drawn[0][2] / 2
    assert [(kind, round(height / unit, 3)) for kind, _, height in drawn] == [("la", 2.0), ("la", 0.5), ("lc", 0.5)]
