"""Names of parts, and JSON files that know when they were changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DataError
from engine.runtime import layout
from engine.storage.store import open_store


@given(st.integers(0, 5_000_000))
def test_a_part_name_gives_its_shard_back(shard):
    for name in (layout.data_part(shard), layout.rejects_part(shard), layout.body_part(shard)):
        assert layout.shard_of(name) == shard


def test_folders_hold_a_thousand_shards():
    assert layout.data_part(0) == "data/000/part-000000.parquet"
    assert layout.data_part(999).startswith("data/000/")
    assert layout.data_part(1000) == "data/001/part-001000.parquet"


def test_every_flipped_bit_of_sealed_json_is_seen(tmp_path):
    store = open_store(str(tmp_path))
    sealed = layout.sealed_json({"name": "é", "list": [1, 2.5, None], "inner": {"a": True}})
    store.put("file.json", sealed)
    assert layout.read_sealed(store, "file.json")["inner"] == {"a": True}
    for bit in range(8 * len(sealed)):
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        store.root.joinpath("file.json").write_bytes(flipped)
        with pytest.raises(DataError, match="changed after it was written"):
            layout.read_sealed(store, "file.json")
