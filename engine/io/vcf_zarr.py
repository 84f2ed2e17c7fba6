"""Sites and genotypes as a VCF Zarr store: the arrays, names and codes of VCF Zarr 0.4, in Zarr v3 shards.

Source: the VCF Zarr specification 0.4 (sgkit-dev/vcf-zarr-spec) and bio2zarr's choice of arrays and axes
(`region_index` among them). The paper: Czech et al. 2025, doi 10.1093/gigascience/giaf049.

The store has one writer. Rows are cut into chunks that all arrays share; the chunks inside a part are encoded wherever
the part is read, those that reach from one part into the next by the writer. So the store's bytes depend on the rows
alone and not on how they were parted before, or who encoded them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import InputError
from engine.io._vcf_header import Declared
from engine.io._vcf_zarr_arrays import Arrays, Measures, StoreFacts, kept_rows
from engine.io._zarr_shards import ArraySpec, ArrayWriter, Block, Sink, encode_chunks, json_text
from engine.io.streams import Mapper

__all__ = ["StoreFacts", "TablePart", "check_names", "write_store"]

VERSION = "0.4"
_TAKEN = {
    "INFO": ("contig", "position", "length", "id", "id_mask", "allele", "quality", "filter"),
    "FORMAT": ("genotype", "genotype_mask", "genotype_phased"),
}
_REGION_FIELDS = 6
_FINISHERS = 4
_is_name = re.compile(r"[^/\\\s\x00-\x1f]+").fullmatch


def check_names(fields: Iterable[Declared], place: str, *, path: str) -> None:
    """Raise InputError for a field whose array would have no name of its own: INFO `position`, or one with a slash."""
    for one in fields:
        if one.id in _TAKEN[place] or not _is_name(one.id):
            raise InputError(
                f"{place} {one.id!r} cannot be an array of a VCF Zarr store, which has that name, or cannot have it",
                where=path,
                fix=f"leave it out of --{place.lower()}, or rename it (bcftools annotate)",
            )


class TablePart(Protocol):
    """A stretch of a sites table, read where it is needed; picklable."""

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Its rows, of these columns or all."""
        ...


def write_store(sink: Sink, facts: StoreFacts, parts: Sequence[TablePart], *, each: Mapper = map) -> None:
    """Write a whole store.

    Args:
        sink: takes the store's files.
        facts: header, plan and choice of fields.
        parts: sites with genotypes, in order; rejected rows are left out.
        each: maps over the parts; no byte depends on it.
    """
    measures, first_rows = Measures(), []
    for measured in each(partial(_measure, facts=facts), parts):
        first_rows.append(measures.num_rows)
        measures.merge(measured)
    filters = {**facts.filters, **{name: "" for name in measures.filters if name not in facts.filters}}
    arrays = Arrays(facts, list(filters), measures)
    regions: list[list[int]] = []
    pieces = each(partial(_encode_part, arrays=arrays), zip(parts, first_rows, strict=True))
    with ExitStack() as stack:
        writers = {spec.name: stack.enter_context(closing(ArrayWriter(spec, sink))) for spec in arrays.specs()}
        for number, rows in enumerate(_whole(pieces, arrays)):
            for name, chunks in rows.chunks.items():
                writers[name].append(chunks, rows.num_rows)
            regions += [[number, *entry] for entry in rows.regions]
        ends = [writer.finish for writer in writers.values()]
        ends += [partial(_write_small, sink, array) for array in _small_arrays(facts, filters, regions)]
        # Each waits for the disk: several at once wait little longer than one.
        with ThreadPoolExecutor(_FINISHERS) as pool:
            for done in [pool.submit(end) for end in ends]:
                done.result()
    attributes = {"vcf_zarr_version": VERSION, "source": "replisome", "vcf_header": facts.header}
    sink.put("zarr.json", json_text({"zarr_format": 3, "node_type": "group", "attributes": attributes}))


def _measure(part: TablePart, *, facts: StoreFacts) -> Measures:
    measures = Measures()
    measures.add(part.read(facts.measured_columns()), facts)
    return measures


@dataclass(frozen=True)
class _ChunkRows:
    """Rows that make one chunk of each array along variants.

    Attributes:
        num_rows: as many as a chunk has, or fewer at the end of the store.
        chunks: encoded, by array.
        regions: entries of the region index, without the chunk's number.
    """

    num_rows: int
    chunks: Mapping[str, list[bytes]]
    regions: list[list[int]]


