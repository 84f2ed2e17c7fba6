"""Splice sites of human, worm and plant from three permissively licensed sets.

The folder holds (SOURCES says where each comes from and which rows were taken; replisome.json has the sha256):

    gue/splice__reconstructed__dev.csv.gz   columns sequence (400 bases) and label: 0 the first base of an exon at index
                                            200 (acceptor), 1 the first base of an intron there (donor), 2 neither
    uci-splice/splice.train.data            no header; class (IE acceptor, EI donor, N neither), name, 60 bases with the
                                            junction before index 30; commas between, blanks around
    genomes-1pct/{C.elegans,A.thaliana}.fa.gz and .gff.gz
                                            GFF3: exon lines of source WormBase or TAIR10 with Parent=, intron lines
    vex-seq/vexseq.train.csv.gz             columns reference_sequence and variant_sequence
    brca1-sge/reference_windows.train.csv   column reference

An acceptor is marked at the first base of its exon, a donor at the last. The last two files are the panels of
examples/splice: human windows that share 30 bases with a sequence in them are left out, and nothing else of them is
read here, no measured effect. Constructs of the same published sets that are not in those files are not looked for.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.genome.windows import reverse_complement, tokens_from_text

GUE = "gue/splice__reconstructed__dev.csv.gz"
UCI = "uci-splice/splice.train.data"
WORM = ("genomes-1pct/C.elegans.fa.gz", "genomes-1pct/C.elegans.gff.gz", "WormBase")
PLANT = ("genomes-1pct/A.thaliana.fa.gz", "genomes-1pct/A.thaliana.gff.gz", "TAIR10")
VEXSEQ = "vex-seq/vexseq.train.csv.gz"
BRCA1 = "brca1-sge/reference_windows.train.csv"


@dataclass(frozen=True)
class Source:
    """Where a file trained on comes from: repository@commit, path there, the rows taken, and on what terms."""

    repository: str
    path: str
    rows: str
    licence: str
    terms: str


_KORF = "iankorf/MCB185@fc3c33ed5dacad55e15ba971178b42b08bff2825"
_KORF_TERMS = "licence of the redistributing repository; the terms of {} itself were not checked"
SOURCES = {
    GUE: Source(
        "wds-seu/DeepGene@486343e5212361d6cd7ed03c624f430ed3d5f02e",
        "data/GUE/splice/reconstructed/dev.csv",
        "all 4,562 rows (the dev split, as no train split is stored); less those that share 30 bases with a panel",
        "Apache-2.0",
        "licence of the redistributing repository; that of the GUE authors (DNABERT-2) was not checked",
    ),
    UCI: Source(
        "drusk/splice-junction-gene-sequences@e862a929e3d82a881bb7abc8e0ffba3f68cf9a8c",
        "data/splice.data",
        "2,591 of 3,190 rows: about a fifth of the groups left out, by SHA-256 of the group (GenBank locus, identical "
        "sequences kept together); repeats dropped",
        "CC-BY-4.0",
        "stated on the UCI page of data set 69 (credit: Towell, Noordewier and Shavlik); the redistributing repository "
        "has no licence",
    ),
} | {
    name: Source(_KORF, f"data/{Path(name).name}", "the whole file", "MIT", _KORF_TERMS.format(origin))
    for files, origin in ((WORM, "WormBase"), (PLANT, "TAIR"))
    for name in files[:2]
}

SHARED_BASES = 30
_GUE_SITE = 200  # index of the first exon base (acceptor) or the first intron base (donor) in a GUE window
_UCI_SITE = 30
_GAP = 200  # Ns between sequences, more than any flank
_NEAR = 300  # decoys in worm and plant lie this close to a site, hence mostly in genes

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class SiteSet:
    """Marked positions of one species in one long token array.

    Attributes:
        species: its name.
        tokens: (length,) uint8, A C G T N = 0 to 4, sequences parted by Ns, all on the transcript strand.
        acceptors, donors: first and last bases of exons.
        negatives: centres of the data sets' own negative windows.
        ag_decoys, gt_decoys: bases after an AG or before a GT that are no known site.
        others: any other base.
        exonic, intronic: (start, end) of stretches known to be exon or intron, near sites.
    """

    species: str
    tokens: NDArray[np.uint8]
    acceptors: Indices
    donors: Indices
    negatives: Indices
    ag_decoys: Indices
    gt_decoys: Indices
    others: Indices
    exonic: list[tuple[int, int]]
    intronic: list[tuple[int, int]]


def load_species(folder: Path) -> dict[str, SiteSet]:
    """The three site sets, by species."""
    return {
        "human": _human(folder),
        "worm": _annotated(folder, "worm", WORM),
        "plant": _annotated(folder, "plant", PLANT),
    }


def file_digests(folder: Path) -> dict[str, str]:
    """sha256 of every file trained on."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in SOURCES}


