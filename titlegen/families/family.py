"""Everything that titlegen knows of a model family, as one frozen record."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from titlegen.families.blocks import Decoder
from titlegen.families.size import ModelSize
from titlegen.prompt import PromptFormat


@dataclass(frozen=True, kw_only=True)
class TokenIds:
    """The control tokens' places in the vocabulary."""

    pad: int
    eos: int
    bos: int
    unk: int
    end_of_turn: int

    @property
    def stop(self) -> list[int]:
        """The tokens that end a title, as ``eos_token_id`` names them."""
        return [self.eos, self.end_of_turn]


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary position embeddings of one kind of layer."""

    parameters: Mapping[str, object]
    """In transformers' form, where a configuration says nothing."""
    flat: str | None = None
    """Name of the base frequency in older configurations, which the importers of Ollama and llama.cpp read."""
    scaling: str | None = None
    """Name of its scaling in older configurations."""


@dataclass(frozen=True, kw_only=True)
class Licence:
    """The licence of the weights."""

    hub_id: str
    """Name of the licence in the metadata of a model card."""
    notice: str
    """Text of NOTICE, for an export whose base model comes with none."""
    card: str
    """Section of the model card, in Markdown."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelFamily:
    """One family of base models; there is one record of each, so that it is equal to itself alone."""

    name: str
    """Its architecture in a GGUF file."""
    title: str
    """What people call it."""
    model_types: frozenset[str]
    """``model_type`` of its text configurations."""
    architectures: frozenset[str]
    """Classes that are trained and exported; others of the family are refused.

    Source: Ollama's safetensors importers, of which titlegen makes these; the GGUF converter takes others too, and runs
    code that comes with some of them.
    """
    tokens: TokenIds
    prompt: PromptFormat
    tokenizer_files: tuple[str, ...]
    """Files that a model directory must have, for transformers and for the GGUF converter."""
    rope: Mapping[str, Rope]
    """By the kind of layer, as ``layer_types`` names it."""
    full_every: int | None = None
    """Every so many layers one with full attention, where llama.cpp fixes that in code."""
    also_written: Callable[[Mapping[str, Any]], dict[str, object]] = lambda _: {}
    """Returns keys that an importer reads and transformers does not write, given the text configuration."""
    refusal: Callable[[Mapping[str, Any]], str | None] = lambda _: None
    """Returns why a model with this ``config.json`` cannot be used, and what can; None for one that can."""
    towers: str
    """Pattern of the modules for pictures and sound: they get no adapter, and have no place in a GGUF file."""
    not_quantised: tuple[str, ...]
    """Patterns of linear layers that are kept out of the 4 bits."""
    decoder: type[Decoder]
    """Class of the trimmed computation."""
    gguf_norm_shift: float
    """The constant that llama.cpp's converter adds to the weights of norms."""
    gguf_tokenizer: str
    """``tokenizer.ggml.model``."""
    gguf_fields: Callable[[Mapping[str, Any]], dict[str, object]]
    """Returns a file's fields of this architecture, given the text configuration."""
    gguf_defaults: Mapping[str, object]
    """Those that llama.cpp has in its code, for files that state none."""
    gguf_stacked: str | None
    """Pattern of tensors that the converter stacks: the stem, and the place in it."""
    sizes: tuple[ModelSize, ...]
    """The sizes that were measured."""
    renamed: Mapping[str, str]
    """Names that people try on the Hub and that do not exist there, with what they mean."""
    renamed_in_ollama: Mapping[str, str]
    """Likewise in Ollama's library."""
    licence: Licence

    def rope_parameters(self, text: Mapping[str, Any]) -> dict[str, dict[str, object]]:
        """Return how positions turn in each kind of layer, from either form of a text configuration.

        transformers 5 writes it as ``rope_parameters``; older configurations have a name for each value.
        """
        nested = text.get("rope_parameters") or {}
        found = {}
        for kind, rope in self.rope.items():
            scaling = (text.get(rope.scaling) if rope.scaling else None) or {}
            base = {"rope_theta": text[rope.flat]} if rope.flat is not None and rope.flat in text else {}
            found[kind] = {**rope.parameters, **base, **scaling, **(nested.get(kind) or {})}
        return found

    def is_left_out(self, key: str) -> bool:
        """Return whether a tensor has no place in a GGUF file of the text model."""
        return re.search(rf"{self.towers}|embed_vision|embed_audio|^lm_head\.weight$", key) is not None
