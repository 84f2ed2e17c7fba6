"""Which records are kept, and why the others are not.

Every rule looks at one record alone; what it does not pass first is its reason. Duplicates are told apart elsewhere,
since only a view of all records can. Letters: DNA keeps A, C, G, T; the other IUPAC codes are ambiguous and become N;
RNA is written with T for U; proteins keep the twenty amino acids, and B, J, O, U, X, Z as they are, counted as
ambiguous (IUPAC-IUB nomenclature 1984, doi 10.1111/j.1432-1033.1984.tb07877.x). Anything else is invalid. The other
member of a pair may be SMILES, which is kept as written. Labels of positions are one letter each, . where not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from engine.io._sequence_rows import RawSequences
from engine.io.sequence_text import shown
from engine.io.smiles import SmilesError, smiles_tokens
from schemas import states, tables

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Alphabet = Literal["dna", "rna", "protein"]
SecondAlphabet = Literal["smiles", "dna", "rna", "protein"]

DEFINITE, AMBIGUOUS, INVALID = 0, 1, 2
_LETTERS = {
    "dna": ("ACGT", "NRYSWKMBDHV"),
    "rna": ("ACGTU", "NRYSWKMBDHV"),
    "protein": ("ACDEFGHIKLMNPQRSTVWY", "BJOUXZ"),
}
UNKNOWN_POSITION = "."
_EMPTY_WORDS = ("", "na", "n/a", "null", "none", ".")
_NUMBER = r"^-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_NOT_FINITE = r"^-?(nan|inf|infinity)$"


@dataclass(frozen=True)
class Rules:
    """What a record must be to be kept.

    Attributes:
        alphabet: dna, rna or protein.
        min_length, max_length: letters.
        max_invalid_fraction: most letters outside the alphabet, as a share; those within the limit become N or X.
        max_ambiguous_fraction: most ambiguous letters, as a share.
        classes: declared classes; none declared takes any label.
        label_separator: parts the classes of a record that has several; makes 0/1 targets in the order of `classes`.
        needs_label, needs_targets: a record without is rejected.
        num_targets: columns of targets.
        second_alphabet: of the other member of a pair; None where records are no pairs.
        second_max_length: most letters of it.
        has_position_labels: a letter for each letter of the sequence is asked for.
        needs_position_labels: a record without is rejected.
        position_classes: the letters there are; none declared takes any.
        position_unknown: letters that say that a position's class is not known; written as UNKNOWN_POSITION, which
            always says so.
    """

    alphabet: Alphabet = "dna"
    min_length: int = 1
    max_length: int | None = None
    max_invalid_fraction: float = 0.0
    max_ambiguous_fraction: float = 0.1
    classes: tuple[str, ...] = ()
    label_separator: str | None = None
    needs_label: bool = False
    needs_targets: bool = False
    num_targets: int = 0
    second_alphabet: SecondAlphabet | None = None
    second_max_length: int | None = None
    has_position_labels: bool = False
    needs_position_labels: bool = False
    position_classes: str = ""
    position_unknown: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values, as run.json and the card keep them."""
        return {**asdict(self), "classes": list(self.classes)}


@dataclass(frozen=True)
class Cleaned:
    """A batch, judged.

    Attributes:
        table: rows of schemas.tables.SEQUENCES, in input order.
        sentences: row to what was found, for the rejected.
        texts: row to the text that was rejected.
    """

    table: pa.Table
    sentences: dict[int, str] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)

    def is_kept(self) -> Bools:
        """bool (rows,)."""
        return np.asarray(pc.is_null(self.table["reason"]), bool)


@lru_cache(maxsize=8)
def _letter_kinds(alphabet: str) -> npt.NDArray[np.uint8]:
    kinds = np.full(256, INVALID, np.uint8)
    for kind, letters in enumerate(_LETTERS[alphabet]):
        for letter in letters:
            kinds[ord(letter)] = kinds[ord(letter.lower())] = kind
    return kinds


