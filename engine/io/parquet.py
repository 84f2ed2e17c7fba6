"""Parquet as every table of a run is written: the same bytes for the same rows, page CRCs, named schema in the footer.

Page checksums guard the data pages (Apache Parquet format, "Data Pages", field `crc`); footer and page headers have
none in the format. So each file carries a seal among its footer entries: the CRC-32C of the whole file, taken with the
seal's own eight digits as zeros. Other readers pass over it; ours check it, and the CRC-32C that a receipt or manifest
recorded where the caller gives that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import DataError
from schemas.tables import SCHEMA_KEY

VERSION_KEY = b"replisome.schema_version"
SEAL_KEY = b"replisome.crc32c"
ROWS_PER_GROUP = 1 << 16

_NO_SEAL = b"0" * 8
# In Thrift's compact protocol a string field that follows another is its type and delta (0x18), its length, its bytes.
_SEAL = SEAL_KEY + b"\x18\x08"

_RESTORE = "the file is damaged; delete it and run again, or restore it from a copy"


def write_table(
    table: pa.Table,
    path: str | Path,
    *,
    schema_name: str,
    version: int,
    metadata: Mapping[str, str] | None = None,
    schema: pa.Schema | None = None,
) -> None:
    """Write a table with frozen options; equal rows give equal bytes however the table is chunked.

    Args:
        table: the rows; cast to `schema` where one is given.
        path: local file, overwritten.
        schema_name: name in schemas.tables, kept in the footer with `version`.
        version: version of that schema.
        metadata: more footer entries; they must not depend on time, host or path.
        schema: Arrow schema to cast to.
    """
    table = table if schema is None else table.cast(schema)
    footer = {SCHEMA_KEY: schema_name.encode(), VERSION_KEY: str(version).encode()}
    footer |= {key.encode(): value.encode() for key, value in sorted((metadata or {}).items())}
    footer[SEAL_KEY] = _NO_SEAL
    table = canonical(table).replace_schema_metadata(footer)
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=ROWS_PER_GROUP,
        version="2.6",
        data_page_version="1.0",
        compression="zstd",
        compression_level=3,
        use_dictionary=_text_columns(table.schema),
        write_statistics=True,
        write_page_checksum=True,
        store_schema=True,
    )
    Path(path).write_bytes(_sealed(sink.getvalue().to_pybytes()))


def _seal_at(data: bytes) -> int:
    """Where the seal's digits begin; -1 where the file has none."""
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    found = data.rfind(_SEAL, max(0, footer))
    return found + len(_SEAL) if found >= 0 else -1


def _crc_without(data: bytes, at: int) -> bytes:
    """CRC-32C as eight hex digits of `data` with the eight digits at `at` as zeros."""
    # Imported here: scoring imports this module and must load without it.
    import google_crc32c

    view = memoryview(data)
    value = google_crc32c.value(bytes(view[:at]) + _NO_SEAL + bytes(view[at + 8 :]))
    return b"%08x" % value


def _sealed(data: bytes) -> bytes:
    at = _seal_at(data)
    if at < 0:
        raise AssertionError("the Parquet writer no longer lays out footer entries as the seal expects")
    return data[:at] + _crc_without(data, at) + data[at + 8 :]


def _check_seal(data: bytes, path: str | Path, *, needed: bool = False) -> None:
    at = _seal_at(data)
    if at < 0 and needed:
        raise DataError("it has no seal of ours", where=str(path), fix=_RESTORE)
    if at >= 0 and data[at : at + 8] != (found := _crc_without(data, at)):
        told = data[at : at + 8].decode("latin-1")
        raise DataError(f"CRC-32C is {found.decode()} where its footer says {told!r}", where=str(path), fix=_RESTORE)


def _text_columns(schema: pa.Schema) -> list[str]:
    """Columns that repeat themselves, so that a dictionary pays."""
    return [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]


def canonical(table: pa.Table) -> pa.Table:
    """The same rows in one chunk per column, every NaN with the same bits."""
    columns = [_one_nan(_join(column)) for column in table.columns]
    return pa.Table.from_arrays(columns, schema=table.schema)


def _join(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _one_nan(array: pa.Array) -> pa.Array:
    """Replace NaN by the canonical quiet NaN, in floats and in lists of them."""
    kind = array.type
    if pa.types.is_floating(kind):
        values = np.asarray(array.fill_null(0.0) if array.null_count else array)
        odd = np.isnan(values)
        if not odd.any():
            return array
        mask = np.asarray(array.is_null()) if array.null_count else None
        return pa.array(np.where(odd, values.dtype.type(np.nan), values), type=kind, mask=mask)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        # Of a slice Arrow takes no mask beside the offsets, which it takes as they lie in memory.
        offsets = pa.array(np.array(array.offsets), array.offsets.type)
        return type(array).from_arrays(offsets, _one_nan(array.values), type=kind, mask=_nulls(array))
    if pa.types.is_fixed_size_list(kind):
        begin, size = array.offset * kind.list_size, len(array) * kind.list_size
        return pa.FixedSizeListArray.from_arrays(
            _one_nan(array.values.slice(begin, size)), type=kind, mask=_nulls(array)
        )
    return array


def _nulls(array: pa.Array) -> pa.Array | None:
    return array.is_null() if array.null_count else None


def read_table(
    path: str | Path, columns: Sequence[str] | None = None, *, crc32c: int | None = None, sealed: bool = False
) -> pa.Table:
    """Read a table, checking first its seal and the CRC-32C of the whole file where it is given, then page CRCs.

    The bytes checked are the bytes decoded. Files of other writers have no seal; with `sealed` they are refused.

    Raises:
        DataError: a checksum differs, or the file does not decode.
    """
    data = _read_bytes(path)
    if crc32c is not None:
        _check_bytes(data, crc32c, path)
    else:
        _check_seal(data, path, needed=sealed)
    with _decoding(path):
        wanted = None if columns is None else list(columns)
        # Without threads, and not through pq.read_table, which takes one all the same: a pool's thread that lets go of
        # our bytes as the interpreter ends asks for its lock, and is aborted inside C++.
        source = pa.BufferReader(data)
        with pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=False) as file:
            table = file.read(columns=wanted, use_threads=False)
        if wanted is not None:
            table = table.select(wanted)  # a missing column is passed over until here
        table.validate(full=True)
    return table


def _check_bytes(data: bytes, crc32c: int, path: str | Path) -> None:
    import google_crc32c  # here for the same reason as above

    found = google_crc32c.value(data)
    if found != crc32c:
        raise DataError(f"CRC-32C is {found:08x} where {crc32c:08x} was recorded", where=str(path), fix=_RESTORE)


def _read_bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(
            f"the file cannot be read ({error.strerror or error})", where=str(path), fix=_RESTORE
        ) from error


@contextmanager
def _decoding(path: str | Path) -> Iterator[None]:
    """Turns whatever pyarrow raises on damaged bytes into a DataError."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError, MemoryError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"the Parquet file does not decode ({first})", where=str(path), fix=_RESTORE) from error


def footer_metadata(path: str | Path) -> dict[str, str]:
    """Key-value entries of the footer, without Arrow's own and the seal, which is checked.

    Raises:
        DataError: no Parquet footer, or the seal does not fit the file.
    """
    data = _read_bytes(path)
    _check_seal(data, path)
    with _decoding(path):
        entries: dict[bytes, bytes] = pq.read_metadata(pa.BufferReader(data)).metadata or {}
        known = (b"ARROW:schema", SEAL_KEY)
        return {key.decode(): value.decode() for key, value in entries.items() if key not in known}
