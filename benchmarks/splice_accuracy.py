"""Accuracy of a scored run of examples/splice against the measured effects, with 95% intervals over exons.

    python benchmarks/splice_accuracy.py RUN/ [--members ONE/ TWO/ ...] [--json figures.json]

Reads the run's Parquet parts; that of `make demo` holds all that the table needs. --members takes further runs, each
scored with one network alone (train_splice_mini.py --weights-from --members makes its folder).

Panel vexseq: signed correlations with the measured change of exon inclusion (all rows), and rankings by direction:
drops of 10 points or more, and the sign among changes of that size. Panel brca1: loss of function against functional,
by the drop of inclusion and by the largest probability change. Controls stand beside.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))  # also as `python benchmarks/splice_accuracy.py`

from engine.scoring import _exon_sites, _metrics

LARGE = 10.0  # percentage points
SAMPLES = 2000
SEED = 1
MIN_CLUSTERS = 5
FLOOR_WEIGHT = 0.7  # of the matrix on the PSI scale: where it does best on these very variants, so no easy floor
SITES = {"acceptor": (-20, 3), "donor": (-3, 6)}  # bases from the exon's edge that count as the site
CONSEQUENCES = ("splice_region", "canonical_splice", "intronic")
FLOOR_ON_SCALE = "pwm on the PSI scale (floor)"

_ALWAYS = ("record", "contig", "state", "inclusion_change", "pwm_change", "info_PANEL")
_OF_PANEL = {"vexseq": ("info_DPSI",), "brca1": ("info_CLASS", "info_CONSEQUENCE")}
_DELTAS = ("ds_ag", "ds_al", "ds_dg", "ds_dl")
# What is said of a network alone: rows, score, metric.
_OF_MEMBER = (
    ("all", "inclusion_change", "pearson"),
    ("all", "inclusion_change", "spearman"),
    ("splice_region", "-inclusion_change", "auroc"),
    ("splice_region", "ds_max", "auroc"),
)

Floats = NDArray[np.float64]
Table = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Figure:
    """One value with its interval."""

    panel: str
    rows: str
    score: str
    metric: str
    value: float
    low: float
    high: float
    num: int


def read_run(folder: Path) -> tuple[Table, int]:
    """Scored rows as columns, and how many of the run's rows are not scored."""
    parts = sorted((folder / "data").glob("**/part-*.parquet"))
    if not parts:
        raise SystemExit(f"no part-*.parquet below {folder / 'data'}: give the output folder of a run")
    try:
        table = pa.concat_tables([pq.read_table(part, partitioning=None) for part in parts])
    except pa.ArrowInvalid as error:
        raise SystemExit(f"the parts below {folder / 'data'} do not read as one table: {error}") from error
    _require(_ALWAYS, table.column_names, folder)
    panels = set(table["info_PANEL"].to_pylist())
    for panel, columns in _OF_PANEL.items():
        _require(columns if panel in panels else (), table.column_names, folder)
    if "ds_max" not in table.column_names:
        _require(_DELTAS, table.column_names, folder)
    scored = table.filter(pa.compute.equal(table["state"], "scored"))
    columns = {name: scored[name].to_numpy(zero_copy_only=False) for name in scored.column_names}
    return columns, table.num_rows - scored.num_rows


def _require(wanted: Iterable[str], found: list[str], folder: Path) -> None:
    """SystemExit naming the columns that lack, and what gives them."""
    absent = [name for name in wanted if name not in found]
    if not absent:
        return
    keys = [name.removeprefix("info_") for name in absent if name.startswith("info_")]
    needed = [f"--keep-info {','.join(keys)}"] if keys else []
    needed += ["splice_delta with --exon-sites"] if len(keys) < len(absent) else []
    raise SystemExit(
        f"no column {', '.join(absent)} in {folder}: score with {' and '.join(needed)}, as `make demo` does"
    )


def _numbers(column: NDArray[Any]) -> Floats:
    """Text or numbers, nothing where there is none."""
    made = [np.nan if value in (None, "", ".") else float(value) for value in column]
    return np.array(made, dtype=np.float64)


def _largest(table: Table) -> Floats:
    """Largest probability change of any site at any place."""
    if "ds_max" in table:
        return _numbers(table["ds_max"])
    largest: Floats = np.max([_numbers(table[name]) for name in _DELTAS], axis=0)
    return largest


