"""Variant records as written, what kind an ALT allele is, and the normal form that joins files and runs.

Records are scored as written. The normal form (trimmed, left-aligned, anchored as in VCF) is only a join key:
Tan, Abecasis and Kang, "Unified representation of genetic variants", Bioinformatics 2015, and `bcftools norm`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from schemas.states import NOT_APPLICABLE, REJECTED

Fetch = Callable[[str, int, int], str]

_is_bases = re.compile("[ACGTNRYSWKMBDHVacgtnryswkmbdhv]+").fullmatch
_SIMPLE_BASES = frozenset("ACGT")
# A gVCF writes these beside or instead of real alleles: "any other base", which says no change was seen.
_UNSPECIFIED = frozenset({"<*>", "<NON_REF>", "<X>", "."})
_MAX_FETCH = 1 << 16


@dataclass(frozen=True, slots=True)
class VariantRecord:
    """One VCF record as written, without its INFO and samples.

    Attributes:
        contig: contig name as written.
        start: 0-based start of REF (VCF POS - 1).
        id: ID column as written, '.' where missing.
        ref: REF as written, any case.
        alts: ALT alleles as written, in order; empty where the column is '.'.
    """

    contig: str
    start: int
    id: str
    ref: str
    alts: tuple[str, ...]


def classify_alt(ref: str, alt: str) -> tuple[str, str] | None:
    """Say whether an ALT allele is a plain sequence that can be scored.

    Returns:
        None where it can; else (state, reason code) of schemas.states. `<*>` and `<NON_REF>` of a gVCF name no
        change, so they count as reference-only and not as rejects.
    """
    if ref in _SIMPLE_BASES and alt in _SIMPLE_BASES and ref != alt:
        return None
    if not _is_bases(alt):
        return _classify_odd(alt)
    if not _is_bases(ref):
        return REJECTED, "bad_allele"
    if ref.upper() == alt.upper():
        return REJECTED, "alt_equals_ref"
    return None


def _classify_odd(alt: str) -> tuple[str, str]:
    if alt == "*":
        return NOT_APPLICABLE, "star_allele"
    if alt in _UNSPECIFIED:
        return NOT_APPLICABLE, "reference_only"
    # VCF 4.3 section 5.4: mates carry brackets ("G]17:198982]"), single breakends begin or end with a dot ("G.").
    if "[" in alt or "]" in alt or (len(alt) > 1 and (alt[0] == "." or alt[-1] == ".")):
        return REJECTED, "breakend"
    if "<" in alt or ">" in alt:
        return REJECTED, "symbolic_allele"
    return REJECTED, "bad_allele"


def trim(ref: str, alt: str) -> tuple[int, str, str]:
    """Remove the common suffix, then the common prefix; either allele may end up empty.

    An insertion or deletion in a repeat stays behind the anchor base that VCF wrote for it (A to AA inserts after
    that A, not before it), which is where SpliceAI 1.3.1 counts from.

    Returns:
        (bases removed at the left, trimmed REF, trimmed ALT), upper case.
    """
    ref, alt = ref.upper(), alt.upper()
    ref, alt = _without_suffix(ref, alt, keep=1)
    prefix = _common_prefix(ref, alt)
    ref, alt = _without_suffix(ref[prefix:], alt[prefix:], keep=0)
    return prefix, ref, alt


def _without_suffix(ref: str, alt: str, *, keep: int) -> tuple[str, str]:
    """Both without their common suffix, at least `keep` bases of each left."""
    suffix = min(_common_prefix(ref[::-1], alt[::-1]), max(0, min(len(ref), len(alt)) - keep))
    return ref[: len(ref) - suffix], alt[: len(alt) - suffix]


def _common_prefix(one: str, other: str) -> int:
    num = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        num += 1
    return num


def normalise(contig: str, start: int, ref: str, alt: str, fetch: Fetch) -> tuple[int, str, str]:
    """The normal form of one allele: trimmed, left-aligned and anchored as VCF wants it.

    An insertion or deletion carries the base before it; at the very start of a contig it carries the base after it.
    REF is taken to agree with the reference, and REF to differ from ALT. No allele slides over an N, which may be any
    base: two spellings that only an N joins are not known to be the same.

    Args:
        contig: contig name, handed to `fetch`.
        start: 0-based start of `ref`.
        ref: REF, plain bases.
        alt: ALT, plain bases.
        fetch: (contig, start, end) to upper-case bases, such as ReferenceGenome.fetch.

    Returns:
        (0-based start, REF, ALT), upper case.
    """
    if len(ref) == len(alt) == 1:
        return start, ref.upper(), alt.upper()
    shift, short_ref, short_alt = trim(ref, alt)
    start += shift
    if (short_ref and short_alt) or short_ref == short_alt:
        return (start, short_ref, short_alt) if short_ref else (start - shift, ref.upper(), alt.upper())
    moved = short_ref or short_alt
    steps = _steps_left(contig, start, moved, fetch)
    turn = steps % len(moved)
    moved = moved[len(moved) - turn :] + moved[: len(moved) - turn]
    start -= steps
    if start > 0:
        start -= 1
        anchor = fetch(contig, start, start + 1)
        long, short = anchor + moved, anchor
    else:
        anchor_at = len(moved) if short_ref else 0
        anchor = fetch(contig, anchor_at, anchor_at + 1)
        long, short = moved + anchor, anchor
    return (start, long, short) if short_ref else (start, short, long)


def _steps_left(contig: str, start: int, moved: str, fetch: Fetch) -> int:
    """How many bases an inserted or deleted sequence at `start` can slide left with the same result."""
    steps = 0
    num, block = len(moved), 32
    while steps < start:
        end = start - steps
        before = fetch(contig, max(0, end - block), end)
        for base in reversed(before):
            # Sliding rotates the sequence, so its last base after `steps` slides is found by counting back round it.
            if base == "N" or base != moved[num - 1 - steps % num]:
                return steps
            steps += 1
        block = min(block * 4, _MAX_FETCH)
    return steps
