"""What is kept, where it lies and how the plan is cut: every image answered for, every shard of one writer."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError
from engine.ingest._image_facts import ImageRow
from engine.ingest._image_rules import Cutting, ImageRules, choose_layout, cut, judge, place
from schemas import states


def row(number: int, **facts) -> ImageRow:
    told = {
        "shape": [1, 6, 5],
        "dtype": "uint8",
        "minimum": [0.0],
        "maximum": [9.0],
        "pixel_digest": f"{number:032x}",
        **facts,
    }
    return ImageRow(number, f"i{number}", "file", 0, [f"{number}.png"], 0, **told)


def reasons(rows: list[ImageRow]) -> list[str | None]:
    return [one.reason for one in rows]


def test_most_decide_and_the_first_of_equals():
    rows = [row(0), row(1, dtype="uint16"), row(2), row(3, shape=[3, 6, 5]), row(4, shape=[1, 5, 6])]
    judge(rows, ImageRules())
    assert reasons(rows) == [None, "dtype_differs", None, "channels_differ", "size_differs"]
    assert rows[4].sentence == "5 x 6 pixels in a set of 6 x 5"
    tie = [row(0), row(1, shape=[1, 5, 6])]
    judge(tie, ImageRules())
    assert reasons(tie) == [None, "size_differs"]


def test_what_is_declared_decides_over_most():
    rows = [row(0), row(1), row(2, shape=[3, 6, 5], dtype="uint16")]
    judge(rows, ImageRules(dtype="uint16", channels=3, size_px=(6, 5)))
    assert reasons(rows) == ["dtype_differs", "dtype_differs", None]


def test_sizes_may_be_any():
    rows = [row(0), row(1, shape=[1, 5, 6])]
    judge(rows, ImageRules(sizes="any"))
    assert reasons(rows) == [None, None]
    assert choose_layout(rows, Cutting()).kind == "images"
    with pytest.raises(InputError, match="one array cannot hold images of 2 shapes"):
        choose_layout(rows, Cutting("array"))


def test_repeats_and_conflicts():
    rows = [row(0, label="a"), row(0, label="a"), row(0, label="b"), row(0, label="a", mask_digest="1"), row(1)]
    judge(rows, ImageRules())
    assert reasons(rows) == [None, "duplicate_pixels", "conflicting_pixels", "conflicting_pixels", None]
    kept = [row(0), row(0)]
    judge(kept, ImageRules(duplicates="keep"))
    assert reasons(kept) == [None, None]


def test_a_rejected_image_is_no_first_of_its_repeats():
    rows = [row(0, label=None), row(0, label="a")]
    judge(rows, ImageRules(needs_label=True))
    assert reasons(rows) == ["missing_label", None]


def test_empty_labels_and_masks():
    flat = {"minimum": [3.0, 3.0], "maximum": [3.0, 3.0], "shape": [2, 6, 5]}
    rows = [row(0, **flat), row(1, label="x"), row(2, label="a", mask_digest="m")]
    judge(rows, ImageRules(classes=("a",), needs_mask=True))
    assert reasons(rows) == ["empty_image", "unknown_label", None]
    one = [row(0, **flat)]
    judge(one, ImageRules(keep_empty=True))
    assert reasons(one) == [None]
    two_values = [row(0, minimum=[3.0, 4.0], maximum=[3.0, 4.0], shape=[2, 6, 5])]
    judge(two_values, ImageRules())
    assert reasons(two_values) == [None]


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "shape": st.sampled_from([[1, 6, 5], [1, 6, 5], [1, 5, 6], [3, 6, 5]]),
            "dtype": st.sampled_from(["uint8", "uint8", "uint16"]),
            "digest": st.integers(0, 12),
            "plate": st.sampled_from([("p", "A1", "1"), ("p", "A1", "2"), ("q", "B12", "1")]),
        }
    ),
    max_size=40,
)


@given(
    facts=ROWS,
    layout=st.sampled_from(["auto", "images"]),
    sizes=st.sampled_from(["one", "any"]),
    on_plates=st.booleans(),
    per_shard=st.integers(1, 7),
    bytes_per_shard=st.sampled_from([1, 70, 1 << 20]),
)
def test_every_image_has_one_place_and_every_shard_one_writer(
    *, facts, layout, sizes, on_plates, per_shard, bytes_per_shard
):
    rows = [
        row(one["digest"], shape=one["shape"], dtype=one["dtype"], **_plate(one["plate"], on_plates)) for one in facts
    ]
    if on_plates:
        rows.sort(key=lambda one: (one.plate, one.well, one.field))
    judge(rows, ImageRules(sizes=sizes))
    cutting = Cutting(layout, per_shard, bytes_per_shard)
    store = choose_layout(rows, cutting)
    place(rows, store)
    assert all(one.reason in (None, *states.INGEST_REASONS) for one in rows)
    kept = [one for one in rows if one.is_kept]
    places = [(one.array, one.row) for one in kept]
    assert len(set(places)) == len(places)
    for array, number in Counter(array for array, _ in places).items():
        assert [at for name, at in places if name == array] == list(range(number))
        assert len({tuple(one.shape) for one in kept if one.array == array}) == 1
    assert all((one.array is None) == (one.row is None) == (not one.is_kept) for one in rows)
    spans = cut(rows, store, cutting)
    assert [span.begin for span in spans] == [0, *(span.end for span in spans[:-1])] if spans else not rows
    assert not spans or spans[-1].end == len(rows)
    writers = [
        {(one.array, one.row // store.rows_per_shard) for one in rows[span.begin : span.end] if one.is_kept}
        for span in spans
    ]
    assert sum(map(len, writers)) == len(set().union(*writers))
    assert all(sum(one.is_kept for one in rows[span.begin : span.end]) <= per_shard for span in spans)


def _plate(told: tuple[str, str, str], on_plates: bool) -> dict[str, str]:
    return dict(zip(("plate", "well", "field"), told, strict=True)) if on_plates else {}


def test_a_field_of_several_times_is_one_array():
    rows = [row(i, plate="p", well="A01", field="3") for i in range(3)]
    store = choose_layout(rows, Cutting())
    place(rows, store)
    assert (store.kind, store.rows_per_shard) == ("plate", 3)
    assert [(one.array, one.row) for one in rows] == [("A/01/3/0", 0), ("A/01/3/0", 1), ("A/01/3/0", 2)]


def test_a_layout_of_plates_needs_plates():
    with pytest.raises(InputError, match="not every image is a field of a plate"):
        choose_layout([row(0)], Cutting("plate"))


def test_masks_take_the_smallest_type_that_holds_them():
    small, large = row(0, mask_digest="a"), row(1, mask_digest="b")
    small.largest_label, large.largest_label = 2**16 - 1, 2**16
    assert choose_layout([small], Cutting()).mask_dtype == "uint16"
    assert choose_layout([small, large], Cutting()).mask_dtype == "uint32"
    assert choose_layout([row(0)], Cutting()).mask_dtype is None


def test_every_reason_has_a_sentence():
    import engine.ingest._image_facts as facts
    import engine.ingest._image_rules as rules
    import engine.io._image_stack as stack
    import engine.io._tiff as tiff
    import engine.io.image_files as files
    import engine.io.image_sources as sources
    import engine.io.ome_zarr as ome

    said: set[str] = set()
    for module in (facts, rules, stack, tiff, files, sources, ome):
        text = Path(module.__file__).read_text()
        said |= set(re.findall(r'(?:ImageProblem|reject)\(\s*"([a-z_]+)"', text))
    assert {"unreadable", "missing_chunk", "duplicate_pixels"} <= said
    assert said <= set(states.INGEST_REASONS)