def training_data(digests: Mapping[str, str]) -> list[dict[str, str]]:
    """Every file trained on: name in the folder, digest, source, cut, licence and what is doubtful of it."""
    return [{"file": name, "sha256": digests[name], **asdict(source)} for name, source in SOURCES.items()]


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as handle:
        yield from csv.DictReader(handle)


def held_out_sequences(folder: Path) -> Iterator[str]:
    """Every sequence of the two sets the model is measured on; SystemExit where a set is not in the folder."""
    for name, columns in ((VEXSEQ, ("reference_sequence", "variant_sequence")), (BRCA1, ("reference",))):
        if not (folder / name).exists():
            raise SystemExit(f"{folder / name} is needed, to leave its sequences out of the training")
        for row in _rows(folder / name):
            yield from (row[column].upper() for column in columns)


def shared_words(sequences: Iterable[str], length: int = SHARED_BASES) -> set[str]:
    """All words of `length` known bases, of both strands."""
    words: set[str] = set()
    for sequence in set(sequences):
        for strand in (sequence, reverse_complement(sequence)):
            words.update(strand[i : i + length] for i in range(len(strand) - length + 1))
    return {word for word in words if "N" not in word}


def _shares(text: str, words: set[str]) -> bool:
    return any(text[i : i + SHARED_BASES] in words for i in range(len(text) - SHARED_BASES + 1))


class _Collector:
    """Sequences laid end to end with Ns between, and the positions marked in them."""

    def __init__(self) -> None:
        self.pieces = [np.full(_GAP, 4, np.uint8)]
        self.length = _GAP
        self.marks: dict[str, list[int]] = defaultdict(list)
        self.stretches: dict[str, list[tuple[int, int]]] = {"exonic": [], "intronic": []}

    def add(self, text: str) -> int:
        """Append a sequence; where its first base lies."""
        begin = self.length
        self.pieces += [tokens_from_text(text), np.full(_GAP, 4, np.uint8)]
        self.length += len(text) + _GAP
        return begin

    def decoys(self, text: str, begin: int, spans: Iterable[tuple[int, int]], *, kinds: str = "ag gt others") -> None:
        """Mark AG and GT look-alikes and all bases of the spans of a sequence."""
        for low, high in spans:
            if "ag" in kinds:
                self.marks["ag_decoys"] += [begin + i for i in range(low, high) if text[i - 2 : i] == "AG"]
            if "gt" in kinds:
                self.marks["gt_decoys"] += [begin + i for i in range(low, high) if text[i + 1 : i + 3] == "GT"]
            if "others" in kinds:
                self.marks["others"] += range(begin + low, begin + high)

    def done(self, species: str) -> SiteSet:
        def marks(name: str) -> Indices:
            return np.array(sorted(self.marks[name]), np.int64)

        return SiteSet(
            species=species,
            tokens=np.concatenate(self.pieces),
            acceptors=marks("acceptors"),
            donors=marks("donors"),
            negatives=marks("negatives"),
            ag_decoys=marks("ag_decoys"),
            gt_decoys=marks("gt_decoys"),
            others=marks("others"),
            exonic=self.stretches["exonic"],
            intronic=self.stretches["intronic"],
        )


def _human(folder: Path) -> SiteSet:
    words = shared_words(held_out_sequences(folder))
    made = _Collector()
    gue = [(row["sequence"].upper(), row["label"]) for row in _rows(folder / GUE)]
    for text, label in dict.fromkeys(gue):
        if not _shares(text, words):
            _add_gue(made, text, label)
    lines = [line.split(",") for line in (folder / UCI).read_text().splitlines() if line.strip()]
    for text, label in dict.fromkeys((parts[2].strip().upper(), parts[0].strip()) for parts in lines):
        if not _shares(text, words):
            _add_uci(made, text, label)
    return made.done("human")


def _add_gue(made: _Collector, text: str, label: str) -> None:
    """Label 0 acceptor, 1 donor, 2 neither.

    A window of 400 bases may hold the exon's other site, which nobody marked: decoys come from where that site cannot
    be (the intron, and within the exon only look-alikes of the site's own kind).
    """
    begin, site = made.add(text), _GUE_SITE
    if label == "0":
        made.marks["acceptors"].append(begin + site)
        made.decoys(text, begin, [(20, 190)])
        made.decoys(text, begin, [(205, 300)], kinds="ag others")
        made.stretches["exonic"].append((begin + site + 3, begin + site + 60))
        made.stretches["intronic"].append((begin + site - 140, begin + site - 25))
    elif label == "1":
        made.marks["donors"].append(begin + site - 1)
        made.decoys(text, begin, [(205, 380)])
        made.decoys(text, begin, [(100, 195)], kinds="gt")
        made.stretches["exonic"].append((begin + site - 60, begin + site - 3))
        made.stretches["intronic"].append((begin + site + 10, begin + site + 120))
    else:
        looks_like_acceptor = text[site - 2 : site] == "AG"
        made.marks["negatives"].append(begin + site - (0 if looks_like_acceptor else 1))
        made.decoys(text, begin, [(20, 190), (210, 380)])


