"""Size, shape and brightness of the objects of a label image, one row each.

Shapes are those of the ellipse with the object's second moments, a pixel being a unit square (Haralick and Shapiro
1992, Computer and Robot Vision, volume 1, appendix A), as CellProfiler and scikit-image have them.

Shape letters: O objects, C channels, Y and X rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def morphology(
    labels_YX: npt.NDArray[Any], pixels_CYX: npt.NDArray[Any] | None = None, channels: Sequence[str] = ()
) -> dict[str, npt.NDArray[Any]]:
    """Columns by name, each (O,), the objects by ascending number.

    object: its number; area_px; centre_y, centre_x and the box y_begin, x_begin, y_end, x_end (half-open), in pixels
    from the first one's centre; major_axis_px and minor_axis_px, full lengths; eccentricity, 0 of a circle to 1 of a
    line; orientation, radians from the axis of rows to the major axis, above -pi/2 to pi/2; touches_edge; and of each
    channel mean_, std_, min_ and max_.

    Args:
        labels_YX: objects by number; 0 is none.
        pixels_CYX: what to measure brightness in.
        channels: names of its channels; unset numbers them from 0 on.

    Raises:
        ValueError: image and labels are of different sizes, or there are more or fewer names than channels.
    """
    y_N, x_N = np.nonzero(labels_YX)
    names_O, code_N, area_O = np.unique(labels_YX[y_N, x_N], return_inverse=True, return_counts=True)
    code_N = code_N.ravel()
    made: dict[str, npt.NDArray[Any]] = {"object": names_O.astype(np.int64), "area_px": area_O.astype(np.int64)}
    made |= _shape(y_N, x_N, code_N, area_O.astype(np.float64))
    made |= _box(y_N, x_N, code_N, len(names_O), labels_YX.shape)
    if pixels_CYX is not None:
        _check(labels_YX, pixels_CYX, channels)
        for number, plane_YX in enumerate(pixels_CYX):
            name = channels[number] if channels else str(number)
            made |= _brightness(plane_YX[y_N, x_N].astype(np.float64), code_N, area_O.astype(np.float64), name)
    return made


def _check(labels_YX: npt.NDArray[Any], pixels_CYX: npt.NDArray[Any], channels: Sequence[str]) -> None:
    if pixels_CYX.ndim != 3 or pixels_CYX.shape[1:] != labels_YX.shape:
        raise ValueError(f"an image of shape {pixels_CYX.shape} does not belong to labels of shape {labels_YX.shape}")
    if channels and len(channels) != len(pixels_CYX):
        raise ValueError(f"{len(channels)} names for {len(pixels_CYX)} channels")


def _shape(y_N: Any, x_N: Any, code_N: Any, area_O: Floats) -> dict[str, Floats]:
    centre_y = _sums(y_N, code_N, area_O) / area_O
    centre_x = _sums(x_N, code_N, area_O) / area_O
    dy_N, dx_N = y_N - centre_y[code_N], x_N - centre_x[code_N]
    # A pixel is a square, which has a spread of its own.
    yy = _sums(dy_N * dy_N, code_N, area_O) / area_O + 1 / 12
    xx = _sums(dx_N * dx_N, code_N, area_O) / area_O + 1 / 12
    xy = _sums(dy_N * dx_N, code_N, area_O) / area_O
    spread = np.hypot(yy - xx, 2 * xy)
    major, minor = (yy + xx + spread) / 2, np.maximum((yy + xx - spread) / 2, 0.0)
    return {
        "centre_y": centre_y,
        "centre_x": centre_x,
        "major_axis_px": 4 * np.sqrt(major),
        "minor_axis_px": 4 * np.sqrt(minor),
        "eccentricity": np.sqrt(1 - minor / major),
        "orientation": np.arctan2(2 * xy, yy - xx) / 2,
    }


def _box(y_N: Any, x_N: Any, code_N: Any, num: int, shape: tuple[int, ...]) -> dict[str, npt.NDArray[Any]]:
    made: dict[str, npt.NDArray[Any]] = {}
    for axis, at_N, size in (("y", y_N, shape[0]), ("x", x_N, shape[1])):
        begin, end = np.full(num, size, np.int64), np.zeros(num, np.int64)
        np.minimum.at(begin, code_N, at_N)
        np.maximum.at(end, code_N, at_N + 1)
        made |= {f"{axis}_begin": begin, f"{axis}_end": end}
    at_edge = (made["y_begin"] == 0) | (made["x_begin"] == 0)
    made["touches_edge"] = at_edge | (made["y_end"] == shape[0]) | (made["x_end"] == shape[1])
    return made


def _brightness(value_N: Floats, code_N: Any, area_O: Floats, name: str) -> dict[str, Floats]:
    mean = _sums(value_N, code_N, area_O) / area_O
    spread = _sums((value_N - mean[code_N]) ** 2, code_N, area_O) / area_O
    low, high = np.full(len(area_O), np.inf), np.full(len(area_O), -np.inf)
    np.minimum.at(low, code_N, value_N)
    np.maximum.at(high, code_N, value_N)
    return {f"mean_{name}": mean, f"std_{name}": np.sqrt(spread), f"min_{name}": low, f"max_{name}": high}


def _sums(value_N: Any, code_N: Any, area_O: Floats) -> Floats:
    return np.bincount(code_N, weights=value_N, minlength=len(area_O)).astype(np.float64)
