"""Checkpoints: tensors as safetensors, everything else as JSON in the same file's header; never a pickle.

One file per checkpoint, written aside and renamed, so that tensors and state are never of two moments. The header keeps
the CRC-32C of both: a flipped bit is never trained on.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from engine.errors import DataError
from engine.storage import faults
from engine.storage.store import clear_errors
from engine.training._sharding import share_like, whole

LAST, BEST = "last.safetensors", "best.safetensors"
_STATE, _CRC = "replisome.state", "replisome.crc32c"
_MODEL, _OPTIMISER = "model.", "optimiser."


@dataclass(frozen=True)
class Checkpoint:
    """Attributes:
    tensors: by name, on the CPU.
    state: plain values.
    """

    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write or replace in one step.

    Raises:
        SystemFailure: the disk refuses.
    """
    tensors = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in checkpoint.tensors.items()}
    text = json.dumps(checkpoint.state, allow_nan=False)
    aside = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    with clear_errors(str(path)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, aside, metadata={_STATE: text, _CRC: _checksum(tensors, text)})
            with aside.open("rb+") as stream:
                os.fsync(stream.fileno())
            faults.reach("checkpoint")
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


def read(path: Path) -> Checkpoint | None:
    """None where there is none.

    Raises:
        DataError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            text, crc = header[_STATE], header[_CRC]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if _checksum(tensors, text) != crc:
            raise ValueError("its checksum differs")
        return Checkpoint(tensors, json.loads(text))
    except (SafetensorError, KeyError, ValueError) as error:
        raise DataError(
            f"the checkpoint does not read ({error})", where=str(path), fix="delete it to begin at the start"
        ) from error


def read_state(path: Path) -> dict[str, Any]:
    """The state alone, unchecked, for who wants to know early where training stands; empty where there is none."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(json.loads((file.metadata() or {})[_STATE]))
    except (SafetensorError, OSError, KeyError, ValueError, TypeError):
        return {}  # who reads it to go on by it will say what is wrong


def _checksum(tensors: Mapping[str, Tensor], state: str) -> str:
    """Over names, types, shapes and bytes of the tensors, and the state."""
    crc = google_crc32c.value(state.encode())
    for name, tensor in sorted(tensors.items()):
        crc = google_crc32c.extend(crc, f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        crc = google_crc32c.extend(crc, tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"{crc:08x}"


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The model's state under names that tell it from the optimiser's; what is frozen stays as it began."""
    frozen = _frozen(model)
    return {_MODEL + name: whole(tensor) for name, tensor in model.state_dict().items() if name not in frozen}


def load_model(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Give a model, begun as the one of the checkpoint was, its tensors."""
    found = {name.removeprefix(_MODEL): one for name, one in checkpoint.tensors.items() if name.startswith(_MODEL)}
    frozen = _frozen(model)
    model.load_state_dict({**{name: one for name, one in model.state_dict().items() if name in frozen}, **found})


def _frozen(model: nn.Module) -> set[str]:
    return {name for name, one in model.named_parameters() if not one.requires_grad}


def optimiser_tensors(optimiser: Optimizer) -> dict[str, Tensor]:
    """The optimiser's state, `optimiser.<parameter>.<what>`; its settings follow from the recipe."""
    state = optimiser.state_dict()["state"]
    return {
        f"{_OPTIMISER}{number}.{name}": whole(value)
        for number, values in state.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def load_optimiser(optimiser: Optimizer, checkpoint: Checkpoint) -> None:
    """Give an optimiser over the same parameters the state of a checkpoint."""
    owners = [one for group in optimiser.param_groups for one in group["params"]]
    found: dict[int, dict[str, Tensor]] = {}
    for name, tensor in checkpoint.tensors.items():
        if name.startswith(_OPTIMISER):
            number, what = name.removeprefix(_OPTIMISER).split(".", 1)
            found.setdefault(int(number), {})[what] = share_like(torch.clone(tensor), owners[int(number)])
    optimiser.load_state_dict({**optimiser.state_dict(), "state": found})
