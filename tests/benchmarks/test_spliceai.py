"""The comparison with SpliceAI: its variants, its rules and its timing. The tool itself is not needed here."""

from __future__ import annotations

import gzip
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import _spliceai_compare as compare
from benchmarks import _spliceai_peer as harness
from benchmarks import _spliceai_real as real
from benchmarks import _spliceai_runs as runs
from benchmarks import _spliceai_speed as speed
from benchmarks import _spliceai_variants as variants
from benchmarks._spliceai_compare import Answer, Silence, Winner
from engine.genome.genes import GeneTable
from engine.genome.reference import ReferenceGenome
from engine.genome.variants import classify_alt

GENOME = variants.made_up_genome(20)
SITES = variants.made_up_sites(GENOME, 20)
NOT_REFERENCE = ("REF mismatch 1", "REF mismatch 2", "base of an IUPAC letter as REF", "base where the reference has N")


def transcript_text(gene: variants.Gene, low: int, high: int, genome: variants.Genome = GENOME) -> str:
    """Bases [low, high) in transcript orientation."""
    text = genome.bases(gene.contig, low, high - low)
    return text if gene.strand == "+" else variants.reverse_complement(text)


def spliced_pair(gene: variants.Gene, kind: str, edge: int) -> str:
    """The intron's two bases beside an exon edge."""
    outward = 1 if (kind == "donor") == (gene.strand == "+") else -1
    low = edge + 1 if outward == 1 else edge - 2
    return transcript_text(gene, low, low + 2)


def test_made_up_records_cover_all_kinds() -> None:
    kinds = Counter(site.kind for site in SITES)
    assert len(SITES) >= 300
    assert min(kinds.values()) >= 1
    assert {"insertion", "deletion", "gene edge", "contig end", "MNV or delins", "IUPAC ALT", "lower-case REF"} <= set(
        kinds
    )
    sizes = [len(site.ref) - len(site.alts[0]) for site in SITES if site.kind == "long deletion"]
    assert min(sizes) <= 50 < max(size for size in sizes if size <= 100)
    assert max(sizes) > 1_000
    strands = {gene.contig: gene.strand for gene in GENOME.genes}
    assert {strands[site.contig] for site in SITES if site.kind == "snv near a site"} == {"+", "-"}


def test_made_up_records_state_the_reference() -> None:
    for site in SITES:
        if site.kind in NOT_REFERENCE:
            assert site.ref != GENOME.bases(site.contig, site.start, len(site.ref)), site
        else:
            assert site.ref.upper() == GENOME.bases(site.contig, site.start, len(site.ref)), site
    mismatches = sum(site.kind.startswith("REF mismatch") for site in SITES)
    assert 0 < mismatches <= 0.01 * len(SITES)


def test_the_same_seed_makes_the_same_records() -> None:
    assert variants.made_up_genome(20) == GENOME
    assert variants.made_up_sites(GENOME, 20) == SITES
    assert variants.made_up_sites(GENOME, 21) != SITES


def test_planted_sites_stand_at_every_intron_end() -> None:
    for gene in GENOME.genes:
        assert gene.exons[0][0] == gene.start and gene.exons[-1][1] == gene.end
        assert all(one[1] < other[0] for one, other in zip(gene.exons[:-1], gene.exons[1:], strict=True))
        if gene.contig in ("plus", "minus", "ends"):
            found = {spliced_pair(gene, kind, edge) for kind, edge in gene.sites()}
            assert found == {"AG", "GT"}
            assert {kind: spliced_pair(gene, kind, edge) for kind, edge in gene.sites()} == {
                "acceptor": "AG",
                "donor": "GT",
            }
    minus = next(gene for gene in GENOME.genes if gene.contig == "minus")
    kind, edge = minus.sites()[0]
    assert kind == "acceptor"
    before = transcript_text(minus, edge + 1, edge + 1 + len(variants.ACCEPTOR))
    assert before == variants.ACCEPTOR


