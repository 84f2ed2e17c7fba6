"""Two tasks of GUE (DNABERT-2): human core promoters, and binding of a human transcription factor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.accuracy_sets._bench import Wanted
from benchmarks.accuracy_sets._sequences import Row, SequenceSet, read_csv


def rows_of(task: str) -> Callable[[Path], Iterator[Row]]:
    """Tested on the dev file; training rows that stand in it are left out."""

    def rows(data: Path) -> Iterator[Row]:
        tested = list(read_csv(data / "gue" / f"{task}__dev.csv.gz"))
        known = {row["sequence"] for row in tested}
        for row in tested:
            yield Row(row["sequence"], row["label"], row["sequence"], "test")
        for row in read_csv(data / "gue" / f"{task}__train.csv.gz"):
            if row["sequence"] not in known:
                yield Row(row["sequence"], row["label"], row["sequence"], "train")

    return rows


def _set(task: str, published: str, least: float) -> SequenceSet:
    return SequenceSet(rows_of(task), "auroc", {"": Wanted(published, least=least, over_floor=0.01)})


BENCHES = (
    _set("tf__0", "0.880 (frozen embeddings)", 0.904).bench("gue-tf_0"),
    _set("prom__prom_core_all", "0.875 (frozen embeddings)", 0.895).bench("gue-prom_core_all"),
)
