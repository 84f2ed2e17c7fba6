"""Model folders written whole, and their networks loaded onto a device."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from engine import registry
from engine.errors import InputError, SystemFailure
from engine.models._info import (
    CARD_NAME,
    MAX_MEMBERS,
    SPEC_NAME,
    HeadInfo,
    ModelInfo,
    member_name,
    open_model,
    spec_of,
)
from engine.models._safetensors import TensorHeader, file_sha256, read_header

_FETCH = "fetch the model again"
_DTYPE_NAMES = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class ModelCard:
    """What a model folder says beside its tensors; see ModelInfo for the fields.

    Attributes:
        text: README.md, in Markdown.
    """

    name: str
    version: str
    licence: str
    text: str
    encoder: Mapping[str, Any] = field(default_factory=lambda: {"name": "one_hot", "params": {}})
    score_tag: str = ""
    training_data: Sequence[Any] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


def save_model_folder(
    path: str | Path, members: Sequence[nn.Module], *, architecture: str, card: ModelCard, overwrite: bool = False
) -> ModelInfo:
    """Write a model folder and open it again. The same networks and card give the same bytes.

    The folder appears whole or not at all: it is written beside its place and renamed.

    Args:
        path: the folder to make.
        members: the networks of the ensemble, of one architecture and equal ``params``.
        architecture: component name of the networks' class (its file's stem).
        card: everything else.
        overwrite: replace an existing model folder.

    Raises:
        InputError: the members differ in params or are of another class; the encoder does not fit; the folder exists.
        SystemFailure: the disk refuses.
    """
    target = Path(path)
    _check_members_alike(members, architecture)
    if target.exists() and not (overwrite and (target / SPEC_NAME).is_file()):
        raise InputError("the folder exists", where=str(target), fix="give another path, or overwrite a model folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise _disk_failure(target, error) from error
    try:
        _write(temporary, members, architecture, card)
        temporary.chmod(0o755)
        # Checked as a reader would before anything takes the name.
        check_members(open_model(temporary.resolve()))
        _replace(temporary, target)
    except OSError as error:
        raise _disk_failure(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return open_model(target.resolve())


def _disk_failure(target: Path, error: OSError) -> SystemFailure:
    return SystemFailure(
        f"cannot be written: {error.strerror}", where=str(target), fix="make room or give another path"
    )


def _check_members_alike(members: Sequence[nn.Module], architecture: str) -> None:
    cls = registry.component("models", architecture)
    if not 1 <= len(members) <= MAX_MEMBERS:
        raise InputError(f"{len(members)} members, allowed are 1 to {MAX_MEMBERS}", where=architecture)
    for number, member in enumerate(members):
        if type(member) is not cls or member.params != members[0].params:
            raise InputError(f"member {number} is of another class or other params than the first", where=architecture)


def _write(folder: Path, members: Sequence[nn.Module], architecture: str, card: ModelCard) -> None:
    params: Any = members[0].params
    cls: Any = type(members[0])
    files = []
    for number, member in enumerate(members):
        tensors = {name: _plain(tensor) for name, tensor in member.state_dict().items()}
        place = folder / member_name(number)
        place.write_bytes(save(tensors))
        files.append((place.name, place.stat().st_size, file_sha256(place)))
    info = ModelInfo(
        name=card.name,
        version=card.version,
        architecture=architecture,
        params=json.loads(json.dumps(dataclasses.asdict(params))),
        encoder=dict(card.encoder),
        heads=cls.heads(params),
        context_bp=cls.context_bp(params),
        members=len(members),
        licence=card.licence,
        score_tag=card.score_tag,
        training_data=list(card.training_data),
        metrics=dict(card.metrics),
        extra=dict(card.extra),
        files=tuple(files),
    )
    text = json.dumps(spec_of(info), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / SPEC_NAME).write_text(text + "\n", encoding="utf-8")
    (folder / CARD_NAME).write_text(card.text.rstrip("\n") + "\n", encoding="utf-8")


def _plain(tensor: Tensor) -> Tensor:
    """Of its own, contiguous in the plain order, on the CPU: the bytes do not depend on the memory format."""
    return tensor.detach().to("cpu").contiguous(memory_format=torch.contiguous_format).clone()


def _replace(temporary: Path, target: Path) -> None:
    if target.exists():
        aside = temporary.with_name(temporary.name + "-former")
        target.rename(aside)
        temporary.rename(target)
        shutil.rmtree(aside)
    else:
        temporary.rename(target)


def check_members(info: ModelInfo) -> None:
    """Check that params, heads, context, encoder and every tensor's name, shape and dtype are the architecture's.

    Reads headers only; no weights.

    Raises:
        InputError: naming what differs.
    """
    cls, params = _architecture(info)
    with torch.device("meta"):
        wanted = {
            name: TensorHeader(_DTYPE_NAMES[tensor.dtype], tuple(tensor.shape))
            for name, tensor in cls(params).state_dict().items()
        }
    for name, _, _ in info.files:
        _check_tensors(read_header(Path(info.path) / name), wanted, str(Path(info.path) / name))


def load_members(
    info: ModelInfo, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> list[nn.Module]:
    """The networks of the ensemble in order, in eval mode, without gradients, holding the file's tensors.

    The sha256 is checked again: the folder may lie on another machine than the one that opened it.

    Raises:
        InputError: a tensor is missing, extra, or of another shape or dtype; the file differs from the one opened.
    """
    check_members(info)
    return [_load(info, name, sha256).to(device=device, dtype=dtype) for name, _, sha256 in info.files]


def _load(info: ModelInfo, name: str, sha256: str) -> nn.Module:
    path = Path(info.path) / name
    if file_sha256(path) != sha256:
        raise InputError("the file is not the one the run was planned with", where=str(path), fix="restore it")
    cls, params = _architecture(info)
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise InputError(f"does not read: {error}", where=str(path), fix=_FETCH) from error
    member: nn.Module = cls(params)
    member.load_state_dict(tensors)
    return member.eval().requires_grad_(False)


def _architecture(info: ModelInfo) -> tuple[Any, Any]:
    """The class and its params, checked against what the folder says of heads, context and encoder."""
    where = str(Path(info.path) / SPEC_NAME)
    cls = registry.component("models", info.architecture)
    params = registry.build_params(cls, info.params, where=where)
    heads: dict[str, HeadInfo] = cls.heads(params)
    if heads != info.heads:
        what = f"heads {sorted(info.heads)} are not those its params give ({sorted(heads)}), or differ in detail"
        raise InputError(what, where=where, fix=_FETCH)
    if cls.context_bp(params) != info.context_bp:
        what = f"context_bp {info.context_bp}, its params give {cls.context_bp(params)}"
        raise InputError(what, where=where, fix=_FETCH)
    encoder = registry.component("encoders", info.encoder["name"])
    _check_encoder(cls, params, encoder(registry.build_params(encoder, info.encoder["params"], where=where)), info)
    return cls, params


def _check_encoder(cls: Any, params: Any, encoder: Any, info: ModelInfo) -> None:
    """The channels must fit; an architecture that reads more into them says so in a `check_encoder` of its own."""
    taken = cls.input_channels(params)
    what = f"encoder {info.encoder['name']!r} gives {encoder.channels} channels, the network takes {taken}"
    try:
        if encoder.channels != taken:
            raise ValueError(what)
        if hasattr(cls, "check_encoder"):
            cls.check_encoder(encoder)
    except ValueError as error:
        where = str(Path(info.path) / SPEC_NAME)
        raise InputError(str(error), where=where, fix="use the encoder the network was trained with") from error


def _check_tensors(found: Mapping[str, TensorHeader], wanted: Mapping[str, TensorHeader], where: str) -> None:
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise InputError(f"missing tensor {_listed(missing)}", where=where, fix=_FETCH)
    extra = sorted(set(found) - set(wanted))
    if extra:
        what = f"tensor {_listed(extra)} is not part of the architecture"
        raise InputError(what, where=where, fix=_FETCH)
    for name in sorted(wanted):
        if found[name].shape != wanted[name].shape:
            what = f"tensor {name!r} has shape {list(found[name].shape)}, the architecture {list(wanted[name].shape)}"
            raise InputError(what, where=where, fix=_FETCH)
        if found[name].dtype != wanted[name].dtype:
            what = f"tensor {name!r} is {found[name].dtype}, the architecture {wanted[name].dtype}"
            raise InputError(what, where=where, fix=_FETCH)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(repr(name[:200]) for name in names[:5]) + more
