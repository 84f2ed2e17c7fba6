"""Ingest of images: one pass reads and judges all of them, then each shard stores its own.

The pass decodes every image once on the driver's threads, since a part says of each image whether it is kept, and that
takes knowing all of them (what most are, which repeat another). Its findings are the set's index, put in place before
the first shard is run. The workers decode again what they store, and hold it against the digests of the index.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from engine.errors import DataError, SystemFailure
from engine.ingest._image_facts import ImageRow, SourceImages, digest, mask_plane, planes_of, survey
from engine.ingest._image_naming import Naming
from engine.ingest._image_rules import Cutting, ImageRules, Span, choose_layout, cut, judge, place
from engine.ingest._image_table import ImageTable
from engine.io import parquet
from engine.io._image_stack import ImageProblem, Pixels
from engine.io.image_sources import FILE, SITE, ImageLoader, ImageSource, Listing, Reading, list_sources
from engine.io.image_store import StoreLayout, shard_file, shard_name
from engine.io.source import RawRecord, Scan, Shard
from engine.runtime.stages import ShardOutput
from engine.storage.checksums import crc32c_of_file
from engine.storage.store import open_store
from schemas import states, tables

INDEX = "index.parquet"
SCHEMA_NAME = "images"
_AHEAD = 4
_COLUMNS = [one.name for one in tables.IMAGES]


@dataclass(frozen=True)
class ImageInput:
    """Where images lie and how they are told apart; picklable.

    Attributes:
        folders: folders, files or Zarr stores, on local paths.
        masks: folder of mask files; None without.
        reading: how images are read.
        volumes: keep depths of a stack together; None does so for plates alone.
        naming: label, group and mask by name.
    """

    folders: tuple[str, ...]
    masks: str | None = None
    reading: Reading = field(default_factory=Reading)
    volumes: bool | None = None
    naming: Naming = field(default_factory=Naming)

    def loader(self, note: Callable[[str, bytes], None] | None = None) -> ImageLoader:
        """A reader of their pixels."""
        return ImageLoader(self.folders, self.masks, self.reading, note)


class ImageFolder:
    """The input as the run protocol sees it (engine.io.source.Plannable).

    Args:
        given: the input.
        table: what is told of images; None without.
        rules: what is kept.
        cutting: how store and plan are cut.
        threads: threads of the pass; no byte depends on them.
    """

    def __init__(
        self, given: ImageInput, table: ImageTable | None, rules: ImageRules, *, cutting: Cutting, threads: int
    ) -> None:
        self.path = ", ".join(given.folders)
        self._given = given
        self._table = table
        self._rules = rules
        self._cutting = cutting
        self._threads = threads
        self.index: pa.Table | None = None
        self.layout: StoreLayout | None = None
        self.passed_over: dict[str, int] = {}

    def stat(self) -> dict[str, int]:
        """What tells a changed input: number, bytes and times of all files, and a digest of their names and inodes."""
        names = hashlib.blake2b(digest_size=6)
        found = {"bytes": 0, "mtime_ns": 0, "ctime_ns": 0}
        for path in sorted(_all_files([*self._given.folders, *([self._given.masks] if self._given.masks else [])])):
            stat = path.stat()
            names.update(f"{path}\0{stat.st_ino}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\n".encode())
            found["bytes"] += stat.st_size
            found["mtime_ns"] = max(found["mtime_ns"], stat.st_mtime_ns)
            found["ctime_ns"] = max(found["ctime_ns"], stat.st_ctime_ns)
        return {**found, "inode": int.from_bytes(names.digest(), "little")}

    def sources(self) -> Listing:
        """All images, with what names and the table tell of them."""
        listing = list_sources(self._given.folders, self._given.reading)
        found = self._given.naming.apply(self._without_masks(listing))
        if self._table is not None:
            found, left_out = self._table.join(found)
            listing.pass_over("images that the table does not name", left_out)
        return Listing(sorted_sources(found), listing.passed_over)

    def _without_masks(self, listing: Listing) -> list[ImageSource]:
        """A folder of masks may lie among the images."""
        if self._given.masks is None:
            return listing.sources
        masks = Path(self._given.masks).absolute()
        kept = [
            source
            for source in listing.sources
            if source.kind != FILE
            or not (Path(self._given.folders[source.folder]).absolute() / source.files[0]).is_relative_to(masks)
        ]
        listing.pass_over("masks", len(listing.sources) - len(kept))
        return kept

    def scan(
        self,
        *,
        records_per_shard: int,
        bytes_per_shard: int,
        on_record: Callable[[RawRecord], None] | None = None,  # noqa: ARG002 (of the protocol; images are no lines)
        on_record_limit: int = 0,  # noqa: ARG002
    ) -> Scan:
        """Read and judge everything; `index` and `layout` are then known."""
        assert (records_per_shard, bytes_per_shard) == (self._cutting.images_per_shard, self._cutting.bytes_per_shard)
        listing = self.sources()
        digests: dict[str, bytes] = {}
        rows = list(self._survey(listing.sources, digests))
        for record, row in enumerate(rows):
            row.record = record
        judge(rows, self._rules)
        self.layout = choose_layout(rows, self._cutting)
        place(rows, self.layout)
        self.index = table_of(rows)
        self.passed_over = dict(sorted(listing.passed_over.items()))
        spans = cut(rows, self.layout, self._cutting)
        shards = [_shard(number, span) for number, span in enumerate(spans)]
        notes = [f"left out {number:,} {what}" for what, number in self.passed_over.items()]
        return Scan(shards, len(rows), self._digest(listing.sources, digests), {}, notes)

    def _survey(self, sources: Sequence[ImageSource], digests: dict[str, bytes]) -> Iterator[ImageRow]:
        """Rows of all sources in order; a bounded number of them is in the air at once."""
        loader = self._given.loader(digests.__setitem__)

        def look(source: ImageSource) -> list[ImageRow]:
            volumes = self._given.volumes
            return survey(source, loader, volumes=source.plate is not None if volumes is None else volumes)

        waiting: deque[Future[list[ImageRow]]] = deque()
        with ThreadPoolExecutor(self._threads) as pool:
            for source in sources:
                waiting.append(pool.submit(look, source))
                if len(waiting) >= _AHEAD * self._threads:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()

    def _digest(self, sources: Sequence[ImageSource], digests: Mapping[str, bytes]) -> str:
        """SHA-256 over what each image is called and made of, and the bytes of every file, without where they lie."""
        whole = hashlib.sha256()
        for source in sources:
            facts = (source.id, source.kind, source.plate, source.well, source.field, source.time, source.label)
            whole.update(repr((*facts, source.group, source.mask, source.files)).encode())
        named = sorted((self._named(path), found) for path, found in digests.items())
        for name, found in named:
            whole.update(name.encode() + b"\0" + found)
        return whole.hexdigest()

    def _named(self, path: str) -> str:
        """A file by folder number and the path below it."""
        for number, folder in enumerate((*self._given.folders, self._given.masks or self._given.folders[0])):
            top = Path(folder) if Path(folder).is_dir() else Path(folder).parent
            if Path(path).is_relative_to(top):
                return f"{number}/{Path(path).relative_to(top).as_posix()}"
        raise AssertionError(path)


def sorted_sources(sources: Iterable[ImageSource]) -> list[ImageSource]:
    """The order of a set: by folder and name; fields of a plate by well, field and time."""
    return sorted(sources, key=_order)


def _order(source: ImageSource) -> tuple[Any, ...]:
    if source.kind != SITE:
        return (source.folder, source.id, 0, 0)
    number = int(source.field or 0)
    return (source.folder, f"{source.plate}/{source.well}", number, source.time)


def _all_files(folders: Sequence[str]) -> Iterator[Path]:
    for folder in folders:
        if Path(folder).is_file():
            yield Path(folder)
        for here, _, files in os.walk(folder):
            yield from (Path(here) / name for name in files if (Path(here) / name).is_file())


def _shard(number: int, span: Span) -> Shard:
    return Shard(number, span.begin, span.end, span.end - span.begin, span.begin, None, None, None, None)


def table_of(rows: Sequence[ImageRow]) -> pa.Table:
    """Rows as schemas.tables.IMAGES."""
    columns = {name: [getattr(row, name) for row in rows] for name in _COLUMNS}
    return pa.table(columns, schema=tables.IMAGES)


@dataclass(frozen=True)
class FrozenIndex:
    """The set's index as a run has fixed it: the file below its output, by its checksum."""

    uri: str
    crc32c: int
    rows: int

    def read(self) -> pa.Table:
        """The index.

        Raises:
            DataError: the file was changed.
        """
        with open_store(self.uri).opened(INDEX) as path:
            if crc32c_of_file(path) != self.crc32c:
                fix = "delete the file and run again: it is made anew"
                raise DataError("the file is damaged", where=f"{self.uri}/{INDEX}", fix=fix)
            return parquet.read_table(path)


