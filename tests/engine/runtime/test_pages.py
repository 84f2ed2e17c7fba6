"""One renderer for all pages: values are escaped, none is left out unseen, no page brings an environment of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from jinja2 import UndefinedError

import engine
from engine.runtime.pages import render_page

ROOT = Path(engine.__file__).parent


def page(folder: Path, text: str, **values: object) -> str:
    (folder / "x.html").write_text(text)
    return render_page("x.html", folder, **values)


def test_values_are_escaped_but_drawings(tmp_path):
    assert page(tmp_path, "{{ a }}{{ a|drawing }}", a="<b>") == "&lt;b&gt;<b>"


def test_a_value_that_is_not_given_is_an_error(tmp_path):
    with pytest.raises(UndefinedError, match="missing"):
        page(tmp_path, "{{ missing }}")


def test_a_page_finds_the_shared_pieces_and_its_own_come_first(tmp_path):
    text = (
        '{% extends "_card_frame.html" %}{% block what %}tests{% endblock %}{% block sections %}{{ a }}{% endblock %}'
    )
    assert "<title>Data card · tests</title>" in page(tmp_path, text, a=1)
    (tmp_path / "_card_frame.html").write_text("mine")
    assert page(tmp_path, text, a=1) == "mine"


def test_the_renderer_is_the_only_one_and_colours_stand_once():
    uses = [path.name for path in ROOT.rglob("*.py") if "jinja2" in path.read_text()]
    assert uses == ["pages.py"]
    named = [path.name for path in ROOT.rglob("*.html") if "prefers-color-scheme" in path.read_text()]
    assert named == ["_page_colours.html"]
