from __future__ import annotations

import gzip
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pyarrow as pa
import pysam
import pytest
import torch

from engine.errors import InputError
from engine.genome.reference import ReferenceGenome
from engine.genome.variants import VariantRecord
from engine.io import bgzf
from engine.io.vcf import add_header_lines, remove_info
from engine.models import _info
from engine.models._folder import save_model_folder
from engine.models._info import network_digest, open_model
from engine.scoring import _variant_scorer, splice_delta
from engine.scoring._exon_sites import psi_change, read_percent
from engine.scoring._predictor import Predictor
from engine.scoring._variant_reader import gene_contig, record_problem
from engine.scoring._variant_stages import VariantStages
from schemas.states import NOT_APPLICABLE_REASONS, REJECT_REASONS, STATES
from schemas.tables import REJECTS
from tests.toys import genome, models
from tests.toys.sequence_runs import sequence_model
from tests.toys.variant_stages import broken_lines, make_world, run, stages_of

OURS = b"RPL_"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A genome, its models and two VCFs: valid records, and all that is wrong beside them."""
    return make_world(tmp_path_factory.mktemp("stages"))


def lines_of(outputs):
    return b"".join(gzip.decompress(one.body) for one in outputs if one.body).splitlines()


def record_lines(path):
    data = path.read_bytes()
    text = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    return [line for line in text.splitlines() if not line.startswith(b"#")]


SCORERS = [
    {"params": {"exon_sites": True, "reference_psi": "AF"}},
    {"model": "motifs", "params": {"compatibility": "spliceai-1.3.1", "mask": True, "distance": 20}},
    {"scorer": "allele_effect", "model": "counter", "params": {"window_bp": 11, "both_strands": True}},
    {"scorer": "gc_change"},
]


@pytest.mark.parametrize("given", SCORERS)
def test_every_record_allele_and_gene_ends_in_one_state(world, given):
    """Disjoint and complete: one row for each, and the counts are those of the rows."""
    folder, _, _ = world
    (output,) = run(stages_of(world, "bad.vcf", **given))
    rows = output.table.to_pylist()
    keys = [(row["record"], row["alt_index"], row["transcript_id"]) for row in rows]
    assert len(set(keys)) == len(keys) and keys == sorted(keys, key=lambda key: key[:2])
    lines = record_lines(folder / "bad.vcf")
    assert output.records_in == len(lines) == max(row["record"] for row in rows) + 1
    for ordinal, line in enumerate(lines):
        own = [row for row in rows if row["record"] == ordinal]
        columns = line.decode().split("\t")
        alts = () if len(columns) < 10 or own[0]["contig"] is None else tuple(columns[4].split(","))
        if own[0]["alt_index"] == 0:
            assert len(own) == 1 and own[0]["alt"] is None
        else:
            assert {(row["alt_index"], row["alt"]) for row in own} == set(enumerate(alts, 1))
    assert {row["state"] for row in rows} <= set(STATES)
    for row in rows:
        reasons = {"scored": {None}, "not_applicable": set(NOT_APPLICABLE_REASONS), "rejected": set(REJECT_REASONS)}
        assert row["reason"] in reasons[row["state"]]
    assert dict(output.states) == {state: sum(row["state"] == state for row in rows) for state in output.states}
    assert sum(output.states.values()) == len(rows)
    assert sum(output.reasons.values()) == len(rows) - output.states["scored"]
    assert output.rejects.num_rows == output.states["rejected"]


def test_each_kind_of_record_gets_the_reason_it_should(world):
    """`expected` of the toy records names the reason of each ALT, or none where it is a plain allele."""
    _, _, records = world
    (output,) = run(stages_of(world))
    rows = pl.from_arrow(output.table)
    for ordinal, record in enumerate(records):
        for number, expected in enumerate(record.expected, 1):
            found = rows.filter((pl.col("record") == ordinal) & (pl.col("alt_index") == number))
            if expected:
                assert found["reason"].to_list() == [expected], record
            else:
                assert set(found["reason"]) <= {None, "outside_genes"}, record
    bare = rows.filter(pl.col("alt_index") == 0)
    assert bare["reason"].to_list() == ["reference_only"] * sum(not one.alts for one in records)


def test_rejects_say_what_was_found(world):
    (output,) = run(stages_of(world, "bad.vcf"))
    assert output.rejects.schema.equals(REJECTS)
    rejects = {row["reason"]: row for row in output.rejects.to_pylist()}
    _, toy, _ = world
    base = toy.clean("chr1", 1_500, 1_501)
    assert f"at chr1:1,501, where the reference has {base}" in rejects["ref_mismatch"]["sentence"]
    assert "the line has 4 columns" in rejects["malformed_record"]["sentence"]
    assert rejects["malformed_record"]["text"] == "chr1\t1600\t.\tA"
    assert rejects["symbolic_allele"]["text"].count("\t") == 7
    assert all(len(row["text"]) <= 1000 and row["sentence"] for row in rejects.values())


def test_lines_that_do_not_parse_are_kept_among_the_rejects_only(world):
    _, toy, _ = world
    (output,) = run(stages_of(world, "bad.vcf"))
    # A REF of "." is a line that parses, with an allele that does not.
    broken = [line.encode() for line in broken_lines(toy) if line.split("\t")[3] != "." and "\t" in line]
    lines = lines_of([output])
    assert output.body_rows == len(lines) == output.records_in - len(broken)
    texts = {row["text"].encode() for row in output.rejects.to_pylist()}
    for line in broken:
        assert b"\t".join(line.split(b"\t")[:8]) in texts and not any(one.startswith(line) for one in lines)


# ------------------------------------------------------------------ cuts


@pytest.mark.parametrize("given", [{"model": "random", "params": {"distance": 30}}, SCORERS[2], SCORERS[3]])
@pytest.mark.parametrize("records_per_shard", [1, 3])
def test_the_same_rows_for_any_cut(world, given, records_per_shard):
    whole, cut = run(stages_of(world, **given)), run(stages_of(world, **given), records_per_shard=records_per_shard)
    assert len(cut) > len(whole) == 1
    joined = pa.concat_tables(one.table for one in cut)
    for name in joined.column_names:
        one, other = whole[0].table[name], joined[name].combine_chunks()
        if pa.types.is_floating(one.type):
            pair = [np.array(column.to_pylist(), dtype=float) for column in (one, other)]
            np.testing.assert_allclose(*pair, atol=1e-5)
        else:
            assert one.to_pylist() == other.to_pylist(), name
    assert sum(one.body_rows for one in cut) == whole[0].body_rows
    assert pa.concat_tables(one.rejects for one in cut).to_pylist() == whole[0].rejects.to_pylist()


@pytest.mark.parametrize("given", [{"model": "random"}, SCORERS[0]])
def test_the_same_bytes_for_the_same_cut(world, given):
    one, other = (run(stages_of(world, **given), records_per_shard=40) for _ in range(2))
    for first, second in zip(one, other, strict=True):
        assert first.table.equals(second.table, check_metadata=True)
        assert first.body == second.body and first.rejects.equals(second.rejects)


def test_slices_bound_what_the_model_sees_at_once(world, monkeypatch):
    sizes = []
    contrast = Predictor.contrast

    def recording(self, questions, **given):
        sizes.append(len(questions))
        return contrast(self, questions, **given)

    monkeypatch.setattr(Predictor, "contrast", recording)
    whole = run(stages_of(world, model="motifs"))[0]
    scored = whole.states["scored"]
    assert scored > 35 and sizes == [scored]
    sizes.clear()
    monkeypatch.setattr(_variant_scorer, "SLICE_ROWS", 7)
    assert run(stages_of(world, model="motifs"))[0].table.equals(whole.table)
    assert sizes == [7] * (scored // 7) + [scored % 7] * (scored % 7 > 0)


def test_weights_are_hashed_once_for_all_that_a_process_opens(world, monkeypatch):
    hashed = []
    digest = _info.file_sha256
    monkeypatch.setattr(_info, "file_sha256", lambda path: hashed.append(path.name) or digest(path))
    stages = stages_of(world, model="motifs")
    stages.open_component()
    stages.info_header(b"")
    assert stages.schema() and hashed == ["member-00.safetensors", "member-01.safetensors"]
    run(stages)
    assert len(hashed) == 2, "the description travels with the stages"
    assert replace(stages, model=str(world[0] / "random")).open_component()[1].digest != stages._model.digest


def test_a_scorer_on_the_cpu_has_one_thread_whoever_started_the_process(world):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        stages_of(world, scorer="gc_change").open_scorer()
        assert torch.get_num_threads() == 2, "without a model there is nothing to fix"
        stages_of(world).open_scorer()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_an_empty_shard_has_an_empty_table(world):
    stages = stages_of(world, keep_info=("KIND",))
    batch = stages.open_reader()
    batch.source.read = lambda shard: []
    output = stages.open_scorer()(batch(replace_shard()))
    assert output.table.num_rows == 0 and output.table.schema.equals(stages.schema())
    assert output.body_rows == 0 and gzip.decompress(output.body + bgzf.EOF) == b""


def replace_shard():
    from engine.io.source import Shard

    return Shard(0, 0, 0, 0, 0, None, None, None, None)


# ------------------------------------------------------------------ text


@pytest.mark.parametrize("given", SCORERS)
def test_all_else_in_a_record_stays_byte_for_byte(world, given):
    folder, _, _ = world
    stages = stages_of(world, **given)
    lines = lines_of(run(stages))
    tags = {one.id.encode() for one in stages.info_fields()}
    assert [remove_info(line, tags) for line in lines] == record_lines(folder / "good.vcf.gz")


@pytest.mark.parametrize("given", SCORERS)
def test_htslib_reads_the_tags_as_declared(world, given, tmp_path):
    """pysam and bcftools as judges: every tag is declared, with as many values as there are ALTs."""
    folder, _, records = world
    stages = stages_of(world, **given)
    outputs = run(stages)
    header = b"".join(
        line + b"\n" for line in gzip.decompress((folder / "good.vcf.gz").read_bytes()).splitlines() if line[:1] == b"#"
    )
    path = tmp_path / "scored.vcf.gz"
    start = bgzf.compress(add_header_lines(header, stages.info_header(header)))
    path.write_bytes(start + b"".join(one.body for one in outputs) + bgzf.EOF)
    with pysam.VariantFile(str(path)) as file:
        read = list(file)
    assert len(read) == len(records)
    for record, written in zip(read, records, strict=True):
        found = [key for key in record.info if key.startswith("RPL_")]
        assert all(len(record.info[key]) == len(written.alts) for key in found)
        assert bool(found) == bool(written.alts)
    checked = subprocess.run(
        ["bcftools", "query", "-f", "%POS\t%INFO/RPL_STATE\n", str(path)], capture_output=True, text=True, check=True
    )
    assert checked.stderr == "" and len(checked.stdout.splitlines()) == len(records)


def test_tags_and_table_say_the_same(world):
    (output,) = run(stages_of(world, params={"exon_sites": True}))
    rows = pl.from_arrow(output.table)
    for ordinal, line in enumerate(lines_of([output])):
        columns = line.decode().split("\t")
        info = dict(entry.partition("=")[::2] for entry in columns[7].split(";"))
        own = rows.filter((pl.col("record") == ordinal) & (pl.col("state") == "scored"))
        for number in own["alt_index"].unique():
            alleles = own.filter(pl.col("alt_index") == number).sort("ds_max", descending=True, maintain_order=True)
            best = alleles.row(0, named=True)
            assert info["RPL_STATE"].split(",")[number - 1] == "scored"
            assert float(info["RPL_DS_MAX"].split(",")[number - 1]) == pytest.approx(best["ds_max"], abs=5.1e-5)
            assert info["RPL_GENE"].split(",")[number - 1] == best["gene_symbol"]
        if own.is_empty() and columns[4] != ".":
            assert "RPL_DS_MAX" not in info and info["RPL_STATE"].split(",")[0] != "scored"


def test_without_a_vcf_no_text_is_made(world):
    (output,) = run(stages_of(world, write_vcf=False))
    assert output.body is None and output.body_rows == 0 and output.table.num_rows > 0


def test_a_header_with_our_tags_is_refused(world):
    header = b'##fileformat=VCFv4.2\n##INFO=<ID=RPL_DS_AG,Number=A,Type=Float,Description="x">\n#CHROM\n'
    with pytest.raises(InputError, match=r"RPL_DS_AG.*bcftools annotate -x INFO/RPL_DS_AG"):
        stages_of(world).info_header(header)
    lines = stages_of(world).info_header()
    assert lines[0].startswith(b'##INFO=<ID=RPL_STATE,Number=A,Type=String,Description="scored, ')
    assert all(b'Source="replisome",Version="' in line and not line.endswith(b"\n") for line in lines)


# ------------------------------------------------------------------ the tag SpliceAI


@pytest.fixture(scope="module")
def spliceai_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tagged") / "model"
    card = replace(models.CARD, score_tag="SpliceAI")
    save_model_folder(folder, [models.splice_motif_network()], architecture="dilated_conv", card=card)
    return folder


def test_the_spliceai_tag_needs_its_weights(world):
    with pytest.raises(InputError, match="the tag SpliceAI stands for SpliceAI's own weights"):
        stages_of(world, spliceai_info=True).info_header()
    with pytest.raises(InputError, match="the tag SpliceAI"):
        stages_of(world, spliceai_info=True, scorer="gc_change").open_scorer()


def test_a_folder_that_only_says_it_is_spliceai_is_refused(world, spliceai_folder, monkeypatch):
    """The word is in the folder's own text, the proof in its tensors: only those of known networks."""
    asked = stages_of(world, spliceai_info=True, model=str(spliceai_folder))
    assert open_model(spliceai_folder).score_tag == "SpliceAI"
    with pytest.raises(InputError, match=r"the tag SpliceAI stands for SpliceAI's own weights, known by their digest"):
        asked.open_component()
    known = network_digest(open_model(spliceai_folder))
    monkeypatch.setattr(splice_delta, "SPLICEAI_NETWORKS", frozenset({known}))
    assert asked.open_component()
    with pytest.raises(InputError, match="the tag SpliceAI"):
        replace(asked, model=str(world[0] / "random")).open_component()
    # The same networks under another name do not say that they are SpliceAI's.
    with pytest.raises(InputError, match="the tag SpliceAI"):
        replace(asked, model=str(world[0] / "untagged")).open_component()
    assert network_digest(open_model(world[0] / "untagged")) == known


