"""A prediction over images in the terms of the run protocol: what is opened, what keys it, what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from engine.errors import DataError
from engine.io.image_store import label_store, shard_name
from engine.runtime.commit import Parts, Report
from engine.runtime.receipts import Totals
from engine.runtime.run import Execution, Run, noted_versions
from engine.scoring import _predict_report
from engine.scoring._page import timings_of
from engine.scoring._predict_job import model_entry, model_facts, model_key
from engine.storage.store import Store
from engine.training._predict_images import MASKS, OBJECTS, PredictImagesStages
from schemas import tables

JOB = "predict_images"
SCHEMA_NAME = "image_predictions"
RESULTS = (f"{MASKS}/", f"{OBJECTS}/")
# Raised when the same model and images would give other rows or masks.
RESULT_VERSION = 1


class PredictImagesJob:
    """Everything of one run that is opened on the driver, checked before any process starts."""

    def __init__(self, stages: PredictImagesStages, execution: Execution, *, command: str = "") -> None:
        from engine.models._folder import check_members

        self.stages = stages
        self.execution = execution
        self._command = command
        stages.check()
        check_members(stages.info)

    def plan(self, run: Run) -> None:
        """Cut or take up the plan."""
        run.plan(self.stages.source(), records_per_shard=self.stages.images_per_shard, bytes_per_shard=0)

    def key(self) -> dict[str, Any]:
        """Every setting and digest that can change a row, but the set's own digest."""
        stages = self.stages
        return {
            "predict_version": RESULT_VERSION,
            "tables": [tables.IMAGE_PREDICTIONS_VERSION, tables.OBJECTS_VERSION, tables.REJECTS_VERSION],
            **model_key(stages.info),
            "device": stages.device,
            "precision": stages.precision,
            "micro_batch": stages.micro_batch,
            "images_per_shard": stages.images_per_shard,
        }

    def facts(self) -> dict[str, Any]:
        """What the manifest tells of the run: no time, host or path."""
        return {
            **model_facts(self.stages.info),
            "heads": [asdict(self.stages.head)],
            "training_data": self.stages.info.training_data,
            "images_digest": self.stages.images.digest,
            "table_schema": f"{SCHEMA_NAME} {tables.IMAGE_PREDICTIONS_VERSION}",
            "use": "research use only; not a medical device",
        }

    def finish(self, parts: Parts, store: Store) -> Mapping[str, int]:
        """Write the metadata of the masks once every shard of them is there and whole."""
        if not self.stages.finds_objects:
            return {}
        parts.check_files(f"{OBJECTS}/")
        spec, num = self.stages.mask_spec(), self.stages.rows.num_rows
        wanted = {shard_name(spec, number) for number in range(-(-num // spec.chunks_per_shard))}
        if parts.check_files(f"{MASKS}/") != wanted:
            raise DataError("the shards of the masks are not those of the set", where=MASKS, fix="run with --force")
        found: dict[str, int] = {}
        for name, data in label_store(spec, num):
            store.put(name, data)
            found[name] = -1
        return found

    def report(self, run: Run) -> Callable[[Parts, Totals, Mapping[str, float]], Report]:
        """The maker of the report page."""

        def make(parts: Parts, totals: Totals, timings: Mapping[str, float]) -> Report:
            stages = self.stages
            summary = _predict_report.summarise(parts.tables(), stages.told_heads())
            times = timings_of(self.execution, timings)
            provenance = {
                "result_key": run.result_key,
                "model": model_entry(stages.info),
                "images": {"path": stages.rows.uri, "digest": stages.rows.digest},
                "notes": dict(totals.notes),
                "versions": noted_versions(),
                "command": self._command,
            }
            content = {"summary": summary.to_dict(), "provenance": provenance, "timings": times}
            return Report(_predict_report.render(summary, provenance, times), content)

        return make
