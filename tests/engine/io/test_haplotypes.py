from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.io import haplotypes as haplotypes_module
from engine.io.haplotypes import Call, Copy, Haplotypes, read_call, sample_column
from engine.io.variants import contig_opener, open_variants

HEADER = (
    "##fileformat=VCFv4.3\n##contig=<ID=c,length=10000>\n"
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="g">\n'
    '##FORMAT=<ID=PS,Number=1,Type=Integer,Description="p">\n'
    "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tone\ttwo\n"
)


def line(pos, ref, alt, call, keys="GT:PS"):
    first = "0|0:." if ":" in keys else "0|0"
    return f"c\t{pos}\t.\t{ref}\t{alt}\t.\t.\t.\t{keys}\t{first}\t{call}"


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("0|1:7", Call((0, 1), b"7", True)),
        ("0|1", Call((0, 1), b"", True)),
        ("1|0:.", Call((1, 0), b"", True)),
        ("0/1:7", Call((0, 1), b"7", False)),
        ("1/1", Call((1, 1), None, True)),
        ("1", Call((1,), b"", True)),
        ("./1", Call((None, 1), b"", False)),
        (".|1:5", Call((None, 1), b"5", True)),
        ("./.", Call((None, None), b"", False)),
        ("0|1|1", None),
        ("x|1", None),
    ],
)
def test_calls(call, expected):
    assert read_call(line(5, "A", "C", call).encode(), 10) == expected


def test_no_genotype():
    assert read_call(b"c\t1\t.\tA\tC\t.\t.\t.", 9) is None
    assert read_call(line(5, "A", "C", "9:1", keys="DP:PS").encode(), 10) is None


@pytest.mark.parametrize(
    ("header", "sample", "words"),
    [
        (HEADER, None, "2 samples"),
        (HEADER.replace("ID=GT", "ID=DP"), "one", "declares no genotypes"),
        (HEADER, "three", "none of the 2 of the input"),
        ("##x\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n", None, "no samples"),
    ],
)
def test_a_sample_that_is_not_there(header, sample, words):
    with pytest.raises(InputError, match=words) as caught:
        sample_column(header.encode(), sample)
    assert caught.value.where and caught.value.fix
    assert not any(name in str(caught.value) for name in ("three", "two"))  # who took part is nobody's business


def test_the_sample_by_name():
    assert sample_column(HEADER.encode(), "two") == 10


def haplotypes(tmp_path, lines, *, refuses=lambda record: False, max_allele_length=1000):
    path = tmp_path / "in.vcf"
    path.write_text(HEADER + "".join(one + "\n" for one in lines))
    source = open_variants(path)
    return source, Haplotypes(source, 10, refuses=refuses, max_allele_length=max_allele_length)


def others_of(found):
    """Other alleles of each copy."""
    return tuple(one and one.others for one in found)


def raws(source):
    (shard,) = source.scan(records_per_shard=10_000, bytes_per_shard=1 << 30).shards
    return source.read(shard)


def test_copies_and_phase_sets(tmp_path):
    lines = [
        line(10, "A", "C", "0|1:1"),
        line(20, "A", "G,T", "1|2:1"),
        line(25, "A", "C", "0/1:1"),
        line(30, "ACG", "A", "1/1:."),
        line(40, "A", "<DEL>", "0|1:1"),
        line(50, "A", "C", "0|1:2"),
        line(900, "A", "C", "0|1:1"),
    ]
    source, made = haplotypes(tmp_path, lines)
    records = raws(source)
    assert others_of(made.others(records[0], 1, reach=100)) == (None, ((19, "A", "T"), (29, "ACG", "A")))
    assert others_of(made.others(records[1], 1, reach=100)) == (((29, "ACG", "A"),), None)
    assert others_of(made.others(records[1], 2, reach=9)) == (None, ())
    assert others_of(made.others(records[5], 1, reach=18)) == (None, ((29, "ACG", "A"),))
    assert others_of(made.others(records[2], 1, reach=100)) == (None, None)
    # The homozygous deletion is read beside the phase set of its nearest neighbour.
    assert others_of(made.others(records[3], 1, reach=15)) == (((19, "A", "G"),), ((19, "A", "T"),))
    assert others_of(made.others(records[5], 1, reach=100)) == (None, ((29, "ACG", "A"),))
    assert others_of(made.others(records[6], 1, reach=20)) == (None, ())


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 30), st.sampled_from(["0|1", "1|0", "1|1", "0/1", "1/1", "0|0", "1", ".|1", "0"])),
        min_size=1,
        max_size=12,
    )
)
def test_equals_what_pysam_says(tmp_path_factory, calls):
    folder = tmp_path_factory.mktemp("haplotypes")
    pos, lines = 1, []
    for step, call in calls:
        pos += step
        lines.append(line(pos, "A", "C", call, keys="GT"))
    source, made = haplotypes(folder, lines)
    with pysam.VariantFile(str(folder / "in.vcf")) as file:
        judged = [(record.start, record.samples["two"].phased, record.samples["two"]["GT"]) for record in file]
    for raw, (start, phased, alleles) in zip(raws(source), judged, strict=True):
        found = others_of(made.others(raw, 1, reach=50))
        is_known = phased or len(set(alleles)) == 1
        for copy in range(2):
            carries = is_known and copy < len(alleles) and alleles[copy] == 1
            if not carries:
                assert found[copy] is None
                continue
            expected = {
                other
                for other, other_phased, others in judged
                if other != start
                and abs(other - start) <= 50
                and (other_phased or len(set(others)) == 1)
                and copy < len(others)
                and others[copy] == 1
            }
            assert {one[0] for one in found[copy]} == expected


