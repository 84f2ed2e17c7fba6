"""Genomes and variants for the comparison with SpliceAI: what they are, how they are written, and made-up ones.

Positions are 0-based half-open here; they turn 1-based as they are written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TABLE_HEADER = "#NAME\tCHROM\tSTRAND\tTX_START\tTX_END\tEXON_START\tEXON_END"
# Strong sites in transcript orientation; | is the exon's edge.
BRANCH = "TACTAACTGC"
ACCEPTOR = "TTTTCTCTTTCTTCCTTTTTCTCCTTGCAG"
ACCEPTOR_EXON = "GT"
DONOR_EXON = "AACAG"
DONOR = "GTAAGTATT"
_PAIR = str.maketrans("ACGTacgtRYSWKMBDHVN", "TGCAtgcaYRSWMKVHDBN")
_GC = (0.29, 0.21, 0.21, 0.29)
_IUPAC = {"R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC"}


@dataclass(frozen=True)
class Gene:
    """One transcript; exons ascending, 0-based half-open."""

    name: str
    contig: str
    strand: str
    start: int
    end: int
    exons: tuple[tuple[int, int], ...]

    def sites(self) -> list[tuple[str, int]]:
        """("acceptor" or "donor", the exon's base next to the intron) of every intron's ends."""
        found = []
        for (_, end), (start, _) in zip(self.exons[:-1], self.exons[1:], strict=True):
            kinds = ("donor", "acceptor") if self.strand == "+" else ("acceptor", "donor")
            found += [(kinds[0], end - 1), (kinds[1], start)]
        return found


@dataclass(frozen=True)
class Genome:
    """Contigs in the letters they are written in, and their genes."""

    contigs: Mapping[str, str]
    genes: tuple[Gene, ...]

    def bases(self, contig: str, start: int, num: int = 1) -> str:
        """Upper-case letters."""
        return self.contigs[contig][start : start + num].upper()


@dataclass(frozen=True)
class Site:
    """One record: REF as written at `start`, its ALT alleles, and why it is here."""

    contig: str
    start: int
    ref: str
    alts: tuple[str, ...]
    kind: str


def reverse_complement(text: str) -> str:
    """IUPAC letters and case kept."""
    return text.translate(_PAIR)[::-1]


def write_genome(genome: Genome, folder: Path) -> tuple[Path, Path]:
    """reference.fa and genes.txt (SpliceAI's table layout)."""
    fasta, genes = folder / "reference.fa", folder / "genes.txt"
    width = 60
    with fasta.open("w") as stream:
        for name, text in genome.contigs.items():
            stream.write(f">{name}\n")
            stream.writelines(f"{text[at : at + width]}\n" for at in range(0, len(text), width))
    rows = [TABLE_HEADER]
    for gene in genome.genes:
        starts = "".join(f"{start}," for start, _ in gene.exons)
        ends = "".join(f"{end}," for _, end in gene.exons)
        rows.append("\t".join([gene.name, gene.contig, gene.strand, str(gene.start), str(gene.end), starts, ends]))
    genes.write_text("\n".join(rows) + "\n")
    return fasta, genes


def write_vcf(path: Path, genome: Genome, sites: Iterable[Site]) -> list[Site]:
    """Sorted records with ids s00001 and on; returns them in that order."""
    order = {name: number for number, name in enumerate(genome.contigs)}
    placed = sorted(sites, key=lambda site: (order[site.contig], site.start))
    lines = ["##fileformat=VCFv4.2", '##ALT=<ID=DEL,Description="Deletion">']
    lines += [f"##contig=<ID={name},length={len(text)}>" for name, text in genome.contigs.items()]
    lines.append("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO")
    for number, site in enumerate(placed, 1):
        alts = ",".join(site.alts) or "."
        lines.append(f"{site.contig}\t{site.start + 1}\t{site_id(number)}\t{site.ref}\t{alts}\t.\t.\t.")
    path.write_text("\n".join(lines) + "\n")
    return placed


def site_id(number: int) -> str:
    """ID of the record of this number, counted from 1."""
    return f"s{number:05d}"


# ---- made-up sequence


def made_up_genome(seed: int) -> Genome:
    """Five contigs: a gene of each strand, two that overlap, one at both ends of its contig, one of odd letters."""
    chance = np.random.default_rng(seed)
    lengths = {"plus": 26_000, "minus": 26_000, "both": 31_000, "ends": 13_000, "odd": 24_000}
    genes = (
        _gene(chance, "PLUS1", "plus", "+", (6_000, 20_000)),
        _gene(chance, "MINUS1", "minus", "-", (6_000, 20_000)),
        _gene(chance, "FIRST", "both", "+", (6_200, 19_000)),
        _gene(chance, "SECOND", "both", "-", (14_000, 24_500)),
        _gene(chance, "WHOLE", "ends", "-", (0, 13_000)),
        _gene(chance, "ODD", "odd", "+", (5_700, 18_000)),
    )
    contigs = {}
    for name, length in lengths.items():
        letters = list("".join(chance.choice(list("ACGT"), length, p=_GC)))
        for gene in genes:
            if gene.contig == name:
                _plant(letters, gene)
        contigs[name] = _odd_letters(chance, "".join(letters)) if name == "odd" else "".join(letters)
    return Genome(contigs, genes)


def _gene(chance: np.random.Generator, name: str, contig: str, strand: str, bounds: tuple[int, int]) -> Gene:
    """Exons of about 130 bases with introns of 500 to 1,500 between the first and the last base."""
    exons, at = [], bounds[0]
    while at < bounds[1] - 700:
        end = at + int(chance.integers(90, 170))
        exons.append((at, end))
        at = end + int(chance.integers(500, 1_500))
    exons.append((bounds[1] - 120, bounds[1]))
    return Gene(name, contig, strand, bounds[0], bounds[1], tuple(exons))


def _plant(letters: list[str], gene: Gene) -> None:
    """Write strong sites over a gene's intron ends."""
    for kind, edge in gene.sites():
        text = BRANCH + ACCEPTOR + ACCEPTOR_EXON if kind == "acceptor" else DONOR_EXON + DONOR
        inside = len(ACCEPTOR_EXON) if kind == "acceptor" else len(DONOR_EXON)
        # Bases before the edge in transcript orientation, the edge's own not among them.
        before = len(text) - inside if kind == "acceptor" else inside - 1
        if gene.strand == "+":
            start = edge - before
        else:
            start, text = edge + before - len(text) + 1, reverse_complement(text)
        letters[start : start + len(text)] = text


def _odd_letters(chance: np.random.Generator, text: str) -> str:
    """A lower-case stretch, IUPAC letters and a run of N."""
    letters = list(text)
    letters[9_000:12_000] = [letter.lower() for letter in letters[9_000:12_000]]
    for at in range(6_500, 17_500, 450):
        code = str(chance.choice(list(_IUPAC)))
        letters[at] = code.lower() if letters[at].islower() else code
    letters[14_200:14_230] = "N" * 30
    return "".join(letters)


class Maker:
    """Draws records on one genome; `made` holds them."""

    def __init__(self, genome: Genome, seed: int) -> None:
        self.genome = genome
        self.chance = np.random.default_rng(seed)
        self.made: list[Site] = []

    def draw(self, low: int, high: int) -> int:
        return int(self.chance.integers(low, high))

    def text(self, num: int) -> str:
        return "".join(self.chance.choice(list("ACGT"), num))

    def other(self, base: str) -> str:
        return str(self.chance.choice([one for one in "ACGT" if one != base.upper()]))

    def gene(self) -> Gene:
        return self.genome.genes[self.draw(0, len(self.genome.genes))]

    def near_site(self, gene: Gene, low: int = -28, high: int = 12) -> int:
        """A place a few bases from an intron's end."""
        sites = gene.sites()
        _, edge = sites[self.draw(0, len(sites))]
        return edge + self.draw(low, high)

    def add(self, contig: str, start: int, ref: str, alts: Sequence[str], kind: str) -> None:
        self.made.append(Site(contig, start, ref, tuple(alts), kind))

    def snv(self, contig: str, start: int, kind: str) -> None:
        ref = self.genome.bases(contig, start)
        self.add(contig, start, ref, [self.other(ref)], kind)

    def insertion(self, contig: str, start: int, num: int, kind: str) -> None:
        ref = self.genome.bases(contig, start)
        self.add(contig, start, ref, [ref + self.text(num)], kind)

    def deletion(self, contig: str, start: int, num: int, kind: str) -> None:
        ref = self.genome.bases(contig, start, num + 1)
        self.add(contig, start, ref, [ref[0]], kind)


def made_up_sites(genome: Genome, seed: int) -> list[Site]:
    """At least 300 records of every kind that the two tools might read differently."""
    maker = Maker(genome, seed)
    _plain_kinds(maker)
    _long_alleles(maker)
    _edges(maker)
    _contig_ends(maker)
    _several_alts(maker)
    _odd_alts(maker)
    _odd_bases(maker)
    return maker.made


def _plain_kinds(maker: Maker) -> None:
    clean = [gene for gene in maker.genome.genes if gene.contig not in ("ends", "odd")]
    for number in range(35):
        gene = clean[number % len(clean)]
        maker.snv(gene.contig, maker.near_site(gene), "snv near a site")
        maker.insertion(gene.contig, maker.near_site(gene), maker.draw(1, 13), "insertion")
        maker.deletion(gene.contig, maker.near_site(gene), maker.draw(1, 21), "deletion")
    for number in range(40):
        gene = clean[number % len(clean)]
        kind, edge = gene.sites()[maker.draw(0, len(gene.sites()))]
        outward = 1 if (kind == "donor") == (gene.strand == "+") else -1
        maker.snv(gene.contig, edge + outward * maker.draw(1, 3), "snv in a site's two bases")
    for number in range(15):
        gene = clean[number % len(clean)]
        maker.snv(gene.contig, maker.draw(gene.start, gene.end), "snv anywhere in a gene")


def _long_alleles(maker: Maker) -> None:
    """Deletions and insertions around one and two distances, for 50 and 500 bases."""
    clean = [gene for gene in maker.genome.genes if gene.contig in ("plus", "minus", "both")]
    for number, size in enumerate(
        (49, 50, 51, 52, 80, 98, 99, 100, 101, 300, 499, 500, 501, 700, 998, 999, 1000, 1001)
    ):
        gene = clean[number % len(clean)]
        maker.deletion(gene.contig, maker.near_site(gene, -60, 10), size, "long deletion")
    for number, size in enumerate((49, 50, 51, 60, 101, 120, 499, 500, 501, 700)):
        gene = clean[number % len(clean)]
        maker.insertion(gene.contig, maker.near_site(gene), size, "long insertion")


def _edges(maker: Maker) -> None:
    for gene in maker.genome.genes:
        if gene.contig == "ends":
            continue
        for start in (gene.start - 1, gene.start, gene.start + 1, gene.end - 2, gene.end - 1, gene.end):
            maker.snv(gene.contig, start, "gene edge")
        maker.deletion(gene.contig, gene.start - 4, 9, "gene edge")
        maker.deletion(gene.contig, gene.end - 5, 9, "gene edge")
        maker.insertion(gene.contig, gene.end - 1, 4, "gene edge")
        maker.insertion(gene.contig, gene.start, 4, "gene edge")


def _contig_ends(maker: Maker) -> None:
    """The first and last places that have a whole window, for 50 and 500 bases, and the ones beyond them."""
    length = len(maker.genome.contigs["ends"])
    for half in (5_050, 5_500):
        for start in (half - 1, half, half + 1, length - half - 2, length - half - 1, length - half):
            maker.snv("ends", start, "contig end")
    for start in (0, 1, 1_000, length - 1_000, length - 1):
        maker.snv("ends", start, "contig end")
    maker.deletion("ends", length - 5_052, 30, "contig end")
    maker.insertion("ends", 5_050, 30, "contig end")


def _several_alts(maker: Maker) -> None:
    clean = [gene for gene in maker.genome.genes if gene.contig in ("plus", "minus", "both")]
    for number in range(10):
        gene = clean[number % len(clean)]
        start = maker.near_site(gene)
        ref = maker.genome.bases(gene.contig, start)
        alts = [base for base in "ACGT" if base != ref][: 2 + number % 2]
        maker.add(gene.contig, start, ref, [*alts, ref + maker.text(2)], "several ALTs")
        long_ref = maker.genome.bases(gene.contig, start, 3)
        maker.add(gene.contig, start, long_ref, [long_ref[0], long_ref[:2]], "several ALTs, one MNV")
    for number, (num_ref, num_alt) in enumerate(((2, 2), (3, 3), (3, 2), (2, 4), (5, 5), (2, 2))):
        gene = clean[number % len(clean)]
        start = maker.near_site(gene)
        ref = maker.genome.bases(gene.contig, start, num_ref)
        alt = maker.other(ref[0]) + maker.text(num_alt - 1)
        maker.add(gene.contig, start, ref, [alt], "MNV or delins")
        maker.add(gene.contig, start, ref, [ref[:-1] + maker.other(ref[-1])], "padded SNV")


def _odd_alts(maker: Maker) -> None:
    gene = maker.genome.genes[0]
    for alt in ("*", "<DEL>", "<INS>", "<*>", "<NON_REF>", "{ref}[plus:9000[", "]plus:9000]{ref}", "{ref}."):
        start = maker.near_site(gene)
        ref = maker.genome.bases(gene.contig, start)
        maker.add(gene.contig, start, ref, [alt.format(ref=ref)], "no plain ALT")
    start = maker.near_site(gene)
    ref = maker.genome.bases(gene.contig, start)
    maker.add(gene.contig, start, ref, [], "no plain ALT")
    maker.add(gene.contig, start, ref, [maker.other(ref), "*"], "no plain ALT")
    maker.add(gene.contig, start, ref, ["<NON_REF>", maker.other(ref)], "no plain ALT")
    maker.add(gene.contig, start, ref, [ref], "ALT is REF")
    for number in range(2):  # few: above 1% the engine takes it for the wrong reference
        start = maker.near_site(gene)
        ref = maker.other(maker.genome.bases(gene.contig, start))
        maker.add(gene.contig, start, ref, [maker.other(ref)], f"REF mismatch {number + 1}")
    for start in (10, gene.start - 2_000, gene.end + 500):
        maker.snv(gene.contig, start, "outside genes")


def _odd_bases(maker: Maker) -> None:
    """Lower case, IUPAC letters and N, in alleles and in the reference around them."""
    gene = maker.genome.genes[0]
    for _ in range(4):
        start = maker.near_site(gene)
        ref = maker.genome.bases(gene.contig, start)
        maker.add(gene.contig, start, ref, [maker.other(ref).lower()], "lower-case ALT")
        maker.add(gene.contig, start, ref.lower(), [maker.other(ref)], "lower-case REF")
    for letter in ("R", "Y", "K", "N", "B", "V"):
        start = maker.near_site(gene)
        ref = maker.genome.bases(gene.contig, start)
        maker.add(gene.contig, start, ref, [letter], "IUPAC ALT")
        maker.add(gene.contig, start, ref, [ref + "C" + letter], "IUPAC ALT")
    odd = next(one for one in maker.genome.genes if one.name == "ODD")
    text = maker.genome.contigs["odd"]
    letters = [at for at in range(odd.start, odd.end) if text[at].upper() in _IUPAC]
    for number, at in enumerate(letters[:16]):
        maker.snv("odd", at + maker.draw(1, 30), "IUPAC letter near")
        if number < 4:
            written = text[at].upper()
            maker.add("odd", at, written, [maker.other(written)], "IUPAC letter as REF")
            base = _IUPAC[written][0]
            maker.add("odd", at, base, [maker.other(base)], "base of an IUPAC letter as REF")
    for _ in range(8):
        start = maker.draw(9_000, 12_000)
        if text[start].upper() in "ACGT":
            maker.snv("odd", start, "lower-case reference")
    maker.snv("odd", 14_199, "beside N")
    maker.deletion("odd", 14_190, 15, "beside N")
    maker.add("odd", 14_210, "N", ["A"], "N as REF")
    maker.add("odd", 14_211, "A", ["G"], "base where the reference has N")
