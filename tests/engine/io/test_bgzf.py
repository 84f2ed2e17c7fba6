"""BGZF against htslib as the second reader and writer, and against damage."""

from __future__ import annotations

import gzip
import random
import zlib
from pathlib import Path

import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError
from engine.io import bgzf


def _whole(path: Path) -> bytes:
    return b"".join(data for _, data, _ in bgzf.read_blocks(path))


@given(st.binary(max_size=1000), st.integers(0, 300))
def test_what_we_compress_gzip_reads(data: bytes, times: int) -> None:
    whole = data * times
    assert gzip.decompress(bgzf.compress(whole) + bgzf.EOF) == whole


def test_incompressible_data_still_fits_its_blocks(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(3 * bgzf.BLOCK_BYTES + 5)
    path = tmp_path / "x.gz"
    path.write_bytes(bgzf.compress(data) + bgzf.EOF)
    with pysam.BGZFile(str(path)) as judge:
        assert judge.read() == data
    assert _whole(path) == data


def test_bodies_join_bytewise(tmp_path: Path) -> None:
    assert gzip.decompress(bgzf.compress(b"ab") + bgzf.compress(b"") + bgzf.compress(b"cd") + bgzf.EOF) == b"abcd"
    assert bgzf.compress(b"") == b""


def test_the_same_bytes_each_time() -> None:
    data = b"chr1\t10\n" * 50_000
    assert bgzf.compress(data) == bgzf.compress(data)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A BGZF file of several blocks by htslib, and its content."""
    path = tmp_path_factory.mktemp("bgzf") / "x.gz"
    content = b"".join(b"%d\n" % i for i in range(60_000))
    with pysam.BGZFile(str(path), "wb") as stream:
        stream.write(content)
    return path, content


def test_a_reader_is_handed_the_bytes_of_the_file(numbers: tuple[Path, bytes]) -> None:
    seen: list[bytes] = []
    blocks = list(bgzf.read_blocks(numbers[0], on_raw=seen.append))
    assert b"".join(seen) == numbers[0].read_bytes()
    assert [raw for _, raw in bgzf.raw_blocks(numbers[0], 0)] == seen
    assert [bgzf.told_size(raw) for raw in seen] == [len(data) for _, data, _ in blocks]


def test_what_the_fast_library_does_not_inflate_zlib_judges(numbers, tmp_path, monkeypatch) -> None:
    def refuse(body: bytes, wbits: int, size: int) -> bytes:
        raise zlib.error("no")

    monkeypatch.setattr(bgzf, "_decompress", refuse)
    monkeypatch.setattr(bgzf, "_InflateError", zlib.error)
    assert _whole(numbers[0]) == numbers[1]
    raw = bytearray(numbers[0].read_bytes())
    raw[18:40] = b"\xff" * 22
    (tmp_path / "x.gz").write_bytes(raw)
    with pytest.raises(InputError, match=r"at byte 0: .*does not inflate \(Error -3"):
        _whole(tmp_path / "x.gz")


@given(st.data())
def test_virtual_offsets_are_those_of_htslib(numbers: tuple[Path, bytes], data: st.DataObject) -> None:
    path, content = numbers
    begin = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.integers(begin, len(content)))
    with pysam.BGZFile(str(path)) as judge:
        judge.read(begin)
        low = judge.tell()
        judge.read(end - begin)
        high = judge.tell()
    blocks = list(bgzf.read_blocks(path, low, high))
    assert b"".join(block for _, block, _ in blocks) == content[begin:end]
    if end > begin:
        assert blocks[0][0] == low
        assert blocks[-1][2] == high


def test_on_raw_sees_every_byte_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(bgzf.compress(b"abc" * 100_000) + bgzf.EOF)
    seen: list[bytes] = []
    list(bgzf.read_blocks(path, on_raw=seen.append))
    assert b"".join(seen) == path.read_bytes()


def test_extra_subfields_before_bc_are_passed_over(tmp_path: Path) -> None:
    block = bgzf.compress(b"hello")
    extra = b"XX\x03\x00abc"
    longer = bytearray(block[:12] + extra + block[12:])
    longer[10:12] = (6 + len(extra)).to_bytes(2, "little")
    at = 12 + len(extra) + 4
    longer[at : at + 2] = (len(longer) - 1).to_bytes(2, "little")
    path = tmp_path / "x.gz"
    path.write_bytes(bytes(longer) + bgzf.EOF)
    assert gzip.decompress(path.read_bytes()) == b"hello"
    assert bgzf.is_bgzf(path.read_bytes())
    assert _whole(path) == b"hello"


def test_gzip_is_told_from_bgzf() -> None:
    assert not bgzf.is_bgzf(gzip.compress(b"x"))
    assert bgzf.is_gzip(gzip.compress(b"x"))
    assert bgzf.is_bgzf(bgzf.compress(b"x"))
    assert not bgzf.is_gzip(b"##fileformat")
    assert not bgzf.is_bgzf(b"")


def test_a_missing_end_marker_is_named_with_file_and_offset(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(bgzf.compress(b"hello"))
    with pytest.raises(InputError, match=rf"x\.gz at byte {path.stat().st_size}: the BGZF end marker is missing"):
        bgzf.check_end_marker(path)


def test_every_cut_is_seen(tmp_path: Path) -> None:
    whole = bgzf.compress(b"hello world, " * 40) + bgzf.EOF
    path = tmp_path / "x.gz"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match="truncated"):
            bgzf.check_end_marker(path)
    path.write_bytes(whole[:30])
    with pytest.raises(InputError, match=r"x\.gz at byte \d+: the file ends \d+ bytes into a BGZF block"):
        _whole(path)


def test_no_flipped_bit_is_read_as_data(tmp_path: Path) -> None:
    good = b"".join(b"chr1\t%d\t.\tA\tC\n" % i for i in range(15))
    whole = bgzf.compress(good) + bgzf.EOF
    path = tmp_path / "x.gz"
    seen = 0
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            bgzf.check_end_marker(path)
            assert _whole(path) == good, f"bit {bit} was read as data"
        except InputError:
            seen += 1
    # Only the time, flag and system bytes of the block's header carry nothing.
    assert seen >= 8 * (len(whole) - 6)


def test_something_else_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    first = bgzf.compress(b"hello")
    path.write_bytes(first + b"rubbish that is no block at all" + bgzf.EOF)
    with pytest.raises(InputError, match=f"at byte {len(first)}: no BGZF block begins here"):
        _whole(path)
