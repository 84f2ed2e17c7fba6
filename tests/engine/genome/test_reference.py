"""Reading the reference, with pysam.FastaFile as judge, and its index under bad conditions."""

from __future__ import annotations

import errno
import gzip
import json
import os
import pickle
import random
import re
from pathlib import Path

import pysam
import pytest

from engine.errors import InputError, SystemFailure
from engine.genome import _fasta_index, reference
from engine.genome._cache import publish
from engine.genome.reference import ReferenceGenome, match_contigs
from engine.genome.refget import refget_digest
from tests.toys.genome import IUPAC, N_RUN, ToyGenome, make_genome, write_fasta


@pytest.fixture(params=["plain", "bgzipped"])
def genome(request: pytest.FixtureRequest, toy: ToyGenome) -> ReferenceGenome:
    return ReferenceGenome(toy.fasta if request.param == "plain" else toy.fasta_gz)


def test_contigs_and_lengths(genome: ReferenceGenome, toy: ToyGenome) -> None:
    assert genome.contigs == {name: len(text) for name, text in toy.contigs.items()}
    assert list(genome.contigs) == list(toy.contigs)
    assert genome.length("chr2") == 12_000


def test_random_reads_agree_with_pysam(genome: ReferenceGenome, toy: ToyGenome) -> None:
    rng = random.Random(4)
    with pysam.FastaFile(str(toy.fasta)) as judge:
        for _ in range(1_500):
            contig = rng.choice(list(genome.contigs))
            length = genome.length(contig)
            start = rng.randint(0, length)
            end = rng.randint(start, min(length, start + rng.choice([3, 200, 10_101])))
            expected = re.sub("[^ACGT]", "N", judge.fetch(contig, start, end).upper())
            assert genome.fetch(contig, start, end) == expected


@pytest.mark.parametrize(
    ("start", "end"), [(-5, 5), (-9, -3), (-3, 0), (695, 705), (700, 703), (710, 720), (-20, 720), (0, 0), (700, 700)]
)
def test_outside_the_contig_is_n(genome: ReferenceGenome, toy: ToyGenome, start: int, end: int) -> None:
    expected = toy.clean("chr3", start, end)
    assert len(expected) == end - start
    assert genome.fetch("chr3", start, end) == expected
    # Again, now that the block is kept.
    assert genome.fetch("chr3", start, end) == expected


def test_lower_case_n_and_iupac(genome: ReferenceGenome, toy: ToyGenome) -> None:
    assert toy.contigs["chr1"][5_000:5_010].islower()
    assert genome.fetch("chr1", 5_000, 5_010) == toy.contigs["chr1"][5_000:5_010].upper()
    assert [genome.fetch("chr1", at, at + 1) for at in IUPAC] == ["N"] * len(IUPAC)
    assert genome.fetch("chr1", N_RUN[0], N_RUN[1]) == "N" * (N_RUN[1] - N_RUN[0])


def test_letters_as_written_agree_with_pysam(genome: ReferenceGenome, toy: ToyGenome) -> None:
    rng = random.Random(9)
    with pysam.FastaFile(str(toy.fasta)) as judge:
        for _ in range(600):
            contig = rng.choice(list(genome.contigs))
            length = genome.length(contig)
            start = rng.randint(-30, length + 30)
            end = start + rng.choice([0, 1, 40, 10_101])
            inside = judge.fetch(contig, min(max(start, 0), length), min(max(end, 0), length))
            assert genome.fetch_written(contig, start, end) == (
                "N" * (min(end, 0) - min(start, 0)) + inside + "N" * (max(end, length) - max(start, length))
            )
            assert re.sub("[^ACGT]", "N", genome.fetch_written(contig, start, end).upper()) == (
                genome.fetch(contig, start, end)
            )
    assert genome.fetch_written("chr1", 5_000, 5_010).islower()
    assert [genome.fetch_written("chr1", at, at + 1) for at in IUPAC] == [toy.contigs["chr1"][at] for at in IUPAC]


@pytest.mark.parametrize("smallest", [64, 1_000])
def test_blocks_of_any_size_give_the_same(toy: ToyGenome, monkeypatch: pytest.MonkeyPatch, smallest: int) -> None:
    monkeypatch.setattr(reference, "_MIN_BLOCK", smallest)
    monkeypatch.setattr(reference, "_MAX_BLOCK", smallest * 6)
    genome = ReferenceGenome(toy.fasta)
    for start in [*range(-50, 12_100, 37), *range(12_100, -50, -41)]:
        assert genome.fetch("chr2", start, start + 90) == toy.clean("chr2", start, start + 90)


