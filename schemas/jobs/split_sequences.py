"""Part a set of sequences or images into train, validation and test, or folds; or check what leaks in a split.

The split is one file, shared by all trials. Equal sets and settings give equal bytes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas._base import Names, Option, Spec

Share = Annotated[float, Field(ge=0, lt=1)]
Text = Annotated[str, Field(min_length=1)]


class SharesSpec(Spec):
    """How much is held out, and how."""

    method: Literal["random", "group", "contig", "similarity"] = "random"
    """what is never parted: nothing, a group, a contig, or near duplicates"""
    group_by: Literal["group", "id", "second_id"] = "group"
    """column of the groups: of pairs, id parts no sequence (cold target) and second_id no other member (cold drug);
    with method similarity which members are clustered, the sequences (id) where unset"""
    validation: Share = 0.1
    """share of the records to validate on; taken from the folds where there are any"""
    test: Share = 0.1
    """share of the records to test on"""
    folds: Annotated[int, Field(ge=0, le=1000)] = 0
    """number of folds over what is not tested; 0 makes none"""
    inner_folds: Annotated[int, Field(ge=0, le=1000)] = 0
    """nested: number of folds within the records that train in each fold; 0 makes none"""
    stratify: bool = False
    """meet the shares within each class"""
    allow_empty_classes: bool = False
    """accept a part or fold in which a class has no record"""
    seed: Annotated[int, Field(ge=0)] = 0
    """decides which records go where"""
    validation_contigs: Names = ()
    """for method contig: contigs to validate on; named contigs take the place of shares"""
    test_contigs: Names = ()
    """for method contig: contigs to test on"""

    validation_groups: Names = ()
    """for method group: groups to validate on, as of contigs"""
    test_groups: Names = ()
    """for method group: groups to test on, as of contigs"""

    @model_validator(mode="after")
    def _fits(self) -> SharesSpec:
        if self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation} and test {self.test} leave nothing to train on")
        if 1 in (self.folds, self.inner_folds):
            raise ValueError("one fold parts nothing: give 2 or more, or 0 for none")
        if self.inner_folds and not self.folds:
            raise ValueError("inner folds lie within folds: give folds too")
        if self.group_by != "group" and self.method not in ("group", "similarity"):
            raise ValueError(f"group_by {self.group_by} goes with method group or similarity")
        named = {
            "contig": (self.validation_contigs, self.test_contigs),
            "group": (self.validation_groups, self.test_groups),
        }
        for kind, (validation, test) in named.items():
            if (validation or test) and self.method != kind:
                raise ValueError(f"named {kind}s go with method {kind}")
            if both := set(validation) & set(test):
                raise ValueError(f"{kind} {min(both)} cannot be both validated and tested on")
        return self


class LikenessSpec(Spec):
    """What near duplicates are."""

    k: Annotated[int, Field(ge=2, le=64)] | None = None
    """letters of a k-mer; unset takes 8 for DNA and 5 for proteins"""
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.5
    """least Jaccard index of the k-mers of two near duplicates; leaks are told by it"""
    clusters: Literal["auto", "minhash", "mmseqs2"] = "auto"
    """what method similarity clusters by, and what near members of pairs (proteins) are found by; auto: MMseqs2 where
    installed, else MinHash; the split file and the closing lines say which"""
    identity: Annotated[float, Field(gt=0, le=1)] = 0.5
    """for MMseqs2: least identity of near duplicates, at a coverage of 80% of both; of members of pairs of either"""
    smiles_threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    """least LINGO Tanimoto of SMILES that are near, as written: no chemistry is known here, so one molecule written in
    two ways is two, and equal means equal text; write them by one program in its canonical form first"""


class SplitSequencesSpec(Spec):
    """Part a set of sequences or images into train, validation and test, or folds; or check what leaks in a split."""

    job: Literal["split_sequences"] = "split_sequences"
    """the job this spec is for"""
    version: Literal[1] = 1
    """version of this spec's layout"""
    input: Text
    """the output folder of a finished ingest-sequences or ingest-images run, also as run:DIR"""
    output: Text | None = None
    """the split file to write, a local path"""
    check: Text | None = None
    """a split file to check for leaks instead of making one; leaks end it with exit code 2"""
    pairs: Text | None = None
    """file to write all leaking pairs to, TAB-separated"""
    leak_check: bool = True
    """look for leaks in the split that is made, and say what is found: near duplicates, also short sequences that lie
    in longer ones; of pairs equal ones, parted groups and, where they are parted by a member, near members"""
    shares: SharesSpec = Field(default_factory=SharesSpec)
    """how much is held out, and how"""
    likeness: LikenessSpec = Field(default_factory=LikenessSpec)
    """what near duplicates are"""

    @model_validator(mode="after")
    def _one_thing(self) -> SplitSequencesSpec:
        if (self.output is None) == (self.check is None):
            raise ValueError("give output, the split file to make, or check, the split file to check")
        return self


SPEC = SplitSequencesSpec

OPTIONS = (
    Option("input", ("RUN",)),
    Option("output", ("--output", "-o")),
    Option("check", ("--check",), metavar="SPLIT"),
    Option("pairs", ("--pairs",), metavar="FILE"),
    Option("leak_check", ("--no-leak-check",), doc="do not look for leaks in the split that is made", value=False),
    Option("shares.method", ("--method",)),
    Option("shares.group_by", ("--group-by",), metavar="group|id|second_id"),
    Option("shares.validation", ("--validation",)),
    Option("shares.test", ("--test",)),
    Option("shares.folds", ("--folds",)),
    Option("shares.inner_folds", ("--inner-folds",)),
    Option("shares.stratify", ("--stratify",)),
    Option("shares.allow_empty_classes", ("--allow-empty-classes",)),
    Option("shares.seed", ("--seed",)),
    Option("shares.validation_contigs", ("--validation-contigs",), form="commas", metavar="NAME"),
    Option("shares.test_contigs", ("--test-contigs",), form="commas", metavar="NAME"),
    Option("shares.validation_groups", ("--validation-groups",), form="commas", metavar="NAME"),
    Option("shares.test_groups", ("--test-groups",), form="commas", metavar="NAME"),
    Option("likeness.k", ("--kmer",)),
    Option("likeness.threshold", ("--threshold",)),
    Option("likeness.clusters", ("--clusters",)),
    Option("likeness.identity", ("--identity",)),
    Option("likeness.smiles_threshold", ("--smiles-threshold",)),
)
"""The one place where the command's options meet the keys of the spec."""
