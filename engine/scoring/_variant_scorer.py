"""The device stage of variant scoring: contrasts through the model, rows finished, tags written into the lines.

Questions go to the predictor in slices of a fixed number of rows, so memory does not grow with the shard and the
same shard always makes the same micro-batches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from engine.io import bgzf
from engine.io.vcf import remove_info, splice_info
from engine.runtime.stages import ShardOutput
from engine.scoring._contract import AlleleRow, InfoField, Scorer, SkippedAllele
from engine.scoring._score_store import COMPUTED, SOURCE_COLUMN
from engine.scoring._variant_reader import Reject, Unit, VariantBatch, reject_text
from engine.scoring.splice_delta import SPLICEAI_FIELD, SpliceDelta
from schemas import tables
from schemas.states import NOT_APPLICABLE, NOT_APPLICABLE_REASONS, REJECTED, SCORED

if TYPE_CHECKING:
    from engine.scoring._predictor import Predictor

SLICE_ROWS = 512
STATE_FIELD = InfoField("RPL_STATE", "A", "String", "scored, not_applicable or rejected")
REASON_FIELD = InfoField("RPL_REASON", "A", "String", "Why an ALT has no score: a reason code, absent where all have")
_TEXT_COLUMNS = [tables.VARIANT_SCORES.get_field_index(n) for n in ("record", "alt_index", "ref", "alt", "gene_symbol")]
_Values = list[tuple[Any, ...] | None]
_Answer = tuple[Any, ...] | SkippedAllele


@dataclass
class VariantScorer:
    """Scores batches; opened once per process.

    Attributes:
        scorer: the component.
        predictor: the model, None where the scorer needs none.
        schema: columns of the table.
        write_vcf: whether lines are written.
        spliceai_info: whether the tag SpliceAI is written.
        replaced: INFO tags of a former run to be taken out of the lines first.
    """

    scorer: Scorer
    predictor: Predictor | None
    schema: pa.Schema
    write_vcf: bool
    spliceai_info: bool
    replaced: frozenset[bytes] = frozenset()

    def __post_init__(self) -> None:
        self._is_narrow = [pa.types.is_float32(one.type) for one in self.scorer.fields]

    def __call__(self, batch: VariantBatch) -> ShardOutput:
        """Rows, rejects and text of a shard."""
        halved = self._halved
        states, reasons, rejects = list(batch.states), list(batch.reasons), list(batch.rejects)
        values: _Values = [None] * len(states)
        for row, (known, _) in batch.known.items():
            values[row] = known
        for begin in range(0, len(batch.units), SLICE_ROWS):
            for row, answer in self._answers(batch, batch.units[begin : begin + SLICE_ROWS]):
                if isinstance(answer, SkippedAllele):
                    states[row], reasons[row] = answer.state, answer.reason
                    rejects.extend(_late_reject(batch, row, answer))
                else:
                    values[row] = self._as_kept(answer)
        rejects.sort(key=lambda one: (one[0], one[1]))
        texts = self._texts(batch, values, states, reasons) if self.write_vcf else []
        troubles = self._troubles(self._halved - halved)
        return ShardOutput(
            table=self._table(batch, values, states, reasons),
            rejects=_rejects_table(rejects),
            body=bgzf.compress(b"".join(texts)) if self.write_vcf else None,
            body_rows=len(texts),
            records_in=len(batch.lines),
            states=dict(sorted(Counter(states).items())),
            reasons=dict(sorted(Counter(reason for reason in reasons if reason is not None).items())),
            notes={**batch.notes, **troubles},
        )

    def _as_kept(self, answer: tuple[Any, ...]) -> tuple[Any, ...]:
        """Values as the table and the score store keep them: text must not tell whether a score was looked up."""
        pairs = zip(answer, self._is_narrow, strict=True)
        return tuple(float(np.float32(value)) if narrow and value is not None else value for value, narrow in pairs)

    @property
    def _halved(self) -> int:
        return 0 if self.predictor is None else self.predictor.halved

    def _troubles(self, halved: int) -> dict[str, int]:
        """What voids the byte promise of a shard."""
        # Refused cones are told in each shard that was scored without them: which those are is up to the process.
        is_refused = self.predictor is not None and bool(self.predictor.refusal)
        return {**({"halved_batches": halved} if halved else {}), **({"cones_refused": 1} if is_refused else {})}

    def _answers(self, batch: VariantBatch, units: Sequence[Unit]) -> list[tuple[int, _Answer]]:
        """The scorer's answer for each row of a slice."""
        if self.predictor is None:
            return [(unit.row, self.scorer.score(unit.prepared, ())) for unit in units]
        questions = [
            (contrast, batch.stretches[stretch])
            for unit in units
            for contrast, stretch in zip(unit.prepared.contrasts, unit.stretches, strict=True)
        ]
        tracks = iter(self.predictor.contrast(questions, heads=self.scorer.heads))
        answers: list[tuple[int, _Answer]] = []
        for unit in units:
            own = [track for held in islice(tracks, len(unit.prepared.contrasts)) for track in held]
            answers.append((unit.row, self.scorer.score(unit.prepared, own)))
        return answers

    def _table(
        self, batch: VariantBatch, values: _Values, states: Sequence[str], reasons: Sequence[str | None]
    ) -> pa.Table:
        width = len(self.scorer.fields)
        empty: tuple[Any, ...] = (None,) * width
        scores = list(zip(*(empty if one is None else one for one in values), strict=True)) or [()] * width
        arrays = [*batch.columns, pa.array(states, pa.string()), pa.array(reasons, pa.string())]
        arrays += [pa.array(column, one.type) for column, one in zip(scores, self.scorer.fields, strict=True)]
        sources = [pa.array(_sources(batch, values), pa.string())] if self.schema.names[-1] == SOURCE_COLUMN else []
        return pa.Table.from_arrays([*arrays, *batch.info_columns, *sources], schema=self.schema)

    def _texts(
        self, batch: VariantBatch, values: _Values, states: Sequence[str], reasons: Sequence[str | None]
    ) -> list[bytes]:
        """Lines with our tags, each ending in a newline; records that do not parse have none."""
        record_of, alt_of, refs, alts, symbols = (batch.columns[at].to_pylist() for at in _TEXT_COLUMNS)
        texts = []
        begin, num_rows = 0, len(states)
        for ordinal, written in enumerate(batch.lines, batch.first_record):
            line = remove_info(written, self.replaced) if written is not None and self.replaced else written
            end = begin + 1
            while end < num_rows and record_of[end] == ordinal:
                end += 1
            if line is not None and alt_of[begin] == 0:
                texts.append(line + b"\n")  # no ALT, so a Number=A tag would have no value to hold
            elif line is not None and end == begin + 1 and values[begin] is None and not self.spliceai_info:
                # Most records of a genome end here.
                texts.append(
                    splice_info(line, f"RPL_STATE={states[begin]};RPL_REASON={reasons[begin]}".encode()) + b"\n"
                )
            elif line is not None:
                alleles: list[list[AlleleRow]] = [[] for _ in range(alt_of[end - 1])]
                for row in range(begin, end):
                    one = AlleleRow(refs[row], alts[row], symbols[row], values[row], reasons[row])
                    alleles[alt_of[row] - 1].append(one)
                texts.append(splice_info(line, self._addition(alleles)) + b"\n")
            begin = end
        return texts

    def _addition(self, alleles: Sequence[Sequence[AlleleRow]]) -> bytes:
        """INFO tags of one record with at least one ALT."""
        answers = [_state(rows) for rows in alleles]
        entries = [("RPL_STATE", [state for state, _ in answers])]
        if any(reason is not None for _, reason in answers):
            entries.append(("RPL_REASON", [reason or "." for _, reason in answers]))
        if any(state == SCORED for state, _ in answers):
            entries += self.scorer.info_values(alleles)
        tags = [f"{name}={','.join(texts)}" for name, texts in entries]
        if self.spliceai_info and isinstance(self.scorer, SpliceDelta):
            value = self.scorer.spliceai_value(alleles)
            tags += [f"{SPLICEAI_FIELD.id}={value}"] if value else []
        return ";".join(tags).encode()


