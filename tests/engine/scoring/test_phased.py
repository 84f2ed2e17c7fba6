from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.io.haplotypes import Copy
from engine.scoring._contract import ScoringUnit
from engine.scoring._phased import PhasedSpliceDelta
from engine.scoring.splice_delta import NAMES, SpliceDelta, SpliceDeltaParams
from tests.engine.scoring import spliceai_oracle as oracle
from tests.engine.scoring.stubs import answer, fetch_from, model_info, site_values, transcript, window_texts

CONTEXT = 4
PAD = 40


def make(**params):
    return PhasedSpliceDelta(SpliceDelta(SpliceDeltaParams(**params), model_info(CONTEXT)))


def columns(scorer, values):
    return dict(zip([one.name for one in scorer.fields], values, strict=True))


@st.composite
def copies(draw):
    """A contig, and alleles of one copy that change different bases, one base or more apart."""
    text = draw(st.text("ACGT", min_size=40, max_size=60))
    alleles, at = [], draw(st.integers(1, 6))
    while at < len(text) - 6 and len(alleles) < 5:
        num_ref = draw(st.integers(1, 4))
        ref = text[at : at + num_ref]
        alt = draw(st.one_of(st.text("ACGT", min_size=1, max_size=4), st.text("ACGT", max_size=3).map(ref[0].__add__)))
        if alt != ref:
            alleles.append((at, ref, alt))
        at += num_ref + draw(st.integers(1, 7))
    assume(alleles)
    return text, alleles, draw(st.integers(0, len(alleles) - 1))


def bare(start, ref, alt):
    """Without what both share: the end first but for one base, then the beginning, then the end."""
    while len(ref) > 1 and len(alt) > 1 and ref[-1] == alt[-1]:
        ref, alt = ref[:-1], alt[:-1]
    while ref and alt and ref[0] == alt[0]:
        start, ref, alt = start + 1, ref[1:], alt[1:]
    while ref and alt and ref[-1] == alt[-1]:
        ref, alt = ref[:-1], alt[:-1]
    return start, ref, alt


