"""An explanation as the two stages that an executor runs: read and encode, then attributions and motif hits.

Columns of an explained channel, NAME as engine/scoring/_prediction_columns.py has it:

    NAME                  the explained number
    NAME_baseline         the same of the baseline, the mean over several; null for mutagenesis
    NAME_error            sum of the contributions less the difference of both; null for mutagenesis
    NAME_contributions    what the letter at each position contributes

Shape letters: N records of a shard, K explained channels, A letters, L positions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.errors import SystemFailure
from engine.genome.windows import reverse_complement
from engine.interpret import deeplift, integrated_gradients, motifs, mutagenesis
from engine.interpret._attribution import Attribution
from engine.interpret._attribution_store import PAST_END, StoreShape
from engine.interpret._baselines import Baseline
from engine.interpret._chosen_rows import Chosen, ChosenRows
from engine.interpret._target import Question, Target, letters_of
from engine.io import parquet
from engine.io.motif_files import Motif
from engine.io.source import Shard
from engine.runtime.stages import ShardOutput
from engine.scoring._memory import full_memory
from engine.scoring._predict_stages import (
    KEPT_COLUMNS,
    WEIGHT,
    BatchReader,
    PredictStages,
    SequenceBatch,
    Skipped,
    rows_table,
    shard_output,
)
from engine.scoring._prediction_columns import value_column
from schemas import states, tables

HITS = "motif_hits"
METHODS = {
    "mutagenesis": mutagenesis.RESULT_VERSION,
    "integrated_gradients": integrated_gradients.RESULT_VERSION,
    "deeplift": deeplift.RESULT_VERSION,
}


@dataclass(frozen=True)
class Method:
    """How attributions are made.

    Attributes:
        name: one of METHODS.
        baseline: what sequences are compared with; of no use to mutagenesis.
        steps: points of the quadrature of integrated gradients.
    """

    name: str
    baseline: Baseline = field(default_factory=Baseline)
    steps: int = 32


@dataclass(frozen=True, eq=False)
class MotifSearch:
    """Attributes:
    motifs: to look for.
    p_value: highest of a hit.
    digest: sha256 of their file.
    """

    motifs: tuple[Motif, ...]
    p_value: float
    digest: str


@dataclass(frozen=True)
class ExplainStages:
    """Everything both stages need; picklable, opened once per process.

    Attributes:
        model: the set, the model, its head and device.
        question: what is explained.
        method: how.
        chosen: the rows.
        shape: of the arrays they are written to.
        search: known motifs, where some are given.
    """

    model: PredictStages
    question: Question
    method: Method
    chosen: Chosen
    shape: StoreShape
    search: MotifSearch | None = None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The explained channels as columns name them."""
        head = self.model.info.heads[self.question.head]
        return tuple(value_column(head, channel) for channel in self.question.channels)

    @property
    def has_baseline(self) -> bool:
        """Whether the method compares."""
        return self.method.name != "mutagenesis"

    def schema(self) -> pa.Schema:
        """Columns of the table."""
        made = []
        for name in self.names:
            made += [
                tables.field(name, pa.float32(), f"the explained number, on the scale {self.question.scale}"),
                tables.field(f"{name}_baseline", pa.float32(), "the same of the baseline, the mean over several"),
                tables.field(f"{name}_error", pa.float32(), "sum of contributions less the difference of both"),
                tables.field(f"{name}_contributions", pa.list_(pa.float32()), "of the letter at each position"),
            ]
        return pa.schema([*tables.PREDICTIONS, *tables.EXPLANATIONS, *made])

    def source(self) -> ChosenRows:
        """The chosen rows as a plannable input."""
        columns = [*KEPT_COLUMNS, "sequence", "state"]
        return ChosenRows(self.model.sequences, self.chosen, columns, weight=WEIGHT)

    def open_reader(self) -> Callable[[Shard], tuple[Shard, SequenceBatch]]:
        """See runtime.stages.Stages."""
        model, check = self.model, self.model.token_check()
        limits = limits_of(model, self.question)
        return _Reader(BatchReader(self.source(), model.encoder(), limits, token_check=check))

    def open_scorer(self) -> Callable[[tuple[Shard, SequenceBatch]], ShardOutput]:
        """See runtime.stages.Stages."""
        return ShardExplainer(self, self.target())

    def target(self) -> Target:
        """The model, loaded and ready for the method."""
        target = Target(
            self.model.info, self.question, device=self.model.device, micro_batch=self.model.micro_batch
        )  # fmt: skip
        if target.device.type == "cpu":
            # Equal bytes are promised for one intra-op thread, whoever started this process.
            import torch

            torch.set_num_threads(1)
        if self.has_baseline:
            target.soften()
        if self.method.name == "deeplift":
            deeplift.check(target)
        return target

    def explain(self, target: Target, tokens_L: NDArray[np.uint8], record: int) -> Attribution:
        """Attributions of one sequence.

        Raises:
            SystemFailure: memory does not suffice.
        """
        found = self._attributed(target, tokens_L, record)
        if not self.question.both_strands:
            return found
        return found.averaged(self._attributed(target.mirrored(), reverse_complement(tokens_L), record))

    def _attributed(self, target: Target, tokens_L: NDArray[np.uint8], record: int) -> Attribution:
        method = self.method
        try:
            if method.name == "mutagenesis":
                return mutagenesis.attribute(target, tokens_L)
            if method.name == "deeplift":
                return deeplift.attribute(target, tokens_L, record=record, baseline=method.baseline)
            return integrated_gradients.attribute(
                target, tokens_L, record=record, baseline=method.baseline, steps=method.steps
            )
        except RuntimeError as error:
            reason = full_memory(error)
            if reason is None:
                raise
            what = f"a sequence of {len(tokens_L):,} letters does not fit into memory beside its baselines ({reason})"
            fix = "use a smaller --micro-batch, fewer baselines, or a device with more memory"
            raise SystemFailure(what, where=f"record {record}", fix=fix) from error


