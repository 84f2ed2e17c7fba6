"""When a run has rejected too much."""

from __future__ import annotations

from collections.abc import Mapping

from engine.errors import RejectLimitError
from engine.runtime.receipts import Receipt, Totals
from schemas import states


class RejectLimit:
    """Fails the run as soon as the share of rejected rows can no longer come below the limit."""

    def __init__(self, fraction: float, num_records: int, done: Totals) -> None:
        self._fraction = fraction
        self._records = max(num_records, 1)
        self._rejected = done.states.get("rejected", 0)
        self._reasons: dict[str, int] = {}
        self._note(done.reasons)

    def add(self, receipt: Receipt) -> None:
        """Count a shard; raise RejectLimitError where that is too much."""
        self._rejected += receipt.states.get("rejected", 0)
        self._note(receipt.reasons)
        self.check()

    def _note(self, reasons: Mapping[str, int]) -> None:
        for reason, count in reasons.items():
            if reason not in states.NOT_APPLICABLE_REASONS:
                self._reasons[reason] = self._reasons.get(reason, 0) + count

    def check(self) -> None:
        """Raise RejectLimitError where too much was rejected so far."""
        if self._fraction < 1.0 and self._rejected > self._fraction * self._records:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(self._reasons.items()))
            raise RejectLimitError(
                f"{self._rejected:,} rows rejected of {self._records:,} records, more than the limit of "
                f"{self._fraction:.2%} ({reasons})",
                where="max_reject_fraction",
                fix="rejects/ in the output says why; raise --max-rejects to resume, or give mended input a new output",
            )
