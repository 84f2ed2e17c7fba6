"""The HTML report of a finished variant-scoring run: one file, no script, nothing loaded from elsewhere.

Every number on the page stands in an element whose `data-key` names where it comes from (`counts.rows`,
`contig.chr20.scored`, `panel.0.all.pearson.inclusion_change`, ...), so a test can recompute each from the parts.
Sample names are neither read nor shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engine.scoring import _svg
from engine.scoring._page import Number, count, entries, real, render_page, share
from engine.scoring._panels import SEED, SMALL_CELL, Figure, Panel, PanelResult
from engine.scoring._variant_summary import NUM_CONTIGS, NUM_TOP, Histogram, Summary, TopVariant, summarise

__all__ = ["Panel", "Summary", "render", "summarise"]

_TEMPLATE = "variant_report.html"
_MAX_POINTS = 3000
_MAX_ALLELE = 14
_BARS_PER_SIDE = 32

SCORE_LABELS = {
    "ds_max": "largest splice change",
    "ds_ag": "acceptor gain",
    "ds_al": "acceptor loss",
    "ds_dg": "donor gain",
    "ds_dl": "donor loss",
    "acceptor_logit_change": "acceptor, log-odds change",
    "donor_logit_change": "donor, log-odds change",
    "pwm_change": "position weight matrix change",
    "hexamer_change": "hexamer change",
    "inclusion_change": "exon inclusion change",
    "psi_change": "PSI change given reference PSI",
}
# What the inclusion change is made of: shown as distributions, but beside it no columns of the list of variants.
_PARTS_OF = {
    "inclusion_change": ("acceptor_logit_change", "donor_logit_change", "pwm_change", "hexamer_change"),
}
_METRIC_LABELS = {
    "pearson": "Pearson",
    "spearman": "Spearman",
    "drop_auroc": "Drop AUROC",
    "sign_auroc": "Sign AUROC",
    "auroc": "AUROC",
}


def render(summary: Summary, provenance: Mapping[str, Any], timings: Mapping[str, Any]) -> str:
    """The page as text.

    Args:
        summary: of `summarise`.
        provenance: plain values, mappings and lists, such as result_key, model, reference, input, genes, versions,
            command. Keys that name samples are left out.
        timings: plain values; keys end in their unit (wall_s, cpu_s, records_per_s, peak_bytes).
    """
    listed = _listed([one.column for one in summary.histograms])
    return render_page(
        _TEMPLATE,
        model=_model_name(provenance),
        summary=summary,
        headline=_headline(summary),
        states=_states(summary),
        reasons=_reasons(summary),
        flags=[(one.flag, Number(f"flag.{one.flag}", count(one.rows))) for one in summary.flags],
        histograms=[draw_histogram(one) for one in summary.histograms],
        ranking=_label(summary.histograms[0].column),
        score_labels=[_heading(name) for name in listed],
        top_genes=[_top(one, f"gene.{one.gene_id}", listed) for one in summary.top_genes],
        top_variants=[_top(one, f"variant.{one.record}.{one.alt_index}", listed) for one in summary.top_variants],
        num_genes=Number("counts.genes", count(summary.num_genes)),
        num_top=NUM_TOP,
        panels=[_panel(i, one) for i, one in enumerate(summary.panels)],
        contigs=_contigs(summary),
        num_contigs=Number("counts.contigs", count(summary.num_contigs)),
        timings=list(entries(timings, "timings")),
        provenance=list(entries(provenance, "provenance")),
    )


def _label(column: str) -> str:
    return SCORE_LABELS.get(column, column)


def _heading(column: str) -> str:
    label = _label(column)
    return label if label == column else label[0].upper() + label[1:]


def _model_name(provenance: Mapping[str, Any]) -> str:
    model = provenance.get("model") or ""
    return str(model.get("name", "") if isinstance(model, Mapping) else model)


def _headline(summary: Summary) -> list[tuple[str, Number]]:
    names = ("records", "rows", "scored", "not_applicable", "rejected")
    shares = {name: share(getattr(summary, name), summary.rows) for name in names[2:]}
    return [
        (name.replace("_", " "), Number(f"counts.{name}", count(getattr(summary, name)), shares.get(name, "")))
        for name in names
    ]


def _states(summary: Summary) -> list[tuple[str, str, float]]:
    """(state, its words, per cent of rows) for the bar under the headline."""
    names = ("scored", "not_applicable", "rejected")
    whole = summary.rows or 1
    return [(name, name.replace("_", " "), 100 * getattr(summary, name) / whole) for name in names]


def _reasons(summary: Summary) -> list[dict[str, Any]]:
    return [
        {
            "state": one.state.replace("_", " "),
            "code": one.reason or "(none)",
            "sentence": one.sentence,
            "rows": Number(f"reason.{one.state}.{one.reason}", count(one.rows), share(one.rows, summary.rows)),
        }
        for one in summary.reasons
    ]


def _contigs(summary: Summary) -> list[tuple[str, list[Number]]]:
    rows = [(one.contig or "(none)", f"contig.{one.contig}", one) for one in summary.contigs]
    if summary.num_contigs > NUM_CONTIGS:
        rest = count(summary.num_contigs - NUM_CONTIGS)
        rows.append((f"{rest} further contigs", "other_contigs", summary.other_contigs))
    names = ("rows", "scored", "not_applicable", "rejected")
    return [(text, [Number(f"{key}.{n}", count(getattr(one, n))) for n in names]) for text, key, one in rows]


def bars(histogram: Histogram) -> list[_svg.Bar]:
    """Bins to draw, from the lowest used to the highest: pairs merged until a side has at most 32.

    Changes in probability (`ds_` columns) keep one axis, 0 to 1 in 32 bins, so that they can be compared by eye.
    """
    sides = [list(histogram.positive), list(histogram.negative)]
    width = histogram.width
    is_share = histogram.column.startswith("ds_") and histogram.high <= 1 and histogram.low >= 0
    while width * _BARS_PER_SIDE < 1 if is_share else max(_used(side) for side in sides) > _BARS_PER_SIDE:
        sides = [[sum(side[i : i + 2]) for i in range(0, len(side), 2)] for side in sides]
        width *= 2
    up, down = (_used(side) for side in sides)
    up = round(1 / width) if is_share else up
    upper = [*sides[0], *[0] * up][:up]
    drawn = [_svg.Bar(-(i + 1) * width, -i * width, sides[1][i]) for i in reversed(range(down))]
    drawn.append(_svg.Bar(0.0, 0.0, histogram.zero))
    return [*drawn, *(_svg.Bar(i * width, (i + 1) * width, upper[i]) for i in range(up))]


def _used(side: Sequence[int]) -> int:
    return max((i + 1 for i, one in enumerate(side) if one), default=0)


def draw_histogram(histogram: Histogram) -> dict[str, Any]:
    """The drawing of a column's values and its facts."""
    key = f"histogram.{histogram.column}"
    label = _label(histogram.column)
    title = (
        f"Histogram of {label}: {count(histogram.num)} values from {real(histogram.low)} to {real(histogram.high)}, "
        f"{count(histogram.zero)} of them exactly 0"
    )
    return {
        "column": histogram.column,
        "label": _heading(histogram.column),
        "svg": _svg.histogram(bars(histogram), title=title, x_label=label) if histogram.num else "",
        "facts": [
            ("values", Number(f"{key}.num", count(histogram.num))),
            ("exactly 0", Number(f"{key}.zero", count(histogram.zero))),
            ("lowest", Number(f"{key}.low", real(histogram.low))),
            ("highest", Number(f"{key}.high", real(histogram.high))),
            ("without a number", Number(f"{key}.no_number", count(histogram.no_number))),
        ],
    }


