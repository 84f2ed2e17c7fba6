"""What each image is: read once on the driver's threads when the set is planned, again by the worker that stores it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine.io._image_stack import ImageProblem, Pixels, Stack
from engine.io.image_sources import ROWS, ImageLoader, ImageSource, Opened
from schemas import states


@dataclass
class ImageRow:
    """One row of schemas.tables.IMAGES; see there."""

    record: int
    id: str
    kind: str
    folder: int
    files: list[str]
    t: int
    z: int | None = None
    plate: str | None = None
    well: str | None = None
    field: str | None = None
    shape: list[int] | None = None
    dtype: str | None = None
    pixel_size_um: list[float | None] | None = None
    channels: list[str] | None = None
    label: str | None = None
    group: str | None = None
    mask: str | None = None
    num_objects: int | None = None
    minimum: list[float] | None = None
    maximum: list[float] | None = None
    mean: list[float] | None = None
    standard_deviation: list[float] | None = None
    pixel_digest: str | None = None
    mask_digest: str | None = None
    array: str | None = None
    row: int | None = None
    state: str = states.KEPT
    reason: str | None = None
    sentence: str | None = None
    largest_label: int = 0

    def reject(self, reason: str, sentence: str) -> None:
        """The first reason stands."""
        if self.reason is None:
            self.state, self.reason, self.sentence = states.REJECTED, reason, sentence

    @property
    def is_kept(self) -> bool:
        return self.reason is None


def survey(source: ImageSource, loader: ImageLoader, *, volumes: bool) -> list[ImageRow]:
    """Rows of all images of a source, records not yet counted; one row where the source cannot be read.

    Args:
        source: what to read.
        loader: reads it.
        volumes: keep depths together; else each depth is an image of its own.
    """
    first = ImageRow(
        -1,
        source.id,
        source.kind,
        source.folder,
        list(source.files),
        source.time,
        plate=source.plate,
        well=source.well,
        field=source.field,
        label=source.label,
        group=source.group,
        mask=source.mask,
    )
    try:
        images = SourceImages(source, loader)
        labels = loader.classes_of(source)
    except ImageProblem as problem:
        first.reject(problem.reason, problem.sentence)
        return [first]
    rows: list[ImageRow] = []
    for time in range(images.num_times):
        base = replace(first, t=source.time + time)
        if labels is not None:
            base.label = str(labels[time]) if time < len(labels) else None
        rows += _rows_of_time(base, images, time, volumes=volumes)
    if len(rows) > 1:
        for row in rows:
            suffix = "" if images.num_times == 1 else f":{row.t}" if source.kind == ROWS else f":t{row.t}"
            row.id += suffix + (f":z{row.z}" if row.z is not None else "")
            # Times and depths of one stack show one thing; rows of an array are images in their own right.
            row.group = row.group or (source.id if source.kind != ROWS else None)
    return rows


class SourceImages:
    """The images of one source, a few times decoded at once; a time that fails does not take its neighbours along."""

    def __init__(self, source: ImageSource, loader: ImageLoader) -> None:
        self._opened = loader.open(source)
        self._mask: Opened | None = None
        self._mask_problem: ImageProblem | None = None
        if source.mask is not None:
            try:
                self._mask = loader.open_mask(source, self._opened)
            except ImageProblem as problem:
                self._mask_problem = problem
        self.num_times = self._opened.num_times
        self._images = _Blocks(self._opened)
        self._masks = None if self._mask is None else _Blocks(self._mask)

    def image(self, time: int) -> Stack:
        """A stack of one time. Raises ImageProblem."""
        return self._images.at(time)

    def mask(self, time: int) -> Pixels | None:
        """Labels (Z, Y, X) of one time; None where no mask was asked for.

        Raises:
            ImageProblem: missing, unreadable, or of another number of times.
        """
        if self._mask_problem is not None:
            raise self._mask_problem
        if self._mask is None or self._masks is None:
            return None
        if self._mask.num_times != self.num_times:
            sentence = f"the mask has {self._mask.num_times} times, its image {self.num_times}"
            raise ImageProblem("mask_shape_differs", sentence)
        found: Pixels = self._masks.at(time).pixels[0, 0]
        return found


class _Blocks:
    """Times of an opened source, read several at once."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._size = max(1, opened.times_at_once)
        self._begin = -1
        self._held: Stack | None = None

    def at(self, time: int) -> Stack:
        begin = time - time % self._size
        if begin != self._begin:
            self._begin = begin
            try:
                self._held = self._opened.read(begin, min(begin + self._size, self._opened.num_times))
            except ImageProblem:
                self._held = None
        if self._held is None:
            return self._opened.read(time, time + 1)
        return replace(self._held, pixels=self._held.pixels[time - begin : time - begin + 1])


