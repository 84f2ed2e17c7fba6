"""Finished runs of sequence sets, and models for them, made by code and quickly.

ingested(folder, rows, records_per_shard=...)   a finished run of ingest-sequences over rows as tests.toys.sequences
                                                makes them; a row without a sequence is rejected as the ingest would
sequence_model(folder, kind="class")            a seeded random network over DNA: "class" (none, site), "labels"
                                                (sigmoid, two labels), "value" (one number)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from engine import registry
from engine.models._folder import ModelCard, save_model_folder
from engine.models._info import ModelInfo
from tests.toys.sequences import Row
from tests.toys.variant_runs import replisome_here

KINDS: dict[str, dict[str, Any]] = {
    "class": {"head": "class", "outputs": ("none", "site"), "activation": "softmax"},
    "labels": {"head": "labels", "outputs": ("a", "c"), "activation": "sigmoid"},
    "value": {"head": "value", "outputs": ("value",), "activation": "identity"},
}


def ingested(folder: Path, rows: Sequence[Row], *more: str, records_per_shard: int = 32) -> Path:
    """The run's output; labels, target and group are columns of the table it is made from."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("id", "sequence", "label", "target", "group")
    lines = ["\t".join(names)]
    lines += ["\t".join("" if row[name] is None else str(row[name]) for name in names) for row in rows]
    (folder / "rows.tsv").write_text("\n".join(lines) + "\n")
    done = replisome_here(
        *("ingest-sequences", str(folder / "rows.tsv"), "-o", str(folder / "set"), "--progress", "none"),
        *("--duplicates", "keep", "--allow-missing", "--max-rejects", "1", "--targets", "target"),
        *("--records-per-shard", str(records_per_shard), *more),
    )
    assert done.returncode == 0, done.stderr
    return folder / "set"


def sequence_model(
    folder: Path,
    kind: str = "class",
    *,
    architecture: str = "sequence_cnn",
    encoder: str = "one_hot",
    members: int = 1,
    **params: Any,
) -> ModelInfo:
    """A network that has learned nothing; its answers differ from sequence to sequence."""
    cls = registry.component("models", architecture)
    given = {"channels": 8, "symmetry": "symmetric", **KINDS[kind], **params}
    made = []
    for number in range(members):
        torch.manual_seed(number)
        model = cls(cls.Params(**given))
        for tensor in model.parameters():
            torch.nn.init.normal_(tensor, std=0.6)
        made.append(model.eval())
    reading = {"name": encoder, "params": {}}
    card = ModelCard(name="toy", version="1", licence="Apache-2.0", text="# A toy", encoder=reading)
    return save_model_folder(folder, made, architecture=architecture, card=card)
