"""A small made-up genome with everything that hurts, written by code: the same bytes for the same seed.

    toy = make_genome(tmp_path)                      # folder with all files below
    toy.contigs["chr1"]                              # sequence as written (lower case, N and IUPAC letters included)
    toy.clean("chr1", 10, 20)                        # what a reader should give: upper case, IUPAC as N
    toy.fasta, toy.fasta_gz                          # plain and bgzipped, no index beside them
    toy.ensembl_gtf, toy.gencode_gtf, toy.ensembl_gff3, toy.refseq_gff3, toy.spliceai_table
    toy.genes                                        # the truth that the five annotation files tell, as ToyGene
    write_vcf(path, records, toy)                    # VCF text, or BGZF where the name ends in .gz
    toy_records(toy)                                 # valid VCF: one record or more per kind of allele, sorted
    bad_records(toy)                                 # valid lines with wrong content (REF mismatch and more), sorted
    broken_lines(toy)                                # (reason code, line) that do not parse as VCF records
    random_records(toy, 1000, seed=3)                # many plain SNVs and indels, sorted
    write_fasta(path, {"chr1": "ACGT"})              # any other FASTA

Contigs: chr1 (30,000 bp, most genes, repeats, an N run), chr2 (12,000), chr3 (700 bp, shorter than most windows).
Give `prefix=""` for contigs named 1, 2, 3. All annotation files use the contig names of the FASTA. Introns of the
chosen transcripts begin with GT and end with AG on their own strand.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pysam

COMPLEMENT = str.maketrans("ACGTN", "TGCAN")
LENGTHS = {"1": 30_000, "2": 12_000, "3": 700}
N_RUN = (15_000, 15_120)  # on contig 1
LOWER_CASE = (5_000, 6_000)  # on contig 1
POLY_A = (9_000, 9_030)  # on contig 1
CA_REPEAT = (9_100, 9_140)  # on contig 1
IUPAC = {7_000: "R", 7_001: "y", 7_500: "M"}  # on contig 1


@dataclass(frozen=True)
class ToyTranscript:
    """One transcript: 0-based half-open exons in ascending order; `cds` is the coding range or None."""

    transcript_id: str
    exons: tuple[tuple[int, int], ...]
    cds: tuple[int, int] | None = None
    is_mane_select: bool = False
    is_canonical: bool = False

    @property
    def cds_parts(self) -> list[tuple[int, int]]:
        if self.cds is None:
            return []
        low, high = self.cds
        return [(max(s, low), min(e, high)) for s, e in self.exons if max(s, low) < min(e, high)]

    @property
    def cds_length(self) -> int:
        return sum(end - start for start, end in self.cds_parts)


@dataclass(frozen=True)
class ToyGene:
    """One gene; `chosen` is the id that MANE Select, canonical, longest CDS, lowest id picks."""

    gene_id: str
    symbol: str
    contig: str
    strand: str
    transcripts: tuple[ToyTranscript, ...]
    chosen: str

    @property
    def start(self) -> int:
        return min(t.exons[0][0] for t in self.transcripts)

    @property
    def end(self) -> int:
        return max(t.exons[-1][1] for t in self.transcripts)


@dataclass(frozen=True)
class ToyRecord:
    """One VCF record as text. `expected` holds, per ALT, '' for a plain allele or its reason code."""

    contig: str
    pos: int
    ref: str
    alts: tuple[str, ...]
    kind: str
    expected: tuple[str, ...] = ()
    id: str = "."
    qual: str = "29.10"
    info: str = ""

    def line(self, num_samples: int = 0) -> str:
        info = ";".join(x for x in (f"KIND={self.kind}", "AF=0.00010", self.info) if x)
        columns = [self.contig, str(self.pos), self.id, self.ref, ",".join(self.alts) or ".", self.qual, "PASS", info]
        if num_samples:
            columns += ["GT:DP", *["0/1:30" if self.alts else "0/0:30"] * num_samples]
        return "\t".join(columns)


@dataclass(frozen=True)
class ToyGenome:
    """Paths and truth of the made-up genome."""

    folder: Path
    contigs: Mapping[str, str]
    genes: tuple[ToyGene, ...]
    fasta: Path
    fasta_gz: Path
    ensembl_gtf: Path
    gencode_gtf: Path
    ensembl_gff3: Path
    refseq_gff3: Path
    spliceai_table: Path

    def clean(self, contig: str, start: int, end: int) -> str:
        """The sequence as a reader should give it, N outside the contig."""
        text = self.contigs[contig]
        return "".join(_clean(text[i]) if 0 <= i < len(text) else "N" for i in range(start, end))


def _clean(base: str) -> str:
    return base.upper() if base.upper() in "ACGT" else "N"


def make_genome(folder: Path, *, seed: int = 7, prefix: str = "chr") -> ToyGenome:
    """Write the genome and its annotation files into `folder` (made if absent)."""
    folder.mkdir(parents=True, exist_ok=True)
    genes = _genes(prefix)
    contigs = _sequences(seed, prefix, genes)
    toy = ToyGenome(
        folder=folder,
        contigs=contigs,
        genes=genes,
        fasta=write_fasta(folder / "toy.fa", contigs),
        fasta_gz=folder / "toy_bgzip.fa.gz",
        ensembl_gtf=folder / "ensembl.gtf",
        gencode_gtf=folder / "gencode.gtf.gz",
        ensembl_gff3=folder / "ensembl.gff3",
        refseq_gff3=folder / "refseq.gff3",
        spliceai_table=folder / "spliceai.txt",
    )
    pysam.tabix_compress(str(toy.fasta), str(toy.fasta_gz), force=True)
    toy.ensembl_gtf.write_text("".join(f"{line}\n" for line in _gtf_lines(genes, gencode=False)))
    plain = folder / "gencode.gtf"
    plain.write_text("".join(f"{line}\n" for line in _gtf_lines(genes, gencode=True)))
    pysam.tabix_compress(str(plain), str(toy.gencode_gtf), force=True)
    plain.unlink()
    toy.ensembl_gff3.write_text("".join(f"{line}\n" for line in _ensembl_gff3_lines(genes)))
    toy.refseq_gff3.write_text("".join(f"{line}\n" for line in _refseq_gff3_lines(genes)))
    toy.spliceai_table.write_text("".join(f"{line}\n" for line in _spliceai_lines(genes)))
    return toy


def write_fasta(path: Path, contigs: Mapping[str, str], *, width: int = 60) -> Path:
    """Write a FASTA with fixed line width; bgzipped where the name ends in .gz."""
    lines = []
    for name, text in contigs.items():
        lines.append(f">{name} made up\n")
        lines += [text[i : i + width] + "\n" for i in range(0, len(text), width)]
    return _write(path, "".join(lines))


def _write(path: Path, text: str) -> Path:
    if path.suffix != ".gz":
        path.write_text(text)
        return path
    plain = path.with_suffix(".plain")
    plain.write_text(text)
    pysam.tabix_compress(str(plain), str(path), force=True)
    plain.unlink()
    return path


def _genes(prefix: str) -> tuple[ToyGene, ...]:
    one, two, three = (f"{prefix}{name}" for name in "123")
    mane = ToyTranscript("ENST0012.3", ((1_000, 1_200), (2_000, 2_150), (3_500, 4_000)), (1_100, 2_100), True, True)
    long = ToyTranscript("ENST0011.1", ((900, 1_200), (2_000, 2_150), (3_000, 4_200)), (1_000, 4_100))
    minus = ToyTranscript("ENST0021.5", ((4_100, 4_600), (6_500, 6_700), (8_000, 8_300)), (4_500, 8_100), False, True)
    minus_long = ToyTranscript("ENST0020.2", ((4_050, 4_600), (6_500, 6_800), (8_000, 8_310)), (4_100, 8_300))
    short_cds = ToyTranscript("ENST0030.1", ((10_000, 10_200), (11_000, 11_300)), (10_150, 11_050))
    long_cds = ToyTranscript("ENST0031.2", ((10_000, 10_200), (11_000, 11_400)), (10_050, 11_350))
    rna_high = ToyTranscript("ENST0041.1", ((20_000, 20_300), (21_000, 21_200)))
    rna_low = ToyTranscript("ENST0040.1", ((20_000, 20_300), (21_000, 21_300)))
    edge = ToyTranscript("ENST0050.1", ((0, 150), (900, 1_100)))
    tiny = ToyTranscript("ENST0070.1", ((100, 250), (500, 700)))
    return (
        ToyGene("ENSG0001.4", "TOYA", one, "+", (mane, long), "ENST0012.3"),
        ToyGene("ENSG0002.1", "TOYB", one, "-", (minus_long, minus), "ENST0021.5"),
        ToyGene("ENSG0003.2", "TOYC", one, "+", (short_cds, long_cds), "ENST0031.2"),
        ToyGene("ENSG0004.1", "TOYD", one, "-", (rna_high, rna_low), "ENST0040.1"),
        ToyGene("ENSG0005.1", "EDGE", two, "+", (edge,), "ENST0050.1"),
        ToyGene("ENSG0006.1", "MONO", two, "-", (ToyTranscript("ENST0060.1", ((5_000, 7_000),)),), "ENST0060.1"),
        ToyGene("ENSG0007.1", "TINY", three, "+", (tiny,), "ENST0070.1"),
    )


def _sequences(seed: int, prefix: str, genes: Iterable[ToyGene]) -> dict[str, str]:
    rng = random.Random(seed)
    letters = {f"{prefix}{name}": rng.choices("ACGT", k=length) for name, length in LENGTHS.items()}
    for gene in genes:
        chosen = next(t for t in gene.transcripts if t.transcript_id == gene.chosen)
        donor, acceptor = ("GT", "AG") if gene.strand == "+" else ("CT", "AC")
        for (_, start), (end, _) in zip(chosen.exons, chosen.exons[1:], strict=False):
            letters[gene.contig][start : start + 2] = donor
            letters[gene.contig][end - 2 : end] = acceptor
    first = letters[f"{prefix}1"]
    first[N_RUN[0] : N_RUN[1]] = "N" * (N_RUN[1] - N_RUN[0])
    # The bases beside the repeats differ from them, so that how far an indel slides is known.
    first[POLY_A[0] - 1 : POLY_A[1] + 1] = "C" + "A" * (POLY_A[1] - POLY_A[0]) + "G"
    first[CA_REPEAT[0] - 1 : CA_REPEAT[1] + 1] = "T" + "CA" * ((CA_REPEAT[1] - CA_REPEAT[0]) // 2) + "G"
    for at, letter in IUPAC.items():
        first[at] = letter
    first[LOWER_CASE[0] : LOWER_CASE[1]] = "".join(first[LOWER_CASE[0] : LOWER_CASE[1]]).lower()
    return {name: "".join(text) for name, text in letters.items()}


def _gtf_lines(genes: Iterable[ToyGene], *, gencode: bool) -> Iterable[str]:
    source = "HAVANA" if gencode else "ensembl"
    yield "##format: gtf" if gencode else "#!genome-build toy"
    for gene in genes:
        gene_keys = _gtf_gene_keys(gene, gencode=gencode)
        yield _row(gene, source, "gene", (gene.start, gene.end), f"{gene_keys};")
        for t in gene.transcripts:
            keys = f"{gene_keys}; {_gtf_transcript_keys(gene, t, gencode=gencode)};"
            span = (t.exons[0][0], t.exons[-1][1])
            yield _row(gene, source, "transcript", span, keys)
            for number, exon in enumerate(_own_order(gene, t.exons), 1):
                text = f"exon_number {number}" if gencode else f'exon_number "{number}"'
                yield _row(gene, source, "exon", exon, f"{keys} {text};")
            for part in _own_order(gene, t.cds_parts):
                yield _row(gene, source, "CDS", part, keys)


def _gtf_gene_keys(gene: ToyGene, *, gencode: bool) -> str:
    if gencode:
        return f'gene_id "{gene.gene_id}"; gene_type "protein_coding"; gene_name "{gene.symbol}"'
    name, version = gene.gene_id.split(".")
    return f'gene_id "{name}"; gene_version "{version}"; gene_name "{gene.symbol}"; gene_source "ensembl"'


def _gtf_transcript_keys(gene: ToyGene, t: ToyTranscript, *, gencode: bool) -> str:
    tags = ["basic"] + ["MANE_Select"] * t.is_mane_select + ["Ensembl_canonical"] * t.is_canonical
    if gencode:
        head = f'transcript_id "{t.transcript_id}"; transcript_name "{gene.symbol}-201"; level 2'
    else:
        name, version = t.transcript_id.split(".")
        # Semicolons inside quotes do occur in real files.
        head = f'transcript_id "{name}"; transcript_version "{version}"; transcript_name "{gene.symbol}; x"'
    return "; ".join([head, *(f'tag "{tag}"' for tag in tags)])


def _ensembl_gff3_lines(genes: Iterable[ToyGene]) -> Iterable[str]:
    yield "##gff-version 3"
    for gene in genes:
        gene_name, gene_version = gene.gene_id.split(".")
        keys = (
            f"ID=gene:{gene_name};Name={gene.symbol};biotype=protein_coding;gene_id={gene_name};version={gene_version}"
        )
        yield _row(gene, "ensembl", "gene", (gene.start, gene.end), keys)
        for t in gene.transcripts:
            name, version = t.transcript_id.split(".")
            tags = ["basic"] + ["Ensembl_canonical"] * t.is_canonical + ["MANE_Select"] * t.is_mane_select
            keys = f"ID=transcript:{name};Parent=gene:{gene_name};Name={gene.symbol}-201;tag={','.join(tags)}"
            keys += f";transcript_id={name};version={version}"
            kind = "mRNA" if t.cds else "lnc_RNA"
            yield _row(gene, "ensembl", kind, (t.exons[0][0], t.exons[-1][1]), keys)
            for number, exon in enumerate(_own_order(gene, t.exons), 1):
                yield _row(gene, "ensembl", "exon", exon, f"Parent=transcript:{name};Name=E{number};rank={number}")
            for part in _own_order(gene, t.cds_parts):
                yield _row(gene, "ensembl", "CDS", part, f"ID=CDS:P{name};Parent=transcript:{name};protein_id=P")
        yield "###"


def _refseq_gff3_lines(genes: Iterable[ToyGene]) -> Iterable[str]:
    yield "##gff-version 3"
    yield "#!processor NCBI annotwriter"
    for gene in genes:
        tail = f"Dbxref=GeneID:{gene.gene_id[4:8]},HGNC:HGNC:1;gene={gene.symbol}"
        keys = f"ID=gene-{gene.symbol};{tail};Name={gene.symbol};gbkey=Gene;gene_biotype=protein_coding"
        yield _row(gene, "BestRefSeq", "gene", (gene.start, gene.end), keys)
        for t in gene.transcripts:
            parent = f"rna-{t.transcript_id}"
            # RefSeq has no canonical tag of its own; RefSeq Select stands beside MANE Select or alone.
            tag = ";tag=MANE Select" if t.is_mane_select else ";tag=RefSeq Select" if t.is_canonical else ""
            keys = f"ID={parent};Parent=gene-{gene.symbol};{tail};Name={t.transcript_id};gbkey=mRNA{tag}"
            keys += f";product=toy%2C made up;transcript_id={t.transcript_id}"
            yield _row(gene, "BestRefSeq", "mRNA" if t.cds else "lnc_RNA", (t.exons[0][0], t.exons[-1][1]), keys)
            for number, exon in enumerate(_own_order(gene, t.exons), 1):
                keys = f"ID=exon-{t.transcript_id}-{number};Parent={parent};{tail};transcript_id={t.transcript_id}"
                yield _row(gene, "BestRefSeq", "exon", exon, keys)
            for part in _own_order(gene, t.cds_parts):
                yield _row(gene, "BestRefSeq", "CDS", part, f"ID=cds-P;Parent={parent};{tail};protein_id=P")


def _spliceai_lines(genes: Iterable[ToyGene]) -> Iterable[str]:
    yield "#NAME\tCHROM\tSTRAND\tTX_START\tTX_END\tEXON_START\tEXON_END"
    for gene in genes:
        exons = next(t for t in gene.transcripts if t.transcript_id == gene.chosen).exons
        # Starts are 0-based and ends 1-based inclusive there, which is the same as half-open.
        starts = "".join(f"{start}," for start, _ in exons)
        ends = "".join(f"{end}," for _, end in exons)
        columns = [gene.symbol, gene.contig, gene.strand, str(exons[0][0]), str(exons[-1][1]), starts, ends]
        yield "\t".join(columns)


def _own_order(gene: ToyGene, parts: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Exons in the order of the gene's own strand, as annotation files list them."""
    return list(parts) if gene.strand == "+" else list(parts)[::-1]


