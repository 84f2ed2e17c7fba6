"""Sources of sequences: what the plan counted is what the shards hold, whatever the file and however it is cut."""

from __future__ import annotations

import gzip
import hashlib
import pickle

import polars as pl
import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DataError, InputError
from engine.genome.reference import ReferenceGenome
from engine.io import bgzf, sequences, streams
from engine.io._joined_sequences import JoinedSequences
from engine.io._sequence_columns import Layout
from engine.io._sequence_rows import WindowShape
from engine.io.sequences import needs_blocks, open_sequences, reblock

FASTA = b"".join(b">r%d d\n%s\n%s\n" % (i, b"ACGT" * (i % 7), b"GG" * (i % 3)) for i in range(200))
TABLE = "id,sequence,label\n" + "".join(f"r{i},{'ACGT' * (i % 7)},c{i % 2}\n" for i in range(200))


def write(path, data: bytes, how: str):
    packed = {"plain": data, "bgzf": bgzf.compress(data) + bgzf.EOF, "gzip": gzip.compress(data)}
    path.write_bytes(packed[how])
    return path


def opened(path, layout=None, **more):
    blocked = None
    if needs_blocks(path):
        blocked = path.with_suffix(".blocked")
        reblock(path, blocked)
    return open_sequences(path, layout or Layout(), blocked=blocked, **more)


def everything(source, *, records_per_shard=13, bytes_per_shard=1 << 20):
    scan = source.scan(records_per_shard=records_per_shard, bytes_per_shard=bytes_per_shard)
    raws = [source.read(shard) for shard in scan.shards]
    assert [raw.first_record for raw in raws] == [shard.first_record for shard in scan.shards]
    assert sum(raw.table.num_rows for raw in raws) == scan.num_records
    return scan, [row for raw in raws for row in raw.table.to_pylist()]


@pytest.mark.parametrize("how", ["plain", "bgzf", "gzip"])
@pytest.mark.parametrize("batch", [64, 1 << 20])
def test_shards_of_fasta_hold_what_pysam_reads(tmp_path, monkeypatch, how, batch):
    monkeypatch.setattr(sequences, "_BATCH_BYTES", batch)
    path = write(tmp_path / "in.fa", FASTA, how)
    scan, rows = everything(opened(path))
    with pysam.FastxFile(str(path)) as judge:
        assert [(row["id"], row["sequence"]) for row in rows] == [(one.name, one.sequence or "") for one in judge]
    assert scan.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(scan.shards) == 16


@pytest.mark.parametrize("how", ["plain", "bgzf", "gzip", "parquet"])
def test_tables_hold_what_polars_reads(tmp_path, monkeypatch, how):
    monkeypatch.setattr(sequences, "_BATCH_BYTES", 100)
    path = tmp_path / "in.table"
    judge = pl.read_csv(TABLE.encode()).with_columns(pl.col("sequence").fill_null(""))
    if how == "parquet":
        judge.write_parquet(path, row_group_size=31)
    else:
        write(path, TABLE.encode(), how)
    _, rows = everything(opened(path))
    assert [(row["id"], row["sequence"], row["label"]) for row in rows] == judge.rows()


