"""Checks of this machine for a profile: what is there, what is missing, and what each problem needs."""

import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from titlegen.environment import check_remote
from titlegen.errors import ConfigError
from titlegen.plural import count
from titlegen.processor import describe_processor, missing_features
from titlegen.settings import EMBEDDED, Settings
from titlegen.train.backends import MIN_GIB
from titlegen.train.devices import choose_devices, find_cards

_PYTHON = (3, 11)
# Measured: the quickstart writes about 2.5 GiB. Gemma 3n E4B: base 15 GiB, merged 15, GGUF 7, the bundled Hub's copy of
# both 21, the server's copy 7, checkpoints; `titlegen plan` shows them.
_DISK_GIB = {"peft": 5, "unsloth": 70}
# Scoring holds the 16-bit model, 14.6 GiB.
_GPU_GIB = 16
_COMMAND_TIMEOUT_S = 20
_SEVERAL = 2
# A machine or card that is sold with so much says a little less: 15.6 to 16.0 GiB for 16.
_MEMORY_SLACK = 0.95


class MachineCheck(NamedTuple):
    """One fact about the machine; ``missing`` stops the profile, ``absent`` only turns a feature off."""

    name: str
    state: Literal["ok", "absent", "missing"]
    found: str
    remedy: str = ""


def examine(settings: Settings) -> list[MachineCheck]:
    """Run every check; a check never fails, it reports."""
    checks: list[Callable[[Settings], MachineCheck]] = [
        _python,
        _processor,
        _memory,
        _disk,
        _torch,
        _gpu,
        _cards,
        _compiler,
        _driver,
        _container_toolkit,
        _unsloth,
        _base_model,
        _hub_token,
        _ollama,
    ]
    return [_safely(check, settings) for check in checks]


def _safely(check: Callable[[Settings], MachineCheck], settings: Settings) -> MachineCheck:
    name = check.__name__.strip("_").replace("_", " ")
    try:
        return check(settings)
    except ConfigError as error:
        what, _, remedy = str(error).rpartition("; ")
        return MachineCheck(name, "missing", what, remedy)
    except Exception as error:  # noqa: BLE001 - whatever this machine does, the other checks are wanted
        return MachineCheck(
            name, "missing", f"cannot be looked at ({type(error).__name__}: {error})", "see what it says"
        )


def table(checks: list[MachineCheck]) -> str:
    """Return the checks as text, one line each, with the remedy below a problem."""
    lines = []
    for check in checks:
        mark = {"ok": "ok     ", "absent": "absent ", "missing": "MISSING"}[check.state]
        lines.append(f"{mark}  {check.name:<18} {check.found}")
        if check.remedy:
            lines.append(f"{'':27} -> {check.remedy}")
    return "\n".join(lines)


def _needs_gpu(settings: Settings) -> bool:
    return settings.train.backend == "unsloth"


def _without(settings: Settings, name: str, found: str, remedy: str = "") -> MachineCheck:
    """Return the check of something that is not there, and that only a profile for the GPU needs."""
    return MachineCheck(name, "missing", found, remedy) if _needs_gpu(settings) else MachineCheck(name, "absent", found)


def _python(_: Settings) -> MachineCheck:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info[:2] < _PYTHON:
        return MachineCheck("Python", "missing", found, "install Python 3.11, 3.12 or 3.13")
    return MachineCheck("Python", "ok", found)


def _processor(_: Settings) -> MachineCheck:
    if missing := missing_features():
        remedy = f"verify and the bundled server need {', '.join(missing)}; use a machine of 2015 or later"
        return MachineCheck("processor", "missing", describe_processor(), remedy)
    return MachineCheck("processor", "ok", describe_processor())


def _memory(settings: Settings) -> MachineCheck:
    import psutil

    gib = psutil.virtual_memory().total / 2**30
    needed = 24 if _needs_gpu(settings) else 8
    # What a machine sold with 24 GiB has left beside its kernel is a little less.
    if gib < needed * _MEMORY_SLACK:
        return MachineCheck("memory", "missing", f"{gib:.1f} GiB", f"this profile needs {needed} GiB")
    return MachineCheck("memory", "ok", f"{gib:.0f} GiB, {count(psutil.cpu_count() or 1, 'core')}")


def _disk(settings: Settings) -> MachineCheck:
    folder = settings.output.absolute()
    # A folder without read permission raises PermissionError.
    while not os.path.exists(folder):  # noqa: PTH110
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 2**30
    needed = _DISK_GIB[settings.train.backend]
    if free < needed:
        remedy = f"this profile needs {needed} GiB; free some, or choose another disk with --output"
        # With a decimal, and never rounded up to what is needed.
        return MachineCheck("disk", "missing", f"{math.floor(free * 10) / 10:.1f} GiB free at {folder}", remedy)
    return MachineCheck("disk", "ok", f"{free:.0f} GiB free at {folder}")


def _torch(settings: Settings) -> MachineCheck:
    try:
        import torch
    except ImportError:
        return MachineCheck("torch", "missing", "not installed", "python -m pip install -c constraints.txt -e .")
    if torch.version.cuda is None:
        remedy = "install a CUDA build of torch: python -m pip install -c constraints.txt torch"
        return _without(settings, "torch", f"{torch.__version__}, without CUDA", remedy)
    return MachineCheck("torch", "ok", f"{torch.__version__}, CUDA {torch.version.cuda}")


