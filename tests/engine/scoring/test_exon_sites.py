from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.genome.windows import reverse_complement
from engine.scoring import _exon_sites
from engine.scoring._contract import AlleleRow, Prepared, ScoringUnit
from engine.scoring.splice_delta import COMPONENT, SpliceDelta, SpliceDeltaParams
from tests.engine.scoring.stubs import GRAMMAR, SPLICE, fetch_from, model_info, transcript, window_texts
from tests.toys import golden

CONTEXT = 12
HIGH, LOW = 0.75, 0.0625
WEIGHTS = {"net_weight": 0.5, "pwm_weight": 0.25, "hexamer_weight": 0.125, "probability_floor": 1e-3}
NAMES = [one.name for one in _exon_sites.FIELDS]


def hexamer(text):
    """A whole number for six letters, so that sums are exact; 0 where there is an N."""
    return (
        0.0 if "N" in text else float(sum((place + 1) * "ACGT".index(base) for place, base in enumerate(text)) % 7 - 3)
    )


def tracks_of(window):
    """The three heads: sites at AG| and |GT, a matrix of 2 per matching base, hexamers by their first base."""
    half = CONTEXT // 2
    middle = range(half, len(window) - half)
    ag = [(window[at - 2] == "A") + (window[at - 1] == "G") for at in middle]
    gt = [(window[at + 1] == "G") + (window[at + 2] == "T") for at in middle]
    site = [[HIGH if hits == 2 else LOW for hits in row] for row in (ag, gt)]
    pwm = np.array([ag, gt], dtype=np.float32) * 2
    scores = [hexamer(window[at : at + 6]) for at in middle]
    splice = np.array([np.zeros(len(scores)), *site], dtype=np.float32)
    return {"splice": splice, "pwm": pwm, "hexamer": np.array([scores], dtype=np.float32)}


def scorer(*, extra=None, heads=(SPLICE, *GRAMMAR), **params):
    info = model_info(CONTEXT, *heads, extra={"exon_change": WEIGHTS} if extra is None else extra)
    return SpliceDelta(SpliceDeltaParams(exon_sites=True, **params), info)


def values_of(text, held, start, ref, alt, *, made=None, info=(), noise=0.0):
    """The exon's columns; `noise` is added to the outputs of ALT, up and down in turn."""
    made = made or scorer(distance=3)
    prepared = made.prepare(ScoringUnit("c", len(text), start, ref, alt, held, info), fetch_from(text))
    assert isinstance(prepared, Prepared)
    tracks = [tracks_of(one) for one in window_texts(made, prepared, fetch_from(text), CONTEXT)]
    tracks[1] = {head: track + noise * (-1.0) ** np.arange(track.shape[1]) for head, track in tracks[1].items()}
    values = dict(zip([one.name for one in made.fields], made.score(prepared, tracks), strict=True))
    return {name: value for name, value in values.items() if name in NAMES or name == "psi_change"}


def logit(probability):
    return math.log(probability + 1e-3) - math.log(1 - probability + 1e-3)


DROP = logit(LOW) - logit(HIGH)
#                 exon 20 to 40: acceptor at 20, donor at 39
TEXT = "CCCCCCCCCCCCCCCCCC" + "AG" + "ACCATCAATCCAGACCATCA" + "GT" + "CCCCCCCCCCCCCCCCCC"
EXONS = ((0, 4), (20, 40), (56, 60))
PLUS = transcript(EXONS)


def test_a_lost_donor_lowers_net_and_matrix():
    found = values_of(TEXT, PLUS, 40, "G", "C")
    assert (found["exon_start"], found["exon_end"]) == (20, 40)
    assert found["acceptor_logit_change"] == 0.0
    assert found["donor_logit_change"] == pytest.approx(DROP, abs=1.1e-5)
    assert (found["pwm_change"], found["hexamer_change"]) == (-2.0, 0.0)
    assert found["inclusion_change"] == pytest.approx(0.5 * DROP - 0.25 * 2, abs=1.1e-5)


def test_a_lost_acceptor():
    found = values_of(TEXT, PLUS, 18, "A", "T")
    assert found["acceptor_logit_change"] == pytest.approx(DROP, abs=1.1e-5)
    assert found["donor_logit_change"] == 0.0


