"""The trimmed computation of Gemma 3n."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from titlegen.families.blocks import gated, heads, is_writing, key_of, norm, project, query_of
from titlegen.families.modules import FedLayer, FedModel

if TYPE_CHECKING:
    from torch import Tensor

    from titlegen.families.modules import Function, KeyValue, Norm, Streams


class AltUp(Protocol):
    """AltUp: mixes the streams in front of a layer, and behind it."""

    config: Any
    training: bool
    correct_output_scale: Tensor
    correction_coefs: Function
    prediction_coefs: Function
    modality_router: Function
    router_norm: Norm
    router_input_scale: Tensor


class Laurel(Protocol):
    """A layer's second way around attention, of low rank."""

    linear_left: Function
    linear_right: Function
    post_laurel_norm: Norm


class Gemma3nLayer(FedLayer, Protocol):
    """A layer of Gemma 3n."""

    altup: AltUp
    laurel: Laurel


class Gemma3nModel(FedModel, Protocol):
    """The decoder of Gemma 3n."""

    layers: Sequence[Gemma3nLayer]
    altup_projections: Sequence[Function]
    altup_unembed_projections: Sequence[Function]

    def get_per_layer_inputs(self, ids: Tensor) -> Tensor:
        """Return what the table for each layer has of the tokens, (T, layers, size)."""
        ...


class Gemma3nDecoder:
    """Gemma 3n: AltUp's streams of (T, hidden) each, LAuReL, per-layer inputs, and layers that share keys."""

    @staticmethod
    def embed(model: Gemma3nModel, ids: Tensor) -> tuple[Streams, Tensor]:
        """Return the streams in front of the first layer, and the per-layer inputs (T, layers, size)."""
        embedded = model.embed_tokens(ids)
        # Tokens for images and sound have no row in this table; the multimodal model takes that of token 0.
        known = ids.masked_fill(ids >= model.config.vocab_size_per_layer_input, 0)
        per_layer = model.project_per_layer_inputs(embedded, model.get_per_layer_inputs(known))
        size = _magnitude(embedded)
        return (embedded, *(_resize(project(embedded), size) for project in model.altup_projections)), per_layer

    @staticmethod
    def read(layer: Gemma3nLayer, streams: Streams, cos: Tensor, sin: Tensor) -> tuple[Streams, Tensor, Tensor, Tensor]:
        """Return what ``write`` needs, then query, key and value."""
        attention = layer.self_attn
        predictions = _predict(layer.altup, streams, range(len(streams)))
        inputs = norm(layer.input_layernorm, predictions[layer.altup.config.altup_active_idx])
        state = (*predictions, _laurel(layer.laurel, inputs))
        value = norm(attention.v_norm, heads(attention, project(attention.v_proj, inputs)))
        return state, query_of(attention, inputs, cos, sin), key_of(attention, inputs, cos, sin), value

    @staticmethod
    def read_keys(layer: Gemma3nLayer, streams: Streams, cos: Tensor, sin: Tensor) -> KeyValue:
        """Return key and value alone."""
        attention = layer.self_attn
        (prediction,) = _predict(layer.altup, streams, [layer.altup.config.altup_active_idx])
        inputs = norm(layer.input_layernorm, prediction)
        value = norm(attention.v_norm, heads(attention, project(attention.v_proj, inputs)))
        return key_of(attention, inputs, cos, sin), value

    @staticmethod
    def read_query(layer: Gemma3nLayer, streams: Streams, cos: Tensor, sin: Tensor) -> tuple[Streams, Tensor]:
        """Return what ``write`` needs, and the query."""
        predictions = _predict(layer.altup, streams, range(len(streams)))
        inputs = norm(layer.input_layernorm, predictions[layer.altup.config.altup_active_idx])
        return (*predictions, _laurel(layer.laurel, inputs)), query_of(layer.self_attn, inputs, cos, sin)

    @staticmethod
    def write(layer: Gemma3nLayer, state: Streams, attended: Tensor, own: Tensor, threshold: Tensor | None) -> Streams:
        """Return the streams behind the layer."""
        *predictions, laurel = state
        altup, active = layer.altup, layer.altup.config.altup_active_idx
        attended = norm(layer.post_attention_layernorm, project(layer.self_attn.o_proj, attended))
        hidden = (predictions[active] + attended + laurel) * 0.5**0.5
        inputs = norm(layer.pre_feedforward_layernorm, hidden)
        hidden = hidden + norm(layer.post_feedforward_layernorm, gated(layer.mlp, inputs, threshold))
        innovation = hidden - predictions[active]
        coefficients = _correction(altup, _modalities(altup, hidden)) + 1.0
        streams = [old + innovation * coefficients[:, i, None] for i, old in enumerate(predictions)]
        first = streams[active]
        if altup.config.altup_correct_scale:
            first = first * altup.correct_output_scale.to(first.dtype)
        first = layer.act_fn(project(layer.per_layer_input_gate, first)) * own
        first = norm(layer.post_per_layer_input_norm, project(layer.per_layer_projection, first))
        return (streams[0], *(stream + first for stream in streams[1:]))

    @staticmethod
    def final_hidden(model: Gemma3nModel, streams: Streams) -> Tensor:
        """Return the final hidden states, (T, hidden)."""
        size = _magnitude(streams[0])
        others = zip(model.altup_unembed_projections, streams[1:], strict=True)
        merged = sum((_resize(project(stream), size) for project, stream in others), streams[0])
        return norm(model.norm, merged / len(streams))

    @staticmethod
    def threshold(layer: Gemma3nLayer, like: Tensor) -> Tensor | None:
        """Return how many standard deviations above the mean a gate must lie, typed as ``like``; None: no limit."""
        import torch

        sparsity = getattr(layer.mlp, "activation_sparsity", 0.0)
        if sparsity <= 0:
            return None
        # In float32 and rounded to the weights' type, as transformers has it.
        deviation: Any = torch.distributions.Normal(0.0, 1.0)
        threshold: Tensor = deviation.icdf(torch.tensor(sparsity, dtype=torch.float32))
        return threshold.to(device=like.device, dtype=like.dtype)

    @staticmethod
    def clamp(model: Gemma3nModel) -> None:
        """Limit AltUp's prediction weights once, as transformers does in each training step."""
        import torch

        limit = getattr(model.config, "altup_coef_clip", None)
        if limit is None:
            return
        with torch.no_grad():
            for layer in model.layers:
                weight = getattr(layer.altup.prediction_coefs, "weight", None)
                if weight is not None and weight.is_floating_point():
                    weight.clamp_(-limit, limit)


