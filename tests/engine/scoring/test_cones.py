from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.encoders.one_hot import OneHot, OneHotParams
from engine.errors import SystemFailure
from engine.models._conv_stack import ConvLayer
from engine.models.dilated_conv import DilatedConv, DilatedConvParams, multiply_adds, spliceai_params
from engine.scoring import _cones, _predictor
from engine.scoring._allele_windows import contrast_windows, gather_stretches
from engine.scoring._cones import ConeScorer, ConeTask
from engine.scoring._contract import Contrast
from engine.scoring._predictor import Predictor
from engine.scoring._questions import Asked
from tests.toys import models

ENCODER = OneHot(OneHotParams())
LENGTH = 160


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def network(params: DilatedConvParams, seed: int) -> DilatedConv:
    """Random weights and, where there are any, random statistics, so that no layer is the identity."""
    torch.manual_seed(seed)
    made = DilatedConv(params).eval()
    with torch.no_grad():
        for name, value in made.state_dict().items():
            if name.endswith("variance"):
                value.uniform_(0.5, 2)
            elif value.dim() == 1:
                value.normal_(0, 0.3)
    return made.for_inference()


@st.composite
def shapes(draw) -> DilatedConvParams:
    odd = st.sampled_from([1, 3, 5])
    return DilatedConvParams(
        channels=draw(st.integers(1, 4)),
        stem_width=draw(odd),
        blocks=tuple(draw(st.lists(st.tuples(odd, st.integers(1, 3)), max_size=3))),
        skip_every=draw(st.integers(0, 2)),
        head_width=draw(odd),
        norm=draw(st.sampled_from(["batch", "layer", "none"])),
        nonlinearity=draw(st.sampled_from(["relu", "gelu", "silu", "leaky_relu"])),
        activation=draw(st.sampled_from(["softmax", "identity"])),
    )


def edit_lists(tokens: np.ndarray, *, most: int):
    """Disjoint edits, in order: SNV, MNV, insertion, deletion and both at once."""

    @st.composite
    def made(draw):
        found, at = [], 5
        for _ in range(draw(st.integers(1, most))):
            at += draw(st.integers(0, 40))
            num_ref = draw(st.integers(0, 9))
            if at + num_ref > len(tokens) - 5:
                break
            alt = bytes(draw(st.lists(st.integers(0, 4), min_size=not num_ref, max_size=9)))
            found.append((at, num_ref, alt))
            at += num_ref + (num_ref == 0)
        return found or [(8, 1, b"\x02")]

    return made()


@st.composite
def contrasts(draw, tokens: np.ndarray) -> Contrast:
    edits = draw(edit_lists(tokens, most=4))
    chosen = draw(st.integers(0, len(edits) - 1))
    background = tuple(edits[:chosen] + edits[chosen + 1 :]) if draw(st.booleans()) else ()
    at, num_ref, _ = edits[chosen]
    low = at - draw(st.integers(0, 30))
    high = at + draw(st.integers(1, 30))
    bounds = draw(st.one_of(st.none(), st.tuples(st.integers(0, at), st.integers(at + 1, LENGTH))))
    return Contrast(
        contig="c",
        low=low,
        high=high,
        alt_end=max(high, at + num_ref) + draw(st.integers(0, 3)),
        edits=(edits[chosen],),
        background=background,
        bounds=bounds,
        strands=draw(st.sampled_from(["+", "-", "+-"])),
        alt_outputs=draw(st.one_of(st.none(), st.integers(1, 40))),
    )


def answers(scorer: ConeScorer, asked: list[Contrast], tokens: np.ndarray) -> list[list[np.ndarray]]:
    """Tracks of contrasts, by cones."""
    stretches, places = gather_stretches(asked, reader(tokens), flank=scorer.flank)
    held = Asked([(one, stretches[place]) for one, place in zip(asked, places, strict=True)], flank=scorer.flank)
    found = {key: scorer.tracks(one.tokens, one.spans, one.tasks) for key, one in held.wishes.items()}
    return [[found[key][kind][at] for key, kind, at in place] for place in held.places]


