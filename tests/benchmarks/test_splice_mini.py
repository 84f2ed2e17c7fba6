"""The recipe of splice-mini: what it marks, leaves out and draws; and the figures of its accuracy."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from benchmarks import splice_accuracy, train_splice_mini
from benchmarks.splice_mini import card, data, grammar, training
from engine.genome.windows import reverse_complement, text_from_tokens, tokens_from_text
from engine.models._info import ZOO, open_model
from engine.models.splice_grammar import SpliceGrammar, SpliceGrammarParams

ROOT = Path(__file__).parents[2]
RANDOM = np.random.default_rng(7)


def bases(length: int) -> str:
    return "".join(RANDOM.choice(list("ACGT"), length))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy data sets in the layout of the real ones; the second GUE acceptor holds 30 bases of a test sequence."""
    root = tmp_path_factory.mktemp("data")
    for name in (*data.SOURCES, data.VEXSEQ, data.BRCA1):
        (root / name).parent.mkdir(exist_ok=True)
    test = bases(60)
    gue = [(f"{bases(198)}AG{bases(200)}", 0), (f"{bases(50)}{reverse_complement(test)[10:40]}{bases(318)}AG", 0)]
    gue += [(f"{bases(200)}GT{bases(198)}", 1), (f"{bases(198)}AG{bases(200)}", 2)]
    rows = "sequence,label\n" + "".join(f"{text[:400]},{label}\n" for text, label in gue)
    (root / data.GUE).write_bytes(gzip.compress(rows.encode()))
    uci = [("IE", f"{bases(28)}AG{bases(30)}"), ("EI", f"{bases(30)}GT{bases(28)}"), ("N", bases(60))]
    (root / data.UCI).write_text("".join(f"{label},   NAME-1,    {text}\n" for label, text in uci))
    for fasta, gff, source in (data.WORM, data.PLANT):
        genome = bases(2000)
        (root / fasta).write_bytes(gzip.compress(f">I 1..2000\n{genome[:1000]}\n{genome[1000:]}\n".encode()))
        spans = [("+", 401, 500), ("+", 601, 700), ("-", 1201, 1300), ("-", 1401, 1500)]
        lines = [f"I\t{source}\texon\t{s}\t{e}\t.\t{strand}\t.\tParent=Transcript:{strand}" for strand, s, e in spans]
        (root / gff).write_bytes(
            gzip.compress(("\n".join([*lines, "I\tR\tintron\t801\t850\t9\t+\t.\tx"]) + "\n").encode())
        )
    vex = f"reference_sequence,variant_sequence\n{test},{test[:-1]}N\n"
    (root / data.VEXSEQ).write_bytes(gzip.compress(vex.encode()))
    (root / data.BRCA1).write_text(f"reference\n{bases(50)}\n")
    return root


@pytest.fixture(scope="module")
def species(folder: Path) -> dict[str, data.SiteSet]:
    return data.load_species(folder)


def test_sites_stand_on_the_first_and_last_base_of_exons(species: dict[str, data.SiteSet]) -> None:
    human = species["human"]
    assert [len(human.acceptors), len(human.donors), len(human.negatives)] == [2, 2, 2]
    for at in human.acceptors:
        assert text_from_tokens(human.tokens[at - 2 : at]) == "AG"
    for at in human.donors:
        assert text_from_tokens(human.tokens[at + 1 : at + 3]) == "GT"
    for at in human.ag_decoys:
        assert text_from_tokens(human.tokens[at - 2 : at]) == "AG"


def test_exon_edges_of_both_strands_and_no_outer_ones(species: dict[str, data.SiteSet]) -> None:
    """Inner edges of two exons: donor at 500 and acceptor at 601 on +; donor at 1401 and acceptor at 1300 on -."""
    worm = species["worm"]
    forward, backward = 200, 200 + 2000 + 200  # where each strand begins in the array
    assert list(worm.donors) == [forward + 499, backward + 2000 - 1401]
    assert list(worm.acceptors) == [forward + 600, backward + 2000 - 1300]
    at_intron_edges = {forward + 799, forward + 850}
    assert not at_intron_edges & set(worm.others)