def test_the_spliceai_tag_is_written_in_its_own_layout(world, spliceai_folder, monkeypatch):
    known = network_digest(open_model(spliceai_folder))
    monkeypatch.setattr(splice_delta, "SPLICEAI_NETWORKS", frozenset({known}))
    stages = stages_of(world, spliceai_info=True, model=str(spliceai_folder))
    assert b"ID=SpliceAI,Number=.,Type=String" in stages.info_header()[-1]
    (output,) = run(stages)
    rows = output.table.to_pylist()
    lines = lines_of([output])
    scored = [row for row in rows if row["state"] == "scored"]
    for ordinal, line in enumerate(lines):
        own = [row for row in scored if row["record"] == ordinal]
        tags = [entry[9:] for entry in line.decode().split("\t")[7].split(";") if entry.startswith("SpliceAI=")]
        names = [f"{kind}_{name}" for kind in ("ds", "dp") for name in ("ag", "al", "dg", "dl")]
        expected = [
            "|".join(
                [
                    row["alt"],
                    row["gene_symbol"],
                    *(f"{row[n]:.2f}" for n in names[:4]),
                    *(str(row[n]) for n in names[4:]),
                ]
            )
            for row in own
        ]
        assert tags == ([",".join(expected)] if expected else [])
    assert any(line.count(b"SpliceAI=") for line in lines)


