"""How alike two molecules' SMILES are as written: LINGOs, the words of four letters in them (Vidal et al. 2005).

The likeness is the Tanimoto coefficient of the counts, sum of the lesser over sum of the greater (Grant et al. 2006).
As there, ring closures are all written 0, and Cl and Br are one letter each. Nothing here knows chemistry: a molecule
written in another order of atoms, with other tautomers, charges or stereo marks, is another text, however equal it is.
SMILES that one program wrote in its canonical form are comparable; others less so.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from engine.genome.minhash import Hashes, Ints, Kmers, Likeness

WORD = 4
_RINGS = re.compile(rb"%\d\d|\d(?![^\[\]]*\])")  # digits within brackets are something else


def as_written(smiles: bytes) -> bytes:
    """With ring closures as 0 and one letter for Cl and Br."""
    return _RINGS.sub(b"0", smiles).replace(b"Cl", b"L").replace(b"Br", b"R")


class Lingos(Kmers):
    """In place of k-mers: each word with how often it has stood before, so that sets count as the words are counted.

    Args:
        sequences: (N,) SMILES.
        likeness: its threshold alone matters.
    """

    def __init__(self, sequences: Sequence[bytes], likeness: Likeness) -> None:
        super().__init__(sequences, likeness)

    def hashes(self, sequences: Sequence[bytes]) -> tuple[Hashes, Ints]:
        """See Kmers."""
        words = [_words(as_written(one)) for one in sequences]
        found = np.fromiter((_hash(*word) for each in words for word in each), np.uint64)
        return found, np.cumsum([0, *map(len, words)], dtype=np.int64)


def _words(text: bytes) -> list[tuple[bytes, int]]:
    if len(text) < WORD:
        return [(text, 0)]
    seen: Counter[bytes] = Counter()
    found = []
    for place in range(len(text) - WORD + 1):
        word = text[place : place + WORD]
        found.append((word, seen[word]))
        seen[word] += 1
    return found


def _hash(word: bytes, before: int) -> int:
    digest = hashlib.blake2b(word + b"\0%d" % before, digest_size=8).digest()
    return int.from_bytes(digest, "little")
