"""What networks over sequences share: input, masks, pooling and the head, for the whole sequence or every position.

A padded position is zero wherever a neighbour could read it, and left out of every sum: padding never changes an
output but for rounding.

Shape letters: B batch, A alphabet, C channels, L length, K outputs, H hidden.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.models._info import HeadInfo
from engine.models._sample_dropout import SampleDropout

LEVELS = ("sequence", "position")
POOLS = ("max", "mean", "attention", "place")
ACTIVATIONS = ("softmax", "sigmoid", "softplus", "identity")


@dataclass(frozen=True)
class SequenceParams:
    """Attributes:
    outputs: names of the outputs.
    activation: "softmax", "sigmoid", "softplus" or "identity".
    in_channels: channels of the encoder.
    num_tokens: letters of an encoder that gives tokens, which are embedded; 0 for one-hot input.
    head: name of the head.
    symmetry: as HeadInfo has it.
    meaning: what a value says, with its unit.
    channels: width of the network.
    dropout: share of elements dropped in training.
    pool: how positions become one answer: "max", "mean", "attention" (weights learned from content), "place" (every
        position has weights of its own: for sequences aligned on something, such as a start site), or several of them
        side by side, as "place+mean".
    length: for "place": the longest sequence it takes, in letters; 0 otherwise.
    bin_width: for "place": so many neighbouring positions share weights, by their maximum.
    hidden: width of a layer between pooling and outputs; 0 for none.
    level: "sequence": one answer, after pooling; "position": one for every letter, without.
    """

    outputs: tuple[str, ...] = ("value",)
    activation: str = "identity"
    in_channels: int = 4
    num_tokens: int = 0
    head: str = "value"
    symmetry: str = "stranded"
    meaning: str = ""
    channels: int = 64
    dropout: float = 0.1
    pool: str = "max"
    length: int = 0
    bin_width: int = 1
    hidden: int = 0
    level: str = "sequence"

    def __post_init__(self) -> None:
        object.__setattr__(self, "outputs", tuple(str(name) for name in self.outputs))
        check_count(self, "in_channels", "channels", "bin_width", low=1)
        check_count(self, "num_tokens", "length", "hidden", low=0)
        self._check_pools()
        check_choice(self, "activation", ACTIVATIONS)
        check_choice(self, "level", LEVELS)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be 0 or more and below 1, found {self.dropout!r}")
        if self.num_tokens and self.in_channels != 1:
            raise ValueError(f"tokens come in 1 channel, found in_channels {self.in_channels}")
        if ("place" in self.pools) != (self.length > 0):
            raise ValueError(f"length goes with pool 'place' and with it alone, found {self.length} and {self.pool!r}")
        if self.level == "position" and (self.pool != "max" or self.places(2) != 2):
            raise ValueError("where every position has an answer nothing is pooled: leave out pool and stem_pool")
        head_info(self)  # refuses names and symmetry that do not fit

    @property
    def pools(self) -> tuple[str, ...]:
        """The pools that lie side by side."""
        return tuple(self.pool.split("+"))

    @property
    def entering(self) -> int:
        """Channels that `enter` gives."""
        return self.channels if self.num_tokens else self.in_channels

    @property
    def beside(self) -> int:
        """Numbers that a network reads of the whole sequence beside what is pooled."""
        return 0

    def places(self, length: Any) -> Any:
        """Positions that the trunk gives for so many letters, a number or a tensor of them."""
        return length

    def _check_pools(self) -> None:
        if len(set(self.pools)) != len(self.pools) or not set(self.pools) <= set(POOLS):
            raise ValueError(f"pool must be one of {', '.join(POOLS)}, or some joined by +, found {self.pool!r}")


def check_count(params: Any, *names: str, low: int) -> None:
    """Refuse whole numbers below `low`, unreasonably large ones and whatever is no whole number."""
    for name in names:
        value = getattr(params, name)
        if type(value) is not int or not low <= value <= 1 << 20:
            raise ValueError(f"{name} must be a whole number from {low} to {1 << 20}, found {value!r}")


def check_choice(params: Any, name: str, known: tuple[str, ...]) -> None:
    """Refuse a word that is not among the known ones."""
    if getattr(params, name) not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, found {getattr(params, name)!r}")


def head_info(params: Any) -> HeadInfo:
    """The one head, of params named as SequenceParams are: a value per output for the sequence, or every position."""
    return HeadInfo(
        name=params.head,
        channels=params.outputs,
        activation=params.activation,
        symmetry=params.symmetry,
        meaning=params.meaning,
        level=params.level,
    )


def activate(logits_BK: Tensor, activation: str) -> Tensor:
    """Logits (B, K) or (B, K, ...) to values, in float32."""
    logits_BK = logits_BK.float()
    if activation == "softmax":
        return logits_BK.softmax(dim=1)
    if activation == "sigmoid":
        return logits_BK.sigmoid()
    return F.softplus(logits_BK) if activation == "softplus" else logits_BK


class SequenceNet(nn.Module):
    """Base of the networks: a subclass gives `trunk` and registers it; everything else is the same for all."""

    RESULT_VERSION = 1

    def __init__(self, params: SequenceParams) -> None:
        super().__init__()
        self.params: Any = params
        self.enter = _Enter(params)
        self.answer: Any = _PositionAnswer(params) if params.level == "position" else _Answer(params)

    @staticmethod
    def heads(params: SequenceParams) -> dict[str, HeadInfo]:
        """The one head, by name."""
        return {params.head: head_info(params)}

    @staticmethod
    def context_bp(params: SequenceParams) -> int:  # noqa: ARG004 - other architectures need them
        """None is used up: the whole sequence is read."""
        return 0

    @staticmethod
    def most_letters(params: SequenceParams) -> int | None:
        """The longest sequence it takes; None for any."""
        return params.length or None

    @staticmethod
    def input_channels(params: SequenceParams) -> int:
        """Channels the encoder must give."""
        return params.in_channels

    def forward(self, x: Tensor, lengths_B: Tensor | None = None) -> dict[str, Tensor]:
        """(B, A, L) one-hot float or (B, 1, L) tokens int64 -> {head: (B, K) or (B, K, L)}, activated, float32.

        Args:
            x: what the encoder gives.
            lengths_B: int64, letters of each sequence, 1 to L; what follows them is padding. None: no padding.
        """
        return {self.params.head: activate(self.logits(x, lengths_B), self.params.activation)}

    def logits(self, x: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """(B, K), or (B, K, L) for every position, before the activation, float32."""
        logits: Tensor = self.answer(*self._read(x, lengths_B))
        return logits.float()

    def features(self, x: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """(B, W) what is pooled of a sequence; W is `pooled_width(params)`."""
        pooled_BW: Tensor = self.answer.pooled(*self._read(x, lengths_B))
        return pooled_BW

    def _read(self, x: Tensor, lengths_B: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What the trunk gives, which of its places a sequence reaches, and what is read beside it."""
        self._check_length(x.shape[-1], lengths_B)
        mask_BL = None if lengths_B is None else mask_of(lengths_B, x.shape[-1])
        x_BEL = self.enter(x, mask_BL)
        y_BCL = self.trunk(x_BEL, mask_BL, lengths_B)
        reached = None if lengths_B is None else mask_of(self.params.places(lengths_B), y_BCL.shape[-1])
        return y_BCL, reached, self.beside(x_BEL)

    def _check_length(self, width: int, lengths_B: Tensor | None) -> None:
        # The compiler would make a program for every number that it is told; training has looked before.
        if "place" not in self.params.pools or torch.compiler.is_compiling():
            return
        longest = width if lengths_B is None else int(lengths_B.max())
        if longest > self.params.length:
            what = f"a sequence of {longest} letters is longer than the {self.params.length} letters the network takes"
            raise ValueError(what)

    @abstractmethod
    def trunk(self, x_BEL: Tensor, mask_BL: Tensor | None, lengths_B: Tensor | None) -> Tensor:
        """(B, E, L) as it entered, zero where there is no letter -> (B, C, params.places(L)), zero there too."""

    def beside(self, x_BEL: Tensor) -> Tensor | None:  # noqa: ARG002 - for those that read something
        """(B, E, L) as it entered -> (B, params.beside), normalised; None where nothing is read."""
        return None

    def set_bias(self, bias_K: Tensor) -> None:
        """Where training begins: the logits of a network that has seen the targets' frequencies alone."""
        with torch.no_grad():
            self.answer.final.bias.copy_(bias_K)


