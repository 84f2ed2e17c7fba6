"""What every task promises, and the losses against their formulas."""

import dataclasses
import math
import pickle

import numpy as np
import pyarrow as pa
import pytest
import torch

from engine import registry
from engine.errors import DataError, InputError

LABELS = pa.chunked_array([["b", "a", "b", "b"]])
NUMBERS = pa.chunked_array([[1.0, 3.0, 2.0, 6.0]])
LISTS = pa.chunked_array([[[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [0.0, 1.0]]])
STATES = pa.chunked_array([["HHE.", "E", ".HC", "CCEHH"]])
RECORDS = np.array([10, 11, 12, 13])


def fitted(name, column, **params):
    cls = registry.component("tasks", name)
    return cls.fit(registry.build_params(cls, params, where="task"), [column])


CASES = [
    ("sequence_classification", LABELS, {}),
    ("multi_label", LISTS, {}),
    ("sequence_regression", NUMBERS, {}),
    ("sequence_regression", NUMBERS, {"loss": "poisson"}),
    ("sequence_regression", LISTS, {"several": True}),
    ("pair_regression", NUMBERS, {"censored_at": 1.0}),
]


def test_the_folder_is_the_list():
    known = {"multi_label", "pair_regression", "position_classification", "sequence_classification"}
    assert known | {"sequence_regression"} <= set(registry.names("tasks"))
    with pytest.raises(InputError, match="no task named 'sequence_regresion'; did you mean 'sequence_regression'"):
        registry.component("tasks", "sequence_regresion")


@pytest.mark.parametrize(("name", "column", "params"), CASES)
def test_targets_losses_weights_and_figures_fit_together(name, column, params):
    task = pickle.loads(pickle.dumps(fitted(name, column, **params)))
    targets = task.targets(column, records=RECORDS, where="part")
    assert task.stack(list(targets)).tolist() == targets.tolist()
    assert len(task.stack([])) == 0
    logits = torch.as_tensor(np.tile(task.bias(), (4, 1)), dtype=torch.float32)
    losses, weights = task.losses(logits, torch.from_numpy(targets)), task.weights(torch.from_numpy(targets))
    assert losses.shape == weights.shape == (4,)
    values = np.random.default_rng(0).random((4, len(task.outputs)))
    for name_, statistic in task.statistics(values, targets).items():
        assert isinstance(statistic(np.ones(4)), float), name_
    assert set(task.lower_is_better()) <= set(task.statistics(values, targets))
    counts = task.confusion(values, targets)
    assert counts is None or counts.sum() == 4
    assert task.facts()
    assert dataclasses.is_dataclass(task)


@pytest.mark.parametrize(("name", "column", "params"), CASES)
def test_the_bias_is_the_best_constant(name, column, params):
    task = fitted(name, column, **params)
    targets = torch.from_numpy(task.targets(column, records=RECORDS, where="part"))
    bias = torch.as_tensor(task.bias(), dtype=torch.float32)

    def loss(at):
        return task.losses(at.expand(4, -1), targets).mean().item()

    edge = 0.35 if name == "multi_label" else 1e-6  # a label that all have is held within one sample of certainty
    for step in (0.1, -0.1):
        for output in range(len(bias)):
            moved = bias.clone()
            moved[output] += step
            assert loss(moved) > loss(bias) - (edge if output == 1 and name == "multi_label" else 1e-6)


def test_concordance_is_told_with_and_without_censored_pairs():
    task = fitted("pair_regression", NUMBERS, censored_at=1.0)
    assert (task.kind, task.level, task.activation) == ("pairs", "sequence", "identity")
    values = np.array([[5.0], [2.0], [2.0], [4.0]])  # of 1, 3, 2 and 6, of which 1 is censored
    statistics = task.statistics(values, task.targets(NUMBERS, records=RECORDS, where="part"))
    assert statistics["concordance"](np.ones(4)) == (0 + 0 + 0 + 0.5 + 1 + 1) / 6
    assert statistics["concordance_uncensored"](np.ones(4)) == (0.5 + 1 + 1) / 3
    assert "concordance_uncensored" not in fitted("pair_regression", NUMBERS).statistics(values, values)


def positions(**params):
    task = fitted("position_classification", STATES, **params)
    return task, task.stack(task.targets(STATES, records=RECORDS, where="part"))


def test_positions_without_a_class_are_left_out_everywhere():
    task, targets = positions()
    assert (task.outputs, task.counts, task.num_sequences, task.level) == (("C", "E", "H"), (3, 3, 5), 4, "position")
    assert targets.tolist() == [[2, 2, 1, -1, -1], [1, -1, -1, -1, -1], [-1, 2, 0, -1, -1], [0, 0, 1, 2, 2]]
    draw = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)
    logits, truth = torch.from_numpy(draw), torch.from_numpy(targets)
    weights = task.weights(truth)
    assert weights.tolist() == [3, 1, 2, 5]
    whole = (task.losses(logits, truth) * weights).sum() / weights.sum()
    log = logits.log_softmax(dim=1)
    each = [-log[b, targets[b, i], i].item() for b in range(4) for i in range(5) if targets[b, i] >= 0]
    assert whole.item() == pytest.approx(np.mean(each), rel=1e-6)
    kept, counts = task.kept(draw, targets)
    assert kept.shape == (4, 9) and len(task.kept_names) == 9
    assert counts.tolist() == [[0, 1, 2], [0, 1, 0], [1, 0, 1], [2, 1, 2]]
    by_hand = np.zeros((3, 3))
    for b, i in zip(*np.nonzero(targets >= 0), strict=True):
        by_hand[targets[b, i], draw[b, :, i].argmax()] += 1
    assert task.confusion(kept, counts).tolist() == by_hand.tolist()
    figures = {name: one(np.ones(4)) for name, one in task.statistics(kept, counts).items()}
    assert figures["accuracy"] == pytest.approx(np.trace(by_hand) / 11)
    right = [[draw[b, :, i].argmax() == targets[b, i] for i in range(5) if targets[b, i] >= 0] for b in range(4)]
    assert figures["accuracy_per_sample"] == pytest.approx(np.mean([np.mean(one) for one in right]))
    assert task.truths(task.targets(STATES, records=RECORDS, where="part")).tolist() == task.truths(counts).tolist()


