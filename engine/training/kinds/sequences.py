"""Single sequences of letters, from Parquet parts (engine/training/_sequence_set.py).

Shape letters: B samples of a batch, L letters of the longest of them, N samples of a group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from engine.errors import InputError
from engine.genome.windows import reverse_complement
from engine.training._sequence_set import SequenceSet, index_splits, open_set, read_group
from engine.training._split_table import Group, Split, SplitTable
from engine.training._task import NO_LABEL, Task

_DNA_UNKNOWN = 4
_MASKING = 1
Varied = TypeVar("Varied")


@dataclass(frozen=True)
class SequenceAugmentation:
    """Attributes:
    reverse_complement: read every second sample on the other strand.
    jitter_bp: move a sequence by up to so many letters either way; what enters is unknown (N).
    mask_fraction: chance of each letter to become unknown.
    """

    reverse_complement: bool = False
    jitter_bp: int = 0
    mask_fraction: float = 0.0

    def check(self, encoder: Any) -> None:
        """Refuse the other strand of what has none."""
        if self.reverse_complement and getattr(encoder, "alphabet", "dna") != "dna":
            raise InputError(
                "only DNA has a reverse complement", where="key 'augment.reverse_complement'", fix="set it to false"
            )

    def applied(self, tokens: NDArray[np.uint8], seed: int, unknown: int) -> NDArray[np.uint8]:
        """One sequence, (L,), as its seed varies it."""
        if self._is_turned(seed):
            tokens = reverse_complement(tokens)
        tokens = self._jittered(tokens, seed, unknown)
        if self.mask_fraction:
            drawn = np.random.default_rng([_MASKING, seed & 0xFFFFFFFFFFFFFFFF]).random(len(tokens), dtype=np.float32)
            tokens = np.where(drawn < self.mask_fraction, np.uint8(unknown), tokens)
        return tokens

    def applied_to_labels(self, labels: NDArray[Any], seed: int, unknown: int) -> NDArray[Any]:
        """The labels of its positions, (L,), turned and moved with their letters; what enters has none."""
        return self._jittered(labels[::-1] if self._is_turned(seed) else labels, seed, unknown)

    def _is_turned(self, seed: int) -> bool:
        """By bits that dropout's hash of the same seed does not show."""
        return self.reverse_complement and bool(seed & 1)

    def _jittered(self, tokens: NDArray[Any], seed: int, unknown: int) -> NDArray[Any]:
        if not self.jitter_bp:
            return tokens
        by = ((seed >> 1) & 0xFFFFFFFF) % (2 * self.jitter_bp + 1) - self.jitter_bp
        return moved(tokens, by, unknown)


def moved(tokens: NDArray[Any], by: int, unknown: int) -> NDArray[Any]:
    """Moved to the right, or to the left where negative; the length stays."""
    if by == 0:
        return tokens
    made = np.empty_like(tokens)
    if by > 0:
        made[:by] = unknown
        made[by:] = tokens[: max(0, len(tokens) - by)]
    else:
        made[:by] = tokens[-by:]
        made[by:] = unknown
    return made


@dataclass(frozen=True)
class SequenceInputs:
    """Attributes:
    tokens_BL: uint8, padded with the unknown letter.
    lengths_B: int64.
    """

    tokens_BL: NDArray[np.uint8]
    lengths_B: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.lengths_B)

    def part(self, begin: int, end: int) -> SequenceInputs:
        """Some of its samples, padded no more than they need."""
        longest = int(self.lengths_B[begin:end].max(initial=1))
        return SequenceInputs(self.tokens_BL[begin:end, :longest], self.lengths_B[begin:end])

    def taken(self, order_B: NDArray[np.int64]) -> SequenceInputs:
        """The samples at these places."""
        return SequenceInputs(self.tokens_BL[order_B], self.lengths_B[order_B])

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """Tokens and lengths."""
        return {"tokens": self.tokens_BL, "lengths": self.lengths_B}

    def told(self) -> str:
        """Their number and the longest."""
        return f"{len(self)} sequences of up to {self.tokens_BL.shape[1]:,} letters"