def test_the_same_exon_on_the_minus_strand():
    text, held = reverse_complement(TEXT), transcript(EXONS, "-")
    found = values_of(text, held, 60 - 1 - 40, "C", "G")
    assert found["donor_logit_change"] == pytest.approx(DROP, abs=1.1e-5)
    assert (found["acceptor_logit_change"], found["pwm_change"]) == (0.0, -2.0)


def test_hexamers_within_the_exon_only():
    """One base of the exon lies in up to six hexamers; their scores are read off the two texts."""
    alt = TEXT[:30] + "G" + TEXT[31:]
    body = range(23, 37 - 5)
    expected = sum(hexamer(alt[at : at + 6]) - hexamer(TEXT[at : at + 6]) for at in body)
    found = values_of(TEXT, PLUS, 30, TEXT[30], "G")
    assert expected != 0 and found["hexamer_change"] == expected
    assert found["inclusion_change"] == pytest.approx(0.125 * 3 * math.tanh(expected / 3), abs=1.1e-5)
    assert values_of(TEXT, PLUS, 10, "C", "G")["hexamer_change"] == 0.0


def test_a_deleted_site_counts_as_the_floor():
    found = values_of(TEXT, PLUS, 36, TEXT[36:42], TEXT[36])
    assert (found["donor_logit_change"], found["acceptor_logit_change"]) == (-8.0, 0.0)
    assert found["pwm_change"] == -8.0


def test_a_site_is_found_again_behind_an_indel():
    """Three bases more or less within the exon or the intron before it move the sites and leave them whole."""
    for start, ref, alt in ((30, TEXT[30], TEXT[30] + "TTT"), (13, "CCCC", "C"), (24, TEXT[24:28], TEXT[24])):
        found = values_of(TEXT, PLUS, start, ref, alt)
        assert (found["acceptor_logit_change"], found["donor_logit_change"], found["pwm_change"]) == (0.0, 0.0, 0.0)


def test_an_indel_in_a_repeat_at_the_site_may_lie_on_either_side():
    """The exon begins with A, and another A beside it leaves the acceptor where it was, however it is written."""
    for start, ref, alt in ((19, "G", "GA"), (20, "A", "AA")):
        found = values_of(TEXT, PLUS, start, ref, alt)
        assert found["acceptor_logit_change"] == 0.0, start
    # The last base of the exon doubled: the donor is the second of them.
    assert values_of(TEXT, PLUS, 39, "A", "AA")["donor_logit_change"] == 0.0


def test_the_ends_of_a_transcript_are_no_sites():
    found = values_of(TEXT, transcript(((20, 40),)), 30, TEXT[30], "G")
    assert found["acceptor_logit_change"] is None and found["donor_logit_change"] is None
    assert found["pwm_change"] == 0.0
    first = values_of(TEXT, transcript(((20, 40), (50, 56))), 40, "G", "C")
    assert first["acceptor_logit_change"] is None
    assert first["donor_logit_change"] == pytest.approx(DROP, abs=1.1e-5)


@pytest.mark.parametrize(("start", "exon"), [(2, 0), (4, 0), (11, 0), (12, 20), (21, 20), (47, 20), (48, 56), (59, 56)])
def test_the_exon_that_holds_pos_else_the_nearest_edge(start, exon):
    """Edges at 3 and 20: 11 is 8 from the one and 9 from the other; edges at 39 and 56: 47 and 48 likewise."""
    found = values_of(TEXT, PLUS, start, TEXT[start], "A" if TEXT[start] != "A" else "C")
    assert found["exon_start"] == exon


@pytest.mark.parametrize(("start", "end"), [(8, 13), (11, 13), (12, 14), (12, 45), (2, 22), (45, 49), (47, 48)])
@pytest.mark.parametrize("at", [12, 21, 47, 48])
def test_padding_chooses_no_other_exon(start, end, at):
    """12 is nearest to the exon at 20 and 11 to the one before it: the base that changes decides, not POS."""
    if not start <= at < end:
        start, end = min(start, at), max(end, at + 1)
    base = "ACGT"["ACGT".index(TEXT[at]) - 1]
    alt = TEXT[start:at] + base + TEXT[at + 1 : end]
    assert values_of(TEXT, PLUS, start, TEXT[start:end], alt) == values_of(TEXT, PLUS, at, TEXT[at], base)


