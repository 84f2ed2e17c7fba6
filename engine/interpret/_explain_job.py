"""An explanation in the terms of the run protocol: what is opened, what keys it, what it leaves behind.

Beside what every run has it leaves
  attributions.zarr             by record, output, letter and position (see _attribution_store.py)
  contributions-NAME.bw         of sets whose records have places on a genome, one file a channel
  motif_hits/, motifs.parquet   where motifs are given: schemas.tables.MOTIF_HITS and MOTIF_MATCHES
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from engine.errors import InputError
from engine.interpret import _explain_report, deeplift, motifs
from engine.interpret._attribution import captum_attr
from engine.interpret._attribution_store import STORE
from engine.interpret._explain_stages import HITS, METHODS, ExplainStages, hits_part
from engine.interpret._genome_track import Window, lengths_of, windows_of, write_track
from engine.interpret._target import Target, check_question, letters_of
from engine.io import parquet
from engine.io.motif_files import read_motifs
from engine.runtime.commit import Parts, Report
from engine.runtime.receipts import Totals
from engine.runtime.run import Execution, Run, noted_versions
from engine.scoring._page import timings_of
from engine.scoring._predict_job import model_entry, model_facts, model_key
from engine.storage.store import Store
from schemas import tables

JOB = "explain_model"
SCHEMA_NAME = "explanations"
MOTIFS = "motifs.parquet"
# Raised when the same model, sequences and settings would give other numbers.
RESULT_VERSION = 1


@dataclass(frozen=True)
class ExplainOptions:
    """What an explanation needs beside its stages.

    Attributes:
        contigs: lengths of a reference's contigs, for the bigWig files; without any the windows' own ends.
        reference_digest: of that reference.
        motifs_path: as it was named.
        choice: what was asked for, for the key: ids, split, limit.
        command: the command line, for the report.
    """

    contigs: Mapping[str, int] | None = None
    reference_digest: str | None = None
    motifs_path: str = ""
    choice: tuple[Any, ...] = ()
    command: str = ""


class ExplainJob:
    """Everything of one run that is opened on the driver, checked before any process starts."""

    def __init__(self, stages: ExplainStages, options: ExplainOptions, execution: Execution) -> None:
        from engine.models._folder import check_members

        self.stages, self.options, self.execution = stages, options, execution
        stages.model.check()
        check_question(stages.model.info, stages.question)
        self._check_columns()
        check_members(stages.model.info)
        if stages.has_baseline:
            _check_method(stages)

    def _check_columns(self) -> None:
        names = self.stages.schema().names
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            where = f"model {self.stages.model.info.name}"
            raise InputError(f"two columns would be named {twice!r}", where=where, fix="rename the head or its channel")

    def results(self) -> tuple[str, ...]:
        """What the commit or the shards may write beside the parts."""
        return (f"{STORE}/", f"{HITS}/", MOTIFS, *map(track_name, self.stages.names))

    def plan(self, run: Run) -> None:
        """Cut or take up the plan; every part of the set is checked as it is cut."""
        search = self.stages.search
        lost = [] if search is None else motifs.too_short(search.motifs, search.p_value)
        if lost and search is not None:
            few = ", ".join(motif.name or motif.id for motif in lost[:5])
            run.warn(
                f"{len(lost)} of {len(search.motifs)} motifs are too short for any hit at --motif-p-value"
                f" {search.p_value:g} ({few}{', ...' if len(lost) > 5 else ''}); a higher value finds them"
            )
        shape = self.stages.shape
        run.plan(self.stages.source(), records_per_shard=shape.records_per_shard, bytes_per_shard=1)

    def key(self) -> dict[str, Any]:
        """Every setting and digest that can change a result, but the set's own digest."""
        stages, method = self.stages, self.stages.method
        search = stages.search
        compared = {"baseline": asdict(method.baseline)} if stages.has_baseline else {}
        steps = {"steps": method.steps} if method.name == "integrated_gradients" else {}
        versions = [tables.PREDICTIONS_VERSION, tables.EXPLANATIONS_VERSION, tables.PLAN_VERSION]
        return {
            "explain_version": RESULT_VERSION,
            "tables": [*versions, tables.MOTIF_HITS_VERSION, tables.MOTIF_MATCHES_VERSION],
            **model_key(stages.model.info),
            "question": asdict(stages.question),
            "method": [method.name, METHODS[method.name]],
            **compared,
            **steps,
            "choice": list(self.options.choice),
            "splits": stages.chosen.splits_digest,
            "motifs": None if search is None else [search.digest, search.p_value, motifs.RESULT_VERSION],
            "reference": self.options.reference_digest,
            "device": stages.model.device,
            "micro_batch": stages.model.micro_batch,
            "store": asdict(stages.shape),
        }

    def facts(self) -> dict[str, Any]:
        """What the manifest tells of the run: no time, host or path."""
        stages = self.stages
        return {
            **model_facts(stages.model.info),
            **asdict(stages.question),
            "method": stages.method.name,
            "sequences_digest": stages.model.sequences.digest,
            "splits_digest": stages.chosen.splits_digest or None,
            "table_schema": f"{SCHEMA_NAME} {tables.EXPLANATIONS_VERSION}",
            "use": "research use only; not a medical device",
        }

    def finish(self, parts: Parts, store: Store) -> Mapping[str, int]:
        """Write the metadata of the arrays, the tracks, and what the motif hits say together."""
        stages = self.stages
        parts.check_files(f"{STORE}/")
        question = stages.question
        attributes = {
            "letters": _letters(stages),
            "outputs": list(stages.names),
            "method": stages.method.name,
            "scale": question.scale,
        }
        found: dict[str, int] = {}
        for name, data in stages.shape.metadata(len(stages.chosen.rows), attributes):
            store.put(name, data)
            found[name] = -1
        for name in stages.names:
            found |= self._track(name, parts, store)
        if stages.search is not None:
            parts.check_files(f"{HITS}/")
            found |= self._matches(store)
        return found

    def _track(self, name: str, parts: Parts, store: Store) -> dict[str, int]:
        column = f"{name}_contributions"

        def windows() -> Iterator[Window]:
            return windows_of(parts.tables(["contig", "start", "end", "strand", column]), column)

        known = self.options.contigs
        there = lengths_of(windows())
        contigs = there if known is None else {one: known[one] for one in there if one in known}
        if not contigs:
            return {}
        local = store.scratch()
        local.parent.mkdir(parents=True, exist_ok=True)
        write_track(local, windows(), contigs)
        store.put_file(local, track_name(name))
        return {track_name(name): -1}

    def _hits(self, store: Store) -> Iterator[pa.Table]:
        num_shards = -(-len(self.stages.chosen.rows) // self.stages.shape.records_per_shard)
        for shard in range(num_shards):
            with store.opened(hits_part(shard)) as path:
                yield parquet.read_table(path)

    def _matches(self, store: Store) -> dict[str, int]:
        search = self.stages.search
        assert search is not None
        number = {one.id: place for place, one in enumerate(search.motifs)}
        rows: list[dict[str, Any]] = []
        table = pa.concat_tables(self._hits(store)).select(
            ["output", "motif", "rank", "rank_variance", "contribution"]
        )  # fmt: skip
        for output in self.stages.names:
            hits = [
                (number[motif], rank, variance, contribution)
                for one, motif, rank, variance, contribution in zip(*(c.to_pylist() for c in table), strict=True)
                if one == output
            ]
            for match in motifs.matches(hits):
                motif = search.motifs[match.motif]
                told = {"output": output, "motif": motif.id, "name": motif.name, "consensus": motif.consensus}
                values = asdict(match)
                del values["motif"]
                rows.append({**told, **values})
        made = pa.Table.from_pylist(rows, schema=tables.MOTIF_MATCHES)
        local = store.scratch()
        local.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(made, local, schema_name="motif_matches", version=tables.MOTIF_MATCHES_VERSION)
        store.put_file(local, MOTIFS)
        return {MOTIFS: made.num_rows}

    def report(self, run: Run) -> Callable[[Parts, Totals, Mapping[str, float]], Report]:
        """The maker of the report page."""
        return partial(self._report, run)

    def _report(self, run: Run, parts: Parts, totals: Totals, timings: Mapping[str, float]) -> Report:
        stages = self.stages
        matched: list[dict[str, Any]] = []
        if stages.search is not None:
            with run.store.opened(MOTIFS) as path:
                matched = parquet.read_table(path).to_pylist()
        summary = _explain_report.summarise(parts.tables(), stages, matched)
        times = timings_of(self.execution, timings)
        provenance = {
            "result_key": run.result_key,
            "model": model_entry(stages.model.info),
            "sequences": {"path": stages.model.sequences.uri, "digest": stages.model.sequences.digest},
            "question": asdict(stages.question),
            "method": {
                "name": stages.method.name,
                **({"baseline": stages.method.baseline.name} if stages.has_baseline else {}),
            },
            **(
                {}
                if stages.search is None
                else {"motifs": {"path": self.options.motifs_path, "sha256": stages.search.digest}}
            ),
            "notes": dict(totals.notes),
            "versions": noted_versions(),
            "command": self.options.command,
        }
        content = {"summary": summary.to_dict(), "provenance": provenance, "timings": times}
        return Report(_explain_report.render(summary, stages, provenance, times), content)


def _check_method(stages: ExplainStages) -> None:
    """A network without a rule, or no captum, is told before any process starts.

    Raises:
        InputError: it is so.
    """
    captum_attr()
    target = Target(stages.model.info, stages.question)
    target.soften()
    if stages.method.name == "deeplift":
        deeplift.check(target)


def _letters(stages: ExplainStages) -> str:
    return letters_of(stages.model.info)


def track_name(name: str) -> str:
    """The bigWig file of a channel, whose name may hold what no file name does."""
    return f"contributions-{quote(name, safe='')}.bw"


def open_motifs(path: str, p_value: float) -> Any:
    """The motifs of a file, ready to be looked for; see MotifSearch."""
    from engine.interpret._explain_stages import MotifSearch

    found = tuple(read_motifs(path))
    with Path(path).open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return MotifSearch(found, p_value, digest)
