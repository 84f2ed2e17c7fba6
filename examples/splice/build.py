"""Builds the splicing example: one VCF of two panels, a reference of short contigs, and their genes.

    python examples/splice/build.py --vexseq vexseq.csv.gz --brca1 sge.csv --brca1-windows windows.csv -o OUT/

Any rows of the same tables give the same layout. Panel ``vexseq``: minigene variants with the measured change of exon
inclusion (Adamson et al. 2018). Panel ``brca1``: single-base changes at exon edges with a functional class (Findlay et
al. 2018). Each construct or exon window is a contig of its own, on the + strand of the genome; the record's place in
the genome stands in INFO. SOURCE.md tells the rest.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pysam

CLASSES = ("FUNC", "LOF")
CONSEQUENCES = {
    "Splice region": "splice_region",
    "Canonical splice": "canonical_splice",
    "Intronic": "intronic",
}
_COMPLEMENT = str.maketrans("ACGTN", "TGCAN")
_HGVS_INTRON = re.compile(r"c\.[-*]?\d+([+-]\d+)[ACGT]>[ACGT]")
_HEADER = """\
##fileformat=VCFv4.3
##INFO=<ID=PANEL,Number=1,Type=String,Description="vexseq: measured change of exon inclusion; brca1: functional class">
##INFO=<ID=GCHROM,Number=1,Type=String,Description="Chromosome in the genome">
##INFO=<ID=GPOS,Number=1,Type=Integer,Description="Position in the genome (hg19), 1-based">
##INFO=<ID=GSTRAND,Number=1,Type=String,Description="Strand of the transcript in the genome">
##INFO=<ID=EXON,Number=1,Type=String,Description="First and last base of the exon in the genome, 1-based; cut at the \
contig's end where the exon goes on">
##INFO=<ID=DPSI,Number=1,Type=Float,Description="Measured change of exon inclusion, mean of HepG2 and K562, percentage \
points, ALT minus REF">
##INFO=<ID=REF_PSI,Number=1,Type=Float,Description="Measured inclusion of the exon without the variant, per cent">
##INFO=<ID=CLASS,Number=1,Type=String,Description="Functional class: FUNC or LOF">
##INFO=<ID=CONSEQUENCE,Number=1,Type=String,Description="splice_region, canonical_splice or intronic, as in the source">
##INFO=<ID=FUNCTION_SCORE,Number=1,Type=Float,Description="Function score of genome editing, mean of replicates">
##INFO=<ID=PHYLOP,Number=1,Type=Float,Description="Conservation of the base across mammals">
"""
_GENES_HEADER = "#NAME\tCHROM\tSTRAND\tTX_START\tTX_END\tEXON_START\tEXON_END\n"


@dataclass(frozen=True)
class Construct:
    """A contig and the one exon in it, 0-based half-open on the contig; ``symbol`` names its gene."""

    contig: str
    sequence: str
    strand: str
    exon: tuple[int, int]
    symbol: str


@dataclass(frozen=True)
class Record:
    """One VCF record; ``start`` is 0-based on the contig."""

    contig: str
    start: int
    id: str
    ref: str
    alt: str
    info: Mapping[str, str]

    def line(self) -> str:
        """The eight columns."""
        info = ";".join(f"{key}={value}" for key, value in self.info.items())
        return "\t".join((self.contig, str(self.start + 1), self.id, self.ref, self.alt, ".", ".", info))


def read_vexseq(path: Path) -> tuple[list[Construct], list[Record]]:
    """Constructs and records of a Vex-seq table.

    The table's coordinates are 1-based and inclusive, its alleles on the + strand, its sequences on the transcript's.
    Every row is proven: REF must stand in the reference, and the ALT put in must give the variant sequence.
    """
    constructs: dict[str, Construct] = {}
    records = []
    for row in _rows(path):
        sequence, edited = (_plus(row[f"{kind}_sequence"], row["strand"]) for kind in ("reference", "variant"))
        first = int(row["window_start"])
        contig = f"vexseq_{row['chromosome']}_{first}"
        exon = (int(row["exon_start"]) - first, int(row["exon_end"]) - first + 1)
        symbol = f"{row['chromosome']}_{row['exon_start']}_{row['exon_end']}"
        construct = Construct(contig, sequence, row["strand"], exon, symbol)
        if constructs.setdefault(contig, construct) != construct:
            raise SystemExit(f"{path}: two constructs at {contig}")
        record = _vexseq_record(row, contig, int(row["position"]) - first)
        end = record.start + len(record.ref)
        if sequence[record.start : end] != record.ref:
            raise SystemExit(f"{path}: {record.id}: REF {record.ref} is not in the reference sequence")
        if sequence[: record.start] + record.alt + sequence[end:] != edited:
            raise SystemExit(f"{path}: {record.id}: the alleles do not give the variant sequence")
        records.append(record)
    return list(constructs.values()), records


def _vexseq_record(row: Mapping[str, str], contig: str, start: int) -> Record:
    change = float(row["delta_PSI"])
    info = {
        "PANEL": "vexseq",
        "GCHROM": row["chromosome"],
        "GPOS": row["position"],
        "GSTRAND": row["strand"],
        "EXON": f"{row['exon_start']}-{row['exon_end']}",
        "DPSI": f"{change:.4f}",
        "REF_PSI": f"{float(row['mean_PSI']) - change:.4f}",
    }
    return Record(contig, start, row["variant"], row["reference"].upper(), row["alternative"].upper(), info)


def read_brca1(path: Path, windows_path: Path) -> tuple[list[Construct], list[Record]]:
    """Constructs and records of a BRCA1 table: classes FUNC and LOF, consequences at exon edges.

    BRCA1 lies on the minus strand. Exon edges follow from the intronic HGVS positions: c.81-3 lies three bases above
    the first base of its exon, c.80+1 one base below the last.
    """
    rows = defaultdict(list)
    for row in _rows(path):
        rows[row["experiment"]].append(row)
    constructs, records = [], []
    for window in _rows(windows_path):
        name, first, sequence = window["experiment"], int(window["start_hg19"]), window["reference"].upper()
        chosen = [row for row in rows[name] if row["func_class"] in CLASSES and row["consequence"] in CONSEQUENCES]
        if not chosen:
            continue
        start, end = _brca1_exon(rows[name], name, first, first + len(sequence) - 1)
        construct = Construct(f"brca1_{name}", sequence, "-", (start - first, end - first + 1), f"BRCA1_{name}")
        constructs.append(construct)
        for row in chosen:
            record = _brca1_record(row, construct.contig, first, f"{start}-{end}")
            if sequence[record.start : record.start + 1] != record.ref:
                raise SystemExit(f"{windows_path}: {record.id}: REF {record.ref} is not in the window")
            records.append(record)
    return constructs, records


def _brca1_exon(rows: list[dict[str, str]], name: str, low: int, high: int) -> tuple[int, int]:
    """First and last base of the exon in the genome, 1-based; the window's own end where no intron base was edited."""
    ends: dict[str, set[int]] = {"donor": set(), "acceptor": set()}
    for row in rows:
        found = _HGVS_INTRON.fullmatch(row["transcript_variant"])
        if found:
            offset = int(found.group(1))
            ends["donor" if offset > 0 else "acceptor"].add(int(row["position_hg19"]) + offset)
    if len(ends["donor"]) > 1 or len(ends["acceptor"]) > 1:
        raise SystemExit(f"BRCA1 {name}: HGVS positions give several exons: {ends}")
    return min(ends["donor"], default=low), max(ends["acceptor"], default=high)