def _allele(text: str) -> str:
    return text if len(text) <= _MAX_ALLELE else f"{text[: _MAX_ALLELE - 4]}\u2026 ({len(text)} bases)"


def _listed(columns: Sequence[str]) -> list[str]:
    """Score columns of the list of variants, which has room for the whole but not for its parts."""
    left_out = {part for whole, parts in _PARTS_OF.items() if whole in columns for part in parts}
    return [name for name in columns if name not in left_out]


def _top(one: TopVariant, key: str, columns: Sequence[str]) -> dict[str, Any]:
    place = f"{one.contig}:{one.start + 1} {_allele(one.ref)}>{_allele(one.alt)}"
    return {
        "gene": one.gene_symbol or one.gene_id,
        # Annotations in SpliceAI's format have one name for all three.
        "gene_id": one.gene_id if one.gene_symbol not in ("", one.gene_id) else "",
        "place": Number(f"{key}.place", place),
        "id": one.id if one.id not in ("", ".") else "",
        "transcript": one.transcript_id if one.transcript_id not in (one.gene_symbol, one.gene_id) else "",
        "scores": [Number(f"{key}.{n}", real(one.values[n]), _offset(one, n)) for n in columns],
        "gene_rows": Number(f"{key}.gene_rows", count(one.gene_rows)),
    }


def _offset(one: TopVariant, column: str) -> str:
    if column not in one.offsets:
        return ""
    offset = one.offsets[column]
    return f"{offset:+d} bp".replace("-", "\u2212") if offset else "0 bp"


