"""The base of specs: frozen, strict, and plain about what is wrong."""

import pickle
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from schemas._base import Name, Names, Spec, SpecError, build_spec, field_at, nearest


class Inner(Spec):
    size: Annotated[int, Field(ge=1, le=9)] = 3
    """how many"""
    mode: Literal["fast", "exact"] = "fast"
    names: Names = ()


class Outer(Spec):
    title: str
    """the heading"""
    inner: Inner = Field(default_factory=Inner)
    share: float = 0.5
    items: Annotated[tuple[Inner, ...], Field(strict=False)] = ()
    by_name: dict[Name, Name] = Field(default_factory=dict)
    on: bool = False


def refusal(values, **more):
    with pytest.raises(SpecError) as caught:
        build_spec(Outer, values, where="s.yaml", **more)
    return str(caught.value)


def test_unknown_key_names_place_and_nearest_spelling():
    text = refusal({"title": "t", "inner": {"siez": 2}})
    assert text == "s.yaml, key 'inner.siez': unknown key 'siez'; did you mean 'size'? known: mode, names, size"


def test_missing_key_says_what_to_give():
    assert refusal({}) == "s.yaml, key 'title': the key 'title' is missing; give title: the heading"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"inner": {"mode": "exat"}}, "found 'exat'; did you mean 'exact'? allowed: fast, exact"),
        ({"inner": {"size": 0}}, "found 0; give at least 1"),
        ({"inner": {"size": 10}}, "found 10; give at most 9"),
        ({"inner": {"size": "3"}}, "found '3'; give a whole number"),
        ({"inner": {"size": 3.0}}, "found 3.0; give a whole number"),
        ({"inner": {"size": True}}, "found True; give a whole number"),
        ({"inner": 3}, "found 3; give a mapping"),
        ({"inner": {"names": "a"}}, "found 'a'; give a list"),
        ({"share": float("nan")}, "found nan; give a finite number"),
        ({"share": "half"}, "found 'half'; give a number"),
        ({"on": "no"}, "found 'no'; give true or false"),
        ({"by_name": []}, "found []; give a mapping"),
        ({"title": True}, "found True; give text"),
    ],
)
def test_wrong_value_is_shown_with_what_is_wanted(values, sentence):
    assert sentence in refusal({"title": "t", **values})


def test_key_inside_a_list_is_named_with_its_index():
    assert "key 'items.1.siez'" in refusal({"title": "t", "items": [{}, {"siez": 1}]})


def test_more_than_one_fault_names_the_others():
    text = refusal({"title": "t", "inner": {"size": 0, "mode": "x"}, "shar": 1})
    assert "2 more to mend" in text
    assert "inner.mode" in text
    assert "shar" in text


def test_the_mark_of_the_closest_known_key_is_shown():
    marks = {("inner",): "line 2", ("inner", "size"): "line 3"}
    assert refusal({"title": "t", "inner": {"size": 0}}, marks=marks).startswith("s.yaml line 3, key 'inner.size'")
    assert refusal({"title": "t", "inner": {"mode": 0}}, marks=marks).startswith("s.yaml line 2, key 'inner.mode'")


def test_long_values_are_cut():
    assert len(refusal({"title": "t", "on": "x" * 5000})) < 200


def test_whole_numbers_are_names_but_switches_are_not():
    spec = build_spec(Outer, {"title": "t", "by_name": {"chr1": 1, 2: "chr2"}}, where="w")
    assert spec.by_name == {"chr1": "1", "2": "chr2"}
    assert "give text" in refusal({"title": "t", "by_name": {"a": True}})


def test_specs_are_frozen():
    spec = build_spec(Outer, {"title": "t"}, where="w")
    with pytest.raises(ValidationError, match="frozen"):
        spec.title = "u"


def test_field_docs_are_descriptions():
    assert field_at(Outer, ("inner", "size")).description == "how many"
    assert field_at(Outer, ("items", 0, "size")).description == "how many"
    assert field_at(Outer, ("by_name", "x")) is None
    assert field_at(Outer, ("nothing",)) is None


def test_nearest_lists_what_is_known():
    assert nearest("zzz", ["a", "b"]) == "known: a, b"


def test_errors_pickle():
    error = pickle.loads(pickle.dumps(SpecError("what", where="where", fix="fix")))
    assert (error.what, error.where, error.fix, str(error)) == ("what", "where", "fix", "where: what; fix")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["title", "inner", "share", "items", "by_name", "on", "size", "x"])


@given(st.dictionaries(KEYS, JSON, max_size=5))
def test_any_plain_data_is_taken_or_refused_in_one_sentence(values):
    try:
        spec = build_spec(Outer, values, where="w")
    except SpecError as error:
        assert str(error).startswith("w")
        assert "\n" not in str(error)
    else:
        assert build_spec(Outer, spec.model_dump(), where="w") == spec
