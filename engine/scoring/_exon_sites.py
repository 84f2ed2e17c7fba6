"""What an allele does to the two splice sites of one known exon, and to the exon between them.

A scan for the largest change near a variant asks whether a site appears or goes anywhere. Here the question is whether
this exon is still included: both sites are read where they are known to be, in REF and in ALT, and joined with the
exon's hexamers on the scale of a logit of inclusion (the modular form of MMSplice, Cheng et al. 2019, Genome Biology
20:48, with the weights of the model's card).

Shape letters: L reference outputs, E outputs of the ALT window, K channels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from engine.errors import InputError
from engine.genome.genes import Transcript
from engine.genome.variants import trim
from engine.models._info import HeadInfo, ModelInfo
from engine.scoring._contract import Fetch, ScoringUnit, SkippedAllele, Track, not_finite
from schemas.tables import field

HEXAMER_BASES = 6
_MAX_SLIDE = 1000
# Changes are rounded to this many decimals: float32 sums over windows of another length leave up to a millionth where
# nothing changed, and ranks would read it.
DECIMALS = 5
# A measured inclusion of 0 or 1 has no finite logit, and counts as the nearer of these.
PSI_RANGE = (0.02, 0.98)
_is_number = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII).fullmatch
CARD_KEY = "exon_change"

FIELDS: tuple[pa.Field, ...] = (
    field("exon_start", pa.int64(), "0-based start of the exon that holds the allele, or else is nearest to it"),
    field("exon_end", pa.int64(), "0-based end of that exon, exclusive"),
    field("acceptor_logit_change", pa.float32(), "change of the logit of the exon's acceptor; null where it has none"),
    field("donor_logit_change", pa.float32(), "change of the logit of the exon's donor; null where it has none"),
    field("pwm_change", pa.float32(), "change of the log-odds of both sites by position weight matrix"),
    field("hexamer_change", pa.float32(), "change of the sum of hexamer scores within the exon"),
    field("inclusion_change", pa.float32(), "change of the logit of the exon's inclusion, signed"),
)
PSI_FIELD: pa.Field = field(
    "psi_change", pa.float32(), "change of the exon's inclusion from its measured inclusion, percentage points"
)


@dataclass(frozen=True)
class ExonChange:
    """Constants of the inclusion change; the model's card holds them under `exon_change`.

    z = net_weight (acceptor + donor) + pwm_weight (acceptor + donor) + hexamer_weight scale tanh(hexamers / scale)

    Attributes:
        net_weight: weight of a site's logit change by the network.
        pwm_weight: weight of a site's log-odds change by position weight matrix.
        hexamer_weight: weight of the exon's hexamer change.
        hexamer_scale: hexamer changes level off here.
        clip: a site's change is held within plus and minus this; a deleted site counts as minus this.
        probability_floor: added to a probability and to its rest before the logit.
        exon_margin_bp: bases at each end of the exon whose hexamers are left to the site models.
    """

    net_weight: float = 0.15
    pwm_weight: float = 0.175
    hexamer_weight: float = 0.0875
    hexamer_scale: float = 3.0
    clip: float = 8.0
    probability_floor: float = 1e-4
    exon_margin_bp: int = 3


@dataclass(frozen=True, slots=True)
class ExonReading:
    """One exon and one allele, as `read_exon` needs them; all 0-based reference coordinates.

    Attributes:
        start: start of the exon.
        end: its end, exclusive.
        is_minus: the transcript reads downwards.
        acceptor: the exon's first base in transcript order, None for the transcript's first exon.
        donor: its last, None for the transcript's last exon.
        at: start of the bases that change, as written.
        left: leftmost start with the same result.
        right: rightmost start with the same result.
        num_ref: bases of REF that change.
        num_alt: bases of ALT in their place.
    """

    start: int
    end: int
    is_minus: bool
    acceptor: int | None
    donor: int | None
    at: int
    left: int
    right: int
    num_ref: int
    num_alt: int

    def in_alt(self, position: int) -> list[int]:
        """Where a base may stand in ALT, in coordinates that equal the reference's left of the allele.

        An indel in a repeat has several placements of the same result, and the base may stand on either side of them;
        empty where the base is deleted in all.
        """
        found = {self._in_alt(position, at) for at in (self.left, self.right)}
        return sorted(place for place in found if place is not None)

    def _in_alt(self, position: int, at: int) -> int | None:
        if position < at + min(self.num_ref, self.num_alt):
            return position
        return None if position < at + self.num_ref else position + self.num_alt - self.num_ref

    def alt_exon(self) -> tuple[int, int]:
        """The exon's range in ALT; an edge within a deletion moves to where the deletion ends."""
        joined = self.at + min(self.num_ref, self.num_alt)
        low, last = self._in_alt(self.start, self.at), self._in_alt(self.end - 1, self.at)
        return joined if low is None else low, joined if last is None else last + 1


