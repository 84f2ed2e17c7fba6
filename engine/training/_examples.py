"""A few validation images beside their truth and what the network makes of them, for TensorBoard.

Shape letters: B images, C channels, Y and X rows and columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.models._sequence import activate
from engine.training._recipe import Setup
from engine.training.kinds.images import ImageInputs

NUM_EXAMPLES = 4
MOST_PX = 256
_GAP = 4
_GOLDEN_ANGLE = 0.381966


def examples_image(model: Any, setup: Setup, device: torch.device) -> NDArray[np.uint8] | None:
    """(H, W, 3): a row for each of the first validation images, of a large one the upper left corner.

    Left the image, then truth and prediction: a colour for each object, or one for the class. None where samples are no
    images.
    """
    if setup.kind.name != "images":
        return None
    plan = setup.plan_of(setup.validation)
    batch = setup.loader_of(setup.validation).load(np.arange(min(NUM_EXAMPLES, plan.num_samples)), epoch=0)
    pixels_BCYX = np.ascontiguousarray(batch.inputs.pixels_BCYX[..., :MOST_PX, :MOST_PX])
    targets = batch.targets if batch.targets.ndim == 1 else batch.targets[..., :MOST_PX, :MOST_PX]
    with torch.inference_mode():
        logits = model.logits(*setup.kind.tensors(setup.build_encoder(), ImageInputs(pixels_BCYX), device))
    task: Any = setup.task
    truth, told = task.pictured(activate(logits, task.activation).cpu().numpy(), targets)
    rows = [
        _beside(seen(pixels), coloured(one, pixels.shape[1:]), coloured(other, pixels.shape[1:]))
        for pixels, one, other in zip(pixels_BCYX, truth, told, strict=True)
    ]
    return np.concatenate(rows)


def seen(pixels_CYX: NDArray[Any]) -> NDArray[np.uint8]:
    """(Y, X, 3): the first three channels as colours, or the first in grey, from their 1st to 99.8th percentile."""
    planes = pixels_CYX[:3] if len(pixels_CYX) >= 3 else pixels_CYX[:1].repeat(3, axis=0)
    low, high = np.percentile(planes, [1, 99.8])
    share = (planes.astype(np.float64) - low) / max(high - low, 1e-9)
    made: NDArray[np.uint8] = (share.clip(0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
    return made


def coloured(numbers: Any, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """(Y, X, 3): a colour for each number, black for 0; a single number fills the field.

    Hues step by the golden angle, so that neighbours in number differ.
    """
    whole_YX = np.broadcast_to(np.asarray(numbers), shape).astype(np.int64)
    hue_YX3 = 6 * (whole_YX[..., None] * _GOLDEN_ANGLE + np.array([0, 2 / 3, 1 / 3])) % 6
    colour_YX3 = np.clip(np.abs(hue_YX3 - 3) - 1, 0, 1) * 0.8 + 0.2
    made: NDArray[np.uint8] = (colour_YX3 * (whole_YX > 0)[..., None] * 255).round().astype(np.uint8)
    return made


def _beside(*fields_YX3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """With a white gap after each and below."""
    return np.concatenate(
        [np.pad(one, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255) for one in fields_YX3], axis=1
    )
