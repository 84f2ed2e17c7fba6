"""How an allele changes the splice sites of a gene: gain and loss of acceptors and donors near the variant.

The definitions are those of SpliceAI 1.3.1 (Jaganathan et al. 2019, Cell 176:535), per record, ALT and transcript:

- the sequence outside the transcript is N, in REF and in ALT; both are read in transcript orientation;
- ALT is brought back onto reference positions: a deleted position has probability 0, an insertion the channel-wise
  maximum over its anchor and the inserted bases, at the anchor;
- DS is the largest gain or loss within `distance` of the variant, DP its position less POS in genome direction on both
  strands, the lowest coordinate where several tie;
- a change is rounded to DECIMALS before it is compared or told, and where the model's context does not reach from the
  allele it is exactly 0: sums over windows of another length differ in their last digits, which would else choose DP,
  and with it what masking takes away, where nothing changed;
- masking takes the winner away where it is no news (a gain at, or a loss anywhere but at the exon edge nearest to the
  variant) and does not promote the runner-up.

The mode spliceai-1.3.1 takes the largest of the raw float32 differences wherever it stands, as that tool does: its
parity is with the tool, last digits included.

MNVs and delins, which SpliceAI refuses, are trimmed and pair their bases from the left
(engine/scoring/_allele_windows.py).

Shape letters: K channels, L reference outputs, E outputs of the ALT window, D positions within the distance.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.errors import InputError
from engine.genome.genes import Transcript
from engine.genome.windows import onto_reference, tokens_from_text
from engine.models._info import ModelInfo, network_digest
from engine.scoring import _exon_sites
from engine.scoring._allele_windows import (
    CopyTrack,
    Edit,
    copy_positions,
    copy_tracks,
    edit_of,
    masked_alt,
    reached,
)
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
    encode_info,
    float_text,
    named_head,
    not_finite,
)
from schemas.tables import field

COMPATIBILITIES = ("none", "spliceai-1.3.1")
MAX_DISTANCE = 10_000
DECIMALS = _exon_sites.DECIMALS
MAX_ALLELE_LENGTH = 1_000_000
NAMES = ("ag", "al", "dg", "dl")
_MEANINGS = ("acceptor gain", "acceptor loss", "donor gain", "donor loss")
SPLICEAI_FIELD = InfoField(
    "SpliceAI",
    ".",
    "String",
    "SpliceAI variant annotation. These include delta scores (DS) and delta positions (DP) for acceptor gain (AG), "
    "acceptor loss (AL), donor gain (DG), and donor loss (DL). "
    "Format: ALLELE|SYMBOL|DS_AG|DS_AL|DS_DG|DS_DL|DP_AG|DP_AL|DP_DG|DP_DL",
)
# network_digest of the models that may write that tag: the five networks of SpliceAI 1.3.1 as the importer writes them.
# The weights themselves are not free to ship.
SPLICEAI_NETWORKS = frozenset({"1a3132d315579578ecf1d5225f7e8f06fc5edfd06df7e23a743030759d610beb"})
_FURTHEST = "of the gene where it is furthest from 0"
_EXON_TAGS = {
    "inclusion_change": InfoField(
        "RPL_INCLUSION", "A", "Float", f"Change of the logit of the nearest exon's inclusion, {_FURTHEST}"
    ),
    "psi_change": InfoField(
        "RPL_PSI_CHANGE",
        "A",
        "Float",
        f"Change of that exon's inclusion from its measured inclusion in percentage points, {_FURTHEST}",
    ),
}
_is_info_key = re.compile(r"[A-Za-z_][0-9A-Za-z_.]*|1000G").fullmatch

# SpliceAI 1.3.1 encodes a letter by its character code modulo 5, of which only A, C, G, T and N are meant.
_SPLICEAI_TOKEN = np.array([4, 0, 1, 2, 3], dtype=np.uint8)[np.arange(256) % 5]
for _token, _letter in enumerate("ACGTN"):
    _SPLICEAI_TOKEN[ord(_letter)] = _token


def _fields() -> tuple[pa.Field, ...]:
    deltas = [
        field(f"ds_{name}", pa.float32(), f"largest {meaning} within the distance, a difference of probabilities")
        for name, meaning in zip(NAMES, _MEANINGS, strict=True)
    ]
    places = [
        field(f"dp_{name}", pa.int32(), f"where the {meaning} is: bases from POS in genome direction")
        for name, meaning in zip(NAMES, _MEANINGS, strict=True)
    ]
    flags = "what the compatibility mode did to this row, comma-separated: long_deletion, iupac_letters; else empty"
    return (
        *deltas,
        *places,
        field("ds_max", pa.float32(), "largest of the four deltas"),
        field("flags", pa.string(), flags),
    )


@dataclass(frozen=True)
class SpliceDeltaParams:
    """What may be asked.

    Attributes:
        distance: DS and DP look at positions up to this far from the variant, in bases.
        mask: set gains at the nearest annotated exon edge, and losses elsewhere, to 0.
        compatibility: "none", or "spliceai-1.3.1" to reproduce that tool's artefacts and refusals; rows that an
            artefact changes are flagged.
        exon_sites: add the signed change at the known sites of one exon (engine/scoring/_exon_sites.py).
        reference_psi: INFO key of the exon's measured inclusion without the variant, in per cent; adds the change on
            that scale. Only with exon_sites.
        max_allele_length: longer REF or ALT is rejected, in bases.
        head: the model's head with channels acceptor and donor.
    """

    distance: int = 50
    mask: bool = False
    compatibility: str = "none"
    exon_sites: bool = False
    reference_psi: str = ""
    max_allele_length: int = 10_000
    head: str = "splice"

    def __post_init__(self) -> None:
        for name, high in (("distance", MAX_DISTANCE), ("max_allele_length", MAX_ALLELE_LENGTH)):
            value, low = getattr(self, name), 0 if name == "distance" else 1
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"{name} must be a whole number from {low} to {high}, found {value!r}")
        for name in ("mask", "exon_sites"):
            value = getattr(self, name)
            if value not in (0, 1) or not isinstance(value, int):
                raise ValueError(f"{name} must be true or false, found {value!r}")
            object.__setattr__(self, name, bool(value))
        if not isinstance(self.reference_psi, str) or (self.reference_psi and not _is_info_key(self.reference_psi)):
            raise ValueError(f"reference_psi must be an INFO key, found {self.reference_psi!r}")
        if self.reference_psi and not self.exon_sites:
            raise ValueError("reference_psi is read with exon_sites only: set exon_sites too")
        if self.compatibility not in COMPATIBILITIES:
            known = ", ".join(COMPATIBILITIES)
            raise ValueError(f"compatibility must be one of {known}, found {self.compatibility!r}")


@dataclass(frozen=True, slots=True)
class _Reading:
    """What the outputs mean; 0-based reference coordinates.

    Attributes:
        start: written start.
        edit: the allele as scored.
        low: position of output 0 in both windows.
        nearest_edge: the annotated exon edge nearest to the edit's centre.
        is_minus: the windows are reverse complements.
        flags: see the column.
        is_silent: the model reads the same letters with and without the allele.
        exon: what to read at the exon's sites, if asked.
        psi: measured inclusion of the exon without the variant, in per cent, where there is one.
    """

    start: int
    edit: Edit
    low: int
    nearest_edge: int
    is_minus: bool
    flags: str
    is_silent: bool
    exon: _exon_sites.ExonReading | None
    psi: float | None


class SpliceDelta:
    """See the module's docstring.

    Raises:
        InputError: the model's head has no channels acceptor and donor.
    """

    Params = SpliceDeltaParams
    RESULT_VERSION = 4
    needs_model = True
    needs_genes = True
    copy_reach = 0

    def __init__(self, params: SpliceDeltaParams, info: ModelInfo | None) -> None:
        self.params = params
        head = named_head(info, params.head, scorer="splice_delta", by_position=True)
        assert info is not None
        if not {"acceptor", "donor"} <= set(head.channels):
            what = f"head {head.name!r} has channels {', '.join(head.channels)}"
            raise InputError(what, where=f"model {info.name}", fix="name a head with channels acceptor and donor")
        self._head = head.name
        self._channels = [head.channels.index("acceptor"), head.channels.index("donor")]
        self.flank = info.context_bp // 2
        self._is_peer = params.compatibility == "spliceai-1.3.1"
        self.written_letters = self._is_peer
        self.info_keys: tuple[str, ...] = (params.reference_psi,) if params.reference_psi else ()
        self.extra_keys: tuple[str, ...] = (_exon_sites.CARD_KEY,) if params.exon_sites else ()
        self.heads = (head.name, *(("pwm", "hexamer") if params.exon_sites else ()))
        self.heads = tuple(name for name in self.heads if name in info.heads)
        self._exons = _exon_sites.ExonReader(info, head) if params.exon_sites else None
        self.fields = _fields() + (_exon_sites.FIELDS if params.exon_sites else ())
        self.fields += (_exon_sites.PSI_FIELD,) if params.reference_psi else ()
        # Each tag with the place of its column among the values.
        self._exon_tags = [(_EXON_TAGS[one.name], i) for i, one in enumerate(self.fields) if one.name in _EXON_TAGS]
        self.info_fields = _info_fields() + tuple(tag for tag, _ in self._exon_tags)

    def prepare(self, unit: ScoringUnit, fetch: Fetch) -> Prepared | SkippedAllele:
        """Outputs of REF and ALT in transcript orientation, on the bases within the distance."""
        transcript = unit.transcript
        assert transcript is not None
        skipped = self._refusal(unit, fetch)
        if skipped is not None:
            return skipped
        edit = edit_of(unit, fetch)
        low, high = self._span(edit)
        bounds = (transcript.start, transcript.end)
        contrast = Contrast(
            contig=unit.contig,
            low=low,
            high=high,
            alt_end=max(high, edit.end),
            edits=(masked_alt(edit, self.tokens(edit.alt), bounds),),
            bounds=bounds,
            strands=transcript.strand,
        )
        exon = None
        if self._exons is not None:
            exon = _exon_sites.exon_reading(unit, transcript, fetch, position=edit.centre, reach=self._exons.reach)
        reading = _Reading(
            start=unit.start,
            edit=edit,
            low=low,
            nearest_edge=nearest_edge(transcript, edit.centre),
            is_minus=transcript.strand == "-",
            flags=self._flags(contrast, edit, fetch),
            is_silent=self._is_silent(unit, edit, fetch),
            exon=exon,
            psi=_exon_sites.read_percent(unit.info[0]) if self.info_keys else None,
        )
        return Prepared((contrast,), reading)

    def _is_silent(self, unit: ScoringUnit, edit: Edit, fetch: Fetch) -> bool:
        """Whether SpliceAI 1.3.1 takes REF and ALT for the same bases, as it may IUPAC letters."""
        if not self._is_peer or edit.num_ref != len(edit.alt):
            return False
        ref = fetch(unit.contig, edit.centre, edit.end)
        return bool((self.tokens(ref) == self.tokens(edit.alt)).all())

    def tokens(self, text: str) -> Tokens:
        """Tokens (L,); in the compatibility mode with the letters that SpliceAI 1.3.1 takes for bases."""
        if not self._is_peer:
            return tokens_from_text(text)
        return _SPLICEAI_TOKEN[np.frombuffer(text.upper().encode("latin-1", "replace"), dtype=np.uint8)]

    def _span(self, edit: Edit) -> tuple[int, int]:
        """Positions that outputs are wanted for: the distance, and for exons all that the allele can change."""
        reach = self.params.distance
        low, high = edit.centre - reach, edit.centre + reach + 1
        if self._exons is None:
            return low, high
        wide = self._exons.reach
        return min(low, edit.centre - wide), max(high, edit.end + wide)

    def _refusal(self, unit: ScoringUnit, fetch: Fetch) -> SkippedAllele | None:
        longest = max(len(unit.ref), len(unit.alt))
        if self._is_peer:
            skipped = self._peer_refusal(unit, fetch)
            if skipped is not None:
                return skipped
        if longest > self.params.max_allele_length:
            limit = self.params.max_allele_length
            return SkippedAllele("allele_too_long", f"an allele of {longest:,} bases, the limit is {limit:,}")
        return None

    def _peer_refusal(self, unit: ScoringUnit, fetch: Fetch) -> SkippedAllele | None:
        """What SpliceAI 1.3.1 leaves out, in its own order."""
        ref = unit.written_ref or unit.ref
        found = fetch(unit.contig, unit.start, unit.start + len(ref)).upper()
        if found != ref:
            # It compares REF as written with the upper-case reference: a small letter is another letter to it, and so
            # is a base that stands in REF for an IUPAC letter of the reference (VCF 4.3).
            what = f"SpliceAI 1.3.1 wants REF letter by letter: {ref[:20]} is not the reference's {found[:20]}"
            return SkippedAllele("peer_refusal", what)
        reach = self.params.distance + self.flank
        if unit.start - reach < 0 or unit.start + reach >= unit.contig_length:
            return SkippedAllele(
                "near_contig_end",
                f"{unit.contig}:{unit.start + 1:,} is within {reach:,} bases of an end of the contig, where SpliceAI "
                "1.3.1 gives no score",
            )
        if len(unit.ref) > 2 * self.params.distance:
            what = f"SpliceAI 1.3.1 refuses a REF of {len(unit.ref):,} bases, more than twice the distance"
            return SkippedAllele("peer_refusal", what)
        if len(unit.ref) > 1 and len(unit.alt) > 1:
            what = f"SpliceAI 1.3.1 refuses {len(unit.ref)} bases for {len(unit.alt)} (MNV or delins)"
            return SkippedAllele("peer_refusal", what)
        return None

    def _flags(self, contrast: Contrast, edit: Edit, fetch: Fetch) -> str:
        if not self._is_peer:
            return ""
        assert contrast.bounds is not None
        start = max(contrast.low - self.flank, contrast.bounds[0])
        end = min(contrast.alt_end + self.flank, contrast.bounds[1])
        letters = set(edit.alt.upper())
        if start < end:
            letters.update(fetch(contrast.contig, start, end).upper())
        is_long = edit.num_ref - len(edit.alt) > self.params.distance
        return ",".join(["long_deletion"] * is_long + ["iupac_letters"] * bool(letters - set("ACGTN")))

    def score(self, prepared: Prepared, tracks: Sequence[Mapping[str, Track]]) -> tuple[Any, ...] | SkippedAllele:
        """Values of `fields` from the outputs of the REF and the ALT window."""
        reading: _Reading = prepared.reading
        if reading.is_minus:
            tracks = [{head: track[:, ::-1] for head, track in one.items()} for one in tracks]
        ref, alt = (track[self._head][self._channels] for track in tracks)
        (contrast,) = prepared.contrasts
        if contrast.background:
            copies = zip((ref, alt), copy_tracks(contrast), strict=True)
            ref_KD, alt_KD = (self._lifted(*one, reading) for one in copies)
        else:
            begin = reading.edit.centre - self.params.distance - reading.low
            ref_KD = ref[:, begin : begin + 2 * self.params.distance + 1]
            alt_KD = self._onto_reference(alt, reading, begin)
        if not (np.isfinite(ref_KD).all() and np.isfinite(alt_KD).all()):
            return not_finite(self._head)
        values = (*self._deltas(ref_KD, alt_KD, reading, contrast), reading.flags)
        if self._exons is None or reading.exon is None:
            return values
        exon = self._exons.values(reading.exon, tracks[0], tracks[1], low=reading.low)
        if isinstance(exon, SkippedAllele):
            return exon
        return values + exon + (self._psi_change(reading.psi, exon[-1]) if self.params.reference_psi else ())

    def _psi_change(self, psi: float | None, inclusion: float | None) -> tuple[float | None]:
        return (None if psi is None or inclusion is None else _exon_sites.psi_change(psi, inclusion),)

    def _onto_reference(self, alt_KE: Track, reading: _Reading, begin: int) -> Track:
        """ALT outputs on the positions within the distance, (K, D)."""
        edit, num = reading.edit, 2 * self.params.distance + 1
        if not self._is_peer:
            positions = edit.positions(reading.low, alt_KE.shape[1])
            start = edit.centre - self.params.distance
            return onto_reference(alt_KE, positions, start=start, end=start + num)
        # The window of SpliceAI 1.3.1 is no longer for a deletion, so past the middle it has too few outputs and the
        # zeros of a deletion longer than the distance move onto positions before it.
        middle, num_alt = self.params.distance, len(edit.alt)
        outputs = alt_KE[:, begin : begin + num - edit.num_ref + num_alt]
        if edit.num_ref >= num_alt:
            gap = np.zeros((outputs.shape[0], edit.num_ref - num_alt), dtype=outputs.dtype)
            return np.concatenate([outputs[:, : middle + num_alt], gap, outputs[:, middle + num_alt :]], axis=1)
        anchor = outputs[:, middle : middle + num_alt].max(axis=1, keepdims=True)
        return np.concatenate([outputs[:, :middle], anchor, outputs[:, middle + num_alt :]], axis=1)

    def _lifted(self, outputs: Track, track: CopyTrack, reading: _Reading) -> Track:
        """Outputs of a copy with several alleles on the positions within the distance, (K, D)."""
        start = reading.edit.centre - self.params.distance
        return onto_reference(outputs, copy_positions(track), start=start, end=start + 2 * self.params.distance + 1)

    def _deltas(self, ref_KD: Track, alt_KD: Track, reading: _Reading, contrast: Contrast) -> tuple[Any, ...]:
        """The four DS, the four DP and the largest DS."""
        start = reading.edit.centre - self.params.distance
        gain_KD = alt_KD - ref_KD if self._is_peer else self._changes(ref_KD, alt_KD, reading.edit, contrast)
        if reading.is_silent:
            # Two passes over one window give the peer 0 everywhere, and so its first position; sums in another order
            # would leave last digits to choose by.
            gain_KD = np.zeros_like(gain_KD)
        scores: list[float] = []
        places: list[int] = []
        for gain_D in gain_KD:
            for is_loss in (False, True):
                change_D = 0 - gain_D if is_loss else gain_D
                index = int(change_D.argmax())
                is_known = start + index == reading.nearest_edge
                is_masked = self.params.mask and is_known != is_loss
                scores.append(0.0 if is_masked else float(change_D[index]))
                places.append(start + index - reading.start)
        return (*scores, *places, max(scores))

    def _changes(self, ref_KD: Track, alt_KD: Track, edit: Edit, contrast: Contrast) -> NDArray[np.float64]:
        """ALT less REF to DECIMALS, (K, D), exactly 0 where the model's context does not hold the allele."""
        change_KD = np.round(alt_KD.astype(np.float64) - ref_KD, DECIMALS)
        begin, end = edit.centre - self.flank, edit.end + self.flank
        if contrast.background:
            begin, end = reached(contrast, flank=self.flank)
        start = edit.centre - self.params.distance
        change_KD[:, : max(0, begin - start)] = 0
        change_KD[:, max(0, end - start) :] = 0
        return change_KD + 0.0  # no negative zero

    def info_values(self, alleles: Sequence[Sequence[AlleleRow]]) -> list[tuple[str, list[str]]]:
        """The largest of each delta over the genes of an ALT, with the position that goes with it."""
        scored = [[row for row in rows if row.values is not None] for rows in alleles]
        entries: list[tuple[str, list[str]]] = []
        for index, name in enumerate(NAMES):
            best = [_best(rows, index) for rows in scored]
            entries.append((f"RPL_DS_{name.upper()}", [_text(row, index, float_text) for row in best]))
            entries.append((f"RPL_DP_{name.upper()}", [_text(row, 4 + index, str) for row in best]))
        best = [_best(rows, 8) for rows in scored]
        entries.append(("RPL_DS_MAX", [_text(row, 8, float_text) for row in best]))
        entries.append(("RPL_GENE", [encode_info(row.symbol or ".") if row else "." for row in best]))
        return entries + [(tag.id, [_furthest(rows, index) for rows in scored]) for tag, index in self._exon_tags]

    def spliceai_value(self, alleles: Sequence[Sequence[AlleleRow]]) -> str | None:
        """The value of the tag SpliceAI, ALT-major then in gene-table order; None where it has nothing to say."""
        texts = []
        for row in (row for rows in alleles for row in rows):
            if row.values is not None:
                numbers = "|".join(f"{value:.2f}" for value in row.values[:4])
                places = "|".join(str(value) for value in row.values[4:8])
                texts.append(f"{row.alt}|{encode_info(row.symbol or '.')}|{numbers}|{places}")
            elif row.reason == "peer_refusal" and self._gives_dots(row):
                texts.append(f"{row.alt}|{encode_info(row.symbol or '.')}|.|.|.|.|.|.|.|.")
        return ",".join(texts) or None

    def _gives_dots(self, row: AlleleRow) -> bool:
        """Whether SpliceAI says of an allele that it does not score it: an MNV or delins, unless it skips the record
        for a long REF or one in small letters."""
        is_skipped = len(row.ref) > 2 * self.params.distance or row.ref != row.ref.upper()
        return len(row.ref) > 1 and len(row.alt) > 1 and not is_skipped


