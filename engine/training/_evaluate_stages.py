"""An evaluation as the two stages that an executor runs: the rows to judge, and the model's outputs or former ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.errors import DataError, InputError
from engine.io.source import Shard
from engine.models._info import HeadInfo, ModelInfo
from engine.runtime.stages import ShardOutput
from engine.scoring._finished_rows import FinishedRows, RowSource
from engine.scoring._predict_job import RESULT_VERSION as PREDICT_VERSION
from engine.scoring._predict_stages import (
    KEPT_COLUMNS,
    PAIR_COLUMNS,
    WEIGHT,
    BatchReader,
    BatchScorer,
    PredictStages,
    SequenceBatch,
    Skipped,
    not_kept,
    rows_table,
    shard_output,
)
from engine.scoring._prediction_columns import columns_of, has_letters, value_column
from engine.training._evaluation import AnyJudged, Judged, Kind, kind_of
from engine.training._position_evaluation import TRUTH as POSITION_TRUTH
from engine.training._position_evaluation import counted, joined, odd_positions
from engine.training._sequence_set import SequenceSet
from engine.training._split_table import SplitTable
from engine.training.tasks.position_classification import UNKNOWN
from schemas import states, tables

TRUTH_COLUMNS = tuple(one.name for one in tables.TRUTHS)
AUDITED = ("group", "label", "contig", "strand", "length", "id")
Groups = Mapping[str, Sequence[str | None]]


@dataclass(frozen=True)
class ChosenSplit:
    """The rows that are judged.

    Attributes:
        path: split file.
        names: which splits, such as "test".
        fold: the fold whose held-out rows are called "validation"; None takes the file's own.
    """

    path: str
    names: tuple[str, ...]
    fold: int | None = None

    def load(self, digest: str) -> SplitTable:
        """The split of every record of the set with this digest; see SplitTable.load."""
        return SplitTable.load(self.path, SequenceSet(self.path, (), digest))


def truth_column(head: HeadInfo) -> str | None:
    """Which column of a set holds the truth of a head; None for objects, which are told apart by masks."""
    kind = kind_of(head)
    if kind in ("positions", "classes"):
        return POSITION_TRUTH if kind == "positions" else "label"
    if kind == "objects":
        return None
    return "target" if len(head.channels) == 1 else "targets"


def truths(column: Any, head: HeadInfo) -> NDArray[Any]:
    """(N,) int64 number of the class, or (N, K) float64, of rows that `odd_truth` finds nothing in."""
    if kind_of(head) == "classes":
        number = {name: place for place, name in enumerate(head.channels)}
        return np.array([number[name] for name in column.to_pylist()], np.int64)
    values = [value if isinstance(value, list) else [value] for value in column.to_pylist()]
    return np.array(values, np.float64).reshape(len(values), len(head.channels))


def odd_truth(value: Any, head: HeadInfo) -> tuple[str, str] | None:
    """Reason code and sentence where a row cannot be judged by this truth."""
    kind: Kind = kind_of(head)
    if kind == "positions":
        return odd_positions(value, head)
    if kind == "classes":
        if value is None:
            return "missing_label", "the record has no label"
        if value not in head.channels:
            known = ", ".join(head.channels[:20])
            return "unknown_label", f"label {value!r}, the model's classes are {known}"
        return None
    numbers = value if isinstance(value, list) else [value]
    if value is None or None in numbers:
        return "missing_target", "the record has no target"
    wanted = len(head.channels)
    if len(numbers) != wanted:
        return "bad_target", f"{len(numbers)} targets, the model's head {head.name} has {wanted} channels"
    if not np.isfinite(numbers).all():
        return "bad_target", f"target {value!r} is no finite number"
    if kind == "labels" and not set(numbers) <= {0.0, 1.0}:
        return "bad_target", f"target {value!r}, wanted are 0 and 1"
    return None


@dataclass(frozen=True)
class RowChoice:
    """Which rows of a table are judged.

    Attributes:
        head: whose truth they need.
        splits: the split of every record; None judges all.
        names: the splits that are judged.
        fold: as ChosenSplit has it.
    """

    head: HeadInfo
    splits: SplitTable | None
    names: tuple[str, ...]
    fold: int | None

    def __call__(self, table: pa.Table) -> dict[int, Skipped]:
        """Why each of the other rows is not."""
        skipped = not_kept(table)
        skipped |= {row: one for row, one in self._others(table, set(skipped)).items() if row not in skipped}
        column = truth_column(self.head)
        for row, value in enumerate(() if column is None else table[column].to_pylist()):
            odd = None if row in skipped else odd_truth(value, self.head)
            if odd is not None:
                skipped[row] = Skipped(states.REJECTED, *odd)
        return skipped

    def _others(self, table: pa.Table, left_out: set[int]) -> dict[int, Skipped]:
        if self.splits is None:
            return {}
        rows = [row for row in range(table.num_rows) if row not in left_out]
        records = table["record"].to_numpy()[rows]
        names = self.splits.of(records, fold=self.fold, where="the set")
        return {
            row: Skipped(states.NOT_APPLICABLE, "other_split", f"the record is in the split {name}")
            for row, name in zip(rows, names.tolist(), strict=True)
            if name not in self.names
        }


@dataclass(frozen=True)
class EvaluateStages:
    """Everything both stages need; picklable, opened once per process.

    Attributes:
        sequences: the labelled set.
        head: the judged one.
        model: what gives its outputs; None where `predictions` does.
        predictions: a finished run of the job predict over the same set.
        split: the rows to judge; None judges all.
    """

    sequences: FinishedRows
    head: HeadInfo
    model: PredictStages | None = None
    predictions: FinishedRows | None = None
    split: ChosenSplit | None = None

    kind = "sequences"
    table = ("evaluation_rows", tables.PREDICTIONS_VERSION)
    predict_version = PREDICT_VERSION

    @property
    def data(self) -> FinishedRows:
        """The labelled set."""
        return self.sequences

    @property
    def info(self) -> ModelInfo | None:
        """The model's description; None where former predictions are judged."""
        return None if self.model is None else self.model.info

    def check(self) -> None:
        """Refuse what does not go together; loads no weights. Raises InputError."""
        if self.model is not None:
            self.model.check()
        told, held = list(self.head.channels), self._target_names()
        if held != told and sorted(held) == sorted(told):
            what = f"the set's targets are {', '.join(held)}, and the head {self.head.name} tells {', '.join(told)}"
            raise InputError(what, where=self.sequences.uri, fix="ingest them in the head's order, by --targets")

    def cautions(self) -> list[str]:
        """What may make the truth another than what the head tells."""
        told, held = self.head.channels, self._target_names()
        # Numbers for names are of a set that did not name its targets.
        if not held or list(told) == held or told == (self.head.name,) or all(one.isdigit() for one in told):
            return []
        return [f"the set calls {', '.join(held[:5])} what the head calls {', '.join(told[:5])}: they may differ"]

    def _target_names(self) -> list[str]:
        """Names of the columns of truth, where those are targets and the set names them."""
        if truth_column(self.head) not in ("target", "targets"):
            return []
        return list(self.sequences.facts.get(tables.TARGET_NAMES, []))

    def how(self) -> dict[str, Any]:
        """What of the model's work can change a figure."""
        model = self.model
        assert model is not None
        names = ("device", "precision", "micro_batch", "both_strands")
        return {name: getattr(model, name) for name in names}

    @property
    def is_pairs(self) -> bool:
        """Whether the set holds pairs."""
        return "second_alphabet" in self.sequences.facts

    @property
    def noun(self) -> str:
        """What a row is called, in the plural."""
        return "pairs" if self.is_pairs else "sequences"

    @property
    def holds(self) -> str:
        """What the set holds."""
        return "pairs" if self.is_pairs else "single sequences"

    def audit_columns(self) -> tuple[str, ...]:
        """Columns of the set that figures may be given apart by."""
        return (*AUDITED, *(PAIR_COLUMNS if self.is_pairs else ()))

    def taken(self, table: pa.Table) -> Any:
        """What is kept for the figures of scored rows of `schema`."""
        if self.head.level == "position":
            return counted(table, self.head)
        return values_of(table, self.head), truths(table[str(truth_column(self.head))], self.head)

    def judged(self, taken: Sequence[Any], groups: Groups, clusters: NDArray[np.int64] | None) -> AnyJudged:
        """Rows of several tables, from what `taken` kept of each."""
        if self.head.level == "position":
            return joined(self.head, taken, groups, clusters)
        values, truth = (np.concatenate(parts) for parts in zip(*taken, strict=True))
        censored = self.censored_at()
        return Judged(self.head, values, truth, groups, clusters, ranks_pairs=self.is_pairs, censored_at=censored)

    def schema(self) -> pa.Schema:
        """Columns of the table: PREDICTIONS, what tells pairs apart, the truth, those of the head."""
        more = [tables.SEQUENCES.field(name) for name in self.more_columns()]
        context_bp = 0 if self.model is None else self.model.info.context_bp
        return pa.schema([*tables.PREDICTIONS, *more, *columns_of(self.head, context_bp)])

    def more_columns(self) -> list[str]:
        """Columns of the set that are kept beside those of every prediction."""
        positions = [POSITION_TRUTH] if self.head.level == "position" else []
        return [*(PAIR_COLUMNS if self.is_pairs else ()), *TRUTH_COLUMNS, *positions]

    def source(self) -> RowSource:
        """The set as a plannable input."""
        read = ["sequence", "second"] if self.model is not None and self.model.reads_pairs else ["sequence"]
        return RowSource(self.sequences, [*KEPT_COLUMNS, *self.more_columns(), *read, "state"], weight=WEIGHT)

    def censored_at(self) -> float | None:
        """Of a model of pairs: the number that stands for nothing seen."""
        task = None if self.model is None else self.model.info.extra.get("task")
        known = task[1] if isinstance(task, list) and len(task) == 2 and isinstance(task[1], dict) else {}
        value = known.get("censored_at")
        return float(value) if isinstance(value, int | float) else None

    def choice(self) -> RowChoice:
        """Which rows are judged; reads the split file."""
        if self.split is None:
            return RowChoice(self.head, None, (), None)
        return RowChoice(self.head, self.split.load(self.sequences.digest), self.split.names, self.split.fold)

    def open_reader(self) -> Callable[[Shard], Any]:
        """See runtime.stages.Stages."""
        if self.model is not None:
            model = self.model
            check = model.token_check()
            return BatchReader(self.source(), model.encoder(), model.limits(), self.choice(), token_check=check)
        assert self.predictions is not None
        names = [one.name for one in columns_of(self.head)]
        former = RowSource(self.predictions, ["record", "state", "reason", *names], weight=WEIGHT)
        return FormerReader(self.source(), former, self.choice(), names)

    def open_scorer(self) -> Callable[[Any], ShardOutput]:
        """See runtime.stages.Stages."""
        if self.model is None:
            return FormerScorer(self.schema(), len(columns_of(self.head)))
        return BatchScorer(self.model.answerer(), [self.head], self.schema())


