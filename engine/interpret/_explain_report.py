"""The HTML report of an explanation, from one streamed pass over its parts.

It shows logos of the records whose letters count most, how far the attributions are from complete, and the motifs under
them.

Every number stands in an element whose `data-key` names its source.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.interpret._explain_stages import ExplainStages
from engine.interpret._logo import contribution_logo, motif_logo
from engine.scoring._page import Number, count, entries, real, render_page
from engine.scoring._predict_report import counts_of
from schemas import states

MOST_LOGOS = 8
MOST_CHANNELS = 4
MOST_MOTIFS = 30
_SHOWN_LETTERS = 100
_METHODS = {
    "mutagenesis": "in-silico mutagenesis: how much the output falls, on average, when the letter is replaced",
    "integrated_gradients": "integrated gradients: the letter's share of the difference from the baseline",
    "deeplift": "DeepLIFT: the letter's share of the difference from the baseline",
}


@dataclass(frozen=True)
class Strong:
    """A record whose letters count much for a channel.

    Attributes:
        name: of the channel.
        record, id: of the record.
        output, baseline: the explained number; None where there is none.
        text, values: letters and contributions around the strongest.
        first: 1-based position of the first of them.
        length: of the whole sequence.
    """

    name: str
    record: int
    id: str | None
    output: float
    baseline: float | None
    text: str
    values: tuple[float, ...]
    first: int
    length: int


@dataclass(frozen=True)
class Completeness:
    """How far contributions are from summing to the difference of output and baseline.

    Attributes:
        name: of the channel.
        num: records.
        largest: absolute error.
        share: median of |error| as a share of |output - baseline|; None where no difference is above 1e-6.
    """

    name: str
    num: int
    largest: float
    share: float | None


@dataclass(frozen=True)
class ExplainSummary:
    """Attributes:
    states, reasons: rows by state, and those not scored by (state, reason).
    strong: the records shown, by channel.
    completeness: by channel; empty for methods without a baseline.
    motifs: rows of MOTIF_MATCHES, the surest first.
    """

    states: Mapping[str, int]
    reasons: Mapping[tuple[str, str], int]
    strong: tuple[Strong, ...]
    completeness: tuple[Completeness, ...]
    motifs: tuple[Mapping[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "states": dict(self.states),
            "reasons": [{"state": s, "reason": r, "rows": num} for (s, r), num in self.reasons.items()],
            "strong": [asdict(one) for one in self.strong],
            "completeness": [asdict(one) for one in self.completeness],
            "motifs": [dict(one) for one in self.motifs],
        }


def summarise(parts: Iterable[pa.Table], stages: ExplainStages, matched: Sequence[Mapping[str, Any]]) -> ExplainSummary:
    """One pass over the data parts."""
    by_state: Counter[str] = Counter()
    reasons: Counter[tuple[str, str]] = Counter()
    shown = stages.names[:MOST_CHANNELS]
    tops: dict[str, list[tuple[float, int, Strong]]] = {name: [] for name in shown}
    errors: dict[str, list[tuple[float, float]]] = {name: [] for name in stages.names}
    for table in parts:
        for state, reason in zip(table["state"].to_pylist(), table["reason"].to_pylist(), strict=True):
            by_state[state] += 1
            if reason is not None:
                reasons[state, reason] += 1
        scored = table.filter(pc.equal(table["state"], states.SCORED))
        for name in stages.names:
            columns = (scored[name], scored[f"{name}_baseline"], scored[f"{name}_error"])
            for output, baseline, error in zip(*(one.to_pylist() for one in columns), strict=True):
                if error is not None:
                    errors[name].append((abs(error), abs(output - baseline)))
        for name in shown:
            for one in _strong_of(scored, name):
                peak = max(map(abs, one.values), default=0.0)
                heapq.heappush(tops[name], (peak, -one.record, one))
                if len(tops[name]) > MOST_LOGOS:
                    heapq.heappop(tops[name])
    ordered = sorted(matched, key=lambda row: (row["p_value"] is None, row["p_value"], -row["hits"], row["motif"]))
    return ExplainSummary(
        states={state: by_state[state] for state in states.STATES},
        reasons=dict(sorted(reasons.items(), key=lambda one: (one[0][0] != states.REJECTED, -one[1], one[0]))),
        strong=tuple(one for name in shown for _, _, one in sorted(tops[name], key=lambda top: (-top[0], -top[1]))),
        completeness=tuple(_completeness(name, rows) for name, rows in errors.items() if rows),
        motifs=tuple(ordered),
    )


def _strong_of(scored: pa.Table, name: str) -> Iterable[Strong]:
    columns = ("record", "id", "sequence", name, f"{name}_baseline", f"{name}_contributions")
    for record, told, text, output, baseline, values in zip(*(scored[one] for one in columns), strict=True):
        values_L = values.values.to_numpy(zero_copy_only=False).astype(np.float64)
        if not len(values_L):
            continue
        peak = int(np.abs(values_L).argmax())
        first = max(0, min(peak - _SHOWN_LETTERS // 2, len(values_L) - _SHOWN_LETTERS))
        part = slice(first, first + _SHOWN_LETTERS)
        told_values = tuple(values_L[part].tolist())
        row = (record.as_py(), told.as_py(), output.as_py(), baseline.as_py(), text.as_py()[part])
        yield Strong(name, *row, told_values, first + 1, len(values_L))


def _completeness(name: str, rows: Sequence[tuple[float, float]]) -> Completeness:
    shares = [error / difference for error, difference in rows if difference > 1e-6]
    middle = float(np.median(shares)) if shares else None
    return Completeness(name, len(rows), max(error for error, _ in rows), middle)


def render(
    summary: ExplainSummary, stages: ExplainStages, provenance: Mapping[str, Any], timings: Mapping[str, Any]
) -> str:
    """The page as text."""
    shown = summary.motifs[:MOST_MOTIFS]
    return render_page(
        "explain_report.html",
        folder=Path(__file__).parent,
        model=str(provenance["model"]["name"]),
        records=counts_of(summary.states, summary.reasons),
        method=_METHODS[stages.method.name],
        channels=[_channel(name, summary.strong) for name in stages.names[:MOST_CHANNELS]],
        num_more_channels=max(0, len(stages.names) - MOST_CHANNELS),
        completeness=[_complete(one) for one in summary.completeness],
        has_motifs=stages.search is not None,
        motifs=[_motif(one, stages) for one in shown],
        num_more_motifs=len(summary.motifs) - len(shown),
        timings=list(entries(timings, "timings")),
        provenance=list(entries(provenance, "provenance")),
    )


def _channel(name: str, strong: Sequence[Strong]) -> dict[str, Any]:
    rows = [one for one in strong if one.name == name]
    return {"name": name, "rows": [_logo(one) for one in rows]}


def _logo(one: Strong) -> dict[str, Any]:
    key = f"strong.{one.name}.{one.record}"
    end = one.first + len(one.text) - 1
    span = f"letters {one.first:,} to {end:,} of {one.length:,}"
    title = f"Contributions to {one.name} of record {one.record}, {span}"
    return {
        "id": one.id or f"record {one.record}",
        "span": span,
        "output": Number(f"{key}.output", real(one.output)),
        "baseline": None if one.baseline is None else Number(f"{key}.baseline", real(one.baseline)),
        "svg": contribution_logo(one.text, np.array(one.values), first=one.first, title=title),
    }


def _complete(one: Completeness) -> dict[str, Any]:
    key = f"completeness.{one.name}"
    return {
        "name": one.name,
        "num": Number(f"{key}.num", count(one.num)),
        "largest": Number(f"{key}.largest", f"{one.largest:.2g}"),
        "share": Number(f"{key}.share", "\u2013" if one.share is None else f"{one.share:.2g}"),
    }


def _motif(row: Mapping[str, Any], stages: ExplainStages) -> dict[str, Any]:
    assert stages.search is not None
    key = f"motif.{row['output']}.{row['motif']}"
    motif = next(one for one in stages.search.motifs if one.id == row["motif"])
    return {
        "id": row["motif"],
        "name": row["name"],
        "output": row["output"],
        "svg": motif_logo(motif.counts, title=f"Motif {row['motif']}: {row['consensus']}"),
        "hits": Number(f"{key}.hits", count(row["hits"])),
        "rank": Number(f"{key}.mean_rank", real(row["mean_rank"])),
        "contribution": Number(f"{key}.mean_contribution", real(row["mean_contribution"])),
        "p": Number(f"{key}.p_value", _chance(row["p_value"])),
        "q": Number(f"{key}.q_value", _chance(row["q_value"])),
    }


def _chance(value: float | None) -> str:
    return "\u2013" if value is None else f"{value:.2g}".replace("-", "\u2212")
