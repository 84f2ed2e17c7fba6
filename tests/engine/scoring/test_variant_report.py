"""Every number of the page is found again from the parts, by polars and by plain loops, and the page keeps its word."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.errors import DataError, InputError
from engine.scoring._panels import SMALL_CELL
from engine.scoring._variant_report import Panel, Summary, bars, real, render, share, summarise
from engine.scoring._variant_summary import NUM_BINS
from schemas.states import NOT_APPLICABLE_REASONS, REJECT_REASONS
from tests.engine.scoring.report_parts import (
    BRCA,
    GIVEN_SCORES,
    PANELS,
    PROVENANCE,
    SCHEMA,
    SCORES,
    TIMINGS,
    VEX,
    cut,
    make_row,
    make_table,
    splice,
)
from tests.toys.pages import Page


def _value(text: str) -> float:
    return float(text.replace(",", "").replace("\u2212", "-").rstrip("%").lstrip("<"))


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return make_table()


@pytest.fixture(scope="module")
def summary(table: pa.Table) -> Summary:
    return summarise(iter(cut(table, [100, 0, 911, 1, 700])), panels=PANELS, score_columns=GIVEN_SCORES)


@pytest.fixture(scope="module")
def html(summary: Summary) -> str:
    return render(summary, PROVENANCE, TIMINGS)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


@pytest.fixture(scope="module")
def frame(table: pa.Table) -> pl.DataFrame:
    found = pl.from_arrow(table)
    assert isinstance(found, pl.DataFrame)
    return found


def _expected_counts(frame: pl.DataFrame) -> dict[str, float]:
    expected: dict[str, float] = {"counts.records": frame["record"].n_unique(), "counts.rows": frame.height}
    for state in ("scored", "not_applicable", "rejected"):
        rows = frame.filter(pl.col("state") == state).height
        expected[f"counts.{state}"] = rows
        expected[f"counts.{state}.share"] = round(100 * rows / frame.height, 1)
    for flag in ("long_deletion", "iupac_letters"):
        expected[f"flag.{flag}"] = frame["flags"].str.contains(flag).sum()
    for state, reason, rows in frame.filter(pl.col("state") != "scored").group_by("state", "reason").len().rows():
        expected[f"reason.{state}.{reason}"] = rows
        expected[f"reason.{state}.{reason}.share"] = max(round(100 * rows / frame.height, 1), 0.1)
    return expected


def _expected_contigs(frame: pl.DataFrame) -> dict[str, float]:
    named = frame.with_columns(pl.col("contig").fill_null(""))
    sums = named.group_by("contig").agg(
        pl.len().alias("rows"),
        *((pl.col("state") == state).sum().alias(state) for state in ("scored", "not_applicable", "rejected")),
    )
    sums = sums.sort(["rows", "contig"], descending=[True, False])
    expected: dict[str, float] = {"counts.contigs": sums.height}
    for row in sums.head(30).to_dicts():
        expected |= {f"contig.{row['contig']}.{name}": row[name] for name in row if name != "contig"}
    rest = sums.slice(30).drop("contig").sum().to_dicts()[0]
    return expected | {f"other_contigs.{name}": value for name, value in rest.items()}


def _expected_histograms(frame: pl.DataFrame) -> dict[str, float]:
    expected = {}
    for name in SCORES:
        scored = frame.filter(pl.col("state") == "scored")[name].cast(pl.Float64)
        finite = scored.filter(scored.is_finite().fill_null(False))
        values = {"num": len(finite), "zero": (finite == 0).sum(), "low": finite.min(), "high": finite.max()}
        values["no_number"] = len(scored) - len(finite)
        expected |= {f"histogram.{name}.{key}": float(str(value)) for key, value in values.items()}
    return expected


def _best(frame: pl.DataFrame) -> pl.DataFrame:
    scored = frame.filter(
        (pl.col("state") == "scored") & pl.col("ds_max").is_finite() & pl.col("gene_id").is_not_null()
    )
    best = scored.sort(pl.col("ds_max").abs(), descending=True, maintain_order=True)
    best = best.unique("gene_id", keep="first", maintain_order=True)
    order = [pl.col("ds_max").abs(), pl.col("record"), pl.col("alt_index"), pl.col("gene_id")]
    rows = scored.group_by("gene_id").len("gene_rows")
    return best.sort(order, descending=[True, False, False, False]).join(rows, on="gene_id", maintain_order="left")


def test_counts_contigs_and_histogram_facts_are_those_of_the_parts(page: Page, frame: pl.DataFrame) -> None:
    expected = _expected_counts(frame) | _expected_contigs(frame) | _expected_histograms(frame)
    prefixes = ("counts.", "reason.", "flag.", "contig.", "other_contigs.", "histogram.")
    shown = {key: _value(text) for key, text in page.keyed.items() if key.startswith(prefixes)}
    expected["counts.genes"] = _best(frame).height
    assert shown.keys() == expected.keys()
    for key, value in expected.items():
        assert shown[key] == pytest.approx(value, abs=0.0501 if key.endswith(".share") else 0.000501), key


def test_reasons_carry_their_sentence(summary: Summary, page: Page) -> None:
    known = NOT_APPLICABLE_REASONS | REJECT_REASONS
    assert len(summary.reasons) == len(REJECT_REASONS) + 2
    for one in summary.reasons:
        assert one.sentence == known[one.reason]
        assert one.sentence in page.text


def test_top_table_is_the_best_of_each_gene_in_order(page: Page, frame: pl.DataFrame) -> None:
    best = _best(frame).head(50).to_dicts()
    assert len(best) == 50
    shown = [key for key in page.keyed if key.startswith("gene.") and key.endswith(".place")]
    assert shown == [f"gene.{row['gene_id']}.place" for row in best]
    for row in best:
        key = f"gene.{row['gene_id']}"
        assert page.keyed[f"{key}.place"].startswith(f"{row['contig']}:{row['start'] + 1} ")
        assert _value(page.keyed[f"{key}.gene_rows"]) == row["gene_rows"]
        for name in SCORES:
            text = page.keyed[f"{key}.{name}"]
            assert text == "\u2013" if math.isnan(row[name]) else _value(text) == pytest.approx(row[name], abs=0.000501)
        for name in ("ag", "al", "dg", "dl"):
            assert _value(page.keyed[f"{key}.ds_{name}.offset"].removesuffix(" bp")) == row[f"dp_{name}"]


def _panel_rows(frame: pl.DataFrame, panel: Panel) -> pl.DataFrame:
    rows = frame.filter((pl.col("info_SET") == panel.where["SET"]) & (pl.col("state") == "scored"))
    if panel.kind == "signed":
        truth = pl.col(f"info_{panel.truth}").cast(pl.Float64, strict=False)
    else:
        named = pl.col(f"info_{panel.truth}")
        truth = pl.when(named.is_in(panel.positive)).then(1.0).when(named.is_in(panel.negative)).then(0.0)
    rows = rows.with_columns(truth.alias("truth")).filter(pl.col("truth").is_not_null())
    rows = rows.filter(*(pl.col(name).is_finite() for name in panel.scores))
    return rows.unique(["record", "alt_index"], keep="first", maintain_order=True)


def _slow_auroc(score: pl.Series, positive: pl.Series) -> float:
    ups, downs = score.filter(positive).to_numpy(), score.filter(~positive).to_numpy()
    if min(len(ups), len(downs)) < SMALL_CELL:
        return math.nan
    return float(((ups[:, None] > downs).mean() + (ups[:, None] >= downs).mean()) / 2)


def _expected_figures(rows: pl.DataFrame, panel: Panel) -> dict[tuple[str, str], float]:
    found = {}
    for name in panel.scores:
        score, truth = rows[name].cast(pl.Float64), rows["truth"]
        if panel.kind == "classes":
            found["auroc", name] = _slow_auroc(-score if panel.flip else score, truth == 1.0)
            continue
        both = pl.DataFrame({"s": score, "t": truth})
        large = both.filter(pl.col("t").abs() >= 10)
        found["pearson", name] = both.select(pl.corr("s", "t")).item()
        found["spearman", name] = both.select(pl.corr("s", "t", method="spearman")).item()
        found["drop_auroc", name] = _slow_auroc(-score, truth <= -10)
        found["sign_auroc", name] = _slow_auroc(large["s"], large["t"] > 0)
    first = panel.scores[0]
    for metric, name in [key for key in found if key[1] != first]:
        found[metric, f"{first} minus {name}"] = found[metric, first] - found[metric, name]
    return found


@pytest.mark.parametrize("number", [0, 1])
def test_panel_figures_are_those_of_polars_and_plain_counting(page: Page, frame: pl.DataFrame, number: int) -> None:
    panel = PANELS[number]
    rows = _panel_rows(frame, panel)
    groups = {"all": rows} | {str(key[0]): part for key, part in rows.group_by("info_PLACE")}
    seen = set()
    for group, part in groups.items():
        for (metric, score), value in _expected_figures(part, panel).items():
            if group != "all" and " minus " in score:
                continue
            key = f"panel.{number}.{group}.{metric}.{score}"
            seen.add(f"{key}.value")
            text = page.keyed[f"{key}.value"]
            if math.isnan(value):
                assert text == "\u2013", key
                assert f"{key}.low" not in page.keyed
                continue
            assert _value(text) == pytest.approx(value, abs=0.000501), key
            assert _value(page.keyed[f"{key}.low"]) <= value + 0.005
            assert _value(page.keyed[f"{key}.high"]) >= value - 0.005
            assert _value(page.keyed[f"{key}.low"]) <= _value(page.keyed[f"{key}.high"])
    assert {key for key in page.keyed if key.startswith(f"panel.{number}.") and key.endswith(".value")} == seen


def test_small_cells_show_a_dash(page: Page) -> None:
    assert page.keyed["panel.1.canonical.auroc.inclusion_change.value"] == "\u2013"
    assert page.keyed["panel.1.canonical.auroc.inclusion_change.num_positive"] == "0"
    assert "fewer than 5 rows" in page.text


def test_panel_counts_account_for_every_matchingrow(summary: Summary, page: Page, frame: pl.DataFrame) -> None:
    for number, result in enumerate(summary.panels):
        matched = frame.filter(pl.col("info_SET") == PANELS[number].where["SET"]).height
        parts = result.num_not_scored, result.num_no_truth, result.num_no_score, result.num_repeated, result.num
        assert result.num_matched == matched == sum(parts)
        assert result.num == _panel_rows(frame, PANELS[number]).height
        for name in ("num_matched", "num_not_scored", "num_no_truth", "num_no_score", "num_repeated", "num"):
            assert _value(page.keyed[f"panel.{number}.{name}"]) == getattr(result, name)
    assert all(result.num_no_truth for result in summary.panels)
    assert summary.panels[0].num_no_score and summary.panels[1].num_repeated
    assert summary.panels[0].num_clusters == _panel_rows(frame, VEX)["info_EXON"].n_unique()
    positive = (_panel_rows(frame, BRCA)["truth"] == 1).sum()
    assert _value(page.keyed["panel.1.all.auroc.ds_max.num_positive"]) == positive


def test_every_number_in_a_numeric_cell_has_a_key(page: Page) -> None:
    words = {"n =", "to", "against"}
    assert [text for text in page.loose if text not in words] == []


@pytest.mark.parametrize("name", SCORES)
def test_bars_hold_the_values_they_name(summary: Summary, frame: pl.DataFrame, name: str) -> None:
    histogram = next(one for one in summary.histograms if one.column == name)
    values = frame.filter(pl.col("state") == "scored")[name].cast(pl.Float64).drop_nulls().drop_nans().to_numpy()
    drawn = bars(histogram)
    assert sum(bar.count for bar in drawn) == len(values)
    for bar in drawn:
        if bar.low == bar.high:
            inside = values == 0
        elif bar.low >= 0:
            inside = (values > bar.low) & (values <= bar.high)
        else:
            inside = (values >= bar.low) & (values < bar.high)
        assert bar.count == inside.sum()
    if name.startswith("ds_"):
        assert (drawn[1].low, drawn[-1].high, len(drawn)) == (0.0, 1.0, 33)


def test_drawings_hold_one_mark_per_value(html: str, summary: Summary) -> None:
    circles = html.count("<circle")
    assert circles == 2 * summary.panels[0].num + summary.panels[1].num
    counted = [int(text.replace(",", "")) for text in re.findall(r"<rect[^>]*><title>[^<]*: ([\d,]+)</title>", html)]
    assert sum(counted) == sum(one.num for one in summary.histograms)


@settings(max_examples=15, deadline=None)
@example([1] * 230)
@given(st.lists(st.integers(0, 400), max_size=8))
def test_the_cut_of_the_parts_is_not_seen(sizes: list[int]) -> None:
    table = make_table(3, genome=150, constructs=60, screen=40)
    with patch("engine.scoring._panels.MAX_SAMPLES", 100):
        whole, parts = (
            summarise(tables, panels=PANELS, score_columns=GIVEN_SCORES) for tables in ([table], cut(table, sizes))
        )
    assert parts.to_json() == whole.to_json()


def test_equal_parts_give_an_equal_page(table: pa.Table, html: str) -> None:
    again = summarise([table], panels=PANELS, score_columns=GIVEN_SCORES)
    assert render(again, PROVENANCE, TIMINGS) == html


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.lists(FINITE | st.sampled_from([0.0, -0.0, math.nan, math.inf, 5e-324, 1.7e308, 64.0, 2.0**-34]), max_size=60)
)
def test_histogram_bins_hold_every_finite_value_once(values: list[float]) -> None:
    table = _with_scores(values)
    found = summarise(cut(table, [len(values) // 2]), panels=(), score_columns=("score",)).histograms[0]
    finite = [value for value in values if math.isfinite(value)]
    largest = max((abs(value) for value in finite), default=0.0)
    assert found.width == 2.0**-40 or NUM_BINS / 2 * found.width < largest <= NUM_BINS * found.width
    assert (found.num, found.no_number) == (len(finite), len(values) - len(finite))
    for sign, side in ((1, found.positive), (-1, found.negative)):
        held = [abs(value) for value in finite if sign * value > 0]
        assert len(side) == NUM_BINS
        for i in range(NUM_BINS):
            low, high = i * found.width, (i + 1) * found.width
            assert side[i] == sum(low < value <= high for value in held)


def _with_scores(values: list[float], **columns: list[Any]) -> pa.Table:
    rows = [make_row(i) for i in range(len(values))]
    table = pa.Table.from_pylist(rows, schema=SCHEMA).append_column("score", pa.array(values, pa.float64()))
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(column, pa.string()))
    return table


SMALL_SCORES = st.sampled_from([0.0, 0.5, -0.5, 1.0, -1.0, math.nan])


@given(st.lists(st.tuples(SMALL_SCORES, st.sampled_from(["g", "h", None])), max_size=30), st.integers(0, 30))
def test_top_of_a_gene_keeps_the_first_of_equals(rows: list[tuple[float, str | None]], at: int) -> None:
    table = _with_scores([score for score, _ in rows], gene_id=[gene for _, gene in rows])
    found = summarise(cut(table, [at]), panels=(), score_columns=("score",))
    for gene in ("g", "h"):
        held = [(-abs(s), i) for i, (s, name) in enumerate(rows) if name == gene and not math.isnan(s)]
        top = [one for one in found.top_genes if one.gene_id == gene]
        assert [one.record for one in top] == ([min(held)[1]] if held else [])
        assert [one.gene_rows for one in top] == ([len(held)] if held else [])
    loose = sorted((-abs(s), i) for i, (s, name) in enumerate(rows) if name is None and not math.isnan(s))
    assert [one.record for one in found.top_variants] == [i for _, i in loose]


def test_variants_without_genes_are_the_largest_fifty() -> None:
    values = np.random.default_rng(0).normal(size=900).round(1).tolist()
    found = summarise(cut(_with_scores(values), [333, 333]), panels=(), score_columns=("score",))
    expected = sorted(range(900), key=lambda i: (-abs(values[i]), i))[:50]
    assert [one.record for one in found.top_variants] == expected
    assert found.top_genes == ()
    assert "Variants without a gene" in render(found, {}, {})


def test_the_parts_of_a_score_are_no_columns_of_the_list() -> None:
    row = make_row(0, **splice(np.random.default_rng(0)), gene_id="G1", gene_symbol="A", transcript_id="T1")
    table = pa.Table.from_pylist([row], schema=SCHEMA)
    both = Page(render(summarise([table], panels=(), score_columns=("inclusion_change", "pwm_change")), {}, {}))
    assert "gene.G1.inclusion_change" in both.keyed and "gene.G1.pwm_change" not in both.keyed
    assert both.keyed["histogram.pwm_change.num"] == "1"
    alone = Page(render(summarise([table], panels=(), score_columns=("pwm_change",)), {}, {}))
    assert "gene.G1.pwm_change" in alone.keyed


def test_a_name_that_serves_gene_and_transcript_is_shown_once() -> None:
    rows = [
        make_row(0, ds_max=0.5, gene_id="SAME", gene_symbol="SAME", transcript_id="SAME"),
        make_row(1, ds_max=0.25, gene_id="ENSG1", gene_symbol="OTHER", transcript_id="ENST1"),
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    text = Page(render(summarise([table], panels=(), score_columns=("ds_max",)), {}, {})).text
    assert [text.count(name) for name in ("SAME", "ENSG1", "OTHER", "ENST1")] == [1, 1, 1, 1]


def test_summary_does_not_grow_with_rows() -> None:
    table = make_table(5, genome=400, constructs=0, screen=0)
    records = table["record"].to_numpy()

    def many(copies: int) -> Iterator[pa.Table]:
        for i in range(copies):
            yield table.set_column(0, table.schema.field(0), pa.array(records + i * 1000))

    once, often = (summarise(many(copies), panels=PANELS, score_columns=GIVEN_SCORES) for copies in (1, 40))
    assert often.rows == 40 * once.rows and often.records == 40 * once.records
    assert often.top_genes[0].record == once.top_genes[0].record
    assert len(often.to_json()) < 1.1 * len(once.to_json())


def test_json_is_strict_and_holds_no_single_row_of_a_panel(summary: Summary) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    found = json.loads(summary.to_json(), parse_constant=refuse)
    assert found["rows"] == summary.rows
    panel = found["panels"][0]
    assert "truth" not in panel and "scores" not in panel and panel["num"] == summary.panels[0].num
    canonical = [one for one in found["panels"][1]["figures"] if one["group"] == "canonical"]
    assert canonical and all(one["value"] is None for one in canonical)


def test_page_stands_alone(html: str, page: Page) -> None:
    assert not re.search(r"https?:|src=|url\(|@import|<script|<link|javascript:", html)
    names = {tag for tag, _ in page.tags}
    assert names.isdisjoint({"script", "link", "img", "iframe", "object"})
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_page_says_what_it_must_and_no_more(page: Page) -> None:
    assert "Research use only; not a medical device" in page.text
    assert not re.search(r"pathogenic|benign|ACMG|diagnos", page.text, re.IGNORECASE)
    assert "NA12878" not in page.text and "NA24385" not in page.text


def test_drawings_and_tables_are_named_for_those_who_do_not_see_them(html: str, page: Page) -> None:
    drawings = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(drawings) == len(SCORES) + 2 + 2
    assert all(one.get("role") == "img" and one.get("aria-label") for one in drawings)
    assert html.count("<svg") == len(re.findall(r"<svg[^>]*><title>", html))
    assert html.count("<table") == html.count("<caption")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_timings_and_provenance_are_shown_as_given(page: Page) -> None:
    assert page.keyed["timings.wall_s"] == "1 min 23 s"
    assert page.keyed["timings.records_per_s"] == "41.7"
    assert page.keyed["timings.workers"] == "2"
    assert page.keyed["provenance.model.digest"] == PROVENANCE["model"]["digest"]
    assert page.keyed["provenance.reference.refget.chr22"] == "SQ." + "x" * 32
    assert page.keyed["provenance.command"] == "replisome score-variants variants.vcf.gz -o 'out dir'"


def test_what_is_absent_is_a_dash() -> None:
    given = {"model": None, "genes": None, "notes": {}, "command": [], "input": ""}
    text = render(summarise([], panels=(), score_columns=("score",)), given, {})
    assert {Page(text).keyed[f"provenance.{name}"] for name in given} == {"\u2013"}
    assert "None" not in text


def test_long_lists_of_contigs_are_cut_with_their_number() -> None:
    many = {"refget": {f"c{i}": "SQ.y" for i in range(100)}}
    text = render(summarise([], panels=(), score_columns=("score",)), many, {})
    assert Page(text).keyed.keys() >= {f"provenance.refget.c{i}" for i in range(40)}
    assert "and 60 more" in text and "provenance.refget.c40" not in text


def test_hostile_text_stays_text() -> None:
    evil = "<script>alert(1)</script>\"'&"
    rows = [
        make_row(i, contig=evil, gene_id=evil, gene_symbol=evil, ref=evil, **splice(np.random.default_rng(i)))
        for i in (0, 1)
    ]
    rows[0] |= {"state": "rejected", "reason": evil}
    rows += [
        make_row(i, info_SET=evil, info_DPSI=str(i), info_PLACE=evil, pwm_change=float(i), ds_max=0.5)
        for i in range(2, 20)
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    panel = Panel(evil, "signed", {"SET": evil}, "DPSI", ("pwm_change",), note=evil, group="PLACE")
    text = render(
        summarise([table], panels=[panel], score_columns=("ds_max",)), {evil: evil, "command": [evil]}, {evil: 1}
    )
    assert "<script" not in text
    assert {tag for tag, _ in Page(text).tags}.isdisjoint({"script"})
    assert Page(text).keyed["panel.0.all.pearson.pwm_change.value"] == "1.000"


def test_an_empty_run_has_a_page() -> None:
    empty = SCHEMA.empty_table()
    for parts in ([], [empty], [empty, empty]):
        found = summarise(parts, panels=PANELS, score_columns=GIVEN_SCORES)
        assert (found.records, found.rows, found.num_contigs) == (0, 0, 0)
        shown = Page(render(found, {}, {}))
        assert shown.keyed["counts.records"] == "0"
        assert "No row is scored." in shown.text and "nothing to draw" in shown.text


def test_a_run_of_rejects_alone_has_a_page() -> None:
    table = pa.Table.from_pylist([make_row(i, state="rejected", reason="breakend") for i in range(3)], schema=SCHEMA)
    shown = Page(render(summarise([table], panels=PANELS, score_columns=GIVEN_SCORES), {}, {}))
    assert shown.keyed["counts.rejected"] == "3" and shown.keyed["counts.rejected.share"] == "100%"
    assert "No scored row has a value." in shown.text


def test_clusters_widen_the_interval_where_rows_repeat() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(size=40)
    score = truth + rng.normal(size=40)
    rows = [
        make_row(i, info_SET="vex", info_DPSI=str(truth[i // 10]), info_EXON=str(i // 10), pwm_change=score[i // 10])
        for i in range(400)
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    widths = []
    for cluster in ("", "EXON"):
        panel = Panel("p", "signed", {"SET": "vex"}, "DPSI", ("pwm_change",), cluster=cluster)
        one = summarise([table], panels=[panel], score_columns=("pwm_change",)).panels[0].figures[0]
        widths.append(one.high - one.low)
    assert widths[1] > 2 * widths[0]


def test_a_large_panel_draws_a_sample_and_says_so() -> None:
    rng = np.random.default_rng(2)
    size = 5000
    rows = [make_row(i, info_SET="vex", info_DPSI=f"{rng.normal():.3f}", pwm_change=float(i % 7)) for i in range(size)]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    panel = Panel("p", "signed", {"SET": "vex"}, "DPSI", ("pwm_change",))
    text = render(summarise([table], panels=[panel], score_columns=("pwm_change",)), {}, {})
    assert text.count("<circle") == 3000
    assert Page(text).keyed["panel.0.drawn"] == "3,000"


@pytest.mark.parametrize(
    ("panel", "message"),
    [
        (
            Panel("p", "signed", {"SET": "vex"}, "ABSENT", ("ds_max",)),
            r"panel 'p': no INFO key 'ABSENT'.*keep this INFO",
        ),
        (Panel("p", "signed", {"SET": "vex"}, "DPSI", ("absent",)), r"panel 'p': no score column 'absent'"),
    ],
)
def test_absent_columns_are_named(panel: Panel, message: str) -> None:
    with pytest.raises(InputError, match=message):
        summarise([make_table(genome=3, constructs=3, screen=3)], panels=[panel], score_columns=GIVEN_SCORES)


def test_absent_score_columns_are_named() -> None:
    with pytest.raises(InputError, match="no score column 'absent' in the table"):
        summarise([SCHEMA.empty_table()], panels=(), score_columns=("absent",))
    with pytest.raises(InputError, match="no score column is named"):
        summarise([], panels=(), score_columns=())


def test_an_unknown_state_is_refused() -> None:
    table = pa.Table.from_pylist([make_row(0, state="lost")], schema=SCHEMA)
    with pytest.raises(DataError, match="state 'lost' is none of"):
        summarise([table], panels=(), score_columns=("ds_max",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "ranks"}, "kind 'ranks' is unknown"),
        ({"scores": ()}, "no score column is named"),
        ({"kind": "classes", "positive": ("a",)}, "a class has no values"),
        ({"kind": "classes", "positive": ("a", "b"), "negative": ("b",)}, "b is both positive and negative"),
        ({"flip": True}, "flip is for panels of kind 'classes'"),
    ],
)
def test_panels_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    plain: dict[str, Any] = {"title": "p", "kind": "signed", "where": {}, "truth": "DPSI", "scores": ("ds_max",)}
    with pytest.raises(InputError, match=message):
        Panel(**plain | changes)


def test_numbers_are_formatted_alike() -> None:
    assert [real(v) for v in (0.12345, -0.5, -0.0001, math.nan, None, 123456.0)] == [
        "0.123",
        "\u22120.500",
        "0.000",
        "\u2013",
        "\u2013",
        "1.235e+05",
    ]
    assert [share(*v) for v in ((0, 0), (0, 9), (9, 9), (1, 10_000), (9_999, 10_000), (1, 3))] == [
        "",
        "0%",
        "100%",
        "<0.1%",
        ">99.9%",
        "33.3%",
    ]


def test_import_needs_numpy_and_pyarrow_alone() -> None:
    code = (
        "import sys, engine.scoring._variant_report as r\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & "
        "{'jinja2', 'torch', 'pysam', 'polars', 'pydantic', 'ray', 'pandas', 'scipy'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
