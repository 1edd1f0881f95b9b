"""The trimmed computation of Gemma 3."""

from typing import Any

from titlegen.families.blocks import OneStream, gated, heads, key_of, norm, project, query_of


class Gemma3Decoder(OneStream):
    """Gemma 3: one stream of (T, hidden)."""

    @staticmethod
    def enter(model: Any, ids: Any) -> tuple[Any, Any]:
        """Return the streams in front of the first layer, and no per-layer inputs."""
        return (model.embed_tokens(ids),), None

    @staticmethod
    def read(layer: Any, streams: Any, cos: Any, sin: Any) -> tuple[Any, ...]:
        """Return what ``write`` needs, then query, key and value."""
        attention = layer.self_attn
        inputs = norm(layer.input_layernorm, streams[0])
        value = heads(attention, project(attention.v_proj, inputs))
        return streams, query_of(attention, inputs, cos, sin), key_of(attention, inputs, cos, sin), value

    @staticmethod
    def read_keys(layer: Any, streams: Any, cos: Any, sin: Any) -> tuple[Any, Any]:
        """Return key and value alone."""
        attention = layer.self_attn
        inputs = norm(layer.input_layernorm, streams[0])
        return key_of(attention, inputs, cos, sin), heads(attention, project(attention.v_proj, inputs))

    @staticmethod
    def write(layer: Any, state: Any, attended: Any, _per_layer_input: Any, _threshold: Any) -> tuple[Any, ...]:
        """Return the streams behind the layer."""
        hidden = state[0] + norm(layer.post_attention_layernorm, project(layer.self_attn.o_proj, attended))
        inputs = norm(layer.pre_feedforward_layernorm, hidden)
        return (hidden + norm(layer.post_feedforward_layernorm, gated(layer.mlp, inputs)),)
