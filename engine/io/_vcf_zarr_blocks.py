"""Columns of a sites table as blocks of VCF Zarr arrays, with the codes of that layout.

Legend: m rows, S samples, W values of a cell; a cell is what one sample has at one record.

Source: the VCF Zarr specification 0.4 (sgkit-dev/vcf-zarr-spec): -1 marks a missing integer and -2 one beyond a cell's
own number, 0x7F800001 and 0x7F800002 the same for floats, "." and "" for text. A field that a record lacks is missing
in all its places, as bio2zarr has it. (An integer -1 or -2 that a VCF spells out cannot be told from these codes.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from engine.io._genotypes import MISSING, NO_COPY
from engine.io._vcf_formats import MISSING_FLOAT, NO_FLOAT, RESERVED
from engine.io._vcf_lines import Ints, text_bytes
from engine.io._zarr_shards import Block


def alleles(ref: pa.Array, alts: pa.Array, width: int) -> pa.Array:
    """string (m * width,): REF and ALT alleles, then empty texts."""
    counts = np.asarray(pc.list_value_length(alts))
    index = np.full((len(ref), width), -1, np.int64)
    index[:, 0] = np.arange(len(ref))
    inside = np.arange(width - 1) < counts[:, None]
    index[:, 1:][inside] = len(ref) + np.arange(int(counts.sum()))
    every = pa.concat_arrays([ref, pc.list_flatten(alts), pa.array([""])])
    return every.take(pa.array(np.where(index < 0, len(every) - 1, index).ravel()))


def passed(filters: pa.Array, known: pa.Array) -> npt.NDArray[np.bool_]:
    """bool (m, filters): which filters each record names."""
    found = np.zeros((len(filters), len(known)), np.bool_)
    counts = np.asarray(pc.list_value_length(filters).fill_null(0))
    rows = np.repeat(np.arange(len(filters)), counts)
    found[rows, np.asarray(pc.index_in(pc.list_flatten(filters), known))] = True
    return found


def floats(values: pa.Array) -> npt.NDArray[np.float32]:
    """float32 with VCF Zarr's NaN for what is missing."""
    found = np.array(values.fill_null(0.0), np.float32)
    found[np.asarray(values.is_null())] = MISSING_FLOAT
    return found


def info(values: pa.Array, width: int) -> Block:
    """(m, width): values of an INFO field, padded where it is a list."""
    if not pa.types.is_list(values.type):
        return _scalars(values)
    flat = _scalars(pc.list_flatten(values))
    return _spread(flat, np.asarray(pc.list_value_length(values).fill_null(-1)), width)


def _spread(flat: Block, counts: Ints, width: int) -> Block:
    """(rows, width): `counts` values for each row, padded; a count of -1 is missing throughout."""
    inside = np.arange(width) < counts[:, None]
    absent = counts < 0
    if isinstance(flat, pa.Array):
        index = np.full(inside.shape, len(flat), np.int64)
        index[inside] = np.arange(len(flat))
        index[absent] = len(flat) + 1
        return pa.concat_arrays([flat, pa.array(["", "."])]).take(pa.array(index.ravel()))
    missing, beyond = (MISSING_FLOAT, NO_FLOAT) if flat.dtype == np.float32 else (MISSING, NO_COPY)
    whole = np.full(inside.shape, beyond, flat.dtype)
    whole[inside] = flat
    whole[absent] = missing
    return whole


def _scalars(values: pa.Array) -> Block:
    if pa.types.is_string(values.type):
        return values.fill_null(".")
    if pa.types.is_boolean(values.type):
        return np.asarray(values.fill_null(False))
    if pa.types.is_floating(values.type):
        return floats(values)
    return np.asarray(values.fill_null(MISSING))


# ---------------------------------------------------------------- samples


