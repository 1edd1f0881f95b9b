"""The trimmed computation of Gemma 4's small sizes, whose upper layers share the keys of lower ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from titlegen.families.blocks import OneStream, gated, heads, key_of, norm, project, query_of
from titlegen.families.modules import FedLayer, FedModel

if TYPE_CHECKING:
    from torch import Tensor

    from titlegen.families.modules import KeyValue, NormedAttention, Streams


class Gemma4Layer(FedLayer, Protocol):
    """A layer of Gemma 4."""

    layer_scalar: Tensor


class Gemma4Model(FedModel, Protocol):
    """The decoder of Gemma 4."""

    def get_per_layer_inputs(self, ids: Tensor, embedded: None) -> Tensor:
        """Return what the table for each layer has of the tokens, (T, layers, size)."""
        ...


class Gemma4Decoder(OneStream):
    """Gemma 4: one stream of (T, hidden), per-layer inputs, a scale for each layer, and layers that share keys."""

    @staticmethod
    def embed(model: Gemma4Model, ids: Tensor) -> tuple[Streams, Tensor]:
        """Return the stream in front of the first layer, and the per-layer inputs (T, layers, size)."""
        embedded = model.embed_tokens(ids)
        return (embedded,), model.project_per_layer_inputs(embedded, model.get_per_layer_inputs(ids, None))

    @staticmethod
    def read(layer: Gemma4Layer, streams: Streams, cos: Tensor, sin: Tensor) -> tuple[Streams, Tensor, Tensor, Tensor]:
        """Return what ``write`` needs, then query, key and value."""
        inputs = norm(layer.input_layernorm, streams[0])
        query = query_of(layer.self_attn, inputs, cos, sin)
        return streams, query, *_keys(layer.self_attn, inputs, cos, sin)

    @staticmethod
    def read_keys(layer: Gemma4Layer, streams: Streams, cos: Tensor, sin: Tensor) -> KeyValue:
        """Return key and value alone."""
        return _keys(layer.self_attn, norm(layer.input_layernorm, streams[0]), cos, sin)

    @staticmethod
    def write(layer: Gemma4Layer, state: Streams, attended: Tensor, own: Tensor, _threshold: None) -> Streams:
        """Return the stream behind the layer."""
        hidden = state[0] + norm(layer.post_attention_layernorm, project(layer.self_attn.o_proj, attended))
        inputs = norm(layer.pre_feedforward_layernorm, hidden)
        hidden = hidden + norm(layer.post_feedforward_layernorm, gated(layer.mlp, inputs))
        own = layer.act_fn(project(layer.per_layer_input_gate, hidden)) * own
        hidden = hidden + norm(layer.post_per_layer_input_norm, project(layer.per_layer_projection, own))
        return (hidden * layer.layer_scalar,)


def _keys(attention: NormedAttention, inputs: Tensor, cos: Tensor, sin: Tensor) -> KeyValue:
    value = norm(attention.v_norm, heads(attention, project(attention.v_proj, inputs)))
    return key_of(attention, inputs, cos, sin), value
