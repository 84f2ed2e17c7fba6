"""The data card of a set of sequences: counts, classes, lengths, targets, rejects by reason; as JSON and as a page."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from engine.ingest._rules_told import rules_told
from engine.runtime.pages import render_page
from schemas import states

MAX_CLASSES = 1000
MAX_SHOWN = 40
MAX_PLOTS = 12
_MOST_BARS = 40
# Beyond this number of names repeated ones are not counted: they are held in memory.
_MOST_NAMES = 1_000_000
_TEMPLATE = "sequence_card.html"


@dataclass
class _Moments:
    """Count, extremes, mean and variance of finite numbers, by Chan's parallel update (1979)."""

    num: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def add(self, values: npt.NDArray[np.float64]) -> None:
        num = len(values)
        if not num:
            return
        mean = float(values.mean())
        delta, whole = mean - self.mean, self.num + num
        self.squares += float(((values - mean) ** 2).sum()) + delta * delta * self.num * num / whole
        self.mean += delta * num / whole
        self.num = whole
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    def to_json(self) -> dict[str, float | int]:
        deviation = math.sqrt(self.squares / self.num) if self.num else 0.0
        values = {"min": self.low, "max": self.high, "mean": self.mean, "standard_deviation": deviation}
        return {"num": self.num, **({name: round(value, 9) for name, value in values.items()} if self.num else {})}


@dataclass
class Bars:
    """A histogram of a target over its range: int64 (bars,)."""

    heights: npt.NDArray[np.int64]


@dataclass
class Card:
    """Sums over the parts of a set.

    `lengths` counts kept sequences by length; `classes` by label; `groups` by group; `letters` by letter. `label_rows`
    are the names of a labels table that no record has had yet; None where there is no table. `firsts` and `seconds` are
    short digests of the members of pairs.
    """

    records: int = 0
    kept: int = 0
    rejected: int = 0
    letters: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    unlabelled: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    targets: list[_Moments] = field(default_factory=list)
    bars: list[Bars] = field(default_factory=list)
    groups: Counter[str] = field(default_factory=Counter)
    names: set[str] | None = field(default_factory=set)
    repeated_names: int = 0
    label_rows: set[str] | None = None
    contigs: Counter[str] = field(default_factory=Counter)
    firsts: set[bytes] = field(default_factory=set)
    seconds: set[bytes] = field(default_factory=set)
    second_lengths: Counter[int] = field(default_factory=Counter)
    position_labels: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        """Plain values; the same for the same parts."""
        lengths = _histogram(self.lengths)
        named = dict(sorted(self.classes.items()))
        listed = dict(list(named.items())[:MAX_CLASSES])
        return {
            "records": self.records,
            "kept": self.kept,
            "rejected": self.rejected,
            "rejected_by_reason": dict(sorted(self.reasons.items())),
            "letters": dict(sorted(self.letters.items())),
            "length": {**_length_facts(self.lengths), "histogram": lengths},
            "classes": listed,
            "num_classes": len(named),
            "unlabelled": self.unlabelled,
            "targets": [self._target(i) for i in range(len(self.targets))],
            "num_groups": len(self.groups),
            "largest_group": max(self.groups.values(), default=0),
            "repeated_ids": None if self.names is None else self.repeated_names,
            "labels_without_record": None if self.label_rows is None else len(self.label_rows),
            "contigs": dict(sorted(self.contigs.items())[:MAX_CLASSES]),
            "pairs": self._pairs(),
            "position_labels": dict(sorted(self.position_labels.items())),
        }

    def _pairs(self) -> dict[str, Any] | None:
        """How many different members pairs have; None where records are no pairs."""
        if not self.second_lengths:
            return None
        counts = {"num_first": len(self.firsts), "num_second": len(self.seconds)}
        return {**counts, "second_length": _length_facts(self.second_lengths)}

    def _target(self, i: int) -> dict[str, Any]:
        whole = self.targets[i].to_json()
        if i >= len(self.bars) or not self.bars[i].heights.any():
            return whole
        return {**whole, "histogram": self.bars[i].heights.tolist()}


def card_of(
    parts: Callable[[], Iterable[pa.Table]], *, classes: Sequence[str], label_rows: Iterable[str] | None = None
) -> Card:
    """The card of a set.

    Args:
        parts: gives tables of schemas.tables.SEQUENCES; called once more where there are targets to plot.
        classes: declared ones are counted even where none is found.
        label_rows: names in a labels table.
    """
    names = None if label_rows is None else set(label_rows)
    card = Card(classes=Counter(dict.fromkeys(classes, 0)), label_rows=names)
    for table in parts():
        _add(card, table)
    if card.targets:
        for table in parts():
            _add_bars(card, table)
    return card


def _add(card: Card, table: pa.Table) -> None:
    card.records += table.num_rows
    card.reasons.update({reason: num for reason, num in _counts(table["reason"]).items() if reason})
    kept = table.filter(pc.equal(table["state"], states.KEPT))
    card.kept += kept.num_rows
    card.rejected += table.num_rows - kept.num_rows
    _add_names(card, table["id"])
    card.lengths.update({int(length): num for length, num in _counts(kept["length"]).items()})
    card.letters.update(_letters(kept["sequence"]))
    card.position_labels.update(_letters(kept["position_labels"]))
    _add_pairs(card, kept)
    _add_labels(card, kept)
    card.contigs.update({name: num for name, num in _counts(kept["contig"]).items() if name})
    card.groups.update({name: num for name, num in _counts(kept["group"]).items() if name is not None})
    for i, values in enumerate(_targets(kept)):
        while len(card.targets) <= i:
            card.targets.append(_Moments())
        card.targets[i].add(values[np.isfinite(values)])


