"""GTF to transcripts: the dialects of Ensembl, GENCODE, RefSeq and plain exon-only files (GTF 2.2)."""

from __future__ import annotations

import re
from pathlib import Path

from engine.genome._gene_rows import Draft, Lines, bad_line, span, text, versioned

_ATTRIBUTE = re.compile(rb'([\w.-]+)[ \t]+(?:"([^"]*)"|([^";]+))')
_TRANSCRIPT_ID = re.compile(rb'\btranscript_id[ \t]+"?([^";]+)')
_TRANSCRIPTS = frozenset({b"transcript", b"mRNA"})
_WANTED = _TRANSCRIPTS | {b"exon", b"CDS"}


def read_gtf(path: Path, lines: Lines) -> list[Draft]:
    """All transcripts in order of first appearance; those without exon rows too.

    Only transcript rows have all attributes read, and give the transcript's ends; exon and CDS rows, nine in ten, give
    up their transcript_id alone.

    Raises:
        InputError: a malformed line, named by its number.
    """
    drafts: dict[bytes, Draft] = {}
    for number, line in lines:
        columns = line.split(b"\t", 8)
        if len(columns) != 9:
            if line.startswith(b"#") or not line.strip():
                continue
            raise bad_line(path, number, f"{len(columns)} columns where GTF has 9")
        contig, _, feature, start, end, _, strand, _, attributes = columns
        if feature not in _WANTED or contig.startswith(b"#"):
            continue
        transcript_id = _transcript_id(attributes)
        if not transcript_id:
            raise bad_line(path, number, f"a row of type {text(feature)} without transcript_id")
        # One transcript id can stand on X and on Y.
        key = contig + b"\t" + transcript_id
        draft = drafts.get(key)
        if draft is None:
            draft = drafts[key] = _draft(path, number, columns, transcript_id)
        low, high = span(path, number, start, end)
        if feature in _TRANSCRIPTS:
            draft.bounds = low, high
            continue
        if feature == b"CDS":
            draft.cds_length += high - low
        else:
            draft.exons.extend((low, high))
            if strand.decode("latin-1") != draft.strand:
                draft.on_one_strand = False
    return list(drafts.values())


def _transcript_id(attributes: bytes) -> bytes:
    """The value of transcript_id, or b""; by plain search where it is quoted, as all large files have it."""
    at = attributes.find(b' transcript_id "')
    if at >= 0:
        return attributes[at + 16 : attributes.find(b'"', at + 16)]
    found = _TRANSCRIPT_ID.search(attributes)
    return found[1] if found else b""


def _draft(path: Path, number: int, columns: list[bytes], transcript_id: bytes) -> Draft:
    values: dict[str, str] = {}
    tags: list[str] = []
    for name, quoted, bare in _ATTRIBUTE.findall(columns[8]):
        value = text(quoted or bare).strip()
        if name == b"tag":
            tags.append(value)
        else:
            values.setdefault(text(name), value)
    gene_id = values.get("gene_id")
    if not gene_id:
        raise bad_line(path, number, "a transcript without gene_id")
    draft = Draft(
        line=number,
        transcript_id=versioned(text(transcript_id), values.get("transcript_version")),
        gene_id=versioned(gene_id, values.get("gene_version")),
        symbol=values.get("gene_name") or values.get("gene") or gene_id,
        contig=text(columns[0]),
        strand=text(columns[6]),
    )
    draft.set_tags(tags)
    return draft
