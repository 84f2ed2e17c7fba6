"""A site network beside two classic grammars of splicing: position weight matrices and a hexamer table.

Heads, all (B, K, L - context_bp), channel order as listed:

    splice    none, acceptor, donor: probabilities from a dilated convolution network (engine/models/dilated_conv.py)
    pwm       acceptor, donor: log-odds of a site here, from a position weight matrix of order 0 or 1
              (Zhang and Marr 1993, CABIOS 9:499)
    hexamer   score of the hexamer whose first base is here, such as the log-ratio of its frequency in exons and introns
              (Fairbrother et al. 2002, Science 297:1007, on hexamers as exonic signals); 0 where it holds an N

Site convention, that of SpliceAI: a site stands on the first base of an exon (acceptor) or on its last (donor), on the
transcript strand. The three heads share positions.

Shape letters: B batch, L positions, W bases of a matrix, P the 16 pairs of bases (previous base first).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.models._info import HeadInfo
from engine.models.dilated_conv import DilatedConv, DilatedConvParams

HEXAMERS = 4096
_SITE_HEAD = ("none", "acceptor", "donor")
_OWN_VERSION = 1


@dataclass(frozen=True, slots=True)
class SpliceGrammarParams:
    """What fixes the shape of the model.

    Attributes:
        net: params of the site network; its head must be "splice" with channels none, acceptor, donor, softmax.
        acceptor_span: (start, end) of the acceptor matrix, in bases from the exon's first base, end not included:
            (-20, 3) holds 20 intron bases and 3 exon bases.
        donor_span: the same from the exon's last base: (-2, 7) holds 3 exon bases and 6 intron bases.
        acceptor_offset: where the exon's first base lies from the base the network was taught to call an acceptor.
        donor_offset: the same for the exon's last base and the donor.
    """

    net: DilatedConvParams = field(default_factory=DilatedConvParams)
    acceptor_span: tuple[int, int] = (-20, 3)
    donor_span: tuple[int, int] = (-2, 7)
    acceptor_offset: int = 0
    donor_offset: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.net, Mapping):
            object.__setattr__(self, "net", DilatedConvParams(**self.net))
        if not isinstance(self.net, DilatedConvParams):
            raise ValueError(f"net must be a table of parameters, found {self.net!r}")
        for name in ("acceptor_span", "donor_span"):
            object.__setattr__(self, name, _span(name, getattr(self, name)))
        for name in ("acceptor_offset", "donor_offset"):
            value = getattr(self, name)
            if type(value) is not int or abs(value) > 1000:
                raise ValueError(f"{name} must be a whole number within 1000, found {value!r}")
        if self.net.head != "splice" or self.net.outputs != _SITE_HEAD or self.net.activation != "softmax":
            raise ValueError("net must have the head 'splice' with channels none, acceptor, donor and a softmax")
        if self.net.in_channels != 4 or self.net.symmetry != "stranded":
            raise ValueError("net must read 4 channels and be stranded")


def _span(name: str, value: Any) -> tuple[int, int]:
    if len(value) != 2 or not all(type(number) is int for number in value):
        raise ValueError(f"{name} must be two whole numbers, found {value!r}")
    start, end = value
    if not -1000 <= start < end <= 1000:
        raise ValueError(f"{name} must run from a lower to a higher number within 1000, found {value!r}")
    return start, end


def context_bp(params: SpliceGrammarParams) -> int:
    """Bases used up, both flanks together: whatever reaches furthest of network, matrices and hexamer."""
    offsets = (abs(params.acceptor_offset), abs(params.donor_offset))
    spans = (*params.acceptor_span, *params.donor_span)
    # A span's end is not included; 5 bases follow the first of a hexamer.
    reach = max(5, *(-start for start in spans), *(end - 1 for end in spans))
    return 2 * max(DilatedConv.context_bp(params.net) // 2 + max(offsets), reach)


class SpliceGrammar(nn.Module):
    """See the module's docstring. The network trains; matrices and hexamers are counted, and fixed.

    Buffers, all float32, natural logarithms:

        acceptor_base, donor_base (4, W): log-odds of base A, C, G, T at each base of the span.
        acceptor_pair, donor_pair (16, W - 1): what is added for the base before; row 4 * previous + base, column i for
            the pair at span bases i and i + 1.
        hexamer_score (4096,): row of a hexamer is its number in base 4, A=0 C=1 G=2 T=3, first base highest.

    A matrix's log-odds are the sum of both parts; an N adds nothing, so the encoder must give zeros for it. Order 0
    leaves the pairs at zero; order 1 fills both, the pairs with the log-odds of a base given the one before it less its
    own. Where the base before is an N, its own are what is left.
    """

    Params = SpliceGrammarParams
    # Both numbers only rise, so a change of either makes another sum.
    RESULT_VERSION = _OWN_VERSION + DilatedConv.RESULT_VERSION
    acceptor_base: Tensor
    acceptor_pair: Tensor
    donor_base: Tensor
    donor_pair: Tensor
    hexamer_score: Tensor

    def __init__(self, params: SpliceGrammarParams) -> None:
        super().__init__()
        self.params = params
        self.net = DilatedConv(params.net)
        for name, (start, end) in (("acceptor", params.acceptor_span), ("donor", params.donor_span)):
            self.register_buffer(f"{name}_base", torch.zeros(4, end - start))
            self.register_buffer(f"{name}_pair", torch.zeros(16, end - start - 1))
        self.register_buffer("hexamer_score", torch.zeros(HEXAMERS))

    @staticmethod
    def heads(params: SpliceGrammarParams) -> dict[str, HeadInfo]:
        """splice, pwm and hexamer."""
        pwm = HeadInfo(
            name="pwm",
            channels=("acceptor", "donor"),
            activation="identity",
            symmetry="stranded",
            meaning="natural log-odds of a site on this base against the background, by position weight matrix",
        )
        hexamer = HeadInfo(
            name="hexamer",
            channels=("score",),
            activation="identity",
            symmetry="stranded",
            meaning="table score of the hexamer whose first base is here; 0 where it holds an N",
        )
        return {**DilatedConv.heads(params.net), "pwm": pwm, "hexamer": hexamer}

    @staticmethod
    def context_bp(params: SpliceGrammarParams) -> int:
        """Bases used up, both flanks together."""
        return context_bp(params)

    @staticmethod
    def input_channels(params: SpliceGrammarParams) -> int:
        """Channels the encoder must give: one-hot bases, N as zeros."""
        return params.net.in_channels

    @staticmethod
    def check_encoder(encoder: Any) -> None:
        """Refuse an encoder that makes an N of anything but zeros: the matrices would add a quarter of each base.

        Raises:
            ValueError: it does.
        """
        unknown = getattr(encoder.params, "unknown", "zero")
        if unknown != "zero":
            raise ValueError(f"splice_grammar reads N as zeros, and the encoder gives {unknown!r}")

    def forward(self, x_BAL: Tensor) -> dict[str, Tensor]:
        """(B, 4, L) one-hot, N as zeros -> {"splice": (B, 3, M), "pwm": (B, 2, M), "hexamer": (B, 1, M)}.

        M = L - context_bp; float32.

        Raises:
            ValueError: L does not exceed the context.
        """
        num_outputs = x_BAL.shape[-1] - context_bp(self.params)
        if num_outputs < 1:
            used = context_bp(self.params)
            raise ValueError(f"a window of {x_BAL.shape[-1]} bp does not exceed the context of {used}")
        splice = self._splice(x_BAL, num_outputs)
        # The grammars are sums of a few table values: low precision would only cost digits.
        with torch.autocast(x_BAL.device.type, enabled=False):
            return {
                "splice": splice,
                "pwm": self._pwm(x_BAL, num_outputs),
                "hexamer": self._hexamer(x_BAL, num_outputs),
            }

    def for_inference(self) -> SpliceGrammar:
        """Fold normalisations of the network (in place; cannot be trained on)."""
        self.net.for_inference()
        return self

    def _splice(self, x_BAL: Tensor, num_outputs: int) -> Tensor:
        middle = context_bp(self.params) // 2
        flank = DilatedConv.context_bp(self.params.net) // 2
        offsets = (self.params.acceptor_offset, self.params.donor_offset)
        if offsets == (0, 0):
            begin = middle - flank
            window = x_BAL[:, :, begin : begin + num_outputs + 2 * flank]
            return self.net(window)["splice"]  # type: ignore[no-any-return]
        # Output i of the network sits at input i + flank; the site it names lies `offset` further on.
        labels = self.net(x_BAL)["splice"]
        begins = [middle - flank - offset for offset in offsets]
        sites = [labels[:, row, at : at + num_outputs] for row, at in enumerate(begins, start=1)]
        # The channels now come from different bases, so that "none" is what they leave.
        none = (1 - sites[0] - sites[1]).clamp_min(0)
        return torch.stack([none, *sites], dim=1)

    def _pwm(self, x_BAL: Tensor, num_outputs: int) -> Tensor:
        middle = context_bp(self.params) // 2
        x = x_BAL.float()
        pairs_BPL = (x[:, :, None, :-1] * x[:, None, :, 1:]).flatten(1, 2)
        sums = []
        for base, pair, span in (
            (self.acceptor_base, self.acceptor_pair, self.params.acceptor_span),
            (self.donor_base, self.donor_pair, self.params.donor_span),
        ):
            begin = middle + span[0]
            used = num_outputs + span[1] - span[0] - 1
            total = F.conv1d(x[:, :, begin : begin + used], base[None])
            if pair.shape[1]:
                total = total + F.conv1d(pairs_BPL[:, :, begin : begin + used - 1], pair[None])
            sums.append(total)
        return torch.cat(sums, dim=1)

    def _hexamer(self, x_BAL: Tensor, num_outputs: int) -> Tensor:
        middle = context_bp(self.params) // 2
        x = x_BAL[:, :, middle : middle + num_outputs + 5]
        digit_BL = x.argmax(dim=1)
        known_BL = x.amax(dim=1) > 0.5  # an N is all zeros
        row = torch.zeros_like(digit_BL[:, :num_outputs])
        known = torch.ones_like(known_BL[:, :num_outputs])
        for step in range(6):
            row = row * 4 + digit_BL[:, step : step + num_outputs]
            known = known & known_BL[:, step : step + num_outputs]
        return torch.where(known, self.hexamer_score[row], 0.0).unsqueeze(1)


def set_matrix(model: SpliceGrammar, site: str, base_4W: Tensor, *, pair_PW: Tensor | None = None) -> None:
    """Fill one position weight matrix.

    Args:
        model: changed in place.
        site: "acceptor" or "donor".
        base_4W: natural log-odds (4, W); see SpliceGrammar for the layout.
        pair_PW: (16, W - 1), or none for order 0.

    Raises:
        ValueError: another shape than the params give, or a value that is not finite.
    """
    if site not in ("acceptor", "donor"):
        raise ValueError(f"site must be 'acceptor' or 'donor', found {site!r}")
    pairs = torch.zeros(16, base_4W.shape[1] - 1) if pair_PW is None else pair_PW
    _fill(getattr(model, f"{site}_base"), base_4W, f"{site} base matrix")
    _fill(getattr(model, f"{site}_pair"), pairs, f"{site} pair matrix")


def set_hexamers(model: SpliceGrammar, scores: Tensor) -> None:
    """Fill the hexamer table, (4096,), in place; refuses as set_matrix does."""
    _fill(model.hexamer_score, scores, "hexamer table")


def _fill(buffer: Tensor, values: Tensor, what: str) -> None:
    if values.shape != buffer.shape:
        raise ValueError(f"the {what} must have shape {tuple(buffer.shape)}, found {tuple(values.shape)}")
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"the {what} holds a value that is not finite")
    buffer.copy_(values)


COMPONENT = SpliceGrammar
