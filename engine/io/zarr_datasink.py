"""Arrays of checked Zarr v3 shards as a datasink of Ray Data, which has none for Zarr.

    ds.write_datasink(zarr_datasink("out/embeddings.zarr", "0", value="embedding"))

Rows may come in any order, in any blocks, from any number of tasks; the column "row" says where each belongs. A shard
whose rows all came to one task is written by that task. Of the others the tasks leave pieces, and the driver alone
joins them. The array's metadata are written last, once every row is known to be there once: until then there is no
array. Its bytes depend on its rows alone. Ray is loaded only when `zarr_datasink` is called.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import DataError, InputError
from engine.io._zarr_shards import ArraySpec, encode_chunks, json_text, shard_bytes
from engine.io.zarr_datasource import ROW
from engine.storage.checksums import crc32c
from engine.storage.store import open_store

_FIX_ROWS = "number the rows 0, 1, 2 and so on, each once"


@dataclass(frozen=True)
class Layout:
    """How an array is written.

    Attributes:
        uri: folder or object store of the array's store.
        name: path of the array in it.
        value: the column that holds it.
        rows_per_shard: the unit that has one writer.
        rows_per_chunk: divides it.
        dimensions: names of the axes, the rows' first; unset calls them row, axis_1 and so on.
    """

    uri: str
    name: str
    value: str
    rows_per_shard: int
    rows_per_chunk: int
    dimensions: tuple[str, ...] = ()

    def spec(self, kind: Kind) -> ArraySpec:
        """Of rows of this kind."""
        usual = ("row", *(f"axis_{number}" for number in range(1, len(kind.shape) + 1)))
        return ArraySpec(
            self.name,
            kind.dtype,
            self.dimensions or usual,
            kind.shape,
            (self.rows_per_chunk, *kind.shape),
            self.rows_per_shard // self.rows_per_chunk,
            0.0 if kind.dtype.startswith("float") else False if kind.dtype == "bool" else 0,
        )


@dataclass(frozen=True)
class Kind:
    """Of a row: data type and shape."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Written:
    """What a task did for a shard.

    Attributes:
        shard: its number.
        rows: numbers, ascending.
        kind: of each row.
        piece: file of the rows; empty where the shard stands.
        crc32c: of that file.
    """

    shard: int
    rows: tuple[int, ...]
    kind: Kind
    piece: str
    crc32c: int


def zarr_datasink(
    uri: str | Path,
    name: str,
    *,
    value: str,
    rows_per_shard: int = 1024,
    rows_per_chunk: int = 1,
    dimensions: Sequence[str] = (),
) -> Any:
    """A Ray Data `Datasink` that writes the column `value` by the numbers of the column "row".

    Args:
        uri: folder, or s3:// or gs://, of the store.
        name: path of the array in it.
        value: a column of tensors of one shape, or of numbers.
        rows_per_shard: a shard is a file.
        rows_per_chunk: what is read at once; divides rows_per_shard.
        dimensions: names of the axes.

    Raises:
        ValueError: rows_per_chunk does not divide rows_per_shard.
        InputError: from the write: an array is there already.
        DataError: from the write: a row that is missing or there twice, or of another shape or type than the others.
    """
    from ray.data import Datasink
    from ray.data.block import BlockAccessor

    if rows_per_chunk < 1 or rows_per_shard % rows_per_chunk:
        raise ValueError(f"{rows_per_chunk} rows a chunk do not divide {rows_per_shard} rows a shard")
    layout = Layout(str(uri), name, value, rows_per_shard, rows_per_chunk, tuple(dimensions))

    class _Zarr(Datasink[Any]):
        def on_write_start(self, schema: Any = None) -> None:  # noqa: ARG002
            begin(layout)

        def write(self, blocks: Iterable[Any], ctx: Any) -> Any:  # noqa: ARG002
            columns = (BlockAccessor.for_block(block).to_numpy([ROW, value]) for block in blocks)
            return write_rows(layout, ((one[ROW], one[value]) for one in columns))

        def on_write_complete(self, write_result: Any) -> None:
            commit(layout, [written for found in write_result.write_returns for written in found])

        def on_write_failed(self, error: Exception) -> None:  # noqa: ARG002
            _remove_pieces(layout)

    return _Zarr()


def begin(layout: Layout) -> None:
    """Before anything is written: what a failed write left is removed, so that no shard of it outlives a smaller one.

    Raises:
        InputError: an array is there already.
    """
    if open_store(layout.uri).exists(f"{layout.name}/zarr.json"):
        where = f"{layout.uri}/{layout.name}"
        raise InputError("an array is there already", where=where, fix="choose another name, or remove it")
    _remove_pieces(layout)
    _remove_shards(layout)