def mask_of(lengths_B: Tensor, length: int) -> Tensor:
    """(B, L) boolean, true where a sequence has a letter."""
    return torch.arange(length, device=lengths_B.device)[None, :] < lengths_B[:, None]


def masked(x_BCL: Tensor, mask_BL: Tensor | None) -> Tensor:
    """Zero where a sequence has no letter."""
    return x_BCL if mask_BL is None else x_BCL.masked_fill(~mask_BL[:, None, :], 0)


def _count(x_BCL: Tensor, mask_BL: Tensor | None) -> Tensor | int:
    return x_BCL.shape[2] if mask_BL is None else mask_BL.sum(dim=1, keepdim=True)


def largest(x_BCL: Tensor) -> Tensor:
    """(B, C): the maximum along the last axis.

    Gradients of `amax` are shared out by comparing each number with the maximum. A compiler that computes the numbers
    anew for that, rounded otherwise, finds none equal and divides by zero: there the place is kept instead.
    """
    return x_BCL.max(dim=2).values if torch.compiler.is_compiling() else x_BCL.amax(dim=2)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of one position of (B, C, L): no statistics of a batch."""

    def forward(self, x_BCL: Tensor) -> Tensor:
        """The shape of its argument."""
        return super().forward(x_BCL.transpose(1, 2)).transpose(1, 2)


class _Enter(nn.Module):
    """Tokens embedded; one-hot columns as they are."""

    def __init__(self, params: SequenceParams) -> None:
        super().__init__()
        self.embed = nn.Embedding(params.num_tokens, params.channels) if params.num_tokens else None

    def forward(self, x: Tensor, mask_BL: Tensor | None) -> Tensor:
        return masked(x if self.embed is None else self.embed(x[:, 0]).transpose(1, 2), mask_BL)


def pooled_width(params: SequenceParams) -> int:
    """Numbers that a sequence becomes: what pooling makes of it, and what is read beside."""
    bins = -(-params.places(params.length) // params.bin_width)
    return params.channels * sum(bins if pool == "place" else 1 for pool in params.pools) + params.beside


class Pooling(nn.Module):
    """(B, C, L) -> (B, W), normalised."""

    def __init__(self, params: SequenceParams) -> None:
        super().__init__()
        self.params = params
        self.weigh = nn.Conv1d(params.channels, 1, 1) if "attention" in params.pools else None
        # After pooling: before it, positions without a signal would be made as loud as those with one.
        self.norm = nn.LayerNorm(pooled_width(params) - params.beside)

    def pooled(self, x_BCL: Tensor, mask_BL: Tensor | None, beside_BW: Tensor | None = None) -> Tensor:
        """See the class."""
        x_BCL = masked(F.gelu(x_BCL), mask_BL)
        pools = [self._pooled(pool, x_BCL, mask_BL) for pool in self.params.pools]
        normal_BW: Tensor = self.norm(torch.cat(pools, dim=1))
        return normal_BW if beside_BW is None else torch.cat([normal_BW, beside_BW], dim=1)

    def _pooled(self, pool: str, x_BCL: Tensor, mask_BL: Tensor | None) -> Tensor:
        if pool == "max":
            return largest(x_BCL if mask_BL is None else x_BCL.masked_fill(~mask_BL[:, None], -torch.inf))
        if pool == "place":
            return self._in_place(x_BCL)
        if pool == "mean":
            return x_BCL.sum(dim=2) / _count(x_BCL, mask_BL)
        assert self.weigh is not None
        weights_B1L = self.weigh(x_BCL).float()
        if mask_BL is not None:
            weights_B1L = weights_B1L.masked_fill(~mask_BL[:, None], -torch.inf)
        weighed_BC: Tensor = (x_BCL * weights_B1L.softmax(dim=2)).sum(dim=2)
        return weighed_BC

    def _in_place(self, x_BCL: Tensor) -> Tensor:
        # A negative number cuts padding that no sequence reaches.
        x_BCL = F.pad(x_BCL, (0, self.params.places(self.params.length) - x_BCL.shape[2]))
        if self.params.bin_width > 1:
            x_BCL = F.max_pool1d(x_BCL, self.params.bin_width, ceil_mode=True)
        return x_BCL.flatten(1)


class _Answer(Pooling):
    """(B, C, L) -> (B, K)."""

    def __init__(self, params: SequenceParams) -> None:
        super().__init__(params)
        width = pooled_width(params)
        self.dropout = SampleDropout(params.dropout, layer=1000)
        self.hidden = nn.Linear(width, params.hidden) if params.hidden else None
        self.hidden_dropout = SampleDropout(params.dropout, layer=1001)
        self.final = nn.Linear(params.hidden or width, len(params.outputs))

    def forward(self, x_BCL: Tensor, mask_BL: Tensor | None, beside_BW: Tensor | None = None) -> Tensor:
        y = self.dropout(self.pooled(x_BCL, mask_BL, beside_BW))
        if self.hidden is not None:
            y = self.hidden_dropout(F.gelu(self.hidden(y)))
        logits_BK: Tensor = self.final(y)
        return logits_BK


class _PositionAnswer(nn.Module):
    """(B, C, L) -> (B, K, L), each position from its own channels."""

    def __init__(self, params: SequenceParams) -> None:
        super().__init__()
        width = params.channels
        self.norm = ChannelNorm(width)
        self.dropout = SampleDropout(params.dropout, layer=1000)
        self.hidden = nn.Conv1d(width, params.hidden, 1) if params.hidden else None
        self.hidden_dropout = SampleDropout(params.dropout, layer=1001)
        self.final = nn.Conv1d(params.hidden or width, len(params.outputs), 1)

    def forward(self, x_BCL: Tensor, *_: Tensor | None) -> Tensor:
        y = self.dropout(self.norm(F.gelu(x_BCL)))
        if self.hidden is not None:
            y = self.hidden_dropout(F.gelu(self.hidden(y)))
        logits_BKL: Tensor = self.final(y)
        return logits_BKL
