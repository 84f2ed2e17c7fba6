"""Genes by name: symbols, ids with and without version, several of one name, and names that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import InputError
from engine.genome.genes import GeneTable, Transcript
from engine.genome.reference import ReferenceGenome
from engine.io.gene_regions import gene_regions
from engine.io.regions import Region
from tests.toys.genome import write_fasta


def _transcript(gene_id: str, symbol: str, contig: str, start: int, end: int) -> Transcript:
    return Transcript("T", gene_id, symbol, contig, "+", start, end, ((start, end),), False, False, 0)


TABLE = GeneTable(
    [
        _transcript("ENSG07.12", "BRCA1", "1", 10, 20),
        _transcript("ENSG08.3", "CD99", "X", 5, 9),
        _transcript("ENSG08.3_PAR_Y", "CD99", "Y", 6, 9),
        _transcript("ENSG09.1", "TWICE", "1", 30, 40),
        _transcript("ENSG09.1", "TWICE", "1", 35, 50),
        _transcript("ENSG10.1", "ALT", "1", 60, 70),
        _transcript("ENSG11.1", "ALT", "1_alt", 60, 70),
        _transcript("ENSG12.1", "LOST", "1_alt", 80, 90),
        _transcript("2L52.1", "2L52", "1", 90, 95),
        _transcript("2L52.2", "other", "1", 95, 99),
    ]
)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> ReferenceGenome:
    path = write_fasta(tmp_path_factory.mktemp("genes") / "r.fa", dict.fromkeys(["chr1", "X", "Y"], "ACGT" * 30))
    return ReferenceGenome(path, contig_aliases={"1": "chr1"})


@pytest.mark.parametrize("name", ["BRCA1", "ENSG07.12", "ENSG07"])
def test_symbol_and_id(reference: ReferenceGenome, name: str) -> None:
    assert gene_regions(TABLE, [name], reference, path="g") == ([Region("chr1", 10, 20)], [])


def test_several_names_and_all_transcripts_of_a_gene(reference: ReferenceGenome) -> None:
    regions, notes = gene_regions(TABLE, ["TWICE", "BRCA1"], reference, path="g")
    assert regions == [Region("chr1", 30, 40), Region("chr1", 35, 50), Region("chr1", 10, 20)]
    assert notes == []


@pytest.mark.parametrize("name", ["CD99", "ENSG08"])
def test_all_genes_of_a_name_are_taken_and_said(reference: ReferenceGenome, name: str) -> None:
    regions, notes = gene_regions(TABLE, [name], reference, path="g")
    assert regions == [Region("X", 5, 9), Region("Y", 6, 9)]
    assert notes == [f"2 genes are named {name!r}, and all are taken: ENSG08.3 on X, ENSG08.3_PAR_Y on Y"]


def test_a_whole_name_goes_before_one_without_its_version(reference: ReferenceGenome) -> None:
    assert gene_regions(TABLE, ["2L52"], reference, path="g") == ([Region("chr1", 90, 95)], [])


def test_copies_off_the_reference_are_left_out_and_said(reference: ReferenceGenome) -> None:
    regions, notes = gene_regions(TABLE, ["ALT"], reference, path="g")
    assert regions == [Region("chr1", 60, 70)]
    assert notes == ["gene 'ALT' is also on contigs that the reference does not have: ENSG11.1 on 1_alt"]
    with pytest.raises(InputError, match="contig '1_alt' is not in the reference"):
        gene_regions(TABLE, ["LOST"], reference, path="g")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("brca1", r"^genes\.gtf: the annotation has no gene 'brca1'; did you mean BRCA1\?$"),
        ("BRCA2", r"did you mean BRCA1\?$"),
        ("ENSG07.11", r"did you mean ENSG07\.12"),
        ("????", r"give a symbol or gene id as the annotation has them, such as BRCA1$"),
    ],
)
def test_unknown_names(reference: ReferenceGenome, name: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        gene_regions(TABLE, ["CD99", name], reference, path="genes.gtf")


def test_every_toy_gene_lies_where_its_chosen_transcript_does(tmp_path: Path) -> None:
    from tests.toys.genome import make_genome

    toy = make_genome(tmp_path)
    table = GeneTable.load(toy.gencode_gtf)
    reference = ReferenceGenome(toy.fasta)
    for gene in toy.genes:
        (exons,) = (one.exons for one in gene.transcripts if one.transcript_id == gene.chosen)
        for name in (gene.symbol, gene.gene_id, gene.gene_id.split(".")[0]):
            regions, notes = gene_regions(table, [name], reference, path="g")
            assert (regions, notes) == ([Region(gene.contig, exons[0][0], exons[-1][1])], [])
