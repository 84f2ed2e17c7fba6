from __future__ import annotations

import pytest

from engine.errors import InputError
from engine.genome.reference import ReferenceGenome
from engine.genome.variants import VariantRecord
from engine.io.source import RawRecord
from engine.scoring._variant_checks import ReferenceCheck, check_contigs, check_info_keys, check_kept_keys
from tests.toys.genome import write_fasta

HEADER = b'##fileformat=VCFv4.3\n##INFO=<ID=PSI,Number=1,Type=Float,Description="x">\n#CHROM\n'


def test_an_info_key_that_the_header_has_not_stops_the_run():
    check_info_keys((), b"#CHROM\n", path="in.vcf")
    check_info_keys(("PSI",), HEADER, path="in.vcf")
    with pytest.raises(InputError, match=r"^in\.vcf: the scorer reads INFO/PSL, .*declares \(PSI\)"):
        check_info_keys(("PSI", "PSL"), HEADER, path="in.vcf")
    with pytest.raises(InputError, match=r"declares \(none\)"):
        check_info_keys(("PSI",), b"#CHROM\n", path="in.vcf")


def test_a_kept_info_key_that_the_header_has_not_stops_the_run():
    check_kept_keys(("PSI",), HEADER, path="in.vcf")
    words = (
        r"^in\.vcf: --keep-info asks for INFO/PSL, which the header does not declare; did you mean 'PSI'\? it .* PSI$"
    )
    with pytest.raises(InputError, match=words):
        check_kept_keys(("PSI", "PSL"), HEADER, path="in.vcf")
    with pytest.raises(InputError, match=r"INFO/NOPE, .*; it declares none$"):
        check_kept_keys(("NOPE",), b"#CHROM\n", path="in.vcf")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return ReferenceGenome(write_fasta(tmp_path_factory.mktemp("checks") / "r.fa", {"c": "A" * 10 + "N" * 5}))


def test_records_on_an_absent_contig_may_be_left_out_by_regions(reference):
    words = "contig 'decoy' is not in the reference, which has 'c'; use the matching FASTA, or score .* with -r, as in"
    with pytest.raises(InputError, match=words):
        check_contigs({"c": 3, "decoy": 1}, HEADER, reference)
    with pytest.raises(InputError, match=words):
        ReferenceCheck(reference)(RawRecord(0, b"", VariantRecord("decoy", 0, ".", "A", ("G",))))


def judge(reference, num, wrong, *, other=()):
    """Records of which the first `wrong` say C where the reference has A."""
    check = ReferenceCheck(reference)
    for number, ref in enumerate(["C"] * wrong + ["A"] * (num - wrong) + list(other)):
        start = 10 if ref == "T" else 0
        check(RawRecord(number, b"", VariantRecord("c", start, ".", ref, ("G",))))
    check.finish()


@pytest.mark.parametrize(
    ("num", "wrong"),
    [
        (1, 0), (3, 1), (4, 1), (5, 2), (6, 2), (100, 2), (200, 2),  # below the floor
        (300, 3), (1_000, 10), (10_000, 100),  # one in a hundred is not more
    ],
)  # fmt: skip
def test_few_mismatches_are_the_records_fault(reference, num, wrong):
    judge(reference, num, wrong)


@pytest.mark.parametrize(
    ("num", "wrong"),
    [
        (1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (6, 3), (100, 3), (299, 3),  # half of a very short input, else three
        (1_000, 11), (10_000, 101),
    ],
)  # fmt: skip
def test_more_mean_the_wrong_reference(reference, num, wrong):
    words = rf"REF differs from the reference in {wrong:,} of the first {num:,} records \(c:1 has C, reference A"
    with pytest.raises(InputError, match=words):
        judge(reference, num, wrong)


def test_what_is_no_base_or_unknown_in_the_reference_does_not_count(reference):
    """T where the reference has N agrees; a dot or an R is not looked at, on either side of the fraction."""
    judge(reference, 4, 1, other="T")
    with pytest.raises(InputError, match=r"in 2 of the first 3 records"):
        judge(reference, 3, 2, other=".R")