def _magnitude(stream: Tensor) -> Tensor:
    return stream.square().mean(-1, keepdim=True).sqrt()


def _resize(stream: Tensor, size: Tensor) -> Tensor:
    # Source: transformers, Gemma3nTextModel.forward, epsilon_tensor
    return stream * size / stream.square().mean(-1, keepdim=True).clamp(min=1e-5).sqrt()


def _laurel(laurel: Laurel, inputs: Tensor) -> Tensor:
    return inputs + norm(laurel.post_laurel_norm, laurel.linear_right(laurel.linear_left(inputs)))


def _modalities(altup: AltUp, stream: Tensor) -> Tensor:
    routed = altup.modality_router(norm(altup.router_norm, stream) * altup.router_input_scale)
    return routed.float().tanh().to(stream.dtype)


def _predict(altup: AltUp, streams: Streams, wanted: Iterable[int]) -> Streams:
    """Return AltUp's predictions of the ``wanted`` streams: each is itself plus a mix of all."""
    import torch

    count = len(streams)
    mix = altup.prediction_coefs(_modalities(altup, streams[altup.config.altup_active_idx]))
    mix = torch.unflatten(mix, -1, (count, count))
    if is_writing():
        stacked = torch.stack(streams, 1)
        predictions = torch.baddbmm(stacked, mix, stacked)
        return tuple(predictions[:, i] for i in wanted)
    # One sum a stream, not a batched product of 4 x 4 matrices: the compiler makes one pass over memory of it.
    return tuple(streams[i] + sum(mix[:, i, j, None] * streams[j] for j in range(count)) for i in wanted)


def _correction(altup: AltUp, modalities: Tensor) -> Tensor:
    import torch.nn.functional as F  # noqa: N812 - torch's own convention

    limit = altup.config.altup_coef_clip
    weight = getattr(altup.correction_coefs, "weight", None)
    if not altup.training or limit is None or weight is None or not weight.is_floating_point():
        return altup.correction_coefs(modalities)
    return F.linear(modalities, weight.clamp(-limit, limit))
