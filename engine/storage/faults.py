"""Named places where a test can make the machine fail: killed, or out of disk.

Nothing happens unless the environment variable REPLISOME_FAULT is set to ``<action>@<point>#<n>``: at the n-th time
(from 1) that this process reaches the point, the action is done: ``kill`` (SIGKILL of this process),
``kill-parent`` (SIGKILL of the one that started it: a worker's driver) or ``enospc`` (the write fails as on a full
disk). With REPLISOME_FAULT_ONCE naming a file, the fault strikes once over all
processes of the run: whoever creates the file first.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

_reached: Counter[str] = Counter()
_counting = threading.Lock()
_this_thread = threading.local()


@contextmanager
def exempt() -> Iterator[None]:
    """No faults in this thread: what a clock starts would make the n-th time another each run."""
    _this_thread.exempt = True
    try:
        yield
    finally:
        _this_thread.exempt = False


def reach(point: str) -> None:
    """Pass a named point; fail here if the environment asks for it."""
    wanted = os.environ.get("REPLISOME_FAULT")
    if not wanted or getattr(_this_thread, "exempt", False):
        return
    action, _, place = wanted.partition("@")
    name, _, nth = place.partition("#")
    if name != point:
        return
    with _counting:
        _reached[point] += 1
        count = _reached[point]
    if count != int(nth or 1) or not _first_over_all_processes():
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "kill-parent":
        os.kill(os.getppid(), signal.SIGKILL)
    if action == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), point)


def _first_over_all_processes() -> bool:
    token = os.environ.get("REPLISOME_FAULT_ONCE")
    if not token:
        return True
    try:
        os.close(os.open(token, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True
