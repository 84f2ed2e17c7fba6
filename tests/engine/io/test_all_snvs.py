"""SNVs made from the reference: every known base has its three, whatever the regions, the shards and the chunks."""

from __future__ import annotations

import itertools
import pickle
import random
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DataError, InputError
from engine.genome.reference import ReferenceGenome
from engine.genome.variants import VariantRecord
from engine.io import all_snvs
from engine.io.all_snvs import AllSnvs
from engine.io.regions import MAX_POS, Region, parse_regions
from engine.io.source import RawRecord
from engine.io.vcf import header_contigs, parse_line
from tests.engine.io.files import read_all
from tests.toys.genome import write_fasta

_RNG = random.Random(5)
# Not in the order of their names; letters of every kind; a contig without a known base, and one of a single base.
SEQUENCES = {
    "b": "".join(_RNG.choices("ACGTacgtNRyM", k=300)),
    "a": "N" * 40 + "".join(_RNG.choices("ACGT", k=80)) + "n" * 60 + "".join(_RNG.choices("acgt", k=20)),
    "n": "N" * 50,
    "c": "g",
}
PLACES = st.integers(0, 320)
REGIONS = st.lists(
    st.tuples(st.sampled_from(list(SEQUENCES)), PLACES, PLACES | st.just(MAX_POS)).map(
        lambda one: Region(one[0], min(one[1:]), max(one[1:]) + 1)
    ),
    min_size=1,
    max_size=6,
).filter(lambda regions: any(one.start < len(SEQUENCES[one.contig]) for one in regions))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> ReferenceGenome:
    return ReferenceGenome(write_fasta(tmp_path_factory.mktemp("all") / "r.fa", SEQUENCES))


def _source(reference: ReferenceGenome, *texts: str) -> AllSnvs:
    return AllSnvs(reference, regions=parse_regions(texts))


def _expected(regions: Sequence[Region]) -> list[VariantRecord]:
    """The same said base by base."""
    found = []
    for contig, sequence in SEQUENCES.items():
        for start, base in enumerate(sequence.upper()):
            asked = any(one.contig == contig and one.start <= start < one.end for one in regions)
            if asked and base in "ACGT":
                found += [VariantRecord(contig, start, ".", base, (alt,)) for alt in "ACGT" if alt != base]
    return found


@given(REGIONS, st.integers(1, 200), st.integers(1, 3000), st.integers(1, 90))
def test_every_known_base_has_its_three_snvs(
    reference: ReferenceGenome, regions: list[Region], records_per_shard: int, bytes_per_shard: int, chunk_bp: int
) -> None:
    source = AllSnvs(reference, regions=regions)
    with mock.patch.object(all_snvs, "_CHUNK_BP", chunk_bp):
        records, sizes = read_all(source, records_per_shard=records_per_shard, bytes_per_shard=bytes_per_shard)
    assert [one.record for one in records] == _expected(regions)
    assert [parse_line(one.line) for one in records] == [one.record for one in records]
    assert all(one.line.endswith(b"\t.\t.\t.") for one in records)
    assert all(size <= max(3, records_per_shard) and size % 3 == 0 for size in sizes)


