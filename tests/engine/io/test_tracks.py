"""Tracks: bigWig as its sections say, coverage as samtools depth counts it, bins as plain means."""

from __future__ import annotations

import pickle
import random
import struct
import subprocess

import numpy as np
import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DataError, InputError, ReplisomeError
from engine.io.bigwig import BigWig
from engine.io.tracks import Coverage, binned, check_track, open_track
from tests.toys.bigwig import Section, write_bigwig

CONTIGS = {"chr1": 300, "chr22": 200}


def some_sections(seed: int) -> list[Section]:
    draw, found = random.Random(seed), []
    for contig, length in CONTIGS.items():
        at = draw.randint(0, 20)
        while at < length - 60:
            kind = draw.choice(["bedGraph", "variableStep", "fixedStep"])
            num, span = draw.randint(1, 4), draw.randint(1, 4)
            step = span + draw.randint(0, 5)
            values = [float(draw.randint(-8, 8)) for _ in range(num)]
            places = [at + i * step for i in range(num)]
            items = {
                "bedGraph": [(place, place + span, value) for place, value in zip(places, values, strict=True)],
                "variableStep": list(zip(places, values, strict=True)),
                "fixedStep": [(value,) for value in values],
            }[kind]
            found.append(Section(contig, kind, items, at, step, span))
            at = places[-1] + span + draw.randint(0, 40)
    return found


def said_again(sections, contig) -> np.ndarray:
    found = np.full(CONTIGS[contig], np.nan)
    for one in sections:
        for start, end, value in one.intervals() if one.contig == contig else ():
            found[start:end] = value
    return found


@given(
    seed=st.integers(0, 1000),
    order=st.sampled_from("<>"),
    packed=st.booleans(),
    places=st.lists(st.tuples(st.integers(-20, 299), st.integers(0, 80)), min_size=1, max_size=4),
)
def test_values_are_those_of_the_sections(tmp_path_factory, seed, order, packed, places):
    sections = some_sections(seed)
    path = tmp_path_factory.mktemp("b") / "x"
    track = open_track(write_bigwig(path, CONTIGS, sections, order=order, packed=packed))
    assert track.contigs == CONTIGS
    for contig in CONTIGS:
        whole = said_again(sections, contig)
        for start, length in places:
            wanted = [whole[i] if 0 <= i < len(whole) else np.nan for i in range(start, start + length)]
            assert np.array_equal(track.values(contig, start, start + length), np.array(wanted), equal_nan=True)
    assert np.isnan(track.values("chrX", 0, 9)).all()


def test_a_track_travels(tmp_path):
    path = write_bigwig(tmp_path / "x", CONTIGS, [Section("chr1", "bedGraph", [(3, 5, 1.5)])])
    track = pickle.loads(pickle.dumps(open_track(path)))
    assert track.values("chr1", 4, 6).tolist()[0] == 1.5


def test_a_harmed_bigwig_is_told_or_reads_as_numbers_never_as_a_crash(tmp_path):
    sections = [Section("chr1", "bedGraph", [(i, i + 2, 1.0)]) for i in range(0, 200, 10)]
    path = write_bigwig(tmp_path / "x", CONTIGS, sections)
    whole, draw = path.read_bytes(), random.Random(0)
    told = 0
    for at in [*range(0, 120), *draw.sample(range(120, len(whole)), 100)]:
        harmed = bytearray(whole)
        harmed[at] ^= 1 << draw.randrange(8)
        path.write_bytes(harmed)
        try:
            open_track(path).values("chr1", 0, 300)
        except ReplisomeError:
            told += 1
    assert told > 80
    path.write_bytes(whole[:-30])
    with pytest.raises(DataError, match="it ends in the middle"):
        BigWig(path).values("chr1", 0, 300)


