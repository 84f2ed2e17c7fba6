"""One writer per run: run.lock with owner, heartbeat and epoch.

Epochs are claimed by creating `.lock/<epoch>`, which only one driver can do; the claim is then told in
`run.lock`. A driver whose process is known to be dead (same machine, same boot) is succeeded at once, any other only
after its lease. Workers carry their driver's id, which no other driver ever has, and publish nothing once the run
belongs to another or to nobody.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from engine.errors import InputError, ReplisomeError, SystemFailure
from engine.runtime import layout
from engine.storage import faults
from engine.storage.store import Store

LEASE_SECONDS = 60.0
_BEAT_SECONDS = 5.0


class RunLock:
    """Held by the one driver of a run; a context manager."""

    def __init__(self, store: Store, *, lease_s: float = LEASE_SECONDS) -> None:
        self._store = store
        self._lease_s = lease_s
        self._owner = _me(lease_s)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.epoch = 0
        self.taken_from = ""

    @property
    def owner(self) -> str:
        """This driver's id."""
        return str(self._owner["id"])

    def __enter__(self) -> RunLock:
        former = _read(self._store)
        if former is not None:
            self._refuse_if_alive(former)
            self.taken_from = str(former["owner"]["name"])
        self.epoch = self._claim(int(former["epoch"]) if former else 0)
        try:
            self._tell_first()
        except BaseException:
            # A claim that is never told would look like a driver about to start.
            self._store.delete(f"{layout.CLAIMS}/{self.epoch}")
            raise
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self.is_ours():
            forget(self._store)

    def _refuse_if_alive(self, former: dict[str, Any]) -> None:
        owner = former["owner"]
        if _is_dead(owner) or time.time() - float(former["heartbeat"]) > float(former["lease_s"]):
            return
        raise InputError(
            f"another driver is at work: {owner['name']}",
            where=self._store.uri,
            fix=f"wait for it, stop it, or try again when its lease of {former['lease_s']:g} s is over",
        )

    def _claim(self, former_epoch: int) -> int:
        epoch = max([former_epoch, *(int(name.rsplit("/", 1)[1]) for name in _claims(self._store))]) + 1
        if former_epoch == 0 and epoch > 1:
            epoch = self._after_unfinished_claims(epoch)
        if not self._store.create(f"{layout.CLAIMS}/{epoch}", layout.canonical_json(self._owner)):
            raise InputError("another driver is starting at the same time", where=self._store.uri, fix="wait for it")
        return epoch

    def _after_unfinished_claims(self, epoch: int) -> int:
        """A claim without run.lock: its driver died, or is about to tell. Only the dead are stepped over."""
        for name in _claims(self._store):
            owner = json.loads(self._store.read(name))
            if not _is_dead(owner) and time.time() - float(owner["time"]) <= float(owner["lease_s"]):
                raise InputError(
                    f"another driver is starting: {owner['name']}",
                    where=self._store.uri,
                    fix=f"wait for it, or try again when its lease of {owner['lease_s']:g} s is over",
                )
        return epoch

    def _tell_first(self) -> None:
        """A slow claimer must not write over a later one."""
        current = _read(self._store)
        if current is not None and int(current["epoch"]) > self.epoch:
            raise InputError(
                f"another driver is at work: {current['owner']['name']}", where=self._store.uri, fix="wait for it"
            )
        self._tell()

    def _tell(self) -> None:
        content = {
            "owner": self._owner,
            "epoch": self.epoch,
            "heartbeat": time.time(),
            "lease_s": self._lease_s,
        }
        self._store.put(layout.LOCK, layout.canonical_json(content))

    def _beat(self) -> None:
        while not self._stop.wait(min(_BEAT_SECONDS, self._lease_s / 4)):
            try:
                with faults.exempt():
                    if self.is_ours():
                        self._tell()
            except (OSError, ReplisomeError):
                continue  # a beat missed; the lease is many beats long

    def is_ours(self) -> bool:
        """True while no other driver has taken over."""
        current = _read(self._store)
        return current is not None and current["owner"]["id"] == self.owner

    def check(self) -> None:
        """Raise SystemFailure if another driver took over."""
        check_owner(self._store, self.owner)


def check_owner(store: Store, owner: str) -> None:
    """Raise SystemFailure unless the run still belongs to the driver with this id."""
    current = _read(store)
    if current is None or current["owner"]["id"] != owner:
        now = "nobody" if current is None else str(current["owner"]["name"])
        raise SystemFailure(
            f"this run is no longer ours; it belongs to {now}", where=store.uri, fix="what was published is kept"
        )


def forget(store: Store) -> None:
    """Remove lock and claims."""
    for name in (*_claims(store), layout.LOCK):
        store.delete(name)


def forget_dead(store: Store) -> None:
    """Remove the lock that a driver left that died after its commit; a living one's stays."""
    current = _read(store)
    if current is not None and _is_dead(current["owner"]):
        forget(store)


def _read(store: Store) -> dict[str, Any] | None:
    try:
        content = json.loads(store.read(layout.LOCK))
    except (FileNotFoundError, ValueError):
        return None
    complete = isinstance(content, dict) and {"owner", "epoch", "heartbeat", "lease_s"} <= set(content)
    return content if complete else None


def _claims(store: Store) -> list[str]:
    return store.list(layout.CLAIMS)


def _me(lease_s: float) -> dict[str, Any]:
    host, pid = socket.gethostname(), os.getpid()
    return {
        "name": f"{host} process {pid}",
        "id": uuid.uuid4().hex,
        "pid": pid,
        "started": _start_ticks(pid),
        "place": _place(),
        "time": time.time(),
        "lease_s": lease_s,
    }


def _place() -> str:
    """What makes a pid comparable: this boot of this machine, this pid namespace. Empty where not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 - a magic link, not a path
    except OSError:
        return ""


def _start_ticks(pid: int) -> str:
    """The start time of a process, which tells it from a later one with the same pid; empty where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _is_dead(owner: dict[str, Any]) -> bool:
    if not owner["place"] or owner["place"] != _place():
        return False
    return _start_ticks(int(owner["pid"])) != str(owner["started"])
