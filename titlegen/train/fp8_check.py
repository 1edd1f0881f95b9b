"""Whether a model in FP8 is as near to the one in 16 bits as rounding explains, product by product and as a whole.

How far rounding carries is the model's own affair. A sparse gate, as in Gemma 3n's first ten layers, keeps what lies
1.645 standard deviations or more above the mean: what is left of it is half as large as its values, so their errors
weigh twice. Behind it random weights carry each layer's error on and make it larger. No number of layers says by how
much, so it is measured: the model in 16 bits is given errors at random, in the same places and of the same size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from titlegen.errors import TrainError
from titlegen.train.fp8 import ROUNDING, in_fp8, large_projections, quantise_weights, weight_of
from titlegen.train.packed import pack

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

    from titlegen.train.encode import Batch
    from titlegen.train.trim import CompletionTrim

# Rounding to 3 bits is at most 1.53 times as large as ROUNDING, where all values lie just above a power of two; sums
# in the products' fast accumulation add to that. A wrong product is off by 20 times or more.
_MOST = 2.0
# Of a sum itself: its rounding to 16 bits, and what the errors of its summands have in common: 0.003 where activations
# and weights, those in 4 bits before, are all positive.
_SHARED = 2**-7


class Compared(NamedTuple):
    """A model in FP8 beside itself in 16 bits."""

    loss: float
    """In FP8."""
    error: float
    """Relative error of the final hidden states."""
    explained: float
    """That of the model in 16 bits whose large products have random errors of the size of rounding."""


def use_fp8(trim: CompletionTrim, model: PreTrainedModel | PeftModel, inputs: Batch) -> Compared:
    """Put the large frozen projections into FP8, and compare the final hidden states of a batch with those before.

    The losses alone would not do: with random weights they hardly depend on the model. Nor would the states: where
    rounding is carried far, a single wrong product of a hundred would hide behind it.

    Raises:
        TrainError: a product, or the model, is further off than rounding explains, or no projection is large.
    """
    import torch

    packed, training = pack(inputs), model.training
    model.eval()
    try:
        with torch.no_grad():
            before = trim.states(packed).float()
            with _rounded(model):
                explained = relative_error(trim.states(packed), before)
            quantise_weights(model)
            error = relative_error(trim.states(packed), before)
            loss = float(trim({"packed": packed}))
    finally:
        model.train(training)
    # At 1 the states are as far off as none at all.
    tolerance = min(_MOST * explained, 1.0)
    if not error <= tolerance:
        raise TrainError(
            f"with train.fp8 the final hidden states are {error:.3g} off those without, and rounding explains "
            f"{tolerance:.2g}; leave train.fp8 off, and report this model"
        )
    return Compared(loss, error, explained)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return the size of a difference over that of what was expected, which is in float32."""
    return float((found.float() - expected).norm() / expected.norm())


@contextmanager
def _rounded(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Check each large product where it is computed, and give its result errors of the size of rounding."""
    import torch

    projections = large_projections(model)
    generator = torch.Generator(weight_of(projections[0].linear).device).manual_seed(0)
    with ExitStack() as hooks:
        for *_, linear, place in projections:
            hooks.enter_context(linear.register_forward_hook(partial(_round, place, generator)))
        yield


def _round(place: str, generator: torch.Generator, linear: Any, arguments: tuple[Tensor], output: Tensor) -> Tensor:
    """Return a product with errors as FP8 makes them, after a look at those that it does make.

    Both operands of each of the products that are summed are rounded. So a sum's error is ROUNDING * sqrt(2) times
    the root of the summands' squares, and hardly depends on the sum itself.

    Raises:
        TrainError: its own are larger.
    """
    import torch
    import torch.nn.functional as F  # noqa: N812 - torch's own convention

    weight, inputs = weight_of(linear), arguments[0]
    squares = F.linear(inputs.to(weight.dtype).square(), weight.square()).float()
    size = (2 * ROUNDING**2 * squares + (_SHARED * output.float()) ** 2).sqrt()
    found = in_fp8(linear)(inputs).float() - output.float()
    # Token by token, so that no large one decides alone. A sparse gate may leave nothing of one.
    expected = size.norm(dim=-1).clamp(min=torch.finfo(torch.float32).tiny)
    share = float((found.norm(dim=-1) / expected).square().mean().sqrt())
    if not share <= _MOST:
        raise TrainError(
            f"with train.fp8 the product in {place} is {share:.3g} times as far off as rounding to FP8 is; leave "
            "train.fp8 off, and report this model and card"
        )
    errors = torch.randn(size.shape, generator=generator, device=size.device) * size
    return (output.float() + errors).to(output.dtype)
