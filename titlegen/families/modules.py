"""Parts of transformers' models that the trimmed computation uses, as every family has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor, nn

    # What runs from layer to layer, (T, hidden) each.
    Streams: TypeAlias = tuple[Tensor, ...]
    # Key and value, (T, key heads, head_dim).
    KeyValue: TypeAlias = tuple[Tensor, Tensor]
    # Cosine and sine, (T, head_dim).
    Angles: TypeAlias = tuple[Tensor, Tensor]
    # A linear layer, which may have a LoRA adapter, or an activation.
    Function: TypeAlias = Callable[[Tensor], Tensor]


class Weighted(Protocol):
    """A module with one weight: a norm, or the table of embeddings."""

    weight: Tensor

    def __call__(self, inputs: Tensor, /) -> Tensor:
        """Apply it."""
        ...


class Norm(Weighted, Protocol):
    """A norm over the last dimension."""

    eps: float


class AdaptedLinear(Protocol):
    """A linear layer with LoRA adapters, by their names."""

    base_layer: Function
    lora_A: Mapping[str, Weighted]  # noqa: N815 - PEFT's name
    lora_B: Mapping[str, Weighted]  # noqa: N815 - PEFT's name
    lora_dropout: Mapping[str, Function]
    scaling: Mapping[str, float]


class Attention(Protocol):
    """Attention of a layer."""

    head_dim: int
    sliding_window: int | None
    scaling: float
    q_proj: Function
    k_proj: Function
    v_proj: Function
    o_proj: Function
    q_norm: Norm
    k_norm: Norm


class NormedAttention(Attention, Protocol):
    """Attention whose values are normalised, too."""

    v_norm: Norm


class FeedForward(Protocol):
    """The feed-forward part of a layer."""

    gate_proj: Function
    up_proj: Function
    down_proj: Function
    act_fn: Function


class Layer(Protocol):
    """A decoder layer."""

    self_attn: Attention
    mlp: FeedForward
    input_layernorm: Norm
    post_attention_layernorm: Norm
    pre_feedforward_layernorm: Norm
    post_feedforward_layernorm: Norm


class FedLayer(Layer, Protocol):
    """A layer that is given an input of its own for each token."""

    self_attn: NormedAttention
    per_layer_input_gate: Function
    per_layer_projection: Function
    post_per_layer_input_norm: Norm
    act_fn: Function


class TextModel(Protocol):
    """The decoder inside a causal LM."""

    config: Any
    embed_tokens: Weighted
    # Its layers have more parts in some families.
    layers: Sequence[Any]
    norm: Norm

    def modules(self) -> Iterator[nn.Module]:
        """Return everything that it is made of, itself included."""
        ...

    def rotary_emb(self, like: Tensor, positions: Tensor, kind: str) -> Angles:
        """Return the angles of tokens at these places, for one kind of layer."""
        ...


class FedModel(TextModel, Protocol):
    """One whose layers are given inputs of their own."""

    def project_per_layer_inputs(self, embedded: Tensor, per_layer: Tensor) -> Tensor:
        """Return the inputs of each layer, (T, layers, size)."""
        ...
