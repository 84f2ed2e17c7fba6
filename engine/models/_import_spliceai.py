"""SpliceAI's own networks, read from the Keras files of the user's install (Jaganathan et al. 2019; SpliceAI 1.3.1).

The file says which layers there are, not what each is for: that follows from the order in which Keras counted them,
and is checked against the wiring, dilations and activations in the file's own configuration. Convolution kernels are
stored as width x in x out. Convolutions 1 and 2 are the first and the skip that leaves right after it; then come eight
for every group of four residual blocks, and the group's skip; the last gives the outputs none, acceptor, donor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import InputError
from engine.models._importing import (
    FLANK_OF_GROUPS,
    Found,
    Licence,
    Origin,
    build_network,
    card_of,
    check_members,
    dist_info,
    first_with,
    read_file,
    read_licence,
    write_folder,
)
from engine.models._info import ModelInfo
from engine.models._keras_layers import Layer, read_layers
from engine.models.dilated_conv import DilatedConv, DilatedConvParams, spliceai_params

ORIGIN = "SpliceAI"
LICENCE = Licence(
    "CC BY-NC 4.0",
    "SpliceAI's trained models are provided under the Creative Commons licence CC BY-NC 4.0, for academic and\n"
    "non-commercial use; other use needs a licence from Illumina, Inc. This is what SpliceAI's repository says\n"
    "(github.com/Illumina/SpliceAI, spliceai/models/LICENSE); the install itself holds no licence of the models.\n"
    "Full text: creativecommons.org/licenses/by-nc/4.0/legalcode",
)
KERAS_EPSILON = 1e-3
_SAYS = re.compile(r"CC[ -]BY[ -]NC|NonCommercial 4\.0")
_NETWORKS = tuple(f"spliceai{number}.h5" for number in range(1, 6))
_KINDS = ("InputLayer", "Conv1D", "BatchNormalization", "Activation", "Add", "Cropping1D")
_FIX = "give SpliceAI's own files; other networks need an importer of their own"
_NORM_WEIGHTS = {"weight": "gamma", "bias": "beta", "mean": "moving_mean", "variance": "moving_variance"}


def find(folder: Path) -> Found:
    """SpliceAI's files in an install: its package folder, the `models` folder in it, or site-packages.

    Raises:
        InputError: no such files, or some of the five are missing.
    """
    if not folder.is_dir():
        raise InputError("no such folder", where=str(folder), fix="give the folder of your SpliceAI install")
    held = first_with((folder, folder / "models", folder / ORIGIN.lower() / "models"), "*.h5")
    if held is None:
        what = "holds no .h5 files, nor does 'models' or 'spliceai/models' in it"
        raise InputError(what, where=str(folder), fix="give the folder that holds spliceai1.h5 to spliceai5.h5")
    place, files = held
    own = [path for path in files if path.name in _NETWORKS]
    missing = sorted(set(_NETWORKS) - {path.name for path in own})
    if own and missing:
        raise InputError(f"{missing[0]} is missing", where=str(place), fix="install SpliceAI again")
    package = place.resolve().parent
    version, metadata = dist_info(package.parent, "spliceai")
    texts = [package]
    if metadata is not None:
        texts += [metadata, metadata / "licenses", metadata / "METADATA", metadata / "PKG-INFO"]
    licence = read_licence(place, texts, known=LICENCE, says=_SAYS)
    return Found(ORIGIN, version, tuple(own or files), licence)


def convert(found: Found, output: Path) -> ModelInfo:
    """Write the model folder. Call it once the user has accepted the licence: the folder records that.

    Raises:
        InputError: a file is damaged, or holds another network than SpliceAI's; names the layer.
        SystemFailure: the disk refuses.
    """
    contents = [read_file(path) for path in found.files]
    pairs = zip(found.files, contents, strict=True)
    members = [read_network(read_layers(content, where=str(path)), where=str(path)) for path, content in pairs]
    check_members(found.files, [member.params for member in members])
    context = DilatedConv.context_bp(members[0].params)
    name = "spliceai" if context == 10000 else f"spliceai-{context}nt"
    text = _card(found, context, len(members))
    return write_folder(output, members, found, contents=contents, card=card_of(found, name, text, score_tag=ORIGIN))


def read_network(layers: Sequence[Layer], *, where: str) -> DilatedConv:
    """The network that Keras' layers describe.

    Args:
        layers: of one file, in any order.
        where: the file, for errors.

    Raises:
        InputError: a layer that SpliceAI does not have, is missing, or is set or wired otherwise; names it.
    """
    for layer in layers:
        if layer.kind not in _KINDS:
            what = f"layer {layer.name[:100]!r} of kind {layer.kind[:100]!r} is no part of SpliceAI's network"
            raise InputError(what, where=where, fix=_FIX)
    convs, norms = _of_kind(layers, "Conv1D"), _of_kind(layers, "BatchNormalization")
    groups, rest = divmod(len(convs) - 3, 9)
    if rest or groups not in FLANK_OF_GROUPS or len(norms) != 8 * groups:
        sizes = ", ".join(f"{9 * count + 3} and {8 * count}" for count in FLANK_OF_GROUPS)
        what = f"{len(convs)} convolutions and {len(norms)} normalisations; SpliceAI's sizes have {sizes}"
        raise InputError(what, where=where, fix=_FIX)
    params = spliceai_params(FLANK_OF_GROUPS[groups])
    _check_settings(layers, params, where)
    if all(layer.inputs is not None for layer in layers):
        _check_wiring(layers, groups, where)
    params = replace(params, norm_epsilon=_epsilon(norms, where))
    tensors: dict[str, Origin] = {}
    for name, layer in zip(_conv_names(groups), convs, strict=True):
        tensors |= _conv_tensors(name, layer, where)
    for number, layer in enumerate(norms):
        tensors |= _norm_tensors(f"blocks.{number // 2}.norm{number % 2 + 1}", layer, where)
    return build_network(params, tensors, where=where)


def _of_kind(layers: Sequence[Layer], kind: str) -> list[Layer]:
    return sorted((layer for layer in layers if layer.kind == kind), key=lambda layer: (layer.number, layer.name))


def _conv_names(groups: int) -> Iterator[str]:
    """Our names of the convolutions, in the order in which Keras counted them."""
    yield from ("stem", "skips.0")
    for group in range(groups):
        yield from (f"blocks.{4 * group + block}.conv{half}" for block in range(4) for half in (1, 2))
        yield f"skips.{group + 1}"
    yield "final"


def _conv_tensors(name: str, layer: Layer, where: str) -> dict[str, Origin]:
    _check_weights(layer, {"kernel", "bias"}, where)
    kernel = layer.weights["kernel"]
    if kernel.ndim != 3:
        raise InputError(f"layer {layer.name!r}: kernel has {kernel.ndim} dimensions, not 3", where=where, fix=_FIX)
    # Both count correlation, not mirrored convolution: the kernel is only turned round, never flipped.
    weight = np.transpose(kernel, (2, 1, 0))[:, :, None, :]
    return {
        f"{name}.weight": Origin(f"layer {layer.name!r}: kernel", weight),
        f"{name}.bias": Origin(f"layer {layer.name!r}: bias", layer.weights["bias"]),
    }


def _norm_tensors(name: str, layer: Layer, where: str) -> dict[str, Origin]:
    _check_weights(layer, set(_NORM_WEIGHTS.values()), where)
    return {
        f"{name}.{ours}": Origin(f"layer {layer.name!r}: {theirs}", layer.weights[theirs])
        for ours, theirs in _NORM_WEIGHTS.items()
    }


def _check_weights(layer: Layer, wanted: set[str], where: str) -> None:
    if set(layer.weights) != wanted:
        what = f"layer {layer.name!r} holds {sorted(layer.weights)}, expected {sorted(wanted)}"
        raise InputError(what, where=where, fix=_FIX)


def _epsilon(norms: Sequence[Layer], where: str) -> float:
    """What the normalisations add to the variance; Keras' default where the file holds weights alone."""
    values = [layer.config.get("epsilon", KERAS_EPSILON) for layer in norms]
    for layer, value in zip(norms, values, strict=True):
        if type(value) is not float or not 0 < value < 1 or value != values[0]:
            what = f"layer {layer.name!r}: epsilon {value!r}, expected one number between 0 and 1 for all"
            raise InputError(what, where=where, fix=_FIX)
    return float(values[0])