def site_scores(text, alleles, bounds, strand):
    """{coordinate: (acceptor, donor)} of a copy, written base by base; a deleted coordinate is absent."""
    changes = {start: (len(ref), alt) for start, ref, alt in (bare(*one) for one in alleles)}
    copy, at = [], -PAD
    while at < len(text) + PAD:
        inside = bounds[0] <= at < bounds[1]
        num_ref, alt = changes.get(at, (1, None))
        if alt is None:
            copy.append((at, text[at] if inside and 0 <= at < len(text) else "N"))
            at += 1
            continue
        for number, letter in enumerate(alt):
            stand = min(at + number, at + num_ref - 1)
            copy.append((stand, letter if bounds[0] <= stand < bounds[1] else "N"))
        if num_ref == 0:
            copy.append((at, text[at] if inside else "N"))
        at += max(num_ref, 1)
    question = oracle.Question(text, 0, "", "", bounds, (bounds,), strand, 0, False, CONTEXT)
    values = oracle.predict(question, [letter for _, letter in copy], site_values)
    found: dict[int, tuple[float, float]] = {}
    for (stand, _), (acceptor, donor) in zip(copy[CONTEXT // 2 :], values, strict=False):
        former = found.get(stand, (0.0, 0.0))
        found[stand] = max(former[0], acceptor), max(former[1], donor)
    return found


def num_read(scorer, unit, text):
    """How many of the other alleles of copy 2 change what the model reads there of the gene, taken away one by one."""

    def texts(others):
        prepared = scorer.prepare(replace(unit, copies=(None, Copy(others))), fetch_from(text))
        return [one.strip("N") for one in window_texts(scorer, prepared, fetch_from(text), CONTEXT)[2:]]

    others = unit.copies[1].others
    whole = texts(others)
    return sum(texts(others[:at] + others[at + 1 :]) != whole for at in range(len(others)))


@settings(max_examples=300, deadline=None)
@given(copies(), st.integers(0, 8), st.booleans(), st.sampled_from("+-"), st.integers(0, 4))
def test_equals_a_copy_written_out(drawn, distance, mask, strand, margin):
    """The allele's change on a copy that has the others too, in both tracks, against copies written base by base."""
    text, alleles, chosen = drawn
    own, others = alleles[chosen], alleles[:chosen] + alleles[chosen + 1 :]
    bounds = (margin, len(text) - margin)
    assume(bounds[0] <= own[0] < bounds[1])
    scorer = make(distance=distance, mask=mask)
    unit = ScoringUnit("c", len(text), *own, transcript((bounds,), strand), (), (None, Copy(tuple(others))))
    found = columns(scorer, answer(scorer, unit, fetch_from(text), CONTEXT))
    alone = columns(scorer._inner, answer(scorer._inner, unit, fetch_from(text), CONTEXT))
    without = site_scores(text, others, bounds, strand)
    held = site_scores(text, alleles, bounds, strand)
    asked = oracle.Question(text, *own, bounds, (bounds,), strand, distance, mask, CONTEXT)
    centre, _, _ = oracle.trimmed(asked)
    places = range(centre - distance, centre + distance + 1)
    sides = [[scores.get(at, (0.0, 0.0)) for at in places] for scores in (without, held)]
    expected = oracle.best_change(asked, centre, *sides)
    assert [(found[f"copy2_ds_{name}"], found[f"copy2_dp_{name}"]) for name in NAMES] == expected
    assert num_read(scorer, unit, text) <= found["copy2_others"] <= len(others) and found["copy1_others"] is None
    assert [found[f"copy1_ds_{name}"] for name in NAMES] == [None] * 4
    assert {name: found[name] for name in alone} == alone


def test_without_neighbours_a_copy_is_the_allele_alone():
    text = "ACGTACGTTGCAACGTAGGTACGTACGT"
    scorer = make(distance=5)
    unit = ScoringUnit("c", len(text), 12, "A", "G", transcript(((0, len(text)),)), (), (Copy(()), None))
    found = columns(scorer, answer(scorer, unit, fetch_from(text), CONTEXT))
    assert found["copy1_others"] == 0
    assert [found[f"copy1_ds_{name}"] for name in NAMES] == [found[f"ds_{name}"] for name in NAMES]


def test_beyond_the_reach_of_the_allele_nothing_changes():
    """Two bases of context either side, counted on the copy: past a deletion beside it further on the reference."""
    text, distance = "ACGTACGTTGCAACGTAGGTACGTACGT", 10
    scorer = make(distance=distance)
    unit = ScoringUnit(
        "c", len(text), 12, "A", "G", transcript(((0, len(text)),)), (), (Copy(((13, "CGT", "C"),)), None)
    )
    prepared = scorer.prepare(unit, fetch_from(text))
    shapes = [len(one) - CONTEXT for one in window_texts(scorer, prepared, fetch_from(text), CONTEXT)]
    changed = set()
    for index in range(shapes[3]):
        tracks = [{"splice": np.zeros((3, shape), dtype=np.float32)} for shape in shapes]
        tracks[3]["splice"][1, index] = 1
        found = columns(scorer, scorer.score(prepared, tracks))
        if found["copy1_ds_ag"] == 1:
            changed.add(12 + found["copy1_dp_ag"])
    # Bases 14 and 15 are deleted, so 16 is the second base after 12 + 1 on the copy.
    assert changed == {10, 11, 12, 13, 16}


def test_an_allele_on_the_same_bases_is_left_out_and_said():
    text = "ACGTACGTTGCAACGTAGGTACGTACGT"
    scorer = make(distance=5)
    others = ((11, "AA", "A"), (12, "A", "C"), (19, "T", "G"))
    unit = ScoringUnit("c", len(text), 12, "A", "G", transcript(((0, len(text)),)), (), (Copy(others), None))
    found = columns(scorer, answer(scorer, unit, fetch_from(text), CONTEXT))
    assert (found["copy1_others"], found["flags"]) == (1, "copy1_conflict")


@pytest.mark.parametrize(
    ("other", "count"),
    [
        ((5, "C", "G"), 1),  # the first base of the window
        ((4, "A", "G"), 0),
        ((4, "A", "AGG"), 0),
        ((5, "C", "CGG"), 1),  # an inserted base is the window's first
        ((2, "GTA", "G"), 0),  # the window begins behind it
        ((19, "T", "G"), 1),  # the last
        ((20, "A", "G"), 0),
        ((19, "TAC", "T"), 0),  # behind the last
        ((18, "GTA", "G"), 1),
    ],
)
def test_only_alleles_that_the_model_reads_are_counted(other, count):
    text = "ACGTACGTTGCAACGTAGGTACGTACGT"
    scorer = make(distance=5)
    unit = ScoringUnit("c", len(text), 12, "A", "G", transcript(((0, len(text)),)), (), (None, Copy((other,))))
    found = columns(scorer, answer(scorer, unit, fetch_from(text), CONTEXT))
    assert found["copy2_others"] == num_read(scorer, unit, text) == count


@pytest.mark.parametrize(
    ("other", "count"),
    [
        ((8, "T", "G"), 0),
        ((9, "G", "T"), 1),
        ((8, "TG", "T"), 1),
        ((8, "T", "TCC"), 0),
        ((15, "T", "G"), 1),
        ((15, "T", "TCC"), 1),
        ((16, "A", "G"), 0),
        ((15, "TAG", "T"), 0),
    ],
)
def test_alleles_outside_the_gene_are_not_counted(other, count):
    text = "ACGTACGTTGCAACGTAGGTACGTACGT"
    scorer = make(distance=5)
    unit = ScoringUnit("c", len(text), 12, "A", "G", transcript(((9, 16),)), (), (None, Copy((other,))))
    found = columns(scorer, answer(scorer, unit, fetch_from(text), CONTEXT))
    assert found["copy2_others"] == num_read(scorer, unit, text) == count


def test_an_allele_that_was_not_applied_is_said():
    text = "ACGTACGTTGCAACGTAGGTACGTACGT"
    scorer = make(distance=5)
    copies = (Copy((), has_rejected=True), Copy(((19, "T", "G"),)))
    unit = ScoringUnit("c", len(text), 12, "A", "G", transcript(((0, len(text)),)), (), copies)
    found = columns(scorer, answer(scorer, unit, fetch_from(text), CONTEXT))
    assert (found["copy1_others"], found["copy2_others"]) == (0, 1)
    assert found["flags"] == "copy1_rejected_allele"
    (flags,) = [one for one in scorer.fields if one.name == "flags"]
    assert all(word in flags.metadata[b"doc"].decode() for word in ("copyN_conflict", "copyN_rejected_allele"))


@pytest.mark.parametrize("params", [{"exon_sites": True}, {"compatibility": "spliceai-1.3.1"}])
def test_what_has_no_background_is_refused(params):
    inner = object.__new__(SpliceDelta)  # its own checks of the model are not the question here
    inner.params = SpliceDeltaParams(**params)
    with pytest.raises(InputError, match="phased"):
        PhasedSpliceDelta(inner)
