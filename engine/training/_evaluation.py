"""How well outputs fit the truth: figures with bootstrap intervals, over all rows, by class and by group.

What is told follows from the head: softmax tells classes, sigmoid labels that do not exclude each other, anything else
numbers; a head with a class for every position tells those (_position_evaluation.py), one with a class for every pixel
objects (_object_evaluation.py). Every figure is a function of row weights (see engine/scoring/_metrics.py).

Shape letters: N rows, K channels of the head.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.models._info import HeadInfo
from engine.scoring._metrics import (
    Floats,
    Ints,
    Statistic,
    auroc_statistic,
    bootstrap,
    concordance_statistic,
    interval,
    pearson_statistic,
    spearman_statistic,
)
from engine.training import _metrics
from engine.training._class_figures import f1, macro_of, precision, recall, second_of
from engine.training._object_evaluation import JudgedObjects
from engine.training._position_evaluation import JudgedPositions
from engine.training.tasks.pair_regression import is_seen
from schemas import tables

Kind = Literal["classes", "labels", "numbers", "positions", "objects"]
Bools = NDArray[np.bool_]
ALL, CLASS, GROUP, THRESHOLD = "all", "class", "group", "threshold"
# A cell of fewer rows has no figures: they would say more of single rows than of the model.
SMALL_CELL = 5
NUM_QUARTERS = 4
# Columns of whole numbers of which the audit tells quarters, not each value.
QUARTERED = ("length", "num_objects")
# Groups of a column that have intervals: those with most rows. An audit by gene may have tens of thousands.
MOST_INTERVALS = 50


def kind_of(head: HeadInfo) -> Kind:
    """What a head tells."""
    if head.level == "position":
        return "positions"
    if head.level == "pixel":
        return "objects"
    if head.activation == "softmax":
        return "classes"
    return "labels" if head.activation == "sigmoid" else "numbers"


@dataclass(frozen=True)
class Judged:
    """Rows with truth and outputs.

    Attributes:
        head: whose outputs.
        values_NK: as activated.
        truth: (N,) int64 number of the class, or (N, K) float64.
        groups: for each column of the audit, each row's value; None where it has none.
        clusters: rows that share a number are drawn together; None draws single rows.
        ranks_pairs: numbers are of pairs of molecules, whose concordance index is told too.
        censored_at: the number that stands for nothing seen; the index is then told without such rows as well.
    """

    head: HeadInfo
    values_NK: Floats
    truth: NDArray[Any]
    groups: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    clusters: Ints | None = None
    ranks_pairs: bool = False
    censored_at: float | None = None

    @property
    def size(self) -> int:
        """N."""
        return len(self.values_NK)

    @property
    def num_truths(self) -> int:
        """N: a row has one."""
        return self.size

    def num_positive(self) -> Ints | None:
        """(K,) rows of each class or label; None where there is none."""
        return None if self.kind == "numbers" else self.positives().sum(axis=0)

    @property
    def kind(self) -> Kind:
        """What the head tells."""
        return kind_of(self.head)

    def positives(self) -> Bools:
        """(N, K) whether a class or label is true of a row."""
        if self.kind == "classes":
            is_true_NK: Bools = self.truth[:, None] == np.arange(self.values_NK.shape[1])[None, :]
            return is_true_NK
        return np.asarray(self.truth > 0.5)

    def rows(self, chosen_N: Bools) -> Judged:
        """Some of the rows, without their groups."""
        clusters = None if self.clusters is None else np.unique(self.clusters[chosen_N], return_inverse=True)[1]
        return replace(
            self, values_NK=self.values_NK[chosen_N], truth=self.truth[chosen_N], groups={}, clusters=clusters
        )


@dataclass(frozen=True)
class Figure:
    """One number.

    Attributes:
        scope: "all", "class" (one class, label or number of the head), "threshold" (one IoU of objects) or "group".
        column: of a group: the column of the audit; else empty.
        name: of the class, threshold or group; else empty.
        metric: which.
        num: rows it is of.
        num_positive: rows, positions or pixels of the class or label among them, or objects that are matched at the
            threshold; None where there is no such thing.
        value: None where it has none, as an area without a negative.
        low, high: 95% bootstrap interval, None where there is none.
    """

    scope: str
    column: str
    name: str
    metric: str
    num: int
    num_positive: int | None
    value: float | None
    low: float | None
    high: float | None

    @property
    def key(self) -> str:
        """Its name on the page and in tests."""
        place = ALL if self.scope == ALL else f"{self.scope}.{self.name}"
        if self.scope == GROUP:
            place = f"{GROUP}.{self.column}.{self.name}"
        return f"{place}.{self.metric}"


@dataclass(frozen=True)
class Reliability:
    """Rows whose confidence lies in one bin of equal width.

    Attributes:
        num: rows.
        confidence: their mean confidence.
        observed: share of them that are right.
    """

    low: float
    high: float
    num: int
    confidence: float
    observed: float


AnyJudged = Judged | JudgedPositions | JudgedObjects


def overall_statistics(judged: AnyJudged) -> dict[str, Statistic]:
    """Metrics over all classes, labels or numbers together, by name."""
    if not isinstance(judged, Judged):
        return judged.overall()
    if judged.kind == "classes":
        called_N, num = judged.values_NK.argmax(axis=1), judged.values_NK.shape[1]
        by_class = _metrics.class_statistics(judged.truth, called_N, num)
        macro = {
            f"{name}_macro": _of_confusion(judged.truth, called_N, num, macro_of(figure))
            for name, figure in (("precision", precision), ("recall", recall))
        }
        ranked = _metrics.ranking_statistics(judged.values_NK, judged.positives())
        calibration = _metrics.calibration_statistic(*confidence(judged))
        order = ("accuracy", "precision_macro", "recall_macro", "f1_macro", "mcc", "auroc", "auprc")
        found = {**by_class, **macro, **ranked}
        return {**{name: found[name] for name in order}, "calibration_error": calibration}
    each = [channel_statistics(judged, channel) for channel in range(judged.values_NK.shape[1])]
    return {name: _metrics.mean_of([one[name] for one in each]) for name in each[0]}


def channel_statistics(judged: AnyJudged, channel: int) -> dict[str, Statistic]:
    """Metrics of one class against the rest, one label, or one number."""
    if not isinstance(judged, Judged):
        return judged.channel(channel)
    value_N = judged.values_NK[:, channel]
    if judged.kind == "numbers":
        truth_N = np.asarray(judged.truth[:, channel], np.float64)
        return {**_number_statistics(value_N, truth_N), **_pair_statistics(judged, value_N, truth_N)}
    positive_N = judged.positives()[:, channel]
    if judged.kind == "classes":
        called_N = judged.values_NK.argmax(axis=1) == channel
    else:
        called_N = value_N > 0.5
    one_N, said_N = positive_N.astype(np.int64), called_N.astype(np.int64)
    found = {
        name: _of_confusion(one_N, said_N, 2, second_of(figure))
        for name, figure in (("precision", precision), ("recall", recall), ("f1", f1))
    }
    found["auroc"] = auroc_statistic(value_N, positive_N)
    found["auprc"] = _metrics.auprc_statistic(value_N, positive_N)
    if judged.kind == "labels":
        both = _metrics.class_statistics(one_N, said_N, 2)
        found = {"accuracy": both["accuracy"], **found, "mcc": both["mcc"]}
        found["calibration_error"] = _metrics.calibration_statistic(value_N, positive_N)
    return found


def _number_statistics(value_N: Floats, truth_N: Floats) -> dict[str, Statistic]:
    error_N = value_N - truth_N

    def mean(what_N: Floats) -> Statistic:
        return lambda weights_N: float(weights_N @ what_N / weights_N.sum()) if weights_N.sum() else float("nan")

    def explained(weights_N: Floats) -> float:
        centre = float(weights_N @ truth_N / weights_N.sum()) if weights_N.sum() else float("nan")
        spread = float(weights_N @ (truth_N - centre) ** 2)
        return 1 - float(weights_N @ error_N**2) / spread if spread > 0 else float("nan")

    return {
        "pearson": pearson_statistic(value_N, truth_N),
        "spearman": spearman_statistic(value_N, truth_N),
        "r2": explained,
        "mse": mean(error_N**2),
        "mae": mean(np.abs(error_N)),
    }


def _pair_statistics(judged: Judged, value_N: Floats, truth_N: Floats) -> dict[str, Statistic]:
    """The concordance index of pairs."""
    if not judged.ranks_pairs:
        return {}
    found = {"concordance": concordance_statistic(value_N, truth_N)}
    if judged.censored_at is not None:
        seen_N = is_seen(truth_N, judged.censored_at)
        found["concordance_uncensored"] = concordance_statistic(value_N, truth_N, among=seen_N)
    return found


def _of_confusion(truth_N: Ints, called_N: Ints, num: int, figure: Any) -> Statistic:
    return lambda weights_N: figure(_metrics.confusion(truth_N, called_N, num, weights_N))


def confidence(judged: Judged) -> tuple[Floats, Bools]:
    """For the calibration: each answer's probability, and whether it is right; labels count one by one."""
    if judged.kind == "classes":
        return judged.values_NK.max(axis=1), judged.values_NK.argmax(axis=1) == judged.truth
    return judged.values_NK.ravel(), judged.positives().ravel()


