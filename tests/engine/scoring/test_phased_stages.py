"""Phased: each variant beside the other alleles of its copy, against references that have those alleles."""

from __future__ import annotations

import pysam
import pytest

from engine.errors import InputError
from engine.io.regions import Region
from engine.models._info import open_model
from tests.toys import genome
from tests.toys.variant_stages import make_world, run, stages_of


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A genome, its models and two VCFs: valid records, and all that is wrong beside them."""
    return make_world(tmp_path_factory.mktemp("stages"))


def test_an_allele_beside_another_scores_as_on_a_reference_that_has_it(world, tmp_path):
    """Phased, and in shards of their own: A beside B as A alone on a genome with B, for a deletion and an SNV."""
    _, toy, _ = world
    gene = toy.genes[0]
    at = gene.start + 300
    letters = toy.clean(gene.contig, at, at + 20)
    snv = (at, letters[0], "ACGT"["ACGT".index(letters[0]) - 1])
    deletion = (at + 2, letters[2:6], letters[2])

    def vcf(name, records):
        lines = [
            f"{gene.contig}\t{start + 1}\t.\t{ref}\t{alt}\t.\t.\t.\tGT:DP\t{call}:9"
            for start, ref, alt, call in records
        ]
        genome.write_vcf(tmp_path / name, lines, toy, num_samples=1)
        return str(tmp_path / name)

    def rows(outputs):
        return [row for one in outputs for row in one.table.to_pylist() if row["state"] == "scored"]

    phased = vcf("phased.vcf.gz", [(*snv, "0|1"), (*deletion, "1|1")])
    both = rows(run(stages_of(world, phased, model="random", phased=True), records_per_shard=1))
    written = toy.contigs[gene.contig]
    for name, other, own in (("a", deletion, snv), ("b", snv, deletion)):
        start, ref, alt = other
        # What follows a deletion moves up; bases are added at the end so that the contig keeps its length.
        changed = written[:start] + alt + written[start + len(ref) :] + "A" * (len(ref) - len(alt))
        genome.write_fasta(tmp_path / f"{name}.fa", {**toy.contigs, gene.contig: changed})
        shift = len(alt) - len(ref) if own[0] > start else 0
        alone_vcf = vcf(f"{name}.vcf.gz", [(own[0] + shift, *own[1:], "0|1")])
        (alone,) = rows(run(stages_of(world, alone_vcf, model="random", reference_path=str(tmp_path / f"{name}.fa"))))
        (row,) = [one for one in both if one["start"] == own[0] and one["transcript_id"] == alone["transcript_id"]]
        assert row["copy2_others"] == 1 and row["copy1_others"] == (0 if own == deletion else None)
        columns = ("ds_ag", "ds_al", "ds_dg", "ds_dl", "ds_max")
        for column in columns:
            assert row[f"copy2_{column}"] == pytest.approx(alone[column], abs=2e-5)
        alone_there = [row[column] for column in columns]
        assert [row[f"copy2_{column}"] for column in columns] != pytest.approx(alone_there, abs=1e-4), "B should matter"
    assert both[0]["copy1_ds_max"] is None


def test_an_allele_behind_a_deletion_longer_than_the_context_is_seen(world, tmp_path):
    """On the reference it is out of the model's sight, on the copy it is next door."""
    folder, toy, _ = world
    gene = toy.genes[0]
    at, num = gene.start + 300, open_model(folder / "random").context_bp + 100
    written = toy.contigs[gene.contig]
    other = dict(zip("ACGT", "CGTA", strict=True))
    own = (at, written[at].upper(), other[written[at].upper()])
    deletion = (at + 2, written[at + 2 : at + 3 + num].upper(), written[at + 2].upper())
    end = at + 3 + num
    behind = (end + 3, written[end + 3].upper(), other[written[end + 3].upper()])
    assert set("".join(one[1] for one in (own, deletion, behind))) <= set("ACGT")

    def copy_2(name, records, fasta):
        lines = [f"{gene.contig}\t{start + 1}\t.\t{ref}\t{alt}\t.\t.\t.\tGT:DP\t0|1:9" for start, ref, alt in records]
        path = str(genome.write_vcf(tmp_path / name, lines, toy, num_samples=1))
        stages = stages_of(world, path, model="random", phased=True, reference_path=str(fasta), params={"distance": 2})
        rows = [row for one in run(stages) for row in one.table.to_pylist() if row["start"] == at]
        assert {row["state"] for row in rows} == {"scored"}
        return [row["copy2_others"] for row in rows], [row["copy2_ds_max"] for row in rows]

    counts, found = copy_2("all.vcf.gz", [own, deletion, behind], toy.fasta)
    assert set(counts) == {2}
    copy = written[: at + 3] + written[end : end + 3] + behind[2] + written[end + 4 :] + "A" * num
    fasta = genome.write_fasta(tmp_path / "copy.fa", {**toy.contigs, gene.contig: copy})
    assert found == pytest.approx(copy_2("own.vcf.gz", [own], fasta)[1], abs=2e-5)
    assert found != pytest.approx(copy_2("two.vcf.gz", [own, deletion], toy.fasta)[1], abs=1e-4), "it should matter"


