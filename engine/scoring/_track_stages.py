"""Prediction along a genome as the two stages that an executor runs: read the bases of tiles, then the model.

A head with a value per position gives one for every base of a tile: the model reads the tile and half its context on
either side, N past the ends of the contig. A head with one answer for a whole sequence gives one for every step of
`stride_bp` bases: the model reads a window of `window_bp` around the step's middle, N past the ends.

There is no value where nothing is known: at a base that is N, or for a window of N alone. So how the genome is cut into
tiles shows in no value.

Strands: "plus" reads the reference as it is; "minus" its reverse complement, with what is read brought back to the base
it is of, and the channels that a paired head swaps swapped back; "both" gives each a column of its own, NAME_plus and
NAME_minus; "mean" their mean. "declared" is both for heads that read one strand only, and plus for others.

Shape letters: C channels, L bases of a tile, S values of a tile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine import registry
from engine.errors import InputError
from engine.genome.reference import ReferenceGenome
from engine.genome.windows import N_TOKEN, reverse_complement
from engine.io.genome_tiles import GenomeTiles, Tile
from engine.io.regions import Region
from engine.io.source import Shard
from engine.models._info import HeadInfo, ModelInfo, open_model
from engine.runtime.stages import ShardOutput
from engine.scoring._predict_stages import Skipped, open_predictor
from engine.scoring._prediction_columns import value_column
from schemas import states, tables

if TYPE_CHECKING:
    from engine.scoring._predictor import Predictor

STRANDS = ("declared", "plus", "minus", "both", "mean")
Tokens = NDArray[np.uint8]
Values = NDArray[np.float32]


@dataclass(frozen=True)
class Column:
    """One track.

    Attributes:
        name: of the column and the file.
        head: name of the head.
        channel: its number.
        strand: "plus", "minus" or "mean".
    """

    name: str
    head: str
    channel: int
    strand: str


@dataclass(frozen=True)
class TileBatch:
    """Tiles of a shard, and what the model reads of each; picklable.

    Attributes:
        tiles: in order.
        windows: of each tile its windows: one, or one per step.
        known: of each tile (S,), whether there is anything to tell a value of.
    """

    tiles: tuple[Tile, ...]
    windows: tuple[tuple[Tokens, ...], ...]
    known: tuple[NDArray[np.bool_], ...]


@dataclass(frozen=True)
class TrackStages:
    """Everything both stages need; picklable, opened once per process.

    Attributes:
        reference: path of the FASTA.
        regions: where; all of it where empty.
        model: zoo name or model folder.
        head: its name.
        channels: names of its channels; all where empty.
        strands: one of STRANDS.
        tile_bp: bases of a tile.
        window_bp, stride_bp: of a head with one answer for a whole sequence.
        device, precision, micro_batch: as engine.scoring._predictor.Predictor has them.
    """

    reference: str
    regions: tuple[Region, ...]
    model: str
    head: str
    channels: tuple[str, ...] = ()
    strands: str = "declared"
    tile_bp: int = 10_000
    window_bp: int | None = None
    stride_bp: int | None = None
    device: str = "cpu"
    precision: str = "fp32"
    micro_batch: int = 64

    @cached_property
    def info(self) -> ModelInfo:
        """The model's description, opened once: that hashes its weights."""
        return open_model(self.model)

    @property
    def head_info(self) -> HeadInfo:
        """The head, checked by `check`."""
        return self.info.heads[self.head]

    @property
    def step_bp(self) -> int:
        """Bases a value stands for."""
        return 1 if self.head_info.level == "position" else int(self.stride_bp or 1)

    def check(self) -> None:
        """Refuse what does not go together; loads no weights.

        Raises:
            InputError: an unknown head or channel, letters other than DNA, strands that cannot be averaged, values for
                every base that change with the tile they are read in, or a window that the head does not take or needs.
        """
        where = f"model {self.info.name}"
        if self.head not in self.info.heads:
            raise InputError(f"no head {self.head!r}", where=where, fix=f"it has: {', '.join(self.info.heads)}")
        head = self.head_info
        for name in self.channels:
            if name not in head.channels:
                what = f"head {head.name!r} has no channel {name!r}"
                raise InputError(what, where=where, fix=f"it has: {', '.join(head.channels)}")
        kind = getattr(registry.component("models", self.info.architecture), "kind", "sequences")
        if kind != "sequences" or getattr(self.encoder(), "alphabet", "dna") != "dna":
            raise InputError("the model does not read DNA", where=where, fix="use one whose encoder does")
        if self.strands == "mean" and head.symmetry == "stranded":
            what = f"head {head.name!r} reads one strand only and cannot be averaged over both"
            raise InputError(what, where=where, fix="use the strands plus, minus or both")
        self._check_window(head, where)

    def _check_window(self, head: HeadInfo, where: str) -> None:
        given = self.window_bp is not None or self.stride_bp is not None
        if head.level == "position":
            if given:
                what = f"head {head.name!r} has a value for every base"
                raise InputError(what, where=where, fix="leave window and stride out")
            self._check_context(head, where)
            return
        if self.window_bp is None or self.stride_bp is None:
            what = f"head {head.name!r} gives one answer for a whole sequence"
            fix = "give --window, as long as the sequences it was trained on, and --stride"
            raise InputError(what, where=where, fix=fix)
        made = registry.component("models", self.info.architecture)
        longest = getattr(made, "most_letters", lambda _: None)(
            registry.build_params(made, self.info.params, where=self.info.path)
        )
        if self.window_bp <= self.info.context_bp or (longest is not None and self.window_bp > longest):
            most = "" if longest is None else f" to {longest:,}"
            what = f"a window of {self.window_bp:,} bases, the model takes {self.info.context_bp + 1:,}{most}"
            raise InputError(what, where=where, fix="choose another --window")

    def _check_context(self, head: HeadInfo, where: str) -> None:
        from engine.models._sequence import SequenceNet

        made = registry.component("models", self.info.architecture)
        if isinstance(made, type) and issubclass(made, SequenceNet):
            what = f"head {head.name!r} tells a base by all that is read with it, so its values change with the tiles"
            fix = "use a network of limited context, such as dilated_conv, or predict on ingested sequences"
            raise InputError(what, where=where, fix=fix)

    def encoder(self) -> Any:
        """The model's encoder."""
        made = registry.component("encoders", self.info.encoder["name"])
        return made(registry.build_params(made, self.info.encoder["params"], where=self.info.path))

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The tracks, in order."""
        head = self.head_info
        strands = self.strands
        if strands == "declared":
            strands = "both" if head.symmetry == "stranded" else "plus"
        made = []
        for channel in self.channels or head.channels:
            name, number = value_column(head, channel), head.channels.index(channel)
            if strands == "both":
                made += [Column(f"{name}_{one}", head.name, number, one) for one in ("plus", "minus")]
            else:
                made.append(Column(f"{name}_minus" if strands == "minus" else name, head.name, number, strands))
        return tuple(made)

    def schema(self) -> pa.Schema:
        """Columns of the table."""
        told = f"; {self.head_info.meaning}" if self.head_info.meaning else ""
        doc = "a value for every `span` bases, NaN where nothing is known; strand {}" + told
        made = [tables.field(one.name, pa.list_(pa.float32()), doc.format(one.strand)) for one in self.columns]
        return pa.schema([*tables.TRACK_TILES, *made])

    def source(self) -> GenomeTiles:
        """The tiles as a plannable input."""
        step = self.step_bp
        tile_bp = max(1, self.tile_bp // step) * step
        return GenomeTiles(ReferenceGenome(self.reference), self.regions, tile_bp=tile_bp, grid_bp=step)

    def open_reader(self) -> Callable[[Shard], TileBatch]:
        """See runtime.stages.Stages."""
        return TileReader(self, ReferenceGenome(self.reference), self.source(), self.encoder())

    def open_scorer(self) -> Callable[[TileBatch], ShardOutput]:
        """See runtime.stages.Stages."""
        predictor = open_predictor(
            self.info, device=self.device, precision=self.precision, micro_batch=self.micro_batch
        )  # fmt: skip
        return TileScorer(self, predictor)


@dataclass(frozen=True)
class TileReader:
    """Reads the windows of a shard's tiles and encodes them."""

    stages: TrackStages
    reference: ReferenceGenome
    tiles: GenomeTiles
    encoder: Any

    def __call__(self, shard: Shard) -> TileBatch:
        tiles = tuple(self.tiles.tiles(shard.begin, shard.end))
        read = self._bases if self.stages.head_info.level == "position" else self._steps
        found = [read(tile) for tile in tiles]
        return TileBatch(tiles, tuple(windows for windows, _ in found), tuple(known for _, known in found))

    def _bases(self, tile: Tile) -> tuple[tuple[Tokens, ...], NDArray[np.bool_]]:
        flank = self.stages.info.context_bp // 2
        tokens = self.encoder.encode(self.reference.fetch(tile.contig, tile.start - flank, tile.end + flank))
        known = tokens[flank : len(tokens) - flank] != N_TOKEN
        return ((tokens,) if known.any() else ()), known

    def _steps(self, tile: Tile) -> tuple[tuple[Tokens, ...], NDArray[np.bool_]]:
        step, window = self.stages.step_bp, int(self.stages.window_bp or 0)
        first = tile.start + step // 2 - window // 2
        starts = [first + place * step for place in range(-(-(tile.end - tile.start) // step))]
        tokens = self.encoder.encode(self.reference.fetch(tile.contig, starts[0], starts[-1] + window))
        windows = [tokens[start - first : start - first + window] for start in starts]
        known = np.array([bool((one != N_TOKEN).any()) for one in windows], dtype=bool)
        return tuple(one for one, is_known in zip(windows, known, strict=True) if is_known), known


@dataclass(frozen=True)
class TileScorer:
    """Builds the rows and counts of a shard."""

    stages: TrackStages
    predictor: Predictor

    def __call__(self, batch: TileBatch) -> ShardOutput:
        before = self.predictor.halved
        values = {strand: self._values(batch, strand) for strand in self._strands()}
        skipped: dict[int, Skipped] = {}
        for row, known in enumerate(batch.known):
            if not known.any():
                skipped[row] = Skipped(states.NOT_APPLICABLE, "no_bases", states.NOT_APPLICABLE_REASONS["no_bases"])
            elif not all(np.isfinite(found[row]).all() for found in values.values()):
                sentence = f"the model's head {self.stages.head} gave NaN or infinity in this tile"
                skipped[row] = Skipped(states.REJECTED, "model_output_not_finite", sentence)
        columns = [self._column(batch, values, one, skipped) for one in self.stages.columns]
        halved = self.predictor.halved - before
        return _output(batch, columns, skipped, self.stages, {"halved_batches": halved} if halved else {})

    def _strands(self) -> tuple[str, ...]:
        wanted = {one.strand for one in self.stages.columns}
        return tuple(one for one in ("plus", "minus") if one in wanted or "mean" in wanted)

    def _values(self, batch: TileBatch, strand: str) -> list[Values]:
        """(C, S) of each tile's known windows, or of all its bases, in the direction of the reference."""
        head = self.stages.head_info
        windows = [one for of_tile in batch.windows for one in of_tile]
        asked = [reverse_complement(one) for one in windows] if strand == "minus" else windows
        found = iter(self.predictor.predict(asked, heads=[head.name]))
        made = []
        for of_tile in batch.windows:
            outputs = [next(found)[head.name] for _ in of_tile]
            if strand == "minus":
                outputs = [turned(one, head) for one in outputs]
            if not outputs:
                made.append(np.zeros((len(head.channels), 0), np.float32))
            else:
                made.append(outputs[0] if head.level == "position" else np.stack(outputs, axis=1))
        return made

    def _column(
        self, batch: TileBatch, values: Mapping[str, Sequence[Values]], one: Column, skipped: Mapping[int, Skipped]
    ) -> pa.Array:
        rows: list[Values | None] = []
        for row, known in enumerate(batch.known):
            if row in skipped:
                rows.append(None)
                continue
            strands = ("plus", "minus") if one.strand == "mean" else (one.strand,)
            parts = [values[strand][row][one.channel] for strand in strands]
            told = parts[0] if len(parts) == 1 else (parts[0] + parts[1]) * np.float32(0.5)
            whole = np.full(len(known), np.nan, np.float32)
            whole[known] = told[known] if self.stages.head_info.level == "position" else told
            rows.append(whole)
        return pa.array(rows, pa.list_(pa.float32()))


def turned(outputs: Values, head: HeadInfo) -> Values:
    """What a head said of a reverse complement, (C,) or (C, L), in the direction of the reference."""
    order = list(range(len(head.channels)))
    for one, other in head.pairs:
        order[one], order[other] = other, one
    swapped = outputs[order]
    return swapped[:, ::-1] if head.level == "position" else swapped


def _output(
    batch: TileBatch,
    columns: Sequence[pa.Array],
    skipped: Mapping[int, Skipped],
    stages: TrackStages,
    notes: Mapping[str, int],
) -> ShardOutput:
    rows = range(len(batch.tiles))
    found = [skipped[row].state if row in skipped else states.SCORED for row in rows]
    told: dict[str, list[Any]] = {
        "record": [one.number for one in batch.tiles],
        "contig": [one.contig for one in batch.tiles],
        "start": [one.start for one in batch.tiles],
        "end": [one.end for one in batch.tiles],
        "span": [stages.step_bp for _ in rows],
        "state": found,
        "reason": [skipped[row].reason if row in skipped else None for row in rows],
    }
    first = [pa.array(told[one.name], one.type) for one in tables.TRACK_TILES]
    rejected = [row for row in rows if row in skipped and skipped[row].state == states.REJECTED]
    rejects = {
        "record": [batch.tiles[row].number for row in rejected],
        "alt_index": [0 for _ in rejected],
        "reason": [skipped[row].reason for row in rejected],
        "sentence": [skipped[row].sentence for row in rejected],
        "text": [f"{t.contig}:{t.start + 1}-{t.end}" for t in (batch.tiles[row] for row in rejected)],
    }
    return ShardOutput(
        table=pa.Table.from_arrays([*first, *columns], schema=stages.schema()),
        rejects=pa.table(rejects, schema=tables.REJECTS),
        body=None,
        body_rows=0,
        records_in=len(batch.tiles),
        states=dict(sorted(Counter(found).items())),
        reasons=dict(sorted(Counter(one.reason for one in skipped.values()).items())),
        notes=notes,
    )


def stretches(parts: Iterator[pa.Table], column: str) -> Iterator[tuple[str, int, int, Values]]:
    """(contig, start, span, values) of the scored tiles; a value that a tile's end cuts comes alone, with its span."""
    for table in parts:
        places = zip(*(table[name].to_pylist() for name in ("contig", "start", "end", "span")), strict=True)
        for (contig, start, end, span), told in zip(places, table[column], strict=True):
            if not told.is_valid:
                continue
            values = told.values.to_numpy(zero_copy_only=False)
            whole = (end - start) // span
            if whole:
                yield contig, start, span, values[:whole]
            if whole < len(values):
                yield contig, start + whole * span, end - start - whole * span, values[whole:]