def _add_uci(made: _Collector, text: str, label: str) -> None:
    """Class IE acceptor, EI donor, N neither; 60 bases, the junction before index 30."""
    begin, site = made.add(text), _UCI_SITE
    if label == "IE":
        made.marks["acceptors"].append(begin + site)
        made.stretches["exonic"].append((begin + site + 3, begin + len(text)))
        made.stretches["intronic"].append((begin, begin + 10))
    elif label == "EI":
        made.marks["donors"].append(begin + site - 1)
        made.stretches["exonic"].append((begin, begin + site - 3))
        made.stretches["intronic"].append((begin + site + 10, begin + len(text)))
    else:
        made.marks["negatives"].append(begin + site - len(made.marks["negatives"]) % 2)  # read either way in turn


def _annotated(folder: Path, species: str, files: tuple[str, str, str]) -> SiteSet:
    sequences = _fasta(folder / files[0])
    exons, introns = _exons(folder / files[1], files[2], sequences)
    known = _edges(sequences, introns)  # RNA-seq introns: not sites to learn from, and not decoys either
    made = _Collector()
    for contig, strand in sorted((contig, strand) for contig in sequences for strand in "+-"):
        text = sequences[contig] if strand == "+" else reverse_complement(sequences[contig])
        begin = made.add(text)
        sites = _sites(exons, contig, strand, len(text))
        _mark_sites(made, begin, sites)
        _mark_decoys(made, text, begin, sites, known[contig, strand])
    return made.done(species)


def _fasta(path: Path) -> dict[str, str]:
    parts: dict[str, list[str]] = {}
    with gzip.open(path, "rt") as handle:
        for line in handle:
            if line.startswith(">"):
                parts[name := line[1:].split()[0]] = []
            else:
                parts[name].append(line.strip().upper())
    return {name: "".join(lines) for name, lines in parts.items()}


Features = dict[tuple[str, str, str], set[tuple[int, int]]]


def _exons(path: Path, source: str, sequences: dict[str, str]) -> tuple[Features, Features]:
    """Exons of annotated transcripts and all introns, by (parent, contig, strand), 0-based half-open."""
    exons: Features = defaultdict(set)
    introns: Features = defaultdict(set)
    with gzip.open(path, "rt") as handle:
        for line in handle:
            fields = line.rstrip("\n").split("\t")
            if len(fields) < 9 or fields[0] not in sequences or fields[6] not in "+-":
                continue
            span = (int(fields[3]) - 1, int(fields[4]))
            if fields[2] == "intron":
                introns["", fields[0], fields[6]].add(span)
            elif fields[2] == "exon" and fields[1] == source:
                found = re.search(r"Parent=([^;]*)", fields[8])
                for parent in found.group(1).split(",") if found else ():
                    exons[parent, fields[0], fields[6]].add(span)
    return exons, introns


def _sites(exons: Features, contig: str, strand: str, length: int) -> tuple[list[int], list[int]]:
    """Acceptors and donors of one strand, in its own direction; the outer edges of a transcript are none."""
    acceptors: set[int] = set()
    donors: set[int] = set()
    for (_, on, direction), spans in exons.items():
        if (on, direction) != (contig, strand):
            continue
        mine = sorted(spans if strand == "+" else {(length - end, length - start) for start, end in spans})
        acceptors.update(start for start, _ in mine[1:])
        donors.update(end - 1 for _, end in mine[:-1])
    return sorted(acceptors), sorted(donors)


def _edges(sequences: dict[str, str], introns: Features) -> dict[tuple[str, str], set[int]]:
    """Bases beside any intron, by contig and strand, in the strand's direction."""
    edges: dict[tuple[str, str], set[int]] = {(c, s): set() for c in sequences for s in "+-"}
    for (_, contig, strand), spans in introns.items():
        length = len(sequences[contig])
        for start, end in spans:
            low, high = (start, end) if strand == "+" else (length - end, length - start)
            edges[contig, strand].update((low - 1, high))
    return edges


def _mark_sites(made: _Collector, begin: int, sites: tuple[list[int], list[int]]) -> None:
    acceptors, donors = sites
    made.marks["acceptors"] += [begin + at for at in acceptors]
    made.marks["donors"] += [begin + at for at in donors]
    for at in acceptors:
        made.stretches["exonic"].append((begin + at + 3, begin + at + 60))
        made.stretches["intronic"].append((begin + at - 60, begin + at - 25))
    for at in donors:
        made.stretches["exonic"].append((begin + at - 59, begin + at - 2))
        made.stretches["intronic"].append((begin + at + 10, begin + at + 45))


def _mark_decoys(made: _Collector, text: str, begin: int, sites: tuple[list[int], list[int]], known: set[int]) -> None:
    near: set[int] = set()
    for at in (*sites[0], *sites[1]):
        near.update(range(max(2, at - _NEAR), min(len(text) - 2, at + _NEAR + 1)))
    for at in sorted(near - known - set(sites[0]) - set(sites[1])):
        made.decoys(text, begin, [(at, at + 1)])
