"""Files as Keras 2 writes them, with seeded random weights: SpliceAI's layers, small enough to compute by hand.

layers = spliceai_layers(80)          a list to change before it is written
write(path, layers)                   HDF5, with the configuration unless `config=False`
read_weights(path)                    layer name -> plain name -> array, by h5py alone
forward(weights, one_hot, ...)        the network again, in plain numpy, padded and cropped as SpliceAI does it
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

SCHEDULES = {80: ((11, 1),), 400: ((11, 1), (11, 4)), 2000: ((11, 1), (11, 4), (21, 10))}
SCHEDULES[10000] = (*SCHEDULES[2000], (41, 25))
CHANNELS = 32
LICENCE = "CC BY NC 4.0, toy words\nfor the tests"


@dataclass
class ToyLayer:
    """A layer as its file shows it."""

    name: str
    kind: str
    inputs: list[str]
    config: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, np.ndarray] = field(default_factory=dict)


def spliceai_layers(flank: int = 80, *, seed: int = 0, first: int = 1, epsilon: float = 0.001) -> list[ToyLayer]:
    """SpliceAI's layers in the order in which they are made.

    Args:
        flank: context, one of SCHEDULES.
        seed: of the weights.
        first: number in the name of the first layer of each kind; Keras counts on through a session.
        epsilon: of the normalisations.
    """
    rng = np.random.default_rng(seed)
    made: list[ToyLayer] = []
    counts: dict[str, int] = {}

    def add(stem: str, kind: str, inputs: list[str], **config: Any) -> str:
        number = counts[stem] = counts.get(stem, first - 1) + 1
        name = f"{stem}_{number}" if number else stem
        made.append(ToyLayer(name, kind, inputs, {"name": name, **config}))
        return name

    def conv(source: str, width: int, *, dilation: int = 1, into: int = CHANNELS, activation: str = "linear") -> str:
        settings = {"strides": [1], "padding": "same", "dilation_rate": [dilation], "activation": activation}
        name = add("conv1d", "Conv1D", [source], filters=into, kernel_size=[width], use_bias=True, **settings)
        channels = 4 if counts["conv1d"] == first else CHANNELS
        made[-1].weights = {
            "kernel": _normal(rng, (width, channels, into)) / np.float32(math.sqrt(width * channels)),
            "bias": _normal(rng, (into,)) * np.float32(0.1),
        }
        return name

    def norm(source: str) -> str:
        name = add("batch_normalization", "BatchNormalization", [source], axis=-1, epsilon=epsilon)
        made[-1].weights = {
            "gamma": 1 + _normal(rng, (CHANNELS,)) * np.float32(0.1),
            "beta": _normal(rng, (CHANNELS,)) * np.float32(0.1),
            "moving_mean": _normal(rng, (CHANNELS,)) * np.float32(0.1),
            "moving_variance": np.float32(0.5) + np.abs(_normal(rng, (CHANNELS,))),
        }
        return name

    trunk = conv(add("input", "InputLayer", []), 1)
    skip = conv(trunk, 1)
    for width, dilation in SCHEDULES[flank]:
        for _ in range(4):
            x = trunk
            for _ in range(2):
                x = conv(add("activation", "Activation", [norm(x)], activation="relu"), width, dilation=dilation)
            trunk = add("add", "Add", [x, trunk])
        skip = add("add", "Add", [skip, conv(trunk, 1)])
    conv(add("cropping1d", "Cropping1D", [skip], cropping=[flank // 2] * 2), 1, into=3, activation="softmax")
    return made


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def write(path: Path, layers: list[ToyLayer], *, config: bool = True) -> Path:
    """Write the layers; without `config` as `save_weights` does: at the top of the file and nothing else."""
    with h5py.File(path, "w") as file:
        if config:
            file.attrs["keras_version"] = b"2.0.5"
            file.attrs["model_config"] = json.dumps(model_config(layers)).encode()
        weights = file.create_group("model_weights") if config else file
        weights.attrs["layer_names"] = np.array([layer.name.encode() for layer in layers])
        for layer in layers:
            group = weights.create_group(layer.name)
            names = [f"{layer.name}/{plain}:0" for plain in layer.weights]
            group.attrs["weight_names"] = np.array([name.encode() for name in names], dtype="S60")
            for name, array in zip(names, layer.weights.values(), strict=True):
                group[name] = array
    return path


def model_config(layers: list[ToyLayer]) -> dict[str, Any]:
    """The JSON value of the attribute `model_config`."""
    entries = [
        {
            "name": layer.name,
            "class_name": layer.kind,
            "config": layer.config,
            "inbound_nodes": [[[source, 0, 0, {}] for source in layer.inputs]] if layer.inputs else [],
        }
        for layer in layers
    ]
    return {"class_name": "Model", "config": {"name": "model_1", "layers": entries}}


def write_install(
    site: Path, *, flank: int = 80, licence: str | None = "CC BY NC 4.0, toy words\nfor the tests"
) -> Path:
    """A folder as site-packages holds SpliceAI: five networks, and a licence beside them."""
    models = site / "spliceai" / "models"
    models.mkdir(parents=True)
    for number in range(1, 6):
        write(models / f"spliceai{number}.h5", spliceai_layers(flank, seed=number, first=1 + 100 * number))
    if licence is not None:
        (models / "LICENSE").write_text(licence)
    (site / "spliceai-1.3.1.dist-info").mkdir()
    return site


def read_weights(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Layer name to plain name to array, for the layers that hold any."""
    found: dict[str, dict[str, np.ndarray]] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            layer, plain = name.split("/")[-2:]
            found.setdefault(layer, {})[plain.partition(":")[0]] = item[()].astype(np.float64)

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return found


def forward(
    weights: dict[str, dict[str, np.ndarray]], one_hot: np.ndarray, *, flank: int, epsilon: float = 0.001
) -> np.ndarray:
    """(L, 4) -> (L - flank, 3) float64, as the paper draws the network: padded with zeros, cropped at last."""

    def in_order(stem: str) -> Any:
        names = [name for name in weights if re.fullmatch(rf"{stem}(_\d+)?", name)]
        return iter(sorted(names, key=lambda name: int(name.rpartition("_")[2]) if name != stem else 0))

    convs, norms = in_order("conv1d"), in_order("batch_normalization")

    def conv(x: np.ndarray, dilation: int = 1) -> np.ndarray:
        kernel, bias = (weights_of := weights[next(convs)])["kernel"], weights_of["bias"]
        reach = (len(kernel) - 1) * dilation // 2
        padded = np.pad(x, ((reach, reach), (0, 0)))
        taps = (padded[tap * dilation : tap * dilation + len(x)] @ kernel[tap] for tap in range(len(kernel)))
        return np.asarray(sum(taps) + bias)

    def norm(x: np.ndarray) -> np.ndarray:
        own = weights[next(norms)]
        return (x - own["moving_mean"]) / np.sqrt(own["moving_variance"] + epsilon) * own["gamma"] + own["beta"]

    trunk = conv(one_hot)
    skip = conv(trunk)
    for _, dilation in SCHEDULES[flank]:
        for _ in range(4):
            x = trunk
            for _ in range(2):
                x = conv(np.maximum(norm(x), 0), dilation)
            trunk = trunk + x
        skip = skip + conv(trunk)
    logits = conv(skip[flank // 2 : len(skip) - flank // 2])
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
