"""Networks whose explanations are known, saved as model folders by code, and motif files beside them.

motif_network(folder)       head "site" (none, site; softmax; a value per position, context 6): the logit of "site" is 4
                            where TATAAT begins at the output's base less 3, and 0 elsewhere
mirrored_network(folder)    head "signal", one channel, symmetric under reverse complement by its weights; curved
motif_file(path)            JASPAR text of TATAAT and four decoys
"""

from __future__ import annotations

from pathlib import Path

import torch

from engine.models._folder import save_model_folder
from engine.models._info import ModelInfo
from engine.models.dilated_conv import DilatedConv, DilatedConvParams
from tests.toys.models import CARD
from tests.toys.sequences import MOTIF

DECOYS = {"DECOY.1": "GGCGCC", "DECOY.2": "ACACAC", "DECOY.3": "CTGACG", "DECOY.4": "GACCGGA"}


def motif_network(folder: str | Path) -> ModelInfo:
    """See the module."""
    params = DilatedConvParams(
        channels=4, blocks=(), skip_every=0, head_width=7, norm="none", head="site", outputs=("none", "site")
    )
    model = DilatedConv(params)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.zero_()
        model.stem.weight[:, :, 0, 0] = torch.eye(4)
        assert model.wide is not None and model.wide.bias is not None
        for place, letter in enumerate(MOTIF):
            model.wide.weight[0, "ACGT".index(letter), 0, place] = 1
        model.wide.bias[0] = -5
        model.final.weight[1, 0, 0, 0] = 4
    return save_model_folder(folder, [model.eval()], architecture="dilated_conv", card=CARD)


def mirrored_network(folder: str | Path, *, seed: int = 0) -> ModelInfo:
    """See the module: channel c reads one strand as channel 5 - c reads the other."""
    params = DilatedConvParams(
        channels=6,
        stem_width=5,
        blocks=(),
        skip_every=0,
        head_width=3,
        norm="none",
        nonlinearity="gelu",
        head="signal",
        outputs=("signal",),
        activation="identity",
        symmetry="symmetric",
    )
    model = DilatedConv(params)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=draw))
        assert model.wide is not None and model.stem.bias is not None and model.wide.bias is not None
        for tensor in (model.stem.weight, model.wide.weight):
            tensor.add_(tensor.flip(0, 1, 3).clone())
        for bias in (model.stem.bias, model.wide.bias):
            bias.add_(bias.flip(0).clone())
        model.final.weight.add_(model.final.weight.flip(1).clone())
    return save_model_folder(folder, [model.eval()], architecture="dilated_conv", card=CARD)


def motif_file(path: Path) -> Path:
    """See the module."""
    lines = []
    for name, word in {"TATA.1": MOTIF, **DECOYS}.items():
        lines.append(f">{name}\t{word}")
        for base in "ACGT":
            lines.append(f"{base} [ {' '.join('97' if base == letter else '1' for letter in word)} ]")
    path.write_text("\n".join(lines) + "\n")
    return path
