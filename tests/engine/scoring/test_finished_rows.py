"""Rows of a finished run: cut completely, read back whatever the cut, and never from a part that was changed."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DataError, InputError
from engine.io.source import Shard
from engine.scoring._finished_rows import FinishedRows, RowSource, _cut, open_finished
from schemas.tables import SEQUENCES_VERSION
from tests.toys.sequence_runs import ingested
from tests.toys.sequences import motif_rows

GIVEN = {"job": "ingest-sequences", "schema": f"sequences {SEQUENCES_VERSION}"}


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 10), st.integers(1, 80))
def test_a_cut_holds_every_row_once_within_its_limits(weights, most_rows, most_weight):
    found = _cut(np.array(weights, np.int64), most_rows, most_weight)
    assert [row for begin, end in found for row in range(begin, end)] == list(range(len(weights)))
    for begin, end in found:
        assert end - begin <= most_rows
        assert end - begin == 1 or sum(weights[begin:end]) <= most_weight
    for (begin, end), (_, after) in itertools.pairwise(found):
        full = end - begin == most_rows or sum(weights[begin : end + 1]) > most_weight
        assert full, f"rows {begin} to {after} would fit into fewer shards"


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> FinishedRows:
    output = ingested(tmp_path_factory.mktemp("rows"), motif_rows(50), records_per_shard=16)
    return open_finished(f"run:{output}", **GIVEN)


def test_shards_hold_all_rows_in_order(rows):
    assert (len(rows.parts), rows.num_rows) == (4, 50)
    source = RowSource(rows, ["record", "sequence"], weight="length")
    scan = source.scan(records_per_shard=7, bytes_per_shard=1 << 20)
    assert scan.num_records == sum(shard.num_records for shard in scan.shards) == 50
    assert [shard.shard for shard in scan.shards] == list(range(len(scan.shards)))
    texts = [text for shard in scan.shards for text in source.read(shard)["sequence"].to_pylist()]
    assert texts == [one["sequence"] for one in motif_rows(50)]
    assert scan.digest == json.loads((Path(rows.uri) / "manifest.json").read_text())["digest"]


@given(begin=st.integers(0, 49), num=st.integers(1, 50))
def test_any_stretch_is_read_over_the_ends_of_parts(rows, begin, num):
    end = min(begin + num, 50)
    shard = Shard(0, begin, end, end - begin, begin, None, None, None, None)
    found = RowSource(rows, ["record"], weight="length").read(shard)
    assert found["record"].to_pylist() == list(range(begin, end))


def test_a_missing_or_changed_part_is_told(tmp_path):
    output = ingested(tmp_path, motif_rows(20), records_per_shard=10)
    found = open_finished(str(output), **GIVEN)
    part = output / found.parts[1].name
    data = part.read_bytes()
    part.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DataError, match="CRC-32C is"):
        found.table(found.parts[1])
    part.unlink()
    with pytest.raises(DataError, match=r"part-000001\.parquet"):
        found.table(found.parts[1])
    (output / "manifest.json").unlink()
    with pytest.raises(InputError, match="the run is not finished; finish it first"):
        open_finished(str(output), **GIVEN)


def test_rows_of_another_version_are_refused(rows):
    with pytest.raises(InputError, match="holds rows of schema sequences 2, this version reads sequences 3"):
        open_finished(rows.uri, job="ingest-sequences", schema="sequences 3")