def is_spliceai(info: ModelInfo | None) -> bool:
    """Whether a model is SpliceAI itself, by what it says and by its digest, so that its scores may bear that name."""
    return info is not None and info.score_tag == SPLICEAI_FIELD.id and network_digest(info) in SPLICEAI_NETWORKS


def nearest_edge(transcript: Transcript, position: int) -> int:
    """The first or last base of an exon nearest to a position, the lowest where two tie (0-based)."""
    edges = (edge for start, end in transcript.exons for edge in (start, end - 1))
    return min(edges, key=lambda edge: (abs(edge - position), edge))


def _best(rows: Sequence[AlleleRow], index: int) -> AlleleRow | None:
    """The row with the largest value, the first where several tie."""
    best: AlleleRow | None = None
    for row in rows:
        if row.values is not None and (best is None or best.values is None or row.values[index] > best.values[index]):
            best = row
    return best


def _text(row: AlleleRow | None, index: int, write: Callable[[Any], str]) -> str:
    return "." if row is None or row.values is None else write(row.values[index])


def _furthest(rows: Sequence[AlleleRow], index: int) -> str:
    """The value furthest from 0 over the genes of an ALT."""
    found = [row.values[index] for row in rows if row.values is not None and row.values[index] is not None]
    return float_text(max(found, key=abs) if found else None)


def _info_fields() -> tuple[InfoField, ...]:
    made = []
    for name, meaning in zip(NAMES, _MEANINGS, strict=True):
        tag = name.upper()
        made.append(InfoField(f"RPL_DS_{tag}", "A", "Float", f"Delta score of {meaning}, largest over genes"))
        place = f"Position of the {meaning} in RPL_DS_{tag}, bases from POS in genome direction"
        made.append(InfoField(f"RPL_DP_{tag}", "A", "Integer", place))
    made.append(InfoField("RPL_DS_MAX", "A", "Float", "Largest of the four delta scores over genes"))
    gene = "Symbol of the gene with RPL_DS_MAX, percent-encoded where VCF requires it"
    made.append(InfoField("RPL_GENE", "A", "String", gene))
    return tuple(made)


COMPONENT = SpliceDelta
