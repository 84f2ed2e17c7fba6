"""OpenSpliceAI's networks, read from PyTorch state dicts (Chao et al. 2025, eLife 14:RP107454).

SpliceAI's architecture trained anew, with two differences: LeakyReLU of slope 0.1 between the convolutions, and
PyTorch's 1e-5 added to the variance in normalisation. Only tensors are read (`_torch_archive`). The file does not hold
the dilations: they are those of the published size, which its tensors show.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

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
    names_of,
    read_file,
    read_licence,
    too_many,
    write_folder,
)
from engine.models._info import MAX_MEMBERS, ModelInfo
from engine.models._torch_archive import read_tensors
from engine.models.dilated_conv import DilatedConv, spliceai_params

ORIGIN = "OpenSpliceAI"
LICENCE = Licence(
    "GPL-3.0",
    "OpenSpliceAI is published under the GNU General Public License, version 3, as its repository says\n"
    "(github.com/Kuanhao-Chao/OpenSpliceAI); no licence lies beside these files.\n"
    "Full text: gnu.org/licenses/gpl-3.0.txt",
)
TORCH_EPSILON = 1e-5
_SAYS = re.compile(r"GNU GENERAL PUBLIC LICENSE\s+Version 3|GPL-?v?3", re.IGNORECASE)
_FIX = "give the plain state dicts that OpenSpliceAI publishes or trains"
_NORM_TENSORS = {"weight": "weight", "bias": "bias", "mean": "running_mean", "variance": "running_var"}
# openspliceai train writes model_0.pt, model_1.pt, ... and model_best.pt.
_STAGE = re.compile(r"^model_\d+$|(?:^|[^a-z])(?:best|last|latest|epoch|checkpoint|ckpt)(?:[^a-z]|$)", re.IGNORECASE)
_UNIT = re.compile(r"residual_units\.(\d{1,4})\.")


def find(folder: Path) -> Found:
    """The .pt files of a folder such as openspliceai-mane/10000nt, one network each.

    Raises:
        InputError: no such files, too many, or several stages of one training, whose mean is no ensemble.
    """
    if not folder.is_dir():
        raise InputError("no such folder", where=str(folder), fix="give a folder with OpenSpliceAI's .pt files")
    held = first_with((folder,), "*.pt")
    if held is None:
        raise InputError("holds no .pt files", where=str(folder), fix="give a folder of networks, such as .../10000nt")
    files = held[1]
    if len(files) > MAX_MEMBERS:
        raise too_many(files)
    _check_ensemble(files)
    parent = folder.resolve().parent
    version, _ = dist_info(parent, "openspliceai")
    licence = read_licence(folder, [parent], known=LICENCE, says=_SAYS)
    return Found(ORIGIN, version, tuple(files), licence)


def _check_ensemble(files: Sequence[Path]) -> None:
    """Refuse what a training leaves behind: a file for each epoch, and one for the best of them."""
    stages = [path for path in files if _STAGE.search(path.stem)]
    if len(files) > 1 and stages:
        raise InputError(
            f"{len(files)} networks ({names_of(files)}), of which {names_of(stages[:1])} is by its name a stage of a "
            "training: each would become a member of one ensemble",
            where=str(files[0].parent),
            fix="copy what belongs together into a folder of its own: one network, such as model_best.pt, or those of "
            "several trainings, under names such as model_10000nt_rs10.pt",
        )


def convert(found: Found, output: Path) -> ModelInfo:
    """Write the model folder. Call it once the user has accepted the licence: the folder records that.

    Raises:
        InputError: a file is damaged, holds more than tensors, or another network than OpenSpliceAI's.
        SystemFailure: the disk refuses.
    """
    contents = [read_file(path) for path in found.files]
    pairs = zip(found.files, contents, strict=True)
    members = [read_network(read_tensors(content, where=str(path)), where=str(path)) for path, content in pairs]
    check_members(found.files, [member.params for member in members])
    context = DilatedConv.context_bp(members[0].params)
    text = _card(found, context, len(members))
    return write_folder(
        output, members, found, contents=contents, card=card_of(found, f"openspliceai-{context}nt", text)
    )


def read_network(tensors: Mapping[str, np.ndarray], *, where: str) -> DilatedConv:
    """The network of a state dict.

    Args:
        tensors: by the names that OpenSpliceAI gives them.
        where: the file, for errors.

    Raises:
        InputError: a tensor is missing, left over or of another shape; names it.
    """
    units = [int(unit[1]) for unit in map(_UNIT.match, tensors) if unit]
    groups, rest = divmod(max(units, default=-1) + 1, 5)
    if rest or groups not in FLANK_OF_GROUPS:
        sizes = ", ".join(str(5 * count) for count in FLANK_OF_GROUPS)
        what = f"{max(units, default=-1) + 1} residual and skip units; OpenSpliceAI's sizes have {sizes}"
        raise InputError(what, where=where, fix=_FIX)
    names = _names(groups)
    missing = sorted(set(names.values()) - set(tensors))
    if missing:
        raise InputError(f"tensor {missing[0]!r} is missing", where=where, fix=_FIX)
    extra = sorted(name for name in set(tensors) - set(names.values()) if not name.endswith(".num_batches_tracked"))
    if extra:
        raise InputError(f"tensor {extra[0][:100]!r} is no part of OpenSpliceAI's network", where=where, fix=_FIX)
    params = replace(spliceai_params(FLANK_OF_GROUPS[groups]), norm_epsilon=TORCH_EPSILON, nonlinearity="leaky_relu")
    made = {ours: Origin(f"tensor {theirs!r}", _ours(tensors[theirs])) for ours, theirs in names.items()}
    return build_network(params, made, where=where)


def _ours(array: np.ndarray) -> np.ndarray:
    """Kernels gain the axis of height 1."""
    return array[:, :, None, :] if array.ndim == 3 else array


def _names(groups: int) -> dict[str, str]:
    """Our name of each tensor to OpenSpliceAI's; its units count four residual ones and a skip for each group."""
    convs = {"stem": "initial_conv", "skips.0": "initial_skip.conv", "final": "final_conv"}
    norms = {}
    for group in range(groups):
        for inner in range(4):
            block, unit = f"blocks.{4 * group + inner}", f"residual_units.{5 * group + inner}"
            for half in (1, 2):
                convs[f"{block}.conv{half}"] = f"{unit}.conv{half}"
                norms[f"{block}.norm{half}"] = f"{unit}.batchnorm{half}"
        convs[f"skips.{group + 1}"] = f"residual_units.{5 * group + 4}.conv"
    return {
        **{f"{ours}.{one}": f"{theirs}.{one}" for ours, theirs in convs.items() for one in ("weight", "bias")},
        **{f"{ours}.{a}": f"{theirs}.{b}" for ours, theirs in norms.items() for a, b in _NORM_TENSORS.items()},
    }


def _card(found: Found, context: int, members: int) -> str:
    networks = "1 network" if members == 1 else f"{members} networks, averaged after the softmax"
    return f"""# OpenSpliceAI, {context:,} nt

Networks trained with OpenSpliceAI (Chao et al. 2025, eLife 14:RP107454), imported from a user's own files.
{networks[0].upper() + networks[1:]}. Only the storage changed; every weight is the number that was in the file.

Licence of the weights: {found.licence.name}. Accepted by whoever imported them; its words, and the sha256 of
each file read, stand in replisome.json under `extra`.

Head `splice`: for each base the probability that it is no splice site, the first base of an exon (acceptor) or the last
(donor), on the strand given. Context {context:,} bases, half on each side. Scores are not SpliceAI's: a threshold of
one does not hold for the other.

Research use only; not a medical device.
"""
