"""How training images are varied, each by its own seed: pixels and masks together, in numpy.

Shape letters: C channels, Y and X rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError

_VARYING = 2


@dataclass(frozen=True)
class ImageAugmentation:
    """Attributes:
    flip: mirror every second image.
    turn: turn by 0, 90, 180 or 270 degrees.
    crop_px: train on a square of so many pixels of each image, somewhere else each time; 0 takes the whole.
    shift_px: move an image by up to so many pixels along either axis; what enters repeats its edge.
    brightness: multiply all pixels by up to exp(brightness), or divide by it.
    contrast: multiply each pixel's distance from the mean of its channel likewise.
    """

    flip: bool = False
    turn: bool = False
    crop_px: int = 0
    shift_px: int = 0
    brightness: float = 0.0
    contrast: float = 0.0

    def check(self, encoder: Any) -> None:
        """Refuse an encoder of something else."""
        if getattr(encoder, "reads", "sequences") != "images":
            what = f"{type(encoder).__name__} does not read images"
            raise InputError(what, where="key 'encoder.name'", fix="set it to pixels")

    def check_shape(self, shape: tuple[int, int]) -> None:
        """Refuse what images of this height and width cannot be.

        Raises:
            InputError: a crop larger than the image, or turns that change its shape.
        """
        if self.crop_px > min(shape):
            what = f"a crop of {self.crop_px} pixels does not fit images of {shape[0]} x {shape[1]}"
            raise InputError(what, where="key 'augment.crop_px'", fix=f"set it to {min(shape)} or less")
        if self.turn and not self.crop_px and shape[0] != shape[1]:
            what = f"images of {shape[0]} x {shape[1]} are not square, and turned they fit no batch"
            raise InputError(what, where="key 'augment.turn'", fix="set augment.crop_px too, or leave turn out")

    def applied(
        self, pixels_CYX: NDArray[Any], mask_YX: NDArray[Any] | None, seed: int
    ) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """An image and its mask as the seed varies them; the types stay, and so do the arguments."""
        draw = np.random.default_rng([_VARYING, seed & 0xFFFFFFFFFFFFFFFF])
        # Drawn in one order whatever is asked for: one key less leaves the others' draws as they were.
        corner_2, shift_2, form, power_2 = draw.random(2), draw.random(2), int(draw.integers(8)), draw.uniform(-1, 1, 2)
        planes = [pixels_CYX] if mask_YX is None else [pixels_CYX, mask_YX]
        planes = [self._placed(plane, corner_2, shift_2, form) for plane in planes]
        planes[0] = self._exposed(planes[0], *power_2.tolist())
        return planes[0], planes[1] if mask_YX is not None else None

    def _placed(self, plane: NDArray[Any], corner_2: Any, shift_2: Any, form: int) -> NDArray[Any]:
        """The last two axes cropped, moved, turned and mirrored."""
        if self.crop_px:
            rows, columns = (
                _begin(share, size - self.crop_px) for share, size in zip(corner_2, plane.shape[-2:], strict=True)
            )
            plane = plane[..., rows : rows + self.crop_px, columns : columns + self.crop_px]
        if self.shift_px:
            margin = [(0, 0)] * (plane.ndim - 2) + [(self.shift_px, self.shift_px)] * 2
            height, width = plane.shape[-2:]
            rows, columns = (_begin(share, 2 * self.shift_px) for share in shift_2)
            plane = np.pad(plane, margin, mode="edge")[..., rows : rows + height, columns : columns + width]
        if self.turn:
            plane = np.rot90(plane, form % 4, axes=(-2, -1))
        return plane[..., ::-1] if self.flip and form >= 4 else plane

    def _exposed(self, pixels_CYX: NDArray[Any], brighter: float, steeper: float) -> NDArray[Any]:
        if not self.brightness and not self.contrast:
            return pixels_CYX
        made = pixels_CYX.astype(np.float32)
        if self.contrast:
            mean = made.mean(axis=(1, 2), keepdims=True)
            made = (made - mean) * np.float32(np.exp(self.contrast * steeper)) + mean
        made = made * np.float32(np.exp(self.brightness * brighter))
        if pixels_CYX.dtype.kind == "f":
            return made.astype(pixels_CYX.dtype)
        limits = np.iinfo(pixels_CYX.dtype)
        return np.clip(np.rint(made), limits.min, limits.max).astype(pixels_CYX.dtype)


def _begin(share: float, most: int) -> int:
    """One of 0 to `most`, equally likely."""
    return int(share * (most + 1))