@dataclass(frozen=True)
class HeldSequences:
    """A group in memory: tokens end to end, where each sequence begins, targets."""

    tokens: NDArray[np.uint8]
    starts: NDArray[np.int64]
    targets: NDArray[Any]

    @property
    def nbytes(self) -> int:
        """Of the tokens, which are nearly all of it."""
        return self.tokens.nbytes

    def sample(self, place: int) -> tuple[NDArray[np.uint8], Any]:
        """Tokens and target: of the sequence, or a label for each letter."""
        return self.tokens[self.starts[place] : self.starts[place + 1]], self.targets[place]


@dataclass(frozen=True)
class SequenceReader:
    """Attributes:
    encoder: letters to tokens.
    task: columns to targets.
    augmentation: None for evaluation.
    """

    encoder: Any
    task: Task
    augmentation: SequenceAugmentation | None

    def read(self, group: Group) -> HeldSequences:
        """See SampleReader."""
        table = read_group(group, ["sequence", self.task.column])
        tokens = [self.encoder.encode(text) for text in table["sequence"].to_pylist()]
        starts = np.concatenate([[0], np.cumsum([len(one) for one in tokens])]).astype(np.int64)
        targets = self.task.targets(table[self.task.column], records=group.records, where=group.part)
        return HeldSequences(np.concatenate(tokens), starts, targets)

    def batch(self, samples: Sequence[Any], seeds_B: NDArray[np.int64]) -> tuple[SequenceInputs, NDArray[Any]]:
        """See SampleReader."""
        texts, targets = [tokens for tokens, _ in samples], [target for _, target in samples]
        unknown, vary = unknown_of(self.encoder), self.augmentation
        if vary is not None:
            seeds = seeds_B.tolist()
            texts = [vary.applied(tokens, seed, unknown) for tokens, seed in zip(texts, seeds, strict=True)]
            if self.task.level == "position":
                pairs = zip(targets, seeds, strict=True)
                targets = [vary.applied_to_labels(labels, seed, NO_LABEL) for labels, seed in pairs]
        return padded(texts, unknown), self.task.stack(targets)


def unknown_of(encoder: Any) -> int:
    """The letter that says nothing."""
    return int(getattr(encoder, "unknown_token", _DNA_UNKNOWN))


def padded(texts: Sequence[NDArray[np.uint8]], unknown: int) -> SequenceInputs:
    """Sequences side by side."""
    lengths = np.array([len(one) for one in texts], dtype=np.int64)
    tokens_BL = np.full((len(texts), int(lengths.max(initial=1))), unknown, dtype=np.uint8)
    for row, one in zip(tokens_BL, texts, strict=True):
        row[: len(one)] = one
    return SequenceInputs(tokens_BL, lengths)


