"""Tiles cover what is asked for, once each, wherever they are cut."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.genome.reference import ReferenceGenome
from engine.io.genome_tiles import GenomeTiles
from engine.io.regions import Region
from tests.toys.genome import write_fasta

LENGTHS = {"c1": 103, "c2": 20, "c3": 7}


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> ReferenceGenome:
    path = tmp_path_factory.mktemp("tiles") / "ref.fa"
    return ReferenceGenome(write_fasta(path, {name: ("ACGTTGCA" * 20)[:length] for name, length in LENGTHS.items()}))


REGIONS = st.lists(
    st.tuples(st.sampled_from(list(LENGTHS)), st.integers(0, 110), st.integers(1, 60)).map(
        lambda one: Region(one[0], one[1], one[1] + one[2])
    ),
    max_size=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(REGIONS, st.integers(1, 12), st.integers(1, 6), st.integers(1, 9))
def test_every_base_lies_in_one_tile(reference, regions, steps, grid, per_shard):
    if regions and all(one.start >= LENGTHS[one.contig] for one in regions):
        with pytest.raises(InputError, match="no region holds a base"):
            GenomeTiles(reference, regions, tile_bp=steps * grid, grid_bp=grid)
        return
    tiles = GenomeTiles(reference, regions, tile_bp=steps * grid, grid_bp=grid)
    asked = {
        (one.contig, base // grid)
        for one in (regions or [Region(name, 0, length) for name, length in LENGTHS.items()])
        for base in range(one.start, min(one.end, LENGTHS[one.contig]))
    }
    found = list(tiles.tiles(0, len(tiles)))
    assert [one.number for one in found] == list(range(len(tiles)))
    bases = [(one.contig, base) for one in found for base in range(one.start, one.end)]
    assert len(set(bases)) == len(bases)
    assert {(contig, base // grid) for contig, base in bases} == asked
    assert all(0 <= one.start < one.end <= LENGTHS[one.contig] for one in found)
    assert all(one.end - one.start <= steps * grid and one.start % grid == 0 for one in found)
    scan = tiles.scan(records_per_shard=per_shard, bytes_per_shard=1)
    cut = [tile for shard in scan.shards for tile in tiles.tiles(shard.begin, shard.end)]
    assert cut == found
    assert sum(shard.num_records for shard in scan.shards) == scan.num_records == sum(scan.contigs.values())


def test_the_digest_is_of_sequence_and_place(reference, tmp_path):
    def digest(genome: ReferenceGenome, *regions: Region, tile_bp: int = 10) -> str:
        return GenomeTiles(genome, regions, tile_bp=tile_bp).scan(records_per_shard=5, bytes_per_shard=1).digest

    one = digest(reference, Region("c1", 0, 50))
    assert one == digest(reference, Region("c1", 20, 50), Region("c1", 0, 20))
    assert one != digest(reference, Region("c1", 0, 51))
    assert one != digest(reference, Region("c1", 0, 50), tile_bp=20)
    other = ReferenceGenome(write_fasta(tmp_path / "ref.fa", {"c1": "A" * 103}))
    assert one != digest(other, Region("c1", 0, 50))
    with pytest.raises(InputError, match="c9"):
        digest(reference, Region("c9"))