def test_a_window_that_shares_30_bases_with_a_test_sequence_is_left_out(folder: Path) -> None:
    words = data.shared_words(data.held_out_sequences(folder))
    text = next(data.held_out_sequences(folder))
    assert data._shares("ACGT" * 5 + text[3:33], words)
    assert data._shares(reverse_complement(text)[:30], words)
    assert not data._shares(text[3:32] + ("A" if text[32] != "A" else "C"), words)
    assert not any("N" in word for word in words)


def test_without_the_test_sequences_there_is_no_training(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "gue").symlink_to(folder / "gue")
    with pytest.raises(SystemExit, match="leave its sequences out"):
        data.load_species(tmp_path)


def test_an_epoch_holds_every_site_once_and_no_site_as_none(species: dict[str, data.SiteSet]) -> None:
    human, recipe = species["human"], training.Recipe()
    drawn = training.draw_epoch(human, recipe, np.random.default_rng(1))
    assert sorted(drawn.middles[drawn.classes == 1]) == list(human.acceptors)
    assert sorted(drawn.middles[drawn.classes == 2]) == list(human.donors)
    assert not set(drawn.middles[drawn.classes == 0]) & {*human.acceptors, *human.donors}


def test_cut_flanks_keep_their_minimum_and_the_rest_is_untouched(species: dict[str, data.SiteSet]) -> None:
    human, recipe = species["human"], training.Recipe(flank_loss=1.0)
    middles = np.repeat(human.acceptors[:1], 200)
    windows = training.cut_windows(human.tokens, middles, recipe, np.random.default_rng(1))
    whole = human.tokens[middles[0] - training.FLANK : middles[0] + training.FLANK + 1]
    assert ((windows == whole) | (windows == 4)).all()
    known = windows != 4
    assert known[:, training.FLANK - recipe.min_flank : training.FLANK + recipe.min_flank + 1].all()
    assert not known[:, 0].all() and not known[:, -1].all()


def test_the_same_seed_gives_the_same_weights(species: dict[str, data.SiteSet]) -> None:
    torch.set_num_threads(1)
    recipe = training.Recipe(epochs=2, batch=4)
    sets = [species["human"], species["worm"]]
    first, again = (training.train_member(sets, seed=3, recipe=recipe, log=lambda _: None) for _ in range(2))
    other = training.train_member(sets, seed=4, recipe=recipe, log=lambda _: None)
    state = first.state_dict()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in state.items())
    assert not torch.equal(state["stem.weight"], other.state_dict()["stem.weight"])


def test_the_matrix_scores_a_sequence_as_its_markov_chain_does() -> None:
    """Each site's log-odds by hand: the first base alone, each further one given the one before."""
    tokens = np.random.default_rng(2).integers(0, 4, 5000).astype(np.uint8)
    sites, anywhere, span = np.arange(50, 4900, 37), np.arange(10, 4990), (-3, 2)
    model = SpliceGrammar(SpliceGrammarParams(net=training.PARAMS, acceptor_span=span))
    base, pair = grammar.first_order_matrix(tokens, sites, anywhere, span)
    model.acceptor_base.copy_(torch.from_numpy(base))
    model.acceptor_pair.copy_(torch.from_numpy(pair))
    at = 1000
    window = tokens[at - 72 : at + 73]
    with torch.no_grad():
        found = float(model(training.one_hot(window[None]))["pwm"][0, 0, 0])
    expected = 0.0
    for step in range(*span):
        here, before = tokens[sites + step], tokens[sites + step - 1]
        odds = []
        for found_here, found_before in ((here, before), (tokens[anywhere], tokens[anywhere - 1])):
            share = (np.bincount(found_here, minlength=4) + 1) / (len(found_here) + 4)
            follows = found_here[found_before == tokens[at + step - 1]]
            given = np.bincount(follows, minlength=4) + 4 * share
            chosen = share if step == span[0] else given / given.sum()
            odds.append(np.log(chosen[tokens[at + step]]))
        expected += odds[0] - odds[1]
    assert found == pytest.approx(expected, abs=1e-4)