def reliability(judged: AnyJudged) -> tuple[Reliability, ...]:
    """The bins that the calibration error sums over, those that hold rows."""
    width = 1 / _metrics.NUM_BINS
    if not isinstance(judged, Judged):
        return tuple(
            Reliability(number * width, (number + 1) * width, num, told, right)
            for number, num, told, right in judged.reliability()
        )
    confidence_N, is_right_N = confidence(judged)
    bin_N = np.clip((confidence_N * _metrics.NUM_BINS).astype(np.int64), 0, _metrics.NUM_BINS - 1)
    found = []
    for number in np.unique(bin_N).tolist():
        inside = bin_N == number
        means = float(confidence_N[inside].mean()), float(is_right_N[inside].mean())
        found.append(Reliability(number * width, (number + 1) * width, int(inside.sum()), *means))
    return tuple(found)


def confusion(judged: AnyJudged) -> Ints:
    """(K, K) rows, positions or pixels, truth in rows and prediction in columns."""
    if not isinstance(judged, Judged):
        return judged.confusion()
    called_N = judged.values_NK.argmax(axis=1)
    return _metrics.confusion(judged.truth, called_N, judged.values_NK.shape[1]).astype(np.int64)


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made: so many samples, drawn with this seed; none where `samples` is 0."""

    samples: int = 1000
    seed: int = 0


def evaluate(judged: AnyJudged, how: Bootstrap) -> list[Figure]:
    """Figures over all rows, by IoU, by class and by group; groups with most rows first, quarters by size."""
    blocks = [_Block(ALL, "", None, overall_statistics(judged))]
    if isinstance(judged, JudgedObjects):
        blocks += [_Block(THRESHOLD, name, *one) for name, one in judged.at_thresholds().items()]
    positives_K = judged.num_positive()
    for channel, name in enumerate(judged.head.channels):
        if len(judged.head.channels) == 1:
            break  # the same figures again
        of_class = None if positives_K is None else int(positives_K[channel])
        blocks.append(_Block(CLASS, name, of_class, channel_statistics(judged, channel)))
    figures = _figures(judged, blocks, how)
    for column, values in judged.groups.items():
        figures += _of_groups(judged, column, values, how)
    return figures


def _of_groups(judged: AnyJudged, column: str, values: Sequence[str | None], how: Bootstrap) -> list[Figure]:
    named = np.array(["" if value is None else value for value in values], dtype=object)
    sizes = Counter(named.tolist())
    figures = []
    ordered = sorted(sizes, key=_least if column in QUARTERED else lambda name: (-sizes[name], name))
    for place, name in enumerate(ordered):
        some = judged.rows(np.asarray(named == name, bool))
        drawn = how if place < MOST_INTERVALS else replace(how, samples=0)
        figures += _figures(some, [_Block(GROUP, name, None, overall_statistics(some), column)], drawn)
    return figures


def _least(name: str) -> int:
    """Of a quarter; rows without a value come first."""
    return int(name.partition(" ")[0].replace(",", "")) if name else -1


@dataclass(frozen=True)
class _Block:
    """Figures that stand together; attributes as Figure has them."""

    scope: str
    name: str
    num_positive: int | None
    statistics: Mapping[str, Statistic]
    column: str = ""


def _figures(judged: AnyJudged, blocks: Sequence[_Block], how: Bootstrap) -> list[Figure]:
    """All figures of the same bootstrap samples: what they share is counted once for each."""
    told = judged.size >= SMALL_CELL
    clusters = np.arange(judged.size) if judged.clusters is None else judged.clusters
    statistics = [one for block in blocks for one in block.statistics.values()]
    once_N = np.ones(judged.size)
    values = [one(once_N) if told else float("nan") for one in statistics]
    drawn_BS = np.full((0, len(statistics)), np.nan)
    # One cluster drawn whole gives the same value each time: that is no interval.
    if told and how.samples and len(np.unique(clusters)) > 1:
        drawn_BS = bootstrap(statistics, clusters, num_samples=how.samples, seed=how.seed)
    names = [(block, metric) for block in blocks for metric in block.statistics]
    found = []
    for (block, metric), value, drawn_B in zip(names, values, drawn_BS.T, strict=True):
        numbers = map(_plain, (value, *interval(drawn_B)))
        where = (block.scope, block.column, block.name)
        found.append(Figure(*where, metric, judged.size, block.num_positive, *numbers))
    return found


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def quarters(lengths_N: Ints) -> list[str]:
    """Each row's quarter of whole numbers such as lengths, as "60 to 80"; equal ones are never parted."""
    if not len(lengths_N):
        return []
    edges = np.unique(np.quantile(lengths_N, np.linspace(0, 1, NUM_QUARTERS + 1)[1:], method="lower"))
    place_N = np.searchsorted(edges, lengths_N)
    names = {}
    for place in np.unique(place_N).tolist():
        inside = lengths_N[place_N == place]
        low, high = int(inside.min()), int(inside.max())
        names[place] = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return [names[place] for place in place_N.tolist()]


def figures_table(figures: Sequence[Figure]) -> pa.Table:
    """Rows of schemas.tables.EVALUATION."""
    names = tables.EVALUATION.names
    columns = [
        pa.array([getattr(one, name) for one in figures], kind)
        for name, kind in zip(names, tables.EVALUATION.types, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=tables.EVALUATION)
