"""Regions as bcftools takes them."""

from __future__ import annotations

import gzip
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.io.regions import MAX_POS, Region, RegionSet, parse_regions
from engine.io.variants import open_variants
from tests.engine.io.files import HEADER, LINES, many_lines, read_all, write_bcf, write_bgzf, write_plain

ODD = [
    *LINES,
    b"chr2\t60000\t.\tAAAA\tA\t.\t.\tEND=59000",  # htslib passes over an END before POS
    b"chr2\t60100\t.\tA\t<DUP>\t.\t.\tT=END=9;END=60200",
    b"chr2\t60100\t.\tA\tC\t.\t.\tT=END=61000",
]
QUERIES = [
    "chr1",
    "chr1:10",
    "chr1:10-10",
    "chr1:29",
    "chr1:30-31",
    "chr1:50-",
    "chr1:59-61",
    "chr1:1-5",
    "chr2:1-100,chr1:900",
    "chr1:15-22,chr1:20-26,chr1:25",
    "chr2:60003",
    "chr2:60004",
    "chr2:60150-60300",
    "chr2:60990-",
]


def _bcftools(query: str, path: Path) -> list[list[bytes]]:
    """The first five columns; bcftools prints the numbers of the others anew."""
    words = ["bcftools", "view", "-H", "-r", query, str(path)]
    return _sites(subprocess.run(words, check=True, capture_output=True).stdout.splitlines())


def _sites(lines: Iterable[bytes]) -> list[list[bytes]]:
    return [line.split(b"\t")[:5] for line in lines]


