"""Small pictures for the data card: PNG by zlib alone, so that a page needs no imaging package.

Source: PNG (ISO/IEC 15948), 8-bit RGB without interlace.
"""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

SIDE_PX = 144
_LOW, _HIGH = 0.5, 99.8
_COLOURS = np.array([[0, 1, 0], [1, 0, 1], [0.2, 0.5, 1], [1, 0.6, 0], [0, 1, 1], [1, 1, 0]])
_OUTLINE = np.array([255.0, 176.0, 32.0])


def picture(pixels: npt.NDArray[Any], mask: npt.NDArray[Any] | None = None) -> str:
    """A `data:` address of a small PNG.

    Args:
        pixels: (C, Y, X), or (C, Z, Y, X), of which the brightest of all depths is shown. Three channels of uint8 are
            colours; others are stretched from their 0.5 to their 99.8 percentile, several laid over each other.
        mask: (Y, X) or (Z, Y, X); its objects are outlined.
    """
    flat = pixels.max(axis=1) if pixels.ndim == 4 else pixels
    small = _shrunk(flat)
    colours = _colours(small, is_colour=len(flat) == 3 and flat.dtype == np.uint8)
    if mask is not None:
        labels = _nearest(mask.max(axis=0) if mask.ndim == 3 else mask, small.shape[1:])
        edge = _outlines(labels)
        colours[edge] = (0.4 * colours[edge] + 0.6 * _OUTLINE).astype(np.uint8)
    return "data:image/png;base64," + base64.b64encode(png(colours)).decode()


def _shrunk(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Means over boxes, at most SIDE_PX a side; smaller images stay."""
    found = pixels.astype(np.float64)
    for axis in (1, 2):
        size = found.shape[axis]
        most = min(size, max(1, round(size * min(1.0, SIDE_PX / max(pixels.shape[1:])))))
        borders = np.arange(most) * size // most
        counts = np.diff([*borders, size])
        found = np.add.reduceat(found, borders, axis=axis) / np.expand_dims(counts, [i for i in range(3) if i != axis])
    return found


def _nearest(labels: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    rows, columns = (np.arange(to) * size // to for to, size in zip(shape, labels.shape, strict=True))
    found: npt.NDArray[Any] = labels[np.ix_(rows, columns)]
    return found


def _outlines(labels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    edge = np.zeros(labels.shape, np.bool_)
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    return edge


def _colours(small: npt.NDArray[np.float64], *, is_colour: bool) -> npt.NDArray[np.uint8]:
    """(Y, X, 3)."""
    if is_colour:
        return np.moveaxis(small, 0, -1).round().clip(0, 255).astype(np.uint8)
    stretched = []
    for channel in small:
        low, high = np.percentile(channel, [_LOW, _HIGH])
        stretched.append(((channel - low) / max(high - low, 1e-12)).clip(0, 1))
    if len(stretched) == 1:
        whole = np.repeat(stretched[0][..., None], 3, axis=2)
    else:
        whole = sum((one[..., None] * _COLOURS[i % len(_COLOURS)] for i, one in enumerate(stretched)), np.zeros(3))
    found: npt.NDArray[np.uint8] = (255 * np.clip(whole, 0, 1)).round().astype(np.uint8)
    return found


def png(colours: npt.NDArray[np.uint8]) -> bytes:
    """A PNG of (Y, X, 3) uint8."""
    height, width = colours.shape[:2]
    lines = np.zeros((height, 1 + 3 * width), np.uint8)  # each begins with filter type 0
    lines[:, 1:] = colours.reshape(height, -1)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big") for kind, data in chunks
    )
