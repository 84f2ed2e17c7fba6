"""htslib's own voice: what both this room and `engine/io` need when they call pysam."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_htslib() -> Iterator[None]:
    """Keep htslib's own lines off standard error: our errors say it in one sentence."""
    import pysam

    before = pysam.set_verbosity(0)
    try:
        yield
    finally:
        pysam.set_verbosity(before)
