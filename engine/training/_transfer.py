"""Training that begins from what was learned before: weights of a model folder, parts that stay, rates by depth.

A network's layers have an order, next to the input first: `layers_in_order` of the model where it has one, else its
children as they were registered, lists opened, `answer` last. The last is the head; the others are the trunk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from engine import registry
from engine.errors import InputError
from engine.models._info import ModelInfo, open_model

if TYPE_CHECKING:
    from torch import Tensor, nn

TRUNK = "trunk"
_KEY = "key 'transfer.{}'"


@dataclass(frozen=True)
class Transfer:
    """How a run begins; picklable, the same for every worker.

    Attributes:
        init_from: model folder to take weights from; empty for none.
        digest: of that folder.
        base: Hugging Face folder of a model that has one; its digest stands in the model's params.
        freeze: names of parts that stay as they begin, patterns with *, or "trunk".
        layer_rate: factor of the learning rate from each layer to the one before it.
    """

    init_from: str = ""
    digest: str = ""
    base: str = ""
    freeze: tuple[str, ...] = ()
    layer_rate: float = 1.0

    def key(self) -> dict[str, Any]:
        """What of it can change a result; empty where nothing is transferred."""
        found = {"init_from": self.digest, "freeze": list(self.freeze), "layer_rate": self.layer_rate}
        return found if self != Transfer(base=self.base) else {}

    def card_lines(self, taken: Taken) -> list[str]:
        """What the card says of it, in Markdown."""
        parts = [f"from model {self.digest[:12]} ({taken.text()})"] if self.init_from else []
        parts += [f"frozen: {', '.join(f'`{name}`' for name in self.freeze)}"] if self.freeze else []
        parts += (
            [f"learning rate times {self.layer_rate} for each layer before the head"] if self.layer_rate < 1 else []
        )
        return ["", f"Transfer: {'; '.join(parts)}."] if parts else []

    def card_facts(self, taken: Taken) -> dict[str, Any]:
        """The same in plain values."""
        return {"transfer": {**self.key(), **taken.facts()}} if self.key() else {}

    def begin(self, model: Any, *, architecture: str, member: int) -> Taken:
        """Give a network its first weights, and freeze what is to stay.

        Args:
            model: with weights of its own.
            architecture: its name.
            member: which network of the ensemble it is; it begins from that member, or from one in turn.

        Raises:
            InputError: the folder is another than the run began with, or does not fit; nothing is left to train.
        """
        taken = Taken()
        if self.base:
            model.take_base(self.base)
        if self.init_from:
            info = open_model(self.init_from)
            if info.digest != self.digest:
                what = f"model {info.digest[:12]}, this run began from {self.digest[:12]}"
                raise InputError(
                    what, where=self.init_from, fix="restore the folder, or train anew from the changed one"
                )
            taken = take(model, info, architecture=architecture, member=member % info.members)
        freeze(model, self.freeze)
        return taken


NONE = Transfer()


@dataclass(frozen=True)
class Taken:
    """What became of a model folder's tensors.

    Attributes:
        taken: names of those that fit.
        skipped: why others did not, by name.
        fresh: names of the network's own that begin as drawn.
    """

    taken: tuple[str, ...] = ()
    skipped: Mapping[str, str] | None = None
    fresh: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """As the card keeps it."""
        return {"taken": len(self.taken), "skipped": dict(self.skipped or {}), "fresh": list(self.fresh)}

    def text(self) -> str:
        """Such as "12 tensors taken; 2 skipped (answer.final.weight: ...); 2 fresh (answer.final.weight, ...)"."""
        skipped = [f"{name}: {why}" for name, why in (self.skipped or {}).items()]
        parts = [f"{len(self.taken)} tensors taken"]
        parts += [
            f"{len(found)} {word} ({_few(found)})"
            for word, found in (("skipped", skipped), ("fresh", self.fresh))
            if found
        ]
        return "; ".join(parts)


def planned(transfer: Transfer, *, architecture: str, encoder: Mapping[str, Any]) -> Transfer:
    """A transfer with the folder's digest, after the folder was checked.

    Raises:
        InputError: no such folder, or one that does not go with the spec.
    """
    if not 0 < transfer.layer_rate <= 1:
        what = f"layer_rate must be above 0 and at most 1, found {transfer.layer_rate}"
        raise InputError(what, where=_KEY.format("layer_rate"), fix="1 gives every layer the same rate")
    if not transfer.init_from:
        return transfer
    info = open_model(transfer.init_from)
    where = _KEY.format("init_from")
    if info.architecture != architecture:
        what = f"the model folder is of architecture {info.architecture!r}, the spec of {architecture!r}"
        raise InputError(what, where=where, fix=f"set model.name to {info.architecture}")
    if info.encoder["name"] != encoder["name"]:
        what = f"the model folder reads by encoder {info.encoder['name']!r}, the spec by {encoder['name']!r}"
        raise InputError(what, where=where, fix=f"set encoder.name to {info.encoder['name']}")
    return replace(transfer, digest=info.digest, init_from=info.path)


def take(model: Any, info: ModelInfo, *, architecture: str, member: int) -> Taken:
    """Give a network every tensor of a model folder whose name and shape fit; a head only where it tells the same.

    Raises:
        InputError: nothing fits but a head.
    """
    from engine.models._folder import load_members

    cls = registry.component("models", architecture)
    has_same_head = dict(cls.heads(model.params)) == info.heads
    head = layers_in_order(model)[-1]
    found = load_members(info)[member].state_dict()
    own: Mapping[str, Tensor] = model.state_dict()
    fitting, skipped = {}, {}
    for name, tensor in found.items():
        if name not in own:
            skipped[name] = "no such tensor here"
        elif own[name].shape != tensor.shape:
            skipped[name] = f"{list(tensor.shape)}, here {list(own[name].shape)}"
        elif not has_same_head and _is_in(name, head):
            skipped[name] = "the head tells something else"
        else:
            fitting[name] = tensor
    if all(_is_in(name, head) for name in fitting):
        fix = "give the model the params of that folder, such as channels and layers"
        raise InputError("no tensor of the model folder's trunk fits this network", where=info.path, fix=fix)
    model.load_state_dict(fitting, strict=False)
    return Taken(tuple(fitting), skipped, tuple(name for name in own if name not in fitting))


def freeze(model: nn.Module, names: Sequence[str]) -> None:
    """Keep parts of a network as they are.

    Args:
        model: the network.
        names: of parameters or modules, patterns with *, or "trunk" for all but the head.

    Raises:
        InputError: a name is of nothing, or nothing is left to train.
    """
    where = _KEY.format("freeze")
    layers = layers_in_order(model)
    for name in names:
        wanted = [one for layer in layers[:-1] for one in layer] if name == TRUNK else [name]
        found = [one for path, one in model.named_parameters() if _is_in(path, wanted)]
        if not found:
            known = ", ".join([TRUNK, *(one for layer in layers for one in layer)])
            raise InputError(f"no parameter is named {name!r}", where=where, fix=f"known parts: {known}")
        for one in found:
            one.requires_grad_(False)
    if not any(one.requires_grad for one in model.parameters()):
        raise InputError("nothing is left to train", where=where, fix=f"freeze less, such as {TRUNK!r} alone")


def layers_in_order(model: Any) -> list[list[str]]:
    """Names of a network's parts by depth; see the module's docstring."""
    import torch

    if hasattr(model, "layers_in_order"):
        found: list[list[str]] = model.layers_in_order()
        return found
    made: list[list[str]] = []
    for name, child in sorted(model.named_children(), key=lambda one: one[0] == "answer"):
        inside = (
            [f"{name}.{number}" for number in range(len(child))] if isinstance(child, torch.nn.ModuleList) else [name]
        )
        made += [[one] for one in inside if any(True for _ in model.get_submodule(one).parameters())]
    return made


def listed_layers(model: Any) -> list[Any]:
    """The modules of a network's lists of layers, each called as a whole."""
    names = [one for layer in layers_in_order(model) for one in layer]
    return [model.get_submodule(name) for name in names if name.rpartition(".")[2].isdecimal()]


def rates_by_depth(model: Any, layer_rate: float) -> dict[str, float]:
    """Factor of the learning rate of each parameter: 1 for the head, less for each layer before it."""
    layers = layers_in_order(model)
    factors = {}
    for path, _ in model.named_parameters():
        # The longest name wins: a layer within a part is the layer's.
        depths = [(len(one), depth) for depth, layer in enumerate(layers) for one in layer if _is_in(path, [one])]
        depth = max(depths)[1] if depths else 0
        factors[path] = layer_rate ** (len(layers) - 1 - depth)
    return factors


def _is_in(path: str, names: Sequence[str]) -> bool:
    """Whether a parameter has one of the names, or lies in a module of that name."""
    return any(fnmatchcase(path, name) or fnmatchcase(path, f"{name}.*") for name in names)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
