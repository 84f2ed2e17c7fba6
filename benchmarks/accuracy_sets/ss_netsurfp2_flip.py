"""Secondary structure of protein chains in three states, from one sequence alone (NetSurfP-2.0's chains, of FLIP).

Trained on a share of the train file, by SHA-256 of the chain's name, and tested on the whole val file; residues that
were not resolved are left out. Q3 is told over all residues and as the mean over chains.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.accuracy_sets._bench import QUIET, Bench, Figure, Prepared, Wanted
from benchmarks.accuracy_sets._sequences import outputs_of
from engine.io.parquet import write_table
from engine.training import _metrics
from engine.training._sequence_set import open_set
from jobs import _spec, ingest_sequences
from schemas import tables

STATES, LETTERS = "CEH", "ACDEFGHIKLMNPQRSTVWY"
SHARE, VALIDATION_SHARE = 0.4, 0.05
WIDTH, PSEUDO = 17, 5.0
PUBLISHED = "72.6 to 74.3% (single sequence), 85.4% (profiles), on other chains"


class PreparedStates(Prepared):
    """Chains ingested with the letters of their states; a record is a row of the two files, train first."""

    def __init__(self, name: str, data: Path, work: Path) -> None:
        self.folder = work / "set"
        self.rows = [(part, row) for part in ("train", "val") for row in _table(data / name / f"{part}.tsv.gz")]
        self.rows = [(part, row) for part, row in self.rows if part == "val" or _share(row["id"]) < SHARE]
        work.mkdir(parents=True, exist_ok=True)
        with (work / "rows.tsv").open("w", newline="") as stream:
            writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
            writer.writerow(["id", "sequence", "states"])
            writer.writerows([row["id"], row["sequence"], masked(row)] for _, row in self.rows)
        values: dict[str, Any] = {
            "input": {"path": str(work / "rows.tsv"), "position_labels": "states"},
            "cleaning": {
                **{"alphabet": "protein", "duplicates": "keep", "position_classes": STATES},
                **{"max_ambiguous_fraction": 1.0, "max_invalid_fraction": 0.1, "allow_missing": True},
            },
            "execution": {"workers": 1, "records_per_shard": 1024},
            "output": str(self.folder),
        }
        _, spec = _spec.build(_spec.Source(values, "benchmarks/accuracy.py", {}), job="ingest_sequences")
        ingest_sequences.run(spec, QUIET)  # type: ignore[arg-type]

    def splits(self) -> list[str]:
        """The val file is tested; of the train file a share is validated on; a chain without a residue is unused."""
        found = []
        for part, row in self.rows:
            drawn = "validation" if _share(row["id"]) < VALIDATION_SHARE * SHARE else "train"
            found.append("unused" if not masked(row).strip(".") else "test" if part == "val" else drawn)
        return found

    def write_split(self, number: int, path: Path) -> None:
        """See Prepared."""
        made = [{"record": record, "id": None, "split": split} for record, split in enumerate(self.splits())]
        facts = {"method": "files of the set", "seed": str(number), "data_digest": open_set(str(self.folder)).digest}
        table = pa.Table.from_pylist(made, tables.SPLITS)
        write_table(table, path, schema_name="splits", version=tables.SPLITS_VERSION, metadata=facts)

    def figures(self, runs: Sequence[Path]) -> Iterator[Figure]:
        """See Prepared."""
        record_N, kept_NS, _ = outputs_of([run / "outputs.parquet" for run in runs], "test")
        floor_NKK = self.floor(record_N.tolist())
        num = len(STATES)
        made = {
            name: _metrics.counted_statistics(counts_NKK.reshape(-1, num, num))
            for name, counts_NKK in (("ours", kept_NS), ("floor", floor_NKK))
        }
        found = _metrics.with_intervals(made["ours"], len(record_N))
        beneath = _metrics.values_of(made["floor"], len(record_N))
        for metric, panel in (("accuracy", "Q3"), ("accuracy_per_sample", "Q3 of chains")):
            one, wanted = found[metric], Wanted(PUBLISHED)
            ends = (one["low"], one["high"], beneath[metric], wanted)
            yield Figure(panel, metric, len(record_N), one["value"], *ends)  # type: ignore[arg-type]

    def floor(self, records: Sequence[int]) -> Any:
        """(N, K, K) counts of a log-odds sum over a window of 17 residues, from the training chains."""
        code = np.full(256, len(LETTERS), np.int64)
        code[np.frombuffer(LETTERS.encode(), np.uint8)] = np.arange(len(LETTERS))
        half = WIDTH // 2

        def windows(text: str) -> Any:
            letters = code[np.frombuffer(text.encode(), np.uint8)]
            return np.lib.stride_tricks.sliding_window_view(np.pad(letters, half, constant_values=len(LETTERS)), WIDTH)

        counts = np.full((WIDTH, len(LETTERS) + 1, len(STATES)), PSEUDO)
        for (_, row), split in zip(self.rows, self.splits(), strict=True):
            if split == "train":
                truth, seen = _truth(masked(row))
                for place in range(WIDTH):
                    np.add.at(counts[place], (windows(row["sequence"])[seen][:, place], truth[seen]), 1)
        states = counts[0].sum(axis=0)
        letters = counts.sum(axis=2, keepdims=True) / counts[0].sum()
        odds = np.log(counts / counts.sum(axis=1, keepdims=True)) - np.log(letters)
        found = []
        for record in records:
            row = self.rows[record][1]
            truth, seen = _truth(masked(row))
            told = np.log(states / states.sum()) + sum(
                odds[place][windows(row["sequence"])[:, place]] for place in range(WIDTH)
            )
            called = told.argmax(axis=1)
            found.append(_metrics.confusion(truth[seen], called[seen], len(STATES)))
        return np.array(found)


def masked(row: dict[str, str]) -> str:
    """States, a point where a residue was not resolved."""
    return "".join(one if seen == "1" else "." for one, seen in zip(row["ss3"], row["mask"], strict=True))


def _truth(text: str) -> tuple[Any, Any]:
    truth = np.array([STATES.find(one) for one in text], np.int64)
    return truth, truth >= 0


def _table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(gzip.decompress(path.read_bytes()).decode().splitlines(), delimiter="\t"))


def _share(name: str) -> float:
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / (1 << 32)


BENCHES = (Bench("ss-netsurfp2-flip", partial(PreparedStates, "ss-netsurfp2-flip")),)
