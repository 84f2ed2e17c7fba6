"""Prediction over a sequence set as the two stages that an executor runs: read and encode, then the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine import registry
from engine.errors import InputError
from engine.io.source import Shard
from engine.models._info import HeadInfo, ModelInfo, open_model
from engine.runtime.stages import ShardOutput
from engine.scoring._finished_rows import FinishedRows, RowSource
from engine.scoring._prediction_columns import Values, head_arrays, head_fields
from schemas import states, tables

if TYPE_CHECKING:
    from engine.scoring._predictor import Predictor

Tokens = NDArray[np.uint8]
Outputs = dict[str, Values]
# Columns of a sequence set that every row of predictions keeps; `state` and `reason` are then its own.
KEPT_COLUMNS = tuple(name for name in tables.PREDICTIONS.names if name not in ("state", "reason"))
# What rows of pairs keep beside.
PAIR_COLUMNS = ("second_id",)
WEIGHT = "length"


@dataclass(frozen=True, slots=True)
class Skipped:
    """Why a row has no prediction."""

    state: str
    reason: str
    sentence: str


Skips = Mapping[int, Skipped]


@dataclass(frozen=True)
class SequenceBatch:
    """A shard's rows as the model stage takes them; picklable.

    Attributes:
        columns: what the output keeps of the set, all rows in order.
        tokens: of the rows to predict, by row; of a pair those of both members.
        skipped: why the others are not predicted, by row; with `tokens` disjoint and complete.
    """

    columns: pa.Table
    tokens: Mapping[int, Any]
    skipped: Skips

    def single(self, row: int) -> Tokens:
        """Tokens (L,) of a row of a set that holds no pairs."""
        return cast("Tokens", self.tokens[row])


@dataclass(frozen=True)
class PredictStages:
    """Everything both stages need; picklable, opened once per process.

    Attributes:
        sequences: the set.
        model: zoo name or model folder.
        heads: which; all where empty.
        both_strands: average over both strands.
        device, precision, micro_batch: of the model, as engine.scoring._predictor.Predictor has them.
    """

    sequences: FinishedRows
    model: str
    heads: tuple[str, ...] = ()
    both_strands: bool = False
    device: str = "cpu"
    precision: str = "fp32"
    micro_batch: int = 64

    @cached_property
    def info(self) -> ModelInfo:
        """The model's description, opened once: that hashes its weights."""
        return open_model(self.model)

    @property
    def reads_pairs(self) -> bool:
        """Whether the model takes pairs."""
        return reads_pairs(self.info)

    @property
    def kept(self) -> tuple[str, ...]:
        """Columns of the set that every row of predictions keeps."""
        return (*KEPT_COLUMNS, *(PAIR_COLUMNS if self.reads_pairs else ()))

    @property
    def wanted(self) -> tuple[str, ...]:
        """Names of the heads, checked by `check`."""
        return self.heads or tuple(self.info.heads)

    def check(self) -> None:
        """Refuse what does not go together; loads no weights.

        Raises:
            InputError: a model of images, an unknown head, letters that the encoder does not read, strands that cannot
                be averaged.
        """
        where = f"model {self.info.name}"
        if kind_of(self.info) == "images":
            fix = "use it in the job predict-images, on a set of images"
            raise InputError("the model takes images, not sequences", where=where, fix=fix)
        for name in self.wanted:
            if name not in self.info.heads:
                fix = f"it has: {', '.join(self.info.heads)}"
                raise InputError(f"model {self.info.name!r} has no head {name!r}", where="heads", fix=fix)
        read = self._checked_letters("alphabet")
        if self.reads_pairs:
            if "second_alphabet" not in self.sequences.facts:
                fix = "make it with --second, or use a model of sequences"
                raise InputError("the set holds no pairs, which the model takes", where=self.sequences.uri, fix=fix)
            self._checked_letters("second_alphabet")
        stranded = [name for name in self.wanted if self.info.heads[name].symmetry == "stranded"]
        if self.both_strands and (read != "dna" or stranded):
            what = f"head {stranded[0]!r} reads one strand only" if stranded else f"{read} has one strand only"
            raise InputError(f"{what} and cannot be averaged over both", where=where, fix="leave both_strands out")

    def _checked_letters(self, which: str) -> str:
        """The letters that the encoder reads, which must be those of the set."""
        read = str(getattr(self.encoder(), which, "dna"))
        held = str(self.sequences.facts.get(which, read))
        # RNA is kept as A, C, G, T.
        if read != held.replace("rna", "dna"):
            what = f"the set holds {held}, the model's encoder {self.info.encoder['name']!r} reads {read}"
            raise InputError(what, where=self.sequences.uri, fix="use a model or a set of the same letters")
        return read

    def encoder(self) -> Any:
        """The model's encoder."""
        made = registry.component("encoders", self.info.encoder["name"])
        return made(registry.build_params(made, self.info.encoder["params"], where=self.info.path))

    def limits(self) -> tuple[int, int | None]:
        """Letters of the shortest and of the longest sequence the model takes; None where there is no longest."""
        made = registry.component("models", self.info.architecture)
        shortest, longest = (getattr(made, name, None) for name in ("least_letters", "most_letters"))
        least = self.info.context_bp + 1
        if shortest is None and longest is None:
            return least, None
        params = registry.build_params(made, self.info.params, where=self.info.path)
        least = least if shortest is None else max(least, shortest(params))
        return least, None if longest is None else longest(params)

    def token_check(self) -> Callable[[Any], str | None] | None:
        """Tells why a sequence of tolerable length has too many tokens; None for a model that takes any."""
        made = registry.component("models", self.info.architecture)
        if not hasattr(made, "token_check"):
            return None
        found: Callable[[Any], str | None] | None = made.token_check(
            registry.build_params(made, self.info.params, where=self.info.path)
        )
        return found

    def schema(self) -> pa.Schema:
        """Columns of the table."""
        return pa.schema([*self.row_fields(), *head_fields(self.info, self.wanted)])

    def row_fields(self) -> list[pa.Field]:
        """Columns of the table before those of the heads."""
        more = [tables.SEQUENCES.field(name) for name in PAIR_COLUMNS] if self.reads_pairs else []
        return [*tables.PREDICTIONS, *more]

    def read_columns(self) -> list[str]:
        """Columns of the set that are read."""
        return [*self.kept, "sequence", *(["second"] if self.reads_pairs else []), "state"]

    def source(self) -> RowSource:
        """The set as a plannable input."""
        return RowSource(self.sequences, self.read_columns(), weight=WEIGHT)

    def open_reader(self) -> Callable[[Shard], SequenceBatch]:
        """See runtime.stages.Stages."""
        return BatchReader(self.source(), self.encoder(), self.limits(), token_check=self.token_check())

    def open_scorer(self) -> Callable[[SequenceBatch], ShardOutput]:
        """See runtime.stages.Stages."""
        return BatchScorer(self.answerer(), [self.info.heads[name] for name in self.wanted], self.schema())

    def answerer(self) -> Answerer:
        """The model, loaded."""
        predictor = open_predictor(
            self.info, device=self.device, precision=self.precision, micro_batch=self.micro_batch
        )
        return Answerer(predictor, self.wanted, self.both_strands)


