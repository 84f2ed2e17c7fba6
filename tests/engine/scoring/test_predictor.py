"""Judges: counted answers of toy models, and the networks called one window at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.encoders.one_hot import OneHot, OneHotParams
from engine.errors import InputError, SystemFailure
from engine.genome.windows import reverse_complement, tokens_from_text
from engine.models._folder import load_members
from engine.models._info import HeadInfo
from engine.models.dilated_conv import DilatedConvParams, spliceai_params
from engine.scoring import _predictor
from engine.scoring._predictor import Predictor, average_strands
from tests.toys.models import (
    base_counter,
    count_bases,
    random_network,
    splice_grammar_toy,
    splice_motif_scores,
    splice_motifs,
)

torch.set_num_threads(1)

TEXTS = st.lists(st.text(alphabet="ACGTN", min_size=5, max_size=12), max_size=12)
NET = DilatedConvParams(channels=8, blocks=((5, 1), (5, 2)), skip_every=1)
CUDA = pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toys")
    return {
        "counter": base_counter(folder / "counter", width=5, members=3),
        "motifs": splice_motifs(folder / "motifs", members=2),
        "grammar": splice_grammar_toy(folder / "grammar"),
        "net": random_network(folder / "net", NET, members=3),
        "spliceai": random_network(folder / "spliceai", spliceai_params(10000)),
    }


@pytest.fixture(scope="module")
def counter(toys):
    """One for the laws, which draw many examples."""
    return Predictor(toys["counter"])


def need_cuda(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


def random_windows(*lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 5, length, dtype=np.uint8) for length in lengths]


def watched(predictor):
    """Shapes of what goes through the first network."""
    shapes = []
    predictor._members[0].register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape)))
    return shapes


@settings(max_examples=50, deadline=None)
@given(texts=TEXTS, micro_batch=st.integers(1, 5))
def test_counts_are_exact_in_any_batching(counter, texts, micro_batch):
    counter.micro_batch = micro_batch
    found = counter.predict([tokens_from_text(text) for text in texts])
    assert len(found) == len(texts)
    for text, outputs in zip(texts, found, strict=True):
        # Members count once, twice and three times: their mean counts twice.
        np.testing.assert_array_equal(outputs["count"], 2 * count_bases(text, 5))
        assert outputs["count"].dtype == np.float32


def test_probabilities_are_averaged_after_the_activation(toys):
    text = "CCAGTTTGTACCAGGTNNAGACGT"
    found = Predictor(toys["motifs"]).predict([tokens_from_text(text)])[0]["splice"]
    np.testing.assert_allclose(found, splice_motif_scores(text, members=2), rtol=0, atol=1e-6)
    assert np.abs(found - splice_motif_scores(text, members=1)).max() > 1e-3


def test_ensemble_mean_is_that_of_the_members_in_order(toys):
    window = random_windows(60)[0]
    x = OneHot(OneHotParams()).tensor(torch.from_numpy(window[None]))
    with torch.inference_mode():
        members = [
            member.for_inference().to(memory_format=torch.channels_last)(x)["splice"][0].numpy()
            for member in load_members(toys["net"])
        ]
    expected = (members[0] + members[1] + members[2]) / np.float32(3)
    np.testing.assert_array_equal(Predictor(toys["net"]).predict([window])[0]["splice"], expected)


def test_batches_are_distinct_windows_of_one_length_in_order_of_appearance(toys):
    predictor = Predictor(toys["counter"], micro_batch=2)
    shapes = watched(predictor)
    a, b, c, d, e = random_windows(9, 7, 9, 7, 9)
    found = predictor.predict([a, b, a, c, d, a.copy(), e])
    assert shapes == [(2, 4, 9), (1, 4, 9), (2, 4, 7)]
    assert found[0]["count"] is found[2]["count"] is found[5]["count"]
    assert not found[0]["count"].flags.writeable


def test_long_windows_go_in_smaller_batches_on_a_cpu(toys, monkeypatch):
    monkeypatch.setattr(_predictor, "CPU_BATCH_BASES", 30)
    predictor = Predictor(toys["counter"], micro_batch=4)
    shapes = watched(predictor)
    predictor.predict(random_windows(10, 10, 10, 10, 100, 100, 6, 6, 6, 6, 6))
    assert [shape[0] for shape in shapes] == [3, 1, 1, 1, 4, 1]


def test_the_same_call_gives_the_same_bytes(toys):
    windows = random_windows(*[50] * 9, *[61] * 5)
    one, two = (Predictor(toys["net"], micro_batch=4).predict(windows) for _ in range(2))
    assert all(np.array_equal(a["splice"], b["splice"]) for a, b in zip(one, two, strict=True))


def test_batching_moves_values_by_rounding_alone(toys):
    windows = random_windows(*[50] * 9, *[61] * 5)
    one = Predictor(toys["net"], micro_batch=1).predict(windows)
    many = Predictor(toys["net"], micro_batch=64).predict(windows)
    for a, b in zip(one, many, strict=True):
        np.testing.assert_allclose(a["splice"], b["splice"], rtol=0, atol=1e-6)


def test_iterating_holds_a_chunk_and_gives_the_same(toys):
    predictor = Predictor(toys["counter"], micro_batch=2)
    windows = random_windows(7, 9, 7, 11, 7, 9, 9)
    read = []

    def reader():
        for window in windows:
            read.append(window)
            yield window

    stream = predictor.predict_iter(reader(), chunk=3)
    first = next(stream)
    assert len(read) == 3
    rest = list(stream)
    for outputs, expected in zip([first, *rest], predictor.predict(windows), strict=True):
        np.testing.assert_array_equal(outputs["count"], expected["count"])
    with pytest.raises(InputError, match="chunk must be 1 or more, found 0"):
        next(predictor.predict_iter(windows, chunk=0))


def test_only_the_heads_asked_for(toys):
    predictor = Predictor(toys["grammar"])
    windows = random_windows(30)
    assert list(predictor.predict(windows)[0]) == ["splice", "pwm", "hexamer"]
    assert list(predictor.predict(windows, heads=["pwm"])[0]) == ["pwm"]
    with pytest.raises(InputError, match="model 'toy' has no head 'psi'; known: splice, pwm, hexamer"):
        predictor.predict(windows, heads=["psi"])


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_full_memory_halves_the_batch_and_counts(toys, error):
    windows = random_windows(*[20] * 7)
    expected = Predictor(toys["counter"]).predict(windows)
    predictor = Predictor(toys["counter"], micro_batch=7)
    sizes = fail_above(predictor, 2, error)
    found = predictor.predict(windows)
    assert sizes == [7, 3, 1, 2, 4, 2, 2]
    assert predictor.halved == 3
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one["count"], other["count"])


def test_a_window_too_large_for_the_memory_is_one_sentence(toys):
    predictor = Predictor(toys["counter"], micro_batch=2)
    fail_above(predictor, 0, torch.OutOfMemoryError("CUDA out of memory.\nSee documentation"))
    with pytest.raises(SystemFailure, match=r"cpu: one window of 20 bp does not fit .*\(CUDA out of memory\.\); use"):
        predictor.predict(random_windows(20, 20))


def test_other_failures_are_not_taken_for_memory(toys):
    predictor = Predictor(toys["counter"])
    fail_above(predictor, 0, RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        predictor.predict(random_windows(20))


def fail_above(predictor, most, error):
    sizes = []

    def hook(_, args):
        sizes.append(args[0].shape[0])
        if sizes[-1] > most:
            raise error

    predictor._members[0].register_forward_pre_hook(hook)
    return sizes


@settings(max_examples=50, deadline=None)
@given(texts=TEXTS)
def test_both_strands_agree_with_the_other_strand(counter, texts):
    windows = [tokens_from_text(text) for text in texts]
    here = counter.predict_both_strands(windows)
    there = counter.predict_both_strands([reverse_complement(window) for window in windows])
    for text, one, other in zip(texts, here, there, strict=True):
        np.testing.assert_array_equal(one["count"], other["count"][::-1, ::-1])
        # Counting is strand-symmetric already, so that the mean changes nothing.
        np.testing.assert_array_equal(one["count"], 2 * count_bases(text, 5))


def test_averaging_follows_the_heads_declaration():
    forward = np.array([[1, 2], [10, 20], [100, 200]], dtype=np.float32)
    reverse = np.array([[3, 5], [30, 50], [300, 500]], dtype=np.float32)
    symmetric = HeadInfo("x", ("a", "b", "c"), "identity", "symmetric")
    assert average_strands(forward, reverse, head=symmetric).tolist() == [[3, 2.5], [30, 25], [300, 250]]
    paired = HeadInfo("x", ("a", "b", "c"), "identity", "paired", ((0, 2),))
    assert average_strands(forward, reverse, head=paired).tolist() == [[250.5, 151], [30, 25], [52.5, 101.5]]
    stranded = HeadInfo("x", ("a", "b", "c"), "identity", "stranded")
    with pytest.raises(InputError, match="head 'x' reads one strand only and cannot be averaged over both"):
        average_strands(forward, reverse, head=stranded)


def test_stranded_heads_refuse_before_anything_runs(toys):
    predictor = Predictor(toys["motifs"])
    shapes = watched(predictor)
    with pytest.raises(InputError, match="head 'splice' reads one strand only"):
        predictor.predict_both_strands(random_windows(20))
    assert shapes == []


@pytest.mark.parametrize(
    ("window", "sentence"),
    [
        (np.zeros(4, np.uint8), "window 1 has 4 bp, the model uses up 4 bp of context; give at least 5 bp"),
        (np.zeros(0, np.uint8), "window 1 has 0 bp"),
        (np.zeros(9, np.int64), "window 1 is int64 with shape"),
        (np.zeros((1, 9), np.uint8), r"window 1 is uint8 with shape \(1, 9\), expected uint8 tokens"),
        (np.full(9, 5, np.uint8), "window 1 holds token 5, tokens are 0 to 4"),
    ],
)
def test_windows_that_are_none(toys, window, sentence):
    with pytest.raises(InputError, match=sentence):
        Predictor(toys["counter"]).predict([np.zeros(9, np.uint8), window])


@pytest.mark.parametrize(
    ("settings_", "sentence"),
    [
        ({"device": "tpu9"}, "'tpu9' names no device; use 'cpu', 'cuda' or 'cuda:N'"),
        ({"device": "meta"}, "device 'meta' is not supported"),
        ({"device": "cuda:99"}, r"'cuda:99' asked for, this machine has \d+ CUDA devices"),
        ({"precision": "fp16"}, "no precision 'fp16'; known: fp32, tf32, bf16"),
        ({"micro_batch": 0}, "micro_batch must be 1 or more, found 0"),
    ],
)
def test_settings_that_cannot_be(toys, settings_, sentence):
    with pytest.raises(InputError, match=sentence):
        Predictor(toys["counter"], **settings_)


def test_bf16_is_near_and_gives_float32(toys):
    windows = random_windows(60, 60)
    exact, rough = (Predictor(toys["net"], precision=name).predict(windows) for name in ("fp32", "bf16"))
    for one, other in zip(exact, rough, strict=True):
        assert other["splice"].dtype == np.float32
        assert 0 < np.abs(one["splice"] - other["splice"]).max() < 0.03


def test_numeric_settings_are_put_back(toys):
    places = (torch.backends.mkldnn.conv, torch.backends.cudnn.conv, torch.backends.cuda.matmul)
    before = [place.fp32_precision for place in places]
    seen = []
    predictor = Predictor(toys["counter"])
    predictor._members[0].register_forward_pre_hook(
        lambda *_: seen.append([*(place.fp32_precision for place in places), torch.backends.cudnn.deterministic])
    )
    predictor.predict(random_windows(20))
    assert seen == [["ieee", "ieee", "ieee", True]]
    assert [place.fp32_precision for place in places] == before
    assert not torch.backends.cudnn.deterministic


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("toy", ["counter", "motifs", "grammar", "net"])
def test_every_device_gives_the_toys_answers(toys, toy, device):
    need_cuda(device)
    windows = random_windows(40, 41, 40)
    expected = Predictor(toys[toy], micro_batch=1).predict(windows)
    for one, other in zip(expected, Predictor(toys[toy], device=device).predict(windows), strict=True):
        for head in one:
            np.testing.assert_allclose(other[head], one[head], rtol=0, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-5), ("tf32", 2e-2), ("bf16", 6e-2)])
def test_cuda_agrees_with_cpu_at_full_context(toys, precision, most):
    need_cuda("cuda")
    windows = random_windows(10_101, 10_101, 10_301)
    expected = Predictor(toys["spliceai"]).predict(windows)
    predictor = Predictor(toys["spliceai"], device="cuda", precision=precision)
    found, again = predictor.predict(windows), predictor.predict(windows)
    for one, other, third in zip(expected, found, again, strict=True):
        assert np.abs(one["splice"] - other["splice"]).max() <= most
        np.testing.assert_array_equal(other["splice"], third["splice"])
