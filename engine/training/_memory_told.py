"""What a device without memory raises, as a sentence with the batch and the setting.

Shape letters: B samples of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from engine.errors import SystemFailure
from engine.training._batches import Batch
from engine.training._recipe import Setup


@contextmanager
def memory_told(batch: Batch, setup: Setup, *, device: torch.device, place: str) -> Iterator[None]:
    """Raises SystemFailure: the device has no memory for what is done within."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise SystemFailure(
            f"out of memory on {device} at {place}, with {batch.inputs.told()} (records {_few(batch.records_B)})",
            where=str(setup.folder),
            fix=f"lower execution.micro_batch (now {setup.recipe.micro_batch}) and run again: it goes on there",
        ) from error


def _is_out_of_memory(error: BaseException) -> bool:
    """torch has a class of error for devices; its CPU allocator raises a plain RuntimeError."""
    plain = "can't allocate memory" in str(error) or "out of memory" in str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or plain


def _few(records: NDArray[np.int64]) -> str:
    text = ", ".join(map(str, records[:5].tolist()))
    return text if len(records) <= 5 else f"{text} and {len(records) - 5} more"
