"""Genes by the names users give them, as regions of the reference."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from engine.errors import InputError
from engine.genome.genes import GeneTable, Transcript
from engine.genome.reference import ReferenceGenome
from engine.io.regions import Region

_MAX_SHOWN = 5


def gene_regions(
    genes: GeneTable, names: Sequence[str], reference: ReferenceGenome, *, path: str
) -> tuple[list[Region], list[str]]:
    """The stretch [start, end) of every transcript that the table keeps for the named genes.

    A name that several genes bear (both copies of a gene of the pseudoautosomal regions, say) takes them all, and a
    note says so; copies on contigs that the reference does not have are left out with a note.

    Args:
        genes: the annotation.
        names: symbols or gene ids, an id with or without its version.
        reference: the genome that the regions are of.
        path: the annotation file, for messages.

    Returns:
        Regions under the reference's contig names, and notes.

    Raises:
        InputError: no gene of that name, with the nearest; or none of its contigs is in the reference.
    """
    regions: list[Region] = []
    notes: list[str] = []
    for name in names:
        found = _named(genes.transcripts, name, path=path)
        placed = [one for one in found if _is_in(one.contig, reference)] or found[:1]
        regions += [Region(reference.resolve(one.contig), one.start, one.end) for one in placed]
        notes += _notes(name, found, placed)
    return regions, notes


def _is_in(contig: str, reference: ReferenceGenome) -> bool:
    return reference.contig_aliases.get(contig, contig) in reference.contigs


def _named(transcripts: Sequence[Transcript], name: str, *, path: str) -> list[Transcript]:
    """Transcripts of the genes with this symbol or id; only where there is none, of those with this id unversioned."""
    exact = [one for one in transcripts if name in (one.symbol, one.gene_id)]
    found = exact or [one for one in transcripts if one.gene_id.partition(".")[0] == name]
    if found:
        return found
    fix = f"give a symbol or gene id as the annotation has them, such as {transcripts[0].symbol}"
    if near := _nearest(name, transcripts):
        fix = f"did you mean {' or '.join(near)}?"
    raise InputError(f"the annotation has no gene {name!r}", where=path, fix=fix)


def _nearest(name: str, transcripts: Sequence[Transcript]) -> list[str]:
    """At most three known names that differ least, case apart."""
    known: dict[str, str] = {}
    for one in transcripts:
        for text in (one.symbol, one.gene_id):
            known.setdefault(text.casefold(), text)
    return [known[near] for near in difflib.get_close_matches(name.casefold(), list(known))]


def _notes(name: str, found: Sequence[Transcript], placed: Sequence[Transcript]) -> list[str]:
    notes = []
    places = _places(placed)
    if len(places) > 1:
        notes.append(f"{len(places)} genes are named {name!r}, and all are taken: {_listed(places)}")
    if absent := [one for one in found if one not in placed]:
        notes.append(f"gene {name!r} is also on contigs that the reference does not have: {_listed(_places(absent))}")
    return notes


def _places(transcripts: Iterable[Transcript]) -> list[str]:
    """Each gene once, with the contig it is on."""
    return list(dict.fromkeys(f"{one.gene_id} on {one.contig}" for one in transcripts))


def _listed(places: Sequence[str]) -> str:
    more = [f"and {len(places) - _MAX_SHOWN:,} more"] if len(places) > _MAX_SHOWN else []
    return ", ".join([*places[:_MAX_SHOWN], *more])
