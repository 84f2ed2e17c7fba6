"""An evaluation in the terms of the run protocol.

Beside what every run has it leaves
  metrics.parquet     all figures: schemas.tables.EVALUATION
  metrics.json        the same, with confusion and reliability
  model_card.md       what a model folder should say of these figures
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import InputError
from engine.io import parquet
from engine.runtime import layout
from engine.runtime.commit import Parts, Report
from engine.runtime.receipts import Totals
from engine.runtime.run import Execution, Run, noted_versions
from engine.scoring._page import timings_of
from engine.scoring._predict_job import RESULT_VERSION as PREDICT_VERSION
from engine.scoring._predict_job import model_entry, model_facts, model_key, warn_of
from engine.storage.store import Store
from engine.training import _evaluation_card, _evaluation_report
from engine.training._evaluate_stages import EvaluateStages, truth_column, truths, values_of
from engine.training._evaluation import (
    AnyJudged,
    Bootstrap,
    Figure,
    Judged,
    Reliability,
    confusion,
    evaluate,
    figures_table,
    length_bins,
    reliability,
)
from engine.training._position_evaluation import JudgedPositions, counted
from schemas import states, tables

JOB = "evaluate_model"
SCHEMA_NAME = "evaluation_rows"
# Raised when the same rows would give other figures.
RESULT_VERSION = 1
METRICS, METRICS_JSON, CARD = "metrics.parquet", "metrics.json", "model_card.md"
RESULTS = (METRICS, METRICS_JSON, CARD)


@dataclass(frozen=True)
class EvaluateOptions:
    """What an evaluation needs beside its stages.

    Attributes:
        records_per_shard, letters_per_shard: how the plan is cut.
        audit: columns by whose values figures are given apart.
        cluster: column whose values are drawn together for the intervals; None draws single rows.
        bootstrap: how intervals are made.
        command: the command line, for the report.
    """

    records_per_shard: int
    letters_per_shard: int
    audit: tuple[str, ...] = ()
    cluster: str | None = None
    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    command: str = ""


@dataclass(frozen=True)
class Evaluation:
    """Everything that is told.

    Attributes:
        judged: rows and truth.
        figures: all of them.
        reliability: of the confidence; empty for numbers.
        confusion: (K, K), truth in rows; None unless the head tells classes.
    """

    judged: AnyJudged
    figures: list[Figure]
    reliability: tuple[Reliability, ...]
    confusion: list[list[int]] | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        head = self.judged.head
        return {
            "head": head.name,
            "channels": list(head.channels),
            "kind": self.judged.kind,
            "rows": self.judged.size,
            "figures": [asdict(one) for one in self.figures],
            "reliability": [asdict(one) for one in self.reliability],
            "confusion": self.confusion,
        }


class EvaluateJob:
    """Everything of one run that is opened on the driver, checked before any process starts."""

    def __init__(self, stages: EvaluateStages, options: EvaluateOptions, execution: Execution) -> None:
        self.stages = stages
        self.options = options
        self.execution = execution
        self._evaluation: Evaluation | None = None
        if stages.model is not None:
            from engine.models._folder import check_members

            stages.model.check()
            check_members(stages.model.info)
        self._check_predictions()
        self.splits = stages.choice().splits

    def _check_predictions(self) -> None:
        former = self.stages.predictions
        if former is not None and former.facts["sequences_digest"] != self.stages.sequences.digest:
            what = f"the predictions are of a set with digest {former.facts['sequences_digest'][:12]}..."
            found = f"this one has {self.stages.sequences.digest[:12]}..."
            raise InputError(f"{what}, {found}", where=former.uri, fix="predict this set")

    def plan(self, run: Run) -> None:
        """Cut or take up the plan; every part of the set is checked as it is cut."""
        run.plan(
            self.stages.source(),
            records_per_shard=self.options.records_per_shard,
            bytes_per_shard=self.options.letters_per_shard,
        )
        for sentence in self.cautions():
            run.warn(sentence)

    def cautions(self) -> list[str]:
        """What makes the figures look better than they are."""
        stages = self.stages
        # Each training that the model went through, its own last.
        trained = [one for one in self._training_data() if isinstance(one, dict)]
        here = [one for one in trained if stages.sequences.digest in (one.get("sequences"), one.get("pairs"))]
        if not here:
            return []
        if stages.split is None:
            return ["the model was trained on rows of this set: give a split file, and judge its test rows"]
        found = []
        if self.splits is not None and any(one.get("splits") != self.splits.digest for one in here):
            found.append(
                "the split file is not the one that the model was trained by: rows of its training may be judged"
            )
        for name in stages.split.names:
            if name != "test":
                what = "trained on" if name == "train" else "chosen by"
                found.append(f"the model was {what} rows of the split {name}: their figures flatter")
        return found

    def _training_data(self) -> list[Any]:
        if self.stages.model is not None:
            return self.stages.model.info.training_data
        assert self.stages.predictions is not None
        return list(self.stages.predictions.facts.get("training_data", []))

    def key(self) -> dict[str, Any]:
        """Every setting and digest that can change a result, but the set's own digest."""
        stages, options = self.stages, self.options
        split = stages.split
        return {
            "evaluate_version": RESULT_VERSION,
            "predict_version": PREDICT_VERSION,
            "tables": [tables.PREDICTIONS_VERSION, tables.EVALUATION_VERSION, tables.PLAN_VERSION],
            **self._source_key(),
            "head": stages.head.name,
            "splits": None if self.splits is None else self.splits.digest,
            "split": None if split is None else [list(split.names), split.fold],
            "audit": list(options.audit),
            "cluster": options.cluster,
            "bootstrap": asdict(options.bootstrap),
            "records_per_shard": options.records_per_shard,
            "letters_per_shard": options.letters_per_shard,
        }

    def _source_key(self) -> dict[str, Any]:
        model = self.stages.model
        if model is None:
            assert self.stages.predictions is not None
            return {"predictions": self.stages.predictions.digest}
        how = {"device": model.device, "precision": model.precision, "micro_batch": model.micro_batch}
        return {**model_key(model.info), **how, "both_strands": model.both_strands}

    def facts(self) -> dict[str, Any]:
        """What the manifest tells of the run: no time, host or path."""
        stages = self.stages
        return {
            **self._model_facts(),
            "head": stages.head.name,
            "sequences_digest": stages.sequences.digest,
            "splits_digest": None if self.splits is None else self.splits.digest,
            "split": None if stages.split is None else list(stages.split.names),
            "cautions": self.cautions(),
            "table_schema": f"{SCHEMA_NAME} {tables.PREDICTIONS_VERSION}",
            "use": "research use only; not a medical device",
        }

    def _model_facts(self) -> dict[str, Any]:
        if self.stages.model is not None:
            return model_facts(self.stages.model.info)
        assert self.stages.predictions is not None
        facts = self.stages.predictions.facts
        return {name: facts[name] for name in ("model", "model_digest", "model_licence")}

    def finish(self, parts: Parts, store: Store) -> Mapping[str, int]:
        """Write the figures."""
        found = self.evaluation(parts)
        table = figures_table(found.figures)
        local = store.scratch()
        local.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, local, schema_name="evaluation", version=tables.EVALUATION_VERSION)
        store.put_file(local, METRICS)
        content = {**found.to_dict(), "facts": self.facts()}
        store.put(METRICS_JSON, layout.canonical_json(content))
        store.put(CARD, _evaluation_card.card(found.judged, found.figures, self.facts()).encode())
        return {METRICS: table.num_rows, METRICS_JSON: -1, CARD: -1}

    def evaluation(self, parts: Parts) -> Evaluation:
        """All figures, computed once."""
        if self._evaluation is None:
            judged = judged_of(parts.tables(), self.stages, self.options)
            has_classes = judged.kind in ("classes", "positions")
            self._evaluation = Evaluation(
                judged,
                evaluate(judged, self.options.bootstrap),
                () if judged.kind == "numbers" else reliability(judged),
                confusion(judged).tolist() if has_classes else None,
            )
        return self._evaluation

    def report(self, run: Run) -> Callable[[Parts, Totals, Mapping[str, float]], Report]:
        """The maker of the report page."""

        def make(parts: Parts, totals: Totals, timings: Mapping[str, float]) -> Report:
            warn_of(run, totals)
            found = self.evaluation(parts)
            times = timings_of(self.execution, timings)
            provenance = self._provenance(run, totals)
            page = _evaluation_report.Page(
                judged=found.judged,
                figures=found.figures,
                reliability=found.reliability,
                confusion=found.confusion,
                reasons=_reasons(parts.tables()),
                cautions=self.cautions(),
                facts=self.facts(),
                options=self.options.bootstrap,
                cluster=self.options.cluster,
            )
            content = {"evaluation": found.to_dict(), "provenance": provenance, "timings": times}
            return Report(_evaluation_report.render(page, provenance, times), content)

        return make

    def _provenance(self, run: Run, totals: Totals) -> dict[str, Any]:
        stages = self.stages
        former = stages.predictions
        return {
            "result_key": run.result_key,
            "model": self._model_facts() if stages.model is None else model_entry(stages.model.info),
            **({} if former is None else {"predictions": {"path": former.uri, "digest": former.digest}}),
            "sequences": {"path": stages.sequences.uri, "digest": stages.sequences.digest},
            "splits": None
            if stages.split is None or self.splits is None
            else {"path": stages.split.path, "sha256": self.splits.digest, "fold": stages.split.fold},
            "notes": dict(totals.notes),
            "versions": noted_versions(),
            "command": self.options.command,
        }


