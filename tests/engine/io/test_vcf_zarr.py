"""VCF Zarr stores as zarr reads them: pysam's values in VCF Zarr's codes, bio2zarr's names and axes, checked chunks."""

from __future__ import annotations

import itertools
import math
import random
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pysam
import pytest
import zarr
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.io import _vcf_zarr_arrays, bgzf, vcf_zarr
from engine.io._vcf_header import Declared, filter_ids
from engine.io.streams import Mapper
from engine.io.vcf import header_contigs
from engine.io.vcf_columns import open_columns
from engine.io.vcf_zarr import StoreFacts, write_store
from tests.toys import vcf_text

NUM_SAMPLES = 3
INT_NAMES, FLOATS = {-1: ".", -2: ""}, (0x7F800001, 0x7F800002)


def read(
    folder: Path,
    lines: list[str],
    *,
    num_samples: int = NUM_SAMPLES,
    formats: tuple[str, ...] = ("*",),
    per_shard: int = 2,
) -> tuple[list[pa.Table], StoreFacts]:
    """Tables of a VCF's records, and what its header says."""
    path = folder / "in.vcf.gz"
    path.write_bytes(bgzf.compress(vcf_text.file_text(lines, num_samples)) + bgzf.EOF)
    source = open_columns(path)
    columns = source.columns(infos=("*",), formats=formats)
    facts = StoreFacts(
        source.header.decode(),
        source.samples,
        header_contigs(source.header),
        filter_ids(source.header),
        columns.infos,
        columns.genotypes,
        columns.formats,
    )
    shards = source.scan(records_per_shard=per_shard, bytes_per_shard=1 << 20).shards
    return [source.read_sites(shard, columns).table for shard in shards], facts


