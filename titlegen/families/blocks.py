"""What decoder layers are made of, over packed rows: linear layers with an adapter, norms, rotations.

A layer reads (queries, keys and values from its input) and writes (its output from what attention returns). Only the
two halves are compiled: what differs between the layers of one kind, the window and the rows, stays outside.
"""

from typing import Any, Protocol

ADAPTER = "default"  # Source: peft.get_peft_model, adapter_name


class Decoder(Protocol):
    """The trimmed computation of a family, as functions of a model's own modules.

    ``streams`` is what runs from layer to layer, a tuple of (T, hidden); ``state`` is what ``write`` needs of it.
    """

    @staticmethod
    def enter(model: Any, ids: Any) -> tuple[Any, Any]:
        """Return the streams in front of the first layer, and the per-layer inputs (T, layers, size) or None."""
        ...

    @staticmethod
    def read(layer: Any, streams: Any, cos: Any, sin: Any) -> tuple[Any, ...]:
        """Return what ``write`` needs, then query, key and value."""
        ...

    @staticmethod
    def read_keys(layer: Any, streams: Any, cos: Any, sin: Any) -> tuple[Any, Any]:
        """Return key and value alone."""
        ...

    @staticmethod
    def read_query(layer: Any, streams: Any, cos: Any, sin: Any) -> tuple[Any, Any]:
        """Return what ``write`` needs, and the query."""
        ...

    @staticmethod
    def write(layer: Any, state: Any, attended: Any, per_layer_input: Any, threshold: Any) -> tuple[Any, ...]:
        """Return the streams behind the layer."""
        ...

    @staticmethod
    def leave(model: Any, streams: Any) -> Any:
        """Return the final hidden states, (T, hidden)."""
        ...

    @staticmethod
    def threshold(layer: Any, like: Any) -> Any:
        """Return what ``write`` takes as ``threshold``, typed as ``like``: the same for every token of a layer."""
        ...

    @staticmethod
    def clamp(model: Any) -> None:
        """Limit weights once, as transformers does in each training step."""
        ...


class OneStream:
    """What decoders with one stream and no threshold have in common."""

    @staticmethod
    def read_query(layer: Any, streams: Any, cos: Any, sin: Any) -> tuple[Any, Any]:
        """Return what ``write`` needs, and the query."""
        return streams, query_of(layer.self_attn, norm(layer.input_layernorm, streams[0]), cos, sin)

    @staticmethod
    def leave(model: Any, streams: Any) -> Any:
        """Return the final hidden states, (T, hidden)."""
        return norm(model.norm, streams[0])

    @staticmethod
    def threshold(_layer: Any, _like: Any) -> None:
        """Return no threshold: every gate counts."""

    @staticmethod
    def clamp(_model: Any) -> None:
        """Limit nothing."""


def project(linear: Any, inputs: Any) -> Any:
    """Apply a linear layer with its LoRA adapter, the adapter in the inputs' element type as under autocast."""
    import torch.nn.functional as F  # noqa: N812 - torch's own convention

    if not hasattr(linear, "lora_A"):
        return linear(inputs)
    down, up = linear.lora_A[ADAPTER].weight, linear.lora_B[ADAPTER].weight
    # Scaled where it is narrow: behind the second product it would be a pass over up to 16,384 columns, and back.
    low = F.linear(linear.lora_dropout[ADAPTER](inputs), down.to(inputs.dtype)) * linear.scaling[ADAPTER]
    return linear.base_layer(inputs) + F.linear(low, up.to(inputs.dtype))


def is_writing() -> bool:
    """Return whether titles are written: operations then run one by one, and no gradient follows."""
    import torch

    # The compiler cannot follow the second question.
    return not torch.compiler.is_compiling() and torch.is_inference_mode_enabled()


def norm(module: Any, inputs: Any) -> Any:
    """Apply a norm over the last dimension."""
    import torch
    import torch.nn.functional as F  # noqa: N812 - torch's own convention

    if not hasattr(module, "with_scale"):
        # Gemma 3's own, written out: Unsloth compiles it by itself, so that it fits into no larger graph, and where the
        # compiler gives up it is recomputed otherwise than it was computed.
        wide = inputs.float()
        scaled = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + module.eps)
        return (scaled * (1.0 + module.weight.float())).type_as(inputs)
    if not is_writing():
        return module(inputs)
    # One pass over memory in place of seven, which a compiler would make of it in training.
    weight = module.weight if module.with_scale else None
    return F.rms_norm(inputs, inputs.shape[-1:], weight, module.eps).type_as(inputs)


def heads(attention: Any, projected: Any) -> Any:
    """Return what a projection made, (T, heads * head_dim), head by head."""
    return projected.unflatten(-1, (-1, attention.head_dim))


def rotate(inputs: Any, cos: Any, sin: Any) -> Any:
    """Turn each head by its token's angles; ``inputs``: (T, heads, head_dim), angles: (T, head_dim)."""
    import torch

    first, second = inputs.chunk(2, -1)
    return inputs * cos[:, None] + torch.cat((-second, first), -1) * sin[:, None]


def query_of(attention: Any, inputs: Any, cos: Any, sin: Any) -> Any:
    """Return the queries of tokens, (T, heads, head_dim)."""
    return rotate(norm(attention.q_norm, heads(attention, project(attention.q_proj, inputs))), cos, sin)


def key_of(attention: Any, inputs: Any, cos: Any, sin: Any) -> Any:
    """Return the keys of tokens, (T, key heads, head_dim)."""
    return rotate(norm(attention.k_norm, heads(attention, project(attention.k_proj, inputs))), cos, sin)


def gated(mlp: Any, inputs: Any, threshold: Any = None) -> Any:
    """Apply the feed-forward layer; a ``threshold`` in standard deviations zeroes all gates below it."""
    gate = project(mlp.gate_proj, inputs)
    if threshold is not None:
        cutoff = gate.mean(-1, keepdim=True) + gate.std(-1, keepdim=True, unbiased=False) * threshold
        gate = (gate - cutoff).relu()
    return project(mlp.down_proj, mlp.act_fn(gate) * project(mlp.up_proj, inputs))
