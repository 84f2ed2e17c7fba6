"""Layers of a network that Keras 2 saved as HDF5, read as data.

No TensorFlow, and nothing in the file is run or unpickled. Only plain float arrays, text attributes and the JSON of
``model_config`` are taken; links out of the file, storage outside it and arrays larger than any layer here are refused
before they are read. The layout is Keras' own (keras/engine/saving.py of 2.x): a group per layer under
``model_weights`` (or at the top, in a file of weights alone), its arrays listed in ``weight_names``.
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
MAX_LAYERS = 10_000
MAX_CONFIG_CHARS = 16 << 20
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


def read_layers(content: bytes, *, where: str) -> list[Layer]:
    """Every layer of a file, in the file's order.

    Args:
        content: the whole file.
        where: its path, for errors.

    Raises:
        InputError: no HDF5 file of Keras, damaged, or holding what is no plain array; names the layer.
    """
    import h5py

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            weights = _child(file, "model_weights", where) if "model_weights" in file else file
            names = _texts(weights.attrs, "layer_names", where)
            described = _described(file.attrs.get("model_config"), where)
            if described and set(described) != set(names):
                odd = sorted(set(described) ^ set(names))[0]
                what = f"layer {odd[:100]!r} is in only one of weights and configuration"
                raise InputError(what, where=where, fix=FIX)
            return [_layer(weights, name, described.get(name), where) for name in names]
    except InputError:
        raise
    except _BROKEN as error:
        reason = "".join(filter(str.isprintable, " ".join(str(error).split())))[:200]
        raise InputError(f"does not read as a Keras file: {reason}", where=where, fix=FIX) from error


def _texts(attributes: Any, name: str, where: str) -> list[str]:
    """An attribute that lists names."""
    if name not in attributes:
        raise InputError(f"attribute {name!r} is missing", where=where, fix=FIX)
    values = np.asarray(attributes[name]).ravel()
    if values.size > MAX_LAYERS:
        raise InputError(f"attribute {name!r} lists {values.size} names", where=where, fix=FIX)
    texts = [value.decode() if isinstance(value, bytes) else value for value in values.tolist()]
    if not all(isinstance(text, str) and text for text in texts) or len(set(texts)) != len(texts):
        raise InputError(f"attribute {name!r} must list names, each once", where=where, fix=FIX)
    return texts


def _described(config: Any, where: str) -> dict[str, dict[str, Any]]:
    """Layer name to its entry in `model_config`; empty where there is none."""
    if config is None:
        return {}
    text = config.decode() if isinstance(config, bytes) else config
    if not isinstance(text, str) or len(text) > MAX_CONFIG_CHARS:
        raise InputError("attribute 'model_config' is no text of ordinary size", where=where, fix=FIX)
    model = json.loads(text)
    if model["class_name"] not in ("Model", "Functional"):
        what = f"the network is a Keras {str(model['class_name'])[:100]!r}, expected a functional model"
        raise InputError(what, where=where, fix=FIX)
    described = {entry["name"]: entry for entry in model["config"]["layers"]}
    for name, entry in described.items():
        if not isinstance(entry["config"], dict):
            raise InputError(f"layer {name[:100]!r} has no settings", where=where, fix=FIX)
    return described


def _layer(weights: Any, name: str, entry: dict[str, Any] | None, where: str) -> Layer:
    number = _NUMBER.search(name)
    stem = name[: number.start()] if number else name
    kind = entry["class_name"] if entry else _CLASS_OF_STEM.get(stem, stem)
    return Layer(
        name=name,
        kind=str(kind),
        number=int(number.group(1)[:9]) if number else 0,
        config=entry["config"] if entry else {},
        inputs=_inputs(entry, where) if entry else None,
        weights=_weights(_child(weights, name, where), name, where),
    )


def _inputs(entry: dict[str, Any], where: str) -> tuple[str, ...]:
    """The layers that a layer reads: Keras 2 lists [layer, node, tensor, arguments] for each."""
    calls = entry["inbound_nodes"]
    if len(calls) > 1 or not all(isinstance(call, list) for call in calls):
        what = f"layer {entry['name'][:100]!r} is used more than once, or not written as Keras 2 does"
        raise InputError(what, where=where, fix=FIX)
    return tuple(str(source[0]) for call in calls for source in call)


def _weights(group: Any, layer: str, where: str) -> dict[str, np.ndarray]:
    found = {}
    for path in _texts(group.attrs, "weight_names", where):
        plain = path.rpartition("/")[2].partition(":")[0]
        if plain in found:
            raise InputError(f"layer {layer[:100]!r} holds {plain[:100]!r} twice", where=where, fix=FIX)
        found[plain] = _array(_child(group, path, where), f"layer {layer[:100]!r}, {plain[:100]!r}", where)
    return found


def _child(group: Any, path: str, where: str) -> Any:
    """What a path names, followed step by step so that no link leads elsewhere."""
    import h5py

    for part in path.split("/"):
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise InputError(f"{path[:100]!r} is missing, or a link to somewhere else", where=where, fix=FIX)
        group = group[part]
    return group


def _array(data: Any, what: str, where: str) -> np.ndarray:
    """A plain float array; anything else is refused unread."""
    plain = data.dtype.kind == "f" and data.chunks is None and not data.external and not data.is_virtual
    if not plain or math.prod(data.shape) > MAX_VALUES:
        raise InputError(f"{what}: no plain float array of at most {MAX_VALUES} values", where=where, fix=FIX)
    return np.asarray(data[()])
