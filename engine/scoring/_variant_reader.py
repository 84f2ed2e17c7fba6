"""The CPU stage of variant scoring: records of a shard to rows with their states, and questions for the model.

Every (record, ALT, gene) becomes one row with one state. Most records of a genome lie outside genes, so the way of a
row that is not scored is kept short: a tuple per row, no windows, columns built at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa

from engine.genome.genes import GeneTable, Transcript
from engine.genome.reference import ReferenceGenome
from engine.genome.variants import VariantRecord, classify_alt, normalise
from engine.io.haplotypes import Copy, Haplotypes
from engine.io.source import RawRecord, Shard, VariantSource
from engine.scoring._allele_windows import Stretch, gather_stretches
from engine.scoring._contract import Fetch, Prepared, Scorer, ScoringUnit, SkippedAllele, Tokens
from engine.scoring._score_store import TranscriptDigests
from engine.scoring._store_lookup import Found, StoreLookup, Values
from schemas.states import NOT_APPLICABLE, REJECTED, SCORED
from schemas.tables import VARIANT_SCORES

Row = tuple[Any, ...]
Reject = tuple[int, int, str, str, str]

_to_n = re.compile("[RYSWKMBDHV]")
_has_odd_letter = re.compile("[^ACGTRYSWKMBDHVN]").search
# What each IUPAC letter of a reference may stand for; VCF 4.3, section 1.6.1, writes one of these bases in REF.
_IUPAC = {
    "R": "AG",
    "Y": "CT",
    "S": "CG",
    "W": "AT",
    "K": "GT",
    "M": "AC",
    "B": "CGT",
    "D": "AGT",
    "H": "ACT",
    "V": "ACG",
}
MAX_REJECT_TEXT = 1000
_MAX_SHOWN = 20


class Unit(NamedTuple):
    """A row to be scored: its index, what the scorer prepared, and the indices of the stretches its contrasts read."""

    row: int
    prepared: Prepared
    stretches: tuple[int, ...]


@dataclass(frozen=True)
class VariantBatch:
    """A shard between the stages.

    Attributes:
        lines: each record's line; None where it does not parse, and so has no place in the scored VCF.
        first_record: ordinal of the first.
        columns: the columns of schemas.tables.VARIANT_SCORES before `state`.
        info_columns: kept INFO keys, one value per row.
        states: state of each row; the rows of `units` say scored until the model has spoken.
        reasons: reason code of each row, None where scored.
        units: rows to be scored.
        stretches: the reference that their contrasts read.
        rejects: rows of schemas.tables.REJECTS.
        known: row to the values that a score store has for it, and their source; such rows are no units.
        notes: what voids the byte promise.
    """

    lines: Sequence[bytes | None]
    first_record: int
    columns: Sequence[pa.Array]
    info_columns: Sequence[pa.Array]
    states: list[str]
    reasons: list[str | None]
    units: Sequence[Unit]
    stretches: Sequence[Stretch]
    rejects: Sequence[Reject]
    known: Mapping[int, tuple[Values, str]] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)


@dataclass
class VariantReader:
    """Reads shards; opened once per process.

    Attributes:
        source: the input.
        reference: the genome.
        genes: the transcripts, None where the scorer needs none.
        haplotypes: alleles of one sample by copy, None unless the scorer reads them.
        scorer: the component.
        flank: bases that an output of the model needs on either side.
        keep_info: INFO keys copied into the table.
        contig_aliases: contig name of the input or gene file to its name in the reference.
        store: scores of former runs, None where none are looked up.
    """

    source: VariantSource
    reference: ReferenceGenome
    genes: GeneTable | None
    haplotypes: Haplotypes | None
    scorer: Scorer
    flank: int
    keep_info: tuple[str, ...]
    contig_aliases: Mapping[str, str]
    store: StoreLookup | None = None

    def __post_init__(self) -> None:
        self._digest = TranscriptDigests()
        self._lengths: dict[str, int] = {}
        self._gene_contigs: dict[str, str] = {}
        self._fetch: Fetch = self.reference.fetch
        if self.scorer.written_letters:
            self._fetch = self.reference.fetch_written

    def __call__(self, shard: Shard) -> VariantBatch:
        """All records of a shard."""
        records = self.source.read(shard)
        found = self._look_up(records)
        rows = _Rows(found)
        for raw in records:
            self._add(raw, rows)
        units, stretches = self._units(rows.prepared)
        return VariantBatch(
            lines=[None if raw.record is None else raw.line for raw in records],
            first_record=shard.first_record,
            columns=_columns(rows.rows),
            info_columns=_info_columns(records, rows.rows, shard.first_record, self.keep_info),
            states=rows.states,
            reasons=rows.reasons,
            units=units,
            stretches=stretches,
            rejects=rows.rejects,
            known=rows.known,
            notes={"store_segments_lost": found.lost} if found.lost else {},
        )

    def _look_up(self, records: Sequence[RawRecord]) -> Found:
        """What the score store has at the places of these records."""
        if self.store is None:
            return Found()
        places: dict[str, list[int]] = {}
        for raw in records:
            if raw.record is not None and raw.record.alts:
                places.setdefault(raw.record.contig, []).append(raw.record.start)
        return self.store.find(places)

    def _units(self, prepared: Sequence[tuple[int, Prepared]]) -> tuple[list[Unit], list[Stretch]]:
        """Rows to be scored, with the sequence that they need."""
        contrasts = [contrast for _, one in prepared for contrast in one.contrasts]
        stretches, places = gather_stretches(contrasts, self._tokens, flank=self.flank)
        left = iter(places)
        units = [Unit(row, one, tuple(islice(left, len(one.contrasts)))) for row, one in prepared]
        return units, stretches

    def _tokens(self, contig: str, start: int, end: int) -> Tokens:
        return self.scorer.tokens(self._fetch(contig, start, end))

    def _add(self, raw: RawRecord, rows: _Rows) -> None:
        record = raw.record
        if record is None:
            code, sentence = raw.problem or ("malformed_record", "the line does not parse")
            rows.add((raw.ordinal, *[None] * 5, 0, *[None] * 7), REJECTED, code)
            rows.reject(raw, 0, code, sentence)
            return
        head = (raw.ordinal, record.contig, record.start, record.id, record.ref)
        if not record.alts:
            rows.add((*head, None, 0, *[None] * 7), NOT_APPLICABLE, "reference_only")
            return
        problem = record_problem(record, self.reference, length=self._length(record.contig))
        for number, alt in enumerate(record.alts, 1):
            if problem is not None:
                rows.add((*head, alt, number, *[None] * 7), REJECTED, problem[0])
                rows.reject(raw, number, *problem)
                continue
            self._add_alt(raw, record, head=head, alt=alt, number=number, rows=rows)

    def _length(self, contig: str) -> int:
        length = self._lengths.get(contig)
        if length is None:
            length = self._lengths[contig] = self.reference.length(contig)
        return length

    def _add_alt(
        self, raw: RawRecord, record: VariantRecord, *, head: tuple[Any, ...], alt: str, number: int, rows: _Rows
    ) -> None:
        odd = classify_alt(record.ref, alt)
        if odd is not None:
            rows.add((*head, alt, number, *[None] * 7), *odd)
            if odd[0] == REJECTED:
                rows.reject(raw, number, odd[1], f"REF {_shown(record.ref)}, ALT {_shown(alt)}")
            return
        key = (*head, alt, number, *self._normal_form(record, alt))
        if self.genes is None:
            self._add_unit(raw, record, key=key, transcript=None, rows=rows)
            return
        transcripts = self.genes.transcripts_at(self._gene_contig(record.contig), record.start)
        if not transcripts:
            rows.add((*key, None, None, None, None), NOT_APPLICABLE, "outside_genes")
        for transcript in transcripts:
            self._add_unit(raw, record, key=key, transcript=transcript, rows=rows)

    def _normal_form(self, record: VariantRecord, alt: str) -> tuple[int, str, str]:
        if len(record.ref) == 1 and len(alt) == 1:
            return record.start, record.ref.upper(), alt.upper()
        return normalise(record.contig, record.start, record.ref, alt, self.reference.fetch)

    def _gene_contig(self, contig: str) -> str:
        """The gene table's name of a contig; the contig's own where the table has none."""
        name = self._gene_contigs.get(contig)
        if name is None:
            assert self.genes is not None
            name = gene_contig(contig, self.genes.contigs, self.contig_aliases)
            self._gene_contigs[contig] = name
        return name

    def _add_unit(
        self,
        raw: RawRecord,
        record: VariantRecord,
        *,
        key: tuple[Any, ...],
        transcript: Transcript | None,
        rows: _Rows,
    ) -> None:
        """A row to be scored, unless the scorer says why not."""
        gene: tuple[str | None, ...] = (None, None, None, None)
        if transcript is not None:
            gene = (transcript.gene_id, transcript.symbol, transcript.transcript_id, transcript.strand)
        alleles = record.ref.upper(), key[5].upper()
        written_ref = "" if record.ref == alleles[0] else record.ref
        # A scorer that minds the letters of REF may refuse a record for them; the store knows only what they mean.
        if self.store is not None and not (written_ref and self.scorer.written_letters):
            known = rows.found.get(record.contig, (*key[7:], record.start, *alleles, self._digest(transcript)))
            if known is not None:
                rows.known[len(rows.rows)] = known
                rows.add((*key, *gene), SCORED, None)
                return
        length = self._length(record.contig)
        keys = self.scorer.info_keys
        info = tuple(_info_values(raw.line, keys)) if keys else ()
        copies: tuple[Copy | None, ...] = ()
        if self.haplotypes is not None:
            copies = self.haplotypes.others(raw, key[6], reach=self.flank + self.scorer.copy_reach)
        unit = ScoringUnit(record.contig, length, record.start, *alleles, transcript, info, copies, written_ref)
        prepared = self.scorer.prepare(unit, self._fetch)
        if isinstance(prepared, SkippedAllele):
            rows.add((*key, *gene), prepared.state, prepared.reason)
            if prepared.state == REJECTED:
                rows.reject(raw, key[6], prepared.reason, prepared.sentence)
            return
        rows.prepared.append((len(rows.rows), prepared))
        rows.add((*key, *gene), SCORED, None)


class _Rows:
    """Rows of a shard as they are made."""

    def __init__(self, found: Found) -> None:
        self.found = found
        self.known: dict[int, tuple[Values, str]] = {}
        self.rows: list[Row] = []
        self.states: list[str] = []
        self.reasons: list[str | None] = []
        self.prepared: list[tuple[int, Prepared]] = []
        self.rejects: list[Reject] = []

    def add(self, row: Row, state: str, reason: str | None) -> None:
        self.rows.append(row)
        self.states.append(state)
        self.reasons.append(reason)

    def reject(self, raw: RawRecord, alt_index: int, reason: str, sentence: str) -> None:
        self.rejects.append((raw.ordinal, alt_index, reason, sentence, reject_text(raw.line)))


def reject_text(line: bytes) -> str:
    """The first eight columns of a line, cut where they are long; what is no text shows as a replacement sign."""
    return b"\t".join(line.split(b"\t", 8)[:8]).decode("utf-8", "replace")[:MAX_REJECT_TEXT]


def record_problem(
    record: VariantRecord, reference: ReferenceGenome, *, length: int | None = None
) -> tuple[str, str] | None:
    """Why no allele of a record fits the reference: (reason code, sentence), or None.

    Case does not matter. A REF base may stand where the reference holds an IUPAC letter for it; alleles are never
    swapped.

    Args:
        record: the site.
        reference: the genome.
        length: of the record's contig, looked up where not given.

    Raises:
        InputError: the contig is not in the reference.
    """
    start, ref = record.start, record.ref
    length = reference.length(record.contig) if length is None else length
    place = f"{record.contig}:{start + 1:,}"
    if not 0 <= start < length:
        return "bad_position", f"{place} is outside the contig of {length:,} bases"
    end = start + len(ref)
    if end > length:
        return "past_contig_end", f"REF of {len(ref):,} bases at {place} reaches past the contig of {length:,} bases"
    found = reference.fetch(record.contig, start, end)
    if found == ref:
        return None
    upper = ref.upper()
    if _has_odd_letter(upper):
        return None  # not a matter of the reference: the alleles are classified one by one
    if _to_n.sub("N", upper) == found or _agrees(upper, reference.fetch_written(record.contig, start, end)):
        return None
    return "ref_mismatch", f"REF is {_shown(ref)} at {place}, where the reference has {_shown(found)}"


def is_foreign(record: VariantRecord, reference: ReferenceGenome) -> bool:
    """Whether a record does not fit the reference, or its contig is none of the reference's."""
    name = reference.contig_aliases.get(record.contig, record.contig)
    return name not in reference.contigs or record_problem(record, reference) is not None


