"""Incremental scoring of convolution stacks: one pass over the reference, and of each allele only what it can change.

A changed base reaches, layer by layer, a widening cone of cells; the outputs that are wanted read, layer by layer, a
widening cone of cells the other way. Only cells in both are computed anew, from the cells around them that the
reference pass left behind: those right of an insertion or deletion are the reference's, moved by its length. The idea
is that of fastISM (Nair et al. 2022, Bioinformatics 38:btac135) and Yuzu (Schreiber et al. 2021), here for alleles of
any length and several on one copy; the geometry is derived from the model's layers (engine/models/_conv_stack.py).

What is computed together is fixed by the arguments of a call and the model alone, so equal calls give equal bytes.

Shape letters: B alleles in a batch, C channels, K outputs, L cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.genome.windows import N_TOKEN, edit_tokens, reverse_complement
from engine.models._conv_stack import INPUT, ConvLayer, ConvStack
from engine.scoring._allele_windows import CopyTrack, Stretch

# Cells of the reference pass held at once; the bytes of a tile follow from the model's channels and layers.
TILE_BYTES = 192 << 20
# Cells of one layer computed together: enough for long inner loops, few enough to stay in a core's cache.
BATCH_CELLS = 8192
MAX_BATCH = 64
Tokens = NDArray[np.uint8]
Track = NDArray[np.float32]
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ConeTask:
    """The outputs wanted of one copy, in the direction read.

    Attributes:
        start: index of the first changed base in the strand's tokens.
        num_ref: bases of the reference that the core stands for.
        core: tokens of the copy in their place; none after a bare deletion.
        begin, end: outputs wanted, counted on the copy from the core's first base.
    """

    start: int
    num_ref: int
    core: bytes
    begin: int
    end: int


def cone_task(track: CopyTrack, stretch: Stretch, strand: str) -> ConeTask:
    """A copy with alleles as one changed core, from the first allele to the end of the last.

    Args:
        track: with at least one allele.
        stretch: the reference around it.
        strand: "+" or "-".
    """
    (at, num_ref, _), last = track.edits[0], track.edits[-1]
    start, stop = at - (num_ref == 0), last[0] + last[1]  # an insertion belongs to the base before
    edits = [(at, num_ref, np.frombuffer(alt, dtype=np.uint8)) for at, num_ref, alt in track.edits]
    core = edit_tokens(stretch.tokens[start - stretch.start : stop - stretch.start], start, edits)
    begin, end = track.begin - start, track.end - start
    if strand == "+":
        return ConeTask(start - stretch.start, stop - start, core.tobytes(), begin, end)
    turned = len(stretch.tokens) - (stop - stretch.start)
    return ConeTask(turned, stop - start, reverse_complement(core).tobytes(), len(core) - end, len(core) - begin)


def reference_span(track: CopyTrack, stretch: Stretch, strand: str) -> Span:
    """Outputs wanted of the reference itself, as indices into the strand's tokens."""
    begin, end = track.begin - stretch.start, track.end - stretch.start
    return (begin, end) if strand == "+" else (len(stretch.tokens) - end, len(stretch.tokens) - begin)


@dataclass(frozen=True, slots=True)
class _Shape:
    """Alleles that are computed alike: bases of the core, and outputs wanted left and right of it."""

    width: int
    left: int
    right: int


@dataclass(frozen=True, slots=True)
class _Pass:
    """Outputs [begin, end) of the reference, and which spans and tasks read its cells."""

    begin: int
    end: int
    spans: tuple[int, ...]
    tasks: tuple[int, ...]


