"""An ingest of images in the terms of the run protocol: what is opened, what keys it, what it leaves behind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import DataError
from engine.ingest._image_card import card_of, chosen, render
from engine.ingest._image_facts import ImageRow
from engine.ingest._image_rules import Cutting, ImageRules, field_of
from engine.ingest._image_table import ImageTable
from engine.ingest._thumbnails import picture
from engine.ingest.images import INDEX, SCHEMA_NAME, FrozenIndex, ImageFolder, ImageInput, ImageStages
from engine.io import parquet
from engine.io.image_store import STORE, ArrayFacts, FieldOfPlate, StoreLayout, metadata_files, shard_names
from engine.runtime import layout
from engine.runtime.commit import Parts, Report
from engine.runtime.receipts import Totals
from engine.runtime.run import Execution, Run, noted_versions
from engine.storage.checksums import crc32c_of_file
from engine.storage.store import Store, clear_errors
from schemas import states, tables

JOB = "ingest_images"
CARD = "card.json"
RESULTS = (f"{STORE}/", INDEX, CARD)
# Raised when the same input and rules would give other pixels, rows or metadata.
RESULT_VERSION = 1
_CAPTION = 22
_ANEW = "run again with --force"


@dataclass(frozen=True)
class ImageOptions:
    """What an ingest needs beside its input.

    Attributes:
        rules: what is kept.
        cutting: how store and plan are cut.
        command: the command line, for the report.
    """

    rules: ImageRules
    cutting: Cutting
    command: str = ""


class ImageJob:
    """Everything of one run that is opened on the driver."""

    def __init__(
        self, given: ImageInput, table: ImageTable | None, options: ImageOptions, *, execution: Execution
    ) -> None:
        self.given = given
        self.options = options
        self.execution = execution
        self._table = table
        self._layout: StoreLayout | None = None
        self._index: FrozenIndex | None = None
        self._index_file: Path | None = None
        self._passed_over: Mapping[str, int] = {}
        self.source = self._new_source()

    def _new_source(self) -> ImageFolder:
        options = self.options
        threads = self.execution.workers
        return ImageFolder(self.given, self._table, options.rules, cutting=options.cutting, threads=threads)

    def plan(self, run: Run) -> None:
        """Read and judge the input, or take up what an earlier driver of this run found."""
        cutting = self.options.cutting
        run.plan(self.source, records_per_shard=cutting.images_per_shard, bytes_per_shard=cutting.bytes_per_shard)
        kept = run.choices.get("images")
        if kept is not None:
            self._layout = StoreLayout(**kept["layout"])
            self._passed_over = kept["passed_over"]
        if kept is None or self._is_lost(run):
            self._find(run)
        if kept is not None:
            self._index = FrozenIndex(run.store.uri, kept["crc32c"], kept["rows"])

    def _is_lost(self, run: Run) -> bool:
        """A driver that died between freezing the run and publishing the index leaves none."""
        return not run.finished() and not run.store.exists(INDEX)

    def _find(self, run: Run) -> None:
        """Write the index aside; `publish` puts it in place once the run is frozen."""
        if self.source.index is None:
            cutting = self.options.cutting
            self.source.scan(records_per_shard=cutting.images_per_shard, bytes_per_shard=cutting.bytes_per_shard)
        assert self.source.index is not None
        path = run.store.scratch()
        with clear_errors(run.store.uri):
            path.parent.mkdir(parents=True, exist_ok=True)
            parquet.write_table(self.source.index, path, schema_name=SCHEMA_NAME, version=tables.IMAGES_VERSION)
        self._index = FrozenIndex(run.store.uri, crc32c_of_file(path), self.source.index.num_rows)
        self._index_file = path
        self._layout = self.source.layout
        self._passed_over = self.source.passed_over

    def choices(self) -> dict[str, Any]:
        """What a resumed run takes up as it was found."""
        assert self._index is not None and self._layout is not None
        return {
            "images": {
                "crc32c": self._index.crc32c,
                "rows": self._index.rows,
                "layout": asdict(self._layout),
                "passed_over": dict(self._passed_over),
            }
        }

    def publish(self, run: Run) -> None:
        """Put the index where the workers find it; the run is frozen by now."""
        if self._index_file is not None:
            run.store.put_file(self._index_file, INDEX)

    @property
    def stages(self) -> ImageStages:
        assert self._index is not None and self._layout is not None
        return ImageStages(self.given, self._layout, self._index)

    def key(self) -> dict[str, Any]:
        """Every setting and digest that can change a result, but the input's own digest."""
        given = self.given
        return {
            "ingest_version": RESULT_VERSION,
            "tables": [tables.IMAGES_VERSION, tables.REJECTS_VERSION, tables.PLAN_VERSION],
            "reading": asdict(given.reading),
            "volumes": given.volumes,
            "naming": {name: value for name, value in asdict(given.naming).items() if name != "masks"},
            "masks": given.masks is not None,
            "table": None if self._table is None else self._table.digest,
            "rules": self.options.rules.to_json(),
            "cutting": asdict(self.options.cutting),
        }

    def facts(self) -> dict[str, Any]:
        """What the manifest tells of the run: no time, host or path."""
        assert self._layout is not None
        return {
            "store": asdict(self._layout),
            "table_digest": None if self._table is None else self._table.digest,
            "table_schema": f"{SCHEMA_NAME} {tables.IMAGES_VERSION}",
            "use": "research use only; not a medical device",
        }

    def finish(self, run: Run) -> Callable[[Parts, Store], Mapping[str, int]]:
        """The writer of the store's metadata and the data card."""

        def write(parts: Parts, store: Store) -> Mapping[str, int]:
            assert self._index is not None and self._layout is not None
            shards = parts.check_files(f"{STORE}/")
            index = self._index.read()
            _check_index(index, parts)
            rows = [ImageRow(**row) for row in index.filter(pc.equal(index["state"], states.KEPT)).to_pylist()]
            arrays = array_facts(rows)
            if shards != shard_names(self._layout, arrays):
                raise DataError("the shards of the store are not those of the index", where=STORE, fix=_ANEW)
            found: dict[str, int] = {}
            for name, data in metadata_files(self._layout, arrays, fields_of(rows, self._layout)):
                store.put(name, data)
                found[name] = -1
            store.put(CARD, layout.canonical_json(self.card(index, run)))
            return {CARD: -1, INDEX: index.num_rows, **found}

        return write

    def card(self, index: pa.Table, run: Run) -> dict[str, Any]:
        """The data card: what the set holds; no time, host or path."""
        digests = {
            "input_sha256": run.input_digest,
            "table_sha256": None if self._table is None else self._table.digest,
            "result_key": run.result_key,
        }
        assert self._layout is not None
        settings = {"rules": self.options.rules.to_json(), "store": asdict(self._layout)}
        counts = card_of(index, classes=self.options.rules.classes)
        return {**counts, "passed_over": dict(self._passed_over), "digests": digests, "settings": settings}

    def report(self, run: Run) -> Callable[[Parts, Totals, Mapping[str, float]], Report]:
        """The maker of the page: the card, thumbnails, how long it took, and what made it."""

        def make(_parts: Parts, totals: Totals, timings: Mapping[str, float]) -> Report:
            assert self._index is not None
            index = self._index.read()
            card = self.card(index, run)
            times = _times(self.execution, timings, totals.records_in)
            provenance = {
                "input": self.source.path,
                "masks": self.given.masks,
                "command": self.options.command,
                "versions": ", ".join(f"{name} {version}" for name, version in noted_versions().items()),
            }
            content = {"card": card, "timings": times, "provenance": provenance}
            pictures = [
                {"address": picture(pixels, mask), "id": row.id, "caption": _tail(row.id), "label": row.label or ""}
                for row, pixels, mask in self.stages.pixels(chosen(index))
            ]
            return Report(render(card, pictures, times, provenance), content)

        return make


