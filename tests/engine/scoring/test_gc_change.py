from __future__ import annotations

import pytest

from engine.scoring._contract import AlleleRow, InfoField, ScoringUnit, encode_info, float_text
from engine.scoring.gc_change import COMPONENT, GcChange, GcChangeParams
from tests.engine.scoring.stubs import fetch_from
from tests.toys import golden


@pytest.mark.parametrize(
    ("ref", "alt", "expected"),
    [("A", "G", 1.0), ("C", "G", 0.0), ("AC", "A", -0.5), ("G", "GATC", -0.5), ("N", "A", 0.0), ("ACGT", "N", -0.5)],
)
def test_shares_counted_by_hand(ref, alt, expected):
    scorer = GcChange(GcChangeParams(), None)
    prepared = scorer.prepare(ScoringUnit("c", 10, 0, ref, alt), fetch_from(ref))
    assert scorer.score(prepared, ()) == (expected,)


def test_the_tag_holds_one_value_per_alt():
    scorer = GcChange(GcChangeParams(), None)
    alleles = [[AlleleRow("A", "*", None, None, "star_allele")], [AlleleRow("A", "G", None, (1.0,), None)]]
    assert scorer.info_values(alleles) == [("RPL_GC_CHANGE", [".", "1.0000"])]


def test_header_lines_escape_what_vcf_quotes():
    line = InfoField("X", "A", "Float", 'say "a\\b"').header_line(version="1.2")
    assert line == b'##INFO=<ID=X,Number=A,Type=Float,Description="say \\"a\\\\b\\"",Source="replisome",Version="1.2">'


def test_texts_of_info_values():
    assert [float_text(one) for one in (None, 0.12345, -0.00001, 1.0)] == [".", "0.1235", "0.0000", "1.0000"]
    assert encode_info("HLA-A;B=C, D%:E") == "HLA-A%3BB%3DC%2C%20D%25%3AE"
    assert encode_info("") == "."


def test_golden_numbers_of_this_version():
    scorer = GcChange(GcChangeParams(), None)
    found = [
        scorer.score(scorer.prepare(ScoringUnit("c", 10, 0, ref, alt), fetch_from(ref)), ())
        for ref, alt in (("ACG", "T"), ("T", "GCA"), ("GATTACA", "GNC"))
    ]
    golden.check(COMPONENT, 1, found, [[-2 / 3], [2 / 3], [2 / 3 - 2 / 7]])
