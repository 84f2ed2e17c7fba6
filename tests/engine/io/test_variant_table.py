"""Parquet variant tables: rows become VCF lines."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DataError, InputError
from engine.genome.variants import VariantRecord
from engine.io.parquet import write_table
from engine.io.regions import parse_regions
from engine.io.variants import open_variants
from tests.engine.io.files import read_all

ROWS = {
    "contig": ["chr1", "chr1", "chr1", "chr2"],
    "start": [9, 9, 30, 4],
    "ref": ["A", "ACG", "a", "G"],
    "alt": ["C", "A", None, "T,GA"],
}
RESULT = [
    b"chr1\t10\t.\tA\tC\t.\t.\t.",
    b"chr1\t10\t.\tACG\tA\t.\t.\t.",
    b"chr1\t31\t.\ta\t.\t.\t.\t.",
    b"chr2\t5\t.\tG\tT,GA\t.\t.\t.",
]


def _write(path: Path, columns: dict[str, object], **options: int) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


@pytest.mark.parametrize(
    "columns",
    [
        ROWS,
        {**ROWS, "id": [None, ".", "", None]},
        {**{k: v for k, v in ROWS.items() if k != "start"}, "pos": pa.array([10, 10, 31, 5], pa.uint64())},
        {**{k: v for k, v in ROWS.items() if k != "alt"}, "alts": [["C"], ["A"], None, ["T", "GA"]]},
        {**{k: v for k, v in ROWS.items() if k != "alt"}, "alts": [["C"], ["A"], [], ["T", "GA"]]},
        {**ROWS, "contig": pa.array(ROWS["contig"]).dictionary_encode(), "score": [1.0, 2.0, 3.0, 4.0]},
        {**ROWS, "ref": pa.array(ROWS["ref"], pa.large_string()), "pos": [1, 1, 1, 1]},
    ],
)
def test_rows_become_lines(tmp_path: Path, columns: dict[str, object]) -> None:
    source = open_variants(_write(tmp_path / "x", columns))
    records, sizes = read_all(source)
    assert [record.line for record in records] == RESULT
    assert sizes == [3, 1]
    assert records[3].record == VariantRecord("chr2", 4, ".", "G", ("T", "GA"))
    assert source.header.splitlines()[0] == b"##fileformat=VCFv4.3"


def test_ids_pass(tmp_path: Path) -> None:
    records, _ = read_all(open_variants(_write(tmp_path / "x", {**ROWS, "id": ["rs1", "é", None, "a;b"]})))
    assert [record.record.id for record in records if record.record] == ["rs1", "é", ".", "a;b"]


def test_scan_counts_and_digests(tmp_path: Path) -> None:
    path = _write(tmp_path / "x", ROWS)
    scan = open_variants(path).scan(records_per_shard=3, bytes_per_shard=1 << 20)
    assert scan.contigs == {"chr1": 3, "chr2": 1}
    assert scan.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [(shard.begin, shard.end) for shard in scan.shards] == [(0, 3), (3, 4)]


@given(st.integers(1, 50), st.integers(1, 900), st.integers(1, 40))
def test_any_cut_and_row_groups_give_the_same_records(
    tmp_path_factory: pytest.TempPathFactory, records_per_shard: int, bytes_per_shard: int, group: int
) -> None:
    num = 70
    columns = {"contig": ["c"] * num, "pos": list(range(1, num + 1)), "ref": ["A"] * num, "alt": ["C"] * num}
    path = _write(tmp_path_factory.mktemp("t") / "x", columns, row_group_size=group)
    source = pickle.loads(pickle.dumps(open_variants(path)))
    records, sizes = read_all(source, records_per_shard=records_per_shard, bytes_per_shard=bytes_per_shard)
    assert [record.line for record in records] == [b"c\t%d\t.\tA\tC\t.\t.\t." % pos for pos in columns["pos"]]
    assert max(sizes) <= records_per_shard


def test_batches_follow_one_another(tmp_path: Path) -> None:
    num = 150_000
    columns = {"contig": ["c"] * num, "pos": list(range(1, num + 1)), "ref": ["A"] * num, "alt": ["C"] * num}
    source = open_variants(_write(tmp_path / "x", columns))
    shards = source.scan(records_per_shard=40_000, bytes_per_shard=1 << 30).shards
    assert [(shard.begin, shard.end) for shard in shards[:2]] == [(0, 40_000), (40_000, 80_000)]
    second = source.read(shards[1])
    assert [second[0].line[:7], second[-1].line[:7]] == [b"c\t40001", b"c\t80000"]


def test_regions(tmp_path: Path) -> None:
    path = _write(tmp_path / "x", ROWS)
    records, _ = read_all(open_variants(path, regions=parse_regions(["chr1:12,chr2"])))
    assert [record.line for record in records] == [RESULT[1], RESULT[3]]


def test_on_record(tmp_path: Path) -> None:
    seen = []
    open_variants(_write(tmp_path / "x", ROWS)).scan(
        records_per_shard=1, bytes_per_shard=1, on_record=seen.append, on_record_limit=2
    )
    assert [item.line for item in seen] == RESULT[:2]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"contig": None}, "malformed_record"),
        ({"contig": "chr 1"}, "malformed_record"),
        ({"start": None}, "bad_position"),
        ({"start": -1}, "bad_position"),
        ({"start": 2**31}, "bad_position"),
        ({"ref": None}, "malformed_record"),
        ({"ref": ""}, "malformed_record"),
        ({"alt": "A\tC"}, "malformed_record"),
        ({"alt": "A\n"}, "malformed_record"),
        ({"ref": "A\0"}, "malformed_record"),
    ],
)
def test_bad_rows_stay_in_their_place(tmp_path: Path, change: dict[str, object], code: str) -> None:
    good: list[dict[str, object]] = [dict(zip(ROWS, row, strict=True)) for row in zip(*ROWS.values(), strict=True)]
    rows = [*good[:2], {**good[1], **change}, *good[2:]]
    path = tmp_path / "x"
    pq.write_table(pa.Table.from_pylist(rows), path)
    records, _ = read_all(open_variants(path))
    assert [record.line for record in records if record.record] == RESULT
    assert records[2].problem is not None
    assert records[2].problem[0] == code
    assert records[2].line.count(b"\t") == 7
    assert b"\n" not in records[2].line


def test_columns_are_named_when_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lacks contig, start \(0-based\) or pos \(1-based\); .*\(chrom, ref, alt\)"):
        open_variants(_write(tmp_path / "x", {"chrom": ["1"], "ref": ["A"], "alt": ["C"]}))
    with pytest.raises(InputError, match="column 'start' is string, not whole numbers"):
        open_variants(_write(tmp_path / "x", {**ROWS, "start": ["1", "2", "3", "4"]}))
    with pytest.raises(InputError, match="column 'ref' is int64, not text"):
        open_variants(_write(tmp_path / "x", {**ROWS, "ref": [1, 2, 3, 4]}))


def test_the_scores_of_a_run_are_no_variants(tmp_path: Path) -> None:
    path = tmp_path / "part-000000.parquet"
    write_table(pa.table(ROWS), path, schema_name="variant_scores", version=1)
    with pytest.raises(
        InputError, match=r"the table of scores of a run, .*; give the VCF that was scored, .*run:OUTPUT"
    ):
        open_variants(path)
    write_table(pa.table(ROWS), path, schema_name="variant_sites", version=1)
    assert [record.line for record in read_all(open_variants(path))[0]] == RESULT


def test_unsorted_rows_stop(tmp_path: Path) -> None:
    source = open_variants(_write(tmp_path / "x", {**ROWS, "start": [9, 8, 30, 4]}))
    words = r"record 1 .* at chr1:9 comes after chr1:10.*sort it: order the rows of the table by contig, start$"
    with pytest.raises(InputError, match=words):
        source.scan(records_per_shard=9, bytes_per_shard=1 << 20)


def test_damage(tmp_path: Path) -> None:
    path = tmp_path / "x"
    num = 5_000
    columns = {"contig": ["c"] * num, "pos": list(range(1, num + 1)), "ref": ["A"] * num, "alt": ["C"] * num}
    pq.write_table(pa.table(columns), path, write_page_checksum=True, use_dictionary=False, compression="none")
    source = open_variants(path)
    shards = source.scan(records_per_shard=num, bytes_per_shard=1 << 20).shards
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="does not decode"):
        source.read(shards[0])
    with pytest.raises(InputError, match="does not decode"):
        source.scan(records_per_shard=num, bytes_per_shard=1 << 20)
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="does not decode"):
        open_variants(path)