@lru_cache(maxsize=8)
def _written_as(alphabet: str) -> bytes:
    """256 bytes: how each letter is written in the shards."""
    kinds = _letter_kinds(alphabet)
    spare = ord("X" if alphabet == "protein" else "N")
    made = bytearray(ord(chr(code).upper()) if code < 128 else spare for code in range(256))
    for code in range(256):
        replaced = kinds[code] == INVALID or (kinds[code] == AMBIGUOUS and alphabet != "protein")
        if replaced:
            made[code] = spare
    if alphabet == "rna":
        made[ord("U")] = made[ord("u")] = ord("T")
    return bytes(made)


@dataclass(frozen=True)
class _Letters:
    """Sequences of a batch: rewritten text, lengths, and how many letters of each kind."""

    text: pa.Array
    lengths: Ints
    ambiguous: Ints
    invalid: Ints


def _letters(sequences: pa.ChunkedArray, alphabet: str) -> _Letters:
    column = pc.fill_null(sequences.cast(pa.large_string()), "").combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks else pa.array([], pa.large_string())
    if alphabet == "protein":
        column = pc.ascii_rtrim(column, characters="*")  # the stop of a translation is no residue
    _, offsets_buffer, values = column.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64)[column.offset : column.offset + len(column) + 1]
    begin, end = (int(offsets[0]), int(offsets[-1])) if len(offsets) else (0, 0)
    data = b"" if values is None else values.to_pybytes()[begin:end]
    offsets = np.ascontiguousarray(offsets - begin)
    kinds = _letter_kinds(alphabet)[np.frombuffer(data, np.uint8)]
    written = data.translate(_written_as(alphabet))
    text = pa.Array.from_buffers(pa.large_string(), len(column), [None, pa.py_buffer(offsets), pa.py_buffer(written)])
    return _Letters(text, np.diff(offsets), _per_row(kinds == AMBIGUOUS, offsets), _per_row(kinds == INVALID, offsets))


def _per_row(found: Bools, offsets: Ints) -> Ints:
    before = np.concatenate(([0], np.cumsum(found, dtype=np.int64)))
    return before[offsets[1:]] - before[offsets[:-1]]


class _Verdicts:
    """Reasons of a batch, the first one standing."""

    def __init__(self, num_rows: int) -> None:
        self.reasons = np.full(num_rows, None, object)
        self.sentences: dict[int, str] = {}

    def reject(self, rows: Bools, reason: str, sentence: Any) -> None:
        """`sentence` is called with the row; only for rows that have no reason yet."""
        for row in np.flatnonzero(rows).tolist():
            if self.reasons[row] is None:
                self.reasons[row] = reason
                self.sentences[row] = sentence(row)


def clean(raw: RawSequences, rules: Rules) -> Cleaned:
    """Judge a batch; rows keep their order, and every record becomes one row."""
    table, num = raw.table, raw.table.num_rows
    verdicts = _Verdicts(num)
    for row, problem in raw.problems.items():
        verdicts.reasons[row], verdicts.sentences[row] = problem.reason, problem.sentence
    letters = _letters(table["sequence"], rules.alphabet)
    _judge_letters(letters, rules, verdicts)
    seconds = _judge_seconds(table["second"], rules, verdicts)
    labels = _blank_to_null(table["label"])
    targets = _judge_label(labels, rules, verdicts)
    positions = _judge_positions(table["position_labels"], letters.lengths, rules, verdicts)
    values, target_columns = _judge_targets(table, rules, verdicts)
    kept = np.array([reason is None for reason in verdicts.reasons], bool)
    made = {
        "record": np.arange(raw.first_record, raw.first_record + num, dtype=np.int64),
        "id": _blank_to_null(table["id"]),
        "sequence": _masked(letters.text, kept).cast(pa.string()),
        "length": letters.lengths.astype(np.int32),
        "second": _masked(seconds, kept),
        "label": labels,
        "position_labels": _masked(positions, kept),
        "target": target_columns[0] if rules.num_targets == 1 else pa.nulls(num, pa.float64()),
        "targets": targets if values is None else _lists(values),
        **{name: _blank_to_null(table[name]) for name in ("second_id", "group", "contig", "strand")},
        **{name: _places(table[name]) for name in ("start", "end")},
        "state": np.where(kept, states.KEPT, states.REJECTED),
        "reason": pa.array(verdicts.reasons, pa.string()),
    }
    columns = [_as(made[one.name], one.type) for one in tables.SEQUENCES]
    texts = _texts(raw, np.flatnonzero(~kept).tolist(), verdicts)
    return Cleaned(pa.Table.from_arrays(columns, schema=tables.SEQUENCES), verdicts.sentences, texts)


