"""The score store: scores of former runs in a folder of immutable, checksummed segments, so that work done once is not
done again.

    domains/<domain>.json                                             what the domain is, for people
    segments/<domain>/computed/<sequence>/<first>-<last>-<rows>-<sha256>.parquet
    segments/<domain>/imported/<source>/<sequence>/...
    damaged/...                                                       segments set aside because a checksum failed

A domain is the digest of all that decides numbers run-wide: scorer, model, component versions, numeric mode. A row is
known by the refget digest of its contig, the normal form, the alleles as written and the transcript's place and exons.
The normal form alone would not do: a record is scored as written, and another spelling of the same change has another
anchor, other genes and other reported positions. So the normal form leads the key and is kept for joins, and what the
written form adds stands behind it: another spelling is computed, never answered with a number that is not its own.

Segments are named by their content: writing one twice changes nothing, and writers need not know of each other. A run
looks into nothing but the segments that its plan froze, so its bytes stay the same while the store grows.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from engine import registry
from engine.errors import DataError, InputError, ReplisomeError
from engine.genome.genes import Transcript
from engine.io import parquet
from engine.io.source import Shard
from engine.models._info import ModelInfo, network_digest
from engine.runtime import layout
from engine.scoring._contract import Scorer
from engine.storage import faults
from engine.storage.checksums import checksums_of_file, sha256_of_file
from engine.storage.store import Store, clear_errors, open_store
from schemas.tables import SCORE_STORE, SCORE_STORE_VERSION

SOURCE_COLUMN = "score_source"
COMPUTED = "computed"
LOOKED_UP = "looked_up"
IMPORTED = "imported:"
ROWS_PER_SEGMENT = 1 << 18
KEYS = tuple(column.name for column in SCORE_STORE)
SCHEMA_NAME = "score_store"

_FORMAT = 1
_SEGMENTS, _DOMAINS, _DAMAGED = "segments", "domains", "damaged"
_FOOTER = ("replisome.domain", "replisome.source", "replisome.sequence")
_FAR = 1 << 62
_SORT_BY = [(name, "ascending") for name in ("start", "ref", "alt", "transcript", "norm_start", "norm_ref", "norm_alt")]
_is_source = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}").fullmatch
_match_name = re.compile(
    rf"{_SEGMENTS}/(?P<domain>[0-9a-f]{{64}})/(computed|imported/(?P<source>[A-Za-z0-9][A-Za-z0-9_.-]{{0,63}}))/"
    r"(?P<sequence>[^/]+)/(?P<first>\d+)-(?P<last>\d+)-(?P<rows>\d+)-(?P<sha256>[0-9a-f]{64})\.parquet"
).fullmatch


@dataclass(frozen=True, slots=True)
class Segment:
    """One immutable file of rows.

    Attributes:
        name: its path below the store.
        domain: digest of its domain.
        source: whose numbers these are; "" where a run of ours computed them.
        sequence: refget digest of the contig.
        first, last: lowest and highest `start` in it, 0-based.
        rows: number of rows.
        sha256: of the whole file.
        bytes, crc32c: of the whole file; -1 until it was checked.
    """

    name: str
    domain: str
    source: str
    sequence: str
    first: int
    last: int
    rows: int
    sha256: str
    bytes: int = -1
    crc32c: int = -1


@dataclass(frozen=True)
class FrozenStore:
    """What a run may look into, fixed with its plan; picklable.

    Attributes:
        uri: the store.
        domain: digest of the run's domain.
        segments: in the order in which they are asked: own rows, then the sources as named.
        sources: imported sources that the run asked for.
        sequences: contig of the input to its refget digest; found once, by the driver.
    """

    uri: str
    domain: str = ""
    segments: tuple[Segment, ...] = ()
    sources: tuple[str, ...] = ()
    sequences: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values for run.json, without the store's address and what the run's key says elsewhere."""
        listed = [[one.name, one.bytes, one.crc32c] for one in self.segments]
        return {"domain": self.domain, "sources": list(self.sources), "segments": listed}

    @classmethod
    def from_json(cls, uri: str, content: Mapping[str, Any]) -> FrozenStore:
        """The inverse of to_json."""
        parsed = [(parse_name(name), size, checksum) for name, size, checksum in content["segments"]]
        segments = tuple(
            Segment(**{**asdict(one), "bytes": size, "crc32c": checksum})
            for one, size, checksum in parsed
            if one is not None
        )
        return cls(uri, content["domain"], segments, tuple(content["sources"]))

    def key(self) -> dict[str, Any]:
        """What it adds to a run's result key."""
        return {"sources": list(self.sources), "frozen": layout.json_digest(self.to_json())}


