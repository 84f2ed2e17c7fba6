"""VCF text: the plan, its shards, order, damage, and tags spliced in without touching the rest."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import tracemalloc
from pathlib import Path

import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DataError, InputError
from engine.genome.variants import VariantRecord
from engine.io import bgzf
from engine.io.regions import parse_regions
from engine.io.source import RawRecord, Scan
from engine.io.variants import open_variants
from engine.io.vcf import (
    VcfSource,
    add_header_lines,
    find_runs,
    header_contigs,
    header_info_ids,
    parse_line,
    remove_info,
    remove_info_lines,
    splice_info,
)
from tests.engine.io.files import HEADER, LINES, many_lines, read_all, text, write_bgzf, write_plain

WRITERS = {"plain": write_plain, "bgzf": write_bgzf}


@pytest.fixture(params=sorted(WRITERS))
def write(request: pytest.FixtureRequest):
    return WRITERS[request.param]


def _scan(path: Path, **options: int) -> Scan:
    return open_variants(path).scan(records_per_shard=3, bytes_per_shard=1 << 20, **options)


# ---------------------------------------------------------------- scan and read


def test_every_line_comes_back_as_it_was(tmp_path: Path, write) -> None:
    source = open_variants(write(tmp_path / "x", LINES))
    records, sizes = read_all(source)
    assert [record.line for record in records] == LINES
    assert sizes == [3, 3, 3]
    assert source.header == HEADER


def test_records_hold_what_the_columns_say(tmp_path: Path, write) -> None:
    records, _ = read_all(open_variants(write(tmp_path / "x", LINES)))
    assert records[3].record == VariantRecord("chr1", 24, ".", "A", ("C", "AT", "*"))
    assert records[5].record == VariantRecord("chr1", 60, ".", "a", ("g",))
    assert records[6].record == VariantRecord("chr1", 899, ".", "A", ())


def test_scan_counts_and_digests(tmp_path: Path, write) -> None:
    path = write(tmp_path / "x", LINES)
    scan = _scan(path)
    assert scan.num_records == 9
    assert scan.contigs == {"chr1": 7, "chr2": 2}
    assert list(scan.contigs) == ["chr1", "chr2"]
    assert scan.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert scan.notes == []
    last = scan.shards[-1]
    assert (last.contig, last.start, last.last_contig, last.last_start) == ("chr1", 899, "chr2", 49_999)


def test_on_record_sees_the_first_ones(tmp_path: Path, write) -> None:
    seen: list[RawRecord] = []
    _scan(write(tmp_path / "x", LINES), on_record=seen.append, on_record_limit=4)  # type: ignore[arg-type]
    assert [(item.ordinal, item.line) for item in seen] == list(enumerate(LINES[:4]))


@given(st.integers(1, 40), st.integers(1, 600), st.integers(0, 60))
def test_any_cut_gives_the_same_records(
    tmp_path_factory: pytest.TempPathFactory, records_per_shard: int, bytes_per_shard: int, num: int
) -> None:
    path = write_bgzf(tmp_path_factory.mktemp("v") / "x", lines := many_lines(2 * num))
    source = open_variants(path)
    records, sizes = read_all(source, records_per_shard=records_per_shard, bytes_per_shard=bytes_per_shard)
    assert [record.line for record in records] == lines
    assert all(size <= records_per_shard for size in sizes)
    scan = source.scan(records_per_shard=records_per_shard, bytes_per_shard=bytes_per_shard)
    for shard in scan.shards:
        size = sum(len(record.line) + 1 for record in source.read(shard))
        assert size <= bytes_per_shard or shard.num_records == 1


def test_lines_cross_blocks_and_batches(tmp_path: Path, write) -> None:
    lines = many_lines(60_000)
    path = write(tmp_path / "x", lines)
    records, _ = read_all(open_variants(path), records_per_shard=7_001)
    assert [record.line for record in records] == lines


def test_plan_and_source_do_not_depend_on_who_opened_it(tmp_path: Path) -> None:
    path = write_bgzf(tmp_path / "x", many_lines(1_000))
    source = pickle.loads(pickle.dumps(open_variants(path)))
    assert _scan(path) == source.scan(records_per_shard=3, bytes_per_shard=1 << 20)


def test_a_giant_line_passes(tmp_path: Path, write) -> None:
    giant = b"chr1\t20\t.\tA\tC\t.\t.\tT=" + b"x" * 9_000_000
    lines = [LINES[0], giant, LINES[3]]
    records, sizes = read_all(open_variants(write(tmp_path / "x", lines)), records_per_shard=10)
    assert [record.line for record in records] == lines
    assert sizes == [1, 1, 1]  # more than bytes_per_shard, so it stands alone


def test_memory_stays_flat(tmp_path: Path) -> None:
    peaks = []
    for num in (30_000, 90_000):
        source = open_variants(write_bgzf(tmp_path / str(num), many_lines(num, step=1)))
        tracemalloc.start()
        source.scan(records_per_shard=10_000, bytes_per_shard=1 << 30)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


def test_samples_pass_untouched(tmp_path: Path, write) -> None:
    header = HEADER.rstrip(b"\n") + b"\tFORMAT\tS1\tS2\n"
    lines = [LINES[0] + b"\tGT:DP\t0/1:007\t./.:.", LINES[3] + b"\tGT\t0|1\t1|1"]
    records, _ = read_all(open_variants(write(tmp_path / "x", lines, header)))
    assert [record.line for record in records] == lines


# ---------------------------------------------------------------- odd but whole files


def test_no_records_make_an_empty_plan(tmp_path: Path, write) -> None:
    path = write(tmp_path / "x", [])
    scan = _scan(path)
    assert (scan.shards, scan.num_records, scan.contigs) == ([], 0, {})
    assert scan.digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_carriage_returns_are_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "x.vcf"
    path.write_bytes(text(LINES).replace(b"\n", b"\r\n"))
    source = open_variants(path)
    records, _ = read_all(source)
    assert source.header == HEADER
    assert [record.line for record in records] == LINES


def test_a_last_line_without_newline_counts(tmp_path: Path) -> None:
    plain = tmp_path / "x.vcf"
    plain.write_bytes(text(LINES)[:-1])
    zipped = tmp_path / "x.vcf.gz"
    zipped.write_bytes(bgzf.compress(text(LINES)[:-1]) + bgzf.EOF)
    for path in (plain, zipped):
        records, _ = read_all(open_variants(path))
        assert [record.line for record in records] == LINES
    assert _scan(plain).notes == ["the last line has no line end; the file may be cut"]


def test_empty_blocks_in_the_middle_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.vcf.gz"
    halves = [bgzf.compress(HEADER + LINES[0] + b"\nchr1\t1"), bgzf.compress(b"5\t.\tA\tC\t.\t.\t.\n")]
    path.write_bytes(bgzf.EOF.join([b"", *halves, b""]))
    records, _ = read_all(open_variants(path), records_per_shard=1)
    assert [record.line for record in records] == [LINES[0], b"chr1\t15\t.\tA\tC\t.\t.\t."]


def test_non_utf8_info_passes_as_bytes(tmp_path: Path, write) -> None:
    line = b"chr1\t10\tr\xe9\tA\tC\t.\t.\tT=\xff\xfe"
    records, _ = read_all(open_variants(write(tmp_path / "x", [line])))
    assert records[0].line == line
    assert records[0].record == VariantRecord("chr1", 9, "ré", "A", ("C",))


def test_a_header_without_contigs_is_noted(tmp_path: Path, write) -> None:
    header = b"##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    scan = _scan(write(tmp_path / "x", LINES, header))
    assert scan.notes == ["the header has no ##contig lines"]
    assert scan.num_records == 9


# ---------------------------------------------------------------- lines that do not parse

BROKEN = [
    (b"", "malformed_record", "1 columns"),
    (b"chr1\t16\t.\tA", "malformed_record", "4 columns where the #CHROM line has 8"),
    (b"#chr1\t16\t.\tA\tC\t.\t.\t.", "malformed_record", "CHROM '#chr1'"),
    (b"\t16\t.\tA\tC\t.\t.\t.", "malformed_record", "CHROM ''"),
    (b"chr 1\t16\t.\tA\tC\t.\t.\t.", "malformed_record", "CHROM 'chr 1'"),
    (b"chr1\tabc\t.\tA\tC\t.\t.\t.", "bad_position", "POS 'abc'"),
    (b"chr1\t-5\t.\tA\tC\t.\t.\t.", "bad_position", "POS '-5'"),
    (b"chr1\t\t.\tA\tC\t.\t.\t.", "bad_position", "POS ''"),
    (b"chr1\t0\t.\tA\tC\t.\t.\t.", "bad_position", "POS '0'"),
    (b"chr1\t1_0\t.\tA\tC\t.\t.\t.", "bad_position", "POS '1_0'"),
    (b"chr1\t 10\t.\tA\tC\t.\t.\t.", "bad_position", "POS ' 10'"),
    (b"chr1\t99999999999999999999\t.\tA\tC\t.\t.\t.", "bad_position", "is not a whole number from 1 to 2147483647"),
    (b"chr1\t2147483648\t.\tA\tC\t.\t.\t.", "bad_position", "2147483648"),
    (b"chr1\t16\t.\t\tC\t.\t.\t.", "malformed_record", "REF is empty"),
    (b"chr1\t16\t.\tA\t\t.\t.\t.", "malformed_record", "ALT is empty"),
    (b"chr1\t16\t.\tA\tC\t.\t.\tT=\0", "malformed_record", "NUL"),
]


@pytest.mark.parametrize(("line", "code", "words"), BROKEN)
def test_a_broken_line_stays_in_its_place(tmp_path: Path, write, line: bytes, code: str, words: str) -> None:
    lines = [*LINES[:4], line, *LINES[4:]]
    source = open_variants(write(tmp_path / "x", lines))
    records, sizes = read_all(source)
    assert [record.line for record in records] == lines
    assert sum(sizes) == 10
    broken = records[4]
    assert broken.record is None
    assert broken.problem is not None
    assert broken.problem[0] == code
    assert words in broken.problem[1]
    assert all(record.problem is None for record in records if record is not broken)


def test_broken_lines_alone_are_a_plan_too(tmp_path: Path, write) -> None:
    source = open_variants(write(tmp_path / "x", [line for line, _, _ in BROKEN]))
    records, _ = read_all(source)
    assert [record.problem[0] for record in records if record.problem] == [code for _, code, _ in BROKEN]


_cells = st.sampled_from(
    [b"chr1", b"chr2", b"1", b"7", b"007", b"", b".", b"A", b"x y", b"\xff", b"a\0", b"-3", b"A\r"]
)


@given(st.lists(st.lists(_cells, min_size=1, max_size=10).map(b"\t".join), min_size=1, max_size=6))
def test_bulk_and_single_parsing_agree(lines: list[bytes]) -> None:
    found = [(contig, start) for contig, starts in find_runs(b"".join(x + b"\n" for x in lines), 8) for start in starts]
    single = [parse_line(line.removesuffix(b"\r"), 8) for line in lines]
    assert found == [(None, None) if isinstance(one, tuple) else (one.contig, one.start) for one in single]


@given(st.lists(st.tuples(st.sampled_from([b"chr1", b"chr2"]), st.integers(1, 99)), min_size=1, max_size=8))
def test_bulk_and_single_parsing_agree_on_good_lines(sites: list[tuple[bytes, int]]) -> None:
    data = b"".join(b"%s\t%d\t.\tA\tC\t.\t.\t.\n" % site for site in sites)
    found = [(contig, start) for contig, starts in find_runs(data, 8) for start in starts]
    assert found == [(contig.decode(), pos - 1) for contig, pos in sites]


# ---------------------------------------------------------------- files that stop a run


def test_an_unsorted_file_names_record_positions_and_cure(tmp_path: Path, write) -> None:
    path = write(tmp_path / "x", [*LINES[:2], b"chr1\t9\t.\tA\tC\t.\t.\t."])
    with pytest.raises(InputError, match=r"record 2 .* at chr1:9 comes after chr1:10, .*bcftools sort"):
        _scan(path)


def test_a_contig_that_comes_back_is_unsorted(tmp_path: Path, write) -> None:
    path = write(tmp_path / "x", [*LINES, LINES[0]])
    with pytest.raises(InputError, match=r"record 9 .* at chr1:10 comes after chr2:50000, and contig 'chr1' was left"):
        _scan(path)


def test_order_is_checked_across_batches(tmp_path: Path) -> None:
    lines = many_lines(60_000)
    path = write_bgzf(tmp_path / "x", lines)
    first = next(open_variants(path)._scan_batches(lambda raw: None)).data.count(b"\n")  # type: ignore[attr-defined]
    for index in (first - 1, first):
        changed = [*lines[:index], b"chr1\t999999\t.\tA\tC\t.\t.\t.", *lines[index + 1 :]]
        with pytest.raises(InputError, match=f"record {index + 1} .* comes after chr1:999999"):
            _scan(write_bgzf(path, changed))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"##fileformat=VCFv4.2\n##contig=<ID=1>\n", "no #CHROM line"),
        (b"##fileformat=VCFv4.2\nchr1\t1\t.\tA\tC\t.\t.\t.\n", "no #CHROM line"),
        (b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n", "not ##fileformat"),
        (b"##source=x\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n", "not ##fileformat"),
        (b"##fileformat=VCFv4.2\n#CHROM POS ID REF ALT QUAL FILTER INFO\n", "the #CHROM line reads"),
    ],
)
def test_a_header_that_is_none_stops(tmp_path: Path, content: bytes, words: str) -> None:
    plain, zipped = tmp_path / "x.vcf", tmp_path / "x.vcf.gz"
    plain.write_bytes(content)
    zipped.write_bytes(bgzf.compress(content) + bgzf.EOF)
    for path in (plain, zipped):
        with pytest.raises(InputError, match=words) as caught:
            open_variants(path)
        assert str(path) in str(caught.value)


def test_truncation_is_seen_before_any_work(tmp_path: Path) -> None:
    path = write_bgzf(tmp_path / "x", many_lines(5_000))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"at byte \d+: the BGZF end marker is missing"):
        open_variants(path)


def test_a_flipped_bit_stops_scan_and_read(tmp_path: Path) -> None:
    path = write_bgzf(tmp_path / "x", many_lines(20_000))
    source = open_variants(path)
    scan = source.scan(records_per_shard=1000, bytes_per_shard=1 << 30)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)
    with pytest.raises(InputError, match="at byte"):
        source.scan(records_per_shard=1000, bytes_per_shard=1 << 30)
    failures = 0
    for shard in scan.shards:
        try:
            source.read(shard)
        except DataError as error:
            failures += "corrupt" in str(error)
    assert failures >= 1


def test_a_changed_file_is_noticed_on_read(tmp_path: Path, write) -> None:
    path = write(tmp_path / "x", LINES)
    source = open_variants(path)
    shards = source.scan(records_per_shard=20, bytes_per_shard=1 << 20).shards
    write(path, [line.replace(b"chr1\t10\t", b"chr1\t11\t") for line in LINES])
    with pytest.raises(DataError, match="changed after it was planned"):
        source.read(shards[0])


def test_shards_need_room(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one record"):
        open_variants(write_plain(tmp_path / "x", LINES)).scan(records_per_shard=0, bytes_per_shard=1)


# ---------------------------------------------------------------- header and INFO

_info = st.from_regex(rb"[A-Za-z][A-Za-z0-9_.]{0,5}(=[ -:<-~\x80-\xff]{0,8})?", fullmatch=True).filter(
    lambda tag: b";" not in tag and not tag.startswith((b"RPL_",))
)
_cell = st.binary(max_size=8).map(lambda data: bytes(b for b in data if b not in b"\t\n"))
_ours = [b"RPL_DS=0.1,0.2", b"RPL_FLAG", b"SpliceAI=A|B|0.00|.|"]


@given(st.lists(_cell, min_size=7, max_size=7), st.lists(_info, max_size=4), st.lists(_cell, max_size=4))
def test_removing_our_tags_restores_the_line(first: list[bytes], info: list[bytes], samples: list[bytes]) -> None:
    line = b"\t".join([*first, b";".join(info) or b".", *samples])
    ours = {tag.partition(b"=")[0] for tag in _ours}
    if any(tag.partition(b"=")[0] in ours for tag in info):
        return
    spliced = splice_info(line, b";".join(_ours))
    assert spliced != line
    assert remove_info(spliced, ours) == line
    assert remove_info(line, ours) == line
    assert splice_info(line, b"") == line


@pytest.mark.parametrize(
    ("info", "result"),
    [(b".", b"X=1"), (b"", b"X=1"), (b"AF=0.00010", b"AF=0.00010;X=1"), (b"DB;AF=1e-5", b"DB;AF=1e-5;X=1")],
)
def test_info_is_appended_or_replaced(info: bytes, result: bytes) -> None:
    line = b"chr1\t10\t.\tA\tC\t29.10\t\t%b\tGT\t0/1"
    assert splice_info(line % info, b"X=1") == line % result


def test_a_line_without_info_cannot_be_spliced() -> None:
    with pytest.raises(DataError, match="4 columns"):
        splice_info(b"chr1\t10\t.\tA", b"X=1")


def test_bcftools_finds_our_tags_and_all_else_equal(tmp_path: Path) -> None:
    path = tmp_path / "x.vcf.gz"
    header = add_header_lines(HEADER, [b'##INFO=<ID=RPL_DS,Number=A,Type=Float,Description="Score">\n'])
    body = b"".join(splice_info(line, b"RPL_DS=0.5") + b"\n" for line in LINES)
    path.write_bytes(bgzf.compress(header + body) + bgzf.EOF)

    def run(*words: str) -> bytes:
        return subprocess.run(["bcftools", *words], check=True, capture_output=True).stdout

    assert set(run("query", "-f", "%INFO/RPL_DS\n", str(path)).split()) == {b"0.5"}
    assert run("annotate", "-x", "INFO/RPL_DS", str(path)).endswith(run("view", "-H", _plain(tmp_path)))


def _plain(folder: Path) -> str:
    return str(write_plain(folder / "plain.vcf", LINES))


def test_header_lines_go_before_the_columns() -> None:
    lines = [b'##INFO=<ID=X,Number=1,Type=Float,Description="x">', b"##replisome=1\n"]
    header = add_header_lines(HEADER, lines)
    before, after = HEADER.split(b"#CHROM")
    assert header == before + lines[0] + b"\n" + lines[1] + b"#CHROM" + after
    assert add_header_lines(header, lines) == header
    assert add_header_lines(b"#CHROM\n", [b"##a"]) == b"##a\n#CHROM\n"


def test_header_words_are_read() -> None:
    header = b"##contig=<ID=HLA-A*01:01,assembly=x,length=12>\n##contig=<length=5,ID=b>\n##contig=<ID=c>\n#CHROM\n"
    assert header_contigs(header) == {"HLA-A*01:01": 12, "b": 5, "c": None}
    assert header_info_ids(HEADER) == {"AF", "END", "T"}


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b'##INFO=<ID=A,Number=1,Type=String,Description="as in <x,ID=B>">', "A"),
        (b'##INFO=<Number=1,Description="say \\"x\\",ID=B",ID=A,Type=String>', "A"),
        (b"##INFO=<ID=A,Number=1,Type=String,Description=none,ID=B>", "A"),
        (b"##INFO=<Number=1,IDX=3,ID=A>", "A"),
    ],
)
def test_the_first_id_outside_quotes_is_the_id(line: bytes, name: str) -> None:
    assert header_info_ids(line + b"\n#CHROM\n") == {name}
    assert remove_info_lines(line + b"\n#CHROM\n", ["B"]) == line + b"\n#CHROM\n"
    assert remove_info_lines(line + b"\n#CHROM\n", [name]) == b"#CHROM\n"


def test_a_length_in_quotes_is_text() -> None:
    header = b'##contig=<ID=a,note="x,length=5",length=7>\n##contig=<ID=b,note="x,length=5,ID=c">\n#CHROM\n'
    assert header_contigs(header) == {"a": 7, "b": None}


def test_header_contigs_are_those_of_pysam(tmp_path: Path) -> None:
    with pysam.VariantFile(str(write_plain(tmp_path / "x.vcf", LINES))) as judge:
        assert header_contigs(HEADER) == {name: judge.header.contigs[name].length for name in judge.header.contigs}


def test_the_source_needs_no_name(tmp_path: Path) -> None:
    assert isinstance(open_variants(write_bgzf(tmp_path / "x.txt", LINES), regions=parse_regions([])), VcfSource)