@pytest.mark.parametrize("is_indexed", [False, True])
def test_what_is_no_allele_of_the_reference_is_no_background(world, tmp_path, is_indexed):
    """A REF that is not the reference's and one that is too long are left out of the copy, which is said."""
    _, toy, _ = world
    gene = toy.genes[0]
    at = gene.start + 300
    letters = toy.clean(gene.contig, at, at + 50)
    other = dict(zip("ACGT", "CGTA", strict=True))
    own = (gene.contig, at, letters[0], other[letters[0]], "0|1")
    mismatch = (gene.contig, at + 2, other[letters[2]], letters[2], "1|1")
    long = (gene.contig, at + 4, letters[4:24], letters[4], "0|1")
    beside = (gene.contig, at + 30, letters[30], other[letters[30]], "0|1")
    foreign = ("elsewhere", at, "A", "C", "0|1")

    def rows(name, *records):
        lines = [
            f"{contig}\t{start + 1}\t.\t{ref}\t{alt}\t.\t.\t.\tGT:DP\t{call}:9"
            for contig, start, ref, alt, call in records
        ]
        path = genome.write_vcf(tmp_path / name, lines, toy, num_samples=1)
        if is_indexed:
            pysam.tabix_index(str(path), preset="vcf", force=True)
        stages = stages_of(
            world,
            str(path),
            model="random",
            phased=True,
            params={"max_allele_length": 19},
            regions=(Region(gene.contig, at, at + 1),),
        )
        found = [row for one in run(stages) for row in one.table.to_pylist()]
        return [{**row, "flags": ""} for row in found], {row["flags"] for row in found}

    plain, none = rows("plain.vcf.gz", own, beside)
    assert none == {""} and {row["copy2_others"] for row in plain} == {1}
    for name, odd in (("mismatch", mismatch), ("long", long)):
        found, flags = rows(f"{name}.vcf.gz", own, odd, beside, foreign)
        assert (found, flags) == (plain, {"copy2_rejected_allele"})


def test_phased_says_what_it_needs(world, tmp_path):
    _, toy, records = world
    with pytest.raises(InputError, match="2 samples, and copies are read of one; name one with --sample"):
        stages_of(world, phased=True).open_reader()
    with pytest.raises(InputError, match="the scorer gc_change has no phased form"):
        stages_of(world, phased=True, scorer="gc_change").open_component()
    genome.write_vcf(tmp_path / "none.vcf.gz", records[:3], toy)
    with pytest.raises(InputError, match="no samples"):
        stages_of(world, str(tmp_path / "none.vcf.gz"), phased=True).open_reader()
