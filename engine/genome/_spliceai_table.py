"""Genes from a table in the format of SpliceAI's own annotation files (grch37.txt, grch38.txt).

Columns: #NAME CHROM STRAND TX_START TX_END EXON_START EXON_END. Starts are 0-based, ends 1-based inclusive, which
together is half-open; exon columns are lists with a comma at the end.
"""

from __future__ import annotations

from array import array
from pathlib import Path

from engine.genome._gene_rows import Draft, Lines, bad_line, text

HEADER = [b"#NAME", b"CHROM", b"STRAND", b"TX_START", b"TX_END", b"EXON_START", b"EXON_END"]


def read_spliceai_table(path: Path, lines: Lines) -> list[Draft]:
    """One transcript per row; it has no id of its own in this format, so it takes the gene's name.

    Raises:
        InputError: a malformed line, named by its number.
    """
    drafts = []
    for number, line in lines:
        columns = line.rstrip(b"\r\n").split(b"\t")
        if line.startswith(b"#") or not line.strip():
            continue
        if len(columns) < len(HEADER):
            raise bad_line(path, number, f"{len(columns)} columns where the SpliceAI annotation has {len(HEADER)}")
        drafts.append(_draft(path, number, columns))
    return drafts


def _draft(path: Path, number: int, columns: list[bytes]) -> Draft:
    name, contig, strand, tx_start, tx_end = columns[:5]
    try:
        starts, ends = ([int(x) for x in column.split(b",") if x.strip()] for column in columns[5:7])
        bounds = int(tx_start), int(tx_end)
    except ValueError as error:
        raise bad_line(path, number, f"gene {text(name)!r} has a coordinate that is no whole number") from error
    if not starts or len(starts) != len(ends):
        raise bad_line(path, number, f"gene {text(name)!r} has {len(starts)} exon starts and {len(ends)} exon ends")
    if any(not 0 <= start < end for start, end in zip(starts, ends, strict=True)):
        raise bad_line(path, number, f"gene {text(name)!r} has an exon that ends before it starts")
    if min(starts) < bounds[0] or bounds[1] < max(ends):
        raise bad_line(path, number, f"gene {text(name)!r} has exons outside its {bounds[0]:,} to {bounds[1]:,}")
    exons = array("q", [x for pair in zip(starts, ends, strict=True) for x in pair])
    gene = text(name)
    return Draft(number, gene, gene, gene, text(contig), text(strand), exons=exons, bounds=bounds)
