"""An evaluation in the terms of the run protocol.

Beside what every run has it leaves
  metrics.parquet     all figures: schemas.tables.EVALUATION
  metrics.json        the same, with confusion and reliability
  model_card.md       what a model folder should say of these figures
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
from engine.scoring._predict_job import model_entry, model_facts, model_key, warn_of
from engine.storage.store import Store
from engine.training import _evaluation_card, _evaluation_report
from engine.training._drawn import WORDS, cautions, clusters_by, column_of, drawn_by, drawn_text
from engine.training._evaluate_images import EvaluateImagesStages
from engine.training._evaluate_stages import EvaluateStages
from engine.training._evaluation import (
    QUARTERED,
    AnyJudged,
    Bootstrap,
    Figure,
    Reliability,
    confusion,
    evaluate,
    figures_table,
    quarters,
    reliability,
)
from engine.training._position_evaluation import JudgedPositions
from engine.training._split_table import SplitTable
from schemas import states, tables

JOB = "evaluate_model"
# Raised when the same rows would give other figures.
RESULT_VERSION = 2
METRICS, METRICS_JSON, CARD = "metrics.parquet", "metrics.json", "model_card.md"
RESULTS = (METRICS, METRICS_JSON, CARD)
Stages = EvaluateStages | EvaluateImagesStages


@dataclass(frozen=True)
class EvaluateOptions:
    """What an evaluation needs beside its stages.

    Attributes:
        records_per_shard, weight_per_shard: how the plan is cut: by rows, and by letters or bytes of pixels.
        audit: columns by whose values figures are given apart.
        cluster: what intervals draw whole: a column, split, or rows; None takes what the split file tells.
        bootstrap: how intervals are made.
        command: the command line, for the report.
    """

    records_per_shard: int
    weight_per_shard: int
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
        confusion: (K, K), truth in rows; None unless the head tells classes, be it of positions or pixels.
        drawn: what bootstrap samples are made of, in words.
    """

    judged: AnyJudged
    figures: list[Figure]
    reliability: tuple[Reliability, ...]
    confusion: list[list[int]] | None
    drawn: str

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
            "drawn": self.drawn,
            **({"binning": self.judged.binning()} if isinstance(self.judged, JudgedPositions) else {}),
        }


