"""Genes from all dialects against the toy's truth, the choice of transcript, look-up by place, and bad files."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import random
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError
from engine.genome.genes import GeneTable, Transcript
from tests.toys.genome import ToyGenome

FILES = ["ensembl_gtf", "gencode_gtf", "ensembl_gff3", "refseq_gff3", "spliceai_table"]


def _row(feature: str, start: int, end: int, keys: str, *, contig: str = "1", strand: str = "+") -> str:
    return f"{contig}\tx\t{feature}\t{start}\t{end}\t.\t{strand}\t.\t{keys}\n"


def _gtf(gene: str, transcript: str, more: str = "") -> str:
    return f'gene_id "{gene}"; transcript_id "{transcript}";{more}'


def _load(folder: Path, text: str, *, all_transcripts: bool = False) -> GeneTable:
    path = folder / "genes.txt"
    path.write_text(text)
    return GeneTable.load(path, all_transcripts=all_transcripts)


# Dialects


@pytest.mark.parametrize("name", FILES)
def test_every_dialect_tells_the_same_genes(toy: ToyGenome, name: str) -> None:
    table = GeneTable.load(getattr(toy, name))
    truth = [(gene, next(t for t in gene.transcripts if t.transcript_id == gene.chosen)) for gene in toy.genes]
    assert [(t.symbol, t.contig, t.strand, t.exons) for t in table.transcripts] == [
        (gene.symbol, gene.contig, gene.strand, t.exons) for gene, t in truth
    ]
    assert all((t.start, t.end) == (t.exons[0][0], t.exons[-1][1]) for t in table.transcripts)
    assert table.num_genes == len(toy.genes)
    assert table.contigs == {"chr1", "chr2", "chr3"}
    assert table.notes == []


@pytest.mark.parametrize("name", FILES[:4])
def test_transcript_ids_marks_and_coding_length(toy: ToyGenome, name: str) -> None:
    table = GeneTable.load(getattr(toy, name), all_transcripts=True)
    truth = [t for gene in toy.genes for t in gene.transcripts]
    assert [(t.transcript_id, t.exons, t.is_mane_select, t.cds_length) for t in table.transcripts] == [
        (t.transcript_id, t.exons, t.is_mane_select, t.cds_length) for t in truth
    ]
    # RefSeq marks MANE Select or RefSeq Select, not both.
    expected = [t.is_canonical and not (name == "refseq_gff3" and t.is_mane_select) for t in truth]
    assert [t.is_canonical for t in table.transcripts] == expected
    assert table.num_genes == len(toy.genes)


@pytest.mark.parametrize("name", ["ensembl_gtf", "gencode_gtf", "ensembl_gff3"])
def test_gene_ids_carry_their_version(toy: ToyGenome, name: str) -> None:
    assert [t.gene_id for t in GeneTable.load(getattr(toy, name)).transcripts] == [gene.gene_id for gene in toy.genes]


def test_digest_is_of_the_file_as_it_lies_there(toy: ToyGenome) -> None:
    assert GeneTable.load(toy.gencode_gtf).digest == hashlib.sha256(toy.gencode_gtf.read_bytes()).hexdigest()


def test_spliceai_table_keeps_its_own_bounds_and_rows(tmp_path: Path) -> None:
    header = "#NAME\tCHROM\tSTRAND\tTX_START\tTX_END\tEXON_START\tEXON_END\n"
    rows = "A\t1\t-\t100\t400\t120,300,\t200,400,\nB\t1\t+\t150\t160\t150,\t160,\nA\t1\t+\t900\t990\t900\t990\n"
    table = _load(tmp_path, header + rows)
    assert [(t.symbol, t.start, t.end, t.exons) for t in table.transcripts] == [
        ("A", 100, 400, ((120, 200), (300, 400))),
        ("B", 150, 160, ((150, 160),)),
        ("A", 900, 990, ((900, 990),)),
    ]
    # SpliceAI 1.3.1 takes a gene where TX_START + 1 <= POS <= TX_END.
    assert [bool(table.transcripts_at("1", pos - 1)) for pos in (100, 101, 400, 401)] == [False, True, True, False]


@pytest.mark.parametrize("feature", ["transcript", "mRNA"])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_transcript_row_may_be_wider_than_its_exons(tmp_path: Path, feature: str, *, is_first: bool) -> None:
    """Its ends are the transcript's, so that the outer edges of the exons told are not taken for its ends."""
    rows = [_row(feature, 11, 90, _gtf("G", "T")), _row("exon", 31, 40, _gtf("G", "T"))]
    (gtf,) = _load(tmp_path, "".join(rows if is_first else rows[::-1])).transcripts
    rows = [_row(feature, 11, 90, "ID=t;Parent=g"), _row("gene", 1, 99, "ID=g"), _row("exon", 31, 40, "Parent=t")]
    (gff3,) = _load(tmp_path, "##gff-version 3\n" + "".join(rows if is_first else rows[::-1])).transcripts
    assert [(t.start, t.end, t.exons) for t in (gtf, gff3)] == [(10, 90, ((30, 40),))] * 2


