"""Models of images that have learned nothing, made by code and quickly."""

from __future__ import annotations

from pathlib import Path

import torch

from engine import registry
from engine.models._folder import ModelCard, save_model_folder

SCALE = {"channels": 1, "scale": "values", "low": 200.0, "high": 1000.0}


def model(folder: Path, name: str, *, encoder: dict, extra: dict, members: int = 1, **params) -> Path:
    """Seeded random weights."""
    cls = registry.component("models", name)
    values = {"activation": "softmax", "in_channels": encoder["channels"], "channels": 4, "levels": 2, **params}
    made = []
    for seed in range(members):
        torch.manual_seed(seed)
        made.append(cls(registry.build_params(cls, values, where="test")).eval())
        if name == "u_net":
            _bright_is_inside(made[-1])
    told = ModelCard("toy", "1", "Apache-2.0", "# A toy", {"name": "pixels", "params": encoder}, extra=extra)
    save_model_folder(folder, made, architecture=name, card=told)
    return folder


def _bright_is_inside(network) -> None:
    """A network of one level whose first convolution looks at the pixel alone."""
    with torch.no_grad():
        for weights in network.parameters():
            weights.zero_()
        layers = network.down[0].layers
        for place in (0, 3):
            layers[place].weight[0, 0, 1, 1] = 1.0
            layers[place].bias[1] = 0.5
        for place in (1, 4):
            layers[place].weight.fill_(1.0)
        network.final.weight[1, 0] = 8.0
        network.final.weight[0, 1] = 8.0


def segmenter(folder: Path) -> Path:
    """Bright pixels of dots (tests.toys.image_sets) are inside."""
    shares = {"background": 0.8, "inside": 0.1, "boundary": 0.1}
    facts = {"pixel_shares": shares, "images": 1, "objects": 3}
    extra = {"task": ["image_segmentation", {"object_px": 3}], "images": {"dtype": "uint16"}, "targets": facts}
    outputs = {"outputs": ("background", "inside", "boundary"), "head": "pixel_class"}
    return model(folder, "u_net", encoder=SCALE, extra=extra, **outputs, levels=1)


def classifier(folder: Path) -> Path:
    """Classes a, b and c of images in colour."""
    facts = {"classes": {"a": 3, "b": 2, "c": 1}}
    extra = {"task": ["image_classification", {}], "targets": facts}
    encoder = {"channels": 3}
    return model(folder, "image_cnn", encoder=encoder, extra=extra, members=2, outputs=("a", "b", "c"), head="class")