def test_hexamers_of_exons_score_above_those_of_introns() -> None:
    text = "ACGACG" * 20 + "N" + "TTTTTT" * 20
    empty = np.zeros(0, np.int64)
    sites = data.SiteSet("toy", tokens_from_text(text), *[empty] * 6, [(0, 120)], [(121, 241)])
    scores = grammar.hexamer_log_ratios([sites])
    number = {word: int("".join(str("ACGT".index(b)) for b in word), 4) for word in ("ACGACG", "TTTTTT", "GGGGGG")}
    assert scores[number["ACGACG"]] > 1 > -1 > scores[number["TTTTTT"]]
    assert scores[number["GGGGGG"]] == pytest.approx(0.0, abs=1e-9)  # as many pseudo-counts on both sides


@pytest.mark.parametrize(
    ("strand", "at", "expected"),
    [
        ("+", 80, "acceptor"), ("+", 79, "intron"), ("+", 102, "acceptor"), ("+", 103, "exon"), ("+", 197, "exon"),
        ("+", 198, "donor"), ("+", 206, "donor"), ("+", 207, "intron"),
        ("-", 220, "acceptor"), ("-", 221, "intron"), ("-", 102, "donor"), ("-", 94, "donor"), ("-", 93, "intron"),
    ],
)  # fmt: skip
def test_place(strand: str, at: int, expected: str) -> None:
    table = {"info_GPOS": [str(at)], "info_EXON": ["100-200"], "info_GSTRAND": [strand]}
    assert list(splice_accuracy.place({k: np.array(v, object) for k, v in table.items()})) == [expected]