def _gpu(settings: Settings) -> MachineCheck:
    try:
        import torch
    except ImportError:
        return _without(settings, "GPU", "unknown without torch")
    if not torch.cuda.is_available():
        remedy = "run on a machine with an NVIDIA GPU, or use --profile quickstart"
        return _without(settings, "GPU", "torch sees none", remedy)
    properties = torch.cuda.get_device_properties(0)
    gib = properties.total_memory / 2**30
    found = f"{properties.name}, {gib:.0f} GiB"
    if _needs_gpu(settings) and gib < _GPU_GIB * _MEMORY_SLACK:
        remedy = f"scoring an E4B needs {_GPU_GIB} GiB; training alone {MIN_GIB}, with --train.low-memory"
        return MachineCheck("GPU", "missing", f"{properties.name}, {gib:.1f} GiB", remedy)
    return MachineCheck("GPU", "ok", found)


def _cards(settings: Settings) -> MachineCheck:
    """Look at what several cards need to train together."""
    import torch

    name = "several cards"
    cards, source = find_cards()
    if cards < _SEVERAL:
        return MachineCheck(name, "absent", f"{count(cards, 'card')}; one process trains")
    found = [torch.cuda.get_device_properties(number) for number in range(cards)]
    sizes = ", ".join(f"{card.name} {card.total_memory / 2**30:.0f} GiB" for card in found)
    devices = choose_devices(settings.train, cards, source)
    if not torch.distributed.is_nccl_available():
        remedy = "install a CUDA build of torch, whose NCCL lets cards exchange gradients, or --train.devices 1"
        return MachineCheck(name, "missing" if devices.count > 1 else "absent", f"{sizes}; torch has no NCCL", remedy)
    pairs = [(a, b) for a in range(cards) for b in range(cards) if a != b]
    apart = [f"{a} and {b}" for a, b in pairs if a < b and not torch.cuda.can_device_access_peer(a, b)]
    remarks = [f"{sizes}; training takes {devices.why}"]
    if len({(card.name, card.total_memory) for card in found}) > 1:
        remarks.append("they are unequal: the slowest sets the pace, and the smallest decides about memory")
    if apart:
        remarks.append(f"no direct access between {'; '.join(apart)}: gradients take the way through host memory")
    return MachineCheck(name, "ok", "; ".join(remarks))


def _compiler(settings: Settings) -> MachineCheck:
    found = next((name for name in ("gcc", "cc", "clang") if shutil.which(name)), None)
    if found is None:
        loss = "training compiles nothing without, and takes three times as long" if _needs_gpu(settings) else ""
        return MachineCheck("C compiler", "absent", "none found", loss and f"install gcc: {loss}")
    return MachineCheck("C compiler", "ok", found)


def _driver(settings: Settings) -> MachineCheck:
    output = _output(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
    if output is None:
        remedy = "install the NVIDIA driver, so that nvidia-smi answers"
        return _without(settings, "NVIDIA driver", "nvidia-smi does not answer", remedy)
    return MachineCheck("NVIDIA driver", "ok", output.splitlines()[0])


def _container_toolkit(_: Settings) -> MachineCheck:
    output = _output(["nvidia-ctk", "--version"])
    if output is None:
        return MachineCheck("container toolkit", "absent", "nvidia-ctk not found; only the compose files need it")
    return MachineCheck("container toolkit", "ok", output.splitlines()[0])


def _unsloth(settings: Settings) -> MachineCheck:
    from importlib import metadata

    try:
        return MachineCheck("Unsloth", "ok", metadata.version("unsloth"))
    except metadata.PackageNotFoundError:
        return _without(settings, "Unsloth", "not installed", "python -m pip install -c constraints.txt -e '.[gpu]'")


def _base_model(settings: Settings) -> MachineCheck:
    base = settings.model.base
    if base == EMBEDDED or Path(base).is_dir():
        return MachineCheck("base model", "ok", base)
    import httpx
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    check_remote(constants.ENDPOINT)
    try:
        HfApi().model_info(base, timeout=_COMMAND_TIMEOUT_S)
        return MachineCheck("base model", "ok", f"{base} is accessible")
    except GatedRepoError:
        remedy = f"accept its terms at https://huggingface.co/{base} and run: hf auth login"
        return MachineCheck("base model", "missing", f"{base} is gated", remedy)
    except RepositoryNotFoundError:
        return MachineCheck(
            "base model", "missing", f"{base} does not exist, or needs a token", "check the name; hf auth login"
        )
    except HFValidationError:
        return MachineCheck(
            "base model", "missing", f"{base} is neither a directory nor a Hub name", "check the spelling"
        )
    except (HfHubHTTPError, httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        remedy = "check the network and HF_ENDPOINT, or give a local directory with --model.base"
        return MachineCheck("base model", "missing", f"{base}: no answer ({type(error).__name__})", remedy)


def _hub_token(_: Settings) -> MachineCheck:
    from huggingface_hub import get_token

    if get_token() is None:
        return MachineCheck(
            "Hub token", "absent", "none; push uses the bundled offline Hub", "for huggingface.co: hf auth login"
        )
    return MachineCheck("Hub token", "ok", "configured")


def _ollama(settings: Settings) -> MachineCheck:
    from titlegen.serve.server import OLLAMA, find_server, server_url

    try:
        url = server_url(settings.serve.host)
        server = find_server(url)
    except ConfigError as error:
        what, _, remedy = str(error).rpartition("; ")
        return MachineCheck("model server", "absent", what, remedy)
    if server is not None:
        return MachineCheck("model server", "ok", f"{server.kind} {server.version} at {url}")
    installed = shutil.which("ollama")
    found = f"none answers at {url}; " + (f"{installed} is installed" if installed else f"{OLLAMA} is not installed")
    return MachineCheck("model server", "absent", found, "" if installed else "deploy uses the bundled server instead")


def _output(command: list[str]) -> str | None:
    """Return a program's output, or None when it is missing or fails."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_COMMAND_TIMEOUT_S)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None
