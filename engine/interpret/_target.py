"""The number that is explained: one channel of a head, as a differentiable function of a sequence's letters.

On the scale "logit" it is what comes before the activation: log p of a softmax less the mean of log p over the head's
channels (Shrikumar et al. 2017, section 3.6: a constant added to all logits changes nothing, so none is credited with
it), log(p / (1 - p)) of a sigmoid, the number before a softplus, and the value itself of an identity head. Where a
network gives logits they are taken; else they are found back from the values. On the scale "value" it is the head's
value. Of an ensemble it is the mean over the members.

A head with a value per position is reduced to one number: the value in the middle (position L // 2 of the L outputs),
or the mean or sum over all, or over those from a first position to before an end.

Shape letters: B batch, A letters, K explained channels, C all channels of the head, L positions.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from engine import registry
from engine.encoders.protein_tokens import AMINO_ACIDS
from engine.errors import InputError
from engine.genome.windows import BASES, N_TOKEN
from engine.models._folder import load_members
from engine.models._info import HeadInfo, ModelInfo
from engine.models._kmers import LONGEST_SOFT, KmerTables
from engine.scoring._predictor import numerics, on_device, prepared

SCALES = ("logit", "value")
REDUCTIONS = ("middle", "mean", "sum")
_TINY = 1e-30
Tokens = NDArray[np.uint8]


@dataclass(frozen=True)
class Question:
    """What is asked of a model; picklable.

    Attributes:
        head: name of the head.
        channels: names of its channels.
        scale: "logit" or "value".
        reduce: "middle", "mean" or "sum" of a head with a value per position.
        first, end: the positions, 0-based and half-open, whose mean or sum is taken; None for all.
        both_strands: the mean of the question asked of a sequence and of its reverse complement.
    """

    head: str
    channels: tuple[str, ...]
    scale: str = "logit"
    reduce: str = "middle"
    first: int = 0
    end: int | None = None
    both_strands: bool = False

    @property
    def fewest_outputs(self) -> int:
        """Positions that a sequence must have."""
        return self.end or self.first + 1


def open_encoder(info: ModelInfo) -> Any:
    """The model's encoder."""
    made = registry.component("encoders", info.encoder["name"])
    return made(registry.build_params(made, info.encoder["params"], where=info.path))


def letters_of(info: ModelInfo) -> str:
    """The letters that the model's encoder tells apart, in the order of their tokens.

    Raises:
        InputError: a model of something else, or an encoder whose tokens are not letters known here.
    """
    where, fix = f"model {info.name}", "explain a model that reads sequences letter by letter"
    kind = getattr(registry.component("models", info.architecture), "kind", "sequences")
    if kind != "sequences":
        raise InputError(f"the model reads {kind}, not sequences", where=where, fix=fix)
    encoder = open_encoder(info)
    letters = {"dna": BASES[:N_TOKEN], "protein": AMINO_ACIDS}.get(getattr(encoder, "alphabet", "dna"), "")
    if not letters or not np.array_equal(encoder.encode(letters), np.arange(len(letters))):
        what = f"the tokens of the encoder {info.encoder['name']!r} are not single letters of DNA or protein"
        raise InputError(what, where=where, fix=fix)
    return letters


def check_question(info: ModelInfo, question: Question) -> None:
    """Refuse what the model does not have.

    Raises:
        InputError: an unknown head or channel, positions of a head without any, or both strands where there is one.
    """
    where = f"model {info.name}"
    if question.head not in info.heads:
        raise InputError(f"no head {question.head!r}", where=where, fix=f"it has: {', '.join(info.heads)}")
    head = info.heads[question.head]
    for name in question.channels:
        if name not in head.channels:
            what = f"head {head.name!r} has no channel {name!r}"
            raise InputError(what, where=where, fix=f"it has: {', '.join(head.channels)}")
    if head.level == "sequence" and (question.first or question.end):
        what = f"head {head.name!r} gives one answer for a whole sequence, so none to choose by position"
        raise InputError(what, where=where, fix="leave out first_position and end_position")
    if question.both_strands and (head.symmetry == "stranded" or len(letters_of(info)) != len(BASES) - 1):
        what = f"head {head.name!r} reads one strand only and cannot be averaged over both"
        raise InputError(what, where=where, fix="set both_strands: false")


