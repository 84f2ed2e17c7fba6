"""Trials by Ray Tune, on this machine or a cluster whose nodes share the paths of the search.

Tune asks our searcher for jobs, places each where its CPUs and GPUs are free, begins it again where its worker dies,
and tells of its end. What it does not do is decide or remember: its own searchers and schedulers go by who reports
first, and its own resuming loads pickles of a state that may be a few trials old. The schedule decides
(engine/training/_schedule.py), and the search's folder remembers, so that a search comes to the same trials here as in
one process, killed anywhere.
"""

from __future__ import annotations

import base64
import os
import pickle
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine import __version__
from engine.errors import InputError, SystemFailure
from engine.runtime.executors.ray_data import cluster
from engine.runtime.executors.worker import portable
from engine.runtime.install import check_node
from engine.training._crew import MAX_DEATHS
from engine.training._schedule import Job, Schedule
from engine.training._search import Trial
from engine.training._trial_crew import OnEnd, TrialCrew, Work

# Tune reads these as it is loaded: no files of its own for each trial, Ctrl-C left to us, no table on the screen.
_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000",
}
_MOST_JOBS = 1_000_000


def run_jobs(schedule: Schedule, work: Work, crew: TrialCrew, *, on_end: OnEnd, scratch: Path) -> None:
    """See engine/training/_trial_workers.py.

    Raises:
        InputError: Ray is not installed, no cluster answers, or a trial fits on none of its nodes.
        ReplisomeError: what a job raised, or its workers died too often.
    """
    with _settings(), cluster(crew.address):
        resources = _resources(crew)
        from ray import tune

        desk = _Desk(schedule, on_end)
        # A name of their own lets Tune find no former run to go on with.
        run_config = tune.RunConfig(
            name=uuid.uuid4().hex,
            storage_path=str(scratch),
            failure_config=tune.FailureConfig(max_failures=MAX_DEATHS),
            verbose=0,
            stop=_stopper(desk),
        )
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_trainable, work=work, version=__version__), resources),
            tune_config=tune.TuneConfig(
                search_alg=_searcher(desk),
                num_samples=_MOST_JOBS,
                max_concurrent_trials=crew.parallel,
                reuse_actors=True,
            ),
            run_config=run_config,
        )
        try:
            tuner.fit()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if desk.error is not None:
            raise desk.error
        if not desk.is_over:
            raise SystemFailure("Ray Tune ended before the search did", where="ray", fix="run again; it goes on")


def _resources(crew: TrialCrew) -> dict[str, float]:
    """Of a trial: all its workers on one node."""
    import ray

    wanted = {"CPU": float(crew.workers), "GPU": float(crew.workers if crew.device == "cuda" else 0)}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    if not any(all(node.get(name, 0.0) >= much for name, much in wanted.items()) for node in nodes):
        told = " and ".join(f"{much:g} {name}s" for name, much in wanted.items() if much)
        raise InputError(
            f"a trial of {crew.workers} workers needs a node with {told}, and the cluster has none",
            where="ray",
            fix="ask for fewer --workers, or use --device cpu",
        )
    return {name.lower(): much for name, much in wanted.items() if much}


@contextmanager
def _settings() -> Iterator[None]:
    former = {name: os.environ.get(name) for name in _SETTINGS}
    os.environ.update(_SETTINGS)
    try:
        yield
    finally:
        for name, value in former.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


class _Desk:
    """Where jobs are given out and their ends come in; in the driver."""

    def __init__(self, schedule: Schedule, on_end: OnEnd) -> None:
        self._schedule = schedule
        self._on_end = on_end
        self._jobs: dict[str, Job] = {}
        self.error: Exception | None = None
        self.is_over = False

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles all it was given, to resume in its own way."""
        return {}

    def give(self, trial_id: str) -> Job | None:
        job = self._schedule.next()
        if job is not None:
            self._jobs[trial_id] = job
        self.is_over = job is None and not self._jobs
        return job

    def take(self, trial_id: str, result: Mapping[str, Any] | None) -> None:
        job = self._jobs.pop(trial_id)
        told: tuple[str, Any] = _unpacked(result["told"]) if result and "told" in result else ("died", None)
        kind, value = told
        if kind == "died":
            self.error = self.error or SystemFailure(
                f"workers that ran trial {job.trial} died {MAX_DEATHS + 1} times",
                where="ray",
                fix="give them more memory, or run fewer trials at once; the same command goes on",
            )
        elif kind == "error":
            error, trace = value
            error.add_note(trace)
            self.error = self.error or error
        else:
            end: Trial = value
            self._schedule.tell(job, end)
            self._on_end(job, end)


def _searcher(desk: _Desk) -> Any:
    """Tune's Searcher before our desk; its class is made here so that Ray is loaded only when used."""
    from ray.tune.search import Searcher

    class _Searcher(Searcher):
        def suggest(self, trial_id: str) -> Any:
            if desk.error is not None:
                return Searcher.FINISHED
            job = desk.give(trial_id)
            if job is not None:
                return {"job": _packed(job)}
            return Searcher.FINISHED if desk.is_over else None

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:  # noqa: ARG002
            desk.take(trial_id, result)

        def save(self, checkpoint_path: str) -> None:
            """Nothing: see the module's head."""

        def restore(self, checkpoint_path: str) -> None:
            """Nothing."""

    return _Searcher()


def _stopper(desk: _Desk) -> Any:
    from ray.tune import Stopper

    class _Stopper(Stopper):
        def __call__(self, trial_id: str, result: Any) -> bool:  # noqa: ARG002
            return False

        def stop_all(self) -> bool:
            """One job's error ends the search: the others need not be waited for."""
            return desk.error is not None

    return _Stopper()


def _trainable(config: dict[str, Any], *, work: Work, version: str) -> None:
    """A job, in a worker of Tune."""
    from ray import tune

    try:
        check_node(version)
        told: tuple[str, Any] = ("end", work(_unpacked(config["job"])))
    except Exception as error:
        told = ("error", portable(error, None))
    tune.report({"told": _packed(told)})


def _packed(value: Any) -> str:
    """As text: Tune writes configurations and results down as JSON."""
    return base64.b64encode(pickle.dumps(value)).decode()


def _unpacked(text: str) -> Any:
    return pickle.loads(base64.b64decode(text))