def test_files_read_back(tmp_path: Path) -> None:
    fasta, genes = variants.write_genome(GENOME, tmp_path)
    placed = variants.write_vcf(tmp_path / "in.vcf", GENOME, SITES)
    assert Counter(placed) == Counter(SITES)
    with pysam.VariantFile(str(tmp_path / "in.vcf")) as stream:
        for number, (record, site) in enumerate(zip(stream, placed, strict=True), 1):
            assert (record.chrom, record.start, record.ref, record.alts or ()) == (
                site.contig,
                site.start,
                site.ref,
                site.alts,
            )
            assert record.id == variants.site_id(number)
    reference = ReferenceGenome(fasta)
    assert {
        name: reference.fetch_written(name, 0, len(text)) for name, text in GENOME.contigs.items()
    } == GENOME.contigs
    table = GeneTable.load(genes)
    for gene in GENOME.genes:
        (found,) = [one for one in table.transcripts_at(gene.contig, gene.start) if one.symbol == gene.name]
        assert (found.start, found.end, found.exons, found.strand) == (gene.start, gene.end, gene.exons, gene.strand)
    assert tuple(real.read_table(genes)) == GENOME.genes


@pytest.fixture(scope="module")
def chosen() -> list[variants.Site]:
    clean = variants.Genome(
        GENOME.contigs, tuple(gene for gene in GENOME.genes if gene.contig in ("plus", "minus", "both"))
    )
    return real.real_sites(clean, 3)


def test_chosen_gains_make_a_new_site(chosen: list[variants.Site]) -> None:
    gained = [site for site in chosen if site.kind.endswith("gained")]
    assert len(gained) > 30
    for site in gained:
        pair = "GT" if site.kind.startswith("donor") else "AG"
        text = GENOME.bases(site.contig, site.start - 1, 3)
        changed = text[0] + site.alts[0] + text[2]
        found = []
        for gene in GENOME.genes:
            if gene.contig == site.contig and gene.start <= site.start < gene.end:
                turn = str if gene.strand == "+" else variants.reverse_complement
                old, new = turn(text), turn(changed)
                found += [new[at : at + 2] == pair != old[at : at + 2] for at in (0, 1)]
        assert any(found), site


def test_chosen_losses_touch_the_site(chosen: list[variants.Site]) -> None:
    kinds = Counter(site.kind for site in chosen)
    for kind in ("acceptor lost", "donor lost", "acceptor deleted", "donor deleted", "insertion at the donor"):
        assert kinds[kind] >= 3
    pairs = {}
    for gene in GENOME.genes:
        for kind, edge in gene.sites():
            outward = 1 if (kind == "donor") == (gene.strand == "+") else -1
            pairs.setdefault((gene.contig, kind), set()).update((edge + outward, edge + 2 * outward))
    for site in chosen:
        kind, _, word = site.kind.partition(" ")
        if word == "lost":
            assert site.start in pairs[site.contig, kind]
        elif word == "deleted":
            assert pairs[site.contig, kind] & set(range(site.start + 1, site.start + len(site.ref)))
    assert len(set(chosen)) == len(chosen)
    assert all(site.ref == GENOME.bases(site.contig, site.start, len(site.ref)) for site in chosen)


def test_site_likeness_is_highest_at_the_consensus() -> None:
    donor = "TTTTTTTTTTCAGGTAAGTTTTTTTT"
    best = real.site_likeness(donor, "donor", donor.index("GT"))
    for at in (10, 11, 12, 15, 16, 17):
        letters = "C" if donor[at] != "C" else "T"
        assert real.site_likeness(donor[:at] + letters + donor[at + 1 :], "donor", 13) < best
    acceptor = "TTCTTTCTTCTTTTCTTTCTTTTCAGGT"
    at = acceptor.index("AG")
    assert real.site_likeness(acceptor, "acceptor", at) > real.site_likeness(acceptor.replace("C", "G"), "acceptor", at)


