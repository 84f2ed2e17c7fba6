"""Which alleles lie together on one copy of a sample's genome, from the phased genotypes of a VCF.

Source: the Variant Call Format specification 4.3, section 1.6.2 (GT, PS). An allele lies on the first copy where it
stands left of `|`, on the second where right, within its phase set; without PS the calls of a contig are one set. A
homozygous allele lies on both copies of every set, phased or not. What is called unphased and heterozygous, or with
more than two alleles, lies on no known copy.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from engine.errors import InputError
from engine.genome.variants import classify_alt
from engine.io.source import RawRecord, VariantSource

Allele = tuple[int, str, str]
"""(0-based start, REF, ALT) as written, upper case."""

_BOTH = -1  # phase set of a homozygous call
_split = re.compile(rb"[|/]").split
_EVERYTHING = 1 << 62


@dataclass(frozen=True, slots=True)
class Call:
    """One sample's genotype.

    Attributes:
        alleles: index on the first and on the second copy, None where missing; one of them for a haploid call.
        phase_set: its phase set; None where both copies carry the same.
        is_known: whether it says on which copy each allele lies.
    """

    alleles: tuple[int | None, ...]
    phase_set: bytes | None
    is_known: bool


def sample_column(header: bytes, sample: str | None) -> int:
    """Column of a sample in the records, 0-based.

    Args:
        header: VCF header text.
        sample: its name; None for the only one.

    Raises:
        InputError: no such sample, none at all, or several and none named.
    """
    last = header.rstrip(b"\n").rsplit(b"\n", 1)[-1]
    names = [name.decode("utf-8", "replace") for name in last.rstrip(b"\r").split(b"\t")[9:]]
    if not names:
        raise InputError("the input has no samples, so nothing is phased", where="phased", fix="leave phased out")
    if sample is None:
        if len(names) > 1:
            raise InputError(f"the input has {len(names)} samples", where="phased", fix="name one: --sample NAME")
        return 9
    if sample not in names:
        raise InputError(f"no such sample among the {len(names)} of the input", where="sample", fix="check its name")
    return 9 + names.index(sample)


def read_call(line: bytes, column: int) -> Call | None:
    """The genotype in a VCF line, None where it has none or is not haploid or diploid."""
    fields = line.split(b"\t", column + 1)
    if len(fields) <= column:
        return None
    keys = fields[8].split(b":")
    if keys[0] != b"GT":
        return None
    values = fields[column].split(b":")
    texts = _split(values[0])
    if len(texts) > 2 or not all(text == b"." or text.isdigit() for text in texts):
        return None
    alleles = tuple(None if text == b"." else int(text) for text in texts)
    if len(set(alleles)) == 1 and alleles[0] is not None:
        return Call(alleles, None if len(alleles) == 2 else b"", True)
    where = keys.index(b"PS") if b"PS" in keys else len(values)
    named = values[where] if where < len(values) else b""
    return Call(alleles, b"" if named == b"." else named, b"|" in values[0])


class Haplotypes:
    """The alleles of one sample on either copy, held in about 30 bytes each.

    Args:
        source: read once from end to end.
        column: of the sample.
    """

    def __init__(self, source: VariantSource, column: int) -> None:
        self._column = column
        self._contigs: dict[str, _Contig] = {}
        self._sets: dict[bytes, int] = {}
        source.scan(
            records_per_shard=_EVERYTHING,
            bytes_per_shard=_EVERYTHING,
            on_record=self._add,
            on_record_limit=_EVERYTHING,
        )

    def _add(self, raw: RawRecord) -> None:
        record = raw.record
        if record is None or not record.alts:
            return
        call = read_call(raw.line, self._column)
        if call is None or not call.is_known:
            return
        for number, alt in enumerate(record.alts, 1):
            copies = sum(1 << copy for copy, allele in enumerate(call.alleles) if allele == number)
            if copies and classify_alt(record.ref, alt) is None:
                held = self._contigs.setdefault(record.contig, _Contig())
                held.add(record.start, record.ref.upper(), alt.upper(), copies, self._set(call.phase_set))

    def _set(self, name: bytes | None) -> int:
        return _BOTH if name is None else self._sets.setdefault(name, len(self._sets))

    def others(self, raw: RawRecord, number: int, *, reach: int) -> tuple[tuple[Allele, ...] | None, ...]:
        """For each copy the other alleles near an allele of a record, None where the copy does not carry it.

        A homozygous allele is read beside the phase set of the nearest heterozygous call.

        Args:
            raw: the record, of the source this was made from.
            number: which ALT, counted from 1.
            reach: how far from REF other alleles are looked for, in bases.
        """
        record = raw.record
        call = read_call(raw.line, self._column)
        if record is None or call is None or not call.is_known or number not in call.alleles:
            return (None, None)
        held = self._contigs[record.contig]
        near = held.between(record.start - reach, record.start + len(record.ref) + reach)
        phase_set = self._set(call.phase_set)
        if phase_set == _BOTH:
            known = [(abs(start - record.start), one) for start, _, _, _, one in near if one != _BOTH]
            phase_set = min(known)[1] if known else _BOTH
        own = (record.start, record.ref.upper(), record.alts[number - 1].upper())
        found: list[tuple[Allele, ...] | None] = []
        for copy in range(2):
            if copy >= len(call.alleles) or call.alleles[copy] != number:
                found.append(None)
                continue
            same = (one for one in near if one[3] >> copy & 1 and one[4] in (_BOTH, phase_set))
            found.append(tuple(one[:3] for one in same if one[:3] != own))
        return tuple(found)


class _Contig:
    """Alleles of one contig in input order, as arrays."""

    def __init__(self) -> None:
        self._starts, self._refs, self._ends, self._sets = array("q"), array("i"), array("q"), array("i")
        self._copies = bytearray()
        self._letters = bytearray()
        self._longest = 0

    def add(self, start: int, ref: str, alt: str, copies: int, phase_set: int) -> None:
        self._starts.append(start)
        self._refs.append(len(ref))
        self._letters += (ref + alt).encode()
        self._ends.append(len(self._letters))
        self._copies.append(copies)
        self._sets.append(phase_set)
        self._longest = max(self._longest, len(ref))

    def between(self, start: int, end: int) -> Sequence[tuple[int, str, str, int, int]]:
        """(start, REF, ALT, bits of the copies, phase set) of the alleles that touch [start, end)."""
        found = []
        at = bisect_left(self._starts, start - self._longest)
        while at < len(self._starts) and self._starts[at] < end:
            num_ref = self._refs[at]
            if self._starts[at] + num_ref > start:
                begin = self._ends[at - 1] if at else 0
                text = self._letters[begin : self._ends[at]].decode()
                one = (self._starts[at], text[:num_ref], text[num_ref:], self._copies[at], self._sets[at])
                found.append(one)
            at += 1
        return found
