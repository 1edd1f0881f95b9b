"""Configurations of model directories, read and judged before anything is loaded."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from titlegen.errors import ConfigError
from titlegen.files import write_atomically


def check_safe(directory: Path) -> None:
    """Refuse a model directory that could run code when loaded, or that reaches outside of itself.

    Raises:
        ConfigError: naming the file and the reason.
    """
    if not (directory / "config.json").is_file():
        raise ConfigError(f"{directory} has no config.json; it is not a Hugging Face model directory")
    config = read_json(directory / "config.json")
    for name in ("config.json", "tokenizer_config.json"):
        if (directory / name).is_file() and "auto_map" in read_json(directory / name):
            raise ConfigError(f"{directory / name} asks for remote code (auto_map); titlegen never runs a model's code")
    # A file that transformers would load instead of, or over, the shards that the index names.
    index = directory / "model.safetensors.index.json"
    single = directory / "model.safetensors"
    if index.is_file() and single.is_file() and single.name not in (read_json(index).get("weight_map") or {}).values():
        raise ConfigError(f"{single} is not in {index.name}, and would be loaded in place of it; remove one of the two")
    if (directory / "adapter_config.json").is_file():
        raise ConfigError(
            f"{directory} holds an adapter beside the model, which would be loaded, too; move it elsewhere"
        )
    if "transformers_weights" in config:
        raise ConfigError(f"{directory / 'config.json'} names other weights (transformers_weights); take that out")
    if "quantization_config" in config:
        raise ConfigError(f"{directory} is quantised; training and merging need the 16-bit weights")
    if not any(directory.glob("*.safetensors")):
        pickles = [path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl") for path in directory.glob(pattern)]
        found = f"only pickle files ({', '.join(pickles[:3])})" if pickles else "no weights"
        raise ConfigError(f"{directory} holds {found}; titlegen loads safetensors only")


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the text model's configuration: all of it, or a part when there are towers beside it.

    Raises:
        ConfigError: that part is no object.
    """
    text = config.get("text_config", config)
    if not isinstance(text, dict):
        raise ConfigError(
            f"text_config in config.json holds {type(text).__name__}, an object is needed; fetch the model again"
        )
    return text


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ConfigError: the file does not hold one.
    """
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}; fetch or export the model again") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; fetch or export the model again") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds {type(value).__name__}, an object is needed; fetch or export the model again")
    return value


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Write an object as JSON, beside and then over the old one."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
