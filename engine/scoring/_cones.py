"""Incremental scoring of convolution stacks: one pass over the reference, and of each allele only what it can change.

A changed base reaches, layer by layer, a widening cone of cells; the outputs that are wanted read, layer by layer, a
widening cone of cells the other way. Only cells in both are computed anew, from the cells around them that the
reference pass left behind: those right of an insertion or deletion are the reference's, moved by its length. The idea
is that of fastISM (Nair et al. 2022, Bioinformatics 38:btac135) and Yuzu (Schreiber et al. 2021), here for alleles of
any length; the geometry is derived from the model's layers (engine/models/_conv_stack.py).

Memory is bounded by tiles, however long a stretch, an allele or a wish: wishes are cut into parts, a part sees no more
of an allele than its outputs read, and of what an allele deletes nothing is computed.

What is computed together is fixed by the arguments of a call and the model alone, so equal calls give equal bytes.

Shape letters: B alleles in a batch, C channels, K outputs, L cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import SystemFailure
from engine.genome.windows import N_TOKEN
from engine.models._conv_stack import INPUT, ConvLayer, ConvStack
from engine.scoring._memory import full_memory

RESULT_VERSION = 2
# Cells of the reference pass held at once; the bytes of a tile follow from the model's channels and layers.
TILE_BYTES = 192 << 20
# Cells of one layer computed together: enough for long inner loops, few enough to stay in a core's cache.
BATCH_CELLS = 8192
MAX_BATCH = 64
# Cores up to this long are rounded to a power of two, longer ones to a multiple of it, so that more alleles are alike.
_ROUNDED = 256
Tokens = NDArray[np.uint8]
Track = NDArray[np.float32]
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ConeTask:
    """The outputs wanted of a copy that differs from the reference in one place, in the direction read.

    Attributes:
        start: index of the first changed base in the strand's tokens.
        num_ref: bases of the reference that the core stands for.
        core: tokens of the copy in their place; none after a bare deletion.
        begin, end: outputs wanted, one or more, counted on the copy from the core's first base.
    """

    start: int
    num_ref: int
    core: bytes
    begin: int
    end: int

    @property
    def after(self) -> int:
        """Index of the first base behind what the core stands for."""
        return self.start + self.num_ref


@dataclass(frozen=True, slots=True)
class _Shape:
    """Parts that are computed alike: bases of the core, and outputs wanted left and right of it.

    Below 0: the outputs begin that far inside the core, or end that far before its end.
    """

    width: int
    left: int
    right: int


@dataclass(frozen=True, slots=True)
class _Part:
    """Outputs that are computed in one piece: of the reference, or of a copy.

    Attributes:
        begin, end: outputs of the reference, as indices into the tokens; without a task.
        task: else the copy, its core no longer than its outputs read.
        shape: of the task.
        needs: outputs of the reference that have to be computed for it: all, or those beside the core.
    """

    begin: int = 0
    end: int = 0
    task: ConeTask | None = None
    shape: _Shape = _Shape(0, 0, 0)
    needs: tuple[Span, ...] = ()

    @property
    def outputs(self) -> int:
        """How many."""
        return self.end - self.begin if self.task is None else self.task.end - self.task.begin


@dataclass(frozen=True, slots=True)
class _Pass:
    """Segments [begin, end) of the reference's outputs, and the parts that read their cells."""

    segments: tuple[Span, ...]
    parts: tuple[int, ...]

    def holder(self, position: int) -> int:
        """Number of the segment with a position in it, the last that begins at or before it; 0 where none is."""
        return max(0, sum(begin <= position for begin, _ in self.segments) - 1)


