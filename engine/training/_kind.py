"""What training asks of a kind of sample: how a set of it is opened, read, augmented and shown to a network.

One file of engine/training/kinds for each kind, its stem being the name that a task gives as its `kind`; the file holds
one object `KIND`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

import torch

from engine.errors import InputError
from engine.training._batches import SampleReader
from engine.training._split_table import DataSet, Group, Split, SplitTable
from engine.training._task import Task


class Augmentation(Protocol):
    """How training samples are varied: a frozen dataclass of plain values, all at rest by default."""

    def check(self, encoder: Any) -> None:
        """Refuse what does not go with the encoder. Raises InputError."""
        ...


class Kind(Protocol):
    """See the module's docstring.

    Attributes:
        name: of the kind.
        noun: what a sample is called where people read of it, in the plural.
    """

    name: str
    noun: str

    def open(self, path: str) -> DataSet:
        """Open a set; picklable. Raises InputError, DataError."""
        ...

    def index_splits(
        self, data: Any, table: SplitTable, *, fold: int | None = None, inner_fold: int | None = None
    ) -> Mapping[str, Split]:
        """The rows of "train", "validation" and "test". Raises InputError: a record without a split."""
        ...

    def targets(self, data: Any, group: Group, column: str) -> Any:
        """What Task.fit and Task.targets take of a group's rows, without reading what the network sees."""
        ...

    def group_names(self, data: Any, group: Group, column: str) -> list[str | None]:
        """The column that rows were parted by: group, id, or of pairs second_id."""
        ...

    def augmentation(self, values: Mapping[str, Any]) -> Augmentation:
        """From the keys that a spec sets. Raises InputError: a key that this kind does not have."""
        ...

    def reader(self, data: Any, *, encoder: Any, task: Task, augmentation: Any | None) -> SampleReader:
        """Reads samples; without an augmentation as they are."""
        ...

    def decided(self, data: Any, encoder: Any, augmentation: Any) -> Mapping[str, Any]:
        """Params of a model that follow from the data, and which no one else may set."""
        ...

    def filled(self, params: Mapping[str, Any], splits: Mapping[str, Split]) -> Mapping[str, Any]:
        """Params that follow from the data where they are wanted and nobody set them."""
        ...

    def tensors(self, encoder: Any, inputs: Any, device: torch.device) -> tuple[Any, ...]:
        """What a model's `logits` takes."""
        ...

    def blank(self, encoder: Any, device: torch.device) -> tuple[Any, ...]:
        """The same of a smallest sample without content."""
        ...

    def wire_bytes(self, split: Split) -> int:
        """Bytes of the largest sample of a batch."""
        ...

    def card_facts(self, train: Split) -> Mapping[str, Any]:
        """What the model folder keeps of the training rows."""
        ...


def kind_of(task: Task) -> Kind:
    """The kind of a task's samples."""
    found: Kind = import_module(f"engine.training.kinds.{task.kind}").KIND
    return found


def num_samples(split: Split) -> int:
    """Samples of a split."""
    return sum(len(group.rows) for group in split)


def check_longest(cls: Any, params: Any, splits: Mapping[str, Split]) -> None:
    """Refuse samples that are longer than a model with these params takes.

    Raises:
        InputError: with both lengths.
    """
    most = cls.most_letters(params) if hasattr(cls, "most_letters") else None
    longest = max(group.longest for split in splits.values() for group in split)
    if most is not None and longest > most:
        what = f"a sequence of {longest:,} letters, the network takes {most:,}"
        fix = "give a larger length, or a set of shorter sequences"
        raise InputError(what, where="key 'model.params'", fix=fix)


def check_tokens(model: Any, kind: Kind, data: Any, *, encoder: Any, task: Task, splits: Mapping[str, Split]) -> None:
    """Refuse samples of more tokens than a network takes, where their letters do not tell.

    Raises:
        InputError: naming the first record.
    """
    odd = model.token_check(model.params) if hasattr(model, "token_check") else None
    if odd is None:
        return
    reader = kind.reader(data, encoder=encoder, task=task, augmentation=None)
    for group in (group for split in splits.values() for group in split):
        held = reader.read(group)
        for place, record in enumerate(group.records):
            sentence = odd(held.sample(place)[0])
            if sentence is not None:
                what, fix = f"record {record}: {sentence}", "leave the record out of the set, or shorten it"
                raise InputError(what, where=group.part, fix=fix)
