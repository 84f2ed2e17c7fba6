"""A prediction run in the terms of the run protocol: what is opened, what keys it, what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from engine import registry
from engine.models._info import ModelInfo
from engine.runtime.commit import Parts, Report
from engine.runtime.receipts import Totals
from engine.runtime.run import Execution, Run, noted_versions
from engine.scoring import _predict_report
from engine.scoring._page import timings_of
from engine.scoring._predict_stages import PredictStages
from engine.storage.store import Store
from schemas import tables

JOB = "predict"
SCHEMA_NAME = "predictions"
# Raised when the same model and sequences would give other rows.
RESULT_VERSION = 1
HALVED = (
    "{:,} batches were halved because memory was full, so the bytes of their shards may differ from a calm run's: take "
    "a smaller --micro-batch"
)


@dataclass(frozen=True)
class PredictOptions:
    """What a prediction needs beside its stages.

    Attributes:
        records_per_shard, letters_per_shard: how the plan is cut.
        command: the command line, for the report.
    """

    records_per_shard: int
    letters_per_shard: int
    command: str = ""


class PredictJob:
    """Everything of one run that is opened on the driver, checked before any process starts."""

    def __init__(self, stages: PredictStages, options: PredictOptions, execution: Execution) -> None:
        from engine.models._folder import check_members

        self.stages = stages
        self.options = options
        self.execution = execution
        stages.check()
        stages.schema()
        check_members(stages.info)

    def plan(self, run: Run) -> None:
        """Cut or take up the plan; every part of the set is checked as it is cut."""
        run.plan(
            self.stages.source(),
            records_per_shard=self.options.records_per_shard,
            bytes_per_shard=self.options.letters_per_shard,
        )

    def key(self) -> dict[str, Any]:
        """Every setting and digest that can change a row, but the set's own digest."""
        stages = self.stages
        return {
            "predict_version": RESULT_VERSION,
            "tables": [tables.PREDICTIONS_VERSION, tables.REJECTS_VERSION, tables.PLAN_VERSION],
            **model_key(stages.info),
            "heads": list(stages.wanted),
            "both_strands": stages.both_strands,
            "device": stages.device,
            "precision": stages.precision,
            "micro_batch": stages.micro_batch,
            "records_per_shard": self.options.records_per_shard,
            "letters_per_shard": self.options.letters_per_shard,
        }

    def facts(self) -> dict[str, Any]:
        """What the manifest tells of the run: no time, host or path."""
        return {
            **model_facts(self.stages.info),
            "heads": [asdict(self.stages.info.heads[name]) for name in self.stages.wanted],
            "training_data": self.stages.info.training_data,
            "sequences_digest": self.stages.sequences.digest,
            "table_schema": f"{SCHEMA_NAME} {tables.PREDICTIONS_VERSION}",
            "use": "research use only; not a medical device",
        }

    def finish(self, parts: Parts, store: Store) -> Mapping[str, int]:  # noqa: ARG002 - as `commit` calls it
        """The data parts are the result."""
        return {}

    def report(self, run: Run) -> Callable[[Parts, Totals, Mapping[str, float]], Report]:
        """The maker of the report page."""

        def make(parts: Parts, totals: Totals, timings: Mapping[str, float]) -> Report:
            warn_of(run, totals)
            stages = self.stages
            summary = _predict_report.summarise(parts.tables(), [stages.info.heads[name] for name in stages.wanted])
            times = timings_of(self.execution, timings)
            provenance = {
                "result_key": run.result_key,
                "model": model_entry(stages.info),
                "sequences": {"path": stages.sequences.uri, "digest": stages.sequences.digest},
                "notes": dict(totals.notes),
                "versions": noted_versions(),
                "command": self.options.command,
            }
            content = {"summary": summary.to_dict(), "provenance": provenance, "timings": times}
            return Report(_predict_report.render(summary, provenance, times), content)

        return make


def model_key(info: ModelInfo) -> dict[str, Any]:
    """What of a model can change a row: its digest, and the versions of architecture, encoder and what is in them."""
    parts = (("models", info.architecture, info.params), ("encoders", info.encoder["name"], info.encoder["params"]))
    versions = {f"{kind}_version": registry.result_version(kind, name, params) for kind, name, params in parts}
    return {"model": info.digest, **versions}


def model_facts(info: ModelInfo) -> dict[str, Any]:
    """What a manifest tells of a model."""
    return {"model": f"{info.name} {info.version}", "model_digest": info.digest, "model_licence": info.licence}


def model_entry(info: ModelInfo) -> dict[str, Any]:
    """What a page tells of a model."""
    return {"name": info.name, "version": info.version, "digest": info.digest, "licence": info.licence}


def warn_of(run: Run, totals: Totals) -> None:
    """Say what voids the promise of equal bytes."""
    if totals.notes.get("halved_batches"):
        run.warn(HALVED.format(totals.notes["halved_batches"]))