def _agrees(ref: str, written: str) -> bool:
    """Whether REF is what the reference says, IUPAC letters standing for any of their bases."""
    pairs = zip(ref, written.upper(), strict=True)
    return all(base == letter or base in _IUPAC.get(letter, "") for base, letter in pairs)


def gene_contig(contig: str, known: set[str], aliases: Mapping[str, str]) -> str:
    """The name a gene table has for a contig of the input, both ways through the aliases.

    Args:
        contig: as the input names it.
        known: contigs of the gene table.
        aliases: name in the input or gene file to name in the reference.
    """
    name = aliases.get(contig, contig)
    same = (other for other, target in aliases.items() if target == name)
    return next((one for one in (contig, name, *same) if one in known), contig)


def _shown(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}... ({len(text):,} bases)"


def _columns(rows: Sequence[Row]) -> list[pa.Array]:
    """Columns of VARIANT_SCORES but for state and reason, which the model may still change."""
    fields = list(VARIANT_SCORES)[:14]
    if not rows:
        return [pa.array([], one.type) for one in fields]
    return [pa.array(values, one.type) for values, one in zip(zip(*rows, strict=True), fields, strict=True)]


def _info_columns(
    records: Sequence[RawRecord], rows: Sequence[Row], first_record: int, keys: Sequence[str]
) -> list[pa.Array]:
    if not keys:
        return []
    kept = [_info_values(raw.line, keys) if raw.record is not None else [None] * len(keys) for raw in records]
    return [pa.array([kept[row[0] - first_record][index] for row in rows], pa.string()) for index in range(len(keys))]


def _info_values(line: bytes, keys: Sequence[str]) -> list[str | None]:
    """Texts of INFO keys as written; "true" for a flag, None where absent."""
    fields = line.split(b"\t", 8)
    found: dict[str, str] = {}
    for entry in fields[7].decode("utf-8", "replace").split(";") if len(fields) > 7 else ():
        key, sign, value = entry.partition("=")
        found.setdefault(key, value if sign else "true")
    return [found.get(key) for key in keys]