class ConeScorer:
    """The networks of one model on one device.

    Args:
        stacks: the networks, averaged after the activation; all of one geometry.
        encode: tokens (B, L) uint8 on the device to (B, A, L).
        device: where the stacks are.

    Attributes:
        multiply_adds: of all convolutions run so far, counted where they run.
    """

    def __init__(
        self, stacks: Sequence[ConvStack], encode: Callable[[Tensor], Tensor], *, device: torch.device
    ) -> None:
        self.multiply_adds = 0
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
            spans: outputs [begin, end) wanted of the reference, as indices into `tokens`.
            tasks: copies.

        Returns:
            For each span and for each task float32 (K, outputs).
        """
        found: list[Track] = [np.empty(0, np.float32)] * len(spans)
        made: list[Track] = [np.empty(0, np.float32)] * len(tasks)
        rounded = [_rounded(task, tokens) for task in tasks]
        shapes = _shapes(rounded)
        for one in self._passes(spans, rounded, shapes):
            reference, changed = self._run_pass(tokens, one, rounded, shapes)
            for index in one.spans:
                begin, end = spans[index]
                found[index] = reference[:, begin - one.begin : end - one.begin]
            for index in one.tasks:
                shape = shapes[len(rounded[index].core)]
                made[index] = self._assembled(rounded[index], shape, changed[index], reference, one.begin)
        return found, made

    def _passes(self, spans: Sequence[Span], tasks: Sequence[ConeTask], shapes: dict[int, _Shape]) -> Iterator[_Pass]:
        """What shares a pass over the reference: neighbours, as long as a tile holds them and a gap costs less."""
        items = [(begin, end, 0, index) for index, (begin, end) in enumerate(spans)]
        for index, task in enumerate(tasks):
            shape = shapes[len(task.core)]
            items.append((task.start - shape.left, task.start + task.num_ref + shape.right, 1, index))
        items.sort()
        at = 0
        while at < len(items):
            first, (begin, end, _, _) = at, items[at]
            while at < len(items):
                low, high = items[at][:2]
                if low - end > self._widest_gap or (at > first and max(end, high) - begin > self._tile):
                    break
                end = max(end, high)
                at += 1
            held = items[first:at]
            yield _Pass(begin, end, *(tuple(index for _, _, kind, index in held if kind == one) for one in (0, 1)))

    def _run_pass(
        self, tokens: Tokens, one: _Pass, tasks: Sequence[ConeTask], shapes: dict[int, _Shape]
    ) -> tuple[Track, dict[int, Track]]:
        """Outputs (K, L) of the reference, and of each task on its cone; means over the networks."""
        batches: list[tuple[_Shape, list[int]]] = []
        for width in sorted({len(tasks[index].core) for index in one.tasks}):
            alike = [index for index in one.tasks if len(tasks[index].core) == width]
            batches += [(shapes[width], alike[at : at + MAX_BATCH]) for at in range(0, len(alike), MAX_BATCH)]
        reference: Tensor | None = None
        totals: list[Tensor | None] = [None] * len(batches)
        for stack in self._stacks:
            cells = self._reference_cells(stack, tokens, one)
            value = stack.activate(_channels_first(cells[-1]))
            reference = value if reference is None else reference.add_(value)
            for number, (shape, alike) in enumerate(batches):
                cone = _Cone(self, stack, cells, one, tokens, shape)
                value = stack.activate(_channels_first(cone.run([tasks[index] for index in alike])))
                total = totals[number]
                totals[number] = value if total is None else total.add_(value)
        assert reference is not None
        changed: dict[int, Track] = {}
        for total, (_, alike) in zip(totals, batches, strict=True):
            assert total is not None
            changed.update(zip(alike, self._mean(total), strict=True))
        return self._mean(reference)[0], changed

    def _mean(self, total: Tensor) -> Track:
        found: Track = total.div_(len(self._stacks)).contiguous().cpu().numpy()
        return found

    def _reference_cells(self, stack: ConvStack, tokens: Tokens, one: _Pass) -> list[Tensor]:
        """Cells of every layer on the reference, each (1, L, C), as far as the outputs of the pass read them."""
        window = _cut(tokens, one.begin - self.flank, one.end + self.flank)
        source = self.encoded(window[None])
        cells: list[Tensor] = []
        for index, layer in enumerate(stack.layers):
            need, length = self._need[index], one.end - one.begin
            read = source if layer.source == INPUT else cells[layer.source]
            spare = self._need[layer.source] - need - layer.halo
            residual = None
            if layer.residual is not None:
                aside = self._need[layer.residual] - need
                residual = cells[layer.residual][:, aside : aside + length + 2 * need]
            x = read[:, spare : spare + length + 2 * (need + layer.halo)]
            cells.append(self.run_layer(layer, x, residual, own=False))
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
        """Cells of a layer that an allele changes and an output reads, counted from the core's first base."""
        if index == INPUT:
            return 0, shape.width
        reach, need = self._reach[index], self._need[index]
        return -min(reach, shape.left + need), shape.width + min(reach, shape.right + need)

    def origin(self, index: int, one: _Pass) -> int:
        """Index into the tokens at which the reference cells of a layer begin."""
        return one.begin - self._need[index]

    @property
    def last_use(self) -> tuple[int, ...]:
        """For each layer the last that reads it."""
        return self._last_use

    def _assembled(self, task: ConeTask, shape: _Shape, cone: Track, reference: Track, origin: int) -> Track:
        """The outputs wanted of a copy: the reference's, its cone's, the reference's moved."""
        low, high = self.cone(len(self._reach) - 1, shape)
        begin, end = task.begin, task.end
        at = task.start - origin
        moved = at + task.num_ref - shape.width
        left = reference[:, at + min(begin, low) : at + min(end, low)]
        middle = cone[:, max(begin, low) - low : max(min(end, high), low) - low]
        right = reference[:, moved + max(begin, high) : moved + max(end, high)]
        return np.concatenate([left, middle, right], axis=1)


