"""Tables: the same bytes for the same rows, checksums, and three other readers."""

from __future__ import annotations

import itertools
import math
import random
import struct
import subprocess
import sys
from pathlib import Path

import duckdb
import google_crc32c
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DataError
from engine.io import parquet
from schemas import tables

ODD_NAN = struct.unpack("<d", b"\x01\0\0\0\0\0\xf8\xff")[0]
ODD_NAN_32 = np.frombuffer(b"\x01\0\xc0\xff", np.float32)

TABLE = pa.table(
    {
        "record": pa.array([0, 1, 2], pa.int64()),
        "contig": ["chr1", "chr1", None],
        "score": pa.array([0.5, math.nan, None], pa.float32()),
        "track": pa.array([[0.5, math.nan], [], None], pa.list_(pa.float32())),
    }
)


def _write(table: pa.Table, path: Path, **options: object) -> bytes:
    parquet.write_table(table, path, schema_name="toy", version=3, **options)  # type: ignore[arg-type]
    return path.read_bytes()


def test_round_trip(tmp_path: Path) -> None:
    data = _write(TABLE, tmp_path / "x")
    back = parquet.read_table(tmp_path / "x", crc32c=google_crc32c.value(data))
    assert str(back.to_pydict()) == str(TABLE.to_pydict())
    assert back.schema.equals(TABLE.schema)
    assert parquet.read_table(tmp_path / "x", ["score"]).column_names == ["score"]


def test_columns_come_as_asked_and_a_missing_one_is_told(tmp_path: Path) -> None:
    _write(TABLE, tmp_path / "x")
    assert parquet.read_table(tmp_path / "x", ["score", "record"]).column_names == ["score", "record"]
    assert parquet.read_table(tmp_path / "x", []).num_rows == 3
    with pytest.raises(DataError, match=r"does not decode .*absent"):
        parquet.read_table(tmp_path / "x", ["score", "absent"])


def test_a_read_leaves_no_thread_of_arrow(tmp_path: Path) -> None:
    _write(TABLE, tmp_path / "x")
    # Such a thread may let go of Python's bytes while the interpreter ends, which aborts the process.
    words = f"""
from pathlib import Path
from engine.io import parquet
def names():  # but for the thread of Arrow's allocator, which holds nothing of Python's
    found = [(one / "comm").read_text() for one in Path("/proc/self/task").iterdir()]
    return [name for name in found if "jemalloc" not in name]
for columns in (None, ["score"]):
    parquet.read_table({str(tmp_path / "x")!r}, columns)
print(len(names()))
"""
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_the_footer_names_schema_and_version(tmp_path: Path) -> None:
    _write(TABLE, tmp_path / "x", metadata={"receipt": "{}"})
    assert parquet.footer_metadata(tmp_path / "x") == {
        "replisome.schema": "toy",
        "replisome.schema_version": "3",
        "receipt": "{}",
    }


@given(st.lists(st.integers(0, 200), max_size=4), st.integers(0, 2**32))
def test_chunks_do_not_show(tmp_path_factory: pytest.TempPathFactory, cuts: list[int], seed: int) -> None:
    chance = random.Random(seed)
    rows = pa.table(
        {
            "text": [chance.choice(["a", "bb", None]) for _ in range(200)],
            "value": pa.array([chance.choice([1.0, math.nan, None]) for _ in range(200)], pa.float64()),
            "fixed": pa.array([[chance.random()] * 2 for _ in range(200)], pa.list_(pa.float32(), 2)),
        }
    )
    edges = [0, *sorted(cuts), 200]
    pieces = pa.concat_tables([rows.slice(a, b - a) for a, b in itertools.pairwise(edges)])
    folder = tmp_path_factory.mktemp("p")
    assert _write(rows, folder / "a") == _write(pieces, folder / "b")
    assert _write(rows.slice(50), folder / "a") == _write(pieces.slice(50), folder / "b")


def test_order_of_metadata_does_not_show(tmp_path: Path) -> None:
    one = _write(TABLE, tmp_path / "a", metadata={"a": "1", "b": "2"})
    assert one == _write(TABLE, tmp_path / "b", metadata={"b": "2", "a": "1"})


@pytest.mark.parametrize(
    ("odd", "plain"),
    [
        (pa.array([ODD_NAN, 1.0, None]), pa.array([math.nan, 1.0, None])),
        (pa.array(ODD_NAN_32), pa.array(np.array([np.nan], np.float32))),
        (pa.array([[ODD_NAN], None, [2.0]]), pa.array([[math.nan], None, [2.0]])),
        (
            pa.array([[ODD_NAN, 2.0], None, [2.0, 3.0]], pa.list_(pa.float64(), 2)),
            pa.array([[math.nan, 2.0], None, [2.0, 3.0]], pa.list_(pa.float64(), 2)),
        ),
        (pa.array([[1.0], [ODD_NAN], [3.0]]).slice(1), pa.array([[math.nan], [3.0]])),
    ],
)
def test_every_nan_has_the_same_bits(tmp_path: Path, odd: pa.Array, plain: pa.Array) -> None:
    one, two = (_write(pa.table({"x": column}), tmp_path / "x") for column in (odd, plain))
    assert one == two
    assert str(parquet.read_table(tmp_path / "x")["x"].to_pylist()) == str(plain.to_pylist())


