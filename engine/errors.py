"""The three kinds of trouble, each one clear sentence: what, where, why, what to do.

InputError: the user can fix it. DataError: this record or shard. SystemFailure: try again.
Errors cross process borders, so they pickle and keep their fields.
"""

from __future__ import annotations

EXIT_DONE = 0
EXIT_INPUT = 2
EXIT_REJECTS = 3
EXIT_SYSTEM = 4
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class ReplisomeError(Exception):
    """Base of all errors with a sentence for the user.

    Args:
        what: what was found, with its value, as one sentence without the full stop.
        where: file, record, shard or key it was found in.
        fix: what the user can do about it.
    """

    exit_code = EXIT_SYSTEM

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what, where, fix)
        self.what = what
        self.where = where
        self.fix = fix

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.where, self.fix))

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}; {self.fix}" if self.fix else text


def _rebuild(kind: type[ReplisomeError], what: str, where: str, fix: str) -> ReplisomeError:
    return kind(what, where=where, fix=fix)


class InputError(ReplisomeError):
    """The input, spec or model is at fault and the user can fix it."""

    exit_code = EXIT_INPUT


class DataError(ReplisomeError):
    """One record or shard is at fault; counted or fatal by policy."""

    exit_code = EXIT_INPUT


class RejectLimitError(ReplisomeError):
    """More records were rejected than the spec allows."""

    exit_code = EXIT_REJECTS


class SystemFailure(ReplisomeError):
    """The machine is at fault (disk, memory, a lost worker); finished work is kept and a retry resumes."""

    exit_code = EXIT_SYSTEM