def test_a_deletion_longer_than_the_reach_brings_in_what_lies_behind_it(tmp_path):
    """The reach is in bases of the copy: each one deleted on the way makes the stretch of the reference longer."""
    lines = [
        line(100, "A", "C", "0|1:1"),
        line(120, "A" + "C" * 50, "A", "0|1:1"),  # 20 bases on
        line(130, "A", "G", "1|0:1"),  # on the other copy, which has all its bases
        line(140, "A" + "C" * 50, "A", "1|0:1"),
        line(171, "A", "C", "0|1:1"),  # 21
        line(173, "ACGTACGT", "A", "1/1:."),  # 23
        line(196, "A", "T", "0|1:1"),  # 39
        line(198, "A", "T", "0|1:1"),  # 41
    ]
    source, made = haplotypes(tmp_path, lines)
    records = raws(source)
    place = {record.record.start: index for index, record in enumerate(records)}

    def found(index, reach):
        first, second = made.others(records[index], 1, reach=reach)
        assert first is None
        return [place[one[0]] for one in second.others]

    for reach, expected in ((19, []), (20, [1]), (21, [1, 4]), (22, [1, 4]), (23, [1, 4, 5]), (38, [1, 4, 5])):
        assert found(0, reach) == expected
    assert [found(0, reach) for reach in (39, 40, 41)] == [[1, 4, 5, 6]] * 2 + [[1, 4, 5, 6, 7]]
    for reach, expected in ((1, []), (2, [6]), (17, [6]), (18, [5, 6]), (20, [4, 5, 6]), (21, [1, 4, 5, 6])):
        assert found(7, reach) == expected
    assert (found(7, 40), found(7, 41)) == ([1, 4, 5, 6], [0, 1, 4, 5, 6])


def bases_near(num, alleles, place, reach):
    """Where the bases of a copy within `reach` of a place stand, the copy written out base by base."""
    deleted = {at for start, ref, alt in alleles for at in range(start + len(alt), start + len(ref))}
    kept = [at for at in range(num) if at not in deleted]
    return {*[at for at in kept if at < place[0]][-reach:], *[at for at in kept if at >= place[1]][:reach]}


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_every_allele_that_a_window_on_the_copy_holds_is_found(tmp_path_factory, data):
    text = "ACGT" * 75
    at, rows = 1, []
    while at < 280:
        num_ref = data.draw(st.sampled_from((1, 1, 2, 10, 60)))
        ref = text[at : at + num_ref]
        rows.append((at, ref, ref[0] if len(ref) > 1 else "ACGT"["ACGT".index(ref) - 1]))
        at += num_ref + data.draw(st.integers(1, 15))
    lines = [line(start + 1, ref, alt, "0|1:1") for start, ref, alt in rows]
    source, made = haplotypes(tmp_path_factory.mktemp("haplotypes"), lines)
    chosen = data.draw(st.integers(0, len(rows) - 1))
    reach = data.draw(st.integers(1, 40))
    own = rows[chosen]
    others = [one for one in rows if one != own]
    _, found = made.others(raws(source)[chosen], 1, reach=reach)
    near = bases_near(len(text), others, (own[0], own[0] + len(own[1])), reach)
    assert list(found.others) == [one for one in others if one[0] in near]


