from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine import registry
from engine.errors import InputError
from engine.genome.windows import reverse_complement
from engine.models._info import HeadInfo
from engine.scoring._contract import AlleleRow, Prepared, ScoringUnit, SkippedAllele
from engine.scoring.splice_delta import COMPONENT, DECIMALS, NAMES, SpliceDelta, SpliceDeltaParams, nearest_edge
from tests.engine.scoring import spliceai_oracle as oracle
from tests.engine.scoring.stubs import (
    answer,
    clean,
    fetch_from,
    model_info,
    site_values,
    transcript,
    window_texts,
)
from tests.toys import golden

CONTEXT = 4
PEER = "spliceai-1.3.1"


def make(**params):
    return SpliceDelta(SpliceDeltaParams(**params), model_info(CONTEXT))


@st.composite
def questions(draw, *, letters="ACGTN", max_allele=7):
    """A contig, a transcript anywhere on it, and an allele whose POS the transcript holds."""
    size = draw(st.integers(30, 60))
    contig = draw(st.text(letters, min_size=size, max_size=size))
    tx_start = draw(st.integers(0, size - 8))
    tx_end = draw(st.integers(tx_start + 4, size))
    cuts = sorted(draw(st.sets(st.integers(tx_start + 1, tx_end - 1), max_size=4)))
    edges = [tx_start, *cuts[: len(cuts) // 2 * 2], tx_end]
    start = draw(st.integers(tx_start, tx_end - 1))
    num_ref = draw(st.integers(1, min(max_allele, size - start)))
    ref = clean(contig)[start : start + num_ref]
    alt = draw(st.one_of(st.text("ACGT", min_size=1, max_size=max_allele), st.just(ref[0]), padded(ref)))
    assume(alt != ref)
    return oracle.Question(
        contig=contig,
        start=start,
        ref=ref,
        alt=alt,
        transcript=(tx_start, tx_end),
        exons=tuple(zip(edges[::2], edges[1::2], strict=True)),
        strand=draw(st.sampled_from("+-")),
        distance=draw(st.integers(0, 9)),
        mask=draw(st.booleans()),
        context=CONTEXT,
    )


def padded(ref):
    """An allele that shares its ends with REF."""
    middle = st.text("ACGT", max_size=3)
    ends = st.tuples(st.integers(0, len(ref)), st.integers(0, len(ref)))
    return st.builds(lambda text, end: ref[: end[0]] + text + ref[end[1] :], middle, ends).filter(bool)


def ask(question, *, compatibility="none"):
    scorer = make(distance=question.distance, mask=question.mask, compatibility=compatibility)
    text = question.contig if scorer.written_letters else clean(question.contig)
    unit = ScoringUnit("c", len(text), question.start, question.ref, question.alt)
    held = transcript(question.exons, question.strand)
    unit = ScoringUnit("c", len(text), unit.start, unit.ref, unit.alt, held)
    return answer(scorer, unit, fetch_from(text), CONTEXT)


def paired(values):
    """[(DS, DP)] from the columns."""
    return list(zip(values[:4], values[4:8], strict=True))


@settings(max_examples=400, deadline=None)
@given(questions())
def test_equals_the_definitions_said_again(question):
    assert paired(ask(question)) == oracle.splice_deltas(question, site_values)


@settings(max_examples=400, deadline=None)
@given(questions(letters="ACGTACGTACGTNRYSWKMBDHVacgtry"))
def test_compatibility_equals_the_peer_with_its_artefacts(question):
    written = question.contig[question.start : question.start + len(question.ref)].upper()
    question = replace(question, ref=written)  # other spellings of REF the peer refuses
    found, expected = ask(question, compatibility=PEER), oracle.peer_deltas(question, site_values)
    if expected is None:
        assert isinstance(found, SkippedAllele) and found.reason in ("near_contig_end", "peer_refusal")
    else:
        assert paired(found) == expected


@settings(max_examples=200, deadline=None)
@given(questions(letters="ACGT"))
def test_both_modes_agree_where_no_artefact_is(question):
    """The fix of an artefact changes nothing else."""
    written = question.contig[question.start : question.start + len(question.ref)].upper()
    question = replace(question, ref=written)
    found = ask(question, compatibility=PEER)
    assume(not isinstance(found, SkippedAllele))
    if found[9] == "":
        assert found == ask(question)


@settings(max_examples=200, deadline=None)
@given(questions(letters="ACGT"), st.integers(0, 4), st.integers(0, 4))
def test_a_padded_snv_scores_as_the_snv(question, left, right):
    """Whatever is written around it, as long as the gene holds the written POS."""
    at, start = question.start, question.start - left
    end = at + 1 + right
    assume(question.transcript[0] <= start and end <= len(question.contig))
    base = "ACGT"["ACGT".index(question.contig[at]) - 1]
    snv = ask(oracle.Question(**{**question.__dict__, "ref": question.contig[at], "alt": base}))
    ref, alt = question.contig[start:end], question.contig[start:at] + base + question.contig[at + 1 : end]
    wide = ask(oracle.Question(**{**question.__dict__, "start": start, "ref": ref, "alt": alt}))
    assert wide[:4] == snv[:4]
    assert wide[4:8] == tuple(place + left for place in snv[4:8])


@settings(max_examples=200, deadline=None)
@given(questions(letters="ACGT"), st.integers(1, 3))
def test_a_padded_deletion_scores_as_the_deletion(question, right):
    num = len(question.ref)
    end = question.start + num + right
    assume(num > 1 and end <= len(question.contig))
    text = question.contig
    # The base after the deleted ones differs from the last of them, so there is one way to trim the padding.
    assume(text[question.start + num - 1] != text[question.start] and num + right > right + 1)
    bare = {**question.__dict__, "ref": text[question.start : question.start + num], "alt": text[question.start]}
    after = text[question.start + num : end]
    full = {**bare, "ref": bare["ref"] + after, "alt": bare["alt"] + after}
    assert ask(oracle.Question(**full)) == ask(oracle.Question(**bare))


@settings(max_examples=200, deadline=None)
@given(questions(letters="ACGT"))
def test_the_other_strand_of_the_genome_gives_the_same_deltas(question):
    """An SNV on the mirrored genome: same DS; DP turns its sign, but for which of several equal places is named."""
    at, size = question.start, len(question.contig)
    base = "ACGT"["ACGT".index(question.contig[at]) - 1]
    one = ask(oracle.Question(**{**question.__dict__, "mask": False, "ref": question.contig[at], "alt": base}))
    mirrored = oracle.Question(
        contig=reverse_complement(question.contig),
        start=size - 1 - at,
        ref=reverse_complement(question.contig[at]),
        alt=reverse_complement(base),
        transcript=(size - question.transcript[1], size - question.transcript[0]),
        exons=tuple((size - end, size - start) for start, end in reversed(question.exons)),
        strand="+-"[question.strand == "+"],
        distance=question.distance,
        mask=False,
        context=CONTEXT,
    )
    other = ask(mirrored)
    assert other[:4] == one[:4]
    assert all(place <= -twin for place, twin in zip(other[4:8], one[4:8], strict=True))


# ------------------------------------------------------------------ hand-countable: sites of GT and AG


def motif_track(window):
    """Acceptor 1 where AG stands just before, donor 1 where GT stands just after; context 4."""
    middle = range(2, len(window) - 2)
    acceptor = [float(window[at - 2 : at] == "AG") for at in middle]
    donor = [float(window[at + 1 : at + 3] == "GT") for at in middle]
    return np.array([np.zeros(len(acceptor)), acceptor, donor], dtype=np.float32)


def count(text, start, ref, alt, *, strand="+", exons=None, noise=0.0, **params):
    scorer = make(**{"distance": 10, **params})
    held = transcript(exons or ((0, len(text)),), strand)
    prepared = scorer.prepare(ScoringUnit("c", len(text), start, ref, alt, held), fetch_from(text))
    assert isinstance(prepared, Prepared)
    texts = window_texts(scorer, prepared, fetch_from(text), CONTEXT)
    tracks = [{"splice": motif_track(one)} for one in texts]
    tracks[1]["splice"] += noise * np.sin(np.arange(tracks[1]["splice"].size, dtype=np.float32)).reshape(3, -1)
    values = scorer.score(prepared, tracks)
    return {name: (values[i], values[4 + i]) for i, name in enumerate(NAMES)} | {"flags": values[9]}


#       0         1         2
PLUS = "CCCCCCCCCCAGCCCCGTCCCCCCCCCC"  # acceptor at 12, donor at 15


@pytest.mark.parametrize("strand", ["+", "-"])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize(("start", "ref", "alt"), [(16, "G", "C"), (20, "C", "T"), (13, "CCC", "C"), (8, "C", "CTT")])
def test_the_last_digits_decide_nothing(start, ref, alt, mask, strand):
    """Neither DP nor what masking takes away, where nothing changed or several changed alike."""
    text = PLUS if strand == "+" else reverse_complement(PLUS)
    ref, alt = (ref, alt) if strand == "+" else (text[start : start + len(ref)], text[start] + alt[1:])
    ref, alt = (ref, "ACGT"["ACGT".index(ref) - 1]) if len(ref) == len(alt) == 1 else (ref, alt)
    exons = ((0, 4), (12, 16), (24, 28))
    calm = count(text, start, ref, alt, strand=strand, exons=exons, mask=mask)
    for noise in (3e-6, -3e-6):
        assert count(text, start, ref, alt, strand=strand, exons=exons, mask=mask, noise=noise) == calm


@pytest.mark.parametrize(("start", "ref", "alt"), [(14, "C", "T"), (14, "CCGT", "C"), (14, "C", "CTTT")])
def test_beyond_the_reach_of_the_allele_nothing_changes(start, ref, alt):
    """Two bases of context on either side: from 12 to two past the end of REF, whatever the model says elsewhere."""
    scorer = make(distance=10)
    unit = ScoringUnit("c", len(PLUS), start, ref, alt, transcript(((0, len(PLUS)),)))
    prepared = scorer.prepare(unit, fetch_from(PLUS))
    texts = window_texts(scorer, prepared, fetch_from(PLUS), CONTEXT)
    tracks = [{"splice": np.zeros((3, len(one) - CONTEXT), dtype=np.float32)} for one in texts]
    low, num_alt = prepared.reading.low, len(alt)
    for place in range(tracks[1]["splice"].shape[1]):
        tracks[1]["splice"][:] = 0
        tracks[1]["splice"][1, place] = 0.5
        # Of the ALT window: two before the first base of ALT, and two past its last.
        within = start - 2 <= low + place < start + num_alt + 2
        values = scorer.score(prepared, tracks)
        assert values[0] == (0.5 if within else 0.0), place
        assert [str(value) for value in values[1:4]] == ["0.0"] * 3
        if not within:
            assert values[4:8] == (-10,) * 4


def test_the_compatibility_mode_takes_the_raw_largest():
    """As the tool does: a difference in the last digit is a difference, near the allele or not."""
    found = count(PLUS, 20, "C", "T", compatibility=PEER, distance=5, noise=1e-7)
    assert 0 < found["ag"][0] < 1e-6
    assert count(PLUS, 20, "C", "T", distance=5, noise=1e-7)["ag"] == (0.0, -5)


def test_changes_are_told_to_as_many_decimals_as_are_compared():
    scorer = make(distance=1)
    prepared = scorer.prepare(ScoringUnit("c", 28, 14, "C", "T", transcript(((0, 28),))), fetch_from(PLUS))
    tracks = [{"splice": np.zeros((3, 3), dtype=np.float32)} for _ in range(2)]
    tracks[1]["splice"][1] = [0.1234564, 0.1234562, 0.1]
    values = scorer.score(prepared, tracks)
    assert DECIMALS == 5 and (values[0], values[4]) == (0.12346, -1)


def test_losing_a_donor():
    found = count(PLUS, 16, "G", "C")
    assert found["dl"] == (1.0, -1)
    assert found["ag"] == found["dg"] == (0.0, -10)


def test_gaining_an_acceptor():
    assert count(PLUS, 20, "C", "A")["ag"] == (0.0, -10)
    assert count(PLUS, 22, "CC", "AG")["ag"] == (1.0, 2)


def test_the_minus_strand_counts_in_genome_direction():
    text = reverse_complement(PLUS)  # acceptor at 27 - 12 = 15, donor at 27 - 15 = 12
    found = count(text, 11, "C", "G", strand="-")
    assert found["dl"] == (1.0, 1)
    assert count(PLUS, 11, "G", "C", strand="-")["al"] == (0.0, -10)


def test_a_deleted_donor_is_lost_where_it_was():
    assert count(PLUS, 13, "CCC", "C")["dl"] == (1.0, 2)
    # The donor itself stays the last base before GT, one base further left.
    assert count(PLUS, 13, "CCC", "C")["dg"] == (1.0, 0)


def test_an_insertion_speaks_through_its_anchor():
    """C before GT: the new donor is an inserted base, told at the anchor."""
    found = count("CCCCCCCCCCCCCCCCCCCC", 8, "C", "CCCGTCC")
    assert found["dg"] == (1.0, 0)


def test_surplus_bases_of_a_delins_speak_through_the_last_pair():
    """ACA > TTTGT: pairs at 8, 9 and 10; G and T are surplus, and the base before GT is the pair at 10."""
    text = "CCCCCCCCACACCCCCCCCC"
    assert count(text, 8, "ACA", "TTTGT")["dg"] == (1.0, 2)


def test_surplus_reference_counts_as_zero():
    assert count(PLUS, 14, "CCGT", "TT")["dl"] == (1.0, 1)
    assert count(PLUS, 12, "CCCC", "TT")["dl"] == (1.0, 3)


def test_masking_keeps_the_loss_of_an_annotated_site_and_drops_others():
    exons = ((0, 4), (12, 16), (24, 28))
    assert count(PLUS, 16, "G", "C", exons=exons, mask=True)["dl"] == (1.0, -1)
    # Nearest to 20 is the edge at 24, so the donor at 15 counts as unannotated; the runner-up is not promoted.
    assert count(PLUS, 20, "C", "T", exons=exons, mask=1)["dl"] == (0.0, -10)
    far = ((0, 4), (18, 20), (24, 28))
    assert count(PLUS, 16, "G", "C", exons=far, mask=True)["dl"] == (0.0, -1)
    assert count(PLUS, 16, "G", "C", exons=far, mask=False)["dl"] == (1.0, -1)


def test_masking_drops_the_gain_of_an_annotated_site():
    broken = PLUS.replace("GT", "CT")
    exons = ((0, 4), (12, 16), (24, 28))
    assert count(broken, 16, "C", "G", exons=exons, mask=True)["dg"] == (0.0, -1)
    assert count(broken, 16, "C", "G", exons=((0, 4), (12, 15), (24, 28)), mask=True)["dg"] == (1.0, -1)


def test_outside_the_transcript_there_are_no_sites():
    """The donor's T lies outside, so there is no donor to lose."""
    assert count(PLUS, 15, "C", "A", exons=((0, 17),))["dl"] == (0.0, -10)


def test_a_long_deletion_zeroes_only_what_is_deleted():
    """The peer's artefact: with more deleted than the distance it zeroes the acceptor before the deletion too."""
    text = PLUS + "C" * 20
    ours = count(text, 13, text[13:19], "C", distance=3)
    theirs = count(text, 13, text[13:19], "C", distance=3, compatibility=PEER)
    assert (ours["al"], ours["flags"]) == ((0.0, -3), "")
    assert (theirs["al"], theirs["flags"]) == ((1.0, -1), "long_deletion")


def test_iupac_letters_turn_into_bases_only_in_the_compatibility_mode():
    """S has the character code 83, which is 3 modulo 5: a G, and with the T after it a donor."""
    text = PLUS.replace("GT", "ST")
    ours = count(clean(text), 17, "T", "C")
    theirs = count(text, 17, "T", "C", compatibility=PEER, distance=5)
    assert (ours["dl"], ours["flags"]) == ((0.0, -10), "")
    assert (theirs["dl"], theirs["flags"]) == ((1.0, -2), "iupac_letters")


@pytest.mark.parametrize(("ref", "alt", "is_silent"), [("M", "C", True), ("C", "M", True), ("M", "T", False)])
def test_letters_that_the_peer_takes_for_one_base_change_nothing(ref, alt, is_silent):
    """M has the character code 77, which is 2 modulo 5: a C. Whatever last digits differ between two passes."""
    text = PLUS[:12] + ref + PLUS[13:]
    scorer = make(distance=5, compatibility=PEER)
    unit = ScoringUnit("c", len(text), 12, ref, alt, transcript(((0, len(text)),)))
    prepared = scorer.prepare(unit, fetch_from(text))
    sizes = [len(one) - CONTEXT for one in window_texts(scorer, prepared, fetch_from(text), CONTEXT)]
    tracks = [{"splice": np.zeros((3, size), dtype=np.float32)} for size in sizes]
    tracks[1]["splice"][:, 7] = 1e-7
    found = dict(zip([one.name for one in scorer.fields], scorer.score(prepared, tracks), strict=True))
    assert (found["ds_ag"], found["dp_ag"]) == ((0.0, -5) if is_silent else (pytest.approx(1e-7), 2))
    assert (found["ds_al"], found["dp_al"]) == (0.0, -5)
    assert found["flags"] == "iupac_letters"


@pytest.mark.parametrize(
    ("start", "ref", "alt", "reason"),
    [
        (3, "C", "A", "near_contig_end"),
        (20, "C", "A", "near_contig_end"),
        (12, "CC", "TA", "peer_refusal"),
        (10, PLUS[10:21], "A", "peer_refusal"),
    ],
)
def test_what_the_peer_refuses(start, ref, alt, reason):
    scorer = make(distance=5, compatibility=PEER)
    unit = ScoringUnit("c", len(PLUS), start, ref, alt, transcript(((0, len(PLUS)),)))
    refused = scorer.prepare(unit, fetch_from(PLUS))
    if start == 20:
        unit = ScoringUnit("c", len(PLUS), 21, PLUS[21], "A", unit.transcript)
        assert isinstance(
            scorer.prepare(ScoringUnit("c", len(PLUS), 20, "C", "A", unit.transcript), fetch_from(PLUS)), Prepared
        )
        refused = scorer.prepare(unit, fetch_from(PLUS))
    assert isinstance(refused, SkippedAllele)
    assert (refused.state, refused.reason) == ("rejected", reason)


def test_the_peer_refuses_a_base_where_the_reference_has_a_letter_for_several():
    text = PLUS[:12] + "R" + PLUS[13:]
    unit = ScoringUnit("c", len(text), 12, "A", "T", transcript(((0, len(text)),)))
    refused = make(distance=5, compatibility=PEER).prepare(unit, fetch_from(text))
    assert isinstance(refused, SkippedAllele) and refused.reason == "peer_refusal"
    assert refused.sentence == "SpliceAI 1.3.1 wants REF letter by letter: A is not the reference's R"
    assert isinstance(make(distance=5).prepare(unit, fetch_from(clean(text))), Prepared)
    same = ScoringUnit("c", len(text), 12, "R", "T", unit.transcript)
    assert isinstance(make(distance=5, compatibility=PEER).prepare(same, fetch_from(text)), Prepared)


@pytest.mark.parametrize("written", ["c", "aC", "Ac"])
def test_the_peer_refuses_ref_in_small_letters(written):
    """SpliceAI 1.3.1 compares REF as written with the upper-case reference and skips the record ("ref issue")."""
    text, start = PLUS[:11] + "AC" + PLUS[13:], 13 - len(written)
    unit = ScoringUnit("c", len(text), start, written.upper(), "T", transcript(((0, len(text)),)), written_ref=written)
    refused = make(distance=5, compatibility=PEER).prepare(unit, fetch_from(text))
    assert isinstance(refused, SkippedAllele)
    assert (refused.state, refused.reason) == ("rejected", "peer_refusal")
    assert f"{written} is not the reference's {written.upper()}" in refused.sentence
    assert isinstance(make(distance=5).prepare(unit, fetch_from(text)), Prepared)
    assert isinstance(
        make(distance=5, compatibility=PEER).prepare(replace(unit, written_ref=""), fetch_from(text.lower())), Prepared
    )


def test_an_allele_over_the_limit_is_rejected():
    scorer = make(max_allele_length=4)
    unit = ScoringUnit("c", len(PLUS), 12, "C", "CAAAA", transcript(((0, len(PLUS)),)))
    refused = scorer.prepare(unit, fetch_from(PLUS))
    assert refused == SkippedAllele("allele_too_long", "an allele of 5 bases, the limit is 4")


def test_not_a_number_is_rejected():
    scorer = make(distance=5)
    prepared = scorer.prepare(ScoringUnit("c", len(PLUS), 12, "C", "A", transcript(((0, 28),))), fetch_from(PLUS))
    texts = window_texts(scorer, prepared, fetch_from(PLUS), CONTEXT)
    tracks = [{"splice": motif_track(one)} for one in texts]
    tracks[1]["splice"][2, 3] = np.nan
    assert scorer.score(prepared, tracks).reason == "model_output_not_finite"


def test_ties_of_the_nearest_edge_go_to_the_lowest():
    held = transcript(((0, 5), (8, 12)))
    assert [nearest_edge(held, at) for at in (0, 2, 3, 6, 7, 11)] == [0, 0, 4, 4, 8, 11]


# ------------------------------------------------------------------ parameters and tags


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"distance": -1}, "distance must be a whole number from 0"),
        ({"distance": 50.0}, "distance must be a whole number"),
        ({"distance": True}, "distance must be a whole number"),
        ({"mask": 2}, "mask must be true or false"),
        ({"compatibility": "spliceai"}, "compatibility must be one of none, spliceai-1.3.1"),
        ({"max_allele_length": 0}, "max_allele_length"),
        ({"dist": 5}, "did you mean 'distance'"),
    ],
)
def test_params_that_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        registry.build_params(SpliceDelta, values, where="scorer")


