"""The trimmed computation of Gemma 4's small sizes, whose upper layers share the keys of lower ones."""

from typing import Any

from titlegen.families.blocks import OneStream, gated, heads, key_of, norm, project, query_of


class Gemma4Decoder(OneStream):
    """Gemma 4: one stream of (T, hidden), per-layer inputs, a scale for each layer, and layers that share keys."""

    @staticmethod
    def enter(model: Any, ids: Any) -> tuple[Any, Any]:
        """Return the stream in front of the first layer, and the per-layer inputs (T, layers, size)."""
        embedded = model.embed_tokens(ids)
        return (embedded,), model.project_per_layer_inputs(embedded, model.get_per_layer_inputs(ids, None))

    @staticmethod
    def read(layer: Any, streams: Any, cos: Any, sin: Any) -> tuple[Any, ...]:
        """Return what ``write`` needs, then query, key and value."""
        inputs = norm(layer.input_layernorm, streams[0])
        query = query_of(layer.self_attn, inputs, cos, sin)
        return streams, query, *_keys(layer.self_attn, inputs, cos, sin)

    @staticmethod
    def read_keys(layer: Any, streams: Any, cos: Any, sin: Any) -> tuple[Any, Any]:
        """Return key and value alone."""
        return _keys(layer.self_attn, norm(layer.input_layernorm, streams[0]), cos, sin)

    @staticmethod
    def write(layer: Any, state: Any, attended: Any, per_layer_input: Any, _threshold: Any) -> tuple[Any, ...]:
        """Return the stream behind the layer."""
        hidden = state[0] + norm(layer.post_attention_layernorm, project(layer.self_attn.o_proj, attended))
        inputs = norm(layer.pre_feedforward_layernorm, hidden)
        hidden = hidden + norm(layer.post_feedforward_layernorm, gated(layer.mlp, inputs))
        own = layer.act_fn(project(layer.per_layer_input_gate, hidden)) * per_layer_input
        hidden = hidden + norm(layer.post_per_layer_input_norm, project(layer.per_layer_projection, own))
        return (hidden * layer.layer_scalar,)


def _keys(attention: Any, inputs: Any, cos: Any, sin: Any) -> tuple[Any, Any]:
    value = norm(attention.v_norm, heads(attention, project(attention.v_proj, inputs)))
    return key_of(attention, inputs, cos, sin), value
