"""Trains splice-mini and writes its model folder.

    python benchmarks/train_splice_mini.py --data FOLDER -o MODEL/
    python benchmarks/train_splice_mini.py --weights-from MODEL/ --members 0 -o ONE/   # one network alone
    python benchmarks/train_splice_mini.py --weights-from MODEL/ --figures FIGURES.json -o MODEL/

FOLDER holds gue, uci-splice and genomes-1pct to train on; vex-seq and brca1-sge only so that their sequences are left
out. splice_mini/data.py says which files and columns. One thread, seeded: the same machine and torch give the same
weights. About four CPU minutes for the three members. A folder just trained says "not measured" where figures stand:
score examples/splice with it and with each network alone, run splice_accuracy.py with --members and --json, and write
the folder anew with the figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))  # also as `python benchmarks/train_splice_mini.py`

from benchmarks.splice_mini.card import fill
from benchmarks.splice_mini.data import SiteSet, file_digests, load_species, training_data
from benchmarks.splice_mini.grammar import fill_grammar
from benchmarks.splice_mini.training import PARAMS, Recipe, train_member
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


def card(digests: dict[str, str], figures: dict[str, Any], *, name: str, version: str) -> ModelCard:
    """What the folder says of itself; the text is splice_mini/card.md with the figures filled in."""
    return ModelCard(
        name=name,
        version=version,
        licence="Apache-2.0",
        text=fill((_HERE / "card.md").read_text(), figures),
        training_data=training_data(digests),
        metrics=figures,
        extra={"exon_change": EXON_CHANGE},
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder of the data sets, to train")
    source.add_argument("--weights-from", type=Path, help="take the weights of this model folder")
    parser.add_argument("-o", "--output", type=Path, required=True, help="model folder to write")
    parser.add_argument("--members", type=int, nargs="+", default=list(range(len(MEMBERS))), help="0, 1, 2 or some")
    parser.add_argument("--epochs", type=int, default=Recipe().epochs)
    parser.add_argument("--figures", type=Path, default=_HERE / "figures.json", help="with --weights-from")
    return parser


def main() -> None:
    """Train, or write a folder anew with other figures or fewer members."""
    given = _parser().parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    models: Sequence[nn.Module]
    if given.weights_from:
        info = open_model(given.weights_from.resolve())
        loaded = load_members(info)
        models = [loaded[number] for number in given.members]
        digests = {entry["file"]: entry["sha256"] for entry in info.training_data}
    else:
        models = train(load_species(given.data), given.members, Recipe(epochs=given.epochs))
        digests = file_digests(given.data)
    whole = given.members == list(range(len(MEMBERS)))
    # Figures belong to the weights they were measured with.
    figures = json.loads(given.figures.read_text()) if given.weights_from and whole else {}
    name = "splice-mini" if whole else f"splice-mini-{'-'.join(map(str, given.members))}"
    written = save_model_folder(
        given.output,
        models,
        architecture="splice_grammar",
        card=card(digests, figures, name=name, version="1"),
        overwrite=given.output.exists(),
    )
    print(f"{written.members} members in {given.output}, digest {written.digest}")


if __name__ == "__main__":
    main()
