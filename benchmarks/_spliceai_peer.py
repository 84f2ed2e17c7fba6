"""SpliceAI's side of the comparison, run by the Python of its own environment: texts and raw outputs of records.

    ENV/bin/python -P _spliceai_peer.py VCF REFERENCE GENES OUT --distances 50 500 --part 0 2

Calls the tool's own `get_delta_scores` on every second record for each distance and mask. The networks' answers are
kept from one mask to the other, which changes no number. Writes OUT.jsonl, a line per record, distance and mask, and
OUT.npz with the windows and the mean raw outputs: ID|DISTANCE|NUMBER|window or output for each distinct window, and
ID|DISTANCE|pairs, (P, 2), the numbers of the REF and the ALT window of each scored pair in the order of the texts.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np


class Remembering:
    """One network, its answers kept by window until `forget`."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self.seen: dict[bytes, tuple[Any, Any]] = {}
        self.asked: list[bytes] = []

    def predict(self, x: Any, **options: Any) -> Any:
        return self._answer(x, lambda: self._network.predict(x, **{"verbose": 0, **options}))

    def predict_on_batch(self, x: Any) -> Any:
        return self._answer(x, lambda: self._network.predict_on_batch(x))

    def _answer(self, x: Any, compute: Any) -> Any:
        # bool() of a one-hot window is itself, in an eighth of the bytes.
        key = np.packbits(np.ascontiguousarray(x).astype(bool)).tobytes() + bytes(str(x.shape), "ascii")
        self.asked.append(key)
        if key not in self.seen:
            self.seen[key] = (np.array(x, dtype=np.uint8), compute())
        return self.seen[key][1]

    def forget(self) -> None:
        self.seen = {}
        self.asked = []


class Listener(logging.Handler):
    """Keeps what the tool warns of."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record.getMessage())


def tokens(x_1L4: Any) -> Any:
    """uint8 (L,): A=0 C=1 G=2 T=3, 4 where no letter is set."""
    one_hot = x_1L4[0]
    return np.where(one_hot.any(axis=1), one_hot.argmax(axis=1), 4).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vcf")
    parser.add_argument("reference")
    parser.add_argument("genes")
    parser.add_argument("out", type=Path)
    parser.add_argument("--distances", type=int, nargs="+", required=True)
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), help="number of this part, and how many there are")
    given = parser.parse_args()
    import pysam
    from spliceai import utils

    annotator = utils.Annotator(given.reference, given.genes)
    annotator.models = [Remembering(network) for network in annotator.models]
    listener = Listener()
    logging.getLogger().addHandler(listener)
    arrays: dict[str, Any] = {}
    with Path(f"{given.out}.jsonl").open("w") as lines:
        for number, record in enumerate(pysam.VariantFile(given.vcf)):
            if number % given.part[1] != given.part[0]:
                continue
            for distance in given.distances:
                for mask in (0, 1):
                    listener.heard = []
                    scores = utils.get_delta_scores(record, annotator, distance, mask)
                    line = {"id": record.id, "distance": distance, "mask": mask, "scores": list(scores)}
                    line["warnings"] = [text.partition(" record (")[2].partition(")")[0] for text in listener.heard]
                    lines.write(json.dumps(line) + "\n")
                _keep(arrays, annotator.models, f"{record.id}|{distance}")
            lines.flush()
    np.savez_compressed(f"{given.out}.npz", **arrays)


def _keep(arrays: dict[str, Any], networks: list[Remembering], name: str) -> None:
    """Windows in the order they were first asked for, with the mean of the networks' outputs; which make a pair."""
    keys = list(networks[0].seen)
    asked = networks[0].asked[: len(networks[0].asked) // 2]  # the second half is the other mask
    arrays[f"{name}|pairs"] = np.array([keys.index(key) for key in asked], dtype=np.int32).reshape(-1, 2)
    for number, key in enumerate(keys):
        outputs = [network.seen[key][1] for network in networks]
        arrays[f"{name}|{number}|window"] = tokens(networks[0].seen[key][0])
        arrays[f"{name}|{number}|output"] = np.mean(outputs, axis=0)[0].astype(np.float32)
    for network in networks:
        network.forget()


if __name__ == "__main__":
    main()
