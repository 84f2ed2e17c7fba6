from __future__ import annotations

import random
import threading
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import DataError, InputError
from engine.genome.genes import Transcript
from engine.io.source import Shard
from engine.models._info import ModelInfo
from engine.scoring import _cones, _score_store, _store_lookup
from engine.scoring._score_store import (
    FrozenStore,
    StoreWriter,
    TranscriptDigests,
    domain_digest,
    domain_facts,
    freeze,
    parse_name,
    plan_ranges,
    segment_schema,
    segments_of,
    set_aside,
)
from engine.scoring._store_lookup import StoreLookup
from engine.scoring.gc_change import GcChange, GcChangeParams
from engine.scoring.splice_delta import SpliceDelta, SpliceDeltaParams
from engine.storage.store import LocalStore, open_store
from schemas.tables import field
from tests.toys import models

FIELDS = (
    field("gain", pa.float32(), "a number"),
    field("place", pa.int32(), "another"),
    field("flags", pa.string(), "words"),
)
SCHEMA = segment_schema(FIELDS)
FACTS = {"scorer": "toy", "scorer_params": {}}
DOMAIN = domain_digest(FACTS)
SEQUENCES = ("SQ.one_sequence", "SQ.another-1")
NAMES = {sequence: sequence for sequence in SEQUENCES}  # contigs named for their sequence
EVERYWHERE = {sequence: [(0, 1 << 40)] for sequence in SEQUENCES}

keys = st.tuples(
    st.sampled_from(SEQUENCES),
    st.integers(0, 300),
    st.sampled_from(("A", "CA")),
    st.sampled_from(("G", "GTT")),
    st.sampled_from(("", "t1", "t2")),
)
values = st.tuples(
    st.none() | st.floats(-100, 100, width=32),
    st.none() | st.integers(-50, 50),
    st.sampled_from(("", "long_deletion")),
)
row_sets = st.dictionaries(keys, values, max_size=60)


def table_of(rows):
    """Rows ((start, ref, alt, transcript), values) as a table; the normal form is made up."""
    made = [(start - 1, ref, alt, start, ref, alt, transcript, *found) for (start, ref, alt, transcript), found in rows]
    columns = list(zip(*made, strict=True)) or [()] * len(SCHEMA)
    return pa.Table.from_arrays(
        [pa.array(column, one.type) for column, one in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )


def put(uri, rows, *, source=""):
    """Add rows {(sequence, start, ref, alt, transcript): values} in the order given."""
    writer = StoreWriter(str(uri), FACTS, FIELDS, source=source)
    for sequence in dict.fromkeys(key[0] for key in rows):
        writer.add(sequence, table_of([(key[1:], found) for key, found in rows.items() if key[0] == sequence]))
    writer.flush()
    return writer


def get(uri, wanted, *, sources=(), frozen=None):
    """What a lookup gives for all keys: {key: (values, source)}, and how many segments were lost."""
    frozen = frozen or freeze(str(uri), DOMAIN, ranges=EVERYWHERE, sources=sources, warn=pytest.fail)
    frozen = replace(frozen, sequences=NAMES)
    starts = {sequence: [key[1] for key in wanted if key[0] == sequence] for sequence in SEQUENCES}
    found = StoreLookup(frozen, FIELDS).find({one: some for one, some in starts.items() if some})
    rows = {key: found.get(key[0], (key[1] - 1, key[2], key[3], *key[1:])) for key in wanted}
    return {key: row for key, row in rows.items() if row is not None}, found.lost


def some_rows(number, *, sequence=SEQUENCES[0], first=0, gain=0.5):
    return {(sequence, first + at, "A", "G", "t1"): (gain, at, "") for at in range(number)}


def only_segment(folder):
    (path,) = folder.glob("segments/**/*.parquet")
    return path


@settings(max_examples=60)
@given(rows=row_sets, absent=row_sets, data=st.data())
def test_what_is_put_in_comes_out_however_it_was_split(tmp_path_factory, rows, absent, data):
    folder = tmp_path_factory.mktemp("store")
    order = data.draw(st.permutations(list(rows)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(order)), max_size=4)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_score_store, "ROWS_PER_SEGMENT", data.draw(st.integers(1, 40)))
        patch.setattr(_store_lookup, "ROWS_KEPT", data.draw(st.integers(0, 40)))
        for begin, end in zip([0, *cuts], [*cuts, len(order)], strict=True):
            put(folder, {key: rows[key] for key in order[begin:end]})
        found, lost = get(folder, [*rows, *absent])
    assert lost == 0
    assert found == {key: (row, "looked_up") for key, row in rows.items()}