def test_ends_told_too_narrow_or_of_a_gene_are_those_of_the_exons(tmp_path: Path) -> None:
    text = _row("transcript", 35, 36, _gtf("G", "T")) + _row("exon", 31, 40, _gtf("G", "T"))
    (narrow,) = _load(tmp_path, text).transcripts
    text = "##gff-version 3\n" + _row("gene", 1, 99, "ID=g") + _row("exon", 31, 40, "Parent=g")
    (of_gene,) = _load(tmp_path, text).transcripts
    assert [(t.start, t.end) for t in (narrow, of_gene)] == [(30, 40)] * 2


def test_gtf_of_exon_rows_alone(tmp_path: Path) -> None:
    text = _row("exon", 11, 20, 'transcript_id "T1"; gene_id "G";') + _row("exon", 1, 5, "transcript_id T1; gene_id G")
    (transcript,) = _load(tmp_path, text).transcripts
    assert (transcript.transcript_id, transcript.symbol, transcript.exons) == ("T1", "G", ((0, 5), (10, 20)))


def test_refseq_gtf_and_one_id_on_two_contigs(tmp_path: Path) -> None:
    keys = 'gene_id "CD99"; transcript_id "NM_002414.5"; gene "CD99"; tag "MANE Select";'
    text = _row("gene", 1, 50, 'gene_id "CD99"; transcript_id ""; gene "CD99";', contig="X")
    text += _row("exon", 1, 50, keys, contig="X") + _row("exon", 7, 60, keys, contig="Y")
    table = _load(tmp_path, text)
    assert [(t.contig, t.start, t.is_mane_select) for t in table.transcripts] == [("X", 0, True), ("Y", 6, True)]
    assert table.num_genes == 2


def test_gff3_rows_in_any_order(toy: ToyGenome, tmp_path: Path) -> None:
    lines = [line for line in toy.ensembl_gff3.read_text().splitlines(keepends=True) if not line.startswith("#")]
    random.Random(5).shuffle(lines)
    table = _load(tmp_path, "##gff-version 3\n" + "".join(lines), all_transcripts=True)
    ordered = GeneTable.load(toy.ensembl_gff3, all_transcripts=True)
    assert sorted(map(repr, table.transcripts)) == sorted(map(repr, ordered.transcripts))


@pytest.mark.parametrize("feature", ["exon", "CDS", "mRNA", "gene"])
def test_gff3_rows_that_were_commented_out_are_none(tmp_path: Path, feature: str) -> None:
    rows = [_row("gene", 1, 90, "ID=g"), _row("mRNA", 1, 90, "ID=t;Parent=g"), _row("exon", 31, 40, "Parent=t")]
    keys = {"mRNA": "ID=u;Parent=g", "gene": "ID=g"}.get(feature, "Parent=t")
    plain = _load(tmp_path, "##gff-version 3\n" + "".join(rows))
    noted = _load(tmp_path, "##gff-version 3\n" + "".join(rows) + "#" + _row(feature, 50, 99, keys))
    assert noted.transcripts == plain.transcripts


def test_gff3_shared_exons_nested_rows_escapes_and_sequence_at_the_end(tmp_path: Path) -> None:
    text = "##gff-version 3\n"
    text += _row("gene", 1, 90, "ID=Gene:W1;Name=unc%2D1", contig="chr%3A1")
    text += _row("mRNA", 1, 90, "ID=Transcript:a;Parent=Gene:W1", contig="chr%3A1")
    text += _row("mRNA", 1, 40, "ID=Transcript:b;Parent=Gene:W1", contig="chr%3A1")
    text += _row("exon", 1, 40, "Parent=Transcript:a,Transcript:b", contig="chr%3A1")
    text += _row("exon", 60, 90, "Note=x;Parent=Transcript:a", contig="chr%3A1")
    text += _row("miRNA", 3, 9, "ID=rna-m;Parent=Transcript:b", contig="chr%3A1")
    text += _row("exon", 3, 9, "Parent=rna-m", contig="chr%3A1")
    text += _row("CDS", 5, 9, "Parent=Transcript:b", contig="chr%3A1")
    text += _row("exon", 5, 9, "Note=nobody's", contig="chr%3A1")
    table = _load(tmp_path, text + "##FASTA\n>chr1\nACGT\n", all_transcripts=True)
    assert [(t.transcript_id, t.exons, t.cds_length) for t in table.transcripts] == [
        ("a", ((0, 40), (59, 90)), 0),
        ("b", ((0, 40),), 5),
        ("m", ((2, 9),), 0),
    ]
    assert {(t.gene_id, t.symbol, t.contig) for t in table.transcripts} == {("W1", "unc-1", "chr:1")}


