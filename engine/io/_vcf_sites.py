"""The site columns and INFO fields of a batch of VCF lines as Arrow arrays, for all lines at once.

Legend: m whole lines of the batch (see `_vcf_lines`).

Source: the Variant Call Format specification 4.3 (samtools/hts-specs), sections 1.4.2 and 1.6.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.io import _vcf_lines
from engine.io._vcf_header import Declared
from engine.io._vcf_lines import Ints, Lines, Refused, cut, lengths, null_where, shown, text_bytes
from engine.io.regions import MAX_POS
from engine.io.vcf import _is_contig

CHROM, POS, ID, REF, ALT, QUAL, FILTER, INFO = range(8)
_KINDS = {"Integer": pa.int32(), "Float": pa.float32(), "Character": pa.string(), "String": pa.string()}


def info_type(field: Declared) -> pa.DataType:
    """Arrow type of a column of INFO or FORMAT values."""
    if field.type == "Flag":
        return pa.bool_()
    return pa.list_(_KINDS[field.type]) if field.is_list else _KINDS[field.type]


def site_columns(lines: Lines, refused: Refused) -> dict[str, pa.Array]:
    """contig, start, id, ref, alts, qual and filters of all whole lines; rows with a fault go to `refused`."""
    contig = lines.column(CHROM)
    _check_contigs(contig, refused)
    ref = lines.column(REF)
    refused.mark(lengths(ref) == 0, "malformed_record", lambda _: "REF is empty")
    return {
        "contig": contig,
        "start": _starts(lines.column(POS), refused),
        "id": lines.column(ID),
        "ref": ref,
        "alts": _alts(lines.column(ALT), refused),
        "qual": _quality(lines.column(QUAL), refused),
        "filters": split_list(_vcf_lines.without_dots(lines.column(FILTER)), ";"),
    }


def _check_contigs(contig: pa.Array, refused: Refused) -> None:
    coded = contig.dictionary_encode()
    names = coded.dictionary.to_pylist()
    for code, name in enumerate(names):
        if not _is_contig(name.encode()):
            rows = np.asarray(coded.indices) == code
            refused.mark(rows, "malformed_record", lambda _, name=name: f"CHROM {shown(name)} is not a contig name")  # type: ignore[misc]


def _starts(texts: pa.Array, refused: Refused) -> pa.Array:
    """int64 (m,): 0-based starts."""
    good = np.asarray(pc.ascii_is_decimal(texts)) & (lengths(texts) <= 10)
    positions = null_where(texts, ~good).cast(pa.int64())
    values = np.asarray(positions.fill_null(0))
    bad = (values < 1) | (values > MAX_POS)
    refused.mark(
        bad,
        "bad_position",
        lambda row: f"POS {shown(texts[row].as_py())} is not a whole number from 1 to {MAX_POS}",
    )
    return null_where(pa.array(values - 1), bad)


def _alts(texts: pa.Array, refused: Refused) -> pa.Array:
    """list<string> (m,): no allele where ALT is '.'."""
    alts = pc.split_pattern(texts, ",")
    sizes = lengths(texts)
    offsets = np.asarray(alts.offsets)
    empty = lengths(alts.values) == 0
    if empty.any():
        rows = np.unique(np.searchsorted(offsets, np.flatnonzero(empty), side="right") - 1)
        mask = np.zeros(len(texts), np.bool_)
        mask[rows] = True
        refused.mark(mask & (sizes == 0), "malformed_record", lambda _: "ALT is empty")
        refused.mark(mask, "malformed_record", lambda row: f"ALT {shown(texts[row].as_py())} has an empty allele")
    byte_at, data = text_bytes(texts)
    one = np.flatnonzero(sizes == 1)
    none = one[data[byte_at[one]] == ord(".")]
    if not len(none):
        return alts
    counts = np.diff(offsets)
    counts[none] = 0
    kept = np.ones(len(alts.values), np.bool_)
    kept[offsets[none]] = False
    return pa.ListArray.from_arrays(_offsets_of(counts), alts.values.filter(pa.array(kept)))


def _offsets_of(counts: Ints) -> pa.Array:
    return pa.array(np.concatenate(([0], np.cumsum(counts))).astype(np.int32))


def _quality(texts: pa.Array, refused: Refused) -> pa.Array:
    numbers, bad = _vcf_lines.to_numbers(_vcf_lines.without_dots(texts), pa.float32())
    refused.mark(bad, "malformed_record", lambda row: f"QUAL {shown(texts[row].as_py())} is no number")
    return numbers


def split_list(texts: pa.Array, mark: str) -> pa.Array:
    """list<string> (m,): the texts' parts; null stays null."""
    return pc.split_pattern(texts, mark)


