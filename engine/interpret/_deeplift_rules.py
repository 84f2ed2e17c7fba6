"""DeepLIFT's rules for functions, where captum has them for modules.

captum hooks modules such as nn.ReLU; the networks here call functions. Inside `FunctionRules` each call of a nonlinear
function on a batch whose first half are the inputs and whose second half are their baselines, as captum's DeepLift
stacks them, gives the same values, and as its gradient the multipliers, of which the contributions are the product with
the differences from the baseline:

    one argument           the rescale rule, dy / dx, and the mean of both derivatives where dx is too small for that
                           (Shrikumar et al. 2017, Learning important features through propagating activation
                           differences, arXiv 1704.02685, section 3.5.1)
    a product of two       each factor's difference times the mean of the other: the Shapley values of two players, as
                           Chen, Lundberg and Lee 2022 propagate them (Nature Communications 13:4512)
    a maximum              captum's rule for pooling: through the larger of both maxima
    softmax, layer norm,   made up of the above
    attention

Everything linear keeps its gradient. So contributions sum to the difference of outputs whatever is called, as long as
it is one of these; what is not shows in the error that is reported for every record.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Rule = Callable[..., Any]
# Below this share of the argument the mean derivative is nearer to the truth than a quotient of rounded numbers.
_SMALL = 1e-3


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    one, other = x.detach().chunk(2)
    return one, other


def _both(half: Tensor) -> Tensor:
    return torch.cat((half, half))


def _linear_through(y: Tensor, *parts: tuple[Tensor, Tensor]) -> Tensor:
    """The value of y, and of each (x, multiplier) the gradient."""
    total = y.detach()
    for x, multiplier in parts:
        total = total + multiplier * (x - x.detach())
    return total


def _mean(x: Tensor) -> Tensor:
    """The mean of both halves, for both."""
    one, other = _halves(x)
    return _both((one + other) / 2)


def _rescaled(function: Rule, x: Tensor, *given: Any, exact: bool = False, **named: Any) -> Tensor:
    """The rescale rule; `exact`: the function is straight but for a corner, so that any quotient is good."""
    with torch.enable_grad():
        probe = x.detach().requires_grad_()
        y = function(probe, *given, **named)
        (slope,) = torch.autograd.grad(y.sum(), probe)
    (x_in, x_ref), (y_in, y_ref) = _halves(x), _halves(y)
    change = x_in - x_ref
    size = (x_in.abs() + x_ref.abs()).clamp(_SMALL, 1.0)
    is_small = change == 0 if exact else change.abs() < _SMALL * size
    quotient = (y_in - y_ref) / change.masked_fill(is_small, 1.0)
    multiplier = torch.where(is_small, sum(_halves(slope)) / 2, quotient)
    return _linear_through(y, (x, _both(multiplier)))


def _straight(function: Rule) -> Rule:
    def rule(x: Tensor, *given: Any, inplace: bool = False, **named: Any) -> Tensor:  # noqa: ARG001 - never in place
        return _rescaled(function, x, *given, exact=True, **named)

    return rule


def _curved(function: Rule) -> Rule:
    def rule(x: Tensor, *given: Any, inplace: bool = False, **named: Any) -> Tensor:  # noqa: ARG001
        return _rescaled(function, x, *given, **named)

    return rule


def _product(one: Any, other: Any) -> Any:
    if not _depends(one) or not _depends(other):
        return one * other
    return _linear_through(one * other, (one, _mean(other)), (other, _mean(one)))


def _quotient(one: Any, other: Any) -> Any:
    return one / other if not _depends(other) else _product(one, _rescaled(torch.reciprocal, other))


def _matrix_product(one: Tensor, other: Tensor) -> Tensor:
    if not _depends(one) or not _depends(other):
        return torch.matmul(one, other)
    y = torch.matmul(one, other).detach()
    left = torch.matmul(one - one.detach(), _mean(other))
    return y + left + torch.matmul(_mean(one), other - other.detach())


def _square(x: Tensor) -> Tensor:
    return _rescaled(torch.square, x)


def _softmax(x: Tensor, dim: int | None = None, *given: Any, **named: Any) -> Any:
    dim = _only(dim, {**named, "further": given or None})
    # The same shift for a row and its baseline: it then cancels.
    one, other = _halves(x.amax(dim=dim, keepdim=True))
    powers = _rescaled(torch.exp, x - _both(torch.maximum(one, other)))
    return _product(powers, _rescaled(torch.reciprocal, powers.sum(dim=dim, keepdim=True)))


def _only(dim: int | None, named: dict[str, Any]) -> int:
    rest = [key for key, value in named.items() if value not in (None, torch.float32) and key != "_stacklevel"]
    if dim is None or rest:
        raise NotImplementedError("softmax with other arguments than a dimension")
    return int(dim)


def _layer_norm(
    x: Tensor, shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Any:
    dims = tuple(range(-len(shape), 0))
    centred = x - x.mean(dim=dims, keepdim=True)
    variance = _square(centred).mean(dim=dims, keepdim=True)
    y = _product(centred, _rescaled(_inverse_root, variance, eps))
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _inverse_root(variance: Tensor, eps: float) -> Tensor:
    return torch.rsqrt(variance + eps)


def _attention(  # noqa: PLR0917 - as torch has them
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    if dropout_p or is_causal:
        raise NotImplementedError("attention with dropout or a causal mask")
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = _matrix_product(query, key.transpose(-2, -1)) * factor
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -1e9) if attn_mask.dtype == torch.bool else scores + attn_mask
    return _matrix_product(_softmax(scores, dim=-1), value)


def _through_maximum(x: Tensor, y: Tensor, places: Tensor) -> Tensor:
    """The maximum y of (.., L) along the last axis, found at `places` (.., M), with captum's rule."""
    (y_in, y_ref), change = _halves(y), _halves(x)[0] - _halves(x)[1]
    top = torch.maximum(y_in, y_ref)
    of_input, of_baseline = places.chunk(2)
    parts = []
    for there, gain in ((of_input, top - y_ref), (of_baseline, y_in - top)):
        differs = change.gather(-1, there)
        # Both have one sign, and the gain is never the larger.
        multiplier = torch.where(gain == 0, 0.0, gain / differs.masked_fill(differs == 0, 1.0))
        parts.append(((x - x.detach()).gather(-1, _both(there)), _both(multiplier)))
    return y.detach() + sum(moved * multiplier for moved, multiplier in parts)


