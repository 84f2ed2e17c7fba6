"""Pages of runs: one file each, without a script, loading nothing from elsewhere.

Templates lie beside the code that fills them; what they share (colours, the frame of a data card) lies here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def render_page(template: str, *folders: Path, **values: Any) -> str:
    """A page as text; every value is escaped, but what passes the filter `drawing`.

    Args:
        template: file name.
        folders: where it and its pieces lie, the first first; this folder comes last.
        values: what it shows; one that it asks for and does not get is an error.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["drawing"] = Markup
    return environment.get_template(template).render(**values)
