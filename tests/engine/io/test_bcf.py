"""BCF: lines are those bcftools prints, the plan is cut by our own walk over the frames."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import DataError, InputError
from engine.io import bgzf
from engine.io.bcf import BcfSource, frame_marks
from engine.io.regions import parse_regions
from engine.io.variants import open_variants
from tests.engine.io.files import HEADER, LINES, many_lines, read_all, write_bcf


def _view(path: Path) -> list[bytes]:
    return subprocess.run(["bcftools", "view", "-H", str(path)], check=True, capture_output=True).stdout.splitlines()


def test_lines_are_those_of_bcftools(tmp_path: Path) -> None:
    path = write_bcf(tmp_path / "x", LINES)
    records, sizes = read_all(open_variants(path))
    assert [record.line for record in records] == _view(path)
    assert sizes == [3, 3, 3]
    assert records[3].record is not None
    assert records[3].record.alts == ("C", "AT", "*")


def test_scan_counts_and_digests(tmp_path: Path) -> None:
    path = write_bcf(tmp_path / "x", many_lines(5_000))
    scan = open_variants(path).scan(records_per_shard=700, bytes_per_shard=1 << 20)
    assert scan.contigs == {"chr1": 2_500, "chr2": 2_500}
    assert scan.digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_header_is_vcf_text(tmp_path: Path) -> None:
    source = open_variants(write_bcf(tmp_path / "x", LINES))
    assert set(HEADER.splitlines()) <= set(source.header.splitlines())
    assert source.header.endswith(b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n")
    assert b"IDX=" not in source.header


@settings(max_examples=20)
@given(st.integers(1, 3_000), st.integers(1, 200_000))
def test_any_cut_gives_the_same_records(
    big: tuple[Path, list[bytes]], records_per_shard: int, bytes_per_shard: int
) -> None:
    path, lines = big
    source = open_variants(path)
    scan = source.scan(records_per_shard=records_per_shard, bytes_per_shard=bytes_per_shard)
    assert sum(shard.num_records for shard in scan.shards) == len(lines)
    for shard in {scan.shards[0], scan.shards[len(scan.shards) // 2], scan.shards[-1]}:
        wanted = lines[shard.first_record : shard.first_record + shard.num_records]
        assert [record.line for record in source.read(shard)] == wanted


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    path = write_bcf(tmp_path_factory.mktemp("bcf") / "x", many_lines(40_000))
    return path, _view(path)


def test_frames_cross_blocks_and_batches(big: tuple[Path, list[bytes]]) -> None:
    path, lines = big
    records, _ = read_all(open_variants(path), records_per_shard=9_001)
    assert [record.line for record in records] == lines


def test_a_giant_record_passes(tmp_path: Path) -> None:
    lines = [LINES[0], b"chr1\t20\t.\tA\tC\t.\t.\tT=" + b"x" * 3_000_000, LINES[3]]
    path = write_bcf(tmp_path / "x", lines)
    records, _ = read_all(open_variants(path))
    assert [record.line for record in records] == _view(path)
    assert len(records[1].line) > 3_000_000


def test_text_that_is_not_utf8_passes_as_bytes(tmp_path: Path) -> None:
    header = HEADER.replace(b"Frequency", b"Fr\xe9quence")
    path = write_bcf(tmp_path / "x", [b"chr1\t10\tr\xff\tA\tC\t.\t.\tT=\xe9", LINES[2]], header)
    source = open_variants(path)
    records, _ = read_all(source)
    assert [record.line for record in records] == _view(path)
    assert b"\xe9" in records[0].line
    assert b"Fr\xe9quence" in source.header


def test_position_zero_is_a_bad_position_in_its_place(tmp_path: Path) -> None:
    lines = [b"chr1\t0\t.\tA\tC\t.\t.\t.", LINES[0]]
    records, _ = read_all(open_variants(write_bcf(tmp_path / "x", lines)))
    assert [record.problem[0] if record.problem else None for record in records] == ["bad_position", None]


def test_no_records_make_an_empty_plan(tmp_path: Path) -> None:
    path = write_bcf(tmp_path / "x", [])
    scan = open_variants(path).scan(records_per_shard=1, bytes_per_shard=1)
    assert scan.shards == []
    assert scan.digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_it_travels_to_other_processes(tmp_path: Path) -> None:
    source = open_variants(write_bcf(tmp_path / "x", LINES))
    scan = source.scan(records_per_shard=2, bytes_per_shard=1 << 20)
    assert pickle.loads(pickle.dumps(source)).read(scan.shards[1]) == source.read(scan.shards[1])


def test_an_unsorted_file_stops(tmp_path: Path) -> None:
    source = open_variants(write_bcf(tmp_path / "x", [LINES[2], LINES[0]]))
    with pytest.raises(
        InputError, match=r"record 1 .* at chr1:10 comes after chr1:20.*bcftools sort -Ob -o sorted\.bcf"
    ):
        source.scan(records_per_shard=2, bytes_per_shard=1 << 20)


def test_truncation_and_flipped_bits_are_seen(tmp_path: Path) -> None:
    path = write_bcf(tmp_path / "x", many_lines(20_000))
    source = open_variants(path)
    shards = source.scan(records_per_shard=50_000, bytes_per_shard=1 << 30).shards
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(InputError, match="corrupt"):
        source.scan(records_per_shard=9, bytes_per_shard=1 << 20)
    with pytest.raises(DataError):
        source.read(shards[0])
    path.write_bytes(whole[:-500])
    with pytest.raises(InputError, match="end marker is missing"):
        open_variants(path)


def test_frames_that_cannot_be_are_refused(tmp_path: Path) -> None:
    path = write_bcf(tmp_path / "x", LINES)
    inner = b"".join(data for _, data, _ in bgzf.read_blocks(path))
    size = 9 + int.from_bytes(inner[5:9], "little")
    for tail, words in (
        (b"\1\0\0\0" * 8, "impossible length"),
        (inner[size : size + 20], "cut short"),
        (inner[size:-3], "cut short"),
        (inner[size : size + 8] + b"\x63\0\0\0" + inner[size + 12 :], "contig number 99"),
    ):
        path.write_bytes(bgzf.compress(inner[:size] + tail) + bgzf.EOF)
        with pytest.raises(InputError, match=words):
            BcfSource(path).scan(records_per_shard=9, bytes_per_shard=1 << 20)
    path.write_bytes(bgzf.compress(inner[:40]) + bgzf.EOF)
    with pytest.raises(InputError, match="ends inside its header"):
        open_variants(path)


@pytest.mark.parametrize("length", [0, 1])
def test_a_record_of_length_0_is_selected_by_plan_and_reader_alike(tmp_path: Path, length: int) -> None:
    path = write_bcf(tmp_path / "x", [LINES[0], LINES[2]])
    inner = bytearray(b"".join(data for _, data, _ in bgzf.read_blocks(path)))
    rlen = 9 + int.from_bytes(inner[5:9], "little") + 16
    assert inner[rlen : rlen + 4] == b"\1\0\0\0"
    inner[rlen : rlen + 4] = length.to_bytes(4, "little")
    path.write_bytes(bgzf.compress(bytes(inner)) + bgzf.EOF)
    records, _ = read_all(BcfSource(path, regions=parse_regions(["chr1:10-10"])))
    assert [record.line.split(b"\t")[1] for record in records] == [b"10"]


def test_marks() -> None:
    one = (24).to_bytes(4, "little") + (2).to_bytes(4, "little") + bytes(26)
    assert frame_marks(one + one + one[:-1]) == [0, 34, 68]
    assert frame_marks(b"") == [0]