class SequenceKind:
    """See engine/training/_kind.py."""

    name = "sequences"
    noun = "sequences"

    def open(self, path: str) -> SequenceSet:
        """See Kind."""
        return open_set(path)

    def index_splits(
        self, data: SequenceSet, table: SplitTable, *, fold: int | None = None, inner_fold: int | None = None
    ) -> Mapping[str, Split]:
        """See Kind."""
        return index_splits(data, table, fold=fold, inner_fold=inner_fold)

    def targets(self, data: SequenceSet, group: Group, column: str) -> pa.ChunkedArray:  # noqa: ARG002
        """See Kind."""
        return read_group(group, [column])[column]

    def group_names(self, data: SequenceSet, group: Group, column: str) -> list[str | None]:  # noqa: ARG002
        """See Kind."""
        found: list[str | None] = read_group(group, [column])[column].to_pylist()
        return found

    def augmentation(self, values: Mapping[str, Any]) -> SequenceAugmentation:
        """See Kind."""
        return built_augmentation(SequenceAugmentation, values, self.noun)

    def reader(
        self,
        data: SequenceSet,  # noqa: ARG002 - groups name their parts
        *,
        encoder: Any,
        task: Task,
        augmentation: SequenceAugmentation | None,
    ) -> SequenceReader:
        """See Kind."""
        return SequenceReader(encoder, task, augmentation)

    def decided(self, data: SequenceSet, encoder: Any, augmentation: SequenceAugmentation) -> Mapping[str, Any]:
        """See Kind.

        Raises:
            InputError: the set holds pairs, or letters that the encoder does not read.
        """
        if "second_alphabet" in data.facts:
            what = "the set holds pairs, and this task would see the first members alone"
            raise InputError(what, where=data.path, fix="choose the task pair_regression, or ingest without --second")
        check_letters(data, encoder)
        return {
            "in_channels": encoder.channels,
            "num_tokens": getattr(encoder, "num_tokens", 0),
            # A network that has learned both strands may be averaged over them.
            "symmetry": "symmetric" if augmentation.reverse_complement else "stranded",
        }

    def filled(self, params: Mapping[str, Any], splits: Mapping[str, Split]) -> Mapping[str, Any]:
        """The longest sequence, where every position has weights of its own."""
        if "place" not in str(params.get("pool")).split("+") or "length" in params:
            return {}
        return {"length": max(group.longest for split in splits.values() for group in split)}

    def tensors(self, encoder: Any, inputs: SequenceInputs, device: torch.device) -> tuple[Any, ...]:
        """What the encoder gives, and the lengths where some are shorter."""
        return sequence_tensors(encoder, inputs, device)

    def blank(self, encoder: Any, device: torch.device) -> tuple[Any, ...]:
        """One letter."""
        return encoder.tensor(torch.zeros(1, 1, dtype=torch.uint8, device=device)), None

    def wire_bytes(self, split: Split) -> int:
        """A byte a letter."""
        return max(group.longest for group in split)

    def card_facts(self, train: Split) -> Mapping[str, Any]:
        """The longest sequence."""
        return {"longest_sequence": max(group.longest for group in train)}


_READERS = {"dna": "one_hot", "protein": "protein_tokens", "smiles": "smiles_tokens"}


def check_letters(data: SequenceSet, encoder: Any, name: str = "alphabet") -> None:
    """Refuse an encoder of other letters than those that an ingested set says it holds; RNA is kept as A, C, G, T.

    Raises:
        InputError: they differ.
    """
    read = str(getattr(encoder, "alphabet", "dna"))
    held = str(data.facts.get(name, read)).replace("rna", "dna")
    if held != read:
        what = f"the set holds {held}, and the encoder reads {read}"
        fix = f"choose an encoder of {held}, such as --encoder {_READERS.get(held, held)}"
        raise InputError(what, where="key 'encoder.name'", fix=fix)


def sequence_tensors(encoder: Any, inputs: SequenceInputs, device: torch.device) -> tuple[Any, Any]:
    """What an encoder gives, and the lengths (B,) where some are shorter."""
    x = encoder.tensor(torch.from_numpy(np.ascontiguousarray(inputs.tokens_BL)).to(device))
    is_padded = bool((inputs.lengths_B < inputs.tokens_BL.shape[1]).any())
    return x, torch.from_numpy(inputs.lengths_B).to(device) if is_padded else None


def built_augmentation(cls: type[Varied], values: Mapping[str, Any], noun: str) -> Varied:
    """An augmentation from the keys that a spec sets.

    Raises:
        InputError: a key that this kind does not have.
    """
    known = [one.name for one in fields(cls)]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            fix = f"leave it out; {noun} are varied by {', '.join(known)}"
            raise InputError(f"{noun} are not varied by {name}", where=f"key 'augment.{name}'", fix=fix)
    return cls(**values)


KIND = SequenceKind()
