"""The rules that a set was cleaned by, in words, for its data card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_AMBIGUOUS = {"dna": "such as N", "rna": "such as N", "protein": "such as X"}
_DUPLICATES = {
    "sequence": "the first record of {what} stands, later ones are rejected",
    "row": "of records with equal {whats}, label and targets the first stands",
    "keep": "kept",
}


def rules_told(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and sentence of each rule that holds.

    Args:
        settings: `rules` (Rules.to_json), `duplicates`, `near_duplicates` and, of windows, `windows` of a card.
    """
    rules = settings["rules"]
    return [*_windows(settings.get("windows")), *_letters(rules), *_truths(rules), *_repeats(settings)]


def _letters(rules: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    alphabet = str(rules["alphabet"])
    yield "letters", f"{alphabet if alphabet == 'protein' else alphabet.upper()}, as upper case"
    invalid = rules["max_invalid_fraction"]
    unknown = "X" if alphabet == "protein" else "N"
    yield "other letters", f"at most {_share(invalid)} of a sequence, read as {unknown}" if invalid else "none"
    most = rules["max_ambiguous_fraction"]
    named = _AMBIGUOUS[alphabet]
    yield "ambiguous letters", f"{named}: at most {_share(most)} of a sequence" if most < 1 else f"{named}: any number"
    longest = rules["max_length"]
    yield (
        "length",
        f"{rules['min_length']:,} letters and more" + (f", at most {longest:,}" if longest else ", no limit"),
    )
    if rules["second_alphabet"] is not None:
        most = rules["second_max_length"]
        kind = {"smiles": "SMILES, as written", "protein": "protein"}.get(rules["second_alphabet"], "nucleotides")
        yield "other member", kind + (f", at most {most:,} letters" if most else "")


def _truths(rules: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if rules["classes"]:
        yield "classes", ", ".join(rules["classes"])
    if rules["label_separator"]:
        yield "several classes a record", f"parted by {rules['label_separator']!r}"
    needed = [
        name
        for name, is_needed in (
            ("label", rules["needs_label"]),
            ("target", rules["needs_targets"] and rules["num_targets"]),
            ("position labels", rules["needs_position_labels"]),
        )
        if is_needed
    ]
    if needed:
        yield "needed", f"{' and '.join(needed)}; a record without is rejected"
    if rules["position_classes"]:
        yield "classes of positions", ", ".join(rules["position_classes"])
    if rules["position_unknown"]:
        yield "position not known", ", ".join(rules["position_unknown"])


def _repeats(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    is_pairs = settings["rules"]["second_alphabet"] is not None
    what = ("both members", "members") if is_pairs else ("a sequence", "sequence")
    yield "equal records", _DUPLICATES[settings["duplicates"]].format(what=what[0], whats=what[1])
    near = settings.get("near_duplicates")
    if near is None:
        yield "near duplicates", "not looked for"
    else:
        strands = ", a word and its reverse complement being one" if near["both_strands"] else ""
        words = f"Jaccard index of its {near['k']}-letter words with an earlier kept one"
        yield "near duplicates", f"rejected from a {words} of {near['threshold']:g} on{strands}"


def _windows(windows: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    if windows is None:
        return
    length = windows["length_bp"]
    yield "windows", f"{length:,} bases around the {windows['anchor']}" if length else "as the regions are"
    if windows["margin_bp"]:
        yield "margin", f"{windows['margin_bp']:,} more bases on both sides"
    yield "past a contig's end", "N" if windows["past_ends"] == "fill" else "the window is rejected"


def _share(value: float) -> str:
    return f"{100 * value:g}%"
