"""Windows on a genome as one track: means, strands and ends against counting base by base."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.interpret import _genome_track
from engine.interpret._explain_job import track_name
from engine.interpret._genome_track import Window, lengths_of, windows_of, write_track
from engine.io.bigwig import BigWig

CONTIGS = {"c": 120, "d": 30}
WINDOWS = st.lists(
    st.tuples(st.sampled_from(["c", "d"]), st.integers(-5, 118), st.lists(st.floats(-9, 9, width=32), max_size=40)),
    max_size=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(WINDOWS)
def test_every_base_has_the_mean_of_its_windows(tmp_path, monkeypatch, drawn):
    monkeypatch.setattr(_genome_track, "_BLOCK_BASES", 16)
    windows = [Window(contig, start, np.array(values, np.float32)) for contig, start, values in drawn]
    write_track(tmp_path / "x.bw", windows, CONTIGS)
    found = BigWig(tmp_path / "x.bw")
    for contig, length in CONTIGS.items():
        for base in range(length):
            here = [w.values[base - w.start] for w in windows if w.contig == contig and w.start <= base < w.end]
            expected = np.float32(np.mean(np.array(here, np.float64))) if here else np.nan
            np.testing.assert_allclose(found.values(contig, base, base + 1)[0], expected, rtol=1e-6, atol=1e-6)


def test_rows_without_a_place_are_left_out_and_the_other_strand_turns():
    rows = [
        {"contig": "c", "start": 4, "end": 7, "strand": "-", "x": [1.0, 2.0, 3.0]},
        {"contig": "c", "start": 4, "end": 9, "strand": "+", "x": [1.0, 2.0, 3.0]},
        {"contig": None, "start": None, "end": None, "strand": None, "x": [1.0]},
        {"contig": "d", "start": -1, "end": 1, "strand": None, "x": [5.0, 6.0]},
        {"contig": "d", "start": 1, "end": 2, "strand": "+", "x": None},
    ]
    found = list(windows_of([pa.Table.from_pylist(rows)], "x"))
    assert [(one.contig, one.start, one.values.tolist()) for one in found] == [
        ("c", 4, [3.0, 2.0, 1.0]),
        ("d", -1, [5.0, 6.0]),
    ]
    assert lengths_of(found) == {"c": 7, "d": 1}


def test_a_channels_name_is_no_path():
    assert track_name("site_CD4/CD8") == "contributions-site_CD4%2FCD8.bw"
    assert track_name("A549 (50%)") == "contributions-A549%20%2850%25%29.bw"
    assert track_name("../x") == "contributions-..%2Fx.bw"