def test_timed_variants_lie_as_asked() -> None:
    letters = "".join(np.random.default_rng(1).choice(list("ACGT"), 120_000))
    genes = (
        variants.Gene("LONG", "1", "+", 6_000, 90_000, ((6_000, 6_100), (40_000, 40_150), (89_000, 90_000))),
        variants.Gene("SHORT", "1", "-", 95_000, 110_000, ((95_000, 95_500), (109_000, 110_000))),
    )
    genome = variants.Genome({"1": letters}, genes)
    lone = real.lone_sites(genome, 1, num=9)
    gaps = np.diff([site.start for site in lone])
    assert len(lone) == 6 and gaps.min() >= 20_500
    dense = real.spaced_sites(genome, 1, num=190)
    assert len(dense) == 190
    starts = [site.start for site in dense]
    assert set(np.diff(starts[:166])) == {500} and starts[:2] == [6_500, 7_000]
    assert {len(site.ref) for site in dense} > {1} and max(len(site.alts[0]) for site in dense) > 1
    every = real.all_snvs(genome, num=300)
    assert len(every) == 300 == len({(site.start, site.alts) for site in every})
    assert len({site.start for site in every}) == 100 and 40_000 in {site.start for site in every}
    assert all(site.ref == letters[site.start] != site.alts[0] for site in every)


def test_real_genome_takes_genes_that_lie_inside(tmp_path: Path) -> None:
    (tmp_path / "x.fa.gz").write_bytes(gzip.compress(b">9 chromosome\nACGT\nacgn\n"))
    table = tmp_path / "table.txt"
    rows = ["A\t9\t+\t0\t8\t0,5,\t3,8,", "B\t9\t-\t2\t9\t2,\t9,", "C\t8\t-\t2\t5\t2,\t5,"]
    table.write_text("\n".join([variants.TABLE_HEADER, *rows]) + "\n")
    genome = real.real_genome(tmp_path, table)
    assert genome.contigs == {"9": "ACGTacgn"}
    assert [(gene.name, gene.exons) for gene in genome.genes] == [("A", ((0, 3), (5, 8)))]
    with pytest.raises(SystemExit, match=r"\.fa\.gz"):
        real.real_genome(tmp_path / "none", table)


# ---- the rules


def slow_winners(
    ref: list[list[float]], alt: list[list[float]], strand: str, num_ref: int, num_alt: int
) -> list[Winner]:
    """The same, one position at a time."""
    if strand == "-":
        ref, alt = ref[::-1], alt[::-1]
    middle = len(ref) // 2
    found = []
    for channel in (1, 2):
        for sign in (1, -1):
            changes = []
            for at in range(len(ref)):
                if at <= middle and (at < middle or num_alt == 1):
                    value = alt[at][channel]
                elif at == middle:
                    value = max(alt[at + more][channel] for more in range(num_alt))
                elif at < middle + num_ref:
                    value = 0.0
                else:
                    value = alt[at + num_alt - num_ref][channel]
                changes.append(sign * (value - ref[at][channel]))
            best = max(range(len(ref)), key=lambda at: (changes[at], -at))
            rest = [change for at, change in enumerate(changes) if at != best]
            found.append(Winner(changes[best], best - middle, max(rest)))
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(0, 5), st.booleans(), st.sampled_from("+-"), st.integers(0, 2**32 - 1))
def test_winners_equal_the_slow_way(distance: int, more: int, is_deletion: bool, strand: str, seed: int) -> None:
    chance = np.random.default_rng(seed)
    more = min(more, distance)  # a longer deletion moves SpliceAI's zeros, see the test below
    num_ref, num_alt = (1 + more, 1) if is_deletion else (1, 1 + more)
    ref = chance.integers(0, 64, (2 * distance + 1, 3)).astype(np.float32) / 64
    alt = chance.integers(0, 64, (2 * distance + 1 - num_ref + num_alt, 3)).astype(np.float32) / 64
    found = compare.winners(ref, alt, strand=strand, num_ref=num_ref, num_alt=num_alt)
    assert found == slow_winners(ref.tolist(), alt.tolist(), strand, num_ref, num_alt)