# ---------------------------------------------------------------- INFO


def info_columns(lines: Lines, fields: Sequence[Declared], refused: Refused) -> dict[str, pa.Array]:
    """A column for each field, and `END` (int64, null where absent) which bounds the bases covered.

    Raises nothing: a value that is not what the header declares refuses its row.
    """
    wants_end = b"END=" in lines.raw
    if not fields and not wants_end:
        return {"END": pa.nulls(len(lines.whole), pa.int64())}
    tokens = _Tokens(lines)
    found = {f"info_{field.id}": tokens.column(field, refused) for field in fields}
    end = Declared("END", "1", "Integer", "")
    return {**found, "END": tokens.column(end, refused).cast(pa.int64())}


class _Tokens:
    """The KEY=VALUE tokens of the INFO column of all lines, keys coded."""

    def __init__(self, lines: Lines) -> None:
        begins, ends = lines.spans(INFO)
        self._num_rows = len(begins)
        # With the tab before it, every token of the joined text begins behind a mark.
        _, self._data = text_bytes(cut(lines.raw, begins - 1, ends))
        mark = (self._data == ord(";")) | (self._data == ord("=")) | (self._data == ord("\t"))
        marks = np.concatenate((np.flatnonzero(mark), [len(self._data)]))
        kinds = np.concatenate((self._data[marks[:-1]], [ord("\t")])).astype(np.uint8)
        opening = np.flatnonzero(kinds != ord("="))
        first = opening[:-1]
        self._rows = np.cumsum(kinds[first] == ord("\t")) - 1
        self._ends = marks[opening[1:]]
        self._key_ends = marks[first + 1]
        keys = cut(self._data, marks[first] + 1, self._key_ends).dictionary_encode()
        self._codes = np.asarray(keys.indices)
        self._keys: Mapping[str, int] = {key: code for code, key in enumerate(keys.dictionary.to_pylist())}

    def column(self, field: Declared, refused: Refused) -> pa.Array:
        """Values of a field; of a key written twice in one record the first counts, as in htslib."""
        at = np.flatnonzero(self._codes == self._keys.get(field.id, -1))
        rows = self._rows[at]
        fresh = np.concatenate(([True], rows[1:] != rows[:-1])) if len(rows) else np.zeros(0, np.bool_)
        at, rows = at[fresh], rows[fresh]
        if field.type == "Flag":
            flags = np.zeros(self._num_rows, np.bool_)
            flags[rows] = True
            return pa.array(flags)
        begins = np.minimum(self._key_ends[at] + 1, self._ends[at])
        texts = _vcf_lines.without_dots(cut(self._data, begins, self._ends[at]))
        values, bad = typed(texts, field)
        for token in np.flatnonzero(bad).tolist():
            sentence = f"INFO {field.id}={shown(texts[token].as_py())[1:-1]} is not {_told(field)}"
            refused.add(int(rows[token]), "bad_info", sentence)
        return _vcf_lines.place(values, rows, self._num_rows)


def _told(field: Declared) -> str:
    return f"{'a list of' if field.is_list else 'one'} {field.type}, as the header declares it"


def typed(texts: pa.Array, field: Declared) -> tuple[pa.Array, np.ndarray]:
    """Values of texts by the field's type, and a mask of texts that do not fit it; null stays null."""
    kind = _KINDS[field.type]
    if not field.is_list:
        if kind == pa.string():
            return texts, np.zeros(len(texts), np.bool_)
        return _vcf_lines.to_numbers(texts, kind)
    lists = pc.split_pattern(texts, ",")
    offsets, flat = np.asarray(lists.offsets), _vcf_lines.without_dots(lists.values)
    bad = np.zeros(len(texts), np.bool_)
    if kind != pa.string():
        flat, wrong = _vcf_lines.to_numbers(flat, kind)
        if wrong.any():
            bad[np.searchsorted(offsets, np.flatnonzero(wrong), side="right") - 1] = True
    mask = pa.array(np.asarray(texts.is_null())) if texts.null_count else None
    return pa.ListArray.from_arrays(lists.offsets, flat, mask=mask), bad
