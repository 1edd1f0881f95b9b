"""Configurations of an export against those of its base model."""

from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from titlegen.families import ModelFamily
from titlegen.models import read_json, text_config
from titlegen.verify.check import Check, none_wrong

# Keys that an export may change.
_SETTINGS_FILES = {
    "generation_config.json": {"bos_token_id", "eos_token_id", "pad_token_id", "transformers_version"},
    "tokenizer_config.json": {"added_tokens_decoder", "extra_special_tokens"},
}


def what_is_compared(base: Path | None) -> str:
    """Return the description of this check for a report."""
    return f"config.json against {base.name if base else 'the importers'}"


def check_config(export: Path, base: Path | None, family: ModelFamily) -> Check:
    """The configuration is the base model's, plus what the importers of Ollama and llama.cpp read."""
    config = read_json(export / "config.json")
    text = text_config(config)
    wrong = []
    architectures = config.get("architectures") or []
    if not set(architectures) <= family.architectures or not architectures:
        wrong.append(f"architectures {architectures} is not importable; known: {sorted(family.architectures)}")
    wrong += _importer_faults(text, family)
    for name in ("config.json", "generation_config.json"):
        stop = read_json(export / name).get("eos_token_id") if (export / name).is_file() else None
        if stop != family.tokens.stop:
            wrong.append(
                f"{name}: eos_token_id is {stop}, {family.tokens.stop} is needed; without {family.prompt.end_of_turn} "
                "the model writes on after the title"
            )
    period = family.full_every
    kinds = text.get("layer_types") or []
    if period and any((kind == "full_attention") != ((i + 1) % period == 0) for i, kind in enumerate(kinds)):
        wrong.append(f"llama.cpp takes every {period}th layer as a full one, layer_types does not")
    if base:
        wrong += _config_changes(text, read_json(base / "config.json"), family)
        wrong += _other_changes(export, base, family)
    return none_wrong("config.values", what_is_compared(base), wrong)


def _importer_faults(text: dict[str, Any], family: ModelFamily) -> list[str]:
    """Return what the importers of Ollama and llama.cpp would miss, or read differently from transformers."""
    wrong = []
    rope = text.get("rope_parameters") or {}
    for kind, form in family.rope.items():
        flat, nested = form.flat, rope.get(kind, {}).get("rope_theta")
        if flat is not None and (text.get(flat) is None or nested != text.get(flat)):
            wrong.append(f"{flat} is {text.get(flat)}, rope_parameters.{kind}.rope_theta is {nested}")
    wrong += [
        f"{name} is {text.get(name)}, {value} is needed, which the GGUF converter reads"
        for name, value in family.also_written(text).items()
        if text.get(name) != value
    ]
    return wrong


def _config_changes(text: dict[str, Any], original: dict[str, Any], family: ModelFamily) -> list[str]:
    """Return what differs from the base model's configuration, apart from what an export adds."""
    original_text = text_config(original)
    found, expected = family.rope_parameters(text), family.rope_parameters(original_text)
    rope = [f"rope_parameters are {found}, the base model's {expected}"] if found != expected else []
    added = {"rope_parameters", "eos_token_id", "dtype", "torch_dtype", "text_config"}
    added |= {form.flat for form in family.rope.values() if form.flat is not None} | set(family.also_written(text))
    return rope + _changes("", text, original_text, added)


def _other_changes(export: Path, base: Path, family: ModelFamily) -> list[str]:
    """Return what differs in the files that decide how text is tokenized and titles are generated."""
    wrong = []
    for name, added in _SETTINGS_FILES.items():
        found, expected = (read_json(place / name) if (place / name).is_file() else {} for place in (export, base))
        wrong += _changes(f"{name}: ", found, expected, added)
        if _further_tokens(found, family) != _further_tokens(expected, family):
            wrong.append(f"{name}: extra_special_tokens are not the base model's")
    template = export / "chat_template.jinja"
    original = base / template.name
    expected_text = original.read_text(encoding="utf-8") if original.is_file() else family.prompt.chat_template
    if template.is_file() and template.read_text(encoding="utf-8") != expected_text:
        wrong.append(f"{template.name} differs from the base model's")
    return wrong


def _further_tokens(config: dict[str, Any], family: ModelFamily) -> list[str]:
    """Return the further special tokens that a tokenizer's configuration names, but for the turn marks."""
    extra = config.get("extra_special_tokens") or []
    values = extra.values() if isinstance(extra, dict) else extra
    return [str(value) for value in values if value not in {family.prompt.start_of_turn, family.prompt.end_of_turn}]


def _changes(where: str, found: dict[str, Any], expected: dict[str, Any], added: AbstractSet[str]) -> list[str]:
    return [
        f"{where}{key} is {found.get(key)}, the base model's {expected.get(key)}"
        for key in sorted((found.keys() | expected.keys()) - added)
        if found.get(key) != expected.get(key)
    ]
