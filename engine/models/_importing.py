"""What the importers share: files read once, licences found and recorded, tensors checked, the folder written.

An importer turns the files of the user's own install into one of our model folders. It has two steps, with the user's
word between them: ``find`` says what is there and under which licence, ``convert`` writes the folder. Equal files give
equal bytes.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.errors import InputError
from engine.models._folder import ModelCard, save_model_folder
from engine.models._info import MAX_MEMBERS, ModelInfo
from engine.models.dilated_conv import DilatedConv, DilatedConvParams

MAX_FILE_BYTES = 64 << 20
MAX_LICENCE_BYTES = 1 << 20
_NAMES_SHOWN = 12
# Groups of four residual blocks -> context in bases, of the published sizes.
FLANK_OF_GROUPS = {1: 80, 2: 400, 3: 2000, 4: 10000}
_LICENCE_NAME = re.compile(r"(LICEN[CS]E|COPYING)(\.txt|\.md)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Licence:
    """What a network's weights may be used for.

    Attributes:
        name: short name.
        text: its words in the install, or what is known of it where the install has none.
        path: where they were read; empty where the install has none.
    """

    name: str
    text: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What an install holds, before anything of it is converted.

    Attributes:
        origin: whose networks they are.
        version: the install's own, or "unknown".
        files: one file per network, in order.
        licence: what the user has to accept.
    """

    origin: str
    version: str
    files: tuple[Path, ...]
    licence: Licence


@dataclass(frozen=True, slots=True)
class Origin:
    """A tensor in our layout, and what its file calls it."""

    name: str
    array: np.ndarray


def read_file(path: Path) -> bytes:
    """The whole file: what is hashed is what is parsed.

    Raises:
        InputError: it cannot be read or is larger than any network here.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), fix="check its rights") from error
    if len(content) > MAX_FILE_BYTES:
        what = f"more than {MAX_FILE_BYTES >> 20} MiB, which no network of this kind has"
        raise InputError(what, where=str(path), fix="give the folder of the published networks")
    return content


def first_with(places: Iterable[Path], pattern: str) -> tuple[Path, list[Path]] | None:
    """The first folder that holds files of this pattern, and the files in the order of the numbers in their names."""
    for place in places:
        files = [path for path in place.glob(pattern) if path.is_file()] if place.is_dir() else []
        if files:
            return place, sorted(files, key=lambda path: (_natural(path.stem), path.name))
    return None


def _natural(text: str) -> list[tuple[int, str]]:
    """Sorts x2 before x10."""
    return [(int(part[:18]), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]


def read_licence(beside: Path, elsewhere: Sequence[Path], *, known: Licence, says: re.Pattern[str]) -> Licence:
    """The licence of the weights in a folder.

    Args:
        beside: the weights' folder: a licence file in it is theirs, whatever it says.
        elsewhere: files and folders of the install; they count only where they speak of the weights.
        known: as published: whole where nothing is found, its name where what is found matches `says`.
        says: words by which the known licence is recognised.
    """
    for path in _licence_files(beside):
        text = _text(path)
        first_line = next((line.strip() for line in text.splitlines() if line.strip()), "no words")
        return Licence(known.name if says.search(text) else first_line[:100], text, str(path))
    for place in elsewhere:
        for path in _licence_files(place) if place.is_dir() else [place]:
            for paragraph in re.split(r"\n\s*\n", _text(path)):
                if says.search(paragraph):
                    return Licence(known.name, paragraph.strip(), str(path))
    return known


def _licence_files(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("*") if _LICENCE_NAME.fullmatch(path.name)]
    return sorted(path for path in found if path.is_file())


def _text(path: Path) -> str:
    """Text of a small file; empty where it is none."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_LICENCE_BYTES + 1)
    except OSError:
        return ""
    return content.decode("utf-8", errors="replace") if len(content) <= MAX_LICENCE_BYTES else ""


def dist_info(site: Path, package: str) -> tuple[str, Path | None]:
    """(version, folder) of an installed package's metadata; ("unknown", None) where there is none, or more than one."""
    found = [path for path in site.glob(f"{package}-*-info") if path.is_dir()] if site.is_dir() else []
    if len(found) != 1:
        return "unknown", None
    return found[0].name[len(package) + 1 :].removesuffix("-info").rpartition(".")[0].partition("-")[0], found[0]