@dataclass(frozen=True)
class ImageStages:
    """Both stages of an ingest; see runtime.stages.Stages.

    Attributes:
        given: the input.
        layout: of the store.
        index: what the pass found.
    """

    given: ImageInput
    layout: StoreLayout
    index: FrozenIndex

    def open_reader(self) -> Callable[[Shard], pa.Table]:
        """The shard's rows of the index. Pixels are read where they are compressed, so that none cross processes."""
        whole = self.index.read()

        def read(shard: Shard) -> pa.Table:
            # Taken, not sliced: a slice of nulls and lists would not be written as a table of its own.
            return whole.take(pa.array(range(shard.first_record, shard.first_record + shard.num_records), pa.int64()))

        return read

    def open_scorer(self) -> Callable[[pa.Table], ShardOutput]:
        """The builder of the shard's files."""
        return ShardBuilder(self)

    def pixels(self, rows: Sequence[ImageRow]) -> Iterator[tuple[ImageRow, Pixels, Pixels | None]]:
        """Kept images and their masks, read again.

        Raises:
            SystemFailure: they are not what the pass saw.
        """
        loader = self.given.loader()
        held: tuple[ImageSource, SourceImages] | None = None
        for row in rows:
            source = source_of(row)
            try:
                if held is None or held[0] != source:
                    held = (source, SourceImages(source, loader))
                time = row.t - source.time
                stack = held[1].image(time)
                pixels = dict(planes_of(stack, volumes=len(row.shape or ()) == 4))[row.z]
                labels = held[1].mask(time)
            except (ImageProblem, KeyError) as error:
                raise _changed(row, getattr(error, "sentence", "that plane is gone")) from error
            mask = None if labels is None else mask_plane(labels, row.z)
            if digest(pixels) != row.pixel_digest:
                raise _changed(row, "its pixels are others")
            if (None if mask is None else digest(mask.astype(np.uint32))) != row.mask_digest:
                raise _changed(row, "its mask is another")
            yield row, pixels, mask


