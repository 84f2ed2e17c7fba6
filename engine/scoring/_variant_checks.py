"""Checks before a variant run: the right reference, contigs that match, INFO keys that are there.

Each stops the run with one sentence before any model is loaded.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from engine.errors import InputError
from engine.genome.reference import ReferenceGenome, match_contigs
from engine.io.source import RawRecord
from engine.io.vcf import header_contigs, header_info_ids

CHECKED_RECORDS = 10_000
_MAX_MISMATCH_SHARE = 0.01
_MIN_MISMATCHES = 3
_MAX_NAMED = 20
_BASES = frozenset("ACGTN")
_CHOOSE = ", or score what is on its contigs alone, chosen with -r, as in -r chr20,chr21"


class ReferenceCheck:
    """Counts REF alleles that differ from the reference among the first records of the input.

    More than 1% of them means the wrong reference (at least 3, or half of an input shorter than that: one or two bad
    records in a small file are those records' fault, and are rejected as such).
    """

    def __init__(self, reference: ReferenceGenome, header: bytes = b"") -> None:
        self._reference = reference
        self._header = header
        self._known: set[str] = set()
        self._checked = 0
        self._examples: list[str] = []
        self._mismatches = 0

    def __call__(self, raw: RawRecord) -> None:
        """Look at one record; contigs that are absent from the reference stop the run here."""
        record = raw.record
        if record is None:
            return
        if record.contig not in self._known:
            self._check_name(record.contig)
        ref = record.ref.upper()
        found = self._reference.fetch(record.contig, record.start, record.start + len(ref))
        if not _BASES.issuperset(ref):
            return
        self._checked += 1
        if any(base != other and "N" not in (base, other) for base, other in zip(ref, found, strict=True)):
            self._mismatches += 1
            if len(self._examples) < 3:
                self._examples.append(f"{record.contig}:{record.start + 1} has {ref[:20]}, reference {found[:20]}")

    def _check_name(self, contig: str) -> None:
        """A contig that is absent is named with the header's other absent ones: one alias rarely mends it."""
        aliases = self._reference.contig_aliases
        if aliases.get(contig, contig) not in self._reference.contigs:
            others = [
                name for name in header_contigs(self._header) if aliases.get(name, name) not in self._reference.contigs
            ]
            match_contigs(dict.fromkeys([contig, *others]), self._reference, or_else=_CHOOSE)
        self._known.add(contig)

    def finish(self) -> None:
        """Judge what was seen.

        Raises:
            InputError: too many mismatches.
        """
        least = min(_MIN_MISMATCHES, max(1, (self._checked + 1) // 2))
        if self._mismatches >= least and self._mismatches > _MAX_MISMATCH_SHARE * self._checked:
            raise InputError(
                f"REF differs from the reference in {self._mismatches:,} of the first {self._checked:,} records "
                f"({'; '.join(self._examples)})",
                where=self._reference.path,
                fix="give the FASTA of the genome build that the variants were called on",
            )


def check_contigs(contigs: Mapping[str, int], header: bytes, reference: ReferenceGenome) -> None:
    """Contigs of the records against the reference's: names, and lengths where the header gives them.

    Raises:
        InputError: a contig is absent, named in another style, or of another length.
    """
    lengths = header_contigs(header)
    match_contigs({name: lengths.get(name) for name in contigs}, reference, or_else=_CHOOSE)


def check_kept_keys(keys: Sequence[str], header: bytes, *, path: str) -> None:
    """Refuse INFO keys for the table that the input does not declare: their columns would be empty.

    Raises:
        InputError: the nearest spelling is named, or what is declared.
    """
    declared = sorted(header_info_ids(header))
    for key in keys:
        if key not in declared:
            near = difflib.get_close_matches(key, declared, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            known = ", ".join(declared[:_MAX_NAMED]) + (", ..." if len(declared) > _MAX_NAMED else "") or "none"
            raise InputError(
                f"--keep-info asks for INFO/{key}, which the header does not declare",
                where=path,
                fix=f"{hint}it declares {known}",
            )


def check_info_keys(keys: Sequence[str], header: bytes, *, path: str) -> None:
    """Refuse an input that does not declare an INFO key which the scorer reads: every score of it would be missing.

    Raises:
        InputError: the keys that are declared are named.
    """
    declared = sorted(header_info_ids(header))
    for key in keys:
        if key not in declared:
            known = ", ".join(declared) or "none"
            fix = f"name one of those it declares ({known}), or add the ##INFO line"
            raise InputError(f"the scorer reads INFO/{key}, which the header does not declare", where=path, fix=fix)