def genotypes(packed: pa.Array, ploidy: pa.Array, *, num_samples: int, width: int) -> npt.NDArray[np.int16]:
    """int16 (m, S, width): allele indexes; records without GT are missing throughout."""
    calls = np.full((len(packed), num_samples, width), MISSING, np.int16)
    own = np.asarray(ploidy.fill_null(0))
    for copies in np.unique(own[own > 0]).tolist():
        at = np.flatnonzero(own == copies)
        some = _packed_rows(packed, at, np.dtype("<i2")).reshape(len(at), num_samples, copies)
        calls[at, :, :copies], calls[at, :, copies:] = some, NO_COPY
    return calls


def phased(packed: pa.Array, num_samples: int) -> npt.NDArray[np.bool_]:
    """bool (m, S)."""
    found = np.zeros((len(packed), num_samples), np.bool_)
    at = np.flatnonzero(np.asarray(packed.is_valid()))
    found[at] = _packed_rows(packed, at, np.dtype(np.bool_)).reshape(len(at), num_samples)
    return found


def _packed_rows(packed: pa.Array, at: Ints, kind: np.dtype[Any]) -> npt.NDArray[Any]:
    """The bytes of some rows, joined, as numbers."""
    chosen = packed if len(at) == len(packed) else packed.take(pa.array(at))
    offsets, data = text_bytes(chosen)
    return data[offsets[0] : offsets[-1]].view(kind) if len(chosen) else np.empty(0, kind)


def widths(packed: pa.Array) -> Ints:
    """int64 (m,): bytes of one value in each row, 0 where it is null."""
    offsets, data = text_bytes(packed)
    found = np.zeros(len(packed), np.int64)
    at = np.flatnonzero(np.diff(offsets) > 0)
    found[at] = data[offsets[at]]
    return found


def numbers(packed: pa.Array, kind: str, *, num_samples: int, width: int) -> npt.NDArray[Any]:
    """(m, S, width): values of a FORMAT field, as Zarr type `kind`."""
    own, sizes = widths(packed), np.asarray(pc.binary_length(packed).fill_null(0), np.int64)
    whole = kind != "float32"
    missing, beyond = (MISSING, NO_COPY) if whole else (MISSING_FLOAT, NO_FLOAT)
    found = np.full((len(packed), num_samples, width), beyond, kind)
    found[own == 0] = missing
    shapes = own << 40 | sizes
    for shape in np.unique(shapes[own > 0]).tolist():
        at = np.flatnonzero(shapes == shape)
        itemsize = shape >> 40
        rows = _packed_rows(packed, at, np.dtype(np.uint8)).reshape(len(at), -1)
        some = np.ascontiguousarray(rows[:, 1:]).view(f"<i{itemsize}" if whole else "<f4")
        some = (_coded(some) if whole else some).reshape(len(at), num_samples, -1)
        if len(at) == len(packed):
            found[:, :, : some.shape[2]] = some
        else:
            found[at, :, : some.shape[2]] = some
    return found


def _coded(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """BCF's codes (missing is even, absent odd) as those of VCF Zarr."""
    codes = values < np.iinfo(values.dtype).min + RESERVED
    return np.where(codes, ~(values & 1), values) if codes.any() else values


def texts(lists: pa.Array, *, num_samples: int, width: int, is_list: bool) -> pa.Array:
    """string (m * S * width,): values of a FORMAT field."""
    index = np.full((len(lists), num_samples), -1, np.int64)
    at = np.flatnonzero(np.asarray(lists.is_valid()))
    index[at] = np.arange(len(at) * num_samples).reshape(-1, num_samples)
    cells = pc.list_flatten(lists).fill_null(".").take(pa.array(index.ravel(), mask=index.ravel() < 0))
    if not is_list:
        return cells.fill_null(".")
    parts = pc.split_pattern(cells, ",")
    spread = _spread(pc.list_flatten(parts), np.asarray(pc.list_value_length(parts).fill_null(-1)), width)
    assert isinstance(spread, pa.Array)
    return spread