def exon_reading(unit: ScoringUnit, transcript: Transcript, fetch: Fetch, *, position: int, reach: int) -> ExonReading:
    """The exon that an allele is read at: the one that holds it, else the nearest edge, the lowest where two tie.

    Args:
        unit: the allele.
        transcript: its transcript.
        fetch: reference sequence, in any case.
        position: where the allele is, as it is scored and not as it is padded.
        reach: an indel is followed through a repeat for this many bases at most.
    """
    start, end = min(transcript.exons, key=lambda exon: _distance(exon, position))
    low_site = start if start > transcript.start else None
    high_site = end - 1 if end < transcript.end else None
    is_minus = transcript.strand == "-"
    shift, ref, alt = trim(unit.ref, unit.alt)
    at = unit.start + shift
    left, right = _placements(unit, at, ref, alt, fetch, reach=min(reach, _MAX_SLIDE))
    return ExonReading(
        start=start,
        end=end,
        is_minus=is_minus,
        acceptor=high_site if is_minus else low_site,
        donor=low_site if is_minus else high_site,
        at=at,
        left=left,
        right=right,
        num_ref=len(ref),
        num_alt=len(alt),
    )


def _distance(exon: tuple[int, int], position: int) -> tuple[int, int]:
    start, end = exon
    if start <= position < end:
        return -1, start
    return (start - position, start) if position < start else (position - end + 1, end - 1)


def _placements(unit: ScoringUnit, at: int, ref: str, alt: str, fetch: Fetch, *, reach: int) -> tuple[int, int]:
    """Leftmost and rightmost start of an insertion or deletion with the same result."""
    moved = ref or alt
    if (ref and alt) or not moved:
        return at, at
    before = fetch(unit.contig, at - reach, at).upper()
    after = fetch(unit.contig, at + len(ref), at + len(ref) + reach).upper()
    left = _period(moved[::-1], before[::-1])
    return at - left, at + _period(moved, after)


def _period(moved: str, beside: str) -> int:
    """How many bases beside an indel go on with its period, so that it can slide over them."""
    for steps, base in enumerate(beside):
        if base != moved[steps % len(moved)] or base not in "ACGT":
            return steps
    return len(beside)