def domain_facts(
    name: str,
    params: Mapping[str, Any],
    scorer: Scorer,
    info: ModelInfo | None,
    *,
    device: str,
    precision: str,
    incremental: bool = True,
) -> dict[str, Any]:
    """All that decides a row's numbers beside the row itself, as plain values.

    Of the model: its network digest, heads, context, and the constants of `extra` that the scorer reads: those of its
    `extra_keys`, all where it does not say. Name, card and licence may change without touching a number. The size of
    micro-batches is left out: it moves last digits only.

    Raises:
        InputError: the scorer reads values of the record, so its answers belong to no allele alone.
    """
    if scorer.info_keys:
        keys = ", ".join(f"INFO/{key}" for key in scorer.info_keys)
        raise InputError(
            f"the scorer {name} reads {keys} of each record, so its answer for one record is not another's",
            where="store",
            fix="leave the store out, or the parameter that names the key",
        )
    made = registry.component("scoring", name)
    facts: dict[str, Any] = {
        "format": _FORMAT,
        "scorer": name,
        "scorer_version": made.RESULT_VERSION,
        "scorer_params": asdict(registry.build_params(made, params, where=f"scorer {name}")),
        "columns": [[column.name, str(column.type)] for column in scorer.fields],
        "model": None,
    }
    if info is not None:
        heads = [{**asdict(head), "meaning": ""} for head in info.heads.values()]
        read = getattr(scorer, "extra_keys", tuple(info.extra))
        facts["model"] = {
            "networks": network_digest(info),
            "heads": heads,
            "context_bp": info.context_bp,
            "extra": {key: info.extra[key] for key in read if key in info.extra},
            "versions": model_versions(info, incremental=incremental),
            "device": device,
            "precision": precision,
            "incremental": incremental,
        }
    return dict(json.loads(layout.canonical_json(facts)))  # tuples and lists are one


def model_versions(info: ModelInfo, *, incremental: bool) -> dict[str, int]:
    """RESULT_VERSION of what makes a model's numbers: architecture, encoder, and cones where they can be used."""
    architecture = registry.component("models", info.architecture)
    encoder = registry.component("encoders", info.encoder["name"])
    found = {"models": architecture.RESULT_VERSION, "encoders": encoder.RESULT_VERSION}
    if incremental and hasattr(architecture, "conv_stack"):
        from engine.scoring import _cones  # brings torch, as the architecture does

        found["cones"] = _cones.RESULT_VERSION
    return found


def domain_digest(facts: Mapping[str, Any]) -> str:
    """SHA-256 of a domain's canonical text."""
    return layout.json_digest(facts)


class TranscriptDigests:
    """Digest of what a transcript adds to a score: strand, bounds and exons, whatever its name; kept by object."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Transcript, str]] = {}

    def __call__(self, transcript: Transcript | None) -> str:
        """32 hex digits; "" for scorers that need no genes."""
        if transcript is None:
            return ""
        known = self._known.get(id(transcript))
        if known is None:
            place = [transcript.strand, transcript.start, transcript.end, *map(list, transcript.exons)]
            digest = hashlib.sha256(json.dumps(place).encode()).hexdigest()[:32]
            known = self._known[id(transcript)] = (transcript, digest)
        return known[1]


def check_source(name: str) -> None:
    """Refuse a source name that cannot be part of a file name.

    Raises:
        InputError: which letters it may have.
    """
    if not _is_source(name):
        fix = "use letters, digits, '_', '.' and '-', at most 64, a letter or digit first"
        raise InputError(f"{name!r} cannot name a source", where="store", fix=fix)


def parse_name(name: str) -> Segment | None:
    """What a segment's name says; None for any other file."""
    found = _match_name(name)
    if found is None:
        return None
    return Segment(
        name=name,
        domain=found["domain"],
        source=found["source"] or "",
        sequence=found["sequence"],
        first=int(found["first"]),
        last=int(found["last"]),
        rows=int(found["rows"]),
        sha256=found["sha256"],
    )