def _add_pairs(card: Card, kept: pa.Table) -> None:
    if kept["second"].null_count == kept.num_rows:
        return
    lengths = pc.binary_length(kept["second"])
    card.second_lengths.update({int(length): num for length, num in _counts(lengths).items() if length is not None})
    for found, name in ((card.firsts, "sequence"), (card.seconds, "second")):
        texts = pc.unique(kept[name]).to_pylist()
        found.update(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts if text is not None)


def _add_names(card: Card, column: pa.ChunkedArray) -> None:
    names = [name for name in column.to_pylist() if name is not None]
    if card.label_rows is not None:
        card.label_rows.difference_update(names)
    if card.names is not None:
        before = len(card.names)
        card.names.update(names)
        card.repeated_names += len(names) - (len(card.names) - before)
        if len(card.names) > _MOST_NAMES:
            card.names = None


def _add_bars(card: Card, table: pa.Table) -> None:
    kept = table.filter(pc.equal(table["state"], states.KEPT))
    for i, values in enumerate(_targets(kept)[:MAX_PLOTS]):
        whole = card.targets[i]
        while len(card.bars) <= i:
            card.bars.append(Bars(np.zeros(_MOST_BARS, np.int64)))
        finite = values[np.isfinite(values)]
        if whole.high > whole.low:
            places = (finite - whole.low) / (whole.high - whole.low) * _MOST_BARS
            heights = np.bincount(np.clip(places.astype(np.int64), 0, _MOST_BARS - 1), minlength=_MOST_BARS)
            card.bars[i].heights += heights


def _add_labels(card: Card, kept: pa.Table) -> None:
    counts = _counts(kept["label"])
    card.unlabelled += counts.pop(None, 0)
    card.classes.update(counts)


def _counts(column: pa.ChunkedArray) -> dict[Any, int]:
    return {one["values"]: one["counts"] for one in pc.value_counts(column).to_pylist()}


def _letters(column: pa.ChunkedArray) -> dict[str, int]:
    found: Counter[str] = Counter()
    for chunk in column.chunks:
        text = "".join(filter(None, chunk.to_pylist())).encode()
        counts = np.bincount(np.frombuffer(text, np.uint8), minlength=1)
        found.update({chr(code): int(num) for code, num in enumerate(counts) if num})
    return found


def _targets(kept: pa.Table) -> list[npt.NDArray[np.float64]]:
    """One array of numbers for each target, NaN where there is none."""
    if kept["target"].null_count < kept.num_rows:
        return [np.asarray(pc.fill_null(kept["target"], math.nan), np.float64)]
    rows = [row for row in kept["targets"].to_pylist() if row is not None]
    return [np.array(column, np.float64) for column in zip(*rows, strict=True)] if rows else []


def _length_facts(lengths: Mapping[int, int]) -> dict[str, float | int]:
    if not lengths:
        return {}
    values = np.array(sorted(lengths), np.int64)
    counts = np.array([lengths[int(value)] for value in values], np.int64)
    upto = np.cumsum(counts)
    quarter = {name: int(values[np.searchsorted(upto, share * upto[-1])]) for name, share in _QUARTERS.items()}
    return {"min": int(values[0]), **quarter, "max": int(values[-1]), "letters": int((values * counts).sum())}


_QUARTERS = {"lower_quartile": 0.25, "median": 0.5, "upper_quartile": 0.75}


def _histogram(lengths: Mapping[int, int]) -> list[dict[str, int]]:
    """Bars [low, high) of one width, none empty at the ends."""
    if not lengths:
        return []
    low, high = min(lengths), max(lengths)
    width = max(1, math.ceil((high - low + 1) / _MOST_BARS))
    bars = [0] * math.ceil((high - low + 1) / width)
    for length, num in lengths.items():
        bars[(length - low) // width] += num
    return [{"low": low + i * width, "high": low + (i + 1) * width, "num": num} for i, num in enumerate(bars)]


def render(card: Mapping[str, Any], timings: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    """The page as text: one file, no script, nothing loaded from elsewhere."""
    classes = sorted(card["classes"].items(), key=lambda one: (-one[1], one[0]))
    return render_page(
        _TEMPLATE,
        Path(__file__).parent,
        card=card,
        classes=classes[:MAX_SHOWN],
        num_labelled=sum(card["classes"].values()) or 1,
        most_of_a_class=max((num for _, num in classes), default=1) or 1,
        num_more_classes=max(0, card["num_classes"] - MAX_SHOWN),
        letters=sorted(card["letters"].items(), key=lambda one: (-one[1], one[0])),
        positions=sorted(card["position_labels"].items(), key=lambda one: (-one[1], one[0])),
        num_positions=sum(card["position_labels"].values()) or 1,
        num_letters=sum(card["letters"].values()) or 1,
        lengths=[bar["num"] for bar in card["length"]["histogram"]],
        sentences=states.INGEST_REASONS,
        rules=rules_told(card["settings"]),
        margin=card["settings"].get("windows", {}).get("margin_bp", 0),
        timings=timings,
        provenance={name: value for name, value in provenance.items() if value is not None},
    )
