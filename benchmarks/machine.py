"""What a measurement ran on."""

import os
import platform


def device_name() -> str:
    """Return the card's name, or what there is instead."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} CPU cores, {platform.machine()}"
