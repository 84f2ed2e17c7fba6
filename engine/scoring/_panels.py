"""Comparison panels: scores of a run beside measured values carried in the input's INFO.

A panel collects only the rows its filter matches, so a run of millions of rows with a panel of a thousand stays small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import InputError
from engine.scoring import _metrics
from schemas.states import SCORED

SEED = 20190117
SMALL_CELL = 5
MAX_SAMPLES = 1000
MIN_SAMPLES = 100
# Rows times samples: keeps the bootstrap of a panel of millions of rows within minutes.
_SAMPLED_ROWS = 20_000_000
_MAX_CURVE = 400

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """Rows of the run with a measured value, and the scores set against it.

    Names in `where`, `truth`, `group` and `cluster` are INFO keys kept in the table, or else names of its columns.

    Attributes:
        title: heading of the panel.
        kind: "signed" (truth is a signed number) or "classes" (truth is one of named values).
        where: name to value; a row takes part where all agree.
        truth: name of the measured value.
        positive: values of truth that count as positive (classes).
        negative: values of truth that count as negative (classes); others are left out and counted.
        scores: columns set side by side; the first is the one the others are compared with.
        flip: for classes, a lower score means positive.
        note: a sentence printed under the title, such as source and licence.
        group: name by whose value the figures are also given apart; none where empty.
        cluster: name whose value marks rows drawn together in the bootstrap; single rows where empty.
        large_change: size of truth from which a signed measured change counts as large, in its own unit.
    """

    title: str
    kind: str
    where: Mapping[str, str]
    truth: str
    scores: tuple[str, ...]
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    flip: bool = False
    note: str = ""
    group: str = ""
    cluster: str = ""
    large_change: float = 10.0

    def __post_init__(self) -> None:
        where = f"panel {self.title!r}"
        if self.kind not in ("signed", "classes"):
            raise InputError(f"kind {self.kind!r} is unknown", where=where, fix="use 'signed' or 'classes'")
        if not self.scores:
            raise InputError("no score column is named", where=where, fix="name at least one in `scores`")
        if self.kind == "classes" and not (self.positive and self.negative):
            raise InputError("a class has no values", where=where, fix="name values in `positive` and `negative`")
        if set(self.positive) & set(self.negative):
            both = ", ".join(sorted(set(self.positive) & set(self.negative)))
            raise InputError(f"{both} is both positive and negative", where=where, fix="keep it in one of the two")
        if self.kind == "signed" and self.flip:
            raise InputError("flip is for panels of kind 'classes'", where=where, fix="leave it out")


@dataclass(frozen=True)
class Figure:
    """One figure of a panel: `score` measured by `metric` within `group` ("" for all rows).

    `score` is "a minus b" for the difference of two scores' figures. Value and interval are NaN where a cell is too
    small or a column is constant. `num_positive` and `num_negative` are 0 for correlations.
    """

    group: str
    score: str
    metric: str
    value: float
    low: float
    high: float
    num: int
    num_positive: int = 0
    num_negative: int = 0


@dataclass(frozen=True)
class PanelResult:
    """What the report shows of one panel.

    Attributes:
        panel: the question.
        num_matched: rows that the filter matches.
        num_not_scored: of these, rows that are not scored.
        num_no_truth: scored rows whose truth is missing, no number, or in neither class.
        num_no_score: rows with a truth where one of the scores is missing or not finite.
        num_repeated: further rows of an allele already taken (it lies in several genes; the first counts).
        num: rows compared.
        num_clusters: clusters among them.
        num_samples: bootstrap samples of the intervals.
        figures: the tidy table.
        truth: (N,) measured values; for classes 1 positive, 0 negative. Not part of the JSON.
        scores: score column to values (N,). Not part of the JSON.
        curves: score column to ROC points (false, true positive rate), thinned. Not part of the JSON.
    """

    panel: Panel
    num_matched: int
    num_not_scored: int
    num_no_truth: int
    num_no_score: int
    num_repeated: int
    num: int
    num_clusters: int
    num_samples: int
    figures: tuple[Figure, ...]
    truth: Floats = field(repr=False, compare=False)
    scores: Mapping[str, Floats] = field(repr=False, compare=False)
    curves: Mapping[str, tuple[Floats, Floats]] = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """All but the single rows, which stay in the data parts."""
        question = {name: getattr(self.panel, name) for name in self.panel.__dataclass_fields__}
        counts = {name: getattr(self, name) for name in self.__dataclass_fields__ if name.startswith("num")}
        figures = [{name: getattr(one, name) for name in one.__dataclass_fields__} for one in self.figures]
        return {"panel": question | {"where": dict(self.panel.where)}, **counts, "seed": SEED, "figures": figures}


@dataclass(frozen=True)
class _Rows:
    """Rows of one panel, columns of equal length."""

    record: npt.NDArray[np.int64]
    alt_index: npt.NDArray[np.int64]
    truth: Floats
    scores: Floats  # (rows, score columns)
    group: npt.NDArray[np.object_]
    cluster: npt.NDArray[np.object_]

    def take(self, index: npt.NDArray[Any]) -> _Rows:
        return _Rows(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def _join(parts: Sequence[_Rows], num_scores: int) -> _Rows:
    none = np.zeros(0)
    start = _Rows(
        none.astype(np.int64), none.astype(np.int64), none, np.zeros((0, num_scores)), *[none.astype(object)] * 2
    )
    names = _Rows.__dataclass_fields__
    return _Rows(*(np.concatenate([getattr(part, name) for part in [start, *parts]]) for name in names))


class PanelCounter:
    """Gathers the rows of one panel over a stream of tables."""

    def __init__(self, panel: Panel) -> None:
        self.panel = panel
        self._parts: list[_Rows] = []
        self._matched = self._not_scored = self._no_truth = self._no_score = 0

    def columns(self, table: pa.Table) -> list[str]:
        """The columns of `table` this panel reads; InputError where one is absent."""
        panel = self.panel
        names = [*panel.where, panel.truth, *([panel.group] if panel.group else []), panel.cluster or "record"]
        absent = [name for name in panel.scores if name not in table.column_names]
        if absent:
            raise InputError(
                f"no score column {absent[0]!r} in the table (it has {', '.join(table.column_names)})",
                where=f"panel {panel.title!r}",
                fix="name one of these in `scores`",
            )
        return [*(self._column(table, name) for name in names), *panel.scores]

    def _column(self, table: pa.Table, name: str) -> str:
        for column in (f"info_{name}", name):
            if column in table.column_names:
                return column
        kept = ", ".join(column[5:] for column in table.column_names if column.startswith("info_")) or "none"
        raise InputError(
            f"no INFO key {name!r} in the table (kept keys: {kept})",
            where=f"panel {self.panel.title!r}",
            fix="keep this INFO key in the table, or leave the panel out",
        )

    def add(self, table: pa.Table) -> None:
        """Take the matching rows of one table."""
        self.columns(table)
        mask = np.ones(table.num_rows, dtype=bool)
        for name, value in self.panel.where.items():
            texts = table[self._column(table, name)].cast(pa.string())
            mask &= pc.fill_null(pc.equal(texts, pa.scalar(value, pa.string())), False).to_numpy()
        if not mask.any():
            return
        matched = table.filter(pa.array(mask))
        scored = matched.filter(pc.equal(matched["state"], SCORED))
        self._matched += matched.num_rows
        self._not_scored += matched.num_rows - scored.num_rows
        self._keep(self._rows(scored))

    def _rows(self, table: pa.Table) -> _Rows:
        panel, size = self.panel, table.num_rows
        truth = self._texts(table, panel.truth)
        values = [_as_class(t, panel) if panel.kind == "classes" else _as_number(t) for t in truth]
        scores = np.stack([_as_floats(table[name]) for name in panel.scores], axis=1)
        return _Rows(
            record=_as_ints(table["record"]),
            alt_index=_as_ints(table["alt_index"]),
            truth=np.array(values, dtype=np.float64),
            scores=scores,
            group=self._texts(table, panel.group) if panel.group else np.full(size, "", dtype=object),
            cluster=self._texts(table, panel.cluster) if panel.cluster else np.full(size, "", dtype=object),
        )

    def _texts(self, table: pa.Table, name: str) -> npt.NDArray[np.object_]:
        column = pc.fill_null(table[self._column(table, name)].cast(pa.string()), "")
        return np.array(column.to_pylist(), dtype=object)

    def _keep(self, rows: _Rows) -> None:
        has_truth = np.isfinite(rows.truth)
        has_scores = np.isfinite(rows.scores).all(axis=1)
        self._no_truth += int((~has_truth).sum())
        self._no_score += int((has_truth & ~has_scores).sum())
        self._parts.append(rows.take(has_truth & has_scores))

    def result(self) -> PanelResult:
        """The finished panel."""
        panel = self.panel
        rows = _join(self._parts, len(panel.scores))
        keys = np.stack([rows.record, rows.alt_index], axis=1)
        first = np.sort(np.unique(keys, axis=0, return_index=True)[1]) if len(keys) else np.zeros(0, dtype=np.int64)
        once = rows.take(first)
        size = len(once.truth)
        clusters = _clusters(once, panel)
        num_samples = int(np.clip(_SAMPLED_ROWS // max(size, 1), MIN_SAMPLES, MAX_SAMPLES))
        return PanelResult(
            panel=panel,
            num_matched=self._matched,
            num_not_scored=self._not_scored,
            num_no_truth=self._no_truth,
            num_no_score=self._no_score,
            num_repeated=len(keys) - size,
            num=size,
            num_clusters=len(np.unique(clusters)),
            num_samples=num_samples,
            figures=tuple(_all_figures(once, clusters, panel, num_samples=num_samples)),
            truth=once.truth,
            scores={name: once.scores[:, i] for i, name in enumerate(panel.scores)},
            curves=_curves(once, panel),
        )


def _as_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _as_class(text: str, panel: Panel) -> float:
    if text in panel.positive:
        return 1.0
    return 0.0 if text in panel.negative else float("nan")


def _as_floats(column: pa.ChunkedArray) -> Floats:
    return np.asarray(pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy(), dtype=np.float64)


def _as_ints(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    return np.asarray(pc.fill_null(column.cast(pa.int64()), 0).to_numpy(), dtype=np.int64)


def _clusters(rows: _Rows, panel: Panel) -> npt.NDArray[np.int64]:
    if not panel.cluster:
        return np.arange(len(rows.truth), dtype=np.int64)
    return np.unique(rows.cluster.astype(str), return_inverse=True)[1].astype(np.int64)


def _curves(rows: _Rows, panel: Panel) -> dict[str, tuple[Floats, Floats]]:
    positive = rows.truth == 1.0
    if panel.kind != "classes" or positive.all() or not positive.any():
        return {}
    curves = {}
    for i, name in enumerate(panel.scores):
        alarms, hits = _metrics.roc_curve(-rows.scores[:, i] if panel.flip else rows.scores[:, i], positive)
        index = np.unique(np.linspace(0, len(hits) - 1, min(len(hits), _MAX_CURVE)).round().astype(int))
        curves[name] = (alarms[index], hits[index])
    return curves


def _all_figures(rows: _Rows, clusters: npt.NDArray[np.int64], panel: Panel, *, num_samples: int) -> list[Figure]:
    figures = _figures(rows, clusters, panel, group="", num_samples=num_samples)
    for group in sorted({str(name) for name in rows.group}) if panel.group else ():
        index = np.flatnonzero(rows.group == group)
        part = _figures(rows.take(index), clusters[index], panel, group=group or "(none)", num_samples=num_samples)
        figures.extend(part)
    return figures


@dataclass(frozen=True)
class _Question:
    score: str
    metric: str
    statistic: _metrics.Statistic
    num: int
    num_positive: int = 0
    num_negative: int = 0

    @property
    def is_small(self) -> bool:
        if self.metric in ("pearson", "spearman"):
            return self.num < SMALL_CELL
        return min(self.num_positive, self.num_negative) < SMALL_CELL


def _ranking(score: str, metric: str, values: Floats, positive: npt.NDArray[np.bool_], *, among: Any) -> _Question:
    num_positive, num_negative = int((positive & among).sum()), int((~positive & among).sum())
    statistic = _metrics.auroc_statistic(values, positive, among)
    return _Question(score, metric, statistic, num_positive + num_negative, num_positive, num_negative)


def _questions(rows: _Rows, panel: Panel, column: int) -> list[_Question]:
    """What is asked of one score column."""
    name, values, truth = panel.scores[column], rows.scores[:, column], rows.truth
    everything = np.ones(len(truth), dtype=bool)
    if panel.kind == "classes":
        return [_ranking(name, "auroc", -values if panel.flip else values, truth == 1.0, among=everything)]
    large = np.abs(truth) >= panel.large_change
    return [
        _Question(name, "pearson", _metrics.pearson_statistic(values, truth), len(truth)),
        _Question(name, "spearman", _metrics.spearman_statistic(values, truth), len(truth)),
        _ranking(name, "drop_auroc", -values, truth <= -panel.large_change, among=everything),
        _ranking(name, "sign_auroc", values, truth > 0, among=large),
    ]


def _figures(
    rows: _Rows, clusters: npt.NDArray[np.int64], panel: Panel, *, group: str, num_samples: int
) -> list[Figure]:
    """Figures of each score within one group; over all rows also the first score's gain on each further one."""
    own = [_questions(rows, panel, column) for column in range(len(panel.scores))]
    flat = [question for questions in own for question in questions]
    codes = np.unique(clusters, return_inverse=True)[1]
    calm = np.array([np.nan if q.is_small else q.statistic(np.ones(len(rows.truth))) for q in flat])
    too_few = len(np.unique(codes)) < SMALL_CELL
    samples_BS = np.full((num_samples, len(flat)), np.nan)
    if not too_few:
        samples_BS = _metrics.bootstrap([q.statistic for q in flat], codes, num_samples=num_samples, seed=SEED)
    figures = [_figure(group, q.score, q, calm[i], samples_BS[:, i]) for i, q in enumerate(flat)]
    width = len(own[0])
    for i in range(width, len(flat)) if not group else ():
        first = i % width
        label = f"{flat[first].score} minus {flat[i].score}"
        figures.append(_figure(group, label, flat[i], calm[first] - calm[i], samples_BS[:, first] - samples_BS[:, i]))
    return figures


def _figure(group: str, score: str, question: _Question, value: float, samples_B: Floats) -> Figure:
    low, high = _metrics.interval(samples_B) if np.isfinite(value) else (float("nan"), float("nan"))
    return Figure(
        group=group,
        score=score,
        metric=question.metric,
        value=float(value),
        low=low,
        high=high,
        num=question.num,
        num_positive=question.num_positive,
        num_negative=question.num_negative,
    )