def _as(values: Any, kind: pa.DataType) -> pa.Array:
    array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
    return array.cast(kind)


def _masked(values: pa.Array, kept: Bools) -> pa.Array:
    return pc.if_else(pa.array(kept), values, pa.scalar(None, values.type))


def _texts(raw: RawSequences, rows: list[int], verdicts: _Verdicts) -> dict[int, str]:
    """What is shown of each rejected row: its name, and the member of a pair that it was rejected for."""
    some = raw.table.select(["id", "sequence", "second"]).take(pa.array(rows, pa.int64())).to_pydict()
    texts = {}
    for row, name, sequence, second in zip(rows, some["id"], some["sequence"], some["second"], strict=True):
        is_second = verdicts.reasons[row] in ("invalid_second", "second_too_long")
        whole = f"{name} {second if is_second else sequence}"
        texts[row] = shown(raw.problems[row].text if row in raw.problems else whole)
    return texts


def _judge_letters(letters: _Letters, rules: Rules, verdicts: _Verdicts) -> None:
    lengths = letters.lengths
    whole = np.maximum(lengths, 1)
    share = f"the limit is {rules.max_invalid_fraction:.2%}"
    verdicts.reject(lengths == 0, "empty_sequence", lambda _: "there are no letters")
    verdicts.reject(
        letters.invalid > rules.max_invalid_fraction * whole,
        "invalid_letters",
        lambda row: f"{letters.invalid[row]:,} of {lengths[row]:,} letters are not {rules.alphabet}; {share}",
    )
    verdicts.reject(
        letters.ambiguous + letters.invalid > max(rules.max_ambiguous_fraction, rules.max_invalid_fraction) * whole,
        "ambiguous_letters",
        lambda row: (
            f"{letters.ambiguous[row] + letters.invalid[row]:,} of {lengths[row]:,} letters are ambiguous; "
            f"the limit is {rules.max_ambiguous_fraction:.2%}"
        ),
    )
    verdicts.reject(
        lengths < rules.min_length,
        "too_short",
        lambda row: f"{lengths[row]:,} letters, fewer than {rules.min_length:,}",
    )
    if rules.max_length is not None:
        limit = rules.max_length
        verdicts.reject(lengths > limit, "too_long", lambda row: f"{lengths[row]:,} letters, more than {limit:,}")


def _judge_seconds(column: pa.ChunkedArray, rules: Rules, verdicts: _Verdicts) -> pa.Array:
    """Judges the other members of pairs; returns them as they are written, null where records are no pairs."""
    if rules.second_alphabet is None:
        return pa.nulls(len(column), pa.string())
    texts = _blank_to_null(column)
    missing = np.asarray(pc.is_null(texts), bool)
    verdicts.reject(missing, "missing_second", lambda _: "the other member of the pair is not there")
    if rules.second_alphabet == "smiles":
        lengths = np.asarray(pc.fill_null(pc.binary_length(texts), 0), np.int64)
        for row, text in enumerate(texts.to_pylist()):
            told = None if text is None or verdicts.reasons[row] is not None else _no_smiles(text)
            if told is not None:
                verdicts.reasons[row], verdicts.sentences[row] = "invalid_second", told
        written = texts.combine_chunks()
    else:
        letters = _letters(texts, rules.second_alphabet)
        odd = letters.ambiguous + letters.invalid
        whole, lengths = np.maximum(letters.lengths, 1), letters.lengths
        most = max(rules.max_ambiguous_fraction, rules.max_invalid_fraction)
        is_odd = (letters.invalid > rules.max_invalid_fraction * whole) | (odd > most * whole) | (lengths == 0)
        verdicts.reject(
            is_odd & ~missing,
            "invalid_second",
            lambda row: (
                f"the other member: of {lengths[row]:,} letters {letters.invalid[row]:,} are not "
                f"{rules.second_alphabet} and {letters.ambiguous[row]:,} are ambiguous"
            ),
        )
        written = letters.text.cast(pa.string())
    if rules.second_max_length is not None:
        limit = rules.second_max_length
        told = "the other member has {:,} letters, more than {:,}"
        verdicts.reject(lengths > limit, "second_too_long", lambda row: told.format(lengths[row], limit))
    return written