def reader(tokens: np.ndarray):
    def read(contig: str, start: int, end: int) -> np.ndarray:
        return np.array([tokens[i] if 0 <= i < len(tokens) else 4 for i in range(start, end)], dtype=np.uint8)

    return read


def outputs_of(nets: list[DilatedConv], tokens: np.ndarray, begin: int, end: int) -> np.ndarray:
    """Outputs [begin, end) of a sequence, N beyond it, by the networks themselves."""
    flank = nets[0].context_bp(nets[0].params) // 2
    x = ENCODER.tensor(torch.from_numpy(reader(tokens)("c", begin - flank, end + flank)[None]))
    return np.mean([next(iter(net(x).values()))[0].numpy() for net in nets], axis=0)


def scorer_of(nets: list[DilatedConv]) -> ConeScorer:
    return ConeScorer([net.conv_stack() for net in nets], ENCODER.tensor, device=torch.device("cpu"))


def full_windows(nets: list[DilatedConv], contrast: Contrast, tokens: np.ndarray, flank: int) -> list[np.ndarray]:
    (stretch,), _ = gather_stretches([contrast], reader(tokens), flank=flank)
    made = []
    for window in contrast_windows(contrast, stretch, flank=flank):
        x = ENCODER.tensor(torch.from_numpy(window[None].copy()))
        made.append(np.mean([next(iter(net(x).values()))[0].numpy() for net in nets], axis=0))
    return made


@settings(max_examples=300, deadline=None)
@given(st.data(), shapes(), st.integers(0, 1 << 16), st.integers(1, 2))
def test_cones_equal_full_windows(data, params, seed, members):
    """Any convolution stack, any alleles: alone, or on a copy that has others besides; either strand."""
    tokens = np.random.default_rng(seed).integers(0, 5, LENGTH).astype(np.uint8)
    nets = [network(params, seed + member) for member in range(members)]
    asked = data.draw(contrasts(tokens))
    with torch.inference_mode():
        scorer = scorer_of(nets)
        (found,) = answers(scorer, [asked], tokens)
        expected = full_windows(nets, asked, tokens, scorer.flank)
    assert [one.shape for one in found] == [one.shape for one in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(0, 1 << 16), st.integers(1, 400), st.integers(1, 300))
def test_neighbours_tiles_and_batches_change_nothing(data, seed, tile, cells):
    """Many alleles asked at once, whatever shares a pass or a batch and wherever their outputs lie: as the networks."""
    tokens = np.random.default_rng(seed).integers(0, 5, LENGTH).astype(np.uint8)
    nets = [network(DilatedConvParams(channels=3, blocks=((3, 1), (5, 2)), skip_every=1), seed)]
    tasks = []
    for at, num_ref, alt in data.draw(st.lists(edit_lists(tokens, most=3), min_size=1, max_size=6).map(flat)):
        begin = data.draw(st.integers(-30, 30))
        tasks.append(ConeTask(at, num_ref, alt, begin, begin + data.draw(st.integers(1, 60))))
    spans = data.draw(st.lists(st.tuples(st.integers(0, 80), st.integers(81, LENGTH)), max_size=3))
    with torch.inference_mode():
        together = scorer_of(nets)
        together._tile = tile
        former, _cones.BATCH_CELLS = _cones.BATCH_CELLS, cells
        try:
            found_spans, found = together.tracks(tokens, spans, tasks)
        finally:
            _cones.BATCH_CELLS = former
        for task, one in zip(tasks, found, strict=True):
            copy = np.concatenate(
                [
                    tokens[: task.start],
                    np.frombuffer(task.core, np.uint8),
                    tokens[task.after :],
                ]
            )
            begin = task.start + task.begin
            np.testing.assert_allclose(one, outputs_of(nets, copy, begin, begin + one.shape[1]), rtol=1e-5, atol=1e-5)
        for span, one in zip(spans, found_spans, strict=True):
            np.testing.assert_allclose(one, outputs_of(nets, tokens, *span), rtol=1e-5, atol=1e-5)
        assert not any(one.flags.writeable for one in (*found, *found_spans))


