"""Donor, acceptor or neither in 60 bases of primates (UCI data set 69)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.accuracy_sets._bench import Wanted
from benchmarks.accuracy_sets._sequences import Row, SequenceSet


def rows(data: Path) -> Iterator[Row]:
    """Groups: GenBank locus, and equal sequences."""
    for line in (data / "uci-splice" / "splice.train.data").read_text().splitlines():
        label, name, sequence = (word.strip() for word in line.split(","))
        yield Row(sequence, label, name.partition("-")[0])


WANTED = {"": Wanted("0.959 (StatLog, radial basis)", least=0.968)}
BENCHES = (SequenceSet(rows, "accuracy", WANTED, validated=0.5).bench("uci-splice", rounds=15),)
