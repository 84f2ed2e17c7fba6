"""A prediction along a genome in the terms of the run protocol.

Beside what every run has it leaves NAME.bw, a track, for every column NAME of values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import InputError
from engine.io.bigwig_sink import BigWigSink, check_contigs
from engine.runtime.commit import Parts, Report
from engine.runtime.receipts import Totals
from engine.runtime.run import Execution, Run, noted_versions
from engine.scoring import _predict_report
from engine.scoring._page import timings_of
from engine.scoring._predict_job import model_entry, model_facts, model_key, warn_of
from engine.scoring._predict_report import MAX_SHOWN, PredictSummary
from engine.scoring._track_stages import TrackStages, stretches
from engine.scoring._variant_summary import HistogramCounter
from engine.storage.store import Store
from schemas import states, tables

JOB = "predict_track"
SCHEMA_NAME = "track_tiles"
# Raised when the same model and genome would give other values.
RESULT_VERSION = 1


@dataclass(frozen=True)
class TrackOptions:
    """What such a run needs beside its stages.

    Attributes:
        tiles_per_shard: how the plan is cut.
        command: the command line, for the report.
    """

    tiles_per_shard: int
    command: str = ""


class TrackJob:
    """Everything of one run that is opened on the driver, checked before any process starts."""

    def __init__(self, stages: TrackStages, options: TrackOptions, execution: Execution) -> None:
        from engine.models._folder import check_members

        self.stages, self.options, self.execution = stages, options, execution
        stages.check()
        check_members(stages.info)
        names = stages.schema().names
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            where = f"model {stages.info.name}"
            raise InputError(f"two columns would be named {twice!r}", where=where, fix="rename the head or its channel")
        self.source = stages.source()
        check_contigs(self.source.contigs, where=self.source.path)

    def results(self) -> tuple[str, ...]:
        """What the commit writes beside the parts."""
        return tuple(track_name(one.name) for one in self.stages.columns)

    def plan(self, run: Run) -> None:
        """Cut or take up the plan."""
        run.plan(self.source, records_per_shard=self.options.tiles_per_shard, bytes_per_shard=1)

    def key(self) -> dict[str, Any]:
        """Every setting and digest that can change a value, but those of sequences and regions."""
        stages = self.stages
        names = ("head", "strands", "tile_bp", "window_bp", "stride_bp", "device", "precision", "micro_batch")
        return {
            "predict_track_version": RESULT_VERSION,
            "tables": [tables.TRACK_TILES_VERSION, tables.REJECTS_VERSION, tables.PLAN_VERSION],
            **model_key(stages.info),
            "columns": [asdict(one) for one in stages.columns],
            **{name: getattr(stages, name) for name in names},
            "tiles_per_shard": self.options.tiles_per_shard,
        }

    def facts(self) -> dict[str, Any]:
        """What the manifest tells of the run: no time, host or path."""
        return {
            **model_facts(self.stages.info),
            "head": asdict(self.stages.head_info),
            "span_bp": self.stages.step_bp,
            "training_data": self.stages.info.training_data,
            "table_schema": f"{SCHEMA_NAME} {tables.TRACK_TILES_VERSION}",
            "use": "research use only; not a medical device",
        }

    def finish(self, parts: Parts, store: Store) -> Mapping[str, int]:
        """Join the tiles of each column to a track."""
        found = {}
        for one in self.stages.columns:
            local = store.scratch()
            local.parent.mkdir(parents=True, exist_ok=True)
            with BigWigSink(local, self.source.contigs) as sink:
                columns = ["contig", "start", "end", "span", one.name]
                for contig, start, span, values in stretches(parts.tables(columns), one.name):
                    sink.add(contig, start, values, span=span)
            store.put_file(local, track_name(one.name))
            found[track_name(one.name)] = -1
        return found

    def report(self, run: Run) -> Callable[[Parts, Totals, Mapping[str, float]], Report]:
        """The maker of the report page."""

        def make(parts: Parts, totals: Totals, timings: Mapping[str, float]) -> Report:
            warn_of(run, totals)
            summary = summarise(parts.tables(), [one.name for one in self.stages.columns])
            times = timings_of(self.execution, timings)
            provenance = {
                "result_key": run.result_key,
                "model": model_entry(self.stages.info),
                "reference": {"path": self.source.path, "contigs": len(self.source.contigs)},
                "notes": dict(totals.notes),
                "versions": noted_versions(),
                "command": self.options.command,
            }
            content = {"summary": summary.to_dict(), "provenance": provenance, "timings": times}
            return Report(_predict_report.render(summary, provenance, times), content)

        return make


def track_name(name: str) -> str:
    """The bigWig file of a column, whose name may hold what no file name does: that is percent-encoded."""
    return f"{quote(name, safe='')}.bw"


def summarise(parts: Iterable[pa.Table], names: list[str]) -> PredictSummary:
    """One pass over the tiles; values of columns as histograms."""
    by_state: Counter[str] = Counter()
    reasons: Counter[tuple[str, str]] = Counter()
    histograms = [HistogramCounter(name) for name in names[:MAX_SHOWN]]
    for table in parts:
        for state, reason in zip(table["state"].to_pylist(), table["reason"].to_pylist(), strict=True):
            by_state[state] += 1
            if reason is not None:
                reasons[state, reason] += 1
        for one in histograms:
            flat = pc.list_flatten(table[one.column]).cast(pa.float64()).to_numpy()
            one.add(np.asarray(flat, dtype=np.float64))
    return PredictSummary(
        rows=sum(by_state.values()),
        states={state: by_state[state] for state in states.STATES},
        reasons=dict(sorted(reasons.items())),
        classes=(),
        histograms=tuple(one.result() for one in histograms),
        num_columns=len(names),
    )
