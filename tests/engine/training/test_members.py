"""Members of pairs: near ones across parts are named, clusters part none of them, and SMILES are what is written."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError
from engine.genome.lingos import Lingos, as_written
from engine.genome.minhash import Likeness, jaccard
from engine.training._leaks import find_leaks, leaks_text
from engine.training._members import MemberLikeness, letters_of, usual_likeness
from engine.training.splits import SplitPlan, split_table
from tests.engine.genome.test_containment import AMINO_ACIDS, random_proteins
from tests.engine.training.test_splits import parted, records

PROTEIN = Likeness(5, 0.5, both_strands=False)
FINDERS = ("minhash", "mmseqs2")
ASPIRIN, SALICYLIC, CAFFEINE = "CC(=O)Oc1ccccc1C(=O)O", "OC(=O)c1ccccc1O", "Cn1cnc2c1c(=O)n(C)c(=O)n2C"


def families(seed: int, *, num: int = 6) -> list[bytes]:
    """Of each family a protein, one with a tenth of its letters changed, and a piece of it."""
    draw = random.Random(seed)
    found = []
    for whole in random_proteins([240] * num, draw):
        near = bytearray(whole)
        for place in draw.sample(range(240), 12):
            near[place] = draw.choice(AMINO_ACIDS)
        found += [whole, bytes(near), whole[60:150]]
    return found


def pairs_of(members: list[bytes], *, drugs: int = 3):
    """Each member with each drug."""
    num = len(members) * drugs
    data = records(num, sequences=[members[i % len(members)] for i in range(num)])
    ids = [f"t{i % len(members)}" for i in range(num)]
    seconds, names = (
        [of[i // len(members)] for i in range(num)] for of in ((ASPIRIN, SALICYLIC, CAFFEINE), ("d0", "d1", "d2"))
    )
    return replace(data, ids=ids, groups=ids, seconds=seconds, second_ids=names)


@pytest.mark.parametrize("finder", FINDERS)
def test_near_targets_and_pieces_on_both_sides_of_a_cold_split_are_named(finder):
    data = pairs_of(families(0))
    parts = ["test" if name in ("t1", "t5") else "train" for name in data.ids]
    found = find_leaks(data, parted(data, parts), PROTEIN, group_by="id", members=MemberLikeness(finder, PROTEIN))
    told = {(one.kind, one.member, one.other_member) for one in found}
    assert {("near_member", "t1", "t0"), ("near_member", "t5", "t3")} <= told
    assert {kind for kind, *_ in told} == {"near_member"}
    assert {name for _, *names in told for name in names} <= {"t0", "t1", "t2", "t3", "t4", "t5"}
    sentence = next(one.sentence() for one in found if one.member == "t1")
    measure = "Jaccard" if finder == "minhash" else "identity"
    assert sentence.startswith(f"t1 of record 2 (t1, test) is near ({measure} 0.")
    assert sentence.endswith("t0 of record 0 (t0, train)")
    assert leaks_text(found).splitlines()[0].endswith("\tmember\tother_member\tmeasure")


def test_a_piece_is_told_by_what_it_shares():
    data = pairs_of(families(1, num=1)[::2])
    parts = ["test" if name == "t1" else "train" for name in data.ids]
    found = find_leaks(data, parted(data, parts), PROTEIN, group_by="id", members=MemberLikeness("minhash", PROTEIN))
    assert [one.sentence() for one in found] == [
        "t1 of record 2 (t1, test) shares 100% of the shorter one with t0 of record 0 (t0, train)"
    ]


@pytest.mark.parametrize("finder", FINDERS)
def test_clusters_of_targets_part_no_family_and_nothing_leaks(finder):
    data = pairs_of(families(2, num=8))
    how = MemberLikeness(finder, PROTEIN)
    plan = SplitPlan("similarity", group_by="id", test=0.25, validation=0.25, members=how)
    table = split_table(data, plan)
    part_of = dict(zip(data.ids, table["split"].to_pylist(), strict=True))
    assert all(len({part_of[f"t{3 * i + j}"] for j in range(3)}) == 1 for i in range(8))
    assert Counter(part_of.values()) == {"train": 12, "validation": 6, "test": 6}
    if finder == "minhash":  # MMseqs2 takes its seconds, and has told its leaks above
        assert find_leaks(data, table, PROTEIN, group_by="id", members=how) == []
    assert (plan.facts()["clusters"], plan.facts()["group_by"]) == (finder, "id")


@given(seed=st.integers(0, 30))
def test_the_order_of_records_moves_no_member_to_another_cluster(seed):
    members = families(3, num=3)
    shuffled = [*members, *members]
    random.Random(seed).shuffle(shuffled)
    plain, turned = (MemberLikeness("minhash", PROTEIN).clusters(one, seed=0).tolist() for one in (members, shuffled))
    together = {frozenset(m for m, c in zip(members, plain, strict=True) if c == one) for one in plain}
    assert {frozenset(m for m, c in zip(shuffled, turned, strict=True) if c == one) for one in turned} == together


def test_near_drugs_are_told_as_written():
    chlorinated = ASPIRIN.replace("c1ccccc1", "c1ccc(Cl)cc1")
    data = replace(
        records(4, sequences=[b"MKV"] * 4),
        seconds=[ASPIRIN, chlorinated, CAFFEINE, "O=C(C)Oc1ccccc1C(=O)O"],
        second_ids=["aspirin", "chloro", "caffeine", "aspirin-again"],
    )
    how = MemberLikeness("lingo", Likeness(4, 0.6, both_strands=False), column="second_id")
    table = parted(data, ["train", "test", "test", "train"])
    found = find_leaks(data, table, PROTEIN, group_by="second_id", members=how)
    assert [(one.kind, one.member, one.other_member, one.measure) for one in found] == [
        ("near_member", "chloro", "aspirin", "LINGO Tanimoto"),
    ]
    # One molecule in two orders of its atoms is two texts: equal means equal text.
    turned = parted(data, ["train", "train", "train", "test"])
    assert all(one.kind != "same_member" for one in find_leaks(data, turned, PROTEIN, group_by="second_id"))


@given(one=st.text("CNOcn1()=", min_size=1, max_size=30), other=st.text("CNOcn1()=", min_size=1, max_size=30))
def test_the_likeness_of_smiles_is_the_tanimoto_of_their_counted_words(one, other):
    lingos = Lingos([one.encode(), other.encode()], Likeness(4, 0.5, both_strands=False))

    def counted(text: str) -> Counter:
        text = as_written(text.encode()).decode()
        return Counter([text] if len(text) < 4 else [text[i : i + 4] for i in range(len(text) - 3)])

    a, b = counted(one), counted(other)
    wanted = sum((a & b).values()) / sum((a | b).values())
    assert jaccard(lingos.of(0), lingos.of(1)) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("smiles", "wanted"),
    [
        ("c1ccccc1", "c0ccccc0"),
        ("C1CC2CC12", "C0CC0CC00"),
        ("C%12CC%12", "C0CC0"),
        ("[13CH4]", "[13CH4]"),
        ("ClC[Na+2]Br", "LC[Na+2]R"),
    ],
)
def test_ring_closures_are_one_and_halogens_one_letter(smiles, wanted):
    assert as_written(smiles.encode()) == wanted.encode()


def test_letters_are_what_the_set_tells_or_what_they_look_like():
    assert letters_of([b"ACGT"], "protein") == "protein"
    assert letters_of([b"MKV"], None) == "protein"
    assert letters_of([b"ACGUU"], None) == "rna"
    assert letters_of([b"ACGTN"], None) == letters_of([], None) == "dna"
    assert letters_of([b"CC(=O)O"], None) == "smiles"
    assert usual_likeness("rna", k=None, threshold=0.5) == Likeness(8, 0.5, both_strands=False)
    assert usual_likeness("protein", k=None, threshold=0.5).k == 5


def test_members_that_are_not_there():
    plan = SplitPlan("similarity", group_by="second_id", members=MemberLikeness(column="second_id"))
    with pytest.raises(InputError, match="the records are no pairs"):
        split_table(records(9), plan)
    some = replace(records(3, sequences=[b"MKV"] * 3), seconds=["CCO", None, "CCN"])
    with pytest.raises(InputError, match="record 2 has no other member; part by group"):
        split_table(some, plan)