def _row(gene: ToyGene, source: str, feature: str, span: tuple[int, int], keys: str) -> str:
    phase = "0" if feature == "CDS" else "."
    return f"{gene.contig}\t{source}\t{feature}\t{span[0] + 1}\t{span[1]}\t.\t{gene.strand}\t{phase}\t{keys}"


def write_vcf(
    path: Path,
    records: Iterable[ToyRecord | str],
    toy: ToyGenome,
    *,
    num_samples: int = 0,
    with_contigs: bool = True,
    extra_header: Sequence[str] = (),
) -> Path:
    """Write records (or ready lines) in the order given; BGZF, without an index, where the name ends in .gz."""
    lines = ["##fileformat=VCFv4.2", '##FILTER=<ID=PASS,Description="All filters passed">', *extra_header]
    lines += [
        '##INFO=<ID=KIND,Number=1,Type=String,Description="What the record is for">',
        '##INFO=<ID=AF,Number=A,Type=Float,Description="Made-up frequency">',
        '##INFO=<ID=END,Number=1,Type=Integer,Description="End position">',
        '##INFO=<ID=SVTYPE,Number=1,Type=String,Description="Kind of structural variant">',
        '##ALT=<ID=DEL,Description="Deletion">',
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">',
        '##FORMAT=<ID=DP,Number=1,Type=Integer,Description="Depth">',
    ]
    if with_contigs:
        lines += [f"##contig=<ID={name},length={len(text)}>" for name, text in toy.contigs.items()]
    columns = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO"]
    columns += ["FORMAT", *(f"S{i}" for i in range(num_samples))] if num_samples else []
    lines.append("\t".join(columns))
    lines += [record if isinstance(record, str) else record.line(num_samples) for record in records]
    return _write(path, "".join(f"{line}\n" for line in lines))