@dataclass(frozen=True)
class Folder:
    """A folder that files are put into, without the care of a run's store."""

    root: Path

    def put(self, name: str, data: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def scratch(self) -> Path:
        self.root.parent.mkdir(exist_ok=True)
        return self.root.parent / uuid.uuid4().hex

    def put_file(self, local: Path, name: str) -> None:
        self.put(name, local.read_bytes())
        local.unlink()


@dataclass(frozen=True)
class Held:
    """A part that is a table in memory."""

    table: pa.Table

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        return self.table if columns is None else self.table.select(columns)


def write(folder: Path, tables: list[pa.Table], facts: StoreFacts, *, each: Mapper = map) -> Any:
    """The store of those tables, as zarr opens it."""
    write_store(Folder(folder / "x.zarr"), facts, [Held(table) for table in tables], each=each)
    return zarr.open_group(folder / "x.zarr", mode="r")


def line(pos: int, *, alt: str = "C", calls: str = "GT\t0/1\t1|1\t.") -> str:
    return f"chr1\t{pos}\t.\tA\t{alt}\t.\t.\t.\t{calls}"


# ---------------------------------------------------------------- a second reader


def as_code(value: Any) -> Any:
    """One value as VCF Zarr has it, where an integer that is a code cannot be told from it; of floats, NaN has a name.

    Floats are otherwise told by their bits: missing, beyond and NaN differ.
    """
    if isinstance(value, (float, np.floating)):
        return "nan" if math.isnan(value) else np.float32(value)
    return INT_NAMES.get(value, value)


def decoded(found: Any) -> Any:
    """A cell of a store, flat, with floats as `as_code` and their codes as text."""
    flat = np.asarray(found).reshape(-1)
    if flat.dtype == np.float32:
        names = {FLOATS[0]: ".", FLOATS[1]: ""}
        bits = flat.view(np.uint32).tolist()
        return [names.get(bit, as_code(value)) for bit, value in zip(bits, flat, strict=True)]
    if np.issubdtype(flat.dtype, np.integer):
        return [as_code(value) for value in flat.tolist()]
    return flat.tolist()


def expected(value: Any, width: int) -> list[Any]:
    """What pysam says of a cell: padded with what is beyond, missing where None."""
    values = list(value) if isinstance(value, tuple) else [value]
    return [*("." if one is None else as_code(one) for one in values), *[""] * (width - len(values))]


def check_sites(group: Any, row: int, record: pysam.VariantRecord) -> None:
    contigs, filters = group["contig_id"][:].tolist(), group["filter_id"][:].tolist()
    assert contigs[group["variant_contig"][row]] == record.chrom
    assert group["variant_position"][row] == record.pos
    assert group["variant_length"][row] == record.rlen
    assert group["variant_id"][row] == (record.id or ".")
    assert group["variant_id_mask"][row] == (record.id is None)
    assert [one for one in group["variant_allele"][row].tolist() if one] == [record.ref, *(record.alts or ())]
    assert decoded(group["variant_quality"][row]) == expected(record.qual, 1)
    assert {filters[at] for at in np.flatnonzero(group["variant_filter"][row])} == set(record.filter.keys())


def check_infos(group: Any, row: int, record: pysam.VariantRecord) -> None:
    for key in ("DP", "MQ", "AF", "AC"):
        array = group[f"variant_{key}"]
        value = record.info.get(key)
        width = array.size // max(array.shape[0], 1)
        absent = value is None or (isinstance(value, tuple) and value == (None,) * len(value) and len(value) == 1)
        assert decoded(array[row]) == (["."] * width if absent else expected(value, width)), key
    assert group["variant_DB"][row] == bool(record.info.get("DB", False))


def check_calls(group: Any, row: int, record: pysam.VariantRecord) -> None:
    for sample, call in enumerate(record.samples.values()):
        ploidy = group["call_genotype"].shape[2]
        theirs = expected(call["GT"], ploidy) if "GT" in record.format else ["."] * ploidy
        assert decoded(group["call_genotype"][row, sample]) == theirs
        mask = group["call_genotype_mask"][row, sample].tolist()
        assert mask == [one in (".", "") for one in theirs]
        for key in ("AD", "DP", "GQ", "FT", "PL", "WD", "TWO"):
            array = group[f"call_{key}"]
            width = array.shape[2] if array.ndim == 3 else 1
            if key not in record.format:
                assert decoded(array[row, sample]) == ["."] * width, key
            else:
                ours = decoded(array[row, sample])
                value = call[key]
                if value in ("", ("",)):  # pysam's word for a text that is left off at the end of a cell
                    value = None
                assert ours == expected(value, width), (key, sample)


@settings(max_examples=15, phases=[Phase.generate])
@given(lines=vcf_text.records(NUM_SAMPLES, max_size=12))
def test_zarr_reads_what_pysam_reads(lines) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = write(Path(folder), *read(Path(folder), lines))
        group = {name: array[:] for name, array in store.arrays()}
        with pysam.VariantFile(f"{folder}/in.vcf.gz") as theirs:
            records = list(theirs)
            assert group["variant_position"].shape == (len(records),)
            for row, record in enumerate(records):
                check_sites(group, row, record)
                check_infos(group, row, record)
                check_calls(group, row, record)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@settings(max_examples=20)
@given(cuts=st.lists(st.integers(0, 23), max_size=9))
def test_any_parting_of_the_rows_gives_the_same_bytes(cuts) -> None:
    """However rows come: chunks of five rows, shards of two chunks."""
    lines = [line(100 + n, calls=f"GT:DP:WD\t0/1:{n}:a,b\t1|1:7\t.") for n in range(23)]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(_vcf_zarr_arrays, "VARIANTS_PER_CHUNK", 5)
        patch.setattr(_vcf_zarr_arrays, "_CHUNKS_PER_SHARD", 2)
        (whole,), facts = read(Path(folder), lines, per_shard=100)
        borders = [0, *sorted(cuts), 23]
        pieces = [whole.slice(begin, end - begin) for begin, end in itertools.pairwise(borders)]
        group = write(Path(folder) / "whole", [whole], facts)
        assert group["call_DP"][:, 0].tolist() == list(range(23))
        assert group["call_DP"].chunks == (5, 3)
        assert group["call_DP"].shards == (10, 3)
        write(Path(folder) / "pieces", pieces, facts)
        assert contents(Path(folder) / "pieces") == contents(Path(folder) / "whole")
        assert len(list((Path(folder) / "whole/x.zarr/call_DP/c").rglob("*/0"))) == 3


def test_samples_and_rows_are_cut_into_chunks(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(_vcf_zarr_arrays, "SAMPLES_PER_CHUNK", 2)
    lines = [line(100 + n, calls=f"GT:DP:WD\t0/1:{n}:a,b\t1|1:7\t.") for n in range(3)]
    group = write(tmp_path, *read(tmp_path, lines))
    assert group["call_DP"].chunks[1] == 2
    assert group["call_DP"][:].tolist() == [[n, 7, -1] for n in range(3)]
    assert group["call_WD"][:, :, 0].tolist() == [["a", ".", "."]] * 3
    assert group["call_WD"][:, :, 1].tolist() == [["b", "", ""]] * 3


def test_wide_records_make_smaller_chunks(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(_vcf_zarr_arrays, "_CHUNK_BYTES", 64)
    lines = [line(100 + n, calls="GT:DP\t0/1:3\t1|1:300\t.") for n in range(40)]
    group = write(tmp_path, *read(tmp_path, lines, formats=("DP",)))
    assert group["call_DP"].chunks == (4, 3)  # two alleles, counted as 8 bytes each, are the widest rows
    assert group["call_DP"].dtype == np.int16
    assert group["call_DP"][39].tolist() == [3, 300, -1]


# ---------------------------------------------------------------- the layout

# As bio2zarr 0.2 names arrays and axes for a header such as this one (its `generate_schema` and `from_field`).
AXES = {
    "call_AD": ("variants", "samples", "alleles"),
    "call_DP": ("variants", "samples"),
    "call_FT": ("variants", "samples"),
    "call_GQ": ("variants", "samples"),
    "call_PL": ("variants", "samples", "genotypes"),
    "call_TWO": ("variants", "samples", "FORMAT_TWO_dim"),
    "call_WD": ("variants", "samples", "FORMAT_WD_dim"),
    "call_genotype": ("variants", "samples", "ploidy"),
    "call_genotype_mask": ("variants", "samples", "ploidy"),
    "call_genotype_phased": ("variants", "samples"),
    "contig_id": ("contigs",),
    "contig_length": ("contigs",),
    "filter_description": ("filters",),
    "filter_id": ("filters",),
    "region_index": ("region_index_values", "region_index_fields"),
    "sample_id": ("samples",),
    "variant_AC": ("variants", "alt_alleles"),
    "variant_AF": ("variants", "alt_alleles"),
    "variant_CS": ("variants", "INFO_CS_dim"),
    "variant_DB": ("variants",),
    "variant_DP": ("variants",),
    "variant_END": ("variants",),
    "variant_MQ": ("variants",),
    "variant_NOTE": ("variants",),
    "variant_allele": ("variants", "alleles"),
    "variant_contig": ("variants",),
    "variant_filter": ("variants", "filters"),
    "variant_id": ("variants",),
    "variant_id_mask": ("variants",),
    "variant_length": ("variants",),
    "variant_position": ("variants",),
    "variant_quality": ("variants",),
}


def golden(folder: Path) -> Any:
    lines = [
        "chr1\t100\trs1\tA\tC,G\t30\tq10\tDP=3;AF=0.5,.;AC=1,2;CS=a,b;DB;END=110\t"
        "GT:AD:DP:GQ:PL:WD:TWO\t0/1:1,2,3:40:5.5:0,1,2,3,4,300:a,b:1,2\t2|2\t.",
        line(200),
        line(300, calls="DP\t-5\t.\t1"),
    ]
    return write(folder, *read(folder, lines))


def test_names_and_axes_are_those_of_bio2zarr(tmp_path) -> None:
    group = golden(tmp_path)
    assert {name: array.metadata.dimension_names for name, array in group.arrays()} == AXES
    assert group.attrs["vcf_zarr_version"] == "0.4"
    assert group.attrs["vcf_header"].startswith("##fileformat=VCFv4.3\n")
    assert group.attrs["vcf_header"].endswith("\tS2\n")
    assert group["variant_DP"].attrs["description"] == "Depth"


def test_values_and_types_of_a_small_store(tmp_path) -> None:
    group = golden(tmp_path)
    assert group["sample_id"][:].tolist() == ["S0", "S1", "S2"]
    assert group["filter_id"][:].tolist() == ["PASS", "q10", "s50"]
    assert group["contig_length"][:].tolist() == [1_000_000, 1_000_000]
    assert group["call_genotype"][:].tolist() == [
        [[0, 1], [2, 2], [-1, -2]],
        [[0, 1], [1, 1], [-1, -2]],
        [[-1, -1], [-1, -1], [-1, -1]],
    ]
    assert group["call_genotype_phased"][:].tolist() == [[False, True, False], [False, True, False], [False] * 3]
    assert group["call_AD"][0].tolist() == [[1, 2, 3], [-1, -2, -2], [-1, -2, -2]]
    assert group["call_AD"][1].tolist() == [[-1, -1, -1]] * 3
    assert group["call_DP"][2].tolist() == [-5, -1, 1]
    assert group["variant_length"][:].tolist() == [11, 1, 1]
    assert group["region_index"][:].tolist() == [[0, 0, 100, 300, 300, 3]]
    kinds = {name: str(group[name].dtype) for name in ("call_genotype", "call_AD", "call_PL", "variant_DP", "call_GQ")}
    assert kinds == {
        "call_genotype": "int8",
        "call_AD": "int8",
        "call_PL": "int16",
        "variant_DP": "int32",
        "call_GQ": "float32",
    }


def test_no_records_and_no_samples_make_a_store_too(tmp_path) -> None:
    group = write(tmp_path, *read(tmp_path, []))
    assert group["call_genotype"].shape == (0, 3, 1)
    sites = write(tmp_path / "sites", *read(tmp_path, ["chr1\t5\t.\tA\tC\t.\t.\t."], num_samples=0, formats=()))
    assert sites["variant_position"][:].tolist() == [5]
    assert "call_genotype" not in sites


def test_missing_and_whatever_integers_there_are_keep_apart(tmp_path) -> None:
    lines = [line(5, calls="DP\t2147483647\t-2147483640\t."), line(6, calls="DP\t0\t.\t7")]
    group = write(tmp_path, *read(tmp_path, lines, formats=("DP",)))
    assert group["call_DP"].dtype == np.int32
    assert group["call_DP"][:].tolist() == [[2147483647, -2147483640, -1], [0, -1, 7]]


def test_rows_keep_their_values_whatever_widths_and_formats_come_before(tmp_path) -> None:
    """Rows of one batch whose longest lists, or whose FORMAT keys, go up and down."""
    calls = ["GT:AD\t0/1:1,2,3", "GT:AD\t0/1:4", "GT:DP:AD\t0/1:11:5,6", "GT:AD\t0/1:7", "GT:DP:AD\t0/1:12:8,9,10"]
    lines = [line(5 + n, alt="C,G", calls=one) for n, one in enumerate(calls)]
    group = write(tmp_path, *read(tmp_path, lines, num_samples=1, per_shard=10))
    assert group["call_AD"][:, 0].tolist() == [[1, 2, 3], [4, -2, -2], [5, 6, -2], [7, -2, -2], [8, 9, 10]]
    assert group["call_DP"][:, 0].tolist() == [-1, -1, 11, -1, 12]


def test_a_missing_list_is_as_long_as_it_is_written(tmp_path) -> None:
    """'.' and a subfield left off are one missing value, '.,.' is two; what is beyond either is padding."""
    lines = [line(5, alt="C,G", calls="GT:AD:TWO\t0/1:.,.,.:.,.\t0/1:.:.\t0/1"), line(6, alt="C,G,T,CC")]
    group = write(tmp_path, *read(tmp_path, lines))
    assert group["call_AD"][0].tolist() == [[-1, -1, -1, -2, -2], [-1, -2, -2, -2, -2], [-1, -2, -2, -2, -2]]
    assert decoded(group["call_TWO"][0]) == [".", ".", ".", "", ".", ""]
    with pysam.VariantFile(f"{tmp_path}/in.vcf.gz") as theirs:
        check_calls({name: array[:] for name, array in group.arrays()}, 0, next(theirs))


def test_only_missing_integers(tmp_path) -> None:
    group = write(tmp_path, *read(tmp_path, [line(5, calls="DP\t.\t.\t.")], formats=("DP",)))
    assert group["call_DP"].dtype == np.int8
    assert group["call_DP"][:].tolist() == [[-1, -1, -1]]


@pytest.mark.parametrize(
    ("place", "name"), [("INFO", "position"), ("FORMAT", "genotype"), ("INFO", "../x"), ("FORMAT", "a b")]
)
def test_fields_that_would_overwrite_others_are_refused(place, name) -> None:
    with pytest.raises(InputError, match=f"{place} .* cannot be an array of a VCF Zarr store"):
        vcf_zarr.check_names([Declared(name, "1", "Integer", "")], place, path="x.vcf")


# ---------------------------------------------------------------- damage


def test_any_flipped_bit_of_a_shard_is_seen_by_zarr(tmp_path) -> None:
    """Each chunk and each shard's index ends in its CRC-32C, which zarr's own codecs check."""
    lines = [line(100 + n, calls=f"GT:DP:WD\t0/1:{n}:a,b\t1|1:7\t.") for n in range(20)]
    group = write(tmp_path, *read(tmp_path, lines))
    chance = random.Random(1)
    for name in ("call_DP", "call_genotype", "variant_allele", "variant_quality"):
        (path,) = (one for one in (tmp_path / "x.zarr" / name / "c").rglob("*") if one.is_file())
        data = path.read_bytes()
        before = group[name][:]
        for bit in chance.sample(range(8 * len(data)), 30):
            harmed = bytearray(data)
            harmed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(harmed)
            try:
                seen = group[name][:]
            except Exception:
                continue
            # Places of absent chunks in the index are guarded, too: nothing can change unseen.
            pytest.fail(f"bit {bit} of {name}: {seen} for {before}")
        path.write_bytes(data)
