"""A network compiled for training (torch.compile), and held against itself uncompiled where the compiler begins anew.

Shapes are compiled one by one. A compiler told that lengths vary makes one program for all, but of tensors kept for the
backward pass torch 2.13 takes some strides from the length it saw first, the mask of attention among them, and stops at
the next length. So that shapes are few, sequences are padded on to the next of four lengths an octave, which changes no
output but for rounding.

Shape letters: B batch, A alphabet, L length, K outputs.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.errors import InputError, SystemFailure
from engine.training._sharding import whole
from engine.training._team import Team

MOST_SHAPES = 32
"""So many are compiled; further ones run as they are, of which torch warns."""
_SHORTEST = 16
# What a compiler makes wrong is wrong by much; rounding is far below, also where it decides between two maxima.
_ROUNDING = {"fp32": 0.01, "bf16": 0.1}
_OFF = "set execution.compile to false and run again: it goes on from its last checkpoint"


def check_compiler(device: torch.device) -> None:
    """Refuse to compile where nothing compiles.

    Raises:
        InputError: on the CPU there is no C++ compiler, or on CUDA no Triton.
    """
    if device.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX") or "g++", "clang++"))):
        what, fix = "there is no C++ compiler on this machine", "install g++, or set execution.compile to false"
        raise InputError(what, where="key 'execution.compile'", fix=fix)
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        what, fix = "the package triton is not installed", "pip install triton, or set execution.compile to false"
        raise InputError(what, where="key 'execution.compile'", fix=fix)


class Compiled(nn.Module):
    """A module of logits that is compiled for each shape it meets.

    Args:
        plain: (tensors of a batch) -> logits; see Kind.tensors.
        kind: "images", or something made of sequences, each a tensor followed by its lengths or None.
    """

    def __init__(self, plain: nn.Module, *, kind: str) -> None:
        super().__init__()
        import torch._dynamo.config as settings

        torch._dynamo.reset()  # programs of former networks count against the limit
        settings.recompile_limit = max(settings.recompile_limit, MOST_SHAPES)
        self.plain = plain
        self._of_sequences = kind != "images"
        self._varies = False
        self._seen: set[tuple[Any, ...]] = set()
        self._is_fresh = False
        plain.compile(dynamic=False)

    def forward(self, *tensors: Any) -> Tensor:
        """Logits (B, K), or (B, K, L) for every position."""
        length = tensors[0].shape[-1]
        if self._of_sequences:
            tensors = self._padded(tensors)
        shapes = tuple(None if one is None else tuple(one.shape) for one in tensors)
        self._is_fresh |= shapes not in self._seen
        self._seen.add(shapes)
        logits: Tensor = self.plain(*tensors)
        return logits[..., :length] if self._of_sequences and logits.dim() == 3 else logits

    def took_a_new_shape(self) -> bool:
        """Whether it did since this was asked last."""
        found, self._is_fresh = self._is_fresh, False
        return found

    def _padded(self, tensors: Sequence[Any]) -> tuple[Any, ...]:
        """Sequences of one length stay as they are until others have been met."""
        self._varies |= any(one is not None for one in tensors[1::2])
        if not self._varies:
            return tuple(tensors)
        made: list[Any] = []
        for x_BAL, lengths_B in zip(tensors[::2], tensors[1::2], strict=True):
            length = x_BAL.shape[-1]
            if lengths_B is None:
                lengths_B = torch.full(x_BAL.shape[:1], length, device=x_BAL.device)  # noqa: PLW2901
            made += [F.pad(x_BAL, (0, padded_length(length) - length)), lengths_B]
        return tuple(made)


def padded_length(length: int) -> int:
    """The next of 16, 20, 24, 28, 32, 40, 48, ...: four an octave."""
    if length <= _SHORTEST:
        return _SHORTEST
    step = 1 << ((length - 1).bit_length() - 3)
    return -(-length // step) * step


def uncompiled() -> Any:
    """Within it whatever is compiled runs as it is."""
    return torch.compiler.set_stance("force_eager")


@contextmanager
def compiler_told() -> Iterator[None]:
    """Turn what the compiler raises into a sentence.

    Raises:
        SystemFailure: it does not compile, or what it made does not run.
    """
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        what = f"torch.compile does not take the network: {' '.join(str(error).split())[:200]}"
        raise SystemFailure(what, where="key 'execution.compile'", fix=_OFF) from error


def gradients(model: nn.Module) -> list[Tensor | None]:
    """Of each parameter, or of its share, taken from it."""
    found = [one.grad for one in model.parameters()]
    for one in model.parameters():
        one.grad = None
    return found


def give_gradients(model: nn.Module, found: Sequence[Tensor | None]) -> None:
    """Put them back."""
    for one, gradient in zip(model.parameters(), found, strict=True):
        one.grad = gradient


def check_same(
    compiled: tuple[float, Sequence[Tensor | None]],
    plain: tuple[float, Sequence[Tensor | None]],
    *,
    team: Team,
    precision: str,
    place: str,
) -> None:
    """Hold the mean loss and the gradients of a step against those of the network as it is; all workers at once.

    Raises:
        SystemFailure: they differ by more than rounding.
    """
    most = _ROUNDING[precision]
    squares = torch.zeros(2, dtype=torch.float64, device=team.device)
    for one, other in zip(compiled[1], plain[1], strict=True):
        got, wanted = (torch.zeros(()) if grad is None else whole(grad).double() for grad in (one, other))
        squares[0] += (got.to(team.device) - wanted.to(team.device)).square().sum()
        squares[1] += wanted.to(team.device).square().sum()
    apart, length = team.total(squares).sqrt().tolist()
    far = abs(compiled[0] - plain[0])
    # Written so that what is no number is no rounding; where the plain network's are none, the step's own check speaks.
    is_same = apart <= most * length + 1e-9 and far <= most * (abs(plain[0]) + 1e-3)
    if is_same or not torch.isfinite(torch.tensor([length, plain[0]])).all():
        return
    what = (
        f"at {place} the compiled network gives loss {compiled[0]:.6g} and gradients that are {apart:.3g} away, where "
        f"the plain one gives {plain[0]:.6g} and gradients of length {length:.3g}"
    )
    raise SystemFailure(what, where="key 'execution.compile'", fix=_OFF)
