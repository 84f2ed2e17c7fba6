"""Freed memory is kept: what is taken again needs no page of the kernel; elsewhere than on glibc nothing happens."""

from __future__ import annotations

import ctypes
import subprocess
import sys

from engine.runtime.memory import keep_freed_memory

_FAULTS = """
import resource, sys
from engine.runtime.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work():
    held = [bytes(4_000_000) + b"x" for _ in range(10)]
    del held
work()
before = faults()
for _ in range(5):
    work()
print(faults() - before)
"""


def faults(word: str) -> int:
    return int(subprocess.run([sys.executable, "-c", _FAULTS, word], capture_output=True, check=True).stdout)


def test_what_is_freed_is_taken_again_without_a_page_fault():
    assert faults("keep") < faults("leave") / 3


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    keep_freed_memory()