def test_adding_twice_changes_nothing(tmp_path):
    first = put(tmp_path, some_rows(30))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = put(tmp_path, some_rows(30))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert (first.rows, first.segments) == (again.rows, again.segments) == (30, 1)


def test_segments_are_cut_and_named_for_what_they_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(_score_store, "ROWS_PER_SEGMENT", 8)
    put(tmp_path, some_rows(20, first=100) | some_rows(3, sequence=SEQUENCES[1]))
    found = [(one.sequence, one.first, one.last, one.rows) for one in segments_of(open_store(str(tmp_path)))]
    assert sorted(found) == [
        (SEQUENCES[1], 0, 2, 3),
        (SEQUENCES[0], 100, 107, 8),
        (SEQUENCES[0], 108, 115, 8),
        (SEQUENCES[0], 116, 119, 4),
    ]


def test_the_first_of_equal_rows_stands(tmp_path):
    key = ("SQ.one_sequence", 5, "A", "G", "t1")
    writer = StoreWriter(str(tmp_path), FACTS, FIELDS)
    writer.add(key[0], table_of([(key[1:], (0.25, 1, "")), (key[1:], (0.75, 2, ""))]))
    writer.flush()
    assert writer.rows == 1
    assert get(tmp_path, [key])[0][key][0] == (0.25, 1, "")


def test_only_segments_where_the_plan_has_records_are_frozen(tmp_path):
    put(tmp_path, some_rows(10, first=100))
    put(tmp_path, some_rows(10, first=500))
    put(tmp_path, some_rows(10, sequence=SEQUENCES[1]))
    for ranges, firsts in (
        ({SEQUENCES[0]: [(0, 99), (110, 499)]}, []),
        ({SEQUENCES[0]: [(109, 109)]}, [100]),
        ({SEQUENCES[0]: [(0, 100), (509, 600)]}, [100, 500]),
        ({SEQUENCES[1]: [(3, 4)]}, [0]),
    ):
        frozen = freeze(str(tmp_path), DOMAIN, ranges=ranges, warn=pytest.fail)
        assert sorted(one.first for one in frozen.segments) == firsts


def test_a_frozen_list_does_not_see_the_store_grow(tmp_path):
    old, new = some_rows(10), some_rows(10, first=50)
    put(tmp_path, old)
    frozen = freeze(str(tmp_path), DOMAIN, ranges=EVERYWHERE, warn=pytest.fail)
    put(tmp_path, new)
    again = FrozenStore.from_json(str(tmp_path), frozen.to_json())
    assert again == frozen
    assert again.key() == frozen.key()
    assert set(get(tmp_path, [*old, *new], frozen=again)[0]) == set(old)
    later = freeze(str(tmp_path), DOMAIN, ranges=EVERYWHERE, warn=pytest.fail)
    assert later.key() != frozen.key()


