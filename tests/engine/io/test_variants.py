"""Files are opened by what they hold; stdin is put aside in a shape that can be entered in the middle."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError, SystemFailure
from engine.io import bgzf
from engine.io.bcf import BcfSource
from engine.io.variant_table import VariantTable
from engine.io.variants import open_variants, spool
from engine.io.vcf import VcfSource
from tests.engine.io.files import LINES, read_all, text, write_bcf, write_bgzf, write_plain


class Trickle(io.RawIOBase):
    """A pipe that gives few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        some, self._data = self._data[:7], self._data[7:]
        return some


def test_names_do_not_matter(tmp_path: Path) -> None:
    assert isinstance(open_variants(write_bcf(tmp_path / "x.vcf", LINES)), BcfSource)
    assert isinstance(open_variants(write_bgzf(tmp_path / "x.bcf", LINES)), VcfSource)
    assert isinstance(open_variants(write_plain(tmp_path / "x.gz", LINES)), VcfSource)
    table = {"contig": ["1"], "pos": [1], "ref": ["A"], "alt": ["C"]}
    pq.write_table(pa.table(table), tmp_path / "x.csv")
    assert isinstance(open_variants(tmp_path / "x.csv"), VariantTable)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (bgzf.EOF, "the file is empty"),
        (gzip.compress(text(LINES)), r"gzip but not BGZF.*gunzip -c .*x \| bgzip > "),
        (b"BCF\2\2 and so on", "the BCF is not compressed.*bcftools view -Ob"),
        (b">chr1\nACGT\n", "none of VCF, BCF or Parquet"),
        (bgzf.compress(b">chr1\nACGT\n") + bgzf.EOF, "none of VCF, BCF or Parquet"),
        (b"\0" * 1000, "none of VCF, BCF or Parquet"),
        (b"\xef\xbb\xbf##fileformat=VCFv4.2\n", "none of VCF, BCF or Parquet"),
    ],
)
def test_what_is_no_variant_file(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        open_variants(path)
    assert str(path) in str(caught.value)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        open_variants(tmp_path / "absent")
    with pytest.raises(InputError, match="cannot be read"):
        open_variants(tmp_path)


# ---------------------------------------------------------------- spool


def _two_members(data: bytes) -> bytes:
    return gzip.compress(data[:100]) + gzip.compress(data[100:]) + b"\0" * 10


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, _two_members, lambda data: bgzf.compress(data) + bgzf.EOF], ids=str
)
@pytest.mark.parametrize("stream", [io.BytesIO, Trickle])
def test_spooled_text_reads_as_the_file_would(tmp_path: Path, pack, stream) -> None:
    path = tmp_path / "x"
    spool(stream(pack(text(LINES))), path)
    records, _ = read_all(open_variants(path))
    assert [record.line for record in records] == LINES
    assert bgzf.is_bgzf(path.read_bytes())


def test_blocks_and_tables_are_copied_as_they_are(tmp_path: Path) -> None:
    pq.write_table(pa.table({"contig": ["1"], "pos": [1], "ref": ["A"], "alt": ["C"]}), tmp_path / "t")
    for source in (write_bcf(tmp_path / "b", LINES), write_bgzf(tmp_path / "v", LINES), tmp_path / "t"):
        spool(io.BytesIO(source.read_bytes()), tmp_path / "x")
        assert (tmp_path / "x").read_bytes() == source.read_bytes()


def test_uncompressed_bcf_is_compressed(tmp_path: Path) -> None:
    path = write_bcf(tmp_path / "b", LINES)
    inner = b"".join(data for _, data, _ in bgzf.read_blocks(path))
    spool(io.BytesIO(inner), tmp_path / "x")
    assert read_all(open_variants(tmp_path / "x")) == read_all(open_variants(path))


@given(st.binary(max_size=400_000))
def test_any_size_survives(tmp_path_factory: pytest.TempPathFactory, tail: bytes) -> None:
    path = tmp_path_factory.mktemp("s") / "x"
    spool(io.BytesIO(b"##" + tail), path)
    assert gzip.decompress(path.read_bytes()) == b"##" + tail


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "standard input is empty"),
        (b"hello\n", "none of VCF"),
        (gzip.compress(b"hello\n"), "none of VCF"),
        (gzip.compress(text(LINES))[:-20], "cut short"),
        (gzip.compress(text(LINES))[:40] + b"\xff" * 400, "corrupt"),
        (gzip.compress(b""), "none of VCF"),
    ],
)
def test_streams_that_are_none(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        spool(io.BytesIO(content), tmp_path / "x")


def test_a_cut_stream_of_blocks_is_seen_on_opening(tmp_path: Path) -> None:
    data = write_bgzf(tmp_path / "v", LINES).read_bytes()
    spool(io.BytesIO(data[:-30]), tmp_path / "x")
    with pytest.raises(InputError, match="truncated"):
        open_variants(tmp_path / "x")


def test_a_full_disk_is_a_system_failure() -> None:
    if not os.access("/dev/full", os.W_OK):
        pytest.skip("no /dev/full here")
    with pytest.raises(SystemFailure, match="cannot be put aside"):
        spool(io.BytesIO(text(LINES * 10_000)), "/dev/full")
