"""What the committed recipes reach on real sets, beside published figures and a simple floor.

    python -m benchmarks.accuracy --data FOLDER [--work accuracy-work] [--only NAME,NAME] [--threads 1]

Each set goes through the jobs a user would run: ingest_sequences makes shards, rows are parted by groups as the set's
SOURCE.md says, and train_model trains the recipe of benchmarks/recipes. The figures are those of the test rows, which
neither training nor the choice of the epoch has seen. A small set is parted several times, so that every row is tested
once; its figure is over all of them. Running it again goes on where it stopped.

Intervals are 95% bootstrap intervals over rows. Published figures are those of SOURCE.md, on other held-out rows of the
same sets. The floor is ours, on the same rows as the model: ridge regression on one-hot letters and counts of 5-mers.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[1]))  # also as `python benchmarks/accuracy.py`

from engine.io.parquet import read_table, write_table
from engine.runtime.run import RunContext
from engine.scoring._metrics import pearson_statistic
from engine.training import _metrics
from engine.training._sequence_set import open_set
from jobs import _spec, ingest_sequences, train_model
from schemas import tables

RECIPES = Path(__file__).parent / "recipes"
BUCKETS, RIDGE = 10, 300.0
CODES = {letter: code for code, letter in enumerate("ACGT")}
QUIET = RunContext(progress="none")


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
class Bench:
    """Attributes:
    name: of the recipe.
    rows: reads the set below the data folder.
    metric: "accuracy", "mcc", "auroc" or "pearson".
    panels: name of each figure to what is published.
    rounds: how often the set is parted, each time with other test rows; 1 to 5.
    """

    name: str
    rows: Callable[[Path], Iterable[Row]]
    metric: str
    panels: Mapping[str, str]
    rounds: int = 1


def uci_splice(data: Path) -> Iterator[Row]:
    """Groups: GenBank locus, and equal sequences."""
    for line in (data / "uci-splice" / "splice.train.data").read_text().splitlines():
        label, name, sequence = (word.strip() for word in line.split(","))
        yield Row(sequence, label, name.partition("-")[0])


def ecoli_promoters(data: Path) -> Iterator[Row]:
    """Groups: equal sequences."""
    for row in _table(data / "ecoli-promoters-81" / "train.csv"):
        yield Row(row["sequence"], row["label"], row["sequence"])


def gue(task: str) -> Callable[[Path], Iterator[Row]]:
    """Tested on the dev file; training rows that stand in it are left out."""

    def rows(data: Path) -> Iterator[Row]:
        tested = list(_table(data / "gue" / f"{task}__dev.csv.gz"))
        known = {row["sequence"] for row in tested}
        for row in tested:
            yield Row(row["sequence"], row["label"], row["sequence"], "test")
        for row in _table(data / "gue" / f"{task}__train.csv.gz"):
            if row["sequence"] not in known:
                yield Row(row["sequence"], row["label"], row["sequence"], "train")

    return rows


def yeast_defined(data: Path) -> Iterator[Row]:
    """Random and native promoters in defined medium. Groups: gene of a native promoter, equal sequences."""
    folder = data / "yeast-gpra"
    for row in _table(folder / "random_defined.train.csv.gz"):
        yield Row(row["sequence"], row["expression"], row["sequence"], panel="random_defined")
    for row in _table(folder / "native_defined.train.csv.gz"):
        yield Row(row["sequence"], row["expression"], row["nativeGene"], panel="native_defined")


def _table(path: Path) -> Iterator[dict[str, str]]:
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    yield from csv.DictReader(text.decode().splitlines())


BENCHES = (
    Bench("uci-splice", uci_splice, "accuracy", {"": "0.959 (StatLog, radial basis)"}, 5),
    Bench("ecoli-promoters-81", ecoli_promoters, "mcc", {"": "near 0.76"}, 5),
    Bench("gue-tf_0", gue("tf__0"), "auroc", {"": "0.880 (frozen embeddings)"}),
    Bench("gue-prom_core_all", gue("prom__prom_core_all"), "auroc", {"": "0.875 (frozen embeddings)"}),
    Bench(
        "yeast-gpra",
        yeast_defined,
        "pearson",
        {"random_defined": "0.971 (trained on millions)", "native_defined": "0.944 (trained on millions)"},
    ),
)


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


def split_of(group: str, part: str, number: int) -> str:
    """By SHA-256 of the group: 20% of what is not parted already are tested, and 10% validated on."""
    bucket = int(hashlib.sha256(group.encode()).hexdigest(), 16) % BUCKETS
    if part == "test" or (part == "" and bucket in (2 * number, 2 * number + 1)):
        return "test"
    return "validation" if bucket == (2 * number + 2) % BUCKETS else "train"


def make_set(bench: Bench, data: Path, work: Path) -> tuple[Path, list[Row]]:
    """Ingest the rows; the record is the row's number."""
    rows = list(bench.rows(data))
    work.mkdir(parents=True, exist_ok=True)
    column = "target" if bench.metric == "pearson" else "label"
    with (work / "rows.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "sequence", column, "group"])
        for number, (row, group) in enumerate(zip(rows, groups_of(rows), strict=True)):
            writer.writerow([number, row.sequence, row.truth, group])
    given: dict[str, Any] = {"path": str(work / "rows.csv")}
    if column == "target":
        given["targets"] = ["target"]
    cleaning = {"duplicates": "keep", "max_ambiguous_fraction": 1.0, "max_invalid_fraction": 0.1}
    execution = {"workers": 1, "records_per_shard": 4096}
    values = {"input": given, "cleaning": cleaning, "execution": execution, "output": str(work / "set")}
    _, spec = _spec.build(_spec.Source(values, "benchmarks/accuracy.py", {}), job="ingest_sequences")
    ingest_sequences.run(spec, QUIET)  # type: ignore[arg-type]
    return work / "set", rows


def write_split(rows: Sequence[Row], set_folder: Path, number: int, path: Path) -> None:
    """The split file of one parting."""
    made = [
        {"record": record, "id": str(record), "split": split_of(group, row.part, number)}
        for record, (row, group) in enumerate(zip(rows, groups_of(rows), strict=True))
    ]
    table = pa.Table.from_pylist(made, tables.SPLITS)
    facts = {"method": "sha256 of the group", "seed": str(number), "data_digest": open_set(str(set_folder)).digest}
    write_table(table, path, schema_name="splits", version=tables.SPLITS_VERSION, metadata=facts)


def train(bench: Bench, set_folder: Path, splits: Path, output: Path, settings: Sequence[str]) -> None:
    """The recipe on one parting."""
    source = _spec.read_file(RECIPES / f"{bench.name}.yaml")
    places = {"data.path": set_folder, "data.splits": splits, "output": output}
    named = [f"{key}={json.dumps(str(value))}" for key, value in places.items()]
    _, spec = _spec.build(_spec.apply_settings(source, [*named, *settings]), job="train_model")
    train_model.run(spec, QUIET)  # type: ignore[arg-type]


def floor_of(bench: Bench, rows: Sequence[Row], number: int) -> dict[int, Any]:
    """What ridge regression on letters and 5-mers gives for each tested row of a parting; classes as 0 and 1."""
    names = [split_of(group, row.part, number) for row, group in zip(rows, groups_of(rows), strict=True)]
    tested_N = np.array([name == "test" for name in names])
    x_NF = _features([row.sequence for row in rows])
    if bench.metric == "pearson":
        y_NK = np.array([[float(row.truth)] for row in rows])
    else:
        classes = sorted({row.truth for row in rows})
        y_NK = np.array([[float(row.truth == one) for one in classes] for row in rows])
    mean_F, mean_K = x_NF[~tested_N].mean(axis=0), y_NK[~tested_N].mean(axis=0)
    x_NF = x_NF - mean_F
    seen_NF = x_NF[~tested_N]
    square_FF = (seen_NF.T @ seen_NF).astype(np.float64) + RIDGE * np.eye(x_NF.shape[1])
    weights_FK = np.linalg.solve(square_FF, seen_NF.T @ (y_NK[~tested_N] - mean_K))
    made_NK = x_NF[tested_N] @ weights_FK + mean_K
    return dict(zip(np.flatnonzero(tested_N).tolist(), made_NK, strict=True))


def _features(texts: Sequence[str]) -> Any:
    """(N, F) float32: letters by place, then counts of the 5-mers that are there."""
    length = max(map(len, texts))
    codes_NL = np.full((len(texts), length), 4, dtype=np.int64)
    for row, text in zip(codes_NL, texts, strict=True):
        row[: len(text)] = [CODES.get(letter, 4) for letter in text]
    words_NL = sum(codes_NL[:, at : length - 4 + at] * 5**at for at in range(5))
    seen, place_NL = np.unique(words_NL, return_inverse=True)
    counts_NF = np.zeros((len(texts), len(seen)), dtype=np.float32)
    np.add.at(counts_NF, (np.arange(len(texts))[:, None], place_NL.reshape(words_NL.shape)), 1)
    letters = [(codes_NL == code).astype(np.float32) for code in range(4)]
    return np.concatenate([*letters, counts_NF], axis=1)


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
    found = [table.filter(pa.compute.equal(table["split"], split)) for table in map(read_table, outputs)]
    whole = pa.concat_tables(found)
    values = np.array(whole["values"].to_pylist())
    return whole["record"].to_numpy(), values, np.array([one[0] for one in whole["target"].to_pylist()])


def lines_of(bench: Bench, rows: Sequence[Row], outputs: Sequence[Path], floors: Mapping[int, Any]) -> Iterator[str]:
    """Lines of the table; `floors` holds the floor's values of each tested record."""
    record_N, values_NK, truth_N = outputs_of(outputs, "test")
    floor_NK = np.array([floors[record] for record in record_N.tolist()])
    panel_N = np.array([rows[record].panel for record in record_N])
    for panel, published in bench.panels.items():
        mine_N = panel_N == panel
        both = {
            name: statistic_of(bench.metric, one[mine_N], truth_N[mine_N])
            for name, one in (("ours", values_NK), ("floor", floor_NK))
        }
        made = _metrics.with_intervals(both, int(mine_N.sum()))
        found, floor = made["ours"], f"{made['floor']['value']:.3f}"
        ours = f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"
        cells = [f"{bench.name} {panel}".strip(), bench.metric, f"{mine_N.sum():,}", published, floor, ours]
        yield f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds uci-splice, gue and the others")
    parser.add_argument("--work", type=Path, default=Path("accuracy-work"), help="where runs are kept")
    parser.add_argument("--only", default="", help="names of recipes, comma-separated")
    parser.add_argument("--rounds", type=int, default=5, help="most partings of a set")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the recipes")
    given = parser.parse_args(arguments)
    print(
        "| set | metric | test rows | published | floor | ours (95% interval) |\n|---|---|---|---|---|---|", flush=True
    )
    for bench in BENCHES:
        if given.only and bench.name not in given.only.split(","):
            continue
        work = given.work / bench.name
        set_folder, rows = make_set(bench, given.data, work)
        outputs: list[Path] = []
        floors: dict[int, Any] = {}
        for number in range(min(bench.rounds, given.rounds)):
            splits, output = work / f"splits-{number}.parquet", work / f"round-{number}"
            write_split(rows, set_folder, number, splits)
            train(bench, set_folder, splits, output, [f"execution.threads={given.threads}", *given.set])
            outputs.append(output / "outputs.parquet")
            floors |= floor_of(bench, rows, number)
        print("\n".join(lines_of(bench, rows, outputs, floors)), flush=True)


if __name__ == "__main__":
    main()