def test_what_does_not_fit_or_is_too_long_is_not_applied_and_said(tmp_path):
    lines = [
        line(10, "A", "C", "0|1:1"),
        line(20, "T", "G", "0|1:1"),
        line(22, "A", "C" * 31, "1|0:1"),
        line(24, "A" * 31, "C", "0|1:2"),
        line(26, "A", "C", "0|1:1"),
        line(60, "A", "C", "1|1:."),
        line(400, "A", "C", "0|1:1"),
    ]
    source, made = haplotypes(tmp_path, lines, refuses=lambda record: record.ref == "T", max_allele_length=30)
    records = raws(source)
    assert made.others(records[0], 1, reach=9) == (None, Copy((), False))
    assert made.others(records[0], 1, reach=10) == (None, Copy((), True))
    assert made.others(records[0], 1, reach=20) == (None, Copy(((25, "A", "C"),), True))
    assert made.others(records[4], 1, reach=3) == (None, Copy((), False))  # another phase set's
    first, second = made.others(records[5], 1, reach=45)
    assert first == Copy((), True) and second == Copy(((9, "A", "C"), (25, "A", "C"))[-1:], True)
    assert made.others(records[6], 1, reach=20) == (None, Copy(()))


def test_contigs_are_read_alone_where_an_index_allows_it(tmp_path):
    header = HEADER.replace("length=10000>\n", "length=10000>\n##contig=<ID=d,length=10000>\n")
    lines = [line(10, "A", "C", "0|1:1"), line(15, "A", "T", "0|1:1")]
    text = header + "".join(f"{one}\n" for one in [*lines, *(one.replace("c\t", "d\t", 1) for one in lines)])
    (tmp_path / "in.vcf").write_text(text)
    path = str(tmp_path / "in.vcf.gz")
    pysam.tabix_compress(str(tmp_path / "in.vcf"), path)
    assert contig_opener(tmp_path / "in.vcf") is None and contig_opener(path) is None
    pysam.tabix_index(path, preset="vcf")
    opened = []

    def open_contig(name):
        opened.append(name)
        return contig_opener(path)(name)

    source = open_variants(path)
    made = Haplotypes(source, 10, refuses=lambda _: False, max_allele_length=9, open_contig=open_contig)
    assert opened == []
    for raw, contig in zip(raws(source), "ccdd", strict=True):
        _, found = made.others(raw, 1, reach=10)
        assert opened[-1] == contig
        assert [one[0] for one in found.others] == [14 if raw.record.start == 9 else 9]
    assert opened == ["c", "d"]
    os.utime(path, ns=(Path(path).stat().st_mtime_ns + 10**9,) * 2)
    assert contig_opener(path) is None  # the index is older than the file


@pytest.mark.parametrize("read_before", [[], ["1"], ["1", "2"]])
def test_of_two_phase_sets_as_near_the_first_counts_whatever_was_read_before(tmp_path, read_before):
    """Else the copies of a homozygous allele would depend on which contigs a process has seen."""
    lines = [line(10, "A", "C", "0|1:2"), line(20, "A", "C", "1/1:."), line(30, "A", "C", "0|1:1")]
    other = [line(10 + at, "A", "C", f"0|1:{name}").replace("c", "d", 1) for at, name in enumerate(read_before)]
    source, _ = haplotypes(tmp_path, lines)
    (tmp_path / "d").mkdir()
    sources = {"c": source, "d": haplotypes(tmp_path / "d", other)[0]} if other else {"c": source}
    made = Haplotypes(source, 10, refuses=lambda _: False, max_allele_length=9, open_contig=sources.__getitem__)
    if other:
        made.others(raws(sources["d"])[0], 1, reach=15)
    _, found = made.others(raws(source)[1], 1, reach=15)
    assert [one[0] for one in found.others] == [9]


def test_only_a_few_contigs_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(haplotypes_module, "_CONTIGS_KEPT", 1)
    source, _ = haplotypes(tmp_path, [line(10, "A", "C", "0|1:1"), line(15, "A", "T", "0|1:1")])
    opened = []

    def open_contig(name):
        opened.append(name)
        return source

    made = Haplotypes(source, 10, refuses=lambda _: False, max_allele_length=9, open_contig=open_contig)
    first = raws(source)[0]
    other = replace(first, record=replace(first.record, contig="d"))
    found = [made.others(one, 1, reach=10) for one in (first, other, first)]
    assert found[::2] == [(None, Copy(((14, "A", "T"),)))] * 2
    assert opened == ["c", "d", "c"]