@dataclass(frozen=True)
class _Piece:
    """What a part gives: rows that end a chunk begun before, whole chunks, rows that begin one (rows as Arrow IPC)."""

    head: bytes
    whole: list[_ChunkRows]
    tail: bytes


def _encode_part(part: tuple[TablePart, int], *, arrays: Arrays) -> _Piece:
    """A part whose first kept row has that number in the store."""
    (table, first_row), size = part, arrays.rows_per_chunk
    rows = kept_rows(table.read())
    begin = min(-first_row % size, rows.num_rows)
    end = rows.num_rows - (rows.num_rows - begin) % size
    whole = [_encode(rows.slice(at, size), arrays) for at in range(begin, end, size)]
    return _Piece(_sent(rows.slice(0, begin)), whole, _sent(rows.slice(end)))


def _whole(pieces: Iterable[_Piece], arrays: Arrays) -> Iterator[_ChunkRows]:
    """All chunks in order, those among them that lie in several parts."""
    held: list[pa.Table] = []
    for piece in pieces:
        held.append(_received(piece.head))
        if sum(table.num_rows for table in held) == arrays.rows_per_chunk:
            yield _encode(pa.concat_tables(held), arrays)
            held = []
        yield from piece.whole
        held.append(_received(piece.tail))
    if any(table.num_rows for table in held):
        yield _encode(pa.concat_tables(held), arrays)


def _encode(rows: pa.Table, arrays: Arrays) -> _ChunkRows:
    rows = rows.combine_chunks()
    made = arrays.blocks(rows)
    chunks = {spec.name: encode_chunks(spec, made[spec.name](), rows.num_rows) for spec in arrays.specs()}
    return _ChunkRows(rows.num_rows, chunks, _region_entries(rows, arrays.contigs))


def _sent(rows: pa.Table) -> bytes:
    """Pickle would take along all of the table that these rows are a slice of."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    sent: bytes = sink.getvalue().to_pybytes()
    return sent


def _received(sent: bytes) -> pa.Table:
    with pa.ipc.open_stream(sent) as stream:
        return stream.read_all()


def _region_entries(rows: pa.Table, contigs: pa.Array) -> list[list[int]]:
    """For each contig of a chunk: where its records begin and end, so that a region finds its chunks."""
    contig = np.asarray(pc.index_in(rows["contig"].combine_chunks(), contigs))
    position, ends = np.asarray(rows["start"]) + 1, np.asarray(rows["end"])
    borders = [0, *(np.flatnonzero(np.diff(contig)) + 1).tolist(), len(contig)]
    return [
        [int(contig[begin]), int(position[begin]), int(position[end - 1]), int(ends[begin:end].max()), end - begin]
        for begin, end in itertools.pairwise(borders)
    ]


@dataclass(frozen=True)
class _Small:
    """An array that is not along variants: one chunk."""

    name: str
    data_type: str
    dimensions: tuple[str, ...]
    values: Block
    fill: Any


def _small_arrays(facts: StoreFacts, filters: Mapping[str, str], regions: list[list[int]]) -> Iterator[_Small]:
    yield _Small("sample_id", "string", ("samples",), pa.array(facts.samples, pa.string()), "")
    yield _Small("contig_id", "string", ("contigs",), pa.array(list(facts.contigs), pa.string()), "")
    if facts.contigs and all(facts.contigs.values()):
        lengths = np.array([length or 0 for length in facts.contigs.values()], np.int64)
        yield _Small("contig_length", "int64", ("contigs",), lengths, -1)
    yield _Small("filter_id", "string", ("filters",), pa.array(list(filters), pa.string()), "")
    yield _Small("filter_description", "string", ("filters",), pa.array(list(filters.values()), pa.string()), "")
    index = np.array(regions, np.int32).reshape(-1, _REGION_FIELDS)
    yield _Small("region_index", "int32", ("region_index_values", "region_index_fields"), index, -1)


def _write_small(sink: Sink, array: _Small) -> None:
    rows = len(array.values)
    row_shape = () if isinstance(array.values, pa.Array) else array.values.shape[1:]
    chunk = (max(1, rows), *row_shape)
    spec = ArraySpec(array.name, array.data_type, array.dimensions, row_shape, chunk, 1, array.fill)
    with closing(ArrayWriter(spec, sink)) as writer:
        if rows:
            writer.append(encode_chunks(spec, array.values, rows), rows)
        writer.finish()