def _amax(x: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    if not isinstance(dim, int):
        raise NotImplementedError("a maximum over several dimensions")
    moved = x.movedim(dim, -1)
    y, places = moved.detach().max(dim=-1, keepdim=True)
    found = _through_maximum(moved, y, places).movedim(-1, dim)
    return found if keepdim else found.squeeze(dim)


def _max_pool1d(  # noqa: PLR0917 - as torch has them
    x: Tensor,
    kernel_size: int,
    stride: int | None = None,
    padding: int = 0,
    dilation: int = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    if return_indices:
        raise NotImplementedError("pooling that gives its places")
    y, places = F.max_pool1d(x.detach(), kernel_size, stride, padding, dilation, ceil_mode, return_indices=True)
    return _through_maximum(x, y, places)


def _rules() -> dict[Any, Rule]:
    straight: dict[Any, tuple[Any, ...]] = {
        F.relu: (F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_),
        F.leaky_relu: (F.leaky_relu,),
        torch.abs: (torch.abs, Tensor.abs),
    }
    curved: dict[Any, tuple[Any, ...]] = {
        F.gelu: (F.gelu,),
        F.silu: (F.silu,),
        F.elu: (F.elu,),
        F.softplus: (F.softplus,),
        torch.sigmoid: (torch.sigmoid, Tensor.sigmoid, F.sigmoid),
        torch.tanh: (torch.tanh, Tensor.tanh, F.tanh),
        torch.exp: (torch.exp, Tensor.exp),
        torch.log: (torch.log, Tensor.log),
        torch.log1p: (torch.log1p, Tensor.log1p),
        torch.sqrt: (torch.sqrt, Tensor.sqrt),
        torch.rsqrt: (torch.rsqrt, Tensor.rsqrt),
        torch.square: (torch.square, Tensor.square),
        torch.reciprocal: (torch.reciprocal, Tensor.reciprocal),
        torch.clamp_min: (torch.clamp_min, Tensor.clamp_min),
    }
    found: dict[Any, Rule] = {}
    for kinds, make in ((straight, _straight), (curved, _curved)):
        for function, names in kinds.items():
            found |= dict.fromkeys(names, make(function))
    found |= dict.fromkeys((torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__), _product)
    found |= dict.fromkeys((torch.div, Tensor.div, Tensor.__truediv__), _quotient)
    found |= dict.fromkeys((torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm), _matrix_product)
    found |= dict.fromkeys((torch.softmax, Tensor.softmax, F.softmax), _softmax)
    found |= dict.fromkeys((torch.amax, Tensor.amax), _amax)
    found |= dict.fromkeys((F.max_pool1d, torch.max_pool1d), _max_pool1d)
    return found | {F.layer_norm: _layer_norm, F.scaled_dot_product_attention: _attention}


RULES = _rules()


def _depends(x: Any) -> bool:
    return isinstance(x, Tensor) and x.requires_grad


class FunctionRules(TorchFunctionMode):
    """See the module's docstring; a context."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """As torch calls it for every function."""
        rule = RULES.get(func)
        # Not before the inputs are among them: nothing then differs between the halves.
        if rule is None or not any(_depends(one) for one in args[:3]):
            return func(*args, **(kwargs or {}))
        return rule(*args, **(kwargs or {}))