@pytest.mark.parametrize("data", [b"", b"BAM", struct.pack("<I", 0x888FFC26), b"track type=wiggle_0\n"])
def test_what_is_no_track(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(InputError, match=r"no bigWig|neither bigWig nor BAM"):
        open_track(tmp_path / "x")


@pytest.fixture(scope="module")
def bam(tmp_path_factory):
    """300 reads with every CIGAR operation and flag."""
    path = tmp_path_factory.mktemp("bam") / "x.bam"
    draw = random.Random(7)
    header = {"HD": {"VN": "1.6", "SO": "coordinate"}, "SQ": [{"SN": n, "LN": size} for n, size in CONTIGS.items()]}
    reads = []
    for i in range(300):
        cigar = [(4, draw.randint(1, 4)), (0, draw.randint(1, 12)), (draw.choice([1, 2, 3, 7, 8]), draw.randint(1, 9))]
        cigar += [(0, draw.randint(1, 12)), (5, 2)]
        flag = draw.choice([0, 0, 0, 16, 4, 0x100, 0x200, 0x400, 0x800])
        reads.append((draw.randrange(2), draw.randrange(160), flag, cigar, f"q{i}"))
    with pysam.AlignmentFile(str(path), "wb", header=header) as out:
        for contig, start, flag, cigar, name in sorted(reads):
            read = pysam.AlignedSegment(out.header)
            read.query_name, read.flag, read.reference_id, read.reference_start = name, flag, contig, start
            size = sum(length for operation, length in cigar if operation in (0, 1, 4, 7, 8))
            read.query_sequence, read.cigartuples, read.mapping_quality = "A" * size, cigar, 9
            read.query_qualities = pysam.qualitystring_to_array("I" * size)
            out.write(read)
    pysam.index(str(path))
    return path


@pytest.mark.parametrize(("contig", "start", "end"), [("chr1", 0, 300), ("chr22", 37, 141), ("chr1", 10, 11)])
def test_coverage_is_that_of_samtools_depth(bam, contig, start, end):
    words = ["samtools", "depth", "-a", "-r", f"{contig}:{start + 1}-{end}", str(bam)]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    wanted = [int(line.split("\t")[2]) for line in said]
    assert max(wanted) > 2 or end - start == 1
    assert open_track(bam).values(contig, start, end).tolist() == wanted


def test_coverage_past_the_ends_is_nothing(bam):
    track = Coverage(bam)
    assert track.values("chr22", -5, 210)[5:205].tolist() == track.values("chr22", 0, 200).tolist()
    assert track.values("chrX", 0, 4).tolist() == [0.0] * 4


def test_a_bam_without_an_index_is_told(bam, tmp_path):
    (tmp_path / "x.bam").write_bytes(bam.read_bytes())
    with pytest.raises(InputError, match="no index; make one with samtools index"):
        open_track(tmp_path / "x.bam")


@given(values=st.lists(st.sampled_from([0.0, 1.0, 2.5, np.nan]), min_size=12, max_size=12))
@pytest.mark.parametrize("size", [1, 3, 4, 12, None])
def test_bins_are_means_with_nothing_as_nought(values, size):
    whole = np.array(values)
    wanted = [np.nan_to_num(part).mean() for part in np.split(whole, 12 // (size or 12))]
    assert binned(whole, size).tolist() == pytest.approx(wanted)


def test_tracks_of_another_genome_are_refused(tmp_path):
    track = open_track(write_bigwig(tmp_path / "x", CONTIGS, [Section("chr1", "bedGraph", [(3, 5, 1.5)])]))
    check_track(track, {"chr1": 300, "chrM": 5}, {})
    check_track(track, {"1": 300}, {"chr1": "1"})
    with pytest.raises(InputError, match="the track has contigs 'chr1', 'chr22', and the reference '1'"):
        check_track(track, {"1": 300}, {})
    with pytest.raises(InputError, match="contig chr1 has 300 bases in the track and 301 in the reference"):
        check_track(track, {"chr1": 301}, {})
