"""A device that has run out of memory, told from every other failure."""

from __future__ import annotations

import torch


def full_memory(error: RuntimeError) -> str | None:
    """What a failed allocation says, in one line; None for any other error."""
    if isinstance(error, torch.OutOfMemoryError):
        return str(error).splitlines()[0]
    return "the machine's memory is full" if "DefaultCPUAllocator" in str(error) else None