def test_every_flipped_bit_is_seen(tmp_path):
    rows = some_rows(200, gain=0.125)
    put(tmp_path, rows)
    path = only_segment(tmp_path)
    frozen = freeze(str(tmp_path), DOMAIN, ranges=EVERYWHERE, warn=pytest.fail)
    data, chance = path.read_bytes(), random.Random(5)
    for _ in range(100):
        bit = chance.randrange(8 * len(data))
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        assert get(tmp_path, rows, frozen=frozen) == ({}, 1), f"bit {bit} was read as data"
        told: list[str] = []
        looking = freeze(str(tmp_path), DOMAIN, ranges=EVERYWHERE, warn=told.append, only_look=True)
        assert (looking.segments, len(told), path.exists()) == ((), 1, True)
        told.clear()
        assert freeze(str(tmp_path), DOMAIN, ranges=EVERYWHERE, warn=told.append).segments == ()
        assert len(told) == 1
        assert "its rows are computed anew" in told[0]
        assert not path.exists()
        (aside,) = (tmp_path / "damaged").rglob("*.parquet")
        assert aside.read_bytes() == flipped
        put(tmp_path, rows)  # what the run that recomputed them does
        assert path.read_bytes() == data
    assert get(tmp_path, rows, frozen=frozen) == ({key: (row, "looked_up") for key, row in rows.items()}, 0)


def test_a_damaged_segment_is_replaced_by_the_same_rows(tmp_path):
    put(tmp_path, some_rows(20))
    path = only_segment(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[:-9])
    put(tmp_path, some_rows(20))
    assert path.read_bytes() == data


def test_a_segment_that_is_gone_is_counted_once_a_lookup(tmp_path):
    near, far = some_rows(10), some_rows(10, first=200)
    put(tmp_path, near)
    put(tmp_path, far)
    frozen = freeze(str(tmp_path), DOMAIN, ranges=EVERYWHERE, warn=pytest.fail)
    (tmp_path / next(one.name for one in frozen.segments if one.first == 200)).unlink()
    lookup = StoreLookup(replace(frozen, sequences=NAMES), FIELDS)
    for _ in range(2):
        assert lookup.find({SEQUENCES[0]: [205]}).lost == 1
        assert len(lookup.find({SEQUENCES[0]: [5]}).rows[SEQUENCES[0]]) == 1


def test_a_segment_in_another_domains_folder_is_not_used(tmp_path):
    put(tmp_path, some_rows(5))
    path = only_segment(tmp_path)
    other = tmp_path / str(path.relative_to(tmp_path)).replace(DOMAIN, domain_digest({"scorer": "another"}))
    other.parent.mkdir(parents=True)
    path.rename(other)
    told: list[str] = []
    frozen = freeze(str(tmp_path), domain_digest({"scorer": "another"}), ranges=EVERYWHERE, warn=told.append)
    assert frozen.segments == ()
    assert "the folder of another domain" in told[0]


def test_writers_at_once_do_not_harm_each_other(tmp_path):
    shared, own = some_rows(300), [some_rows(50, first=1000 * (at + 1), gain=at / 8) for at in range(4)]

    def work(at):
        put(tmp_path, shared)
        put(tmp_path, own[at])

    threads = [threading.Thread(target=work, args=(at,)) for at in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(segments_of(open_store(str(tmp_path)))) == 5
    everything = shared | own[0] | own[1] | own[2] | own[3]
    assert get(tmp_path, everything) == ({key: (row, "looked_up") for key, row in everything.items()}, 0)


def test_imported_rows_are_asked_for_by_name_and_after_our_own(tmp_path):
    put(tmp_path, some_rows(10, gain=0.5))
    put(tmp_path, some_rows(20, gain=0.25), source="tables-1")
    put(tmp_path, some_rows(30, gain=0.125), source="tables-2")
    wanted = list(some_rows(30))
    sources = [source for _, source in get(tmp_path, wanted)[0].values()]
    assert sources == ["looked_up"] * 10
    found = get(tmp_path, wanted, sources=("tables-2", "tables-1"))[0]
    assert [source for _, source in found.values()] == ["looked_up"] * 10 + ["imported:tables-2"] * 20
    assert [row[0] for row, _ in found.values()] == [0.5] * 10 + [0.125] * 20


def test_a_source_that_is_not_there_is_refused_by_name(tmp_path):
    put(tmp_path, some_rows(1), source="tables-1")
    for name, sentence in (("tables", "it holds: tables-1"), ("a/b", "cannot name a source")):
        with pytest.raises(InputError, match=sentence):
            freeze(str(tmp_path), DOMAIN, ranges=EVERYWHERE, sources=(name,), warn=pytest.fail)


def test_a_store_that_is_not_there_is_empty_and_a_file_is_none(tmp_path):
    assert freeze(str(tmp_path / "none"), DOMAIN, ranges=EVERYWHERE, warn=pytest.fail).segments == ()
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="this is a file"):
        freeze(str(tmp_path / "file"), DOMAIN, ranges=EVERYWHERE, warn=pytest.fail)


