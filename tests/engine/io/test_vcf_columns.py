"""VCF text as columns: pysam and bcftools read the same values; what is broken is refused record by record."""

from __future__ import annotations

import hashlib
import itertools
import math
import subprocess
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DataError, InputError
from engine.io import bgzf, streams, vcf_columns
from engine.io.source import Scan
from engine.io.vcf_columns import Columns, ColumnSource, Sites, open_columns, parse_batch
from schemas import states
from tests.toys import vcf_text

NUM_SAMPLES = 3
LINE = "chr1\t100\trs1\tA\tC,G\t30\tPASS\tDP=3;AF=0.5,.\tGT:DP\t0/1:3\t1|2:4\t.:."


def open_text(folder: str | Path, data: bytes, *, compress: bool = True) -> ColumnSource:
    path = Path(folder) / "in.vcf.gz"
    path.write_bytes(bgzf.compress(data) + bgzf.EOF if compress else data)
    return open_columns(path)


def read_all(
    source: ColumnSource, columns: Columns, *, records_per_shard: int = 2
) -> tuple[list[dict[str, Any]], Scan]:
    scan = source.scan(records_per_shard=records_per_shard, bytes_per_shard=1 << 20)
    pieces = [source.read_sites(shard, columns) for shard in scan.shards]
    return [row for piece in pieces for row in piece.table.to_pylist()], scan


def read_text(data: bytes) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        source = open_text(folder, data)
        return read_all(source, source.columns(infos=("*",), genotypes=bool(source.samples)))[0]


def parse(*lines: str, infos: tuple[str, ...] = (), num_samples: int = NUM_SAMPLES) -> Sites:
    with tempfile.TemporaryDirectory() as folder:
        source = open_text(folder, vcf_text.file_text([], num_samples))
        columns = source.columns(infos=infos, genotypes=num_samples > 0)
    return parse_batch(
        "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"), columns, first_record=0
    )


def calls(row: dict[str, Any]) -> list[list[int]] | None:
    if row["call_genotype"] is None:
        return None
    found = np.frombuffer(row["call_genotype"], "<i2").reshape(NUM_SAMPLES, row["ploidy"])
    return [[int(allele) for allele in call if allele != -2] for call in found]


# ---------------------------------------------------------------- second readers


def same(ours: Any, theirs: Any) -> bool:
    """Equal, where a number that pysam took for a float may be NaN."""
    if isinstance(ours, list):
        theirs = [theirs] if not isinstance(theirs, tuple) else list(theirs)
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, float) and isinstance(theirs, float) and math.isnan(ours):
        return math.isnan(theirs)
    return bool(ours == theirs)


def check_info(row: dict[str, Any], record: pysam.VariantRecord) -> None:
    for key in ("DP", "MQ", "AF", "AC", "NOTE", "CS"):
        ours = row[f"info_{key}"]
        theirs = record.info.get(key)
        if ours is None:
            assert theirs is None or theirs == (None,) or set(theirs) == {None}, (key, theirs)
        elif key == "NOTE":
            assert ours == (theirs if isinstance(theirs, str) else ",".join(theirs))
        else:
            assert same(ours, theirs), (key, ours, theirs)
    assert row["info_DB"] == bool(record.info.get("DB", False))


def check_record(row: dict[str, Any], record: pysam.VariantRecord) -> None:
    assert (row["contig"], row["start"], row["end"]) == (record.chrom, record.start, record.stop)
    assert row["id"] == (record.id or ".")
    assert (row["ref"], row["alts"]) == (record.ref, list(record.alts or ()))
    assert row["qual"] == record.qual
    assert row["filters"] == (list(record.filter.keys()) or None)
    check_info(row, record)
    if "GT" not in record.format:
        assert row["call_genotype"] is None
        return
    theirs = [[-1 if allele is None else allele for allele in sample["GT"]] for sample in record.samples.values()]
    assert calls(row) == theirs
    phased = [bool(byte) for byte in row["call_genotype_phased"]]
    texts = [text.split(":")[0] for text in str(record).rstrip("\n").split("\t")[9:]]
    assert phased == ["|" in text and "/" not in text for text in texts]