def test_overlapping_exon_rows_are_one_exon_and_touching_ones_two(tmp_path: Path) -> None:
    spans = [(50, 60), (1, 10), (5, 20), (21, 30), (1, 10)]
    table = _load(tmp_path, "".join(_row("exon", *span, _gtf("G", "T")) for span in spans))
    assert table.transcripts[0].exons == ((0, 20), (20, 30), (49, 60))


# Choice of transcript


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ({"T1": "", "T2": ' tag "MANE_Select";', "T3": ' tag "Ensembl_canonical";'}, "T2"),
        ({"T1": "", "T2": ' tag "MANE_Plus_Clinical";', "T3": ' tag "Ensembl_canonical";'}, "T3"),
        ({"T1": "", "T2": "", "T3": ""}, "T3"),
        ({"T2": "", "T1": ""}, "T1"),
    ],
)
def test_choice(tmp_path: Path, marks: dict[str, str], expected: str) -> None:
    text = ""
    for name, mark in marks.items():
        text += _row("transcript", 1, 90, _gtf("G", name, mark)) + _row("exon", 1, 90, _gtf("G", name))
        text += _row("CDS", 1, 60 if name == "T3" else 30, _gtf("G", name))
    (chosen,) = _load(tmp_path, text).transcripts
    assert chosen.transcript_id == expected
    assert len(_load(tmp_path, text, all_transcripts=True).transcripts) == len(marks)


# Look-up


def _transcript(number: int, contig: str, start: int, end: int) -> Transcript:
    return Transcript(f"T{number}", f"G{number}", "S", contig, "+", start, end, ((start, end),), False, False, 0)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30), st.integers(1, 20)), max_size=12))
def test_look_up_agrees_with_a_plain_scan(spans: list[tuple[str, int, int]]) -> None:
    transcripts = [_transcript(i, contig, at, at + size) for i, (contig, at, size) in enumerate(spans)]
    table = GeneTable(transcripts)
    for contig in "abc":
        for start in range(-1, 55):
            expected = [t for t in transcripts if t.contig == contig and t.start <= start < t.end]
            assert table.transcripts_at(contig, start) == expected


def test_look_up_hands_out_its_own_list(toy: ToyGenome) -> None:
    table = GeneTable.load(toy.ensembl_gtf)
    table.transcripts_at("chr1", 1_100).clear()
    assert [t.symbol for t in table.transcripts_at("chr1", 1_100)] == ["TOYA"]
    assert table.transcripts_at("1", 1_100) == []


def test_pickled_table_answers_the_same(toy: ToyGenome) -> None:
    table = GeneTable.load(toy.ensembl_gtf)
    table.transcripts_at("chr1", 0)
    copy = pickle.loads(pickle.dumps(table))
    assert copy.transcripts == table.transcripts
    assert copy.transcripts_at("chr1", 4_120) == table.transcripts_at("chr1", 4_120)
    assert copy.digest == table.digest


# Bad files


