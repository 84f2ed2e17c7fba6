"""Splice deltas of each variant alone, and on each copy of a sample's genome that carries it.

On its own background both tracks hold the other alleles of the copy, and the delta is what this one adds. Columns of
the variant alone come first, as without phasing; then those of the first copy (left of `|`) and of the second, null
where the copy does not carry the allele or nobody knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from engine.errors import InputError
from engine.genome.variants import trim
from engine.scoring._allele_windows import copy_index, copy_tracks, masked_tokens
from engine.scoring._contract import (
    Allele,
    AlleleEdit,
    AlleleRow,
    Contrast,
    Fetch,
    InfoField,
    Prepared,
    ScoringUnit,
    SkippedAllele,
    Tokens,
    Track,
    float_text,
)
from engine.scoring.splice_delta import NAMES, SpliceDelta
from schemas.tables import field

_COPIES = (1, 2)
_OWN = (*(f"ds_{name}" for name in NAMES), *(f"dp_{name}" for name in NAMES), "ds_max")
_OTHERS = "other alleles of the copy that the model saw: in its context, and within the gene's bounds"
_FLAGS = (
    "comma-separated, copyN being copy 1 or 2, else empty: copyN_conflict, other alleles of the copy were left out "
    "because they change the same bases; copyN_rejected_allele, an allele of the copy near this one was left out "
    "because it does not fit the reference or is longer than max_allele_length"
)


class PhasedSpliceDelta:
    """A scorer around another; see the module's docstring and engine.scoring._contract.Scorer.

    Args:
        inner: what scores each copy.

    Raises:
        InputError: the inner scorer reproduces a peer or reads exon sites, which have no background.
    """

    def __init__(self, inner: SpliceDelta) -> None:
        if inner.params.exon_sites or inner.params.compatibility != "none":
            what = "phased scores are not defined with exon_sites or a compatibility mode"
            raise InputError(what, where="phased", fix="leave one of them out")
        self._inner = inner
        self.copy_reach = inner.params.distance
        self.max_allele_length = inner.params.max_allele_length
        self.needs_model, self.needs_genes = inner.needs_model, inner.needs_genes
        self.written_letters, self.info_keys, self.heads = inner.written_letters, inner.info_keys, inner.heads
        own = [one for one in inner.fields if one.name in _OWN]
        copied = [
            field(f"copy{copy}_{one.name}", one.type, f"{one.metadata[b'doc'].decode()}, on copy {copy}")
            for copy in _COPIES
            for one in own
        ]
        counts = [field(f"copy{copy}_others", pa.int32(), _OTHERS) for copy in _COPIES]
        alone = [field("flags", one.type, _FLAGS) if one.name == "flags" else one for one in inner.fields]
        self.fields: tuple[pa.Field, ...] = (*alone, *copied, *counts)
        self.info_fields = (
            *inner.info_fields,
            *(
                InfoField(f"RPL_COPY{copy}_DS_MAX", "A", "Float", f"RPL_DS_MAX beside the other alleles of copy {copy}")
                for copy in _COPIES
            ),
        )

    def prepare(self, unit: ScoringUnit, fetch: Fetch) -> Prepared | SkippedAllele:
        """The allele alone, then on each copy that carries it."""
        alone = self._inner.prepare(unit, fetch)
        if isinstance(alone, SkippedAllele):
            return alone
        (contrast,) = alone.contrasts
        contrasts, flags = [contrast], list[str]()
        counts: list[int | None] = []
        for copy, held in zip(_COPIES, unit.copies, strict=True):
            if held is None:
                counts.append(None)
                continue
            edits = self._edits(unit, contrast)
            background, has_conflict = self._background(held.others, edits, contrast)
            flags += [f"copy{copy}_conflict"] * has_conflict
            flags += [f"copy{copy}_rejected_allele"] * held.has_rejected
            contrasts.append(replace(contrast, edits=edits, background=background) if background else contrast)
            counts.append(sum(_is_read(one, contrasts[-1], flank=self._inner.flank) for one in background))
        return Prepared(tuple(contrasts), (alone.reading, tuple(counts), tuple(flags)))

    def _edits(self, unit: ScoringUnit, contrast: Contrast) -> tuple[AlleleEdit, ...]:
        """The allele without the bases it shares with REF, which may carry an allele of their own."""
        return (self._edit((unit.start, unit.ref, unit.alt), contrast),)

    def _edit(self, allele: Allele, contrast: Contrast) -> AlleleEdit:
        start, ref, alt = allele
        shift, ref, alt = trim(ref, alt)
        tokens = masked_tokens(start + shift, len(ref), self._inner.tokens(alt), contrast.bounds)
        return start + shift, len(ref), tokens.tobytes()

    def _background(
        self, others: Sequence[Allele], edits: Sequence[AlleleEdit], contrast: Contrast
    ) -> tuple[tuple[AlleleEdit, ...], bool]:
        """Other alleles as edits, in order; whether some had to be left out because they change the same bases."""
        made = sorted(self._edit(one, contrast) for one in others)
        held = sorted(edits)
        kept = []
        for one in made:
            if any(_clash(one, other) for other in held):
                continue
            held.append(one)
            kept.append(one)
        return tuple(kept), len(kept) < len(made)

    def tokens(self, text: str) -> Tokens:
        """As the inner scorer."""
        return self._inner.tokens(text)

    def score(self, prepared: Prepared, tracks: Sequence[Mapping[str, Track]]) -> tuple[Any, ...] | SkippedAllele:
        """Values of the allele alone, of copy 1, of copy 2, and the number of other alleles on each."""
        reading, counts, left_out = prepared.reading
        answers = []
        for index, contrast in enumerate(prepared.contrasts):
            answer = self._inner.score(Prepared((contrast,), reading), tracks[2 * index : 2 * index + 2])
            if isinstance(answer, SkippedAllele):
                return answer
            answers.append(answer)
        alone, *rest = answers
        flags = ",".join([text for text in (alone[len(_OWN)],) if text] + list(left_out))
        values = [*alone[: len(_OWN)], flags]
        left = iter(rest)
        for count in counts:
            values += [None] * len(_OWN) if count is None else next(left)[: len(_OWN)]
        return (*values, *counts)

    def info_values(self, alleles: Sequence[Sequence[AlleleRow]]) -> list[tuple[str, list[str]]]:
        """Tags of the allele alone, then the largest delta on each copy over the genes of an ALT."""
        entries = self._inner.info_values(alleles)
        for copy in _COPIES:
            at = len(_OWN) + 1 + len(_OWN) * copy - 1
            found = [[row.values[at] for row in rows if row.values and row.values[at] is not None] for rows in alleles]
            entries.append((f"RPL_COPY{copy}_DS_MAX", [float_text(max(one, default=None)) for one in found]))
        return entries


def _is_read(one: AlleleEdit, contrast: Contrast, *, flank: int) -> bool:
    """Whether an allele of the background is in the model's context on either track, and not all outside the bounds."""
    at, num_ref, alt = one
    # Bases inserted without a base of REF stand on the base before.
    first, last = (at, at + num_ref - 1) if num_ref else (at - 1, at - 1)
    if contrast.bounds is not None and (last < contrast.bounds[0] or first >= contrast.bounds[1]):
        return False
    for track in copy_tracks(contrast):
        begin = copy_index(track.edits, at) - (0 if num_ref else len(alt))
        if begin < track.end + flank and begin + len(alt) > track.begin - flank:
            return True
    return False


def _clash(one: AlleleEdit, other: AlleleEdit) -> bool:
    """Whether two edits change the same base or insert at the same place."""
    (at, num_ref, _), (start, num, _) = sorted((one, other))
    return start < at + num_ref or (start == at and num_ref == num == 0)