def _other(base: str) -> str:
    return "ACGT"["ACGT".index(base) - 1]


def _snv(toy: ToyGenome, contig: str, start: int, kind: str) -> ToyRecord:
    ref = toy.clean(contig, start, start + 1)
    return ToyRecord(contig, start + 1, ref, (_other(ref),), kind, ("",))


def toy_records(toy: ToyGenome) -> list[ToyRecord]:
    """One valid record or more of each kind, sorted; all within the contigs and with the right REF."""
    one, two, three = toy.contigs

    def ref(contig: str, start: int, num: int) -> str:
        return toy.clean(contig, start, start + num)

    snv = _snv(toy, one, 1_199, "snv_last_exon_base")
    lower = _snv(toy, one, 5_100, "lower_case")
    long_ref = ref(one, 3_480, 60)
    records = [
        _snv(toy, one, 0, "contig_first_base"),
        _snv(toy, one, 500, "outside_genes"),
        snv,
        replace(snv, kind="duplicate", id="rs1"),
        _snv(toy, one, 1_201, "snv_donor"),
        _insertion(toy, one, 1_300, "TTG", "insertion"),
        _deletion(toy, one, 1_990, 12, "deletion_over_acceptor"),
        ToyRecord(one, 2_011, "MNV", (), "mnv"),
        ToyRecord(one, 2_051, ref(one, 2_050, 5), (ref(one, 2_050, 1) + "GGGGGGG",), "delins", ("",)),
        _multi_allelic(toy, one, 2_100),
        ToyRecord(one, 2_120 + 1, ref(one, 2_120, 1), ("*", _other(ref(one, 2_120, 1))), "star", ("star_allele", "")),
        ToyRecord(one, 2_130 + 1, ref(one, 2_130, 1), (), "no_alt"),
        ToyRecord(one, 2_131 + 1, ref(one, 2_131, 1), ("<NON_REF>",), "gvcf", ("reference_only",), info="END=2140"),
        ToyRecord(
            one, 2_200 + 1, ref(one, 2_200, 1), ("<DEL>",), "symbolic", ("symbolic_allele",), info="END=2300;SVTYPE=DEL"
        ),
        ToyRecord(
            one,
            2_201 + 1,
            ref(one, 2_201, 1),
            (f"{ref(one, 2_201, 1)}[{two}:500[",),
            "breakend",
            ("breakend",),
            info="SVTYPE=BND",
        ),
        ToyRecord(one, 2_202 + 1, ref(one, 2_202, 1), (f"{ref(one, 2_202, 1)}.",), "single_breakend", ("breakend",)),
        ToyRecord(one, 3_481, long_ref, (long_ref[0],), "long_deletion", ("",)),
        _snv(toy, one, 4_120, "two_genes"),
        replace(lower, ref=lower.ref.lower(), alts=(lower.alts[0].lower(),)),
        ToyRecord(one, 7_001, "N", ("A",), "iupac_reference", ("",)),
        ToyRecord(one, 7_010 + 1, ref(one, 7_010, 1), ("N",), "n_allele", ("",)),
        ToyRecord(one, 9_010 + 1, "AA", ("A",), "homopolymer_deletion", ("",)),
        ToyRecord(one, 9_120 + 1, "C", ("CAC",), "repeat_insertion", ("",)),
        ToyRecord(one, N_RUN[0] + 51, "N", ("G",), "n_reference", ("",)),
        _snv(toy, one, LENGTHS["1"] - 1, "contig_last_base"),
        _deletion(toy, two, 0, 3, "deletion_at_contig_start"),
        _insertion(toy, two, LENGTHS["2"] - 1, "ACGTT", "insertion_at_contig_end"),
        _snv(toy, three, 300, "short_contig"),
        _deletion(toy, three, LENGTHS["3"] - 4, 3, "deletion_at_contig_end"),
    ]
    return [_mnv(toy, r) if r.kind == "mnv" else r for r in records]


