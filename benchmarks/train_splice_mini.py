"""Trains splice-mini and writes its model folder.

    python benchmarks/train_splice_mini.py --data FOLDER -o MODEL/

FOLDER holds the data sets by name: gue, uci-splice and genomes-1pct to train on; vex-seq and brca1-sge only so that
their sequences are left out. One thread, seeded: the same machine and torch give the same weights. About four CPU
minutes for the three members.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from splice_mini.data import SiteSet, load_species, training_data
from splice_mini.grammar import fill_grammar
from splice_mini.training import PARAMS, Recipe, train_member
from torch import nn

from engine.models._folder import ModelCard, load_members, save_model_folder
from engine.models._info import open_model
from engine.models.splice_grammar import SpliceGrammar, SpliceGrammarParams

# Each member's species and seed: unlike members err unlike, and their mean is steadier than any of them.
MEMBERS = ((("human", "worm", "plant"), 0), (("human",), 1), (("human", "worm"), 2))
# Constants of the inclusion change as engine/scoring/_exon_sites.py reads them; set by hand, never fitted.
EXON_CHANGE = {
    "net_weight": 0.15,
    "pwm_weight": 0.175,
    "hexamer_weight": 0.0875,
    "hexamer_scale": 3.0,
    "clip": 8.0,
    "probability_floor": 1e-4,
    "exon_margin_bp": 3,
}
_HERE = Path(__file__).parent / "splice_mini"


def train(species: dict[str, SiteSet], members: list[int], recipe: Recipe) -> list[SpliceGrammar]:
    """The chosen members, each with the same grammars beside its network."""
    made = []
    for number in members:
        names, seed = MEMBERS[number]
        print(f"member {number}: {', '.join(names)}", flush=True)
        model = SpliceGrammar(SpliceGrammarParams(net=PARAMS))
        model.net.load_state_dict(
            train_member([species[name] for name in names], seed=seed, recipe=recipe).state_dict()
        )
        fill_grammar(model, species["human"], [species["human"], species["worm"]])
        made.append(model.eval())
    return made


def card(data: Path, figures: dict[str, Any], version: str) -> ModelCard:
    """What the folder says of itself; the text is splice_mini/card.md."""
    return ModelCard(
        name="splice-mini",
        version=version,
        licence="Apache-2.0",
        text=(_HERE / "card.md").read_text(),
        training_data=training_data(data),
        metrics=figures,
        extra={"exon_change": EXON_CHANGE},
    )


def main() -> None:
    """Train, or relabel a folder with new figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("-o", "--output", type=Path, required=True, help="model folder to write")
    parser.add_argument("--members", type=int, nargs="+", default=list(range(len(MEMBERS))), help="0, 1, 2 or some")
    parser.add_argument("--epochs", type=int, default=Recipe().epochs)
    parser.add_argument(
        "--weights-from", type=Path, help="take the weights of this model folder: only card and figures"
    )
    parser.add_argument("--figures", type=Path, default=_HERE / "figures.json", help="from splice_accuracy.py --json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    models: Sequence[nn.Module]
    if given.weights_from:
        models = load_members(open_model(given.weights_from.resolve()))
    else:
        models = train(load_species(given.data), given.members, Recipe(epochs=given.epochs))
    figures = json.loads(given.figures.read_text()) if given.figures.exists() else {}
    info = save_model_folder(
        given.output,
        models,
        architecture="splice_grammar",
        card=card(given.data, figures, "1"),
        overwrite=given.output.exists(),
    )
    print(f"{info.members} members in {given.output}, digest {info.digest}")


if __name__ == "__main__":
    main()
