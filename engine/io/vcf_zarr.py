"""Sites and genotypes as a VCF Zarr store: the arrays, names and codes of VCF Zarr 0.4, in Zarr v3 shards.

Source: the VCF Zarr specification 0.4 (sgkit-dev/vcf-zarr-spec) and bio2zarr's choice of arrays and axes
(`region_index` among them). The paper: Czech et al. 2025, doi 10.1093/gigascience/giaf049.

The store has one writer. It is fed tables in order and cuts them into chunks that all arrays share, so that its bytes
depend on the rows alone and not on how they were parted before.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import InputError
from engine.io import _vcf_zarr_blocks as blocks
from engine.io._genotypes import MISSING
from engine.io._vcf_header import Declared
from engine.io._zarr_shards import ArraySpec, ArrayWriter, Block, Sink, json_text
from schemas import states

VERSION = "0.4"
VARIANTS_PER_CHUNK = 1000
SAMPLES_PER_CHUNK = 10_000
_CHUNKS_PER_SHARD = 1000
_CHUNK_BYTES = 32 << 20
_SHARD_BYTES = 512 << 20
_TEXT_BYTES = 8
_FILLS = {"string": "", "bool": False, "float32": "NaN"}
_SHARED_AXES = {"R": "alleles", "A": "alt_alleles", "G": "genotypes"}
_TAKEN = {
    "INFO": ("contig", "position", "length", "id", "id_mask", "allele", "quality", "filter"),
    "FORMAT": ("genotype", "genotype_mask", "genotype_phased"),
}
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


@dataclass
class Measures:
    """Sizes that no single record knows, collected over all tables before the first array is written.

    Attributes:
        num_alleles: most alleles of a record, REF included; at least 2.
        ploidy: most copies of a call.
        filters: filters met, in order of appearance.
        list_sizes: most values of each field that is a list, by place and id ("INFO/AF").
        int_bytes: bytes that hold every value of each FORMAT field of integers.
    """

    num_alleles: int = 2
    ploidy: int = 1
    filters: dict[str, None] = field(default_factory=dict)
    list_sizes: dict[str, int] = field(default_factory=dict)
    int_bytes: dict[str, int] = field(default_factory=dict)

    def add(self, table: pa.Table, facts: StoreFacts) -> None:
        """Take in a table of sites."""
        kept = kept_rows(table)
        self.num_alleles = max(self.num_alleles, 1 + _longest(kept["alts"]))
        if facts.genotypes:
            self.ploidy = max(self.ploidy, pc.max(kept["ploidy"]).as_py() or 1)
        self.filters |= dict.fromkeys(pc.unique(pc.list_flatten(kept["filters"])).to_pylist())
        for one in facts.infos:
            if one.is_list:
                self._grow(f"INFO/{one.id}", _longest(kept[f"info_{one.id}"]))
        for one in facts.formats:
            self._add_format(one, kept[f"format_{one.id}"], len(facts.samples))

    def _grow(self, name: str, size: int) -> None:
        self.list_sizes[name] = max(self.list_sizes.get(name, 1), size)

    def _add_format(self, one: Declared, values: pa.ChunkedArray, num_samples: int) -> None:
        name = f"FORMAT/{one.id}"
        if one.is_text:
            if one.is_list:
                commas = pc.count_substring(pc.list_flatten(values), ",")
                self._grow(name, 1 + (pc.max(commas).as_py() or 0))
            return
        for chunk in values.chunks:
            own = blocks.widths(chunk)
            sizes = np.asarray(pc.binary_length(chunk).fill_null(0), np.int64)
            per_sample = (sizes - 1) // np.maximum(own * num_samples, 1)
            self._grow(name, int(per_sample.max(initial=0)))
            self.int_bytes[name] = max(self.int_bytes.get(name, 1), int(own.max(initial=0)))


def kept_rows(table: pa.Table) -> pa.Table:
    """The rows of kept records."""
    kept = pc.equal(table["state"], states.KEPT)
    return table if pc.all(kept).as_py() is not False else table.filter(kept)


def _longest(lists: pa.ChunkedArray) -> int:
    return pc.max(pc.list_value_length(lists)).as_py() or 0


@dataclass(frozen=True)
class StoreFacts:
    """What the header, the plan and the user say.

    Attributes:
        header: header text.
        samples: sample names.
        contigs: contig name to length, in order.
        filters: filter name to description, PASS first.
        infos: INFO fields among the columns.
        genotypes: whether GT is among them.
        formats: the other FORMAT fields among them.
    """

    header: str
    samples: tuple[str, ...]
    contigs: Mapping[str, int | None]
    filters: Mapping[str, str]
    infos: tuple[Declared, ...] = ()
    genotypes: bool = False
    formats: tuple[Declared, ...] = ()

    def measured_columns(self) -> list[str]:
        """Columns of a sites table that `Measures` looks at."""
        return [
            *("state", "alts", "filters"),
            *(("ploidy",) if self.genotypes else ()),
            *(f"info_{one.id}" for one in self.infos if one.is_list),
            *(f"format_{one.id}" for one in self.formats),
        ]


def write_store(
    sink: Sink, facts: StoreFacts, measures: Measures, tables: Iterable[pa.Table], *, threads: int = 1
) -> None:
    """Write a whole store.

    Args:
        sink: takes the store's files.
        facts: header, plan and choice of fields.
        measures: over the same tables.
        tables: sites with genotypes, in order; rejected rows are left out.
        threads: threads that encode; no byte depends on them.
    """
    filters = {**facts.filters, **{name: "" for name in measures.filters if name not in facts.filters}}
    arrays = _Arrays(facts, list(filters), measures)
    with ThreadPoolExecutor(threads) as pool:
        writers = {spec.name: ArrayWriter(spec, sink, pool) for spec in arrays.specs()}
        regions = _RegionIndex()
        for rows in _cut_rows(_one_ahead(tables, pool), arrays.rows_per_chunk):
            for name, make in arrays.blocks(rows).items():
                writers[name].append(make, rows.num_rows)
            regions.add(rows, arrays.contigs)
        for writer in writers.values():
            writer.finish()
        _write_small(sink, pool, facts, filters, regions.rows())
    attributes = {"vcf_zarr_version": VERSION, "source": "replisome", "vcf_header": facts.header}
    sink.put("zarr.json", json_text({"zarr_format": 3, "node_type": "group", "attributes": attributes}))


def _one_ahead(tables: Iterable[pa.Table], pool: Executor) -> Iterator[pa.Table]:
    """The same tables, the next one read in the pool while one is in use."""
    left = iter(tables)
    waiting = pool.submit(next, left, None)
    while (table := waiting.result()) is not None:
        waiting = pool.submit(next, left, None)
        yield table


def _cut_rows(tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """Kept rows, `size` at a time, the last table shorter."""
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        held.append(kept_rows(table))
        count += held[-1].num_rows
        if count < size:
            continue
        whole = pa.concat_tables(held)
        for begin in range(0, count - size + 1, size):
            yield whole.slice(begin, size).combine_chunks()
        left = count % size
        held, count = [whole.slice(whole.num_rows - left)], left
    if count:
        yield pa.concat_tables(held).combine_chunks()


class _Arrays:
    """The arrays along variants, and how rows of a sites table become their blocks."""

    def __init__(self, facts: StoreFacts, filters: Sequence[str], measures: Measures) -> None:
        self.contigs = pa.array(list(facts.contigs), pa.string())
        self._facts = facts
        self._filters = pa.array(filters, pa.string())
        self._measures = measures
        self._axes = {
            "alleles": measures.num_alleles,
            "alt_alleles": measures.num_alleles - 1,
            "genotypes": self._most_genotypes(),
            "filters": len(filters),
            "samples": len(facts.samples),
            "ploidy": measures.ploidy,
        }
        self.rows_per_chunk = VARIANTS_PER_CHUNK
        widest = max(map(_row_bytes, self.specs()))
        self.rows_per_chunk = max(1, min(VARIANTS_PER_CHUNK, _CHUNK_BYTES // max(widest, 1)))
        self._kinds = {spec.name: spec for spec in self.specs()}

    def _most_genotypes(self) -> int:
        places = (("INFO", self._facts.infos), ("FORMAT", self._facts.formats))
        names = (f"{place}/{one.id}" for place, fields in places for one in fields if one.number == "G")
        return max((self._measures.list_sizes.get(name, 1) for name in names), default=1)

    def specs(self) -> list[ArraySpec]:
        """All arrays along variants."""
        contig = "int8" if len(self.contigs) <= 127 else "int16" if len(self.contigs) < 2**15 else "int32"
        return [
            self._spec("variant_contig", contig, {}),
            self._spec("variant_position", "int32", {}),
            self._spec("variant_length", "int32", {}),
            self._spec("variant_id", "string", {}),
            self._spec("variant_id_mask", "bool", {}),
            self._spec("variant_allele", "string", self._shared("alleles")),
            self._spec("variant_quality", "float32", {}),
            self._spec("variant_filter", "bool", self._shared("filters")),
            *(self._field_spec("INFO", one) for one in self._facts.infos),
            *self._call_specs(),
            *(self._field_spec("FORMAT", one) for one in self._facts.formats),
        ]

    def _call_specs(self) -> list[ArraySpec]:
        if not self._facts.genotypes:
            return []
        kind = "int8" if self._measures.num_alleles <= 127 else "int16"
        return [
            self._spec("call_genotype", kind, self._shared("samples", "ploidy")),
            self._spec("call_genotype_mask", "bool", self._shared("samples", "ploidy")),
            self._spec("call_genotype_phased", "bool", self._shared("samples")),
        ]

    def _shared(self, *axes: str) -> dict[str, int]:
        return {axis: self._axes[axis] for axis in axes}

    def _spec(self, name: str, kind: str, axes: Mapping[str, int], about: str = "") -> ArraySpec:
        chunk = [min(size, SAMPLES_PER_CHUNK) if axis == "samples" else size for axis, size in axes.items()]
        spec = ArraySpec(
            name,
            kind,
            ("variants", *axes),
            tuple(axes.values()),
            (self.rows_per_chunk, *(max(1, size) for size in chunk)),
            1,
            _FILLS.get(kind, MISSING),
            {"description": about} if about else {},
        )
        per_shard = _SHARD_BYTES // max(_row_bytes(spec) * self.rows_per_chunk, 1)
        return spec.with_shards(max(1, min(_CHUNKS_PER_SHARD, per_shard)))

    def _field_spec(self, place: str, one: Declared) -> ArraySpec:
        axes = self._shared("samples") if place == "FORMAT" else {}
        kind = {"Integer": "int32", "Float": "float32", "Flag": "bool"}.get(one.type, "string")
        if place == "FORMAT" and kind == "int32":
            kind = f"int{8 * self._measures.int_bytes.get(f'FORMAT/{one.id}', 1)}"
        name = f"{'call' if place == 'FORMAT' else 'variant'}_{one.id}"
        return self._spec(name, kind, axes | self._list_axis(place, one), one.description)

    def _list_axis(self, place: str, one: Declared) -> dict[str, int]:
        """The axis of a field's values: one shared by all of its Number where it fits, none where one value is most."""
        if not one.is_list:
            return {}
        size = self._measures.list_sizes.get(f"{place}/{one.id}", 1)
        shared = _SHARED_AXES.get(one.number)
        if shared and size <= self._axes[shared]:
            return self._shared(shared)
        return {f"{place}_{one.id}_dim": size} if size > 1 else {}

    def blocks(self, rows: pa.Table) -> dict[str, Callable[[], Block]]:
        """What makes the block of each array of `specs`; each is asked once."""
        column = {name: _in_one(rows[name]) for name in rows.column_names}
        kinds = self._kinds

        def start() -> npt.NDArray[np.int64]:
            return np.asarray(column["start"])

        found: dict[str, Callable[[], Block]] = {
            "variant_contig": lambda: np.asarray(pc.index_in(column["contig"], self.contigs)),
            "variant_position": lambda: start() + 1,
            "variant_length": lambda: np.asarray(column["end"]) - start(),
            "variant_id": lambda: column["id"],
            "variant_id_mask": lambda: np.asarray(pc.equal(column["id"], ".")),
            "variant_allele": lambda: blocks.alleles(column["ref"], column["alts"], self._axes["alleles"]),
            "variant_quality": lambda: blocks.floats(column["qual"]),
            "variant_filter": lambda: blocks.passed(column["filters"], self._filters),
        }
        for one in self._facts.infos:
            spec = kinds[f"variant_{one.id}"]
            found[spec.name] = partial(blocks.info, column[f"info_{one.id}"], math.prod(spec.row_shape))
        found |= self._calls(column)
        for one in self._facts.formats:
            found[f"call_{one.id}"] = self._format(one, column[f"format_{one.id}"], kinds[f"call_{one.id}"])
        return {name: partial(_typed, make, kinds[name].data_type) for name, make in found.items()}

    def _calls(self, column: Mapping[str, pa.Array]) -> dict[str, Callable[[], Block]]:
        if not self._facts.genotypes:
            return {}
        samples, ploidy = self._axes["samples"], self._axes["ploidy"]

        def calls() -> npt.NDArray[np.int16]:
            return blocks.genotypes(column["call_genotype"], column["ploidy"], num_samples=samples, width=ploidy)

        return {
            "call_genotype": calls,
            "call_genotype_mask": lambda: calls() < 0,
            "call_genotype_phased": lambda: blocks.phased(column["call_genotype_phased"], samples),
        }

    def _format(self, one: Declared, values: pa.Array, spec: ArraySpec) -> Callable[[], Block]:
        samples = self._axes["samples"]
        width = math.prod(spec.row_shape[1:])
        if one.is_text:
            return partial(blocks.texts, values, num_samples=samples, width=width, is_list=one.is_list)
        return partial(blocks.numbers, values, spec.data_type, num_samples=samples, width=width)