class Target:
    """A loaded model that is asked one question.

    Args:
        info: the model.
        question: checked by `check_question`.
        device: "cpu", "cuda" or "cuda:N".
        micro_batch: most sequences that go through the networks at once.
    """

    def __init__(self, info: ModelInfo, question: Question, *, device: str = "cpu", micro_batch: int = 64) -> None:
        self.info, self.question, self.micro_batch = info, question, micro_batch
        self.device = on_device(device)
        self.head: HeadInfo = info.heads[question.head]
        self.letters = letters_of(info)
        self._encoder = open_encoder(info)
        self._places = torch.tensor([self.head.channels.index(name) for name in question.channels], device=self.device)
        self.members = nn.ModuleList(prepared(member, self.device) for member in load_members(info))
        self._num_tokens = int(getattr(self._encoder, "num_tokens", N_TOKEN + 1))
        self._embeds = self._encoder.channels == 1
        self._is_mirrored = False

    def mirrored(self) -> Target:
        """The same networks, asked of a reverse complement what this asks of a sequence."""
        other, order = copy(self), list(range(len(self.head.channels)))
        for one, two in self.head.pairs:
            order[one], order[two] = two, one
        other._places = torch.tensor(order, device=self.device)[self._places]
        other._is_mirrored = not self._is_mirrored
        return other

    def soften(self) -> None:
        """Let networks that embed tokens take letters as numbers, so that there is something to differentiate by.

        Raises:
            InputError: a network that embeds them in a way not known here, or looks long words up.
        """
        if not all(getattr(member, "BY_GRADIENT", True) for member in self.members):
            what = f"the architecture {self.info.architecture!r} compares letters, which gradients do not see"
            raise InputError(what, where=f"model {self.info.name}", fix="use the method mutagenesis")
        for tables in (one for one in self.members.modules() if isinstance(one, KmerTables)):
            if max(tables.lengths) > LONGEST_SOFT:
                what = f"gradients through words of more than {LONGEST_SOFT} letters (kmers) take too much memory"
                raise InputError(what, where=f"model {self.info.name}", fix="use the method mutagenesis")
            tables.is_soft = True
            unknown_BL = np.full((1, 1), len(self.letters), np.uint8)
            if self.tokens_input(unknown_BL).any():
                what = "the encoder gives unknown letters a share of every letter, which its words (kmers) do not read"
                raise InputError(what, where=f"model {self.info.name}", fix="use the method mutagenesis")
        for member in self.members if self._embeds else ():
            enter = getattr(member, "enter", None)
            embedding = getattr(enter, "embed", None)
            if not isinstance(embedding, nn.Embedding):
                what = f"the architecture {self.info.architecture!r} embeds its letters in a way of its own"
                raise InputError(what, where=f"model {self.info.name}", fix="use the method mutagenesis")
            setattr(member, "enter", _SoftEmbedding(embedding))  # noqa: B010 - mypy takes modules for tensors
        soft = {one for tables in self.members.modules() if isinstance(tables, KmerTables) for one in tables.modules()}
        if any(isinstance(one, nn.Embedding | nn.EmbeddingBag) and one not in soft for one in self.members.modules()):
            what = "the network looks up words of letters in a table, which gradients do not see"
            raise InputError(what, where=f"model {self.info.name}", fix="use the method mutagenesis")

    def tokens_input(self, tokens_BL: Tokens) -> Tensor:
        """What the networks read of (B, L) tokens."""
        x: Tensor = self._encoder.tensor(torch.from_numpy(np.ascontiguousarray(tokens_BL)).to(self.device))
        return x

    def letters_input(self, tokens_BL: Tokens) -> Tensor:
        """Letters as numbers, float32 (B, A', L): what the encoder gives, or one-hot tokens; after `soften`.

        A' has the letters first; an unknown letter may have a row of its own behind them.
        """
        if not self._embeds:
            return self.tokens_input(tokens_BL)
        tokens = torch.from_numpy(np.ascontiguousarray(tokens_BL)).to(self.device).long()
        return F.one_hot(tokens, self._num_tokens).transpose(1, 2).float()

    def __call__(self, x: Tensor) -> Tensor:
        """Input of the networks -> (B, K) float32, the mean over the members."""
        with numerics(self.device, "fp32"):
            found = [self._ask(member, x) for member in self.members]
        return torch.stack(found).mean(dim=0)

    def ask(self, tokens_BL: Tokens) -> NDArray[np.float32]:
        """(B, K) without gradients, in micro-batches, from tokens; before `soften`."""
        with torch.inference_mode():
            parts = [
                self(self.tokens_input(tokens_BL[at : at + self.micro_batch]))
                for at in range(0, len(tokens_BL), self.micro_batch)
            ]
        found: NDArray[np.float32] = torch.cat(parts).cpu().numpy()
        return found

    def _ask(self, member: nn.Module, x: Tensor) -> Tensor:
        wants_logits = self.question.scale == "logit"
        if wants_logits and hasattr(member, "logits") and len(self.info.heads) == 1:
            network: Any = member
            values: Tensor = network.logits(x)
            if self.head.activation == "softmax":
                values = values - values.mean(dim=1, keepdim=True)
        else:
            values = member(x)[self.head.name].float()
            values = _before(values, self.head.activation) if wants_logits else values
        values = values.index_select(1, self._places)
        if self.head.level == "sequence":
            return values
        if self._is_mirrored:
            values = values.flip(2)
        if self.question.reduce == "middle":
            return values[:, :, values.shape[2] // 2]
        chosen = values[:, :, self.question.first : self.question.end]
        return chosen.mean(dim=2) if self.question.reduce == "mean" else chosen.sum(dim=2)


def _before(values: Tensor, activation: str) -> Tensor:
    """Logits from values, (B, C) or (B, C, L); probabilities below 1e-30 count as that."""
    if activation == "softmax":
        logs = values.clamp_min(_TINY).log()
        return logs - logs.mean(dim=1, keepdim=True)
    if activation == "sigmoid":
        return values.clamp_min(_TINY).log() - (1 - values).clamp_min(_TINY).log()
    if activation == "softplus":
        return values + (-(-values).exp()).log1p()
    return values


class _SoftEmbedding(nn.Module):
    """In place of the layer that embeds tokens: letters as numbers (B, T, L) times its table."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.table_TC = embedding.weight

    def forward(self, x_BTL: Tensor, mask_BL: Tensor | None) -> Tensor:  # noqa: ARG002 - sequences are not padded here
        return torch.matmul(self.table_TC.t(), x_BTL)
