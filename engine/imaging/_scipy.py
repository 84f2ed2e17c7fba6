"""What is needed of scipy, which comes with the extra `imaging`."""

from __future__ import annotations

from typing import Any

from engine.errors import InputError


def ndimage() -> Any:
    """scipy.ndimage.

    Raises:
        InputError: scipy is not installed.
    """
    try:
        import scipy.ndimage as found
    except ImportError as error:
        raise _missing() from error
    return found


def optimize() -> Any:
    """scipy.optimize.

    Raises:
        InputError: scipy is not installed.
    """
    try:
        import scipy.optimize as found
    except ImportError as error:
        raise _missing() from error
    return found


def _missing() -> InputError:
    fix = "pip install 'replisome[imaging]'"
    return InputError("objects in images need scipy, which is not installed", where="imaging", fix=fix)