def place(table: Table) -> NDArray[np.str_]:
    """acceptor, donor, exon or intron, by the written position."""
    made = []
    for at, exon, strand in zip(table["info_GPOS"], table["info_EXON"], table["info_GSTRAND"], strict=True):
        first, last = (int(edge) for edge in exon.split("-"))
        from_acceptor, from_donor = int(at) - first, int(at) - last
        if strand == "-":
            from_acceptor, from_donor = last - int(at), first - int(at)
        if SITES["acceptor"][0] <= from_acceptor < SITES["acceptor"][1]:
            made.append("acceptor")
        elif SITES["donor"][0] < from_donor <= SITES["donor"][1]:
            made.append("donor")
        else:
            made.append("exon" if from_acceptor >= 0 >= from_donor else "intron")
    return np.array(made)


def vexseq_figures(table: Table) -> Iterator[Figure]:
    """Every figure of the panel of measured inclusion."""
    rows = _select(table, table["info_PANEL"] == "vexseq")
    if len(rows["record"]):
        rows = _select(rows, np.isfinite(_numbers(rows["info_DPSI"])))
    if not len(rows["record"]):
        return
    truth, exons, change = _numbers(rows["info_DPSI"]), rows["contig"], _numbers(rows["inclusion_change"])
    scores = {
        "inclusion_change": change,
        "pwm_change (floor)": _numbers(rows["pwm_change"]),
        "ds_max, unsigned (control)": _largest(rows),
    }
    if "psi_change" in rows:
        scores["psi_change"] = _numbers(rows["psi_change"])
    if "info_REF_PSI" in rows:
        psi = _numbers(rows["info_REF_PSI"])
        scaled = map(_exon_sites.psi_change, psi, FLOOR_WEIGHT * scores["pwm_change (floor)"])
        scores[FLOOR_ON_SCALE] = np.array(list(scaled))
        scores["p(1-p) alone (control)"] = psi * (100 - psi)
    for name, score in scores.items():
        picked = np.isfinite(score)
        yield from _signed("all", name, score[picked], truth[picked], exons[picked])
    yield from _gain("inclusion less floor", change, scores["pwm_change (floor)"], truth=truth, exons=exons)
    if {"psi_change", FLOOR_ON_SCALE} <= set(scores):
        yield from _gain(
            "PSI change less floor", scores["psi_change"], scores[FLOOR_ON_SCALE], truth=truth, exons=exons
        )
    for part in _parts(rows):
        for name in dict.fromkeys(part):
            picked = (part == name) & np.isfinite(change)
            yield from _signed(str(name), "inclusion_change", change[picked], truth[picked], exons[picked], short=True)


def _gain(name: str, score: Floats, floor: Floats, *, truth: Floats, exons: NDArray[Any]) -> Iterator[Figure]:
    """Correlations of a score less those of its floor, on rows that have both."""
    picked = np.isfinite(score) & np.isfinite(floor)
    score, floor, truth, exons = score[picked], floor[picked], truth[picked], exons[picked]
    for metric, kind in (("pearson", _metrics.pearson_statistic), ("spearman", _metrics.spearman_statistic)):
        gain = _difference(kind(score, truth), kind(floor, truth))
        yield from _measured("vexseq", "all", name, {metric: (gain, len(truth))}, exons)


def _difference(one: _metrics.Statistic, other: _metrics.Statistic) -> _metrics.Statistic:
    return lambda weights: one(weights) - other(weights)


def _parts(rows: Table) -> Iterator[NDArray[np.str_]]:
    """A label per row, by place in the exon and by chromosomes, where the run kept what that takes."""
    if {"info_GPOS", "info_EXON", "info_GSTRAND"} <= set(rows):
        yield place(rows)
    if "info_GCHROM" in rows:
        yield _chromosome_groups(rows["info_GCHROM"])


def _chromosome_groups(chromosomes: NDArray[Any]) -> NDArray[np.str_]:
    """Six groups of whole chromosomes of about equal size, named by what they hold."""
    names, counts = np.unique(chromosomes.astype(str), return_counts=True)
    groups: list[list[str]] = [[] for _ in range(6)]
    sizes = [0] * 6
    for index in np.argsort(-counts, kind="stable"):
        smallest = sizes.index(min(sizes))
        groups[smallest].append(str(names[index]))
        sizes[smallest] += int(counts[index])
    label = {name: "+".join(group) for group in groups for name in group}
    return np.array([label[name] for name in chromosomes])


def _signed(
    rows: str, name: str, score: Floats, truth: Floats, exons: NDArray[Any], *, short: bool = False
) -> Iterator[Figure]:
    large = np.abs(truth) >= LARGE
    questions = {
        "pearson": (_metrics.pearson_statistic(score, truth), len(truth)),
        "spearman": (_metrics.spearman_statistic(score, truth), len(truth)),
        "drop_auroc": (_metrics.auroc_statistic(-score, truth <= -LARGE), int((truth <= -LARGE).sum())),
        "sign_auroc": (_metrics.auroc_statistic(score, truth > 0, large), int(large.sum())),
        "abs_auroc": (_metrics.auroc_statistic(np.abs(score), large), int(large.sum())),
    }
    kept = dict(list(questions.items())[: 2 if short else 5])
    yield from _measured("vexseq", rows, name, kept, exons)


