"""One streamed pass over the data parts of a variant-scoring run, down to what its report shows.

Memory holds counters, fixed numbers of histogram bins, the best variant of each gene and the rows of the panels; it
does not grow with the rows of the run. The order of the parts is the order of the input; where they are cut is not
seen in the result.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import DataError, InputError
from engine.scoring._panels import Panel, PanelCounter, PanelResult
from schemas.states import NOT_APPLICABLE, NOT_APPLICABLE_REASONS, REJECT_REASONS, REJECTED, SCORED, STATES

NUM_CONTIGS = 30
NUM_TOP = 50
NUM_BINS = 64
_FINEST_WIDTH = -40
_RANKING = "ds_max"
_REASON_UNKNOWN = "no reason is given"
_IDENTITY = ("record", "alt_index", "contig", "start", "id", "ref", "alt", "gene_id", "gene_symbol", "transcript_id")

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Reason:
    """Rows of one reason code."""

    state: str
    reason: str
    sentence: str
    rows: int


@dataclass(frozen=True)
class Flag:
    """Rows that carry one flag of the scorer."""

    flag: str
    rows: int


@dataclass(frozen=True)
class ContigRows:
    """Rows of one contig (or of the rest summed) by state."""

    contig: str
    rows: int
    scored: int
    not_applicable: int
    rejected: int


@dataclass(frozen=True)
class Histogram:
    """Values of one score column over scored rows.

    Attributes:
        column: name of the score column.
        num: finite values.
        no_number: scored rows whose value is missing, NaN or infinite.
        zero: values that are exactly 0.
        width: width of a bin, a power of two, so that bins merge exactly.
        positive: entry i counts values in (i * width, (i + 1) * width].
        negative: entry i counts values in [-(i + 1) * width, -i * width).
        low: smallest finite value, NaN where there is none.
        high: largest finite value, NaN where there is none.
    """

    column: str
    num: int
    no_number: int
    zero: int
    width: float
    positive: tuple[int, ...]
    negative: tuple[int, ...]
    low: float
    high: float


@dataclass(frozen=True)
class TopVariant:
    """The variant with the largest absolute score of its gene, or one outside genes.

    Attributes:
        score: value of the ranking column, sign kept.
        values: every score column's value, None where missing.
        offsets: `ds_x` column to its `dp_x` in bases from the written POS, where the table has one.
        gene_rows: scored rows of the gene; 0 outside genes.
    """

    record: int
    alt_index: int
    contig: str
    start: int
    id: str
    ref: str
    alt: str
    gene_id: str
    gene_symbol: str
    transcript_id: str
    score: float
    values: Mapping[str, float | None]
    offsets: Mapping[str, int]
    gene_rows: int


@dataclass(frozen=True)
class Summary:
    """Everything the report counts. `contigs` are the largest, the rest is summed in `other_contigs`."""

    records: int
    rows: int
    scored: int
    not_applicable: int
    rejected: int
    reasons: tuple[Reason, ...]
    flags: tuple[Flag, ...]
    contigs: tuple[ContigRows, ...]
    num_contigs: int
    other_contigs: ContigRows
    histograms: tuple[Histogram, ...]
    top_genes: tuple[TopVariant, ...]
    num_genes: int
    top_variants: tuple[TopVariant, ...]
    panels: tuple[PanelResult, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Plain values; numbers that are not finite become None."""
        named = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "panels"}
        plain = {name: _plain(value) for name, value in named.items()}
        return plain | {"panels": [_finite(panel.to_dict()) for panel in self.panels]}

    def to_json(self) -> str:
        """The same as sorted JSON, equal for equal parts."""
        return json.dumps(self.to_dict(), sort_keys=True, indent=1, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return _finite(asdict(value)) if hasattr(value, "__dataclass_fields__") else value


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def summarise(tables: Iterable[pa.Table], *, panels: Sequence[Panel], score_columns: Sequence[str]) -> Summary:
    """Summarise data parts in one pass.

    Args:
        tables: the parts in input order, rows of schemas.tables.VARIANT_SCORES with the scorer's columns.
        panels: comparisons with measured values.
        score_columns: numeric columns to draw; `ds_max`, or else the first, ranks the top variants by its absolute
            value and is shown first.

    Raises:
        InputError: a score column or a panel's INFO key is not in the table.
        DataError: a row has a state outside schemas.states.STATES.
    """
    if not score_columns:
        raise InputError("no score column is named", where="report", fix="name at least one score column")
    columns = sorted(dict.fromkeys(score_columns), key=lambda column: column != _RANKING)
    states = _StateCounter()
    histograms = [HistogramCounter(column) for column in columns]
    tops = _TopCounter(tuple(columns))
    comparisons = [PanelCounter(panel) for panel in panels]
    for table in tables:
        _check_columns(table, columns)
        states.add(table)
        scored = table.filter(pc.equal(table["state"], SCORED))
        for histogram in histograms:
            histogram.add(_floats(scored[histogram.column]))
        tops.add(scored)
        for comparison in comparisons:
            comparison.add(table)
    return _finish(states, histograms, tops, comparisons)


def _finish(
    states: _StateCounter,
    histograms: Sequence[HistogramCounter],
    tops: _TopCounter,
    comparisons: Sequence[PanelCounter],
) -> Summary:
    contigs = states.contigs()
    top_genes = tops.genes()
    by_state = Counter[str]()
    for (_, state, _), rows in states.rows.items():
        by_state[state] += rows
    return Summary(
        records=states.records,
        rows=sum(by_state.values()),
        scored=by_state[SCORED],
        not_applicable=by_state[NOT_APPLICABLE],
        rejected=by_state[REJECTED],
        reasons=states.reasons(),
        flags=states.flags(),
        contigs=tuple(contigs[:NUM_CONTIGS]),
        num_contigs=len(contigs),
        other_contigs=_sum_contigs(contigs[NUM_CONTIGS:]),
        histograms=tuple(histogram.result() for histogram in histograms),
        top_genes=tuple(top_genes[:NUM_TOP]),
        num_genes=len(top_genes),
        top_variants=tuple(tops.loose_variants()),
        panels=tuple(comparison.result() for comparison in comparisons),
    )


def _check_columns(table: pa.Table, score_columns: Sequence[str]) -> None:
    absent = [name for name in score_columns if name not in table.column_names]
    if absent:
        raise InputError(
            f"no score column {absent[0]!r} in the table (it has {', '.join(table.column_names)})",
            where="report",
            fix="name one of these",
        )


def _floats(column: pa.ChunkedArray) -> Floats:
    return np.asarray(pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy(), dtype=np.float64)


class _StateCounter:
    """Rows by (contig, state, reason), and distinct records."""

    def __init__(self) -> None:
        self.rows: Counter[tuple[str, str, str]] = Counter()
        self.records = 0
        self._flags: Counter[str] = Counter()
        self._last_record: int | None = None

    def add(self, table: pa.Table) -> None:
        if table.num_rows == 0:
            return
        keys = ["contig", "state", "reason"]
        grouped = table.select([*keys, "record"]).group_by(keys, use_threads=False).aggregate([("record", "count")])
        for row in grouped.to_pylist():
            if row["state"] not in STATES:
                raise DataError(
                    f"state {row['state']!r} is none of {', '.join(STATES)}",
                    where="data part",
                    fix="run `replisome verify` on the output",
                )
            self.rows[row["contig"] or "", row["state"], row["reason"] or ""] += row["record_count"]
        if "flags" in table.column_names:
            for row in pc.value_counts(table["flags"].cast(pa.string()).combine_chunks()).to_pylist():
                self._flags.update({flag: row["counts"] for flag in (row["values"] or "").split(",") if flag})
        records = table["record"].to_numpy()
        # A record's rows follow one another, also across a cut, so counting the changes counts the records.
        self.records += int(np.count_nonzero(np.diff(records))) + int(records[0] != self._last_record)
        self._last_record = int(records[-1])

    def reasons(self) -> tuple[Reason, ...]:
        """Most frequent first, rejected before not applicable."""
        sums = Counter[tuple[str, str]]()
        for (_, state, reason), rows in self.rows.items():
            if state != SCORED:
                sums[state, reason] += rows
        known = NOT_APPLICABLE_REASONS | REJECT_REASONS
        order = sorted(sums.items(), key=lambda one: (one[0][0] != REJECTED, -one[1], one[0][1]))
        return tuple(Reason(state, reason, known.get(reason, _REASON_UNKNOWN), rows) for (state, reason), rows in order)

    def flags(self) -> tuple[Flag, ...]:
        """Most frequent first, equal ones by name."""
        return tuple(Flag(*one) for one in sorted(self._flags.items(), key=lambda one: (-one[1], one[0])))

    def contigs(self) -> list[ContigRows]:
        """Most rows first, equal ones by name."""
        sums: dict[str, Counter[str]] = {}
        for (contig, state, _), rows in self.rows.items():
            sums.setdefault(contig, Counter())[state] += rows
        found = [_contig_rows(contig, by_state) for contig, by_state in sums.items()]
        return sorted(found, key=lambda one: (-one.rows, one.contig))


def _contig_rows(contig: str, by_state: Counter[str]) -> ContigRows:
    scored, not_applicable, rejected = (by_state[state] for state in (SCORED, NOT_APPLICABLE, REJECTED))
    return ContigRows(contig, scored + not_applicable + rejected, scored, not_applicable, rejected)


def _sum_contigs(rest: Sequence[ContigRows]) -> ContigRows:
    sums = Counter[str]()
    for one in rest:
        sums.update({SCORED: one.scored, NOT_APPLICABLE: one.not_applicable, REJECTED: one.rejected})
    return _contig_rows("", sums)


class HistogramCounter:
    """Bins on both sides of zero whose width doubles when a value falls outside.

    The final width is fixed by the largest absolute value alone, and bins that are closed on the side away from zero
    merge in pairs without moving any value, so the counts do not depend on the order of the rows.
    """

    def __init__(self, column: str) -> None:
        self.column = column
        self._exponent = _FINEST_WIDTH
        self._sides = np.zeros((2, NUM_BINS), dtype=np.int64)
        self._zero = self._no_number = 0
        self._low, self._high = math.inf, -math.inf

    def add(self, values: Floats) -> None:
        finite = values[np.isfinite(values)]
        self._no_number += len(values) - len(finite)
        if len(finite) == 0:
            return
        self._low = min(self._low, float(finite.min()))
        self._high = max(self._high, float(finite.max()))
        self._widen(float(np.abs(finite).max()))
        self._zero += int((finite == 0).sum())
        for side, part in enumerate((finite[finite > 0], -finite[finite < 0])):
            bins = np.ceil(np.ldexp(part, -self._exponent)).astype(np.int64) - 1
            # Below the smallest number that a double holds the product rounds to 0: the first bin.
            self._sides[side] += np.bincount(np.maximum(bins, 0), minlength=NUM_BINS)

    def _widen(self, largest: float) -> None:
        if largest == 0:
            return
        fraction, exponent = math.frexp(largest)
        wanted = exponent - int(fraction == 0.5) - int(math.log2(NUM_BINS))
        while self._exponent < wanted:
            merged = self._sides[:, 0::2] + self._sides[:, 1::2]
            self._sides = np.concatenate([merged, np.zeros_like(merged)], axis=1)
            self._exponent += 1

    def result(self) -> Histogram:
        num = int(self._sides.sum()) + self._zero
        return Histogram(
            column=self.column,
            num=num,
            no_number=self._no_number,
            zero=self._zero,
            width=math.ldexp(1.0, self._exponent),
            positive=tuple(self._sides[0].tolist()),
            negative=tuple(self._sides[1].tolist()),
            low=self._low if num else math.nan,
            high=self._high if num else math.nan,
        )


class _TopCounter:
    """The largest absolute score of each gene, and the largest among rows without a gene.

    Equal scores: the row that comes first in the input stays.
    """

    def __init__(self, score_columns: tuple[str, ...]) -> None:
        self._columns = score_columns
        self._genes: dict[str, TopVariant] = {}
        self._gene_rows: Counter[str] = Counter()
        self._loose: list[TopVariant] = []

    def add(self, scored: pa.Table) -> None:
        values = _floats(scored[self._columns[0]])
        keep = np.flatnonzero(np.isfinite(values))
        sizes = np.abs(values[keep])
        genes = pc.coalesce(scored["gene_id"].cast(pa.string()), scored["gene_symbol"].cast(pa.string()))
        encoded = genes.take(pa.array(keep)).combine_chunks().dictionary_encode()
        names = encoded.dictionary.to_pylist()
        codes = np.asarray(pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False), dtype=np.int64)
        self._add_genes(scored, keep, sizes, codes=codes, names=names)
        self._add_loose(scored, keep[codes < 0], sizes[codes < 0])

    def _add_genes(self, scored: pa.Table, keep: Ints, sizes: Floats, *, codes: Ints, names: Sequence[str]) -> None:
        order = np.lexsort((np.arange(len(codes)), -sizes, codes))
        order = order[codes[order] >= 0]
        firsts = order[np.flatnonzero(np.diff(codes[order], prepend=-1))]
        for name, rows in zip(names, np.bincount(codes[codes >= 0], minlength=len(names)), strict=True):
            self._gene_rows[name] += int(rows)
        better = [i for i in firsts.tolist() if self._beats(names[codes[i]], float(sizes[i]))]
        rows_taken = self._variants(scored, keep[np.array(better, dtype=np.int64)])
        for i, variant in zip(better, rows_taken, strict=True):
            self._genes[names[codes[i]]] = variant

    def _beats(self, gene: str, size: float) -> bool:
        held = self._genes.get(gene)
        return held is None or size > abs(held.score)

    def _add_loose(self, scored: pa.Table, keep: Ints, sizes: Floats) -> None:
        if len(self._loose) == NUM_TOP:
            above = sizes > abs(self._loose[-1].score)
            keep, sizes = keep[above], sizes[above]
        best = np.argsort(-sizes, kind="stable")[:NUM_TOP]
        # A stable sort keeps earlier rows of the input before later ones of equal size.
        merged = sorted([*self._loose, *self._variants(scored, keep[best])], key=lambda one: -abs(one.score))
        self._loose = merged[:NUM_TOP]

    def _variants(self, scored: pa.Table, index: Ints) -> list[TopVariant]:
        if len(index) == 0:
            return []
        offsets = [f"dp_{c[3:]}" for c in self._columns if c.startswith("ds_")]
        names = [n for n in dict.fromkeys([*_IDENTITY, *self._columns, *offsets]) if n in scored.column_names]
        return [_variant(row, self._columns) for row in scored.select(names).take(pa.array(index)).to_pylist()]

    def genes(self) -> list[TopVariant]:
        """Largest absolute score first; ties by place in the input, then gene."""
        found = [_with_rows(variant, self._gene_rows[gene]) for gene, variant in self._genes.items()]
        return sorted(found, key=lambda one: (-abs(one.score), one.record, one.alt_index, one.gene_id))

    def loose_variants(self) -> list[TopVariant]:
        """The largest among rows without a gene."""
        return list(self._loose)


def _variant(row: Mapping[str, Any], columns: Sequence[str]) -> TopVariant:
    texts = {name: str(row[name] or "") for name in ("contig", "id", "ref", "alt", "gene_symbol", "transcript_id")}
    offsets = {c: f"dp_{c[3:]}" for c in columns if c.startswith("ds_")}
    return TopVariant(
        record=int(row["record"]),
        alt_index=int(row["alt_index"] or 0),
        start=int(row["start"] if row["start"] is not None else -1),
        gene_id=str(row["gene_id"] or row["gene_symbol"] or ""),
        score=float(row[columns[0]]),
        values={name: None if row[name] is None else float(row[name]) for name in columns},
        offsets={name: int(row[dp]) for name, dp in offsets.items() if row.get(dp) is not None},
        gene_rows=0,
        **texts,
    )


def _with_rows(variant: TopVariant, rows: int) -> TopVariant:
    values = {name: getattr(variant, name) for name in variant.__dataclass_fields__}
    return TopVariant(**values | {"gene_rows": rows})