def test_a_head_without_sites_is_refused():
    with pytest.raises(InputError, match=r"has no head 'splice'.*it has: other"):
        SpliceDelta(SpliceDeltaParams(), model_info(4, HeadInfo("other", ("x",), "identity", "stranded")))
    with pytest.raises(InputError, match="channels x"):
        SpliceDelta(SpliceDeltaParams(), model_info(4, HeadInfo("splice", ("x",), "identity", "stranded")))
    with pytest.raises(InputError, match="needs a model"):
        SpliceDelta(SpliceDeltaParams(), None)


def row(symbol, scores, places, *, alt="A", ref="C", reason=None):
    values = None if scores is None else (*scores, *places, max(scores), "")
    return AlleleRow(ref, alt, symbol, values, reason)


def test_tags_show_the_largest_over_genes_each_with_its_own_position():
    alleles = [
        [row("ONE", (0.1, 0.5, 0.0, 0.0), (1, 2, 3, 4)), row("T;W O", (0.2, 0.4, -0.00001, 0.0), (5, 6, 7, 8))],
        [row(None, None, None, alt="*", reason="star_allele")],
    ]
    tags = dict(make().info_values(alleles))
    assert tags == {
        "RPL_DS_AG": ["0.2000", "."],
        "RPL_DP_AG": ["5", "."],
        "RPL_DS_AL": ["0.5000", "."],
        "RPL_DP_AL": ["2", "."],
        "RPL_DS_DG": ["0.0000", "."],
        "RPL_DP_DG": ["3", "."],
        "RPL_DS_DL": ["0.0000", "."],
        "RPL_DP_DL": ["4", "."],
        "RPL_DS_MAX": ["0.5000", "."],
        "RPL_GENE": ["ONE", "."],
    }
    assert dict(make().info_values([[alleles[0][1]]]))["RPL_GENE"] == ["T%3BW%20O"]


