"""Kinds of alleles, trimming, and the normal form with bcftools norm as judge."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.genome.variants import classify_alt, normalise, trim
from schemas.states import NOT_APPLICABLE, NOT_APPLICABLE_REASONS, REJECT_REASONS, REJECTED
from tests.toys.genome import make_genome, toy_records, write_fasta

repeats = st.text("AC", min_size=12, max_size=40)
alleles = st.text("ACGT", min_size=1, max_size=7)


def _fetch(sequence: str) -> Callable[[str, int, int], str]:
    def fetch(contig: str, start: int, end: int) -> str:
        return "".join(sequence[i] if 0 <= i < len(sequence) else "N" for i in range(start, end))

    return fetch


def _applied(sequence: str, start: int, ref: str, alt: str) -> str:
    assert sequence[start : start + len(ref)] == ref
    return sequence[:start] + alt + sequence[start + len(ref) :]


@pytest.mark.parametrize(
    ("ref", "alt", "expected"),
    [
        ("A", "C", None),
        ("a", "c", None),
        ("ACG", "A", None),
        ("A", "ACG", None),
        ("ACG", "TTTT", None),
        ("N", "A", None),
        ("A", "R", None),
        ("A", "*", (NOT_APPLICABLE, "star_allele")),
        ("A", "<NON_REF>", (NOT_APPLICABLE, "reference_only")),
        ("A", "<*>", (NOT_APPLICABLE, "reference_only")),
        ("A", ".", (NOT_APPLICABLE, "reference_only")),
        ("A", "<DEL>", (REJECTED, "symbolic_allele")),
        ("A", "<INS:ME:ALU>", (REJECTED, "symbolic_allele")),
        ("A", "A<ctg1>", (REJECTED, "symbolic_allele")),
        ("G", "G]17:198982]", (REJECTED, "breakend")),
        ("G", "[chr1:5[G", (REJECTED, "breakend")),
        ("G", "]<ctg1>:7]G", (REJECTED, "breakend")),
        ("G", "G.", (REJECTED, "breakend")),
        ("G", ".ACG", (REJECTED, "breakend")),
        ("A", "Q", (REJECTED, "bad_allele")),
        ("A", "", (REJECTED, "bad_allele")),
        ("A", "A C", (REJECTED, "bad_allele")),
        ("A", "C\n", (REJECTED, "bad_allele")),
        ("", "A", (REJECTED, "bad_allele")),
        (".", "A", (REJECTED, "bad_allele")),
        ("A", "A", (REJECTED, "alt_equals_ref")),
        ("acG", "ACg", (REJECTED, "alt_equals_ref")),
    ],
)
def test_kind_of_allele(ref: str, alt: str, expected: tuple[str, str] | None) -> None:
    assert classify_alt(ref, alt) == expected


@given(st.text(max_size=6), st.text(max_size=6))
def test_every_text_has_a_known_reason(ref: str, alt: str) -> None:
    found = classify_alt(ref, alt)
    if found is not None:
        assert found[1] in {NOT_APPLICABLE: NOT_APPLICABLE_REASONS, REJECTED: REJECT_REASONS}[found[0]]


def test_toy_records_are_classified_as_the_builder_says(tmp_path: Path) -> None:
    for record in toy_records(make_genome(tmp_path)):
        found = tuple((classify_alt(record.ref, alt) or ("", ""))[1] for alt in record.alts)
        assert found == record.expected, record.kind


@pytest.mark.parametrize(
    ("ref", "alt", "expected"),
    [
        ("A", "C", (0, "A", "C")),
        ("CAG", "CTG", (1, "A", "T")),
        ("cag", "Ctg", (1, "A", "T")),
        ("CA", "C", (1, "A", "")),
        ("C", "CA", (1, "", "A")),
        # The suffix goes first, but the anchor base that VCF wrote stays.
        ("AAAA", "AA", (1, "AA", "")),
        ("A", "AA", (1, "", "A")),
        ("CAA", "CAAA", (1, "", "A")),
        ("AC", "AAC", (1, "", "A")),
        # Anchored behind, as at the start of a contig.
        ("GA", "A", (0, "G", "")),
        ("A", "GTA", (0, "", "GT")),
        ("ACGT", "TTGG", (0, "ACGT", "TTGG")),
        ("TACG", "TGGG", (1, "AC", "GG")),
        ("A", "A", (1, "", "")),
    ],
)
def test_trim(ref: str, alt: str, expected: tuple[int, str, str]) -> None:
    assert trim(ref, alt) == expected


@given(alleles, alleles, st.text("ACGT", max_size=5), st.text("ACGT", max_size=5))
def test_padding_does_not_change_what_is_trimmed_to(ref: str, alt: str, left: str, right: str) -> None:
    shift, short_ref, short_alt = trim(left + ref + right, left + alt + right)
    padded = left + ref + right
    assert padded[:shift] + short_alt + padded[shift + len(short_ref) :] == left + alt + right
    assert (len(short_ref), len(short_alt)) == tuple(map(len, trim(ref, alt)[1:]))


@st.composite
def placed(draw: st.DrawFn) -> tuple[str, int, str, str]:
    sequence = draw(repeats)
    start = draw(st.integers(0, len(sequence) - 1))
    end = draw(st.integers(start + 1, min(len(sequence), start + 6)))
    alt = draw(alleles.filter(lambda text: text != sequence[start:end]))
    return sequence, start, sequence[start:end], alt


@given(placed())
def test_normal_form_makes_the_same_sequence_and_is_stable(case: tuple[str, int, str, str]) -> None:
    sequence, start, ref, alt = case
    normal = normalise("c", start, ref, alt, _fetch(sequence))
    assert _applied(sequence, *normal) == _applied(sequence, start, ref, alt)
    assert normalise("c", *normal, _fetch(sequence)) == normal
    assert normal[1] and normal[2]


@given(placed())
def test_all_spellings_of_an_indel_share_one_normal_form(case: tuple[str, int, str, str]) -> None:
    sequence, start, ref, alt = case
    made = _applied(sequence, start, ref, alt)
    normal = normalise("c", start, ref, alt, _fetch(sequence))
    if "" not in trim(ref, alt)[1:]:
        return
    size = len(made) - len(sequence)
    for at in range(len(sequence)):
        for num_ref in (1, 1 - size):
            spelled = sequence[at : at + num_ref], made[at : at + num_ref + size]
            if num_ref > 0 and num_ref + size > 0 and spelled[0] and _applied(sequence, at, *spelled) == made:
                assert normalise("c", at, *spelled, _fetch(sequence)) == normal


def test_deletion_slides_through_a_long_repeat() -> None:
    sequence = "G" + "CA" * 5_000 + "T"
    assert normalise("c", 9_997, "CAC", "C", _fetch(sequence)) == (0, "GCA", "G")


@pytest.mark.parametrize(
    ("sequence", "given", "expected"),
    [
        # A deleted A beside Ns: what the N is nobody knows, so the A stays where it is.
        ("TANNAAG", (4, "AA", "A"), (3, "NA", "N")),
        # A deleted N between Ns stays as well.
        ("TNNNG", (2, "NN", "N"), (2, "NN", "N")),
        ("TNNNG", (1, "NN", "N"), (1, "NN", "N")),
        # A moved sequence that holds an N may slide over its bases up to the N.
        ("GNANAT", (2, "ANA", "A"), (1, "NAN", "N")),
    ],
)
def test_no_allele_slides_over_an_n(sequence: str, given: tuple[int, str, str], expected: tuple[int, str, str]) -> None:
    assert normalise("c", *given, _fetch(sequence)) == expected


def test_long_alleles_rotate_while_sliding() -> None:
    unit = "ACGGT"
    sequence = "T" + unit * 40 + "G"
    start = 1 + 5 * 20 + 2
    ref = sequence[start : start + 11]
    assert normalise("c", start, ref, ref[:1], _fetch(sequence)) == (0, "T" + unit * 2, "T")


def test_snv_needs_no_reference() -> None:
    def fetch(contig: str, start: int, end: int) -> str:
        raise AssertionError("read the reference")

    assert normalise("c", 7, "cag", "ctg", fetch) == (8, "A", "T")
    assert normalise("c", 7, "CA", "TGG", fetch) == (7, "CA", "TGG")


@pytest.mark.parametrize("seed", [1, 2])
def test_bcftools_norm_agrees(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    pieces = [
        rng.choice(["A" * 9, "CA" * 6, "ACG" * 5, "TTTG" * 3, "".join(rng.choices("ACGT", k=8))]) for _ in range(60)
    ]
    contigs = {"c1": "".join(pieces), "c2": "CACACACACACAG"}
    fasta = write_fasta(tmp_path / "r.fa", contigs)
    # At the very start of a contig the anchor can only stand behind the change.
    cases = {f"s{num}": ("c1", 0, contigs["c1"][: num + 1], contigs["c1"][num]) for num in range(1, 12)}
    cases |= {f"i{num}": ("c1", 0, contigs["c1"][0], "GATTACA"[:num] + contigs["c1"][0]) for num in range(1, 8)}
    while len(cases) < 1_500:
        contig = rng.choices(["c1", "c2"], [4, 1])[0]
        sequence = contigs[contig]
        start = rng.randrange(len(sequence))
        ref = sequence[start : start + rng.randint(1, 8)]
        alt = (
            "".join(rng.choices("ACGT", k=rng.randint(1, 6)))
            if rng.random() < 0.3
            else _indel(rng, sequence, start, ref)
        )
        if alt and alt != ref:
            cases[f"v{len(cases)}"] = (contig, start, ref, alt)
    found = _bcftools_norm(tmp_path, fasta, contigs, cases)
    assert any(
        start == 0 and len(ref) != len(alt) and ref[0] != alt[0] and ref[-1] == alt[-1]
        for start, ref, alt in found.values()
    )
    for name, (contig, start, ref, alt) in cases.items():
        ours = normalise(contig, start, ref, alt, _fetch(contigs[contig]))
        assert ours == found[name], (contig, start, ref, alt)


def _indel(rng: random.Random, sequence: str, start: int, ref: str) -> str:
    """An ALT that keeps the anchor and repeats or drops a piece of what follows, so that it can slide."""
    if rng.random() < 0.5:
        return ref[0] + sequence[start + 1 : start + rng.randint(2, 6)] + ref[1:]
    return ref[: rng.randint(1, len(ref))] + ref[len(ref) - rng.randint(0, len(ref) - 1) :][1:]


def _bcftools_norm(
    folder: Path, fasta: Path, contigs: dict[str, str], cases: dict[str, tuple[str, int, str, str]]
) -> dict[str, tuple[int, str, str]]:
    header = "##fileformat=VCFv4.2\n" + "".join(f"##contig=<ID={n},length={len(s)}>\n" for n, s in contigs.items())
    rows = sorted((contig, start, ref, alt, name) for name, (contig, start, ref, alt) in cases.items())
    lines = [f"{contig}\t{start + 1}\t{name}\t{ref}\t{alt}\t.\t.\t.\n" for contig, start, ref, alt, name in rows]
    vcf = folder / "in.vcf"
    vcf.write_text(header + "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n" + "".join(lines))
    command = ["bcftools", "norm", "-f", str(fasta), str(vcf)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    columns = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    return {name: (int(pos) - 1, ref, alt) for _, pos, name, ref, alt, *_ in columns}