def _in_one(values: pa.ChunkedArray) -> pa.Array:
    """One array; copied only where it lies in several."""
    return values.chunk(0) if values.num_chunks == 1 else values.combine_chunks()


def _typed(make: Callable[[], Block], kind: str) -> Block:
    block = make()
    return block if isinstance(block, pa.Array) else block.astype(kind, copy=False)


def _row_bytes(spec: ArraySpec) -> int:
    """Bytes of a row of an array, before compression; of text, a guess."""
    return math.prod(spec.row_shape) * (_TEXT_BYTES if spec.is_text else np.dtype(spec.data_type).itemsize)


class _RegionIndex:
    """For each chunk and contig: where its records begin and end, so that a region finds its chunks."""

    def __init__(self) -> None:
        self._rows: list[list[int]] = []
        self._num_chunks = 0

    def add(self, rows: pa.Table, contigs: pa.Array) -> None:
        """Take in a chunk."""
        contig = np.asarray(pc.index_in(rows["contig"].combine_chunks(), contigs))
        position, ends = np.asarray(rows["start"]) + 1, np.asarray(rows["end"])
        borders = [0, *(np.flatnonzero(np.diff(contig)) + 1).tolist(), len(contig)]
        for begin, end in itertools.pairwise(borders):
            first, last, reach = position[begin], position[end - 1], ends[begin:end].max()
            self._rows.append([self._num_chunks, int(contig[begin]), int(first), int(last), int(reach), end - begin])
        self._num_chunks += 1

    def rows(self) -> npt.NDArray[np.int32]:
        """int32 (entries, 6)."""
        return np.array(self._rows, np.int32).reshape(-1, 6)