def test_the_spliceai_tag_is_laid_out_as_spliceai_does():
    scorer = make(compatibility=PEER)
    alleles = [
        [row("ONE", (0.104, 0.5, 0.0, 0.0), (1, -2, 3, 4)), row("TWO", (0.2, 0.4, 0.0, 1.0), (5, 6, 7, 8))],
        [row("ONE", None, None, alt="AT", ref="CG", reason="peer_refusal")],
        [row(None, None, None, alt="<DEL>", reason="symbolic_allele")],
        [row("ONE", None, None, alt="AT", ref="C" * 200, reason="peer_refusal")],
        [row("ONE", None, None, alt="AT", ref="cG", reason="peer_refusal")],
        [row("ONE", None, None, alt="A", ref="CG", reason="peer_refusal")],
    ]
    expected = "A|ONE|0.10|0.50|0.00|0.00|1|-2|3|4,A|TWO|0.20|0.40|0.00|1.00|5|6|7|8,AT|ONE|.|.|.|.|.|.|.|."
    assert scorer.spliceai_value(alleles) == expected
    assert scorer.spliceai_value(alleles[2:]) is None


# SNV, MNV, deletion, insertion, delins.
GOLDEN_ALLELES = ((20, "G", "T"), (14, "ATG", "GTC"), (23, "AAGT", "A"), (9, "G", "GTTA"), (11, "TCC", "AAAAG"))


