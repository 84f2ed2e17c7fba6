"""Dilated residual convolutions over sequence, from a small site network to SpliceAI-10k.

The architecture of Jaganathan et al. 2019 (Cell 176:535, "Predicting splicing from primary sequence with deep
learning", supplementary figure 1), with the widths of stem and head free so that smaller networks fit too:

    stem conv -> residual blocks (norm, act, conv, norm, act, conv, add) -> head

Every convolution is valid: an output exists only where its whole context does, and output i sits at input
``i + context_bp // 2``. This equals the same-padded network cropped at its ends and costs less.

Shape letters: B batch, A alphabet (input channels), C channels, K outputs, L positions.
Inside, tensors are (B, C, 1, L) in channels_last memory, where CPU and GPU convolution kernels are fastest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.models._conv_stack import INPUT, ConvLayer, ConvStack
from engine.models._info import HeadInfo

NORMS = ("batch", "layer", "none")
NONLINEARITIES = ("relu", "gelu", "silu", "leaky_relu")
ACTIVATIONS = ("softmax", "sigmoid", "softplus", "identity")
_LEAK = 0.1
_KERAS_MOMENTUM = 0.01  # Keras' 0.99, counted the other way round
_MAX_CONTEXT_BP = 4_000_000


@dataclass(frozen=True, slots=True)
class DilatedConvParams:
    """What fixes the shape of the network.

    Attributes:
        in_channels: input channels, 4 for one-hot bases.
        channels: channels of the trunk.
        stem_width: width of the first convolution; odd (1 in SpliceAI).
        blocks: (width, dilation) of each residual block, widths odd; a block has two such convolutions.
        skip_every: a 1x1 convolution leaves the trunk after the stem, after every this many blocks and after the last
            one, and the head reads their sum; 0: the head reads the end of the trunk.
        head_width: 1: a 1x1 convolution gives the outputs; wider (odd): act, convolution of this width, act before it.
        norm: "batch", "layer" (over the channels of one position) or "none".
        norm_epsilon: added to the variance (0.001 in SpliceAI, which is Keras' default).
        nonlinearity: "relu", "gelu", "silu" or "leaky_relu" (slope 0.1, as OpenSpliceAI has it).
        head: name of the head.
        outputs: names of its channels.
        activation: "softmax" over channels, "sigmoid", "softplus" or "identity".
        symmetry: "symmetric", "paired" or "stranded": what a reverse complement does to the head.
        pairs: channels that swap under reverse complement, for "paired".
        meaning: what a value says, in words.
    """

    in_channels: int = 4
    channels: int = 32
    stem_width: int = 1
    blocks: tuple[tuple[int, int], ...] = ((11, 1),) * 4
    skip_every: int = 4
    head_width: int = 1
    norm: str = "batch"
    norm_epsilon: float = 1e-3
    nonlinearity: str = "relu"
    head: str = "splice"
    outputs: tuple[str, ...] = ("none", "acceptor", "donor")
    activation: str = "softmax"
    symmetry: str = "stranded"
    pairs: tuple[tuple[int, int], ...] = ()
    meaning: str = (
        "probability that the base is no splice site, the first base of an exon (acceptor) or the last (donor)"
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", _int_pairs("blocks", self.blocks))
        object.__setattr__(self, "pairs", _int_pairs("pairs", self.pairs))
        object.__setattr__(self, "outputs", tuple(str(name) for name in self.outputs))
        _check_numbers(self)
        _check_choices(self)
        _head_info(self)  # refuses names, symmetry and pairs that do not fit


def _int_pairs(name: str, values: Any) -> tuple[tuple[int, int], ...]:
    """Lists of JSON become tuples; anything that is not a pair of whole numbers is refused."""
    made = []
    for value in values:
        if isinstance(value, str) or len(value) != 2 or not all(type(number) is int for number in value):
            raise ValueError(f"{name} must hold pairs of whole numbers, found {value!r}")
        made.append((value[0], value[1]))
    return tuple(made)


def _check_numbers(params: DilatedConvParams) -> None:
    for name in ("in_channels", "channels", "stem_width", "head_width"):
        value = getattr(params, name)
        if type(value) is not int or not 1 <= value <= 65536:
            raise ValueError(f"{name} must be a whole number from 1 to 65536, found {value!r}")
    if type(params.skip_every) is not int or params.skip_every < 0:
        raise ValueError(f"skip_every must be 0 or more, found {params.skip_every!r}")
    for width in (params.stem_width, params.head_width, *(width for width, _ in params.blocks)):
        if width < 1 or width % 2 == 0:
            raise ValueError(f"widths must be odd, so that an output has a middle base; found {width}")
    for _, dilation in params.blocks:
        if dilation < 1:
            raise ValueError(f"dilations must be 1 or more, found {dilation}")
    if not 0 < params.norm_epsilon < 1:
        raise ValueError(f"norm_epsilon must lie between 0 and 1, found {params.norm_epsilon!r}")
    if context_bp(params) > _MAX_CONTEXT_BP:
        raise ValueError(f"a context of {context_bp(params)} bp is more than the limit of {_MAX_CONTEXT_BP}")


def _check_choices(params: DilatedConvParams) -> None:
    for name, known in (("norm", NORMS), ("nonlinearity", NONLINEARITIES), ("activation", ACTIVATIONS)):
        if getattr(params, name) not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, found {getattr(params, name)!r}")


def _head_info(params: DilatedConvParams) -> HeadInfo:
    return HeadInfo(
        name=params.head,
        channels=params.outputs,
        activation=params.activation,
        symmetry=params.symmetry,
        pairs=params.pairs,
        meaning=params.meaning,
    )


def context_bp(params: DilatedConvParams) -> int:
    """Bases used up by the network, both flanks together (80, 400, 2000 and 10000 for the SpliceAI sizes)."""
    blocks = sum(2 * (width - 1) * dilation for width, dilation in params.blocks)
    return params.stem_width - 1 + blocks + params.head_width - 1


def multiply_adds(params: DilatedConvParams, *, length: int | None = None) -> float:
    """Multiply-adds of the convolutions, one network.

    With `length` (input bases of one window): exact for that window under valid convolution. Without: per output
    position in the limit of long input, 0.69 million for SpliceAI-10k. One multiply-add is two FLOP.
    """
    channels, skips = params.channels, len(_skip_points(params))
    wide = channels * channels * params.head_width if params.head_width > 1 else 0
    final = channels * len(params.outputs)
    stem = params.in_channels * channels * params.stem_width
    if length is None:
        blocks = sum(2 * channels * channels * width for width, _ in params.blocks)
        return float(stem + blocks + skips * channels * channels + wide + final)
    if length <= context_bp(params):
        raise ValueError(f"length must exceed the context of {context_bp(params)} bp, found {length}")
    left = length - params.stem_width + 1
    total = stem * left
    for width, dilation in params.blocks:
        left -= (width - 1) * dilation
        total += channels * channels * width * (2 * left - (width - 1) * dilation)
        left -= (width - 1) * dilation
    total += skips * channels * channels * left
    return float(total + (wide + final) * (left - params.head_width + 1))


def _skip_points(params: DilatedConvParams) -> list[int]:
    """Numbers of blocks passed where a skip convolution leaves the trunk."""
    if params.skip_every == 0:
        return []
    inner = range(0, len(params.blocks), params.skip_every)
    return [*inner, len(params.blocks)] if params.blocks else [0]


def spliceai_params(flank_nt: int) -> DilatedConvParams:
    """Params of the published SpliceAI-80nt, 400nt, 2k and 10k (Jaganathan et al. 2019).

    Args:
        flank_nt: context in bases, both flanks together: 80, 400, 2000 or 10000.
    """
    groups = {80: 1, 400: 2, 2000: 3, 10000: 4}
    if flank_nt not in groups:
        raise ValueError(f"the published sizes are {', '.join(map(str, groups))}, found {flank_nt}")
    widths = ((11, 1), (11, 4), (21, 10), (41, 25))[: groups[flank_nt]]
    return DilatedConvParams(blocks=tuple(block for block in widths for _ in range(4)))


class DilatedConv(nn.Module):
    """See the module's docstring.

    Args:
        params: the shape.
    """

    Params = DilatedConvParams
    RESULT_VERSION = 1

    def __init__(self, params: DilatedConvParams) -> None:
        super().__init__()
        self.params = params
        channels = params.channels
        self.stem = _conv(params.in_channels, channels, params.stem_width)
        self.blocks = nn.ModuleList(_Block(params, width, dilation) for width, dilation in params.blocks)
        self.skips = nn.ModuleList(_conv(channels, channels, 1) for _ in _skip_points(params))
        self.wide = _conv(channels, channels, params.head_width) if params.head_width > 1 else None
        self.final = _conv(channels, len(params.outputs), 1)
        self._skip_points = _skip_points(params)

    @staticmethod
    def heads(params: DilatedConvParams) -> dict[str, HeadInfo]:
        """The one head, by name."""
        return {params.head: _head_info(params)}

    @staticmethod
    def context_bp(params: DilatedConvParams) -> int:
        """Bases used up, both flanks together."""
        return context_bp(params)

    @staticmethod
    def input_channels(params: DilatedConvParams) -> int:
        """Channels the encoder must give."""
        return params.in_channels

    def forward(self, x_BAL: Tensor) -> dict[str, Tensor]:
        """(B, A, L) -> {head: (B, K, L - context_bp)}, activated, float32.

        Raises:
            ValueError: L does not exceed the context.
        """
        return {self.params.head: activate(self.logits(x_BAL), self.params.activation)}

    def logits(self, x_BAL: Tensor, *, offset_BC: Tensor | None = None) -> Tensor:
        """(B, A, L) -> (B, K, L - context_bp) before the activation, float32.

        Args:
            x_BAL: encoded windows.
            offset_BC: added after the stem, one row per window: a learned species or tissue. At scoring a fixed row
                folds into ``stem.bias`` exactly.
        """
        context = context_bp(self.params)
        length = x_BAL.shape[-1] - context
        if length < 1:
            raise ValueError(f"a window of {x_BAL.shape[-1]} bp does not exceed the context of {context}")
        # float(): under autocast convolutions give bfloat16; the residual path, the skip path and the last layer stay
        # in float32, where many small terms are added up.
        x = self.stem(x_BAL.unsqueeze(2).contiguous(memory_format=torch.channels_last)).float()
        if offset_BC is not None:
            x = x + offset_BC[:, :, None, None]
        top = self._head(x, length).float()
        with torch.autocast(top.device.type, enabled=False):
            logits: Tensor = self.final(top)
        return logits.squeeze(2)

    def _head(self, x: Tensor, length: int) -> Tensor:
        """Trunk and skip path: (B, C, 1, L) -> (B, C, 1, length), what the last 1x1 convolution reads."""
        keep = length + self.params.head_width - 1
        skips = dict(zip(self._skip_points, self.skips, strict=True))
        total: Tensor | None = None
        for passed in range(len(self.blocks) + 1):
            if passed > 0:
                x = self.blocks[passed - 1](x)
            if passed in skips:
                # Cropped before the convolution: only the middle reaches the outputs.
                part = skips[passed](_crop(x, keep)).float()
                total = part if total is None else total.add_(part)
        x = x if total is None else total
        if self.wide is None:
            return x
        act = self.params.nonlinearity
        return _act(self.wide(_act(x, act, own=total is not None)), act, own=True)

    def conv_stack(self) -> ConvStack:
        """The network as a list of convolutions, each with what it reads: the same function, layer by layer."""
        act = self.params.nonlinearity
        layers = [ConvLayer(INPUT, self.stem, is_wide=True)]
        skips = dict(zip(self._skip_points, self.skips, strict=True))
        trunk, total = 0, None
        for passed in range(len(self.blocks) + 1):
            if passed > 0:
                block = self.blocks[passed - 1]
                assert isinstance(block, _Block)
                layers.append(ConvLayer(trunk, block.conv1, before=block.enter, after=block.between))
                layers.append(ConvLayer(len(layers) - 1, block.conv2, residual=trunk, is_wide=True))
                trunk = len(layers) - 1
            if passed in skips:
                skip = skips[passed]
                assert isinstance(skip, nn.Conv2d)
                layers.append(ConvLayer(trunk, skip, residual=total, is_wide=True))
                total = len(layers) - 1
        top = trunk if total is None else total
        if self.wide is not None:
            both = partial(_act, name=act)
            layers.append(ConvLayer(top, self.wide, before=both, after=partial(_act, name=act, own=True)))
            top = len(layers) - 1
        layers.append(ConvLayer(top, self.final, is_exact=True))
        return ConvStack(self.params.head, tuple(layers), partial(activate, activation=self.params.activation))

    def for_inference(self) -> DilatedConv:
        """Fold each block's second normalisation into the convolution before it (in place; cannot be trained on).

        The first one feeds the nonlinearity directly from the residual sum and cannot be folded.
        """
        for block in self.blocks:
            assert isinstance(block, _Block)
            block.fold()
        return self


class _Block(nn.Module):
    """norm, act, conv, norm, act, conv, and the cropped input added: (B, C, 1, L) -> (B, C, 1, L - 2 (W - 1) D)."""

    def __init__(self, params: DilatedConvParams, width: int, dilation: int) -> None:
        super().__init__()
        self.nonlinearity = params.nonlinearity
        self.norm1 = _norm(params)
        self.conv1 = _conv(params.channels, params.channels, width, dilation=dilation)
        self.norm2 = _norm(params)
        self.conv2 = _conv(params.channels, params.channels, width, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(self.between(self.conv1(self.enter(x, own=False))))
        residual = _crop(x, y.shape[-1])
        return y.add_(residual) if y.dtype == residual.dtype else residual + y

    def enter(self, x: Tensor, *, own: bool) -> Tensor:
        """What the first convolution reads."""
        return self._step(x, self.norm1, own=own)

    def between(self, x: Tensor) -> Tensor:
        """What the second convolution reads, from what the first gives."""
        return self._step(x, self.norm2, own=True)

    def _step(self, x: Tensor, norm: nn.Module | None, *, own: bool) -> Tensor:
        """Normalise and activate; `own`: x is no one else's and may be overwritten."""
        return _act(x if norm is None else norm(x), self.nonlinearity, own=own or norm is not None)

    def fold(self) -> None:
        if not isinstance(self.norm2, _BatchNorm):
            return
        scale, shift = self.norm2.scale_shift()
        assert self.conv1.bias is not None
        with torch.no_grad():
            self.conv1.weight.mul_(scale[:, None, None, None])
            self.conv1.bias.mul_(scale).add_(shift)
        self.norm2 = None


class _BatchNorm(nn.Module):
    """Batch normalisation without the step counter, which would be one more tensor in every model file."""

    def __init__(self, channels: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.mean: Tensor
        self.variance: Tensor
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        statistics = (self.mean, self.variance)
        return F.batch_norm(
            x, *statistics, self.weight, self.bias, self.training, momentum=_KERAS_MOMENTUM, eps=self.epsilon
        )

    def scale_shift(self) -> tuple[Tensor, Tensor]:
        """The same as one multiplication and one addition per channel."""
        scale = self.weight / torch.sqrt(self.variance + self.epsilon)
        return scale, self.bias - self.mean * scale


class _LayerNorm(nn.Module):
    """Over the channels of one position, so that an output still depends on its context alone."""

    def __init__(self, channels: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        x_BHLC = x.permute(0, 2, 3, 1)
        y_BHLC: Tensor = F.layer_norm(x_BHLC, (x.shape[1],), self.weight, self.bias, self.epsilon)
        return y_BHLC.permute(0, 3, 1, 2)


def _norm(params: DilatedConvParams) -> nn.Module | None:
    if params.norm == "none":
        return None
    kind = _BatchNorm if params.norm == "batch" else _LayerNorm
    return kind(params.channels, params.norm_epsilon)


def _conv(channels_in: int, channels_out: int, width: int, *, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, (1, width), dilation=(1, dilation))


def _crop(x: Tensor, length: int) -> Tensor:
    """The middle `length` positions."""
    return x.narrow(-1, (x.shape[-1] - length) // 2, length)


def _act(x: Tensor, name: str, *, own: bool) -> Tensor:
    if name == "relu":
        return F.relu(x, inplace=own)
    if name == "leaky_relu":
        return F.leaky_relu(x, _LEAK, inplace=own)
    return F.gelu(x) if name == "gelu" else F.silu(x)


def activate(logits_BKL: Tensor, activation: str) -> Tensor:
    """Apply a head's activation, softmax over the channels; always in float32."""
    table: Mapping[str, Any] = {
        "softmax": lambda x: torch.softmax(x, dim=1),
        "sigmoid": torch.sigmoid,
        "softplus": F.softplus,
        "identity": lambda x: x,
    }
    made: Tensor = table[activation](logits_BKL.float())
    return made


COMPONENT = DilatedConv
