"""The proof of cones: what is sampled, what counts as the same, what a failure leads to."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.errors import SystemFailure
from engine.models._folder import save_model_folder
from engine.models.dilated_conv import DilatedConv, DilatedConvParams, spliceai_params
from engine.scoring import _proof
from engine.scoring._allele_windows import gather_stretches
from engine.scoring._cones import ConeScorer
from engine.scoring._contract import Contrast
from engine.scoring._predictor import Predictor
from tests.toys import models

FLANK = 40


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def questions(*asked: Contrast, flank: int = FLANK, length: int = 6000):
    tokens = np.random.default_rng(3).integers(0, 4, length).astype(np.uint8)
    stretches, places = gather_stretches(asked, lambda _, start, end: tokens[start:end], flank=flank)
    return [(one, stretches[place]) for one, place in zip(asked, places, strict=True)]


def allele(at: int, num_ref: int = 1, alt: bytes = b"\x01", **more) -> Contrast:
    return Contrast("c", at - 50, at + 51, max(at + 51, at + num_ref), ((at, num_ref, alt),), **more)


def test_the_sample_holds_each_kind_of_question():
    """The first, the longest, the most spread out, the first of each strand; an endless one only without others."""
    asked = [
        allele(1000),
        allele(1100, 30),
        allele(1200, strands="+-"),
        allele(1300, background=((1900, 1, b"\x02"),)),
        allele(1400, strands="-"),
        allele(1500, strands="-"),
        allele(1600, 3000),
    ]
    held = questions(*asked)
    assert [one for one, _ in _proof.sample(held)] == [asked[at] for at in (0, 1, 2, 3, 4)]
    assert [one for one, _ in _proof.sample(held[6:])] == [asked[6]]
    assert [one for one, _ in _proof.sample(held[::-1])] == [asked[at] for at in (5, 3, 2, 1)]


@pytest.mark.parametrize("flank", [0, 5, 40, 5000])
def test_made_up_questions_are_answered_by_both(tmp_path, flank):
    asked = _proof.made_up(flank=flank)
    assert {one.strands for one, _ in asked} == {"+", "-"}
    assert any(one.background for one, _ in asked)
    assert {np.sign(len(alt) - num_ref) for one, _ in asked for _, num_ref, alt in one.edits} == {-1, 0, 1}
    if flank < 5000:
        params = DilatedConvParams(channels=2, stem_width=2 * flank + 1, blocks=(), norm="none")
        predictor = Predictor(models.random_network(tmp_path / "model", params))
        predictor.prove(asked)
        assert predictor.is_incremental and predictor.cone_multiply_adds > 0


def test_neighbours_become_backgrounds():
    held = questions(allele(1000), allele(1001), allele(1020), allele(1030, bounds=(0, 2000)), allele(3000))
    found = {one.edits[0][0]: [at for at, _, _ in one.background] for one, _ in _proof.crowded(held, reach=500)}
    assert found == {1000: [1020], 1001: [1020], 1020: [1000]}


def test_a_difference_is_a_share_of_the_largest_value_or_of_one():
    def apart(*pairs):
        full, other = (list(map(np.float32, one)) for one in zip(*pairs, strict=True))
        return _proof.difference(full, other)

    assert apart(([[0.5, 0.2]], [[0.5, 0.3]])) == pytest.approx(0.1, rel=1e-5)
    assert apart(([[1000.0]], [[1000.5]]), ([[1.0]], [[1.0]])) == pytest.approx(0.0005, rel=1e-3)
    assert apart(([[np.nan, np.inf, 1]], [[np.nan, np.inf, 1]])) == 0
    assert apart(([[np.nan, 1]], [[1, 1]])) == apart(([[1.0]], [[np.nan]])) == float("inf")
    assert apart(([[np.inf]], [[-np.inf]])) == apart(([[1.0, 2]], [[1.0]])) == float("inf")


@pytest.mark.parametrize("scale", [1, 1e4, 1e6])
def test_large_values_are_no_reason_to_give_cones_up(tmp_path, scale):
    """Rounding grows with the values: of a head without a bound it is far above the limit for probabilities."""
    params = DilatedConvParams(blocks=((11, 1),) * 4 + ((11, 4),) * 4, activation="identity")
    net = models.randomised(DilatedConv(params))
    with torch.no_grad():
        net.final.weight.mul_(scale)
        net.final.bias.mul_(scale)
    info = save_model_folder(tmp_path / "model", [net], architecture="dilated_conv", card=models.CARD)
    predictor = Predictor(info)
    predictor.contrast(questions(allele(1000), allele(1200, 9), flank=200))
    assert predictor.is_incremental and predictor.refusal == ""


@pytest.mark.parametrize(
    "error", [ValueError("cells\nof another shape"), SystemFailure("one allele does not fit"), RuntimeError("odd")]
)
def test_a_failure_within_the_proof_gives_cones_up(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    predictor = Predictor(models.random_network(tmp_path / "model", spliceai_params(80)))
    asked = questions(allele(1000))
    monkeypatch.setattr(ConeScorer, "tracks", fail)
    (found,) = predictor.contrast(asked)
    assert found[0]["splice"].shape == (3, 101)
    assert not predictor.is_incremental
    assert predictor.refusal.startswith(f"they failed with {type(error).__name__}: {str(error)[:5]}")
    assert "\n" not in predictor.refusal


def test_a_fault_of_one_strand_or_kind_is_found(tmp_path, monkeypatch):
    """Wrong only for the alleles of one strand, the other strand, or of a crowded copy: each is in the sample."""
    info = models.random_network(tmp_path / "model", spliceai_params(80))
    tracks = ConeScorer.tracks
    kinds = [allele(1000), allele(1200, strands="-"), allele(1500, background=((1800, 1, b"\x00"),))]
    for wrong in range(3):
        calls: list[int] = []

        def faulty(self, tokens, spans, tasks, *, wrong=wrong, calls=calls):
            found, made = tracks(self, tokens, spans, tasks)
            calls.append(len(calls))
            return found, [one + np.float32(0.1 * (calls[-1] == wrong)) for one in made]

        monkeypatch.setattr(ConeScorer, "tracks", faulty)
        predictor = Predictor(info)
        predictor.contrast(questions(*kinds))
        assert predictor.refusal.startswith("they differ from full windows by 0.1"), wrong
    monkeypatch.undo()
    predictor = Predictor(info)
    predictor.contrast(questions(*kinds))
    assert predictor.is_incremental


def test_what_is_proven_elsewhere_is_not_proven_again(tmp_path, monkeypatch):
    predictor = Predictor(models.random_network(tmp_path / "model", spliceai_params(80)), is_proven=True)
    monkeypatch.setattr(predictor, "predict", None)
    predictor.contrast(questions(allele(1000)))
    assert predictor.is_incremental
