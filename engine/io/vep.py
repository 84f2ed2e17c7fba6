"""A tab-delimited file of the scores for Ensembl VEP's `--custom`: BED of four columns, bgzipped and tabix-indexed.

    vep --custom file=scores.vep.tsv.gz,short_name=replisome,format=bed,type=exact,coords=0

VEP shows column 4, `REF>ALT[/ALT]&KEY:value[/value]&...`; its own separators (comma, semicolon, bar, equals sign) are
avoided. VEP matches BED by place and not by allele, hence the alleles there; where the match must be by allele, give
VEP the scored VCF itself (`format=vcf,type=exact,fields=RPL_...`). Places are those VEP gives a variant: where all ALT
alleles begin with REF's first base that base is dropped, so an insertion has equal start and end.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.errors import DataError
from engine.io import bgzf
from engine.io.vcf import VcfSource, parse_line
from engine.io.vcf_sink import make_tabix

# Tags that say why there is no score make no label of their own.
_STATES = frozenset({b"RPL_STATE", b"RPL_REASON"})
_CHUNK_BYTES = 1 << 20
_to_safe = str.maketrans({",": "/", ";": "_", "|": "_", "=": ":", "&": "_"})


@dataclass(frozen=True, slots=True)
class VepRow:
    """One record: site and alleles as written, and the text that VEP is to show."""

    contig: str
    start: int
    ref: str
    alts: tuple[str, ...]
    label: str


def vep_custom_tab(vcf_path: str | Path, out_path: str | Path, *, tags: Collection[str]) -> str:
    """Write the scores of a scored BGZF VCF as such a file; records without a score are left out.

    Args:
        vcf_path: the scored VCF.
        out_path: the file to make.
        tags: INFO tags that hold the scores. All others stay out, such as what the input had from other tools.

    Returns:
        Path of the TBI or CSI index.

    Raises:
        InputError: the VCF cannot be read.
        DataError: tabix cannot index the result.
    """
    kept = frozenset(tag.encode() for tag in tags) - _STATES
    with Path(out_path).open("wb") as stream:
        held: list[str] = []
        size = 0
        for line in in_order(_scored_rows(VcfSource(vcf_path, compressed=True), kept)):
            held.append(line)
            size += len(line)
            if size >= _CHUNK_BYTES:
                stream.write(bgzf.compress("".join(held).encode()))
                held, size = [], 0
        stream.write(bgzf.compress("".join(held).encode()) + bgzf.EOF)
    for suffix in (".tbi", ".csi"):
        if make_tabix(out_path, "bed", suffix):
            return f"{out_path}{suffix}"
    raise DataError("tabix cannot index the file", where=str(out_path), fix="check the order of the VCF's records")


def _scored_rows(source: VcfSource, tags: frozenset[bytes]) -> Iterator[VepRow]:
    for text in source.record_text():
        for line in text.split(b"\n"):
            label = _label(line, tags)
            record = parse_line(line) if label else None
            if record is not None and not isinstance(record, tuple):
                yield VepRow(record.contig, record.start, record.ref, record.alts, label)


def _label(line: bytes, tags: frozenset[bytes]) -> str:
    """The scores in INFO; empty where there are none."""
    fields = line.split(b"\t", 8)
    if len(fields) < 8:
        return ""
    entries = [entry.partition(b"=") for entry in fields[7].split(b";")]
    return "&".join(f"{key.decode()}:{value.decode().translate(_to_safe)}" for key, _, value in entries if key in tags)


def in_order(rows: Iterable[VepRow]) -> Iterator[str]:
    """Lines by ascending start: dropping a first base moves a row by one, past rows that follow it."""
    # Start, number of the row, which keeps the order of rows of one start, and line.
    waiting: list[tuple[int, int, str]] = []
    contig = ""
    for number, row in enumerate(rows):
        while waiting and (row.contig != contig or waiting[0][0] <= row.start):
            yield heapq.heappop(waiting)[2]
        start, line = _line(row)
        heapq.heappush(waiting, (start, number, line))
        contig = row.contig
    while waiting:
        yield heapq.heappop(waiting)[2]


def _line(row: VepRow) -> tuple[int, str]:
    shared = bool(row.alts) and all(alt[:1] == row.ref[:1] for alt in row.alts)
    start, end = row.start + shared, row.start + len(row.ref)
    return start, f"{row.contig}\t{start}\t{end}\t{row.ref}>{'/'.join(row.alts)}&{row.label}\n"
