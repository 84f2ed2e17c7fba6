"""Scores that others computed, taken into a score store under a name of their own: a VCF that bears the tag SpliceAI
in SpliceAI's layout, as the published precomputed tables do, or a finished run.

Rows go into the domain of the model and settings that they are said to be of, and a run looks into them only where it
names their source.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from engine.errors import InputError
from engine.genome.genes import GeneTable, Transcript
from engine.genome.reference import ReferenceGenome
from engine.genome.variants import VariantRecord, classify_alt, normalise
from engine.io.source import RawRecord
from engine.io.variants import open_variants
from engine.io.vcf import header_info_ids
from engine.runtime import layout
from engine.runtime.commit import Parts, committed_receipts
from engine.scoring._score_store import (
    StoreWriter,
    TranscriptDigests,
    check_source,
    segment_schema,
)
from engine.scoring._store_rows import TranscriptsAt, add_parts, transcripts_of
from engine.scoring._variant_checks import CHECKED_RECORDS, ReferenceCheck, check_contigs
from engine.scoring._variant_reader import record_problem
from engine.scoring._variant_stages import VariantStages, check_gene_contigs
from engine.scoring.splice_delta import NAMES, SPLICEAI_FIELD
from engine.storage.store import open_store

_COLUMNS = [*(f"ds_{name}" for name in NAMES), *(f"dp_{name}" for name in NAMES), "ds_max", "flags"]
_NUMERIC_MODE = ("device", "precision", "incremental")
_PARTS_OF_ENTRY = 10
_RECORDS_PER_SHARD = 10_000
# Of as many some have no site to name, and their positions are anywhere within the distance.
_ENOUGH_ENTRIES = 100
_BYTES_PER_SHARD = 32 << 20

LEFT_OUT = {
    "no_entry": "an ALT without an entry of its own",
    "no_score": "an entry without numbers",
    "malformed_entry": "an entry that is not ALLELE|SYMBOL|DS x 4|DP x 4",
    "symbol_not_here": "a symbol of no gene at that place in the gene table",
    "several_transcripts": "a symbol of several transcripts at that place",
    "not_a_plain_allele": "an allele that is never scored",
    "beyond_distance": "an entry with a position farther from the variant than the distance: it is of another setting",
}


@dataclass(frozen=True)
class Imported:
    """What an import added.

    Attributes:
        rows, segments: added to the store.
        left_out: entries by reason (`LEFT_OUT` and the reject reasons of schemas.states).
        notes: sentences on settings that the numbers seem to be of and that were not named.
    """

    rows: int
    segments: int
    left_out: Mapping[str, int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoreImport:
    """One import.

    Attributes:
        stages: model, scorer and settings that the numbers are of, and the input.
        uri: the store.
        source: name of who made the numbers.
    """

    stages: VariantStages
    uri: str
    source: str

    def __post_init__(self) -> None:
        check_source(self.source)

    def from_vcf(self) -> Imported:
        """Rows of a VCF with the tag SpliceAI.

        Raises:
            InputError: no such tag, another scorer than splice_delta, or a wrong reference.
        """
        path, scorer = self.stages.input_path, self.stages.open_component()[0]
        if [field.name for field in scorer.fields] != _COLUMNS:
            fix = "name the scorer splice_delta without exon_sites"
            raise InputError(f"the tag {SPLICEAI_FIELD.id} holds no other columns than its own", where=path, fix=fix)
        source = open_variants(path, regions=self.stages.regions)
        if SPLICEAI_FIELD.id not in header_info_ids(source.header):
            fix = "give a VCF with SpliceAI scores, or run:DIR for a finished run"
            raise InputError(f"the header declares no INFO/{SPLICEAI_FIELD.id}", where=path, fix=fix)
        check = ReferenceCheck(self._reference, source.header)
        scan = source.scan(
            records_per_shard=_RECORDS_PER_SHARD,
            bytes_per_shard=_BYTES_PER_SHARD,
            on_record=check,
            on_record_limit=CHECKED_RECORDS,
        )
        check.finish()
        check_contigs(scan.contigs, source.header, self._reference)
        writer, left_out = self._writer(), Counter[str]()
        transcripts = transcripts_of(self._genes, self.stages.contig_aliases)
        assert transcripts is not None  # splice_delta needs genes
        params = self._facts["scorer_params"]
        entries = _Entries(self._reference, transcripts, left_out, distance=params["distance"])
        for shard in scan.shards:
            for contig, rows in _by_contig(entries, source.read(shard)):
                writer.add(self._reference.refget(contig), self._table(rows))
        writer.flush()
        notes = _other_settings(params, entries)
        return Imported(writer.rows, writer.segments, dict(sorted(left_out.items())), notes)

    def from_run(self, output: str) -> Imported:
        """Scored rows of a finished run, but those that it took from others.

        Raises:
            InputError: no finished run there, or one of another model, reference, genes or setting.
        """
        store = open_store(output)
        try:
            manifest = layout.read_sealed(store, layout.MANIFEST)
        except FileNotFoundError:
            fix = "finish that run first"
            raise InputError("there is no finished run here", where=f"run:{output}", fix=fix) from None
        self._refuse_other(layout.read_sealed(store, layout.RUN)["key"], output)
        writer = self._writer()
        parts = Parts(store, committed_receipts(store, manifest))
        transcripts = transcripts_of(self._genes, self.stages.contig_aliases)
        add_parts(parts.tables(), writer, reference=self._reference, transcripts=transcripts, computed_only=False)
        return Imported(writer.rows, writer.segments, {})

    def _refuse_other(self, key: Mapping[str, Any], output: str) -> None:
        wanted = self._run_key()
        wanted |= {
            name: self._reference.refget(name.removeprefix("reference "))
            for name in key
            if name.startswith("reference ")
        }
        wrong = [name for name, value in wanted.items() if key.get(name) != value]
        if wrong:
            raise InputError(
                f"that run is of another {', '.join(wrong)}", where=f"run:{output}", fix="give what it was run with"
            )

    def _run_key(self) -> dict[str, Any]:
        """What a run's key says of the same things that the domain and the rows say."""
        facts, info = self._facts, self._info
        key = {name: facts[name] for name in ("scorer", "scorer_version", "scorer_params")}
        key |= {
            "genes": None if self._genes is None else self._genes.digest,
            "all_transcripts": self.stages.all_transcripts,
            "contig_aliases": dict(self.stages.contig_aliases),
            "phased_column": None,
        }
        if info is not None:
            key |= {"model": info.digest, **{name: facts["model"][name] for name in _NUMERIC_MODE}}
            key |= {f"{kind}_version": version for kind, version in facts["model"]["versions"].items()}
        return key

    def _writer(self) -> StoreWriter:
        scorer, info = self.stages.open_component()
        about = {} if info is None else {"model": f"{info.name} {info.version}"}
        return StoreWriter(self.uri, self._facts, scorer.fields, source=self.source, about=about)

    def _table(self, rows: Sequence[tuple[Any, ...]]) -> pa.Table:
        schema = segment_schema(self.stages.open_component()[0].fields)
        return pa.Table.from_arrays(
            [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), schema, strict=True)],
            schema=schema,
        )

    @cached_property
    def _info(self) -> Any:
        return self.stages.open_component()[1]

    @cached_property
    def _facts(self) -> dict[str, Any]:
        return self.stages.domain()

    @cached_property
    def _reference(self) -> ReferenceGenome:
        return ReferenceGenome(self.stages.reference_path, contig_aliases=self.stages.contig_aliases)

    @cached_property
    def _genes(self) -> GeneTable | None:
        path, scorer = self.stages.genes_path, self.stages.open_component()[0]
        if not scorer.needs_genes or path is None:
            return None
        genes = GeneTable.load(path, all_transcripts=self.stages.all_transcripts)
        check_gene_contigs(genes, self._reference, path=path)
        return genes


