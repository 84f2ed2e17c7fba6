"""Layers of a network that Keras 2 saved as HDF5, read as data.

No TensorFlow, and nothing in the file is run or unpickled. Only plain float arrays, text attributes and the JSON of
``model_config`` are taken; links out of the file, storage outside it, arrays larger than any layer here or than what is
stored of them, and more of all than the file has bytes are refused before they are read. The layout is Keras' own
(keras/engine/saving.py of 2.x): a group per layer under ``model_weights`` (or at the top, in a file of weights alone),
its arrays listed in ``weight_names``.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.errors import InputError

FIX = "give the file as Keras 2 saved it"
MAX_VALUES = 1 << 22
MAX_LAYERS = 2_000
MAX_WEIGHTS = 100
MAX_NAME_BYTES = 1_000
MAX_CONFIG_BYTES = 2 << 20
# Names of any length lie elsewhere in the file, and each may be as long as all of it before it is read.
MAX_UNSIZED_BYTES = 512 << 20
_NUMBER = re.compile(r"_(\d+)$")
# What Keras names a layer of each class, for files that hold weights alone.
_CLASS_OF_STEM = {
    "input": "InputLayer",
    "conv1d": "Conv1D",
    "batch_normalization": "BatchNormalization",
    "activation": "Activation",
    "add": "Add",
    "cropping1d": "Cropping1D",
}
_BROKEN = (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, IndexError, RecursionError)


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        name: as in the file, such as conv1d_12.
        kind: Keras' class, such as Conv1D.
        number: the number in the name, 0 where it has none; Keras counts the layers of a class as they are made.
        config: its settings; empty where the file holds weights alone.
        inputs: names of the layers it reads; None where the file does not say.
        weights: plain name (kernel, bias, gamma, ...) to array.
    """

    name: str
    kind: str
    number: int
    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] | None = None
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass
class _Room:
    """What may still be read of a file: no more bytes than it has, however often it lists the same place.

    Attributes:
        where: its path, for errors.
        size: its bytes.
        left: bytes that may still be read.
    """

    where: str
    size: int
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.size

    def take(self, num_bytes: int, what: str) -> None:
        """Count bytes that are to be read."""
        self.left -= num_bytes
        if self.left < 0:
            sentence = f"{what}: with it the file lists more than it has bytes, so it tells the same ones again"
            raise self.refusal(sentence)

    def refusal(self, what: str) -> InputError:
        return InputError(what, where=self.where, fix=FIX)


def read_layers(content: bytes, *, where: str) -> list[Layer]:
    """Every layer of a file, in the file's order.

    Args:
        content: the whole file.
        where: its path, for errors.

    Raises:
        InputError: no HDF5 file of Keras, damaged, or holding what is no plain array; names the layer.
    """
    import h5py

    room = _Room(where, len(content))
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            weights = _child(file, "model_weights", where) if "model_weights" in file else file
            names = _texts(weights.attrs, "layer_names", room, most=MAX_LAYERS)
            described = _described(_config(file.attrs, room), where)
            if described and set(described) != set(names):
                odd = sorted(set(described) ^ set(names))[0]
                what = f"layer {odd[:100]!r} is in only one of weights and configuration"
                raise InputError(what, where=where, fix=FIX)
            return [_layer(weights, name, described.get(name), room) for name in names]
    except InputError:
        raise
    except _BROKEN as error:
        reason = "".join(filter(str.isprintable, " ".join(str(error).split())))[:200]
        raise InputError(f"does not read as a Keras file: {reason}", where=where, fix=FIX) from error


def _texts(attributes: Any, name: str, room: _Room, *, most: int) -> list[str]:
    """An attribute that lists names, in fields of one length or, as newer h5py writes them, of any."""
    import h5py

    if name not in attributes:
        raise room.refusal(f"attribute {name!r} is missing")
    stored = attributes.get_id(name)
    num, width = math.prod(stored.shape), stored.dtype.itemsize
    if num == 0:
        return []
    kind = h5py.check_string_dtype(stored.dtype)
    is_long = (
        num * room.size > MAX_UNSIZED_BYTES if kind is not None and kind.length is None else width > MAX_NAME_BYTES
    )
    if kind is None or is_long or num > most:
        raise room.refusal(f"attribute {name!r} is no list of at most {most} names of ordinary length")
    texts = [value.decode() if isinstance(value, bytes) else value for value in np.asarray(attributes[name]).flat]
    room.take(sum(map(len, texts)), f"attribute {name!r}")
    if not all(texts) or len(set(texts)) != len(texts):
        raise room.refusal(f"attribute {name!r} must list names, each once")
    return texts


