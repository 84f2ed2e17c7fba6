"""scipy.ndimage, which comes with the extra `imaging`."""

from __future__ import annotations

from typing import Any

from engine.errors import InputError


def ndimage() -> Any:
    """The module.

    Raises:
        InputError: scipy is not installed.
    """
    try:
        import scipy.ndimage as found
    except ImportError as error:
        fix = "pip install 'replisome[imaging]'"
        raise InputError("objects in images need scipy, which is not installed", where="imaging", fix=fix) from error
    return found
