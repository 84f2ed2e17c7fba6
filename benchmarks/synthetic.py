"""Made-up genomes and variants of any size, seeded, for benchmarks that need more than the examples hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engine.io import bgzf

_LETTERS = np.frombuffer(b"ACGT", dtype=np.uint8)
_LINES_PER_WRITE = 20_000


def write_reference(path: Path, *, num_bases: int, seed: int = 1) -> np.ndarray:
    """One contig of random bases, named 1; returns it as letters, uint8 (num_bases,)."""
    letters = _LETTERS[np.random.default_rng(seed).integers(0, 4, num_bases)]
    width = 1000
    rows = letters[: num_bases - num_bases % width].reshape(-1, width)
    with path.open("wb") as stream:
        stream.write(b">1\n")
        for row in rows:
            stream.write(row.tobytes() + b"\n")
        if num_bases % width:
            stream.write(letters[num_bases - num_bases % width :].tobytes() + b"\n")
    return letters


def write_gene(path: Path, *, num_bases: int, exon_bp: int = 150, intron_bp: int = 1500) -> None:
    """One gene over the whole contig, in SpliceAI's table layout."""
    starts = list(range(intron_bp, num_bases - exon_bp, intron_bp + exon_bp))
    columns = ["G1", "1", "+", "0", str(num_bases)]
    columns += [",".join(map(str, starts)) + ",", ",".join(str(start + exon_bp) for start in starts) + ","]
    header = "#NAME\tCHROM\tSTRAND\tTX_START\tTX_END\tEXON_START\tEXON_END"
    path.write_text(header + "\n" + "\t".join(columns) + "\n")


def write_sites(path: Path, letters: np.ndarray, *, num_sites: int, seed: int = 2) -> None:
    """SNVs spread evenly over the contig, a few INFO values each, as BGZF VCF."""
    chance = np.random.default_rng(seed)
    starts = np.linspace(100, len(letters) - 100, num_sites).astype(np.int64)
    refs = letters[starts]
    shifts = chance.integers(1, 4, num_sites)
    alts = _LETTERS[(np.searchsorted(_LETTERS, refs) + shifts) % 4]
    counts = chance.integers(1, 5000, num_sites)
    header = (
        "##fileformat=VCFv4.2\n"
        f"##contig=<ID=1,length={len(letters)}>\n"
        '##INFO=<ID=AC,Number=A,Type=Integer,Description="Made-up allele count">\n'
        '##INFO=<ID=AF,Number=A,Type=Float,Description="Made-up allele frequency">\n'
        "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    )
    with path.open("wb") as stream:
        stream.write(bgzf.compress(header.encode()))
        for begin in range(0, num_sites, _LINES_PER_WRITE):
            end = min(begin + _LINES_PER_WRITE, num_sites)
            lines = [
                f"1\t{starts[i] + 1}\t.\t{refs[i]:c}\t{alts[i]:c}\t50\tPASS\tAC={counts[i]};AF={counts[i] / 5000:.5f}\n"
                for i in range(begin, end)
            ]
            stream.write(bgzf.compress("".join(lines).encode()))
        stream.write(bgzf.EOF)
