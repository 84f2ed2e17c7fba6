import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import DataError, InputError
from engine.io.parquet import SEAL_KEY, write_table
from engine.training._sequence_set import index_splits, open_set, read_group
from engine.training._split_table import SplitTable
from schemas.tables import SPLITS
from tests.toys.sequences import motif_rows, row, usual_split, write_set, write_splits


@pytest.fixture
def rows():
    made = motif_rows(50)
    made[7] = row(7, None, state="rejected", reason="empty_sequence")
    return made


@pytest.fixture
def data(tmp_path, rows):
    write_set(tmp_path / "set", rows, rows_per_group=6)
    return open_set(str(tmp_path / "set"))


def splits_file(tmp_path, rows, split_of=usual_split):
    return str(write_splits(tmp_path / "splits.parquet", rows, split_of))


def test_every_kept_row_is_in_its_split_and_read_back_as_written(tmp_path, rows, data):
    found = index_splits(data, SplitTable.load(splits_file(tmp_path, rows), data))
    texts = {one["record"]: one["sequence"] for one in rows}
    seen = []
    for split, groups in found.items():
        for group in groups:
            table = read_group(group, ["record", "sequence"])
            assert table["record"].to_pylist() == group.records.tolist()
            assert table["sequence"].to_pylist() == [texts[record] for record in group.records]
            assert group.longest == max(len(texts[record]) for record in group.records)
            assert {usual_split(record) for record in group.records.tolist()} == {split}
            seen += group.records.tolist()
    assert sorted(seen) == [record for record in range(50) if record != 7]


def test_a_fold_is_held_out_and_test_rows_stay(tmp_path, rows, data):
    path = splits_file(tmp_path, rows, lambda record: ("test", None) if record < 5 else ("train", record % 3))
    found = index_splits(data, SplitTable.load(path, data), fold=1)
    records = {split: {int(r) for group in groups for r in group.records} for split, groups in found.items()}
    kept = set(range(50)) - {7}
    assert records["test"] == {0, 1, 2, 3, 4}
    assert records["validation"] == {record for record in kept if record >= 5 and record % 3 == 1}
    assert records["train"] == {record for record in kept if record >= 5 and record % 3 != 1}


def test_a_record_without_split_is_named(tmp_path, rows, data):
    path = splits_file(tmp_path, [one for one in rows if one["record"] != 31])
    with pytest.raises(InputError, match=r"record 31 of .*part-000002.* has no row in the split file"):
        index_splits(data, SplitTable.load(path, data))


def test_a_record_split_twice_is_named(tmp_path, rows, data):
    with pytest.raises(InputError, match="record 3 stands twice"):
        SplitTable.load(splits_file(tmp_path, [*rows, rows[3]]), data)


def test_a_split_file_that_lost_its_seal_is_never_read(tmp_path, rows, data):
    """With the seal's name gone nothing else vouches for footer and page headers."""
    path = Path(splits_file(tmp_path, rows))
    path.write_bytes(path.read_bytes().replace(SEAL_KEY, b"X" + SEAL_KEY[1:]))
    with pytest.raises(DataError, match="it has no seal of ours"):
        SplitTable.load(str(path), data)


def test_a_split_file_of_another_set_is_refused(tmp_path, rows, data):
    table = pa.Table.from_pylist([{"record": 0, "split": "train"}], SPLITS)
    path = tmp_path / "other.parquet"
    write_table(table, path, schema_name="splits", version=1, metadata={"data_digest": "f" * 64})
    with pytest.raises(InputError, match="it was made of the set ffffffffffff"):
        SplitTable.load(str(path), data)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda place: None, "is not there"),
        (lambda place: place.mkdir(), "holds no Parquet parts"),
        (lambda place: (place.mkdir(), (place / "run.json").write_text("{}")), "is not finished"),
    ],
)
def test_what_is_no_set_is_said(tmp_path, make, sentence):
    make(tmp_path / "set")
    with pytest.raises(InputError, match=sentence):
        open_set(str(tmp_path / "set"))


def test_another_schema_is_named(tmp_path):
    write_table(pa.table({"a": [1]}), tmp_path / "a.parquet", schema_name="variant_scores", version=1)
    with pytest.raises(InputError, match="schema 'variant_scores' version 1, wanted is 'sequences' version 2"):
        open_set(str(tmp_path / "a.parquet"))


def test_a_set_of_an_older_schema_is_refused_by_its_version(tmp_path):
    write_table(pa.table({"a": [1]}), tmp_path / "a.parquet", schema_name="sequences", version=1)
    with pytest.raises(InputError, match=r"'sequences' version 1, wanted is 'sequences' version 2; .* make it anew"):
        open_set(str(tmp_path))


def test_an_empty_sequence_is_named(tmp_path):
    write_set(tmp_path / "set", [row(0, "ACGT"), row(1, "")])
    data = open_set(str(tmp_path / "set"))
    path = splits_file(tmp_path, [row(0, "A"), row(1, "A")])
    with pytest.raises(DataError, match=r"part-000000.parquet: record 1 is an empty sequence"):
        index_splits(data, SplitTable.load(path, data))


def test_a_flipped_bit_is_never_read_as_data(tmp_path, rows, data):
    found = index_splits(data, SplitTable.load(splits_file(tmp_path, rows), data))
    group = found["train"][0]
    column = pq.read_metadata(group.part).row_group(group.row_group).column(2)
    assert column.path_in_schema == "sequence"
    begin = column.dictionary_page_offset or column.data_page_offset
    whole = bytearray(Path(group.part).read_bytes())
    whole[begin + column.total_compressed_size - 5] ^= 1
    Path(group.part).write_bytes(whole)
    with pytest.raises(DataError, match=r"part-.*does not decode"):
        read_group(group, ["sequence"])


def test_the_digest_is_the_manifests_or_the_bytes(tmp_path, rows, data):
    assert open_set(f"run:{tmp_path}/set").digest == data.digest
    (tmp_path / "set" / "manifest.json").write_text(json.dumps({"digest": "abc"}))
    assert open_set(str(tmp_path / "set")).digest == "abc"
    write_set(tmp_path / "other", rows[:-1], rows_per_group=6)
    assert open_set(str(tmp_path / "other")).digest != data.digest


def test_folds_and_records_are_held_as_numbers(tmp_path, rows, data):
    table = SplitTable.load(splits_file(tmp_path, rows), data)
    assert table.records.dtype == np.int64
    assert table.folds.tolist() == [-1] * 50
