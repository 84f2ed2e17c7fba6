"""Pairs, such as a drug and its target: a sequence and its other member, from Parquet parts.

Shape letters: B samples of a batch, L and M letters of the longest members, N samples of a group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from engine.errors import InputError
from engine.training._sequence_set import SequenceSet, read_group
from engine.training._split_table import Group, Split
from engine.training._task import Task, refused
from engine.training.kinds.sequences import (
    SequenceAugmentation,
    SequenceInputs,
    SequenceKind,
    built_augmentation,
    check_letters,
    padded,
    sequence_tensors,
    unknown_of,
)

_SECOND = "second"
# The other member's letters are varied by other draws than the sequence's.
_OTHER_DRAWS = 0x5851F42D4C957F2D


@dataclass(frozen=True)
class PairAugmentation:
    """Attributes:
    mask_fraction: chance of each letter or token, of both members, to become unknown.
    """

    mask_fraction: float = 0.0

    def check(self, encoder: Any) -> None:
        """Every encoder knows an unknown letter."""

    def applied(self, tokens: NDArray[np.uint8], seed: int, unknown: int) -> NDArray[np.uint8]:
        """One member, (L,), as its seed varies it."""
        return SequenceAugmentation(mask_fraction=self.mask_fraction).applied(tokens, seed, unknown)


@dataclass(frozen=True)
class PairInputs:
    """Attributes:
    first, second: the members.
    """

    first: SequenceInputs
    second: SequenceInputs

    def __len__(self) -> int:
        return len(self.first)

    def part(self, begin: int, end: int) -> PairInputs:
        """Some of its samples, padded no more than they need."""
        return PairInputs(self.first.part(begin, end), self.second.part(begin, end))

    @property
    def lengths_B(self) -> NDArray[np.int64]:
        """Letters of both members together."""
        return self.first.lengths_B + self.second.lengths_B

    def taken(self, order_B: NDArray[np.int64]) -> PairInputs:
        """The samples at these places."""
        return PairInputs(self.first.taken(order_B), self.second.taken(order_B))

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """Tokens and lengths of both."""
        sides = {"first": self.first, "second": self.second}
        return {f"{side}_{name}": array for side, one in sides.items() for name, array in one.arrays().items()}

    def told(self) -> str:
        """Their number and the longest members."""
        widths = self.first.tokens_BL.shape[1], self.second.tokens_BL.shape[1]
        return f"{len(self)} pairs of up to {widths[0]:,} and {widths[1]:,} letters"


@dataclass(frozen=True)
class HeldPairs:
    """A group in memory: tokens of each pair, and targets. Members that repeat share their tokens."""

    firsts: Sequence[NDArray[np.uint8]]
    seconds: Sequence[NDArray[np.uint8]]
    targets: NDArray[Any]
    nbytes: int

    def sample(self, place: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Any]:
        """Tokens of both members, and target."""
        return self.firsts[place], self.seconds[place], self.targets[place]


@dataclass(frozen=True)
class PairReader:
    """Attributes:
    encoder: of both members; see engine/encoders/pair.py.
    task: columns to targets.
    augmentation: None for evaluation.
    """

    encoder: Any
    task: Task
    augmentation: PairAugmentation | None

    def read(self, group: Group) -> HeldPairs:
        """See SampleReader."""
        table = read_group(group, ["sequence", _SECOND, self.task.column])
        _refuse_single(table[_SECOND], group)
        firsts, size = _encoded(self.encoder.first, table["sequence"])
        seconds, other = _encoded(self.encoder.second, table[_SECOND])
        targets = self.task.targets(table[self.task.column], records=group.records, where=group.part)
        return HeldPairs(firsts, seconds, targets, size + other)

    def batch(self, samples: Sequence[Any], seeds_B: NDArray[np.int64]) -> tuple[PairInputs, NDArray[Any]]:
        """See SampleReader."""
        sides = []
        for side, encoder in enumerate((self.encoder.first, self.encoder.second)):
            texts, unknown = [one[side] for one in samples], unknown_of(encoder)
            if self.augmentation is not None:
                seeds = seeds_B.tolist() if side == 0 else (seeds_B ^ _OTHER_DRAWS).tolist()
                pairs = zip(texts, seeds, strict=True)
                texts = [self.augmentation.applied(tokens, seed, unknown) for tokens, seed in pairs]
            sides.append(padded(texts, unknown))
        return PairInputs(*sides), self.task.stack([target for *_, target in samples])


def _encoded(encoder: Any, column: pa.ChunkedArray) -> tuple[list[NDArray[np.uint8]], int]:
    """Tokens of each row, and the bytes of the different ones."""
    texts = column.to_pylist()
    known = {text: encoder.encode(text) for text in dict.fromkeys(texts)}
    return [known[text] for text in texts], sum(one.nbytes for one in known.values())


def _refuse_single(column: pa.ChunkedArray, group: Group) -> None:
    if column.null_count:
        row = column.to_pylist().index(None)
        raise refused("no other member, so it is no pair", int(group.records[row]), group.part)


class PairKind(SequenceKind):
    """See engine/training/_kind.py."""

    name = "pairs"
    noun = "pairs"

    def targets(self, data: SequenceSet, group: Group, column: str) -> pa.ChunkedArray:  # noqa: ARG002
        """See Kind."""
        table = read_group(group, [column, _SECOND])
        _refuse_single(table[_SECOND], group)
        return table[column]

    def augmentation(self, values: Mapping[str, Any]) -> PairAugmentation:  # type: ignore[override]
        """See Kind."""
        return built_augmentation(PairAugmentation, values, self.noun)

    def reader(  # type: ignore[override]
        self,
        data: SequenceSet,  # noqa: ARG002 - groups name their parts
        *,
        encoder: Any,
        task: Task,
        augmentation: PairAugmentation | None,
    ) -> PairReader:
        """See Kind."""
        return PairReader(encoder, task, augmentation)

    def decided(  # type: ignore[override]
        self,
        data: SequenceSet,
        encoder: Any,
        augmentation: PairAugmentation,  # noqa: ARG002
    ) -> Mapping[str, Any]:
        """Channels and letters of both encoders.

        Raises:
            InputError: an encoder of single sequences, or of other letters than the set's.
        """
        if not hasattr(encoder, "second"):
            what = "the encoder reads single sequences, and the task takes pairs"
            fix = "give --encoder pair; its params first and second name the encoders of the members"
            raise InputError(what, where="key 'encoder.name'", fix=fix)
        check_letters(data, encoder.first)
        check_letters(data, encoder.second, "second_alphabet")
        both = (encoder.first, encoder.second)
        return {
            "in_channels": [one.channels for one in both],
            "num_tokens": [getattr(one, "num_tokens", 0) for one in both],
            "symmetry": "stranded",
        }

    def filled(self, params: Mapping[str, Any], splits: Mapping[str, Split]) -> Mapping[str, Any]:  # noqa: ARG002
        """Nothing."""
        return {}

    def tensors(  # type: ignore[override]
        self, encoder: Any, inputs: PairInputs, device: torch.device
    ) -> tuple[Any, ...]:
        """What the encoders give, each with its lengths where some are shorter."""
        first = sequence_tensors(encoder.first, inputs.first, device)
        return (*first, *sequence_tensors(encoder.second, inputs.second, device))

    def blank(self, encoder: Any, device: torch.device) -> tuple[Any, ...]:
        """A letter each."""
        return (*super().blank(encoder.first, device), *super().blank(encoder.second, device))

    def wire_bytes(self, split: Split) -> int:
        """A byte a letter; the other member is held to be no longer than the longest sequence, or 512 letters."""
        longest = super().wire_bytes(split)
        return longest + max(longest, 512)


KIND = PairKind()