class ExonReader:
    """Reads the columns of `FIELDS` from a model's outputs.

    Args:
        info: the model. Without heads `pwm` or `hexamer` their columns are null; without all of them or without the
            constants on its card so is the inclusion change.
        head: the head with channels acceptor and donor.

    Attributes:
        reach: bases on either side of an allele that outputs are needed for.

    Raises:
        InputError: the card's constants do not read.
    """

    def __init__(self, info: ModelInfo, head: HeadInfo) -> None:
        self._head = head
        self._pwm = info.heads.get("pwm")
        self._has_hexamer = "hexamer" in info.heads
        self._is_calibrated = CARD_KEY in info.extra and self._pwm is not None and self._has_hexamer
        self._constants = _constants(info)
        self._flank = info.context_bp // 2
        # Both the model's context and hexamers that enter or leave where the margin moves.
        self.reach = max(self._flank, self._constants.exon_margin_bp + 2 * HEXAMER_BASES)

    def values(
        self, reading: ExonReading, ref: Mapping[str, Track], alt: Mapping[str, Track], *, low: int
    ) -> tuple[Any, ...] | SkippedAllele:
        """Values of `FIELDS`, changes to `DECIMALS`.

        Args:
            reading: the exon and the allele.
            ref: head to (K, L), forward strand, output 0 at the reference position `low`.
            alt: head to (K, E), the same of the ALT window.
            low: see above.
        """
        for head in (self._head.name, *self._grammar_heads()):
            if not (np.isfinite(ref[head]).all() and np.isfinite(alt[head]).all()):
                return not_finite(head)
        net = self._site_changes(reading, ref, alt, self._head, low=low, scale=self._logit)
        pwm = None if self._pwm is None else self._site_changes(reading, ref, alt, self._pwm, low=low, scale=float)
        hexamer = self._hexamer_change(reading, ref, alt, low=low) if self._has_hexamer else None
        pwm_sum = None if pwm is None else _total(pwm)
        inclusion = None
        if self._is_calibrated and pwm_sum is not None and hexamer is not None:
            inclusion = self._inclusion(_total(net), pwm_sum, hexamer)
        return reading.start, reading.end, *net, pwm_sum, hexamer, inclusion

    def _grammar_heads(self) -> list[str]:
        return ["pwm"] * (self._pwm is not None) + ["hexamer"] * self._has_hexamer

    def _logit(self, probability: float) -> float:
        floor = self._constants.probability_floor
        return math.log(probability + floor) - math.log(1.0 - probability + floor)

    def _site_changes(
        self,
        reading: ExonReading,
        ref: Mapping[str, Track],
        alt: Mapping[str, Track],
        head: HeadInfo,
        *,
        low: int,
        scale: Callable[[float], float],
    ) -> tuple[float | None, float | None]:
        """Change at the acceptor and the donor; None where the exon has no such site."""
        changes: list[float | None] = []
        for name, site in (("acceptor", reading.acceptor), ("donor", reading.donor)):
            channel = head.channels.index(name)
            one, other = ref[head.name][channel], alt[head.name][channel]
            changes.append(None if site is None else self._site_change(reading, site, one, other, low=low, scale=scale))
        return changes[0], changes[1]

    def _site_change(
        self, reading: ExonReading, site: int, ref: Track, alt: Track, *, low: int, scale: Callable[[float], float]
    ) -> float:
        if site + self._flank < reading.right or site - self._flank >= reading.left + reading.num_ref:
            return 0.0  # beyond the reach of the model's context: the allele cannot change it
        clip = self._constants.clip
        # A site at the window's edge may have its second placement beyond it.
        places = [place - low for place in reading.in_alt(site) if 0 <= place - low < len(alt)]
        if not places:
            return -clip
        change = max(scale(float(alt[place])) for place in places) - scale(float(ref[site - low]))
        return _rounded(min(max(change, -clip), clip))

    def _hexamer_change(
        self, reading: ExonReading, ref: Mapping[str, Track], alt: Mapping[str, Track], *, low: int
    ) -> float:
        own = self._hexamer_sum(ref["hexamer"][0], (reading.start, reading.end), reading.is_minus, low=low)
        return _rounded(self._hexamer_sum(alt["hexamer"][0], reading.alt_exon(), reading.is_minus, low=low) - own)

    def _hexamer_sum(self, track: Track, exon: tuple[int, int], is_minus: bool, *, low: int) -> float:
        """Sum over hexamers that lie within the exon less its margins; what is outside the window cancels."""
        margin = self._constants.exon_margin_bp
        start, end = exon[0] + margin - low, exon[1] - margin - low
        # A hexamer is written at its first base in transcript order.
        first, last = (start + HEXAMER_BASES - 1, end) if is_minus else (start, end - HEXAMER_BASES + 1)
        return float(track[max(first, 0) : max(last, 0)].sum(dtype=np.float64))

    def _inclusion(self, net: float, pwm: float, hexamer: float) -> float:
        constants = self._constants
        levelled = constants.hexamer_scale * math.tanh(hexamer / constants.hexamer_scale)
        return _rounded(constants.net_weight * net + constants.pwm_weight * pwm + constants.hexamer_weight * levelled)


def read_percent(text: str | None) -> float | None:
    """An INFO value as a number from 0 to 100; None where it is absent or no such number."""
    if text is None or not _is_number(text):
        return None
    value = float(text)
    return value if value <= 100 and not text.startswith("-") else None


def psi_change(percent: float, inclusion_change: float) -> float:
    """A logit change of inclusion as percentage points, from the measured inclusion of the reference in per cent.

    A measured inclusion outside `PSI_RANGE` counts as its nearer end, before and after. No change gives exactly 0.
    """
    low, high = PSI_RANGE
    before = min(max(percent / 100, low), high)
    logit = math.log(before / (1 - before))
    # sigmoid(x) = (1 + tanh(x / 2)) / 2, which does not overflow.
    return 50 * (math.tanh((logit + inclusion_change) / 2) - math.tanh(logit / 2))


def _rounded(change: float) -> float:
    return round(change, DECIMALS) + 0.0  # no negative zero


def _total(changes: tuple[float | None, float | None]) -> float:
    return sum(change for change in changes if change is not None)


def _constants(info: ModelInfo) -> ExonChange:
    values = info.extra.get(CARD_KEY, {})
    known = {one.name for one in fields(ExonChange)}
    where = f"model {info.name}, extra.{CARD_KEY}"
    if not isinstance(values, Mapping) or not set(values) <= known:
        raise InputError("holds other keys than known", where=where, fix=f"known: {', '.join(sorted(known))}")
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InputError(f"{name} must be a number, found {value!r}", where=where, fix="correct the card")
    constants = ExonChange(**values)
    if min(constants.hexamer_scale, constants.clip, constants.probability_floor) <= 0 or constants.exon_margin_bp < 0:
        raise InputError("scale, clip and floor must be above 0", where=where, fix="correct the card")
    return constants
