"""Masked letters: what is hidden, what is asked for, and the figures beside sums done by hand."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.encoders.protein_tokens import AMINO_ACIDS, ProteinTokens, ProteinTokensParams
from engine.errors import DataError, InputError
from engine.genome.windows import tokens_from_text
from engine.training._task import NO_LABEL
from engine.training._train_job import Component, prepare
from engine.training.loop import predict
from engine.training.tasks.masked_tokens import ALPHABETS, MaskedTokens, MaskedTokensParams
from tests.engine.training.setups import small_job, small_setup, step_losses
from tests.toys.sequences import row, usual_split, write_set, write_splits

MASKED = Component("masked_tokens", {})
NETWORK = Component("sequence_cnn", {"channels": 8, "blocks": 1})
UNKNOWN = 4


def task_of(texts=("ACGT",), **params):
    return MaskedTokens.fit(MaskedTokensParams(**params), [pa.chunked_array([list(texts)])])


@given(st.text("ACGTN", min_size=1, max_size=300), st.integers(-(1 << 63), (1 << 63) - 1))
def test_only_letters_asked_for_change_and_their_truth_is_kept(text, seed):
    tokens_L = tokens_from_text(text)
    shown_L, labels_L = task_of().masked(tokens_L, seed, UNKNOWN)
    asked_L = labels_L != NO_LABEL
    assert (labels_L[asked_L] == tokens_L[asked_L]).all()
    assert (shown_L[~asked_L] == tokens_L[~asked_L]).all()
    assert not asked_L[tokens_L == UNKNOWN].any()
    assert asked_L.any() == (tokens_L != UNKNOWN).any()
    again = task_of().masked(tokens_L, seed, UNKNOWN)
    assert (again[0] == shown_L).all()
    assert (again[1] == labels_L).all()


def test_shares_are_those_of_the_params():
    tokens_L = np.random.default_rng(0).integers(0, 4, 200_000).astype(np.uint8)
    shown_L, labels_L = task_of(share=0.2, hidden=0.7, exchanged=0.2).masked(tokens_L, 5, UNKNOWN)
    asked_L = labels_L != NO_LABEL
    assert asked_L.mean() == pytest.approx(0.2, abs=0.01)
    assert (shown_L[asked_L] == UNKNOWN).mean() == pytest.approx(0.7, abs=0.01)
    # A drawn letter is the true one every fourth time.
    assert (shown_L[asked_L] == tokens_L[asked_L]).mean() == pytest.approx(0.1 + 0.2 / 4, abs=0.01)
    others = shown_L[asked_L & (shown_L != tokens_L) & (shown_L != UNKNOWN)]
    assert np.bincount(others, minlength=4) / len(others) == pytest.approx([0.25] * 4, abs=0.02)


def test_proteins_hide_amino_acids():
    encoder = ProteinTokens(ProteinTokensParams())
    task = task_of([AMINO_ACIDS], alphabet="protein")
    tokens_L = encoder.encode(AMINO_ACIDS * 50 + "XU")
    shown_L, labels_L = task.masked(tokens_L, 1, encoder.unknown_token)
    assert task.outputs == tuple(AMINO_ACIDS)
    assert set(shown_L[labels_L != NO_LABEL].tolist()) > {encoder.unknown_token}
    assert labels_L[-2:].tolist() == [NO_LABEL] * 2


def test_begins_at_the_letters_own_shares():
    task = task_of(["AAAC", "agNN"])
    assert task.counts == (4, 1, 1, 0)
    assert np.exp(task.bias()) == pytest.approx(np.array([4, 1, 1, 1]) / 7)


def test_losses_and_figures_are_the_sums_done_by_hand():
    task = task_of()
    targets_BL = np.array([[0, NO_LABEL, 2, NO_LABEL], [3, 1, NO_LABEL, 1]], np.int32)
    logits_BKL = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 4, 4))).float()
    losses_B = task.losses(logits_BKL, torch.from_numpy(targets_BL))
    weights_B = task.weights(torch.from_numpy(targets_BL))
    values = logits_BKL.softmax(dim=1).numpy()
    by_hand = [[-np.log(values[b, targets_BL[b, at], at]) for at in range(4) if targets_BL[b, at] >= 0] for b in (0, 1)]
    assert losses_B.tolist() == pytest.approx([np.mean(one) for one in by_hand], rel=1e-5)
    assert weights_B.tolist() == [2, 3]
    kept_NS, truths = task.kept(values, targets_BL)
    assert kept_NS.shape == (2, len(task.kept_names))
    figures = {name: one(np.array([1.0, 2.0])) for name, one in task.statistics(kept_NS, truths).items()}
    nats = sum(by_hand[0]) + 2 * sum(by_hand[1])
    assert figures["perplexity"] == pytest.approx(np.exp(nats / (2 + 2 * 3)), rel=1e-5)
    hits = (values.argmax(axis=1) == targets_BL).sum(axis=1)
    assert figures["accuracy"] == pytest.approx((hits[0] + 2 * hits[1]) / 8)
    assert task.confusion(kept_NS, truths).sum() == 5
    assert "perplexity" in task.lower_is_better()


def test_what_cannot_be_hidden_is_refused():
    with pytest.raises(InputError, match=r"no letter of the alphabet 'dna' in the training rows; set task.params.alph"):
        task_of(["NNN"])
    with pytest.raises(DataError, match="record 8 has no letter of the alphabet 'dna'"):
        task_of().targets(pa.chunked_array([["ACG", "NNN"]]), records=np.array([7, 8]), where="part")
    for params in ({"alphabet": "rna"}, {"share": 0.0}, {"hidden": 0.9, "exchanged": 0.2}):
        with pytest.raises(ValueError, match=next(iter(params))):
            MaskedTokensParams(**params)


def test_another_alphabet_than_the_encoders_is_refused(tmp_path):
    encoder = Component("protein_tokens", {})
    with pytest.raises(InputError, match="letters of dna are to be hidden, the encoder reads protein"):
        prepare(small_job(tmp_path, task=MASKED, augmentation={}, encoder=encoder, model=NETWORK))


def test_masks_change_with_the_epoch_and_not_where_models_are_judged(tmp_path):
    setup = small_setup(tmp_path, task=MASKED, model=NETWORK)
    ids = np.arange(6)
    one, same, later = (setup.train_loader().load(ids, epoch=epoch) for epoch in (0, 0, 1))
    assert (one.targets == same.targets).all()
    assert (one.inputs.tokens_BL == same.inputs.tokens_BL).all()
    assert one.targets.shape != later.targets.shape or (one.targets != later.targets).any()
    model = setup.build_model()
    judged = [predict([model], setup, setup.validation, rank=0, size=1).loss for _ in range(2)]
    assert judged[0] == judged[1]
    assert setup.model_params["symmetry"] == "stranded"


def test_it_learns_and_goes_on_where_it_stopped(tmp_path):
    """Sequences that repeat: what is hidden stands elsewhere too."""
    recipe = {"epochs": 10, "learning_rate": 1e-2}
    model = Component("sequence_cnn", {"channels": 16, "blocks": 2, "dropout": 0.0})
    rows = [row(number, ("ACGTTGCA" * 5)[number % 8 :][: 20 + number % 7]) for number in range(120)]
    write_set(tmp_path / "set", rows)
    write_splits(tmp_path / "splits.parquet", rows, usual_split)
    asked = {"task": MASKED, "recipe": recipe, "model": model, "augmentation": {}}
    setup = small_setup(tmp_path, output="calm", **asked)
    losses = step_losses(setup)
    assert losses[max(losses)] < 0.5 * losses[0]
    assert losses[0] > 1
    again = small_setup(tmp_path, output="again", **asked)
    assert {**step_losses(again, stop_after=5), **step_losses(again)} == losses


def test_alphabets_are_the_codes_of_the_encoders():
    assert tokens_from_text(ALPHABETS["dna"]).tolist() == [0, 1, 2, 3]
    assert ProteinTokens(ProteinTokensParams()).encode(ALPHABETS["protein"]).tolist() == list(range(20))