def _no_smiles(text: str) -> str | None:
    """Why a text is no SMILES; None where it is one."""
    try:
        smiles_tokens(text)
    except SmilesError as error:
        return f"{shown(repr(text))} is no SMILES: {error}"
    return None


def _judge_positions(column: pa.ChunkedArray, lengths: Ints, rules: Rules, verdicts: _Verdicts) -> pa.Array:
    """Judges labels of positions; returns them with what is not known written as UNKNOWN_POSITION."""
    if not rules.has_position_labels:
        return pa.nulls(len(column), pa.string())
    unknown = str.maketrans(dict.fromkeys(rules.position_unknown, UNKNOWN_POSITION))
    texts = [None if text is None else text.translate(unknown) for text in _blank_to_null(column).to_pylist()]
    sizes = np.array([len(text or "") for text in texts], np.int64)
    there = np.array([text is not None for text in texts], bool)
    nothing = np.array([not (text or "").strip(UNKNOWN_POSITION) for text in texts], bool)
    differs = "{:,} position labels for {:,} letters"
    verdicts.reject(
        there & (sizes != lengths), "position_labels_length", lambda row: differs.format(sizes[row], lengths[row])
    )
    if rules.needs_position_labels:
        verdicts.reject(nothing, "missing_label", lambda _: "no position has a label")
    known = {UNKNOWN_POSITION, *rules.position_classes}
    for row, text in enumerate(texts):
        odd = _odd_position(text or "", known if rules.position_classes else None)
        if odd is not None and verdicts.reasons[row] is None:
            place, said = odd
            verdicts.reasons[row] = "unknown_label"
            verdicts.sentences[row] = f"the label of letter {place + 1:,} is {(text or '')[place]!r}, {said}"
    return pa.array(texts, pa.string())


def _odd_position(text: str, known: set[str] | None) -> tuple[int, str] | None:
    """Place of the first label that cannot be, and what it should have been."""
    found = set(text) - known if known is not None else {one for one in set(text) if not "!" <= one <= "~"}
    if not found:
        return None
    told = "wanted is one plain letter" if known is None else f"none of {' '.join(sorted(known))}"
    return min(text.index(one) for one in found), told


def _blank_to_null(column: pa.ChunkedArray) -> pa.ChunkedArray:
    column = column.cast(pa.string())
    return pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)


def _judge_label(labels: pa.ChunkedArray, rules: Rules, verdicts: _Verdicts) -> pa.Array:
    """Judges labels; returns 0/1 targets, list (rows,), where a record may have several classes."""
    missing = np.asarray(pc.is_null(labels), bool)
    if rules.needs_label:
        verdicts.reject(missing, "missing_label", lambda _: "it has no label")
    if rules.label_separator:
        return _many_hot(labels.to_pylist(), rules, verdicts)
    if rules.classes:
        known = pc.is_in(labels, value_set=pa.array(rules.classes, pa.string()))
        unknown = ~np.asarray(known, bool) & ~missing
        verdicts.reject(unknown, "unknown_label", lambda row: _unknown(labels[row].as_py(), rules))
    return pa.nulls(len(labels), pa.list_(pa.float64()))


