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
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from engine.errors import InputError
from engine.genome.variants import VariantRecord, classify_alt, trim
from engine.io.source import RawRecord, VariantSource

Allele = tuple[int, str, str]
"""(0-based start, REF, ALT) as written, upper case."""

_BOTH = -1  # phase set of a homozygous call
_declares_genotypes = re.compile(rb"^##FORMAT=<(?:[^\n]*,)?ID=GT[,>]", re.MULTILINE).search
_split = re.compile(rb"[|/]").split
_EVERYTHING = 1 << 62
# Shards come contig by contig; one may hold the end of a contig and several short ones.
_CONTIGS_KEPT = 4


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
        InputError: no genotypes, no such sample, none at all, or several and none named. It tells numbers, never names
            of samples, which may be people's.
    """
    last = header.rstrip(b"\n").rsplit(b"\n", 1)[-1]
    names = [name.decode("utf-8", "replace") for name in last.rstrip(b"\r").split(b"\t")[9:]]
    if not names:
        raise InputError(
            "the input has no samples, so no genotype says which alleles lie on one copy",
            where="phased, columns of the #CHROM line",
            fix="give a VCF or BCF with phased genotypes (GT), or leave --phased out",
        )
    if not _declares_genotypes(header):
        raise InputError(
            "the header declares no genotypes, so no allele is known to lie on either copy",
            where="phased, ##FORMAT lines of the header",
            fix="give a VCF or BCF with phased genotypes (##FORMAT=<ID=GT,...>), or leave --phased out",
        )
    if sample is None and len(names) == 1:
        return 9
    if sample is None:
        raise InputError(
            f"the input has {len(names)} samples, and copies are read of one",
            where="phased, columns of the #CHROM line",
            fix="name one with --sample; `bcftools query -l` lists them",
        )
    if sample not in names:
        raise InputError(
            f"the sample asked for is none of the {len(names)} of the input",
            where="sample, columns of the #CHROM line",
            fix="write it as the input does, letter by letter; `bcftools query -l` lists its samples",
        )
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


class Copy(NamedTuple):
    """What one copy of the sample's genome has near an allele that it carries.

    Attributes:
        others: its other alleles.
        has_rejected: whether the input gives it one there that cannot be applied: it does not fit the reference, or is
            longer than the limit.
    """

    others: tuple[Allele, ...]
    has_rejected: bool = False


class Haplotypes:
    """The alleles of one sample on either copy, held in about 30 bytes each.

    Args:
        source: read once from end to end, unless contigs are opened alone.
        column: of the sample.
        refuses: whether a record does not fit the reference, so that none of its alleles can be applied.
        max_allele_length: longer REF or ALT is not applied, in bases.
        open_contig: opens one contig of the source by its index. Contigs are then read when asked for, and the last
            few are kept.
    """

    def __init__(
        self,
        source: VariantSource,
        column: int,
        *,
        refuses: Callable[[VariantRecord], bool],
        max_allele_length: int,
        open_contig: Callable[[str], VariantSource] | None = None,
    ) -> None:
        self._column = column
        self._refuses = refuses
        self._max_allele_length = max_allele_length
        self._open_contig = open_contig
        self._contigs: OrderedDict[str, _Contig] = OrderedDict()
        self._sets: dict[bytes, int] = {}
        if open_contig is None:
            self._read(source)

    def _read(self, source: VariantSource) -> None:
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
        carried = [
            (alt, copies)
            for number, alt in enumerate(record.alts, 1)
            if (copies := sum(1 << copy for copy, allele in enumerate(call.alleles) if allele == number))
            and classify_alt(record.ref, alt) is None
        ]
        if not carried:
            return
        held = self._contigs.setdefault(record.contig, _Contig())
        phase_set, is_refused = self._set(call.phase_set), self._refuses(record)
        for alt, copies in carried:
            if is_refused or max(len(record.ref), len(alt)) > self._max_allele_length:
                held.rejected.add(record.start, len(record.ref), text="", copies=copies, phase_set=phase_set)
            else:
                text = (record.ref + alt).upper()
                held.applied.add(record.start, len(record.ref), text=text, copies=copies, phase_set=phase_set)

    def _set(self, name: bytes | None) -> int:
        return _BOTH if name is None else self._sets.setdefault(name, len(self._sets))

    def _contig(self, name: str) -> _Contig:
        """A contig's alleles, read now where contigs are read one by one."""
        if self._open_contig is None:
            return self._contigs.setdefault(name, _Contig())
        if name not in self._contigs:
            self._contigs[name] = _Contig()
            self._read(self._open_contig(name))
            while len(self._contigs) > _CONTIGS_KEPT:
                self._contigs.popitem(last=False)
        self._contigs.move_to_end(name)
        return self._contigs[name]

    def others(self, raw: RawRecord, number: int, *, reach: int) -> tuple[Copy | None, ...]:
        """For each copy what it has near an allele of a record, None where the copy does not carry the allele.

        A homozygous allele is read beside the phase set of the nearest heterozygous call.

        Args:
            raw: the record, of the source this was made from.
            number: which ALT, counted from 1.
            reach: how far from REF other alleles are looked for, in bases of the copy: what a copy has lost on the
                way is not counted.
        """
        record = raw.record
        call = read_call(raw.line, self._column)
        if record is None or call is None or not call.is_known or number not in call.alleles:
            return (None, None)
        held = self._contig(record.contig)
        near = _Near(
            held=held,
            place=(record.start, record.start + len(record.ref)),
            own=(record.start, record.ref.upper(), record.alts[number - 1].upper()),
            reach=reach,
        )
        phase_set = self._set(call.phase_set)
        if phase_set == _BOTH:
            phase_set = near.phase_set()
        carries = [copy < len(call.alleles) and call.alleles[copy] == number for copy in range(2)]
        return tuple(near.on_copy(copy, phase_set) if carries[copy] else None for copy in range(2))