Row = tuple[Any, ...]


class _Entries:
    """Rows of the store from the records of a SpliceAI VCF; what gives none is counted.

    Attributes:
        taken: rows given.
        furthest: largest distance of a position from its variant among them, in bases.
        left_out: what gave none, by reason.
    """

    def __init__(
        self, reference: ReferenceGenome, transcripts: TranscriptsAt, left_out: Counter[str], *, distance: int
    ) -> None:
        self.taken = self.furthest = 0
        self.left_out = left_out
        self._distance = distance
        self._reference = reference
        self._transcripts = transcripts
        self._digests = TranscriptDigests()

    def __call__(self, raw: RawRecord) -> Iterator[Row]:
        record = raw.record
        if record is None:
            self.left_out["malformed_record"] += 1
            return
        problem = record_problem(record, self._reference)
        if problem is not None:
            self.left_out[problem[0]] += 1
            return
        entries = _entries_of(raw.line)
        for alt in record.alts:
            if classify_alt(record.ref, alt) is not None:
                self.left_out["not_a_plain_allele"] += 1
                continue
            own = [entry for entry in entries if entry[0] == alt]
            if not own:
                self.left_out["no_entry"] += 1
            normal = normalise(record.contig, record.start, record.ref, alt, self._reference.fetch)
            here = self._transcripts(record.contig, record.start)
            for entry in own:
                transcript, values = self._transcript(entry, here), self._values(entry)
                if transcript is not None and values is not None and self._is_near(record, alt, values[4:8]):
                    self.taken += 1
                    key = (*normal, record.start, record.ref.upper(), alt.upper(), self._digests(transcript))
                    yield (*key, *values)

    def _is_near(self, record: VariantRecord, alt: str, places: Sequence[int]) -> bool:
        """Whether all positions are within the distance, which counts from the first changed base of an MNV or delins
        and so may lie beyond POS by the length of REF."""
        spare = 0 if 1 in (len(record.ref), len(alt)) else len(record.ref)
        furthest = max(map(abs, places))
        if furthest > self._distance + spare:
            self.left_out["beyond_distance"] += 1
            return False
        self.furthest = max(self.furthest, furthest)
        return True

    def _transcript(self, entry: Sequence[str], here: Sequence[Transcript]) -> Transcript | None:
        symbol = unquote(entry[1]) if len(entry) > 1 else ""
        fitting = [one for one in here if one.symbol == symbol]
        if len(fitting) == 1:
            return fitting[0]
        self.left_out["several_transcripts" if fitting else "symbol_not_here"] += 1
        return None

    def _values(self, entry: Sequence[str]) -> Row | None:
        if "." in entry[2:]:
            self.left_out["no_score"] += 1
            return None
        try:
            scores = [float(text) for text in entry[2:6]]
            places = [int(text) for text in entry[6:]]
        except ValueError:
            scores, places = [], []
        if len(entry) != _PARTS_OF_ENTRY or len(places) != 4 or not all(0 <= score <= 1 for score in scores):
            self.left_out["malformed_entry"] += 1
            return None
        return (*scores, *places, max(scores), "")


