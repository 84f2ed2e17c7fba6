"""What a scorer is: it asks for windows of an allele, and turns what a model says of them into columns.

`prepare` runs beside the parser and needs no model; `score` runs beside the model. Both are plain functions of their
arguments, so that a scorer is tested without either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.errors import InputError
from engine.genome.genes import Transcript
from engine.io.haplotypes import Copy
from engine.models._info import HeadInfo, ModelInfo
from schemas.states import REJECTED

Fetch = Callable[[str, int, int], str]
Tokens = NDArray[np.uint8]
Track = NDArray[np.float32]
AlleleEdit = tuple[int, int, bytes]
"""(0-based start, bases of REF, tokens of ALT as uint8 bytes); see engine.genome.windows.Replacement."""
Allele = tuple[int, str, str]
"""(0-based start, REF, ALT) as written, upper case."""

# VCF 4.3, section 1.2: what has a meaning of its own in an INFO value is percent-encoded.
_ENCODED = str.maketrans({letter: f"%{ord(letter):02X}" for letter in "%:;=, \t\r\n"})


@dataclass(frozen=True, slots=True)
class InfoField:
    """One INFO tag of the scored VCF: its id, Number, Type and Description."""

    id: str
    number: str
    type: str
    description: str

    def header_line(self, *, version: str) -> bytes:
        """The `##INFO` line, without a line end."""
        text = self.description.replace("\\", "\\\\").replace('"', '\\"')
        line = f'##INFO=<ID={self.id},Number={self.number},Type={self.type},Description="{text}"'
        return f'{line},Source="replisome",Version="{version}">'.encode()


@dataclass(frozen=True, slots=True)
class ScoringUnit:
    """One (record, ALT allele, transcript) that the states do not rule out.

    Attributes:
        contig: contig name as the reference's `fetch` takes it.
        contig_length: its length in bases.
        start: 0-based start of REF as written.
        ref: REF as written, upper case, equal to the reference there.
        alt: ALT as written, upper case.
        transcript: the transcript that holds `start`, None for scorers that need no genes.
        info: the record's values of the scorer's `info_keys`, in their order: the text as written, "true" for a flag,
            None where absent.
        copies: for each of the sample's two copies what it has near this allele, None where it does not carry it; only
            for scorers with a `copy_reach`.
        written_ref: REF in the record's own letters, case included; empty where they are those of `ref`.
    """

    contig: str
    contig_length: int
    start: int
    ref: str
    alt: str
    transcript: Transcript | None = None
    info: tuple[str | None, ...] = ()
    copies: tuple[Copy | None, ...] = ()
    written_ref: str = ""


@dataclass(frozen=True, slots=True)
class SkippedAllele:
    """Why a unit has no score: a reason code of schemas.states and a sentence with values."""

    reason: str
    sentence: str
    state: str = REJECTED


@dataclass(frozen=True, slots=True)
class Contrast:
    """What a model is asked about an allele: its outputs on a piece of one copy of the genome without and with it.

    Hashable, so that equal questions are asked once. Positions are 0-based on the reference.

    Attributes:
        contig: contig name as the reference's `fetch` takes it.
        low, high: the REF track holds the outputs of bases that stand on [low, high).
        alt_end: the ALT track holds those of [low, alt_end).
        edits: the allele, as (start, bases of REF, tokens of ALT), which pair from the left.
        background: alleles that the copy has besides, in both tracks; disjoint from `edits` and each other.
        bounds: bases outside [start, end) are N; None reads them all.
        strands: readings asked for, "+", "-" (the reverse complement) or "+-".
        alt_outputs: the ALT track is cut after this many outputs, counted on the forward strand; None keeps all.
    """

    contig: str
    low: int
    high: int
    alt_end: int
    edits: tuple[AlleleEdit, ...]
    background: tuple[AlleleEdit, ...] = ()
    bounds: tuple[int, int] | None = None
    strands: str = "+"
    alt_outputs: int | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """Questions for the model, none for scorers without one, and what the scorer needs to read the answers."""

    contrasts: tuple[Contrast, ...]
    reading: Any


class AlleleRow(NamedTuple):
    """One row of the table, as the scored VCF needs it; `values` is None where the row is not scored."""

    ref: str
    alt: str
    symbol: str | None
    values: tuple[Any, ...] | None
    reason: str | None


class Scorer(Protocol):
    """A component of engine/scoring, built as ``Class(params, info)`` with `info` None where it needs no model.

    Attributes:
        needs_model: False for scorers of the alleles alone, whose `score` is given no tracks.
        needs_genes: one row per transcript; records outside genes are not applicable.
        written_letters: `fetch` should give the reference's letters as written, IUPAC codes included.
        info_keys: INFO keys of the input that `prepare` reads; most scorers have none.
        copy_reach: how far beyond the model's flank alleles of the same copy matter, in bases; 0 without `copies`.
        heads: heads of the model that `score` reads.
        fields: columns appended to schemas.tables.VARIANT_SCORES.
        info_fields: INFO tags of the scored VCF, all Number=A.

    One that says by `extra_keys` which constants of the model's `extra` it reads shares a score store with models that
    differ in the others only.
    """

    needs_model: bool
    needs_genes: bool
    written_letters: bool
    info_keys: tuple[str, ...]
    copy_reach: int
    heads: tuple[str, ...]
    fields: tuple[pa.Field, ...]
    info_fields: tuple[InfoField, ...]

    def prepare(self, unit: ScoringUnit, fetch: Fetch) -> Prepared | SkippedAllele:
        """What to ask the model about an allele, or why nothing can be asked."""
        ...

    def tokens(self, text: str) -> Tokens:
        """Tokens (L,) of text that `fetch` gave."""
        ...

    def score(self, prepared: Prepared, tracks: Sequence[Mapping[str, Track]]) -> tuple[Any, ...] | SkippedAllele:
        """Values of `fields`, in order, from the tracks of the contrasts: head name to (C, outputs).

        A contrast's tracks are REF, ALT for each strand asked for, each in the direction in which it was read.
        """
        ...

    def info_values(self, alleles: Sequence[Sequence[AlleleRow]]) -> list[tuple[str, list[str]]]:
        """INFO tags of a record: (id, one text per ALT), given the rows of each ALT; at least one row is scored."""
        ...


def encode_info(text: str) -> str:
    """Percent-encode what an INFO value may not hold."""
    return text.translate(_ENCODED) or "."


def float_text(value: float | None) -> str:
    """A number of an INFO value: four decimals, '.' for None, no negative zero."""
    if value is None:
        return "."
    text = f"{value:.4f}"
    return "0.0000" if text == "-0.0000" else text


def named_head(info: ModelInfo | None, name: str, *, scorer: str, by_position: bool = False) -> HeadInfo:
    """A head of the model by name; an empty name means the only one.

    Raises:
        InputError: no model, no such head, several where none is named, or one that gives one answer for a whole window
            where `by_position` asks for a value at every position.
    """
    if info is None:
        raise InputError(f"the scorer {scorer} needs a model", where="model", fix="name one of `replisome models`")
    known = ", ".join(info.heads)
    if not name and len(info.heads) > 1:
        raise InputError(f"model {info.name} has several heads", where=f"scorer {scorer}", fix=f"set head: {known}")
    name = name or next(iter(info.heads))
    if name not in info.heads:
        fix = f"it has: {known}"
        raise InputError(f"model {info.name} has no head {name!r}", where=f"scorer {scorer}", fix=fix)
    if by_position and info.heads[name].level != "position":
        what = f"head {name!r} gives one answer for a whole window, and this scorer reads every position"
        raise InputError(what, where=f"scorer {scorer} on model {info.name}", fix="use the scorer allele_effect")
    return info.heads[name]


def not_finite(head: str) -> SkippedAllele:
    """The answer to a model that gives NaN or infinity."""
    return SkippedAllele("model_output_not_finite", f"the model's head {head} gave NaN or infinity in this window")
