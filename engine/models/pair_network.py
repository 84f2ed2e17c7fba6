"""One answer for a pair, such as the affinity of a drug and its target: a network for each member, joined by a few
layers, after DeepDTA (Öztürk, Özgür and Ozkirimli 2018, doi 10.1093/bioinformatics/bty593).

The members are read by two of the networks for sequences, up to what these pool. Where nothing is dropped within them,
members that stand in several pairs of a batch are read once.

Shape letters: B batch, L and M lengths of the two members, K outputs, W pooled numbers, U different members.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine import registry
from engine.models._info import HeadInfo
from engine.models._sample_dropout import SampleDropout
from engine.models._sequence import (
    ACTIVATIONS,
    Pooling,
    SequenceNet,
    SequenceParams,
    activate,
    check_choice,
    pooled_width,
)

JOINTS = ("concat", "concat+product")
_TOWERS = ("first", "second")
# What is not a tower's to say.
_OF_THE_PAIR = ("outputs", "activation", "in_channels", "num_tokens", "head", "symmetry", "meaning", "hidden", "level")
_LAYERS_OF_SECOND = 2000
_LAYERS_OF_HEAD = 1000


@dataclass(frozen=True)
class PairNetworkParams:
    """Attributes:
    first, second: {"name", "params"} of the networks of a pair's sequence and of its other member, or names alone.
    outputs: names of the outputs.
    activation: "softmax", "sigmoid", "softplus" or "identity".
    in_channels: channels of the two encoders.
    num_tokens: letters of encoders that give tokens, which are embedded; 0 for one-hot input.
    head: name of the head.
    symmetry: as HeadInfo has it.
    meaning: what a value says, with its unit.
    joint: what the layers after the networks see: "concat", the pooled numbers of both side by side; or
        "concat+product", beside them the product of the two in a common space of `hidden[0]` dimensions.
    hidden: widths of these layers.
    dropout: share of elements dropped in them in training; the networks' own stands in their params.
    """

    first: Any = "sequence_cnn"
    second: Any = "sequence_cnn"
    outputs: tuple[str, ...] = ("value",)
    activation: str = "identity"
    in_channels: tuple[int, ...] = (1, 1)
    num_tokens: tuple[int, ...] = (21, 159)
    head: str = "value"
    symmetry: str = "stranded"
    meaning: str = ""
    joint: str = "concat"
    hidden: tuple[int, ...] = (256, 128)
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("outputs", "in_channels", "num_tokens", "hidden"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_choice(self, "activation", ACTIVATIONS)
        check_choice(self, "joint", JOINTS)
        if not self.hidden or not all(type(width) is int and 1 <= width <= 1 << 20 for width in self.hidden):
            raise ValueError(f"hidden must hold one width or more, found {list(self.hidden)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be 0 or more and below 1, found {self.dropout!r}")
        if len(self.in_channels) != 2 or len(self.num_tokens) != 2:
            raise ValueError("in_channels and num_tokens are of two encoders")
        for number, name in enumerate(_TOWERS):
            object.__setattr__(self, name, registry.named_component(getattr(self, name), name))
            self.tower(number)  # refuses what does not fit
        head_info(self)

    def tower(self, number: int) -> tuple[Any, Any]:
        """Class and params of a member's network."""
        name, given = _TOWERS[number], getattr(self, _TOWERS[number])
        for one in _OF_THE_PAIR:
            if one in given["params"]:
                raise ValueError(f"{one!r} is of the pair, not of its {name} member: leave it out there")
        cls = registry.component("models", given["name"])
        if not (isinstance(cls, type) and issubclass(cls, SequenceNet)):
            raise ValueError(f"{given['name']!r} reads no single sequences: choose another network for {name}")
        decided = {"in_channels": self.in_channels[number], "num_tokens": self.num_tokens[number]}
        params = registry.build_params(cls, {**given["params"], **decided}, where=f"params of {name}")
        if "place" in params.pools:
            raise ValueError("members of pairs are not aligned on anything: choose another pool than 'place'")
        return cls, params


def head_info(params: PairNetworkParams) -> HeadInfo:
    """The one head: a value per output for the pair."""
    return HeadInfo(
        name=params.head,
        channels=params.outputs,
        activation=params.activation,
        symmetry=params.symmetry,
        meaning=params.meaning,
        level="sequence",
    )


