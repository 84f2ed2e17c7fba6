from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine import registry
from engine.encoders.one_hot import OneHot, OneHotParams
from engine.errors import InputError
from engine.genome.windows import reverse_complement
from engine.models._folder import load_members
from engine.models._info import HeadInfo
from engine.scoring._contract import AlleleRow, ScoringUnit
from engine.scoring.allele_effect import COMPONENT, AlleleEffect, AlleleEffectParams
from engine.scoring.splice_delta import SpliceDelta, SpliceDeltaParams
from tests.engine.scoring.stubs import fetch_from, model_info, window_texts
from tests.toys import golden
from tests.toys.sequence_runs import sequence_model

WIDTH = 5
COUNT = HeadInfo("count", ("A", "C", "G", "T"), "softplus", "paired", ((0, 3), (1, 2)))


def count_track(window):
    """(4, L - 4): how often each base stands in the five around the output."""
    places = range(len(window) - WIDTH + 1)
    return np.array([[window[at : at + WIDTH].count(base) for at in places] for base in "ACGT"], dtype=np.float32)


def skewed_track(window):
    """As count_track, but only the left half counts, so that the strands differ."""
    places = range(len(window) - WIDTH + 1)
    return np.array([[window[at : at + 2].count(base) for at in places] for base in "ACGT"], dtype=np.float32)


def effect(text, start, ref, alt, *, track=count_track, head=COUNT, **params):
    scorer = AlleleEffect(AlleleEffectParams(**params), model_info(WIDTH - 1, head))
    prepared = scorer.prepare(ScoringUnit("c", len(text), start, ref, alt), fetch_from(text))
    texts = window_texts(scorer, prepared, fetch_from(text), WIDTH - 1)
    return scorer.score(prepared, [{head.name: track(one)} for one in texts])


TEXT = "AAAAAAAAAACCCCCCCCCC"


def test_an_snv_moves_one_count_of_five():
    assert effect(TEXT, 5, "A", "G", window_bp=1) == (-1.0, 0.0, 1.0, 0.0)
    # Of nine positions five see the base.
    assert effect(TEXT, 5, "A", "G", window_bp=9) == pytest.approx((-5 / 9, 0, 5 / 9, 0))


def test_a_deletion_pulls_the_sequence_closer():
    """AAAAA CCCCC: two bases fewer let two C into the five around the anchor."""
    assert effect(TEXT, 7, "AAA", "A", window_bp=1) == (-2.0, 2.0, 0.0, 0.0)


def test_log_ratio_is_of_the_means():
    expected = math.log2(4 + 1e-6) - math.log2(5 + 1e-6)
    assert effect(TEXT, 5, "A", "G", window_bp=1, channels=["A"], reduction="log_ratio") == (pytest.approx(expected),)


def test_the_largest_change_keeps_its_sign_and_leaves_inserted_bases_out():
    found = effect(TEXT, 9, "A", "ATTTTT", window_bp=11, reduction="max_abs_over_window")
    # Base 9 stays and sees AAA and TT; base 10 (C) now sees TT and CCC instead of AA and CCC.
    assert found == (-2.0, -2.0, 0.0, 2.0)
    # A deletion: base 7 then sees two C more, and so does base 10 from the other side two A fewer... of the kept bases.
    assert effect(TEXT, 7, "AAA", "A", window_bp=3, reduction="max_abs_over_window") == (-2.0, 2.0, 0.0, 0.0)


@settings(max_examples=100, deadline=None)
@given(
    st.text("ACGT", min_size=40, max_size=40),
    st.integers(8, 30),
    st.integers(1, 4),
    st.text("ACGT", min_size=1, max_size=4),
    st.sampled_from(["difference", "log_ratio", "max_abs_over_window"]),
)
def test_both_strands_are_the_mean_of_each_strand(text, start, num_ref, alt, reduction):
    """The head counts on one side, so the strands differ; their mean counts on both, which count_sides does at once."""
    ref = text[start : start + num_ref]
    assume(ref != alt)

    def count_sides(window):
        places = range(len(window) - WIDTH + 1)
        halves = [[window[at : at + 2] + window[at + 3 : at + 5] for at in places]]
        return np.array([[half.count(base) / 2 for half in halves[0]] for base in "ACGT"], dtype=np.float32)

    given_ = {"window_bp": 9, "reduction": reduction}
    both = effect(text, start, ref, alt, track=skewed_track, both_strands=True, **given_)
    assert both == pytest.approx(effect(text, start, ref, alt, track=count_sides, **given_), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.text("ACGT", min_size=30, max_size=30), st.integers(0, 29), st.integers(0, 2))
