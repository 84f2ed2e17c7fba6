"""Genes and the transcript that stands for each, from GTF, GFF3 or SpliceAI's annotation table."""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InputError
from engine.genome._gene_rows import Draft, bad_line, open_lines
from engine.genome._gff3 import read_gff3
from engine.genome._gtf import read_gtf
from engine.genome._spliceai_table import HEADER, read_spliceai_table

_READERS = {"GTF": read_gtf, "GFF3": read_gff3, "SpliceAI annotation": read_spliceai_table}
_GTF_ATTRIBUTES = re.compile(rb'\s*[\w.-]+[ \t]+("[^"]*"|[^\s=";]+)\s*(;|$)')
_GFF3_ATTRIBUTES = re.compile(rb"\s*[^\s=;]+=")


@dataclass(frozen=True, slots=True)
class Transcript:
    """A transcript on the genome, 0-based half-open.

    Attributes:
        transcript_id: with its version where the file gives one.
        gene_id: likewise.
        symbol: gene symbol, or the gene id where the file has none.
        contig: as the annotation names it.
        strand: '+' or '-'.
        start: first base.
        end: just past the last base.
        exons: (start, end) in ascending order on both strands, not overlapping.
        is_mane_select: marked MANE Select.
        is_canonical: marked Ensembl canonical (in RefSeq files: RefSeq Select).
        cds_length: coding bases; 0 for non-coding transcripts and for SpliceAI tables.
    """

    transcript_id: str
    gene_id: str
    symbol: str
    contig: str
    strand: str
    start: int
    end: int
    exons: tuple[tuple[int, int], ...]
    is_mane_select: bool
    is_canonical: bool
    cds_length: int


class GeneTable:
    """Transcripts by place, in the order of the annotation file.

    Attributes:
        transcripts: all that are kept, one per gene unless all were asked for.
        digest: sha256 hex of the annotation file's bytes, "" where the table was built from transcripts.
        notes: sentences on transcripts that were left out.
    """

    def __init__(self, transcripts: Iterable[Transcript], *, digest: str = "", notes: Sequence[str] = ()) -> None:
        self.transcripts = tuple(transcripts)
        self.digest = digest
        self.notes = list(notes)
        self._places: dict[str, tuple[list[int], list[list[Transcript]]]] = {}
        by_contig: dict[str, list[Transcript]] = {}
        for transcript in self.transcripts:
            by_contig.setdefault(transcript.contig, []).append(transcript)
        self._by_contig = by_contig

    @classmethod
    def load(cls, path: str | Path, *, all_transcripts: bool = False) -> GeneTable:
        """Read an annotation file, plain or gzipped; the format is told by its content.

        Per gene the MANE Select transcript is kept, else the Ensembl canonical one, else the one with the longest
        coding sequence, else that with the lowest id; with `all_transcripts` each is.

        Raises:
            InputError: unreadable, of no known format, malformed (with the line number), or without transcripts.
        """
        path = Path(path)
        kind = _detect(path)
        with open_lines(path) as lines:
            drafts = _READERS[kind](path, lines)
        drafts, notes = _usable(path, drafts, kind=kind)
        genes: dict[tuple[str, str], list[Draft]] = {}
        for number, draft in enumerate(drafts):
            # A SpliceAI table may name a gene twice; each of its rows stands for itself.
            key = (draft.contig, draft.gene_id) if kind != "SpliceAI annotation" else (draft.contig, str(number))
            genes.setdefault(key, []).append(draft)
        kept = [draft for group in genes.values() for draft in (group if all_transcripts else [_chosen(group)])]
        return cls(map(_transcript, kept), digest=_digest(path), notes=notes)

    @property
    def contigs(self) -> set[str]:
        """Contigs that have a transcript, as the annotation names them."""
        return set(self._by_contig)

    @property
    def num_genes(self) -> int:
        """Genes that have a transcript; a gene id on two contigs counts twice."""
        return len({(t.contig, t.gene_id) for t in self.transcripts})

    def transcripts_at(self, contig: str, start: int) -> list[Transcript]:
        """Transcripts whose [start, end) holds the 0-based base `start`, in table order; [] for unknown contigs."""
        places = self._places.get(contig)
        if places is None:
            places = self._places[contig] = _cut(self._by_contig.get(contig, ()))
        bounds, cells = places
        return cells[bisect_right(bounds, start)].copy()