class EvaluateJob:
    """Everything of one run that is opened on the driver, checked before any process starts."""

    def __init__(self, stages: Stages, options: EvaluateOptions, execution: Execution) -> None:
        self.stages = stages
        self.options = options
        self.execution = execution
        self._evaluation: Evaluation | None = None
        stages.check()
        if stages.info is not None:
            from engine.models._folder import check_members

            check_members(stages.info)
        self._check_predictions()
        self._check_columns()
        self.splits = stages.choice().splits
        self.cluster = drawn_by(options.cluster, self.splits, where="" if stages.split is None else stages.split.path)

    def _check_predictions(self) -> None:
        former, name = self.stages.predictions, f"{self.stages.kind}_digest"
        if former is not None and former.facts[name] != self.stages.data.digest:
            what = f"the predictions are of a set with digest {former.facts[name][:12]}..."
            found = f"this one has {self.stages.data.digest[:12]}..."
            raise InputError(f"{what}, {found}", where=former.uri, fix="predict this set")

    def _check_columns(self) -> None:
        known = self.stages.audit_columns()
        for key, name in [*(("audit", one) for one in self.options.audit), ("intervals.cluster", self.options.cluster)]:
            if name is not None and name not in known and not (key == "intervals.cluster" and name in WORDS):
                what = f"the set, which holds {self.stages.holds}, has no {name}"
                raise InputError(what, where=key, fix=f"choose among {', '.join(known)}")

    def plan(self, run: Run) -> None:
        """Cut or take up the plan; every part of the set is checked as it is cut."""
        run.plan(
            self.stages.source(),
            records_per_shard=self.options.records_per_shard,
            bytes_per_shard=self.options.weight_per_shard,
        )
        for sentence in self.cautions():
            run.warn(sentence)

    def cautions(self) -> list[str]:
        """What makes the figures look better than they are."""
        drawn = cautions(self.options.cluster, self.splits) if self.options.bootstrap.samples else []
        return [*self.stages.cautions(), *self._trained_on(), *drawn]

    def _trained_on(self) -> list[str]:
        stages = self.stages
        # Each training that the model went through, its own last.
        trained = [one for one in self._training_data() if isinstance(one, dict)]
        here = [one for one in trained if stages.data.digest in map(one.get, ("sequences", "pairs", "images"))]
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
        if self.stages.info is not None:
            return self.stages.info.training_data
        assert self.stages.predictions is not None
        return list(self.stages.predictions.facts.get("training_data", []))

    def key(self) -> dict[str, Any]:
        """Every setting and digest that can change a result, but the set's own digest."""
        stages, options = self.stages, self.options
        split = stages.split
        return {
            "evaluate_version": RESULT_VERSION,
            "predict_version": stages.predict_version,
            "tables": [self.stages.table[1], tables.EVALUATION_VERSION, tables.PLAN_VERSION],
            **self._source_key(),
            "head": stages.head.name,
            "channels": list(stages.head.channels),
            "splits": None if self.splits is None else self.splits.digest,
            "split": None if split is None else [list(split.names), split.fold],
            "audit": list(options.audit),
            "cluster": self.cluster,
            "bootstrap": asdict(options.bootstrap),
            "records_per_shard": options.records_per_shard,
            "weight_per_shard": options.weight_per_shard,
        }

    def _source_key(self) -> dict[str, Any]:
        info = self.stages.info
        if info is None:
            assert self.stages.predictions is not None
            return {"predictions": self.stages.predictions.digest}
        return {**model_key(info), **self.stages.how()}

    def facts(self) -> dict[str, Any]:
        """What the manifest tells of the run: no time, host or path."""
        stages = self.stages
        return {
            **self._model_facts(),
            "head": stages.head.name,
            f"{stages.kind}_digest": stages.data.digest,
            "splits_digest": None if self.splits is None else self.splits.digest,
            "split": None if stages.split is None else list(stages.split.names),
            "cautions": self.cautions(),
            "table_schema": " ".join(map(str, stages.table)),
            "use": "research use only; not a medical device",
        }

    def _model_facts(self) -> dict[str, Any]:
        if self.stages.info is not None:
            return model_facts(self.stages.info)
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
        store.put(CARD, self._card(found).encode())
        return {METRICS: table.num_rows, METRICS_JSON: -1, CARD: -1}

    def _card(self, found: Evaluation) -> str:
        stages = self.stages
        return _evaluation_card.card(
            found.judged,
            found.figures,
            self.facts(),
            noun=stages.noun,
            set_digest=stages.data.digest,
            drawn=found.drawn,
        )

    def evaluation(self, parts: Parts) -> Evaluation:
        """All figures, computed once."""
        if self._evaluation is None:
            judged = judged_of(
                parts.tables(), self.stages, self.options.audit, cluster=self.cluster, splits=self.splits
            )
            has_classes = judged.kind in ("classes", "positions", "objects")
            self._evaluation = Evaluation(
                judged,
                evaluate(judged, self.options.bootstrap),
                () if judged.kind in ("numbers", "objects") else reliability(judged),
                confusion(judged).tolist() if has_classes else None,
                drawn_text(judged.clusters, self.cluster, self.splits, noun=self.stages.noun),
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
                drawn=found.drawn,
                noun=self.stages.noun,
            )
            content = {"evaluation": found.to_dict(), "provenance": provenance, "timings": times}
            return Report(_evaluation_report.render(page, provenance, times), content)

        return make

    def _provenance(self, run: Run, totals: Totals) -> dict[str, Any]:
        stages = self.stages
        former = stages.predictions
        return {
            "result_key": run.result_key,
            "model": self._model_facts() if stages.info is None else model_entry(stages.info),
            **({} if former is None else {"predictions": {"path": former.uri, "digest": former.digest}}),
            stages.kind: {"path": stages.data.uri, "digest": stages.data.digest},
            "splits": None
            if stages.split is None or self.splits is None
            else {"path": stages.split.path, "sha256": self.splits.digest, "fold": stages.split.fold},
            "notes": dict(totals.notes),
            "versions": noted_versions(),
            "command": self.options.command,
        }


def judged_of(
    parts: Iterable[pa.Table],
    stages: Stages,
    audit: Sequence[str],
    *,
    cluster: str | None,
    splits: SplitTable | None,
) -> AnyJudged:
    """The scored rows of the parts, with truth, groups and clusters.

    Raises:
        InputError: none is scored.
    """
    column = column_of(cluster)
    wanted = sorted({*audit, *([column] if column else [])})
    taken, columns = [], []
    for table in parts:
        scored = table.filter(pc.equal(table["state"], states.SCORED))
        if scored.num_rows:
            taken.append(stages.taken(scored))
            columns.append(scored.select(wanted))
    if not taken:
        what = "no row is judged: none of the set has a truth and an output"
        raise InputError(what, where=stages.data.uri, fix="rejects/ in the output and the split say why")
    kept = pa.concat_tables(columns)
    groups = {name: _group_values(kept[name], name) for name in audit}
    clusters = None if column is None else clusters_by(cluster, kept[column].to_pylist(), splits)
    return stages.judged(taken, groups, clusters)


def _group_values(column: pa.ChunkedArray, name: str) -> list[str | None]:
    values: list[Any] = column.to_pylist()
    if name not in QUARTERED:
        return [None if value is None else str(value) for value in values]
    bins = iter(quarters(np.array([value for value in values if value is not None], np.int64)))
    return [None if value is None else next(bins) for value in values]


def _reasons(parts: Iterable[pa.Table]) -> dict[tuple[str, str | None], int]:
    """Rows by state and reason."""
    found: dict[tuple[str, str | None], int] = {}
    for table in parts:
        for pair in zip(table["state"].to_pylist(), table["reason"].to_pylist(), strict=True):
            found[pair] = found.get(pair, 0) + 1
    return found