# ------------------------------------------------------------------ rows


def test_two_genes_make_two_rows_and_outside_makes_one(world):
    _, _, records = world
    rows = pl.from_arrow(run(stages_of(world))[0].table)
    every = pl.from_arrow(run(stages_of(world, all_transcripts=True))[0].table)

    def symbols(table, kind, column="gene_symbol"):
        ordinal = next(i for i, one in enumerate(records) if one.kind == kind)
        return table.filter(pl.col("record") == ordinal)[column].to_list()

    assert symbols(rows, "outside_genes") == [None]
    assert symbols(rows, "snv_donor") == ["TOYA"]
    assert symbols(every, "snv_donor", "transcript_id") == ["ENST0012.3", "ENST0011.1"]
    # Of the transcripts chosen only TOYB's holds 4,120; with all of them TOYA's long one does too.
    assert symbols(rows, "two_genes") == ["TOYB"]
    assert set(symbols(every, "two_genes")) == {"TOYA", "TOYB"}


def test_a_lost_donor_is_counted_by_hand(world):
    """chr1:1202 is the T of TOYA's first GT: the donor at 1200 has p(donor) with GT, and without it the background."""
    _, _, records = world
    ordinal = next(i for i, one in enumerate(records) if one.kind == "snv_donor")
    rows = pl.from_arrow(run(stages_of(world))[0].table).filter(pl.col("record") == ordinal)
    assert records[ordinal].ref == "T"
    expected = models.splice_probabilities(False, True)[2] - models.splice_probabilities(False, False)[2]
    assert rows["ds_dl"].to_list() == pytest.approx([expected], abs=5.1e-6)
    assert rows["dp_dl"].to_list() == [-2]