@given(
    num=st.integers(1, 60),
    shard=st.tuples(st.integers(1, 70), st.integers(1, 400)),
    batch=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    fasta=st.booleans(),
)
def test_rows_do_not_depend_on_how_the_input_is_cut(tmp_path_factory, num, shard, batch, fasta):
    records_per_shard, bytes_per_shard = shard
    lines = "\n".join(TABLE.splitlines(keepends=True)[: num + 1]).encode()
    text = FASTA[: FASTA.find(b">r%d " % num)] if fasta else lines
    path = write(tmp_path_factory.mktemp("t") / "in.csv", text, "plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequences, "_BATCH_BYTES", batch[0])
        patch.setattr(streams, "_PLAIN_BYTES", batch[1])
        source = opened(path)
        scan, rows = everything(source, records_per_shard=records_per_shard, bytes_per_shard=bytes_per_shard)
    assert scan.num_records == num
    assert [row["id"] for row in rows] == [f"r{i}" for i in range(num)]
    assert [row["sequence"].count("ACGT") for row in rows] == [i % 7 for i in range(num)]
    assert all(shard.num_records <= records_per_shard for shard in scan.shards)


def test_the_watcher_sees_every_record_once_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(sequences, "_BATCH_BYTES", 128)
    monkeypatch.setattr(streams, "_PLAIN_BYTES", 100)
    seen = []
    source = opened(write(tmp_path / "in.fa", FASTA, "plain"), watch=seen.append)
    source.scan(records_per_shard=10, bytes_per_shard=1000)
    assert len(seen) > 5
    assert [name for raw in seen for name in raw.table["id"].to_pylist()] == [f"r{i}" for i in range(200)]
    assert [raw.first_record for raw in seen][1] == seen[0].table.num_rows


def test_sources_and_rows_travel(tmp_path):
    raw = opened(write(tmp_path / "in.fa", FASTA, "plain")).read(
        opened(tmp_path / "in.fa").scan(records_per_shard=5, bytes_per_shard=1 << 20).shards[1]
    )
    assert pickle.loads(pickle.dumps(raw)).table.equals(raw.table)


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        ("\ufeffid,sequence\nr0,ACGT\n", {}),
        ("#id\tsequence\nr0\tACGT\n", {}),
        ("id;sequence\nr0;ACGT\n", {}),
        ("r0,ACGT\n", {"columns": ("id", "sequence")}),
        ("r0,\t\tACGT\n", {"columns": ("id", "sequence"), "delimiter": ","}),
        ("r0,\t\tACGT\n", {"columns": ("id", "sequence")}),
        ('"id","sequence"\n"r0","ACGT"\n', {}),
        ("name,seq\r\nr0,ACGT\r\n", {"id": "name", "sequence": "seq"}),
        ("\n\nid,sequence\n\nr0 , ACGT \n\n", {}),
        ("sequence,id\nACGT,r0", {}),
    ],
)
def test_tables_of_many_kinds(tmp_path, text, layout):
    path = write(tmp_path / "in.csv", text.encode(), "plain")
    _, rows = everything(opened(path, Layout(**layout)))
    assert [(row["id"], row["sequence"]) for row in rows] == [("r0", "ACGT")]


@pytest.mark.parametrize(
    ("data", "layout", "sentence"),
    [
        (b"", {}, "the file is empty"),
        (b"\n \n", {}, "the file is empty"),
        (b"\x00\x01\x02", {}, "it is no text"),
        (b"PAR1 and no more", {}, "does not decode"),
        (b"id,seq\nr0,A\n", {}, "no column for sequence; it has 'id', 'seq'"),
        (b"id,sequence\nr0,A\n", {"label": "class"}, "there is no column 'class'"),
        (b"id,id,sequence\nr0,1,A\n", {}, "two columns are named 'id'"),
        (b">a\nACGT\n", {"label": "class"}, "FASTA has no columns, yet class is asked for"),
        (gzip.compress(FASTA)[:-20], {}, "cut short"),
        (gzip.compress(FASTA)[:30] + b"\xff" * 90, {}, "the gzip file is"),
        ((bgzf.compress(FASTA) + bgzf.EOF)[:-40], {}, "BGZF end marker is missing"),
    ],
)
def test_what_is_no_input_is_refused_in_one_sentence(tmp_path, data, layout, sentence):
    path = tmp_path / "in"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        everything(opened(path, Layout(**layout)))
    assert sentence in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        opened(tmp_path / "absent.fa")


def test_a_record_without_end_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(sequences, "MAX_RECORD_BYTES", 1 << 20)
    path = write(tmp_path / "in.fa", b">a\n" + b"A" * (8 << 20), "plain")
    with pytest.raises(InputError, match="a record is longer than 1 MiB"):
        opened(path).scan(records_per_shard=1, bytes_per_shard=1 << 20)


def test_a_shard_that_holds_other_records_now_is_told(tmp_path):
    path = write(tmp_path / "in.fa", FASTA, "plain")
    source = opened(path)
    shards = source.scan(records_per_shard=10, bytes_per_shard=1 << 20).shards
    path.write_bytes(FASTA.replace(b">r5", b"\nr5"))
    with pytest.raises(DataError, match="the plan has 10 records here"):
        source.read(shards[0])


GENOME = b">chr1\n" + b"ACGTT" * 20 + b"\n>chr2\n" + b"GGGCC" * 3 + b"AGGCC\n"


@pytest.fixture
def reference(tmp_path):
    path = tmp_path / "ref.fa"
    path.write_bytes(GENOME)
    return ReferenceGenome(path)


