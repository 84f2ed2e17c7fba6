"""Answers for a sequence by a string kernel: how alike it is to each of the training sequences, weighed.

For few sequences that are aligned on something, such as an exon's border. Alike are sequences with the same words at
the same places (the weighted degree kernel: Rätsch and Sonnenburg 2004; for splice sites Sonnenburg et al. 2007, doi
10.1186/1471-2105-8-S10-S7) and with the same words on either side of the middle (the spectrum kernel: Leslie, Eskin
and Noble 2002). What is trained are the weights of the training sequences, by the loss of the task: kernel logistic
regression, for classes.

Shape letters: B batch, A alphabet, L length, M centres (the training sequences compared with), K outputs, W words, S
stretches of places, P planes of bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.models._info import HeadInfo
from engine.models._kmers import words
from engine.models._sequence import ACTIVATIONS, activate, check_choice, check_count, head_info

_UNKNOWN = 255
_MOST_WORDS = 1 << 16
# Bits of a signed 64-bit integer that are counted without its sign.
_BITS = 62
_TOGETHER = 256
_DEFAULT_CENTRES = 2000


@dataclass(frozen=True)
class StringKernelParams:
    """Attributes:
    outputs: names of the outputs.
    activation: "softmax", "sigmoid", "softplus" or "identity".
    in_channels: letters of the one-hot encoder.
    num_tokens: 0: an encoder of tokens does not go with it.
    head: name of the head.
    symmetry: as HeadInfo has it.
    meaning: what a value says, with its unit.
    length: letters of the longest sequence it takes.
    shortest: letters of the shortest it was trained on: what is cut otherwise would be compared at the wrong places.
    centres: training sequences compared with, drawn evenly from all in their order; all where there are no more.
    degree: letters of the longest word that is compared at its place.
    sides: lengths of words that are compared on either side of the middle, wherever they lie there; may be empty.
    share: of the sides in what is alike, 0 to 1; the rest is that of places.
    gamma: how fast likeness falls, exp(gamma * (alike - 1)) with alike from 0 to 1.
    """

    outputs: tuple[str, ...] = ("value",)
    activation: str = "identity"
    in_channels: int = 4
    num_tokens: int = 0
    head: str = "value"
    symmetry: str = "stranded"
    meaning: str = ""
    length: int = 1
    shortest: int = 1
    centres: int = _DEFAULT_CENTRES
    degree: int = 6
    sides: tuple[int, ...] = ()
    share: float = 0.3
    gamma: float = 2.0
    level: str = "sequence"

    def __post_init__(self) -> None:
        object.__setattr__(self, "outputs", tuple(str(name) for name in self.outputs))
        object.__setattr__(self, "sides", tuple(self.sides))
        check_count(self, "in_channels", "length", "shortest", "centres", "degree", low=1)
        check_choice(self, "activation", ACTIVATIONS)
        if self.num_tokens or self.level != "sequence":
            raise ValueError("it wants one-hot letters and gives one answer for a sequence")
        if self.in_channels >= _UNKNOWN or self.degree > _BITS // 2:
            raise ValueError(f"in_channels must be below {_UNKNOWN} and degree at most {_BITS // 2}")
        for one in self.sides:
            if type(one) is not int or one < 1 or self.in_channels**one > _MOST_WORDS or self.length < 2:
                raise ValueError(f"sides are lengths of words, at most {_MOST_WORDS:,} words each, found {one!r}")
        if not 0 <= self.share <= 1 or not 0 < self.gamma <= 1000:
            raise ValueError(f"share must be 0 to 1 and gamma above 0, found {self.share!r} and {self.gamma!r}")
        head_info(self)  # refuses names and symmetry that do not fit


class StringKernel(nn.Module):
    """See the module's docstring."""

    Params = StringKernelParams
    RESULT_VERSION = 1
    BY_GRADIENT = False
    """Letters are compared, not weighed: no gradient sees them."""

    centres_ML: Tensor
    mean_M: Tensor

    def __init__(self, params: StringKernelParams) -> None:
        super().__init__()
        self.params = params
        self.register_buffer("centres_ML", torch.full((params.centres, params.length), _UNKNOWN, dtype=torch.uint8))
        self.register_buffer("mean_M", torch.zeros(params.centres))
        self.weigh = nn.Linear(params.centres, len(params.outputs))
        nn.init.zeros_(self.weigh.weight)

    @staticmethod
    def heads(params: StringKernelParams) -> dict[str, HeadInfo]:
        """The one head, by name."""
        return {params.head: head_info(params)}

    @staticmethod
    def context_bp(params: StringKernelParams) -> int:  # noqa: ARG004 - other architectures need them
        """None is used up: the whole sequence is read."""
        return 0

    @staticmethod
    def most_letters(params: StringKernelParams) -> int:
        """The longest sequence it takes."""
        return params.length

    @staticmethod
    def least_letters(params: StringKernelParams) -> int:
        """The shortest sequence it takes."""
        return params.shortest

    @staticmethod
    def input_channels(params: StringKernelParams) -> int:
        """Channels the encoder must give."""
        return params.in_channels

    @staticmethod
    def fitted(params: Mapping[str, Any], *, num_samples: int, shortest: int, longest: int) -> dict[str, Any]:
        """Params that follow from the training sequences: how many they are, and their letters."""
        most = params.get("centres", _DEFAULT_CENTRES)
        centres = min(most, num_samples) if type(most) is int else most
        return {"length": longest, "shortest": shortest, "centres": centres}

    def set_bias(self, bias_K: Tensor) -> None:
        """Where training begins: the logits of a network that has seen the targets' frequencies alone."""
        with torch.no_grad():
            self.weigh.bias.copy_(bias_K)

    def set_examples(self, x: Tensor, lengths_B: Tensor | None = None) -> None:
        """Take M sequences, as `logits` has them, to compare others with."""
        digits_ML, known_ML = self._letters(x, lengths_B)
        self.centres_ML.copy_(torch.where(known_ML, digits_ML, _UNKNOWN))
        self.mean_M.zero_()
        for begin in range(0, len(digits_ML), _TOGETHER):
            part = slice(begin, begin + _TOGETHER)
            self.mean_M += self._likeness(digits_ML[part], known_ML[part]).sum(dim=0) / len(digits_ML)

    def forward(self, x: Tensor, lengths_B: Tensor | None = None) -> dict[str, Tensor]:
        """(B, A, L) one-hot, zero where there is no letter -> {head: (B, K)}, activated, float32."""
        return {self.params.head: activate(self.logits(x, lengths_B), self.params.activation)}

    def logits(self, x: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """(B, K) before the activation, float32; likeness counts from its mean over the training sequences."""
        logits_BK: Tensor = self.weigh(self._likeness(*self._letters(x, lengths_B)) - self.mean_M)
        return logits_BK.float()

    def _letters(self, x_BAL: Tensor, lengths_B: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """int64 (B, L) and whether they are known, filled up to the longest length; padding beyond that is cut."""
        longest = x_BAL.shape[2] if lengths_B is None else int(lengths_B.max())
        if longest > self.params.length:
            most = self.params.length
            raise ValueError(f"a sequence of {longest} letters is longer than the {most} the kernel takes")
        x_BAL = F.pad(x_BAL, (0, self.params.length - x_BAL.shape[2]))
        return x_BAL.argmax(dim=1), x_BAL.amax(dim=1) > 0.5

    def _likeness(self, digits_BL: Tensor, known_BL: Tensor) -> Tensor:
        """float32 (B, M): 1 for a centre itself, exp(-gamma) where nothing is alike."""
        params, found_ML = self.params, self.centres_ML
        known_ML = found_ML < _UNKNOWN
        centres_ML = torch.where(known_ML, found_ML, 0).long()
        with torch.no_grad(), torch.autocast(digits_BL.device.type, enabled=False):
            mine, theirs = self._packed(digits_BL, known_BL), self._packed(centres_ML, known_ML)
            alike_BM = _same_places(mine, theirs, params.degree)
            if params.sides:
                said_BW, said_MW = self._sides(digits_BL, known_BL), self._sides(centres_ML, known_ML)
                alike_BM = (1 - params.share) * alike_BM + params.share * (said_BW @ said_MW.T)
            likeness_BM: Tensor = torch.exp(params.gamma * (alike_BM - 1))
        return likeness_BM

    def _packed(self, digits_BL: Tensor, known_BL: Tensor) -> Tensor:
        """int64 (B, stretches, planes + 1): the letters' bits, plane by plane, then which are known.

        A stretch holds as many places as are counted in it and the letters that words which begin there reach.
        """
        ahead = self.params.degree - 1
        counted = _BITS - ahead
        fill = (0, -digits_BL.shape[1] % counted + ahead)
        place = 1 << torch.arange(_BITS, device=digits_BL.device)
        known = F.pad(known_BL, fill).unfold(1, _BITS, counted)
        letters = F.pad(digits_BL, fill).unfold(1, _BITS, counted) * known
        planes = [
            ((letters >> plane & 1) * place).sum(dim=2) for plane in range((self.params.in_channels - 1).bit_length())
        ]
        return torch.stack([*planes, (known * place).sum(dim=2)], dim=2)

    def _sides(self, digits_BL: Tensor, known_BL: Tensor) -> Tensor:
        """(B, W): how often each word lies on each side, its square root.

        Each side has the same length for each length of word, so that a row times itself is 1, or less where a side
        has no word.
        """
        found, middle = [], self.params.length // 2
        for length in self.params.sides:
            for side in (slice(middle), slice(middle, None)):
                code_BL = words(digits_BL[:, side], known_BL[:, side], length, base=self.params.in_channels)
                count_BW = torch.zeros(len(code_BL), self.params.in_channels**length + 1, device=code_BL.device)
                count_BW.scatter_add_(1, code_BL, torch.ones_like(code_BL, dtype=count_BW.dtype))
                found.append(F.normalize(count_BW[:, 1:].sqrt(), dim=1))
        said_BW: Tensor = torch.cat(found, dim=1) / len(found) ** 0.5
        return said_BW


def _same_places(one_BSP: Tensor, other_MSP: Tensor, degree: int) -> Tensor:
    """float32 (B, M): the weighted degree kernel of packed sequences, 1 of a sequence with itself.

    A word of k letters counts 2 (d - k + 1) / (d (d + 1)), with d the degree.
    """
    mine_BS, theirs_MS = one_BSP[..., -1], other_MSP[..., -1]
    differs = (one_BSP[:, None, :, :-1] ^ other_MSP[None, :, :, :-1]).unbind(dim=3)
    same_BMS = mine_BS[:, None] & theirs_MS[None]
    for plane in differs:
        same_BMS = same_BMS & ~plane
    norm_BM: Tensor = _weighed(mine_BS, degree)[:, None] * _weighed(theirs_MS, degree)[None]
    return _weighed(same_BMS, degree) / norm_BM.clamp(min=1e-9).sqrt()


def _weighed(same: Tensor, degree: int) -> Tensor:
    """Words of same letters, counted and weighed by their length: (..., stretches) -> (...), float32."""
    counted = (1 << (_BITS - degree + 1)) - 1
    total, run = torch.zeros(same.shape[:-1], device=same.device), same
    for length in range(1, degree + 1):
        count = _ones(run & counted).sum(dim=-1)
        total = total + count * (2 * (degree - length + 1) / (degree * (degree + 1)))
        run = run & (same >> length)
    return total


def _ones(x: Tensor) -> Tensor:
    """How many bits of each number are set, int64; of numbers below 2 ** 62."""
    x = x - (x >> 1 & 0x5555555555555555)
    x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333)
    x = x + (x >> 4) & 0x0F0F0F0F0F0F0F0F
    return x * 0x0101010101010101 >> 56


COMPONENT = StringKernel
