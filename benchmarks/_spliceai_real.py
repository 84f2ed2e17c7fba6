"""Variants on real sequence for the comparison with SpliceAI: chosen to move its scores, or laid out to be timed."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks._spliceai_variants import Gene, Genome, Maker, Site, reverse_complement


def real_genome(folder: Path, table: Path, *, last: int = 1_000_000) -> Genome:
    """chr9:1-1,000,000 of the data folder and the genes of SpliceAI's own table that lie in it."""
    path = next(iter(sorted(folder.glob("*.fa.gz"))), None)
    if path is None:
        raise SystemExit(f"no *.fa.gz in {folder}: give the folder of chr9:1-1,000,000")
    with gzip.open(path, "rt") as stream:
        name = stream.readline()[1:].split()[0]
        text = "".join(line.strip() for line in stream)
    genes = tuple(gene for gene in read_table(table) if gene.contig == name and gene.end <= min(last, len(text)))
    return Genome({name: text}, genes)


def read_table(path: Path) -> Iterator[Gene]:
    """Rows of SpliceAI's annotation table; starts are 0-based, ends 1-based inclusive."""
    for line in path.read_text().splitlines()[1:]:
        name, contig, strand, start, end, starts, ends = line.split("\t")[:7]
        pairs = zip(_numbers(starts), _numbers(ends), strict=True)
        yield Gene(name, contig, strand, int(start), int(end), tuple(sorted(pairs)))


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",") if word]


