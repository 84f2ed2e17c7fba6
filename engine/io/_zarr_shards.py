"""Arrays of Zarr v3 written front to back: shards of checked chunks, each shard put in place once, whole.

Source: the Zarr core specification 3.0 (array metadata, regular grid), its codecs `sharding_indexed` 1.0 (chunks, then
an index of offsets and lengths), `zstd`, `crc32c` and `bytes`, and `vlen-utf8` of zarr-extensions for text. Every chunk
and every index ends in its CRC-32C, so that a flipped bit raises in any reader. No chunk inside the array is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.io._vcf_lines import text_bytes
from engine.storage.checksums import crc32c
from engine.storage.store import clear_errors

Block: TypeAlias = "npt.NDArray[Any] | pa.Array"
"""Rows of an array: numpy for numbers, an Arrow string array of all its texts in C order for text."""

_LEVEL = 3
_ABSENT = 2**64 - 1
_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
_CRC = {"name": "crc32c"}


class Sink(Protocol):
    """Where files of a store go, each put in place whole; a `Store` is one."""

    def put(self, name: str, data: bytes) -> None: ...

    def scratch(self) -> Path:
        """A local path for a new temporary file."""
        ...

    def put_file(self, local: Path, name: str) -> None:
        """Move a scratch file into place."""
        ...


@dataclass(frozen=True)
class ArraySpec:
    """An array that grows along its first axis.

    Attributes:
        name: path in the store.
        data_type: name of the Zarr data type; "string" for text.
        dimensions: names of the axes.
        row_shape: the shape behind the first axis.
        chunk: shape of a chunk.
        chunks_per_shard: how many chunks along the first axis make a shard; along the others a shard holds all.
        fill: what pads a chunk that reaches past the array, and what readers would see in its place.
        attributes: of the array.
    """

    name: str
    data_type: str
    dimensions: tuple[str, ...]
    row_shape: tuple[int, ...]
    chunk: tuple[int, ...]
    chunks_per_shard: int
    fill: Any
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_text(self) -> bool:
        return self.data_type == "string"

    def with_shards(self, chunks_per_shard: int) -> ArraySpec:
        """The same in larger or smaller shards."""
        return replace(self, chunks_per_shard=chunks_per_shard)

    @property
    def across(self) -> tuple[int, ...]:
        """Chunks along each axis behind the first."""
        return tuple(-(-size // part) for size, part in zip(self.row_shape, self.chunk[1:], strict=True))

    def metadata(self, num_rows: int) -> dict[str, Any]:
        """The array's zarr.json."""
        shard = [
            self.chunk[0] * self.chunks_per_shard,
            *(part * n for part, n in zip(self.chunk[1:], self.across, strict=True)),
        ]
        serializer = {"name": "vlen-utf8"} if self.is_text else _LITTLE
        sharding = {
            "chunk_shape": list(self.chunk),
            "codecs": [serializer, {"name": "zstd", "configuration": {"level": _LEVEL, "checksum": False}}, _CRC],
            "index_codecs": [_LITTLE, _CRC],
            "index_location": "end",
        }
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [num_rows, *self.row_shape],
            "data_type": self.data_type,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": self.fill,
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "attributes": dict(self.attributes),
            "dimension_names": list(self.dimensions),
        }


class ArrayWriter:
    """Takes an array chunk row by chunk row; a shard grows in a scratch file, so that memory holds few chunks."""

    def __init__(self, spec: ArraySpec, sink: Sink) -> None:
        self.spec = spec
        self._sink = sink
        self._num_rows = 0
        self._num_shards = 0
        self._in_shard = 0
        self._sizes: list[int] = []
        self._local: Path | None = None
        self._stream: BinaryIO | None = None

    def append(self, chunks: list[bytes], num_rows: int) -> None:
        """Add encoded chunks, in C order of their grid, of as many rows as a chunk has, or fewer at the array's end."""
        self._write(chunks)
        self._num_rows += num_rows
        self._in_shard += 1
        if self._in_shard == self.spec.chunks_per_shard:
            self._close_shard()

    def finish(self) -> None:
        """Write the last shard and the metadata."""
        if self._in_shard:
            self._close_shard()
        self._sink.put(f"{self.spec.name}/zarr.json", json_text(self.spec.metadata(self._num_rows)))

    def close(self) -> None:
        """Let go of a shard that is not finished; nothing to do once all are."""
        if self._stream is not None:
            self._stream.close()

    def _write(self, chunks: list[bytes]) -> None:
        if self._stream is None:
            self._local = self._sink.scratch()
            self._stream = self._local.open("wb")
        with clear_errors(self.spec.name):
            self._stream.writelines(chunks)
        self._sizes += map(len, chunks)

    def _close_shard(self) -> None:
        assert self._stream is not None
        assert self._local is not None
        with clear_errors(self.spec.name):
            self._stream.write(_index(self._sizes, self.spec))
            self._stream.close()
        key = "/".join(map(str, (self._num_shards, *(0 for _ in self.spec.row_shape))))
        self._sink.put_file(self._local, f"{self.spec.name}/c/{key}")
        self._num_shards += 1
        self._sizes, self._in_shard, self._stream, self._local = [], 0, None, None


