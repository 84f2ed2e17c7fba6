"""Small VCFs by code for the tests of this folder; bgzip of htslib where a second writer is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pysam

from engine.io.source import RawRecord, VariantSource

HEADER = (
    b"##fileformat=VCFv4.2\n"
    b"##contig=<ID=chr1,length=100000>\n"
    b"##contig=<ID=chr2,length=90000>\n"
    b'##INFO=<ID=AF,Number=A,Type=Float,Description="Frequency, of ALT">\n'
    b'##INFO=<ID=END,Number=1,Type=Integer,Description="End">\n'
    b'##INFO=<ID=T,Number=1,Type=String,Description="Text">\n'
    b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
)

LINES = [
    b"chr1\t10\trs1\tA\tC\t29.10\tPASS\tAF=0.00010",
    b"chr1\t10\trs1\tA\tC\t29.10\tPASS\tAF=0.00010",
    b"chr1\t20\t.\tACGTACGTAC\tA\t.\t.\t.",
    b"chr1\t25\t.\tA\tC,AT,*\t.\t.\tT=x",
    b"chr1\t40\t.\tA\t<DEL>\t.\t.\tEND=60",
    b"chr1\t61\t.\ta\tg\t.\t.\tT=y",
    b"chr1\t900\t.\tA\t.\t.\t.\t.",
    b"chr2\t5\t.\tG\tG]chr1:10]\t.\t.\t.",
    b"chr2\t50000\t.\tG\tT\t.\t.\t.",
]


def text(lines: Iterable[bytes], header: bytes = HEADER) -> bytes:
    """A VCF as bytes."""
    return header + b"".join(line + b"\n" for line in lines)


def write_plain(path: Path, lines: Iterable[bytes], header: bytes = HEADER) -> Path:
    """A plain VCF."""
    path.write_bytes(text(lines, header))
    return path


def write_bgzf(path: Path, lines: Iterable[bytes], header: bytes = HEADER) -> Path:
    """A BGZF VCF by htslib."""
    with pysam.BGZFile(str(path), "wb") as stream:
        stream.write(text(lines, header))
    return path


def write_bcf(path: Path, lines: Iterable[bytes], header: bytes = HEADER) -> Path:
    """A BCF by htslib."""
    plain = write_plain(path.with_suffix(".tmp.vcf"), lines, header)
    with pysam.VariantFile(str(plain)) as reader, pysam.VariantFile(str(path), "wb", header=reader.header) as writer:
        for record in reader:
            writer.write(record)
    plain.unlink()
    return path


def many_lines(num: int, *, step: int = 7) -> list[bytes]:
    """Sorted SNVs over two contigs."""
    half = num // 2
    return [
        b"chr%d\t%d\trs%d\t%s\t%s\t.\tPASS\tAF=0.%04d"
        % (1 + (i >= half), 1 + step * (i % half), i, b"A", b"C", i % 9999)
        for i in range(num)
    ]


def read_all(
    source: VariantSource, *, records_per_shard: int = 3, bytes_per_shard: int = 1 << 20
) -> tuple[list[RawRecord], Sequence[int]]:
    """All records by scanning and then reading every shard, and the shard sizes."""
    scan = source.scan(records_per_shard=records_per_shard, bytes_per_shard=bytes_per_shard)
    records = [record for shard in scan.shards for record in source.read(shard)]
    assert [shard.shard for shard in scan.shards] == list(range(len(scan.shards)))
    assert [record.ordinal for record in records] == list(range(scan.num_records))
    return records, [shard.num_records for shard in scan.shards]
