"""The splicing example as shipped, its builder, and what the shipped model makes of it."""

from __future__ import annotations

import csv
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pysam
import pytest
import torch

from engine.genome.genes import GeneTable
from engine.genome.reference import ReferenceGenome
from engine.models._info import open_model
from engine.scoring import _metrics
from engine.scoring._allele_windows import gather_stretches
from engine.scoring._contract import ScoringUnit, SkippedAllele
from engine.scoring._predictor import Predictor
from engine.scoring.splice_delta import SpliceDelta

EXAMPLE = Path(__file__).parents[2] / "examples" / "splice"
COMPLEMENT = str.maketrans("ACGTN", "TGCAN")


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("splice_example_build", EXAMPLE / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def records() -> list[pysam.VariantRecord]:
    with pysam.VariantFile(str(EXAMPLE / "variants.vcf.gz")) as handle:
        return list(handle)


@pytest.fixture(scope="module")
def sequences() -> dict[str, str]:
    with pysam.FastaFile(str(EXAMPLE / "reference.fa")) as handle:
        return {name: handle.fetch(name) for name in handle.references}


def plus(text: str, strand: str) -> str:
    return text if strand == "+" else text[::-1].translate(COMPLEMENT)


def test_bcftools_finds_every_ref_in_the_reference() -> None:
    command = [
        "bcftools",
        "norm",
        "--check-ref",
        "e",
        "-f",
        "reference.fa",
        "-Ou",
        "-o",
        "/dev/null",
        "variants.vcf.gz",
    ]
    done = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2144/0/" in done.stderr  # total, split


def test_panels_are_whole_and_sorted(records: list[pysam.VariantRecord]) -> None:
    panels = [record.info["PANEL"] for record in records]
    assert (panels.count("vexseq"), panels.count("brca1"), len(panels)) == (1456, 688, 2144)
    keys = [(record.rid, record.pos) for record in records]
    assert keys == sorted(keys)
    assert len({(r.chrom, r.pos, r.ref, r.alts) for r in records}) == 2144
    classes = [(r.info["CLASS"], r.info["CONSEQUENCE"]) for r in records if r.info["PANEL"] == "brca1"]
    assert classes.count(("LOF", "splice_region")) == 74
    assert classes.count(("FUNC", "splice_region")) == 229


def test_the_index_finds_what_a_scan_finds(records: list[pysam.VariantRecord]) -> None:
    with pysam.VariantFile(str(EXAMPLE / "variants.vcf.gz")) as handle:
        for contig in handle.header.contigs:
            found = [(r.pos, r.ref, r.alts) for r in handle.fetch(contig)]
            assert found == [(r.pos, r.ref, r.alts) for r in records if r.chrom == contig]


def test_contigs_agree_in_all_files(sequences: dict[str, str]) -> None:
    with pysam.VariantFile(str(EXAMPLE / "variants.vcf.gz")) as handle:
        named = {name: handle.header.contigs[name].length for name in handle.header.contigs}
    assert named == {name: len(text) for name, text in sequences.items()}
    assert GeneTable.load(EXAMPLE / "genes.txt").contigs == set(named)


def test_every_record_lies_in_its_one_gene(records: list[pysam.VariantRecord]) -> None:
    genes = GeneTable.load(EXAMPLE / "genes.txt")
    for record in records:
        (transcript,) = genes.transcripts_at(record.chrom, record.start)
        first, last = (int(edge) for edge in record.info["EXON"].split("-"))
        shift = record.info["GPOS"] - record.start
        assert transcript.exons == ((first - shift, last - shift + 1),)
        assert transcript.strand == record.info["GSTRAND"]


def test_exons_stand_between_splice_sites(sequences: dict[str, str]) -> None:
    """AG before and GT or GC after, on the transcript's strand: the strands and offsets are right."""
    seen = 0
    for transcript in GeneTable.load(EXAMPLE / "genes.txt").transcripts:
        ((start, end),) = transcript.exons
        text = plus(sequences[transcript.contig], transcript.strand)
        if transcript.strand == "-":
            start, end = len(text) - end, len(text) - start
        if start > 0:
            assert text[start - 2 : start] == "AG", transcript
        if end < len(text):
            assert text[end : end + 2] in ("GT", "GC"), transcript
        seen += (start > 0) + (end < len(text))
    assert seen == 2 * 89 - 2  # BRCA1 X15 and X23 go on past their windows


def test_small_and_credited() -> None:
    assert sum(path.stat().st_size for path in EXAMPLE.iterdir() if path.is_file()) < 1_000_000
    source = (EXAMPLE / "SOURCE.md").read_text()
    assert "MIT" in source and "Apache-2.0" in source and "medium confidence" in source


VEX_COLUMNS = (
    "variant", "mean_PSI", "delta_PSI", "chromosome", "position", "reference", "alternative", "strand",
    "window_start", "window_end", "exon_start", "exon_end", "variant_sequence", "reference_sequence",
)  # fmt: skip
FORWARD = "TTTTTCAGACGTACGTAGGTAAGT"  # exon at 8 to 16


def vex_row(strand: str, at: int, ref: str, alt: str, first: int = 1001) -> dict[str, str]:
    """A row as the source writes it: alleles on the + strand, sequences on the transcript's."""
    genome = plus(FORWARD, strand)
    assert genome[at : at + len(ref)] == ref
    edited = genome[:at] + alt + genome[at + len(ref) :]
    start, end = (8, 16) if strand == "+" else (len(FORWARD) - 17, len(FORWARD) - 9)
    values = (
        f"chr1_{first + at}_{ref}_{alt}", 60.0, -5.5, "chr1", first + at, ref, alt, strand, first,
        first + len(genome) - 1, first + start, first + end, plus(edited, strand), FORWARD,
    )  # fmt: skip
    return dict(zip(VEX_COLUMNS, map(str, values), strict=True))


def write_table(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("strand", ["+", "-"])
def test_vexseq_rows_become_records(build: ModuleType, tmp_path: Path, strand: str) -> None:
    genome = plus(FORWARD, strand)
    rows = [vex_row(strand, 9, genome[9], "A" if genome[9] != "A" else "C"), vex_row(strand, 3, genome[3:6], genome[3])]
    constructs, records = build.read_vexseq(write_table(tmp_path / "v.csv", rows))
    build.write(tmp_path / "out", constructs, records)
    with pysam.VariantFile(str(tmp_path / "out" / "variants.vcf.gz")) as handle:
        first, second = list(handle)
    assert (first.pos, first.ref, first.alts) == (4, genome[3:6], (genome[3],))
    assert second.info["DPSI"] == pytest.approx(-5.5)
    assert second.info["REF_PSI"] == pytest.approx(65.5)
    assert second.info["GPOS"] == 1010
    (gene,) = GeneTable.load(tmp_path / "out" / "genes.txt").transcripts
    ((start, end),) = gene.exons
    assert plus(genome[start:end], strand) == FORWARD[8:17]


@pytest.mark.parametrize("column", ["variant_sequence", "reference", "position"])
def test_a_row_that_does_not_hold_together_is_refused(build: ModuleType, tmp_path: Path, column: str) -> None:
    row = vex_row("-", 9, plus(FORWARD, "-")[9], "N")
    other = {"variant_sequence": FORWARD, "reference": "N", "position": str(int(row["position"]) + 1)}
    with pytest.raises(SystemExit, match="chr1_1010"):
        build.read_vexseq(write_table(tmp_path / "v.csv", [row | {column: other[column]}]))


def brca_row(at: int, ref: str, hgvs: str, consequence: str, name: str = "LOF") -> dict[str, str]:
    return {
        "chromosome": "17", "position_hg19": str(at), "reference": ref, "alt": "A" if ref != "A" else "C",
        "transcript_variant": hgvs, "consequence": consequence, "function_score_mean": "-1.5", "func_class": name,
        "experiment": "X9", "phyloP": "",
    }  # fmt: skip


def test_brca1_exon_edges_follow_from_hgvs(build: ModuleType, tmp_path: Path) -> None:
    genome = plus(FORWARD, "-")  # first base at 501: exon from 508 to 516
    rows = [
        brca_row(507, genome[6], "c.80+1G>T", "Canonical splice"),
        brca_row(518, genome[17], "c.72-2A>G", "Canonical splice", "FUNC"),
        brca_row(508, genome[7], "c.80G>T", "Missense"),
        brca_row(506, genome[5], "c.80+2T>G", "Intronic", "INT"),
    ]
    window = {"experiment": "X9", "start_hg19": "501", "reference": genome}
    windows = write_table(tmp_path / "w.csv", [window])
    (construct,), records = build.read_brca1(write_table(tmp_path / "b.csv", rows), windows)
    assert (construct.exon, construct.strand) == ((7, 16), "-")
    assert [(r.start, r.ref, r.info["CONSEQUENCE"], r.info["CLASS"]) for r in records] == [
        (6, genome[6], "canonical_splice", "LOF"),
        (17, genome[17], "canonical_splice", "FUNC"),
    ]
    (open_ended,), _ = build.read_brca1(write_table(tmp_path / "b.csv", rows[:1]), windows)
    assert open_ended.exon == (7, len(genome))
    wrong = [*rows, brca_row(505, genome[4], "c.80+1T>G", "Intronic")]
    with pytest.raises(SystemExit, match="several exons"):
        build.read_brca1(write_table(tmp_path / "b.csv", wrong), windows)


def test_the_shipped_model_opens_with_card_and_credit() -> None:
    info = open_model("splice-mini")
    assert (info.members, info.context_bp, info.score_tag, info.licence) == (3, 144, "", "Apache-2.0")
    assert {entry["licence"] for entry in info.training_data} == {"Apache-2.0", "CC-BY-4.0", "MIT"}
    assert all(size < 1_000_000 for _, size, _ in info.files)
    card = (Path(info.path) / "README.md").read_text()
    for words in ("Research use only", "What it cannot do", "branch points", "Towell, Noordewier and Shavlik"):
        assert words in card


@pytest.fixture(scope="module")
def scored(records: list[pysam.VariantRecord]) -> dict[str, np.ndarray]:
    """Scorer columns of every record, by name."""
    torch.set_num_threads(1)
    info = open_model("splice-mini")
    scorer, predictor = SpliceDelta(SpliceDelta.Params(exon_sites=True, reference_psi="REF_PSI"), info), Predictor(info)
    reference, genes = ReferenceGenome(EXAMPLE / "reference.fa"), GeneTable.load(EXAMPLE / "genes.txt")
    prepared = []
    for r in records:
        (gene,) = genes.transcripts_at(r.chrom, r.start)
        psi = (str(r.info["REF_PSI"]) if "REF_PSI" in r.info else None,)
        unit = ScoringUnit(r.chrom, reference.length(r.chrom), r.start, r.ref, r.alts[0], gene, psi)
        prepared.append(scorer.prepare(unit, reference.fetch))
    assert not [one for one in prepared if isinstance(one, SkippedAllele)]
    contrasts = [contrast for one in prepared for contrast in one.contrasts]
    stretches, places = gather_stretches(
        contrasts, lambda *span: scorer.tokens(reference.fetch(*span)), flank=info.context_bp // 2
    )
    questions = [(one, stretches[place]) for one, place in zip(contrasts, places, strict=True)]
    tracks = predictor.contrast(questions, heads=scorer.heads)
    rows = [scorer.score(one, own) for one, own in zip(prepared, tracks, strict=True)]
    return {field.name: np.array([row[i] for row in rows]) for i, field in enumerate(scorer.fields)}


def test_inclusion_change_follows_the_measured_change(
    records: list[pysam.VariantRecord], scored: dict[str, np.ndarray]
) -> None:
    picked = np.array([r.info["PANEL"] == "vexseq" for r in records])
    truth = np.array([r.info["DPSI"] for r in records if r.info["PANEL"] == "vexseq"])
    change, floor = (scored[name][picked].astype(float) for name in ("inclusion_change", "pwm_change"))
    assert np.isfinite(change).all()
    assert _metrics.pearson(change, truth) == pytest.approx(0.583, abs=0.005)
    assert _metrics.spearman(change, truth) == pytest.approx(0.373, abs=0.005)
    assert _metrics.pearson(floor, truth) == pytest.approx(0.538, abs=0.005)
    assert _metrics.spearman(floor, truth) == pytest.approx(0.245, abs=0.005)


def test_change_on_the_psi_scale_follows_the_measured_change_more_closely(
    records: list[pysam.VariantRecord], scored: dict[str, np.ndarray]
) -> None:
    picked = np.array([r.info["PANEL"] == "vexseq" for r in records])
    assert all(value is None for value in scored["psi_change"][~picked])
    truth = np.array([r.info["DPSI"] for r in records if r.info["PANEL"] == "vexseq"])
    change = scored["psi_change"][picked].astype(float)
    assert _metrics.pearson(change, truth) == pytest.approx(0.652, abs=0.005)
    assert _metrics.spearman(change, truth) == pytest.approx(0.382, abs=0.005)


def test_what_the_shipped_model_cannot_reach_does_not_change_at_all(
    records: list[pysam.VariantRecord], scored: dict[str, np.ndarray]
) -> None:
    """Sites further than 72 bases from the variant; matrices that do not hold it; no trace of a float's last digit."""
    context = open_model("splice-mini").context_bp // 2
    seen = 0
    for i, r in enumerate(records):
        edges = scored["exon_start"][i], scored["exon_end"][i] - 1
        for site, edge in zip(("acceptor", "donor"), edges[:: 1 if r.info["GSTRAND"] == "+" else -1], strict=True):
            change = scored[f"{site}_logit_change"][i]
            if change is not None and not -context <= edge - r.start <= context + len(r.ref) - 1:
                assert change == 0.0
                seen += 1
    assert seen > 500
    for name in ("pwm_change", "hexamer_change"):
        changes = np.abs(scored[name].astype(float))
        assert (changes == 0).sum() > 1400 and not ((changes > 0) & (changes < 1e-4)).any()


def test_inclusion_change_finds_lost_function_at_splice_regions(
    records: list[pysam.VariantRecord], scored: dict[str, np.ndarray]
) -> None:
    picked = np.array([r.info.get("CONSEQUENCE") == "splice_region" for r in records])
    lost = np.array([r.info.get("CLASS") == "LOF" for r in records])[picked]
    phylop = np.array([r.info.get("PHYLOP", np.nan) for r in records])[picked]
    auroc = _metrics.auroc(-scored["inclusion_change"][picked].astype(float), lost)
    assert auroc == pytest.approx(0.928, abs=0.005)
    assert auroc > _metrics.auroc(phylop, lost) + 0.1
