"""What a model's heads become in a table of predictions.

A head with one answer for the whole sequence has a column of numbers per channel, HEAD_CHANNEL (HEAD alone where its
only channel has its name). One that ends in softmax has two more: HEAD_predicted, the channel with the highest
probability (the first of equals), and HEAD_probability, that probability; one that ends in sigmoid has HEAD_predicted,
the list of its channels above one half.

A head with a value for every position has a column of lists per channel: value i of a list belongs to letter i +
context_bp // 2 of the sequence, so a list is context_bp shorter than its sequence. One that ends in softmax over
channels of one letter each, as of residue states, has HEAD_predicted too: a letter for each position. Lists may differ
in length, which an array in Zarr may not, and stay beside the record that they are of.

Shape letters: N rows, C channels, L outputs of a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.errors import InputError
from engine.models._info import HeadInfo, ModelInfo
from schemas.tables import PREDICTIONS, field

Values = NDArray[np.float32]
ONE_HALF = np.float32(0.5)


def value_column(head: HeadInfo, channel: str) -> str:
    """Name of the column that holds a channel."""
    return channel if head.channels == (head.name,) else f"{head.name}_{channel}"


def predicted_column(head: HeadInfo) -> str:
    """Name of the column of what a softmax or sigmoid head tells."""
    return f"{head.name}_predicted"


def head_fields(info: ModelInfo, heads: Sequence[str]) -> list[pa.Field]:
    """Columns of the heads, in their order.

    Raises:
        InputError: two columns would have one name.
    """
    fields = [one for name in heads for one in columns_of(info.heads[name], info.context_bp)]
    seen = set(PREDICTIONS.names)
    for one in fields:
        if one.name in seen:
            what = f"two columns would be named {one.name!r}"
            raise InputError(what, where=f"model {info.name}", fix="rename the head or its channel")
        seen.add(one.name)
    return fields


def columns_of(head: HeadInfo, context_bp: int = 0) -> list[pa.Field]:
    """Columns of one head; `context_bp` is of the model, for heads with a value for every position."""
    told = f"; {head.meaning}" if head.meaning else ""
    if head.level == "position":
        doc = f"channel {{}}, value i of letter i + {context_bp // 2}{told}"
        lists = [field(value_column(head, one), pa.list_(pa.float32()), doc.format(one)) for one in head.channels]
        told = "for each position the channel with the highest probability, the first of equals"
        return [*lists, field(predicted_column(head), pa.string(), told)] if has_letters(head) else lists
    made = [field(value_column(head, one), pa.float32(), f"channel {one}{told}") for one in head.channels]
    if head.activation == "softmax":
        made.append(field(predicted_column(head), pa.string(), "channel with the highest probability"))
        made.append(field(f"{head.name}_probability", pa.float32(), "the highest probability"))
    if head.activation == "sigmoid":
        made.append(field(predicted_column(head), pa.list_(pa.string()), "channels above one half"))
    return made


def has_letters(head: HeadInfo) -> bool:
    """Whether what a head tells of each position is one letter."""
    letters = all(len(one) == 1 and "!" <= one <= "~" for one in head.channels)
    return head.level == "position" and head.activation == "softmax" and letters


def head_arrays(head: HeadInfo, outputs: Sequence[Values | None]) -> list[pa.Array]:
    """Columns of one head, null for the rows without outputs.

    Args:
        head: which.
        outputs: of each row (C,) or (C, L) float32, by the head's level.
    """
    return _list_arrays(head, outputs) if head.level == "position" else _number_arrays(head, outputs)


def _number_arrays(head: HeadInfo, outputs: Sequence[Values | None]) -> list[pa.Array]:
    absent_N = np.array([one is None for one in outputs], dtype=bool)
    values_NC = np.zeros((len(outputs), len(head.channels)), np.float32)
    if not absent_N.all():
        values_NC[~absent_N] = np.stack([one for one in outputs if one is not None])
    made = [pa.array(values_N, mask=absent_N) for values_N in values_NC.T]
    if head.activation == "softmax":
        best_N = values_NC.argmax(axis=1)
        made.append(pa.array(np.array(head.channels, dtype=object)[best_N], pa.string(), mask=absent_N))
        made.append(pa.array(values_NC.max(axis=1), mask=absent_N))
    if head.activation == "sigmoid":
        rows = [None if absent else _above(head, row_C) for absent, row_C in zip(absent_N, values_NC, strict=True)]
        made.append(pa.array(rows, pa.list_(pa.string())))
    return made


def _above(head: HeadInfo, values_C: Values) -> list[str]:
    return [name for name, value in zip(head.channels, values_C, strict=True) if value > ONE_HALF]


def _list_arrays(head: HeadInfo, outputs: Sequence[Values | None]) -> list[pa.Array]:
    sizes = [0 if one is None else one.shape[1] for one in outputs]
    offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]), pa.int32())
    mask = pa.array([one is None for one in outputs], pa.bool_())
    whole = [one for one in outputs if one is not None]
    values_CL = np.concatenate(whole, axis=1) if whole else np.zeros((len(head.channels), 0), np.float32)
    made = [pa.ListArray.from_arrays(offsets, pa.array(values_L), mask=mask) for values_L in values_CL]
    if has_letters(head):
        letters = np.frombuffer("".join(head.channels).encode(), np.uint8)
        texts = [None if one is None else letters[one.argmax(axis=0)].tobytes().decode() for one in outputs]
        made.append(pa.array(texts, pa.string()))
    return made
