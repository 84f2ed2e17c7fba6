"""Functions for a map over processes: importable, as they are pickled by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from engine.errors import DataError


def square(number: int) -> int:
    """The first ones take longest."""
    time.sleep(0.05 / (1 + number))
    return number * number


def process(_: int) -> int:
    """Whose process; slow enough that one alone does not take them all."""
    time.sleep(0.01)
    return os.getpid()


def slow_process(number: int) -> tuple[int, int]:
    time.sleep(0.03)
    return number, os.getpid()


def twice(data: bytes) -> bytes:
    return data + data


def die_once(number: int, *, marker: str) -> int:
    """Die over the fifth item, the first time that it is met."""
    if number == 4:
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return number
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def refuse_odd(number: int) -> int:
    if number % 2:
        raise DataError(f"{number} is odd", where=str(Path("numbers")))
    return number


def inverse(number: int) -> float:
    return 1 / number


def busy(seconds: float) -> float:
    """Compute for so many CPU seconds."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass
    return seconds