def test_the_mirrored_genome_swaps_paired_channels(text, start, turn):
    base = "ACGT"[("ACGT".index(text[start]) + 1 + turn) % 4]
    one = effect(text, start, text[start], base, window_bp=7)
    mirrored = reverse_complement(text)
    at = 29 - start
    other = effect(mirrored, at, mirrored[at], reverse_complement(base), window_bp=7)
    assert other == pytest.approx((one[3], one[2], one[1], one[0]))


@pytest.mark.parametrize(
    ("params", "head", "message"),
    [
        ({"both_strands": True}, HeadInfo("x", ("a",), "identity", "stranded"), "reads one strand only"),
        ({"reduction": "log_ratio"}, HeadInfo("x", ("a",), "identity", "symmetric"), "may be negative"),
        ({"channels": ["b"]}, HeadInfo("x", ("a",), "identity", "symmetric"), "no channel 'b'.*it has: a"),
        ({"head": "y"}, HeadInfo("x", ("a",), "identity", "symmetric"), "no head 'y'"),
        ({}, HeadInfo("x", ("a-1", "a_1"), "identity", "symmetric"), "share an INFO tag"),
    ],
)
def test_what_a_head_does_not_allow(params, head, message):
    with pytest.raises(InputError, match=message):
        AlleleEffect(AlleleEffectParams(**params), model_info(4, head))


def test_a_head_must_be_named_where_there_are_several():
    other = HeadInfo("other", ("a",), "identity", "symmetric")
    with pytest.raises(InputError, match=r"several heads.*set head: count, other"):
        AlleleEffect(AlleleEffectParams(), model_info(4, COUNT, other))


@pytest.mark.parametrize(
    "values",
    [{"reduction": "sum"}, {"window_bp": 0}, {"channels": "A"}, {"both_strands": 1}, {"window_bp": "5"}],
)
def test_params_that_are_refused(values):
    with pytest.raises(InputError, match=next(iter(values))):
        registry.build_params(AlleleEffect, values, where="scorer")


def test_not_a_number_is_rejected():
    answer = effect(
        TEXT, 5, "A", "G", track=lambda window: count_track(window) * np.nan if "G" in window else count_track(window)
    )
    assert answer.reason == "model_output_not_finite"


def test_long_alleles_are_rejected():
    scorer = AlleleEffect(AlleleEffectParams(max_allele_length=3), model_info(4, COUNT))
    assert scorer.prepare(ScoringUnit("c", 20, 0, "AAAA", "A"), fetch_from(TEXT)).reason == "allele_too_long"


def whole_sequence(folder, **params):
    """A network with one answer for a sequence, and that answer for any text."""
    info = sequence_model(folder, **params)
    (member,) = load_members(info)
    encoder = OneHot(OneHotParams())

    def answer(text):
        with torch.no_grad():
            return member(encoder.tensor(torch.from_numpy(encoder.encode(text))[None]))["class"][0].numpy()

    return info, answer


@pytest.mark.parametrize(
    ("ref", "alt", "alt_window"),
    [
        ("A", "G", TEXT[:5] + "G" + TEXT[6:]),
        # After an insertion or deletion the reference goes on: the windows stay of one length.
        ("A", "ATT", TEXT[:5] + "ATT" + TEXT[6:18]),
        ("AAA", "A", TEXT[:5] + "A" + TEXT[8:] + "NN"),
    ],
)
@pytest.mark.parametrize("both", [False, True])
def test_a_head_for_the_whole_sequence_reads_the_window_with_and_without(tmp_path, ref, alt, alt_window, both):
    info, answer = whole_sequence(tmp_path / "model")
    scorer = AlleleEffect(AlleleEffectParams(window_bp=12, both_strands=both), info)
    prepared = scorer.prepare(ScoringUnit("c", 20, 5, ref, alt), fetch_from(TEXT))
    windows = window_texts(scorer, prepared, fetch_from(TEXT), 0)
    assert windows[:2] == [TEXT[:12], alt_window[:12]]
    found = scorer.score(prepared, [{"class": answer(text)} for text in windows])
    change = answer(alt_window[:12]) - answer(TEXT[:12])
    if both:
        turned = answer(reverse_complement(alt_window[:12])) - answer(reverse_complement(TEXT[:12]))
        change = (change + turned) / 2
    assert found == pytest.approx(change.tolist(), abs=1e-6)
    assert found[0] == pytest.approx(-found[1], abs=1e-6), "two classes share one probability"