def brca1_figures(table: Table) -> Iterator[Figure]:
    """Loss of function against functional, by consequence."""
    rows = _select(table, table["info_PANEL"] == "brca1")
    if len(rows["record"]):
        rows = _select(rows, np.isin(rows["info_CLASS"].astype(str), ("FUNC", "LOF")))
    if not len(rows["record"]):
        return
    consequence = np.array([str(text).lower().replace(" ", "_") for text in rows["info_CONSEQUENCE"]])
    scores = {
        "-inclusion_change": -_numbers(rows["inclusion_change"]),
        "ds_max": _largest(rows),
        "-pwm_change (floor)": -_numbers(rows["pwm_change"]),
    }
    if "info_PHYLOP" in rows:
        scores["phyloP (control)"] = _numbers(rows["info_PHYLOP"])
    scores["consequence class (control)"] = np.select([consequence == name for name in CONSEQUENCES], [1.0, 2.0, 0.0])
    for name in (*CONSEQUENCES, "pooled"):
        picked = np.ones(len(consequence), bool) if name == "pooled" else consequence == name
        for label, score in scores.items():
            chosen = picked & np.isfinite(score)
            lost = rows["info_CLASS"][chosen] == "LOF"
            question = {"auroc": (_metrics.auroc_statistic(score[chosen], lost), int(lost.sum()))}
            yield from _measured("brca1", name, label, question, rows["contig"][chosen])


def member_figures(number: int, table: Table) -> Iterator[Figure]:
    """The few figures that are given of one network alone, as a panel of their own."""
    for figure in (*vexseq_figures(table), *brca1_figures(table)):
        if (figure.rows, figure.score, figure.metric) in _OF_MEMBER:
            yield replace(figure, panel=f"member {number}")


def _select(table: Table, mask: NDArray[np.bool_]) -> Table:
    return {name: column[mask] for name, column in table.items()}


def _measured(
    panel: str, rows: str, score: str, questions: dict[str, tuple[_metrics.Statistic, int]], exons: NDArray[Any]
) -> Iterator[Figure]:
    statistics = [statistic for statistic, _ in questions.values()]
    names, clusters = np.unique(exons.astype(str), return_inverse=True)
    if len(names) < MIN_CLUSTERS:
        samples = np.full((1, len(statistics)), np.nan)
    else:
        samples = _metrics.bootstrap(statistics, clusters, num_samples=SAMPLES, seed=SEED)
    for column, (metric, (statistic, num)) in enumerate(questions.items()):
        low, high = _metrics.interval(samples[:, column])
        yield Figure(panel, rows, score, metric, statistic(np.ones(len(exons))), low, high, num)


def print_figures(figures: list[Figure]) -> None:
    """One line per panel, rows and score."""
    seen: dict[tuple[str, str, str], list[Figure]] = {}
    for figure in figures:
        seen.setdefault((figure.panel, figure.rows, figure.score), []).append(figure)
    for (panel, rows, score), found in seen.items():
        values = "  ".join(f"{f.metric} {f.value:.3f} ({f.low:.2f} to {f.high:.2f}, {f.num})" for f in found)
        print(f"{panel:8} {rows[:24]:24} {score:28} {values}")


def _nested(figures: list[Figure]) -> dict[str, Any]:
    """Panel, rows, score, metric: [value, low, high, count], numbers that JSON has."""
    made: dict[str, Any] = {}
    for f in figures:
        numbers = [None if not np.isfinite(v) else round(float(v), 5) for v in (f.value, f.low, f.high)]
        made.setdefault(f.panel, {}).setdefault(f.rows, {}).setdefault(f.score, {})[f.metric] = [*numbers, f.num]
    return made


def main() -> None:
    """Print the table; write it too where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="output folder of a scored run")
    parser.add_argument(
        "--members", type=Path, nargs="+", default=[], help="runs scored with one network each, in order"
    )
    parser.add_argument("--json", type=Path, help="also write the figures here")
    given = parser.parse_args()
    table, not_scored = read_run(given.run)
    figures = [*vexseq_figures(table), *brca1_figures(table)]
    for number, run in enumerate(given.members):
        figures += member_figures(number, read_run(run)[0])
    print(f"{len(table['record'])} rows scored, {not_scored} not. value (95% interval over exons, rows or positives)")
    print_figures(figures)
    if given.json:
        given.json.write_text(json.dumps(_nested(figures), indent=1) + "\n")


if __name__ == "__main__":
    main()