@dataclass(frozen=True)
class FormerReader:
    """Rows of a set beside what a former run predicted for them.

    Attributes:
        source, former: the set, and the predictions.
        choice: which rows are judged.
        names: columns of the head.
    """

    source: RowSource
    former: RowSource
    choice: RowChoice
    names: list[str]

    def __call__(self, shard: Shard) -> SequenceBatch:
        """All columns in one table, without anything for the model to do."""
        table, found = self.source.read(shard), self.former.read(shard)
        if not table["record"].equals(found["record"]):
            what = "the predictions are of other records than the set"
            raise DataError(what, where=self.former.rows.uri, fix="predict this set")
        skipped = self.choice(table)
        for row, (state, reason) in enumerate(
            zip(found["state"].to_pylist(), found["reason"].to_pylist(), strict=True)
        ):
            if row not in skipped and state != states.SCORED:
                skipped[row] = Skipped(state, reason, f"the predictions have none for this record: {reason}")
        columns = table.drop_columns(["sequence", "state"])
        for name in self.names:
            columns = columns.append_column(name, found[name])
        return SequenceBatch(columns, {}, skipped)


@dataclass(frozen=True)
class FormerScorer:
    """Builds the table of a shard from predictions that are there, the last `num` columns of the schema."""

    schema: pa.Schema
    num: int

    def __call__(self, batch: SequenceBatch) -> ShardOutput:
        kept = pa.array([row not in batch.skipped for row in range(batch.columns.num_rows)])
        names = self.schema.names[len(self.schema.names) - self.num :]
        arrays = [
            pc.if_else(kept, batch.columns[name].combine_chunks(), pa.scalar(None, self.schema.field(name).type))
            for name in names
        ]
        table = rows_table(batch.columns, batch.skipped, arrays, self.schema)
        return shard_output(table, batch.skipped, ids=batch.columns["id"], notes={})