def _mnv(toy: ToyGenome, record: ToyRecord) -> ToyRecord:
    """Three bases of which the outer two change."""
    ref = toy.clean(record.contig, record.pos - 1, record.pos + 2)
    return replace(record, ref=ref, alts=(_other(ref[0]) + ref[1] + _other(ref[2]),), expected=("",))


def _insertion(toy: ToyGenome, contig: str, start: int, bases: str, kind: str) -> ToyRecord:
    anchor = toy.clean(contig, start, start + 1)
    return ToyRecord(contig, start + 1, anchor, (anchor + bases,), kind, ("",))


def _deletion(toy: ToyGenome, contig: str, start: int, num: int, kind: str) -> ToyRecord:
    """Remove `num` bases after the anchor at `start`."""
    ref = toy.clean(contig, start, start + num + 1)
    return ToyRecord(contig, start + 1, ref, (ref[0],), kind, ("",))


def _multi_allelic(toy: ToyGenome, contig: str, start: int) -> ToyRecord:
    ref = toy.clean(contig, start, start + 3)
    alts = (_other(ref[0]) + ref[1:], ref[0], ref + "ACC")
    return ToyRecord(contig, start + 1, ref, alts, "multi_allelic", ("", "", ""), info="")


def bad_records(toy: ToyGenome) -> list[ToyRecord]:
    """Lines that parse but do not fit the genome or name no change, sorted; `expected` holds the reason codes."""
    one, two, three = toy.contigs
    base = toy.clean(one, 1_500, 1_501)
    last = toy.clean(three, 699, 700)
    return [
        ToyRecord(one, 1_501, _other(base), (base,), "ref_mismatch", ("ref_mismatch",)),
        ToyRecord(one, 1_503, toy.clean(one, 1_502, 1_503), ("Q",), "bad_letter", ("bad_allele",)),
        ToyRecord(one, 1_504, *_twice(toy.clean(one, 1_503, 1_504)), "alt_equals_ref", ("alt_equals_ref",)),
        ToyRecord(two, 101, toy.clean(two, 100, 8_100), ("A",), "very_long_deletion", ("",)),
        ToyRecord(three, 700, last + "ACGT", (last,), "past_contig_end", ("past_contig_end",)),
        ToyRecord(three, 2_000, "A", ("C",), "bad_position", ("bad_position",)),
    ]


