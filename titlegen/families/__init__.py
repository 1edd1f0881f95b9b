"""The model families, one file each: a module of this package with a ``FAMILY`` is one."""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from titlegen.errors import ConfigError
from titlegen.families.family import Licence, ModelFamily, Rope, TokenIds
from titlegen.families.size import ModelSize

__all__ = [
    "Licence",
    "ModelFamily",
    "ModelSize",
    "Rope",
    "TokenIds",
    "all_families",
    "family_of",
    "family_of_gguf",
    "neutralise_control_tokens",
]


@cache
def all_families() -> tuple[ModelFamily, ...]:
    """Return every family, by its module's name."""
    names = sorted(module.name for module in iter_modules(__path__))
    modules = [import_module(f"{__name__}.{name}") for name in names]
    return tuple(module.FAMILY for module in modules if hasattr(module, "FAMILY"))


def family_of(config: Mapping[str, Any]) -> ModelFamily:
    """Return the family of a model, given its ``config.json``.

    Raises:
        ConfigError: it is none that titlegen knows, or of a size that is not supported.
    """
    text = config.get("text_config", config)
    model_type = text.get("model_type") if isinstance(text, Mapping) else None
    for family in all_families():
        if reason := family.refusal(config):
            raise ConfigError(reason)
        if model_type in family.model_types:
            return family
    known = ", ".join(family.title for family in all_families())
    raise ConfigError(
        f"a model of type {model_type or config.get('model_type')!r} is of no family that titlegen knows ({known}); "
        "give a model of one of these with --model.base"
    )


def family_of_gguf(architecture: str) -> ModelFamily | None:
    """Return the family of a GGUF file, given its ``general.architecture``; None where it is unknown."""
    return next((family for family in all_families() if family.name == architecture), None)


def neutralise_control_tokens(text: str) -> str:
    """Neutralise the control tokens of every family."""
    for prompt in {family.prompt.control: family.prompt for family in all_families()}.values():
        text = prompt.neutralise(text)
    return text