def _tail(name: str) -> str:
    """The end of a long name, which is what tells it from its neighbours."""
    return name if len(name) <= _CAPTION else f"…{name[1 - _CAPTION :]}"


def _check_index(index: pa.Table, parts: Parts) -> None:
    """The parts are the index, shard by shard."""
    at = 0
    for table in parts.tables():
        if not table.equals(index.slice(at, table.num_rows)):
            raise DataError("the parts do not hold what the index says", where=INDEX, fix=_ANEW)
        at += table.num_rows


def array_facts(rows: list[ImageRow]) -> list[ArrayFacts]:
    """What each array of the store holds, in the order of the set."""
    by_array: dict[str, list[ImageRow]] = defaultdict(list)
    for row in rows:
        by_array[str(row.array)].append(row)
    return [_facts_of(array, some) for array, some in by_array.items()]


def _facts_of(array: str, rows: list[ImageRow]) -> ArrayFacts:
    sizes = {tuple(row.pixel_size_um or ()) for row in rows}
    names = {tuple(row.channels or ()) for row in rows}
    lows = np.array([row.minimum for row in rows]).min(axis=0).tolist()
    highs = np.array([row.maximum for row in rows]).max(axis=0).tolist()
    return ArrayFacts(
        array,
        tuple(rows[0].shape or ()),
        len(rows),
        sizes.pop() if len(sizes) == 1 else (),
        names.pop() if len(names) == 1 else (),
        tuple(zip(lows, highs, strict=True)),
    )


def fields_of(rows: list[ImageRow], store: StoreLayout) -> list[FieldOfPlate]:
    """The fields of plates that a set holds; none in other layouts."""
    if store.kind != "plate":
        return []
    plates = list(dict.fromkeys(row.plate for row in rows))
    return list(dict.fromkeys(field_of(row, plates) for row in rows))


def _times(execution: Execution, timings: Mapping[str, float], num_records: int) -> dict[str, Any]:
    execute = timings.get("execute_s", 0.0)
    run_now = timings.get("records_run", 0.0)
    return {
        "executor": execution.executor,
        "workers": execution.workers,
        "images": num_records,
        **{name: round(timings.get(name, 0.0), 3) for name in ("plan_s", "execute_s", "commit_s", "total_s")},
        "images_per_s": round(run_now / execute, 1) if execute else 0.0,
    }
