"""The arrays of a VCF Zarr store: their axes, types and chunks, and how rows of a sites table become their blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from engine.io import _vcf_zarr_blocks as blocks
from engine.io._genotypes import MISSING
from engine.io._vcf_header import Declared
from engine.io._zarr_shards import ArraySpec, Block
from schemas import states

VARIANTS_PER_CHUNK = 1000
SAMPLES_PER_CHUNK = 10_000
_CHUNKS_PER_SHARD = 1000
_CHUNK_BYTES = 32 << 20
_SHARD_BYTES = 512 << 20
_TEXT_BYTES = 8
_FILLS = {"string": "", "bool": False, "float32": "NaN"}
_SHARED_AXES = {"R": "alleles", "A": "alt_alleles", "G": "genotypes"}


@dataclass
class Measures:
    """Sizes that no single record knows, collected over all tables before the first array is written.

    Attributes:
        num_rows: kept rows.
        num_alleles: most alleles of a record, REF included; at least 2.
        ploidy: most copies of a call.
        filters: filters met, in order of appearance.
        list_sizes: most values of each field that is a list, by place and id ("INFO/AF").
        int_bytes: bytes that hold every value of each FORMAT field of integers.
    """

    num_rows: int = 0
    num_alleles: int = 2
    ploidy: int = 1
    filters: dict[str, None] = field(default_factory=dict)
    list_sizes: dict[str, int] = field(default_factory=dict)
    int_bytes: dict[str, int] = field(default_factory=dict)

    def add(self, table: pa.Table, facts: StoreFacts) -> None:
        """Take in a table of sites."""
        kept = kept_rows(table)
        self.num_rows += kept.num_rows
        self.num_alleles = max(self.num_alleles, 1 + _longest(kept["alts"]))
        if facts.genotypes:
            self.ploidy = max(self.ploidy, pc.max(kept["ploidy"]).as_py() or 1)
        self.filters |= dict.fromkeys(pc.unique(pc.list_flatten(kept["filters"])).to_pylist())
        for one in facts.infos:
            if one.is_list:
                self._grow(f"INFO/{one.id}", _longest(kept[f"info_{one.id}"]))
        for one in facts.formats:
            self._add_format(one, kept[f"format_{one.id}"], len(facts.samples))

    def merge(self, other: Measures) -> None:
        """Take in what was measured of tables that follow."""
        self.num_rows += other.num_rows
        self.num_alleles = max(self.num_alleles, other.num_alleles)
        self.ploidy = max(self.ploidy, other.ploidy)
        self.filters |= other.filters
        for name, size in other.list_sizes.items():
            self._grow(name, size)
        for name, size in other.int_bytes.items():
            self.int_bytes[name] = max(self.int_bytes.get(name, 1), size)

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


class Arrays:
    """The arrays along variants, and how rows of a sites table become their blocks."""

    def __init__(self, facts: StoreFacts, filters: Sequence[str], measures: Measures) -> None:
        """Of a store with these facts, filters in this order, and sizes."""
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
