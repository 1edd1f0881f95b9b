"""Decoder layers of Gemma 3 and Gemma 3n over packed rows, split where attention separates reading from writing.

A layer reads (queries, keys and values from its input) and writes (its output from what attention returns). Only the
two halves are compiled: what differs between the layers of one kind, the window and the rows, stays outside.
"""

from typing import Any

ADAPTER = "default"  # Source: peft.get_peft_model, adapter_name


def project(linear: Any, inputs: Any) -> Any:
    """Apply a linear layer with its LoRA adapter, the adapter in the inputs' element type as under autocast."""
    import torch.nn.functional as F  # noqa: N812 - torch's own convention

    if not hasattr(linear, "lora_A"):
        return linear(inputs)
    down, up = linear.lora_A[ADAPTER].weight, linear.lora_B[ADAPTER].weight
    # Scaled where it is narrow: behind the second product it would be a pass over up to 16,384 columns, and back.
    low = F.linear(linear.lora_dropout[ADAPTER](inputs), down.to(inputs.dtype)) * linear.scaling[ADAPTER]
    return linear.base_layer(inputs) + F.linear(low, up.to(inputs.dtype))


def _is_writing() -> bool:
    """Return whether titles are written: operations then run one by one, and no gradient follows."""
    import torch

    # The compiler cannot follow the second question.
    return not torch.compiler.is_compiling() and torch.is_inference_mode_enabled()


def _norm(norm: Any, inputs: Any) -> Any:
    """Apply a norm over the last dimension."""
    import torch
    import torch.nn.functional as F  # noqa: N812 - torch's own convention

    if not hasattr(norm, "with_scale"):
        # Gemma 3's own, written out: Unsloth compiles it by itself, so that it fits into no larger graph, and where the
        # compiler gives up it is recomputed otherwise than it was computed.
        wide = inputs.float()
        scaled = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + norm.eps)
        return (scaled * (1.0 + norm.weight.float())).type_as(inputs)
    if not _is_writing():
        return norm(inputs)
    # One pass over memory in place of seven, which a compiler would make of it in training.
    weight = norm.weight if norm.with_scale else None
    return F.rms_norm(inputs, inputs.shape[-1:], weight, norm.eps).type_as(inputs)


def _heads(attention: Any, projected: Any) -> Any:
    return projected.unflatten(-1, (-1, attention.head_dim))


def _rotate(inputs: Any, cos: Any, sin: Any) -> Any:
    """Turn each head by its token's angles; ``inputs``: (T, heads, head_dim), angles: (T, head_dim)."""
    import torch

    first, second = inputs.chunk(2, -1)
    return inputs * cos[:, None] + torch.cat((-second, first), -1) * sin[:, None]


def _query(attention: Any, inputs: Any, cos: Any, sin: Any) -> Any:
    return _rotate(_norm(attention.q_norm, _heads(attention, project(attention.q_proj, inputs))), cos, sin)


def _key(attention: Any, inputs: Any, cos: Any, sin: Any) -> Any:
    return _rotate(_norm(attention.k_norm, _heads(attention, project(attention.k_proj, inputs))), cos, sin)


def _gated(mlp: Any, inputs: Any, threshold: Any = None) -> Any:
    """Apply the feed-forward layer; a ``threshold`` in standard deviations zeroes all gates below it."""
    gate = project(mlp.gate_proj, inputs)
    if threshold is not None:
        cutoff = gate.mean(-1, keepdim=True) + gate.std(-1, keepdim=True, unbiased=False) * threshold
        gate = (gate - cutoff).relu()
    return project(mlp.down_proj, mlp.act_fn(gate) * project(mlp.up_proj, inputs))


