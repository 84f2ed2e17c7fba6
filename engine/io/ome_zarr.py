"""OME-Zarr 0.4 (Zarr v2) and 0.5 (Zarr v3): which images a store holds, and their pixels, checked.

A chunk that is not there is refused, inside shards too: Zarr would read its fill value as data. Writers that leave out
chunks of the fill value on purpose are taken on request alone. Pixels come from the full-resolution level.

Source: the OME-Zarr specification 0.4 and 0.5 (`multiscales`, `plate`, `well`, `labels`, `bioformats2raw.layout`); the
Zarr specifications 2 and 3.0 (chunk keys, `sharding_indexed` 1.0).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from engine.io._image_stack import ImageProblem, Pixels, Stack, check_size, micrometres, plain

VERSIONS = ("0.4", "0.5")
_METADATA = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
_MOST_JSON = 64 << 20
_ABSENT = 2**64 - 1
_BLOCK_BYTES = 64 << 20
_MOST_TIMES = 256
_AXES = "tczyx"


@dataclass(frozen=True)
class Place:
    """One image of a store, or what stands in its place.

    Attributes:
        group: path of the image's group in the store; "" is the root.
        plate, well, field: where on a plate; None elsewhere.
        problem: why there is no image.
    """

    group: str
    plate: str | None = None
    well: str | None = None
    field: str | None = None
    problem: ImageProblem | None = None


def is_store(folder: Path) -> bool:
    """Whether a folder is a Zarr group or array."""
    return any((folder / name).is_file() for name in _METADATA)


def find_images(root: Path) -> list[Place]:
    """All images of a store: itself, those of a plate by row and column, or a numbered collection."""
    return list(_find(root, ""))


def _find(root: Path, group: str) -> Iterator[Place]:
    try:
        told = group_attributes(_inside(root, group))
        if "plate" in told:
            yield from _plate_images(root, group, told["plate"])
        elif "multiscales" in told:
            yield Place(group)
        elif told.get("bioformats2raw.layout") == 3:
            numbered = (path.name for path in _inside(root, group).iterdir() if path.name.isdecimal())
            for name in sorted(numbered, key=int):
                yield from _find(root, _join(group, name))
        else:
            raise ImageProblem("unreadable", "the Zarr group tells of no image: no multiscales, plate or collection")
    except ImageProblem as problem:
        yield Place(group, problem=problem)


def _plate_images(root: Path, group: str, plate: Any) -> Iterator[Place]:
    try:
        name = str(plate.get("name") or root.name.removesuffix(".zarr"))
        paths = [str(well["path"]) for well in plate["wells"]]
    except (TypeError, KeyError, AttributeError):
        raise ImageProblem("unreadable", "the plate's metadata does not list its wells") from None
    for path in paths:
        here = _join(group, path)
        well = path.replace("/", "")
        try:
            told = group_attributes(_inside(root, here))
            fields = [str(image["path"]) for image in told["well"]["images"]]
        except (TypeError, KeyError):
            problem = ImageProblem("unreadable", f"well {path} of the plate does not list its images")
            yield Place(here, name, well, None, problem)
            continue
        except ImageProblem as problem:
            yield Place(here, name, well, None, problem)
            continue
        yield from (Place(_join(here, field), name, well, field) for field in fields)


def _join(group: str, path: str) -> str:
    return f"{group}/{path}" if group else path


def _inside(root: Path, path: str) -> Path:
    """A path of the store's own metadata, which must not lead out of the store."""
    parts = path.split("/") if path else []
    if any(part in ("", ".", "..") for part in parts) or "\\" in path:
        raise ImageProblem("unreadable", f"the metadata names {path!r}, which is no path inside the store")
    return root.joinpath(*parts)


def _json(path: Path) -> Any:
    try:
        if path.stat().st_size > _MOST_JSON:
            raise ImageProblem("unreadable", f"{path.name} is larger than {_MOST_JSON:,} bytes")
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        what = getattr(error, "strerror", None) or "no JSON"
        raise ImageProblem("unreadable", f"{path.name} cannot be read ({what})") from None


def group_attributes(folder: Path) -> Mapping[str, Any]:
    """The OME attributes of a group: under `ome` from 0.5 on, at the top before.

    Raises:
        ImageProblem: no group, or of a version that is not read.
    """
    if (folder / "zarr.json").is_file():
        content = _json(folder / "zarr.json")
        told = _mapping(_mapping(content).get("attributes", {})).get("ome", {})
        version = _mapping(told).get("version")
    elif (folder / ".zattrs").is_file():
        told = _json(folder / ".zattrs")
        version = _former_version(_mapping(told))
    elif (folder / ".zgroup").is_file():
        return {}
    else:
        raise ImageProblem("unreadable", f"there is no Zarr group {folder.name!r}")
    if version is not None and str(version) not in VERSIONS and not str(version).startswith("0.5"):
        raise ImageProblem("unsupported_image", f"OME-Zarr {version}; versions {' and '.join(VERSIONS)} are read")
    return _mapping(told)