def test_reads_along_a_contig_come_from_the_kept_block(toy: ToyGenome, monkeypatch: pytest.MonkeyPatch) -> None:
    genome = ReferenceGenome(toy.fasta)
    reads: list[str] = []
    monkeypatch.setattr(genome, "_handle", _Counting(genome._handle, reads))
    for start in range(0, 29_000, 10):
        genome.fetch("chr1", start - 200, start + 200)
    assert len(reads) == 1


class _Counting:
    def __init__(self, handle: pysam.FastaFile, reads: list[str]) -> None:
        self.handle, self.reads = handle, reads

    def fetch(self, name: str, start: int, end: int) -> str:
        self.reads.append(name)
        return self.handle.fetch(name, start, end)


def test_pickled_copy_reads_the_same(toy: ToyGenome) -> None:
    genome = ReferenceGenome(toy.fasta_gz, contig_aliases={"one": "chr1"})
    copy = pickle.loads(pickle.dumps(genome))
    assert copy.fetch("one", 10, 50) == genome.fetch("one", 10, 50)
    copy.close()
    assert genome.fetch("chr1", 10, 50) == toy.clean("chr1", 10, 50)


def test_alias_and_own_name_read_the_same(toy: ToyGenome) -> None:
    genome = ReferenceGenome(toy.fasta, contig_aliases={"2": "chr2"})
    assert genome.resolve("2") == genome.resolve("chr2") == "chr2"
    assert genome.fetch("2", 5, 30) == genome.fetch("chr2", 5, 30)
    assert genome.refget("2") == genome.refget("chr2")


# Index


def test_index_is_made_beside_the_file(tmp_path: Path, cache_home: Path) -> None:
    toy = make_genome(tmp_path / "new")
    ReferenceGenome(toy.fasta)
    ReferenceGenome(toy.fasta_gz)
    assert sorted(path.name for path in toy.folder.glob("*.[fg][az]i")) == [
        "toy.fa.fai",
        "toy_bgzip.fa.gz.fai",
        "toy_bgzip.fa.gz.gzi",
    ]
    assert not cache_home.exists()


