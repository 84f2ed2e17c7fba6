"""Training runs below one output: what the parent seals of them, and the page that tells of them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import DataError
from engine.runtime import layout
from engine.runtime.commit import commit_results, committed_files
from engine.runtime.run import Run, noted_versions
from engine.scoring._page import Number, entries, render_page
from engine.storage.store import LocalStore


@dataclass(frozen=True)
class Table:
    """Attributes:
    title: what its rows are.
    heads: of the columns.
    rows: cells, each a text or a number that names its source.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str | Number]]


@dataclass(frozen=True)
class Drawing:
    """An SVG picture with its heading."""

    head: str
    svg: str
    caption: str = ""


@dataclass(frozen=True)
class Page:
    """Attributes:
    title, model, lead: at the top.
    cautions: what makes the figures look better than they are.
    drawings, tables: in this order.
    """

    title: str
    model: str
    lead: str
    cautions: Sequence[str]
    drawings: Sequence[Drawing]
    tables: Sequence[Table]


@dataclass(frozen=True)
class Sealed:
    """Files below a child's folder, named from the parent's: those alike in every run, and those that hold times."""

    results: Mapping[str, int]
    sidecars: Sequence[str]


def sealed_files(output: Path, child: str) -> Sealed:
    """What a finished child committed.

    Raises:
        DataError: its manifest or report is missing or damaged.
    """
    store = LocalStore(output / child)
    try:
        files = committed_files(store, layout.read_sealed(store, layout.MANIFEST))
        report = layout.read_sealed(store, layout.REPORT_JSON)
    except FileNotFoundError as error:
        fix = "delete this folder and run again; it is made anew"
        raise DataError("this finished run has lost a file", where=str(output / child), fix=fix) from error
    results = {f"{child}/{name}": entry.rows for name, entry in files.items()}
    results |= {f"{child}/{name}": -1 for name in (layout.MANIFEST, layout.FILES)}
    sidecars = [f"{child}/{name}" for name in (layout.REPORT_JSON, *report["sidecars"])]
    return Sealed(results, sidecars)


def commit_parent(
    run: Run,
    *,
    own: Mapping[str, int],
    children: Sequence[Sealed],
    page: Page,
    key: Mapping[str, Any],
    facts: Mapping[str, Any],
    sidecars: Sequence[str] = (),
) -> None:
    """Write the page and seal everything, the children's files too.

    Args:
        run: held by this driver.
        own: the parent's result files with their rows.
        children: of each.
        page: the report.
        key: of run.json.
        facts: see commit_results.
        sidecars: further files of the parent that may hold paths.
    """
    provenance = {"command": run.context.command, "key": dict(key), "versions": noted_versions()}
    html = render_page(
        "runs_report.html",
        folder=Path(__file__).parent,
        title=page.title,
        model=page.model,
        lead=page.lead,
        cautions=page.cautions,
        drawings=page.drawings,
        tables=page.tables,
        is_number=lambda cell: isinstance(cell, Number),
        timings=list(entries({"runs": len(children), "wall_s": round(time.monotonic() - run.began, 3)}, "timings")),
        provenance=list(entries(provenance, "provenance")),
    )
    run.store.put(layout.REPORT_HTML, html.encode())
    results = {**own}
    for child in children:
        results |= child.results
    times = [layout.REPORT_HTML, *sidecars, *(name for child in children for name in child.sidecars)]
    digest = hashlib.sha256(layout.canonical_json(dict(key))).hexdigest()
    commit_results(run, results, result_key=digest, facts=facts, sidecars=times)