def test_winners_of_a_deletion_longer_than_the_distance_have_spliceais_zeros() -> None:
    ref, alt = np.zeros((5, 3), np.float32), np.zeros((2, 3), np.float32)  # distance 2, three bases deleted
    ref[:, 1] = (0.1, 0.2, 0.3, 0.4, 0.5)
    alt[:, 1] = (0.9, 0.2)
    gain, loss, *_ = compare.winners(ref, alt, strand="+", num_ref=4, num_alt=1)
    assert (gain.place, round(gain.delta, 6)) == (-2, 0.8)
    assert (loss.place, round(loss.delta, 6), round(loss.runner_up, 6)) == (2, 0.5, 0.4)


KEY = ("s00001", "A", "GENE")
CLEAR = [Winner(0.5, 3, 0.1)] * 4
CLOSE = [Winner(0.5, 3, 0.4995), Winner(0.04, 3, 0.0), Winner(0.5, 3, 0.1), Winner(0.5, 3, 0.1)]


def parity(
    ours: tuple[float, ...], peer: tuple[float, ...], *, places: tuple[int, ...] = (3,) * 4, raw: list[Winner] = CLEAR
) -> compare.Parity:
    return compare.compare_numbers({KEY: Answer(ours, places)}, {KEY: Answer(peer, (3,) * 4)}, {KEY: raw}, states={})


def test_equal_answers_agree() -> None:
    found = parity((0.501, 0.0, -0.001, 1.0), (0.5, 0.0, 0.0, 1.0))
    assert found.holds and found.pairs == 1 and found.positions == 4 and found.equal_text == 4


@pytest.mark.parametrize(
    ("ours", "holds"), [(0.51, True), (0.5101, False), (0.49, True), (0.4899, False), (float("nan"), False)]
)
def test_deltas_may_differ_by_a_hundredth(ours: float, holds: bool) -> None:
    assert parity((0.0, ours, 0.0, 0.0), (0.0, 0.5, 0.0, 0.0)).holds is holds


def test_positions_count_only_where_the_winner_is_clear() -> None:
    deltas = (0.5, 0.04, 0.5, 0.5)
    assert parity(deltas, deltas, places=(4, 3, 3, 3)).faults == [
        "s00001 A GENE: DP_AG 4, SpliceAI 3 (delta 0.5000, runner-up 0.1000)"
    ]
    found = parity(deltas, deltas, places=(4, 5, 3, 3), raw=CLOSE)
    assert found.holds and found.positions == 2 and found.other_positions == (0, 2)


def test_a_pair_that_only_one_scores_is_a_fault() -> None:
    answer = {KEY: Answer((0.0,) * 4, (0,) * 4)}
    found = compare.compare_numbers({}, answer, {KEY: CLEAR}, states={KEY[:2]: "rejected: ref_mismatch"})
    assert found.faults == ["s00001 A GENE: only SpliceAI scores it (here rejected: ref_mismatch)"]
    assert "only replisome" in compare.compare_numbers(answer, {}, {}, states={}).faults[0]
    found = compare.compare_numbers({}, answer, {KEY: CLEAR}, states={KEY[:2]: "rejected: breakend"})
    assert found.holds and found.states["gives numbers", "rejected: breakend"] == 1


def test_what_the_peer_leaves_out_needs_a_row_of_ours() -> None:
    found = compare.Parity()
    peer = [Silence("s1", "A", "gives dots"), Silence("s2", "*", "says nothing"), Silence("s3", "T", "says nothing")]
    compare.compare_silence(
        found, peer, {("s1", "A"): "rejected: peer_refusal", ("s2", "*"): "not_applicable: star_allele"}
    )
    assert found.faults == ["s3 T : SpliceAI says nothing, replisome has no row"]
    assert found.states["gives dots", "rejected: peer_refusal"] == 1


