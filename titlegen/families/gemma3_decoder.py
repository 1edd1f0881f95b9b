"""The trimmed computation of Gemma 3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from titlegen.families.blocks import OneStream, gated, heads, key_of, norm, project, query_of

if TYPE_CHECKING:
    from torch import Tensor

    from titlegen.families.modules import KeyValue, Layer, Streams, TextModel


class Gemma3Decoder(OneStream):
    """Gemma 3: one stream of (T, hidden)."""

    @staticmethod
    def embed(model: TextModel, ids: Tensor) -> tuple[Streams, None]:
        """Return the streams in front of the first layer, and no per-layer inputs."""
        return (model.embed_tokens(ids),), None

    @staticmethod
    def read(layer: Layer, streams: Streams, cos: Tensor, sin: Tensor) -> tuple[Streams, Tensor, Tensor, Tensor]:
        """Return what ``write`` needs, then query, key and value."""
        attention = layer.self_attn
        inputs = norm(layer.input_layernorm, streams[0])
        value = heads(attention, project(attention.v_proj, inputs))
        return streams, query_of(attention, inputs, cos, sin), key_of(attention, inputs, cos, sin), value

    @staticmethod
    def read_keys(layer: Layer, streams: Streams, cos: Tensor, sin: Tensor) -> KeyValue:
        """Return key and value alone."""
        attention = layer.self_attn
        inputs = norm(layer.input_layernorm, streams[0])
        return key_of(attention, inputs, cos, sin), heads(attention, project(attention.v_proj, inputs))

    @staticmethod
    def write(layer: Layer, state: Streams, attended: Tensor, _own: None, _threshold: None) -> Streams:
        """Return the streams behind the layer."""
        hidden = state[0] + norm(layer.post_attention_layernorm, project(layer.self_attn.o_proj, attended))
        inputs = norm(layer.pre_feedforward_layernorm, hidden)
        return (hidden + norm(layer.post_feedforward_layernorm, gated(layer.mlp, inputs)),)
