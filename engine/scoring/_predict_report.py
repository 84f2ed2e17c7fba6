"""The HTML report of a prediction run, from one streamed pass over its parts.

Every number stands in an element whose `data-key` names its source: `counts.rows`, `reason.rejected.too_short`,
`head.class.site.predicted`, `histogram.COLUMN.low`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.models._info import HeadInfo
from engine.scoring._page import Number, count, entries, real, render_page, share
from engine.scoring._prediction_columns import predicted_column, value_column
from engine.scoring._variant_report import draw_histogram
from engine.scoring._variant_summary import Histogram, HistogramCounter
from schemas import states

MAX_SHOWN = 24


@dataclass(frozen=True)
class ClassRows:
    """A channel of a softmax head.

    Attributes:
        predicted: rows for which it has the highest probability.
        mean: of its probability over the scored rows; None where there are none.
    """

    head: str
    channel: str
    predicted: int
    mean: float | None


@dataclass(frozen=True)
class PredictSummary:
    """Attributes:
    rows: of the set.
    states: rows by state.
    reasons: rows not scored by (state, reason).
    classes: channels of heads that tell classes.
    histograms: values of the columns of the other heads, of at most MAX_SHOWN channels.
    num_columns: columns of values of those heads in all.
    """

    rows: int
    states: Mapping[str, int]
    reasons: Mapping[tuple[str, str], int]
    classes: tuple[ClassRows, ...]
    histograms: tuple[Histogram, ...]
    num_columns: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "rows": self.rows,
            "states": dict(self.states),
            "reasons": [{"state": s, "reason": r, "rows": num} for (s, r), num in self.reasons.items()],
            "classes": [asdict(one) for one in self.classes],
            "histograms": [{**asdict(one), **_finite_ends(one)} for one in self.histograms],
        }


def _finite_ends(one: Histogram) -> dict[str, float | None]:
    return {"low": one.low if one.num else None, "high": one.high if one.num else None}


def tells_classes(head: HeadInfo) -> bool:
    """Whether a head names one class per sequence or image."""
    return head.level in ("sequence", "image") and head.activation == "softmax"


def summarise(parts: Iterable[pa.Table], heads: Sequence[HeadInfo]) -> PredictSummary:
    """One pass over the data parts."""
    by_state: Counter[str] = Counter()
    reasons: Counter[tuple[str, str]] = Counter()
    told: Counter[tuple[str, str]] = Counter()
    sums: defaultdict[tuple[str, str], float] = defaultdict(float)
    columns = [value_column(head, one) for head in heads if not tells_classes(head) for one in head.channels]
    histograms = [HistogramCounter(name) for name in columns[:MAX_SHOWN]]
    for table in parts:
        found = zip(table["state"].to_pylist(), table["reason"].to_pylist(), strict=True)
        for (state, reason), num in Counter(found).items():
            by_state[state] += num
            if reason is not None:
                reasons[state, reason] += num
        scored = table.filter(pc.equal(table["state"], states.SCORED))
        for head in filter(tells_classes, heads):
            told.update((head.name, one) for one in scored[predicted_column(head)].to_pylist())
            for one in head.channels:
                sums[head.name, one] += pc.sum(scored[value_column(head, one)]).as_py() or 0.0
        for histogram in histograms:
            histogram.add(_values(scored[histogram.column]))
    num_scored = by_state[states.SCORED]
    classes = [
        ClassRows(head.name, one, told[head.name, one], sums[head.name, one] / num_scored if num_scored else None)
        for head in filter(tells_classes, heads)
        for one in head.channels
    ]
    ordered = dict(sorted(reasons.items(), key=lambda one: (one[0][0] != states.REJECTED, -one[1], one[0])))
    return PredictSummary(
        rows=sum(by_state.values()),
        states={state: by_state[state] for state in states.STATES},
        reasons=ordered,
        classes=tuple(classes),
        histograms=tuple(one.result() for one in histograms),
        num_columns=len(columns),
    )


def _values(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.float64]]:
    flat = pc.list_flatten(column) if pa.types.is_list(column.type) else column
    return np.asarray(flat.cast(pa.float64()).to_numpy(), dtype=np.float64)


def counts_of(by_state: Mapping[str, int], reasons: Mapping[tuple[str, str], int]) -> dict[str, Any]:
    """What the section on records shows, of a page on any run with these states."""
    rows = sum(by_state.values())
    sentences = {**states.INGEST_REASONS, **states.REJECT_REASONS, **states.NOT_APPLICABLE_REASONS}
    shown = [("rows", Number("counts.rows", count(rows)))]
    shown += [
        (state.replace("_", " "), Number(f"counts.{state}", count(num), share(num, rows)))
        for state, num in by_state.items()
    ]
    return {
        "headline": shown,
        "states": [(state, state.replace("_", " "), 100 * num / (rows or 1)) for state, num in by_state.items()],
        "reasons": [
            {
                "state": state.replace("_", " "),
                "code": reason,
                "sentence": sentences.get(reason, reason),
                "rows": Number(f"reason.{state}.{reason}", count(num), share(num, rows)),
            }
            for (state, reason), num in reasons.items()
        ],
    }


def render(summary: PredictSummary, provenance: Mapping[str, Any], timings: Mapping[str, Any]) -> str:
    """The page as text."""
    num_scored = summary.states[states.SCORED]
    classes = sorted(summary.classes, key=lambda one: (one.head, -one.predicted, one.channel))
    return render_page(
        "predict_report.html",
        model=str(provenance["model"]["name"]),
        records=counts_of(summary.states, summary.reasons),
        classes=[_class_row(one, num_scored) for one in classes[:MAX_SHOWN]],
        num_more_classes=max(0, len(classes) - MAX_SHOWN),
        histograms=[draw_histogram(one) for one in summary.histograms],
        num_more_columns=summary.num_columns - len(summary.histograms),
        timings=list(entries(timings, "timings")),
        provenance=list(entries(provenance, "provenance")),
    )


def _class_row(one: ClassRows, num_scored: int) -> dict[str, Any]:
    key = f"head.{one.head}.{one.channel}"
    return {
        "head": one.head,
        "channel": one.channel,
        "predicted": Number(f"{key}.predicted", count(one.predicted), share(one.predicted, num_scored)),
        "mean": Number(f"{key}.mean", real(one.mean)),
        "percent": 100 * one.predicted / (num_scored or 1),
    }