def test_the_window_is_that_of_training_unless_given(tmp_path):
    info, _ = whole_sequence(tmp_path / "model")
    with pytest.raises(InputError, match=r"does not say how long the sequences were.*set window_bp"):
        AlleleEffect(AlleleEffectParams(), info)
    known = replace(info, extra={"longest_sequence": 9})
    prepared = AlleleEffect(AlleleEffectParams(), known).prepare(ScoringUnit("c", 20, 5, "A", "G"), fetch_from(TEXT))
    assert prepared.contrasts[0].high - prepared.contrasts[0].low == 9
    placed, _ = whole_sequence(tmp_path / "placed", pool="place", length=11)
    AlleleEffect(AlleleEffectParams(window_bp=11), placed)
    with pytest.raises(InputError, match="window of 12 bp is longer than the 11 the network takes"):
        AlleleEffect(AlleleEffectParams(window_bp=12), placed)


def test_one_answer_has_no_bases_to_compare(tmp_path):
    info, _ = whole_sequence(tmp_path / "model")
    with pytest.raises(InputError, match=r"one answer for a whole window.*use the reduction difference or log_ratio"):
        AlleleEffect(AlleleEffectParams(reduction="max_abs_over_window", window_bp=12), info)
    with pytest.raises(InputError, match=r"this scorer reads every position; use the scorer allele_effect"):
        SpliceDelta(SpliceDeltaParams(head="class"), info)


def test_tags_hold_one_value_per_alt():
    scorer = AlleleEffect(AlleleEffectParams(channels=("A", "T")), model_info(4, COUNT))
    alleles = [[AlleleRow("C", "A", None, (0.25, -1e-9), None)], [AlleleRow("C", "*", None, None, "star_allele")]]
    assert scorer.info_values(alleles) == [("RPL_EFFECT_A", ["0.2500", "."]), ("RPL_EFFECT_T", ["0.0000", "."])]


# SNV, MNV, deletion, insertion, delins.
GOLDEN_ALLELES = ((20, "G", "T"), (14, "ATG", "GTC"), (23, "AAGT", "A"), (9, "G", "GTTA"), (5, "GCA", "TTTTA"))


def golden_numbers(reduction):
    """(5, 4): effects of the alleles on the four counts."""
    text = golden.TEXT.replace("N", "A")
    given_ = {"window_bp": 9, "reduction": reduction, "both_strands": True}
    return [effect(text, *one, track=skewed_track, **given_) for one in GOLDEN_ALLELES]


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        (
            "difference",
            [
                [0, 0, -0.2222222, 0.2222222],
                [-0.2222222, 0.2222222, 0, 0],
                [0, 0.1111111, -0.1111111, 0],
                [0.0555556, -0.2222222, -0.1111111, 0.2777778],
                [-0.1666667, -0.2222222, -0.3888889, 0.7777778],
            ],
        ),
        (
            "log_ratio",
            [
                [0, 0, -0.5849614, 0.6520753],
                [-0.7369639, 0.4854261, 0, 0],
                [0, 0.5849603, -0.263034, 0],
                [0.1375033, -0.9999968, -0.3219274, 0.7004385],
                [-0.5849611, -1.5849538, -1.4594275, 1.3536352],
            ],
        ),
        (
            "max_abs_over_window",
            [[0, 0, -0.5, 0.5], [-0.5, 0.5, 0.5, 0], [-0.5, 0.5, -0.5, 0], [0.5, 0, -0.5, 0.5], [-1, -0.5, -0.5, 1.5]],
        ),
    ],
)
def test_golden_numbers_of_this_version(reduction, expected):
    golden.check(COMPONENT, 1, golden_numbers(reduction), expected)