@given(lines=vcf_text.records(NUM_SAMPLES), end=st.sampled_from(["\n", "\r\n"]), compress=st.booleans())
def test_pysam_reads_the_same_values(lines, end, compress) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = open_text(folder, vcf_text.file_text(lines, NUM_SAMPLES, end=end), compress=compress)
        rows, scan = read_all(source, source.columns(infos=("*",), genotypes=True))
        assert scan.num_records == len(lines)
        with pysam.VariantFile(source.path) as theirs:
            found = list(theirs)
    assert [row["state"] for row in rows] == [states.KEPT] * len(lines)
    assert [row["record"] for row in rows] == list(range(len(lines)))
    for row, record in zip(rows, found, strict=True):
        check_record(row, record)


@given(lines=vcf_text.records(0))
def test_sites_without_samples(lines) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = open_text(folder, vcf_text.file_text(lines, 0))
        rows, _ = read_all(source, source.columns(infos=("*",)))
        with pysam.VariantFile(source.path) as theirs:
            assert [(row["contig"], row["start"]) for row in rows] == [(one.chrom, one.start) for one in theirs]


def many_lines(count: int) -> list[str]:
    """Records that differ, with the odd genotype in its place."""
    odd = ["0|1", "1", ".", "./.", "0/2", "2|1", "0/1/2", ".|0"]
    return [
        f"chr1\t{100 + 3 * n}\trs{n}\tA\tC,G\t{n / 7:.3f}\tPASS\tDP={n};AF=0.{n % 10},0.25\tGT:DP:GQ"
        + "".join(f"\t{odd[(n + sample) % 8]}:{n}:{n}.5" for sample in range(NUM_SAMPLES))
        for n in range(count)
    ]


def test_bcftools_reads_the_same_values(tmp_path: Path) -> None:
    source = open_text(tmp_path, vcf_text.file_text(many_lines(500), NUM_SAMPLES))
    rows, _ = read_all(source, source.columns(infos=("DP", "AF"), genotypes=True), records_per_shard=120)
    query = "%CHROM %POS %REF %ALT %QUAL %INFO/DP %INFO/AF[ %GT]\\n"
    done = subprocess.run(["bcftools", "query", "-f", query, source.path], capture_output=True, text=True, check=True)
    theirs = [line.split(" ") for line in done.stdout.splitlines()]
    assert len(rows) == len(theirs) == 500
    for row, words in zip(rows, theirs, strict=True):
        assert [row["contig"], str(row["start"] + 1), row["ref"], ",".join(row["alts"])] == words[:4]
        assert np.float32(words[4]) == np.float32(row["qual"])
        assert (row["info_DP"], row["info_AF"]) == (int(words[5]), [np.float32(word) for word in words[6].split(",")])
        signs = ["|" if byte else "/" for byte in row["call_genotype_phased"]]
        texts = [
            sign.join("." if a < 0 else str(a) for a in call) for sign, call in zip(signs, calls(row), strict=True)
        ]
        assert texts == words[7:]


@given(size=st.integers(1, 40), per_shard=st.integers(1, 17))
def test_any_cut_gives_the_same_rows(size, per_shard) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = open_text(folder, vcf_text.file_text(many_lines(size), NUM_SAMPLES))
        columns = source.columns(infos=("*",), genotypes=True)
        cut, scan = read_all(source, columns, records_per_shard=per_shard)
        whole, _ = read_all(source, columns, records_per_shard=1000)
        assert [shard.num_records for shard in scan.shards[:-1]] == [per_shard] * (len(scan.shards) - 1)
    assert [(row["record"], row["start"], calls(row)) for row in cut] == [
        (row["record"], row["start"], calls(row)) for row in whole
    ]


