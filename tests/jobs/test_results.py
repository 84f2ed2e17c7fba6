"""What a run leaves, read by the tools of its users: bcftools, tabix, polars, pyarrow, DuckDB; and by our own jobs."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from engine.io import bgzf
from tests.toys.runs import result_bytes
from tests.toys.variant_runs import Workspace, replisome, replisome_here

SCORES = ["ds_ag", "ds_al", "ds_dg", "ds_dl", "dp_ag", "dp_al", "dp_dg", "dp_dl", "ds_max"]
SITE = ["contig", "start", "ref", "alt", "alt_index", "norm_start", "norm_ref", "norm_alt"]
REGIONS = "chr1:1190-2300,chr1:4101-4200,chr2"


def tool(*words: object) -> str:
    """What a tool prints; it must neither fail nor warn."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def lines_of(path: Path) -> list[str]:
    return gzip.decompress(path.read_bytes()).decode().splitlines()


def without_ours(line: str) -> str:
    """A record line less the tags of ours."""
    fields = line.split("\t")
    fields[7] = ";".join(tag for tag in fields[7].split(";") if not tag.startswith("RPL_")) or "."
    return "\t".join(fields)


def table_of(output: Path) -> pa.Table:
    return pq.read_table(output / "data")


def splice_words(workspace: Workspace, output: Path, *, vcf: Path | str, genes: Path | None = None) -> list[str]:
    """The words of the run `spliced`, less its further results."""
    words = workspace.arguments(output, scorer="splice_delta")
    words[1] = str(vcf)
    if genes is not None:
        words[words.index("--genes") + 1] = str(genes)
    return [*words, "--distance", "30"]


def rescored(workspace: Workspace, output: Path, *more: str, vcf: Path | str, genes: Path | None = None) -> pa.Table:
    done = replisome_here(*splice_words(workspace, output, vcf=vcf, genes=genes), *more)
    assert done.returncode == 0, done.stderr
    return table_of(output)


# ---------------------------------------------------------------- the scored VCF


def test_every_untouched_field_is_the_inputs_byte_for_byte(workspace, spliced):
    theirs, ours = lines_of(workspace.vcf), lines_of(spliced / "scores.vcf.gz")
    body = [line for line in ours if not line.startswith("#")]
    assert [without_ours(line) for line in body] == [line for line in theirs if not line.startswith("#")]
    assert sum(line != without_ours(line) for line in body) > 300
    header = [line for line in theirs if line.startswith("#")]
    assert ours[: len(header) - 1] == header[:-1]
    assert ours[len(ours) - len(body) - 1] == header[-1]


def test_hostile_lines_are_all_accounted_for(workspace, calm):
    """Lines that parse come back byte for byte; each that does not stands in rejects with its reason and text."""
    theirs = [line for line in lines_of(workspace.hostile_vcf) if not line.startswith("#")]
    rejects = pq.read_table(calm / "rejects").to_pylist()
    lost = {row["record"] for row in table_of(calm).to_pylist() if row["contig"] is None}
    refused = {row["record"]: row for row in rejects if row["record"] in lost}
    assert set(refused) == lost
    assert {row["reason"] for row in refused.values()} == {"malformed_record", "bad_position"}
    assert [refused[n]["text"] for n in sorted(lost)] == ["\t".join(theirs[n].split("\t")[:8]) for n in sorted(lost)]
    ours = [without_ours(line) for line in lines_of(calm / "scores.vcf.gz") if not line.startswith("#")]
    assert ours == [line for number, line in enumerate(theirs) if number not in lost]


def test_bcftools_reads_subsets_and_queries(spliced):
    vcf = spliced / "scores.vcf.gz"
    whole = tool("bcftools", "view", "-H", vcf).splitlines()
    assert len(whole) == json.loads((spliced / "manifest.json").read_text())["num_records"]
    one = tool("bcftools", "view", "-s", "S1", vcf).splitlines()
    assert one[-1].count("\t") == 9
    asked = tool("bcftools", "query", "-f", "%CHROM\t%POS\t%ALT\t%INFO/RPL_STATE\t%INFO/RPL_DS_MAX\n", vcf)
    best: dict[tuple[str, str, int], float] = {}
    for row in table_of(spliced).to_pylist():
        if row["ds_max"] is not None:
            key = (row["record"], row["alt_index"])
            best[key] = max(best.get(key, 0.0), row["ds_max"])
    for record, line in enumerate(asked.splitlines()):
        texts = line.split("\t")[4].split(",")
        for number, text in enumerate(texts, 1):
            expected = best.get((record, number))
            assert (text == ".") == (expected is None), line
            assert expected is None or float(text) == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize("name", ["scores.vcf.gz", "scores.bcf"])
