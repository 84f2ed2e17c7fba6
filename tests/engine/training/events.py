"""What TensorBoard's own reader finds in a folder of event files."""

from __future__ import annotations

import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util.tensor_util import make_ndarray


def scalars(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """Tag to (step, value), files in the order of their names; a picture's value is its bytes."""
    found: dict[str, list[tuple[int, Any]]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                array = make_ndarray(value.tensor)
                found[value.tag].append((event.step, array.item() if array.ndim == 0 else array[-1]))
    return found