def judged_of(parts: Iterable[pa.Table], stages: EvaluateStages, options: EvaluateOptions) -> AnyJudged:
    """The scored rows of the parts, with truth, groups and clusters.

    Raises:
        InputError: none is scored.
    """
    head, wanted = stages.head, sorted({*options.audit, *([options.cluster] if options.cluster else [])})
    values, truth, columns = [], [], []
    for table in parts:
        scored = table.filter(pc.equal(table["state"], states.SCORED))
        if head.level == "position":
            counts_NKK, bins_NH3 = counted(scored, head)
            values.append(counts_NKK)
            truth.append(bins_NH3)
        else:
            values.append(values_of(scored, head))
            truth.append(truths(scored[truth_column(head)], head))
        columns.append(_selected(scored, wanted, where=stages.sequences.uri))
    if not values or not sum(map(len, values)):
        what = "no row is judged: none of the set has a truth and an output"
        raise InputError(what, where=stages.sequences.uri, fix="rejects/ in the output and the split say why")
    kept = pa.concat_tables(columns)
    groups = {name: _group_values(kept[name], name) for name in options.audit}
    clusters = None if options.cluster is None else _clusters(kept[options.cluster])
    both = np.concatenate(values), np.concatenate(truth)
    if head.level == "position":
        return JudgedPositions(head, *both, groups, clusters)
    is_pairs = "second_alphabet" in stages.sequences.facts
    return Judged(head, *both, groups, clusters, ranks_pairs=is_pairs, censored_at=stages.censored_at())


def _selected(table: pa.Table, names: list[str], *, where: str) -> pa.Table:
    """The columns of the audit and of the clusters."""
    absent = next((name for name in names if name not in table.column_names), None)
    if absent is not None:
        raise InputError(f"the set has no {absent}: its records are no pairs", where=where, fix="leave it out")
    return table.select(names)


def _group_values(column: pa.ChunkedArray, name: str) -> list[str | None]:
    if name == "length":
        bins: list[str | None] = [*length_bins(column.to_numpy().astype(np.int64))]
        return bins
    found: list[str | None] = column.to_pylist()
    return found


def _clusters(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A number for each value; rows without one stand alone."""
    known: dict[Any, int] = {}
    numbers = [
        known.setdefault((place,) if value is None else value, len(known))
        for place, value in enumerate(column.to_pylist())
    ]
    return np.array(numbers, np.int64)


def _reasons(parts: Iterable[pa.Table]) -> dict[tuple[str, str | None], int]:
    """Rows by state and reason."""
    found: dict[tuple[str, str | None], int] = {}
    for table in parts:
        for pair in zip(table["state"].to_pylist(), table["reason"].to_pylist(), strict=True):
            found[pair] = found.get(pair, 0) + 1
    return found