def test_figures_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose change equals the measured one, one row not scored, and a panel of classes in perfect order."""
    num = 40
    truth = np.linspace(-40, 40, num)
    rows = {
        "record": list(range(2 * num)),
        "contig": [f"c{i % 8}" for i in range(2 * num)],
        "state": ["scored"] * (2 * num - 1) + ["rejected"],
        "inclusion_change": [*truth / 10, *([-2.0] * 20), *([0.5] * 20)],
        "pwm_change": [*-truth, *([0.0] * num)],
        "psi_change": [None, *truth[1:], *([None] * num)],
        "ds_max": [0.5] * (2 * num),
        "info_PANEL": ["vexseq"] * num + ["brca1"] * num,
        "info_DPSI": [*(f"{x:.4f}" for x in truth), *([None] * num)],
        "info_REF_PSI": [*([None] * 2), *(["50"] * (num - 2)), *([None] * num)],
        "info_CLASS": [*([None] * num), *(["LOF"] * 20), *(["FUNC"] * 20)],
        "info_CONSEQUENCE": [*([None] * num), *(["Splice region"] * num)],
    }
    (tmp_path / "data" / "000").mkdir(parents=True)
    pq.write_table(pa.table(rows), tmp_path / "data" / "000" / "part-0.parquet")
    run = str(tmp_path)
    monkeypatch.setattr(sys, "argv", ["splice_accuracy.py", run, "--members", run, "--json", str(tmp_path / "f.json")])
    monkeypatch.setattr(splice_accuracy, "SAMPLES", 50)
    splice_accuracy.main()
    printed = capsys.readouterr().out
    assert "79 rows scored, 1 not" in printed
    lines = {tuple(line.split()[:3]): line for line in printed.splitlines()[1:]}
    assert "pearson 1.000" in lines["vexseq", "all", "inclusion_change"]
    assert "sign_auroc 1.000" in lines["vexseq", "all", "inclusion_change"]
    assert "spearman 1.000 (1.00 to 1.00, 39)" in lines["vexseq", "all", "psi_change"]
    assert "spearman -1.000 (-1.00 to -1.00, 38)" in lines["vexseq", "all", "pwm"]
    assert "spearman -1.000" in lines["vexseq", "all", "pwm_change"]
    assert "auroc 1.000" in lines["brca1", "splice_region", "-inclusion_change"]
    assert "auroc 0.500" in lines["brca1", "splice_region", "ds_max"]
    nested = json.loads((tmp_path / "f.json").read_text())
    assert nested["member 0"] == {
        "all": {"inclusion_change": {"pearson": [1.0, 1.0, 1.0, num], "spearman": [1.0, 1.0, 1.0, num]}},
        "splice_region": {"-inclusion_change": {"auroc": [1.0] * 3 + [20]}, "ds_max": {"auroc": [0.5] * 3 + [20]}},
    }
    with pytest.raises(SystemExit, match="output folder of a run"):
        splice_accuracy.read_run(tmp_path / "data")


@pytest.mark.parametrize(
    ("absent", "said"),
    [
        ("info_PANEL", "no column info_PANEL in .*: score with --keep-info PANEL, as"),
        ("info_DPSI", "no column info_DPSI in .*: score with --keep-info DPSI, as"),
        ("info_CLASS", "no column info_CLASS in .*: score with --keep-info CLASS, as"),
        ("pwm_change", "no column pwm_change in .*: score with splice_delta with --exon-sites, as"),
        ("ds_max", "no column ds_ag, ds_al, ds_dg, ds_dl in .*: score with splice_delta"),
    ],
)
def test_a_run_without_a_needed_column_is_one_sentence(tmp_path: Path, absent: str, said: str) -> None:
    names = (
        "contig",
        "state",
        "inclusion_change",
        "pwm_change",
        "ds_max",
        "info_DPSI",
        "info_CLASS",
        "info_CONSEQUENCE",
    )
    rows = {"record": [0, 1], "info_PANEL": ["vexseq", "brca1"]} | {name: ["scored", "1"] for name in names}
    del rows[absent]
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table(rows), tmp_path / "data" / "part-0.parquet")
    with pytest.raises(SystemExit, match=said):
        splice_accuracy.read_run(tmp_path)


def test_rows_without_a_number_take_no_part() -> None:
    """A measured value or a score that is missing leaves its row out, and spoils no figure."""
    truth = np.linspace(-40, 40, 20)
    change = truth.copy()
    change[3] = np.nan
    table = {
        "record": np.arange(20),
        "contig": np.array([f"c{i % 7}" for i in range(20)], object),
        "info_PANEL": np.array(["vexseq"] * 20, object),
        "info_DPSI": np.array([None, *map(str, truth[1:])], object),
        "inclusion_change": change,
        "pwm_change": change,
        "ds_max": np.full(20, 0.5),
        "info_GCHROM": np.array([f"chr{i % 7}" for i in range(20)], object),
    }
    found = [
        f for f in splice_accuracy.vexseq_figures(table) if f.metric == "pearson" and f.score == "inclusion_change"
    ]
    assert found[0].num == 18
    assert sum(f.num for f in found[1:]) == 18
    assert all(f.value == pytest.approx(1.0) for f in found if f.num > 1)


FIGURES = {
    "a": {"x": {"pearson": [0.5836, 0.4, -0.1, 9], "abs_auroc": [0.1, 0, 1, 9]}, "y": {"pearson": [-0.25, None, 1, 9]}}
}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{{cells a/x}}", ".584 (.40 to -.10)"),
        ("{{cells a}} |", ".584 (.40 to -.10) | -.250 (none to 1.00) |"),
        ("{{values a/*/pearson}}, {{values a/x/abs_auroc}}", ".584, -.250, .100"),
        ("{{range a/*/pearson}}", "-.25 to .58"),
    ],
)
def test_the_card_is_filled_from_the_figures(text: str, filled: str) -> None:
    assert card.fill(text, FIGURES) == filled
    assert "{{" not in card.fill(text, {}) and "not measured" in card.fill(text, {})
    with pytest.raises(SystemExit, match="no figure at 'a/z'"):
        card.fill("{{cells a/z}}", FIGURES)


def rounded(figure: list[float]) -> tuple[str, str, str]:
    """Value, low and high as a card writes them, by decimal rounding."""
    texts = (f"{figure[0]:.3f}", f"{figure[1]:.2f}", f"{figure[2]:.2f}")
    value, low, high = (text.replace("0.", ".", 1) if abs(float(text)) < 1 else text for text in texts)
    return value, low, high


def test_the_shipped_card_says_the_figures_of_the_shipped_json() -> None:
    """Every row of its tables, read back by label; and metrics, figures.json and the README of the repository agree."""
    figures = json.loads((ROOT / "benchmarks/splice_mini/figures.json").read_text())
    info = open_model("splice-mini")
    assert info.metrics == figures
    text = (ZOO / "splice-mini/README.md").read_text()
    assert text.rstrip() == card.fill((ROOT / "benchmarks/splice_mini/card.md").read_text(), figures).rstrip()
    vexseq, brca1 = figures["vexseq"], figures["brca1"]
    wanted = {
        "inclusion change": vexseq["all"]["inclusion_change"],
        "position weight matrix alone (floor)": vexseq["all"]["pwm_change (floor)"],
        "PSI change": vexseq["all"]["psi_change"],
        "acceptor (20 intron, 3 exon bases)": vexseq["acceptor"]["inclusion_change"],
        "donor (3 exon, 6 intron bases)": vexseq["donor"]["inclusion_change"],
        "rest of the exon": vexseq["exon"]["inclusion_change"],
        "rest of the intron": vexseq["intron"]["inclusion_change"],
    }
    for label, expected in wanted.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {label} |")]
        found = re.findall(r"(-?[.0-9]+) \((-?[.0-9]+) to (-?[.0-9]+)\)", line)
        assert found == [rounded(expected[metric]) for metric in list(expected)[: len(found)]] and len(found) >= 2
    for label, name in (("splice region (74, 229)", "splice_region"), ("pooled (173, 515)", "pooled")):
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {label} |")]
        found = re.findall(r"(-?[.0-9]+) \((-?[.0-9]+) to (-?[.0-9]+)\)", line)
        order = ("-inclusion_change", "ds_max", "-pwm_change (floor)", "phyloP (control)")
        assert found == [rounded(brca1[name][score]["auroc"]) for score in order]


def test_the_readme_and_the_panels_say_the_same_figures() -> None:
    figures = json.loads((ROOT / "benchmarks/splice_mini/figures.json").read_text())
    every, region = figures["vexseq"]["all"], figures["brca1"]["splice_region"]
    ours, floor, scaled = every["inclusion_change"], every["pwm_change (floor)"], every["pwm on the PSI scale (floor)"]
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"Pearson {ours['pearson'][0]:.2f}, Spearman {ours['spearman'][0]:.2f}" in readme
    assert f"beside {floor['pearson'][0]:.2f} and {floor['spearman'][0]:.2f} of a position weight matrix" in readme
    aurocs = (region[name]["auroc"][0] for name in ("-inclusion_change", "-pwm_change (floor)"))
    assert "(AUROC {:.2f}; matrix {:.2f})".format(*aurocs) in readme
    panels = " ".join((ROOT / "examples/splice/panels.yaml").read_text().split())
    said = f"Pearson {scaled['pearson'][0]:.2f}, Spearman {scaled['spearman'][0]:.2f}".replace("0.", ".")
    assert said in panels


def test_one_network_alone_is_a_folder_without_the_figures_of_three(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["train", "--weights-from", str(ZOO / "splice-mini"), "--members", "1", "-o", str(tmp_path / "one")]
    monkeypatch.setattr(sys, "argv", arguments)
    train_splice_mini.main()
    torch.use_deterministic_algorithms(False)
    one, whole = open_model(tmp_path / "one"), open_model("splice-mini")
    assert (one.name, one.members, one.metrics) == ("splice-mini-1", 1, {})
    assert one.files[0][2] == whole.files[1][2]
    assert one.training_data == whole.training_data
    assert "not measured" in (tmp_path / "one/README.md").read_text()


def test_every_source_is_named_with_commit_path_cut_and_terms() -> None:
    for entry in open_model("splice-mini").training_data:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", entry["repository"])
        assert entry["path"].startswith("data/") and entry["rows"] and entry["terms"]
        assert re.fullmatch("[0-9a-f]{64}", entry["sha256"])


SCRIPTS = sorted(path.name for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text())


def test_every_benchmark_loads_as_a_script_from_anywhere(tmp_path: Path) -> None:
    """As `python benchmarks/X.py` finds its imports: nothing of the repository on the path but what X puts there."""
    assert len(SCRIPTS) > 5
    code = (
        "import runpy, sys\n"
        "for script in sys.argv[1:]:\n"
        "    kept = list(sys.path)\n"
        "    runpy.run_path(script, run_name='loaded')\n"
        "    sys.path[:] = kept\n"
        "    for name in [n for n in sys.modules if n.split('.')[0] in ('benchmarks', 'tests')]:\n"
        "        del sys.modules[name]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *(str(ROOT / "benchmarks" / name) for name in SCRIPTS)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
