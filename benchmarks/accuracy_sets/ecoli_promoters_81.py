"""Promoter or not in 81 bases of E. coli (RegulonDB 9.3, iPromoter-2L set)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.accuracy_sets._bench import Wanted
from benchmarks.accuracy_sets._sequences import Row, SequenceSet, read_csv


def rows(data: Path) -> Iterator[Row]:
    """Groups: equal sequences."""
    for row in read_csv(data / "ecoli-promoters-81" / "train.csv"):
        yield Row(row["sequence"], row["label"], row["sequence"])


BENCHES = (SequenceSet(rows, "mcc", {"": Wanted("near 0.76", least=0.72)}).bench("ecoli-promoters-81", rounds=5),)
