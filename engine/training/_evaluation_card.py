"""What a model's card should say of an evaluation, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.scoring._page import count, telling
from engine.training._evaluation import ALL, CLASS, GROUP, THRESHOLD, AnyJudged, Figure

MAX_GROUPS = 30
HEADS = {
    ("objects", THRESHOLD): "IoU",
    ("objects", CLASS): "pixel class",
    ("positions", CLASS): "state",
}


def card(
    judged: AnyJudged, figures: Sequence[Figure], facts: Mapping[str, Any], *, noun: str, set_digest: str, drawn: str
) -> str:
    """The text.

    Args:
        judged, figures: what is told.
        facts: of the manifest.
        noun: what a row is called, in the plural.
        set_digest: of the labelled set.
        drawn: what bootstrap samples are made of.
    """
    splits = facts["split"]
    rows = f"{count(judged.size)} {noun} of " + (f"the split {', '.join(splits)}" if splits else "the whole set")
    lines = [
        f"# Evaluation of {facts['model']}",
        "",
        "Research use only; not a medical device.",
        "",
        f"Head `{facts['head']}`, {rows}; set {set_digest[:12]}, model {facts['model_digest'][:12]}.",
    ]
    lines += [line for sentence in facts["cautions"] for line in ("", f"Beware: {sentence}.")]
    lines += ["", f"95% bootstrap intervals draw {drawn}."]
    lines += ["", *_table([one for one in figures if one.scope == ALL], "", noun)]
    for scope in (THRESHOLD, CLASS, GROUP):
        columns = dict.fromkeys(one.column for one in figures if one.scope == scope)
        for column in columns:
            some = [one for one in figures if one.scope == scope and one.column == column]
            head = column or HEADS.get((judged.kind, scope), "class")
            lines += ["", f"## By {head}", "", *_table(some, head, noun)]
    return "\n".join(lines) + "\n"


def _table(figures: Sequence[Figure], head: str, noun: str) -> list[str]:
    metrics = list(dict.fromkeys(one.metric for one in figures))
    names = list(dict.fromkeys(one.name for one in figures))
    cells = {(one.name, one.metric): one for one in figures}
    lines = [
        f"| {head or noun} | n | " + " | ".join(metrics) + " |",
        "|---" * (len(metrics) + 2) + "|",
    ]
    for name in names[:MAX_GROUPS]:
        row = [cells[name, metric] for metric in metrics]
        num = row[0].num if row[0].num_positive is None else row[0].num_positive
        label = name.replace("|", "\\|") or ("all" if not head else "none")
        lines.append(f"| {label} | {count(num)} | " + " | ".join(map(_cell, row)) + " |")
    if len(names) > MAX_GROUPS:
        lines += ["", f"and {len(names) - MAX_GROUPS} more in metrics.parquet"]
    return lines


def _cell(one: Figure) -> str:
    if one.low is None:
        return telling(one.value)
    low, high = (telling(end, 2, beside=one.value) for end in (one.low, one.high))
    return f"{telling(one.value)} ({low} to {high})"