def _sources(batch: VariantBatch, values: _Values) -> list[str | None]:
    """Whence each row has its score; None where it has none."""
    return [
        None if one is None else batch.known[row][1] if row in batch.known else COMPUTED
        for row, one in enumerate(values)
    ]


def _state(rows: Sequence[AlleleRow]) -> tuple[str, str | None]:
    """State and reason of an ALT over its genes: scored if any row is."""
    if any(row.values is not None for row in rows):
        return SCORED, None
    reason = rows[0].reason
    return (NOT_APPLICABLE if reason in NOT_APPLICABLE_REASONS else REJECTED), reason


def _late_reject(batch: VariantBatch, row: int, answer: SkippedAllele) -> list[Reject]:
    """The reject of a row that the model's answer turned down."""
    if answer.state != REJECTED:
        return []
    record = batch.columns[0][row].as_py()
    line = batch.lines[record - batch.first_record] or b""
    return [(record, batch.columns[6][row].as_py(), answer.reason, answer.sentence, reject_text(line))]


def _rejects_table(rejects: Sequence[Reject]) -> pa.Table:
    columns = list(zip(*rejects, strict=True)) or [()] * len(tables.REJECTS)
    arrays = [pa.array(column, one.type) for column, one in zip(columns, tables.REJECTS, strict=True)]
    return pa.Table.from_arrays(arrays, schema=tables.REJECTS)
