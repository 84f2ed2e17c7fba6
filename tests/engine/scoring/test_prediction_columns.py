"""What heads become in a table: names, types, and nulls where there is no output."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from engine.errors import InputError
from engine.models._info import HeadInfo
from engine.scoring._prediction_columns import head_arrays, head_fields
from tests.engine.scoring.stubs import model_info

CLASSES = HeadInfo("class", ("a", "b", "c"), "softmax", "stranded", level="sequence")
LABELS = HeadInfo("labels", ("x", "y"), "sigmoid", "stranded", level="sequence")
VALUE = HeadInfo("value", ("value",), "identity", "stranded", level="sequence")
TRACK = HeadInfo("track", ("up", "down"), "softmax", "stranded")


def columns(head, outputs, context_bp=4):
    fields = head_fields(model_info(context_bp, head), [head.name])
    arrays = head_arrays(head, outputs)
    assert [one.type for one in arrays] == [one.type for one in fields]
    return {field.name: array.to_pylist() for field, array in zip(fields, arrays, strict=True)}


def floats(*values):
    return np.array(values, np.float32)


def test_classes_have_the_first_of_equal_probabilities():
    found = columns(CLASSES, [floats(0.25, 0.5, 0.25), None, floats(0.4, 0.2, 0.4)])
    assert found["class_predicted"] == ["b", None, "a"]
    assert found["class_probability"] == [0.5, None, np.float32(0.4)]
    assert found["class_a"] == [0.25, None, np.float32(0.4)]


def test_labels_are_those_above_one_half():
    found = columns(LABELS, [floats(0.5, 0.75), floats(0.1, 0.2), None])
    assert found["labels_predicted"] == [["y"], [], None]


def test_a_head_of_one_number_keeps_its_name():
    assert columns(VALUE, [None, floats(-2)]) == {"value": [None, -2.0]}


def test_positions_are_lists_of_their_own_length():
    outputs = [floats([1, 2, 3], [4, 5, 6]), None, floats([7], [8])]
    assert columns(TRACK, outputs) == {"track_up": [[1, 2, 3], None, [7]], "track_down": [[4, 5, 6], None, [8]]}
    (up, _) = head_fields(model_info(4, TRACK), ["track"])
    assert up.metadata[b"doc"] == b"channel up, value i of letter i + 2"


@pytest.mark.parametrize("head", [CLASSES, LABELS, VALUE, TRACK])
def test_a_shard_without_outputs_has_typed_nulls(head):
    assert all(values == [None, None] for values in columns(head, [None, None]).values())
    assert all(values == [] for values in columns(head, []).values())


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (HeadInfo("id", ("id",), "identity", "stranded", level="sequence"), "id"),
        (HeadInfo("class", ("predicted", "b"), "softmax", "stranded", level="sequence"), "class_predicted"),
    ],
)
def test_two_columns_of_one_name_are_refused(head, name):
    with pytest.raises(InputError, match=f"two columns would be named '{name}'; rename"):
        head_fields(model_info(0, head), [head.name])


def test_lists_fit_the_parquet_writer(tmp_path):
    from engine.io import parquet

    arrays = head_arrays(TRACK, [None, floats([1, np.nan], [2, 3])])
    table = pa.table(dict(zip(("up", "down"), arrays, strict=True)))
    parquet.write_table(table, tmp_path / "x", schema_name="x", version=1)
    assert parquet.read_table(tmp_path / "x")["down"].to_pylist() == [None, [2.0, 3.0]]