def _check_settings(layers: Sequence[Layer], params: DilatedConvParams, where: str) -> None:
    """Compare each layer's configuration, where the file holds one, with what SpliceAI's network has."""
    dilations = [dilation for _, dilation in params.blocks]
    for layer, name in zip(_of_kind(layers, "Conv1D"), _conv_names(len(dilations) // 4), strict=True):
        block = int(name.split(".")[1]) if name.startswith("blocks") else None
        wanted = {
            "dilation_rate": 1 if block is None else dilations[block],
            "strides": 1,
            "activation": params.activation if name == "final" else "linear",
            "padding": "same",
            "groups": 1,
            "data_format": "channels_last",
        }
        if block is None:
            del wanted["padding"]  # of no effect at width 1
        _compare(layer, wanted, where)
    for layer in layers:
        if layer.kind == "Activation":
            _compare(layer, {"activation": params.nonlinearity}, where)
        elif layer.kind == "BatchNormalization":
            _compare(layer, {"axis": (-1, 2)}, where)
        elif layer.kind == "Cropping1D":
            _compare(layer, {"cropping": DilatedConv.context_bp(params) // 2}, where)
        if layer.kind not in ("Conv1D", "BatchNormalization"):
            _check_weights(layer, set(), where)


def _compare(layer: Layer, wanted: dict[str, Any], where: str) -> None:
    for key, value in wanted.items():
        if key not in layer.config:
            continue
        found = layer.config[key]
        # Keras writes one number for each axis or end: [1], [40, 40].
        each = found if isinstance(found, list) and found else [found]
        allowed = value if isinstance(value, tuple) else (value,)
        if not all(type(one) in (int, str) and one in allowed for one in each):
            what = f"layer {layer.name!r}: {key} is {found!r}, SpliceAI's network has {allowed[-1]!r}"
            raise InputError(what[:500], where=where, fix=_FIX)


def _check_wiring(layers: Sequence[Layer], groups: int, where: str) -> None:
    """Every layer reads the layers that SpliceAI's does."""
    wanted = _wiring(layers, groups, where)
    for layer in layers:
        if layer.inputs is None or sorted(layer.inputs) != sorted(wanted[layer.name]):
            what = f"layer {layer.name!r} reads {list(layer.inputs or ())}, SpliceAI's reads {list(wanted[layer.name])}"
            raise InputError(what[:500], where=where, fix=_FIX)


def _wiring(layers: Sequence[Layer], groups: int, where: str) -> dict[str, tuple[str, ...]]:
    """Layer name to the names of what it reads, from the order of the numbers in the names."""
    kinds = {kind: _of_kind(layers, kind) for kind in _KINDS}
    counts = {"InputLayer": 1, "Activation": 8 * groups, "Add": 5 * groups, "Cropping1D": 1}
    for kind, count in counts.items():
        if len(kinds[kind]) != count:
            what = f"{len(kinds[kind])} layers of kind {kind}, SpliceAI's network of this size has {count}"
            raise InputError(what, where=where, fix=_FIX)
    rest = {kind: iter(found) for kind, found in kinds.items()}
    reads: dict[str, tuple[str, ...]] = {}

    def following(kind: str, *sources: str) -> str:
        layer = next(rest[kind])
        reads[layer.name] = sources
        return layer.name

    trunk = following("Conv1D", following("InputLayer"))
    skip = following("Conv1D", trunk)
    for _ in range(groups):
        for _ in range(4):
            x = trunk
            for _ in range(2):
                x = following("Conv1D", following("Activation", following("BatchNormalization", x)))
            trunk = following("Add", x, trunk)
        skip = following("Add", skip, following("Conv1D", trunk))
    following("Conv1D", following("Cropping1D", skip))
    return reads


def _card(found: Found, context: int, members: int) -> str:
    networks = "1 network" if members == 1 else f"{members} networks, averaged after the softmax"
    return f"""# SpliceAI, {context:,} nt

The networks of Jaganathan et al. 2019, "Predicting splicing from primary sequence with deep learning", Cell 176:535,
imported from a user's own install of SpliceAI ({found.version}).
{networks[0].upper() + networks[1:]}. Only the storage changed; every weight is the number that was in the file.

Licence of the weights: {found.licence.name}. Accepted by whoever imported them; its words, and the sha256 of each file
read, stand in replisome.json under `extra`. Passing this folder on is passing on the weights.

Head `splice`: for each base the probability that it is no splice site, the first base of an exon (acceptor) or the last
(donor), on the strand given. Context {context:,} bases, half on each side.

Research use only; not a medical device.
"""
