"""Sequence logos as inline SVG text (Schneider and Stephens 1990, Nucleic Acids Research 18:6097).

The letters A, C, G and T are outlines of our own, so that a logo looks alike wherever it is shown; others are text.
Colours come from the page by class: `la`, `lc`, `lg`, `lt`, `lx`.
"""

from __future__ import annotations

from html import escape

import numpy as np
from numpy.typing import NDArray

from engine.scoring._svg import Frame, number, ticks

LETTER_WIDTH = 9
_HEIGHT, _LEFT, _BOTTOM, _TOP = 120, 46, 20, 8
_SMALLEST = 0.4
# In a box 100 wide and 100 high, y downwards.
_OUTLINES = {
    "A": "M0 100L36 0H64L100 100H77L70 78H30L23 100ZM37 60H63L50 20Z",
    "C": "M98 70Q92 100 54 100Q4 100 4 50Q4 0 54 0Q92 0 98 30H74Q70 18 54 18Q28 18 28 50Q28 82 54 82Q70 82 74 70Z",
    "G": "M98 92Q80 100 56 100Q3 100 3 50Q3 0 56 0Q92 0 98 30H74Q70 18 54 18Q27 18 27 50Q27 82 56 82Q68 82 76 78V64H54"
    "V46H98Z",
    "T": "M0 0H100V19H62V100H38V19H0Z",
}
Values = NDArray[np.float64]
Stack = tuple[tuple[str, float], ...]


def contribution_logo(text: str, values: Values, *, first: int, title: str) -> str:
    """Letters of a sequence, each as high as it contributes; those that lower the output hang below the line.

    Args:
        text: (L,) letters.
        values: (L,) contributions.
        first: position of the first letter, for the axis.
        title: what the drawing shows.
    """
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    heights: list[Stack] = [((text[i], float(values[i])),) for i in range(len(text))]
    return _drawn(heights, low, high or (1.0 if low == 0 else 0.0), first=first, title=title)


def motif_logo(counts: Values, *, title: str) -> str:
    """A motif's letters by information content in bits, the most frequent on top, (W, 4) counts of A, C, G, T."""
    shares = counts / counts.sum(axis=1, keepdims=True)
    bits = 2 + np.sum(shares * np.log2(np.where(shares > 0, shares, 1)), axis=1, keepdims=True)
    stacks: list[Stack] = [
        tuple((letter, float(height)) for height, letter in sorted(zip(row, "ACGT", strict=True)))
        for row in shares * bits
    ]
    return _drawn(stacks, 0.0, 2.0, first=1, title=title, height=64)


def _drawn(
    stacks: list[Stack],
    low: float,
    high: float,
    *,
    first: int,
    title: str,
    height: int = _HEIGHT,
) -> str:
    frame = Frame(_LEFT + LETTER_WIDTH * len(stacks) + 6, height, _LEFT, 6, _TOP, _BOTTOM)
    y = frame.y(low, high)
    parts = []
    for value in ticks(low, high, about=3):
        where = f'x1="{_LEFT}" y1="{y(value):.1f}" x2="{frame.width - 6}" y2="{y(value):.1f}"'
        parts.append(f'<line class="{"zero" if value == 0 else "grid"}" {where}/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 5}" y="{y(value) + 3.5:.1f}" text-anchor="end">{number(value)}</text>'
        )
    for place, stack in enumerate(stacks):
        x, up, down = _LEFT + LETTER_WIDTH * place, 0.0, 0.0
        for letter, value in stack:
            base = up if value >= 0 else down
            parts.append(_letter(letter, x, y(base), y(base + value)))
            up, down = (up + value, down) if value >= 0 else (up, down + value)
    step = 5 if len(stacks) < 40 else 10
    for place in range(len(stacks)):
        if (first + place) % step == 0:
            at = _LEFT + LETTER_WIDTH * (place + 0.5)
            parts.append(
                f'<text class="tick" x="{at:.1f}" y="{height - 5}" text-anchor="middle">{first + place}</text>'
            )
    size = f'viewBox="0 0 {frame.width} {height}" style="max-width:{frame.width}px"'
    head = f'<svg class="logo" {size} role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>'
    return "".join([head, *parts, "</svg>"])


def _letter(letter: str, x: float, one: float, other: float) -> str:
    """A letter between two heights; one that hangs is turned over."""
    top, tall = min(one, other), abs(one - other)
    if tall < _SMALLEST:
        return ""
    turned = other > one
    scale = f"scale({(LETTER_WIDTH - 0.8) / 100:.4f} {(-tall if turned else tall) / 100:.4f})"
    move = f"translate({x + 0.4:.1f} {top + tall if turned else top:.2f})"
    kind = letter.lower() if letter in _OUTLINES else "x"
    if letter in _OUTLINES:
        return f'<path class="l{kind}" transform="{move} {scale}" d="{_OUTLINES[letter]}"/>'
    # A capital stands on its base line and is about 0.73 of the size high.
    return (
        f'<text class="lx" transform="{move} {scale}" x="50" y="100" text-anchor="middle" '
        f'textLength="96" lengthAdjust="spacingAndGlyphs" style="font-size:137px">{escape(letter)}</text>'
    )
