"""The store of an image set: OME-Zarr 0.5 in Zarr v3 shards, each chunk and index ending in its CRC-32C.

Three layouts, of one mechanism (an array grows along its first axis, one image a row, one writer a shard):

array   one array for all images, for sets of one shape: `0` with axes t, c, y, x (or t, c, z, y, x). OME-Zarr has no
        axis for samples, and the axis t is the one that may stand first: here it counts the images of the set.
images  an image group `N` for each image, as a numbered collection (`bioformats2raw.layout` 3), for sets of many
        shapes.
plate   the plate's own tree, `ROW/COLUMN/FIELD`, where the axis t is time.

Masks lie as label images beside their images, `labels/masks`, without the axis c. There is one resolution level:
training reads whole images or crops of them, and a chunk is a whole image, or a tile of one that is large.

Source: the OME-Zarr specification 0.5 (`multiscales`, `omero`, `labels`, `plate`, `well`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from engine.io._image_stack import Pixels
from engine.io._zarr_shards import ArraySpec, encode_chunks, json_text, shard_bytes

STORE = "images.zarr"
VERSION = "0.5"
MASKS = "labels/masks"
TILE_PX = 1024
_WHOLE_BYTES = 4 << 20
_COLOURS = ("FFFFFF", "FF0000", "00FF00", "0000FF", "FFFF00", "FF00FF", "00FFFF")


@dataclass(frozen=True)
class StoreLayout:
    """How a set lies in its store; the same for every shard.

    Attributes:
        kind: array, images or plate.
        dtype: of all pixels.
        rows_per_shard: images in a full shard of an array.
        mask_dtype: of all masks; None without.
        tile_px: height and width of a chunk; None keeps images whole up to 4 MiB and cuts larger ones into tiles.
    """

    kind: str
    dtype: str
    rows_per_shard: int
    mask_dtype: str | None = None
    tile_px: int | None = None

    def image_spec(self, array: str, shape: Sequence[int]) -> ArraySpec:
        """The array of images of one shape: (C, Y, X) or (C, Z, Y, X)."""
        return self._spec(array, self.dtype, tuple(shape), axes_of(shape))

    def mask_spec(self, array: str, shape: Sequence[int]) -> ArraySpec:
        """The array of masks of images of that shape."""
        assert self.mask_dtype is not None
        axes = tuple(axis for axis in axes_of(shape) if axis != "c")
        return self._spec(mask_array(array), self.mask_dtype, tuple(shape[1:]), axes)

    def _spec(self, name: str, dtype: str, row: tuple[int, ...], axes: tuple[str, ...]) -> ArraySpec:
        chunk = chunk_of(row, np.dtype(dtype).itemsize, self.tile_px)
        return ArraySpec(f"{STORE}/{name}", dtype, axes, row, (1, *chunk), self.rows_per_shard, _fill(dtype))


def _fill(dtype: str) -> int | float:
    return 0.0 if dtype.startswith("float") else 0


def axes_of(shape: Sequence[int]) -> tuple[str, ...]:
    """Axes of an array of images of this shape."""
    return ("t", "c", "y", "x") if len(shape) == 3 else ("t", "c", "z", "y", "x")


def mask_array(array: str) -> str:
    """The array of masks beside an array of images."""
    group, _, level = array.rpartition("/")
    return f"{group}/{MASKS}/{level}" if group else f"{MASKS}/{level}"


def chunk_of(row: tuple[int, ...], itemsize: int, tile_px: int | None) -> tuple[int, ...]:
    """Shape of a chunk of one image: whole, or tiles of the last two axes where it is large or tiles are asked for."""
    if tile_px is None and prod(row) * itemsize <= _WHOLE_BYTES:
        return row
    side = tile_px or TILE_PX
    depth = (1,) * (len(row) - 3)
    return (
        (*row[:1], *depth, min(side, row[-2]), min(side, row[-1])) if len(row) > 2 else tuple(min(side, n) for n in row)
    )


def shard_name(spec: ArraySpec, number: int) -> str:
    """Path of a shard below the output."""
    return f"{spec.name}/c/{'/'.join(map(str, (number, *(0 for _ in spec.row_shape))))}"


def shard_names(layout: StoreLayout, arrays: Sequence[ArrayFacts]) -> set[str]:
    """Paths of all shards that a complete store has."""
    found: set[str] = set()
    for one in arrays:
        specs = [layout.image_spec(one.array, one.shape)]
        if layout.mask_dtype is not None:
            specs.append(layout.mask_spec(one.array, one.shape))
        number = -(-one.num_rows // layout.rows_per_shard)
        found |= {shard_name(spec, shard) for spec in specs for shard in range(number)}
    return found


def shard_file(spec: ArraySpec, rows: Sequence[Pixels]) -> bytes:
    """The bytes of a shard that holds these rows."""
    chunks = [chunk for row in rows for chunk in encode_chunks(spec, row[None], 1)]
    return shard_bytes(chunks, spec)


@dataclass(frozen=True)
class ArrayFacts:
    """What the finished set knows of one array.

    Attributes:
        array: its path in the store.
        shape: of one image.
        num_rows: images in it.
        pixel_size_um: along the axes of space, where all its images agree.
        channels: names, where all its images agree.
        ranges: lowest and highest value of each channel.
    """

    array: str
    shape: tuple[int, ...]
    num_rows: int
    pixel_size_um: tuple[float | None, ...] = ()
    channels: tuple[str, ...] = ()
    ranges: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class FieldOfPlate:
    """One field of a plate and the group of its image in the store."""

    plate: str
    row: str
    column: str
    field: str
    group: str


def metadata_files(
    layout: StoreLayout, arrays: Sequence[ArrayFacts], fields: Sequence[FieldOfPlate] = ()
) -> Iterator[tuple[str, bytes]]:
    """All metadata documents of a store: path below the output, and text."""
    for one in arrays:
        yield (
            f"{STORE}/{one.array}/zarr.json",
            json_text(layout.image_spec(one.array, one.shape).metadata(one.num_rows)),
        )
        group = one.array.rpartition("/")[0]
        attributes = {**_multiscales(one, axes_of(one.shape)), **_omero(one)}
        if layout.kind == "array":
            yield _group("", {"ome": attributes, "replisome": {"sample_axis": 0}})
        else:
            yield _group(group, {"ome": attributes})
        if layout.mask_dtype is not None:
            yield from _mask_files(layout, one)
    if layout.kind == "images":
        yield _group("", {"ome": {"version": VERSION, "bioformats2raw.layout": 3}})
        yield _group("OME", {"ome": {"version": VERSION, "series": [one.array.rpartition("/")[0] for one in arrays]}})
    if layout.kind == "plate":
        yield from _plate_files(fields)


def label_store(spec: ArraySpec, num_rows: int) -> Iterator[tuple[str, bytes]]:
    """Metadata documents of a store that holds one label image array (t, y, x) and nothing else, as OME-Zarr has it."""
    store, _, level = spec.name.rpartition("/")
    yield f"{spec.name}/zarr.json", json_text(spec.metadata(num_rows))
    facts = ArrayFacts(level, spec.row_shape, num_rows)
    attributes = {"ome": {**_multiscales(facts, spec.dimensions), "image-label": {}}, "replisome": {"sample_axis": 0}}
    yield f"{store}/zarr.json", json_text({"zarr_format": 3, "node_type": "group", "attributes": attributes})


def _group(path: str, attributes: Mapping[str, Any]) -> tuple[str, bytes]:
    content = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    return f"{STORE}/{path}/zarr.json" if path else f"{STORE}/zarr.json", json_text(content)


def _mask_files(layout: StoreLayout, one: ArrayFacts) -> Iterator[tuple[str, bytes]]:
    spec = layout.mask_spec(one.array, one.shape)
    masks = mask_array(one.array).rpartition("/")[0]
    yield f"{spec.name}/zarr.json", json_text(spec.metadata(one.num_rows))
    axes = tuple(axis for axis in axes_of(one.shape) if axis != "c")
    label = {"image-label": {"source": {"image": "../../"}}}
    yield _group(masks, {"ome": {**_multiscales(one, axes), **label}})
    yield _group(masks.rpartition("/")[0], {"ome": {"version": VERSION, "labels": [MASKS.rpartition("/")[2]]}})


def _multiscales(one: ArrayFacts, axes: Sequence[str]) -> dict[str, Any]:
    space = [axis for axis in axes if axis in "zyx"]
    sizes = dict(zip(space, one.pixel_size_um or (None,) * len(space), strict=True))
    kinds = {"t": "time", "c": "channel"}
    told = [
        {"name": axis, "type": kinds.get(axis, "space"), **({"unit": "micrometer"} if sizes.get(axis) else {})}
        for axis in axes
    ]
    scale = [sizes.get(axis) or 1.0 for axis in axes]
    level = {"path": one.array.rpartition("/")[2], "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    return {"version": VERSION, "multiscales": [{"name": "images", "axes": told, "datasets": [level]}]}


def _omero(one: ArrayFacts) -> dict[str, Any]:
    """Channel names and value ranges, for viewers."""
    names = one.channels or tuple(map(str, range(one.shape[0])))
    channels = [
        {
            "label": name,
            "color": _COLOURS[(number + (len(names) > 1)) % len(_COLOURS)],
            "active": True,
            "window": {"min": low, "max": high, "start": low, "end": high},
        }
        for number, (name, (low, high)) in enumerate(zip(names, one.ranges, strict=False))
    ]
    return {"omero": {"channels": channels}} if channels else {}


def _plate_files(fields: Sequence[FieldOfPlate]) -> Iterator[tuple[str, bytes]]:
    plates = list(dict.fromkeys(one.plate for one in fields))
    for plate in plates:
        here = [one for one in fields if one.plate == plate]
        root = here[0].group.rsplit("/", 3)[0] if here[0].group.count("/") > 2 else ""
        yield _group(root, {"ome": {"version": VERSION, "plate": _plate(plate, here)}})
        for row in dict.fromkeys(one.row for one in here):
            yield _group(_below(root, row), {})
        for row, column in dict.fromkeys((one.row, one.column) for one in here):
            images = [{"path": one.field} for one in here if (one.row, one.column) == (row, column)]
            yield _group(_below(root, f"{row}/{column}"), {"ome": {"version": VERSION, "well": {"images": images}}})
    if len(plates) > 1:
        yield _group("", {})


def _below(root: str, path: str) -> str:
    return f"{root}/{path}" if root else path


def _plate(name: str, fields: Sequence[FieldOfPlate]) -> dict[str, Any]:
    rows = sorted({one.row for one in fields}, key=lambda row: (len(row), row))
    columns = sorted(
        {one.column for one in fields}, key=lambda column: (int(column) if column.isdecimal() else 0, column)
    )
    wells = dict.fromkeys((one.row, one.column) for one in fields)
    return {
        "name": name,
        "rows": [{"name": row} for row in rows],
        "columns": [{"name": column} for column in columns],
        "wells": [
            {"path": f"{row}/{column}", "rowIndex": rows.index(row), "columnIndex": columns.index(column)}
            for row, column in wells
        ],
        "field_count": max(sum((one.row, one.column) == well for one in fields) for well in wells),
    }