def _ours(path: Path, query: str) -> list[bytes]:
    records, _ = read_all(open_variants(path, regions=parse_regions([query])), records_per_shard=2)
    return [record.line for record in records]


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("kind", ["bgzf", "bcf"])
def test_the_same_records_as_bcftools_with_and_without_index(tmp_path: Path, query: str, kind: str) -> None:
    writer = write_bgzf if kind == "bgzf" else write_bcf
    path = writer(tmp_path / "x", ODD)
    streamed = _ours(path, query)
    answers = []
    for index in ("-c", "-t") if kind == "bgzf" else ("-c",):
        subprocess.run(["bcftools", "index", "-f", index, str(path)], check=True)
        # bcftools gives records in the order of the regions, and one twice where two regions hold it; we do not.
        judge = _bcftools(query, path)
        answers.append(_ours(path, query))
        whole = open_variants(path).scan(records_per_shard=99, bytes_per_shard=1 << 20)
        assert whole.num_records == len(ODD)
        assert sorted(map(tuple, _sites(answers[-1]))) == _unique(judge, ODD)
        for suffix in (".csi", ".tbi"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
    assert all(answer == streamed for answer in answers)


def _unique(sites: list[list[bytes]], lines: list[bytes]) -> list[tuple[bytes, ...]]:
    """Sites that bcftools gave, each as often as the input has it."""
    return sorted(tuple(site) for site in _sites(lines) if site in sites)


@pytest.mark.parametrize("query", QUERIES)
def test_plain_text_is_filtered_alike(tmp_path: Path, query: str) -> None:
    assert _ours(write_plain(tmp_path / "x", ODD), query) == _ours(write_bgzf(tmp_path / "y", ODD), query)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """40,000 records over many blocks: without index, with CSI, with TBI."""
    folder = tmp_path_factory.mktemp("wide")
    lines = many_lines(40_000, step=40)
    lines[9_000] = lines[9_000].replace(b"\tA\tC\t", b"\t" + b"A" * 5_000 + b"\tA\t")
    paths = {name: write_bgzf(folder / f"{name}.gz", lines) for name in ("none", "csi", "tbi")}
    for name, flag in (("csi", "-c"), ("tbi", "-t")):
        subprocess.run(["bcftools", "index", flag, str(paths[name])], check=True)
    return paths


@settings(max_examples=15)
@given(
    st.lists(
        st.tuples(st.sampled_from(["chr1", "chr2"]), st.integers(1, 820_000), st.integers(0, 30_000)),
        min_size=1,
        max_size=3,
    )
)
def test_an_index_changes_nothing_but_the_reading(wide: dict[str, Path], spans: list[tuple[str, int, int]]) -> None:
    query = ",".join(f"{contig}:{begin}-{begin + size}" for contig, begin, size in spans)
    answers = {name: _ours_many(path, query) for name, path in wide.items()}
    assert answers["csi"] == answers["none"]
    assert answers["tbi"] == answers["none"]


def _ours_many(path: Path, query: str) -> list[bytes]:
    records, _ = read_all(open_variants(path, regions=parse_regions([query])), records_per_shard=300)
    return [record.line for record in records]


def test_the_wide_files_answer_as_bcftools_does(wide: dict[str, Path]) -> None:
    for query in ("chr1:360500-362000", "chr1:365001", "chr1:365002", "chr2:1-40", "chr2:799960-"):
        assert _sites(_ours_many(wide["tbi"], query)) == _bcftools(query, wide["tbi"])
        assert _sites(_ours_many(wide["csi"], query)) == _bcftools(query, wide["csi"])


def test_with_an_index_only_its_chunks_are_read(wide: dict[str, Path]) -> None:
    regions = parse_regions(["chr2:1-400"])
    scans = {
        name: open_variants(path, regions=regions).scan(records_per_shard=9, bytes_per_shard=1 << 20)
        for name, path in wide.items()
    }
    assert scans["csi"].num_records == scans["none"].num_records == 10
    assert scans["csi"].digest == scans["tbi"].digest
    assert scans["csi"].digest != scans["none"].digest
    again = open_variants(wide["csi"], regions=parse_regions(["chr1:1-400"]))
    assert again.scan(records_per_shard=9, bytes_per_shard=1 << 20).digest != scans["csi"].digest


def test_on_record_sees_selected_records_only(wide: dict[str, Path]) -> None:
    for path in wide.values():
        seen: list[tuple[int, bytes]] = []
        open_variants(path, regions=parse_regions(["chr1:4000-,chr2:1"])).scan(
            records_per_shard=9,
            bytes_per_shard=1 << 20,
            on_record=lambda item, seen=seen: seen.append((item.ordinal, item.line.split(b"\t")[1])),
            on_record_limit=2,
        )
        assert seen == [(0, b"4001"), (1, b"4041")]


def test_an_index_older_than_its_file_is_refused_where_regions_are_asked(tmp_path: Path) -> None:
    path = write_bgzf(tmp_path / "x.vcf.gz", LINES)
    subprocess.run(["bcftools", "index", str(path)], check=True)
    os.utime(f"{path}.csi", (1, 1))
    with pytest.raises(InputError, match=r"index is older than its file; .*bcftools index -f"):
        open_variants(path, regions=[Region("chr1")])
    assert read_all(open_variants(path))[0]


def test_lines_that_do_not_parse_lie_in_no_region(tmp_path: Path) -> None:
    path = write_plain(tmp_path / "x.vcf", [LINES[0], b"chr1\tabc\t.\tA\tC\t.\t.\t.", LINES[3]])
    scan = open_variants(path, regions=[Region("chr1")]).scan(records_per_shard=9, bytes_per_shard=1 << 20)
    assert scan.num_records == 2
    assert scan.notes == ["1 lines that do not parse lie in no region and were left out"]


@pytest.mark.parametrize("write", [write_plain, write_bgzf, write_bcf])
def test_region_contigs_the_input_lacks(tmp_path: Path, write) -> None:
    path = write(tmp_path / "x", LINES)
    with pytest.raises(InputError, match=r"none of the regions' contigs \('1'\); it has 'chr1', 'chr2'"):
        open_variants(path, regions=parse_regions(["1:1-100"]))
    source = open_variants(path, regions=parse_regions(["chr1:10,chrX"]))
    scan = source.scan(records_per_shard=9, bytes_per_shard=1 << 20)
    assert scan.num_records == 2
    assert scan.notes == ["regions on contigs the input does not have: 'chrX'"]


def test_one_order_for_all(tmp_path: Path) -> None:
    """Input order, each record once, whatever the order of the regions."""
    path = write_plain(tmp_path / "x", LINES, HEADER)
    assert _ours(path, "chr2,chr1:10,chr1:1-15") == [LINES[0], LINES[1], *LINES[7:]]


# ---------------------------------------------------------------- texts and files


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("chr1", Region("chr1", 0, MAX_POS)),
        ("chr1:5", Region("chr1", 4, 5)),
        ("chr1:5-", Region("chr1", 4, MAX_POS)),
        ("chr1:5-9", Region("chr1", 4, 9)),
        ("HLA-A*01:01:01:01", Region("HLA-A*01:01:01", 0, 1)),
        ("{HLA-A*01:01:01:01}", Region("HLA-A*01:01:01:01")),
        ("{HLA-A*01:01}:5-9", Region("HLA-A*01:01", 4, 9)),
    ],
)
def test_texts(text: str, region: Region) -> None:
    assert parse_regions([text]) == [region]


