"""FASTA, FASTQ and lines: the same records wherever the text was cut, and those that another reader finds."""

from __future__ import annotations

import csv
import io
from itertools import pairwise

import numpy as np
import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.io.sequence_text import FastaFormat, FastqFormat, Format, LinesFormat, Parsed, readable

NAMES = st.text("abcXYZ019_|.", min_size=1, max_size=8)
LETTERS = st.text("ACGTNacgt", max_size=30)
ENDS = st.sampled_from(["\n", "\r\n"])


def rows(parsed: Parsed) -> list[tuple]:
    columns = [parsed.columns[name].to_pylist() for name in sorted(parsed.columns)]
    return list(zip(*columns, strict=True))


def parse_in_pieces(form: Format, data: bytes, cuts: list[int]) -> tuple[list[tuple], list[int], list[str]]:
    """Rows, marks in the whole text and problems, from text that grows at each cut."""
    found, marks, problems, begin = [], [], [], 0
    for end in [*sorted(cuts), None]:
        final = end is None
        text = data[begin:end]
        if final and not text.endswith(b"\n"):
            text += b"\n"
        parsed = form.parse(text, final=final)
        found += rows(parsed)
        marks += (parsed.marks[:-1] + begin).tolist()
        problems += [problem.text for problem in parsed.problems.values()]
        begin += len(text) if final else int(parsed.marks[-1])
    return found, marks, problems


@st.composite
def fasta_texts(draw) -> bytes:
    end = draw(ENDS)
    pieces = []
    for name, lines in draw(st.lists(st.tuples(NAMES, st.lists(LETTERS, max_size=3)), min_size=1, max_size=6)):
        about = draw(st.sampled_from(["", " more > words", "\tx"]))
        pieces.append(f">{name}{about}{end}" + "".join(line + end for line in lines))
    text = "".join(pieces)
    return (text if draw(st.booleans()) else text.rstrip("\r\n")).encode()


@given(data=fasta_texts(), cuts=st.lists(st.integers(0, 300), max_size=4))
def test_fasta_records_are_those_of_pysam_wherever_it_is_cut(tmp_path_factory, data, cuts):
    path = tmp_path_factory.mktemp("fasta") / "in.fa"
    path.write_bytes(data)
    with pysam.FastxFile(str(path)) as judge:
        wanted = [(one.name, (one.sequence or "").strip("\r")) for one in judge]  # kseq keeps those of blank lines
    whole, marks, _ = parse_in_pieces(FastaFormat(), data, [])
    assert whole == wanted
    assert all(data[mark : mark + 1] == b">" for mark in marks)
    assert parse_in_pieces(FastaFormat(), data, [min(cut, len(data)) for cut in cuts])[:2] == (whole, marks)


@st.composite
def fastq_texts(draw) -> bytes:
    end = draw(ENDS)
    pieces = []
    for name, letters in draw(st.lists(st.tuples(NAMES, LETTERS), min_size=1, max_size=6)):
        quality = draw(st.text("@+!IF>", min_size=len(letters), max_size=len(letters)))
        pieces.append(f"@{name} x{end}{letters}{end}+{end}{quality}{end}")
    return "".join(pieces).encode()


@given(data=fastq_texts(), cuts=st.lists(st.integers(0, 300), max_size=4))
def test_fastq_records_are_those_of_pysam_wherever_it_is_cut(tmp_path_factory, data, cuts):
    path = tmp_path_factory.mktemp("fastq") / "in.fq"
    path.write_bytes(data)
    whole, marks, problems = parse_in_pieces(FastqFormat(), data, [])
    if b"\n\n" not in data and b"\r\n\r\n" not in data:  # pysam stops at a record without letters
        with pysam.FastxFile(str(path)) as judge:
            assert whole == [(one.name, one.sequence) for one in judge]
    assert not problems
    assert parse_in_pieces(FastqFormat(), data, [min(cut, len(data)) for cut in cuts])[:2] == (whole, marks)


GOOD = b"@a\nACGT\n+\nIIII\n"