def test_written_and_normal_form_stand_side_by_side(world):
    """bcftools norm is the judge of the normal form."""
    folder, toy, records = world
    rows = pl.from_arrow(run(stages_of(world))[0].table).unique(["record", "alt_index"], maintain_order=True)
    kept = [
        one for one in records if one.kind in ("homopolymer_deletion", "repeat_insertion", "multi_allelic", "delins")
    ]
    bare = ["\t".join([*one.line().split("\t")[:7], "."]) for one in kept]
    path = genome.write_vcf(folder / "norm.vcf", bare, toy)
    done = subprocess.run(
        ["bcftools", "norm", "-m-any", "-f", str(toy.fasta), str(path)], capture_output=True, text=True, check=True
    )
    expected = {tuple(line.split("\t")[i] for i in (0, 1, 3, 4)) for line in done.stdout.splitlines() if line[0] != "#"}
    numbers = [i for i, one in enumerate(records) if one in kept]
    own = rows.filter(pl.col("record").is_in(numbers))
    found = {(row["contig"], str(row["norm_start"] + 1), row["norm_ref"], row["norm_alt"]) for row in own.to_dicts()}
    assert found == expected
    assert own["ref"].to_list() == [records[row["record"]].ref for row in own.to_dicts()]


def test_info_keys_are_kept_as_written(world):
    _, _, records = world
    stages = stages_of(world, "bad.vcf", keep_info=("KIND", "AF", "END", "NONE"), scorer="gc_change")
    table = run(stages)[0].table
    assert table.schema.equals(stages.schema(), check_metadata=True)
    rows = {row["info_KIND"]: row for row in table.to_pylist()}
    assert set(rows) == {one.kind for one in records} | {None}
    assert rows["gvcf"]["info_END"] == "2140" and rows["gvcf"]["info_AF"] == "0.00010"
    assert rows["multi_allelic"]["info_NONE"] is None


