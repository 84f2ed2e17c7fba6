"""From the finished parts of a run to rows of the score store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.genome.genes import GeneTable, Transcript
from engine.genome.reference import ReferenceGenome
from engine.scoring._score_store import COMPUTED, IMPORTED, SOURCE_COLUMN, StoreWriter, TranscriptDigests
from engine.scoring._variant_reader import gene_contig
from schemas.states import SCORED

TranscriptsAt = Callable[[str, int], Sequence[Transcript]]


def transcripts_of(genes: GeneTable | None, aliases: Mapping[str, str]) -> TranscriptsAt | None:
    """Transcripts at a (contig, start) of the input, in the order of a run's rows; None for scorers without genes."""
    if genes is None:
        return None
    names: dict[str, str] = {}
    known = genes.contigs

    def at(contig: str, start: int) -> Sequence[Transcript]:
        if contig not in names:
            names[contig] = gene_contig(contig, known, aliases)
        return genes.transcripts_at(names[contig], start)

    return at


def add_parts(
    parts: Iterable[pa.Table],
    writer: StoreWriter,
    *,
    reference: ReferenceGenome,
    transcripts: TranscriptsAt | None,
    computed_only: bool,
) -> Counter[str]:
    """Add the scored rows of a run to a store, part by part.

    Args:
        parts: data tables, in the order of the input.
        writer: takes the rows; flushed at the end.
        reference: names the sequences.
        transcripts: of `transcripts_of`.
        computed_only: leave out what was looked up; else only what was imported by others is.

    Returns:
        Rows by `score_source`, all of the run.
    """
    digests = TranscriptDigests()
    sequences: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for table in parts:
        counts.update(source for source in _sources(table) if source is not None)
        for contig, rows in _rows_of(table, transcripts, digests, computed_only=computed_only):
            if contig not in sequences:
                sequences[contig] = reference.refget(contig)
            writer.add(sequences[contig], rows)
    writer.flush()
    return counts


def _sources(table: pa.Table) -> list[str | None]:
    """Source of each row; runs without a store computed all that they scored."""
    if SOURCE_COLUMN in table.column_names:
        return list(table[SOURCE_COLUMN].to_pylist())
    return [COMPUTED if state == SCORED else None for state in table["state"].to_pylist()]


def _rows_of(
    table: pa.Table, transcripts: TranscriptsAt | None, digests: TranscriptDigests, *, computed_only: bool
) -> Iterator[tuple[str, pa.Table]]:
    """Rows to keep, with the key's columns, by contig."""

    def is_ours(source: str | None) -> bool:
        return source == COMPUTED or (not computed_only and source is not None and not source.startswith(IMPORTED))

    kept = np.flatnonzero([is_ours(source) for source in _sources(table)])
    if not len(kept):
        return
    places = _place_in_allele(table)[kept].tolist()
    rows = table.take(kept)
    contigs, starts = rows["contig"].to_pylist(), rows["start"].to_pylist()
    made = [""] * len(kept)
    if transcripts is not None:
        sites = zip(contigs, starts, places, strict=True)
        made = [digests(transcripts(contig, start)[place]) for contig, start, place in sites]
    rows = rows.append_column("transcript", pa.array(made, pa.string()))
    for name in ("ref", "alt"):
        rows = rows.set_column(rows.schema.get_field_index(name), name, pc.utf8_upper(rows[name]))
    for contig in dict.fromkeys(contigs):
        yield contig, rows.filter(pc.equal(rows["contig"], contig))


def _place_in_allele(table: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """For each row, how many rows of the same record and ALT stand before it: its place among the transcripts there."""
    record, allele = table["record"].to_numpy(), table["alt_index"].to_numpy()
    at = np.arange(len(record))
    is_first = np.ones(len(record), dtype=bool)
    is_first[1:] = (record[1:] != record[:-1]) | (allele[1:] != allele[:-1])
    places: np.ndarray[tuple[int], np.dtype[np.int64]] = at - np.maximum.accumulate(np.where(is_first, at, 0))
    return places