class _Held(NamedTuple):
    """An allele as it is held: REF and ALT in one text, bits of the copies that carry it."""

    start: int
    num_ref: int
    text: str
    copies: int
    phase_set: int

    @property
    def allele(self) -> Allele:
        return self.start, self.text[: self.num_ref], self.text[self.num_ref :]


@dataclass(frozen=True)
class _Near:
    """The neighbourhood of an allele.

    Attributes:
        held: the contig's alleles.
        place: its REF, [start, end).
        own: the allele.
        reach: see Haplotypes.others.
    """

    held: _Contig
    place: tuple[int, int]
    own: Allele
    reach: int

    def phase_set(self) -> int:
        """That of the nearest heterozygous call, up to which the copies are one; _BOTH where there is none."""
        start, end, _ = self._widened(lambda one: one.phase_set == _BOTH)
        known = [one for one in self.held.applied.between(start, end) if one.phase_set != _BOTH]
        # The first of several as near: numbers of phase sets depend on which contigs a process has read.
        nearest = min(known, key=lambda one: abs(one.start - self.place[0]), default=None)
        return _BOTH if nearest is None else nearest.phase_set

    def on_copy(self, copy: int, phase_set: int) -> Copy:
        """What a copy has there."""

        def lies_here(one: _Held) -> bool:
            return bool(one.copies >> copy & 1) and one.phase_set in (_BOTH, phase_set)

        start, end, found = self._widened(lies_here)
        others = tuple(one.allele for one in found)
        return Copy(others, any(map(lies_here, self.held.rejected.between(start, end))))

    def _widened(self, wanted: Callable[[_Held], bool]) -> tuple[int, int, list[_Held]]:
        """The stretch [start, end) that the reach on either side comes from, and the wanted alleles on it.

        A deleted base is none of the copy's, so each one on the way makes the stretch longer, and may bring in more.
        """
        start, end = self.place
        left = right = self.reach
        while True:
            near = self.held.applied.between(start - left, end + right)
            found = [one for one in near if wanted(one) and one.allele != self.own]
            further = (
                self.reach + _num_deleted(one for one in found if one.start < start),
                self.reach + _num_deleted(one for one in found if one.start >= start),
            )
            if further == (left, right):
                return start - left, end + right, found
            left, right = further


def _num_deleted(alleles: Iterable[_Held]) -> int:
    """Bases of the reference that alleles take away, each counted once."""
    total = done = 0
    for begin, end in sorted(_deleted(one.allele) for one in alleles if 2 * one.num_ref > len(one.text)):
        total += max(0, end - max(begin, done))
        done = max(done, end)
    return total


def _deleted(allele: Allele) -> tuple[int, int]:
    """The bases [start, end) that an allele takes away, those that its ALT pairs with REF's left aside."""
    start, ref, alt = allele
    shift, ref, alt = trim(ref, alt)
    return start + shift + len(alt), start + shift + len(ref)


class _Contig:
    """Alleles of one contig: those that can be applied and, without their letters, those that cannot."""

    def __init__(self) -> None:
        self.applied = _Alleles()
        self.rejected = _Alleles()


class _Alleles:
    """Alleles of one contig in input order, as arrays."""

    def __init__(self) -> None:
        self._starts, self._refs, self._ends, self._sets = array("q"), array("i"), array("q"), array("i")
        self._copies = bytearray()
        self._letters = bytearray()
        self._longest = 0

    def add(self, start: int, num_ref: int, *, text: str, copies: int, phase_set: int) -> None:
        self._starts.append(start)
        self._refs.append(num_ref)
        self._letters += text.encode()
        self._ends.append(len(self._letters))
        self._copies.append(copies)
        self._sets.append(phase_set)
        self._longest = max(self._longest, num_ref)

    def between(self, start: int, end: int) -> list[_Held]:
        """The alleles that touch [start, end)."""
        found = []
        at = bisect_left(self._starts, start - self._longest)
        while at < len(self._starts) and self._starts[at] < end:
            num_ref = self._refs[at]
            if self._starts[at] + num_ref > start:
                begin = self._ends[at - 1] if at else 0
                text = self._letters[begin : self._ends[at]].decode()
                found.append(_Held(self._starts[at], num_ref, text, self._copies[at], self._sets[at]))
            at += 1
        return found