@pytest.mark.parametrize("name", ["fasta", "fasta_gz"])
def test_read_only_folder_keeps_its_index_in_the_cache(
    tmp_path: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    toy = make_genome(tmp_path / "new")
    path: Path = getattr(toy, name)
    _refuse_writes(monkeypatch, path.parent)
    genome = ReferenceGenome(path)
    assert genome.fetch("chr1", 0, 40) == toy.clean("chr1", 0, 40)
    assert not list(path.parent.glob("*.fai"))
    assert len(list(cache_home.rglob("*.fai"))) == 1


def test_no_folder_for_the_index_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = make_genome(tmp_path / "new")
    _refuse_writes(monkeypatch, tmp_path)
    with pytest.raises(SystemFailure, match="set XDG_CACHE_HOME"):
        ReferenceGenome(toy.fasta)


def _refuse_writes(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """As a read-only folder does; a chmod would not stop root."""

    def refusing(target: Path, write: object) -> None:
        if folder == target.parent or folder in target.parent.parents:
            raise OSError(errno.EROFS, "Read-only file system")
        publish(target, write)  # type: ignore[arg-type]

    monkeypatch.setattr(_fasta_index, "publish", refusing)


def test_stale_index_is_not_trusted_nor_overwritten(tmp_path: Path, cache_home: Path) -> None:
    path = write_fasta(tmp_path / "r.fa", {"a": "ACGTACGT" * 20})
    ReferenceGenome(path)
    old = (tmp_path / "r.fa.fai").read_bytes()
    write_fasta(path, {"a": "TT", "b": "GATTACA" * 20})
    later = (tmp_path / "r.fa.fai").stat().st_mtime + 10
    os.utime(path, (later, later))
    genome = ReferenceGenome(path)
    assert genome.fetch("b", 0, 7) == "GATTACA"
    assert (tmp_path / "r.fa.fai").read_bytes() == old
    assert len(list(cache_home.rglob("*.fai"))) == 1
    assert ReferenceGenome(path).contigs == {"a": 2, "b": 140}


def test_odd_tail_is_indexed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.fa"
    path.write_text(">a\nACGT\n" + "\n" * 9)
    assert [ReferenceGenome(path).contigs for _ in range(2)] == [{"a": 4}] * 2
    _refuse_writes(monkeypatch, tmp_path)
    assert ReferenceGenome(path).contigs == {"a": 4}


@pytest.mark.parametrize("text", ["a\t4\t3\t4\t5\n", "a\t9999\t3\t60\t61\n", "nonsense\n", "", "a\t0\t3\t0\t0\n"])
def test_index_of_another_file_is_not_trusted(tmp_path: Path, text: str) -> None:
    path = write_fasta(tmp_path / "r.fa", {"a": "ACGTACGT" * 20})
    (tmp_path / "r.fa.fai").write_text(text)
    assert ReferenceGenome(path).contigs == {"a": 160}


# Hostile files


def test_gzip_without_blocks_says_how_to_mend_it(tmp_path: Path) -> None:
    path = tmp_path / "r.fa.gz"
    path.write_bytes(gzip.compress(b">a\nACGT\n"))
    with pytest.raises(InputError, match=r"gzipped but not bgzipped.*gunzip r\.fa\.gz.*bgzip"):
        ReferenceGenome(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the reference is empty"),
        (b"##fileformat=VCFv4.2\n", "begins with b'#' where FASTA begins with '>'"),
        (b">a\nACGT\nAC\nACGT\n", "lines differ in length"),
        (b">a\nACGT\n>b\n", "its last contig is empty"),
        (b"\x1f\x8b\x08", "gzipped but not bgzipped"),
    ],
)
def test_what_is_no_fasta_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "r.fa"
    path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        ReferenceGenome(path)
    assert str(path) in str(caught.value)


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.fa: cannot read the reference: No such file"):
        ReferenceGenome(tmp_path / "none.fa")


def test_bgzipped_text_that_is_no_fasta(tmp_path: Path) -> None:
    plain = tmp_path / "x"
    plain.write_text("hello")
    pysam.tabix_compress(str(plain), str(tmp_path / "x.gz"))
    with pytest.raises(InputError, match="begins with b'h'"):
        ReferenceGenome(tmp_path / "x.gz")


def test_corrupt_block_is_no_sequence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(3)
    path = write_fasta(tmp_path / "r.fa.gz", {"a": "".join(rng.choices("ACGT", k=400_000))})
    ReferenceGenome(path).close()
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    stat = path.stat()
    path.write_bytes(bytes(data))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    genome = ReferenceGenome(path)
    with pytest.raises(InputError, match="truncated or corrupt"):
        for start in range(0, 400_000, 5_000):
            genome.fetch("a", start, start + 5_000)
    assert capfd.readouterr().err == ""


# Digests


def test_refget_digest_keeps_iupac_and_drops_case(genome: ReferenceGenome, toy: ToyGenome) -> None:
    for name, text in toy.contigs.items():
        assert genome.refget(name) == refget_digest([text.encode()])


def test_refget_digest_is_the_same_for_any_chunk(toy: ToyGenome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "_DIGEST_CHUNK", 777)
    assert ReferenceGenome(toy.fasta).refget("chr1") == refget_digest([toy.contigs["chr1"].encode()])


def test_refget_digest_is_kept_and_forgotten_with_the_file(tmp_path: Path, cache_home: Path) -> None:
    path = write_fasta(tmp_path / "r.fa", {"a": "ACGT"})
    assert ReferenceGenome(path).refget("a") == "SQ.aKF498dAxcJAqme6QYQ7EZ07-fiw8Kw2"
    (store,) = cache_home.rglob("refget.json")
    store.write_text(json.dumps({"a": "SQ.kept"}))
    assert ReferenceGenome(path).refget("a") == "SQ.kept"
    write_fasta(path, {"a": "ACGA"})
    assert ReferenceGenome(path).refget("a") == refget_digest([b"ACGA"])


def test_many_digests_read_and_write_what_is_kept_once(
    tmp_path: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_fasta(tmp_path / "r.fa", {f"c{num}": "ACGT" + "A" * num for num in range(50)})
    calls: list[str] = []
    for name in ("_read_digests", "_write_digests"):
        plain = getattr(reference, name)
        monkeypatch.setattr(reference, name, lambda *given, n=name, f=plain: calls.append(n) or f(*given))
    genome = ReferenceGenome(path, contig_aliases={"one": "c1"})
    found = genome.refget_many([*genome.contigs, "one"])
    assert found == {name: refget_digest([b"ACGT" + b"A" * num]) for num, name in enumerate(genome.contigs)} | {
        "one": found["c1"]
    }
    assert [genome.refget(name) for name in genome.contigs] == list(found.values())[:-1]
    assert calls == ["_read_digests", "_write_digests"]
    assert ReferenceGenome(path).refget_many(genome.contigs) == {name: found[name] for name in genome.contigs}
    assert calls == ["_read_digests", "_write_digests", "_read_digests"]


@pytest.mark.parametrize("content", ["", "[1]", "{broken"])
def test_broken_cache_is_computed_again(tmp_path: Path, cache_home: Path, content: str) -> None:
    path = write_fasta(tmp_path / "r.fa", {"a": "ACGT"})
    digest = ReferenceGenome(path).refget("a")
    (store,) = cache_home.rglob("refget.json")
    store.write_text(content)
    assert ReferenceGenome(path).refget("a") == digest


def test_cache_that_cannot_be_written_costs_only_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocker))
    path = write_fasta(tmp_path / "r.fa", {"a": "ACGT"})
    assert ReferenceGenome(path).refget("a") == refget_digest([b"ACGT"])


