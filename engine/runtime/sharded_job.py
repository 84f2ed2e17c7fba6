"""What jobs whose results are parts of a table do alike: compute what is not there yet, then commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from engine.runtime.commit import Parts, Report, commit, finished_outcome
from engine.runtime.receipts import Totals
from engine.runtime.run import Execution, Run, RunOutcome
from engine.runtime.stages import Stages
from engine.storage.store import Store


class ShardedJob(Protocol):
    """A job whose plan is frozen."""

    @property
    def stages(self) -> Stages:
        """What an executor runs for every shard."""
        ...

    @property
    def execution(self) -> Execution:
        """Where and how wide."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """See `commit`."""
        ...

    def finish(self, parts: Parts, store: Store) -> Mapping[str, int]:
        """See `commit`."""
        ...

    def report(self, run: Run) -> Callable[[Parts, Totals, Mapping[str, float]], Report]:
        """See `commit`."""
        ...


def complete(run: Run, job: ShardedJob, *, table: tuple[str, int], max_reject_fraction: float) -> RunOutcome:
    """Run every shard that has no receipt and commit; a finished run is left as it is.

    Args:
        run: planned and frozen for this job.
        job: what is computed.
        table: name and version of the parts' schema.
        max_reject_fraction: the most rejected rows, as a share.

    Raises:
        ReplisomeError: see `Run.execute` and `commit`.
    """
    if run.finished():
        return finished_outcome(run)
    name, version = table
    run.execute(
        job.stages,
        schema_name=name,
        schema_version=version,
        execution=job.execution,
        max_reject_fraction=max_reject_fraction,
    )
    return commit(run, finish=job.finish, report=job.report(run), facts=job.facts())