def test_our_index_leads_to_the_same_records_as_reading_on(spliced, name):
    path = spliced / name
    for region in ("chr1:1202", "chr1:1990-2121", "chr2", "chr3:300-700", "chr1:29000-30000"):
        by_index = tool("bcftools", "view", "-H", "-r", region, path)
        assert by_index
        assert by_index == tool("bcftools", "view", "-H", "-t", region, "--targets-overlap", "1", path)


def test_the_index_counts_the_records(spliced):
    num_records = len(tool("bcftools", "view", "-H", spliced / "scores.vcf.gz").splitlines())
    assert int(tool("bcftools", "index", "-n", spliced / "scores.vcf.gz")) == num_records


def test_the_bcf_equals_the_vcf(spliced):
    assert tool("bcftools", "view", "-H", spliced / "scores.bcf") == tool(
        "bcftools", "view", "-H", spliced / "scores.vcf.gz"
    )


def test_tabix_finds_the_scores_of_a_site_for_vep(spliced):
    path = spliced / "scores.vep.tsv.gz"
    assert tool("tabix", "-l", path).split() == ["chr1", "chr2", "chr3"]
    # 1-based 1202 is the first T of the donor's GT after the exon's end; no other record ends there.
    (line,) = tool("tabix", path, "chr1:1202-1202").splitlines()
    assert line.split("\t")[:3] == ["chr1", "1201", "1202"]
    assert line.split("\t")[3].startswith("T>G&RPL_DS_AG:0.0048&")
    scored = {row["record"] for row in table_of(spliced).to_pylist() if row["state"] == "scored"}
    assert len(lines_of(path)) == len(scored)


# ---------------------------------------------------------------- the tables


def test_the_counts_of_the_manifest_are_those_of_the_files(spliced, calm):
    for output in (spliced, calm):
        manifest = json.loads((output / "manifest.json").read_text())
        rows = pl.read_parquet(output / "data/**/*.parquet")
        states = dict(rows.group_by("state").len().iter_rows())
        assert {state: count for state, count in manifest["totals"]["states"].items() if count} == states
        assert manifest["totals"]["reasons"] == dict(
            rows.filter(pl.col("reason").is_not_null()).group_by("reason").len().sort("reason").iter_rows()
        )
        assert manifest["num_records"] == rows["record"].n_unique() == manifest["totals"]["records_in"]
        files = pq.read_table(output / "files.parquet").to_pylist()
        assert {file["path"] for file in files} == set(result_bytes(output)) - {"manifest.json", "files.parquet"}
        for file in files:
            assert file["bytes"] == (output / file["path"]).stat().st_size
            if file["path"].endswith(".parquet"):
                assert file["rows"] == pq.read_metadata(output / file["path"]).num_rows, file


def test_polars_pyarrow_and_duckdb_read_the_table(spliced):
    rows = table_of(spliced).sort_by([("record", "ascending"), ("alt_index", "ascending"), ("gene_id", "ascending")])
    by_polars = pl.read_parquet(spliced / "data/**/*.parquet").sort("record", "alt_index", "gene_id", nulls_last=True)
    assert by_polars.to_dicts() == rows.to_pylist()
    by_dataset = ds.dataset(spliced / "data", format="parquet").to_table()
    assert by_dataset.equals(table_of(spliced))
    query = f"from read_parquet('{spliced}/data/**/*.parquet') order by record, alt_index, gene_id nulls last"
    assert duckdb.sql(query).to_arrow_table().to_pylist() == rows.to_pylist()