def test_rows_are_cast_to_the_schema(tmp_path: Path) -> None:
    rows = pa.table({"record": pa.array([1], pa.int32()), "alt_index": [0], "reason": ["r"], "sentence": ["s"]})
    rows = rows.append_column("text", pa.array([None], pa.null()))
    _write(rows, tmp_path / "x", schema=tables.REJECTS)
    back = parquet.read_table(tmp_path / "x")
    assert back.schema.equals(tables.REJECTS)
    assert back.schema.field("record").metadata[b"doc"]


def test_an_empty_table_is_a_table(tmp_path: Path) -> None:
    _write(tables.REJECTS.empty_table(), tmp_path / "x")
    assert parquet.read_table(tmp_path / "x").num_rows == 0
    _write(pa.table({"x": pa.chunked_array([], pa.float32())}), tmp_path / "x")
    assert parquet.read_table(tmp_path / "x").schema.field("x").type == pa.float32()


def test_polars_and_duckdb_read_it(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    _write(TABLE, path)
    assert pl.read_parquet(path)["contig"].to_list() == ["chr1", "chr1", None]
    assert str(pl.read_parquet(path)["track"].to_list()) == str(TABLE["track"].to_pylist())
    rows = duckdb.sql(f"select record, contig, score from '{path}' order by record").fetchall()
    assert str(rows) == str([(0, "chr1", 0.5), (1, "chr1", math.nan), (2, None, None)])


def test_row_groups_are_fixed(tmp_path: Path) -> None:
    _write(pa.table({"x": range(parquet.ROWS_PER_GROUP + 1)}), tmp_path / "x")
    metadata = pq.read_metadata(tmp_path / "x")
    assert [metadata.row_group(i).num_rows for i in range(2)] == [parquet.ROWS_PER_GROUP, 1]


def test_a_file_crc_catches_every_flipped_bit(tmp_path: Path) -> None:
    path = tmp_path / "x"
    data = _write(TABLE, path)
    crc32c = google_crc32c.value(data)
    for bit in range(0, 8 * len(data), 29):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(DataError, match="CRC-32C is"):
            parquet.read_table(path, crc32c=crc32c)


def test_the_seal_catches_every_flipped_bit_or_what_is_read_is_right(tmp_path: Path) -> None:
    path = tmp_path / "x"
    small = pa.table({"a": [1, 2], "b": ["x", None]})
    data = _write(small, path, metadata={"receipt": "{}"})
    footer = parquet.footer_metadata(path)
    seen = 0
    for bit in range(0, 8 * len(data), 3):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        for read in (parquet.read_table, parquet.footer_metadata):
            try:
                found = read(path)
            except DataError:
                seen += 1
                continue
            # A flip in the seal's name leaves a file without seal, and all else as it was.
            assert found.equals(small) if isinstance(found, pa.Table) else footer.items() <= found.items()
    assert seen > 0.95 * 2 * 8 * len(data) / 3


def test_page_crcs_catch_flipped_values_without_a_seal(tmp_path: Path) -> None:
    path = tmp_path / "x"
    values = np.random.default_rng(1).random(20_000)
    pq.write_table(pa.table({"x": values}), path, write_page_checksum=True)
    data = path.read_bytes()
    for at in range(1000, 100_000, 9_000):
        flipped = bytearray(data)
        flipped[at] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(DataError, match="does not decode"):
            parquet.read_table(path)


def test_what_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with pytest.raises(DataError, match="cannot be read"):
        parquet.read_table(path)
    for content in (b"", b"PAR1", b"PAR1\0\0\0\0PAR1", b"PAR1" + b"\xff" * 4 + b"PAR1"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="does not decode"):
            parquet.read_table(path)
        with pytest.raises(DataError, match="does not decode"):
            parquet.footer_metadata(path)
    with pytest.raises(DataError, match="cannot be read"):
        parquet.footer_metadata(tmp_path / "absent")


@pytest.mark.parametrize("kind", [pa.list_(pa.float64()), pa.large_list(pa.float64()), pa.list_(pa.float64(), 2)])
def test_a_slice_of_lists_with_nulls_is_written_as_its_rows(tmp_path, kind):
    rows = [[1.0, 2.0], None, [3.0, math.nan], [4.0, 5.0], None]
    whole = pa.table({"x": pa.array([[9.0, 9.0], None, *rows], kind)})
    alone = pa.table({"x": pa.array(rows, kind)})
    for name, table in (("slice", whole.slice(2)), ("alone", alone)):
        parquet.write_table(table, tmp_path / name, schema_name="x", version=1)
    assert (tmp_path / "slice").read_bytes() == (tmp_path / "alone").read_bytes()
    assert str(parquet.read_table(tmp_path / "slice")["x"].to_pylist()) == str(rows)