def test_entries_are_read_as_spliceai_writes_them() -> None:
    assert compare.read_entry("A|G|0.01|0.20|0.00|1.00|-5|3|50|-50") == (
        "A",
        "G",
        Answer((0.01, 0.2, 0.0, 1.0), (-5, 3, 50, -50)),
    )
    assert compare.read_entry("AC|G|.|.|.|.|.|.|.|.") == ("AC", "G", None)
    with pytest.raises(ValueError, match="10 parts"):
        compare.read_entry("A|G|0.01")


def test_large_counts_take_the_bound_in() -> None:
    answers = [
        Answer((0.2, 0.0, 0.0, 0.19), (0,) * 4),
        Answer((0.0, 0.9, 0.0, 0.3), (0,) * 4),
        Answer((0.1,) * 4, (0,) * 4),
    ]
    assert compare.large_counts(answers) == {"largest": 2, "AG": 1, "AL": 1, "DG": 0, "DL": 1}


# ---- the runs


def test_the_peers_answers_are_sorted_by_distance_and_mask() -> None:
    gene = variants.Gene("G", "1", "-", 0, 100, ((0, 100),))
    site = variants.Site("1", 50, "AC", ("A", "AG", "*"), "test")
    inputs = runs.Inputs("t", variants.Genome({"1": "A" * 100}, (gene,)), [site], Path(), Path(), Path())
    ref = np.zeros((5, 3), np.float32)
    alt = np.zeros((4, 3), np.float32)
    ref[4, 1] = 0.75  # the lowest coordinate, as the outputs stand in transcript orientation
    arrays = {"s00001|2|pairs": np.array([[0, 1]]), "s00001|2|0|output": ref, "s00001|2|1|output": alt}
    scores = ["A|G|0.00|0.75|0.00|0.00|-2|-2|-2|-2", "AG|G|.|.|.|.|.|.|.|."]
    line = {"id": "s00001", "distance": 2, "mask": 0, "scores": scores, "warnings": []}
    other = {**line, "mask": 1, "scores": [], "warnings": ["ref issue"]}
    found = runs.peer_rows(inputs, [line, other], arrays, distance=2, mask=0)
    key = ("s00001", "A", "G")
    assert found.answers == {key: Answer((0.0, 0.75, 0.0, 0.0), (-2,) * 4)}
    assert found.raw[key][1] == Winner(0.75, -2, 0.0)
    assert [(one.alt, one.words) for one in found.silences] == [("AG", "gives dots"), ("*", "says nothing")]
    masked = runs.peer_rows(inputs, [line, other], arrays, distance=2, mask=1)
    assert not masked.answers and len(masked.silences) == 3
    assert masked.silences[0].words == "skips the record (ref issue)"


def test_our_table_is_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    names = [f"{kind}_{name}" for kind in ("ds", "dp") for name in ("ag", "al", "dg", "dl")]
    scored = dict.fromkeys(names, 1) | {"id": "s1", "alt": "A", "gene_symbol": "G", "state": "scored", "reason": None}
    refused = dict.fromkeys(names) | {"id": "s1", "alt": "AT", "gene_symbol": "G", "state": "rejected", "reason": "x"}
    bare = refused | {"id": "s2", "alt": None, "state": "not_applicable", "reason": "reference_only"}
    table = pa.Table.from_pylist([row | {"flags": ""} for row in (scored, refused, bare)])
    pq.write_table(table, tmp_path / "data" / "part-0.parquet")
    found = runs.read_engine(tmp_path)
    assert found.answers == {("s1", "A", "G"): Answer((1.0,) * 4, (1,) * 4)}
    assert found.states == {
        ("s1", "A"): "scored",
        ("s1", "AT"): "rejected: x",
        ("s2", "."): "not_applicable: reference_only",
    }