@settings(max_examples=100, deadline=None)
@given(st.text("ACGT", min_size=60, max_size=60), st.integers(0, 59), st.integers(0, 12), st.integers(0, 12))
def test_a_padded_snv_has_the_exon_columns_of_the_snv(text, at, left, right):
    """Whatever is written around it, as long as the gene holds the written POS."""
    start, end = max(0, at - left), min(60, at + 1 + right)
    base = "ACGT"["ACGT".index(text[at]) - 1]
    alt = text[start:at] + base + text[at + 1 : end]
    assert values_of(text, PLUS, start, text[start:end], alt) == values_of(text, PLUS, at, text[at], base)


@pytest.mark.parametrize("letters", [str.upper, str.lower])
def test_soft_masked_sequence_is_sequence_in_the_compatibility_mode(letters):
    """The exon begins with A: an A put before it moves no site, though the file has its repeats in lower case."""
    made = scorer(distance=3, compatibility="spliceai-1.3.1")
    assert made.written_letters
    for start, ref, alt in ((19, "G", "GA"), (20, "A", "AA"), (39, "A", "AA")):
        found = values_of(letters(TEXT), PLUS, start, ref, alt, made=made)
        assert found == values_of(TEXT, PLUS, start, ref, alt, made=scorer(distance=3)), start
        assert found["acceptor_logit_change"] == 0.0


def test_a_tie_between_exons_goes_to_the_lowest():
    held = transcript(((0, 11), (20, 40)))
    assert values_of(TEXT, held, 15, "C", "A")["exon_start"] == 0


def test_far_sites_do_not_change():
    held = transcript(((0, 4), (20, 40), (56, 60)))
    found = values_of(TEXT, held, 12, "C", "A", made=scorer(distance=0))
    assert (found["acceptor_logit_change"], found["donor_logit_change"]) == (0.0, 0.0)


@pytest.mark.parametrize("strand", ["+", "-"])
@pytest.mark.parametrize("start", [8, 10, 48, 51])
@pytest.mark.parametrize("added", ["", "A", "TATA"])
def test_beyond_the_reach_of_all_heads_every_change_is_exactly_0(strand, start, added):
    """Whatever a sum over another window leaves in the last digits; also no negative zero. Both indels and SNVs."""
    text = TEXT if strand == "+" else reverse_complement(TEXT)
    held = transcript(((20, 40),), strand, span=(0, 60))
    ref, alt = (text[start : start + 2], text[start]) if not added else (text[start], text[start] + added)
    ref, alt = (ref, "A") if len(added) == 1 else (ref, alt)
    for noise in (0.0, 3e-6, -3e-6):
        found = values_of(text, held, start, ref, alt, noise=noise)
        assert [str(found[name]) for name in NAMES[2:]] == ["0.0"] * 5, noise


@pytest.mark.parametrize(("start", "num", "site", "reaches"), [
    (8, 6, "acceptor", False), (8, 7, "acceptor", True), (46, 6, "donor", False), (45, 6, "donor", True),
])  # fmt: skip
def test_where_the_reach_ends(start, num, site, reaches):
    """Sites at 20 and 39 with 6 bases of context: 14 and 45 are the last bases that a site can hear of."""
    alt = "".join("ACGT"["CATG".index(base)] for base in TEXT[start : start + num])
    found = values_of(TEXT, transcript(((20, 40),), span=(0, 60)), start, TEXT[start : start + num], alt, noise=1e-3)
    assert (found[f"{site}_logit_change"] != 0) == reaches


def test_noise_of_the_last_digits_is_rounded_away_within_reach_too():
    """A base of the exon's body that no matrix holds: the matrices' change is exactly 0, the hexamers' is not."""
    for noise in (3e-6, -3e-6):
        found = values_of(TEXT, PLUS, 30, TEXT[30], "G", noise=noise)
        assert str(found["pwm_change"]) == "0.0" and found["hexamer_change"] != 0


# ------------------------------------------------------------------ on the scale of a measured inclusion


def on_psi_scale(text, *, start=40, ref="G", alt="C"):
    return values_of(TEXT, PLUS, start, ref, alt, made=scorer(distance=3, reference_psi="PSI"), info=(text,))


def test_the_change_on_the_psi_scale():
    """Half included: the logit is 0, so that the change is that of the logistic curve from its middle."""
    found = on_psi_scale("50")
    change = found["inclusion_change"]
    assert found["psi_change"] == pytest.approx(100 / (1 + math.exp(-change)) - 50, abs=1e-9)
    assert list(found) == [*NAMES, "psi_change"] and found["psi_change"] < 0
    assert on_psi_scale("50", start=10, ref="C", alt="A")["psi_change"] == 0.0


