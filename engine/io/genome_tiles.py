"""Regions of a reference cut into tiles, the records of a run along a genome: none overlap, none is missing.

Tiles begin at multiples of their size on the contig, so that a base lies in the same tile whatever was asked beside it,
but for the tiles at the ends of a region. Regions are widened to whole steps of a grid, and cut at the contig's end.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from engine.errors import InputError
from engine.genome.reference import ReferenceGenome
from engine.io.regions import Region, placed_regions
from engine.io.source import RawRecord, Scan, Shard

RESULT_VERSION = 1
MOST_SHARDS = 1_000_000


@dataclass(frozen=True, slots=True)
class Tile:
    """Bases [start, end) of a contig; the number counts all tiles of the run."""

    number: int
    contig: str
    start: int
    end: int


class GenomeTiles:
    """A plannable input; `begin` and `end` of a shard count tiles.

    Args:
        reference: the genome; contigs go by its own names.
        regions: where; all of it where empty.
        tile_bp: bases of a tile, a multiple of `grid_bp`.
        grid_bp: bases of a step.

    Attributes:
        path: of the reference.
        contigs: those with a tile, to their length.

    Raises:
        InputError: a contig that is not in the reference, or no region holds a base of it.
    """

    def __init__(
        self, reference: ReferenceGenome, regions: Sequence[Region], *, tile_bp: int, grid_bp: int = 1
    ) -> None:
        asked = regions or [Region(contig, 0, length) for contig, length in reference.contigs.items() if length]
        inside, self._notes = placed_regions(asked, reference)
        wide = [
            Region(one.contig, one.start // grid_bp * grid_bp, -(-one.end // grid_bp) * grid_bp)
            for ones in inside.values()
            for one in ones
        ]
        found, _ = placed_regions(wide, reference)
        self.path = reference.path
        self.contigs = {contig: reference.contigs[contig] for contig in found}
        self._reference = reference
        self._tile_bp, self._grid_bp = tile_bp, grid_bp
        self._regions = [one for ones in found.values() for one in ones]
        counts = [-(-one.end // tile_bp) - one.start // tile_bp for one in self._regions]
        self._firsts = list(accumulate(counts, initial=0))

    def __len__(self) -> int:
        return self._firsts[-1]

    def tiles(self, begin: int, end: int) -> Iterator[Tile]:
        """Tiles [begin, end), in order."""
        place = bisect_right(self._firsts, begin) - 1
        for number in range(begin, end):
            while number >= self._firsts[place + 1]:
                place += 1
            region = self._regions[place]
            at = (region.start // self._tile_bp + number - self._firsts[place]) * self._tile_bp
            yield Tile(number, region.contig, max(at, region.start), min(at + self._tile_bp, region.end))

    def scan(
        self,
        *,
        records_per_shard: int,
        bytes_per_shard: int,  # noqa: ARG002 - tiles are of one size
        on_record: Callable[[RawRecord], None] | None = None,  # noqa: ARG002 - of variants alone
        on_record_limit: int = 0,  # noqa: ARG002
    ) -> Scan:
        """Cut the tiles; the digest is of the contigs' sequences and the regions.

        Raises:
            InputError: more shards than a run holds.
        """
        num = len(self)
        if num > records_per_shard * MOST_SHARDS:
            what = f"{num:,} tiles in shards of {records_per_shard:,} are more than {MOST_SHARDS:,} shards"
            raise InputError(what, where="execution.tiles_per_shard", fix="raise it")
        shards: list[Shard] = []
        for low in range(0, num, records_per_shard):
            high = min(low + records_per_shard, num)
            (first,), (last,) = self.tiles(low, low + 1), self.tiles(high - 1, high)
            places = (first.contig, first.start, last.contig, last.start)
            shards.append(Shard(len(shards), low, high, high - low, low, *places))
        contigs: dict[str, int] = {}
        for region, low, high in zip(self._regions, self._firsts[:-1], self._firsts[1:], strict=True):
            contigs[region.contig] = contigs.get(region.contig, 0) + high - low
        return Scan(shards, num, self._digest(), contigs, list(self._notes))

    def _digest(self) -> str:
        digests = self._reference.refget_many(self.contigs)
        lines = [f"genome_tiles {RESULT_VERSION} {self._tile_bp} {self._grid_bp}"]
        lines += [f"{digests[one.contig]}\t{one.contig}\t{one.start}\t{one.end}" for one in self._regions]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