def _rows_of_time(base: ImageRow, images: SourceImages, time: int, *, volumes: bool) -> Iterator[ImageRow]:
    try:
        stack = images.image(time)
    except ImageProblem as problem:
        base.reject(problem.reason, problem.sentence)
        yield base
        return
    mask, mask_problem = None, None
    try:
        mask = images.mask(time)
        if mask is not None and mask.shape != stack.pixels.shape[2:]:
            sentence = f"the mask is {_by(mask.shape)}, its image {_by(stack.pixels.shape[2:])}"
            mask_problem = ImageProblem("mask_shape_differs", sentence)
    except ImageProblem as problem:
        mask_problem = problem
    for depth, pixels in planes_of(stack, volumes=volumes):
        row = replace(base, z=depth)
        _describe(row, pixels, stack)
        if mask_problem is not None:
            row.reject(mask_problem.reason, mask_problem.sentence)
        elif mask is not None:
            _describe_mask(row, mask_plane(mask, depth))
        yield row


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape if shape[0] > 1 else shape[1:]))


def planes_of(stack: Stack, *, volumes: bool) -> list[tuple[int | None, Pixels]]:
    """Images of a stack of one time: (depth or None, (C, Y, X) or (C, Z, Y, X))."""
    pixels = stack.pixels[0]
    if pixels.shape[1] == 1:
        return [(None, pixels[:, 0])]
    if volumes:
        return [(None, pixels)]
    return [(depth, pixels[:, depth]) for depth in range(pixels.shape[1])]


def mask_plane(mask: Pixels, depth: int | None) -> Pixels:
    """The labels (Y, X) or (Z, Y, X) that belong to an image of `planes_of`."""
    found: Pixels = mask[depth] if depth is not None else mask[0] if len(mask) == 1 else mask
    return found


def digest(pixels: Pixels) -> str:
    """BLAKE2b-128 of type, shape and pixels."""
    whole = np.ascontiguousarray(pixels)
    head = f"{whole.dtype.name} {list(whole.shape)}\n".encode()
    found = hashlib.blake2b(head, digest_size=16)
    found.update(whole.data)
    return found.hexdigest()


def _describe(row: ImageRow, pixels: Pixels, stack: Stack) -> None:
    row.shape, row.dtype = list(map(int, pixels.shape)), pixels.dtype.name
    sizes = list(stack.pixel_size_um[-(pixels.ndim - 1) :])
    row.pixel_size_um = sizes if any(size is not None for size in sizes) else None
    row.channels = list(stack.channels) if len(stack.channels) == len(pixels) else None
    row.pixel_digest = digest(pixels)
    if pixels.dtype.kind == "f" and not bool(np.isfinite(pixels).all()):
        row.reject("not_finite", f"{int((~np.isfinite(pixels)).sum()):,} pixels are NaN or infinite")
        return
    flat = pixels.reshape(len(pixels), -1)
    row.minimum, row.maximum = _floats(flat.min(axis=1)), _floats(flat.max(axis=1))
    row.mean = [_rounded(channel.mean(dtype=np.float64)) for channel in flat]
    row.standard_deviation = [_rounded(channel.std(dtype=np.float64)) for channel in flat]


def _floats(values: Pixels) -> list[float]:
    return [float(value) for value in values]


def _rounded(value: Any) -> float:
    """Ten digits: sums of other orders (other CPUs) then tell the same."""
    return float(f"{float(value):.10g}")


def _describe_mask(row: ImageRow, labels: Pixels) -> None:
    row.largest_label = int(labels.max())
    if row.largest_label >= 2**32:
        row.reject("unreadable_mask", f"the mask holds label {row.largest_label}, more than 32 bits hold")
        return
    row.num_objects = int(np.count_nonzero(np.unique(labels)))
    row.mask_digest = digest(labels.astype(np.uint32))