@given(REGIONS, st.integers(1, 200), st.integers(1, 3000))
def test_shards_are_read_alone_in_any_order_by_any_process(
    reference: ReferenceGenome, regions: list[Region], records_per_shard: int, bytes_per_shard: int
) -> None:
    source = AllSnvs(reference, regions=regions)
    scan = source.scan(records_per_shard=records_per_shard, bytes_per_shard=bytes_per_shard)
    other = pickle.loads(pickle.dumps(source))
    alone = {shard.shard: other.read(shard) for shard in reversed(scan.shards)}
    records = [record for number in sorted(alone) for record in alone[number]]
    assert records == read_all(source, records_per_shard=10_000)[0]
    assert scan.num_records == len(records)
    assert [len(alone[shard.shard]) for shard in scan.shards] == [shard.num_records for shard in scan.shards]
    groups = itertools.groupby(record.record.contig for record in records if record.record)
    assert list(scan.contigs.items()) == [(contig, len(list(group))) for contig, group in groups]
    for shard in scan.shards:
        text = b"".join(record.line + b"\n" for record in alone[shard.shard])
        assert len(text) <= max(bytes_per_shard, len(text) // shard.num_records * 3 + 3)


def test_shards_are_as_full_as_they_may_be(reference: ReferenceGenome) -> None:
    shards = _source(reference, "a:41-120").scan(records_per_shard=92, bytes_per_shard=1 << 20).shards
    assert [shard.num_records for shard in shards] == [90, 90, 60]
    assert [(shard.begin, shard.end) for shard in shards] == [(40, 70), (70, 100), (100, 120)]
    one = _source(reference, "a:41-50,a:91-100").scan(records_per_shard=1000, bytes_per_shard=1 << 20).shards
    assert [(shard.begin, shard.end, shard.num_records) for shard in one] == [(40, 100, 60)]


@given(REGIONS, st.integers(1, 200), st.integers(1, 3000))
def test_more_shards_than_a_run_may_have_are_refused_and_the_way_out_is_one(
    reference: ReferenceGenome, regions: list[Region], records_per_shard: int, bytes_per_shard: int
) -> None:
    source = AllSnvs(reference, regions=regions)
    num = len(source.scan(records_per_shard=records_per_shard, bytes_per_shard=bytes_per_shard).shards)
    sizes = {"records_per_shard": records_per_shard, "bytes_per_shard": bytes_per_shard}
    with mock.patch.object(all_snvs, "MAX_SHARDS", 8):
        try:
            source.scan(**sizes)
        except InputError as error:
            assert "a run holds 8" in error.what and error.where == "execution.records_per_shard"
            told = dict(re.findall(r"(records_per_shard|bytes_per_shard)[^0-9]* to ([0-9]+) or more", error.fix))
            assert all(int(size) > sizes[name] for name, size in told.items())
            source.scan(**(sizes | {name: int(size) for name, size in told.items()}))
        else:
            assert num <= 8


def test_the_size_that_suits_grows_with_the_regions(reference: ReferenceGenome) -> None:
    with (
        mock.patch.object(all_snvs, "_LEAST_PER_SHARD", 30),
        mock.patch.object(all_snvs, "_MOST_PER_SHARD", 60),
        mock.patch.object(all_snvs, "_SUITED_SHARDS", 10),
    ):
        found = [_source(reference, text).records_per_shard for text in ("b:1-100", "b:1-150", "b", "a,b")]
    assert found == [30, 45, 60, 60]


def test_the_plan_makes_no_records_but_those_to_look_at(reference: ReferenceGenome) -> None:
    source = _source(reference, "b,a")
    with mock.patch.object(all_snvs, "RawRecord", side_effect=AssertionError):
        source.scan(records_per_shard=9, bytes_per_shard=1 << 20)
    seen: list[RawRecord] = []
    source.scan(records_per_shard=9, bytes_per_shard=1 << 20, on_record=seen.append, on_record_limit=700)
    assert seen == read_all(source)[0][:700]
    assert seen[-1].record is not None
    assert seen[-1].record.contig == "a"


def test_the_digest_follows_what_fixes_the_records(reference: ReferenceGenome, tmp_path: Path) -> None:
    def digest(reference: ReferenceGenome, *texts: str) -> str:
        return _source(reference, *texts).scan(records_per_shard=9, bytes_per_shard=1 << 20).digest

    first = digest(reference, "a:50-99,b")
    assert len(first) == 64
    assert digest(reference, "b:1-200,b:150-", "a:60-99,a:50-59") == first
    assert digest(reference, "a:50-98,b") != first
    again = ReferenceGenome(write_fasta(tmp_path / "x.fa.gz", {**SEQUENCES, "c": "ggg"}, width=7))
    assert digest(again, "b", "a:50-99") == first
    lower = ReferenceGenome(write_fasta(tmp_path / "l.fa", {name: text.lower() for name, text in SEQUENCES.items()}))
    assert digest(lower, "b", "a:50-99") == first
    other = "T" if SEQUENCES["a"][119] != "T" else "G"
    changed = {**SEQUENCES, "a": SEQUENCES["a"][:119] + other + SEQUENCES["a"][120:]}
    assert digest(ReferenceGenome(write_fasta(tmp_path / "y.fa", changed)), "b", "a:50-99") != first
    renamed = {f"{name}x": text for name, text in SEQUENCES.items()}
    assert digest(ReferenceGenome(write_fasta(tmp_path / "z.fa", renamed)), "bx", "ax:50-99") != first


def test_the_header_is_read_by_bcftools_and_names_no_path(reference: ReferenceGenome, tmp_path: Path) -> None:
    source = _source(reference, "c,b:10-30")
    assert header_contigs(source.header) == reference.contigs
    path = tmp_path / "x.vcf"
    records, _ = read_all(source)
    path.write_bytes(source.header + b"".join(record.line + b"\n" for record in records))
    done = subprocess.run(
        ["bcftools", "norm", "--check-ref", "e", "-f", reference.path, str(path)], capture_output=True, check=True
    )
    kept = [line for line in done.stdout.splitlines() if not line.startswith(b"#")]
    assert kept == [record.line for record in records]
    assert b"##contig=<ID=c,length=1,refget=%s>" % reference.refget("c").encode() in done.stdout
    assert str(Path(reference.path).parent).encode() not in source.header


def test_regions_under_an_alias_are_made_under_the_references_name(reference: ReferenceGenome) -> None:
    aliased = ReferenceGenome(reference.path, contig_aliases={"chrA": "a"})
    source = _source(aliased, "chrA:30-60", "a:50-70")
    assert source.regions == (Region("a", 29, 70),)
    assert {record.record.contig for record in read_all(source)[0] if record.record} == {"a"}


def test_regions_past_the_ends_of_their_contigs_are_refused(reference: ReferenceGenome) -> None:
    with pytest.raises(InputError, match=r"no region holds a base of the reference: the region b:1001-2000 begins"):
        _source(reference, "b:1001-2000", "b:3000")


def test_a_contig_that_is_not_there_has_no_records_to_leave_out(reference: ReferenceGenome) -> None:
    with pytest.raises(InputError, match=r"contig 'z' is not in the reference, which has .*; use the matching FASTA$"):
        _source(reference, "z:1-5")


def test_what_makes_no_record_is_said(reference: ReferenceGenome) -> None:
    source = _source(reference, "b:290-400", "b:301", "a:30-50", "n")
    notes = source.scan(records_per_shard=9, bytes_per_shard=999).notes
    odd = sum(base not in "ACGTacgt" for base in SEQUENCES["b"][289:]) + 11 + 50
    assert notes[0] == "the region b:301 begins past the end of its contig (300 bases)"
    assert notes[1:] == [f"{odd} bases of the regions are not A, C, G or T in the reference and make no SNV"]
    scan = _source(reference, "b:1001-2000", "n").scan(records_per_shard=9, bytes_per_shard=999)
    assert scan.notes[0] == "the region b:1001-2000 begins past the end of its contig (300 bases)"
    assert (scan.shards, scan.num_records, scan.contigs) == ([], 0, {})
    assert _source(reference, "c").scan(records_per_shard=9, bytes_per_shard=999).notes == []


def test_regions_that_cannot_be(reference: ReferenceGenome, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no region says where .* a contig's name alone, as in -r chr20"):
        AllSnvs(reference, regions=())
    with pytest.raises(InputError, match=r"contig 'chrA' is not in the reference.* has 'b', 'a', 'n', 'c'"):
        _source(reference, "b,chrA:1-2")
    odd = ReferenceGenome(write_fasta(tmp_path / "odd.fa", {"a,b": "ACGT", "c": "ACGT"}))
    with pytest.raises(InputError, match=r"no VCF can hold records of a contig named 'a,b'"):
        AllSnvs(odd, regions=[Region("a,b")])
    assert header_contigs(_source(odd, "c").header) == {"c": 4}
    with pytest.raises(InputError, match="at least one record and one byte"):
        _source(reference, "b").scan(records_per_shard=0, bytes_per_shard=1)


def test_a_reference_that_changed_after_the_plan_is_told(tmp_path: Path) -> None:
    path = write_fasta(tmp_path / "r.fa", {"a": "ACGTACGT"})
    (shard,) = _source(ReferenceGenome(path), "a").scan(records_per_shard=99, bytes_per_shard=999).shards
    path.write_text(path.read_text().replace("CGTAC", "CGNAC"))
    with pytest.raises(DataError, match="the plan has 24 records here and the file now has 21"):
        _source(ReferenceGenome(path), "a").read(shard)
