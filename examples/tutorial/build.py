"""Write the made-up data set of docs/tutorial.md: the same bytes every time, from the standard library alone.

python examples/tutorial/build.py DATA

sequences.fa    800 sequences of 61 bp in 200 families: a parent and three copies with a few substitutions
labels.tsv      id, label, family: "bound" where TGACGTCA stands in the sequence, "unbound" elsewhere, but for one
                family in sixteen that was "measured" wrongly
genome.fa       one contig of 12,000 bp with 40 such sites
variants.vcf    120 single-base variants; INFO/KIND says whether a variant lies in a site or outside
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

SITE = "TGACGTCA"
LENGTH = 61
NUM_FAMILIES = 200
COPIES = 3
WRONG = 1 / 16
GENOME_BP = 12_000
NUM_SITES = 40
_HEADER = """##fileformat=VCFv4.3
##contig=<ID=chr1,length={length}>
##INFO=<ID=KIND,Number=1,Type=String,Description="site where the variant lies in TGACGTCA, else outside">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO
"""


def background(draw: random.Random, length: int) -> str:
    """Random bases without a site."""
    text = "".join(draw.choice("ACGT") for _ in range(length))
    while (at := text.find(SITE)) >= 0:
        text = text[: at + 3] + draw.choice("AGT") + text[at + 4 :]
    return text


def family(draw: random.Random, *, bound: bool) -> list[str]:
    """A parent and its copies, all with the site or all without."""
    parent = background(draw, LENGTH)
    place = draw.randrange(5, LENGTH - len(SITE) - 5)
    members = []
    while len(members) <= COPIES:
        bases = list(parent)
        for at in draw.sample(range(LENGTH), 4 if members else 0):
            bases[at] = draw.choice("ACGT")
        if bound:
            bases[place : place + len(SITE)] = SITE
        text = "".join(bases)
        if (SITE in text) == bound and text not in members:
            members.append(text)
    return members


def write_sequences(folder: Path, draw: random.Random) -> None:
    """sequences.fa and labels.tsv."""
    fasta, labels = [], ["id\tlabel\tfamily"]
    for number in range(NUM_FAMILIES):
        bound = number % 2 == 0
        label = "bound" if bound != (draw.random() < WRONG) else "unbound"
        for copy, text in enumerate(family(draw, bound=bound)):
            name = f"seq{number:03d}{'abcd'[copy]}"
            fasta.append(f">{name}\n{text}")
            labels.append(f"{name}\t{label}\tfamily{number:03d}")
    (folder / "sequences.fa").write_text("\n".join(fasta) + "\n")
    (folder / "labels.tsv").write_text("\n".join(labels) + "\n")


def write_genome(folder: Path, draw: random.Random) -> None:
    """genome.fa and variants.vcf."""
    genome = list(background(draw, GENOME_BP))
    step = GENOME_BP // NUM_SITES
    starts = [step * number + step // 2 for number in range(NUM_SITES)]
    for start in starts:
        genome[start : start + len(SITE)] = SITE
    places = {start + draw.randrange(1, len(SITE) - 1): "site" for start in starts}
    while len(places) < 3 * NUM_SITES:
        at = draw.randrange(LENGTH, GENOME_BP - LENGTH)
        if not any(start - 10 <= at < start + len(SITE) + 10 for start in starts):
            places.setdefault(at, "outside")
    lines = []
    for at, kind in sorted(places.items()):
        ref = genome[at]
        alt = draw.choice([base for base in "ACGT" if base != ref])
        lines.append(f"chr1\t{at + 1}\t.\t{ref}\t{alt}\t.\t.\tKIND={kind}")
    text = "".join(genome)
    rows = [text[at : at + 60] for at in range(0, len(text), 60)]
    (folder / "genome.fa").write_text("\n".join([">chr1", *rows]) + "\n")
    (folder / "variants.vcf").write_text(_HEADER.format(length=len(text)) + "\n".join(lines) + "\n")


def main() -> None:
    """Write all of it to the folder that is named."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(20)
    write_sequences(folder, draw)
    write_genome(folder, draw)


if __name__ == "__main__":
    main()
