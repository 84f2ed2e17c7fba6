"""Expression driven by 110 bases of yeast promoter in defined medium (Vaishnav 2022)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.accuracy_sets._bench import Wanted
from benchmarks.accuracy_sets._floors import dna_features, ridge
from benchmarks.accuracy_sets._sequences import Row, SequenceSet, read_csv


def rows(data: Path) -> Iterator[Row]:
    """Random and native promoters. Groups: gene of a native promoter, equal sequences."""
    folder = data / "yeast-gpra"
    for row in read_csv(folder / "random_defined.train.csv.gz"):
        yield Row(row["sequence"], row["expression"], row["sequence"], panel="random_defined")
    for row in read_csv(folder / "native_defined.train.csv.gz"):
        yield Row(row["sequence"], row["expression"], row["nativeGene"], panel="native_defined")


WANTED = {
    "random_defined": Wanted("0.971 (trained on millions)", least=0.86),
    "native_defined": Wanted("0.944 (trained on millions)", least=0.60),
}
BENCHES = (SequenceSet(rows, "pearson", WANTED, floor=ridge(dna_features)).bench("yeast-gpra"),)