def _cut(transcripts: Sequence[Transcript]) -> tuple[list[int], list[list[Transcript]]]:
    """Cut a contig at every transcript end: cell i holds who covers the bases from bound i-1 up to bound i."""
    bounds = sorted({edge for t in transcripts for edge in (t.start, t.end)})
    cells: list[list[Transcript]] = [[] for _ in range(len(bounds) + 1)]
    index_of = {edge: index for index, edge in enumerate(bounds)}
    for transcript in transcripts:
        for index in range(index_of[transcript.start] + 1, index_of[transcript.end] + 1):
            cells[index].append(transcript)
    return bounds, cells


def _detect(path: Path) -> str:
    """Name of the format, by the first lines.

    Raises:
        InputError: none of the three.
    """
    with open_lines(path) as lines:
        for number, line in lines:
            if line.rstrip(b"\r\n").split(b"\t")[: len(HEADER)] == HEADER:
                return "SpliceAI annotation"
            if re.match(rb"##gff-version\s+3", line):
                return "GFF3"
            if not line.startswith(b"#") and line.strip():
                return _detect_by_row(path, number, line)
    raise _no_format(path, "the gene annotation is empty or holds comments only")


def _detect_by_row(path: Path, number: int, line: bytes) -> str:
    columns = line.rstrip(b"\r\n").split(b"\t")
    if len(columns) == 9:
        if _GTF_ATTRIBUTES.match(columns[8]):
            return "GTF"
        if _GFF3_ATTRIBUTES.match(columns[8]):
            return "GFF3"
    raise _no_format(path, f"line {number:,} is neither GTF, GFF3 nor SpliceAI annotation ({len(columns)} columns)")


def _no_format(path: Path, what: str) -> InputError:
    names = "a GTF or GFF3 file (Ensembl, GENCODE or RefSeq), or a table with the header of SpliceAI's annotation"
    return InputError(what, where=str(path), fix=f"give {names}")


def _usable(path: Path, drafts: list[Draft], *, kind: str) -> tuple[list[Draft], list[str]]:
    """Leave out what cannot be placed, and say so.

    Raises:
        InputError: a transcript without any row below it, or no usable transcript at all.
    """
    for draft in drafts:
        if not draft.exons and not draft.cds_length:
            raise bad_line(
                path,
                draft.line,
                f"transcript {draft.transcript_id!r} of gene {draft.gene_id!r} has no exon rows",
                fix="use the full annotation file, or remove the transcript",
            )
    coding_only = [draft for draft in drafts if not draft.exons]
    no_strand = [d for d in drafts if d.exons and not (d.on_one_strand and d.strand in ("+", "-"))]
    left_out = {draft.line for draft in coding_only + no_strand}
    usable = [draft for draft in drafts if draft.line not in left_out]
    if not usable:
        raise InputError(
            f"the {kind} file names no transcript with exons and a strand",
            where=str(path),
            fix="use an annotation whose exon rows name their transcript: transcript_id in GTF, Parent in GFF3",
        )
    reasons = (coding_only, "CDS rows but no exon rows"), (no_strand, "exons without a strand or on two")
    return usable, [_left_out(group, reason) for group, reason in reasons if group]


def _left_out(group: list[Draft], reason: str) -> str:
    return f"{len(group):,} transcripts left out: {reason} (first {group[0].transcript_id!r}, line {group[0].line:,})"


def _chosen(group: list[Draft]) -> Draft:
    return min(group, key=lambda t: (not t.is_mane_select, not t.is_canonical, -t.cds_length, t.transcript_id))


def _transcript(draft: Draft) -> Transcript:
    exons = _merged(draft.exons)
    edges = (exons[0][0], exons[-1][1])
    start, end = draft.bounds or edges
    return Transcript(
        transcript_id=draft.transcript_id,
        gene_id=draft.gene_id,
        symbol=draft.symbol,
        contig=draft.contig,
        strand=draft.strand,
        start=min(start, edges[0]),
        end=max(end, edges[1]),
        exons=exons,
        is_mane_select=draft.is_mane_select,
        is_canonical=draft.is_canonical,
        cds_length=draft.cds_length,
    )


def _merged(flat: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Exons in ascending order; rows that overlap (RefSeq has some) are one exon, touching ones stay two."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(zip(flat[::2], flat[1::2], strict=True)):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