def reads_pairs(info: ModelInfo) -> bool:
    """Whether a model takes pairs."""
    return kind_of(info) == "pairs"


def kind_of(info: ModelInfo) -> str:
    """What a model takes: "sequences", "pairs" or "images"."""
    return str(getattr(registry.component("models", info.architecture), "kind", "sequences"))


def open_predictor(info: ModelInfo, *, device: str, precision: str, micro_batch: int) -> Predictor:
    """A model, loaded, that answers windows, or pairs, in full."""
    from engine.scoring._pair_predictor import PairPredictor
    from engine.scoring._predictor import Predictor

    cls = PairPredictor if reads_pairs(info) else Predictor
    predictor = cls(info, device=device, precision=precision, micro_batch=micro_batch, incremental=False)
    if predictor.device.type == "cpu":
        # Equal bytes are promised for one intra-op thread, whoever started this process.
        import torch

        torch.set_num_threads(1)
    return predictor


def not_kept(columns: pa.Table) -> dict[int, Skipped]:
    """The rows that the ingest rejected."""
    sentence = "the ingest rejected this record"
    rows = np.flatnonzero(np.asarray(columns["state"].to_pylist()) != states.KEPT)
    return {row: Skipped(states.NOT_APPLICABLE, "not_kept", sentence) for row in rows.tolist()}