def test_windows_are_those_of_pysam(tmp_path, reference):
    bed = b"track x\n#c\nchr1\t10\t20\ta\t0\t+\nchr1\t10\t20\tb\t0\t-\nchr2\t0\t5\tc\t0\t.\n"
    path = write(tmp_path / "in.bed", bed, "plain")
    _, rows = everything(opened(path, reference=reference))
    with pysam.FastaFile(reference.path) as judge:
        forward = judge.fetch("chr1", 10, 20)
        assert rows[0]["sequence"] == forward
        assert rows[1]["sequence"] == forward[::-1].translate(str.maketrans("ACGT", "TGCA"))
        assert rows[2]["sequence"] == judge.fetch("chr2", 0, 5)
    assert [rows[0][name] for name in ("id", "contig", "start", "end")] == ["a", "chr1", 10, 20]


def test_windows_around_a_place_are_filled_with_n_outside(tmp_path, reference):
    path = write(tmp_path / "in.bed", b"chr2\t0\t2\nchr2\t18\t20\n", "plain")
    _, rows = everything(opened(path, Layout(), reference=reference, shape=WindowShape(6)))
    assert [(row["start"], row["end"], row["sequence"]) for row in rows] == [(-2, 4, "NNGGGC"), (16, 22, "GGCCNN")]


def test_places_that_make_no_sense_are_problems(tmp_path, reference):
    lines = b"chr1\t10\t5\nchr1\tx\t5\nchr1\t1\t5\nchr1\t90\t500\n"
    path = write(tmp_path / "in.bed", b"contig\tstart\tend\n" + lines, "plain")
    source = opened(path, reference=reference)
    shard = source.scan(records_per_shard=9, bytes_per_shard=1 << 20).shards[0]
    raw = source.read(shard)
    assert sorted(raw.problems) == [0, 1, 3]
    assert "past the end of chr1 (100 bases)" in raw.problems[3].sentence
    assert raw.table["sequence"].to_pylist()[2] == "CGTT"


def test_a_contig_that_the_reference_lacks_stops_the_run(tmp_path, reference):
    path = write(tmp_path / "in.bed", b"1\t0\t5\n", "plain")
    seen = []
    with pytest.raises(InputError, match="chr1"):
        opened(path, reference=reference, watch=seen.append).scan(records_per_shard=9, bytes_per_shard=1 << 20)


@pytest.mark.parametrize("strand", ["+", "-"])
@pytest.mark.parametrize("anchor", ["start", "end"])
@pytest.mark.parametrize("length", [1, 2, 7, 8])
def test_the_anchor_is_the_middle_base_of_the_window_on_its_strand(tmp_path, reference, strand, anchor, length):
    path = write(tmp_path / "in.bed", f"chr1\t40\t47\ta\t0\t{strand}\n".encode(), "plain")
    _, [row] = everything(opened(path, reference=reference, shape=WindowShape(length, anchor)))
    _, [place] = everything(opened(path, reference=reference))
    assert row["end"] - row["start"] == len(row["sequence"]) == length
    assert row["sequence"][length // 2] == place["sequence"][0 if anchor == "start" else -1]
    first = (anchor == "start") == (strand == "+")
    middle = length // 2 if strand == "+" else length - 1 - length // 2
    assert row["start"] + middle == (40 if first else 46)


def test_a_margin_is_more_on_both_sides(tmp_path, reference):
    path = write(tmp_path / "in.bed", b"chr1\t40\t47\ta\t0\t-\n", "plain")
    _, [plain] = everything(opened(path, reference=reference, shape=WindowShape(8, "start")))
    _, [wide] = everything(opened(path, reference=reference, shape=WindowShape(8, "start", 3)))
    assert wide["sequence"][3:-3] == plain["sequence"]
    assert (wide["start"], wide["end"]) == (plain["start"] - 3, plain["end"] + 3)


def test_windows_past_a_contig_end_can_be_refused(tmp_path, reference):
    path = write(tmp_path / "in.bed", b"chr2\t0\t2\nchr2\t8\t10\n", "plain")
    source = opened(path, reference=reference, shape=WindowShape(6, past_ends="reject"))
    raw = source.read(source.scan(records_per_shard=9, bytes_per_shard=1 << 20).shards[0])
    assert {row: problem.reason for row, problem in raw.problems.items()} == {0: "past_contig_end"}


def test_shards_of_windows_are_cut_by_their_letters(tmp_path, reference):
    path = write(tmp_path / "in.bed", b"chr1\t10\t11\n" * 30, "plain")
    source = opened(path, reference=reference, shape=WindowShape(50))
    shards = source.scan(records_per_shard=100, bytes_per_shard=500).shards
    assert [shard.num_records for shard in shards] == [10, 10, 10]


GTF = (
    "#!genome-build toy\n"
    'chr1\tx\tgene\t11\t20\t.\t+\t.\tgene_id "g1"; gene_biotype "protein_coding";\n'
    'chr1\tx\texon\t11\t15\t.\t+\t.\tgene_id "g1"; transcript_id "t1";\n'
    'chr2\tx\tgene\t1\t4\t.\t-\t.\tgene_id "g2"; gene_biotype "lncRNA; long";\n'
)
GFF3 = (
    "##gff-version 3\n"
    "chr1\tx\tgene\t11\t20\t.\t+\t.\tID=g1;gene_id=g1;gene_biotype=protein_coding\n"
    "chr1\tx\texon\t11\t15\t.\t+\t.\tParent=t1\n"
    "chr2\tx\tgene\t1\t4\t.\t-\t.\tID=g2;gene_id=g2;gene_biotype=lncRNA%3B long\n"
    "##FASTA\n>chr1\nACGT\n"
)


@pytest.mark.parametrize("text", [GTF, GFF3])
@pytest.mark.parametrize("batch", [16, 1 << 20])
def test_features_are_the_places_of_their_lines(tmp_path, monkeypatch, reference, text, batch):
    monkeypatch.setattr(sequences, "_BATCH_BYTES", batch)
    monkeypatch.setattr(streams, "_PLAIN_BYTES", batch)
    path = write(tmp_path / "in.gff", text.encode(), "plain")
    _, rows = everything(opened(path, Layout(label="gene_biotype"), reference=reference), records_per_shard=1)
    names = ("id", "group", "label", "contig", "start", "end", "strand", "sequence")
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("g1", "g1", "protein_coding", "chr1", 10, 20, "+", "ACGTTACGTT"),
        ("g2", "g2", "lncRNA; long", "chr2", 0, 4, "-", "GCCC"),
    ]
    _, exons = everything(opened(path, Layout(feature="exon"), reference=reference))
    assert [(row["start"], row["end"]) for row in exons] == [(10, 15)]


