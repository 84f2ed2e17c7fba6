"""Sets of sequences: rows to shards, partings by group, and figures from outputs.parquet.

Shape letters: N rows, K outputs.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.accuracy_sets._bench import QUIET, Bench, Figure, Prepared, Wanted
from benchmarks.accuracy_sets._floors import Floor, dna_features, logistic
from engine.io.parquet import read_table, write_table
from engine.scoring._metrics import Statistic, pearson_statistic
from engine.training import _metrics
from engine.training._sequence_set import open_set
from jobs import _spec, ingest_sequences
from schemas import tables

BUCKETS = 10
PARTINGS = 5
LINEAR = logistic(dna_features)


@dataclass(frozen=True)
class Row:
    """A sequence with its truth.

    Attributes:
        sequence: letters.
        truth: label or number, as text.
        group: what must not be parted.
        part: "train" or "test" where the set says so; "" leaves it to the parting.
        panel: which figure the row belongs to.
    """

    sequence: str
    truth: str
    group: str
    part: str = ""
    panel: str = ""


@dataclass(frozen=True)
class SequenceSet:
    """Attributes:
    rows: reads the set below the data folder.
    metric: "accuracy", "f1_macro", "mcc", "auroc" or "pearson" (truth is then a number).
    panels: name of each figure to what it is held against.
    floor: the simple model.
    alphabet: "dna" or "protein".
    validated: of the ten parts of the rows that are not parted already, how many choose the epoch: 1, or 0.5.
    """

    rows: Callable[[Path], Iterable[Row]]
    metric: str
    panels: Mapping[str, Wanted]
    floor: Floor = LINEAR
    alphabet: str = "dna"
    validated: float = 1

    def bench(self, name: str, *, rounds: int = 1, larger: bool = False) -> Bench:
        """As benchmarks/accuracy.py takes it."""
        return Bench(name, partial(PreparedSequences, self), rounds, larger)


@dataclass(frozen=True)
class _Tested:
    """Rows with what was told of them by who had not seen them."""

    values_NK: Any
    floor_NK: Any
    truth_N: Any
    group_N: Any
    panel_N: Any

    def of(self, panel: str) -> _Tested:
        """Those of one panel."""
        mine_N = self.panel_N == panel
        arrays = (self.values_NK, self.floor_NK, self.truth_N, self.group_N, self.panel_N)
        return _Tested(*(array[mine_N] for array in arrays))


class PreparedSequences(Prepared):
    """The rows ingested; a record is a row's number."""

    def __init__(self, given: SequenceSet, data: Path, work: Path) -> None:
        self.given, self.folder = given, work / "set"
        self.rows = list(given.rows(data))
        self.groups = groups_of(self.rows)
        work.mkdir(parents=True, exist_ok=True)
        column = "target" if given.metric == "pearson" else "label"
        with (work / "rows.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["id", "sequence", column, "group"])
            for number, (row, group) in enumerate(zip(self.rows, self.groups, strict=True)):
                writer.writerow([number, row.sequence, row.truth, group])
        source: dict[str, Any] = {"path": str(work / "rows.csv")}
        if column == "target":
            source["targets"] = ["target"]
        cleaning = {"duplicates": "keep", "max_ambiguous_fraction": 1.0, "max_invalid_fraction": 0.1}
        values = {
            "input": source,
            "cleaning": {**cleaning, "alphabet": given.alphabet},
            "execution": {"workers": 1, "records_per_shard": 4096},
            "output": str(self.folder),
        }
        _, spec = _spec.build(_spec.Source(values, "benchmarks/accuracy.py", {}), job="ingest_sequences")
        ingest_sequences.run(spec, QUIET)  # type: ignore[arg-type]

    def splits(self, number: int) -> list[str]:
        """ "train", "validation" or "test" of each row."""
        pairs = zip(self.rows, self.groups, strict=True)
        return [split_of(group, row.part, number, validated=self.given.validated) for row, group in pairs]

    def write_split(self, number: int, path: Path) -> None:
        """See Prepared."""
        first: dict[str, int] = {}
        made = [
            {"record": record, "id": str(record), "split": split, "unit": first.setdefault(group, record)}
            for record, (split, group) in enumerate(zip(self.splits(number), self.groups, strict=True))
        ]
        table = pa.Table.from_pylist(made, tables.SPLITS)
        facts = {"method": "sha256 of the group", "seed": str(number), "data_digest": open_set(str(self.folder)).digest}
        write_table(table, path, schema_name="splits", version=tables.SPLITS_VERSION, metadata=facts)

    def figures(self, runs: Sequence[Path]) -> Iterator[Figure]:
        """See Prepared. Where the groups were drawn several times, the mean over the draws comes first, then each."""
        draws = [self._tested(runs[begin : begin + PARTINGS], begin) for begin in range(0, len(runs), PARTINGS)]
        for panel, wanted in self.given.panels.items():
            mine = [tested.of(panel) for tested in draws]
            if len(draws) > 1:
                yield self._figure(f"{panel} mean of {len(draws)} draws".strip(), mine, wanted)
            for number, tested in enumerate(mine):
                named = f"{panel} draw {number + 1}".strip() if len(draws) > 1 else panel
                yield self._figure(named, [tested], wanted)

    def _tested(self, runs: Sequence[Path], first: int) -> _Tested:
        """Of the partings of a draw, whose first has that number."""
        record_N, values_NK, truth_N = outputs_of([run / "outputs.parquet" for run in runs], "test")
        order_N = np.argsort(record_N)
        floors: dict[int, Any] = {}
        for number in range(first, first + len(runs)):
            floors |= self.floor_of(number)
        record_N = record_N[order_N]
        return _Tested(
            values_NK[order_N],
            np.array([floors[record] for record in record_N.tolist()]),
            truth_N[order_N],
            np.array([self.groups[record] for record in record_N]),
            np.array([self.rows[record].panel for record in record_N]),
        )

    def _figure(self, name: str, draws: Sequence[_Tested], wanted: Wanted) -> Figure:
        """Over the same rows, tested once in each draw."""
        metric = self.given.metric
        both = {
            "ours": mean_of([statistic_of(metric, one.values_NK, one.truth_N) for one in draws]),
            "floor": mean_of([statistic_of(metric, one.floor_NK, one.truth_N) for one in draws]),
        }
        num_rows = len(draws[0].truth_N)
        clusters_N = np.unique(draws[0].group_N, return_inverse=True)[1]
        made = _metrics.with_intervals(both, num_rows, clusters=clusters_N)
        ours, floor = made["ours"], made["floor"]["value"]
        return Figure(name, metric, num_rows, ours["value"], ours["low"], ours["high"], floor, wanted)

    def floor_of(self, number: int) -> dict[int, Any]:
        """What the simple model, trained on every other row, gives for each tested row of a parting."""
        tested_N = np.array([split == "test" for split in self.splits(number)])
        is_number = self.given.metric == "pearson"
        truth_N = np.array([float(row.truth) if is_number else row.truth for row in self.rows])
        made_NK = self.given.floor([row.sequence for row in self.rows], truth_N, tested_N)
        return dict(zip(np.flatnonzero(tested_N).tolist(), made_NK, strict=True))


def read_csv(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a table with a header, plain or gzip."""
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    yield from csv.DictReader(text.decode().splitlines())


def groups_of(rows: Sequence[Row]) -> list[str]:
    """One name for rows that share a group or a sequence, also by way of others."""
    parent: dict[str, str] = {}

    def top(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for row in rows:
        one, other = sorted((top(f"group {row.group}"), top(f"sequence {row.sequence}")))
        parent[other] = one
    return [top(f"group {row.group}") for row in rows]


def split_of(group: str, part: str, number: int, *, validated: float = 1) -> str:
    """By SHA-256 of the group: 20% of what is not parted already are tested, and 10%, or half of that, validated on.

    Of five partings that follow one another each row is tested in one; the next five draw the groups anew.
    """
    draw, parting = divmod(number, PARTINGS)
    key = f"{draw} {group}" if draw else group
    rest, bucket = divmod(int(hashlib.sha256(key.encode()).hexdigest(), 16), BUCKETS)
    if part == "test" or (part == "" and bucket in (2 * parting, 2 * parting + 1)):
        return "test"
    is_validated = bucket == (2 * parting + 2) % BUCKETS and rest % BUCKETS < validated * BUCKETS
    return "validation" if is_validated else "train"


def mean_of(statistics: Sequence[Statistic]) -> Statistic:
    """The mean of some figures, as a function of row weights."""
    return lambda weights_N: float(np.mean([one(weights_N) for one in statistics]))


def statistic_of(metric: str, values_NK: Any, truth_N: Any) -> Any:
    """The metric as a function of row weights."""
    if metric == "pearson":
        return pearson_statistic(values_NK[:, 0], truth_N)
    if metric == "auroc":
        return _metrics.ranking_statistics(values_NK, np.stack([truth_N == 0, truth_N == 1], axis=1))["auroc"]
    called_N = values_NK.argmax(axis=1)
    return _metrics.class_statistics(truth_N.astype(np.int64), called_N, values_NK.shape[1])[metric]


def outputs_of(outputs: Sequence[Path], split: str) -> tuple[Any, Any, Any]:
    """Record (N,), values (N, K) and truth (N,) of a split over all partings."""
    found = [table.filter(pc.equal(table["split"], split)) for table in map(read_table, outputs)]
    whole = pa.concat_tables(found)
    values_NK = np.array(whole["values"].to_pylist())
    return whole["record"].to_numpy(), values_NK, np.array([one[0] for one in whole["target"].to_pylist()])
