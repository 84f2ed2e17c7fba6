"""The file for VEP's --custom, judged by tabix."""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pysam
from hypothesis import given
from hypothesis import strategies as st

from engine.io import bgzf
from engine.io.vcf_sink import finish_vcf
from engine.io.vep import VepRow, in_order, vep_custom_tab
from tests.engine.io.files import HEADER

SCORED = [
    b"chr1\t10\t.\tAT\tA\t.\t.\tAF=0.1;RPL_STATE=scored;RPL_DS=0.5",
    b"chr1\t10\t.\tA\tAG\t.\t.\tRPL_DS=0.25",
    b"chr1\t10\t.\tA\tG,C\t.\t.\tSpliceAI=theirs;RPL_DS=0.1,.;RPL_SPLICE=G|TOYA|0.1;RPL_OLD=3",
    b"chr1\t11\t.\tT\tC\t.\t.\tRPL_STATE=not_applicable;RPL_REASON=outside_genes",
    b"chr1\t11\t.\tT\tC\t.\t.\tAF=0.5;SpliceAI=C|TOYA|0.9",
    b"chr2\t1\t.\tG\tGA,GAA\t.\t.\tRPL_DS=0.1,0.2",
]
RESULT = [
    "chr1\t9\t10\tA>G/C&RPL_DS:0.1/.&RPL_SPLICE:G_TOYA_0.1",
    "chr1\t10\t11\tAT>A&RPL_DS:0.5",
    "chr1\t10\t10\tA>AG&RPL_DS:0.25",
    "chr2\t1\t1\tG>GA/GAA&RPL_DS:0.1/0.2",
]


TAGS = ("RPL_STATE", "RPL_REASON", "RPL_DS", "RPL_SPLICE")


def _make(folder: Path, lines: list[bytes], tags: Sequence[str] = TAGS) -> tuple[Path, str]:
    vcf, out = folder / "x.vcf.gz", folder / "scores.vep.tsv.gz"
    finish_vcf(HEADER, [bgzf.compress(b"".join(line + b"\n" for line in lines))], vcf)
    return out, vep_custom_tab(vcf, out, tags=tags)


def test_scored_records_at_the_places_vep_gives_them(tmp_path: Path) -> None:
    out, index = _make(tmp_path, SCORED)
    assert gzip.decompress(out.read_bytes()).decode().splitlines() == RESULT
    assert index == f"{out}.tbi"


def test_tabix_finds_them(tmp_path: Path) -> None:
    out, _ = _make(tmp_path, SCORED)
    with pysam.TabixFile(str(out)) as judge:
        assert list(judge.fetch("chr1", 0, 1000)) == RESULT[:3]
        assert list(judge.fetch("chr1", 9, 10)) == RESULT[:1]
    found = subprocess.run(["tabix", str(out), "chr1:11-11"], check=True, capture_output=True).stdout
    assert found.decode().splitlines() == RESULT[1:2]


def test_the_tag_spliceai_is_exported_where_this_run_wrote_it(tmp_path: Path) -> None:
    """In the input of another tool's making it stays out, as the other tests show."""
    out, _ = _make(tmp_path, SCORED, (*TAGS, "SpliceAI"))
    lines = gzip.decompress(out.read_bytes()).decode().splitlines()
    assert lines[0].endswith("&SpliceAI:theirs&RPL_DS:0.1/.&RPL_SPLICE:G_TOYA_0.1")
    assert "chr1\t10\t11\tT>C&SpliceAI:C_TOYA_0.9" in lines


def test_rows_of_one_place_are_looked_at_once() -> None:
    """Indels at one place all wait for the next; looking through them again for each would take their square."""
    looks = 0

    class Row(VepRow):
        def __getattribute__(self, name: str) -> object:
            nonlocal looks
            looks += name == "start"
            return super().__getattribute__(name)

    num = 2_000
    rows = [Row("a", 7, "AC", ("A",), str(i)) for i in range(num)]
    lines = list(in_order(rows))
    assert [line.rpartition("&")[2] for line in lines] == [f"{i}\n" for i in range(num)]
    assert looks < 5 * num


def test_nothing_scored_makes_an_empty_file(tmp_path: Path) -> None:
    out, index = _make(tmp_path, SCORED[3:5])
    assert gzip.decompress(out.read_bytes()) == b""
    assert Path(index).exists()


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 5), st.sampled_from(["A", "AG", "C"])).map(
            lambda row: VepRow(row[0], row[1], "AC", (row[2],), "x")
        ),
        max_size=12,
    )
)
def test_starts_never_go_down(rows: list[VepRow]) -> None:
    rows = sorted(rows, key=lambda row: (row.contig, row.start))
    places = [(contig, int(start)) for contig, start, *_ in (line.split("\t") for line in in_order(rows))]
    assert places == sorted(places)
    assert len(places) == len(rows)
