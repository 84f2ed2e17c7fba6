"""bigWig as written, read back by pybigtools and by our own reader: values, gaps, summaries, hostile calls."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pybigtools
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.io import bigwig_sink
from engine.io.bigwig import BigWig
from engine.io.bigwig_sink import BigWigSink

LENGTHS = {"chrB": 900, "chrA": 70, "empty": 5}


def judged(path: Path, contig: str, start: int, end: int) -> np.ndarray:
    values: np.ndarray = pybigtools.open(str(path)).values(contig, start, end, fillna=None)
    return values.astype(np.float32)


@st.composite
def stretches(draw):
    """(contig, start, span, values) in an order that a sink takes."""
    found = []
    for contig in draw(st.permutations(["chrB", "chrA"])):
        at = 0
        for _ in range(draw(st.integers(0, 3))):
            start, span = at + draw(st.integers(0, 20)), draw(st.integers(1, 4))
            most = (LENGTHS[contig] - start) // span
            if most < 1:
                break
            number = st.one_of(st.just(np.nan), st.floats(-100, 100, width=32))
            values = draw(st.lists(number, min_size=1, max_size=min(most, 40)))
            found.append((contig, start, span, np.array(values, np.float32)))
            at = start + span * len(values)
    return found


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stretches())
def test_readers_see_what_was_added(tmp_path, monkeypatch, added):
    # Small nodes and blocks, so that the index has several levels.
    monkeypatch.setattr(bigwig_sink, "_NODE", 2)
    monkeypatch.setattr(bigwig_sink, "_SLOT", 5)
    path = tmp_path / "x.bw"
    truth = {name: np.full(length, np.nan, np.float32) for name, length in LENGTHS.items()}
    with BigWigSink(path, LENGTHS) as sink:
        for contig, start, span, values in added:
            sink.add(contig, start, values, span=span)
            truth[contig][start : start + span * len(values)] = np.repeat(values, span)
    own = BigWig(path)
    assert own.contigs == LENGTHS
    for name, length in LENGTHS.items():
        np.testing.assert_array_equal(own.values(name, 0, length).astype(np.float32), truth[name])
        np.testing.assert_array_equal(judged(path, name, 0, length), truth[name])
    assert not path.with_name("x.bw.zoom").exists()


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> tuple[Path, np.ndarray]:
    """Values of 300,000 bases with a gap, in uneven stretches; the index of such a file has two levels."""
    path = tmp_path_factory.mktemp("large") / "x.bw"
    values = np.random.default_rng(0).normal(size=300_000).astype(np.float32)
    values[70_000:72_000] = np.nan
    with BigWigSink(path, {"c": 400_000, "d": 100}) as sink:
        for begin, end in ((0, 33), (33, 100_001), (100_001, 300_000)):
            sink.add("c", 10 + begin, values[begin:end])
        sink.add("d", 0, np.ones(2), span=50)
    return path, values


def test_summary_and_zoom_levels(large):
    path, values = large
    file = pybigtools.open(str(path))
    told = file.info()
    there = np.concatenate((values[~np.isnan(values)].astype(np.float64), np.ones(100)))
    assert told["zoomLevels"] == 7
    assert told["summary"]["basesCovered"] == len(there)
    assert told["summary"]["sum"] == pytest.approx(there.sum())
    assert told["summary"]["std"] == pytest.approx(there.std(ddof=1))
    assert (told["summary"]["min"], told["summary"]["max"]) == pytest.approx((there.min(), there.max()))
    # Bins of a zoom level's own size and places: its records are the answer.
    size = 4096
    padded = np.full(400_000, np.nan)
    padded[10 : 10 + len(values)] = values
    whole = padded[: 70 * size].reshape(-1, size)
    means = file.values("c", 0, 70 * size, bins=70, summary="mean", fillna=None)
    np.testing.assert_allclose(means, np.nanmean(whole, axis=1), atol=1e-6)
    np.testing.assert_array_equal(judged(path, "c", 10, 300_010), values)
    np.testing.assert_array_equal(judged(path, "d", 0, 100), 1)


def test_equal_values_give_equal_bytes(large, tmp_path):
    path, values = large
    with BigWigSink(tmp_path / "y.bw", {"c": 400_000, "d": 100}) as sink:
        for begin, end in ((0, 33), (33, 100_001), (100_001, 300_000)):
            sink.add("c", 10 + begin, values[begin:end].copy())
        sink.add("d", 0, [1.0, 1.0], span=50)
    assert (tmp_path / "y.bw").read_bytes() == path.read_bytes()


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(InputError, match="a bigWig file of 0 contigs"):
        BigWigSink(tmp_path / "x.bw", {})
    with pytest.raises(ValueError, match="is not among"), BigWigSink(tmp_path / "x.bw", {"c": 10}) as sink:
        sink.add("d", 0, [1.0])
    with (
        pytest.raises(ValueError, match="leaves c, which has 10 bases"),
        BigWigSink(tmp_path / "x.bw", {"c": 10}) as sink,
    ):
        sink.add("c", 5, np.zeros(6))
    with pytest.raises(ValueError, match="comes after 4"), BigWigSink(tmp_path / "x.bw", {"c": 10}) as sink:
        sink.add("c", 0, np.zeros(4))
        sink.add("c", 3, np.zeros(1))
    with pytest.raises(ValueError, match="finished before"), BigWigSink(tmp_path / "x.bw", {"c": 10, "d": 10}) as sink:
        for contig in ("c", "d", "c"):
            sink.add(contig, 0, np.zeros(1))
    with pytest.raises(ValueError, match="finite"), BigWigSink(tmp_path / "x.bw", {"c": 10}) as sink:
        sink.add("c", 0, [np.inf])
