"""Windows in, head outputs out: the one place where scoring meets a device.

What goes through the networks together is fixed by the windows of a call and the micro-batch alone: duplicates are
computed once, windows are grouped by length in order of first appearance and cut into micro-batches. So the same call
gives the same bytes on the same kind of device with one intra-op thread (which the caller sets).

Networks that take lengths are fed sequences of like length together, padded to the longest; padding moves their answers
by rounding alone. Pairs are fed so too (_pair_predictor.py).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from engine import registry
from engine.errors import InputError, SystemFailure
from engine.genome.windows import N_TOKEN, reverse_complement
from engine.models._conv_stack import ConvStack
from engine.models._folder import load_members
from engine.models._info import HeadInfo, ModelInfo
from engine.scoring import _proof
from engine.scoring._allele_windows import contrast_windows
from engine.scoring._cones import ConeScorer
from engine.scoring._memory import full_memory
from engine.scoring._questions import Asked, Question

CPU_BATCH_BASES = 32_768
PRECISIONS = ("fp32", "tf32", "bf16")
Tokens = NDArray[np.uint8]
Lengths = NDArray[np.int64]
Outputs = dict[str, NDArray[np.float32]]


class Predictor:
    """An ensemble on one device, loaded once.

    Args:
        info: an opened model folder.
        device: "cpu", "cuda" or "cuda:N".
        precision: "fp32" (full single precision, also on GPUs that would round to TF32), "tf32" (GPUs round the
            operands of convolutions and products to 10 bits of mantissa), "bf16" (operands rounded to 7 bits, sums and
            the residual path in float32, output float32; opt in with the error it makes on your data).
        micro_batch: most windows that go through the networks at once. On a CPU long windows go in smaller batches, of
            32,768 bases at most: activations then stay in its cache (1.4 times the speed at SpliceAI-10k).
            Cones cut their own batches (engine/scoring/_cones.py), whatever this says.
        incremental: answer contrasts by cones where every network is a stack of convolutions of one geometry;
            otherwise, or if their proof fails, by full windows.
        is_proven: someone has held cones against full windows already, so that it is not done here again.

    Attributes:
        halved: how often a batch was halved because the device ran out of memory; above 0 the byte promise is void.
        refusal: why cones were given up: what their proof found; empty as long as they were not.
        is_incremental: whether contrasts are answered by cones.

    Raises:
        InputError: unknown precision, no such device, or a model folder whose tensors do not fit.
    """

    TAKES_PAIRS = False

    def __init__(
        self,
        info: ModelInfo,
        *,
        device: str = "cpu",
        precision: str = "fp32",
        micro_batch: int = 64,
        incremental: bool = True,
        is_proven: bool = False,
    ) -> None:
        self.info = info
        self.device = on_device(device)
        self.precision = _checked_precision(precision)
        if micro_batch < 1:
            raise InputError(f"micro_batch must be 1 or more, found {micro_batch}", where="predictor")
        self.micro_batch = micro_batch
        self.halved = 0
        encoder = registry.component("encoders", info.encoder["name"])
        self._encoder = encoder(registry.build_params(encoder, info.encoder["params"], where=info.path))
        if hasattr(self._encoder, "second") and not self.TAKES_PAIRS:
            what = f"model {info.name!r} takes pairs, and single sequences are asked about here"
            raise InputError(what, where="predictor", fix="use it in the job predict, on a set of pairs")
        self._num_tokens = int(getattr(self._encoder, "num_tokens", N_TOKEN + 1))
        self._unknown = int(getattr(self._encoder, "unknown_token", N_TOKEN))
        self._members = [prepared(member, self.device) for member in load_members(info)]
        self._takes_lengths = _take_lengths(self._members)
        self._cones = self._open_cones() if incremental else None
        self.refusal = ""
        self._is_proven = is_proven

    def _open_cones(self) -> ConeScorer | None:
        """None where a network is more than a stack of convolutions, or not all have one head and one geometry."""
        if len(self.info.heads) > 1 or not all(hasattr(member, "conv_stack") for member in self._members):
            return None
        stacks: list[ConvStack] = [cast(Any, member).conv_stack() for member in self._members]
        shapes = {(one.head, one.reach(), one.need(), one.last_use()) for one in stacks}
        if len(shapes) > 1 or stacks[0].head not in self.info.heads:
            return None
        return ConeScorer(stacks, self._encoder.tensor, device=self.device)

    @property
    def is_incremental(self) -> bool:
        """See the class."""
        return self._cones is not None

    @property
    def cone_multiply_adds(self) -> int:
        """Of all convolutions that cones and their reference passes have run; full windows are not among them."""
        return 0 if self._cones is None else self._cones.multiply_adds

    @property
    def context_bp(self) -> int:
        """Bases used up, both flanks together."""
        return self.info.context_bp

    def predict(self, windows: Sequence[Tokens], *, heads: Sequence[str] | None = None) -> list[Outputs]:
        """Outputs of every window, in order.

        Args:
            windows: tokens of the encoder, uint8 (L,), of DNA A=0 C=1 G=2 T=3 N=4, each longer than the context;
                lengths may differ.
            heads: which heads to keep; all by default.

        Returns:
            For each window head name -> float32 (C, L - context_bp), or (C,) where the head gives one answer for the
            whole window, averaged over the ensemble after the activation. Equal windows share their arrays, which are
            read-only. Values are not checked to be finite.

        Raises:
            InputError: a window that is no token array or not longer than the context; an unknown head.
            SystemFailure: memory does not suffice for a single window.
        """
        wanted = self._wanted(heads)
        first_of, places = self._distinct(windows)
        found: list[Outputs] = [{}] * len(first_of)
        for batch in self._batches([self._length(windows[first]) for first in first_of]):
            stack = self._stack([windows[first_of[one]] for one in batch])
            lengths = np.array([self._length(windows[first_of[one]]) for one in batch], np.int64)
            for one, outputs in zip(batch, self._run(stack, lengths, wanted), strict=True):
                found[one] = outputs
        return [found[place] for place in places]

    def predict_iter(
        self, windows: Iterable[Tokens], *, chunk: int, heads: Sequence[str] | None = None
    ) -> Iterator[Outputs]:
        """As predict, holding the outputs of `chunk` windows at a time; duplicates are found within a chunk.

        Micro-batches do not cross chunks, so the chunk size stands beside the micro-batch in what fixes the bytes.
        """
        if chunk < 1:
            raise InputError(f"chunk must be 1 or more, found {chunk}", where="predictor")
        left = iter(windows)
        while part := list(islice(left, chunk)):
            yield from self.predict(part, heads=heads)

    def contrast(self, questions: Sequence[Question], *, heads: Sequence[str] | None = None) -> list[list[Outputs]]:
        """Tracks of every contrast, in order: REF and ALT for each strand asked for, each in the direction read.

        Before cones are used first they are held against full windows on a sample of the contrasts.

        Raises:
            InputError, SystemFailure: as `predict`.
        """
        wanted = self._wanted(heads)
        if self._cones is not None and not self._is_proven and questions:
            self.prove(questions)
        return self._by_windows(questions, wanted) if self._cones is None else self._by_cones(questions, wanted)

    def _by_windows(self, questions: Sequence[Question], wanted: Sequence[str]) -> list[list[Outputs]]:
        flank = self.context_bp // 2
        windows = [contrast_windows(contrast, stretch, flank=flank) for contrast, stretch in questions]
        tracks = iter(self.predict([window for one in windows for window in one], heads=wanted))
        return [list(islice(tracks, len(one))) for one in windows]

    def prove(self, questions: Sequence[Question]) -> None:
        """Hold cones against full windows on a sample of questions; where they differ or fail, give them up.

        Raises:
            InputError, SystemFailure: as `predict`.
        """
        if self._cones is None or not questions:
            return
        asked, (head,) = _proof.sample(questions), self.info.heads
        expected = [track[head] for one in self._by_windows(asked, (head,)) for track in one]
        try:
            found = [track[head] for one in self._by_cones(asked, (head,)) for track in one]
        except Exception as error:  # whatever it is, full windows have just shown that they can answer
            self.refusal = " ".join(f"they failed with {type(error).__name__}: {error}".split())[:200]
        else:
            largest = _proof.difference(expected, found)
            if largest > _proof.TOLERANCE[self.precision]:
                self.refusal = f"they differ from full windows by {largest:.2g} of the largest value"
        if self.refusal:
            self._cones = None
        self._is_proven = True

    def _by_cones(self, questions: Sequence[Question], wanted: Sequence[str]) -> list[list[Outputs]]:
        asked = Asked(questions, flank=self.context_bp // 2)
        cones, (head,) = self._cones, self.info.heads
        assert cones is not None
        halved = cones.halved
        with torch.inference_mode(), numerics(self.device, self.precision):
            answers = {key: cones.tracks(one.tokens, one.spans, one.tasks) for key, one in asked.wishes.items()}
        self.halved += cones.halved - halved
        kept = [head] if head in wanted else []
        return [
            [dict.fromkeys(kept, answers[key][kind][index]) for key, kind, index in place] for place in asked.places
        ]

    def predict_both_strands(self, windows: Sequence[Tokens], *, heads: Sequence[str] | None = None) -> list[Outputs]:
        """Mean of each window and its reverse complement, in the window's own direction.

        Raises:
            InputError: a head is stranded: it reads one strand only.
        """
        wanted = self._wanted(heads)
        for head in wanted:
            _refuse_stranded(self.info.heads[head])
        both = self.predict([*windows, *(reverse_complement(window) for window in windows)], heads=wanted)
        return [
            {head: average_strands(one[head], other[head], head=self.info.heads[head]) for head in wanted}
            for one, other in zip(both[: len(windows)], both[len(windows) :], strict=True)
        ]

    def _wanted(self, heads: Sequence[str] | None) -> tuple[str, ...]:
        wanted = tuple(self.info.heads) if heads is None else tuple(heads)
        for head in wanted:
            if head not in self.info.heads:
                known = ", ".join(self.info.heads)
                raise InputError(
                    f"model {self.info.name!r} has no head {head!r}", where="predictor", fix=f"known: {known}"
                )
        return wanted

    def _distinct(self, windows: Sequence[Tokens]) -> tuple[list[int], list[int]]:
        """Index of the first of each distinct window, and for each window which distinct one it is."""
        first_of: list[int] = []
        known: dict[Any, int] = {}
        places = []
        for number, window in enumerate(windows):
            self._check(window, number)
            place = known.setdefault(self._key(window), len(first_of))
            if place == len(first_of):
                first_of.append(number)
            places.append(place)
        return first_of, places

    def _key(self, window: Tokens) -> Any:
        """What equal windows share."""
        return window.tobytes()

    def _length(self, window: Tokens) -> int:
        """Letters that go through the networks."""
        return len(window)

    def _check(self, window: Tokens, number: int) -> None:
        if window.dtype != np.uint8 or window.ndim != 1:
            what = f"window {number} is {window.dtype} with shape {window.shape}, expected uint8 tokens (L,)"
            raise InputError(what, where="predictor")
        if window.shape[0] <= self.context_bp:
            what = f"window {number} has {window.shape[0]} bp, the model uses up {self.context_bp} bp of context"
            raise InputError(what, where="predictor", fix=f"give at least {self.context_bp + 1} bp")
        if window.max() >= self._num_tokens:
            what = f"window {number} holds token {window.max()}, tokens are 0 to {self._num_tokens - 1}"
            raise InputError(what, where="predictor")

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Indices cut into micro-batches, of one length each unless the networks take lengths."""
        if self._takes_lengths:
            yield from self._padded_batches(lengths)
            return
        groups: dict[int, list[int]] = {}
        for index, length in enumerate(lengths):
            groups.setdefault(length, []).append(index)
        for length, group in groups.items():
            size = self.micro_batch
            if self.device.type == "cpu":
                size = min(size, max(1, CPU_BATCH_BASES // length))
            for begin in range(0, len(group), size):
                yield group[begin : begin + size]

    def _padded_batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """The shortest first, so that little is padded."""
        order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
        batch: list[int] = []
        for index in order:
            too_long = self.device.type == "cpu" and (len(batch) + 1) * lengths[index] > CPU_BATCH_BASES
            if batch and (too_long or len(batch) == self.micro_batch):
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    def _stack(self, windows: Sequence[Tokens]) -> Any:
        return padded(windows, self._unknown)

    def _run(self, stack_BL: Any, lengths_B: Lengths, wanted: Sequence[str]) -> list[Outputs]:
        """One micro-batch, halved as often as memory asks for it."""
        try:
            return self._run_ensemble(stack_BL, lengths_B, wanted)
        except RuntimeError as error:
            reason = full_memory(error)
            if reason is None:
                raise
        # Outside the handler: the error's traceback would keep the failed batch's tensors alive.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(stack_BL) == 1:
            raise SystemFailure(
                f"one window of {stack_BL.shape[1]} bp does not fit into memory ({reason})",
                where=str(self.device),
                fix="use a device with more memory or fewer workers on it",
            )
        self.halved += 1
        middle = len(stack_BL) // 2
        halves = slice(None, middle), slice(middle, None)
        return [one for half in halves for one in self._run(stack_BL[half], lengths_B[half], wanted)]

    def _run_ensemble(self, stack_BL: Any, lengths_B: Lengths, wanted: Sequence[str]) -> list[Outputs]:
        totals: dict[str, torch.Tensor] = {}
        with torch.inference_mode(), numerics(self.device, self.precision):
            inputs = self._inputs(stack_BL, lengths_B)
            for member in self._members:
                outputs = member(*inputs)
                for head in wanted:
                    value = outputs[head].float()
                    totals[head] = totals[head].add_(value) if head in totals else value.clone()
            means = {head: _host(total.div_(len(self._members))) for head, total in totals.items()}
        return [
            {head: self._reached(means[head][row], head, lengths_B[row]) for head in wanted}
            for row in range(len(stack_BL))
        ]

    def _inputs(self, stack_BL: Any, lengths_B: Lengths) -> tuple[Any, ...]:
        """What a network takes of a micro-batch."""
        x = self._encoder.tensor(torch.from_numpy(stack_BL).to(self.device))
        is_padded = bool((lengths_B != stack_BL.shape[1]).any())
        return (x, torch.from_numpy(lengths_B).to(self.device)) if is_padded else (x,)

    def _reached(self, values: NDArray[np.float32], head: str, length: int) -> NDArray[np.float32]:
        """Without the positions of padding."""
        is_long = self._takes_lengths and self.info.heads[head].level == "position"
        return values[:, : length - self.context_bp] if is_long else values


def padded(windows: Sequence[Tokens], unknown: int) -> Tokens:
    """(B, L), padded with the unknown letter."""
    stack_BL = np.full((len(windows), max(map(len, windows))), unknown, np.uint8)
    for row_L, window in zip(stack_BL, windows, strict=True):
        row_L[: len(window)] = window
    return stack_BL


def average_strands(
    forward: NDArray[np.float32], reverse: NDArray[np.float32], *, head: HeadInfo
) -> NDArray[np.float32]:
    """Mean of a head's outputs on a window and on its reverse complement, in the window's direction.

    Args:
        forward: (C, L), or (C,) of a head for the whole sequence, from the window.
        reverse: the same from its reverse complement, as the model gave it.
        head: what the reverse complement does to the channels.

    Raises:
        InputError: the head is stranded.
    """
    _refuse_stranded(head)
    order = list(range(len(head.channels)))
    for one, other in head.pairs:
        order[one], order[other] = other, one
    swapped = reverse[order]
    return (forward + (swapped[:, ::-1] if head.level == "position" else swapped)) * np.float32(0.5)


def _refuse_stranded(head: HeadInfo) -> None:
    if head.symmetry == "stranded":
        raise InputError(
            f"head {head.name!r} reads one strand only and cannot be averaged over both",
            where="strand averaging",
            fix="turn strand averaging off or choose a symmetric or paired head",
        )


def _take_lengths(members: Sequence[torch.nn.Module]) -> bool:
    """Whether the networks can leave padding out."""
    return all("lengths_B" in inspect.signature(member.forward).parameters for member in members)


def on_device(name: str) -> torch.device:
    """The device of this name.

    Raises:
        InputError: no such device.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"{name!r} names no device", where="device", fix="use 'cpu', 'cuda' or 'cuda:N'") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device {name!r} is not supported", where="device", fix="use 'cpu', 'cuda' or 'cuda:N'")
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if (device.index or 0) >= count:
        raise InputError(f"{name!r} asked for, this machine has {count} CUDA devices", where="device", fix="use 'cpu'")
    return device


def _checked_precision(precision: str) -> str:
    if precision not in PRECISIONS:
        raise InputError(f"no precision {precision!r}", where="predictor", fix=f"known: {', '.join(PRECISIONS)}")
    return precision


def prepared(member: Any, device: torch.device) -> torch.nn.Module:
    """Folded where the architecture can, on its device, weights in channels_last."""
    if hasattr(member, "for_inference"):
        member = member.for_inference()
    moved: torch.nn.Module = member.to(device=device)
    return moved.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _host(values: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = values.contiguous().cpu().numpy()
    array.flags.writeable = False
    return array


@contextmanager
def numerics(device: torch.device, precision: str) -> Iterator[None]:
    """The numeric mode for one batch, put back afterwards.

    CUDA convolutions round to TF32 by default: "fp32" has to ask for the real thing, and for algorithms that give the
    same bits every time.
    """
    backends: Any = torch.backends
    tf32 = "tf32" if precision == "tf32" else "ieee"
    settings: list[tuple[Any, str, Any]] = [
        (backends.mkldnn.conv, "fp32_precision", "ieee"),
        (backends.mkldnn.matmul, "fp32_precision", "ieee"),
        (backends.cudnn.conv, "fp32_precision", tf32),
        (backends.cudnn.rnn, "fp32_precision", tf32),
        (backends.cuda.matmul, "fp32_precision", tf32),
        (backends.cudnn, "deterministic", True),
        (backends.cudnn, "benchmark", False),
    ]
    former = [getattr(place, name) for place, name, _ in settings]
    try:
        for place, name, value in settings:
            setattr(place, name, value)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        for (place, name, _), value in zip(settings, former, strict=True):
            setattr(place, name, value)