def test_a_store_that_is_only_read_keeps_its_damaged_segment(tmp_path, monkeypatch):
    put(tmp_path, some_rows(5))
    path = only_segment(tmp_path)

    def refuse(self, name, data):
        raise InputError("cannot write: Read-only file system", where=name)

    monkeypatch.setattr(LocalStore, "put", refuse)
    set_aside(open_store(str(tmp_path)), path.relative_to(tmp_path).as_posix())
    assert path.exists()


def test_other_files_are_no_segments(tmp_path):
    put(tmp_path, some_rows(5))
    path = only_segment(tmp_path)
    name = path.relative_to(tmp_path).as_posix()
    assert parse_name(name).rows == 5
    for other in ("segments/.DS_Store", name + ".tmp", name.replace("computed", "guessed"), "x/" + name):
        assert parse_name(other) is None


def shard(contig, start, last_contig, last_start):
    return Shard(0, 0, 1, 1, 0, contig, start, last_contig, last_start)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (("a", 5, "a", 9), {"A": [(5, 9)]}),
        (("a", 5, "c", 9), {"A": [(5, _score_store._FAR)], "B": [(0, _score_store._FAR)], "C": [(0, 9)]}),
        ((None, None, "b", 9), {"A": [(0, _score_store._FAR)], "B": [(0, 9)]}),
        (("c", 5, None, None), {"C": [(5, _score_store._FAR)]}),
    ],
)
def test_plan_ranges_hold_every_record_of_a_shard(one, expected):
    assert plan_ranges([shard(*one)], {"a": "A", "b": "B", "c": "C"}) == expected


TRANSCRIPT = Transcript("T.1", "G", "S", "chr1", "+", 10, 90, ((10, 20), (50, 90)), True, True, 30)


def test_a_transcript_is_known_by_place_and_exons_not_by_name():
    digests = TranscriptDigests()
    same = replace(TRANSCRIPT, transcript_id="T.2", gene_id="H", symbol="U", contig="1", cds_length=0)
    assert digests(TRANSCRIPT) == digests(same) != ""
    assert digests(None) == ""
    for other in (
        replace(TRANSCRIPT, strand="-"),
        replace(TRANSCRIPT, start=9),
        replace(TRANSCRIPT, end=91),
        replace(TRANSCRIPT, exons=((10, 20), (51, 90))),
    ):
        assert digests(other) != digests(TRANSCRIPT)


def splice_domain(info: ModelInfo, *, device="cpu", precision="fp32", incremental=True, **params):
    scorer = SpliceDelta(SpliceDeltaParams(**params), info)
    mode = {"device": device, "precision": precision, "incremental": incremental}
    facts = domain_facts("splice_delta", params, scorer, info, **mode)
    return domain_digest(facts)


def test_whatever_can_change_a_number_makes_another_domain(tmp_path, monkeypatch):
    info = models.splice_motifs(tmp_path / "one")
    base = splice_domain(info)
    assert splice_domain(replace(info, name="other", licence="none", digest="x", metrics={"a": 1})) == base
    assert splice_domain(info, distance=50) == base
    # Constants that the scorer does not read may differ: a licence text, how the folder was made.
    assert splice_domain(replace(info, extra={"licence_text": "CC BY-NC", "imported_from": {"a": 1}})) == base
    card = replace(info, extra={"exon_change": {"slope": 2}})
    assert splice_domain(card) == base
    others = [
        splice_domain(models.splice_motifs(tmp_path / "two", members=2)),
        splice_domain(models.splice_motifs(tmp_path / "wide", context_bp=6)),
        splice_domain(replace(info, context_bp=8)),
        splice_domain(replace(info, heads={"splice": replace(info.heads["splice"], symmetry="symmetric")})),
        splice_domain(info, distance=49),
        splice_domain(info, mask=True),
        splice_domain(info, compatibility="spliceai-1.3.1"),
        splice_domain(info, precision="bf16"),
        splice_domain(info, device="cuda"),
        splice_domain(info, incremental=False),
    ]
    monkeypatch.setattr(SpliceDelta, "RESULT_VERSION", SpliceDelta.RESULT_VERSION + 1)
    others.append(splice_domain(info))
    monkeypatch.setattr(_cones, "RESULT_VERSION", _cones.RESULT_VERSION + 1)
    others.append(splice_domain(info))
    assert len({base, *others}) == len(others) + 1


