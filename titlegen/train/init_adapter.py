"""Training that starts from an adapter: where it is, whether it fits, and how its values get onto the model."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from titlegen.adapter import CONFIG, WEIGHTS, AdapterDeltas, digest_base, tail_of
from titlegen.errors import ConfigError, ExportError, TrainError
from titlegen.files import digest_file, digest_json
from titlegen.models import download, name_of_base
from titlegen.settings import EMBEDDED, TrainSettings

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn

_REMEDY = "train without it: --train.init-adapter none"
# Source: Unsloth's names of one model in other precisions.
_PRECISION = re.compile(r"(-unsloth)?(-bnb-4bit|-bf16)$")


def resolve_init_adapter(name: str) -> Path:
    """Return the directory of an adapter: a local one, one on the Hub, or the ``embedded`` one of the quickstart.

    Raises:
        ConfigError: the name is neither a directory nor on the Hub, or what is there is no safetensors file.
        TitlegenError: the Hub cannot be reached, or does not give access.
    """
    setting = "train.init_adapter"
    directory = Path(str(resources.files("titlegen") / "starter")) if name == EMBEDDED else Path(name)
    if not directory.is_dir():
        if name.startswith((".", "/", "~")):
            raise ConfigError(f"{setting} {name!r} is not a directory; give an existing one, or a Hub name")
        directory = download(name, None, [CONFIG, WEIGHTS], setting)
    if not (directory / WEIGHTS).is_file() or not (directory / CONFIG).is_file():
        pickles = [path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl") for path in directory.glob(pattern)]
        found = f"only {', '.join(sorted(pickles)[:3])}, which can run code when loaded" if pickles else "no adapter"
        raise ConfigError(
            f"{setting} {name!r} holds {found}; {WEIGHTS} and {CONFIG} are needed, as `titlegen train` and PEFT write"
        )
    return directory


def digest_init_adapter(directory: Path) -> str:
    """Return a digest of the files of an adapter that training uses."""
    return digest_json([digest_file(directory / name) for name in (CONFIG, WEIGHTS)])


def load_init_adapter(model: PeftModel, directory: Path, base: Path, settings: TrainSettings) -> None:
    """Put the values of an adapter on a model that has a fresh one of the same shape.

    Args:
        model: the PEFT model.
        directory: the adapter to start from.
        base: directory of the base model.
        settings: rank, scale and layers of the adapter that is trained.

    Raises:
        TrainError: the adapter is damaged, or was made for another base model, rank, scale or choice of layers.
    """
    import torch

    try:
        adapter = AdapterDeltas(directory)
    except (ConfigError, ExportError) as error:
        raise TrainError(f"train.init_adapter: {error}") from error
    _check_base(adapter, directory, base)
    for option, found, wanted in (
        ("lora-r", adapter.rank, settings.lora_r),
        ("lora-alpha", adapter.alpha, settings.lora_alpha),
    ):
        if found != wanted:
            raise TrainError(
                f"train.init_adapter {directory} has {option.replace('-', '_')} {found:g}, the settings {wanted}; give "
                f"--train.{option} {found:g}, or {_REMEDY}"
            )
    fresh = _parameters(model)
    saved = {tail_of(module): module for module in adapter.modules}
    if odd := sorted(set(saved) ^ set(fresh)):
        place = "the adapter alone" if odd[0] in saved else "the settings alone"
        raise TrainError(
            f"train.init_adapter {directory} changes other layers than train.target_modules ({len(odd)}, the first "
            f"{odd[0]!r}, in {place}); give the same --train.target-modules, or {_REMEDY}"
        )
    with torch.no_grad():
        for tail, module in saved.items():
            for parameter, values in zip(fresh[tail], adapter.factors(module), strict=True):
                if parameter.shape != values.shape:
                    raise TrainError(
                        f"train.init_adapter {directory}: {module} has shape {tuple(values.shape)}, the model "
                        f"{tuple(parameter.shape)}; it was trained on another base model, so {_REMEDY}"
                    )
                if not bool(torch.isfinite(values).all()):
                    raise TrainError(f"train.init_adapter {directory}: {module} holds NaN or Inf; {_REMEDY}")
                parameter.copy_(values)


def _parameters(model: PeftModel) -> dict[str, tuple[nn.Parameter, nn.Parameter]]:
    """Return A and B of each module that the model's adapter changes, by the module's name from ``layers.`` on."""
    found = dict(model.named_parameters())
    mark = ".lora_A.default.weight"
    names = [name for name in found if name.endswith(mark)]
    return {
        tail_of(name.removesuffix(mark)): (found[name], found[name.replace(".lora_A.", ".lora_B.")]) for name in names
    }


def _check_base(adapter: AdapterDeltas, directory: Path, base: Path) -> None:
    if adapter.base_digest is not None:
        if adapter.base_digest != digest_base(base):
            raise TrainError(
                f"train.init_adapter {directory} was trained on other weights than those of {base} "
                f"({adapter.base_name or 'unnamed'}); give that model with --model.base, or {_REMEDY}"
            )
        return
    # Other tools write the base model's name alone.
    wanted = name_of_base(base).rpartition("/")[2].lower()
    found = _PRECISION.sub("", adapter.base_name.rstrip("/").rpartition("/")[2].lower())
    if found != wanted:
        raise TrainError(
            f"train.init_adapter {directory} names the base model {adapter.base_name!r}, and model.base is {wanted!r}; "
            f"give that model with --model.base, or correct base_model_name_or_path in its {CONFIG} where both are the "
            "same weights"
        )
