"""What an image must be to be kept, and where those that are kept lie in the store."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np

from engine.errors import InputError
from engine.ingest._image_facts import ImageRow
from engine.io.image_store import FieldOfPlate, StoreLayout

_WELL = re.compile(r"([A-Za-z]+)(\d+)")


@dataclass(frozen=True)
class ImageRules:
    """What is kept.

    Attributes:
        dtype, channels, size_px: what all images must be; None takes what most are.
        sizes: "one" rejects other sizes than the set's, "any" takes all.
        duplicates: "pixels" rejects what repeats an earlier image, "keep" takes all.
        keep_empty: take images of a single value.
        classes: declared classes; a record of another is rejected.
        needs_label, needs_mask: reject images without.
    """

    dtype: str | None = None
    channels: int | None = None
    size_px: tuple[int, int] | None = None
    sizes: str = "one"
    duplicates: str = "pixels"
    keep_empty: bool = False
    classes: tuple[str, ...] = ()
    needs_label: bool = False
    needs_mask: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the result key."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def judge(rows: Sequence[ImageRow], rules: ImageRules) -> None:
    """Reject, in place, what the rules do not keep: each image on its own, then against the set, then repeats."""
    for row in rows:
        _judge_one(row, rules)
    _same(rows, lambda row: row.dtype, rules.dtype, "dtype_differs", "pixels of {} in a set of {}")
    _same(rows, _num_channels, rules.channels, "channels_differ", "{} channels in a set of {}")
    if rules.sizes == "one":
        _same(rows, _size, _declared(rows, rules), "size_differs", "{} pixels in a set of {}")
    if rules.duplicates == "pixels":
        _reject_repeats(rows)


def _judge_one(row: ImageRow, rules: ImageRules) -> None:
    if row.is_kept and row.shape is None:
        row.reject("unreadable", "the image could not be read")
    if row.is_kept and not rules.keep_empty and row.minimum == row.maximum and len(set(row.minimum or ())) <= 1:
        row.reject("empty_image", f"all pixels have the value {(row.minimum or [0])[0]:g}")
    if rules.needs_label and row.label is None:
        row.reject("missing_label", "the image has no label")
    if rules.classes and row.label is not None and row.label not in rules.classes:
        row.reject("unknown_label", f"label {row.label!r} is not among the declared {', '.join(rules.classes)}")
    if rules.needs_mask and row.mask_digest is None:
        row.reject("missing_mask", "the image has no mask")


def _num_channels(row: ImageRow) -> int:
    return (row.shape or [0])[0]


def _size(row: ImageRow) -> str:
    return " x ".join(map(str, (row.shape or [])[1:]))


def _declared(rows: Sequence[ImageRow], rules: ImageRules) -> str | None:
    if rules.size_px is None:
        return None
    depths = Counter(len(row.shape or ()) for row in rows if row.is_kept)
    if depths and max(depths) > 3:
        raise InputError("size_px is height and width, yet the set holds volumes", where="cleaning.size_px")
    return " x ".join(map(str, rules.size_px))


def _same(
    rows: Sequence[ImageRow], of: Callable[[ImageRow], Hashable], declared: Hashable, reason: str, text: str
) -> None:
    """Reject what differs from the declared value, or from what most have (the first met, where several are most)."""
    kept = [row for row in rows if row.is_kept]
    if not kept:
        return
    wanted = declared
    if wanted is None:
        wanted = Counter(of(row) for row in kept).most_common(1)[0][0]
    for row in kept:
        if of(row) != wanted:
            row.reject(reason, text.format(of(row), wanted))


def _reject_repeats(rows: Sequence[ImageRow]) -> None:
    first: dict[str, ImageRow] = {}
    for row in rows:
        if not row.is_kept or row.pixel_digest is None:
            continue
        earlier = first.setdefault(row.pixel_digest, row)
        if earlier is row:
            continue
        if (row.label, row.mask_digest) != (earlier.label, earlier.mask_digest):
            row.reject("conflicting_pixels", f"the pixels of {earlier.id}, whose label or mask is another")
        else:
            row.reject("duplicate_pixels", f"the pixels of {earlier.id}")


@dataclass(frozen=True)
class Cutting:
    """How the store and the plan are cut.

    Attributes:
        layout: auto, array, images or plate.
        images_per_shard, bytes_per_shard: most in a shard, bytes of pixels as they are.
        tile_px: side of a chunk; None keeps small images whole.
    """

    layout: str = "auto"
    images_per_shard: int = 1024
    bytes_per_shard: int = 64 << 20
    tile_px: int | None = None


def choose_layout(rows: Sequence[ImageRow], cutting: Cutting) -> StoreLayout:
    """The layout for what is kept.

    Raises:
        InputError: the layout asked for cannot hold the set.
    """
    kept = [row for row in rows if row.is_kept]
    shapes = {tuple(row.shape or ()) for row in kept}
    on_plates = bool(kept) and all(row.well and _WELL.fullmatch(row.well) and row.z is None for row in kept)
    kind = cutting.layout
    if kind == "auto":
        kind = "plate" if on_plates else "array" if len(shapes) <= 1 else "images"
    if kind == "array" and len(shapes) > 1:
        some = ", ".join(str(list(shape)) for shape in sorted(shapes)[:4])
        fix = "take store.layout images, or cleaning.sizes one"
        raise InputError(
            f"one array cannot hold images of {len(shapes)} shapes ({some})", where="store.layout", fix=fix
        )
    if kind == "plate" and not on_plates:
        fix = "take store.layout auto; depths of a plate stay together with input.stacks volumes"
        raise InputError(
            "not every image is a field of a plate with its depths together", where="store.layout", fix=fix
        )
    dtype = kept[0].dtype if kept else "uint8"
    assert dtype is not None
    largest = max((prod(shape) for shape in shapes), default=1) * np.dtype(dtype).itemsize
    per_shard = (
        1 if kind == "images" else max(1, min(cutting.images_per_shard, cutting.bytes_per_shard // max(largest, 1)))
    )
    mask_dtype = None
    if any(row.mask_digest for row in kept):
        mask_dtype = "uint16" if max(row.largest_label for row in kept) < 2**16 else "uint32"
    return StoreLayout(kind, dtype, min(per_shard, _most_rows(kept, kind)), mask_dtype, cutting.tile_px)


def _most_rows(kept: Sequence[ImageRow], kind: str) -> int:
    """Rows of the longest array, so that a shard's index is no longer than it has to be."""
    if kind != "plate":
        return max(1, len(kept))
    return max(Counter((row.plate, row.well, row.field) for row in kept).values())