@dataclass(frozen=True)
class BatchReader:
    """Reads the rows of a shard and encodes those that the model takes.

    Attributes:
        source: the set.
        encoder: letters to tokens.
        limits: letters of the shortest and of the longest sequence.
        skip: rows that are not asked about; those that the ingest rejected must be among them.
        token_check: as PredictStages has it.
    """

    source: RowSource
    encoder: Any
    limits: tuple[int, int | None]
    skip: Callable[[pa.Table], dict[int, Skipped]] = not_kept
    token_check: Callable[[Any], str | None] | None = None

    def __call__(self, shard: Shard) -> SequenceBatch:
        table = self.source.read(shard)
        skipped = self.skip(table)
        tokens: dict[int, Any] = {}
        texts = [table[name].to_pylist() for name in ("sequence", "second") if name in table.column_names]
        for row, members in enumerate(zip(*texts, strict=True)):
            if row in skipped:
                continue
            odd = self._odd(len(members[0]))
            if odd is None:
                found = self.encoder.encode(*members)
                odd = self._odd_tokens(found)
            if odd is None:
                tokens[row] = found
            else:
                skipped[row] = odd
        left = [name for name in ("sequence", "second", "state") if name in table.column_names]
        return SequenceBatch(table.drop_columns(left), tokens, skipped)

    def _odd(self, length: int) -> Skipped | None:
        shortest, longest = self.limits
        if length < shortest:
            sentence = f"the sequence has {length:,} letters, the model takes {shortest:,} or more"
            return Skipped(states.REJECTED, "too_short", sentence)
        if longest is not None and length > longest:
            sentence = f"the sequence has {length:,} letters, the model takes {longest:,} at most"
            return Skipped(states.REJECTED, "too_long", sentence)
        return None

    def _odd_tokens(self, found: Any) -> Skipped | None:
        sentence = None if self.token_check is None else self.token_check(found)
        return None if sentence is None else Skipped(states.REJECTED, "too_long", sentence)


@dataclass(frozen=True)
class Answerer:
    """A loaded model that is asked for some of its heads."""

    predictor: Predictor
    heads: tuple[str, ...]
    both_strands: bool = False

    def __call__(self, batch: SequenceBatch) -> dict[int, Outputs]:
        """Outputs of the rows to predict, by row."""
        ask: Any = self.predictor.predict_both_strands if self.both_strands else self.predictor.predict
        return dict(zip(batch.tokens, ask(list(batch.tokens.values()), heads=self.heads), strict=True))

    def halved(self) -> int:
        """Batches halved so far, each of which voids the byte promise for its shard."""
        return self.predictor.halved


@dataclass(frozen=True)
class BatchScorer:
    """Builds the rows, rejects and counts of a shard.

    Attributes:
        answer: the model.
        heads: in the order of their columns.
        schema: of the table: PREDICTIONS, further columns that the batch brings, then those of the heads.
    """

    answer: Answerer
    heads: Sequence[HeadInfo]
    schema: pa.Schema

    def __call__(self, batch: SequenceBatch) -> ShardOutput:
        before = self.answer.halved()
        found = self.answer(batch)
        skipped = dict(batch.skipped)
        for row, outputs in found.items():
            odd = next((name for name, values in outputs.items() if not np.isfinite(values).all()), None)
            if odd is not None:
                sentence = f"the model's head {odd} gave NaN or infinity for this sequence"
                skipped[row] = Skipped(states.REJECTED, "model_output_not_finite", sentence)
        num = batch.columns.num_rows
        columns: list[pa.Array] = []
        for head in self.heads:
            columns += head_arrays(head, [None if row in skipped else found[row][head.name] for row in range(num)])
        halved = self.answer.halved() - before
        return shard_output(
            rows_table(batch.columns, skipped, columns, self.schema),
            skipped,
            ids=batch.columns["id"],
            notes={"halved_batches": halved} if halved else {},
        )


def rows_table(columns: pa.Table, skipped: Skips, head_columns: Sequence[Any], schema: pa.Schema) -> pa.Table:
    """The table of a shard: what is kept of the set, state and reason, then the columns of the heads."""
    rows = range(columns.num_rows)
    made = {
        "state": pa.array([skipped[row].state if row in skipped else states.SCORED for row in rows], pa.string()),
        "reason": pa.array([skipped[row].reason if row in skipped else None for row in rows], pa.string()),
    }
    first = schema.names[: len(schema.names) - len(head_columns)]
    arrays = [made[name] if name in made else columns[name] for name in first]
    return pa.Table.from_arrays([*arrays, *head_columns], schema=schema)


def shard_output(table: pa.Table, skipped: Skips, *, ids: Any, notes: Mapping[str, int]) -> ShardOutput:
    """What a shard leaves behind; the rejects are the skipped rows whose state says so."""
    rows = sorted(row for row, one in skipped.items() if one.state == states.REJECTED)
    rejects = {
        "record": table["record"].take(pa.array(rows, pa.int64())),
        "alt_index": pa.array([0] * len(rows), pa.int32()),
        "reason": pa.array([skipped[row].reason for row in rows], pa.string()),
        "sentence": pa.array([skipped[row].sentence for row in rows], pa.string()),
        "text": pa.array([ids[row].as_py() for row in rows], pa.string()),
    }
    return ShardOutput(
        table=table,
        rejects=pa.Table.from_arrays(list(rejects.values()), schema=tables.REJECTS),
        body=None,
        body_rows=0,
        records_in=table.num_rows,
        states=dict(sorted(Counter(table["state"].to_pylist()).items())),
        reasons=dict(sorted(Counter(one.reason for one in skipped.values()).items())),
        notes=notes,
    )