def test_a_peer_vcf_is_read(tmp_path: Path) -> None:
    lines = ["##x", "1\t5\ts1\tA\tC,G\t.\t.\tAC=1;SpliceAI=C|x,G|y", "1\t6\ts2\tA\tC\t.\t.\t."]
    (tmp_path / "out.vcf").write_text("\n".join(lines) + "\n")
    assert dict(runs.read_peer_vcf(tmp_path / "out.vcf")) == {"s1": ["C|x", "G|y"], "s2": []}


def test_a_command_is_timed_with_its_children(tmp_path: Path) -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\n"
    body = f"import subprocess, sys; print('said'); subprocess.run([sys.executable, '-c', {burn!r}])"
    cost = runs.timed([sys.executable, "-c", body], log=tmp_path / "log")
    assert cost.cpu_s >= 0.3
    assert (tmp_path / "log").read_text() == "said\n"
    with pytest.raises(SystemExit, match=r"code 3:\nwhy"):
        runs.timed([sys.executable, "-c", "import sys; print('why'); sys.exit(3)"], log=tmp_path / "log")
    assert runs.Cost(10.0, 8.0).less(runs.Cost(4.0, 2.0), per=3) == runs.Cost(2.0, 2.0)


def test_our_command_is_one_that_the_cli_takes(tmp_path: Path) -> None:
    from jobs._spec import job_options

    inputs = runs.Inputs("t", GENOME, SITES, tmp_path / "in.vcf", tmp_path / "r.fa", tmp_path / "g.txt")
    options = runs.EngineOptions(distance=500, mask=1, incremental=False, precision="bf16")
    command = runs.engine_command(tmp_path / "model", inputs, tmp_path / "out", options)
    known = {flag for option in job_options("score_variants") for flag in option.flags} | {"--progress"}
    assert {word for word in command[3:] if word.startswith("-")} <= known
    assert "--mask" in command and command[command.index("--compatibility") + 1] == "spliceai-1.3.1"


def test_slow_plans_take_the_first_of_a_set(tmp_path: Path) -> None:
    inputs = speed.write("all", GENOME, SITES[:40], tmp_path / "all")
    whole = speed.Layout("all", inputs, 20)
    assert speed.first_of(whole, 40, tmp_path / "short") is whole
    short = speed.first_of(whole, 8, tmp_path / "short")
    assert short.records_per_shard == 4 and list(short.inputs.sites) == list(inputs.sites[:8])
    with pysam.VariantFile(str(short.inputs.vcf)) as stream:
        assert sum(1 for _ in stream) == 8


class Network:
    """Says how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def predict(self, x: np.ndarray, verbose: int = 1) -> np.ndarray:
        assert verbose == 0
        self.asked += 1
        return x.sum(axis=2, keepdims=True) + self.asked


def test_the_networks_answers_are_kept_for_the_other_mask(tmp_path: Path) -> None:
    network = Network()
    kept = harness.Remembering(network)
    one = np.eye(5, 4, dtype=np.int64)[None]  # A C G T N
    other = one[:, ::-1, ::-1]
    for _ in range(2):
        assert kept.predict(one)[0, 0, 0] == 2 and kept.predict(other)[0, 4, 0] == 3
    assert network.asked == 2
    assert harness.tokens(one).tolist() == [0, 1, 2, 3, 4] and harness.tokens(other).tolist() == [4, 0, 1, 2, 3]
    arrays: dict[str, np.ndarray] = {}
    harness._keep(arrays, [kept], "s1|50")
    assert arrays["s1|50|pairs"].tolist() == [[0, 1]]
    assert arrays["s1|50|1|window"].tolist() == [4, 0, 1, 2, 3]
    assert json.dumps(arrays["s1|50|0|output"][:, 0].tolist()) == "[2.0, 2.0, 2.0, 2.0, 1.0]"
    kept.predict(one)
    assert network.asked == 3


def test_what_cannot_be_scored_is_among_the_made_up_records() -> None:
    reasons = Counter(odd[1] for site in SITES for alt in site.alts if (odd := classify_alt(site.ref, alt)))
    assert {"star_allele", "symbolic_allele", "breakend", "alt_equals_ref", "reference_only"} <= set(reasons)
