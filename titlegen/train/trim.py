"""The loss on titles computed without the work it does not need.

Exact, not approximate. Padding is dropped by packing the rows of a batch, and the instruction that all their prompts
begin with is computed once. In the last layer whose keys and values are read by anyone, the tokens that predict no
title need only those; in Gemma 3n, whose upper layers share the keys of lower ones, that is layer 20 of 35. All later
layers, and the head, see the predicting tokens alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from titlegen.errors import TrainError
from titlegen.families import all_families
from titlegen.families.blocks import Decoder
from titlegen.train.encode import Batch
from titlegen.train.packed import Packed, attend, pack

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel

    from titlegen.families.modules import Angles, KeyValue, Layer, Streams, TextModel

Made = TypeVar("Made")
Given = TypeVarTuple("Given")

_LOG = logging.getLogger(__name__)
# Logits of this many tokens are held at a time: 0.5 GiB in float32 for Gemma's vocabulary.
_HEAD_TOKENS = 512
# Padding of products would make a graph of its own for few tokens. Matched patterns would let a product add to a
# summand that is copied for it first, 260 times a pass; without, the sum is part of the operation that follows.
_COMPILE_OPTIONS: dict[str, Any] = {"shape_padding": False, "pattern_matcher": False}
# Of one half of a layer, in one process: training, with and without an adapter, one token and several, each kind of
# layer. Compiled code is shared by everything that computes the same.
_MOST_GRAPHS = 32
# What stands around the layers: in training, a small share of a pass.
_AROUND = frozenset({"embed", "final_hidden"})


def _compile_errors() -> tuple[type[Exception], ...]:
    from torch._dynamo import exc  # torch exports them nowhere else

    return exc.Unsupported, exc.BackendCompilerFailed, exc.FailOnRecompileLimitHit


def text_model(model: PreTrainedModel | PeftModel) -> TextModel:
    """Return the decoder inside a causal LM, a multimodal model, or a PEFT model around either."""
    causal_lm = model.get_base_model() if hasattr(model, "get_base_model") else model
    found: TextModel = getattr(causal_lm.model, "language_model", causal_lm.model)
    return found


def can_trim(model: PreTrainedModel | PeftModel) -> bool:
    """Return whether the trimmed computation exists for this architecture."""
    config = text_model(model).config
    # Pictures alone see both ways with "vision".
    causal = getattr(config, "use_bidirectional_attention", None) in {None, False, "vision"}
    return _decoder_of(config) is not None and causal


def _decoder_of(config: PreTrainedConfig) -> type[Decoder] | None:
    return next((family.decoder for family in all_families() if config.model_type in family.model_types), None)


class CompletionTrim:
    """Computes the loss of a batch of prompt and title rows; a drop-in for :func:`completion_loss`."""

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        *,
        kept_share: Callable[[int], float] = lambda _: 1.0,
        compiled: bool = False,
        clamp: bool = True,
    ) -> None:
        """Prepare the computation.

        Args:
            model: a causal LM for which ``can_trim`` holds, or a PEFT model around one with the adapter ``default``.
            kept_share: given a batch's number of tokens, the share of the layers that keep their activations for the
                backward pass, 0 to 1; the others recompute them.
            compiled: compile each kind of layer once, for any number of tokens; used while gradients are on, and in
                inference mode, in which titles are written.
            clamp: limit weights, as transformers does in training and not otherwise.
        """
        self._causal_lm = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.model = text_model(model)
        self._config = self.model.config
        decoder = _decoder_of(self._config)
        if decoder is None:
            raise TrainError(
                f"no trimmed computation is known for {self._config.model_type!r}; set --train.no-completion-trim"
            )
        self.decoder: type[Decoder] = decoder
        self.boundary = len(self.model.layers) - (getattr(self._config, "num_kv_shared_layers", 0) or 0) - 1
        self.kept_share, self.compiled = kept_share, compiled
        self._compiled: dict[str, Callable[..., Any]] = {}
        self.thresholds = [decoder.threshold(layer, self.model.embed_tokens.weight) for layer in self.model.layers]
        if clamp:
            decoder.clamp(self.model)

    def __call__(self, inputs: Batch, num_items: Tensor | int | None = None) -> Tensor:
        """Return the loss of a padded batch, a scalar; arguments as for :func:`completion_loss`.

        A batch that has been packed already brings that along as ``packed``.
        """
        import torch

        packed = inputs["packed"] if "packed" in inputs else pack(inputs)
        # Weights and activations have one element type, and adapters are cast to it: autocast would only add casts.
        with torch.autocast(packed.ids.device.type, enabled=False):
            hidden = self.states(packed)
            total = self._cross_entropy(hidden, packed.targets)
        return total / (packed.targets.numel() if num_items is None else num_items)

    def states(self, packed: Packed) -> Tensor:
        """Return what :meth:`hidden` does, without compiling where that fails."""
        return self.compiling(lambda: self.hidden(packed))

    def compiling(self, compute: Callable[[], Made]) -> Made:
        """Return what ``compute`` does, without compiling where that fails."""
        import torch

        try:
            return compute()
        except _compile_errors() as error:
            # Unsloth puts functions into Gemma 3 that are closed to the compiler, and a machine may have no C
            # compiler. The whole pass begins anew: a layer that ran compiled and is recomputed otherwise would not
            # match what it kept.
            # The first line says what the compiler could not do, the second to which function.
            reason = " ".join(line.strip() for line in str(error).splitlines()[:2])
            work = "training goes" if torch.is_grad_enabled() else "titles go"
            _LOG.warning("%s on without compiling: %s", work, reason)
            self.compiled = False
        # Not while the error is handled: its traceback holds what the broken pass had computed.
        return compute()

    def hidden(self, packed: Packed, keys: list[KeyValue] | None = None) -> Tensor:
        """Return the final hidden states of the predicting tokens, (N, hidden).

        ``keys`` is filled with keys and values of the complete rows, (S, heads, head_dim), for each layer that has its
        own.
        """
        import torch

        layers, boundary = self.model.layers, self.boundary
        with torch.no_grad():
            # Nothing below the first layer is trained.
            streams, per_layer = self.run("embed", self.model, packed.ids)
            angles = self.angles(packed.positions, streams[0])
            kept_angles = {kind: (cos[packed.kept], sin[packed.kept]) for kind, (cos, sin) in angles.items()}
        if self.compiled and torch.is_grad_enabled():
            # So that the first layer is not a kind of its own to the compiler.
            streams = tuple(stream.requires_grad_() for stream in streams)
        recomputed = boundary + 1 - int(self.kept_share(len(packed.ids)) * (boundary + 1))
        shared: dict[str, KeyValue] = {}
        for index, layer in enumerate(layers):
            kind = self._config.layer_types[index]
            own = None if per_layer is None else per_layer[:, index]
            if index < boundary:
                streams, shared[kind] = self._step(
                    index < recomputed, self._full, index, streams, own, angles[kind], packed
                )
                if keys is not None:
                    keys.append(shared[kind])
                continue
            if index == boundary:
                shared[kind] = self._step(index < recomputed, self._keys, layer, streams, angles[kind], packed)
                if keys is not None:
                    keys.append(shared[kind])
                streams = tuple(stream[packed.kept] for stream in streams)
                per_layer = per_layer if per_layer is None else per_layer[packed.kept]
                own = None if per_layer is None else per_layer[:, index]
            streams = self._step(
                recomputed > boundary, self._kept, index, streams, own, kept_angles[kind], shared[kind], packed
            )
        final: Tensor = self.run("final_hidden", self.model, streams)
        return final

    def _full(
        self, index: int, streams: Streams, own: Tensor | None, angles: Angles, packed: Packed
    ) -> tuple[Streams, KeyValue]:
        """Run a layer for every token; return the streams, and keys and values of the complete rows."""
        layer = self.model.layers[index]
        state, query, key, value = self.run("read", layer, streams, *angles)
        attention, key, value = layer.self_attn, packed.complete(key), packed.complete(value)
        attended = attend(
            query, key, value, packed.own_rows, packed.rows, window=attention.sliding_window, scale=attention.scaling
        )
        return self.run("write", layer, state, attended, own, self.thresholds[index]), (key, value)

    def _keys(self, layer: Layer, streams: Streams, angles: Angles, packed: Packed) -> KeyValue:
        key, value = self.run("read_keys", layer, streams, *angles)
        return packed.complete(key), packed.complete(value)

    def _kept(
        self, index: int, streams: Streams, own: Tensor | None, angles: Angles, shared: KeyValue, packed: Packed
    ) -> Streams:
        """Run a layer for the predicting tokens, on keys and values of every token."""
        layer = self.model.layers[index]
        state, query = self.run("read_query", layer, streams, *angles)
        attention, (key, value) = layer.self_attn, shared
        attended = attend(
            query, key, value, packed.kept_rows, packed.rows, window=attention.sliding_window, scale=attention.scaling
        )
        written: Streams = self.run("write", layer, state, attended, own, self.thresholds[index])
        return written

    @staticmethod
    def _step(recomputed: bool, function: Callable[[*Given], Made], *arguments: *Given) -> Made:  # noqa: FBT001
        import torch
        from torch.utils.checkpoint import checkpoint

        if not (recomputed and torch.is_grad_enabled()):
            return function(*arguments)
        errors: list[Exception] = []
        forward = True

        def run(*given: *Given) -> Made | None:
            try:
                return function(*given)
            except _compile_errors() as error:
                if not forward:
                    raise
                errors.append(error)
                return None

        # In torch 2.11 an error that leaves a checkpoint leaves it open while anything holds its traceback,
        # and what later layers keep is saved into it.
        result: Made = checkpoint(run, *arguments, use_reentrant=False)
        forward = False
        if errors:
            raise errors.pop()
        return result

    def run(self, name: str, module: Layer | TextModel, *arguments: Tensor | Streams | None) -> Any:
        """Call one half of a layer, or what stands around them, compiled where that is on."""
        import torch

        function = getattr(self.decoder, name)
        wanted = torch.is_inference_mode_enabled() or (torch.is_grad_enabled() and name not in _AROUND)
        first = arguments[0]
        # One token alone is a kind of its own to the compiler, which is not worth its time.
        alone = first is not None and len(first[0] if isinstance(first, tuple) else first) == 1
        if alone or not (self.compiled and wanted):
            return function(module, *arguments)
        if name not in self._compiled:
            limits = torch._dynamo.config  # noqa: SLF001 - documented, though its module is private
            limits.recompile_limit = max(limits.recompile_limit, _MOST_GRAPHS)
            self._compiled[name] = torch.compile(function, fullgraph=True, options=_COMPILE_OPTIONS)
        _mark_tokens(arguments)
        return self._compiled[name](module, *arguments)

    def _cross_entropy(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return the summed cross-entropy, a scalar float32, holding few logits at a time."""
        import torch

        parts = list(zip(torch.split(hidden, _HEAD_TOKENS), torch.split(targets, _HEAD_TOKENS), strict=True))
        return reduce(add, (self._step(len(parts) > 1, self._head, *part) for part in parts))

    def _head(self, hidden: Tensor, targets: Tensor) -> Tensor:
        import torch.nn.functional as F  # noqa: N812 - torch's own convention

        return F.cross_entropy(self.logits(hidden), targets, reduction="sum")

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of final hidden states, (N, vocabulary), float32 or wider."""
        import torch

        logits: Tensor = self._causal_lm.lm_head(hidden)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if (cap := getattr(self._config, "final_logit_softcapping", None)) is not None:
            logits = (logits / cap).tanh() * cap
        return logits

    def angles(self, positions: Tensor, like: Tensor) -> dict[str, Angles]:
        """Return cosine and sine of each kind of layer for tokens at these places, (T, head_dim)."""
        angles = {}
        for kind in set(self._config.layer_types):
            cos, sin = self.model.rotary_emb(like[None], positions[None], kind)
            angles[kind] = (cos[0], sin[0])
        return angles


def _mark_tokens(arguments: Iterable[Tensor | Streams | None]) -> None:
    """Tell the compiler that the number of tokens varies, and nothing else."""
    import torch

    for item in arguments:
        if isinstance(item, tuple):
            _mark_tokens(item)
        elif item is not None and item.dim():
            torch._dynamo.maybe_mark_dynamic(item, 0)  # noqa: SLF001 - documented, though its module is private