class Gemma3:
    """Gemma 3: one stream of (T, hidden)."""

    @staticmethod
    def enter(model: Any, ids: Any) -> tuple[Any, Any]:
        """Return the streams in front of the first layer, and no per-layer inputs."""
        return (model.embed_tokens(ids),), None

    @staticmethod
    def read(layer: Any, streams: Any, cos: Any, sin: Any) -> tuple[Any, ...]:
        """Return what ``write`` needs, then query, key and value."""
        attention = layer.self_attn
        inputs = _norm(layer.input_layernorm, streams[0])
        value = _heads(attention, project(attention.v_proj, inputs))
        return streams, _query(attention, inputs, cos, sin), _key(attention, inputs, cos, sin), value

    @staticmethod
    def read_keys(layer: Any, streams: Any, cos: Any, sin: Any) -> tuple[Any, Any]:
        """Return key and value alone."""
        attention = layer.self_attn
        inputs = _norm(layer.input_layernorm, streams[0])
        return _key(attention, inputs, cos, sin), _heads(attention, project(attention.v_proj, inputs))

    @staticmethod
    def read_query(layer: Any, streams: Any, cos: Any, sin: Any) -> tuple[Any, Any]:
        """Return what ``write`` needs, and the query."""
        return streams, _query(layer.self_attn, _norm(layer.input_layernorm, streams[0]), cos, sin)

    @staticmethod
    def write(layer: Any, state: Any, attended: Any, _per_layer_input: Any, _threshold: Any) -> tuple[Any, ...]:
        """Return the streams behind the layer."""
        hidden = state[0] + _norm(layer.post_attention_layernorm, project(layer.self_attn.o_proj, attended))
        inputs = _norm(layer.pre_feedforward_layernorm, hidden)
        return (hidden + _norm(layer.post_feedforward_layernorm, _gated(layer.mlp, inputs)),)

    @staticmethod
    def leave(model: Any, streams: Any) -> Any:
        """Return the final hidden states, (T, hidden)."""
        return _norm(model.norm, streams[0])


class Gemma3n:
    """Gemma 3n: AltUp's streams of (T, hidden) each, LAuReL, per-layer inputs, and layers that share keys."""

    @staticmethod
    def enter(model: Any, ids: Any) -> tuple[Any, Any]:
        """Return the streams in front of the first layer, and the per-layer inputs (T, layers, size)."""
        embedded = model.embed_tokens(ids)
        # Tokens for images and sound have no row in this table; the multimodal model takes that of token 0.
        known = ids.masked_fill(ids >= model.config.vocab_size_per_layer_input, 0)
        per_layer = model.project_per_layer_inputs(embedded, model.get_per_layer_inputs(known))
        size = _magnitude(embedded)
        return (embedded, *(_resize(project(embedded), size) for project in model.altup_projections)), per_layer

    @staticmethod
    def read(layer: Any, streams: Any, cos: Any, sin: Any) -> tuple[Any, ...]:
        """Return what ``write`` needs, then query, key and value."""
        attention = layer.self_attn
        predictions = _predict(layer.altup, streams, range(len(streams)))
        inputs = _norm(layer.input_layernorm, predictions[layer.altup.config.altup_active_idx])
        state = (*predictions, _laurel(layer.laurel, inputs))
        value = _norm(attention.v_norm, _heads(attention, project(attention.v_proj, inputs)))
        return state, _query(attention, inputs, cos, sin), _key(attention, inputs, cos, sin), value

    @staticmethod
    def read_keys(layer: Any, streams: Any, cos: Any, sin: Any) -> tuple[Any, Any]:
        """Return key and value alone."""
        attention = layer.self_attn
        (prediction,) = _predict(layer.altup, streams, [layer.altup.config.altup_active_idx])
        inputs = _norm(layer.input_layernorm, prediction)
        value = _norm(attention.v_norm, _heads(attention, project(attention.v_proj, inputs)))
        return _key(attention, inputs, cos, sin), value

    @staticmethod
    def read_query(layer: Any, streams: Any, cos: Any, sin: Any) -> tuple[Any, Any]:
        """Return what ``write`` needs, and the query."""
        predictions = _predict(layer.altup, streams, range(len(streams)))
        inputs = _norm(layer.input_layernorm, predictions[layer.altup.config.altup_active_idx])
        return (*predictions, _laurel(layer.laurel, inputs)), _query(layer.self_attn, inputs, cos, sin)

    @staticmethod
    def write(layer: Any, state: Any, attended: Any, per_layer_input: Any, threshold: Any) -> tuple[Any, ...]:
        """Return the streams behind the layer."""
        *predictions, laurel = state
        altup, active = layer.altup, layer.altup.config.altup_active_idx
        attended = _norm(layer.post_attention_layernorm, project(layer.self_attn.o_proj, attended))
        hidden = (predictions[active] + attended + laurel) * 0.5**0.5
        inputs = _norm(layer.pre_feedforward_layernorm, hidden)
        hidden = hidden + _norm(layer.post_feedforward_layernorm, _gated(layer.mlp, inputs, threshold))
        innovation = hidden - predictions[active]
        coefficients = _correction(altup, _modalities(altup, hidden)) + 1.0
        streams = [old + innovation * coefficients[:, i, None] for i, old in enumerate(predictions)]
        first = streams[active]
        if altup.config.altup_correct_scale:
            first = first * altup.correct_output_scale.to(first.dtype)
        first = layer.act_fn(project(layer.per_layer_input_gate, first)) * per_layer_input
        first = _norm(layer.post_per_layer_input_norm, project(layer.per_layer_projection, first))
        return (streams[0], *(stream + first for stream in streams[1:]))

    @staticmethod
    def leave(model: Any, streams: Any) -> Any:
        """Return the final hidden states, (T, hidden)."""
        size = _magnitude(streams[0])
        others = zip(model.altup_unembed_projections, streams[1:], strict=True)
        merged = [streams[0], *(_resize(project(stream), size) for project, stream in others)]
        return _norm(model.norm, sum(merged) / len(merged))