def open_score_store(uri: str) -> Store:
    """The folder behind a score store.

    Raises:
        InputError: a file lies there, or the address cannot be opened.
    """
    if "://" not in uri and Path(uri).expanduser().is_file():
        raise InputError("the score store is a folder, and this is a file", where=uri, fix="name a folder")
    return open_store(uri)


def segments_of(store: Store, domain: str = "") -> list[Segment]:
    """All segments of a domain, or of the store, by name; nothing is read but the listing."""
    found = (parse_name(name) for name in store.list(f"{_SEGMENTS}/{domain}" if domain else _SEGMENTS))
    return [one for one in found if one is not None]


Ranges = Mapping[str, Sequence[tuple[int, int]]]


def plan_ranges(shards: Iterable[Shard], sequences: Mapping[str, str]) -> Ranges:
    """Where a plan has records: refget digest to (lowest, highest) start of each shard that touches the contig.

    Args:
        shards: the plan.
        sequences: contig to its refget digest, in the order of the input.
    """
    place = {contig: index for index, contig in enumerate(sequences)}
    digests = list(sequences.values())
    ranges: dict[str, list[tuple[int, int]]] = {}
    for shard in shards:
        # A shard that begins or ends with a line that does not parse says no contig: any may be in it.
        first, last = place.get(shard.contig or "", 0), place.get(shard.last_contig or "", len(digests) - 1)
        for index in range(first, last + 1):
            low = shard.start if index == place.get(shard.contig or "") else 0
            high = shard.last_start if index == place.get(shard.last_contig or "") else _FAR
            ranges.setdefault(digests[index], []).append((low or 0, _FAR if high is None else high))
    return ranges


def freeze(
    uri: str,
    domain: str,
    *,
    ranges: Ranges,
    sources: Sequence[str] = (),
    warn: Callable[[str], None],
    only_look: bool = False,
) -> FrozenStore:
    """Choose what a run may look into: segments of its domain and sources where its plan has records, each one checked.

    A damaged segment is told and left out, so that its rows are computed again; it is set aside too unless `only_look`.

    Raises:
        InputError: a source that the store does not have for this domain.
    """
    store = open_score_store(uri)
    found = segments_of(store, domain)
    _check_sources(store, sources, {one.source for one in found})
    order = {source: place for place, source in enumerate(("", *sources))}
    wanted = [one for one in found if one.source in order and _touches(one, ranges.get(one.sequence, ()))]
    wanted.sort(key=lambda one: (order[one.source], one.name))
    whole: list[Segment] = []
    for one in wanted:
        try:
            whole.append(check_segment(store, one))
        except DataError as error:
            warn(f"a segment of the score store is not used: {error.what} ({error.where}); its rows are computed anew")
            if not only_look:
                set_aside(store, one.name)
    return FrozenStore(store.uri, domain, tuple(whole), tuple(sources))


def _touches(segment: Segment, ranges: Sequence[tuple[int, int]]) -> bool:
    return any(segment.first <= high and low <= segment.last for low, high in ranges)


def _check_sources(store: Store, sources: Sequence[str], known: set[str]) -> None:
    for name in sources:
        check_source(name)
        if name not in known:
            have = ", ".join(sorted(known - {""})) or "none"
            raise InputError(
                f"the store holds no scores imported from {name!r} for this model and these settings; it holds: {have}",
                where=store.uri,
                fix="import them with the same model and settings, or leave --store-sources out",
            )


def check_segment(store: Store, segment: Segment) -> Segment:
    """A segment with size and CRC-32C, its content checked against its name.

    Raises:
        DataError: damaged, cut, gone, or under a name that is not its own.
    """
    where = f"{store.uri}/{segment.name}"
    try:
        with store.opened(segment.name) as path:
            size, digest, checksum = checksums_of_file(path)
            if digest != segment.sha256:
                raise DataError("its SHA-256 is not that of its name", where=where)
            told = parquet.footer_metadata(path)
    except FileNotFoundError:
        raise DataError("the segment is gone", where=where) from None
    if tuple(told.get(key, "") for key in _FOOTER) != (segment.domain, segment.source, segment.sequence):
        raise DataError("it lies in the folder of another domain, source or sequence", where=where)
    return Segment(**{**asdict(segment), "bytes": size, "crc32c": checksum})


def set_aside(store: Store, name: str) -> None:
    """Move a damaged segment out of the way, so that its rows can be added anew; a store that is only read keeps it."""
    with suppress(OSError, ReplisomeError):
        store.put(f"{_DAMAGED}/{name.removeprefix(_SEGMENTS + '/')}", store.read(name))
        store.delete(name)