def test_without_the_parameter_there_is_no_such_column():
    made = scorer(distance=3)
    assert made.info_keys == () and "psi_change" not in [one.name for one in made.fields]
    assert "RPL_PSI_CHANGE" not in [one.id for one in made.info_fields]
    asked = scorer(distance=3, reference_psi="PSI")
    assert asked.info_keys == ("PSI",) and asked.fields == (*made.fields, _exon_sites.PSI_FIELD)
    assert [one.id for one in asked.info_fields][-2:] == ["RPL_INCLUSION", "RPL_PSI_CHANGE"]


@pytest.mark.parametrize(
    "text",
    [None, "", ".", "true", "x", "nan", "inf", "-1", "-0.5", "100.1", "1e3", "5,6", "1_0", " 5", "5 ", "0x1", "٥"],
)
def test_an_inclusion_that_is_none_gives_no_change(text):
    found = on_psi_scale(text)
    assert found["psi_change"] is None and found["inclusion_change"] is not None


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("100", 100), ("87.25", 87.25), (".5", 0.5), ("1e1", 10), ("7.", 7)]
)
def test_inclusions_that_read(text, number):
    assert _exon_sites.read_percent(text) == number
    assert on_psi_scale(text)["psi_change"] is not None


def test_without_an_inclusion_change_there_is_none_on_the_psi_scale():
    made = scorer(distance=3, extra={}, reference_psi="PSI")
    assert values_of(TEXT, PLUS, 40, "G", "C", made=made, info=("50",))["psi_change"] is None


@given(st.floats(0, 100), st.floats(-1000, 1000).filter(lambda change: change == 0 or abs(change) >= 1e-5))
def test_law_of_the_psi_scale(percent, change):
    """No change is none; the sign is that of the change; it never goes past the room that is left."""
    held = min(max(percent, 2.0), 98.0)
    found = _exon_sites.psi_change(percent, change)
    assert (found > 0, found < 0) == (change > 0, change < 0)
    assert -held - 1e-9 <= found <= 100 - held + 1e-9
    assert _exon_sites.psi_change(percent, 0.0) == 0.0
    # The same change from the other side: what is left out is what is not included.
    assert _exon_sites.psi_change(100 - percent, -change) == pytest.approx(-found, abs=1e-9)


@pytest.mark.parametrize(
    ("percent", "change", "expected"),
    [(50, math.log(3), 25), (50, -math.log(3), -25), (80, -math.log(4), -30), (0, math.log(49), 48), (100, 1e9, 2)],
)
def test_goldens_of_the_psi_scale(percent, change, expected):
    assert _exon_sites.psi_change(percent, change) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("given_params", "message"),
    [
        ({"reference_psi": "PSI"}, "exon_sites too"),
        ({"reference_psi": "A;B", "exon_sites": True}, "must be an INFO key"),
        ({"reference_psi": 5, "exon_sites": True}, "must be an INFO key"),
    ],
)
def test_parameters_that_do_not_read(given_params, message):
    with pytest.raises(ValueError, match=message):
        SpliceDeltaParams(**given_params)


def test_the_tag_says_the_change_of_the_gene_where_it_is_largest():
    made = scorer(distance=3, reference_psi="PSI")
    empty = [0.0] * (len(made.fields) - 2)
    rows = [AlleleRow("A", "C", None, (*empty, inclusion, psi), None) for inclusion, psi in ((1.0, 9.5), (-2.0, None))]
    tags = dict(made.info_values([rows, [AlleleRow("A", "G", None, None, "outside_genes")]]))
    assert (tags["RPL_INCLUSION"], tags["RPL_PSI_CHANGE"]) == (["-2.0000", "."], ["9.5000", "."])


def test_a_model_without_grammar_has_no_such_columns():
    found = values_of(TEXT, PLUS, 40, "G", "C", made=scorer(heads=(SPLICE,), extra={}))
    assert found["pwm_change"] is found["hexamer_change"] is found["inclusion_change"] is None
    assert found["donor_logit_change"] < 0