def _other_settings(params: Mapping[str, Any], entries: _Entries) -> tuple[str, ...]:
    """What the numbers say against the settings named for them; the tag itself does not tell its own."""
    notes = []
    distance, num_beyond = params["distance"], entries.left_out["beyond_distance"]
    if num_beyond:
        notes.append(
            f"{num_beyond:,} entries have positions beyond the distance of {distance:,}, so the table was made with a "
            "larger one: name it with --distance"
        )
    elif entries.taken >= _ENOUGH_ENTRIES and 4 * entries.furthest < 3 * distance:
        notes.append(
            f"no position of {entries.taken:,} entries is farther than {entries.furthest:,} bases, so the table was "
            f"probably made with a smaller distance than {distance:,}: name it with --distance"
        )
    if entries.taken and params["compatibility"] == "none":
        notes.append(
            "the tag holds SpliceAI's own numbers in two decimals, and is kept among scores without a compatibility "
            "mode: where it is SpliceAI 1.3.1's, --compatibility spliceai-1.3.1 says so"
        )
    return tuple(notes)


def _entries_of(line: bytes) -> list[list[str]]:
    """Entries of the tag SpliceAI in a VCF line, each cut at its bars."""
    fields = line.split(b"\t", 8)
    wanted = SPLICEAI_FIELD.id + "="
    for text in fields[7].decode("utf-8", "replace").split(";") if len(fields) > 7 else ():
        if text.startswith(wanted):
            return [entry.split("|") for entry in text.removeprefix(wanted).split(",")]
    return []


def _by_contig(
    entries: Callable[[RawRecord], Iterator[Row]], records: Sequence[RawRecord]
) -> Iterator[tuple[str, list[Row]]]:
    """Rows of records, contig by contig."""
    contig, rows = "", list[Row]()
    for raw in records:
        name = raw.record.contig if raw.record is not None else contig
        if rows and name != contig:
            yield contig, rows
            rows = []
        contig = name
        rows += entries(raw)
    if rows:
        yield contig, rows