def test_hive_folders_are_read_with_their_contig(workspace, tmp_path):
    """From hostile input, whose lines that do not parse have no contig."""
    words = [*workspace.arguments(tmp_path / "out"), "--partition-by-contig"]
    assert replisome_here(*words).returncode == 0
    hive = tmp_path / "out" / "by_contig"
    plain = table_of(tmp_path / "out")
    columns = plain.column_names
    expected = sorted(plain.to_pylist(), key=lambda row: (row["record"], row["alt_index"]))
    assert sum(row["contig"] is None for row in expected) == 3
    by_arrow = ds.dataset(hive, format="parquet", partitioning="hive").to_table().select(columns)
    by_polars = pl.scan_parquet(hive, hive_partitioning=True).select(columns).collect().to_arrow()
    query = f"select {', '.join(columns)} from read_parquet('{hive}/**/*.parquet', hive_partitioning=true)"
    by_duckdb = duckdb.sql(query).to_arrow_table()
    for found in (by_arrow, by_polars, by_duckdb):
        assert sorted(found.to_pylist(), key=lambda row: (row["record"], row["alt_index"])) == expected


# ---------------------------------------------------------------- other ways in


def test_plain_text_and_bcf_give_the_same_rows(workspace, spliced, tmp_path):
    base = table_of(spliced)
    plain = tmp_path / "in.vcf"
    plain.write_bytes(gzip.decompress(workspace.vcf.read_bytes()))
    assert rescored(workspace, tmp_path / "plain", "--keep-info", "KIND,AF", vcf=plain).equals(base)
    tool("bcftools", "view", "-Ob", "-o", tmp_path / "in.bcf", workspace.vcf)
    from_bcf = rescored(workspace, tmp_path / "bcf", "--keep-info", "KIND,AF", vcf=tmp_path / "in.bcf")
    # BCF holds numbers, not their text.
    assert set(from_bcf["info_AF"].to_pylist()) == {"0.0001"}
    assert from_bcf.drop_columns("info_AF").equals(base.drop_columns("info_AF"))


def test_standard_input_gives_the_same_rows_and_vcf(workspace, calm, tmp_path):
    words = [*workspace.arguments(tmp_path / "out"), "--workers", "1"]
    words[1] = "-"
    done = replisome(*words, stdin=gzip.decompress(workspace.hostile_vcf.read_bytes()))
    assert (done.returncode, done.stderr) == (0, "")
    assert table_of(tmp_path / "out").equals(table_of(calm))
    assert lines_of(tmp_path / "out/scores.vcf.gz") == lines_of(calm / "scores.vcf.gz")


def test_a_variant_table_gives_the_same_scores(workspace, spliced, tmp_path):
    base = table_of(spliced)
    records = {row["record"]: row for row in base.to_pylist()}
    alts: dict[int, list[str]] = {}
    for row in base.to_pylist():
        if row["alt"] is not None and row["alt"] not in alts.setdefault(row["record"], []):
            alts[row["record"]].append(row["alt"])
    sites = [
        {"contig": row["contig"], "start": row["start"], "ref": row["ref"], "alts": alts.get(number), "id": row["id"]}
        for number, row in sorted(records.items())
    ]
    pq.write_table(pa.Table.from_pylist(sites), tmp_path / "in.parquet", row_group_size=70)
    found = rescored(workspace, tmp_path / "out", vcf=tmp_path / "in.parquet")
    assert found.equals(base.drop_columns(["info_KIND", "info_AF"]))
    tool("bcftools", "view", "-H", tmp_path / "out/scores.vcf.gz")


def test_a_run_is_input_to_another_and_its_tags_are_replaced(workspace, spliced, calm, tmp_path):
    again = rescored(workspace, tmp_path / "again", "--keep-info", "KIND,AF", vcf=f"run:{spliced}")
    assert again.equals(table_of(spliced))
    body = [line for line in lines_of(spliced / "scores.vcf.gz") if not line.startswith("#")]
    assert [line for line in lines_of(tmp_path / "again/scores.vcf.gz") if not line.startswith("#")] == body
    words = workspace.arguments(tmp_path / "both")
    words[1] = f"run:{spliced}"
    assert replisome_here(*words).returncode == 0
    both = tool(
        "bcftools",
        "query",
        "-f",
        "%INFO/RPL_STATE %INFO/RPL_GC_CHANGE %INFO/RPL_DS_MAX\n",
        "-r",
        "chr1:1202",
        tmp_path / "both/scores.vcf.gz",
    )
    assert both.split()[0] == "scored"
    assert all(word != "." for word in both.split())
    header = [line for line in lines_of(tmp_path / "both/scores.vcf.gz") if line.startswith("##INFO=<ID=RPL_STATE,")]
    assert len(header) == 1