# Contig names


@pytest.mark.parametrize(
    ("prefix", "asked", "message"),
    [
        ("", "chr1", r"contig 'chr1' is not in the reference, which has '1', '2', '3'; .*'chr1'.*'1'.*'chr1': '1'"),
        ("chr", "2", r"contig '2' is not in the reference, which has 'chr1', 'chr2', 'chr3'.*\{'2': 'chr2'\}"),
        ("chr", "NC_000003.12", r"accessions.*\{'NC_000003.12': 'chr3'\}"),
        ("chr", "chr9", r"contig 'chr9' is not in the reference.*; use the matching FASTA"),
    ],
)
def test_absent_contig_names_both_styles(tmp_path: Path, prefix: str, asked: str, message: str) -> None:
    genome = ReferenceGenome(make_genome(tmp_path / "g", prefix=prefix).fasta)
    for read in (genome.fetch, genome.fetch_written):
        with pytest.raises(InputError, match=message):
            read(asked, 0, 5)
    with pytest.raises(InputError, match=message):
        match_contigs({asked: None}, genome)


def test_mitochondrion_has_two_names(tmp_path: Path) -> None:
    genome = ReferenceGenome(write_fasta(tmp_path / "r.fa", {"chrM": "ACGT", "chrX": "ACGT"}))
    for name in ("MT", "M", "NC_012920.1"):
        with pytest.raises(InputError, match=f"'{name}': 'chrM'"):
            genome.length(name)
    with pytest.raises(InputError, match=r"'NC_000023\.11': 'chrX'"):
        genome.length("NC_000023.11")


def test_alias_to_nowhere_is_named(toy: ToyGenome) -> None:
    genome = ReferenceGenome(toy.fasta, contig_aliases={"1": "chromosome1"})
    with pytest.raises(InputError, match="contig 'chromosome1', the alias of '1', is not in the reference"):
        genome.length("1")


def test_match_contigs_accepts_what_fits(toy: ToyGenome) -> None:
    genome = ReferenceGenome(toy.fasta, contig_aliases={"2": "chr2"})
    match_contigs({"chr1": 30_000, "2": 12_000, "chr3": None}, genome)
    match_contigs({}, genome)


def test_match_contigs_names_other_lengths(toy: ToyGenome) -> None:
    genome = ReferenceGenome(toy.fasta)
    with pytest.raises(InputError, match=r"'chr2' \(242,193,529 bases, 12,000 in the reference\).*genome build"):
        match_contigs({"chr1": 30_000, "chr2": 242_193_529}, genome)


def test_match_contigs_names_the_others_too(toy: ToyGenome) -> None:
    with pytest.raises(InputError, match=r"contig '1' .*nor '2', 'decoy'.*\{'1': 'chr1', '2': 'chr2'\}"):
        match_contigs({"1": None, "2": None, "chr3": None, "decoy": None}, ReferenceGenome(toy.fasta))