class StoreWriter:
    """Adds rows of one domain and source to a store, in segments of at most ROWS_PER_SEGMENT rows.

    Holds the rows of one sequence at a time, so rows should come contig by contig. The same rows in the same order make
    the same segments: adding them once more changes nothing.

    Args:
        uri: the store.
        facts: of `domain_facts`.
        fields: the scorer's columns.
        source: "" for rows that a run computed, else who made them.
        about: words on the domain for `store list`, such as the model's name.

    Attributes:
        rows, segments: what was added so far.
    """

    def __init__(
        self,
        uri: str,
        facts: Mapping[str, Any],
        fields: Sequence[pa.Field],
        *,
        source: str = "",
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self._store = open_score_store(uri)
        self._domain = domain_digest(facts)
        self._source = source
        self._schema = segment_schema(fields)
        self._held: list[pa.Table] = []
        self._sequence = ""
        self._told = layout.sealed_json({"domain": dict(facts), "about": dict(about or {})})
        self.rows = 0
        self.segments = 0

    def add(self, sequence: str, rows: pa.Table) -> None:
        """Add rows with the columns of `segment_schema`, all of one sequence, in any order.

        Raises:
            ReplisomeError: the store cannot be written to.
        """
        if sequence != self._sequence:
            self.flush()
            self._sequence = sequence
        rows = rows.select(self._schema.names).cast(self._schema)
        while rows.num_rows:
            room = ROWS_PER_SEGMENT - sum(map(len, self._held))
            self._held.append(rows.slice(0, room))
            rows = rows.slice(room)
            if sum(map(len, self._held)) == ROWS_PER_SEGMENT:
                self.flush()

    def flush(self) -> None:
        """Write what is held; to be called once more at the end."""
        if self._held:
            self._write(_sorted_once(pa.concat_tables(self._held)))
            self._held = []

    def _write(self, table: pa.Table) -> None:
        store = self._store
        if not self.segments:
            store.create(f"{_DOMAINS}/{self._domain}.json", self._told)
        footer = dict(zip(_FOOTER, (self._domain, self._source, self._sequence), strict=True))
        local = store.scratch()
        with clear_errors(store.uri):
            parquet.write_table(table, local, schema_name=SCHEMA_NAME, version=SCORE_STORE_VERSION, metadata=footer)
        starts = pc.min_max(table["start"]).as_py()
        folder = f"imported/{self._source}" if self._source else COMPUTED
        place = f"{starts['min']}-{starts['max']}-{table.num_rows}-{sha256_of_file(local)}.parquet"
        name = f"{_SEGMENTS}/{self._domain}/{folder}/{self._sequence}/{place}"
        if store.exists(name) and not _is_intact(store, name):
            set_aside(store, name)
        store.create_file(local, name)
        faults.reach("store-segment")
        self.rows += table.num_rows
        self.segments += 1


def _is_intact(store: Store, name: str) -> bool:
    segment = parse_name(name)
    assert segment is not None
    try:
        check_segment(store, segment)
    except DataError:
        return False
    return True


def segment_schema(fields: Sequence[pa.Field]) -> pa.Schema:
    """Columns of a segment: the key's, then the scorer's."""
    return pa.schema([*SCORE_STORE, *fields])


def _sorted_once(table: pa.Table) -> pa.Table:
    """Rows by start, alleles and transcript, each key once: the first of several stands."""
    table = table.take(pc.sort_indices(table, sort_keys=_SORT_BY)).combine_chunks()
    if table.num_rows < 2:
        return table
    columns = (table[name].combine_chunks() for name in KEYS)
    differs = [pc.not_equal(column.slice(1), column.slice(0, len(column) - 1)) for column in columns]
    is_new = differs[0]
    for one in differs[1:]:
        is_new = pc.or_(is_new, one)
    return table.filter(pa.concat_arrays([pa.array([True]), is_new]))


def read_domains(store: Store) -> dict[str, Mapping[str, Any]]:
    """Domain digest to what its file tells; damaged files tell nothing."""
    found: dict[str, Mapping[str, Any]] = {}
    for name in store.list(_DOMAINS):
        with suppress(DataError, FileNotFoundError):
            found[Path(name).stem] = layout.read_sealed(store, name)
    return found
