"""Part a set of sequences or images, or check a split: records -> units -> shares -> file -> leaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from engine.errors import EXIT_DONE, EXIT_INPUT, DataError, InputError
from engine.genome.minhash import Likeness
from engine.io import parquet
from engine.io.source import Shard
from engine.runtime.run import PlanLine, RunContext
from engine.storage.store import open_store
from engine.training._leaks import KINDS, Leak, find_leaks, leaks_text
from engine.training._members import Finder, MemberLikeness, letters_of, usual_likeness
from engine.training._mmseqs import mmseqs_installed
from engine.training._records import open_records
from engine.training.splits import (
    SCHEMA_NAME,
    Clusters,
    Records,
    SplitPlan,
    counts_of,
    read_split,
    split_table,
    write_split,
)
from schemas.jobs.split_sequences import SplitSequencesSpec

_SHOWN = 5


@dataclass(frozen=True)
class SplitOutcome:
    """What was made or found.

    Attributes:
        path: the split file.
        counts: records of each part.
        leaks: pairs that leak; None where nobody looked.
        checked: the file was there and was only checked.
        looked_for: what was taken for a leak, in words.
        task: the task that fits the set, TASK where that is not plain, and options that go with it.
    """

    path: str
    counts: Mapping[str, int]
    leaks: Sequence[Leak] | None
    checked: bool
    looked_for: str
    task: tuple[str, ...] = ("TASK",)

    @property
    def exit_code(self) -> int:
        return EXIT_INPUT if self.checked and self.leaks else EXIT_DONE

    def lines(self) -> Iterator[str]:
        """What the command prints."""
        yield f"{self.path}: " + ", ".join(f"{name} {num:,}" for name, num in self.counts.items())
        if self.leaks is None:
            return
        kinds = Counter(leak.kind for leak in self.leaks)
        told = ", ".join(f"{kind.replace('_', ' ')} {num:,}" for kind, num in sorted(kinds.items())) or "none"
        yield f"  leaks between parts ({self.looked_for}): {told}"
        shown = [leak for kind in KINDS for leak in [one for one in self.leaks if one.kind == kind][:_SHOWN]]
        yield from (f"  {leak.sentence()}" for leak in shown)
        if len(self.leaks) > len(shown):
            yield f"  and {len(self.leaks) - len(shown):,} more; --pairs FILE writes them all"


def run(spec: SplitSequencesSpec, context: RunContext) -> SplitOutcome:
    """Make a split, or check one.

    Raises:
        ReplisomeError: in one sentence; its `exit_code` is the command's.
    """
    looks = spec.check is not None or spec.leak_check
    wanted = looks or spec.shares.method == "similarity"
    group_by = _group_by(spec)
    data, records = open_records(spec.input, sequences=wanted, group_by=group_by)
    facts = getattr(data, "facts", {})
    for path in (spec.output, spec.pairs):
        _place(path or "")
    if spec.shares.group_by == "second_id" and spec.shares.method == "similarity" and not records.are_pairs:
        raise InputError("the records are no pairs", where=spec.input, fix="leave group_by out")
    likeness = _likeness(spec, records, facts)
    members = _members(spec, records, group_by, facts)
    if spec.check is not None:
        path, table = spec.check, read_split(spec.check, data)
    else:
        plan = _plan(spec, likeness, members)
        path, table = str(spec.output), split_table(records, plan, where=spec.input)
        _put(table, path, plan=plan, data_digest=data.digest, force=context.force)
    leaks = None
    if looks:
        leaks = find_leaks(records, table, likeness, where=path, group_by=group_by, members=members)
    if spec.pairs is not None and leaks is not None:
        folder, name = _place(spec.pairs)
        open_store(folder).put(name, leaks_text(leaks).encode())
    looked_for = _looked_for(records, likeness, members)
    task = _task(records, facts)
    return SplitOutcome(path, counts_of(table), leaks, spec.check is not None, looked_for, task)


def plan(spec: SplitSequencesSpec, context: RunContext) -> list[PlanLine]:
    """A split is one file, here told as one shard that holds all kept records.

    Raises:
        InputError: there is no such set.
    """
    num = len(open_records(spec.input, sequences=False)[1])
    shard = Shard(0, 0, num, num, 0, contig=None, start=None, last_contig=None, last_start=None)
    if spec.check is not None:
        return [PlanLine(shard, "run", "the split file is checked each time")]
    if Path(str(spec.output)).expanduser().is_file() and not context.force:
        return [PlanLine(shard, "run", "a split file is there: it is made again and must be the same")]
    return [PlanLine(shard, "run", "the split file is not made yet")]


def _task(records: Records, facts: Mapping[str, Any]) -> tuple[str, ...]:
    has_labels = any(label is not None for label in records.labels)
    if not records.are_letters:
        named = ("image_classification", "image_cnn") if has_labels else ("image_segmentation", "u_net")
        return named[0], "--model", named[1], "--encoder", "pixels"
    if records.are_pairs or "second_alphabet" in facts:
        return ("pair_regression",)
    encoder = ("--encoder", "protein_tokens") if facts.get("alphabet") == "protein" else ()
    return ("sequence_classification" if has_labels else "TASK", *encoder)


def _looked_for(records: Records, likeness: Likeness, members: MemberLikeness | None) -> str:
    """Images are equal or not; of single sequences and of members that part pairs near duplicates leak too."""
    if not records.are_letters:
        return "equal pixels, same group"
    if records.are_pairs:
        member = "" if members is None else f", equal or near {members.column} ({members.told()})"
        return f"equal pairs, same group{member}"
    return f"k {likeness.k}, Jaccard at least {likeness.threshold:g}, or one within the other"


def _group_by(spec: SplitSequencesSpec) -> str:
    """The column of the groups; a split file that is checked says which it was made by."""
    asked = spec.shares.group_by
    if spec.check is None or not Path(spec.check).is_file():
        return asked
    return parquet.footer_metadata(Path(spec.check)).get("group_by", asked)


def _likeness(spec: SplitSequencesSpec, records: Records, facts: Mapping[str, Any]) -> Likeness:
    letters = letters_of(records.sequences, facts.get("alphabet"))
    return usual_likeness(letters, k=spec.likeness.k, threshold=spec.likeness.threshold)


def _members(
    spec: SplitSequencesSpec, records: Records, group_by: str, facts: Mapping[str, Any]
) -> MemberLikeness | None:
    """How the members that part pairs are compared; None where none do."""
    column = "id" if group_by == "group" and spec.shares.method == "similarity" else group_by
    if not records.are_pairs or column not in ("id", "second_id"):
        return None
    how = spec.likeness
    if column == "id":
        letters = letters_of(records.sequences, facts.get("alphabet"))
    else:
        others = [one.encode() for one in records.seconds if one is not None]
        letters = letters_of(others, facts.get("second_alphabet"))
    if letters == "smiles":
        return MemberLikeness("lingo", Likeness(4, how.smiles_threshold, both_strands=False), column=column)
    finder: Finder = "mmseqs2" if letters == "protein" and _clusters(how.clusters) == "mmseqs2" else "minhash"
    likeness = usual_likeness(letters, k=how.k, threshold=how.threshold)
    return MemberLikeness(finder, likeness, how.identity, column)


def _plan(spec: SplitSequencesSpec, likeness: Likeness, members: MemberLikeness | None) -> SplitPlan:
    shares = spec.shares
    return SplitPlan(
        method=shares.method,
        group_by=members.column if members and shares.method == "similarity" else shares.group_by,
        validation=0.0 if shares.folds else shares.validation,
        test=shares.test,
        folds=shares.folds,
        inner_folds=shares.inner_folds,
        allow_empty_classes=shares.allow_empty_classes,
        stratify=shares.stratify,
        seed=shares.seed,
        likeness=likeness,
        clusters=_clusters(spec.likeness.clusters),
        identity=spec.likeness.identity,
        members=members if shares.method == "similarity" else None,
        validation_names=shares.validation_contigs or shares.validation_groups,
        test_names=shares.test_contigs or shares.test_groups,
    )


def _clusters(asked: Literal["auto", "minhash", "mmseqs2"]) -> Clusters:
    if asked == "auto":
        return "mmseqs2" if mmseqs_installed() else "minhash"
    return asked


def _place(path: str) -> tuple[str, str]:
    if "://" in path:
        raise InputError("a split and its leaks are written to a local path", where=path, fix="give a local path")
    whole = Path(path).expanduser().absolute()
    return str(whole.parent), whole.name


def _put(table: pa.Table, path: str, *, plan: SplitPlan, data_digest: str, force: bool) -> None:
    """Write the split in one step; another one that is there is not replaced unless asked."""
    folder, name = _place(path)
    store = open_store(folder)
    local = store.scratch()
    local.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_split(table, local, plan=plan, data_digest=data_digest)
        if not force and store.exists(name) and store.read(name) != local.read_bytes():
            what = f"another {'split' if _is_split(path) else 'file'} is there already"
            raise InputError(what, where=path, fix="choose another name, or use --force to replace it")
        store.put_file(local, name)
    finally:
        store.clear_scratch()


def _is_split(path: str) -> bool:
    try:
        return parquet.footer_metadata(Path(path).expanduser()).get("replisome.schema") == SCHEMA_NAME
    except DataError:
        return False
