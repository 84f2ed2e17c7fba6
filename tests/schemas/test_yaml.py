"""The strict YAML reader, with the safe loader as second reader where the two should agree."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from schemas._base import SpecError
from schemas._yaml import MAX_ALIASES, MAX_BYTES, MAX_DEPTH, MAX_VALUES, read_yaml


def read(text):
    return read_yaml(text, where="f.yaml").values


def refusal(text):
    with pytest.raises(SpecError) as caught:
        read(text)
    return str(caught.value)


def test_a_plain_spec_with_its_lines():
    document = read_yaml("a: 1\nb:\n  c: [x, 2.5]\n  d: null\n", where="f.yaml")
    assert document.values == {"a": 1, "b": {"c": ["x", 2.5], "d": None}}
    assert document.lines[("b", "c")] == 3
    assert document.lines[("b", "c", 1)] == 3
    assert document.lines[("b", "d")] == 4


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("NO", "NO"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("12:30:45", "12:30:45"),
        ("1:20", "1:20"),
        ("20:1-2000", "20:1-2000"),
        ("2026-01-02", "2026-01-02"),
        ("1_000", "1_000"),
        ("0o17", 15),
        ("0x1F", 31),
        ("-7", -7),
        ("+7", 7),
        ("0", 0),
        ("1e3", 1000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("1e-3", 0.001),
        ("-.inf", float("-inf")),
        ("'017'", "017"),
        ('"true"', "true"),
        ("=", "="),
        ("chr1", "chr1"),
        ("1" * 5000, "1" * 5000),
    ],
)
def test_scalars_follow_the_core_schema(text, value):
    found = read(f"k: {text}")["k"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["017", "-012", "08", "00"])
def test_numbers_that_two_versions_read_differently_are_refused(text):
    assert f"f.yaml line 1: {text} is octal to one version" in refusal(f"k: {text}")


def test_keys_are_text_whatever_they_look_like():
    assert read("{1: a, no: b, true: c, 1.5: d, 007: e}") == {"1": "a", "no": "b", "true": "c", "1.5": "d", "007": "e"}


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3", "{a: 1, a: 1}", "x:\n  a: 1\n  'a': 2", "{1: a, '1': b}"])
def test_duplicate_keys_are_refused(text):
    assert "stands twice, first on line" in refusal(text)


def test_the_same_key_in_two_mappings_is_fine():
    assert read("- {a: 1}\n- {a: 2}") == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system [ls]",
        "a: !!python/name:os.system",
        "a: !!str 1",
        "a: !custom x",
        "a: !!binary aGk=",
        "a: ! x",
        "!!set {a, b}",
        "a: !!timestamp 2026-01-02",
    ],
)
def test_tags_are_refused(text):
    assert "is not allowed" in refusal(text)


def test_merge_keys_are_refused_and_quoted_ones_are_keys():
    assert "merge keys are not read" in refusal("a: &x {b: 1}\nc:\n  <<: *x")
    assert read("'<<': 1") == {"<<": 1}


@pytest.mark.parametrize(
    "text", ["? [a, b]\n: 1", "? {a: 1}\n: 1", "&x a: 1\n", "a: &x 1\n*x : 2", "a: *nowhere", "a: &x [*x]"]
)
def test_keys_that_are_no_text_and_dangling_aliases_are_refused(text):
    assert refusal(text).startswith("f.yaml line")


def test_aliases_stand_for_their_values():
    assert read("a: &x [1, 2]\nb: *x\nc: &y t\nd: *y") == {"a": [1, 2], "b": [1, 2], "c": "t", "d": "t"}


def test_many_aliases_are_refused():
    assert "aliases" in refusal("a: &x 1\nb: [" + ", ".join(["*x"] * (MAX_ALIASES + 1)) + "]")


def test_aliases_of_aliases_cannot_grow():
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 5)}]" for n in range(1, 6)]
    assert f"more than {MAX_VALUES:,} values" in refusal("\n".join(rows))


def test_depth_is_capped_whatever_the_style():
    assert read("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None
    assert f"deeper than {MAX_DEPTH}" in refusal("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))
    assert f"deeper than {MAX_DEPTH}" in refusal("[" * 100_000)
    assert f"deeper than {MAX_DEPTH}" in refusal("\n".join(" " * n + "a:" for n in range(100)))


def test_size_is_capped():
    assert "above the cap" in refusal("#" * (MAX_BYTES + 1))
    assert f"more than {MAX_VALUES:,} values" in refusal("- 1\n" * (MAX_VALUES + 1))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("a: 1\n---\nb: 2", "a second document begins"),
        ("a: [1, 2", "not YAML"),
        ("a:\n\t- 1", "not YAML"),
        ("a: 'x", "not YAML"),
        ("a: b: c", "not YAML"),
        ("\x00", "not YAML"),
        (b"\xff\xfe\xfa", "not UTF-8"),
        (b"a: \xc3\x28", "byte 3 is not UTF-8"),
    ],
)
def test_what_is_no_document_is_said_plainly(text, sentence):
    text = refusal(text)
    assert sentence in text
    assert text.startswith("f.yaml")
    assert "\n" not in text


def test_a_byte_order_mark_is_no_key():
    assert read(b"\xef\xbb\xbfa: 1") == {"a": 1}


@given(st.text(alphabet="ab:-[]{},&*!'\"#?|>%@ \n\t017.<~", max_size=40))
def test_any_text_is_read_or_refused_in_one_sentence(text):
    try:
        read(text)
    except SpecError as error:
        assert "\n" not in str(error)


TEXT = st.text(alphabet="abcxyz é", min_size=1, max_size=6).map(str.strip).filter(lambda text: text not in ("", "y"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(TEXT, VALUES, max_size=4), st.booleans())
def test_agrees_with_the_safe_loader_where_nothing_is_ambiguous(values, flow):
    text = yaml.safe_dump(values, default_flow_style=flow, allow_unicode=True)
    if "&id" in text:
        text = json.dumps(values)
    assert read(text) == values == yaml.safe_load(text)


@given(VALUES)
def test_json_is_yaml(value):
    assert read(json.dumps({"k": value})) == {"k": value}