@given(
    sizes=st.lists(st.integers(17, 90), min_size=1, max_size=12),
    lengths=st.lists(st.sampled_from([0, 1, 7, 40, 200]), min_size=1, max_size=25),
    stretch=st.sampled_from([1, 50, 200, 1000]),
    compress=st.booleans(),
    ended=st.booleans(),
)
def test_stretches_and_blocks_change_no_plan(sizes, lengths, stretch, compress, ended) -> None:
    """Lines that lie in several blocks and stretches, and in the header's; a last line with and without its end."""
    lines = [
        f"chr{1 + number // 9}\t{100 + number}\t{'x' * length or '.'}\tA\tC\t.\t.\tDP={number}\tGT"
        + "\t0/1" * NUM_SAMPLES
        for number, length in enumerate(lengths)
    ]
    text = vcf_text.file_text(lines, NUM_SAMPLES)
    text = text if ended else text[:-1]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "in.vcf"
        if compress:
            borders = [*itertools.accumulate(itertools.islice(itertools.cycle(sizes), len(text)), initial=0)]
            pieces = [text[begin:end] for begin, end in itertools.pairwise(borders) if begin < len(text)]
            path.write_bytes(b"".join(map(bgzf.compress, pieces)) + bgzf.EOF)
        else:
            path.write_bytes(text)
            patch.setattr(streams, "_PLAIN_BYTES", sizes[0])
        patch.setattr(vcf_columns, "_STRETCH_BYTES", stretch)
        source = open_columns(path)
        columns = source.columns(infos=("DP",), genotypes=True)
        rows, scan = read_all(source, columns, records_per_shard=3)
        patch.setattr(vcf_columns, "_STRETCH_BYTES", 1 << 20)
        whole = source.scan(records_per_shard=3, bytes_per_shard=1 << 20)
        assert [replace(one, begin=0, end=0) for one in whole.shards] == [
            replace(one, begin=0, end=0) for one in scan.shards
        ]
        assert scan.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [row["info_DP"] for row in rows] == list(range(len(lines)))
    assert scan.contigs == dict(Counter(f"chr{1 + number // 9}" for number in range(len(lines))))
    assert [shard.num_records for shard in scan.shards[:-1]] == [3] * (len(scan.shards) - 1)


def test_a_line_longer_than_a_batch(tmp_path: Path) -> None:
    long = "ACGT" * 1_000_000
    lines = [
        LINE,
        LINE.replace("\tA\t", f"\t{long}\t").replace("\t100\t", "\t101\t"),
        LINE.replace("\t100\t", "\t102\t"),
    ]
    source = open_text(tmp_path, vcf_text.file_text(lines, NUM_SAMPLES))
    rows, _ = read_all(source, source.columns())
    assert [(row["start"], len(row["ref"])) for row in rows] == [(99, 1), (100, 4_000_000), (101, 1)]


# ---------------------------------------------------------------- hostile records


def site(**changes: str) -> str:
    names = ["chrom", "pos", "id", "ref", "alt", "qual", "filter", "info", "format", "a", "b", "c"]
    words = dict(zip(names, LINE.split("\t"), strict=True)) | changes
    return "\t".join(words.values())


