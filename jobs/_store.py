"""What `replisome store` does: take others' scores into a score store, and list what one holds."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import InputError

if TYPE_CHECKING:
    from engine.scoring._score_store import Segment

_SHOWN = 12


def import_scores(given: Mapping[str, Any], settings: Sequence[str], *, store: str, source: str) -> Iterator[str]:
    """Add rows of a VCF or of a finished run under a source's name.

    Args:
        given: options of score-variants by their first flag: what the numbers are of.
        settings: KEY=VALUE for further keys of its spec.
        store: the score store.
        source: who made the numbers.

    Yields:
        Lines to print.

    Raises:
        InputError: see StoreImport.
    """
    from engine.runtime.inputs import is_run, local_input
    from engine.scoring._store_import import LEFT_OUT, StoreImport
    from engine.storage.store import LocalStore
    from jobs import _spec
    from jobs.score_variants import stages_of
    from schemas.jobs.score_variants import ScoreVariantsSpec
    from schemas.states import REJECT_REASONS

    built = _spec.apply_settings(_spec.from_options("score_variants", {**given, "--output": store}), settings)
    _, spec = _spec.build(built, job="score_variants")
    assert isinstance(spec, ScoreVariantsSpec)
    path = spec.input.path
    if path is None:
        raise InputError("there is nothing to import", where="store import", fix="name a VCF, or run:DIR")
    with tempfile.TemporaryDirectory(prefix="replisome-") as folder:
        scratch = LocalStore(Path(folder))
        local = path if is_run(path) else local_input(path, scratch)
        task = StoreImport(stages_of(spec, scratch, variants=local), store, source)
        done = task.from_run(path.removeprefix("run:")) if is_run(path) else task.from_vcf()
    yield f"{store}: {done.rows:,} rows of {source} in {done.segments:,} segments"
    for reason, count in done.left_out.items():
        yield f"  left out {count:,}: {LEFT_OUT.get(reason) or REJECT_REASONS[reason]}"
    for note in done.notes:
        yield f"  note: {note}"


def listing(uri: str, as_json: bool) -> Iterator[str]:
    """Domains of a store with their segments, rows, bytes and sources.

    Raises:
        InputError: there is no score store at that place.
    """
    from engine.scoring._score_store import open_score_store, read_domains, segments_of

    store = open_score_store(uri)
    segments, told = segments_of(store), read_domains(store)
    if not segments and not told:
        raise InputError("there are no scores here", where=uri, fix="give the folder that was named with --store")
    sizes = {one.name: store.size(one.name) for one in segments}
    damaged = len(store.list("damaged"))
    domains = [_domain(digest, told.get(digest), segments, sizes) for digest in _domains(segments, told)]
    if as_json:
        yield json.dumps({"domains": domains, "damaged": damaged}, indent=1)
        return
    for one in domains:
        yield from _domain_lines(one)
    if damaged:
        yield f"{damaged:,} damaged segments set aside in {uri.rstrip('/')}/damaged"


def _domains(segments: Sequence[Segment], told: Mapping[str, Any]) -> list[str]:
    return sorted({*told, *(one.domain for one in segments)})


def _domain(
    digest: str, told: Mapping[str, Any] | None, segments: Sequence[Segment], sizes: Mapping[str, int]
) -> dict[str, Any]:
    own = [one for one in segments if one.domain == digest]
    sources = []
    for source in sorted({one.source for one in own}):
        some = [one for one in own if one.source == source]
        sources.append(
            {
                "source": f"imported:{source}" if source else "computed",
                "sequences": len({one.sequence for one in some}),
                "segments": len(some),
                "rows": sum(one.rows for one in some),
                "bytes": sum(sizes[one.name] for one in some),
            }
        )
    facts = dict(told["domain"]) if told else None
    return {"domain": digest, "about": dict(told["about"]) if told else {}, "facts": facts, "sources": sources}


def _domain_lines(one: Mapping[str, Any]) -> Iterator[str]:
    facts = one["facts"]
    if facts is None:
        yield f"domain {one['domain'][:_SHOWN]}: its description is missing or damaged"
    else:
        yield f"domain {one['domain'][:_SHOWN]}: {_title(facts, one['about'])}"
        params = ", ".join(f"{name} {value}" for name, value in facts["scorer_params"].items() if value not in ("", []))
        if params:
            yield f"  {params}"
    for source in one["sources"]:
        counts = f"{source['segments']:,} segments, {source['rows']:,} rows, {source['bytes']:,} bytes"
        yield f"  {source['source']}: {counts} on {source['sequences']:,} sequences"


def _title(facts: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    title = f"scorer {facts['scorer']} version {facts['scorer_version']}"
    model = facts["model"]
    if model is None:
        return f"{title}, no model"
    name = about.get("model", "a model")
    return f"{title}, {name} (networks {model['networks'][:_SHOWN]}), {model['precision']} on {model['device']}"