@dataclass(frozen=True)
class ShardBuilder:
    """From rows of the index to the files of a shard."""

    stages: ImageStages

    def __call__(self, table: pa.Table) -> ShardOutput:
        rows = [ImageRow(**row) for row in table.to_pylist()]
        kept = [row for row in rows if row.is_kept]
        rejected = [row for row in rows if not row.is_kept]
        reasons: dict[str, int] = {}
        for row in rejected:
            reasons[str(row.reason)] = reasons.get(str(row.reason), 0) + 1
        return ShardOutput(
            table=table,
            rejects=_rejects(rejected),
            body=None,
            body_rows=0,
            records_in=len(rows),
            states={state: n for state, n in ((states.KEPT, len(kept)), (states.REJECTED, len(rejected))) if n},
            reasons=dict(sorted(reasons.items())),
            files=self._files(kept),
        )

    def _files(self, kept: Sequence[ImageRow]) -> dict[str, bytes]:
        """Shards of the store: rows of one array that lie in one file, and those of their masks."""
        layout = self.stages.layout
        images: dict[tuple[str, int], list[Pixels]] = {}
        masks: dict[tuple[str, int], list[Pixels]] = {}
        shapes: dict[str, list[int]] = {}
        for row, pixels, mask in self.stages.pixels(kept):
            assert row.array is not None and row.row is not None and row.shape is not None
            unit = (row.array, row.row // layout.rows_per_shard)
            shapes[row.array] = row.shape
            images.setdefault(unit, []).append(pixels)
            if mask is not None and layout.mask_dtype is not None:
                masks.setdefault(unit, []).append(mask.astype(layout.mask_dtype))
        files = {}
        for (array, number), some in images.items():
            spec = layout.image_spec(array, shapes[array])
            files[shard_name(spec, number)] = shard_file(spec, some)
        for (array, number), some in masks.items():
            spec = layout.mask_spec(array, shapes[array])
            files[shard_name(spec, number)] = shard_file(spec, some)
        return files


def _changed(row: ImageRow, what: str) -> SystemFailure:
    return SystemFailure(
        f"the input changed while the run went on: {what}", where=row.id, fix="run again with --force once it is whole"
    )


def source_of(row: ImageRow) -> ImageSource:
    """The source that an image of the index was read from."""
    return ImageSource(
        "/".join(row.files),  # images of one stack are of one source
        row.kind,
        row.folder,
        tuple(row.files),
        tuple(row.channels or ()) if row.kind == SITE else (),
        time=row.t if row.kind == SITE else 0,
        mask=row.mask,
    )


def _rejects(rows: Sequence[ImageRow]) -> pa.Table:
    columns = {
        "record": [row.record for row in rows],
        "alt_index": [0] * len(rows),
        "reason": [row.reason for row in rows],
        "sentence": [row.sentence for row in rows],
        "text": [row.id[:1000] for row in rows],
    }
    return pa.table(columns, schema=tables.REJECTS)