@pytest.mark.parametrize(
    ("odd", "num_odd"),
    [
        (b"@b\nACGT\n+\nIII\n", 1),
        (b"junk\n", 1),
        (b"@b\nACGT\n", 1),
        (b"\n\n", 0),
        (b"@b\nACGT\n-\nIIII\n", 1),
        (b"\xff\xfe\n", 1),
    ],
)
def test_a_broken_fastq_record_costs_no_other(odd, num_odd):
    parsed = FastqFormat().parse(GOOD + odd + GOOD.replace(b"@a", b"@c"), final=True)
    names = [row[0] for row in rows(parsed)]
    assert [name for name in names if name is not None] == ["a", "c"]
    assert len(parsed.problems) == num_odd
    assert all(problem.reason == "malformed_record" for problem in parsed.problems.values())


@given(
    pieces=st.lists(st.sampled_from([GOOD, b"@b\nAC\n+\nI\n", b"junk\n", b"\n", b"@@@\n", b"+\n"]), max_size=8),
    cuts=st.lists(st.integers(0, 120), max_size=4),
)
def test_broken_fastq_parses_the_same_wherever_it_is_cut(pieces, cuts):
    data = b"".join(pieces)
    whole = parse_in_pieces(FastqFormat(), data, [])
    assert parse_in_pieces(FastqFormat(), data, [min(cut, len(data)) for cut in cuts])[:2] == whole[:2]


@given(
    pieces=st.lists(st.sampled_from([GOOD, b"@b\nAC\n+\nI\n", b"junk\n", b"\n", b"@@@\n"]), min_size=1, max_size=8),
)
def test_fastq_shards_hold_the_records_that_the_plan_gave_them(pieces):
    data = b"".join(pieces)
    parsed = FastqFormat().parse(data, final=True)
    marks = parsed.marks.tolist()
    again = [FastqFormat().parse(data[a:b], final=True) for a, b in pairwise(marks)]
    assert [one.num_records for one in again] == [1] * parsed.num_records
    assert [row for one in again for row in rows(one)] == rows(parsed)


def test_a_header_without_a_name_is_told():
    parsed = FastaFormat().parse(b">\nACGT\n> \nA\n>x\nC\n", final=True)
    assert sorted(parsed.problems) == [0, 1]
    assert rows(parsed)[2] == ("x", "C")


def test_labels_come_from_the_header():
    parsed = FastaFormat(r"^\S+ (.+)-[MSU]$").parse(b">a Cell.membrane-M\nM\n>b none\nM\n", final=True)
    assert parsed.columns["label"].to_pylist() == ["Cell.membrane", None]


CELLS = st.text('ab,"\t x', max_size=6)


@given(table=st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=8))
def test_quoted_lines_are_those_of_the_csv_module(table):
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows(table)
    data = stream.getvalue().encode()
    parsed = LinesFormat(("p", "q", "r"), ("q", "r"), ",").parse(data, final=True)
    wanted = [row for row in csv.reader(io.StringIO(data.decode())) if row]
    kept = [line for line in data.decode().splitlines() if line.strip()]
    assert parsed.num_records == len(kept)
    assert not parsed.problems
    assert rows(parsed) == [(row[1].strip(), row[2].strip()) for row in wanted if ",".join(row).strip()]


def test_lines_with_other_fields_or_open_quotes_are_problems():
    data = b'a,b,c\n\n1,2\n"open,2,3\n1,2,3,4\nx,"y,z",w\n'
    parsed = LinesFormat(("p", "q", "r"), ("q",), ",").parse(data, final=True)
    assert parsed.columns["q"].to_pylist() == ["b", None, None, None, "y,z"]
    assert sorted(parsed.problems) == [1, 2, 3]
    assert "2 fields where the table has 3" in parsed.problems[1].sentence
    assert "do not close" in parsed.problems[2].sentence


def test_tabs_know_no_quotes():
    parsed = LinesFormat(("p", "q"), ("p", "q"), "\t").parse(b'5" end\t"x\n', final=True)
    assert rows(parsed) == [('5" end', '"x')]


def test_bytes_that_are_no_text_keep_their_places():
    data = b">a\nAC\xffGT\n>b\nA\n"
    assert len(readable(data)) == len(data)
    parsed = FastaFormat().parse(data, final=True)
    assert rows(parsed) == [("a", "AC?GT"), ("b", "A")]
    assert parsed.marks.tolist() == [0, 9, 14]


@pytest.mark.parametrize("form", [FastaFormat(), FastqFormat(), LinesFormat(("a",), ("a",))])
def test_nothing_gives_no_records(form):
    assert form.parse(b"", final=False).num_records == 0
    parsed = form.parse(b"\n\n", final=True)
    assert parsed.num_records == 0
    assert np.array_equal(parsed.marks, [2])