def build_network(params: DilatedConvParams, tensors: Mapping[str, Origin], *, where: str) -> DilatedConv:
    """A network from tensors in our layout.

    Args:
        params: its shape.
        tensors: one for each tensor of the architecture.
        where: the file, for errors.

    Raises:
        InputError: a tensor of another shape, or with values that are no finite float32; names it as the file does.
    """
    with torch.device("meta"):
        model = DilatedConv(params)
    made = {}
    for name, wanted in model.state_dict().items():
        made[name] = torch.from_numpy(_checked(tensors[name], tuple(wanted.shape), where))
    model.load_state_dict(made, assign=True)
    return model.eval()


def _checked(origin: Origin, shape: tuple[int, ...], where: str) -> np.ndarray:
    if origin.array.shape != shape:
        what = f"{origin.name} is {_size(origin.array.shape)}, a network of this size has {_size(shape)}"
        raise InputError(what, where=where, fix="give SpliceAI's published architecture")
    with np.errstate(over="ignore"):
        values = np.array(origin.array, dtype=np.float32, order="C")
    if not np.isfinite(values).all():
        raise InputError(f"{origin.name} holds values that are no finite numbers", where=where, fix="fetch it again")
    return values


def _size(shape: tuple[int, ...]) -> str:
    """A convolution's as out x in x width."""
    return " x ".join(str(size) for size in (shape if len(shape) != 4 else (shape[0], shape[1], shape[3])))


def check_members(paths: Sequence[Path], params: Sequence[DilatedConvParams]) -> None:
    """Raise InputError unless the networks are few enough and all of one shape."""
    if len(paths) > MAX_MEMBERS:
        raise too_many(paths)
    for path, other in zip(paths, params, strict=True):
        if other != params[0]:
            what = f"another size or setting than {paths[0].name}"
            raise InputError(what, where=str(path), fix="give a folder of networks that belong together")


def too_many(paths: Sequence[Path]) -> InputError:
    """The refusal of a folder with more networks than a model may have."""
    return InputError(
        f"{len(paths)} networks ({names_of(paths)}), allowed are {MAX_MEMBERS}",
        where=str(paths[0].parent),
        fix="give a folder with the networks of one ensemble and no others",
    )


def names_of(paths: Sequence[Path]) -> str:
    """File names for a message, the first few of many."""
    shown = ", ".join(path.name[:100] for path in paths[:_NAMES_SHOWN])
    return shown if len(paths) <= _NAMES_SHOWN else f"{shown} and {len(paths) - _NAMES_SHOWN} more"


def check_output(output: Path) -> None:
    """Raise InputError unless a folder can be made there; an empty one is fine."""
    if output.is_dir() and not output.is_symlink() and os.access(output, os.R_OK) and not any(output.iterdir()):
        return
    if output.exists() or output.is_symlink():
        raise InputError("exists and is not an empty folder", where=str(output), fix="give a new path with -o")


def card_of(found: Found, name: str, text: str, *, score_tag: str = "") -> ModelCard:
    """What the folder says of itself; `text` is its README.md."""
    return ModelCard(name=name, version=found.version, licence=found.licence.name, text=text, score_tag=score_tag)


def write_folder(
    output: Path, members: Sequence[DilatedConv], found: Found, *, contents: Sequence[bytes], card: ModelCard
) -> ModelInfo:
    """Write the model folder of networks whose licence the user has accepted, and say in it that they did.

    Args:
        output: the folder to make; may exist empty.
        members: the networks.
        found: where they come from.
        contents: of each file, for its digest.
        card: from `card_of`; the record of files and licence is added here.

    Raises:
        InputError: the output exists and is not empty.
        SystemFailure: the disk refuses.
    """
    check_output(output)
    if output.is_dir():
        try:
            output.rmdir()
        except OSError as error:
            what = f"cannot be replaced: {error.strerror}"
            raise InputError(what, where=str(output), fix="give a new path with -o") from error
    card = replace(card, extra=_record(found, contents))
    return save_model_folder(output, members, architecture="dilated_conv", card=card)


def _record(found: Found, contents: Sequence[bytes]) -> dict[str, Any]:
    files = [
        {"file": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for path, content in zip(found.files, contents, strict=True)
    ]
    return {
        "imported": {"from": found.origin, "version": found.version, "files": files},
        "licence": {"name": found.licence.name, "accepted": True, "text": found.licence.text},
    }