def real_sites(genome: Genome, seed: int) -> list[Site]:
    """By rule, without any score: a loss (indels among them) or a gain at the ends of each intron, some elsewhere."""
    maker = Maker(genome, seed)
    ends = [(gene, *site) for gene in genome.genes for site in gene.sites()]
    for number, (gene, kind, edge) in enumerate(ends):
        if number // 2 % 2:
            _gain(maker, gene, kind=kind, edge=edge)
        else:
            _loss(maker, gene, kind=kind, edge=edge, turn=number // 4 % 4)
    overlaps = [(one, other) for one in genome.genes for other in genome.genes if one.start < other.start < one.end]
    for one, other in overlaps:
        for _ in range(6):
            maker.snv(one.contig, maker.draw(other.start, min(one.end, other.end)), "two genes")
    for gene in genome.genes:
        maker.snv(gene.contig, maker.draw(gene.start, gene.end), "anywhere in a gene")
    return _distinct(maker.made)


def _loss(maker: Maker, gene: Gene, *, kind: str, edge: int, turn: int) -> None:
    """A change of the two bases of a site: SNV, deletion over them or insertion between them, in turn."""
    outward = 1 if (kind == "donor") == (gene.strand == "+") else -1
    if turn in (0, 1):
        maker.snv(gene.contig, edge + outward * (1 + turn), f"{kind} lost")
    elif turn == 2:
        first = min(edge + outward, edge + 2 * outward)
        more = maker.draw(0, 3)
        maker.deletion(gene.contig, first - 1 - more, more + maker.draw(2, 5), f"{kind} deleted")
    else:
        left = edge if outward == 1 else edge - 1
        maker.insertion(gene.contig, left, maker.draw(1, 5), f"insertion at the {kind}")


def _gain(maker: Maker, gene: Gene, *, kind: str, edge: int, reach: int = 45) -> None:
    """The SNV within reach that makes the site most like the consensus out of bases that are no site."""
    best: tuple[float, int, str] | None = None
    for start in range(edge - reach, edge + reach + 1):
        if abs(start - edge) <= 3:
            continue
        ref = maker.genome.bases(gene.contig, start)
        for alt in "ACGT":
            if ref not in (alt, "N"):
                gain = _best_site(maker.genome, gene, kind=kind, start=start, alt=alt)
                if gain is not None and (best is None or gain > best[0]):
                    best = (gain, start, alt)
    if best is not None:
        _, start, alt = best
        maker.add(gene.contig, start, maker.genome.bases(gene.contig, start), [alt], f"{kind} gained")


def _best_site(genome: Genome, gene: Gene, *, kind: str, start: int, alt: str) -> float | None:
    """How good a new site is that this SNV makes; None where it makes none."""
    flank = 24
    text = genome.bases(gene.contig, start - flank, 2 * flank + 1)
    changed = text[:flank] + alt + text[flank + 1 :]
    if gene.strand == "-":
        text, changed = reverse_complement(text), reverse_complement(changed)
    pair = "GT" if kind == "donor" else "AG"
    places = [at for at in (flank - 1, flank) if changed[at : at + 2] == pair and text[at : at + 2] != pair]
    return max((site_likeness(changed, kind, at) for at in places), default=None)


def site_likeness(text: str, kind: str, at: int) -> float:
    """Likeness to the consensus MAG|GTRAGT, or (Y)17NYAG|G, of the site whose two bases begin at `at`."""
    if kind == "donor":
        wanted = (
            (-3, "AC", 1.0),
            (-2, "A", 1.5),
            (-1, "G", 2.5),
            (2, "AG", 1.5),
            (3, "A", 1.5),
            (4, "G", 2.5),
            (5, "T", 1),
        )
        return sum(weight for offset, letters, weight in wanted if text[at + offset] in letters)
    tract = text[max(0, at - 18) : at - 2]
    share = sum(letter in "CT" for letter in tract) / max(1, len(tract))
    return 8 * share + 2.0 * (text[at - 1] == "C") + 1.0 * (text[at - 1] == "T") + 1.0 * (text[at + 2] == "G")


def _distinct(sites: Iterable[Site]) -> list[Site]:
    """Without records whose alleles are the same, or lie outside what has letters."""
    seen: dict[tuple[str, int, str, tuple[str, ...]], Site] = {}
    for site in sites:
        if "N" not in site.ref and all(alt != site.ref for alt in site.alts):
            seen.setdefault((site.contig, site.start, site.ref, site.alts), site)
    return list(seen.values())


# ---- variants to be timed


def lone_sites(genome: Genome, seed: int, *, num: int, spacing: int = 20_500) -> list[Site]:
    """At most `num` records, `spacing` bases apart or more, each in one gene: four SNVs for one indel."""
    maker = Maker(genome, seed)
    name, text = next(iter(genome.contigs.items()))
    places = []
    for at in range(6_000, len(text) - 6_000, 500):
        is_far = not places or at - places[-1] >= spacing
        holders = [gene for gene in genome.genes if gene.start <= at < gene.end]
        if is_far and len(holders) == 1 and "N" not in text[at - 5_600 : at + 5_600].upper():
            places.append(at)
    for number, at in enumerate(places[:num]):
        _mixed(maker, name, at, number)
    return maker.made


def spaced_sites(genome: Genome, seed: int, *, num: int, spacing: int = 500) -> list[Site]:
    """`num` records `spacing` bases apart, gene after gene, the longest gene first; four SNVs for one indel."""
    maker = Maker(genome, seed)
    for gene in sorted(genome.genes, key=lambda one: one.start - one.end):
        for at in range(gene.start + spacing, gene.end - spacing, spacing):
            alone = sum(one.start <= at < one.end for one in genome.genes) == 1
            if len(maker.made) < num and alone and "N" not in genome.bases(gene.contig, at, 40):
                _mixed(maker, gene.contig, at, len(maker.made))
    return maker.made


def _mixed(maker: Maker, contig: str, at: int, number: int) -> None:
    if number % 10 == 4:
        maker.insertion(contig, at, maker.draw(1, 5), "insertion")
    elif number % 10 == 9:
        maker.deletion(contig, at, maker.draw(1, 5), "deletion")
    else:
        maker.snv(contig, at, "snv")


def all_snvs(genome: Genome, *, num: int) -> list[Site]:
    """`num` SNVs, three per base, around the middle exon of the longest gene."""
    gene = max(genome.genes, key=lambda one: one.end - one.start)
    begin = gene.exons[len(gene.exons) // 2][0] - num // 6
    made = []
    for at in range(begin, begin + -(-num // 3)):
        ref = genome.bases(gene.contig, at)
        made += [Site(gene.contig, at, ref, (alt,), "saturation") for alt in "ACGT" if alt != ref]
    return made[:num]