class ConeScorer:
    """The networks of one model on one device.

    Args:
        stacks: the networks, averaged after the activation; all of one geometry.
        encode: tokens (B, L) uint8 on the device to (B, A, L).
        device: where the stacks are.

    Attributes:
        multiply_adds: of all convolutions run so far, counted where they run.
        halved: how often a pass was halved because the device ran out of memory.
    """

    def __init__(
        self, stacks: Sequence[ConvStack], encode: Callable[[Tensor], Tensor], *, device: torch.device
    ) -> None:
        self.multiply_adds = 0
        self.halved = 0
        self._stacks = list(stacks)
        self._encode = encode
        self._device = device
        self._reach, self._need = stacks[0].reach(), stacks[0].need()
        self._last_use = stacks[0].last_use()
        self.flank = self._need[INPUT]
        layers = stacks[0].layers
        costs = [layer.multiply_adds for layer in layers]
        halo = sum(2 * cost * need for cost, need in zip(costs, self._need, strict=False))
        self._widest_gap = halo // sum(costs)
        channels = sum(layer.conv.out_channels for layer in layers)
        room = TILE_BYTES if device.type == "cpu" else 8 * TILE_BYTES
        self._tile = max(4096, room // (4 * channels))

    def tracks(
        self, tokens: Tokens, spans: Sequence[Span], tasks: Sequence[ConeTask]
    ) -> tuple[list[Track], list[Track]]:
        """Outputs of the reference and of copies that differ from it.

        Args:
            tokens: uint8 (L,) of one strand; beyond its ends stands N.
            spans: outputs [begin, end) wanted of the reference, one or more, as indices into `tokens`.
            tasks: copies.

        Returns:
            For each span and for each task float32 (K, outputs), read-only.

        Raises:
            SystemFailure: memory does not suffice for a single part.
        """
        wishes = [self._span_parts(begin, end) for begin, end in spans]
        wishes += [self._task_parts(task, tokens) for task in tasks]
        parts = self._shaped([part for one in wishes for part in one])
        found: dict[int, Track] = {}
        for one in self._passes(parts, range(len(parts))):
            found.update(self._answers(tokens, one, parts))
        left = iter(range(len(parts)))
        made = [_joined([found[next(left)] for _ in one]) for one in wishes]
        return made[: len(spans)], made[len(spans) :]

    def _span_parts(self, begin: int, end: int) -> list[_Part]:
        cuts = [*range(begin, end, self._tile), end]
        return [_Part(low, high, needs=((low, high),)) for low, high in pairwise(cuts)]

    def _task_parts(self, task: ConeTask, tokens: Tokens) -> list[_Part]:
        """What the core does not reach is the reference's own; the rest in pieces of half a tile at most."""
        width, reach = len(task.core), self._reach[-1]
        low = min(max(task.begin, -reach), task.end)
        high = max(low, min(task.end, width + reach))
        moved = task.after - width
        parts = self._span_parts(task.start + task.begin, task.start + low) if task.begin < low else []
        cuts = [*range(low, high, max(1, self._tile // 2)), high]
        parts += [_Part(task=_rounded(self._clipped(task, *cut), tokens)) for cut in pairwise(cuts)]
        return parts + (self._span_parts(moved + high, moved + task.end) if high < task.end else [])

    def _clipped(self, task: ConeTask, begin: int, end: int) -> ConeTask:
        """Outputs [begin, end) of a task, with what they read of the core; what lies beyond it is then never read."""
        first, last = max(0, begin - self.flank), min(len(task.core), end + self.flank)
        start = task.after if first > 0 and last == len(task.core) else task.start
        num_ref = task.num_ref if first == 0 and last == len(task.core) else 0
        return ConeTask(start, num_ref, task.core[first:last], begin - first, end - first)

    def _shaped(self, parts: Sequence[_Part]) -> list[_Part]:
        """Each part of a copy with its shape: what the widest wish among those of its kind asks for."""
        kinds: dict[tuple[int, int, int], list[int]] = {}
        for index, part in enumerate(parts):
            if part.task is not None:
                width = len(part.task.core)
                kind = (width, self._depth(-part.task.begin), self._depth(part.task.end - width))
                kinds.setdefault(kind, []).append(index)
        made = list(parts)
        for (width, _, _), alike in kinds.items():
            held = [(index, task) for index in alike if (task := parts[index].task) is not None]
            left = max(-task.begin for _, task in held)
            right = max(task.end - width for _, task in held)
            shape = _Shape(width, left, right)
            for index, task in held:
                made[index] = _Part(task=task, shape=shape, needs=self._beside(task, shape))
        return made

    def _depth(self, beside: int) -> int:
        """0 where outputs beside the core are wanted; -1 where nothing beside it is even read; else how far inside."""
        if beside >= 0:
            return 0
        return -1 if beside <= -self.flank else 1 + -beside // _ROUNDED

    def _beside(self, task: ConeTask, shape: _Shape) -> tuple[Span, ...]:
        """Outputs of the reference whose pass leaves the cells behind that a part reads left and right of its core."""
        needs: list[Span] = []
        if shape.left > -self.flank:
            needs.append((task.start - shape.left, max(task.start, task.start - shape.left + 1)))
        if shape.right > -self.flank:
            needs.append((task.after + min(0, shape.right - 1), task.after + shape.right))
        return tuple(needs)

    def _passes(self, parts: Sequence[_Part], chosen: Sequence[int]) -> Iterator[_Pass]:
        """What shares a pass over the reference: neighbours, as long as a tile holds them and a gap costs less."""
        order = sorted(chosen, key=lambda index: (parts[index].needs[:1], parts[index].task is not None, index))
        segments: list[Span] = []
        held: list[int] = []
        for index in order:
            needs = _union(parts[index].needs, self._widest_gap)
            both = _union([*segments, *needs], self._widest_gap)
            is_near = len(both) < len(segments) + len(needs)
            size = sum(end - begin for begin, end in both) + (len(both) - 1) * self._widest_gap
            if held and not (is_near and size <= self._tile):
                yield _Pass(tuple(segments), tuple(held))
                both, held = needs, []
            segments = both
            held.append(index)
        if held:
            yield _Pass(tuple(segments), tuple(held))

    def _answers(self, tokens: Tokens, one: _Pass, parts: Sequence[_Part]) -> dict[int, Track]:
        """The parts of a pass, halved as often as memory asks for it."""
        try:
            return self._run_pass(tokens, one, parts)
        except RuntimeError as error:
            reason = full_memory(error)
            if reason is None:
                raise
        # Outside the handler: the error's traceback would keep the failed pass's tensors alive.
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        if len(one.parts) == 1:
            raise SystemFailure(
                f"{parts[one.parts[0]].outputs:,} outputs of one allele, with {self.flank:,} bp either side, do not "
                f"fit into memory ({reason})",
                where=str(self._device),
                fix="use a device with more memory or fewer workers on it",
            )
        self.halved += 1
        middle = len(one.parts) // 2
        found: dict[int, Track] = {}
        for half in (one.parts[:middle], one.parts[middle:]):
            for less in self._passes(parts, half):
                found.update(self._answers(tokens, less, parts))
        return found

    def _run_pass(self, tokens: Tokens, one: _Pass, parts: Sequence[_Part]) -> dict[int, Track]:
        """Outputs (K, L) of each part: means over the networks."""
        batches = _batches(one.parts, parts)
        spans = [index for index in one.parts if parts[index].task is None]
        references: list[Tensor | None] = [None] * len(one.segments)
        totals: list[Tensor | None] = [None] * len(batches)
        for stack in self._stacks:
            cells = [self._reference_cells(stack, tokens, segment, keep=bool(batches)) for segment in one.segments]
            for number in {one.holder(parts[index].begin) for index in spans}:
                references[number] = _sum(references[number], stack.activate(_channels_first(cells[number][-1])))
            for number, (shape, alike) in enumerate(batches):
                cone = _Cone(self, stack, cells, one, tokens, shape)
                made = cone.run([task for index in alike if (task := parts[index].task) is not None])
                totals[number] = _sum(totals[number], stack.activate(_channels_first(made)))
                del cone, made
            del cells  # before the next network's are made
        found: dict[int, Track] = {}
        means = [None if total is None else self._mean(total)[0] for total in references]
        for index in spans:
            number = one.holder(parts[index].begin)
            mean, origin = means[number], one.segments[number][0]
            assert mean is not None
            found[index] = mean[:, parts[index].begin - origin : parts[index].end - origin]
        for total, (shape, alike) in zip(totals, batches, strict=True):
            assert total is not None
            low, _ = self.cone(len(self._reach) - 1, shape)
            for index, made in zip(alike, self._mean(total), strict=True):
                task = parts[index].task
                assert task is not None
                found[index] = made[:, task.begin - low : task.end - low]
        return found

    def _mean(self, total: Tensor) -> Track:
        found: Track = total.div_(len(self._stacks)).contiguous().cpu().numpy()
        found.flags.writeable = False
        return found

    def _reference_cells(self, stack: ConvStack, tokens: Tokens, segment: Span, *, keep: bool) -> list[Tensor]:
        """Cells of every layer on the reference, each (1, L, C), as far as the outputs of a segment read them.

        Without `keep` only the last layer's are left: those that no further layer reads go as soon as they can.
        """
        begin, end = segment
        window = _cut(tokens, begin - self.flank, end + self.flank)
        source = self.encoded(window[None])
        cells: list[Tensor] = []
        for index, layer in enumerate(stack.layers):
            need, length = self._need[index], end - begin
            read = source if layer.source == INPUT else cells[layer.source]
            spare = self._need[layer.source] - need - layer.halo
            residual = None
            if layer.residual is not None:
                aside = self._need[layer.residual] - need
                residual = cells[layer.residual][:, aside : aside + length + 2 * need]
            x = read[:, spare : spare + length + 2 * (need + layer.halo)]
            cells.append(self.run_layer(layer, x, residual, own=False))
            if not keep:
                del read, x, residual
                for done in range(index):
                    if self._last_use[done] <= index:
                        cells[done] = cells[done][:, :0].clone()
        return cells

    def encoded(self, tokens_BL: Tokens) -> Tensor:
        """(B, L, A) on the device."""
        encoded = self._encode(torch.from_numpy(np.ascontiguousarray(tokens_BL)).to(self._device))
        return encoded.transpose(1, 2)

    def run_layer(self, layer: ConvLayer, x_BLC: Tensor, residual_BLC: Tensor | None, *, own: bool) -> Tensor:
        """A layer on rows of cells, (B, L, C) to (B, L - 2 * halo, C); its multiply-adds are counted."""
        residual = None if residual_BLC is None else _as_image(residual_BLC)
        y = layer(_as_image(x_BLC), residual, own=own)
        self.multiply_adds += layer.multiply_adds * y.shape[0] * y.shape[3]
        return y.squeeze(2).transpose(1, 2)

    def cone(self, index: int, shape: _Shape) -> Span:
        """Cells of a layer that an allele changes and an output reads, counted from the core's first base.

        Where there are none, the empty span lies such that what is read beside it is the reference's.
        """
        if index == INPUT:
            return 0, shape.width
        reach, need = self._reach[index], self._need[index]
        low = -min(reach, shape.left + need)
        return low, max(low, shape.width + min(reach, shape.right + need))

    def origins(self, index: int, one: _Pass) -> list[int]:
        """For each segment the index into the tokens at which its cells of a layer begin."""
        return [begin - self._need[index] for begin, _ in one.segments]

    @property
    def last_use(self) -> tuple[int, ...]:
        """For each layer the last that reads it."""
        return self._last_use


@dataclass(frozen=True)
class _Cone:
    """Parts of one shape on the cells that one pass over the reference left behind in one network."""

    scorer: ConeScorer
    stack: ConvStack
    cells: Sequence[Sequence[Tensor]]
    held: _Pass
    tokens: Tokens
    shape: _Shape

    def run(self, tasks: Sequence[ConeTask]) -> Tensor:
        """Cells of the last layer on the cone of each part, (B, L, K)."""
        return self._descend(0, tasks, {})

    def _descend(self, first: int, tasks: Sequence[ConeTask], changed: dict[int, Tensor]) -> Tensor:
        """Layers from `first` on; where the cone has grown too wide for a batch, its parts go on by themselves."""
        for index in range(first, len(self.stack.layers)):
            layer = self.stack.layers[index]
            low, high = self.scorer.cone(index, self.shape)
            most = max(1, BATCH_CELLS // max(1, high - low + 2 * layer.halo))
            if len(tasks) > most:
                parts = []
                for at in range(0, len(tasks), most):
                    held = {one: cells[at : at + most] for one, cells in changed.items()}
                    parts.append(self._descend(index, tasks[at : at + most], held))
                return torch.cat(parts)
            changed[index] = self._layer(index, (low, high), tasks, changed)
            for one in [one for one in changed if self.scorer.last_use[one] <= index and one != index]:
                del changed[one]
        return changed[len(self.stack.layers) - 1]

    def _layer(self, index: int, span: Span, tasks: Sequence[ConeTask], changed: Mapping[int, Tensor]) -> Tensor:
        """Cells of a layer on its cone."""
        layer, (low, high) = self.stack.layers[index], span
        if low == high:
            return torch.empty((len(tasks), 0, layer.conv.out_channels), device=layer.conv.weight.device)
        x, own = self._around(layer.source, low - layer.halo, high + layer.halo, tasks, changed)
        residual = None
        if layer.residual is not None:
            residual, _ = self._around(layer.residual, low, high, tasks, changed)
        return self.scorer.run_layer(layer, x, residual, own=own)

    def _around(
        self, source: int, low: int, high: int, tasks: Sequence[ConeTask], changed: Mapping[int, Tensor]
    ) -> tuple[Tensor, bool]:
        """Cells [low, high) of a source, (B, L, C), counted from each core, and whether they are a copy made for it."""
        if source == INPUT:
            rows = np.stack([self._core_tokens(task, low, high) for task in tasks])
            return self.scorer.encoded(rows), True
        begin, end = self.scorer.cone(source, self.shape)
        cone = changed[source]
        if low >= begin and high <= end:
            return cone[:, low - begin : high - begin], False
        origins = self.scorer.origins(source, self.held)
        left, right = (min(low, begin), min(high, begin)), (max(low, end), max(high, end))
        middle = slice(max(low, begin) - begin, max(min(high, end), begin) - begin)
        pieces = []
        for row, task in enumerate(tasks):
            if left[0] < left[1]:
                number = self.held.holder(task.start - self.shape.left)
                at = task.start - origins[number]
                pieces.append(self.cells[number][source][0, at + left[0] : at + left[1]])
            if middle.start < middle.stop:
                pieces.append(cone[row, middle])
            if right[0] < right[1]:
                number = self.held.holder(task.after + min(0, self.shape.right - 1))
                at = task.after - self.shape.width - origins[number]
                pieces.append(self.cells[number][source][0, at + right[0] : at + right[1]])
        return torch.cat(pieces).view(len(tasks), high - low, -1), True

    def _core_tokens(self, task: ConeTask, low: int, high: int) -> Tokens:
        """Tokens [low, high) of the copy, counted from the core's first base."""
        core = np.frombuffer(task.core, dtype=np.uint8)[max(0, low) : max(0, high)]
        width = len(task.core)
        left = _cut(self.tokens, task.start + min(low, 0), task.start + min(high, 0))
        right = _cut(self.tokens, task.after + max(low - width, 0), task.after + max(high - width, 0))
        return np.concatenate([left, core, right])


def _batches(chosen: Sequence[int], parts: Sequence[_Part]) -> list[tuple[_Shape, list[int]]]:
    """Parts of copies that go through the layers together."""
    alike: dict[_Shape, list[int]] = {}
    for index in chosen:
        if parts[index].task is not None:
            alike.setdefault(parts[index].shape, []).append(index)
    order = sorted(alike.items(), key=lambda one: (one[0].width, one[0].left, one[0].right))
    return [(shape, held[at : at + MAX_BATCH]) for shape, held in order for at in range(0, len(held), MAX_BATCH)]


def _rounded(task: ConeTask, tokens: Tokens) -> ConeTask:
    """A core of a round number of bases: what follows it on the reference is taken in, so that more are alike."""
    width = max(1, len(task.core))
    round_to = _ROUNDED if width > _ROUNDED else 1 << (width - 1).bit_length()
    more = -(-width // round_to) * round_to - len(task.core)
    if more == 0:
        return task
    core = task.core + _cut(tokens, task.after, task.after + more).tobytes()
    return ConeTask(task.start, task.num_ref + more, core, task.begin, task.end)


def _union(spans: Sequence[Span], gap: int) -> list[Span]:
    """Spans in order, those within a gap of each other as one."""
    made: list[Span] = []
    for begin, end in sorted(spans):
        if made and begin - made[-1][1] <= gap:
            made[-1] = made[-1][0], max(made[-1][1], end)
        else:
            made.append((begin, end))
    return made


def _joined(tracks: Sequence[Track]) -> Track:
    if len(tracks) == 1:
        return tracks[0]
    made = np.concatenate(tracks, axis=1)
    made.flags.writeable = False
    return made


def _sum(total: Tensor | None, value: Tensor) -> Tensor:
    return value if total is None else total.add_(value)


def _cut(tokens: Tokens, begin: int, end: int) -> Tokens:
    """Tokens [begin, end), N beyond the ends."""
    inside = tokens[max(0, begin) : max(0, end)]
    left, right = max(0, min(end, 0) - begin), max(0, end - max(begin, len(tokens)))
    if not (left or right):
        return inside
    return np.concatenate([np.full(left, N_TOKEN, np.uint8), inside, np.full(right, N_TOKEN, np.uint8)])


def _as_image(x_BLC: Tensor) -> Tensor:
    """(B, L, C) as (B, C, 1, L) in channels_last, without a copy where the rows lie together."""
    return x_BLC.transpose(1, 2).unsqueeze(2).contiguous(memory_format=torch.channels_last)


def _channels_first(x_BLK: Tensor) -> Tensor:
    return x_BLK.transpose(1, 2)
