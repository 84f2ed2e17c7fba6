"""Pixels as read, with what their file knows of them, whatever the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import InputError

Pixels = npt.NDArray[Any]

KINDS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
"""Names of the pixel types that an image set can hold."""

# SI prefixes of metre as OME-Zarr and OME-XML write them, in micrometres.
_MICROMETRES = {
    "angstrom": 1e-4,
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
    "inch": 25400.0,
    "Å": 1e-4,
    "nm": 1e-3,
    "um": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
}


class ImageProblem(Exception):
    """An image that cannot be taken: a reason code of schemas/states.py, and a sentence with values."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(reason, sentence)
        self.reason = reason
        self.sentence = sentence


@dataclass(frozen=True)
class Stack:
    """One image with all its times and depths.

    Attributes:
        pixels: (T, C, Z, Y, X), little-endian, one of KINDS.
        pixel_size_um: size of a pixel along z, y and x in micrometres; None where the file does not tell.
        channels: names of the channels; empty where the file does not tell.
        name: what the file calls itself; empty where it does not.
    """

    pixels: Pixels
    pixel_size_um: tuple[float | None, float | None, float | None] = (None, None, None)
    channels: tuple[str, ...] = ()
    name: str = ""


@dataclass(frozen=True)
class Wanted:
    """What an image is read for.

    Attributes:
        max_pixels: most values (pixels by channels, depths and times) of one file.
        labels: it is a mask: palette indexes are its values, and one channel of colour is taken.
        channel: which channel of a mask in colour; None refuses colour unless all channels are equal.
        regions: each connected region of one value in a mask is an object of its own.
    """

    max_pixels: int
    labels: bool = False
    channel: int | None = None
    regions: bool = False


def import_pillow(name: str) -> Any:
    """A module of Pillow.

    Raises:
        InputError: it is not installed.
    """
    from importlib import import_module

    try:
        return import_module(f"PIL.{name}")
    except ImportError as error:
        fix = "pip install 'replisome[imaging]'"
        raise InputError("reading PNG, JPEG and TIFF needs packages that are not installed", fix=fix) from error


def micrometres(value: float | None, unit: str | None) -> float | None:
    """A length in micrometres; None where it is not known, of an unknown unit, or no positive number."""
    factor = _MICROMETRES.get(unit or "")
    if value is None or factor is None or not np.isfinite(value) or value <= 0:
        return None
    return float(value) * factor


def check_size(shape: tuple[int, ...], max_pixels: int) -> None:
    """Refuse by what a header promises, before memory is taken for it.

    Raises:
        ImageProblem: too large, or nothing.
    """
    total = 1
    for size in shape:
        total *= int(size)
    if total == 0:
        raise ImageProblem("empty_image", f"the image has no pixels (its shape is {list(map(int, shape))})")
    if total > max_pixels:
        raise ImageProblem(
            "too_large", f"the image has {total:,} values, more than the limit of {max_pixels:,} (--max-pixels)"
        )


def plain(pixels: Pixels) -> Pixels:
    """Little-endian, contiguous, one of KINDS; booleans become 0 and 1.

    Raises:
        ImageProblem: of a type that an image set cannot hold.
    """
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8)
    if pixels.dtype.name not in KINDS:
        raise ImageProblem("unsupported_image", f"pixels of type {pixels.dtype.name}; known are {', '.join(KINDS)}")
    return np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("<"), copy=False))


def without_opaque_alpha(pixels: Pixels, full: int | float) -> Pixels:
    """Drop the last channel of (Y, X, S), an alpha that hides nothing.

    Raises:
        ImageProblem: something is transparent, so that the colours beneath are not what is seen.
    """
    if not bool((pixels[..., -1] == full).all()):
        sentence = "the image is transparent in places; flatten it onto a background first"
        raise ImageProblem("unsupported_image", sentence)
    return pixels[..., :-1]