def threshold_of(layer: Any, like: Any) -> Any:
    """Return how many standard deviations above the mean a gate must lie, typed as ``like``; None: no limit."""
    import torch

    sparsity = getattr(layer.mlp, "activation_sparsity", 0.0)
    if sparsity <= 0:
        return None
    # In float32 and rounded to the weights' type, as transformers has it.
    deviation: Any = torch.distributions.Normal(0.0, 1.0)
    threshold = deviation.icdf(torch.tensor(sparsity, dtype=torch.float32))
    return threshold.to(device=like.device, dtype=like.dtype)


def _magnitude(stream: Any) -> Any:
    return stream.square().mean(-1, keepdim=True).sqrt()


def _resize(stream: Any, size: Any) -> Any:
    # Source: transformers, Gemma3nTextModel.forward, epsilon_tensor
    return stream * size / stream.square().mean(-1, keepdim=True).clamp(min=1e-5).sqrt()


def _laurel(laurel: Any, inputs: Any) -> Any:
    return inputs + _norm(laurel.post_laurel_norm, laurel.linear_right(laurel.linear_left(inputs)))


def _modalities(altup: Any, stream: Any) -> Any:
    routed = altup.modality_router(_norm(altup.router_norm, stream) * altup.router_input_scale)
    return routed.float().tanh().to(stream.dtype)


def _predict(altup: Any, streams: Any, wanted: Any) -> tuple[Any, ...]:
    """Return AltUp's predictions of the ``wanted`` streams: each is itself plus a mix of all."""
    import torch

    count = len(streams)
    mix = altup.prediction_coefs(_modalities(altup, streams[altup.config.altup_active_idx]))
    mix = mix.unflatten(-1, (count, count))
    if _is_writing():
        stacked = torch.stack(streams, 1)
        predictions = torch.baddbmm(stacked, mix, stacked)
        return tuple(predictions[:, i] for i in wanted)
    # One sum a stream, not a batched product of 4 x 4 matrices: the compiler makes one pass over memory of it.
    return tuple(streams[i] + sum(mix[:, i, j, None] * streams[j] for j in range(count)) for i in wanted)


def _correction(altup: Any, modalities: Any) -> Any:
    import torch.nn.functional as F  # noqa: N812 - torch's own convention

    limit = altup.config.altup_coef_clip
    weight = getattr(altup.correction_coefs, "weight", None)
    if not altup.training or limit is None or weight is None or not weight.is_floating_point():
        return altup.correction_coefs(modalities)
    return F.linear(modalities, weight.clamp(-limit, limit))
