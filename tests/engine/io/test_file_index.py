"""The index parser against files made by htslib, and against damage."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from engine.errors import InputError
from engine.io import bgzf
from engine.io.file_index import clip_chunks, find_index, load_index, region_chunks
from engine.io.regions import Region
from tests.engine.io.files import LINES, many_lines, write_bgzf

NUMBERS = {"chr1": 0, "chr2": 1}


def _indexed(path: Path, flag: str) -> Path:
    subprocess.run(["bcftools", "index", "-f", flag, str(write_bgzf(path, many_lines(20_000, step=90)))], check=True)
    found = find_index(path)
    assert found is not None
    return found


@pytest.mark.parametrize("flag", ["-c", "-t"])
def test_names_and_whole_contigs(tmp_path: Path, flag: str) -> None:
    path = tmp_path / "x.vcf.gz"
    index = load_index(_indexed(path, flag))
    assert index.names == ("chr1", "chr2")
    chunks = region_chunks(index, NUMBERS, [Region("chr1"), Region("chr2")])
    text = b"".join(data for begin, end in chunks for _, data, _ in bgzf.read_blocks(path, begin, end))
    assert text == b"".join(line + b"\n" for line in many_lines(20_000, step=90))


@pytest.mark.parametrize("flag", ["-c", "-t"])
def test_chunks_are_few_for_a_small_region(tmp_path: Path, flag: str) -> None:
    path = tmp_path / "x.vcf.gz"
    index = load_index(_indexed(path, flag))
    chunks = region_chunks(index, NUMBERS, [Region("chr2", 450_000, 450_001)])
    size = sum(len(data) for begin, end in chunks for _, data, _ in bgzf.read_blocks(path, begin, end))
    assert 0 < size < 70_000
    assert region_chunks(index, NUMBERS, [Region("chr3"), Region("chr2", 2_000_000_000, 2_000_000_001)]) == []
    assert index.chunks(99, 0, 1) == []


def test_csi_is_taken_before_tbi_as_htslib_does(tmp_path: Path) -> None:
    path = tmp_path / "x.vcf.gz"
    _indexed(path, "-t")
    assert _indexed(path, "-c").suffix == ".csi"
    assert find_index(tmp_path / "other") is None


def test_damage_names_the_index_and_the_cure(tmp_path: Path) -> None:
    path = write_bgzf(tmp_path / "x.vcf.gz", LINES)
    index = tmp_path / "x.vcf.gz.csi"
    for inner in (b"", b"CSI\1\0\0", b"TBI\1\xff", b"what"):
        index.write_bytes(bgzf.compress(inner) + bgzf.EOF)
        with pytest.raises(InputError, match=rf"x\.vcf\.gz\.csi: .*bcftools index -f {path}$"):
            load_index(index)
    index.write_bytes(b"CSI\1")
    with pytest.raises(InputError, match="end marker"):
        load_index(index)


def test_every_cut_and_flip_is_an_error_or_the_same_index(tmp_path: Path) -> None:
    good = _indexed(tmp_path / "x.vcf.gz", "-c")
    data = good.read_bytes()
    parsed = load_index(good)
    for at in range(0, len(data), 3):
        flipped = bytearray(data)
        flipped[at] ^= 4
        good.write_bytes(flipped)
        try:
            assert load_index(good) == parsed
        except InputError:
            continue


def test_clip() -> None:
    chunks = [(10, 20), (30, 40), (50, 60)]
    assert clip_chunks(chunks, 15, 35) == [(15, 20), (30, 35)]
    assert clip_chunks(chunks, 20, 30) == []
