"""What a measurement ran on."""

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from typing import Any


def device_name() -> str:
    """Return the card's name, or what there is instead."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} CPU cores, {platform.machine()}"


def describe_run(name: str, *packages: str) -> dict[str, Any]:
    """Return how a result in benchmarks/results begins: name, device, date and versions of packages."""
    return {
        "name": name,
        "device": device_name(),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {package: metadata.version(package) for package in packages},
    }