def test_without_constants_on_the_card_there_is_no_inclusion_change():
    found = values_of(TEXT, PLUS, 40, "G", "C", made=scorer(extra={}))
    assert found["inclusion_change"] is None and found["pwm_change"] == -2.0


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"exon_change": {"weight": 1}}, "other keys"),
        ({"exon_change": {"clip": "8"}}, "clip must be a number"),
        ({"exon_change": {"clip": 0}}, "above 0"),
        ({"exon_change": [1]}, "other keys"),
    ],
)
def test_constants_that_do_not_read(extra, message):
    with pytest.raises(InputError, match=message):
        scorer(extra=extra)


def test_not_a_number_is_rejected():
    made = scorer(distance=3)
    prepared = made.prepare(ScoringUnit("c", len(TEXT), 30, TEXT[30], "G", PLUS), fetch_from(TEXT))
    tracks = [tracks_of(one) for one in window_texts(made, prepared, fetch_from(TEXT), CONTEXT)]
    tracks[1]["pwm"][0, 0] = np.inf
    assert made.score(prepared, tracks).reason == "model_output_not_finite"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_the_window_suffices(data):
    """Changes read in a window are those of the whole sequence, for any indel that leaves the exon's edges alone."""
    text = data.draw(st.text("ACGT", min_size=60, max_size=60))
    is_minus = data.draw(st.booleans())
    num_ref, num_ins = data.draw(st.integers(1, 6)), data.draw(st.integers(0, 6))
    start = data.draw(st.one_of(st.integers(5, 19 - num_ref), st.integers(20, 39 - num_ref)))
    ref = text[start : start + num_ref]
    alt = ref[0] + data.draw(st.text("ACGT", min_size=num_ins, max_size=num_ins))
    assume(alt != ref)
    held = transcript(((0, 3), (20, 40), (57, 60)), "-" if is_minus else "+")
    unit = ScoringUnit("c", 60, start, ref, alt)
    reading = _exon_sites.exon_reading(unit, held, fetch_from(text), position=start, reach=15)
    assume(reading.start == 20)
    # Repeats that let the indel slide over an edge have an answer of their own.
    assume(not any(reading.left <= edge <= reading.right + reading.num_ref for edge in (20, 39, 40)))
    found = values_of(text, held, start, ref, alt)
    whole = text[:start] + alt + text[start + num_ref :]
    shift = len(whole) - len(text)
    low, high = (20, 40 + shift) if start >= 20 else (20 + shift, 40 + shift)

    def read(sequence, exon):
        padded = "N" * 10 + sequence + "N" * 10
        tracks = tracks_of(reverse_complement(padded) if is_minus else padded)
        turned = {head: (track[:, ::-1] if is_minus else track) for head, track in tracks.items()}
        at = [edge + 10 - CONTEXT // 2 for edge in (exon[0], exon[1] - 1)]
        acceptor, donor = at[::-1] if is_minus else at
        body = sequence[exon[0] + 3 : exon[1] - 3]
        body = reverse_complement(body) if is_minus else body
        hexamers = sum(hexamer(body[i : i + 6]) for i in range(len(body) - 5))
        sites = turned["splice"][1, acceptor], turned["splice"][2, donor]
        return (
            *(logit(float(one)) for one in sites),
            float(turned["pwm"][0, acceptor] + turned["pwm"][1, donor]),
            hexamers,
        )

    before, after = read(text, (20, 40)), read(whole, (low, high))
    names = ("acceptor_logit_change", "donor_logit_change", "pwm_change", "hexamer_change")
    assert [found[name] for name in names] == pytest.approx(
        [b - a for a, b in zip(before, after, strict=True)], abs=1e-5
    )


def golden_numbers():
    """(4, 7): the columns for an SNV at the donor, one in the exon, an insertion and a deletion in it."""
    alleles = ((40, "G", "C"), (30, TEXT[30], "G"), (27, TEXT[27], TEXT[27] + "GAG"), (33, TEXT[33:36], TEXT[33]))
    return [list(values_of(TEXT, PLUS, *one).values()) for one in alleles]


def test_golden_numbers_of_this_version():
    expected = [
        [20, 40, 0, -3.7892, -2, 0, -2.3946],
        [20, 40, 0, 0, 0, -7, -0.36801],
        [20, 40, 0, 0, 0, -9, -0.37315],
        [20, 40, 0, 0, 0, -3, -0.2856],
    ]
    golden.check(COMPONENT, 4, golden_numbers(), expected)
