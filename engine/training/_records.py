"""The records of a set that is to be parted, whatever it holds."""

from __future__ import annotations

from engine.errors import InputError
from engine.training._image_set import ImageSet, is_image_set, open_image_set, pixel_digests
from engine.training._sequence_set import SequenceSet, open_set
from engine.training.splits import Records, load_records


def open_records(path: str, *, sequences: bool, group_by: str = "group") -> tuple[SequenceSet | ImageSet, Records]:
    """A set of sequences or images and its kept records.

    Args:
        path: of the set.
        sequences: whether letters are wanted, or of images what tells equal ones.
        group_by: column that holds the groups: group, id, or of pairs second_id.

    Raises:
        InputError: there is no set, or no kept record in it.
        DataError: it is damaged.
    """
    if not is_image_set(path):
        data = open_set(path)
        return data, load_records(data, sequences=sequences, group_by=group_by)
    images = open_image_set(path)
    if not len(images):
        raise InputError("the set has no kept image", where=path, fix="look at its rejects")
    if group_by == "second_id":
        raise InputError("images have no second_id to be parted by", where=path, fix="part by group or id")
    nothing: list[str | None] = [None] * len(images)
    return images, Records(
        record=images.records,
        ids=images.ids.to_pylist(),
        sequences=[one.encode() for one in pixel_digests(images)] if sequences else [],
        labels=images.labels.to_pylist(),
        groups=(images.ids if group_by == "id" else images.groups).to_pylist(),
        contigs=nothing,
        are_letters=False,
    )