BROKEN = {
    "too few columns": (LINE.rpartition("\t")[0], "malformed_record", "11 columns where the #CHROM line has 12"),
    "too many columns": (LINE + "\t0/0", "malformed_record", "13 columns where the #CHROM line has 12"),
    "empty line": ("", "malformed_record", "1 columns"),
    "NUL": (LINE.replace("rs1", "r\0"), "malformed_record", "NUL"),
    "not UTF-8": (LINE.replace("rs1", "r\udcff"), "malformed_record", "UTF-8"),
    "contig": (site(chrom="chr 1"), "malformed_record", "CHROM 'chr 1' is not a contig name"),
    "pos 0": (site(pos="0"), "bad_position", "POS '0'"),
    "pos word": (site(pos="12a"), "bad_position", "POS '12a'"),
    "pos hexadecimal": (site(pos="0x10"), "bad_position", "POS '0x10'"),
    "no pos": (site(pos=""), "bad_position", "POS ''"),
    "no REF": (site(ref=""), "malformed_record", "REF is empty"),
    "no ALT": (site(alt=""), "malformed_record", "ALT is empty"),
    "hole in ALT": (site(alt="C,,G"), "malformed_record", "ALT 'C,,G' has an empty allele"),
    "QUAL": (site(qual="high"), "malformed_record", "QUAL 'high'"),
    "INFO word": (site(info="DP=many"), "bad_info", "INFO DP=many is not one Integer"),
    "INFO two values": (site(info="DP=1,2"), "bad_info", "INFO DP=1,2 is not one Integer"),
    "INFO hexadecimal": (site(info="DP=0x1F"), "bad_info", "INFO DP=0x1F"),
    "INFO too large": (site(info="DP=2147483648"), "bad_info", "INFO DP=2147483648"),
    "INFO in a list": (site(info="AF=0.1,x"), "bad_info", "INFO AF=0.1,x is not a list of Float"),
    "allele out of range": (site(b="0/3:1"), "genotype_out_of_range", "allele 3 where the record has 3 (0 to 2)"),
    "huge allele": (site(b="0/99999999999:1"), "genotype_out_of_range", "where the record has 3"),
    "GT letters": (site(b="A/B:1"), "bad_genotype", "GT 'A/B' of sample 2"),
    "GT empty": (site(c=""), "bad_genotype", "GT '' of sample 3"),
    "GT without an allele": (site(a="0/:1"), "bad_genotype", "GT '0/' of sample 1"),
    "GT negative": (site(a="-1/0:1"), "bad_genotype", "GT '-1/0'"),
    "GT dot and digit": (site(a=".1/0:1"), "bad_genotype", "GT '.1/0'"),
    "GT of many copies": (site(a="/".join("0" * 65)), "bad_genotype", "GT '0/0"),
    "GT too long": (site(a="0" * 300), "bad_genotype", "GT '000"),
    "GT not first": (site(format="DP:GT"), "bad_genotype", "FORMAT 'DP:GT' has GT, but not first"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_record_is_refused_alone(name) -> None:
    line, reason, sentence = BROKEN[name]
    found = parse(LINE, line, LINE, infos=("DP", "AF"))
    rows = found.table.to_pylist()
    good = {key: value for key, value in rows[0].items() if key != "record"}
    assert {key: value for key, value in rows[2].items() if key != "record"} == good
    assert good["state"] == states.KEPT
    assert rows[1] == dict.fromkeys(good) | {"record": 1, "state": states.REJECTED, "reason": reason}
    (reject,) = found.rejects.to_pylist()
    assert (reject["record"], reject["reason"]) == (1, reason)
    assert sentence in reject["sentence"]
    assert reason in states.INGEST_REASONS


def test_many_broken_records_at_once() -> None:
    lines = [line for broken, _, _ in BROKEN.values() for line in (LINE, broken)]
    found = parse(*lines, infos=("DP", "AF"))
    assert found.table["reason"].to_pylist() == [
        reason for _, reason, _ in BROKEN.values() for reason in (None, reason)
    ]
    assert found.table["start"].to_pylist()[::2] == [99] * len(BROKEN)


def test_what_is_not_asked_for_may_be_undeclared() -> None:
    found = parse(site(info="ZZ=1;YY", format="GT:ZZ"), infos=("DP",))
    assert found.table["state"].to_pylist() == [states.KEPT]
    assert found.table["info_DP"].to_pylist() == [None]


def test_of_a_key_written_twice_the_first_counts() -> None:
    assert parse(site(info="DP=4;DP=5"), infos=("DP",)).table["info_DP"].to_pylist() == [4]


def test_a_key_is_no_part_of_another() -> None:
    found = parse(site(info="XDP=9;DPX=8;NOTE=DP=7"), infos=("DP", "NOTE"))
    assert found.table["info_DP"].to_pylist() == [None]
    assert found.table["info_NOTE"].to_pylist() == ["DP=7"]


def test_a_record_without_gt_has_no_calls() -> None:
    found = parse(site(format="DP", a="1", b="2", c="3"), LINE).table.to_pylist()
    assert [calls(row) for row in found] == [None, [[0, 1], [1, 2], [-1]]]
    assert [row["ploidy"] for row in found] == [None, 2]


# ---------------------------------------------------------------- the file


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    data = bgzf.compress(vcf_text.file_text(many_lines(3000), NUM_SAMPLES))
    (tmp_path / "cut.vcf.gz").write_bytes(data[:-100])
    with pytest.raises(InputError, match=r"end marker is missing.*truncated"):
        open_columns(tmp_path / "cut.vcf.gz")
    (tmp_path / "torn.vcf.gz").write_bytes(data[:-100] + bgzf.EOF)
    with pytest.raises(InputError, match=r"corrupt|truncated|inflate"):
        open_columns(tmp_path / "torn.vcf.gz").scan(records_per_shard=10, bytes_per_shard=1 << 20)


def test_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    data = bytearray(bgzf.compress(vcf_text.file_text(many_lines(3000), NUM_SAMPLES)) + bgzf.EOF)
    data[len(data) // 2] ^= 4
    (tmp_path / "x.vcf.gz").write_bytes(data)
    with pytest.raises(InputError, match="corrupt"):
        open_columns(tmp_path / "x.vcf.gz").scan(records_per_shard=10, bytes_per_shard=1 << 20)


def test_a_last_block_that_says_it_is_empty_is_looked_into(tmp_path: Path, monkeypatch) -> None:
    """Its told size alone is damaged, and a stretch ends before it."""
    *first, last = vcf_text.file_text(many_lines(40), NUM_SAMPLES).splitlines(keepends=True)
    block = bytearray(bgzf.compress(last))
    block[-4:] = bytes(4)
    (tmp_path / "x.vcf.gz").write_bytes(bgzf.compress(b"".join(first)) + block + bgzf.EOF)
    monkeypatch.setattr(vcf_columns, "_STRETCH_BYTES", 1)
    with pytest.raises(InputError, match="corrupt"):
        open_columns(tmp_path / "x.vcf.gz").scan(records_per_shard=10, bytes_per_shard=1 << 20)


def test_a_changed_file_is_told(tmp_path: Path) -> None:
    lines = many_lines(10)
    source = open_text(tmp_path, vcf_text.file_text(lines, NUM_SAMPLES))
    (shard,) = source.scan(records_per_shard=100, bytes_per_shard=1 << 20).shards
    changed = open_text(tmp_path, vcf_text.file_text([lines[0].replace("\t100\t", "\t101\t"), *lines[1:]], NUM_SAMPLES))
    with pytest.raises(DataError, match="the input changed after it was planned"):
        changed.read_sites(shard, changed.columns())


def test_out_of_order_is_refused_with_the_record(tmp_path: Path) -> None:
    lines = many_lines(5)
    source = open_text(tmp_path, vcf_text.file_text([*lines[:3], lines[4], lines[3]], NUM_SAMPLES))
    with pytest.raises(InputError, match=r"record 4 .* at chr1:109 comes after chr1:112.*bcftools sort"):
        source.scan(records_per_shard=10, bytes_per_shard=1 << 20)


def test_a_contig_left_and_met_again_is_refused(tmp_path: Path) -> None:
    lines = [site(chrom=contig) for contig in ("chr1", "chr2", "chr1")]
    with pytest.raises(InputError, match="contig 'chr1' was left earlier"):
        open_text(tmp_path, vcf_text.file_text(lines, NUM_SAMPLES)).scan(records_per_shard=9, bytes_per_shard=1 << 20)


@pytest.mark.parametrize("broken", ["chr1\t999999", "chr9\t1\tx", "\t\t", "chr1\t5\trs", ""])
def test_a_broken_line_does_not_look_out_of_order(tmp_path: Path, broken) -> None:
    lines = many_lines(4)
    source = open_text(tmp_path, vcf_text.file_text([lines[0], lines[1], broken, lines[2], broken], NUM_SAMPLES))
    rows, scan = read_all(source, source.columns())
    assert [row["state"] for row in rows] == ["kept", "kept", "rejected", "kept", "rejected"]
    assert set(scan.contigs) - {"chr9"} == {"chr1"}


def test_a_long_contig_name_is_found(tmp_path: Path) -> None:
    name = "scaffold_" + "x" * 100
    source = open_text(tmp_path, vcf_text.file_text([LINE, site(chrom=name)], NUM_SAMPLES))
    scan = source.scan(records_per_shard=1, bytes_per_shard=1 << 20)
    assert [(shard.contig, shard.start) for shard in scan.shards] == [("chr1", 99), (name, 99)]


def test_a_bcf_gives_the_rows_of_its_vcf(tmp_path: Path) -> None:
    source = open_text(tmp_path, vcf_text.file_text(many_lines(300), NUM_SAMPLES))
    subprocess.run(["bcftools", "view", "-Ob", "-o", str(tmp_path / "x.bcf"), source.path], check=True)
    bcf = open_columns(tmp_path / "x.bcf")
    ours, theirs = (
        read_all(one, one.columns(infos=("*",), formats=("*",)), records_per_shard=120) for one in (bcf, source)
    )
    assert ours[0] == theirs[0]
    assert [shard.num_records for shard in ours[1].shards] == [120, 120, 60]


def test_a_table_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"contig": ["chr1"], "start": [1], "ref": ["A"], "alt": ["C"]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="no VCF or BCF"):
        open_columns(tmp_path / "x.parquet")


def test_an_undeclared_field_is_refused_with_those_there_are(tmp_path: Path) -> None:
    source = open_text(tmp_path, vcf_text.file_text([], NUM_SAMPLES))
    with pytest.raises(InputError, match="declares no INFO 'ZZ'; it has AC, AF, CS"):
        source.columns(infos=("ZZ",))


def test_genotypes_need_samples(tmp_path: Path) -> None:
    source = open_text(tmp_path, vcf_text.file_text([], 0))
    with pytest.raises(InputError, match="the file has no samples"):
        source.columns(genotypes=True)
