"""How this process keeps memory that it will need again."""

from __future__ import annotations

import ctypes

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_TRIM_BYTES, _MMAP_BYTES = 256 << 20, 32 << 20


def keep_freed_memory() -> None:
    """Keep freed blocks of megabytes for the next of their size, rather than fetch each anew from the kernel.

    Work in batches takes and frees the same arrays over and over; the page faults of fetching them cost an eighth of
    the time of an ingest of variants, more with several workers. Does nothing where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
