"""The joined VCF, its index and BCF, judged by bcftools."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from engine.errors import DataError
from engine.io import bgzf
from engine.io.vcf_sink import finish_vcf, index_vcf, to_bcf
from tests.engine.io.files import HEADER, LINES, many_lines, text

NO_CONTIGS = b"##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"


def _bcftools(*words: str) -> list[bytes]:
    done = subprocess.run(["bcftools", *words], check=True, capture_output=True)
    return done.stdout.splitlines()


def _bodies(lines: list[bytes], size: int) -> list[bytes]:
    return [
        bgzf.compress(b"".join(line + b"\n" for line in lines[at : at + size])) for at in range(0, len(lines), size)
    ]


def _finish(path: Path, lines: list[bytes], header: bytes = HEADER, size: int = 4) -> Path:
    finish_vcf(header, iter(_bodies(lines, size)), path)
    return path


def test_header_and_bodies_are_joined(tmp_path: Path) -> None:
    path = _finish(tmp_path / "x.vcf.gz", LINES)
    out = subprocess.run(["bgzip", "-dc", str(path)], check=True, capture_output=True).stdout
    assert out == text(LINES)
    assert path.read_bytes() == bgzf.compress(HEADER) + b"".join(_bodies(LINES, 4)) + bgzf.EOF


def test_tbi_finds_every_record(tmp_path: Path) -> None:
    path = _finish(tmp_path / "x.vcf.gz", many_lines(9_000), size=700)
    assert index_vcf(path) == f"{path}.tbi"
    assert _bcftools("index", "-s", str(path)) == [b"chr1\t100000\t4500", b"chr2\t90000\t4500"]
    assert len(_bcftools("view", "-H", "-r", "chr1:1-70", str(path))) == 10


def test_no_records_are_indexed_too(tmp_path: Path) -> None:
    for header in (HEADER, NO_CONTIGS):
        path = _finish(tmp_path / "x.vcf.gz", [], header)
        index_vcf(path)
        assert _bcftools("view", "-H", str(path)) == []


@pytest.mark.parametrize(
    ("header", "line"),
    [
        (HEADER.replace(b"100000", b"600000000"), b"chr1\t5\t.\tA\tC\t.\t.\t."),
        (NO_CONTIGS, b"chr1\t600000000\t.\tA\tC\t.\t.\t."),
    ],
)
def test_long_contigs_get_a_csi(tmp_path: Path, header: bytes, line: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    path = _finish(tmp_path / "x.vcf.gz", [line], header)
    (tmp_path / "x.vcf.gz.tbi").write_bytes(b"old")
    assert index_vcf(path) == f"{path}.csi"
    assert not (tmp_path / "x.vcf.gz.tbi").exists()
    assert capfd.readouterr() == ("", "")
    pos = line.split(b"\t")[1].decode()
    assert _bcftools("view", "-H", "-r", f"chr1:{pos}", str(path)) == [line]


def test_the_index_is_the_same_each_time(tmp_path: Path) -> None:
    one, two = (_finish(tmp_path / name, LINES) for name in ("a.vcf.gz", "b.vcf.gz"))
    assert Path(index_vcf(one)).read_bytes() == Path(index_vcf(two)).read_bytes()


def test_what_cannot_be_indexed_is_named(tmp_path: Path) -> None:
    path = _finish(tmp_path / "x.vcf.gz", [LINES[3], LINES[0]])
    with pytest.raises(DataError, match=r"htslib cannot index the file; look at it: bcftools view .*x\.vcf\.gz"):
        index_vcf(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.vcf.gz"]


def test_bcf_is_what_bcftools_makes(tmp_path: Path) -> None:
    path = _finish(tmp_path / "x.vcf.gz", LINES)
    out = tmp_path / "x.bcf"
    assert to_bcf(path, out) == f"{out}.csi"
    assert _bcftools("view", "-H", str(out)) == _bcftools("view", "-H", str(path))
    assert len(_bcftools("view", "-H", "-r", "chr1:29", str(out))) == 1


def test_bcf_of_a_header_that_declares_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = [b"chr9\t5\t.\tA\tC\t.\tLOW\tDB;Z=1", b"chrX\t5\t.\tA\tC\t.\tPASS\t."]
    out = tmp_path / "x.bcf"
    to_bcf(_finish(tmp_path / "x.vcf.gz", lines, NO_CONTIGS), out)
    assert capfd.readouterr() == ("", "")
    assert _bcftools("view", "-H", "-r", "chrX", str(out)) == [lines[1]]
    assert _bcftools("query", "-f", "%CHROM %FILTER %INFO/Z\n", str(out)) == [b"chr9 LOW 1", b"chrX PASS ."]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.bcf", "x.bcf.csi", "x.vcf.gz"]


def test_bcf_of_symbolic_alleles_that_nothing_declares(tmp_path: Path) -> None:
    """Lines come back as they are: no END is made up or mended."""
    lines = [
        b"chr1\t100\t.\tA\t<DEL>\t.\t.\tSVTYPE=DEL;END=200",
        b"chr1\t101\t.\tA\t<DEL>\t.\t.\t.",
        b"chr1\t102\t.\tA\t<DEL>,<*>,*\t.\t.\tEND=20",
        b"chr1\t103\t.\tA\tA]chr2:3]\t.\t.\t.",
    ]
    out = tmp_path / "x.bcf"
    to_bcf(_finish(tmp_path / "x.vcf.gz", lines, NO_CONTIGS), out)
    assert _bcftools("view", "-H", str(out)) == lines


def test_what_bcf_cannot_hold_is_named(tmp_path: Path) -> None:
    header = HEADER.rstrip(b"\n") + b"\tFORMAT\tS1\tS2\n"
    path = _finish(tmp_path / "x.vcf.gz", [LINES[0] + b"\tGT\t0/1"], header)
    with pytest.raises(DataError, match="cannot write it as BCF"):
        to_bcf(path, tmp_path / "x.bcf")
