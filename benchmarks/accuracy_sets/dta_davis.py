"""Affinities of kinase inhibitors and kinases (Davis et al. 2011), as pKd; 5.0 says that nothing was seen.

Parted as the set comes, at random over pairs: every drug and every target is trained on, and pairs are told that were
not. The floor knows each drug's and each target's mean alone: what is better has learned something of pairs.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.accuracy_sets._bench import QUIET, Bench, Figure, Prepared, Wanted
from benchmarks.accuracy_sets._sequences import outputs_of, read_csv
from engine.io.parquet import write_table
from engine.scoring._metrics import Statistic, concordance_statistic
from engine.training import _metrics
from engine.training._sequence_set import open_set
from jobs import _spec, ingest_sequences
from schemas import tables

CENSORED_AT = 5.0
TEST_FOLD, VALIDATION_SHARE, RIDGE = "4", 0.05, 1.0
PUBLISHED = {
    "mse": "0.261 (DeepDTA), 0.195 (MSGNN-DTA)",
    "concordance": "0.878 (DeepDTA), 0.906 (MSGNN-DTA)",
    "concordance_uncensored": "not told",
}


class PreparedPairs(Prepared):
    """Three tables joined and ingested; a record is a row of the pairs."""

    def __init__(self, name: str, data: Path, work: Path) -> None:
        folder, self.folder = data / name, work / "set"
        drugs = {row["index"]: row["smiles"] for row in read_csv(folder / "drugs.csv.gz")}
        targets = {row["index"]: row["sequence"] for row in read_csv(folder / "targets.csv.gz")}
        self.rows = list(read_csv(folder / "pairs_folds1-4.csv.gz"))
        work.mkdir(parents=True, exist_ok=True)
        with (work / "rows.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["target_id", "sequence", "drug", "smiles", "value"])
            for row in self.rows:
                one, other = row["target"], row["drug"]
                writer.writerow([one, targets[one], other, drugs[other], row["value"]])
        values: dict[str, Any] = {
            "input": {
                **{"path": str(work / "rows.csv"), "id": "target_id", "targets": ["value"]},
                **{"second": "smiles", "second_id": "drug"},
            },
            "cleaning": {"alphabet": "protein", "duplicates": "keep"},
            "execution": {"workers": 1, "records_per_shard": 4096},
            "output": str(self.folder),
        }
        _, spec = _spec.build(_spec.Source(values, "benchmarks/accuracy.py", {}), job="ingest_sequences")
        ingest_sequences.run(spec, QUIET)  # type: ignore[arg-type]

    def splits(self) -> list[str]:
        """The last fold is tested; of the others a share by SHA-256 of drug and target is validated on."""
        return ["test" if row["fold"] == TEST_FOLD else _drawn(f"{row['drug']} {row['target']}") for row in self.rows]

    def write_split(self, number: int, path: Path) -> None:
        """See Prepared."""
        made = [{"record": record, "id": None, "split": split} for record, split in enumerate(self.splits())]
        facts = {
            "method": "folds of the set",
            "seed": str(number),
            "data_digest": open_set(str(self.folder)).digest,
        }
        table = pa.Table.from_pylist(made, tables.SPLITS)
        write_table(table, path, schema_name="splits", version=tables.SPLITS_VERSION, metadata=facts)

    def figures(self, runs: Sequence[Path]) -> Iterator[Figure]:
        """See Prepared."""
        record_N, values_NK, truth_N = outputs_of([run / "outputs.parquet" for run in runs], "test")
        floor_N = self.floor()[record_N]
        ours, floor = (statistics(value_N, truth_N) for value_N in (values_NK[:, 0], floor_N))
        found = _metrics.with_intervals(ours, len(truth_N))
        beneath = _metrics.values_of(floor, len(truth_N))
        for metric, published in PUBLISHED.items():
            one = found[metric]
            wanted = Wanted(published)
            yield Figure("", metric, len(truth_N), one["value"], one["low"], one["high"], beneath[metric], wanted)  # type: ignore[arg-type]

    def floor(self) -> Any:
        """(N,) mean, and what each drug and each target adds to it, from the training rows by ridge regression."""
        splits = np.array(self.splits())
        truth_N = np.array([float(row["value"]) for row in self.rows])
        codes = [np.unique([row[name] for row in self.rows], return_inverse=True)[1] for name in ("drug", "target")]
        seen_N = splits == "train"
        mean = truth_N[seen_N].mean()
        adds = [np.zeros(code_N.max() + 1) for code_N in codes]
        for _ in range(50):
            for side, code_N in enumerate(codes):
                left_N = (truth_N - mean - adds[1 - side][codes[1 - side]])[seen_N]
                sums = np.bincount(code_N[seen_N], weights=left_N, minlength=len(adds[side]))
                adds[side] = sums / (np.bincount(code_N[seen_N], minlength=len(adds[side])) + RIDGE)
        return mean + adds[0][codes[0]] + adds[1][codes[1]]


def statistics(value_N: Any, truth_N: Any) -> dict[str, Statistic]:
    """Mean squared error, and the concordance index of all pairs and of those that were seen to bind."""
    error_N = (value_N - truth_N) ** 2
    return {
        "mse": lambda weights_N: float(weights_N @ error_N / weights_N.sum()),
        "concordance": concordance_statistic(value_N, truth_N),
        "concordance_uncensored": concordance_statistic(value_N, truth_N, among=truth_N > CENSORED_AT),
    }


def _drawn(name: str) -> str:
    share = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / (1 << 32)
    return "validation" if share < VALIDATION_SHARE else "train"


BENCHES = (Bench("dta-davis", partial(PreparedPairs, "dta-davis")),)