def test_a_scorer_reads_the_info_keys_it_asks_for(world):
    """Every row with the record's own value; text and absent keys are no number. Other columns stay."""
    asked = stages_of(world, params={"exon_sites": True, "reference_psi": "AF"}, keep_info=("AF",))
    plain = stages_of(world, params={"exon_sites": True}, keep_info=("AF",))
    table, other = run(asked)[0].table, run(plain)[0].table
    assert table.drop_columns("psi_change").equals(other)
    for row in table.to_pylist():
        if row["state"] != "scored":
            assert row["psi_change"] is None
            continue
        expected = psi_change(read_percent(row["info_AF"]), row["inclusion_change"])
        assert row["psi_change"] == pytest.approx(expected, abs=1e-5)
    assert len({value for value in table["psi_change"].to_pylist() if value}) > 10
    for key in ("KIND", "NONE"):
        none = run(stages_of(world, params={"exon_sites": True, "reference_psi": key}))[0].table
        assert none["psi_change"].null_count == none.num_rows


def test_not_a_number_from_the_model_is_a_reject(world, tmp_path):
    """The network gives NaN for every window."""
    network = models.splice_motif_network()
    with torch.no_grad():
        network.final.bias[1] = float("nan")
    save_model_folder(tmp_path / "nan", [network], architecture="dilated_conv", card=models.CARD)
    calm, (output,) = run(stages_of(world, model="motifs"))[0], run(stages_of(world, model=str(tmp_path / "nan")))
    assert "scored" not in output.states
    assert output.reasons["model_output_not_finite"] == calm.states["scored"]
    assert output.states["rejected"] == output.rejects.num_rows == calm.states["rejected"] + calm.states["scored"]
    order = [(row["record"], row["alt_index"]) for row in output.rejects.to_pylist()]
    assert order == sorted(order)
    assert not any(b"RPL_DS_AG" in line for line in lines_of([output]))


# ------------------------------------------------------------------ the reference's say