def _config(attributes: Any, room: _Room) -> str | None:
    """The JSON of `model_config`; None where there is none."""
    if "model_config" not in attributes:
        return None
    stored = attributes.get_id("model_config")
    # One text cannot be longer than the file, whatever its kind.
    if stored.shape == () and stored.dtype.itemsize <= MAX_CONFIG_BYTES:
        value = attributes["model_config"]
        text = value.decode() if isinstance(value, bytes) else value
        if isinstance(text, str) and len(text) <= MAX_CONFIG_BYTES:
            return text
    raise room.refusal("attribute 'model_config' is no text of ordinary size")


def _described(text: str | None, where: str) -> dict[str, dict[str, Any]]:
    """Layer name to its entry in `model_config`; empty where there is none."""
    if text is None:
        return {}
    model = json.loads(text)
    if model["class_name"] not in ("Model", "Functional"):
        what = f"the network is a Keras {str(model['class_name'])[:100]!r}, expected a functional model"
        raise InputError(what, where=where, fix=FIX)
    described = {entry["name"]: entry for entry in model["config"]["layers"]}
    for name, entry in described.items():
        if not isinstance(entry["config"], dict):
            raise InputError(f"layer {name[:100]!r} has no settings", where=where, fix=FIX)
    return described


def _layer(weights: Any, name: str, entry: dict[str, Any] | None, room: _Room) -> Layer:
    number = _NUMBER.search(name)
    stem = name[: number.start()] if number else name
    kind = entry["class_name"] if entry else _CLASS_OF_STEM.get(stem, stem)
    return Layer(
        name=name,
        kind=str(kind),
        number=int(number.group(1)[:9]) if number else 0,
        config=entry["config"] if entry else {},
        inputs=_inputs(entry, room.where) if entry else None,
        weights=_weights(_child(weights, name, room.where), name, room),
    )


def _inputs(entry: dict[str, Any], where: str) -> tuple[str, ...]:
    """The layers that a layer reads: Keras 2 lists [layer, node, tensor, arguments] for each."""
    calls = entry["inbound_nodes"]
    if len(calls) > 1 or not all(isinstance(call, list) for call in calls):
        what = f"layer {entry['name'][:100]!r} is used more than once, or not written as Keras 2 does"
        raise InputError(what, where=where, fix=FIX)
    return tuple(str(source[0]) for call in calls for source in call)


def _weights(group: Any, layer: str, room: _Room) -> dict[str, np.ndarray]:
    found = {}
    for path in _texts(group.attrs, "weight_names", room, most=MAX_WEIGHTS):
        plain = path.rpartition("/")[2].partition(":")[0]
        if plain in found:
            raise room.refusal(f"layer {layer[:100]!r} holds {plain[:100]!r} twice")
        found[plain] = _array(_child(group, path, room.where), f"layer {layer[:100]!r}, {plain[:100]!r}", room)
    return found


def _child(group: Any, path: str, where: str) -> Any:
    """What a path names, followed step by step so that no link leads elsewhere."""
    import h5py

    for part in path.split("/"):
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise InputError(f"{path[:100]!r} is missing, or a link to somewhere else", where=where, fix=FIX)
        group = group[part]
    return group


def _array(data: Any, what: str, room: _Room) -> np.ndarray:
    """A plain float array, stored whole; anything else is refused unread."""
    plain = data.dtype.kind == "f" and data.chunks is None and not data.external and not data.is_virtual
    if not plain or math.prod(data.shape) > MAX_VALUES:
        raise room.refusal(f"{what}: no plain float array of at most {MAX_VALUES} values")
    num_bytes, stored = math.prod(data.shape) * data.dtype.itemsize, data.id.get_storage_size()
    if stored != num_bytes:
        # What was never written takes no room in the file and reads as zeros.
        raise room.refusal(f"{what}: {stored} bytes are stored of an array of {num_bytes}")
    room.take(num_bytes, what)
    return np.asarray(data[()])
