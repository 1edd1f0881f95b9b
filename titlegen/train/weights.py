"""The frozen weights while training: in 4 bits or unpacked, and the per-layer embeddings on the host."""

from __future__ import annotations

import math
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeGuard

from titlegen.train.memory import gpu_memory
from titlegen.train.trim import text_model

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from titlegen.families.modules import TextModel

# Share of the free memory that unpacked copies of the 4-bit weights may take; the rest holds activations.
_COPY_SHARE = 0.5
# The table of per-layer embeddings moves to the host when it is larger than this share of what is left for activations:
# with fewer rows at a time, launching a pass takes longer than running it.
_TABLE_SHARE = 1 / 3
_TABLE = "embed_tokens_per_layer"
Form: TypeAlias = tuple[int, str, list[int]]
"""Block size, code and shape of a 4-bit weight."""


class Linear4bit(Protocol):
    """A layer of bitsandbytes."""

    in_features: int
    out_features: int
    weight: Any
    bias: Any


def prepare_weights(model: PreTrainedModel | PeftModel, *, low_memory: bool) -> str:
    """Put the frozen weights where training is fastest within the GPU's memory.

    A 4-bit weight is otherwise unpacked twice a step. With room, that is done once, which changes no value.
    Without, each stays in 4 bits, in a form that compiles. With ``low_memory``, or when a large part of what is left
    would be theirs, the per-layer embeddings of Gemma 3n, a third of its parameters and only looked up, move to host
    memory.

    Returns:
        ``4-bit``, or the element type of the weights, such as ``bfloat16``.
    """
    import torch

    linears, decoder = _linears_4bit(model), text_model(model)
    dtype = decoder.embed_tokens.weight.dtype
    torch.cuda.empty_cache()
    added = sum(
        dtype.itemsize * linear.in_features * linear.out_features - linear.weight.nbytes for _, _, linear in linears
    )
    free = gpu_memory()[0] if torch.cuda.is_available() else math.inf
    copies = not low_memory and added <= _COPY_SHARE * free
    left = free - added if copies else free
    if hasattr(decoder, _TABLE) and (low_memory or getattr(decoder, _TABLE).weight.nbytes > _TABLE_SHARE * left):
        _move_to_host(decoder, _TABLE)
    for parent, name, linear in linears:
        setattr(parent, name, _unpack(linear, dtype) if copies else _keep_4bit(linear))
    return "4-bit" if linears and not copies else str(dtype).removeprefix("torch.")


def _linears_4bit(model: PreTrainedModel | PeftModel) -> list[tuple[nn.Module, str, Linear4bit]]:
    return [
        (parent, name, child)
        for parent in text_model(model).modules()
        for name, child in parent.named_children()
        if _is_4bit(child)
    ]


def _is_4bit(module: nn.Module) -> TypeGuard[Linear4bit]:
    # An adapter around a layer shows that layer's weight as its own.
    if hasattr(module, "base_layer"):
        return False
    return getattr(getattr(module, "weight", None), "quant_state", None) is not None


def _bitsandbytes() -> Any:
    return import_module("bitsandbytes.functional")


def _unpack(linear: Linear4bit, dtype: torch.dtype) -> nn.Linear:
    import torch

    weight = linear.weight
    plain = torch.nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
    values = _bitsandbytes().dequantize_4bit(weight.data, weight.quant_state).to(dtype)
    plain.weight = torch.nn.Parameter(values, requires_grad=False)
    plain.bias = linear.bias
    return plain


def _keep_4bit(linear: Linear4bit) -> nn.Module:
    state = linear.weight.quant_state
    scales = state.absmax
    if state.nested:
        scales = (_bitsandbytes().dequantize_blockwise(state.absmax, state.state2) + state.offset).float()
    return _linear_4bit()(linear.weight.data, scales, (state.blocksize, state.quant_type, list(state.shape)))


@cache
def _linear_4bit() -> type[nn.Module]:
    import torch
    import torch.nn.functional as F  # noqa: N812 - torch's own convention

    class Dequantised(torch.autograd.Function):
        """A product with a 4-bit weight that keeps no unpacked copy for the backward pass."""

        @staticmethod
        def forward(ctx: Any, inputs: Tensor, packed: Tensor, scales: Tensor, form: Form) -> Tensor:
            ctx.save_for_backward(packed, scales)
            ctx.form = form
            return F.linear(inputs, torch.ops.bitsandbytes.dequantize_4bit(packed, scales, *form, inputs.dtype))

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
            weight = torch.ops.bitsandbytes.dequantize_4bit(*ctx.saved_tensors, *ctx.form, gradient.dtype)
            return gradient @ weight, None, None, None

    class Linear4Bit(torch.nn.Module):
        """A frozen linear layer in 4 bits whose state is plain tensors, so that layers share one compilation."""

        def __init__(self, packed: Tensor, scales: Tensor, form: Form) -> None:
            super().__init__()
            self.packed, self.scales, self.form = torch.nn.Buffer(packed), torch.nn.Buffer(scales), form
            self.out_features, self.in_features = form[2]

        def dense(self) -> Tensor:
            """Return the weight unpacked, (out, in) float32."""
            unpacked: Tensor = torch.ops.bitsandbytes.dequantize_4bit(
                self.packed, self.scales, *self.form, torch.float32
            )
            return unpacked

        def forward(self, inputs: Tensor) -> Tensor:
            product: Tensor = Dequantised.apply(inputs, self.packed, self.scales, self.form)  # type: ignore[no-untyped-call]
            return product

    return Linear4Bit


def _move_to_host(parent: TextModel, name: str) -> None:
    import torch

    embedding = getattr(parent, name)
    # Not the table's own: on a small card Unsloth has moved it already.
    device = parent.embed_tokens.weight.device
    weight: Tensor = embedding.weight.detach().cpu()
    scale: Tensor = embedding.embed_scale.to(device=device, dtype=weight.dtype)

    class HostEmbedding(torch.nn.Module):
        """An embedding whose table is no parameter: it stays in host memory, and only rows in use are copied."""

        def forward(self, ids: Tensor) -> Tensor:
            rows = torch.empty(ids.numel(), weight.shape[1], dtype=weight.dtype, pin_memory=device.type == "cuda")
            torch.index_select(weight, 0, ids.flatten().cpu(), out=rows)
            return rows.view(*ids.shape, -1).to(device, non_blocking=True) * scale

    setattr(parent, name, HostEmbedding())
    del embedding
    torch.cuda.empty_cache()