GTF_ROW = _row("exon", 1, 10, _gtf("G", "T"))
SPLICEAI = "#NAME\tCHROM\tSTRAND\tTX_START\tTX_END\tEXON_START\tEXON_END\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty or holds comments only"),
        ("# only\n\n", "empty or holds comments only"),
        ("chr1\t10\t20\n", r"line 1 is neither GTF, GFF3 nor SpliceAI annotation \(3 columns\)"),
        (">chr1\nACGT\n", "line 1 is neither GTF"),
        (GTF_ROW + "chr1\tx\texon\n", r"line 2: 3 columns where GTF has 9"),
        (GTF_ROW + _row("exon", 9, 3, _gtf("G", "T")), r"line 2: start '9' and end '3' are no range"),
        (GTF_ROW + _row("exon", 0, 3, _gtf("G", "T")), r"line 2: start '0' and end '3' are no range"),
        (GTF_ROW.replace("\t10\t", "\tten\t"), r"line 1: start '1' and end 'ten' are no range"),
        (GTF_ROW + _row("exon", 1, 3, 'gene_id "G";'), "line 2: a row of type exon without transcript_id"),
        (GTF_ROW + _row("exon", 1, 3, 'gene_id "G"; transcript_id "";'), "line 2: .* without transcript_id"),
        (_row("exon", 1, 3, 'transcript_id "T";'), "line 1: a transcript without gene_id"),
        (GTF_ROW + _row("transcript", 1, 3, _gtf("G", "T2")), "line 2: transcript 'T2' of gene 'G' has no exon rows"),
        (_row("exon", 1, 3, 'Gene "WBGene0001"'), "line 1: a row of type exon without transcript_id"),
        (_row("gene", 1, 3, 'gene_id "G"'), "GTF file names no transcript with exons"),
        (_row("exon", 1, 3, "ID=e1"), "GFF3 file names no transcript with exons.*Parent in GFF3"),
        (_row("gene", 1, 3, "ID=Gene:WBGene1"), "GFF3 file names no transcript with exons"),
        (_row("exon", 1, 3, "Parent=t1"), "line 1: the row names the parent 't1', which the file has not"),
        (_row("mRNA", 1, 3, "ID=t1"), "line 1: mRNA 't1' has no exon rows"),
        (_row("mRNA", 1, 3, "ID=t1") + "chr1\t1\t2\n", "line 2: 3 columns where GFF3 has 9"),
        (_row("exon", 1, 3, _gtf("G", "T"), strand="."), "names no transcript with exons and a strand"),
        (SPLICEAI + "A\t1\t+\t1\t9\n", "line 2: 5 columns where the SpliceAI annotation has 7"),
        (SPLICEAI + "A\t1\t+\t1\t9\t1,x,\t5,9,\n", "line 2: gene 'A' has a coordinate that is no whole number"),
        (SPLICEAI + "A\t1\t+\t1\t9\t1,5,\t9,\n", "line 2: gene 'A' has 2 exon starts and 1 exon ends"),
        (SPLICEAI + "A\t1\t+\t1\t9\t\t\n", "line 2: gene 'A' has 0 exon starts"),
        (SPLICEAI + "A\t1\t+\t1\t9\t7,\t3,\n", "line 2: gene 'A' has an exon that ends before it starts"),
        (SPLICEAI + "A\t1\t+\t4\t9\t1,\t9,\n", "line 2: gene 'A' has exons outside its 4 to 9"),
        (SPLICEAI, "names no transcript with exons"),
    ],
)
def test_bad_file_is_one_clear_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        _load(tmp_path, text)
    assert "genes.txt" in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("rows", "note"),
    [
        (_row("exon", 1, 3, _gtf("G2", "T2"), strand="."), "1 transcripts left out: exons without a strand"),
        (
            _row("exon", 1, 3, _gtf("G2", "T2")) + _row("exon", 8, 9, _gtf("G2", "T2"), strand="-"),
            "exons without a strand or on two .*'T2', line 2",
        ),
        (_row("CDS", 1, 3, _gtf("G2", "T2")), "CDS rows but no exon rows .*'T2', line 2"),
    ],
)
def test_what_cannot_be_placed_is_left_out_and_said(tmp_path: Path, rows: str, note: str) -> None:
    table = _load(tmp_path, GTF_ROW + rows)
    assert [t.transcript_id for t in table.transcripts] == ["T"]
    (found,) = table.notes
    assert re.search(note, found)


def test_truncated_or_absent_file(toy: ToyGenome, tmp_path: Path) -> None:
    whole = gzip.compress(toy.ensembl_gtf.read_bytes() * 30)
    path = tmp_path / "short.gtf.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"short\.gtf\.gz: the compressed gene annotation is truncated"):
        GeneTable.load(path)
    path.write_bytes(whole[:40] + b"\xff" * 40 + whole[80:])
    with pytest.raises(InputError, match="truncated or corrupt"):
        GeneTable.load(path)
    with pytest.raises(InputError, match=r"none\.gtf: cannot read the gene annotation: No such file"):
        GeneTable.load(tmp_path / "none.gtf")


@given(st.binary(max_size=200))
def test_any_bytes_give_a_sentence_or_a_table(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(GTF_ROW.encode() + content)
        try:
            GeneTable.load(path)
        except InputError as error:
            assert str(path) in str(error)
