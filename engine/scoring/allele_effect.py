"""What an allele does to any head of a model, in a window around the variant: one value per channel.

A head that gives one answer for a whole sequence, as models trained on labelled sequences have, reads the window with
REF and with ALT. The window should be as long as the sequences that the model was trained on.

Of a head with a value for every position `difference` and `log_ratio` compare the means over the window, and
`max_abs_over_window` compares base by base, where a base that one of the two has not (inserted or deleted) is left out.

The two windows begin at the same base and have the same length: after an insertion or deletion the reference goes on.

Where the head's symmetry allows it, both strands can be averaged before the comparison.

Shape letters: C channels of the head, W positions of the window.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from engine import registry
from engine.errors import InputError
from engine.genome.windows import onto_reference, tokens_from_text
from engine.models._info import HeadInfo, ModelInfo
from engine.scoring._allele_windows import Edit, edit_of, masked_alt
from engine.scoring._contract import (
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
    named_head,
    not_finite,
)
from schemas.tables import field

REDUCTIONS = {
    "difference": "mean over the window in ALT less that in REF",
    "log_ratio": "log2 of the mean over the window in ALT over that in REF",
    "max_abs_over_window": "change from REF to ALT furthest from 0 within the window",
}
_OF_SEQUENCE = {
    "difference": "value of the window with ALT less that with REF",
    "log_ratio": "log2 of the value of the window with ALT over that with REF",
}
USUAL_WINDOW_BP = 101
# What a trained model's folder says of its training sequences, in `extra`.
LONGEST_SEQUENCE = "longest_sequence"
# Keeps the logarithm of a mean of zero finite.
_LOG_FLOOR = 1e-6
_NOT_NEGATIVE = ("softmax", "sigmoid", "softplus")
MAX_WINDOW_BP = 1_000_000


@dataclass(frozen=True)
class AlleleEffectParams:
    """What may be asked.

    Attributes:
        head: head of the model; may be left out where it has one.
        channels: channels of the head; all where empty.
        reduction: "difference", "log_ratio" or "max_abs_over_window".
        window_bp: width of the window that the effect is taken over, centred on the variant. None takes 101, or for a
            head of the whole sequence the longest sequence that the model was trained on, where its folder says it.
        both_strands: average over both strands; refused for stranded heads.
        max_allele_length: longer REF or ALT is rejected, in bases.
    """

    head: str = ""
    channels: tuple[str, ...] = ()
    reduction: str = "difference"
    window_bp: int | None = None
    both_strands: bool = False
    max_allele_length: int = 10_000

    def __post_init__(self) -> None:
        channels: object = self.channels
        if not isinstance(channels, (list, tuple)) or not all(isinstance(name, str) for name in channels):
            raise ValueError(f"channels must be a list of names, found {channels!r}")
        object.__setattr__(self, "channels", tuple(channels))
        if self.reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, found {self.reduction!r}")
        for name in ("window_bp", "max_allele_length"):
            value = getattr(self, name)
            if name == "window_bp" and value is None:
                continue
            if type(value) is not int or not 1 <= value <= MAX_WINDOW_BP:
                raise ValueError(f"{name} must be a whole number from 1 to {MAX_WINDOW_BP}, found {value!r}")
        if not isinstance(self.both_strands, bool):
            raise ValueError(f"both_strands must be true or false, found {self.both_strands!r}")


class AlleleEffect:
    """See the module's docstring.

    Raises:
        InputError: no such head or channel; a reduction or strand average that the head does not allow.
    """

    Params = AlleleEffectParams
    RESULT_VERSION = 1
    needs_model = True
    needs_genes = False
    written_letters = False
    info_keys: tuple[str, ...] = ()
    extra_keys: tuple[str, ...] = ()
    copy_reach = 0

    def __init__(self, params: AlleleEffectParams, info: ModelInfo | None) -> None:
        self.params = params
        self._head = named_head(info, params.head, scorer="allele_effect")
        assert info is not None
        where = f"scorer allele_effect on model {info.name}"
        _check_head(params, self._head, where=where)
        self._window_bp = _window_bp(params, self._head, info, where=where)
        names = params.channels or self._head.channels
        self._channels = [self._head.channels.index(name) for name in names]
        self._flank = info.context_bp // 2
        self.heads = (self._head.name,)
        reductions = REDUCTIONS if self._head.level == "position" else _OF_SEQUENCE
        text = f"{reductions[params.reduction]}; head {self._head.name}, channel "
        self.fields: tuple[pa.Field, ...] = tuple(field(f"effect_{name}", pa.float32(), text + name) for name in names)
        self._tags = [f"RPL_EFFECT_{re.sub(r'[^A-Za-z0-9_]', '_', name).upper()}" for name in names]
        if len(set(self._tags)) < len(self._tags):
            fix = "choose fewer `channels`"
            raise InputError(f"channels {', '.join(names)} share an INFO tag", where="scorer allele_effect", fix=fix)
        described = zip(self._tags, names, strict=True)
        self.info_fields = tuple(InfoField(tag, "A", "Float", _capital(text + name)) for tag, name in described)

    def prepare(self, unit: ScoringUnit, fetch: Fetch) -> Prepared | SkippedAllele:
        """Outputs of REF and ALT on the window, on the other strand too where both are asked for."""
        longest, limit = max(len(unit.ref), len(unit.alt)), self.params.max_allele_length
        if longest > limit:
            return SkippedAllele("allele_too_long", f"an allele of {longest:,} bases, the limit is {limit:,}")
        edit = edit_of(unit, fetch)
        low = edit.centre - (self._window_bp - 1) // 2
        high = low + self._window_bp
        contrast = Contrast(
            contig=unit.contig,
            low=low,
            high=high,
            alt_end=max(high, edit.end) + edit.num_ref,
            edits=(masked_alt(edit, self.tokens(edit.alt), None),),
            strands="+-" if self.params.both_strands else "+",
            alt_outputs=None if self.params.reduction == "max_abs_over_window" else self._window_bp,
        )
        return Prepared((contrast,), (edit, low))

    def tokens(self, text: str) -> Tokens:
        """Tokens (L,); letters that are no base are N."""
        return tokens_from_text(text)

    def score(self, prepared: Prepared, tracks: Sequence[Mapping[str, Track]]) -> tuple[Any, ...] | SkippedAllele:
        """One value per channel."""
        edit, low = prepared.reading
        found = [track[self._head.name] for track in tracks]
        if self.params.both_strands:
            from engine.scoring._predictor import average_strands

            found = [average_strands(found[i], found[i + 2], head=self._head) for i in range(2)]
        # A head of the whole sequence has one answer where others have one for each position.
        ref_CW, alt_CW = (track[self._channels].reshape(len(self._channels), -1) for track in found)
        if not (np.isfinite(ref_CW).all() and np.isfinite(alt_CW).all()):
            return not_finite(self._head.name)
        return tuple(float(value) for value in self._reduce(ref_CW, alt_CW, edit, low))

    def _reduce(self, ref_CW: Track, alt_CW: Track, edit: Edit, low: int) -> Any:
        if self.params.reduction == "max_abs_over_window":
            return _largest_change(ref_CW, alt_CW, edit, low)
        ref, alt = ref_CW.mean(axis=1, dtype=np.float64), alt_CW.mean(axis=1, dtype=np.float64)
        if self.params.reduction == "difference":
            return alt - ref
        return np.log2(alt + _LOG_FLOOR) - np.log2(ref + _LOG_FLOOR)

    def info_values(self, alleles: Sequence[Sequence[AlleleRow]]) -> list[tuple[str, list[str]]]:
        """One tag per channel."""
        values = [rows[0].values for rows in alleles]
        return [
            (tag, [float_text(one[index] if one else None) for one in values]) for index, tag in enumerate(self._tags)
        ]


def _check_head(params: AlleleEffectParams, head: HeadInfo, *, where: str) -> None:
    for name in params.channels:
        if name not in head.channels:
            fix = f"it has: {', '.join(head.channels)}"
            raise InputError(f"head {head.name!r} has no channel {name!r}", where=where, fix=fix)
    if head.level == "sequence" and params.reduction not in _OF_SEQUENCE:
        what = f"head {head.name!r} gives one answer for a whole window, so none to compare base by base"
        raise InputError(what, where=where, fix=f"use the reduction {' or '.join(_OF_SEQUENCE)}")
    if params.both_strands and head.symmetry == "stranded":
        what = f"head {head.name!r} reads one strand only and cannot be averaged over both"
        raise InputError(what, where=where, fix="set both_strands: false")
    if params.reduction == "log_ratio" and head.activation not in _NOT_NEGATIVE:
        what = f"head {head.name!r} ends in {head.activation} and may be negative, which has no log ratio"
        raise InputError(what, where=where, fix="use the reduction difference or max_abs_over_window")


def _window_bp(params: AlleleEffectParams, head: HeadInfo, info: ModelInfo, *, where: str) -> int:
    """Of a head for the whole sequence no longer than the network takes."""
    if head.level == "position":
        return params.window_bp or USUAL_WINDOW_BP
    given = info.extra.get(LONGEST_SEQUENCE) if params.window_bp is None else params.window_bp
    if type(given) is not int or not 1 <= given <= MAX_WINDOW_BP:
        what = "the model's folder does not say how long the sequences were that it was trained on"
        raise InputError(what, where=where, fix="set window_bp to their length")
    network = registry.component("models", info.architecture)
    if hasattr(network, "most_letters"):
        most = network.most_letters(registry.build_params(network, info.params, where=info.path))
        if most is not None and given > most:
            raise InputError(f"the window of {given} bp is longer than the {most} the network takes", where=where)
    return given


def _largest_change(ref_CW: Track, alt_CW: Track, edit: Edit, low: int) -> Any:
    """Signed change furthest from 0 over bases that both have; 0 where they share none."""
    num = ref_CW.shape[1]
    positions = edit.positions(low, alt_CW.shape[1])
    # Only the first of the bases on one position is a pair; the rest are insertions.
    is_pair = np.concatenate(([True], positions[1:] != positions[:-1]))
    lifted = onto_reference(alt_CW[:, is_pair], positions[is_pair], start=low, end=low + num, fill=np.nan)
    change = np.nan_to_num(lifted - ref_CW, nan=0.0)
    return change[np.arange(len(change)), np.abs(change).argmax(axis=1)]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


COMPONENT = AlleleEffect
