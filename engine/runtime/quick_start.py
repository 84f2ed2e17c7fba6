"""What a process need not load to begin."""

from __future__ import annotations

import sys
from typing import Any

import pyarrow as pa


def leave_pandas_out() -> None:
    """Let pyarrow pass over pandas where it is not asked for by name.

    The first time that pyarrow makes an array of a list it imports pandas, to know its objects by sight: a sixth of a
    second in every process. Nothing here gives it any; whoever asks pyarrow for pandas objects still gets them.
    """
    if "pandas" in sys.modules:
        return
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([0])  # it tries, fails, and does not try again
    finally:
        sys.meta_path.remove(finder)


class _NoPandas:
    def find_spec(self, name: str, *_: Any) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("left out", name=name)
