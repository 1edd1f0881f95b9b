"""The large frozen projections in FP8 while training: half the bytes of 16 bits, and products of twice the peak rate.

A weight has a scale for each output channel, activations and gradients one for each token: in e4m3, whose 3 bits of
mantissa leave a value a relative error of 2.4%. With a scale for each token its 4 bits of exponent are enough for
gradients, too: rounding them moves an adapter's gradient by 3.7%, and 7.6% in e5m2 (Gemma 3 270M). Source: torchao's
recipe ``rowwise``, likewise e4m3 for all, with the products' fast accumulation.

The weight is there once. The backward pass multiplies the gradient by the weight's scales before it is quantised, and
then by the weight's own codes, which it turns round first, since the kernels read both operands along the sum. So the
gradient is that of what the forward pass computed; a second copy, quantised along the other side, would have scales
of its own, other rounding, and as many bytes as 16 bits.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from titlegen.errors import TrainError
from titlegen.train.trim import text_model

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from titlegen.train.trim import CompletionTrim

# With fewer weights quantising the activations takes longer than FP8 saves.
LARGE = 2**24
_LARGEST = 448.0  # Source: torch.finfo(torch.float8_e4m3fn).max
# Root mean square of rounding to 3 bits over that of values, both even between two powers of two.
ROUNDING = 2**-3 / math.sqrt(12) / math.sqrt(7 / 3)


class Projection(NamedTuple):
    """A linear layer, and where it stands."""

    parent: nn.Module
    name: str
    linear: nn.Module
    place: str


def quantise(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return values (rows, columns) in e4m3, and the scale of each row, (rows, 1) float32.

    Written for the compiler, which makes it part of whatever computes the values.
    """
    import torch

    wide = values.float()
    scales = (wide.abs().amax(-1, keepdim=True) / _LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
    return (wide / scales).to(torch.float8_e4m3fn).contiguous(), scales


def multiply(left: Tensor, left_scales: Tensor, right: Tensor, right_scales: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the product of (m, k) and (k, n) codes, the second stored column by column; scales: (m, 1) and (1, n)."""
    import torch

    product: Tensor = torch._scaled_mm(  # noqa: SLF001 - torch has no other product of FP8 that it compiles
        left, right, scale_a=left_scales, scale_b=right_scales, out_dtype=dtype, use_fast_accum=True
    )
    return product


@cache
def _linear_fp8() -> type[nn.Module]:
    import torch

    class Product(torch.autograd.Function):
        """A product with a frozen weight in FP8 that keeps no activation for the backward pass."""

        @staticmethod
        def forward(ctx: Any, inputs: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
            ctx.save_for_backward(codes, scales)
            return multiply(*quantise(inputs), codes.t(), scales.t(), inputs.dtype)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
            codes, scales = ctx.saved_tensors
            ones = torch.ones(1, codes.shape[1], device=codes.device)
            turned = codes.t().contiguous().t()
            return multiply(*quantise(gradient.float() * scales.t()), turned, ones, gradient.dtype), None, None

    class LinearFP8(torch.nn.Module):
        """A frozen linear layer in FP8 without bias."""

        def __init__(self, weight: Tensor) -> None:
            super().__init__()
            codes, scales = quantise(weight)
            self.codes, self.scales = torch.nn.Buffer(codes), torch.nn.Buffer(scales)

        def forward(self, inputs: Tensor) -> Tensor:
            rows = inputs.reshape(-1, self.codes.shape[1])
            product: Tensor = Product.apply(rows, self.codes, self.scales)  # type: ignore[no-untyped-call]
            return product.view(*inputs.shape[:-1], -1)

    return LinearFP8


def check_fp8() -> None:
    """Check that the card multiplies in FP8 with a scale for each row, before anything is downloaded.

    Raises:
        TrainError: it does not, or there is none.
    """
    import torch

    if not torch.cuda.is_available():
        raise TrainError(
            "train.fp8 needs an NVIDIA GPU of compute capability 8.9 or later, and torch sees none; leave it off"
        )
    codes, scales = quantise(torch.ones(16, 16, device="cuda"))
    try:
        multiply(codes, scales, codes.t(), scales.t(), torch.bfloat16)
    except RuntimeError as error:
        name, capability = torch.cuda.get_device_name(), ".".join(map(str, torch.cuda.get_device_capability()))
        raise TrainError(
            "train.fp8 needs a card that multiplies in FP8 with a scale for each row (compute capability 8.9 or "
            f"later), and {name} ({capability}) does not: {str(error).splitlines()[0]}; leave it off"
        ) from error


def check_compiled(trim: CompletionTrim) -> None:
    """Check after the trial passes that layers were compiled: quantising is slow by itself.

    Raises:
        TrainError: the compiler failed; a warning has said why.
    """
    import torch

    if torch.cuda.is_available() and not trim.compiled:
        raise TrainError(
            "train.fp8 gains nothing without compiling, which failed as the warning above says; install what is "
            "missing, or leave train.fp8 off"
        )


def large_projections(model: PreTrainedModel | PeftModel) -> list[Projection]:
    """Return the large frozen projections of a model's layers.

    Raises:
        TrainError: none is large.
    """
    large = [
        Projection(parent, name, child, f"layer {index}: {path}.{name}".removesuffix(".base_layer"))
        for index, layer in enumerate(text_model(model).layers)
        for path, parent in layer.named_modules()
        for name, child in parent.named_children()
        if _is_large(child)
    ]
    if not large:
        raise TrainError(f"train.fp8 gains nothing: no projection of this model has {LARGE:,} weights; leave it off")
    return large


def in_fp8(linear: Any) -> nn.Module:
    """Return a linear layer in FP8."""
    return _linear_fp8()(weight_of(linear))


def weight_of(linear: Any) -> Tensor:
    """Return the weight of a linear layer, in 4 bits or not, (out, in)."""
    weight: Tensor = linear.dense() if hasattr(linear, "dense") else linear.weight.data
    return weight


def quantise_weights(model: PreTrainedModel | PeftModel) -> None:
    """Put the large frozen projections of a model's layers into FP8, one after another.

    Raises:
        TrainError: none is large.
    """
    import torch

    for parent, name, linear, _ in large_projections(model):
        setattr(parent, name, in_fp8(linear))
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _is_large(module: nn.Module) -> bool:
    size = getattr(module, "in_features", 0) * getattr(module, "out_features", 0)
    frozen = not any(parameter.requires_grad for parameter in module.parameters())
    return size >= LARGE and frozen and getattr(module, "bias", None) is None
