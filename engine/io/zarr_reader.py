"""Arrays of our own Zarr v3 shards read chunk by chunk, every byte checked before it is taken for a pixel.

Zarr readers give the fill value for a chunk that is not there. Here a missing shard, a chunk missing from a shard's
index, and a chunk or index whose CRC-32C does not hold are errors that name file and chunk.

Source: the Zarr core specification 3.0; codecs `sharding_indexed` 1.0, `zstd`, `crc32c`, `bytes`. Only the codecs that
`_zarr_shards.ArraySpec` writes are known.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.errors import DataError, InputError
from engine.storage.checksums import crc32c

_ABSENT = 2**64 - 1
_OPEN_SHARDS = 256
_FIX = "`replisome verify` tells what is damaged; restore it, or make the set anew with --force"


@dataclass(frozen=True)
class _Grid:
    """How an array is cut: shapes of array, shard and chunk."""

    shape: tuple[int, ...]
    shard: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def chunks_in_shard(self) -> tuple[int, ...]:
        return tuple(size // part for size, part in zip(self.shard, self.chunk, strict=True))

    @property
    def across(self) -> tuple[int, ...]:
        """Chunks of a row, along each axis of it."""
        return tuple(-(-size // part) for size, part in zip(self.shape[1:], self.chunk[1:], strict=True))

    def corner(self, place: tuple[int, ...]) -> tuple[slice, ...]:
        """What a chunk covers of a row; chunks may reach past its end."""
        sizes = zip(place, self.chunk[1:], self.shape[1:], strict=True)
        return tuple(slice(at * part, min((at + 1) * part, size)) for at, part, size in sizes)


class CheckedArray:
    """An array of a store, opened for reading rows; holds a few shard indexes, no pixels. Picklable.

    Args:
        store: folder of the store, local.
        name: path of the array in it.
        crc32c: of its metadata document, where it is known.

    Raises:
        InputError: no array, or one that another program wrote with other codecs.
        DataError: its metadata does not hold together.
    """

    def __init__(self, store: Path, name: str, *, crc32c: int | None = None) -> None:
        self.path = store / name
        self._grid = _read_grid(self.path, crc32c)
        self._indexes: OrderedDict[int, npt.NDArray[np.uint64]] = OrderedDict()

    @property
    def shape(self) -> tuple[int, ...]:
        return self._grid.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._grid.dtype

    @property
    def rows_per_shard(self) -> int:
        return self._grid.shard[0]

    def __len__(self) -> int:
        return self._grid.shape[0]

    def row(self, number: int) -> npt.NDArray[Any]:
        """One row: an image (C, Y, X), or a mask (Y, X).

        Raises:
            IndexError: no such row.
            DataError: a chunk of it is missing or damaged.
        """
        grid = self._grid
        if not 0 <= number < grid.shape[0]:
            raise IndexError(f"row {number} of {grid.shape[0]}")
        shard, inside = divmod(number, grid.shard[0])
        at, offset = divmod(inside, grid.chunk[0])
        out = np.empty(grid.shape[1:], grid.dtype)
        path = self._shard_path(shard)
        try:
            with path.open("rb") as stream:
                index = self._index(shard, stream, path)
                for place in np.ndindex(*grid.across):
                    chunk = self._chunk(stream, index[at, ..., :][place], path, (at, *place))
                    corner = grid.corner(place)
                    inside_chunk = tuple(slice(0, one.stop - one.start) for one in corner)
                    out[corner] = chunk[offset][inside_chunk]
        except FileNotFoundError:
            raise DataError(f"shard {shard} of the array is missing", where=str(path), fix=_FIX) from None
        return out

    def _shard_path(self, shard: int) -> Path:
        return self.path / "c" / "/".join(map(str, (shard, *(0 for _ in self._grid.shape[1:]))))

    def _index(self, shard: int, stream: Any, path: Path) -> npt.NDArray[np.uint64]:
        if shard in self._indexes:
            self._indexes.move_to_end(shard)
            return self._indexes[shard]
        parts = self._grid.chunks_in_shard
        size = 16 * prod(parts) + 4
        end = stream.seek(0, 2)
        if end < size:
            raise DataError("the shard is cut short", where=str(path), fix=_FIX)
        stream.seek(end - size)
        index = np.frombuffer(_checked(stream.read(size), path, "the shard's index"), "<u8").reshape(*parts, 2)
        self._indexes[shard] = index
        if len(self._indexes) > _OPEN_SHARDS:
            self._indexes.popitem(last=False)
        return index

    def _chunk(
        self, stream: Any, entry: npt.NDArray[np.uint64], path: Path, place: tuple[int, ...]
    ) -> npt.NDArray[Any]:
        grid, what = self._grid, f"chunk {list(place)} of the shard"
        offset, size = int(entry[0]), int(entry[1])
        if offset == _ABSENT:
            raise DataError(f"{what} is missing", where=str(path), fix=_FIX)
        stream.seek(offset)
        data = stream.read(size)
        if len(data) < size:
            raise DataError(f"{what} is cut short", where=str(path), fix=_FIX)
        whole = prod(grid.chunk) * grid.dtype.itemsize
        try:
            plain = pa.Codec("zstd").decompress(_checked(data, path, what), decompressed_size=whole, asbytes=True)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{what} does not decode ({error})", where=str(path), fix=_FIX) from error
        if len(plain) != whole:
            raise DataError(f"{what} holds {len(plain)} bytes where {whole} belong", where=str(path), fix=_FIX)
        return np.frombuffer(plain, grid.dtype).reshape(grid.chunk)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_indexes": OrderedDict()}


def _checked(data: bytes, path: Path, what: str) -> bytes:
    """Data without the CRC-32C at its end, which must hold."""
    body = data[:-4]
    if len(data) < 4 or crc32c(body) != int.from_bytes(data[-4:], "little"):
        raise DataError(f"the checksum of {what} does not hold", where=str(path), fix=_FIX)
    return body


def _read_grid(path: Path, checksum: int | None) -> _Grid:
    try:
        data = (path / "zarr.json").read_bytes()
        if checksum is not None and crc32c(data) != checksum:
            raise DataError("zarr.json was changed after it was written", where=str(path), fix=_FIX)
        told = json.loads(data)
    except FileNotFoundError:
        raise InputError("there is no Zarr v3 array here", where=str(path), fix="check the path") from None
    except (OSError, ValueError) as error:
        raise DataError(f"zarr.json cannot be read ({error})", where=str(path), fix=_FIX) from error
    try:
        codec = told["codecs"][0]["configuration"]
        names = [one["name"] for one in codec["codecs"]]
        shapes = (told["shape"], told["chunk_grid"]["configuration"]["chunk_shape"], codec["chunk_shape"])
        shape, shard, chunk = (tuple(map(int, one)) for one in shapes)
        dtype = np.dtype(told["data_type"]).newbyteorder("<")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError("this array is not one of ours", where=str(path), fix="read it with zarr") from error
    if names != ["bytes", "zstd", "crc32c"] or codec.get("index_location") != "end":
        raise InputError(f"the array has codecs {names}, not ours", where=str(path), fix="read it with zarr")
    return _Grid(shape, shard, chunk, dtype)
