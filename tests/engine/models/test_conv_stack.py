from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from engine.models._conv_stack import INPUT, ConvLayer, ConvStack
from engine.models.dilated_conv import NONLINEARITIES, DilatedConv, DilatedConvParams, context_bp, spliceai_params


def conv(width: int, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(1, 1, (1, width), dilation=(1, dilation))


def walked(stack: ConvStack, x_BAL: torch.Tensor) -> torch.Tensor:
    """The head's values by the layers, each as long as its source allows, residuals cropped in the middle."""
    cells: list[torch.Tensor] = []
    for layer in stack.layers:
        source = x_BAL.unsqueeze(2) if layer.source == INPUT else cells[layer.source]
        length = source.shape[-1] - 2 * layer.halo
        residual = None if layer.residual is None else cells[layer.residual]
        if residual is not None and residual.shape[-1] < length:
            aside = (length - residual.shape[-1]) // 2
            source = source[..., aside : source.shape[-1] - aside]
            length = residual.shape[-1]
        if residual is not None:
            aside = (residual.shape[-1] - length) // 2
            residual = residual[..., aside : aside + length]
        cells.append(layer(source, residual, own=False))
    return stack.activate(cells[-1].squeeze(2))


@settings(max_examples=60, deadline=None)
@given(
    blocks=st.lists(st.tuples(st.sampled_from([1, 3, 5]), st.integers(1, 3)), max_size=3).map(tuple),
    skip_every=st.integers(0, 2),
    head_width=st.sampled_from([1, 3]),
    norm=st.sampled_from(["batch", "layer", "none"]),
    nonlinearity=st.sampled_from(NONLINEARITIES),
    seed=st.integers(0, 99),
)
def test_the_layers_are_the_network(seed, **shape):
    torch.manual_seed(seed)
    params = DilatedConvParams(channels=3, **shape)
    net = DilatedConv(params).eval().for_inference()
    x = torch.randn(2, 4, context_bp(params) + 5)
    with torch.inference_mode():
        expected = net(x)["splice"]
        found = walked(net.conv_stack(), x)
    aside = (found.shape[-1] - 5) // 2
    torch.testing.assert_close(found[..., aside : aside + 5], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("flank", [80, 400, 2000, 10_000])
def test_the_geometry_of_the_published_networks(flank):
    """All of the context is reached and needed, and no more."""
    params = spliceai_params(flank)
    stack = DilatedConv(params).conv_stack()
    assert stack.reach()[-1] == stack.need()[INPUT] == flank // 2
    assert stack.reach()[0] == 0 and stack.need()[0] == flank // 2


def test_reach_and_need_go_through_residuals():
    """A residual may reach further than the source, and be read further out than it."""
    layers = (ConvLayer(INPUT, conv(9)), ConvLayer(INPUT, conv(3)), ConvLayer(1, conv(1), residual=0))
    stack = ConvStack("h", (*layers, ConvLayer(2, conv(3, dilation=2))), torch.sigmoid)
    assert stack.reach() == (4, 1, 4, 6)
    assert stack.need() == (2, 2, 2, 0, 6)
    assert stack.last_use() == (2, 2, 3, 3)
