from __future__ import annotations

import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.io.haplotypes import Call, Haplotypes, read_call, sample_column
from engine.io.variants import open_variants

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
        (HEADER, "three", "no such sample"),
        ("##x\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n", None, "no samples"),
    ],
)
def test_a_sample_that_is_not_there(header, sample, words):
    with pytest.raises(InputError, match=words):
        sample_column(header.encode(), sample)


def test_the_sample_by_name():
    assert sample_column(HEADER.encode(), "two") == 10


def haplotypes(tmp_path, lines):
    path = tmp_path / "in.vcf"
    path.write_text(HEADER + "".join(one + "\n" for one in lines))
    source = open_variants(path)
    return source, Haplotypes(source, 10)


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
    assert made.others(records[0], 1, reach=100) == (None, ((19, "A", "T"), (29, "ACG", "A")))
    assert made.others(records[1], 1, reach=100) == (((29, "ACG", "A"),), None)
    assert made.others(records[1], 2, reach=9) == (None, ())
    assert made.others(records[5], 1, reach=18) == (None, ((29, "ACG", "A"),))
    assert made.others(records[2], 1, reach=100) == (None, None)
    # The homozygous deletion is read beside the phase set of its nearest neighbour.
    assert made.others(records[3], 1, reach=15) == (((19, "A", "G"),), ((19, "A", "T"),))
    assert made.others(records[5], 1, reach=100) == (None, ((29, "ACG", "A"),))
    assert made.others(records[6], 1, reach=20) == (None, ())


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
        found = made.others(raw, 1, reach=50)
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