def test_a_run_that_was_changed_is_no_input(workspace, spliced, tmp_path):
    copy = Path(shutil.copytree(spliced, tmp_path / "copy"))
    data = (copy / "scores.vcf.gz").read_bytes()
    (copy / "scores.vcf.gz").write_bytes(data[:2000] + bytes([data[2000] ^ 1]) + data[2001:])
    done = replisome_here(*splice_words(workspace, tmp_path / "out", vcf=f"run:{copy}"))
    assert done.returncode == 2
    assert "scores.vcf.gz was changed after that run was finished; run `replisome verify`" in done.stderr


def test_regions_equal_the_filter_of_the_whole_run(workspace, spliced, tmp_path):
    """bcftools is the judge of what a region holds; with an index, without one, from BCF and from a file of regions."""
    chosen = tool("bcftools", "query", "-r", REGIONS, "-f", "%CHROM %POS0 %ID %REF\n", workspace.vcf).splitlines()
    base = table_of(spliced).drop_columns(["info_KIND", "info_AF"])
    rows = [row for row in base.to_pylist() if "{contig} {start} {id} {ref}".format(**row) in chosen]
    assert 20 < len(rows) < base.num_rows - 20
    unindexed = Path(shutil.copy(workspace.vcf, tmp_path / "in.vcf.gz"))
    tool("bcftools", "view", "-Ob", "-o", tmp_path / "in.bcf", workspace.vcf)
    tool("bcftools", "index", tmp_path / "in.bcf")
    bed = tmp_path / "regions.bed"
    bed.write_text("chr1\t1189\t2300\nchr1\t4100\t4200\nchr2\t0\t12000\n")
    found = {
        "indexed": rescored(workspace, tmp_path / "a", "-r", REGIONS, vcf=workspace.vcf),
        "unindexed": rescored(workspace, tmp_path / "b", "-r", REGIONS, vcf=unindexed),
        "bcf": rescored(workspace, tmp_path / "c", "-r", REGIONS, vcf=tmp_path / "in.bcf"),
        "bed": rescored(workspace, tmp_path / "d", "-R", str(bed), vcf=workspace.vcf),
        "run": rescored(workspace, tmp_path / "e", "-r", REGIONS, vcf=f"run:{spliced}"),
    }
    for name, table in found.items():
        assert [{**row, "record": 0} for row in table.to_pylist()] == [{**row, "record": 0} for row in rows], name
        assert set(table["record"].to_pylist()) == set(range(len(chosen))), name
    expected = tool("bcftools", "view", "-H", "-r", REGIONS, spliced / "scores.vcf.gz")
    assert tool("bcftools", "view", "-H", tmp_path / "a/scores.vcf.gz") == expected
    assert tool("bcftools", "view", "-H", tmp_path / "b/scores.vcf.gz") == expected


@pytest.mark.parametrize("kind", ["gencode_gtf", "ensembl_gff3", "refseq_gff3", "spliceai_table"])
def test_all_gene_files_give_the_same_scores(workspace, spliced, tmp_path, kind):
    found = rescored(workspace, tmp_path / "out", vcf=workspace.vcf, genes=getattr(workspace.toy, kind))
    columns = [*SITE, "gene_symbol", "strand", "state", "reason", *SCORES]
    key = [("contig", "ascending"), ("start", "ascending"), ("alt_index", "ascending"), ("gene_symbol", "ascending")]
    assert found.select(columns).sort_by(key).equals(table_of(spliced).select(columns).sort_by(key))


def test_neither_line_ends_nor_block_sizes_change_anything(workspace, calm, tmp_path):
    text = gzip.decompress(workspace.hostile_vcf.read_bytes()).replace(b"\n", b"\r\n")
    path = tmp_path / "in.vcf.gz"
    path.write_bytes(b"".join(bgzf.compress(text[at : at + 700]) for at in range(0, len(text), 700)) + bgzf.EOF)
    assert replisome_here(*workspace.arguments(tmp_path / "out", vcf=path)).returncode == 0
    assert table_of(tmp_path / "out").equals(table_of(calm))
    assert lines_of(tmp_path / "out/scores.vcf.gz") == lines_of(calm / "scores.vcf.gz")
