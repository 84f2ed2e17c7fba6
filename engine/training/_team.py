"""The workers of one training run as each of them sees the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from engine.training._sharding import FSDP2, sharded


class Team:
    """Attributes:
    rank: this worker's number.
    size: how many there are; with one, nothing is sent.
    device: where this worker computes.
    """

    def __init__(self, *, rank: int = 0, size: int = 1, device: str = "cpu") -> None:
        self.rank = rank
        self.size = size
        self.device = torch.device(device)

    @property
    def is_first(self) -> bool:
        """Whether this worker writes the files."""
        return self.rank == 0

    def wrapped(self, module: nn.Module, *, sharding: str = "ddp", layers: Sequence[nn.Module] = ()) -> nn.Module:
        """A module whose gradients are averaged over the team with each backward pass.

        Args:
            module: the same at every worker.
            sharding: "ddp", or "fsdp2" to hold it in shares.
            layers: of it, gathered one at a time where it is held in shares.
        """
        if self.size == 1:
            return module
        if sharding == FSDP2:
            return sharded(module, layers, device=self.device.type)
        return DistributedDataParallel(module)

    def total(self, value: Tensor) -> Tensor:
        """Sum of a tensor over the team, in float64."""
        value = value.detach().double().to(self.device)
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def gathered(self, value: Any) -> list[Any]:
        """Every worker's plain value, by rank, at the first worker; empty elsewhere."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.gather_object(value, found if self.is_first else None)
        return found if self.is_first else []

    def told(self, value: Any) -> Any:
        """The first worker's plain value, at every worker."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]