def place(rows: Sequence[ImageRow], layout: StoreLayout) -> None:
    """Give each kept image its array and row; times of a field that differ in shape from its first are rejected."""
    plates = list(dict.fromkeys(row.plate for row in rows if row.is_kept))
    shapes: dict[str, list[int] | None] = {}
    counts: Counter[str] = Counter()
    number = 0
    for row in rows:
        if not row.is_kept:
            continue
        array = _array_of(row, layout, number, plates)
        if shapes.setdefault(array, row.shape) != row.shape:
            row.reject("size_differs", f"shape {row.shape} at a later time of a field of shape {shapes[array]}")
            continue
        row.array, row.row = array, counts[array]
        counts[array] += 1
        number += 1


def _array_of(row: ImageRow, layout: StoreLayout, number: int, plates: Sequence[str | None]) -> str:
    if layout.kind == "array":
        return "0"
    if layout.kind == "images":
        return f"{number}/0"
    return f"{field_of(row, plates).group}/0"


def field_of(row: ImageRow, plates: Sequence[str | None]) -> FieldOfPlate:
    """The field of a plate that an image is of; several plates lie in groups of their number."""
    found = _WELL.fullmatch(row.well or "")
    assert found is not None and row.plate is not None
    field = re.sub(r"[^A-Za-z0-9]", "", row.field or "") or "0"
    path = f"{found[1]}/{found[2]}/{field}"
    group = path if len(plates) == 1 else f"plate{plates.index(row.plate)}/{path}"
    return FieldOfPlate(row.plate, found[1], found[2], field, group)


@dataclass(frozen=True)
class Span:
    """Records [begin, end) of one shard of the plan."""

    begin: int
    end: int


_MOST_REJECTED = 10_000


def cut(rows: Sequence[ImageRow], layout: StoreLayout, cutting: Cutting) -> list[Span]:
    """Shards of the plan: whole shards of the store, with the rejected records that lie among them."""
    spans: list[Span] = []
    begin, held_bytes, held, rejected = 0, 0, 0, 0
    units = Counter(_unit(row, layout) for row in rows if row.is_kept)
    former: tuple[str | None, int] | None = None
    for place_, row in enumerate(rows):
        if not row.is_kept:
            rejected += 1
            continue
        unit = _unit(row, layout)
        if unit != former:
            former = unit
            size = units[unit] * prod(row.shape or ()) * np.dtype(layout.dtype).itemsize
            too_much = held_bytes + size > cutting.bytes_per_shard or held + units[unit] > cutting.images_per_shard
            if (held and too_much) or rejected >= _MOST_REJECTED:
                spans.append(Span(begin, place_))
                begin, held_bytes, held, rejected = place_, 0, 0, 0
            held_bytes += size
            held += units[unit]
    if begin < len(rows):
        spans.append(Span(begin, len(rows)))
    return spans


def _unit(row: ImageRow, layout: StoreLayout) -> tuple[str | None, int]:
    """A shard file of the store."""
    return row.array, (row.row or 0) // layout.rows_per_shard