def test_logits_of_a_narrower_part_and_gradients_where_nothing_is_known():
    task, targets = positions(loss="focal", focal_gamma=0.5)
    logits = torch.zeros(2, 3, 3, requires_grad=True)
    task.losses(logits, torch.from_numpy(targets[1:3])).sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[0, :, 1:] == 0).all()
    unknown = torch.full((1, 3), -1, dtype=torch.int32)
    assert task.weights(unknown).tolist() == [0]
    assert task.losses(torch.zeros(1, 3, 3), unknown).tolist() == [0]


def test_balanced_positions_weigh_the_same_and_begin_even():
    task, targets = positions(class_weights="balanced")
    assert task.bias().tolist() == [0, 0, 0]
    c, e, h = 11 / 9, 11 / 9, 11 / 15
    assert task.weights(torch.from_numpy(targets)).tolist() == pytest.approx([2 * h + e, e, h + c, 2 * c + e + 2 * h])
    plain, _ = positions()
    assert plain.bias().tolist() == pytest.approx(np.log([3 / 11, 3 / 11, 5 / 11]).tolist())


def test_cross_entropy_and_focal_by_their_formulas():
    logits, truth = torch.tensor([[2.0, -1.0], [0.5, 0.5]]), torch.tensor([0, 1])
    p = [1 / (1 + math.exp(-3)), 0.5]
    plain = fitted("sequence_classification", LABELS).losses(logits, truth)
    focal = fitted("sequence_classification", LABELS, loss="focal", focal_gamma=3.0).losses(logits, truth)
    assert plain.tolist() == pytest.approx([-math.log(q) for q in p])
    assert focal.tolist() == pytest.approx([-((1 - q) ** 3) * math.log(q) for q in p])
    labels = fitted("multi_label", LISTS, loss="focal", focal_gamma=1.0)
    found = labels.losses(torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    assert found.tolist() == pytest.approx([-(1 - p[0]) * math.log(p[0]) + 0.5 * math.log(2)])


def test_balanced_classes_weigh_the_same():
    task = fitted("sequence_classification", LABELS, class_weights="balanced")
    weights = task.weights(torch.tensor([0, 1, 1, 1]))
    assert weights.tolist() == pytest.approx([2.0, 2 / 3, 2 / 3, 2 / 3])
    assert task.bias().tolist() == [0, 0]


def test_squared_errors_are_in_units_of_the_spread():
    task = fitted("sequence_regression", NUMBERS)
    spread = np.std([1, 3, 2, 6])
    found = task.losses(torch.tensor([[3.0]]), torch.tensor([[5.0]]))
    assert found.tolist() == pytest.approx([(2 / spread) ** 2])
    values = np.array([[1.0], [3.0], [2.0], [8.0]])
    statistics = task.statistics(values, task.targets(NUMBERS, records=RECORDS, where="part"))
    assert statistics["mse"](np.ones(4)) == 1.0
    assert statistics["spearman"](np.ones(4)) == pytest.approx(1.0)


def test_a_poisson_rate_by_its_formula():
    task = fitted("sequence_regression", NUMBERS, loss="poisson")
    rate = math.log(1 + math.exp(0.3))
    found = task.losses(torch.tensor([[0.3]]), torch.tensor([[2.0]]))
    assert found.tolist() == pytest.approx([rate - 2 * math.log(rate)], abs=1e-5)
    assert task.activation == "softplus"


def test_a_number_that_never_changes_has_a_loss():
    task = fitted("sequence_regression", pa.chunked_array([[2.0, 2.0]]))
    assert task.losses(torch.tensor([[3.0]]), torch.tensor([[2.0]])).tolist() == [1.0]


@pytest.mark.parametrize(
    ("name", "good", "bad", "params", "sentence"),
    [
        ("sequence_classification", LABELS, ["a", "c"], {}, "record 11 has label 'c', the classes are a, b"),
        ("sequence_classification", LABELS, ["a", None], {}, "record 11 has label None"),
        (
            "sequence_regression",
            NUMBERS,
            [1.0, math.nan],
            {},
            "record 11 has target .*nan.*, wanted are finite numbers",
        ),
        ("sequence_regression", NUMBERS, [1.0, None], {}, "record 11 has target None, wanted are 1 numbers"),
        ("sequence_regression", NUMBERS, [1.0, -2.0], {"loss": "poisson"}, "wanted are finite numbers from 0 to inf"),
        ("multi_label", LISTS, [[0.0, 1.0], [0.0]], {}, "record 11 has target .0.0., wanted are 2 numbers"),
        ("multi_label", LISTS, [[0.0, 1.0], [0.0, 2.0]], {}, "record 11 has 2 for label '1', and labels are 0 or 1"),
        (
            "multi_label",
            LISTS,
            [[0.25, 1.0], [0.0, 1.0]],
            {},
            "record 10 has 0.25 for label '0', .*sequence_regression",
        ),
        (
            "position_classification",
            STATES,
            ["HE", "HXE"],
            {},
            "record 11 has label 'X' at letter 2, the classes",
        ),
        ("position_classification", STATES, ["HE", "..."], {}, "record 11 has no position with a label"),
        ("position_classification", STATES, ["HE", None], {}, "record 11 has no position with a label"),
    ],
)
def test_a_target_that_cannot_be_is_named(name, good, bad, params, sentence):
    task = fitted(name, good, **params)
    with pytest.raises(DataError, match=f"part-3: .*{sentence}"):
        task.targets(pa.chunked_array([bad]), records=RECORDS, where="part-3")


@pytest.mark.parametrize(
    ("name", "column", "params", "sentence"),
    [
        ("sequence_classification", LABELS, {"classes": ["a", "b", "c"]}, "class 'c' has no training sample"),
        ("sequence_classification", pa.chunked_array([["a", "a"]]), {}, "hold 1 class in the column 'label'"),
        ("sequence_classification", pa.chunked_array([[None]], pa.string()), {}, "hold 0 classes"),
        ("sequence_classification", LABELS, {"loss": "hinge"}, "loss is one of"),
        ("multi_label", LISTS, {"labels": ["x"]}, "lists of 2 targets in the column 'targets', labels 1"),
        ("multi_label", pa.chunked_array([[None]], pa.list_(pa.float64())), {}, "lists of 0 targets"),
        ("sequence_regression", pa.chunked_array([[None]], pa.float64()), {}, "hold no numbers in the column 'target'"),
        ("sequence_regression", NUMBERS, {"names": ["x", "y"]}, "2 names for 1 numbers"),
        ("position_classification", STATES, {"classes": "HECX"}, "class 'X' has no training position"),
        ("position_classification", STATES, {"classes": ["helix"]}, "classes of positions are single letters"),
        ("position_classification", pa.chunked_array([["HH.", None]]), {}, "the training rows hold 1 classes in the"),
    ],
)
def test_what_cannot_be_trained_on_is_said(name, column, params, sentence):
    with pytest.raises(InputError, match=sentence):
        fitted(name, column, **params)