def _brca1_record(row: Mapping[str, str], contig: str, first: int, exon: str) -> Record:
    info = {
        "PANEL": "brca1",
        "GCHROM": f"chr{row['chromosome']}",
        "GPOS": row["position_hg19"],
        "GSTRAND": "-",
        "EXON": exon,
        "CLASS": row["func_class"],
        "CONSEQUENCE": CONSEQUENCES[row["consequence"]],
        "FUNCTION_SCORE": f"{float(row['function_score_mean']):.4f}",
    }
    if row["phyloP"] not in ("", "NA"):
        info["PHYLOP"] = row["phyloP"]
    name = f"BRCA1:{row['transcript_variant']}"
    return Record(contig, int(row["position_hg19"]) - first, name, row["reference"], row["alt"], info)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as handle:
        yield from csv.DictReader(handle)


def _plus(sequence: str, strand: str) -> str:
    """A transcript-strand sequence on the + strand."""
    return sequence.upper() if strand == "+" else sequence.upper()[::-1].translate(_COMPLEMENT)


def write(folder: Path, constructs: list[Construct], records: list[Record]) -> None:
    """reference.fa, genes.txt, variants.vcf.gz and their indexes."""
    folder.mkdir(parents=True, exist_ok=True)
    constructs = sorted(constructs, key=lambda construct: _natural(construct.contig))
    (folder / "reference.fa").write_text("".join(f">{c.contig}\n{c.sequence}\n" for c in constructs))
    pysam.faidx(str(folder / "reference.fa"))
    (folder / "genes.txt").write_text(_GENES_HEADER + "".join(map(_gene, constructs)))
    order = {construct.contig: number for number, construct in enumerate(constructs)}
    ordered = sorted(records, key=lambda r: (order[r.contig], r.start, r.ref, r.alt))
    contigs = "".join(f"##contig=<ID={c.contig},length={len(c.sequence)}>\n" for c in constructs)
    columns = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    text = _HEADER + contigs + columns + "".join(f"{record.line()}\n" for record in ordered)
    vcf = str(folder / "variants.vcf.gz")
    with pysam.BGZFile(vcf, "wb", index=None) as handle:
        handle.write(text.encode())
    pysam.tabix_index(vcf, preset="vcf", force=True)


def _natural(name: str) -> list[tuple[int, str]]:
    """brca1 after vexseq, chr2 before chr10."""
    parts = re.split(r"(\d+)", name.replace("brca1", "~"))
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _gene(construct: Construct) -> str:
    """The transcript over the whole contig and the one exon that is known: its neighbours lie outside.

    SpliceAI's annotation layout, as it states a transcript's ends apart from its exons. Starts are 0-based.
    """
    start, end = construct.exon
    columns = (construct.symbol, construct.contig, construct.strand, 0, len(construct.sequence), f"{start},", f"{end},")
    return "\t".join(map(str, columns)) + "\n"


def main() -> None:
    """Read the tables that are given, write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vexseq", type=Path, help="Vex-seq table, CSV, plain or gzipped")
    parser.add_argument("--brca1", type=Path, help="BRCA1 saturation genome editing table, CSV")
    parser.add_argument("--brca1-windows", type=Path, help="its exon windows, CSV")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    given = parser.parse_args()
    if bool(given.brca1) != bool(given.brca1_windows) or not (given.vexseq or given.brca1):
        parser.error("give --vexseq, or --brca1 with --brca1-windows, or all three")
    constructs, records = read_vexseq(given.vexseq) if given.vexseq else ([], [])
    if given.brca1:
        more_constructs, more_records = read_brca1(given.brca1, given.brca1_windows)
        constructs, records = constructs + more_constructs, records + more_records
    write(given.output, constructs, records)
    print(f"{len(records)} variants on {len(constructs)} contigs in {given.output}")


if __name__ == "__main__":
    main()
