"""Where in the cell a protein is, one of ten places (DeepLoc), learned from few proteins."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

from benchmarks.accuracy_sets._bench import Wanted
from benchmarks.accuracy_sets._floors import logistic, protein_features
from benchmarks.accuracy_sets._sequences import Row, SequenceSet

END = 500
"""Residues kept at either end of a longer protein: signals lie at the ends."""
_NO_CLASS = "Cytoplasm-Nucleus"


def rows(data: Path) -> Iterator[Row]:
    """Trained on the published validation file, tested on the test file; the few proteins of two places left out."""
    folder = data / "localization-deeploc"
    for name, part in (("val_set", "train"), ("test_set", "test")):
        for entry in gzip.decompress((folder / f"{name}.fasta.gz").read_bytes()).decode().split(">")[1:]:
            header, _, letters = entry.partition("\n")
            label = header.split()[1].rpartition("-")[0]
            if label != _NO_CLASS:
                sequence = "".join(letters.split())
                yield Row(both_ends(sequence), label, sequence, part)


def both_ends(sequence: str) -> str:
    """At most END residues from each end."""
    return sequence if len(sequence) <= 2 * END else sequence[:END] + sequence[-END:]


WANTED = {"": Wanted("0.860 (trained on 9,500 proteins)")}
LINEAR = logistic(protein_features, inverse_strength=0.1)
SET = SequenceSet(rows, "accuracy", WANTED, floor=LINEAR, alphabet="protein")
BENCHES = (SET.bench("localization-deeploc"),)