def _write_small(
    sink: Sink, pool: Executor, facts: StoreFacts, filters: Mapping[str, str], regions: npt.NDArray[np.int32]
) -> None:
    """The arrays that are not along variants, each one chunk."""

    def write(name: str, kind: str, dimensions: tuple[str, ...], block: Block, fill: Any) -> None:
        rows = len(block)
        row_shape = () if isinstance(block, pa.Array) else block.shape[1:]
        spec = ArraySpec(name, kind, dimensions, row_shape, (max(1, rows), *row_shape), 1, fill)
        writer = ArrayWriter(spec, sink, pool)
        if rows:
            writer.append(lambda: block, rows)
        writer.finish()

    write("sample_id", "string", ("samples",), pa.array(facts.samples, pa.string()), "")
    write("contig_id", "string", ("contigs",), pa.array(list(facts.contigs), pa.string()), "")
    if facts.contigs and all(facts.contigs.values()):
        lengths = np.array([length or 0 for length in facts.contigs.values()], np.int64)
        write("contig_length", "int64", ("contigs",), lengths, -1)
    write("filter_id", "string", ("filters",), pa.array(list(filters), pa.string()), "")
    write("filter_description", "string", ("filters",), pa.array(list(filters.values()), pa.string()), "")
    write("region_index", "int32", ("region_index_values", "region_index_fields"), regions, -1)
