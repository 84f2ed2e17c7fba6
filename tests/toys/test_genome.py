"""The toy genome is the same for the same seed and is what it says: htslib reads its VCF without a word."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pysam
import pytest

from tests.toys.genome import ToyRecord, bad_records, make_genome, random_records, toy_records, write_vcf


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    one, two = make_genome(tmp_path / "one"), make_genome(tmp_path / "two")
    names = sorted(path.name for path in one.folder.iterdir())
    assert len(names) == 7
    assert all((one.folder / name).read_bytes() == (two.folder / name).read_bytes() for name in names)
    assert make_genome(tmp_path / "three", seed=8).fasta.read_bytes() != one.fasta.read_bytes()
    assert random_records(one, 50, seed=2) == random_records(two, 50, seed=2)


def test_chosen_introns_have_their_splice_sites(tmp_path: Path) -> None:
    toy = make_genome(tmp_path)
    for gene in toy.genes:
        exons = next(t for t in gene.transcripts if t.transcript_id == gene.chosen).exons
        for (_, start), (end, _) in pairwise(exons):
            edges = toy.clean(gene.contig, start, start + 2) + toy.clean(gene.contig, end - 2, end)
            assert edges == ("GTAG" if gene.strand == "+" else "CTAC"), gene.symbol


@pytest.mark.parametrize("num_samples", [0, 2])
def test_records_are_sorted_and_fit_the_genome(tmp_path: Path, num_samples: int) -> None:
    toy = make_genome(tmp_path)
    order = list(toy.contigs)
    for records in (toy_records(toy), random_records(toy, 300), bad_records(toy)):
        keys = [(order.index(record.contig), record.pos) for record in records]
        assert keys == sorted(keys)
        path = write_vcf(tmp_path / "x.vcf.gz", records, toy, num_samples=num_samples)
        with pysam.VariantFile(str(path)) as judge:
            assert [(r.contig, r.pos, r.ref) for r in judge] == [(r.contig, r.pos, r.ref) for r in records]
    for record in [*toy_records(toy), *random_records(toy, 300)]:
        assert toy.clean(record.contig, record.pos - 1, record.pos - 1 + len(record.ref)) == record.ref.upper()
        assert len(record.expected) == len(record.alts), record.kind


def test_plain_text_and_ready_lines(tmp_path: Path) -> None:
    toy = make_genome(tmp_path)
    record = ToyRecord("chr1", 5, "A", ("C",), "x", ("",))
    path = write_vcf(tmp_path / "x.vcf", ["ready\tline", record], toy, with_contigs=False)
    text = path.read_text()
    assert "##contig" not in text
    assert text.endswith("ready\tline\nchr1\t5\t.\tA\tC\t29.10\tPASS\tKIND=x;AF=0.00010\n")