def _panel(number: int, result: PanelResult) -> dict[str, Any]:
    panel, key = result.panel, f"panel.{number}"
    names = ("num_matched", "num_not_scored", "num_no_truth", "num_no_score", "num_repeated", "num")
    words = ("rows match", "not scored", "no measured value", "no score", "same allele again", "compared")
    drawn = _drawn(result)
    return {
        "title": panel.title,
        "note": panel.note,
        "kind": panel.kind,
        "large_change": _svg.number(panel.large_change),
        "counts": [
            (word, Number(f"{key}.{name}", count(getattr(result, name))))
            for word, name in zip(words, names, strict=True)
        ],
        "drawn": Number(f"{key}.drawn", count(len(drawn))) if len(drawn) < result.num else None,
        "drawings": _signed_drawings(result, drawn) if panel.kind == "signed" else _class_drawings(result, drawn),
        "table": _panel_table(result, key),
        "samples": Number(f"{key}.num_samples", count(result.num_samples)),
        "clusters": Number(f"{key}.num_clusters", count(result.num_clusters)),
        "cluster": panel.cluster,
        "seed": SEED,
        "group": panel.group,
        "has_small": any(not math.isfinite(one.value) for one in result.figures),
        "small_cell": SMALL_CELL,
    }


def _drawn(result: PanelResult) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Rows to draw: all, or a sample that is always the same."""
    if result.num <= _MAX_POINTS:
        return np.arange(result.num)
    return np.sort(np.random.default_rng(SEED).choice(result.num, _MAX_POINTS, replace=False))


def _signed_drawings(result: PanelResult, drawn: np.ndarray[Any, np.dtype[np.int64]]) -> list[dict[str, Any]]:
    if result.num == 0:
        return []
    drawings = []
    for name, values in result.scores.items():
        figures = {one.metric: one for one in result.figures if one.score == name and not one.group}
        caption = f"Pearson {real(figures['pearson'].value)}, Spearman {real(figures['spearman'].value)}"
        title = f"Scatter of {_label(name)} against measured {result.panel.truth}: {caption}"
        svg = _svg.scatter(
            result.truth[drawn],
            values[drawn],
            title=title,
            x_label=f"measured: {result.panel.truth}",
            y_label=_label(name),
        )
        drawings.append({"svg": svg, "head": _heading(name), "caption": "", "legend": []})
    return drawings


def _class_drawings(result: PanelResult, drawn: np.ndarray[Any, np.dtype[np.int64]]) -> list[dict[str, Any]]:
    if not result.curves:
        return []
    panel = result.panel
    name = panel.scores[0]
    truth, values = result.truth[drawn], result.scores[name][drawn]
    sets = [
        (f"{', '.join(words)} ({count(int((result.truth == side).sum()))})", values[truth == side])
        for words, side in ((panel.positive, 1.0), (panel.negative, 0.0))
    ]
    figures = {one.score: one for one in result.figures if one.metric == "auroc" and not one.group}
    strips = _svg.strips(
        sets, title=f"{_label(name)} of the two classes, medians marked, {_sides(panel)}", x_label=_label(name)
    )
    areas = "; ".join(f"{_label(n)} {real(figures[n].value)}" for n in result.curves)
    roc = _svg.roc(list(result.curves.values()), title=f"ROC curves, area: {areas}")
    legend = [_heading(n) for n in result.curves]
    return [
        {"svg": strips, "head": _heading(name), "caption": "The line marks the median.", "legend": []},
        {"svg": roc, "head": "ROC", "caption": _sides(panel), "legend": legend},
    ]


def _sides(panel: Panel) -> str:
    return f"Positive: {', '.join(panel.positive)}; {'lower' if panel.flip else 'higher'} scores rank as positive."


def _panel_table(result: PanelResult, key: str) -> dict[str, Any]:
    """Rows (group, score), one cell per metric: value, interval, cell sizes."""
    metrics = list(dict.fromkeys(one.metric for one in result.figures))
    rows: dict[tuple[str, str], dict[str, Figure]] = {}
    for one in result.figures:
        rows.setdefault((one.group, one.score), {})[one.metric] = one
    return {
        "heads": [_METRIC_LABELS[metric] for metric in metrics],
        "groups": [
            (group or "all", [_table_row(score, rows[name, score], key) for name, score in rows if name == group])
            for group in dict.fromkeys(group for group, _ in rows)
        ],
    }


def _table_row(score: str, figures: Mapping[str, Figure], key: str) -> dict[str, Any]:
    parts = score.split(" minus ")
    words = _heading(parts[0]) if len(parts) == 1 else f"Gain of the first over {_label(parts[1])}"
    return {"score": words, "is_gain": len(parts) > 1, "cells": [_cell(one, key) for one in figures.values()]}


def _cell(one: Figure, key: str) -> dict[str, Any]:
    base = f"{key}.{one.group or 'all'}.{one.metric}.{one.score}"
    has_interval = math.isfinite(one.low)
    is_ranking = one.num_positive + one.num_negative > 0 or "auroc" in one.metric
    sizes = [Number(f"{base}.num", count(one.num))]
    if is_ranking:
        sizes = [Number(f"{base}.{n}", count(getattr(one, n))) for n in ("num_positive", "num_negative")]
    return {
        "value": Number(f"{base}.value", real(one.value)),
        "interval": [Number(f"{base}.{side}", real(getattr(one, side), 2)) for side in ("low", "high")]
        if has_interval
        else [],
        "sizes": [] if " minus " in one.score else sizes,
    }