def golden_numbers(alleles, strand="+", **params):
    """(alleles, 9): the four DS, the four DP and the largest DS, with the stubs' track for a model."""
    text = golden.TEXT.replace("N", "A")
    scorer = make(distance=6, **params)
    held = transcript(((2, 9), (14, 22), (30, 37)), strand)
    units = [ScoringUnit("c", len(text), *one, held) for one in alleles]
    return [answer(scorer, unit, fetch_from(text), CONTEXT)[:9] for unit in units]


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        (
            {},
            [
                [0.4375, 0.5625, 0.5625, 0.375, 0, 1, 0, -2, 0.5625],
                [0.0625, 0.375, 0.5, 0.25, 0, -1, 2, 3, 0.5],
                [0.125, 0.5625, 0.1875, 0.625, 4, 3, 5, 1, 0.625],
                [0.0625, 0.3125, 0.375, 0, 0, 1, 1, -6, 0.375],
                [0.625, 0.75, 0.5625, 0.5, 1, 4, 3, 1, 0.75],
            ],
        ),
        (
            {"strand": "-", "mask": True},
            [
                [0.5625, 0, 0.25, 0, -1, 0, 0, -2, 0.5625],
                [0.4375, 0, 0.5, 0, 2, 1, -1, -2, 0.5],
                [0, 0, 0.375, 0, -6, 1, 5, 1, 0.375],
                [0, 0, 0.4375, 0, -1, 0, 2, -6, 0.4375],
                [0.3125, 0, 0.5625, 0, 2, -2, 2, -2, 0.5625],
            ],
        ),
    ],
)
def test_golden_numbers_of_this_version(given_, expected):
    golden.check(COMPONENT, 4, golden_numbers(GOLDEN_ALLELES, **given_), expected)


def test_golden_numbers_of_the_compatibility_mode():
    found = golden_numbers([GOLDEN_ALLELES[i] for i in (0, 2, 3)], compatibility=PEER)
    golden.check(
        COMPONENT,
        4,
        found,
        [
            [0.4375, 0.5625, 0.5625, 0.375, 0, 1, 0, -2, 0.5625],
            [0.125, 0.5625, 0.1875, 0.625, 4, 3, 5, 1, 0.625],
            [0.0625, 0.3125, 0.375, 0, 0, 1, 1, -6, 0.375],
        ],
    )