def _index(sizes: list[int], spec: ArraySpec) -> bytes:
    """Offset and length of every chunk of a shard, and their checksum."""
    index = np.full((spec.chunks_per_shard * prod(spec.across), 2), _ABSENT, "<u8")
    lengths = np.array(sizes, np.uint64)
    index[: len(sizes), 0] = np.cumsum(lengths) - lengths
    index[: len(sizes), 1] = lengths
    return _with_crc(index.tobytes())


def shard_bytes(chunks: list[bytes], spec: ArraySpec) -> bytes:
    """A shard of encoded chunks in C order of their grid, then the index."""
    return b"".join((*chunks, _index([len(chunk) for chunk in chunks], spec)))


def _with_crc(data: bytes) -> bytes:
    return data + crc32c(data).to_bytes(4, "little")


def encode_chunks(spec: ArraySpec, block: Block, num_rows: int) -> list[bytes]:
    """The encoded chunks of one row of the chunk grid, in order, padded to whole chunks."""
    codec = pa.Codec("zstd", compression_level=_LEVEL)
    return [_with_crc(codec.compress(data, asbytes=True)) for data in _plain_chunks(spec, block, num_rows)]


def _plain_chunks(spec: ArraySpec, block: Block, num_rows: int) -> list[bytes]:
    if isinstance(block, pa.Array):
        return _text_chunks(spec, block, num_rows)
    rows = block.reshape(num_rows, *spec.row_shape)
    if prod(spec.across) == 1 and rows.shape == spec.chunk:
        return [np.ascontiguousarray(rows).tobytes()]
    return [chunk.tobytes() for chunk in _grid(spec, rows, spec.fill)]


def _text_chunks(spec: ArraySpec, texts: pa.Array, num_rows: int) -> list[bytes]:
    if num_rows == spec.chunk[0] and prod(spec.across) == 1:
        return [vlen_utf8(texts, len(texts))]
    index = np.arange(len(texts)).reshape(num_rows, *spec.row_shape)
    padded = pa.concat_arrays([texts, pa.array([spec.fill], pa.string())])
    chunks = (padded.take(pa.array(part.ravel())) for part in _grid(spec, index, len(texts)))
    return [vlen_utf8(chunk, prod(spec.chunk)) for chunk in chunks]


def _grid(spec: ArraySpec, rows: npt.NDArray[Any], fill: Any) -> Iterator[npt.NDArray[Any]]:
    """The chunks of a row of the chunk grid, in C order, filled up where they reach past the array."""
    for place in np.ndindex(*spec.across):
        corner = [at * part for at, part in zip(place, spec.chunk[1:], strict=True)]
        part = rows[(slice(None), *(slice(at, at + n) for at, n in zip(corner, spec.chunk[1:], strict=True)))]
        whole = np.full(spec.chunk, fill, rows.dtype)
        whole[tuple(slice(0, n) for n in part.shape)] = part
        yield whole


def vlen_utf8(texts: pa.Array, num_items: int) -> bytes:
    """Texts as `vlen-utf8` has them: their number, then each with its length before it; padded with empty texts."""
    offsets, data = text_bytes(texts)
    sizes = np.zeros(num_items, np.int64)
    sizes[: len(texts)] = np.diff(offsets)
    out = np.empty(4 + 4 * num_items + int(sizes.sum()), np.uint8)
    out[:4] = np.frombuffer(num_items.to_bytes(4, "little"), np.uint8)
    heads = 4 + 4 * np.arange(num_items) + np.cumsum(sizes) - sizes
    is_text = np.ones(len(out), np.bool_)
    is_text[:4] = False
    for byte in range(4):
        out[heads + byte] = (sizes >> (8 * byte)) & 255
        is_text[heads + byte] = False
    if len(texts):
        out[is_text] = data[offsets[0] : offsets[-1]]
    return out.tobytes()


def json_text(content: Mapping[str, Any]) -> bytes:
    """The one text of a metadata document."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