@pytest.mark.parametrize("text", ["chr1:0", "chr1:9-5", "chr1:0-4"])
def test_regions_without_a_base_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="hold no base"):
        parse_regions([text])


def test_files(tmp_path: Path) -> None:
    bed = tmp_path / "x.bed"
    bed.write_text("# words\ntrack name=x\nchr1\t0\t10\tname\nchr2\t5\t6\n")
    assert parse_regions([], bed) == [Region("chr1", 0, 10), Region("chr2", 5, 6)]
    zipped = tmp_path / "x.bed.gz"
    zipped.write_bytes(gzip.compress(bed.read_bytes()))
    assert parse_regions(["chr9:1"], zipped) == [Region("chr9", 0, 1), *parse_regions([], bed)]
    table = tmp_path / "x.tsv"
    table.write_text("chr1\t1\t10\r\nchr2\t6\r\n")
    assert parse_regions([], table) == parse_regions([], bed)
    assert parse_regions([], write_plain(tmp_path / "x.vcf", LINES[:1])) == [Region("chr1", 9, 10)]


@pytest.mark.parametrize("content", [b"chr1\tx\t9\n", b"chr1\n", b"\x1f\x8bgarbage", b"chr1\t\xff\n"])
def test_bad_files_name_themselves(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.bed"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.bed"):
        parse_regions([], path)
    with pytest.raises(InputError, match="absent"):
        parse_regions([], tmp_path / "absent.bed")


_spans = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), max_size=6)


@given(_spans, st.integers(0, 60), st.integers(1, 9))
def test_overlap_is_what_trying_each_region_gives(spans: list[tuple[int, int]], start: int, size: int) -> None:
    regions = [Region("a", begin, begin + length) for begin, length in spans]
    truth = any(start < region.end and region.start < start + size for region in regions)
    assert RegionSet(regions).overlap("a", start, start + size) == truth
    assert not RegionSet(regions).overlap("b", start, start + size)


@pytest.mark.parametrize("text", ["chr1:1,000-10,100", "chr1:10,080", "chr1:5-1,000,000", "chr2,chr1:1,000"])
def test_thousands_separators_are_refused(text):
    """A comma separates regions: read on, these would silently select something else."""
    with pytest.raises(InputError, match="positions hold thousands separators; write plain numbers"):
        parse_regions([text])


@pytest.mark.parametrize("text", ["chr1:100,200", "1:5-100,22:7", "chr1:5,chr1:900", "chr1:5-10,100kb"])
def test_a_region_beside_a_contig_that_begins_with_a_digit(text):
    if text == "chr1:100,200":  # a contig named 200, or a hundred thousand two hundred: refused, since nobody can tell
        with pytest.raises(InputError):
            parse_regions([text])
        return
    assert len(parse_regions([text])) == 2