def _twice(base: str) -> tuple[str, tuple[str, ...]]:
    return base, (base,)


def broken_lines(toy: ToyGenome) -> list[tuple[str, str]]:
    """(reason code, line) of lines that are no VCF records; put them where you like."""
    one = next(iter(toy.contigs))
    return [
        ("malformed_record", f"{one}\t1600\t.\tA"),
        ("bad_position", f"{one}\tabc\t.\tA\tC\t.\t.\t."),
        ("bad_position", f"{one}\t-5\t.\tA\tC\t.\t.\t."),
        ("bad_allele", f"{one}\t1601\t.\t.\tC\t.\t.\t."),
    ]


def random_records(toy: ToyGenome, num: int, *, seed: int = 1, max_indel: int = 6) -> list[ToyRecord]:
    """Sorted plain SNVs (two of three), insertions and deletions at random places, REF right, no N in REF."""
    rng = random.Random(seed)
    names = list(toy.contigs)
    weights = [len(text) for text in toy.contigs.values()]
    records: list[ToyRecord] = []
    while len(records) < num:
        contig = rng.choices(names, weights)[0]
        start = rng.randrange(len(toy.contigs[contig]) - max_indel - 1)
        size = rng.randint(1, max_indel)
        if "N" in toy.clean(contig, start, start + max_indel + 1):
            continue
        kind = rng.choice(["snv", "snv", "snv", "snv", "insertion", "deletion"])
        if kind == "snv":
            record = _snv(toy, contig, start, kind)
        elif kind == "insertion":
            record = _insertion(toy, contig, start, "".join(rng.choices("ACGT", k=size)), kind)
        else:
            record = _deletion(toy, contig, start, size, kind)
        records.append(record)
    return sorted(records, key=lambda record: (names.index(record.contig), record.pos))