def write_rows(layout: Layout, blocks: Iterable[tuple[NDArray[Any], NDArray[Any]]]) -> list[Written]:
    """Write the shards that are whole, and pieces of the others; what comes of it is for `commit`.

    Args:
        layout: how.
        blocks: numbers of rows, (N,), and the rows, (N, ...).

    Raises:
        DataError: rows of several shapes or types, or a number that is none.
    """
    shards: dict[int, list[tuple[int, NDArray[Any]]]] = {}
    kind: Kind | None = None
    for numbers, rows in blocks:
        for number, row in zip(np.asarray(numbers).tolist(), rows, strict=True):
            kind = _kind_of(layout, number, row, kind)
            shards.setdefault(number // layout.rows_per_shard, []).append((number, np.asarray(row)))
    return [
        _written(layout, shard, sorted(held, key=lambda one: one[0]), kind)
        for shard, held in sorted(shards.items())
        if kind is not None
    ]


def _kind_of(layout: Layout, number: Any, row: Any, former: Kind | None) -> Kind:
    where = f"{layout.uri}/{layout.name}"
    if not isinstance(number, int) or number < 0:
        raise DataError(f"a row has the number {number!r}", where=where, fix=_FIX_ROWS)
    found = np.asarray(row)
    kind = Kind(found.dtype.name, found.shape)
    if found.dtype.kind not in "biuf" or (former is not None and kind != former):
        told = f"row {number} is {kind.dtype} of shape {list(kind.shape)}"
        beside = "" if former is None else f" beside {former.dtype} of shape {list(former.shape)}"
        raise DataError(told + beside, where=where, fix="give rows of numbers, of one type and shape")
    return kind


def _written(layout: Layout, shard: int, held: list[tuple[int, NDArray[Any]]], kind: Kind) -> Written:
    numbers = tuple(number for number, _ in held)
    rows = np.stack([row for _, row in held])
    done = Written(shard, numbers, kind, "", 0)
    first = shard * layout.rows_per_shard
    if numbers == tuple(range(first, first + layout.rows_per_shard)):
        _put_shard(layout, shard, rows, kind)
        return done
    data = np.ascontiguousarray(rows).astype(rows.dtype.newbyteorder("<"), copy=False).tobytes()
    piece = f"{_pieces(layout)}/{shard}-{uuid.uuid4().hex}"
    open_store(layout.uri).put(piece, data)
    return replace(done, piece=piece, crc32c=crc32c(data))


def _put_shard(layout: Layout, shard: int, rows: NDArray[Any], kind: Kind) -> None:
    """A shard at its place, in one step."""
    spec = layout.spec(kind)
    size = layout.rows_per_chunk
    parts = [rows[at : at + size] for at in range(0, len(rows), size)]
    chunks = [chunk for part in parts for chunk in encode_chunks(spec, part, len(part))]
    key = "/".join(map(str, (shard, *(0 for _ in kind.shape))))
    open_store(layout.uri).put(f"{layout.name}/c/{key}", shard_bytes(chunks, spec))


def commit(layout: Layout, found: Sequence[Written]) -> None:
    """Join the pieces, and write the metadata: the array is there from then on.

    Raises:
        DataError: a row that is missing or there twice, or of another shape or type than the others.
    """
    where = f"{layout.uri}/{layout.name}"
    kinds = sorted({one.kind for one in found}, key=repr)
    if not kinds:
        raise DataError("there are no rows to write", where=where, fix=_FIX_ROWS)
    if len(kinds) > 1:
        told = " and ".join(f"{one.dtype} of shape {list(one.shape)}" for one in kinds[:2])
        raise DataError(f"there are rows of {told}", where=where, fix="give rows of one type and shape")
    num_rows = _counted(found, where)
    shards: dict[int, list[Written]] = {}
    for one in found:
        shards.setdefault(one.shard, []).append(one)
    for shard, parts in sorted(shards.items()):
        if parts[0].piece:
            _put_shard(layout, shard, _joined(layout, parts), kinds[0])
    open_store(layout.uri).put(f"{layout.name}/zarr.json", json_text(layout.spec(kinds[0]).metadata(num_rows)))
    _remove_pieces(layout)


def _counted(found: Sequence[Written], where: str) -> int:
    numbers = np.sort(np.concatenate([np.array(one.rows, np.int64) for one in found]))
    twice = numbers[:-1][np.diff(numbers) == 0]
    if len(twice):
        raise DataError(f"row {int(twice[0])} came twice", where=where, fix=_FIX_ROWS)
    absent = np.flatnonzero(numbers != np.arange(len(numbers)))
    if len(absent):
        what = f"row {int(absent[0])} of {int(numbers[-1]) + 1:,} did not come"
        raise DataError(what, where=where, fix=_FIX_ROWS)
    return len(numbers)


def _joined(layout: Layout, parts: Sequence[Written]) -> NDArray[Any]:
    """The rows of a shard, in their order."""
    store = open_store(layout.uri)
    numbers: list[int] = []
    rows = []
    for one in parts:
        data = store.read(one.piece)
        if crc32c(data) != one.crc32c:
            fix = "write again"
            raise DataError("a piece was changed after it was written", where=f"{layout.uri}/{one.piece}", fix=fix)
        dtype = np.dtype(one.kind.dtype).newbyteorder("<")
        rows.append(np.frombuffer(data, dtype).reshape(len(one.rows), *one.kind.shape))
        numbers += one.rows
    joined: NDArray[Any] = np.concatenate(rows)[np.argsort(numbers)]
    return joined


def _pieces(layout: Layout) -> str:
    return f"{layout.name}/.pieces"


def _remove_pieces(layout: Layout) -> None:
    store = open_store(layout.uri)
    for name in store.list(_pieces(layout)):
        store.delete(name)
    if "://" not in layout.uri:
        shutil.rmtree(Path(layout.uri) / _pieces(layout), ignore_errors=True)  # what is left of the folder


def _remove_shards(layout: Layout) -> None:
    store, chunks = open_store(layout.uri), f"{layout.name}/c/"
    for name in store.list(chunks):
        # Their names are numbers; nothing else is ours.
        if name.removeprefix(chunks).replace("/", "").isdecimal():
            store.delete(name)
    if "://" not in layout.uri:
        # A row without axes has a file where a folder was emptied.
        for folder in sorted((Path(layout.uri) / chunks).rglob("*"), reverse=True):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
