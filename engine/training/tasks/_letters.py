"""What tasks share whose targets are texts with a letter for every position."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.training._task import Ids


def letter_codes(text: str) -> NDArray[np.uint8]:
    """(L,) the code of each letter; what is no letter of Latin-1 as a question mark."""
    return np.frombuffer(text.encode("latin-1", "replace"), np.uint8)


def letter_counts(columns: Iterable[pa.ChunkedArray]) -> tuple[Ids, int]:
    """(256,) how often each letter stands in the texts, and how many texts there are; empty ones do not count."""
    counts, rows = np.zeros(256, np.int64), 0
    for column in columns:
        texts = [text for text in column.to_pylist() if text]
        rows += len(texts)
        counts += np.bincount(letter_codes("".join(texts)), minlength=256)
    return counts, rows