@dataclass(frozen=True)
class _Cone:
    """Alleles of one shape on the cells that one pass over the reference left behind in one network."""

    scorer: ConeScorer
    stack: ConvStack
    cells: Sequence[Tensor]
    held: _Pass
    tokens: Tokens
    shape: _Shape

    def run(self, tasks: Sequence[ConeTask]) -> Tensor:
        """Cells of the last layer on the cone of each allele, (B, L, K)."""
        return self._descend(0, tasks, {})

    def _descend(self, first: int, tasks: Sequence[ConeTask], changed: dict[int, Tensor]) -> Tensor:
        """Layers from `first` on; where the cone has grown too wide for a batch, its parts go on by themselves."""
        for index in range(first, len(self.stack.layers)):
            layer = self.stack.layers[index]
            low, high = self.scorer.cone(index, self.shape)
            most = max(1, BATCH_CELLS // (high - low + 2 * layer.halo))
            if len(tasks) > most:
                parts = []
                for at in range(0, len(tasks), most):
                    held = {one: cells[at : at + most] for one, cells in changed.items()}
                    parts.append(self._descend(index, tasks[at : at + most], held))
                return torch.cat(parts)
            x, own = self._around(layer.source, low - layer.halo, high + layer.halo, tasks, changed)
            residual = None
            if layer.residual is not None:
                residual, _ = self._around(layer.residual, low, high, tasks, changed)
            changed[index] = self.scorer.run_layer(layer, x, residual, own=own)
            for one in [one for one in changed if self.scorer.last_use[one] <= index and one != index]:
                del changed[one]
        return changed[len(self.stack.layers) - 1]

    def _around(
        self, source: int, low: int, high: int, tasks: Sequence[ConeTask], changed: dict[int, Tensor]
    ) -> tuple[Tensor, bool]:
        """Cells [low, high) of a source, (B, L, C), counted from each core, and whether they are a copy made for it."""
        if source == INPUT:
            rows = np.stack([self._core_tokens(task, low, high) for task in tasks])
            return self.scorer.encoded(rows), True
        begin, end = self.scorer.cone(source, self.shape)
        cone = changed[source]
        if low >= begin and high <= end:
            return cone[:, low - begin : high - begin], False
        reference, origin = self.cells[source][0], self.scorer.origin(source, self.held)
        middle = slice(max(low, begin) - begin, min(high, end) - begin)
        pieces = []
        for row, task in enumerate(tasks):
            at = task.start - origin
            moved = at + task.num_ref - self.shape.width
            pieces += [reference[at + min(low, begin) : at + begin], cone[row, middle]]
            pieces.append(reference[moved + end : moved + max(high, end)])
        return torch.cat(pieces).view(len(tasks), high - low, -1), True

    def _core_tokens(self, task: ConeTask, low: int, high: int) -> Tokens:
        after = task.start + task.num_ref
        core = np.frombuffer(task.core, dtype=np.uint8)
        left = _cut(self.tokens, task.start + low, task.start)
        right = _cut(self.tokens, after, after + high - len(core))
        return np.concatenate([left, core, right])


def _rounded(task: ConeTask, tokens: Tokens) -> ConeTask:
    """A core of a power of two bases: what follows it on the reference is taken in, so that more alleles are alike."""
    width = 1 << max(0, len(task.core) - 1).bit_length()
    more = width - len(task.core)
    if more == 0:
        return task
    after = task.start + task.num_ref
    core = task.core + _cut(tokens, after, after + more).tobytes()
    return ConeTask(task.start, task.num_ref + more, core, task.begin, task.end)


def _shapes(tasks: Sequence[ConeTask]) -> dict[int, _Shape]:
    """One shape for each width of a core: what the widest wish asks for."""
    wishes: dict[int, tuple[int, int]] = {}
    for task in tasks:
        width = len(task.core)
        left, right = wishes.get(width, (0, 0))
        wishes[width] = max(left, -task.begin), max(right, task.end - width)
    return {width: _Shape(width, left, right) for width, (left, right) in wishes.items()}


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
