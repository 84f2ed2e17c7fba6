"""The HTML report of an evaluation: one file, no script, nothing loaded from elsewhere.

Every number stands in an element whose `data-key` names its source: `counts.scored`, `all.accuracy.value`,
`class.site.recall.low`, `threshold.0.50.object_f1.value`, `group.contig.chr1.auroc.num`, `confusion.TRUTH.PREDICTED`,
`reliability.3.observed`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.scoring import _svg
from engine.scoring._metrics import roc_curve
from engine.scoring._page import Number, count, entries, real, render_page, share, telling
from engine.scoring._predict_report import counts_of
from engine.training._evaluation import (
    ALL,
    CLASS,
    GROUP,
    QUARTERED,
    SMALL_CELL,
    THRESHOLD,
    AnyJudged,
    Bootstrap,
    Figure,
    Judged,
    Reliability,
)
from engine.training._metrics import NUM_BINS, precision_recall_curve
from engine.training._object_evaluation import JudgedObjects
from engine.training._position_evaluation import JudgedPositions
from engine.training._score_counts import NUM_SCORE_BINS
from schemas import states

MAX_GROUPS = 30
MAX_CONFUSION = 20
_MAX_CURVES = 3
_MAX_SCATTERS = 6
_MAX_POINTS = 3000
_MAX_CURVE_POINTS = 500
METRIC_LABELS = {
    "accuracy": "Accuracy",
    "accuracy_per_sample": "Accuracy, mean over sequences",
    "precision_macro": "Precision (macro)",
    "recall_macro": "Recall (macro)",
    "f1_macro": "F1 (macro)",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "mcc": "MCC",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "calibration_error": "Calibration error",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "r2": "R²",
    "mse": "Mean squared error",
    "mae": "Mean absolute error",
    "topk_accuracy": "Top-k accuracy",
    "concordance": "Concordance index",
    "concordance_uncensored": "Concordance index, uncensored",
    "object_f1": "Object F1",
    "object_precision": "Object precision",
    "object_recall": "Object recall",
    "object_f1_50": "Object F1, IoU 0.5",
    "object_f1_70": "Object F1, IoU 0.7",
    "object_f1_90": "Object F1, IoU 0.9",
    "object_f1_50_per_sample": "Object F1, IoU 0.5, mean over images",
    "object_f1_70_per_sample": "Object F1, IoU 0.7, mean over images",
    "average_precision": "Average precision",
    "dice": "Dice of the foreground",
    "iou": "IoU",
}
# Of each kind: what a channel is called, and what it is counted in.
_NAMES = {
    "classes": "class",
    "labels": "label",
    "numbers": "number",
    "positions": "state",
    "objects": "pixel class",
}
Curve = tuple[Any, Any]
Curves = tuple[str, Curve, Curve]
_TRUTHS = {"positions": "positions", "objects": "pixels"}


@dataclass(frozen=True)
class Page:
    """What the page shows.

    Attributes:
        judged: rows and truth.
        figures, reliability, confusion: of these; see engine/training/_evaluate_job.py.
        reasons: rows of the set by state and reason.
        cautions: what makes the figures look better than they are.
        facts: of the manifest.
        options: how intervals were made.
        drawn: what bootstrap samples are made of.
        noun: what a row is called, in the plural.
    """

    judged: AnyJudged
    figures: Sequence[Figure]
    reliability: Sequence[Reliability]
    confusion: list[list[int]] | None
    reasons: Mapping[tuple[str, str | None], int]
    cautions: Sequence[str]
    facts: Mapping[str, Any]
    options: Bootstrap
    drawn: str
    noun: str = "rows"


def render(page: Page, provenance: Mapping[str, Any], timings: Mapping[str, Any]) -> str:
    """The page as text."""
    judged = page.judged
    by_state = dict.fromkeys(states.STATES, 0)
    for (state, _), num in page.reasons.items():
        by_state[state] += num
    reasons = {(state, reason): num for (state, reason), num in page.reasons.items() if reason is not None}
    ordered = dict(sorted(reasons.items(), key=lambda one: (one[0][0] != states.REJECTED, -one[1], one[0])))
    groups = dict.fromkeys(one.column for one in page.figures if one.scope == GROUP)
    return render_page(
        "evaluation_report.html",
        folder=Path(__file__).parent,
        model=str(page.facts["model"]),
        head=judged.head.name,
        split=page.facts["split"],
        cautions=page.cautions,
        records=counts_of(by_state, ordered),
        overall=[_card(one) for one in page.figures if one.scope == ALL],
        kind=_NAMES[judged.kind],
        noun=page.noun,
        judged=Number("judged", count(judged.size)),
        said={"num_objects": "number of objects", "second_id": "second id"},
        truths=_TRUTHS.get(judged.kind, page.noun),
        classes=_table([one for one in page.figures if one.scope == CLASS], judged.num_truths),
        thresholds=_thresholds(page),
        confusion=_confusion(page),
        drawings=_drawings(page),
        audits=[
            (column, _table([one for one in page.figures if one.scope == GROUP and one.column == column], judged.size))
            for column in groups
        ],
        samples=Number("bootstrap.samples", count(page.options.samples)),
        seed=page.options.seed,
        drawn=page.drawn,
        quartered=QUARTERED,
        small_cell=SMALL_CELL,
        binning={name: f"{error:.1g}" for name, error in judged.binning().items()}
        if isinstance(judged, JudgedPositions)
        else None,
        num_score_bins=count(NUM_SCORE_BINS),
        num_bins=NUM_BINS,
        timings=list(entries(timings, "timings")),
        provenance=list(entries(provenance, "provenance")),
    )


def _thresholds(page: Page) -> dict[str, Any] | None:
    """Objects that are matched at each IoU, as a share of the true ones, and their figures."""
    if not isinstance(page.judged, JudgedObjects):
        return None
    return _table([one for one in page.figures if one.scope == THRESHOLD], page.judged.num_objects())


def _card(one: Figure) -> dict[str, Any]:
    return {"label": METRIC_LABELS[one.metric], **_cell(one)}


def _cell(one: Figure) -> dict[str, Any]:
    ends = [Number(f"{one.key}.{name}", telling(getattr(one, name), 2, beside=one.value)) for name in ("low", "high")]
    return {
        "value": Number(f"{one.key}.value", telling(one.value)),
        "interval": ends if one.low is not None else [],
    }


def _table(figures: Sequence[Figure], whole: int) -> dict[str, Any]:
    """Rows of names with a cell for each metric; the largest first, as far as there is room."""
    metrics = list(dict.fromkeys(one.metric for one in figures))
    names = list(dict.fromkeys(one.name for one in figures))
    cells = {(one.name, one.metric): one for one in figures}
    rows = []
    for name in names[:MAX_GROUPS]:
        first = cells[name, metrics[0]]
        num = first.num if first.num_positive is None else first.num_positive
        key = first.key.removesuffix(f".{first.metric}")
        rows.append(
            {
                "name": name,
                "num": Number(f"{key}.num", count(num), share(num, whole)),
                "cells": [_cell(cells[name, metric]) for metric in metrics],
            }
        )
    return {"heads": [METRIC_LABELS[one] for one in metrics], "rows": rows, "left_out": max(0, len(names) - MAX_GROUPS)}


def _confusion(page: Page) -> dict[str, Any] | None:
    """Counts with the share of their true class, by which they are shaded."""
    names = page.judged.head.channels
    if page.confusion is None or len(names) > MAX_CONFUSION:
        return None
    rows = []
    for truth, counts in zip(names, page.confusion, strict=True):
        whole = sum(counts)
        cells = [
            (
                Number(f"confusion.{truth}.{called}", count(num), share(num, whole)),
                round(100 * num / whole) if whole else 0,
                truth == called,
            )
            for called, num in zip(names, counts, strict=True)
        ]
        rows.append((truth, cells))
    return {"names": names, "rows": rows}


def _drawings(page: Page) -> list[dict[str, Any]]:
    judged = page.judged
    if isinstance(judged, JudgedObjects):
        return [_by_threshold(page)]
    if isinstance(judged, JudgedPositions):
        return [*_drawn_curves(_position_curves(judged)), _reliability(page)]
    if judged.kind == "numbers":
        return _scatters(judged)
    return [*_drawn_curves(_curves(judged)), _reliability(page)]


def _drawing(
    head: str, svg: str, *, legend: Sequence[str] = (), caption: str = "", bins: Sequence[list[Number]] = ()
) -> dict[str, Any]:
    return {"head": head, "svg": svg, "legend": legend, "caption": caption, "bins": bins}


def _by_threshold(page: Page) -> dict[str, Any]:
    """Figures of whole objects over the IoU from which they count as matched."""
    names = ("object_f1", "object_precision", "object_recall")
    found = {(one.metric, one.name): one.value for one in page.figures if one.scope == THRESHOLD}

    def curve(name: str) -> Curve:
        """A figure without a value, such as the precision of a model that tells no object, has no point."""
        told = [(float(place), value) for (metric, place), value in found.items() if metric == name]
        known = np.array([(iou, value) for iou, value in told if value is not None]).reshape(-1, 2)
        return known[:, 0], known[:, 1]

    title = "Figures of objects by the IoU from which they are matched"
    svg = _svg.by_iou([curve(name) for name in names], title=title)
    return _drawing("Objects by IoU", svg, legend=["F1", "precision", "recall"])


def _scatters(judged: Judged) -> list[dict[str, Any]]:
    drawn = np.arange(judged.size)
    if judged.size > _MAX_POINTS:
        drawn = np.sort(np.random.default_rng(0).choice(judged.size, _MAX_POINTS, replace=False))
    found = []
    for place, name in enumerate(judged.head.channels[:_MAX_SCATTERS]):
        svg = _svg.scatter(
            judged.truth[drawn, place],
            judged.values_NK[drawn, place],
            title=f"Predicted against measured {name}",
            x_label="measured",
            y_label="predicted",
            has_diagonal=True,
        )
        caption = "Of points on the dashed line both are equal."
        if len(drawn) < judged.size:
            caption += f" {count(len(drawn))} points are drawn, picked at random."
        found.append(_drawing(name, svg, caption=caption))
    return found


def _curves(judged: Judged) -> list[Curves]:
    """Of the classes or labels with most rows, of two classes the second."""
    names, positive_NK = judged.head.channels, judged.positives()
    chosen = _most(positive_NK.sum(axis=0), judged.size, is_pair=judged.kind == "classes" and len(names) == 2)
    pairs = [(judged.values_NK[:, k], positive_NK[:, k]) for k in chosen]
    return [(names[k], roc_curve(*pair), precision_recall_curve(*pair)) for k, pair in zip(chosen, pairs, strict=True)]


def _position_curves(judged: JudgedPositions) -> list[Curves]:
    """The same of classes of positions, from their counts."""
    names, once_N = judged.head.channels, np.ones(judged.size)
    chosen = _most(judged.num_positive(), judged.num_truths, is_pair=len(names) == 2)
    return [(names[k], *judged.scores[k].pooled(once_N).curves()) for k in chosen]


def _most(sizes_K: Any, whole: int, *, is_pair: bool) -> list[int]:
    able = [k for k in range(len(sizes_K)) if 0 < sizes_K[k] < whole]
    if is_pair:
        able = able[-1:]
    return sorted(sorted(able, key=lambda k: (-sizes_K[k], k))[:_MAX_CURVES])


def _drawn_curves(curves: Sequence[Curves]) -> list[dict[str, Any]]:
    if not curves:
        return []
    names = [name for name, _, _ in curves]
    told = ", ".join(names)
    roc, recall = ([_thinned(*curve[place]) for curve in curves] for place in (1, 2))
    return [
        _drawing("ROC", _svg.roc(roc, title=f"ROC curves of {told}"), legend=names),
        _drawing(
            "Precision and recall",
            _svg.precision_recall(recall, title=f"Precision-recall curves of {told}"),
            legend=names,
        ),
    ]


def _thinned(across: Any, up: Any) -> tuple[Any, Any]:
    """At most so many points, ends kept: more cannot be seen."""
    if len(across) <= _MAX_CURVE_POINTS:
        return across, up
    kept = np.unique(np.linspace(0, len(across) - 1, _MAX_CURVE_POINTS).astype(np.int64))
    return across[kept], up[kept]


def _reliability(page: Page) -> dict[str, Any]:
    bins = [(one.low, one.high, one.confidence, one.observed, one.num) for one in page.reliability]
    rows = [
        [
            Number(f"reliability.{place}.confidence", real(one.confidence)),
            Number(f"reliability.{place}.observed", real(one.observed)),
            Number(f"reliability.{place}.num", count(one.num)),
        ]
        for place, one in enumerate(page.reliability)
    ]
    svg = _svg.reliability(bins, title=f"Reliability in {NUM_BINS} bins of confidence")
    return _drawing("Calibration", svg, bins=rows)