@dataclass(frozen=True)
class _Reader:
    """A shard's rows, with the shard."""

    read: BatchReader

    def __call__(self, shard: Shard) -> tuple[Shard, SequenceBatch]:
        return shard, self.read(shard)


class ShardExplainer:
    """Builds everything a shard leaves: rows, rejects, its shard of the arrays, and its motif hits.

    Args:
        stages: what is asked.
        target: the loaded model.
    """

    def __init__(self, stages: ExplainStages, target: Target) -> None:
        self._stages, self._target = stages, target
        search = stages.search
        self._scanner = None if search is None else motifs.Scanner(search.motifs, p_value=search.p_value)
        unknown = b"N" if len(target.letters) == 4 else b"X"
        self._text = np.frombuffer(target.letters.encode().ljust(256, unknown), np.uint8)

    def __call__(self, given: tuple[Shard, SequenceBatch]) -> ShardOutput:
        shard, batch = given
        skipped, found = dict(batch.skipped), {}
        records = batch.columns["record"].to_pylist()
        for row in batch.tokens:
            one = self._stages.explain(self._target, batch.single(row), records[row])
            if np.isfinite(one.values).all() and np.isfinite(one.output).all() and np.isfinite(one.contributions).all():
                found[row] = one
            else:
                sentence = "the model gave NaN or infinity for this sequence, a mutant of it or its baseline"
                skipped[row] = Skipped(states.REJECTED, "model_output_not_finite", sentence)
        table = self._table(batch, found, skipped, first=shard.first_record)
        files = self._stages.shape.shard_files(shard.shard, *self._arrays(batch, found))
        if self._scanner is not None:
            files[hits_part(shard.shard)] = _parquet_bytes(self._hits(batch, found, records))
        made = shard_output(table, skipped, ids=batch.columns["id"], notes={})
        return replace(made, files=files)

    def _table(
        self, batch: SequenceBatch, found: Mapping[int, Attribution], skipped: Mapping[int, Skipped], *, first: int
    ) -> pa.Table:
        rows = range(batch.columns.num_rows)
        texts = [self._text[batch.tokens[row]].tobytes().decode() if row in found else None for row in rows]
        columns: list[Any] = [
            pa.array(np.arange(first, first + len(rows), dtype=np.int64)),
            pa.array(texts, pa.string()),
        ]
        for place in range(len(self._stages.names)):
            for what in ("output", "baseline", "error"):
                columns.append(pa.array([_number(found.get(row), what, place) for row in rows], pa.float32()))
            values = [found[row].contributions[place] if row in found else None for row in rows]
            columns.append(pa.array(values, pa.list_(pa.float32())))
        return rows_table(batch.columns, skipped, columns, self._stages.schema())

    def _arrays(
        self, batch: SequenceBatch, found: Mapping[int, Attribution]
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        shape, num = self._stages.shape, batch.columns.num_rows
        values = np.full((num, shape.outputs, shape.letters, shape.length), np.nan, np.float32)
        letters = np.full((num, shape.length), PAST_END, np.uint8)
        for row, one in found.items():
            values[row, :, :, : one.values.shape[2]] = one.values
            letters[row, : len(batch.tokens[row])] = batch.single(row)
        return values, letters

    def _hits(self, batch: SequenceBatch, found: Mapping[int, Attribution], records: list[int]) -> pa.Table:
        assert self._scanner is not None
        names, made = batch.columns["id"].to_pylist(), []
        for row, one in sorted(found.items()):
            hits = self._scanner.hits(batch.single(row))
            for place, output in enumerate(self._stages.names):
                signed = one.contributions[place].astype(np.float64)
                sums: dict[int, NDArray[np.float64]] = {}
                for hit in hits:
                    motif = self._scanner.motifs[hit.motif]
                    end = hit.start + motif.width
                    if motif.width not in sums:
                        sums[motif.width] = motifs.window_sums(np.abs(signed), motif.width)
                    rank = motifs.rank(sums[motif.width], hit.start)
                    told = (records[row], names[row], output, motif.id, motif.name, hit.start, end)
                    scored = ("-" if hit.is_reverse else "+", hit.score, hit.p_value)
                    made.append((*told, *scored, float(signed[hit.start : end].sum()), rank.value, rank.variance))
        columns = list(zip(*made, strict=True)) if made else [()] * len(tables.MOTIF_HITS)
        kinds = zip(columns, tables.MOTIF_HITS, strict=True)
        return pa.Table.from_arrays([pa.array(list(one), kind.type) for one, kind in kinds], schema=tables.MOTIF_HITS)


def _number(one: Attribution | None, what: str, place: int) -> float | None:
    if one is None:
        return None
    value = float((one.error() if what == "error" else getattr(one, what))[place])
    return None if np.isnan(value) else value


def hits_part(shard: int) -> str:
    """The motif hits of a shard."""
    return f"{HITS}/{shard // 1000:03d}/part-{shard:06d}.parquet"


def _parquet_bytes(table: pa.Table) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hits.parquet"
        parquet.write_table(table, path, schema_name="motif_hits", version=tables.MOTIF_HITS_VERSION)
        return path.read_bytes()


def limits_of(model: PredictStages, question: Question) -> tuple[int, int | None]:
    """Letters that a sequence has at least and at most."""
    shortest, longest = model.limits()
    if model.info.heads[question.head].level == "sequence":
        return shortest, longest
    return max(shortest, question.fewest_outputs + model.info.context_bp), longest


def store_shape(
    model: PredictStages, question: Question, chosen: Chosen, *, records_per_shard: int, letters_per_shard: int
) -> StoreShape:
    """The arrays that the chosen rows need: as long as the longest that the model takes."""
    shortest, longest = limits_of(model, question)
    fits = chosen.lengths[(chosen.lengths >= shortest) & (chosen.lengths <= (longest or np.iinfo(np.int64).max))]
    return StoreShape.of(
        outputs=len(question.channels),
        letters=len(letters_of(model.info)),
        length=int(fits.max()) if len(fits) else 1,
        records=min(records_per_shard, len(chosen.rows)),
        letters_per_shard=letters_per_shard,
    )
