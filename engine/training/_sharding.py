"""Weights, gradients and moments held in shares by the workers (FSDP2: Zhao et al. 2023, arXiv 2304.11277).

A share is a DTensor; checkpoints and the model that is judged hold whole tensors, so a run may go on with any number of
workers, sharded or not. Whatever makes a tensor whole is done by all workers at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

FSDP2 = "fsdp2"


def sharded(module: nn.Module, layers: Iterable[nn.Module], *, device: str) -> nn.Module:
    """The module, its parameters now shares.

    Args:
        module: on the device, the same at every worker.
        layers: modules within it that are gathered one at a time; each must be called as a module.
        device: "cpu" or "cuda".
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device, (dist.get_world_size(),))
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)
    return module


def whole(tensor: Tensor) -> Tensor:
    """A tensor with the shares of all workers; one that is no share as it is."""
    if not isinstance(tensor, DTensor):
        return tensor
    found: Tensor = tensor.full_tensor()
    return found


def share_like(tensor: Tensor, like: Any) -> Tensor:
    """The share of a whole tensor, known to every worker, that goes with a parameter's own."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    made: Tensor = distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    return made