class PairNetwork(nn.Module):
    """See the module's docstring."""

    Params = PairNetworkParams
    RESULT_VERSION = 1
    kind = "pairs"

    def __init__(self, params: PairNetworkParams) -> None:
        super().__init__()
        self.params = params
        self.first, width = _tower(*params.tower(0))
        self.second, other = _tower(*params.tower(1))
        for module in self.second.modules():
            if isinstance(module, SampleDropout):
                module.shift(_LAYERS_OF_SECOND)
        common = params.hidden[0] if params.joint == "concat+product" else 0
        self.products = nn.ModuleList(nn.Linear(one, common) for one in (width, other) if common)
        widths = [width + other + common, *params.hidden]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.dropouts = nn.ModuleList(
            SampleDropout(params.dropout, layer=_LAYERS_OF_HEAD + number) for number in range(len(widths))
        )
        self.final = nn.Linear(widths[-1], len(params.outputs))

    @staticmethod
    def heads(params: PairNetworkParams) -> dict[str, HeadInfo]:
        """The one head, by name."""
        return {params.head: head_info(params)}

    @staticmethod
    def inner(params: PairNetworkParams) -> tuple[tuple[str, str], ...]:
        """Kind and name of the components within."""
        return ("models", params.first["name"]), ("models", params.second["name"])

    @staticmethod
    def context_bp(params: PairNetworkParams) -> int:  # noqa: ARG004 - other architectures need them
        """None is used up: both members are read whole."""
        return 0

    @staticmethod
    def input_channels(params: PairNetworkParams) -> int:
        """Channels the encoders must give, together."""
        return sum(params.in_channels)

    def forward(
        self, x: Tensor, lengths_B: Tensor | None, other: Tensor, other_lengths_B: Tensor | None
    ) -> dict[str, Tensor]:
        """Members as their encoders give them -> {head: (B, K)}, activated, float32.

        Args:
            x: (B, A, L) one-hot float or (B, 1, L) tokens int64 of the sequences.
            lengths_B: int64, letters of each, 1 to L; what follows is padding. None: no padding.
            other: the same of the other members, of M letters at most.
            other_lengths_B: their letters.
        """
        logits_BK = self.logits(x, lengths_B, other, other_lengths_B)
        return {self.params.head: activate(logits_BK, self.params.activation)}

    def logits(self, x: Tensor, lengths_B: Tensor | None, other: Tensor, other_lengths_B: Tensor | None) -> Tensor:
        """(B, K) before the activation, float32."""
        found = [_features(self.first, x, lengths_B), _features(self.second, other, other_lengths_B)]
        if len(self.products):
            one, two = (layer(y_BW) for layer, y_BW in zip(self.products, found, strict=True))
            found.append(one * two)
        y_BW = self.dropouts[0](torch.cat(found, dim=1))
        for layer, dropout in zip(self.layers, list(self.dropouts)[1:], strict=True):
            y_BW = dropout(F.gelu(layer(y_BW)))
        logits_BK: Tensor = self.final(y_BW)
        return logits_BK.float()

    def set_bias(self, bias_K: Tensor) -> None:
        """Where training begins: the logits of a network that has seen the targets' mean alone."""
        with torch.no_grad():
            self.final.bias.copy_(bias_K)


def _tower(cls: Any, params: SequenceParams) -> tuple[SequenceNet, int]:
    """A network up to its pooling, and the numbers it gives."""
    made: SequenceNet = cls(params)
    made.answer = Pooling(params)
    return made, pooled_width(params)


def _features(tower: SequenceNet, x: Tensor, lengths_B: Tensor | None) -> Tensor:
    """(B, W) of members, each different one read once where nothing is dropped by sample or compiled."""
    if (tower.training and tower.params.dropout) or torch.compiler.is_compiling():
        return tower.features(x, lengths_B)
    told = x.flatten(1) if lengths_B is None else torch.cat([x.flatten(1), lengths_B[:, None].to(x.dtype)], dim=1)
    distinct, place_B = torch.unique(told, dim=0, return_inverse=True)
    if len(distinct) == len(x):
        return tower.features(x, lengths_B)
    order_B = torch.arange(len(x), device=x.device)
    first_U = order_B.new_full((len(distinct),), len(x)).scatter_reduce(0, place_B, order_B, "amin")
    return tower.features(x[first_U], None if lengths_B is None else lengths_B[first_U])[place_B]


COMPONENT = PairNetwork
