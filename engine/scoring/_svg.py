"""Small charts as inline SVG text.

Colours come from the page by class (`s0`, `s1`, `grid`, ...), so that one drawing serves light, dark and print. Every
label is escaped here. No drawing needs a script or a file from elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Place = Callable[[float], float]
_BAND = 140
_QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram: `count` values from `low` to `high` (equal where the bar is a single value)."""

    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Frame:
    """Outer size and inner margins of a drawing in its own units."""

    width: int = 420
    height: int = 230
    left: int = 46
    right: int = 10
    top: int = 10
    bottom: int = 40

    def x(self, low: float, high: float) -> Place:
        """Map low..high to the inner width."""
        span = (high - low) or 1.0
        return lambda value: self.left + (value - low) / span * (self.width - self.left - self.right)

    def y(self, low: float, high: float) -> Place:
        """Map low..high to the inner height, upwards."""
        span = (high - low) or 1.0
        return lambda value: self.height - self.bottom - (value - low) / span * (self.height - self.top - self.bottom)


def number(value: float) -> str:
    """A short number for axes: at most four significant digits, a true minus sign."""
    text = f"{value:.4g}"
    return (text if text not in ("-0", "0") else "0").replace("-", "\u2212")


def ticks(low: float, high: float, *, about: int = 5) -> list[float]:
    """Round numbers within low..high, about so many."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    rough = span / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _svg(frame: Frame, title: str, parts: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {frame.width} {frame.height}" role="img" aria-label="{escape(title)}">'
    return "".join([head, f"<title>{escape(title)}</title>", *parts, "</svg>"])


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "middle", kind: str = "tick", turn: bool = False) -> str:
    turned = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turn else ""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turned}>{escape(text)}</text>'


def _axes(frame: Frame, x: Place, y: Place, *, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> list[str]:
    floor, wall = frame.height - frame.bottom, frame.width - frame.right
    parts = []
    for value in y_ticks:
        parts.append(_line(frame.left, y(value), wall, y(value), "grid"))
        parts.append(_text(frame.left - 6, y(value) + 3.5, number(value), anchor="end"))
    for value in x_ticks:
        parts.append(_line(x(value), floor, x(value), floor + 4, "axis"))
        parts.append(_text(x(value), floor + 15, number(value)))
    parts.append(_line(frame.left, floor, wall, floor, "axis"))
    return parts


def _labels(frame: Frame, x_label: str, y_label: str) -> list[str]:
    middle_x = (frame.left + frame.width - frame.right) / 2
    middle_y = (frame.top + frame.height - frame.bottom) / 2
    return [
        _text(middle_x, frame.height - 6, x_label, kind="label"),
        _text(12, middle_y, y_label, kind="label", turn=True),
    ]


def histogram(bars: Sequence[Bar], *, title: str, x_label: str) -> str:
    """Bars over a linear axis, counts on a log axis. A bar of a single value (exactly 0) stands in its own colour."""
    frame = Frame(width=340, height=210, left=60)
    low, high = min(bar.low for bar in bars), max(bar.high for bar in bars)
    sliver = (high - low) / 60 or 1.0
    x = frame.x(low - 1.2 * sliver, high + 1.2 * sliver)
    top = max(1.0, math.log10(max(bar.count for bar in bars) or 1))
    # The axis begins below 1, so that a single variant still shows.
    y = frame.y(-0.35, top * 1.04)
    powers = range(0, math.floor(top) + 1, 1 + math.floor(top) // 6)
    floor, parts = frame.height - frame.bottom, []
    for power in powers:
        parts.append(_line(frame.left, y(power), frame.width - frame.right, y(power), "grid"))
        parts.append(
            _text(frame.left - 6, y(power) + 3.5, f"{10**power:,}" if power < 5 else f"1e{power}", anchor="end")
        )
    # The single values are drawn last, over their neighbours; at the left end they stand outside the axis.
    for bar in sorted(bars, key=lambda one: one.low == one.high):
        if bar.count:
            shift = -0.6 * sliver if bar.low == low else 0.0
            parts.append(_bar(bar, x, y, floor, sliver=sliver, shift=shift))
    parts.append(_line(frame.left, floor, frame.width - frame.right, floor, "axis"))
    for value in ticks(low, high):
        parts.append(_line(x(value), floor, x(value), floor + 4, "axis"))
        parts.append(_text(x(value), floor + 15, number(value)))
    return _svg(frame, title, [*parts, *_labels(frame, x_label, "rows (log axis)")])


def _bar(bar: Bar, x: Place, y: Place, floor: float, *, sliver: float, shift: float) -> str:
    single = bar.low == bar.high
    left, right = x(bar.low), x(bar.high) - 0.6
    if single:
        left, right = x(bar.low - sliver / 2 + shift), x(bar.low + sliver / 2 + shift)
    height = floor - y(math.log10(bar.count))
    span = f"exactly {number(bar.low)}" if single else f"{number(bar.low)} to {number(bar.high)}"
    return (
        f'<rect class="{"s1" if single else "s0"}" x="{left:.2f}" y="{floor - height:.2f}" '
        f'width="{max(right - left, 0.8):.2f}" height="{height:.2f}"><title>{span}: {bar.count:,}</title></rect>'
    )


_MANY_POINTS = 100


def scatter(
    x_values: Floats, y_values: Floats, *, title: str, x_label: str, y_label: str, has_diagonal: bool = False
) -> str:
    """Points (N,) against (N,), with the zero lines and, where both are of one unit, the line of equal values."""
    frame = Frame(width=420, height=340, left=54)
    (x_low, x_high), (y_low, y_high) = _span(x_values), _span(y_values)
    x, y = frame.x(x_low, x_high), frame.y(y_low, y_high)
    parts = _axes(frame, x, y, x_ticks=ticks(x_low, x_high), y_ticks=ticks(y_low, y_high))
    if x_low < 0 < x_high:
        parts.append(_line(x(0), frame.top, x(0), frame.height - frame.bottom, "zero"))
    if y_low < 0 < y_high:
        parts.append(_line(frame.left, y(0), frame.width - frame.right, y(0), "zero"))
    if has_diagonal and (low := max(x_low, y_low)) < (high := min(x_high, y_high)):
        parts.append(_line(x(low), y(low), x(high), y(high), "chance"))
    radius = 2.4 if len(x_values) > _MANY_POINTS else 5.0
    points = "".join(
        f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="{radius}"/>'
        for a, b in zip(x_values.tolist(), y_values.tolist(), strict=True)
    )
    return _svg(frame, title, [*parts, f'<g class="dots s0">{points}</g>', *_labels(frame, x_label, y_label)])


def _span(values: Floats) -> tuple[float, float]:
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    margin = (high - low) * 0.04 or 0.5
    return low - margin, high + margin


def strips(rows: Sequence[tuple[str, Floats]], *, title: str, x_label: str) -> str:
    """One band of points per named set of values, spread at random but always alike, with the median marked."""
    height = 60 + _BAND * len(rows)
    frame = Frame(width=420, height=height, left=14)
    low, high = _span(np.concatenate([values for _, values in rows]))
    x = frame.x(low, high)
    floor = frame.height - frame.bottom
    parts = [_line(frame.left, floor, frame.width - frame.right, floor, "axis")]
    for value in ticks(low, high):
        parts.append(_line(x(value), frame.top, x(value), floor, "grid"))
        parts.append(_text(x(value), floor + 15, number(value)))
    generator = np.random.default_rng(0)
    for i, (name, values) in enumerate(rows):
        middle = frame.top + _BAND * i + 82
        parts.append(_text(frame.left + 2, middle - 60, name, anchor="start", kind="name"))
        spread = generator.uniform(-46, 46, len(values))
        points = zip(values.tolist(), spread.tolist(), strict=True)
        circles = "".join(f'<circle cx="{x(a):.1f}" cy="{middle + b:.1f}" r="2.4"/>' for a, b in points)
        parts.append(f'<g class="dots s{i % 3}">{circles}</g>')
        if len(values):
            median = float(np.median(values))
            parts.append(_line(x(median), middle - 50, x(median), middle + 50, "median"))
    return _svg(frame, title, [*parts, _text((frame.width + 4) / 2, height - 6, x_label, kind="label")])


def roc(curves: Sequence[tuple[Floats, Floats]], *, title: str) -> str:
    """ROC curves, each (false positive rate, true positive rate), classes c0, c1, c2, with the line of chance."""
    return _unit_curves(curves, title=title, x_label="false positive rate", y_label="true positive rate", chance=True)


def precision_recall(curves: Sequence[tuple[Floats, Floats]], *, title: str) -> str:
    """Curves, each (recall, precision), classes c0, c1, c2."""
    return _unit_curves(curves, title=title, x_label="recall", y_label="precision", chance=False)


def by_iou(curves: Sequence[tuple[Floats, Floats]], *, title: str) -> str:
    """Curves, each (intersection over union from 0.5 to 0.95, a share), classes c0, c1, c2."""
    tenths = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    return _unit_curves(curves, title=title, x_label="least IoU", y_label="share", chance=False, x_ticks=tenths)


def _unit_curves(
    curves: Sequence[tuple[Floats, Floats]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    chance: bool,
    x_ticks: Sequence[float] = _QUARTERS,
) -> str:
    frame = Frame(width=420, height=340, left=54)
    x, y = frame.x(x_ticks[0], x_ticks[-1]), frame.y(0, 1)
    parts = _axes(frame, x, y, x_ticks=x_ticks, y_ticks=_QUARTERS)
    if chance:
        parts.append(_line(x(0), y(0), x(1), y(1), "chance"))
    for i, (across, up) in enumerate(curves):
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(across.tolist(), up.tolist(), strict=True))
        parts.append(f'<polyline class="curve c{i % 3}" points="{points}"/>')
    return _svg(frame, title, [*parts, *_labels(frame, x_label, y_label)])


def reliability(bins: Sequence[tuple[float, float, float, float, int]], *, title: str) -> str:
    """Observed share against mean confidence, one bar per bin (low, high, confidence, observed, rows), and the diagonal
    on which a calibrated model's dots lie."""
    frame = Frame(width=420, height=340, left=54)
    x, y = frame.x(0, 1), frame.y(0, 1)
    parts = _axes(frame, x, y, x_ticks=_QUARTERS, y_ticks=_QUARTERS)
    floor, dots = y(0), []
    for low, high, confidence, observed, rows in bins:
        told = f"confidence {number(confidence)}, right {number(observed)}, {rows:,} rows"
        parts.append(
            f'<rect class="s0 pale" x="{x(low) + 0.5:.1f}" y="{y(observed):.1f}" '
            f'width="{x(high) - x(low) - 1:.1f}" height="{floor - y(observed):.1f}"><title>{told}</title></rect>'
        )
        dots.append(f'<circle cx="{x(confidence):.1f}" cy="{y(observed):.1f}" r="4"><title>{told}</title></circle>')
    parts.append(_line(x(0), y(0), x(1), y(1), "chance"))
    parts.append(f'<g class="s0">{"".join(dots)}</g>')
    return _svg(frame, title, [*parts, *_labels(frame, "mean confidence", "share that is right")])
