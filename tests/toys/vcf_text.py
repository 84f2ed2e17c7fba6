"""VCF text made by Hypothesis: every way in which values may be missing, in an order that any reader takes."""

from __future__ import annotations

from hypothesis import strategies as st

HEADER = "\n".join(
    [
        "##fileformat=VCFv4.3",
        '##FILTER=<ID=PASS,Description="All filters passed">',
        '##FILTER=<ID=q10,Description="Quality below 10, or so">',
        '##FILTER=<ID=s50,Description="Half of the samples">',
        "##contig=<ID=chr1,length=1000000>",
        "##contig=<ID=chr2,length=1000000>",
        '##INFO=<ID=DP,Number=1,Type=Integer,Description="Depth">',
        '##INFO=<ID=MQ,Number=1,Type=Float,Description="Mapping quality, root mean square">',
        '##INFO=<ID=AF,Number=A,Type=Float,Description="Frequency">',
        '##INFO=<ID=AC,Number=A,Type=Integer,Description="Count">',
        '##INFO=<ID=DB,Number=0,Type=Flag,Description="dbSNP">',
        '##INFO=<ID=CS,Number=.,Type=String,Description="Consequences = all of them">',
        '##INFO=<ID=NOTE,Number=1,Type=String,Description="A word">',
        '##INFO=<ID=END,Number=1,Type=Integer,Description="End">',
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">',
        '##FORMAT=<ID=AD,Number=R,Type=Integer,Description="Depth by allele">',
        '##FORMAT=<ID=DP,Number=1,Type=Integer,Description="Depth">',
        '##FORMAT=<ID=GQ,Number=1,Type=Float,Description="Quality">',
        '##FORMAT=<ID=FT,Number=1,Type=String,Description="Filter">',
        '##FORMAT=<ID=PL,Number=G,Type=Integer,Description="Likelihoods">',
        '##FORMAT=<ID=WD,Number=.,Type=String,Description="Words">',
        '##FORMAT=<ID=TWO,Number=2,Type=Float,Description="Two of them">',
    ]
)
"""Header lines without the #CHROM line."""


def columns_line(num_samples: int) -> str:
    """The #CHROM line for samples S0 and on."""
    names = ["FORMAT", *(f"S{sample}" for sample in range(num_samples))] if num_samples else []
    return "\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", *names])


_bases = st.text("ACGT", min_size=1, max_size=4)
_ids = st.sampled_from([".", "rs1", "rs22;rs3", "näme"])
_quals = st.sampled_from([".", "0", "10", "3.14", "0.001", "1e3", "12345.678", "1.5E-3"])
_filters = st.sampled_from([".", "PASS", "q10", "q10;s50"])
_ints = st.integers(-5000, 100_000).map(str)
_floats = st.sampled_from([".", "0", "1", "0.5", "-2.25", "1e-05", "3.4E3", "nan", "inf"])


def _maybe(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(st.just("."), values)


def _several(values: st.SearchStrategy[str], count: int) -> st.SearchStrategy[str]:
    return st.one_of(st.just("."), st.lists(_maybe(values), min_size=count, max_size=count).map(",".join))


@st.composite
def _info(draw: st.DrawFn, num_alts: int, pos: int) -> str:
    counted = max(num_alts, 1)
    fields = {
        "DP": _maybe(_ints),
        "MQ": _floats,
        "AF": _several(_floats, counted),
        "AC": _several(_ints, counted),
        "CS": st.lists(st.sampled_from(["a", "b=c", "x|y"]), min_size=1, max_size=3).map(",".join),
        "NOTE": st.sampled_from(["w", "some,words", "100%25"]),
        "XX": st.just("undeclared"),
        "END": st.just(str(pos + 7)),
    }
    chosen = draw(st.lists(st.sampled_from([*fields, "DB"]), unique=True, max_size=6))
    return ";".join(key if key == "DB" else f"{key}={draw(fields[key])}" for key in chosen) or "."


@st.composite
def _genotype(draw: st.DrawFn, num_alts: int) -> str:
    allele = _maybe(st.integers(0, num_alts).map(str))
    copies = draw(st.sampled_from([2, 2, 2, 2, 1, 3]))
    text = draw(allele)
    for _ in range(copies - 1):
        text += draw(st.sampled_from("/|")) + draw(allele)
    return text


@st.composite
def _samples(draw: st.DrawFn, num_alts: int, num_samples: int) -> list[str]:
    """FORMAT and one text per sample, values left off at the end of some."""
    keys = draw(
        st.sampled_from(
            [
                ("GT",),
                ("GT", "DP"),
                ("GT", "AD", "DP", "GQ", "FT", "PL"),
                ("DP", "GQ"),
                ("GT", "PL"),
                ("GT", "WD", "TWO"),
            ]
        )
    )
    values = {
        "GT": _genotype(num_alts),
        "AD": _several(_ints, num_alts + 1),
        "DP": _maybe(_ints),
        "GQ": _floats,
        "FT": st.sampled_from([".", "PASS", "low"]),
        "WD": st.lists(st.sampled_from(["a", "bc", "d|e"]), min_size=1, max_size=3).map(",".join) | st.just("."),
        "TWO": _several(_floats, 2),
        "PL": _several(_ints, (num_alts + 1) * (num_alts + 2) // 2),
    }
    texts = []
    for _ in range(num_samples):
        left = draw(st.integers(1, len(keys))) if draw(st.booleans()) else len(keys)
        texts.append(":".join(draw(values[key]) for key in keys[:left]))
    return [":".join(keys), *texts]


@st.composite
def record(draw: st.DrawFn, contig: str, pos: int, num_samples: int) -> str:
    """One good record line, without its end."""
    ref = draw(_bases)
    other = _bases.filter(lambda alt: alt != ref)
    alts = draw(
        st.one_of(st.just([]), st.lists(st.one_of(other, st.sampled_from(["*", "<DEL>"])), max_size=12, unique=True))
    )
    site = [contig, str(pos), draw(_ids), ref, ",".join(alts) or ".", draw(_quals), draw(_filters)]
    site.append(draw(_info(len(alts), pos)))
    return "\t".join([*site, *(draw(_samples(len(alts), num_samples)) if num_samples else [])])


@st.composite
def records(draw: st.DrawFn, num_samples: int, *, max_size: int = 6) -> list[str]:
    """Record lines in order, on two contigs."""
    sites = draw(st.lists(st.tuples(st.sampled_from(["chr1", "chr2"]), st.integers(1, 10**6 - 20)), max_size=max_size))
    return [draw(record(contig, pos, num_samples)) for contig, pos in sorted(sites)]


def file_text(lines: list[str], num_samples: int, *, end: str = "\n") -> bytes:
    """A whole VCF."""
    return (end.join([*HEADER.split("\n"), columns_line(num_samples), *lines]) + end).encode()