def flat(lists):
    return [one for held in lists for one in held]


def counted_by_sets(net: DilatedConv, span: int, task: ConeTask) -> int:
    """Multiply-adds of a reference pass over the span and of one cone, by sets of cells: nothing of the geometry used.

    A cell is recomputed if a changed base reaches it and a wanted output reads it.
    """
    layers = net.conv_stack().layers
    taps = [
        [(tap - layer.conv.kernel_size[1] // 2) * layer.conv.dilation[1] for tap in range(layer.conv.kernel_size[1])]
        for layer in layers
    ]
    base = set(range(task.start, task.start + len(task.core)))
    changed: list[set[int]] = []
    for layer, offsets in zip(layers, taps, strict=True):
        source = base if layer.source == -1 else changed[layer.source]
        other = set() if layer.residual is None else changed[layer.residual]
        changed.append({cell - offset for cell in source for offset in offsets} | other)
    total = 0
    for outputs, is_cone in (
        (set(range(task.start + task.begin, task.start + task.end)), True),
        (set(range(span)), False),
    ):
        read: list[set[int]] = [set() for _ in layers]
        read[-1] = outputs
        for index in range(len(layers) - 1, -1, -1):
            layer = layers[index]
            if layer.source >= 0:
                read[layer.source] |= {cell + offset for cell in read[index] for offset in taps[index]}
            if layer.residual is not None:
                read[layer.residual] |= read[index]
        for layer, wanted, reached in zip(layers, read, changed, strict=True):
            # A dilated layer's cells are computed as one range, so the gaps between its taps count too.
            cells = hull(wanted) & hull(reached) if is_cone else hull(wanted)
            total += len(cells) * layer.conv.in_channels * layer.conv.out_channels * layer.conv.kernel_size[1]
    return total


def hull(cells: set[int]) -> set[int]:
    return set(range(min(cells), max(cells) + 1))


@pytest.mark.parametrize("flank", [80, 400])
def test_only_the_cells_of_the_cone_are_computed(flank):
    """Multiply-adds as executed: those of one reference pass and of the cone, so far fewer than of full windows."""
    params = spliceai_params(flank)
    net = network(params, 1)
    tokens = np.random.default_rng(1).integers(0, 4, 101 + flank).astype(np.uint8)
    task = ConeTask(50 + flank // 2, 1, b"\x01", -50, 51)
    scorer = scorer_of([net])
    with torch.inference_mode():
        scorer.tracks(tokens, [(flank // 2, 101 + flank // 2)], [task])
    assert scorer.multiply_adds == counted_by_sets(net, 101, task)
    assert scorer.multiply_adds < 1.8 * multiply_adds(params, length=101 + flank)


def test_a_pass_is_shared_and_its_size_bounded(monkeypatch):
    """Alleles of a long gene: as many multiply-adds as one pass and their cones, in tiles of bounded width."""
    monkeypatch.setattr(_cones, "BATCH_CELLS", 300)
    net = network(spliceai_params(80), 1)
    tokens = np.random.default_rng(2).integers(0, 4, 4000).astype(np.uint8)
    tasks = [ConeTask(at, 1, b"\x04", -5, 6) for at in range(100, 3900, 10)]
    with torch.inference_mode():
        alone = scorer_of([net])
        alone.tracks(tokens, [], tasks[:1])
        cone = alone.multiply_adds
        together = scorer_of([net])
        widest = []
        run_layer = together.run_layer
        together.run_layer = lambda layer, x, *rest, **more: (
            widest.append(x.shape[0] * x.shape[1]) or run_layer(layer, x, *rest, **more)
        )
        together._tile = 500
        together.tracks(tokens, [], tasks)
    pass_of_one = multiply_adds(spliceai_params(80), length=11 + 80)
    everything = multiply_adds(spliceai_params(80), length=3800 + 80)
    assert together.multiply_adds <= len(tasks) * (cone - pass_of_one) + 1.3 * everything
    assert max(widest) <= 500 + 80


def test_the_predictor_uses_cones_and_says_what_it_ran(tmp_path):
    """A supported model is never answered by full windows in silence: only the proof's four windows are."""
    params = spliceai_params(80)
    info = models.random_network(tmp_path / "model", params, members=2)
    tokens = np.random.default_rng(3).integers(0, 4, 3000).astype(np.uint8)
    asked = [
        Contrast("c", at - 50, at + 51, at + 51, ((at, 1, bytes([3 - tokens[at]])),), strands="-")
        for at in range(200, 2800, 100)
    ]
    stretches, places = gather_stretches(asked, reader(tokens), flank=40)
    questions = [(one, stretches[place]) for one, place in zip(asked, places, strict=True)]
    incremental, full = Predictor(info), Predictor(info, incremental=False)
    windows = []
    predict = incremental.predict
    incremental.predict = lambda given, **more: windows.append(len(given)) or predict(given, **more)
    found, expected = incremental.contrast(questions), full.contrast(questions)
    assert incremental.is_incremental and not full.is_incremental and incremental.refusal == ""
    assert windows == [2]  # REF and ALT of the one contrast that is both first and longest
    assert 0 < incremental.cone_multiply_adds < 0.7 * 2 * 2 * len(asked) * multiply_adds(params, length=181)
    for one, other in zip(found, expected, strict=True):
        for track, same in zip(one, other, strict=True):
            np.testing.assert_allclose(track["splice"], same["splice"], atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-4), ("tf32", 2e-2), ("bf16", 1e-1)])
def test_cones_on_a_device(tmp_path, precision, limit):
    info = models.random_network(tmp_path / "model", spliceai_params(400), members=2)
    tokens = np.random.default_rng(5).integers(0, 4, 4000).astype(np.uint8)
    asked = []
    for at in range(600, 3400, 40):
        edit = (at, 1 + at % 5, bytes([at % 4] * (1 + at % 3)))
        asked.append(Contrast("c", at - 50, at + 51, max(at + 51, at + edit[1]), (edit,), strands="+-"[at // 40 % 2]))
    stretches, places = gather_stretches(asked, reader(tokens), flank=200)
    questions = [(one, stretches[place]) for one, place in zip(asked, places, strict=True)]
    expected = Predictor(info, incremental=False).contrast(questions)
    device = Predictor(info, device="cuda", precision=precision)
    found = device.contrast(questions)
    assert device.is_incremental and device.refusal == ""
    for one, other in zip(found, expected, strict=True):
        for track, same in zip(one, other, strict=True):
            np.testing.assert_allclose(track["splice"], same["splice"], atol=limit)


def test_cones_that_do_not_hold_are_given_up(tmp_path):
    """The proof: a network whose layers do not tell all that it does is answered by full windows, and says so."""
    info = models.random_network(tmp_path / "model", spliceai_params(80))
    tokens = np.random.default_rng(3).integers(0, 4, 400).astype(np.uint8)
    asked = Contrast("c", 150, 251, 251, ((200, 1, bytes([3 - tokens[200]])),))
    stretches, _ = gather_stretches([asked], reader(tokens), flank=40)
    broken = Predictor(info)
    layer = broken._cones._stacks[0].layers[-1]
    object.__setattr__(layer, "after", lambda y: y + 0.5 * torch.arange(3.0)[None, :, None, None])
    (found,) = broken.contrast([(asked, stretches[0])])
    (expected,) = Predictor(info, incremental=False).contrast([(asked, stretches[0])])
    assert broken.refusal and not broken.is_incremental
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one["splice"], other["splice"])


# ---------------------------------------------------------------- memory


def widest_layer(scorer: ConeScorer) -> list[int]:
    """Cells that go into each layer, counted where they run."""
    found: list[int] = []
    run_layer = scorer.run_layer
    scorer.run_layer = lambda layer, x, *rest, **more: (
        found.append(x.shape[0] * x.shape[1]) or run_layer(layer, x, *rest, **more)
    )
    return found


TILE = 500
LONG = {
    "a deletion": ([], [ConeTask(200, 5000, b"", -50, 51)]),
    "a deletion, with all that is left of it": ([], [ConeTask(200, 5000, b"\x01", -150, 1 + 150)]),
    "an insertion": ([], [ConeTask(200, 1, bytes([1] * 5000), -50, 5051)]),
    "the ends of an insertion": (
        [],
        [ConeTask(200, 1, bytes([1] * 5000), -50, 20), ConeTask(200, 1, bytes([1] * 5000), 4990, 5030)],
    ),
    "a delins": ([], [ConeTask(200, 3000, bytes([1] * 3000), 1400, 1501)]),
    "far from the core": ([], [ConeTask(200, 1, b"\x01", 500, 5500), ConeTask(5700, 1, b"\x01", -5500, -500)]),
    "a wide span": ([(100, 5800)], []),
    "a wide wish": ([], [ConeTask(3000, 1, b"\x01", -2900, 2900)]),
}


@pytest.mark.parametrize("name", LONG)
def test_no_allele_or_wish_makes_a_pass_wider_than_a_tile(name):
    """Whatever is asked: the widest layer stays within a tile and its halo, and values are the networks' own."""
    spans, tasks = LONG[name]
    net = network(spliceai_params(80), 1)
    tokens = np.random.default_rng(2).integers(0, 4, 6000).astype(np.uint8)
    scorer = scorer_of([net])
    scorer._tile = TILE
    widest = widest_layer(scorer)
    with torch.inference_mode():
        found_spans, found = scorer.tracks(tokens, spans, tasks)
        assert max(widest) <= TILE + 2 * scorer.flank + 1
        for span, one in zip(spans, found_spans, strict=True):
            np.testing.assert_allclose(one, outputs_of([net], tokens, *span), atol=1e-5)
        for task, one in zip(tasks, found, strict=True):
            core = np.frombuffer(task.core, np.uint8)
            copy = np.concatenate([tokens[: task.start], core, tokens[task.after :]])
            begin = task.start + task.begin
            np.testing.assert_allclose(one, outputs_of([net], copy, begin, task.start + task.end), atol=1e-5)


def test_nothing_is_computed_of_what_a_deletion_takes_away():
    """The same work however long it is."""
    net = network(spliceai_params(80), 1)
    tokens = np.random.default_rng(2).integers(0, 4, 30_000).astype(np.uint8)
    counts = []
    for num_ref in (300, 3000, 20_000):
        scorer = scorer_of([net])
        with torch.inference_mode():
            scorer.tracks(tokens, [], [ConeTask(200, num_ref, b"\x01", -50, 51)])
        counts.append(scorer.multiply_adds)
    assert counts[0] == counts[1] == counts[2] < 2 * multiply_adds(spliceai_params(80), length=101 + 80)


@pytest.mark.parametrize("tasks", [[], [ConeTask(3000, 1, b"\x01", -50, 51)]])
def test_cells_of_one_network_go_before_those_of_the_next_are_made(tasks, monkeypatch):
    params = spliceai_params(80)
    tokens = np.random.default_rng(2).integers(0, 4, 6000).astype(np.uint8)
    peaks = []
    for members in (1, 3):
        scorer = scorer_of([network(params, seed) for seed in range(members)])
        peak = peak_of_cells(monkeypatch)
        with torch.inference_mode():
            scorer.tracks(tokens, [(1000, 5000)], tasks)
        peaks.append(peak[0])
        monkeypatch.undo()
        gc.unfreeze()
    one_layer = 4 * params.channels * (4000 + 80)
    assert peaks[1] < peaks[0] + one_layer / 2
    layers = len(scorer._stacks[0].layers)
    if not tasks:  # nothing reads the cells of layers gone by
        assert peaks[0] < layers / 2 * one_layer


def peak_of_cells(monkeypatch) -> list[int]:
    """The most bytes of tensors that are no weights alive at once, in a list of one, looked at after each layer."""
    peak = [0]
    call = ConvLayer.__call__
    gc.collect()
    gc.freeze()  # what is there already, weights among it, is neither counted nor looked through at each layer

    def watched(self, x, residual, *, own):
        made = call(self, x, residual, own=own)
        storages = [one.untyped_storage() for one in gc.get_objects() if type(one) is torch.Tensor]
        peak[0] = max(peak[0], sum({one.data_ptr(): one.nbytes() for one in storages}.values()))
        return made

    monkeypatch.setattr(ConvLayer, "__call__", watched)
    return peak


FULL = [
    torch.OutOfMemoryError("CUDA out of memory.\nSee documentation"),
    RuntimeError("DefaultCPUAllocator: no memory"),
]


def fail_above(scorer: ConeScorer, most: int, error: Exception) -> None:
    """Let every layer on more than so many cells run out of memory."""
    run_layer = scorer.run_layer

    def failing(layer, x, residual, *, own):
        if x.shape[0] * x.shape[1] > most:
            raise error
        return run_layer(layer, x, residual, own=own)

    scorer.run_layer = failing


@pytest.mark.parametrize("error", FULL)
def test_a_full_memory_halves_a_pass_and_counts(error):
    net = network(spliceai_params(80), 1)
    tokens = np.random.default_rng(2).integers(0, 4, 4000).astype(np.uint8)
    tasks = [ConeTask(at, 1, b"\x04", -5, 6) for at in range(100, 3900, 25)]
    with torch.inference_mode():
        _, expected = scorer_of([net]).tracks(tokens, [], tasks)
        scorer = scorer_of([net])
        fail_above(scorer, 1000, error)
        _, found = scorer.tracks(tokens, [], tasks)
    assert scorer.halved >= 3
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("error", FULL)
def test_an_allele_too_large_for_the_memory_is_one_sentence(error):
    net = network(spliceai_params(80), 1)
    tokens = np.random.default_rng(2).integers(0, 4, 4000).astype(np.uint8)
    scorer = scorer_of([net])
    fail_above(scorer, 10, error)
    sentence = (
        r"cpu: 11 outputs of one allele, with 40 bp either side, do not fit into memory \(.*memory.*\); use a device"
    )
    with pytest.raises(SystemFailure, match=sentence), torch.inference_mode():
        scorer.tracks(tokens, [], [ConeTask(at, 1, b"\x04", -5, 6) for at in (100, 200)])
    scorer.run_layer = None  # any other failure is not taken for memory
    with pytest.raises(TypeError), torch.inference_mode():
        scorer.tracks(tokens, [(0, 10)], [])


def test_the_predictor_counts_halved_passes(tmp_path):
    predictor = Predictor(models.random_network(tmp_path / "model", spliceai_params(80)), is_proven=True)
    _, questions = asked_of([(at, 1) for at in range(300, 1300, 100)], flank=40)
    expected = predictor.contrast(questions)
    assert predictor.halved == 0
    fail_above(predictor._cones, 800, FULL[0])
    for one, other in zip(predictor.contrast(questions), expected, strict=True):
        np.testing.assert_allclose(one[1]["splice"], other[1]["splice"], atol=1e-6)
    assert predictor.halved > 0


# ---------------------------------------------------------------- copies


def asked_of(places, *, flank: int, backgrounds=(), strands="+", length=3000, bounds=None):
    """Tokens, and questions about SNVs with other alleles at these distances from each."""
    tokens = np.random.default_rng(3).integers(0, 4, length).astype(np.uint8)
    asked = []
    for at, num_ref in places:
        others = tuple((at + far, 1, bytes([3 - tokens[at + far]])) for far in backgrounds)
        edit = (at, num_ref, bytes([3 - tokens[at]]))
        asked.append(Contrast("c", at - 50, at + 51, at + 51, (edit,), others, bounds=bounds, strands=strands))
    stretches, held = gather_stretches(asked, reader(tokens), flank=flank)
    return tokens, [(one, stretches[place]) for one, place in zip(asked, held, strict=True)]


@pytest.mark.parametrize("far", [(-190,), (190,), (-190, 190), (-150, -100, -20, 20, 100, 150), (-1, 1), (3,)])
@pytest.mark.parametrize("strand", "+-")
def test_a_background_costs_less_than_full_windows(tmp_path, far, strand):
    """Multiply-adds as executed, wherever the other alleles of the copy lie: two thirds of full windows' at most."""
    params = spliceai_params(400)
    info = models.random_network(tmp_path / "model", params)
    _, questions = asked_of([(1500, 1)], flank=200, backgrounds=far, strands=strand)
    predictor, full = Predictor(info, is_proven=True), Predictor(info, incremental=False)
    found, expected = predictor.contrast(questions), full.contrast(questions)
    assert 0 < predictor.cone_multiply_adds < 0.75 * 2 * multiply_adds(params, length=101 + 400)
    for one, other in zip(found[0], expected[0], strict=True):
        np.testing.assert_allclose(one["splice"], other["splice"], atol=1e-5)


def test_alleles_of_one_copy_share_a_pass(tmp_path):
    """Each beside all the others within its reach: two copies cost two passes, not one for every allele."""
    params = spliceai_params(400)
    info = models.random_network(tmp_path / "model", params)
    tokens = np.random.default_rng(3).integers(0, 4, 6000).astype(np.uint8)
    kinds = [(1, 1), (1, 3), (4, 1)]  # bases of REF and of ALT
    copies = [
        [
            (at, kinds[at // 40 % 3][0], bytes([3 - tokens[at]] * kinds[at // 40 % 3][1]))
            for at in range(600 + 20 * copy, 5400, 40)
        ]
        for copy in range(2)
    ]
    asked = []
    for edits in copies:
        for edit in edits:
            others = tuple(one for one in edits if one != edit and abs(one[0] - edit[0]) <= 255)
            asked.append(Contrast("c", edit[0] - 50, edit[0] + 51, edit[0] + 51, (edit,), others))
    asked.sort(key=lambda one: one.low)
    stretches, held = gather_stretches(asked, reader(tokens), flank=200)
    questions = [(one, stretches[place]) for one, place in zip(asked, held, strict=True)]
    predictor = Predictor(info, is_proven=True)
    found = predictor.contrast(questions)
    shared = predictor.cone_multiply_adds
    alone = Predictor(info, is_proven=True)
    cone = Predictor(info, is_proven=True)
    for one in questions[:3]:
        alone.contrast([one])
    cone.contrast(asked_of([(1500, 1), (1500, 1)], flank=200)[1])
    a_pass = multiply_adds(params, length=101 + 400)
    a_cone = cone.cone_multiply_adds - a_pass
    assert shared < 1.2 * (2 * multiply_adds(params, length=5000 + 400) + len(asked) * a_cone)
    assert shared < 0.7 * len(asked) * alone.cone_multiply_adds / 3
    expected = Predictor(info, incremental=False).contrast(questions)
    for one, other in zip(found, expected, strict=True):
        for track, same in zip(one, other, strict=True):
            np.testing.assert_allclose(track["splice"], same["splice"], atol=1e-5)


@st.composite
def crowds(draw, tokens: np.ndarray) -> list[Contrast]:
    """Alleles of two copies, each asked beside those of its copy that are near; a few know fewer than there are."""
    asked = []
    bounds = draw(st.one_of(st.none(), st.just((20, LENGTH - 20))))
    for _ in range(2):
        edits = draw(edit_lists(tokens, most=6))
        near = draw(st.integers(0, 120))
        for edit in edits:
            others = [one for one in edits if one != edit and abs(one[0] - edit[0]) <= near]
            if draw(st.integers(0, 9)) == 0:
                others = others[1:]
            at = edit[0]
            low, high = at - draw(st.integers(0, 12)), at + draw(st.integers(1, 12))
            end = max(high, at + edit[1])
            strands = draw(st.sampled_from(["+", "-", "+-"]))
            asked.append(Contrast("c", low, high, end, (edit,), tuple(others), bounds=bounds, strands=strands))
    return asked


@settings(max_examples=150, deadline=None)
@given(st.data(), shapes(), st.integers(0, 1 << 16))
def test_copies_that_share_passes_answer_as_each_alone(data, params, seed):
    tokens = np.random.default_rng(seed).integers(0, 5, LENGTH).astype(np.uint8)
    net = network(params, seed)
    asked = data.draw(crowds(tokens))
    with torch.inference_mode():
        scorer = scorer_of([net])
        found = answers(scorer, asked, tokens)
        for contrast, tracks in zip(asked, found, strict=True):
            expected = full_windows([net], contrast, tokens, scorer.flank)
            for one, other in zip(tracks, expected, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_copies_that_differ_where_neither_question_reads_are_two():
    """A deletion that begins where a question reads and ends beyond, over an allele that only another question has."""
    tokens = np.random.default_rng(4).integers(0, 4, 300).astype(np.uint8)
    wide = Contrast("c", 10, 200, 200, ((35, 1, b"\x04"),), ((150, 1, b"\x04"),))
    narrow = Contrast("c", 90, 100, 100, ((95, 1, b"\x04"),), ((110, 45, b""),))
    net = network(DilatedConvParams(channels=2, stem_width=5, blocks=()), 1)
    with torch.inference_mode():
        scorer = scorer_of([net])
        for contrast, tracks in zip((wide, narrow), answers(scorer, [wide, narrow], tokens), strict=True):
            for one, other in zip(tracks, full_windows([net], contrast, tokens, scorer.flank), strict=True):
                np.testing.assert_allclose(one, other, atol=1e-5)


# ---------------------------------------------------------------- which models


def test_networks_of_several_heads_or_geometries_have_no_cones(tmp_path, monkeypatch):
    assert not Predictor(models.splice_grammar_toy(tmp_path / "grammar")).is_incremental
    info = models.random_network(tmp_path / "model", spliceai_params(80), members=2)
    assert Predictor(info).is_incremental
    two = {"splice": info.heads["splice"], "other": replace(info.heads["splice"], name="other")}
    load = _predictor.load_members
    monkeypatch.setattr(_predictor, "load_members", lambda _: load(info))
    assert not Predictor(replace(info, heads=two)).is_incremental
    stack, made = DilatedConv.conv_stack, []

    def uneven(self):
        made.append(stack(self))
        layers = list(made[-1].layers)
        if len(made) == 2:  # another last layer to read leaves the flank as it is
            layers[3] = (
                replace(layers[3], residual=0) if layers[3].residual is None else replace(layers[3], residual=None)
            )
        return replace(made[-1], layers=tuple(layers))

    monkeypatch.setattr(DilatedConv, "conv_stack", uneven)
    assert not Predictor(info).is_incremental


def test_answers_cannot_be_written_to(tmp_path):
    predictor = Predictor(models.random_network(tmp_path / "model", spliceai_params(80)), is_proven=True)
    _, questions = asked_of([(1500, 1), (1600, 1)], flank=40, backgrounds=(10,))
    assert not any(track["splice"].flags.writeable for one in predictor.contrast(questions) for track in one)