def test_constants_that_a_scorer_reads_make_another_domain(tmp_path):
    info = models.splice_grammar_toy(tmp_path / "model")
    base = splice_domain(info, exon_sites=True)
    assert splice_domain(replace(info, extra={**info.extra, "licence_text": "other"}), exon_sites=True) == base
    slope = {"acceptor_slope": 1.0}
    assert splice_domain(info) == splice_domain(replace(info, extra={"exon_change": slope}))
    facts = [
        domain_facts("splice_delta", {}, Silent(), replace(info, extra=extra), device="cpu", precision="fp32")
        for extra in ({"a": 1}, {"a": 2})
    ]
    assert facts[0] != facts[1]  # one that does not say what it reads may read all


class Silent:
    fields = ()
    info_keys = ()


def test_full_windows_have_no_version_of_cones(tmp_path, monkeypatch):
    grammar, motifs = models.splice_grammar_toy(tmp_path / "grammar"), models.splice_motifs(tmp_path / "motifs")
    before = splice_domain(grammar), splice_domain(motifs, incremental=False)
    monkeypatch.setattr(_cones, "RESULT_VERSION", _cones.RESULT_VERSION + 1)
    assert (splice_domain(grammar), splice_domain(motifs, incremental=False)) == before


def test_a_domain_without_a_model_knows_no_device():
    scorer = GcChange(GcChangeParams(), None)
    facts = [domain_facts("gc_change", {}, scorer, None, device=one, precision="fp32") for one in ("cpu", "cuda")]
    assert facts[0] == facts[1]
    assert facts[0]["model"] is None


def test_a_scorer_that_reads_the_record_has_no_domain(tmp_path):
    info = models.splice_grammar_toy(tmp_path / "model")
    info = replace(info, extra={**info.extra})
    params = {"exon_sites": True, "reference_psi": "PSI"}
    scorer = SpliceDelta(SpliceDeltaParams(**params), info)
    with pytest.raises(InputError, match="reads INFO/PSI of each record"):
        domain_facts("splice_delta", params, scorer, info, device="cpu", precision="fp32")


def test_check_segment_tells_what_is_wrong(tmp_path):
    put(tmp_path, some_rows(5))
    store = open_store(str(tmp_path))
    (segment,) = segments_of(store)
    whole = _score_store.check_segment(store, segment)
    path = tmp_path / segment.name
    assert (whole.bytes, whole.rows) == (path.stat().st_size, 5)
    path.unlink()
    with pytest.raises(DataError, match="the segment is gone"):
        _score_store.check_segment(store, segment)


def test_a_lookup_of_a_whole_shard_reads_each_segment_once(tmp_path, monkeypatch):
    rows = some_rows(400)
    put(tmp_path, rows)
    frozen = freeze(str(tmp_path), DOMAIN, ranges=EVERYWHERE, warn=pytest.fail)
    lookup, reads = StoreLookup(replace(frozen, sequences=NAMES), FIELDS), []
    read = _store_lookup.parquet.read_table
    monkeypatch.setattr(
        _store_lookup.parquet, "read_table", lambda *words, **more: (reads.append(1), read(*words, **more))[1]
    )
    for begin in range(0, 400, 50):
        assert len(lookup.find({SEQUENCES[0]: np.arange(begin, begin + 50)}).rows[SEQUENCES[0]]) == 50
    assert len(reads) == 1