@pytest.mark.parametrize(
    ("start", "ref", "code"),
    [
        (5_100, "lower", None),
        (7_000, "A", None),  # the reference holds R there: A or G
        (7_000, "G", None),
        (7_000, "C", "ref_mismatch"),
        (7_000, "N", None),
        (7_001, "T", None),  # y, lower case
        (15_050, "N", None),
        (15_050, "A", "ref_mismatch"),
        (29_999, "past", "past_contig_end"),
        (30_000, "A", "bad_position"),
        (-1, "A", "bad_position"),
        (100, ".", None),  # no base at all: the alleles' affair
    ],
)
def test_ref_against_the_reference(world, start, ref, code):
    _, toy, _ = world
    reference = ReferenceGenome(toy.fasta)
    if ref == "lower":
        ref = toy.clean("chr1", start, start + 3).lower()
    if ref == "past":
        ref = toy.clean("chr1", start, start + 1) + "A"
    found = record_problem(VariantRecord("chr1", start, ".", ref, ("A",)), reference)
    assert (found and found[0]) == code


def test_contigs_by_another_name(tmp_path, world):
    """The VCF says 1, the reference chr1, the genes chr1 or 1: the aliases join them."""
    _, toy, records = world
    bare = genome.make_genome(tmp_path / "bare", prefix="")
    renamed = [replace(one, contig=one.contig.removeprefix("chr")) for one in records if one.kind != "breakend"]
    path = genome.write_vcf(tmp_path / "bare.vcf", renamed, bare)
    aliases = {name.removeprefix("chr"): name for name in toy.contigs}
    tables = []
    for genes in (toy.ensembl_gtf, bare.spliceai_table):
        stages = stages_of(world, input_path=str(path), contig_aliases=aliases, genes_path=str(genes))
        tables.append(run(stages)[0].table)
    assert tables[0]["ds_max"].equals(tables[1]["ds_max"])
    assert sum(state == "scored" for state in tables[0]["state"].to_pylist()) > 20
    with pytest.raises(InputError, match="contig_aliases"):
        run(stages_of(world, input_path=str(path)))


def test_an_annotation_of_another_naming_style_is_refused(tmp_path, world):
    bare = genome.make_genome(tmp_path / "bare", prefix="")
    with pytest.raises(InputError, match="names its contigs as in '1', the reference as in 'chr1'"):
        stages_of(world, genes_path=str(bare.ensembl_gtf)).open_reader()


@pytest.mark.parametrize(
    ("contig", "known", "expected"),
    [("1", {"1"}, "1"), ("1", {"chr1"}, "chr1"), ("chr1", {"1"}, "1"), ("2", {"1"}, "2")],
)
def test_gene_contigs_through_the_aliases(contig, known, expected):
    assert gene_contig(contig, known, {"1": "chr1"}) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scorer": "splice_deltas"}, "did you mean 'splice_delta'"),
        ({"params": {"distanc": 1}}, "did you mean 'distance'"),
        ({"genes_path": None}, "splice_delta needs genes"),
        ({"model": None}, "splice_delta needs a model"),
        ({"model": "counter"}, "has no head 'splice'"),
    ],
)
def test_what_cannot_be_opened(world, given, message):
    if given.get("model"):
        given = {"model": str(world[0] / given["model"])}
    with pytest.raises(InputError, match=message):
        replace(stages_of(world), **given).open_component()


def test_opening_the_reader_loads_no_torch(world):
    """Readers run in processes of their own, where torch would only cost memory and start-up."""
    code = (
        "import sys, pickle\n"
        "stages = pickle.loads(sys.stdin.buffer.read())\n"
        "read = stages.open_reader()\n"
        "scan = read.source.scan(records_per_shard=50, bytes_per_shard=1 << 25)\n"
        "assert read(scan.shards[0]).units\n"
        "assert 'torch' not in sys.modules and 'ray' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(stages_of(world)), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_scorers_share_the_common_columns(world):
    """What is not the scorer's own does not depend on it, as long as both need genes or both need none."""
    first, second = (run(stages_of(world, **given))[0].table for given in SCORERS[2:])
    names = first.column_names[:16]
    assert first.select(names).equals(second.select(names))


def test_a_model_of_proteins_reads_no_variants(tmp_path):
    sequence_model(tmp_path / "model", encoder="protein_tokens", num_tokens=21, in_channels=1, symmetry="stranded")
    stages = VariantStages(
        input_path="variants.vcf",
        reference_path="genome.fa",
        model=str(tmp_path / "model"),
        scorer="allele_effect",
        params={"window_bp": 9},
    )
    with pytest.raises(InputError, match="encoder 'protein_tokens' reads protein, and variants are of DNA"):
        stages.open_component()
