"""The parts of decoder layers over packed rows: linear layers with an adapter, norms, rotations.

A layer reads (queries, keys and values from its input) and writes (its output from what attention returns). Only the
two halves are compiled: what differs between the layers of one kind, the window and the rows, stays outside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

if TYPE_CHECKING:
    from torch import Tensor

    from titlegen.families.modules import (
        AdaptedLinear,
        Attention,
        FeedForward,
        Function,
        KeyValue,
        Layer,
        Norm,
        Streams,
        TextModel,
    )

ADAPTER = "default"  # Source: peft.get_peft_model, adapter_name


class Decoder(Protocol):
    """The trimmed computation of a family, as functions of a model's own modules.

    ``state`` is what ``write`` needs of the streams. The model's modules are the family's own.
    """

    @staticmethod
    def embed(model: Any, ids: Tensor) -> tuple[Streams, Tensor | None]:
        """Return the streams in front of the first layer, and the per-layer inputs (T, layers, size) or None."""
        ...

    @staticmethod
    def read(layer: Any, streams: Streams, cos: Tensor, sin: Tensor) -> tuple[Streams, Tensor, Tensor, Tensor]:
        """Return what ``write`` needs, then query, key and value."""
        ...

    @staticmethod
    def read_keys(layer: Any, streams: Streams, cos: Tensor, sin: Tensor) -> KeyValue:
        """Return key and value alone."""
        ...

    @staticmethod
    def read_query(layer: Any, streams: Streams, cos: Tensor, sin: Tensor) -> tuple[Streams, Tensor]:
        """Return what ``write`` needs, and the query."""
        ...

    @staticmethod
    def write(layer: Any, state: Streams, attended: Tensor, own: Any, threshold: Any) -> Streams:
        """Return the streams behind the layer; ``own`` are its per-layer inputs, (T, size), where there are any."""
        ...

    @staticmethod
    def final_hidden(model: Any, streams: Streams) -> Tensor:
        """Return the final hidden states, (T, hidden)."""
        ...

    @staticmethod
    def threshold(layer: Any, like: Tensor) -> Tensor | None:
        """Return what ``write`` takes as ``threshold``, typed as ``like``: the same for every token of a layer."""
        ...

    @staticmethod
    def clamp(model: Any) -> None:
        """Limit weights once, as transformers does in each training step."""
        ...


class OneStream:
    """The base of decoders with one stream and no threshold."""

    @staticmethod
    def read_query(layer: Layer, streams: Streams, cos: Tensor, sin: Tensor) -> tuple[Streams, Tensor]:
        """Return what ``write`` needs, and the query."""
        return streams, query_of(layer.self_attn, norm(layer.input_layernorm, streams[0]), cos, sin)

    @staticmethod
    def final_hidden(model: TextModel, streams: Streams) -> Tensor:
        """Return the final hidden states, (T, hidden)."""
        return norm(model.norm, streams[0])

    @staticmethod
    def threshold(_layer: Layer, _like: Tensor) -> None:
        """Return no threshold: every gate counts."""

    @staticmethod
    def clamp(_model: TextModel) -> None:
        """Limit nothing."""


def project(linear: Function, inputs: Tensor) -> Tensor:
    """Apply a linear layer with its LoRA adapter, the adapter in the inputs' element type as under autocast."""
    import torch.nn.functional as F  # noqa: N812 - torch's own convention

    if not _has_adapter(linear):
        return linear(inputs)
    down, up = linear.lora_A[ADAPTER].weight, linear.lora_B[ADAPTER].weight
    # The weight is scaled, where it costs nothing: it is converted in any case. Behind the second product it would be a
    # pass over up to 16,384 columns, and back.
    up = (up * linear.scaling[ADAPTER]).to(inputs.dtype)
    low = F.linear(linear.lora_dropout[ADAPTER](inputs), down.to(inputs.dtype))
    return linear.base_layer(inputs) + F.linear(low, up)


def _has_adapter(linear: Function) -> TypeGuard[AdaptedLinear]:
    return hasattr(linear, "lora_A")


def is_writing() -> bool:
    """Return whether titles are written: operations then run one by one, and no gradient follows."""
    import torch

    # The compiler cannot follow the second question.
    return not torch.compiler.is_compiling() and torch.is_inference_mode_enabled()


def norm(module: Norm, inputs: Tensor) -> Tensor:
    """Apply a norm over the last dimension.

    The families' own norms are written out. Unsloth closes some of their modules to the compiler and compiles others by
    themselves: neither fits into a larger graph, and where the compiler gives up they are recomputed in another way.
    """
    import torch
    import torch.nn.functional as F  # noqa: N812 - torch's own convention

    # Only Gemma 3's norm has no such attribute; its weight is what is added to 1.
    scale = getattr(module, "with_scale", None)
    added = scale is None
    weight = None if scale is False else module.weight
    if not added and is_writing():
        # One pass over memory in place of seven, which a compiler would make of it in training.
        return F.rms_norm(inputs, inputs.shape[-1:], weight, module.eps).type_as(inputs)
    wide = inputs.float()
    mean = wide.pow(2).mean(-1, keepdim=True) + module.eps
    # Each as transformers computes it, to the bit.
    scaled = wide * (torch.rsqrt(mean) if added else torch.pow(mean, -0.5))
    if weight is not None:
        scaled = scaled * (1.0 + weight.float() if added else weight.float())
    return scaled.type_as(inputs)


def heads(attention: Attention, projected: Tensor) -> Tensor:
    """Return what a projection made, (T, heads * head_dim), head by head."""
    import torch

    return torch.unflatten(projected, -1, (-1, attention.head_dim))


def rotate(inputs: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each head by its token's angles; ``inputs``: (T, heads, head_dim), angles: (T, head_dim)."""
    import torch

    first, second = inputs.chunk(2, -1)
    return inputs * cos[:, None] + torch.cat((-second, first), -1) * sin[:, None]


def query_of(attention: Attention, inputs: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return the queries of tokens, (T, heads, head_dim)."""
    return rotate(norm(attention.q_norm, heads(attention, project(attention.q_proj, inputs))), cos, sin)


def key_of(attention: Attention, inputs: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return the keys of tokens, (T, key heads, head_dim)."""
    return rotate(norm(attention.k_norm, heads(attention, project(attention.k_proj, inputs))), cos, sin)


def gated(mlp: FeedForward, inputs: Tensor, threshold: Tensor | None = None) -> Tensor:
    """Apply the feed-forward layer; a ``threshold`` in standard deviations zeroes all gates below it."""
    gate = project(mlp.gate_proj, inputs)
    if threshold is not None:
        cutoff = gate.mean(-1, keepdim=True) + gate.std(-1, keepdim=True, unbiased=False) * threshold
        gate = (gate - cutoff).relu()
    return project(mlp.down_proj, mlp.act_fn(gate) * project(mlp.up_proj, inputs))