def values_of(table: pa.Table, head: HeadInfo) -> NDArray[np.float64]:
    """(N, K) of the head's channels."""
    columns = [table[value_column(head, one)].to_numpy().astype(np.float64) for one in head.channels]
    return np.stack(columns, axis=1)


def head_of_facts(facts: Mapping[str, Any], name: str | None, *, where: str) -> HeadInfo:
    """The judged head as the manifest of a prediction tells it; see `chosen_head`."""
    return chosen_head([HeadInfo(**one) for one in facts["heads"]], name, where=where)


def chosen_head(heads: list[HeadInfo], name: str | None, *, where: str, letters: str = "") -> HeadInfo:
    """The head of this name, or the only one.

    Args:
        heads: of the model.
        name: of one of them; None where there is one.
        where: for errors.
        letters: of a head that tells classes of positions by longer names: one for each, its channels from here on.

    Raises:
        InputError: no such head, several and none named, one with values of positions that are no classes, or letters
            that are not one for each class.
    """
    known = ", ".join(one.name for one in heads)
    if name is None and len(heads) > 1:
        raise InputError("there are several heads", where=where, fix=f"name the judged one: {known}")
    found = next((one for one in heads if name in (None, one.name)), None)
    if found is None:
        raise InputError(f"there is no head {name!r}", where=where, fix=f"it has: {known}")
    if letters:
        return _lettered(found, letters, where)
    if found.level == "position" and not has_letters(found):
        what = f"head {found.name!r} has a value for every position, yet not of classes named by one letter each"
        fix = "judge a head for the whole sequence, or one that tells letters"
        if found.activation == "softmax":
            fix = f"give the letters of {', '.join(found.channels)} in position_labels, by --letters"
        raise InputError(what, where=where, fix=fix)
    return found


def _lettered(head: HeadInfo, letters: str, where: str) -> HeadInfo:
    """The head with letters for the names of its classes."""
    names = ", ".join(head.channels)
    if head.level != "position" or head.activation != "softmax":
        what = f"letters are given, and head {head.name!r} tells no class of each position"
        raise InputError(what, where=where, fix="leave letters out, or name another head")
    if len(set(letters)) != len(letters) or len(letters) != len(head.channels) or UNKNOWN in letters:
        what = f"letters {letters!r} for the classes {names}"
        raise InputError(what, where="letters", fix=f"give a letter for each, none twice and none {UNKNOWN!r}")
    made = replace(head, channels=tuple(letters))
    if not has_letters(made):
        raise InputError(f"letters {letters!r} hold one that cannot be written", where="letters", fix="use A to Z")
    return made
