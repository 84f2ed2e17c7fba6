"""The device stage of variant scoring: prepared windows through the model, rows finished, tags written into the lines.

Windows go through the predictor in slices of a fixed number of rows, so memory does not grow with the shard and the
same shard always makes the same micro-batches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from engine.io import bgzf
from engine.io.vcf import remove_info, splice_info
from engine.runtime.stages import ShardOutput
from engine.scoring._contract import AlleleRow, InfoField, Prepared, Scorer, SkippedAllele
from engine.scoring._variant_reader import Reject, VariantBatch, reject_text
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

    def __call__(self, batch: VariantBatch) -> ShardOutput:
        """Rows, rejects and text of a shard."""
        halved = self.predictor.halved if self.predictor is not None else 0
        states, reasons, rejects = list(batch.states), list(batch.reasons), list(batch.rejects)
        values: _Values = [None] * len(states)
        for begin in range(0, len(batch.units), SLICE_ROWS):
            for row, answer in self._answers(batch.units[begin : begin + SLICE_ROWS]):
                if isinstance(answer, SkippedAllele):
                    states[row], reasons[row] = answer.state, answer.reason
                    rejects.extend(_late_reject(batch, row, answer))
                else:
                    values[row] = answer
        rejects.sort(key=lambda one: (one[0], one[1]))
        texts = self._texts(batch, values, states, reasons) if self.write_vcf else []
        now_halved = self.predictor.halved - halved if self.predictor is not None else 0
        return ShardOutput(
            table=self._table(batch, values, states, reasons),
            rejects=_rejects_table(rejects),
            body=bgzf.compress(b"".join(texts)) if self.write_vcf else None,
            body_rows=len(texts),
            records_in=len(batch.lines),
            states=dict(sorted(Counter(states).items())),
            reasons=dict(sorted(Counter(reason for reason in reasons if reason is not None).items())),
            notes={"halved_batches": now_halved} if now_halved else {},
        )

    def _answers(self, units: Sequence[tuple[int, Prepared]]) -> list[tuple[int, tuple[Any, ...] | SkippedAllele]]:
        """The scorer's answer for each row of a slice."""
        if self.predictor is None:
            return [(row, self.scorer.score(prepared, ())) for row, prepared in units]
        windows = [window for _, prepared in units for window in prepared.windows]
        tracks = self.predictor.predict(windows, heads=self.scorer.heads)
        answers = []
        done = 0
        for row, prepared in units:
            own = tracks[done : done + len(prepared.windows)]
            done += len(own)
            answers.append((row, self.scorer.score(prepared, own)))
        return answers

    def _table(
        self, batch: VariantBatch, values: _Values, states: Sequence[str], reasons: Sequence[str | None]
    ) -> pa.Table:
        width = len(self.scorer.fields)
        empty: tuple[Any, ...] = (None,) * width
        scores = list(zip(*(empty if one is None else one for one in values), strict=True)) or [()] * width
        arrays = [*batch.columns, pa.array(states, pa.string()), pa.array(reasons, pa.string())]
        arrays += [pa.array(column, one.type) for column, one in zip(scores, self.scorer.fields, strict=True)]
        return pa.Table.from_arrays([*arrays, *batch.info_columns], schema=self.schema)

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
