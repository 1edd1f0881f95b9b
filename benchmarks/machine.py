"""The machine of a measurement, and the file of its figures."""

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from titlegen.files import write_atomically
from titlegen.settings import load_settings


def device_name() -> str:
    """Return the card's name, or what there is instead."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return cpu_name()


def describe_run(name: str, *packages: str) -> dict[str, Any]:
    """Return how a result in benchmarks/results begins: name, device, date and versions of packages."""
    return {
        "name": name,
        "device": device_name(),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {package: metadata.version(package) for package in packages},
    }


def write_report(path: Path, found: Mapping[str, Any], *packages: str, name: str = "") -> None:
    """Write a result of a script that says where its figures go, and print it; ``name`` is the file's by default."""
    text = json.dumps(describe_run(name or path.stem, *packages) | dict(found), ensure_ascii=False, indent=2)
    write_atomically(path, text + "\n")
    print(text)


def cpu_name() -> str:
    """Return how many CPU cores this machine has, and of what kind."""
    return f"{os.cpu_count()} CPU cores, {platform.machine()}"


def measured_folder() -> Path:
    """Return where benchmarks write: beside the other outputs, so that measuring changes no file of the project."""
    return load_settings().output / "benchmarks"


def write_result(name: str, metrics: Mapping[str, float], notes: str, *packages: str, device: str = "") -> Path:
    """Write figures as ``outputs/benchmarks/NAME.json``, over those of an earlier run that are measured anew.

    ``benchmarks/keep.py`` takes them into the project.
    """
    path = measured_folder() / f"{name}.json"
    known = json.loads(path.read_bytes())["metrics"] if path.is_file() else {}
    record = {
        "name": name,
        "device": device or cpu_name(),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}},
        "metrics": known | {name: round(value, 4) for name, value in metrics.items()},
        "notes": notes,
    }
    write_atomically(path, json.dumps(record, ensure_ascii=False, indent=2) + "\n")
    print(path)
    return path