@pytest.mark.parametrize(
    ("layout", "sentence"),
    [
        (Layout(label="biotype"), "'gene' lines have no column or attribute 'biotype'; they have 'contig'"),
        (Layout(feature="tRNA"), "there is no record in it"),
    ],
)
def test_features_and_attributes_that_are_not_there(tmp_path, reference, layout, sentence):
    path = write(tmp_path / "in.gtf", GTF.encode(), "plain")
    with pytest.raises(InputError, match=sentence):
        everything(opened(path, layout, reference=reference))


def test_features_need_a_reference(tmp_path):
    with pytest.raises(InputError, match="it is GTF or GFF3, which holds places alone"):
        opened(write(tmp_path / "in.gtf", GTF.split("\n", 1)[1].encode(), "plain"))


def joined(paths, watch=None):
    return JoinedSequences(lambda i, see: opened(paths[i], watch=see), [str(path) for path in paths], watch=watch)


def test_several_inputs_are_one_after_the_other(tmp_path):
    paths = [
        write(tmp_path / "a.fa", FASTA, "gzip"),
        write(tmp_path / "b.csv", TABLE.encode(), "bgzf"),
        write(tmp_path / "c.fa", FASTA, "plain"),
    ]
    pl.read_csv(TABLE.encode()).write_parquet(tmp_path / "d.parquet")
    paths.append(tmp_path / "d.parquet")
    seen = []
    source = joined(paths, seen.append)
    scan, rows = everything(source, records_per_shard=33)
    assert [row["id"] for row in rows] == [f"r{i}" for i in range(200)] * 4
    assert [row["label"] for row in rows[:200]] == [None] * 200
    assert [row["label"] for row in rows[200:400]] == [f"c{i % 2}" for i in range(200)]
    assert [raw.first_record for raw in seen] == [0, 200, 400, 600]
    assert source.has("label")
    assert [shard.shard for shard in scan.shards] == list(range(28))
    assert scan.digest != joined(paths[::-1]).scan(records_per_shard=33, bytes_per_shard=1 << 20).digest
    alone = joined(paths[2:3]).scan(records_per_shard=33, bytes_per_shard=1 << 20)
    assert alone.digest == hashlib.sha256(FASTA).hexdigest()