def _unknown(label: str, rules: Rules) -> str:
    known = ", ".join(rules.classes[:8]) + (", ..." if len(rules.classes) > 8 else "")
    return f"{shown(repr(label))} is none of the classes {known}"


def _many_hot(labels: list[str | None], rules: Rules, verdicts: _Verdicts) -> pa.Array:
    places = {name: i for i, name in enumerate(rules.classes)}
    made: list[list[float] | None] = []
    for row, label in enumerate(labels):
        names = [] if label is None else [name.strip() for name in label.split(rules.label_separator) if name.strip()]
        odd = next((name for name in names if name not in places), None)
        if odd is not None and verdicts.reasons[row] is None:
            verdicts.reasons[row], verdicts.sentences[row] = "unknown_label", _unknown(odd, rules)
        hot = [0.0] * len(places)
        for name in names:
            if name in places:
                hot[places[name]] = 1.0
        made.append(None if label is None else hot)
    return pa.array(made, pa.list_(pa.float64()))


def _judge_targets(table: pa.Table, rules: Rules, verdicts: _Verdicts) -> tuple[Any, list[pa.Array]]:
    """float64 (rows, targets) with NaN where there is none, and each as a column with nulls."""
    columns: list[pa.Array] = []
    for i in range(rules.num_targets):
        values, bad = _numbers(table[f"target_{i}"])
        shown_as = table[f"target_{i}"]
        missing = np.isnan(values) & ~bad
        if rules.needs_targets:
            verdicts.reject(missing, "missing_target", lambda _, i=i: f"target {i + 1} is empty")
        verdicts.reject(
            bad, "bad_target", lambda row, i=i, text=shown_as: f"target {i + 1} is {shown(repr(text[row].as_py()))}"
        )
        columns.append(pa.array(values, mask=np.isnan(values)))
    stacked = np.stack([np.asarray(column.fill_null(np.nan)) for column in columns], 1) if columns else None
    return (stacked if rules.num_targets > 1 else None), columns


def _numbers(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.float64], Bools]:
    """float64 (rows,), NaN where there is no number, and bool (rows,): something stands there that is no number."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        missing = np.asarray(pc.is_null(column), bool)
        values = np.asarray(pc.fill_null(column.cast(pa.float64()), 0.0), np.float64).copy()
        bad = ~np.isfinite(values)
        values[missing | bad] = np.nan
        return values, bad & ~missing
    text = pc.ascii_ltrim(pc.utf8_lower(pc.fill_null(column, "")), characters="+")
    good = pc.match_substring_regex(text, pattern=_NUMBER)
    values = np.array([float(one) for one in pc.if_else(good, text, "nan").to_pylist()], np.float64)
    is_nan = np.asarray(pc.match_substring_regex(text, pattern=_NOT_FINITE), bool)
    empty = np.asarray(pc.is_in(text, value_set=pa.array(_EMPTY_WORDS, text.type)), bool)
    bad = is_nan | (~np.asarray(good, bool) & ~empty) | np.isinf(values)
    values[bad] = np.nan
    return values, bad


def _lists(values: npt.NDArray[np.float64]) -> pa.Array:
    num, width = values.shape
    flat = pa.array(values.reshape(-1), mask=np.isnan(values.reshape(-1)))
    offsets = np.arange(0, num * width + 1, width, dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, flat)


def _places(column: pa.ChunkedArray) -> pa.Array:
    """int64, null where no whole number stands."""
    if pa.types.is_integer(column.type):
        return column.cast(pa.int64())
    text = pc.fill_null(column.cast(pa.string()), "")
    good = pc.match_substring_regex(text, pattern="^[0-9]{1,18}$")
    return pc.if_else(good, text, pa.scalar(None, pa.string())).cast(pa.int64())


def reasons_of(table: pa.Table) -> Mapping[str, int]:
    """Reason code to number of rows, in the order of the codes' names."""
    counts = {one["values"]: one["counts"] for one in pc.value_counts(table["reason"]).to_pylist()}
    return {reason: counts[reason] for reason in sorted(filter(None, counts))}