def _former_version(told: Mapping[str, Any]) -> Any:
    """Until 0.4 the version stands in each block, if anywhere."""
    blocks = [told.get("plate"), told.get("well"), *(_listed(told.get("multiscales")))]
    return next((block["version"] for block in blocks if isinstance(block, dict) and "version" in block), None)


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ImageProblem("unreadable", f"metadata holds {str(value)[:40]!r} where an object is expected")
    return value


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


class ZarrImage:
    """One image of a store, opened: axes and sizes known, pixels read on request.

    Args:
        root: the store.
        group: path of the image's group.
        max_pixels: most values of one time point.
        fill: take the array's fill value for a chunk that is not there, as Zarr defines it, rather than refuse.

    Raises:
        ImageProblem: the metadata does not hold together, or names no array.
    """

    def __init__(self, root: Path, group: str, max_pixels: int, *, fill: bool = False) -> None:
        self._root = root
        self._group = group
        self._max_pixels = max_pixels
        self._fill = fill
        folder = _inside(root, group)
        self._told = group_attributes(folder)
        multiscales = _listed(self._told.get("multiscales"))
        if not multiscales:
            raise ImageProblem("unreadable", "multiscales is empty: the group tells of no image")
        scales = _mapping(multiscales[0])
        self.axes = _axes(scales)
        level = _mapping(next(iter(_listed(scales.get("datasets"))), None))
        self._array = _open_array(_inside(root, _join(group, str(level.get("path", "")))), fill)
        if len(self._array.shape) != len(self.axes):
            sentence = f"the image has {len(self.axes)} axes ({self.axes}) and an array of {len(self._array.shape)}"
            raise ImageProblem("unreadable", sentence)
        self._sizes = _pixel_sizes(scales, level, self.axes)
        self.name = str(scales.get("name") or "")

    @property
    def num_times(self) -> int:
        return int(self._array.shape[self.axes.index("t")]) if "t" in self.axes else 1

    @property
    def times_at_once(self) -> int:
        """How many to read in one go, so that a chunk of several is decoded once."""
        return _times_at_once(self._array, self.num_times)

    @cached_property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels, by the `omero` block."""
        told = self._told.get("omero")
        listed = _listed(told.get("channels")) if isinstance(told, dict) else []
        names = [one.get("label") for one in listed if isinstance(one, dict)]
        return tuple(map(str, names)) if all(names) else ()

    def read(self, begin: int, end: int) -> Stack:
        """Times [begin, end).

        Raises:
            ImageProblem: a chunk is missing or does not decode, or the image is too large.
        """
        pixels = _five(_read_times(self._array, self.axes, begin, end, self._max_pixels), self.axes)
        names = self.channels if len(self.channels) == pixels.shape[1] else ()
        return Stack(plain(pixels), self._sizes, names, self.name)

    def labels(self, name: str) -> ZarrImage:
        """A label image of this image.

        Raises:
            ImageProblem: there is none of that name.
        """
        group = _join(self._group, f"labels/{name}")
        if not is_store(_inside(self._root, group)):
            raise ImageProblem("missing_mask", f"the image has no label image {name!r}")
        return ZarrImage(self._root, group, self._max_pixels, fill=self._fill)


class ZarrRows:
    """A plain array whose first axis counts images: (N, Y, X) or (N, Y, X, C), or (N,) for classes."""

    def __init__(self, array: Path, max_pixels: int, *, fill: bool = False) -> None:
        self._array = _open_array(array, fill)
        self._max_pixels = max_pixels
        if len(self._array.shape) not in (1, 3, 4):
            sentence = (
                f"array {array.name!r} has shape {list(self._array.shape)}; images lie as (N, Y, X) or (N, Y, X, C)"
            )
            raise ImageProblem("unreadable", sentence)

    @property
    def num_times(self) -> int:
        return int(self._array.shape[0])

    @property
    def times_at_once(self) -> int:
        """How many to read in one go, so that a chunk of several is decoded once."""
        return _times_at_once(self._array, self.num_times)

    def read(self, begin: int, end: int) -> Stack:
        """Images [begin, end), along the axis of times."""
        if len(self._array.shape) == 1:
            raise ImageProblem("unreadable", "the array has one axis: it holds classes, no images")
        axes = "tyxc"[: len(self._array.shape)]
        return Stack(plain(_five(_read_times(self._array, axes, begin, end, self._max_pixels), axes)))

    def values(self) -> Pixels | None:
        """The array where it has one axis, such as a class for each image; None for images."""
        if len(self._array.shape) != 1:
            return None
        found: Pixels = _read_times(self._array, "t", 0, self.num_times, self._max_pixels)
        return found


def _axes(scales: Mapping[str, Any]) -> str:
    told = [_mapping(axis) for axis in _listed(scales.get("axes"))]
    names = [str(axis.get("name")) for axis in told]
    kinds = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
    known = all(
        name in kinds and axis.get("type", kinds[name]) == kinds[name] for name, axis in zip(names, told, strict=True)
    )
    if not known or names[-2:] != ["y", "x"] or sorted(names, key=_AXES.index) != names or len(set(names)) < len(names):
        raise ImageProblem("unreadable", f"axes {', '.join(names) or 'none'}; expected are some of t, c, z, then y, x")
    return "".join(names)


def _pixel_sizes(
    scales: Mapping[str, Any], level: Mapping[str, Any], axes: str
) -> tuple[float | None, float | None, float | None]:
    """Along z, y and x, in micrometres, where the axes have a unit of length."""
    factor = np.ones(len(axes))
    for block in (level, scales):
        for step in _listed(block.get("coordinateTransformations")):
            if _mapping(step).get("type") == "scale":
                scale = step.get("scale")
                if not isinstance(scale, list) or len(scale) != len(axes):
                    raise ImageProblem("unreadable", f"a scale of {len(_listed(scale))} numbers for {len(axes)} axes")
                factor = factor * np.array(scale, np.float64)
    units = {str(axis["name"]): axis.get("unit") for axis in _listed(scales.get("axes"))}
    found = [micrometres(float(factor[axes.index(name)]), units.get(name)) if name in axes else None for name in "zyx"]
    return found[0], found[1], found[2]


def _open_array(folder: Path, fill: bool) -> _Array:
    import zarr

    _quiet_blosc()
    if not (folder / "zarr.json").is_file() and not (folder / ".zarray").is_file():
        raise ImageProblem("unreadable", f"there is no array {folder.name!r}")
    try:
        array = zarr.open_array(folder, mode="r")
    except MemoryError:
        raise
    except Exception as error:  # metadata of others may fail in any way
        raise ImageProblem("unreadable", f"array {folder.name!r} does not open ({_short(error)})") from error
    # Zarr objects and structured arrays are no pixels, and objects would be unpickled.
    if array.dtype.kind not in "uifb":
        raise ImageProblem("unsupported_image", f"array {folder.name!r} holds {array.dtype}, no pixels")
    return _Array(folder, array, fill)


@dataclass(frozen=True)
class _Array:
    folder: Path
    zarr: Any
    fill: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.zarr.shape)


def _quiet_blosc() -> None:
    """A lock between threads where numcodecs would make one between processes.

    A worker that is ended leaves the latter behind, and Python warns of it on the user's terminal. No process shares
    its blosc with another, so threads are all there is to keep apart.
    """
    import threading

    from numcodecs import blosc

    if getattr(blosc, "_MUTEX_IS_INIT", True) is False:
        blosc._MUTEX, blosc._MUTEX_IS_INIT = threading.Lock(), True


def _times_at_once(array: _Array, num_times: int) -> int:
    size = prod(array.shape) * array.zarr.dtype.itemsize // max(num_times, 1)
    return int(max(1, min(_MOST_TIMES, _BLOCK_BYTES // max(size, 1))))


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def _read_times(array: _Array, axes: str, begin: int, end: int, max_pixels: int) -> Pixels:
    """All of an array, or of its time points [begin, end), from chunks that are all there."""
    at = axes.find("t")
    shape = array.shape if at < 0 else (*array.shape[:at], 1, *array.shape[at + 1 :])
    check_size(shape, max_pixels)
    spans = [(0, size) for size in array.shape]
    if at >= 0:
        spans[at] = (begin, min(end, array.shape[at]))
    if not array.fill:
        _check_chunks(array, spans)
    try:
        found: Pixels = array.zarr[tuple(slice(*span) for span in spans)]
        return found
    except MemoryError:
        raise
    except Exception as error:  # codecs raise their own kinds
        raise ImageProblem(
            "unreadable", f"a chunk of array {array.folder.name!r} is damaged ({_short(error)})"
        ) from error


def _check_chunks(array: _Array, spans: Sequence[tuple[int, int]]) -> None:
    """Every chunk that is needed is there.

    Raises:
        ImageProblem: naming the first that is not.
    """
    try:
        grid = _Grid.of(array)
    except (KeyError, TypeError, ValueError) as error:
        sentence = f"the metadata of array {array.folder.name!r} does not hold together ({_short(error)})"
        raise ImageProblem("unreadable", sentence) from None
    ranges = [range(low // part, -(-high // part)) for (low, high), part in zip(spans, grid.chunks, strict=True)]
    for place in np.ndindex(*(len(one) for one in ranges)):
        chunk = tuple(one[i] for one, i in zip(ranges, place, strict=True))
        path = array.folder / grid.key(chunk)
        if not path.is_file():
            what = f"chunk {grid.key(chunk)} of array {array.folder.name!r} is missing"
            sentence = f"{what}; --missing-chunks fill takes it for its fill value"
            raise ImageProblem("missing_chunk", sentence)
        if grid.inner:
            _check_shard(path, grid, chunk, array)


@dataclass(frozen=True)
class _Grid:
    """How an array is cut into files.

    Attributes:
        chunks: shape that one file holds.
        prefix, separator: of the files' names.
        inner: shape of the chunks inside a shard; empty without sharding.
        index_at_end: where a shard's index stands.
        index_bytes: its size.
    """

    chunks: tuple[int, ...]
    prefix: str
    separator: str
    inner: tuple[int, ...] = ()
    index_at_end: bool = True
    index_bytes: int = 0

    @classmethod
    def of(cls, array: _Array) -> _Grid:
        if not (array.folder / "zarr.json").is_file():
            told = _mapping(_json(array.folder / ".zarray"))
            return cls(tuple(told["chunks"]), "", told.get("dimension_separator", "."))
        told = _mapping(_json(array.folder / "zarr.json"))
        chunks = tuple(told["chunk_grid"]["configuration"]["chunk_shape"])
        encoding = told.get("chunk_key_encoding", {"name": "default"})
        is_default = encoding["name"] == "default"
        separator = encoding.get("configuration", {}).get("separator", "/" if is_default else ".")
        prefix = f"c{separator}" if is_default else ""
        codecs: list[dict[str, Any]] = told["codecs"]
        sharding = [codec for codec in codecs if codec.get("name") == "sharding_indexed"]
        if not sharding:
            return cls(chunks, prefix, separator)
        if codecs[0] is not sharding[0]:
            raise ImageProblem("unsupported_image", "an array whose shards are not its outermost codec")
        settings = sharding[0]["configuration"]
        inner = tuple(settings["chunk_shape"])
        number = prod(size // part for size, part in zip(chunks, inner, strict=True))
        has_crc = any(one["name"] == "crc32c" for one in settings.get("index_codecs", []))
        at_end = settings.get("index_location", "end") == "end"
        return cls(chunks, prefix, separator, inner, at_end, 16 * number + 4 * has_crc)

    def key(self, chunk: tuple[int, ...]) -> str:
        return self.prefix + self.separator.join(map(str, chunk))


def _check_shard(path: Path, grid: _Grid, chunk: tuple[int, ...], array: _Array) -> None:
    """The chunks of a shard that lie in the array are all there."""
    with path.open("rb") as stream:
        size = path.stat().st_size
        stream.seek(max(0, size - grid.index_bytes) if grid.index_at_end else 0)
        data = stream.read(grid.index_bytes)
    name = f"shard {grid.key(chunk)} of array {array.folder.name!r}"
    if len(data) < grid.index_bytes:
        raise ImageProblem("unreadable", f"{name} is cut short")
    parts = [size // part for size, part in zip(grid.chunks, grid.inner, strict=True)]
    index = np.frombuffer(data, "<u8", count=2 * prod(parts)).reshape(*parts, 2)
    left = [
        min(number, -(-(size - at * whole) // part))
        for number, size, at, whole, part in zip(parts, array.shape, chunk, grid.chunks, grid.inner, strict=True)
    ]
    if bool((index[tuple(slice(0, number) for number in left)][..., 0] == _ABSENT).any()):
        raise ImageProblem("missing_chunk", f"{name} lacks a chunk; --missing-chunks fill takes it for its fill value")


def _five(pixels: Pixels, axes: str) -> Pixels:
    """(T, C, Z, Y, X)."""
    order = [axes.index(name) for name in _AXES if name in axes]
    sizes = dict(zip(axes, pixels.shape, strict=True))
    return pixels.transpose(order).reshape([sizes.get(name, 1) for name in _AXES])
