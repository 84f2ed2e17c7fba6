"""Members of pairs, such as the targets and the drugs: which are alike, and the clusters of those that are.

Proteins are compared by MMseqs2 where asked, letters else by MinHash of k-mers and by containment, so that a fragment
is like what it is a fragment of; SMILES as they are written (engine/genome/lingos.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from engine.genome.containment import held_within
from engine.genome.lingos import Lingos
from engine.genome.minhash import USUAL_K, Components, Ints, Kmers, Likeness, buckets, comparer, near_duplicates
from engine.genome.minhash import reverse_complement as turned
from engine.training._mmseqs import COVERAGE, mmseqs_alike, mmseqs_version

Finder = Literal["minhash", "mmseqs2", "lingo"]
Found = tuple[int, int, float, str]
"""Place of the later member, of the earlier one, how alike they are, and by which measure."""

_LETTERS = {"dna": b"ACGTN", "rna": b"ACGUN"}
JACCARD, CONTAINED, IDENTITY, LINGO = "Jaccard", "contained", "identity", "LINGO Tanimoto"


@dataclass(frozen=True)
class MemberLikeness:
    """What makes two members near duplicates.

    Attributes:
        finder: minhash, mmseqs2 (proteins) or lingo (SMILES).
        likeness: k-mers and their threshold; of SMILES the threshold alone.
        identity: for MMseqs2: least identity.
        column: of the members: id or second_id.
    """

    finder: Finder = "minhash"
    likeness: Likeness = field(default_factory=Likeness)
    identity: float = 0.5
    column: str = "id"

    def told(self) -> str:
        """In words, for a person."""
        if self.finder == "mmseqs2":
            return f"MMseqs2 {mmseqs_version()}, identity at least {self.identity:g} over {COVERAGE:.0%} of either"
        if self.finder == "lingo":
            return f"SMILES as written, LINGO Tanimoto at least {self.likeness.threshold:g}"
        return f"MinHash, k {self.likeness.k}, Jaccard at least {self.likeness.threshold:g}, or one within the other"

    def facts(self) -> dict[str, str]:
        """What a split file tells of it."""
        if self.finder == "mmseqs2":
            return {"identity": repr(self.identity), "coverage": repr(COVERAGE), "mmseqs2_version": mmseqs_version()}
        if self.finder == "lingo":
            return {"threshold": repr(self.likeness.threshold)}
        strands = str(self.likeness.both_strands).lower()
        return {"k": str(self.likeness.k), "threshold": repr(self.likeness.threshold), "both_strands": strands}

    def clusters(self, members: Sequence[bytes], *, seed: int) -> Ints:
        """int64 (N,): members of one number are alike, or joined by others that are."""
        first = {one: place for place, one in reversed(list(enumerate(members)))}
        distinct = sorted(first, key=first.__getitem__)
        if self.finder == "mmseqs2":
            found = Components(len(distinct))
            for later, earlier, _ in mmseqs_alike(distinct, identity=self.identity):
                found.join(later, earlier)
        else:
            kind = Lingos if self.finder == "lingo" else Kmers
            found = near_duplicates(distinct, self.likeness, seed=seed, kmers_of=kind)
        if self.finder == "minhash":
            join_held(distinct, self.likeness, found)
        number = dict(zip(distinct, found.roots().tolist(), strict=True))
        return np.array([first[distinct[number[one]]] for one in members], np.int64)

    def across(self, members: Sequence[bytes], parts: Sequence[str], *, seed: int) -> Iterator[Found]:
        """Each member with the earliest unequal one of another part that it is like."""
        if self.finder == "mmseqs2":
            yield from _first_of(
                (one, other, share, IDENTITY)
                for one, other, share in mmseqs_alike(members, identity=self.identity)
                if parts[one] != parts[other] and members[one] != members[other]
            )
            return
        kmers = (Lingos if self.finder == "lingo" else Kmers)(members, self.likeness)
        measure = LINGO if self.finder == "lingo" else JACCARD
        near = list(near_across(members, parts, self.likeness, kmers=kmers, measure=measure, seed=seed))
        yield from near
        if self.finder == "minhash":
            yield from held_across(members, parts, self.likeness, named={one for one, *_ in near})


def join_held(sequences: Sequence[bytes], likeness: Likeness, found: Components) -> None:
    """Join each sequence that lies in a longer one to that one."""
    first: dict[bytes, int] = {}
    for place, one in enumerate(sequences):
        first.setdefault(one, place)
    places = list(first.values())
    for shorter, longer, _ in held_within(list(first), likeness):
        found.join(places[shorter], places[longer])


def near_across(
    sequences: Sequence[bytes], parts: Sequence[str], likeness: Likeness, *, kmers: Kmers, measure: str, seed: int
) -> Iterator[Found]:
    """Each sequence with the earliest unequal one of another part at or above the threshold."""
    compare = comparer(kmers)
    best: dict[int, tuple[int, float]] = {}
    for group in buckets(kmers.signatures(seed=seed), likeness):
        if len({parts[i] for i in group}) == 1:
            continue
        for place, one in enumerate(group):
            for other in group[:place]:
                if one in best and best[one][0] <= other:
                    break
                if parts[other] != parts[one] and not _is_same(sequences[one], sequences[other], likeness):
                    alike = compare(one, other)
                    if alike >= likeness.threshold:
                        best[one] = (other, alike)
                        break
    for one, (other, alike) in best.items():
        yield one, other, alike, measure


def held_across(
    sequences: Sequence[bytes], parts: Sequence[str], likeness: Likeness, *, named: set[int]
) -> Iterator[Found]:
    """Sequences that lie in longer ones of another part, or hold them; of each the earliest, but those of `named`."""
    found = held_within(sequences, likeness, parts=parts)
    pairs = ((max(pair), min(pair), share, CONTAINED) for *pair, share in found)
    yield from (one for one in _first_of(pairs) if one[0] not in named)


def _first_of(found: Any) -> Iterator[Found]:
    best: dict[int, Found] = {}
    for one in found:
        if one[0] not in best or one[1] < best[one[0]][1]:
            best[one[0]] = one
    yield from best.values()


def _is_same(one: bytes, other: bytes, likeness: Likeness) -> bool:
    return one == other or (likeness.both_strands and len(one) == len(other) and one == turned(other))


def letters_of(members: Sequence[bytes], told: str | None) -> str:
    """smiles, dna, rna or protein: as the set tells, or as the first thousand look."""
    if told is not None:
        return told
    some = b"".join(members[:1000])
    if some and not (some.isalpha() and some.isupper()):
        return "smiles"
    return next((name for name, known in _LETTERS.items() if set(some) <= set(known)), "protein")


def usual_likeness(letters: str, *, k: int | None, threshold: float) -> Likeness:
    """By k-mers: those of DNA are the same on both strands, and words of proteins are short."""
    return Likeness(k or USUAL_K[letters in _LETTERS], threshold, both_strands=letters == "dna")
